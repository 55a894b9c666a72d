"""The pipeline where the spool is full or the collector refuses: the time is bridged, and why is told once."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from pipelines import batches, feed, live, notices, opened, records, sums
from sim_node import JOB, SimRecording

from fakes import FakeCollector
from flopmeter.agent.errors import SpoolFullError
from flopmeter.agent.metering.remark import Remark
from flopmeter.agent.pipeline import Pipeline
from flopmeter.agent.reading import Reading
from flopmeter.collector.ingest.encode import BatchView, device_bounds
from flopmeter.contract.evidence_class import EvidenceClass
from flopmeter.contract.record import parse_record
from flopmeter.contract.usage import UNATTRIBUTED, GapReason, NoticeKind, Workload
from flopmeter.wire.v1 import ingest_pb2 as pb


@pytest.mark.parametrize("gpm", ["both", "cycles", "percent"])
def test_detail_that_found_no_room_is_bridged_and_nothing_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpm: str
) -> None:
    recording = live(SimRecording(120, gpm=gpm))
    whole = opened(recording, tmp_path / "whole")
    for item in recording.items():
        whole.observe(item)
    whole.stop(0)
    pipeline = opened(recording, tmp_path / "full")
    real = pipeline.chain.spool.append
    full = False

    def maybe(entries: object) -> None:
        if full:
            raise SpoolFullError("no room, said the test", "make some")
        real(entries)  # type: ignore[arg-type]

    monkeypatch.setattr(pipeline.chain.spool, "append", maybe)
    for i, item in enumerate(recording.items()):
        full = 80 <= i < 160
        pipeline.observe(item)
    pipeline.stop(0)
    expected, got = batches(records(tmp_path / "whole")), batches(records(tmp_path / "full"))
    assert len(got) == len(expected) - 4
    assert pipeline.counts.given_up == 4
    assert notices(got).count(NoticeKind.SPOOL_FULL) == 1
    ends = [(b.window_start_boot_ns, b.window_end_boot_ns) for b in got]
    assert all(a[1] == b[0] for a, b in pairwise(ends))
    assert sums(expected)["0 ns"] == sums(got)["0 ns"]
    assert sums(expected)["1 ns"] == sums(got)["1 ns"]
    gap_ns = sum(u.duration_ns for b in got for u in b.usage if u.evidence_class is EvidenceClass.GAP)
    if gpm == "percent":
        assert gap_ns > 2 * 30_000_000_000
        assert {u.gap_reason for b in got for u in b.usage if u.gap_reason} == {GapReason.SPOOL_FULL}
    else:
        assert sums(expected) == sums(got)
        assert gap_ns == 0


class Full:
    """A spool without room, on order."""

    def __init__(self, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = False
        real = pipeline.chain.spool.append

        def maybe(entries: object) -> None:
            if self.now:
                raise SpoolFullError("no room, said the test", "make some")
            real(entries)  # type: ignore[arg-type]

        monkeypatch.setattr(pipeline.chain.spool, "append", maybe)


OTHER_JOB = replace(JOB, job="2002", run="run-b")


@pytest.mark.parametrize("gpm", ["cycles", "percent"])
@pytest.mark.parametrize("during", [range(0), range(45, 46), range(50, 51), range(55, 66), range(70, 71)])
def test_a_bridge_is_a_workloads_only_if_it_held_the_device_throughout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpm: str, during: range
) -> None:
    """Another one in between is seen although both ends agree: in a window, at its edge, or over several."""
    recording = live(SimRecording(100, gpus=1, gpm=gpm))
    pipeline = opened(recording, tmp_path)
    full = Full(pipeline, monkeypatch)
    start = next(iter(recording.items())).t_boot_ns
    for item in recording.items():
        assert isinstance(item, Reading)
        second = (item.t_boot_ns - start) // 1_000_000_000
        full.now = 45 <= second < 78
        pipeline.observe(item._replace(workload=OTHER_JOB if second in during else JOB))
    pipeline.stop(0)
    assert pipeline.counts.given_up == 3
    whose: Counter[Workload] = Counter()
    for batch in batches(records(tmp_path)):
        for u in batch.usage:
            whose[batch.workloads[u.workload_index]] += u.duration_ns // 1_000_000_000
    if during:
        assert whose == {JOB: 99 - 32, UNATTRIBUTED: 32}  # from the last reading that is safe, at 39 s
    else:
        assert whose == {JOB: 99}


@pytest.mark.parametrize("gpm", ["cycles", "percent"])
@pytest.mark.parametrize("after", [JOB, OTHER_JOB], ids=["the-same-job", "another-job"])
def test_an_agent_that_starts_again_while_there_is_no_room_loses_no_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpm: str, after: Workload
) -> None:
    """Who held the device was in memory only: the time is the job's if both ends of it agree, else nobody's."""
    recording = live(SimRecording(100, gpus=1, gpm=gpm))
    start = next(iter(recording.items())).t_boot_ns
    pipeline = opened(recording, tmp_path)
    full = Full(pipeline, monkeypatch)
    for item in recording.items():
        assert isinstance(item, Reading)
        second = (item.t_boot_ns - start) // 1_000_000_000
        if second in {60, 66}:
            pipeline.close()  # without sealing: as if killed
            pipeline = opened(recording, tmp_path)
            full = Full(pipeline, monkeypatch)
        full.now = 45 <= second < 78
        pipeline.observe(item._replace(workload=JOB if second < 60 else after))
    pipeline.stop(0)
    whose: Counter[Workload] = Counter()
    gaps: set[GapReason] = set()
    for batch in batches(records(tmp_path)):
        gaps |= {u.gap_reason for u in batch.usage if u.gap_reason}
        for u in batch.usage:
            whose[batch.workloads[u.workload_index]] += u.duration_ns // 1_000_000_000
    assert sum(whose.values()) == 99
    between = sum(whose.values()) - whose[UNATTRIBUTED]
    assert whose == (
        {JOB: 99} if after is JOB else {JOB: 39, after: between - 39, UNATTRIBUTED: 99 - between}
    )
    assert (whose[UNATTRIBUTED] > 0) == (after is not JOB)
    assert bool(gaps) == (gpm == "percent")


def test_what_is_said_twice_without_room_is_said_once_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The notices are repeated in the open window, and must survive that a window before it is made durable."""
    recording = live(SimRecording(100, gpus=1))
    pipeline = opened(recording, tmp_path)
    full = Full(pipeline, monkeypatch)
    for i, item in enumerate(recording.items()):
        full.now = 35 <= i < 46 or 55 <= i < 66
        if i == 36:
            pipeline.note(NoticeKind.AGENT_STARTED, "for the test")
        pipeline.observe(item)
    pipeline.stop(0)
    said = notices(batches(records(tmp_path)))
    assert said.count(NoticeKind.AGENT_STARTED) == 1
    assert said.count(NoticeKind.SPOOL_FULL) == 2


