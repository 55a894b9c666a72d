"""The pipeline, with the real meter: nothing is lost or doubled when someone stops, starts or goes away."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest
from pipelines import (
    MAKE_METER,
    WINDOW_NS,
    batches,
    feed,
    live,
    notices,
    opened,
    records,
    settings,
    sums,
)
from sim_node import JOB, SimRecording

from fakes import FakeCollector
from flopmeter.agent.errors import AgentError, SpoolFullError
from flopmeter.agent.pipeline import Pipeline, PipelineSettings, Summary
from flopmeter.agent.shipping.chain import HeadFacts
from flopmeter.agent.shipping.spool import MIN_LIMIT_BYTES
from flopmeter.contract.usage import GapReason, NoticeKind


def run_recording(
    recording: SimRecording,
    state: PipelineSettings,
    progress: Callable[[int, int, int], None] | None = None,
) -> Summary:
    """Play a recording through a pipeline of its own, and wait until the collector, if any, has all of it."""
    pipeline = Pipeline.open(recording.facts(), MAKE_METER, state, agent_version="0.1.0", rng=Random(1))
    try:
        summary = pipeline.play(recording, progress=progress)
        assert pipeline.uplink is None or pipeline.wait_acked(60), pipeline.status
        return replace(summary, acked_seq=pipeline.chain.spool.acked_seq)
    finally:
        pipeline.close()


@pytest.fixture
def undisturbed(tmp_path: Path) -> Callable[[SimRecording], list[bytes]]:
    """The records that a recording gives when nothing happens, under the key that all states here share."""

    def play(recording: SimRecording) -> list[bytes]:
        state = tmp_path / "undisturbed"
        run_recording(recording, settings(state))
        return records(state)

    return play


def with_same_key(tmp_path: Path, name: str) -> Path:
    state = tmp_path / name
    state.mkdir()
    shutil.copy(tmp_path / "undisturbed/record.key", state)
    return state


def test_a_recording_becomes_records_that_a_collector_takes(tmp_path: Path, collector: FakeCollector) -> None:
    seen: list[tuple[int, int, int]] = []
    recording = SimRecording(95)
    summary = run_recording(
        recording,
        settings(tmp_path, collector=collector.target),
        progress=lambda *at: seen.append(at),
    )
    assert summary.items == 95 * 2
    assert summary.acked_seq == summary.last_seq == summary.windows == collector.head == 10
    assert list(collector.records.values()) == records(tmp_path)
    made = batches(list(collector.records.values()))
    assert {w for b in made for w in b.workloads} >= {JOB}
    total = sums(made)
    assert total["0 ns"] == total["1 ns"] == 94_000_000_000
    assert total["0 hmma"] > 0


def test_the_same_recording_gives_the_same_records_whatever_the_grouping(
    tmp_path: Path, undisturbed: Callable[[SimRecording], list[bytes]]
) -> None:
    recording = SimRecording(95)
    expected = undisturbed(recording)
    for group in (1, 3, 1000):
        state = with_same_key(tmp_path, f"group-{group}")
        pipeline = opened(recording, state)
        pipeline.play(recording, group_windows=group)
        pipeline.close()
        assert records(state) == expected


@pytest.mark.parametrize("gpm", ["both", "cycles", "percent"])
@pytest.mark.parametrize("kills", [(1,), (60,), (61, 61), (20, 21, 22, 140, 189), (190,)])
def test_a_replay_that_was_cut_short_goes_on_to_identical_records(
    tmp_path: Path,
    undisturbed: Callable[[SimRecording], list[bytes]],
    kills: tuple[int, ...],
    gpm: str,
) -> None:
    recording = SimRecording(95, gpm=gpm)
    expected = undisturbed(recording)
    state = with_same_key(tmp_path, "killed")
    for kill in kills:
        pipeline = opened(recording, state)
        pipeline._wait_for_room = True
        for i, item in enumerate(recording.items()):
            if i == kill:
                break
            pipeline.observe(item)
        pipeline.close()  # without sealing what is open: as if killed
    summary = run_recording(recording, settings(state))
    assert records(state) == expected
    assert summary.last_seq == len(expected)
    again = run_recording(recording, settings(state))
    assert (again.windows, again.last_seq) == (0, len(expected))


def test_a_recording_waits_where_the_spool_is_full_and_loses_nothing(
    tmp_path: Path, collector: FakeCollector, undisturbed: Callable[[SimRecording], list[bytes]]
) -> None:
    recording = SimRecording(1200, gpus=8)
    expected = undisturbed(recording)
    assert sum(map(len, expected)) > 1.2 * MIN_LIMIT_BYTES
    state = with_same_key(tmp_path, "small")
    small = settings(state, collector=collector.target, spool_limit_bytes=MIN_LIMIT_BYTES, keep_acked_bytes=0)
    collector.max_in_flight = 8
    run_recording(recording, small)
    assert [collector.records[n] for n in sorted(collector.records)] == expected


def test_a_recording_without_a_collector_stops_where_the_spool_is_full(tmp_path: Path) -> None:
    recording = SimRecording(3000, gpus=4)
    with pytest.raises(SpoolFullError, match="limit 65536"):
        run_recording(recording, settings(tmp_path, spool_limit_bytes=MIN_LIMIT_BYTES))


def test_a_live_agent_that_was_killed_bridges_the_time_from_the_counters(tmp_path: Path) -> None:
    recording = live(SimRecording(100, gpm="cycles"))
    whole = opened(recording, tmp_path / "whole")
    for item in recording.items():
        whole.observe(item)
    whole.stop(0)
    items = list(recording.items())
    parts = (items[:66], items[100:130], items[150:])
    for part in parts:
        pipeline = opened(recording, tmp_path / "killed")
        for item in part:
            pipeline.observe(item)
        if part is parts[-1]:
            pipeline.stop(0)
        else:
            pipeline.close()
    assert sums(batches(records(tmp_path / "killed"))) == sums(batches(records(tmp_path / "whole")))


def test_stop_seals_what_is_open_and_ships_it(tmp_path: Path, collector: FakeCollector) -> None:
    recording = live(SimRecording(15))
    pipeline = opened(recording, tmp_path, collector=collector.target)
    for item in recording.items():
        pipeline.observe(item)
    assert pipeline.stop(20)
    assert collector.head == 2
    assert sums(batches(list(collector.records.values())))["0 ns"] == 14_000_000_000
    assert pipeline.status is not None
    assert not pipeline.status.connected


def test_stop_without_a_collector_in_reach_keeps_everything(tmp_path: Path) -> None:
    recording = live(SimRecording(15))
    pipeline = opened(recording, tmp_path, collector="127.0.0.1:1")
    for item in recording.items():
        pipeline.observe(item)
    assert not pipeline.stop(0.05)
    assert len(records(tmp_path)) == 2


def test_time_alone_closes_windows(tmp_path: Path) -> None:
    recording = live(SimRecording(8))  # long enough to tell the scale of the counters
    pipeline = opened(recording, tmp_path)
    last = None
    for item in recording.items():
        pipeline.observe(item)
        last = item
    assert last is not None
    assert pipeline.counts.windows == 0
    pipeline.advance(last.t_boot_ns + WINDOW_NS, last.t_unix_ns + WINDOW_NS)
    assert pipeline.counts.windows == 1
    pipeline.close()


def test_a_second_pipeline_on_the_same_state_is_refused(tmp_path: Path) -> None:
    recording = SimRecording(3)
    pipeline = opened(recording, tmp_path)
    with pytest.raises(AgentError, match="in use by process"):
        opened(recording, tmp_path)
    pipeline.close()
    opened(recording, tmp_path).close()


def test_a_spool_of_another_key_is_refused(tmp_path: Path) -> None:
    run_recording(SimRecording(15), settings(tmp_path))
    (tmp_path / "record.key").unlink()
    with pytest.raises(AgentError, match="another record key"):
        opened(SimRecording(15), tmp_path)


def test_a_spool_in_an_unknown_state_ends_the_agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(fd: int) -> None:
        raise OSError(5, "Input/output error")

    recording = live(SimRecording(30))
    pipeline = opened(recording, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("os.fdatasync", fails)
        with pytest.raises(AgentError, match="fsync failed"):
            for item in recording.items():
                pipeline.observe(item)
    pipeline.close()
    pipeline = opened(recording, tmp_path)  # it reads what the disk holds and goes on
    for item in recording.items():
        pipeline.observe(item)
    pipeline.stop(0)
    assert sums(batches(records(tmp_path)))["0 ns"] == 29_000_000_000


def test_what_the_uplink_gives_up_on_reaches_the_caller(tmp_path: Path, collector: FakeCollector) -> None:
    recording = live(SimRecording(40))
    items = list(recording.items())
    pipeline = opened(recording, tmp_path)
    feed(pipeline, items[:60])
    pipeline.close()
    path = next(iter((tmp_path / "spool").glob("*.seg")))
    good = path.read_bytes()
    collector.silent_handshake = True
    pipeline = opened(recording, tmp_path, collector=collector.target)
    path.write_bytes(good[:-10] + bytes([good[-10] ^ 1]) + good[-9:])  # rots while the agent runs
    collector.silent_handshake = False
    assert pipeline.uplink is not None
    assert not pipeline.uplink.wait_acked(99, 20)
    assert pipeline.status is not None
    assert pipeline.status.fatal is not None
    with pytest.raises(AgentError, match="now damaged"):
        feed(pipeline, items[60:])
    pipeline.close()


def test_what_a_start_cut_off_is_told_in_the_next_batch(tmp_path: Path) -> None:
    recording = live(SimRecording(60))
    items = list(recording.items())
    pipeline = opened(recording, tmp_path)
    for item in items[:70]:
        pipeline.observe(item)
    pipeline.close()
    path = next(iter((tmp_path / "spool").glob("*.seg")))
    path.write_bytes(path.read_bytes()[:-5])
    pipeline = opened(recording, tmp_path)
    for item in items[70:]:
        pipeline.observe(item)
    pipeline.stop(0)
    got = batches(records(tmp_path))
    assert notices(got).count(NoticeKind.SPOOL_TORN) == 1
    assert sums(got)["0 ns"] == 59_000_000_000


def test_usage_that_is_in_the_books_already_is_not_sent_twice(
    tmp_path: Path, collector: FakeCollector
) -> None:
    """The state directory was restored from a copy that is older than the collector's books."""
    recording = live(SimRecording(100))
    items = list(recording.items())
    pipeline = opened(recording, tmp_path / "state", collector=collector.target)
    feed(pipeline, items[:40])
    assert pipeline.uplink is not None
    assert pipeline.wait_acked(20)
    pipeline.close()
    shutil.copytree(tmp_path / "state", tmp_path / "copy")
    pipeline = opened(recording, tmp_path / "state", collector=collector.target)
    feed(pipeline, items[40:100])
    assert pipeline.wait_acked(20)
    pipeline.close()
    head = collector.head_window_end
    pipeline = opened(recording, tmp_path / "copy", collector=collector.target)
    assert pipeline.uplink is not None
    assert pipeline.uplink.wait_for(lambda: pipeline.uplink.status.connected, 60)  # type: ignore[union-attr]
    feed(pipeline, items[100:])
    assert pipeline.stop(20)
    made = batches([collector.records[n] for n in sorted(collector.records)])
    spans = [(b.window_start_boot_ns, b.window_end_boot_ns) for b in made]
    assert all(a[1] <= b[0] for a, b in pairwise(spans))
    assert any(start >= head for start, _ in spans)
    assert notices(made).count(NoticeKind.REANCHORED) == 1
    assert sums(made)["0 ns"] <= 99_000_000_000


