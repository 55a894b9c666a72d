"""The uplink against a scripted collector on loopback: whatever goes wrong, each record is taken once."""

import gc
import logging
import threading
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest
from chains import BOOT, DEVICE, OTHER_BOOT, WINDOW_NS, append, open_chain, window

from fakes import FakeCollector
from flopmeter.agent.errors import SpoolFullError
from flopmeter.agent.shipping.backoff import Backoff
from flopmeter.agent.shipping.chain import Chain, HeadFacts
from flopmeter.agent.shipping.encode import encode_batch
from flopmeter.agent.shipping.uplink import Identity, Timing, Uplink
from flopmeter.collector.encode import decode_batch
from flopmeter.collector.ingest.encode import BatchView, device_bounds
from flopmeter.contract.limits import MAX_SM_CLOCK_MHZ
from flopmeter.contract.record import parse_record, record_hash
from flopmeter.contract.usage import GapReason, NoticeKind
from flopmeter.wire.v1 import ingest_pb2 as pb

WAIT_S = 20.0
FAST = Timing(connect_s=5, handshake_s=5, ack_s=5, heartbeat_s=60, backoff_base_s=0.01, backoff_cap_s=0.05)


@pytest.fixture
def collector() -> Iterator[FakeCollector]:
    fake = FakeCollector()
    yield fake
    fake.stop()


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[Chain]:
    made = open_chain(tmp_path / "state")
    yield made
    made.spool.close()


Connect = Callable[..., Uplink]


@pytest.fixture
def connect(chain: Chain) -> Iterator[Connect]:
    made: list[Uplink] = []

    def connect(target: str, timing: Timing = FAST, chain: Chain = chain) -> Uplink:
        uplink = Uplink(target, chain, Identity("node-a", "0.1.0", BOOT), rng=Random(1), timing=timing)
        made.append(uplink)
        uplink.start()
        return uplink

    yield connect
    for uplink in made:
        uplink.stop()


def settled(uplink: Uplink, seq: int) -> None:
    assert uplink.wait_acked(seq, WAIT_S), uplink.status


def in_books(collector: FakeCollector, chain: Chain) -> None:
    """The books hold the chain of the spool, whole."""
    assert collector.records == {e.seq: e.record for e in chain.spool.entries(1)}


def test_records_go_up_and_acks_come_down(collector: FakeCollector, chain: Chain, connect: Connect) -> None:
    append(chain, 0, 3)
    uplink = connect(collector.target)
    settled(uplink, 3)
    append(chain, 3, 2)
    settled(uplink, 5)
    in_books(collector, chain)
    assert chain.spool.pending == 0
    status = uplink.status
    assert status.connected
    assert (status.acked_seq, status.connects, status.last_error) == (5, 1, "")
    assert status.last_ack_unix_ns > 0
    hello = collector.hellos[0]
    assert (hello.node, hello.agent_version, hello.boot_id) == ("node-a", "0.1.0", BOOT)
    assert (hello.oldest_seq, hello.newest_seq) == (1, 3)
    assert len(collector.inventories) == 1


def test_a_backlog_travels_many_records_in_a_message(
    collector: FakeCollector, chain: Chain, connect: Connect
) -> None:
    append(chain, 0, 600)
    settled(connect(collector.target), 600)
    in_books(collector, chain)
    assert max(collector.messages) == 256
    assert len(collector.messages) < 60


def test_no_more_is_in_flight_than_the_collector_allows(
    collector: FakeCollector, chain: Chain, connect: Connect
) -> None:
    collector.max_in_flight = 4
    append(chain, 0, 50)
    settled(connect(collector.target), 50)
    assert max(collector.messages) <= 4


def test_a_restart_resumes_from_the_collectors_word(
    collector: FakeCollector, chain: Chain, connect: Connect, tmp_path: Path
) -> None:
    append(chain, 0, 5)
    first = connect(collector.target)
    settled(first, 5)
    first.stop()
    chain.spool.close()
    (tmp_path / "state/spool/acked").unlink()  # the hint is lost
    again = open_chain(tmp_path / "state")
    assert again.spool.pending == 5
    uplink = connect(collector.target, chain=again)
    settled(uplink, 5)
    append(again, 5, 1)
    settled(uplink, 6)
    assert len(collector.received) == 6
    in_books(collector, again)
    uplink.stop()
    again.spool.close()