@pytest.mark.parametrize("gpm", ["cycles", "percent"])
@pytest.mark.parametrize("refused", [1, 3, 6])
def test_a_refused_record_leaves_a_gap_and_every_nanosecond_is_accounted_for(
    tmp_path: Path, collector: FakeCollector, gpm: str, refused: int
) -> None:
    recording = live(SimRecording(62, gpm=gpm))
    collector.refusals = {refused: pb.Refusal.CODE_IMPLAUSIBLE}
    pipeline = opened(recording, tmp_path, collector=collector.target)
    for item in recording.items():
        pipeline.observe(item)
    assert pipeline.stop(20)
    made = batches([collector.records[n] for n in sorted(collector.records)])
    assert len(made) == 7
    for n in (0, 1):
        assert sums(made)[f"{n} ns"] == 61_000_000_000
        lost = [
            u.duration_ns
            for b in made
            for u in b.usage
            if u.entity_index == n and u.gap_reason is GapReason.RECORD_LOST
        ]
        assert len(lost) == 1
        assert 9_000_000_000 <= lost[0] <= 10_000_000_000
    spans = [(b.window_start_boot_ns, b.window_end_boot_ns) for b in made]
    assert all(a[1] == b[0] for a, b in pairwise(spans))
    assert notices(made).count(NoticeKind.RECORD_REFUSED) == 1
    for raw in collector.records.values():
        BatchView(parse_record(raw).payload).groups([device_bounds(d, 0) for d in recording.facts().devices])


def told_after(recording: SimRecording, state: Path, seconds: int, **changes: object) -> list[NoticeKind]:
    """Notices after another life of so many seconds, killed at its end."""
    pipeline = opened(recording, state, **changes)
    feed(pipeline, [i for i in recording.items() if i.t_boot_ns < seconds])
    pipeline.close()
    return notices(batches(records(state)))