def test_reading_jitter_at_a_windows_edge_makes_no_gap_of_a_good_record(tmp_path: Path) -> None:
    """Moved behind another head, whose books end where its window starts; its first interval began 1.05 s before."""
    recording = live(SimRecording(45, gpus=1, gpm="cycles"))
    items = list(recording.items())
    early = items[9]
    items[9] = early._replace(t_boot_ns=early.t_boot_ns - 50_000_000, t_unix_ns=early.t_unix_ns - 50_000_000)
    pipeline = opened(recording, tmp_path)
    feed(pipeline, items)
    chain = pipeline.chain
    head_end = chain.spool.entry(1).window_end_boot_ns
    before = batches([e.record for e in chain.spool.entries(2)])
    assert before[0].usage[0].duration_ns > WINDOW_NS
    chain.resume(HeadFacts(9, b"h" * 32, recording.facts().boot_id, head_end))
    assert batches([e.record for e in chain.spool.entries(9)]) == before
    pipeline.close()


def test_records_that_go_on_from_a_state_get_no_gap_before_them(tmp_path: Path) -> None:
    """Whatever became of the record before: an interval may reach back into its time."""
    recording = live(SimRecording(45, gpus=1, gpm="cycles"))
    pipeline = opened(recording, tmp_path)
    feed(pipeline, list(recording.items()))
    chain = pipeline.chain
    before = batches([e.record for e in chain.spool.entries(2)])
    chain.ack(1)
    chain.resume(HeadFacts(9, b"h" * 32, recording.facts().boot_id, before[0].window_start_boot_ns - 1))
    assert batches([e.record for e in chain.spool.entries(9)]) == before
    pipeline.close()


