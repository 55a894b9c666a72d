"""The chain's answers to what a collector says of its head, without a stream. The stream's: test_uplink.py."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from chains import BOOT, OTHER_BOOT, WINDOW_NS, append, open_chain

from flopmeter.agent.shipping.chain import Chain, HeadFacts
from flopmeter.contract.record import HEADER_BYTES, SIGNATURE_BYTES
from flopmeter.contract.usage import NoticeKind

FOREIGN = b"x" * 32


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[Chain]:
    chain = open_chain(tmp_path)
    yield chain
    chain.spool.close()


def payloads(chain: Chain) -> list[bytes]:
    return [e.record[HEADER_BYTES:-SIGNATURE_BYTES] for e in chain.spool.entries(1)]


def kinds(chain: Chain) -> list[NoticeKind]:
    return [remark.kind for remark in chain.take_remarks()[0]]


def test_the_tips_number_under_another_hash_is_another_chain(chain: Chain) -> None:
    append(chain, 0, 3)
    chain.ack(3)
    assert chain.resume(HeadFacts(4, FOREIGN, BOOT, 3 * WINDOW_NS)) == 4
    assert kinds(chain) == [NoticeKind.REANCHORED]
    append(chain, 3, 1)
    assert chain.spool.entry(4).prev_hash == FOREIGN


def test_a_record_that_fits_but_tells_of_time_in_the_books_is_set_aside(chain: Chain) -> None:
    append(chain, 0, 3)
    sealed = payloads(chain)
    assert chain.resume(HeadFacts(1, b"", BOOT, WINDOW_NS)) == 1
    assert payloads(chain) == sealed[1:]
    assert len(list((chain.spool.directory / "quarantine").glob("record-1-*.txt"))) == 1


def test_acknowledged_records_of_the_heads_boot_are_moved_behind_it(chain: Chain) -> None:
    """The collector is an older copy whose last record is not ours: what it had of that boot is in no books."""
    append(chain, 0, 5)
    sealed = payloads(chain)
    chain.ack(5)
    chain.resume(HeadFacts(3, FOREIGN, BOOT, 2 * WINDOW_NS))
    assert payloads(chain) == sealed[2:]
    assert (chain.spool.oldest_seq, chain.spool.pending) == (3, 3)


def test_acknowledged_records_of_another_boot_are_in_the_books(chain: Chain) -> None:
    append(chain, 0, 2, boot=OTHER_BOOT)
    append(chain, 0, 3)
    sealed = payloads(chain)
    chain.ack(3)
    chain.resume(HeadFacts(4, FOREIGN, BOOT, WINDOW_NS))
    assert payloads(chain) == sealed[3:]


def test_what_stands_in_a_refused_records_place_is_shipped_at_once_and_keeps_the_state(chain: Chain) -> None:
    append(chain, 0, 2)
    chain.ack(1)
    called: list[int] = []
    chain.on_append = lambda: called.append(1)
    state = chain.journal
    chain.refuse(2, "said the test")
    assert called == [1]
    assert chain.spool.pending == 1
    assert chain.journal == state


def test_a_spool_that_was_lost_is_said(chain: Chain) -> None:
    chain.resume(HeadFacts(8, FOREIGN, BOOT, WINDOW_NS))
    assert kinds(chain) == [NoticeKind.SPOOL_LOST]
    chain.resume(HeadFacts(8, FOREIGN, BOOT, WINDOW_NS))
    assert kinds(chain) == []


def test_a_chain_that_the_collector_calls_a_fork_was_not_lost(chain: Chain) -> None:
    append(chain, 2, 2)
    chain.forked()
    chain.resume(HeadFacts(8, FOREIGN, BOOT, WINDOW_NS))
    assert kinds(chain) == [NoticeKind.REANCHORED]