def test_what_was_learned_and_not_told_is_told_by_the_next_life_once(tmp_path: Path) -> None:
    recording = live(SimRecording(100))
    start = next(iter(recording.items())).t_boot_ns
    told_after(recording, tmp_path, start + 35_000_000_000)
    path = next(iter((tmp_path / "spool").glob("*.seg")))
    path.write_bytes(path.read_bytes()[:-5])
    assert told_after(recording, tmp_path, start + 3_000_000_000) == [
        NoticeKind.CALIBRATION
    ]  # killed at once
    assert told_after(recording, tmp_path, 0) == [NoticeKind.CALIBRATION]
    for until in (58, 75, 99):
        said = told_after(recording, tmp_path, start + until * 1_000_000_000)
        assert said.count(NoticeKind.SPOOL_TORN) == 1
    assert len(list((tmp_path / "spool/untold").iterdir())) == 1  # nobody has it yet


def test_a_remark_is_forgotten_when_the_collector_has_it(tmp_path: Path, collector: FakeCollector) -> None:
    recording = live(SimRecording(100))
    items = list(recording.items())
    pipeline = opened(recording, tmp_path)
    pipeline.chain._remark(Remark(NoticeKind.REANCHORED, "said the test", "reanchored-1-00"))
    feed(pipeline, items[:70])
    pipeline.close()
    assert notices(batches(records(tmp_path))).count(NoticeKind.REANCHORED) == 1
    assert len(list((tmp_path / "spool/untold").iterdir())) == 1
    pipeline = opened(recording, tmp_path, collector=collector.target)
    assert pipeline.wait_acked(20)
    feed(pipeline, items[70:])
    assert pipeline.stop(20)
    made = batches(list(collector.records.values()))
    assert notices(made).count(NoticeKind.REANCHORED) == 1
    assert list((tmp_path / "spool/untold").iterdir()) == []


def test_a_notice_in_a_record_that_was_torn_off_is_told_again(tmp_path: Path) -> None:
    recording = live(SimRecording(100))
    start = next(iter(recording.items())).t_boot_ns
    for _ in range(3):  # each life seals the third window, and tells in it of the tail that was torn before
        told_after(recording, tmp_path, start + 35_000_000_000)
        path = next(iter((tmp_path / "spool").glob("*.seg")))
        path.write_bytes(path.read_bytes()[:-5])
    said = told_after(recording, tmp_path, start + 99_000_000_000)
    assert said.count(NoticeKind.SPOOL_TORN) == 1
    told = [n for b in batches(records(tmp_path)) for n in b.notices if n.kind is NoticeKind.SPOOL_TORN]
    assert "(" not in told[0].detail, "cut three times at one place, by one name"


def test_a_remark_that_found_no_room_is_told_when_there_is_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = live(SimRecording(100))
    pipeline = opened(recording, tmp_path)
    full = Full(pipeline, monkeypatch)
    pipeline.chain._remark(Remark(NoticeKind.REANCHORED, "said the test", "reanchored-1-00"))
    for i, item in enumerate(recording.items()):
        full.now = i < 70
        pipeline.observe(item)
    pipeline.stop(0)
    assert notices(batches(records(tmp_path))).count(NoticeKind.REANCHORED) == 1


def test_books_that_end_in_the_future_are_not_believed(tmp_path: Path, collector: FakeCollector) -> None:
    """Skipping there would end metering without a word."""
    recording = live(SimRecording(60))
    items = list(recording.items())
    collector.head_boot_id = recording.facts().boot_id
    collector.head_window_end = 1 << 62
    pipeline = opened(recording, tmp_path, collector=collector.target)
    assert pipeline.uplink is not None
    assert pipeline.uplink.wait_for(lambda: pipeline.uplink.status.connected, 60)  # type: ignore[union-attr]
    collector.head_window_end = 0
    feed(pipeline, items)
    assert pipeline.stop(20)
    made = batches(list(collector.records.values()))
    assert sums(made)["0 ns"] == 59_000_000_000


def test_notices_survive_the_loss_of_detail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recording = live(SimRecording(60))
    pipeline = opened(recording, tmp_path)
    real, full = pipeline.chain.spool.append, True

    def maybe(entries: object) -> None:
        if full:
            raise SpoolFullError("no room, said the test", "make some")
        real(entries)  # type: ignore[arg-type]

    monkeypatch.setattr(pipeline.chain.spool, "append", maybe)
    pipeline.note(NoticeKind.AGENT_STARTED, "for the test")
    for i, item in enumerate(recording.items()):
        full = i < 70
        pipeline.observe(item)
    pipeline.stop(0)
    said = notices(batches(records(tmp_path)))
    assert said.count(NoticeKind.AGENT_STARTED) == 1
    assert said.count(NoticeKind.SPOOL_FULL) == 1