@pytest.mark.parametrize("after", [0, 1, 7, 30])
def test_a_dropped_stream_loses_and_doubles_nothing(
    collector: FakeCollector, chain: Chain, connect: Connect, after: int
) -> None:
    collector.drop_after = after
    collector.max_in_flight = 5
    append(chain, 0, 31)
    uplink = connect(collector.target)
    settled(uplink, 31)
    in_books(collector, chain)
    assert uplink.status.connects == 2


def test_a_collector_that_comes_late_finds_everything(chain: Chain, connect: Connect) -> None:
    first = FakeCollector()
    port = first.port
    first.stop()
    append(chain, 0, 3)
    uplink = connect(f"127.0.0.1:{port}", Timing(connect_s=0.1, backoff_base_s=0.01, backoff_cap_s=0.05))
    assert uplink.wait_for(lambda: "no connection" in uplink.status.last_error, WAIT_S)
    assert not uplink.status.connected
    late = FakeCollector(port)
    try:
        settled(uplink, 3)
        in_books(late, chain)
    finally:
        late.stop()


def test_no_ack_within_the_deadline_means_a_new_stream(
    collector: FakeCollector, chain: Chain, connect: Connect
) -> None:
    collector.mute = True
    append(chain, 0, 3)
    uplink = connect(collector.target, Timing(ack_s=0.2, backoff_base_s=0.01, backoff_cap_s=0.05))
    assert uplink.wait_for(lambda: "no ack for" in uplink.status.last_error, WAIT_S), uplink.status
    collector.mute = False
    settled(uplink, 3)
    assert uplink.status.connects > 1
    in_books(collector, chain)


def test_a_collector_that_says_nothing_is_left_after_the_deadline(
    collector: FakeCollector, chain: Chain, connect: Connect
) -> None:
    collector.silent_handshake = True
    append(chain, 0, 1)
    uplink = connect(collector.target, Timing(handshake_s=0.1, backoff_base_s=0.01, backoff_cap_s=0.05))
    assert uplink.wait_for(lambda: "no challenge" in uplink.status.last_error, WAIT_S)
    collector.silent_handshake = False
    settled(uplink, 1)


def test_answers_that_are_no_messages_end_the_stream_with_a_reason(
    collector: FakeCollector, chain: Chain, connect: Connect
) -> None:
    collector.garbage = True
    append(chain, 0, 1)
    uplink = connect(collector.target)
    assert uplink.wait_for(lambda: "does not parse" in uplink.status.last_error, WAIT_S)
    collector.garbage = False
    settled(uplink, 1)


@pytest.mark.parametrize(
    "reason",
    [
        pb.Pushback.REASON_STORE_UNAVAILABLE,
        pb.Pushback.REASON_OVERLOADED,
        pb.Pushback.REASON_SHUTTING_DOWN,
        pb.Pushback.REASON_FROM_THE_FUTURE,
        pb.Pushback.REASON_OUT_OF_SEQUENCE,
        77,
    ],
)
def test_a_pushback_is_obeyed_and_the_records_come_again(
    collector: FakeCollector, chain: Chain, connect: Connect, reason: int
) -> None:
    collector.pushbacks = [(4, reason, 50), (9, reason, 1)]
    append(chain, 0, 20)
    uplink = connect(collector.target)
    settled(uplink, 20)
    in_books(collector, chain)
    assert uplink.status.pushbacks >= 2
    # Told where to go on, it goes on there, on the same stream; only a collector that stops ends it.
    assert (uplink.status.connects > 1) == (reason == pb.Pushback.REASON_SHUTTING_DOWN)


def test_an_inventory_that_the_collector_lost_is_sent_again(
    collector: FakeCollector, chain: Chain, connect: Connect
) -> None:
    append(chain, 0, 2)
    uplink = connect(collector.target)
    settled(uplink, 2)
    collector.ask_inventory = True
    append(chain, 2, 3)
    settled(uplink, 5)
    in_books(collector, chain)
    assert uplink.status.connects == 1


