"""One session of the uplink, step by step without a thread: what it believes, and what counts as progress."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from chains import BOOT, WINDOW_NS, append, open_chain
from whole_line import Wire

from flopmeter.agent.shipping.chain import Chain
from flopmeter.agent.shipping.status import Identity
from flopmeter.agent.shipping.uplink import Uplink, _Session, _SessionError
from flopmeter.wire.v1 import ingest_pb2 as pb


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[Chain]:
    chain = open_chain(tmp_path)
    yield chain
    chain.spool.close()


def session(chain: Chain, welcome: pb.Welcome) -> _Session:
    wire = Wire()
    wire.handed = [
        pb.StreamResponse(challenge=pb.Challenge(nonce=b"n" * 32)).SerializeToString(),
        pb.StreamResponse(welcome=welcome).SerializeToString(),
    ]
    made = _Session(Uplink("the test", chain, Identity("node", "0.1.0", BOOT), rng=Random(1)), wire)
    asyncio.run(made._handshake())
    return made


@pytest.mark.parametrize("size", [1, 31, 33, 64])
def test_a_hash_that_is_none_changes_nothing(chain: Chain, size: int) -> None:
    """Believed, the chain would be moved behind a hash that no record can quote."""
    append(chain, 0, 2)
    welcome = pb.Welcome(
        resume_seq=9, head_hash=b"x" * size, head_boot_id=BOOT, head_window_end_boot_ns=WINDOW_NS
    )
    with pytest.raises(_SessionError, match="a hash of 32 bytes") as caught:
        session(chain, welcome)
    assert caught.value.hopeless
    assert [e.seq for e in chain.spool.entries(1)] == [1, 2]
    assert chain.take_remarks() == ([], None)


def test_only_what_is_newly_durable_is_progress(chain: Chain) -> None:
    append(chain, 0, 2)
    made = session(chain, pb.Welcome(resume_seq=1))
    assert asyncio.run(made._send_some())
    backoff = made._up.backoff
    for _ in range(3):
        backoff.next_s()
    made._acked(0)
    assert backoff.failures == 3
    made._acked(2)
    assert backoff.failures == 0
    backoff.next_s()
    made._acked(2)
    assert backoff.failures == 1
