"""The live loop and its reader: one slow or hung read costs its GPU a gap, and nothing else."""

import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest
from processes import wait_for
from sim_node import SECOND, script

from fakes import FakeClock
from flopmeter.agent.errors import AgentError, ReadingError, SettingsError, SourceError
from flopmeter.agent.loop import FACTS_PERIOD_NS, Loop, LoopSettings, SystemClock
from flopmeter.agent.metering.meter import MeterSettings
from flopmeter.agent.pipeline import Pipeline, PipelineSettings, meter_factory
from flopmeter.agent.reader import HUNG, HUNG_ROUND, MAX_STUCK, Reader
from flopmeter.agent.reading import NodeFacts, Reading
from flopmeter.agent.shipping.spool import Spool
from flopmeter.agent.sources.sim import SimSource
from flopmeter.collector.encode import decode_batch
from flopmeter.contract.evidence_class import EvidenceClass
from flopmeter.contract.limits import MIN_TICK_NS
from flopmeter.contract.record import parse_record
from flopmeter.contract.usage import Batch, GapReason, NoticeKind

WAIT_S = 60.0


class ScriptedSource:
    """A simulated node whose reads can be made to hang, fail or lie."""

    def __init__(self, clock: FakeClock, gpus: int = 3) -> None:
        self.clock = clock
        self.sim = SimSource(script(gpus), clock)
        self.entities = [d.entity for d in self.sim.facts().devices]
        self.now_facts: NodeFacts = replace(self.sim.facts(), source="nvml")
        self.hang: set[str] = set()
        self.release = threading.Event()
        self.errors: dict[str, Exception] = {}
        self.reads: list[str] = []
        self.times: list[int] = []  # of the first entity's reads
        self.under_way: set[str] = set()
        self.facts_asked = 0
        self.closed = False

    def facts(self) -> NodeFacts:
        self.facts_asked += 1
        if "" in self.hang:
            assert self.release.wait(WAIT_S)
        if "" in self.errors:
            raise self.errors[""]
        return self.now_facts

    def read(self, entity: str) -> Reading:
        assert entity not in self.under_way, "two reads of one entity at once"
        self.under_way.add(entity)
        self.reads.append(entity)
        if entity == self.entities[0]:
            self.times.append(self.clock.boot_ns())
        try:
            if entity in self.hang:
                assert self.release.wait(WAIT_S)
            if entity in self.errors:
                raise self.errors[entity]
            return self.sim.read(entity)
        finally:
            self.under_way.discard(entity)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def source(clock: FakeClock) -> Iterator[ScriptedSource]:
    made = ScriptedSource(clock)
    yield made
    made.release.set()


def asked(source: ScriptedSource, count: int) -> int:
    """How many reads have begun, once so many have: a thread that was left in a call may not have come to it yet."""
    wait_for(f"{count} reads", lambda: len(source.reads) >= count)
    return len(source.reads)


def test_readings_come_in_the_order_asked(source: ScriptedSource, clock: FakeClock) -> None:
    reader = Reader(source, clock, deadline_s=WAIT_S)
    asked = list(reversed(source.entities))
    assert [r.entity for r in reader.read(asked)] == asked
    assert source.reads == asked
    assert reader.read([]) == []
    reader.close()
    assert source.closed


def test_a_read_that_hangs_costs_only_its_entity(source: ScriptedSource, clock: FakeClock) -> None:
    beats: list[int] = []
    reader = Reader(source, clock, deadline_s=0.3, beat=lambda: beats.append(1))
    one, two, _ = source.entities
    source.hang = {two}
    first = reader.read(source.entities)
    assert [r.error for r in first] == [None, HUNG, None]
    assert reader.stuck == {two}
    assert beats
    second = reader.read(source.entities)  # it is not asked again while it hangs
    assert [r.error for r in second] == [None, HUNG, None]
    assert source.reads.count(two) == 1
    source.hang = set()
    source.release.set()
    for _ in range(10_000):
        if not reader.stuck:
            break
        reader.read([one])
    assert reader.stuck == frozenset()
    assert [r.error for r in reader.read(source.entities)] == [None, None, None]
    reader.close()


def test_all_reads_may_hang_and_come_back(source: ScriptedSource, clock: FakeClock) -> None:
    reader = Reader(source, clock, deadline_s=0.02)
    source.hang = set(source.entities)
    assert [r.error for r in reader.read(source.entities)] == [HUNG] * 3
    assert [r.error for r in reader.read(source.entities)] == [HUNG] * 3
    assert asked(source, 3) == 3
    reader.close()
    assert not source.closed  # a call is still in it


