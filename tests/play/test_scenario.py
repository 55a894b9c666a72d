"""The demo's script: its counters at any hour add up to what it says the books must hold."""

import pytest

from flopmeter.contract.evidence_class import EvidenceClass
from flopmeter.contract.flop import Cycles, flop
from flopmeter.contract.usage import ALL_MEASURED
from flopmeter.contract.w_table import current
from flopmeter.play import scenario
from flopmeter.play.node import BEFORE_EDGE_NS, UPTIME_HOURS, SimNode
from flopmeter.play.scenario import FINETUNE, HOUR_NS, PRETRAIN, Scenario

START = 1_790_000_000_000_000_000


@pytest.fixture(scope="module")
def small() -> Scenario:
    return scenario.default(days=3, nodes=5)


def test_spans_leave_no_hour_out() -> None:
    for days, nodes in ((2, 5), (3, 5), (30, 24)):
        for node in scenario.default(days, nodes).nodes:
            assert node.spans[0].start == 0
            assert node.spans[-1].end == days * 24
            assert all(a.end == b.start for a, b in zip(node.spans, node.spans[1:], strict=False))
            assert all(s.end > s.start for s in node.spans)


def test_counters_never_fall_within_a_boot(small: Scenario) -> None:
    for node in small.nodes:
        sim = SimNode(small, node, START)
        before: dict[str, tuple[bytes, tuple[int, ...]]] = {}
        for hour in range(sim.last_hour + 1):
            boot = sim.facts(hour * HOUR_NS).boot_id
            for r in sim.readings(hour * HOUR_NS):
                now = (*r.cycles.values(), r.energy_mj or 0, r.t_boot_ns)
                if r.entity in before and before[r.entity][0] == boot:
                    assert all(a <= b for a, b in zip(before[r.entity][1], now, strict=True))
                before[r.entity] = (boot, now)


@pytest.mark.parametrize("run", [PRETRAIN, FINETUNE])
def test_differences_of_counters_are_the_scripted_cycles(small: Scenario, run: str) -> None:
    total = 0
    for node in small.nodes:
        sim = SimNode(small, node, START)
        last: dict[str, tuple[bytes, int]] = {}
        for hour in range(sim.last_hour + 1):
            boot = sim.facts(hour * HOUR_NS).boot_id
            for r in sim.readings(hour * HOUR_NS):
                held = r.workload is not None and r.workload.run == run
                if held and r.entity in last and last[r.entity][0] == boot:
                    total += r.cycles[252] - last[r.entity][1]
                last[r.entity] = (boot, r.cycles[252])
    assert total == small.hmma_cycles(run) > 0


def test_the_story_crosses_1e23_with_certainty_within_its_30_days() -> None:
    """From the script alone: 176 H100, less a dead agent's share, A1 bounds."""
    story = scenario.default()
    arch = current().arch(scenario.COMPUTE_CAPABILITY, scenario.MODEL)
    assert arch is not None
    assert (story.gpus, story.hours) == (192, 720)
    hmma = story.hmma_cycles(PRETRAIN)
    figure = flop(
        Cycles(EvidenceClass.A1, ALL_MEASURED, 0, elapsed=2 * hmma, active=hmma, hmma=hmma), arch, "bf16"
    )
    assert figure.lower > 10**23
    assert figure.point < 10**25


def test_boot_clock_restarts_with_the_node(small: Scenario) -> None:
    node = next(n for n in small.nodes if n.reboots)
    sim = SimNode(small, node, START)
    hour = node.reboots[0]
    assert sim.boot_ns(hour * HOUR_NS) == (UPTIME_HOURS + hour) * HOUR_NS - BEFORE_EDGE_NS
    assert sim.boot_ns((hour + 1) * HOUR_NS) == HOUR_NS - BEFORE_EDGE_NS
    assert sim.facts(hour * HOUR_NS).boot_id != sim.facts((hour + 1) * HOUR_NS).boot_id