def test_a_restored_collector_is_refilled(collector: FakeCollector, chain: Chain, connect: Connect) -> None:
    append(chain, 0, 10)
    uplink = connect(collector.target)
    settled(uplink, 10)
    uplink.stop()
    collector.forget(4)
    collector.head_window_end = 4 * WINDOW_NS
    append(chain, 10, 2)
    again = connect(collector.target)
    settled(again, 12)
    in_books(collector, chain)
    assert chain.take_remarks() == ([], (BOOT, 4 * WINDOW_NS, False))


def test_what_a_restored_collector_lacks_is_pending_again_at_once(chain: Chain) -> None:
    """So that it is not forgotten while it is sent again."""
    append(chain, 0, 10)
    chain.ack(10)
    head = HeadFacts(5, record_hash(chain.spool.entry(4).record), BOOT, 4 * WINDOW_NS)
    assert chain.resume(head) == 5
    assert (chain.spool.acked_seq, chain.spool.pending) == (4, 6)


def test_of_a_window_that_is_in_the_books_in_part_the_rest_is_a_gap(chain: Chain) -> None:
    append(chain, 0, 4)
    head = HeadFacts(8, b"h" * 32, BOOT, 2 * WINDOW_NS + WINDOW_NS // 3)
    assert chain.resume(head) == 8
    found = [decode_batch(parse_record(e.record).payload) for e in chain.spool.entries(1)]
    assert [(b.window_start_boot_ns, b.window_end_boot_ns) for b in found] == [
        (head.head_window_end_boot_ns, 3 * WINDOW_NS),
        (3 * WINDOW_NS, 4 * WINDOW_NS),
    ]
    (gap,), (usage,) = (b.usage for b in found)
    assert (gap.gap_reason, gap.duration_ns) == (GapReason.RECORD_LOST, WINDOW_NS - WINDOW_NS // 3)
    assert (usage.gap_reason, usage.hmma_cycles) == (GapReason.NONE, 7)
    assert [r.kind for r in chain.take_remarks()[0]] == [NoticeKind.REANCHORED]
    assert len(list((chain.spool.directory / "quarantine").glob("record-*.txt"))) == 3
    entry = chain.spool.entry(8)
    assert (entry.prev_hash, entry.window_start_boot_ns) == (b"h" * 32, head.head_window_end_boot_ns)


def test_numbers_that_were_forgotten_are_named_as_lost_by_the_collector(
    collector: FakeCollector, tmp_path: Path, connect: Connect
) -> None:
    chain = open_chain(tmp_path / "small", keep_acked_bytes=0, limit_bytes=64 << 10)
    uplink = connect(collector.target, chain=chain)
    for n in range(0, 200, 10):
        append(chain, n, 10)
        settled(uplink, n + 10)
    oldest = chain.spool.oldest_seq
    assert oldest > 6
    uplink.stop()
    collector.forget(5)
    collector.head_window_end = 5 * WINDOW_NS
    again = connect(collector.target, chain=chain)
    settled(again, 200)
    assert again.wait_for(lambda: collector.head == 200, WAIT_S)
    assert collector.losses == [(6, oldest - 1)]
    again.stop()
    chain.spool.close()


def gaps_of(raw: bytes) -> list[tuple[int, GapReason, int]]:
    batch = decode_batch(parse_record(raw).payload)
    return [(u.entity_index, u.gap_reason, u.duration_ns) for u in batch.usage]


@pytest.mark.parametrize("refused", [1, 3, 6])
def test_a_gap_stands_in_the_place_of_a_record_that_is_refused_for_good(
    collector: FakeCollector, chain: Chain, connect: Connect, refused: int
) -> None:
    append(chain, 0, 6)
    original = {e.seq: e.record for e in chain.spool.entries(1)}
    collector.refusals = {refused: pb.Refusal.CODE_IMPLAUSIBLE}
    uplink = connect(collector.target)
    settled(uplink, 6)
    in_books(collector, chain)
    assert [collector.records[n][72:-64] == original[n][72:-64] for n in range(1, 7)] == [
        n != refused for n in range(1, 7)
    ]
    batch = decode_batch(parse_record(collector.records[refused]).payload)
    assert (batch.window_start_boot_ns, batch.window_end_boot_ns) == (
        (refused - 1) * WINDOW_NS,
        refused * WINDOW_NS,
    )
    (gap,) = batch.usage
    assert (gap.gap_reason, gap.duration_ns) == (GapReason.RECORD_LOST, WINDOW_NS)
    assert gap.sm_elapsed_cycles == 132 * MAX_SM_CLOCK_MHZ * WINDOW_NS // 1000
    BatchView(parse_record(collector.records[refused]).payload).groups([device_bounds(DEVICE, 0)])
    (said,) = batch.notices
    assert said.kind is NoticeKind.RECORD_REFUSED
    assert f"record {refused} " in said.detail
    assert "implausible: ordered" in said.detail
    assert chain.take_remarks()[0] == []
    name = f"record-{refused}-{record_hash(original[refused]).hex()[:16]}"
    aside = chain.spool.directory / "quarantine" / name
    assert aside.read_bytes() == original[refused]
    assert "implausible" in aside.with_name(name + ".txt").read_text()
    assert chain.refused_records == 1
    append(chain, 6, 1)
    settled(uplink, 7)
    assert uplink.status.connects == 1


def test_a_gap_that_is_refused_too_is_named_and_the_rest_goes_on(
    collector: FakeCollector, chain: Chain, connect: Connect, tmp_path: Path
) -> None:
    append(chain, 0, 4)
    collector.refuse_payloads = lambda payload: b"was refused" in payload or payload == payload_of(chain, 2)
    uplink = connect(collector.target)
    assert uplink.wait_for(lambda: collector.head == 3 and chain.spool.pending == 0, WAIT_S), uplink.status
    in_books(collector, chain)
    (remark,) = chain.take_remarks()[0]
    assert remark.kind is NoticeKind.RECORD_REFUSED
    assert "record 2 " in remark.detail
    assert chain.refused_records == 2
    uplink.stop()
    chain.spool.close()
    again = open_chain(tmp_path / "state")  # killed before any batch told of it
    assert again.take_remarks()[0] == [remark]
    again.spool.close()


def payload_of(chain: Chain, seq: int) -> bytes:
    return encode_batch(window(seq - 1).batch)


def test_a_record_refused_as_overlapping_twice_is_no_gap(
    collector: FakeCollector, chain: Chain, connect: Connect
) -> None:
    append(chain, 0, 3)
    collector.refusals = {2: pb.Refusal.CODE_OVERLAP}
    collector.refuse_payloads = lambda payload: (
        pb.Refusal.CODE_OVERLAP if payload == payload_of(chain, 2) else 0
    )
    uplink = connect(collector.target)
    assert uplink.wait_for(lambda: collector.head == 2 and chain.spool.pending == 0, WAIT_S), uplink.status
    assert [gaps_of(raw)[0][1] for raw in collector.records.values()] == [GapReason.NONE] * 2
    (remark,) = chain.take_remarks()[0]
    assert "in the books already" in remark.detail


@pytest.mark.parametrize("seq", [1, 2, 9])
def test_a_refusal_of_what_is_in_the_books_or_was_never_sent_changes_nothing(
    collector: FakeCollector, chain: Chain, connect: Connect, seq: int
) -> None:
    append(chain, 0, 2)
    uplink = connect(collector.target)
    settled(uplink, 2)
    before = [e.record for e in chain.spool.entries(1)]
    collector.say_more = [pb.StreamResponse(refusal=pb.Refusal(code=pb.Refusal.CODE_MALFORMED, seq=seq))]
    append(chain, 2, 1)
    assert uplink.wait_for(lambda: uplink.status.connects > 1, WAIT_S), uplink.status
    settled(uplink, 3)
    assert [e.record for e in chain.spool.entries(1)][:2] == before
    in_books(collector, chain)
    assert chain.refused_records == 0


@pytest.mark.parametrize("seq", [3, 10, 11, (1 << 64) - 1])
def test_an_ack_of_what_was_never_sent_is_no_ack(
    collector: FakeCollector, chain: Chain, connect: Connect, seq: int
) -> None:
    """Believed, it would let records be forgotten that nobody has."""
    collector.mute = True
    collector.max_in_flight = 2
    collector.say_more = [pb.StreamResponse(ack=pb.Ack(seq=seq))]
    append(chain, 0, 10)
    uplink = connect(collector.target)
    said = f"ack of {seq}, but only records up to 2 were sent"
    assert uplink.wait_for(lambda: said in uplink.status.last_error, WAIT_S), uplink.status
    assert (chain.spool.acked_seq, uplink.status.acked_seq) == (0, 0)
    assert uplink.status.fatal is None
    collector.mute = False
    settled(uplink, 10)
    in_books(collector, chain)


@pytest.mark.parametrize("resume", [0, 1 << 62, (1 << 64) - 1])
def test_a_resume_point_that_cannot_be_ends_the_stream(
    collector: FakeCollector, chain: Chain, connect: Connect, resume: int
) -> None:
    append(chain, 0, 2)
    collector.welcome_seq = resume
    uplink = connect(collector.target)
    assert uplink.wait_for(lambda: "expected a resume point" in uplink.status.last_error, WAIT_S)
    assert uplink.status.fatal is None
    collector.welcome_seq = None
    settled(uplink, 2)
    in_books(collector, chain)


def test_a_lost_spool_goes_on_behind_the_collectors_head(
    collector: FakeCollector, chain: Chain, connect: Connect, tmp_path: Path
) -> None:
    import shutil

    append(chain, 0, 10)
    first = connect(collector.target)
    settled(first, 10)
    first.stop()
    chain.spool.close()
    shutil.rmtree(tmp_path / "state/spool")
    again = open_chain(tmp_path / "state")
    append(again, 8, 4)  # windows 8 and 9 are in the books, 10 and 11 are not
    old = [e.record for e in again.spool.entries(1)]
    uplink = connect(collector.target, chain=again)
    assert uplink.wait_for(lambda: collector.head == 12, WAIT_S), uplink.status
    settled(uplink, 12)
    assert [collector.records[n][72:-64] for n in (11, 12)] == [raw[72:-64] for raw in old[2:]]
    remarks, skip = again.take_remarks()
    assert [r.kind for r in remarks] == [NoticeKind.REANCHORED]
    assert "2 records sealed again behind it, 2 set aside" in remarks[0].detail
    assert skip == (BOOT, 10 * WINDOW_NS, True)
    assert len(list((tmp_path / "state/spool/quarantine").glob("record-*.txt"))) == 2
    append(again, 12, 1)
    settled(uplink, 13)
    uplink.stop()
    again.spool.close()


def test_a_lost_spool_of_an_earlier_boot_overlaps_nothing(
    collector: FakeCollector, chain: Chain, connect: Connect, tmp_path: Path
) -> None:
    import shutil

    append(chain, 0, 10)
    first = connect(collector.target)
    settled(first, 10)
    first.stop()
    chain.spool.close()
    shutil.rmtree(tmp_path / "state/spool")
    again = open_chain(tmp_path / "state")
    append(again, 0, 3, boot=OTHER_BOOT)
    uplink = connect(collector.target, chain=again)
    settled(uplink, 13)
    assert collector.head == 13
    uplink.stop()
    again.spool.close()


def test_a_fork_is_told_by_the_collector_and_goes_on_behind_its_head(
    collector: FakeCollector, chain: Chain, connect: Connect, tmp_path: Path
) -> None:
    """A copy of the state directory ran elsewhere: same numbers, other bytes."""
    import shutil

    append(chain, 0, 3)
    first = connect(collector.target)
    settled(first, 3)
    first.stop()
    shutil.copytree(tmp_path / "state", tmp_path / "copy")
    clone = open_chain(tmp_path / "copy")
    append(clone, 3, 2)
    second = connect(collector.target, chain=clone)
    settled(second, 5)
    second.stop()
    clone.spool.close()
    append(chain, 4, 3)  # window 4 overlaps the clone's, 5 and 6 do not
    uplink = connect(collector.target)
    settled(uplink, 7)
    assert collector.head == 7
    remarks, _ = chain.take_remarks()
    assert "1 set aside" in remarks[0].detail


def test_a_broken_chain_at_the_oldest_record_is_anchored_again(
    collector: FakeCollector, tmp_path: Path, connect: Connect
) -> None:
    """The books end right before the oldest record that is held, but with another hash."""
    chain = open_chain(tmp_path / "small", keep_acked_bytes=0, limit_bytes=64 << 10)
    uplink = connect(collector.target, chain=chain)
    for n in range(0, 200, 10):
        append(chain, n, 10)
        settled(uplink, n + 10)
    uplink.stop()
    oldest = chain.spool.oldest_seq
    collector.forget(oldest - 1)
    collector.head_window_end = (oldest - 1) * WINDOW_NS
    raw = collector.records[oldest - 1]
    collector.records[oldest - 1] = raw[:-1] + bytes([raw[-1] ^ 1])
    again = connect(collector.target, chain=chain)
    settled(again, 200)
    assert again.wait_for(lambda: collector.head == 200, WAIT_S), again.status
    assert [r.kind for r in chain.take_remarks()[0]] == [NoticeKind.REANCHORED]
    again.stop()
    chain.spool.close()


def test_a_hole_in_the_spool_is_closed_by_anchoring_again(
    collector: FakeCollector, tmp_path: Path, connect: Connect
) -> None:
    chain = open_chain(tmp_path / "state2", limit_bytes=64 << 10)
    append(chain, 0, 100)
    append(chain, 100, 20)
    paths = sorted(chain.spool.directory.glob("*.seg"))
    assert len(paths) >= 2
    first_of_second = chain.spool._segments[1].first_seq
    chain.spool.close()
    data = bytearray(paths[0].read_bytes())
    data[-10] ^= 1  # in the last entry of the first segment
    paths[0].write_bytes(data)
    again = open_chain(tmp_path / "state2", limit_bytes=64 << 10)
    hole = first_of_second - 1
    assert not again.spool.holds(hole)
    assert again.spool.holds(hole + 1)
    uplink = connect(collector.target, chain=again)
    assert uplink.wait_for(lambda: collector.head == 119, WAIT_S), uplink.status
    settled(uplink, 119)
    kinds = [r.kind for r in again.take_remarks()[0]]
    assert kinds == [NoticeKind.SPOOL_TORN, NoticeKind.REANCHORED]
    assert collector.records[hole][72:-64] == again.spool.entry(hole).record[72:-64]
    uplink.stop()
    again.spool.close()


def test_a_stream_that_is_refused_says_why_and_is_tried_again_later(
    collector: FakeCollector, chain: Chain, connect: Connect
) -> None:
    collector.refuse_stream = pb.Refusal.CODE_UNKNOWN_AGENT
    append(chain, 0, 2)
    uplink = connect(collector.target)
    assert uplink.wait_for(lambda: "unknown agent: go away" in uplink.status.last_error, WAIT_S)
    assert uplink.status.refusals > 0
    assert chain.spool.pending == 2
    collector.refuse_stream = 0
    settled(uplink, 2)


def test_heartbeats_are_sent_when_there_is_nothing_else(
    collector: FakeCollector, chain: Chain, connect: Connect
) -> None:
    uplink = connect(collector.target, Timing(heartbeat_s=0.02))
    assert uplink.wait_for(lambda: uplink.status.connected, WAIT_S)
    seen: list[int] = []
    while len(seen) < 10_000 and collector.heartbeats < 3:
        uplink.wait_for(lambda: False, 0.005)
        seen.append(collector.heartbeats)
    assert collector.heartbeats >= 3


def test_a_spool_that_breaks_stops_the_uplink_and_says_so(
    collector: FakeCollector, chain: Chain, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    append(chain, 0, 3)
    path = next(iter(chain.spool.directory.glob("*.seg")))
    data = bytearray(path.read_bytes())
    data[-10] ^= 1
    path.write_bytes(data)
    uplink = connect(collector.target)
    assert uplink.wait_for(lambda: uplink.status.fatal is not None, WAIT_S) or uplink.status.fatal
    assert "record 3" in str(uplink.status.fatal)


def test_stop_ends_the_thread_while_it_waits_to_reconnect(chain: Chain, connect: Connect) -> None:
    uplink = connect("127.0.0.1:1", Timing(connect_s=0.05, backoff_base_s=1000, backoff_cap_s=1000))
    assert uplink.wait_for(lambda: uplink.status.last_error != "", WAIT_S)
    uplink.stop()
    assert not uplink._thread.is_alive()


def test_stop_ends_the_thread_while_a_collector_says_nothing(
    collector: FakeCollector, chain: Chain, connect: Connect
) -> None:
    collector.silent_handshake = True
    append(chain, 0, 1)
    uplink = connect(collector.target, Timing(connect_s=600, handshake_s=600))
    for _ in range(100_000):
        if collector.silenced:
            break
        uplink.wait_for(lambda: False, 0.0005)
    assert collector.silenced
    uplink.stop()
    assert not uplink._thread.is_alive()
    assert uplink.status.fatal is None


def test_stop_ends_the_thread_while_nobody_listens(chain: Chain, connect: Connect) -> None:
    uplink = connect("127.0.0.1:1", Timing(connect_s=600))
    uplink.stop()
    assert not uplink._thread.is_alive()
    assert uplink.status.fatal is None


def test_records_that_cannot_be_moved_for_want_of_room_are_moved_when_there_is(
    collector: FakeCollector, chain: Chain, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk must not end the agent while it learns that a record is refused."""
    append(chain, 0, 3)
    real, refused = chain.spool.rebase, []

    def rebase(*args: object) -> None:
        if len(refused) < 3:
            refused.append(args)
            raise SpoolFullError("no room, said the test", "make some")
        real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(chain.spool, "rebase", rebase)
    bad = payload_of(chain, 2)
    collector.refuse_payloads = lambda payload: payload == bad
    uplink = connect(collector.target)
    settled(uplink, 3)
    in_books(collector, chain)
    assert len(refused) == 3
    assert uplink.status.fatal is None
    assert [gaps_of(raw)[0][1] for raw in collector.records.values()] == [
        GapReason.NONE,
        GapReason.RECORD_LOST,
        GapReason.NONE,
    ]


def test_a_collector_that_is_gone_for_long_costs_no_memory_threads_or_files(
    chain: Chain, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(
        logging.CRITICAL, "flopmeter.agent.shipping.uplink"
    )  # pytest keeps every line, a kilobyte each
    append(chain, 0, 5)
    quick = Timing(connect_s=0.002, backoff_base_s=0.0001, backoff_cap_s=0.0001)
    uplink = connect("127.0.0.1:1", quick)

    def after(tries: int) -> tuple[int, int, int]:
        until = uplink.backoff.failures + tries
        assert uplink.wait_for(lambda: uplink.backoff.failures >= until, 60), uplink.status
        gc.collect()
        status = Path("/proc/self/status").read_text()
        kib = int(status.split("VmRSS:")[1].split()[0])
        return kib, threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))

    # What leaks grows in every span; the allocator, and what other tests left behind, only in some.
    spans = list(pairwise(after(200) for _ in range(5)))
    assert min(later[0] - before[0] for before, later in spans) < 256
    assert min(later[1] - before[1] for before, later in spans) <= 0
    assert min(later[2] - before[2] for before, later in spans) <= 0


def test_backoff_is_exponential_jittered_and_capped() -> None:
    class Top(Random):
        def uniform(self, a: float, b: float) -> float:
            assert a == 0.0
            return b

    backoff = Backoff(Top(), base_s=1.0, cap_s=60.0)
    assert [backoff.next_s() for _ in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert backoff.next_s(30.0) == 90.0
    backoff.reset()
    assert backoff.next_s(5.0) == 6.0
    backoff.longest()
    assert backoff.next_s() == 60.0
    jittered = Backoff(Random(7), 1.0, 60.0)
    draws = [jittered.next_s() for _ in range(200)][10:]
    assert min(draws) < 10
    assert 50 < max(draws) <= 60
