"""The meter where readings are missing: counters bridge the time, a reset or a doubt ends what they say."""

import pytest
from metering import (
    BUSY,
    JOB_A,
    JOB_B,
    ONE_SECOND,
    SECOND,
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
    total,
)

from flopmeter.agent.reading import CYCLE_IDS, Happening, HappeningKind
from flopmeter.contract.evidence_class import EvidenceClass
from flopmeter.contract.usage import IDLE, UNATTRIBUTED, GapReason

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


def test_a_counter_that_leaps_and_sticks_is_no_matter_of_others_of_its_model() -> None:
    """The scale, which is of the model, is another only if all between two such readings is too fast, too."""
    node = Node(agent=meter(facts(device(0), device(1)))).calibrated()
    other = Gpu("GPU-1")
    node.take(other.reading(node.t))
    for _ in range(3):
        node.tick(cycles=dict.fromkeys(CYCLE_IDS, 1 << 60))
        other.run(SECOND, BUSY)
        node.take(other.reading(node.t))
    sealed = node.flush()
    assert gaps(sealed, "GPU-1") == []
    assert total(sealed, "sm_elapsed_cycles", "GPU-1") == 3 * ONE_SECOND
    assert {reason for reason, _, _ in gaps(sealed, "GPU-0")} == {GapReason.REFUSED}
    assert not [n for s in sealed for n in s.batch.notices if "measured again" in n.detail]
