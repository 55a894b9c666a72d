"""The meter, case by case: windows, scale, whose, devices, anchors. That nothing is lost or doubled: tests/invariants."""

from itertools import pairwise

import pytest
from metering import (
    BOOT,
    BUSY,
    JOB_A,
    JOB_B,
    ONE_SECOND,
    SECOND,
    SMS,
    UNIX0,
    Gpu,
    Node,
    device,
    duration,
    facts,
    gaps,
    meter,
    notices,
    percent,
    rows,
    taken,
    total,
)

from flopmeter.agent.metering.meter import Meter
from flopmeter.agent.reading import Process
from flopmeter.agent.shipping.encode import encode_batch, encode_inventory, inventory_digest
from flopmeter.agent.workloads.processes import WorkloadFinder
from flopmeter.contract.evidence_class import EvidenceClass
from flopmeter.contract.usage import IDLE, UNATTRIBUTED, GapReason, Measured, NoticeKind, Workload

MINUTE = 60 * SECOND


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
    assert sorted(notices(sealed)) == ["calibration", "cross-check"]
    [alarm] = [n for s in sealed for n in s.batch.notices if n.kind.label == "cross-check"]
    assert (alarm.entity_index, alarm.detail) == (
        0,
        "scale: expected 1 or 132 counts of id 248 per clock, got 3.333",
    )


def test_an_unknown_scale_without_percentages_is_a_priced_gap() -> None:
    node = Node()
    node.read(sm_clock_mhz=())
    for _ in range(70):
        node.tick(sm_clock_mhz=())
    sealed = node.flush(final=True)
    assert gaps(sealed) == [(GapReason.REFUSED, 70, JOB_A)]
    assert total(sealed, "sm_elapsed_cycles", gaps=True) == SMS * 1_980_000_000 * 70
    assert notices(sealed) == ["calibration"]  # nothing contradicts anything: it cannot be told


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
    node.sealed += node.agent.refacts(facts(device(sm_count=60)))
    node.gpu.sms = 60
    node.tick()
    node.tick()
    sealed = node.flush()
    assert gaps(sealed) == [(GapReason.RESET, 1, JOB_A)]
    assert total(sealed, "sm_elapsed_cycles") == 6 * ONE_SECOND + 1_700_000_000 * 60


@pytest.mark.parametrize("away", [False, True])
@pytest.mark.parametrize("sms", [16, 132])
def test_what_an_entity_was_before_it_became_another_is_in_a_batch_of_its_own(sms: int, away: bool) -> None:
    """The collector holds all of a batch against the one description of each entity in it."""
    node = Node(agent=meter(facts(device(sm_count=60), device(1))), sms=60)
    node.read()
    for _ in range(6):
        node.tick()
    for _ in range(3):
        node.fail()
    if away:
        node.agent.refacts(facts(device(1)))
    node.gpu.sms = sms
    node.sealed += node.agent.refacts(facts(device(sm_count=sms), device(1)))
    described = [[d.sm_count for d in s.inventory.devices if d.entity == "GPU-0"] for s in node.sealed]
    assert described == [[60]]
    node.tick()
    node.tick()
    sealed = node.flush()
    taken(sealed)
    assert {d.sm_count for d in sealed[-1].inventory.devices if d.entity == "GPU-0"} == {sms}
    assert duration(sealed, "GPU-0") == (10 if away else 11) * SECOND  # away: since it was back
    lost = GapReason.LOST if away else GapReason.RESET
    assert (lost, 3, JOB_A) in gaps(sealed[:1], "GPU-0")


def test_facts_that_no_figure_depends_on_cut_nothing() -> None:
    node = Node().calibrated()
    told = device(persistence=False, confidential=True, serial="x", pci_address="00000000:10:00.0")
    assert node.agent.refacts(facts(told)) == []
    node.tick()
    sealed = node.flush()
    assert gaps(sealed) == []
    assert sealed[-1].inventory.devices == (told,)


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
