"""The demo's script: its counters at any hour add up to what it says the books must hold."""

from itertools import pairwise

import pytest

from flopmeter.contract.evidence_class import EvidenceClass
from flopmeter.contract.flop import Cycles, flop
from flopmeter.contract.usage import ALL_MEASURED
from flopmeter.contract.w_table import current
from flopmeter.play import scenario, story
from flopmeter.play.node import BEFORE_EDGE_NS, UPTIME_HOURS, SimNode
from flopmeter.play.scenario import HOUR_NS, Scenario
from flopmeter.play.story import FINETUNE, PRETRAIN
from flopmeter.play.voice import tokens_by

START = 1_790_000_000_000_000_000


@pytest.fixture(scope="module")
def small() -> Scenario:
    return story.default(days=3, nodes=5)


def test_spans_leave_no_hour_out() -> None:
    for days, nodes in ((2, 5), (3, 5), (30, 24)):
        for node in story.default(days, nodes).nodes:
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
                if r.error is None and r.entity in before and before[r.entity][0] == boot:
                    assert all(a <= b for a, b in zip(before[r.entity][1], now, strict=True))
                if r.error is None:  # a GPU that is lost tells nothing
                    before[r.entity] = (boot, now)


@pytest.mark.parametrize("run", [PRETRAIN, FINETUNE])
def test_differences_of_counters_are_the_scripted_cycles(small: Scenario, run: str) -> None:
    total = 0
    for node in small.nodes:
        sim = SimNode(small, node, START)
        last: dict[str, tuple[bytes, int]] = {}
        for hour in filter(node.reads, range(sim.last_hour + 1)):
            boot = sim.facts(hour * HOUR_NS).boot_id
            for r in sim.readings(hour * HOUR_NS):
                if not node.counts:
                    continue
                held = r.workload is not None and r.workload.run == run
                if held and r.entity in last and last[r.entity][0] == boot:
                    total += r.cycles[252] - last[r.entity][1]
                last[r.entity] = (boot, r.cycles[252])
    assert total == small.hmma_cycles(run) > 0


def test_the_story_crosses_1e23_with_certainty_within_its_30_days() -> None:
    """From the script alone: 176 H100, less a dead agent's share, A1 bounds."""
    told = story.default()
    arch = current().arch(scenario.COMPUTE_CAPABILITY, scenario.MODEL)
    assert arch is not None
    assert (told.gpus, told.hours) == (192, 720)
    hmma = told.hmma_cycles(PRETRAIN)
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


def test_what_training_code_says_falls_to_a_checkpoint_and_follows_the_script() -> None:
    """Tokens are those of the steps that the run's weights stand on: 6 x parameters each, of 3/4 of what is executed."""
    script = story.default()
    node = script.nodes[0]
    assert node.claimed is not None
    sim = SimNode(script, node, START)
    speaks = [h for h in range(script.hours + 1) if sim.span(h * HOUR_NS)[1].declares]
    said = [tokens_by(sim, node.claimed, hour * HOUR_NS) for hour in speaks]
    falls = [hour for hour, (a, b) in zip(speaks[1:], pairwise(said), strict=True) if b < a]
    assert falls == [s.start + 1 for s in node.spans if s.again_hours > 1]  # a requeue, a node's reboot
    assert len(falls) == 2
    rises = said[0] + sum(b - a for a, b in pairwise(said) if b > a)
    trained = sum(
        script.metered_hours(n, s, gpu) * script.elapsed_per_hour * script.hmma_ppm(s, gpu) // 1_000_000
        for n in script.nodes
        for s in n.spans
        if s.workload.run == PRETRAIN and s.declares
        for gpu in range(script.gpus_per_node)
    )
    share = rises * 6 * node.claimed.parameters / (trained * scenario.FLOP_PER_HMMA_CYCLE)
    assert 0.73 < share < 0.76  # the hours at a checkpoint and the hour of a reboot are the rest
    second = tokens_by(sim, node.claimed, script.hours * HOUR_NS + HOUR_NS // 2) - said[-1]
    assert second == pytest.approx((said[-1] - said[-2]) / 2, rel=1e-6)  # live it goes on


def test_no_reboot_is_within_the_time_without_an_agent() -> None:
    """The counters of it are bridged: they must not have begun anew."""
    for days, nodes in ((2, 5), (2, 6), (3, 5), (4, 7), (30, 24), (365, 64)):
        script = story.default(days, nodes)
        (away,) = [n for n in script.nodes if n.away != (-1, -1)]
        assert away.away[1] <= script.hours
        assert not [at for at in away.reboots if away.away[0] <= at < away.away[1]]
        assert away.dies < 0
