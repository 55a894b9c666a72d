"""The meter, case by case. That nothing is lost or doubled in any mixture of these: tests/invariants."""

from dataclasses import replace
from itertools import pairwise

import pytest
from metering import (
    BOOT,
    H100,
    JOB_A,
    JOB_B,
    SECOND,
    SMS,
    UNIX0,
    Gpu,
    device,
    duration,
    facts,
    meter,
    notices,
    rows,
    total,
)

from flopmeter.agent.metering.meter import Meter, Sealed
from flopmeter.agent.reading import CYCLE_IDS, Happening, HappeningKind, Process, Reading
from flopmeter.agent.shipping.encode import encode_batch, encode_inventory, inventory_digest
from flopmeter.agent.shipping.journal import load_journal
from flopmeter.agent.workloads.processes import WorkloadFinder
from flopmeter.collector.encode import decode_inventory
from flopmeter.collector.ingest.encode import BatchView, device_bounds, divided
from flopmeter.contract.errors import ContractError
from flopmeter.contract.evidence_class import EvidenceClass
from flopmeter.contract.usage import IDLE, UNATTRIBUTED, GapReason, Measured, NoticeKind, Workload

MINUTE = 60 * SECOND
BUSY = {249: 900, 250: 500, 252: 500}
ONE_SECOND = 1_700_000_000 * SMS  # SM-cycles


class Node:
    """One or more GPUs and a meter, in time."""

    def __init__(self, *, agent: Meter | None = None, t: int = 120 * SECOND, **gpu: object) -> None:
        self.gpu = Gpu(**gpu)  # type: ignore[arg-type]
        self.agent = agent or meter()
        self.t = t
        self.sealed: list[Sealed] = []

    def tick(self, seconds: float = 1, **changes: object) -> None:
        self.sleep(seconds)
        self.read(**changes)

    def sleep(self, seconds: float) -> None:
        self.t += round(seconds * SECOND)
        self.gpu.run(round(seconds * SECOND), BUSY)

    def read(self, **changes: object) -> None:
        self.take(self.gpu.reading(self.t, **changes))

    def fail(self, seconds: float = 1, error: str = "NVML_ERROR_UNKNOWN", entity: str = "GPU-0") -> None:
        self.sleep(seconds)
        self.take(Reading(entity, self.t, UNIX0 + self.t, error=error))

    def take(self, item: Reading | Happening) -> None:
        self.sealed += self.agent.observe(item)

    def advance(self) -> None:
        self.sealed += self.agent.advance(self.t, UNIX0 + self.t)

    def flush(self, *, final: bool = False) -> list[Sealed]:
        last = self.agent.flush(final=final)
        self.sealed += [last] if last else []
        return self.sealed

    def calibrated(self) -> "Node":
        self.read()
        for _ in range(6):
            self.tick()
        return self

    def restart(self, **changes: object) -> None:
        self.agent = meter(facts(**changes), journal=self.sealed[-1].journal)  # type: ignore[arg-type]


def percent(t: int, *, entity: str = "GPU-0", unix: int | None = None, **changes: object) -> Reading:
    values = {"percent": {2: 90.0, 5: 50.0, 7: 50.0}, "sm_clock_mhz": (1700.0,), "workload": JOB_A}
    return Reading(entity, t, UNIX0 + t if unix is None else unix, **(values | changes))  # type: ignore[arg-type]


