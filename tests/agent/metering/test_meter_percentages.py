"""The meter without cycle counters: percentages over every interval, and a gap wherever nobody read."""

import pytest
from metering import (
    JOB_A,
    ONE_SECOND,
    SECOND,
    UNIX0,
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

from flopmeter.agent.reading import Reading
from flopmeter.contract.evidence_class import EvidenceClass
from flopmeter.contract.usage import UNATTRIBUTED, GapReason

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
