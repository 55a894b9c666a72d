"""Shared by the uplink's tests: how long to wait, and what must be in the books."""

from collections.abc import Callable

from chains import window

from fakes import FakeCollector
from flopmeter.agent.shipping.chain import Chain
from flopmeter.agent.shipping.encode import encode_batch
from flopmeter.agent.shipping.status import Timing
from flopmeter.agent.shipping.uplink import Uplink
from flopmeter.collector.encode import decode_batch
from flopmeter.contract.record import parse_record
from flopmeter.contract.usage import GapReason

WAIT_S = 60.0
FAST = Timing(connect_s=5, handshake_s=5, ack_s=5, heartbeat_s=60, backoff_base_s=0.01, backoff_cap_s=0.05)
Connect = Callable[..., Uplink]


def settled(uplink: Uplink, seq: int) -> None:
    assert uplink.wait_acked(seq, WAIT_S), uplink.status


def in_books(collector: FakeCollector, chain: Chain) -> None:
    """The books hold the chain of the spool, whole."""
    assert collector.records == {e.seq: e.record for e in chain.spool.entries(1)}


def gaps_of(raw: bytes) -> list[tuple[int, GapReason, int]]:
    batch = decode_batch(parse_record(raw).payload)
    return [(u.entity_index, u.gap_reason, u.duration_ns) for u in batch.usage]


def payload_of(chain: Chain, seq: int) -> bytes:
    return encode_batch(window(seq - 1).batch)
