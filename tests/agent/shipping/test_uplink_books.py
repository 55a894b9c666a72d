"""The uplink where spool and books disagree: refusals, gaps in a record's place, and anchoring anew."""

from pathlib import Path

import pytest
from chains import BOOT, DEVICE, OTHER_BOOT, WINDOW_NS, append, open_chain
from uplinks import WAIT_S, Connect, gaps_of, in_books, payload_of, settled

from fakes import FakeCollector
from flopmeter.agent.shipping.chain import Chain, HeadFacts
from flopmeter.collector.encode import decode_batch
from flopmeter.collector.ingest.encode import BatchView, device_bounds
from flopmeter.contract.limits import MAX_SM_CLOCK_MHZ
from flopmeter.contract.record import parse_record, record_hash
from flopmeter.contract.usage import GapReason, NoticeKind
from flopmeter.wire.v1 import ingest_pb2 as pb


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