def test_the_time_before_a_lost_state_is_a_gap_of_the_devices_that_were_there(tmp_path: Path) -> None:
    """Behind it a meter would begin anew; refused for good, it is not put there again."""
    recording = live(SimRecording(45, gpus=2, gpm="cycles"))
    facts = recording.facts()
    recording.facts = lambda: replace(facts, devices=facts.devices[:1])  # type: ignore[method-assign]
    pipeline = opened(recording, tmp_path)
    items = list(recording.items())
    feed(pipeline, [item for item in items[:6] if item.entity == facts.devices[0].entity])
    pipeline.refacts(facts)
    feed(pipeline, items[6:])
    chain = pipeline.chain
    before = batches([e.record for e in chain.spool.entries(1)])
    start = before[0].window_start_boot_ns
    head = HeadFacts(9, b"h" * 32, facts.boot_id, start - 5_000_000_000)
    chain.resume(head)
    gap, *rest = batches([e.record for e in chain.spool.entries(9)])
    assert rest == before
    assert (gap.window_start_boot_ns, gap.window_end_boot_ns) == (start - 5_000_000_000, start)
    assert gap.window_end_unix_ns == before[0].window_start_unix_ns
    assert gap.window_end_unix_ns - gap.window_start_unix_ns == 5_000_000_000
    assert [(u.entity_index, u.gap_reason, u.duration_ns) for u in gap.usage] == [
        (0, GapReason.RECORD_LOST, 5_000_000_000)
    ]
    assert gap.usage[0].sm_elapsed_cycles == 132 * 1_980_000 * 5_000
    assert notices([gap]) == [NoticeKind.SPOOL_LOST]
    assert chain.spool.entry(9).journal == b""
    chain.resume(head)
    assert batches([e.record for e in chain.spool.entries(9)]) == [gap, *before]
    for _ in range(2):  # it, and what stands in its place
        chain.refuse(9, "said the test")
    chain.resume(head)
    assert batches([e.record for e in chain.spool.entries(9)]) == before
    pipeline.close()