def test_a_driver_that_answers_nobody_costs_a_round_two_deadlines_and_a_bounded_number_of_threads(
    clock: FakeClock,
) -> None:
    source = ScriptedSource(clock, gpus=MAX_STUCK + 8)
    source.hang = set(source.entities)
    reader = Reader(source, clock, deadline_s=0.01)
    before = threading.active_count()
    try:
        for n in range(1, 2 * MAX_STUCK):
            assert [r.error for r in reader.read(source.entities)] == [HUNG] * len(source.entities)
            so_many = min(MAX_STUCK, n * HUNG_ROUND)
            assert asked(source, so_many) == so_many
        assert threading.active_count() <= before + MAX_STUCK + 1
    finally:
        source.hang = set()
        source.release.set()
    wait_for("all have come back", lambda: not reader.read([]) and not reader.stuck)
    assert [r.error for r in reader.read(source.entities)] == [None] * len(source.entities)
    reader.close()


def test_a_stop_while_the_driver_hangs_ends_soon_with_everything_sealed(tmp_path: Path) -> None:
    clock = SystemClock()
    source = ScriptedSource(clock, gpus=8)  # type: ignore[arg-type]
    loop, _ = made_loop(tmp_path, clock, source, deadline_s=0.2)  # type: ignore[arg-type]
    source.hang = set(source.entities[2:])
    thread = threading.Thread(target=loop.run)
    thread.start()
    try:
        wait_for("three reads", lambda: len(source.reads) >= 3)
        clock.stop()
        thread.join(WAIT_S)
        assert not thread.is_alive()
        assert len(source.reads) < 10
    finally:
        source.release.set()
    assert [n.kind for b in sealed(tmp_path) for n in b.notices][-1] is NoticeKind.AGENT_STOPPED


def test_where_no_thread_is_left_for_a_last_reading_what_was_read_is_sealed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Stopping(7)
    loop, _ = made_loop(tmp_path, clock, ScriptedSource(clock))
    start = threading.Thread.start

    def refused(thread: threading.Thread) -> None:
        if clock.left < 0:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refused)
    loop.run()
    assert "can't start new thread" in caplog.text
    batches = sealed(tmp_path)
    assert [n.kind for b in batches for n in b.notices][-1] is NoticeKind.AGENT_STOPPED
    assert sum(u.duration_ns for b in batches for u in b.usage if u.entity_index == 0) == 7 * SECOND