def gaps(sealed: list[Sealed], entity: str | None = None) -> list[tuple[GapReason, int, Workload]]:
    return [(u.gap_reason, u.duration_ns // SECOND, w) for w, u in rows(sealed, entity) if u.gap_reason]


# ---- windows ------------------------------------------------------------------------------------------


def test_windows_are_aligned_and_an_interval_is_in_the_one_where_it_ends() -> None:
    node = Node(t=115 * SECOND)
    node.read()
    for _ in range(70):
        node.tick()
    first, second = node.sealed[0].batch, node.flush()[1].batch
    assert (first.window_start_boot_ns, first.window_end_boot_ns) == (115 * SECOND, 120 * SECOND)
    assert (second.window_start_boot_ns, second.window_end_boot_ns) == (120 * SECOND, 180 * SECOND)
    assert [u.duration_ns for u in first.usage] == []  # still held back: 4 s are too few to tell the scale
    assert [u.duration_ns for u in second.usage] == [(179 - 115) * SECOND]
    assert first.window_end_unix_ns == UNIX0 + 120 * SECOND


def test_a_reading_at_the_very_end_opens_the_next_window() -> None:
    node = Node(t=170 * SECOND).calibrated()
    for _ in range(4):
        node.tick()
    assert node.t == 180 * SECOND
    (sealed,) = node.sealed
    assert duration([sealed]) == 9 * SECOND
    assert duration(node.flush()) == 10 * SECOND


def test_long_silence_is_one_window_not_many() -> None:
    node = Node(t=125 * SECOND).calibrated()
    node.flush()
    node.tick(10 * 3600)
    node.tick()
    assert len(node.flush()) == 2
    batch = node.sealed[1].batch
    assert batch.window_start_boot_ns == node.sealed[0].batch.window_end_boot_ns
    assert duration(node.sealed) == (6 + 36_000 + 1) * SECOND


def test_nothing_new_is_not_sealed() -> None:
    node = Node().calibrated()
    assert Meter.flush(meter()) is None
    assert len(node.flush()) == 1
    assert node.agent.flush() is None
    node.agent.note(NoticeKind.AGENT_STOPPED, "again")
    last = node.flush()[-1].batch
    assert last.window_end_boot_ns > last.window_start_boot_ns == node.sealed[0].batch.window_end_boot_ns


def test_a_batch_names_its_inventory() -> None:
    (sealed,) = Node().calibrated().flush()
    assert sealed.inventory.devices == (device(),)
    assert (sealed.inventory.node, sealed.inventory.cluster, sealed.inventory.source) == (
        "node-a",
        "c1",
        "sim",
    )
    assert sealed.batch.inventory_digest == inventory_digest(encode_inventory(sealed.inventory))
    assert sealed.batch.agent_version == "0.1.0"
    assert sealed.boot_id == BOOT


# ---- scale --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("average", [True, False])
def test_the_scale_is_told_from_the_readings_and_what_was_held_back_is_exact(average: bool) -> None:
    node = Node(average=average, t=177 * SECOND).calibrated()
    sealed = node.flush()
    assert sealed[0].batch.usage == ()  # the first window closed before the scale was known
    assert total(sealed, "sm_elapsed_cycles") == 6 * ONE_SECOND
    assert total(sealed, "hmma_cycles") == 3 * ONE_SECOND
    assert {u.evidence_class for _, u in rows(sealed)} == {EvidenceClass.A1}
    assert notices(sealed) == ["calibration"]
    (first, last) = sealed[1].batch.anchors
    assert (first.t_boot_ns, last.t_boot_ns) == (177 * SECOND, 183 * SECOND)
    assert first.scale == (1 if average else SMS)


def test_an_unknown_scale_falls_back_to_percentages_and_says_so_once() -> None:
    node = Node(mhz=1000)
    both = {"percent": {5: 50.0, 7: 50.0}, "sm_clock_mhz": (300.0,)}  # 3.3 counts per clock: neither
    node.read(**both)
    for _ in range(130):
        node.tick(**both)
    sealed = node.flush(final=True)
    assert duration(sealed) == 130 * SECOND
    assert {u.evidence_class for _, u in rows(sealed)} == {EvidenceClass.A2}
    assert total(sealed, "hmma_cycles") == SMS * 300_000_000 * 130 // 2
    assert notices(sealed) == ["calibration"]


def test_an_unknown_scale_without_percentages_is_a_priced_gap() -> None:
    node = Node()
    node.read(sm_clock_mhz=())
    for _ in range(70):
        node.tick(sm_clock_mhz=())
    sealed = node.flush(final=True)
    assert gaps(sealed) == [(GapReason.REFUSED, 70, JOB_A)]
    assert total(sealed, "sm_elapsed_cycles", gaps=True) == SMS * 1_980_000_000 * 70


def test_an_unconfirmed_model_is_a3() -> None:
    h20 = device(name="NVIDIA H20", sm_count=78)
    node = Node(agent=meter(facts(h20)), sms=78).calibrated()
    assert {u.evidence_class for _, u in rows(node.flush())} == {EvidenceClass.A3}


def test_a_scale_that_turns_out_wrong_is_measured_again() -> None:
    node = Node().calibrated()
    node.gpu.average = False  # no driver does that: what the meter took for an average is a sum
    for _ in range(20):
        node.tick()
    sealed = node.flush(final=True)
    assert notices(sealed).count("calibration") == 1
    said = [n.detail for s in sealed for n in s.batch.notices if n.kind is NoticeKind.CALIBRATION]
    assert "times" in said[0]
    assert duration(sealed) == 26 * SECOND
    assert max(u.sm_elapsed_cycles / u.duration_ns for _, u in rows(sealed)) <= SMS * 1.98 * 1.02
    assert (GapReason.REFUSED, 1, JOB_A) in gaps(sealed)


# ---- counters bridge ----------------------------------------------------------------------------------


def test_failed_reads_are_bridged_by_counters_even_across_windows() -> None:
    node = Node().calibrated()
    for _ in range(90):
        node.fail()
    node.tick()
    sealed = node.flush()
    assert gaps(sealed) == []
    assert total(sealed, "sm_elapsed_cycles") == 97 * ONE_SECOND
    assert duration(sealed) == 97 * SECOND
    assert {w for w, _ in rows(sealed)} == {JOB_A}


def test_a_recording_that_ends_in_failed_reads_ends_in_a_gap() -> None:
    node = Node().calibrated()
    for _ in range(3):
        node.fail(error="NVML_ERROR_GPU_IS_LOST")
    assert duration(node.flush()) == 6 * SECOND  # a clean stop leaves it open: the next start may bridge it
    assert gaps(node.flush(final=True)) == [(GapReason.LOST, 3, JOB_A)]


def test_a_restart_of_the_agent_loses_nothing() -> None:
    node = Node().calibrated()
    node.flush()
    node.tick()  # read, never sealed
    node.restart()
    node.tick(3600)
    node.tick()
    sealed = node.flush()
    assert gaps(sealed) == []
    assert total(sealed, "hmma_cycles") == (6 + 1 + 3600 + 1) * ONE_SECOND // 2
    assert {w for w, _ in rows(sealed)} == {JOB_A}


@pytest.mark.parametrize(
    "between",
    [lambda n: n.restart(), lambda n: n.fail(), lambda n: n.sleep(20), lambda n: n.read(cycles={248: 1})],
)
def test_a_bridge_between_different_workloads_is_nobodys(between) -> None:  # type: ignore[no-untyped-def]
    node = Node().calibrated()
    node.flush()
    node.sleep(1)
    between(node)
    node.tick(workload=JOB_B)
    node.tick(workload=JOB_B)
    owners = [w for w, u in rows(node.flush()[1:])]
    assert owners == [UNATTRIBUTED, JOB_B]


def test_adjacent_readings_belong_to_the_later_workload() -> None:
    node = Node().calibrated()
    node.tick(workload=JOB_B)
    node.tick(workload=IDLE)
    sealed = node.flush()
    assert [(w, u.duration_ns // SECOND) for w, u in rows(sealed)] == [(JOB_A, 6), (JOB_B, 1), (IDLE, 1)]


def test_a_missing_counter_is_waited_for_then_done_without() -> None:
    node = Node().calibrated()

    def lacking() -> dict[int, int]:
        return {k: v for k, v in node.gpu.counters.items() if k != 252}

    for _ in range(10):
        node.sleep(1)
        node.read(cycles=lacking())
    node.tick()
    assert total(node.flush(), "hmma_cycles") == 17 * ONE_SECOND // 2
    for _ in range(12):
        node.sleep(1)
        node.read(cycles=lacking())
    node.tick()
    sealed = node.flush()
    assert total(sealed, "sm_elapsed_cycles") == 30 * ONE_SECOND
    assert total(sealed, "hmma_cycles") == 17 * ONE_SECOND // 2
    assert len({a.epoch for s in sealed for a in s.batch.anchors}) == 3


def test_counters_that_vanish_give_way_to_percentages() -> None:
    node = Node().calibrated()
    for _ in range(15):
        node.sleep(1)
        node.take(percent(node.t))
    sealed = node.flush()
    assert gaps(sealed) == [(GapReason.READ_FAILED, 11, JOB_A)]
    assert [u.duration_ns for _, u in rows(sealed) if u.evidence_class is EvidenceClass.A2] == [4 * SECOND]


# ---- resets, doubts -----------------------------------------------------------------------------------


def test_a_reset_is_a_gap_and_a_new_epoch() -> None:
    node = Node().calibrated()
    node.gpu.reset()
    node.tick()
    node.tick()
    sealed = node.flush()
    assert gaps(sealed) == [(GapReason.RESET, 1, JOB_A)]
    assert total(sealed, "sm_elapsed_cycles") == 7 * ONE_SECOND
    assert notices(sealed) == ["calibration", "gpu-reset"]
    before, after, end = (a.epoch for a in sealed[0].batch.anchors)
    assert before < after == end


def test_an_agent_that_lost_its_state_does_not_use_epochs_of_the_life_before() -> None:
    """Between its anchors and those in the books lies time that is in no window."""
    node = Node().calibrated()
    node.gpu.reset()
    node.tick()
    last = max(a.epoch for a in node.flush()[0].batch.anchors)
    node.agent = meter()
    node.sleep(1)
    node.calibrated()
    assert min(a.epoch for a in node.flush()[-1].batch.anchors) > last


def test_a_reset_that_the_source_reports_is_one_even_if_counters_do_not_show_it() -> None:
    node = Node().calibrated()
    node.take(Happening(HappeningKind.GPU_RESET, node.t, UNIX0 + node.t, entity="GPU-0"))
    node.tick()
    assert gaps(node.flush()) == [(GapReason.RESET, 1, JOB_A)]


def test_one_reading_that_cannot_be_true_is_ignored() -> None:
    node = Node().calibrated()
    node.sleep(1)
    node.read(cycles={k: v + 10**16 for k, v in node.gpu.counters.items()})
    node.tick()
    sealed = node.flush()
    assert gaps(sealed) == []
    assert total(sealed, "sm_elapsed_cycles") == 8 * ONE_SECOND
    assert notices(sealed) == ["calibration", "reading-refused", "cross-check"]  # refused and flagged


def test_two_that_agree_are_believed_and_the_time_before_is_a_gap() -> None:
    node = Node().calibrated()
    node.gpu.counters = {k: v + 10**16 for k, v in node.gpu.counters.items()}
    for _ in range(8):
        node.tick()
    sealed = node.flush(final=True)
    assert gaps(sealed) == [(GapReason.REFUSED, 1, JOB_A)]
    assert total(sealed, "sm_elapsed_cycles") == (6 + 7) * ONE_SECOND


def test_counters_that_never_fit_are_gaps_not_silence() -> None:
    node = Node().calibrated()
    for i in range(20):
        node.sleep(1)
        node.read(cycles={k: v + (i + 1) * 10**15 for k, v in node.gpu.counters.items()})
    sealed = node.flush(final=True)
    assert duration(sealed) == 26 * SECOND
    assert sum(d for r, d, _ in gaps(sealed) if r is GapReason.REFUSED) == 20
    assert notices(sealed).count("reading-refused") == 1


def test_another_driver_counts_anew() -> None:
    node = Node().calibrated()
    node.flush()
    node.restart(driver="600.1")
    node.gpu.average = False
    for _ in range(7):
        node.tick()
    sealed = node.flush()
    assert gaps(sealed) == [(GapReason.RESET, 1, JOB_A)]
    assert total(sealed, "sm_elapsed_cycles") == 12 * ONE_SECOND
    assert notices(sealed) == ["calibration", "driver-reloaded", "calibration"]


# ---- without counters ---------------------------------------------------------------------------------


def test_percentages_meter_every_interval() -> None:
    node = Node()
    for _ in range(11):
        node.sleep(1)
        node.take(percent(node.t))
    sealed = node.flush()
    assert total(sealed, "hmma_cycles") == 10 * ONE_SECOND // 2
    assert gaps(sealed) == []


@pytest.mark.parametrize(
    ("error", "reason"),
    [("NVML_ERROR_TIMEOUT", GapReason.READ_HUNG), ("NVML_ERROR_UNKNOWN", GapReason.READ_FAILED)],
)
def test_a_failed_read_without_counters_is_a_gap_at_once(error: str, reason: GapReason) -> None:
    node = Node()
    node.take(percent(node.t))
    node.fail(error=error)
    node.fail(error=error)
    node.sleep(1)
    node.take(percent(node.t))
    sealed = node.flush()
    assert gaps(sealed) == [(reason, 2, JOB_A)]
    assert duration(sealed) == 3 * SECOND


def test_readings_without_any_value_are_gaps() -> None:
    node = Node()
    for _ in range(4):
        node.sleep(1)
        node.take(Reading("GPU-0", node.t, UNIX0 + node.t, workload=JOB_A))
    assert gaps(node.flush()) == [(GapReason.READ_FAILED, 3, JOB_A)]


def test_an_entity_that_falls_silent_gets_a_gap_when_the_window_closes() -> None:
    node = Node(agent=meter(facts(device(0), device(1))))
    node.take(percent(node.t, entity="GPU-1"))
    for _ in range(150):
        node.sleep(1)
        node.take(percent(node.t))
    assert gaps(node.sealed, "GPU-1") == [(GapReason.READ_HUNG, 60, JOB_A), (GapReason.READ_HUNG, 60, JOB_A)]
    node.take(percent(node.t, entity="GPU-1"))
    assert duration(node.flush(), "GPU-1") == 150 * SECOND


def test_time_alone_closes_windows_and_books_the_silent() -> None:
    node = Node()
    node.take(percent(node.t))
    for _ in range(121):
        node.sleep(1)
        node.advance()
    assert gaps(node.sealed) == [(GapReason.READ_HUNG, 60, JOB_A)] * 2


def test_a_device_that_never_answers_is_a_gap_from_the_beginning() -> None:
    node = Node(agent=meter(facts(device(0), device(1))), t=120 * SECOND)
    for _ in range(62):
        node.take(percent(node.t))
        node.sleep(1)
    assert gaps(node.sealed, "GPU-1") == [(GapReason.READ_HUNG, 60, UNATTRIBUTED)]


def test_a_suspended_node_is_a_gap_without_counters_and_a_bridge_with() -> None:
    node = Node()
    node.take(percent(node.t))
    node.sleep(7200)
    node.take(percent(node.t))
    assert gaps(node.flush()) == [(GapReason.SUSPENDED, 7200, JOB_A)]


def test_an_agent_that_was_down_leaves_a_gap_without_counters() -> None:
    node = Node()
    for _ in range(2):
        node.take(percent(node.t))
        node.sleep(1)
    node.flush()
    node.restart()
    node.sleep(600)
    node.take(percent(node.t))
    assert gaps(node.flush()) == [(GapReason.AGENT_DOWN, 601, JOB_A)]


def test_percentages_are_not_stretched_over_a_restart_however_short() -> None:
    """They are averages since the reading before, which another life of the agent took."""
    node = Node()
    for _ in range(3):
        node.take(percent(node.t))
        node.sleep(1)
    node.flush()
    node.restart()
    node.sleep(4)
    node.take(percent(node.t))
    node.sleep(1)
    node.take(percent(node.t))
    assert gaps(node.flush()) == [(GapReason.AGENT_DOWN, 5, JOB_A)]
    assert total(node.sealed, "duration_ns") == 3 * SECOND


def test_why_nobody_metered_can_be_told() -> None:
    node = Node()
    for _ in range(2):
        node.take(percent(node.t))
        node.sleep(1)
    journal = node.flush()[0].journal
    node.agent = meter(journal=journal, because=GapReason.SPOOL_FULL)
    node.sleep(600)
    node.take(percent(node.t))
    assert gaps(node.flush()) == [(GapReason.SPOOL_FULL, 601, JOB_A)]


def test_a_slow_but_steady_cadence_is_learned() -> None:
    node = Node()
    for _ in range(11):
        node.take(percent(node.t))
        node.sleep(30)
    sealed = node.flush()
    assert sum(d for _, d, _ in gaps(sealed)) == 30
    assert total(sealed, "duration_ns") == 270 * SECOND


def test_utilisation_alone_is_class_c() -> None:
    node = Node()
    for _ in range(3):
        node.sleep(1)
        node.take(percent(node.t, percent={}, utilization_gpu_pct=30.0))
    assert {u.evidence_class for _, u in rows(node.flush())} == {EvidenceClass.C}


def test_a_refused_percentage_is_said() -> None:
    node = Node()
    node.take(percent(node.t))
    node.sleep(1)
    node.take(percent(node.t, percent={5: 140737488355328.0, 7: float("nan")}))
    sealed = node.flush()
    assert gaps(sealed) == [(GapReason.REFUSED, 1, JOB_A)]
    assert notices(sealed) == ["reading-refused"]


# ---- whose --------------------------------------------------------------------------------------------


class Finder(WorkloadFinder):
    def find(self, pid: int, start_ticks: int) -> Workload | None:
        return {1: JOB_A, 2: JOB_B}.get(pid)


def test_processes_tell_whose_it_is_and_sharing_is_said_once_per_change() -> None:
    node = Node(agent=meter(finder=Finder()))

    def tick(*pids: int) -> None:
        node.tick(workload=None, processes=tuple(Process(p, 1) for p in pids))

    for pids in [(1,)] * 7 + [()] + [(1, 2)] * 3 + [(2,)] + [(1, 2)]:
        tick(*pids)
    sealed = node.flush()
    by = {w: sum(u.duration_ns for x, u in rows(sealed) if x == w) / SECOND for w, _ in rows(sealed)}
    # 4 s are held by both: nobody knows better than half. One second after A, in which something still ran, is A's;
    # in the one in which A leaves B, A had a share of its first half.
    assert by == {JOB_A: 6 + 1 + 2 + 0.25, JOB_B: 2 + 0.75}
    assert total(sealed, "sm_elapsed_cycles") == 12 * ONE_SECOND
    (said,) = [n for n in sealed[0].batch.notices if n.kind is NoticeKind.SHARED_DEVICE]
    assert said.detail == "held by slurm:1.0, slurm:2.0 (2 times)"


@pytest.mark.parametrize(
    ("began", "before"), [(0, 0.5), (128.25, 0.25), (128.99, 0.99), (100.0, 0.5), (129.5, 0.5)]
)
def test_a_hand_over_between_two_readings_is_divided_by_time_and_marked(began: float, before: float) -> None:
    """A's process is gone and B's there: B's began at some time, or nobody knows when."""
    node = Node(agent=meter(finder=Finder()))
    ticks = round(began * 100)
    for pids in [(1,)] * 8 + [(2,)] * 2:
        node.tick(workload=None, processes=tuple(Process(p, 1 if p == 1 else ticks) for p in pids))
    assert node.t == 130 * SECOND
    sealed = node.flush()
    own = {}
    for w, u in rows(sealed):
        if Measured.OTHERS not in u.measured:
            own[w, bool(u.measured & Measured.APPORTIONED)] = u.duration_ns / SECOND
    at = 128 + before
    assert own == {
        (JOB_A, False): 7,
        (JOB_A, True): pytest.approx(at - 128),
        (JOB_B, True): pytest.approx(129 - at),
        (JOB_B, False): 1,
    }
    assert total(sealed, "sm_elapsed_cycles") == 9 * ONE_SECOND
    others = [u for _, u in rows(sealed) if Measured.OTHERS in u.measured]
    assert sum(u.hmma_cycles for u in others) == ONE_SECOND // 2  # what A did not do, and what B did not


def test_work_that_no_process_seen_can_have_done_is_nobodys_and_an_idle_gpu_is_idle() -> None:
    node = Node(agent=meter(finder=Finder()))
    for _ in range(7):
        node.tick(workload=None, processes=())
    assert {w for w, _ in rows(node.flush())} == {UNATTRIBUTED}  # something ran between the readings
    for _ in range(3):
        node.t += SECOND
        node.gpu.run(SECOND, {249: 1})  # 0.1 %: as an idle GPU does
        node.read(workload=None, processes=())
    assert {w for w, _ in rows(node.flush()[-1:])} == {IDLE}


def test_unknown_holder_is_nobody_if_busy_and_idle_if_nothing_ran() -> None:
    node = Node().calibrated()
    node.tick(workload=None)
    node.gpu.run(SECOND, {})
    node.t += SECOND
    node.read(workload=None)
    assert [w for w, _ in rows(node.flush())] == [JOB_A, UNATTRIBUTED, IDLE]


# ---- devices ------------------------------------------------------------------------------------------


def test_a_device_that_leaves_closes_its_time_as_lost_and_stays_in_the_batch_that_names_it() -> None:
    node = Node(agent=meter(facts(device(0), device(1))))
    other = Gpu("GPU-1")
    for _ in range(8):
        node.tick()
        other.run(SECOND, BUSY)
        node.take(other.reading(node.t))
    node.tick(2)
    node.agent.refacts(facts(device(0), device(2)))
    node.tick()
    sealed = node.flush()
    assert [d.entity for d in sealed[0].inventory.devices] == ["GPU-0", "GPU-2", "GPU-1"]
    assert gaps(sealed, "GPU-1") == [(GapReason.LOST, 2, JOB_A)]
    assert total(sealed, "sm_elapsed_cycles", "GPU-1") == 7 * ONE_SECOND
    assert "devices-changed" in notices(sealed)
    node.tick()
    assert [d.entity for d in node.flush()[1].inventory.devices] == ["GPU-0", "GPU-2"]


def test_a_device_that_changed_starts_anew() -> None:
    node = Node().calibrated()
    node.agent.refacts(facts(device(sm_count=60)))
    node.gpu.sms = 60
    node.tick()
    node.tick()
    sealed = node.flush()
    assert gaps(sealed) == [(GapReason.RESET, 1, JOB_A)]
    assert total(sealed, "sm_elapsed_cycles") == 6 * ONE_SECOND + 1_700_000_000 * 60


def test_a_gpu_cut_into_instances_is_metered_there_and_gives_energy_only() -> None:
    parent = device(0)
    part = device(1, entity="MIG-1", mig=True, parent="GPU-0", sm_count=16, gpu_instance=1)
    node = Node(agent=meter(facts(parent, part)))
    for _ in range(4):
        node.tick()
        node.take(percent(node.t, entity="MIG-1"))
    sealed = node.flush()
    (row,) = [u for _, u in rows(sealed, "GPU-0")]
    assert (row.evidence_class, row.sm_elapsed_cycles, row.energy_mj) == (EvidenceClass.C, 0, 1500)
    assert total(sealed, "sm_elapsed_cycles") == 3 * 1_700_000_000 * 16
    assert all(a.entity_index != 0 for s in sealed for a in s.batch.anchors)


def test_too_many_devices_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flopmeter.agent.metering.intake.MAX_ENTITIES", 1)
    node = Node(agent=meter(facts(device(0), device(1)))).calibrated()
    assert "devices-changed" in notices(node.flush())


# ---- what is odd --------------------------------------------------------------------------------------


def test_an_entity_that_is_not_in_the_inventory_is_said() -> None:
    node = Node().calibrated()
    node.read(entity="GPU-9")
    assert notices(node.flush()) == ["calibration", "reading-refused"]


def test_a_reading_out_of_order_is_said_and_changes_nothing() -> None:
    node = Node().calibrated()
    late = node.gpu.reading(node.t - SECOND)
    node.take(late)
    node.take(node.gpu.reading(node.t))
    node.tick()
    sealed = node.flush()
    assert total(sealed, "sm_elapsed_cycles") == 7 * ONE_SECOND
    assert "reading-refused" in notices(sealed)


def test_a_wall_clock_that_steps_loses_nothing() -> None:
    node = Node().calibrated()
    node.sleep(1)
    node.read(unix=UNIX0 + node.t - 3600 * SECOND)
    node.tick()
    sealed = node.flush()
    assert duration(sealed) == 8 * SECOND
    said = [n.detail for n in sealed[0].batch.notices if n.kind is NoticeKind.CLOCK_STEPPED]
    assert said == ["wall clock stepped by -3600000000000 ns (2 times)"]


@pytest.mark.parametrize("unix", [0, 1, (1 << 63) - 1])
def test_any_wall_clock_is_sealed(unix: int) -> None:
    node = Node()
    for _ in range(70):
        node.sleep(1)
        node.read(unix=unix)
    for s in node.flush():
        encode_batch(s.batch)
        assert 0 < s.batch.window_start_unix_ns < 1 << 63
        assert 0 < s.batch.window_end_unix_ns < 1 << 63


def test_notices_before_the_first_item_get_its_time() -> None:
    node = Node()
    node.agent.note(NoticeKind.AGENT_STARTED, "0.1.0")
    node.read()
    notice = node.flush()[0].batch.notices[0]
    assert (notice.kind, notice.t_boot_ns, notice.t_unix_ns) == (
        NoticeKind.AGENT_STARTED,
        node.t,
        UNIX0 + node.t,
    )


# ---- anchors ------------------------------------------------------------------------------------------


def test_counters_are_quoted_hourly_and_explain_the_usage_between() -> None:
    node = Node(t=100_000 * SECOND).calibrated()
    for _ in range(2 * 60 + 5):
        node.tick(60, workload=JOB_A)
    sealed = node.flush()
    anchors = [a for s in sealed for a in s.batch.anchors]
    assert len(anchors) == 4  # start, two hours, stop
    for before, after in pairwise(anchors):
        between = [
            s for s in sealed if before.t_boot_ns < s.batch.window_end_boot_ns <= after.t_boot_ns + MINUTE
        ]
        if before is not anchors[0]:  # quoted at the end of its window, so that window is not between
            between = between[1:]
        delta = dict(after.counters)[252] - dict(before.counters)[252]
        assert delta * SMS == total(between, "hmma_cycles") > 0


# ---- re-anchoring -------------------------------------------------------------------------------------


def test_usage_that_is_in_the_books_already_is_dropped_and_the_rest_is_a_gap() -> None:
    node = Node(t=125 * SECOND).calibrated()
    node.flush()
    for _ in range(20):
        node.tick()
    head = node.t - 5 * SECOND
    node.agent.note(NoticeKind.REANCHORED, "said before")
    node.agent.skip_to(BOOT, head, node.t)
    node.tick()
    node.tick()
    last = node.flush()[-1]
    assert last.batch.window_start_boot_ns == head
    assert gaps([last]) == [(GapReason.RECORD_LOST, 6, JOB_A)]
    assert total([last], "sm_elapsed_cycles") == ONE_SECOND
    assert notices([last]) == ["reanchored"]


def test_skipping_to_the_future_ignores_readings_until_then_in_a_replay() -> None:
    node = Node(agent=meter(facts(source="trace"))).calibrated()
    assert node.agent.skip_to(BOOT, node.t + 10 * SECOND, node.t)
    for _ in range(12):
        node.tick()
    assert duration(node.flush()) == 2 * SECOND


def test_live_nothing_lies_in_the_future() -> None:
    node = Node().calibrated()
    assert not node.agent.skip_to(BOOT, node.t + 10 * SECOND, node.t)
    for _ in range(12):
        node.tick()
    assert duration(node.flush()) == 18 * SECOND


def test_skipping_backwards_or_in_another_boot_changes_nothing() -> None:
    node = Node().calibrated()
    node.flush()
    node.tick()
    node.agent.skip_to(BOOT, node.t - 1 - SECOND, node.t)
    node.agent.skip_to(bytes(16), node.t + SECOND, node.t)
    assert duration(node.flush()) == 7 * SECOND


# ---- reboots ------------------------------------------------------------------------------------------

NEXT = bytes([77]) * 16


def test_a_reboot_seals_the_old_boot_and_owes_the_time_between_by_the_wall_clock() -> None:
    node = Node(t=1000 * SECOND).calibrated()
    node.tick()
    up = node.t - 5 * SECOND
    node.take(
        Happening(HappeningKind.REBOOT, node.t + 60 * SECOND - up, UNIX0 + node.t + 60 * SECOND, boot_id=NEXT)
    )
    assert node.sealed[0].boot_id == BOOT
    assert node.agent.boot_id == NEXT
    node.gpu.reset()
    for i in range(8):
        t = node.t + (70 + i) * SECOND
        node.gpu.run(SECOND, BUSY)
        node.take(node.gpu.reading(t - up, unix=UNIX0 + t))
    sealed = node.flush()
    assert sealed[-1].boot_id == NEXT
    assert gaps(sealed) == [(GapReason.RESET, 70, JOB_A)]
    assert total(sealed, "sm_elapsed_cycles") == (7 + 7) * ONE_SECOND
    assert "rebooted" in notices(sealed)
    assert sealed[-1].batch.window_end_boot_ns < sealed[0].batch.window_end_boot_ns


def test_a_reboot_while_the_agent_was_down() -> None:
    node = Node(t=1000 * SECOND).calibrated()
    node.flush()
    node.restart(boot=NEXT)
    node.gpu.reset()
    for i in range(8):
        t = node.t + (70 + i) * SECOND
        node.gpu.run(SECOND, BUSY)
        node.take(node.gpu.reading(t - 1050 * SECOND, unix=UNIX0 + t))
    sealed = node.flush()
    assert gaps(sealed) == [(GapReason.RESET, 70, JOB_A)]
    assert notices(sealed) == ["calibration", "rebooted"]


def test_the_journal_says_where_a_meter_began_without_one_in_this_boot() -> None:
    node = Node(t=1000 * SECOND)
    node.read()
    node.tick()
    assert load_journal(node.flush()[-1].journal).began_ns == 1000 * SECOND
    node.restart()
    node.tick()
    node.tick()
    assert load_journal(node.flush()[-1].journal).began_ns == 1000 * SECOND
    node.restart(boot=NEXT)
    node.take(node.gpu.reading(5 * SECOND, unix=UNIX0 + node.t))
    assert load_journal(node.flush()[-1].journal).began_ns == -1


def test_a_wall_clock_gone_mad_over_a_reboot_is_bounded() -> None:
    for shift, days in ((-(10**18), None), (10**18, 31)):
        node = Node(t=1000 * SECOND).calibrated()
        node.flush()
        node.restart(boot=NEXT)
        node.take(node.gpu.reading(5 * SECOND, unix=UNIX0 + shift))
        sealed = node.flush()
        assert [d // 86_400 for _, d, _ in gaps(sealed)] == ([] if days is None else [days])
        (said,) = [n.detail for n in sealed[-1].batch.notices if n.entity_index == 0]
        booked = 0 if days is None else days * 86_400 * SECOND
        assert said.endswith(f"ns passed over a reboot; {booked} ns are booked as a gap")


def test_a_reboot_without_a_boot_id_is_refused() -> None:
    node = Node().calibrated()
    node.take(Happening(HappeningKind.REBOOT, 5, UNIX0, boot_id=b"short"))
    assert node.agent.boot_id == BOOT
    assert "reading-refused" in notices(node.flush())


# ---- journals -----------------------------------------------------------------------------------------


def journal() -> bytes:
    node = Node(t=177 * SECOND)
    node.read()
    node.tick()
    node.read(cycles=dict.fromkeys(CYCLE_IDS, 1 << 62), t_boot_ns=node.t + 1)
    node.tick()
    node.tick()
    assert node.sealed or node.flush()
    return node.sealed[-1].journal


@pytest.mark.parametrize(
    "damage",
    [
        lambda j: j[:-1],
        lambda j: j[: len(j) // 2],
        lambda j: j.replace(b"journal/1", b"journal/2"),
        lambda j: j.replace(b"GPU-0", b"GPU-1"),
        lambda j: b"\0" * 100,
        lambda j: b"{}",
        lambda j: b"flopmeter-journal/1 00000000 ",
    ],
)
def test_a_damaged_journal_starts_anew_and_says_so(damage) -> None:  # type: ignore[no-untyped-def]
    node = Node(agent=meter(journal=damage(journal()))).calibrated()
    sealed = node.flush()
    assert notices(sealed) == ["spool-torn", "calibration"]
    assert total(sealed, "sm_elapsed_cycles") == 6 * ONE_SECOND


def test_an_empty_journal_is_none() -> None:
    assert notices(Node(agent=meter(journal=b"")).calibrated().flush()) == ["calibration"]


def test_a_journal_of_fewer_devices_than_there_are_now() -> None:
    node = Node().calibrated()
    node.flush()
    node.agent = meter(facts(device(0), device(1)), journal=node.sealed[-1].journal)
    node.tick()
    assert "devices-changed" in notices(node.flush())
    assert duration(node.sealed, "GPU-0") == 7 * SECOND


def test_facts_that_changed_over_a_restart_are_in_the_inventory() -> None:
    node = Node().calibrated()
    node.flush()
    node.agent = meter(replace(facts(), nvml="14.1"), journal=node.sealed[-1].journal)
    node.tick()
    assert node.flush()[-1].inventory.nvml == "14.1"
    assert node.sealed[-1].inventory.devices[0].name == H100


def test_a_gap_of_a_gpu_cut_into_instances_has_no_price_and_the_collector_takes_it() -> None:
    """Its SMs are metered in the instances; refusing it would lose the instances' usage with it."""
    instance = device(1, entity="MIG-1", mig=True, parent="GPU-0", gpu_instance=1, sm_count=16)
    node = Node(agent=meter(facts(device(0), instance)))
    for _ in range(70):
        node.fail(entity="GPU-0")
        node.take(Reading("MIG-1", node.t, UNIX0 + node.t, error="NVML_ERROR_UNKNOWN"))
    (sealed,) = node.sealed
    parent, part = sealed.batch.usage
    assert (parent.duration_ns > 0, parent.sm_elapsed_cycles) == (True, 0)
    assert part.sm_elapsed_cycles > 0
    inventory = decode_inventory(encode_inventory(sealed.inventory))
    bounds = [device_bounds(d, 0, divided(inventory)) for d in inventory.devices]
    BatchView(encode_batch(sealed.batch)).groups(bounds)
    with pytest.raises(ContractError, match="never priced at nothing"):
        BatchView(encode_batch(sealed.batch)).groups([device_bounds(d, 0) for d in inventory.devices])