def test_failures_of_every_kind_are_failed_readings(
    source: ScriptedSource, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    reader = Reader(source, clock, deadline_s=WAIT_S)
    one, two, three = source.entities
    source.errors = {
        one: ReadingError("NVML_ERROR_GPU_IS_LOST"),
        two: SourceError("the exporter is gone"),
        three: ZeroDivisionError("a defect"),
    }
    readings = reader.read(source.entities)
    assert [r.error for r in readings] == [
        "NVML_ERROR_GPU_IS_LOST",
        "FLOPMETER_SOURCE_FAILED",
        "FLOPMETER_SOURCE_DEFECT",
    ]
    assert all(r.t_boot_ns == clock.boot_ns() and not r.cycles for r in readings)
    assert "ZeroDivisionError" in caplog.text
    reader.close()


def test_facts_that_hang_or_fail_are_an_error(source: ScriptedSource, clock: FakeClock) -> None:
    reader = Reader(source, clock, deadline_s=0.3)
    source.errors[""] = SourceError("no driver")
    with pytest.raises(SourceError, match="no driver"):
        reader.facts()
    source.errors.clear()
    assert reader.facts() == source.now_facts
    source.hang = {""}
    with pytest.raises(SourceError, match="did not come back"):
        reader.facts()
    asked = source.facts_asked
    with pytest.raises(SourceError, match="did not come back"):
        reader.facts()
    assert source.facts_asked == asked  # while it hangs it is not asked again
    assert [r.error for r in reader.read(source.entities)] == [None] * 3
    reader.close()


def test_work_is_begun_again_where_a_call_hung_and_goes_on_with_its_round(
    source: ScriptedSource, clock: FakeClock
) -> None:
    reader = Reader(source, clock, deadline_s=0.3)
    one, two, three = source.entities
    source.hang = {two}
    begun: list[threading.Thread] = []
    swallowed: list[BaseException] = []

    def work() -> list[Reading]:
        begun.append(threading.current_thread())
        try:
            return reader.read(source.entities)
        except Exception as e:  # noqa: BLE001 - as a defect might: it must not keep the thread that was left behind
            swallowed.append(e)
            return []

    assert [r.error for r in reader.guarded(work)] == [None, HUNG, None]
    assert len(begun) == 2
    assert source.reads == [one, two, three]  # none of them twice
    source.release.set()
    begun[0].join(WAIT_S)
    assert not begun[0].is_alive()
    assert not swallowed
    assert reader.stuck == frozenset()
    reader.close()


def test_what_work_raises_is_raised_and_work_that_is_stuck_elsewhere_beats_nothing(
    source: ScriptedSource, clock: FakeClock
) -> None:
    beats: list[int] = []
    reader = Reader(source, clock, deadline_s=0.01, beat=lambda: beats.append(1))
    with pytest.raises(ZeroDivisionError):
        reader.guarded(lambda: 1 // 0)
    waits = threading.Event()
    begun = []

    def work() -> str:
        begun.append(1)
        waits.wait(0.1)  # ten deadlines, in no call of the driver
        return "done"

    assert reader.guarded(work) == "done"
    assert begun == [1]
    assert not beats
    reader.close()


def test_a_tick_that_hung_is_metered_once_and_a_thread_that_comes_back_meters_nothing(tmp_path: Path) -> None:
    clock = Stopping(12)
    source = ScriptedSource(clock)
    loop, pipeline = made_loop(tmp_path, clock, source, deadline_s=0.3)
    source.hang = {source.entities[1]}
    observed: list[tuple[str, int]] = []
    observe = pipeline.observe

    def noted(reading: Reading) -> None:
        observed.append((reading.entity, loop.ticks.done))
        observe(reading)

    pipeline.observe = noted  # type: ignore[method-assign]
    before = set(threading.enumerate())
    loop.run()
    assert sorted(observed) == sorted((e, tick) for tick in range(loop.ticks.done) for e in source.entities)
    was = len(observed)
    source.release.set()
    for thread in set(threading.enumerate()) - before:
        thread.join(WAIT_S)
        assert not thread.is_alive()
    assert len(observed) == was


class Stopping(FakeClock):
    """Stops after so many waits; a wait may run long, as on a busy node."""

    def __init__(self, waits: int) -> None:
        super().__init__()
        self.left = waits
        self.oversleep_ns: dict[int, int] = {}
        self.waited: list[float] = []

    def wait(self, seconds: float) -> bool:
        self.left -= 1
        self.waited.append(seconds)
        self.advance(round(seconds * 1e9) + self.oversleep_ns.pop(len(self.waited), 0))
        return self.left < 0


def made_loop(
    tmp_path: Path,
    clock: FakeClock,
    source: ScriptedSource,
    deadline_s: float = WAIT_S,
    tick_ns: int = SECOND,
) -> tuple[Loop, Pipeline]:
    reader = Reader(source, clock, deadline_s=deadline_s)
    pipeline = Pipeline.open(
        reader.facts(),
        meter_factory(MeterSettings(window_ns=10 * SECOND), agent_version="0.1.0"),
        PipelineSettings(state=tmp_path),
        agent_version="0.1.0",
        rng=Random(1),
    )
    return Loop(reader, pipeline, clock, LoopSettings(tick_ns=tick_ns, stop_timeout_s=0)), pipeline


def sealed(tmp_path: Path) -> list[Batch]:
    spool = Spool.open(tmp_path / "spool")
    found = [decode_batch(parse_record(e.record).payload) for e in spool.entries(1)]
    spool.close()
    return found


def test_the_loop_meters_until_stopped_and_seals_what_is_open(tmp_path: Path) -> None:
    clock = Stopping(25)
    source = ScriptedSource(clock)
    loop, _ = made_loop(tmp_path, clock, source)
    assert loop.run() is False  # nobody to ship to
    batches = sealed(tmp_path)
    assert [n.kind for b in batches for n in b.notices if n.kind is not NoticeKind.CALIBRATION] == [
        NoticeKind.AGENT_STARTED,
        NoticeKind.AGENT_STOPPED,
    ]
    seconds = dict.fromkeys(range(3), 0)
    for batch in batches:
        for u in batch.usage:
            assert u.evidence_class is EvidenceClass.A1
            seconds[u.entity_index] += u.duration_ns
    assert seconds == dict.fromkeys(range(3), 26 * SECOND)
    assert loop.ticks.done == 27
    assert loop.ticks.missed == 0
    assert source.closed


def test_the_schedule_does_not_drift_and_skips_what_it_missed(tmp_path: Path) -> None:
    clock = Stopping(10)
    clock.oversleep_ns = {1: 300_000_000, 3: 2_400_000_000, 6: SECOND}
    start = clock.boot_ns()
    source = ScriptedSource(clock)
    loop, _ = made_loop(tmp_path, clock, source)
    loop.run()
    assert (clock.boot_ns() - start) % SECOND == 0
    assert clock.waited[:4] == [1.0, 0.7, 1.0, pytest.approx(0.6)]
    assert loop.ticks.missed == 3
    assert len(source.reads) == 3 * loop.ticks.done
    assert min(b - a for a, b in pairwise(source.times)) >= MIN_TICK_NS


def test_the_wait_of_a_long_tick_is_no_silence(tmp_path: Path) -> None:
    clock = Stopping(60)
    source = ScriptedSource(clock)
    loop, _ = made_loop(tmp_path, clock, source, tick_ns=61 * SECOND)
    beaten = [clock.boot_ns()]
    loop._beat = lambda: beaten.append(clock.boot_ns())
    loop.run()
    assert loop.ticks.done > 3
    assert {b - a for a, b in pairwise(source.times[:4])} == {61 * SECOND}
    assert max(b - a for a, b in pairwise(beaten)) <= 10 * SECOND


def test_the_shortest_tick_is_kept_by_ticks_that_begin_a_little_late(tmp_path: Path) -> None:
    clock = Stopping(40)
    clock.oversleep_ns = dict.fromkeys(range(1, 41), 1_000_000)
    source = ScriptedSource(clock)
    loop, _ = made_loop(tmp_path, clock, source, tick_ns=MIN_TICK_NS)
    loop.run()
    assert loop.ticks.missed == 0
    assert min(b - a for a, b in pairwise(source.times)) >= MIN_TICK_NS


def test_a_last_reading_is_not_taken_right_behind_another(tmp_path: Path) -> None:
    class Sudden(Stopping):
        def wait(self, seconds: float) -> bool:
            return super().wait(seconds if self.left else 0.1)

    clock = Sudden(5)
    source = ScriptedSource(clock)
    loop, _ = made_loop(tmp_path, clock, source)
    loop.run()
    assert loop.ticks.done == 6
    assert min(b - a for a, b in pairwise(source.times)) >= MIN_TICK_NS


def test_a_hung_gpu_is_a_gap_and_the_others_are_metered(tmp_path: Path) -> None:
    clock = Stopping(30)
    source = ScriptedSource(clock)
    source.hang = {source.entities[1]}
    loop, _ = made_loop(tmp_path, clock, source, deadline_s=0.3)
    loop.run()
    source.release.set()
    gap = dict.fromkeys(range(3), 0)
    seen = dict.fromkeys(range(3), 0)
    for batch in sealed(tmp_path):
        for u in batch.usage:
            if u.evidence_class is EvidenceClass.GAP:
                assert u.gap_reason is GapReason.READ_HUNG
                gap[u.entity_index] += u.duration_ns
            else:
                seen[u.entity_index] += u.duration_ns
    assert seen[0] == seen[2] == 31 * SECOND
    assert seen[1] == 0
    assert gap[1] > 15 * SECOND
    assert gap[0] == gap[2] == 0


def test_devices_that_come_are_metered_from_then_on(tmp_path: Path) -> None:
    clock = Stopping(100)
    source = ScriptedSource(clock)
    all_devices = source.now_facts.devices
    source.now_facts = replace(source.now_facts, devices=all_devices[:2])
    loop, pipeline = made_loop(tmp_path, clock, source)
    source.now_facts = replace(source.now_facts, devices=all_devices)
    loop.run()
    assert len(pipeline.facts.devices) == 3
    assert source.facts_asked == 2
    assert source.reads.count(all_devices[2].entity) == 102 - FACTS_PERIOD_NS // SECOND
    notices = [n.kind for b in sealed(tmp_path) for n in b.notices]
    assert notices.count(NoticeKind.DEVICES_CHANGED) == 1


def test_a_device_that_is_lost_makes_the_loop_look_again_soon(tmp_path: Path) -> None:
    clock = Stopping(20)
    source = ScriptedSource(clock)
    lost = source.entities[2]
    source.errors = {lost: ReadingError("NVML_ERROR_GPU_IS_LOST")}
    loop, pipeline = made_loop(tmp_path, clock, source)
    source.now_facts = replace(source.now_facts, devices=source.now_facts.devices[:2])
    loop.run()
    assert len(pipeline.facts.devices) == 2
    assert source.reads.count(lost) <= 6


def test_devices_that_cannot_be_listed_are_kept(tmp_path: Path) -> None:
    clock = Stopping(70)
    source = ScriptedSource(clock)
    loop, pipeline = made_loop(tmp_path, clock, source)
    source.errors = {"": SourceError("no driver for a while")}
    loop.run()
    assert len(pipeline.facts.devices) == 3
    assert source.facts_asked == 2


def test_a_spool_that_breaks_ends_the_loop_with_the_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Stopping(40)
    source = ScriptedSource(clock)
    loop, _ = made_loop(tmp_path, clock, source)

    def fails(fd: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fails)
        with pytest.raises(AgentError, match="fsync failed"):
            loop.run()
    assert source.closed
    Spool.open(tmp_path / "spool").close()  # the lock was let go


def test_a_tick_under_the_limit_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"at least 0.25 s, got 0.1 s"):
        LoopSettings(tick_ns=100_000_000)
