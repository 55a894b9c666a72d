"""top: figures by the meter's own arithmetic, in 80 columns, with colour only where it belongs."""

import dataclasses
import json
import re
import subprocess
import sys

import pytest

from fakes import FakeClock
from flopmeter.agent.reading import CYCLE_IDS, NodeFacts, Process, Reading
from flopmeter.agent.sources.sim import SimDead, SimDevice, SimJob, SimReset, SimScript, SimSource
from flopmeter.agent.sources.trace import TraceFile, TraceWriter
from flopmeter.agent.tools.live import LiveRounds, RecordedRounds
from flopmeter.agent.tools.top import SORTS, Screen, draw, frames, to_json
from flopmeter.agent.tools.view import NodeView, Shown
from flopmeter.agent.workloads.attribution import Attributor
from flopmeter.cli.cells import columns
from flopmeter.cli.terminal import Terminal
from flopmeter.contract.usage import Device, Uncovered, Workload, WorkloadKind

S = 1_000_000_000
PLAIN = Terminal(live=False, color=False, unicode=True)
JOB = SimJob(Workload(WorkloadKind.SLURM, job="4711", step="0", dtype="bf16"), 0, 10**18, tensor_util=0.5)
SCRIPT = SimScript(node="node-a", devices=(SimDevice(),) * 2, jobs=(dataclasses.replace(JOB, devices=(0,)),))
ANSI = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


def watch(script: SimScript, rounds: int, start_s: float = 1000):
    """The last frame of that many one-second rounds."""
    clock = FakeClock(boot_ns=round(start_s * S))
    for count, frame in enumerate(frames(LiveRounds(SimSource(script, clock), clock, S)), start=1):
        if count == rounds:
            return frame
    raise AssertionError


def drawn(screen: Screen, facts, shown) -> str:
    screen.take(facts, shown)
    return draw(screen)


def test_figures_are_those_of_the_script():
    facts, (busy, idle) = watch(SCRIPT, 10)
    got = to_json(facts, [busy, idle])["gpus"]
    assert got[0]["evidence_class"] == "A1"
    assert got[0]["pipes_percent"]["tensor"] == pytest.approx(50, rel=0.07)
    cycles_per_s = busy.sm_clock_mhz * 1e6 * 132
    rate = got[0]["flop_per_second"]
    assert int(rate["point"]) == pytest.approx(cycles_per_s * 4096 * busy.pipes_pct["tensor"] / 100, rel=0.01)
    assert int(rate["lower"]) < int(rate["point"]) < int(rate["upper"])
    assert got[0]["workload"] == "slurm 4711.0"
    assert float(got[0]["energy_joules"]) > 0
    assert (got[1]["workload"], got[1]["flop_per_second"]["point"]) == ("idle", "0")
    json.dumps(got)


def test_while_the_scale_is_unknown_percentages_stand_in_or_nothing_does():
    _, (busy, _) = watch(SCRIPT, 3)
    assert (busy.evidence_class.label, busy.once_calibrated.label) == ("A2", "A1")
    assert busy.flop_per_s.point > 0
    _, (busy, _) = watch(dataclasses.replace(SCRIPT, gpm="cycles"), 3)
    assert (busy.flop_per_s, busy.note) == (None, "calibrating")
    assert busy.pipes_pct["tensor"] > 40
    _, (busy, _) = watch(dataclasses.replace(SCRIPT, gpm="cycles", scale="average"), 10)
    assert busy.evidence_class.label == "A1"
    assert 400e12 < busy.flop_per_s.point < 600e12


def test_a_failed_read_is_shown_as_one_never_as_idle():
    script = dataclasses.replace(SCRIPT, faults=(SimDead(0, 1005 * S, 10**18),))
    facts, shown = watch(script, 10)
    assert shown[0].error == "NVML_ERROR_GPU_IS_LOST"
    assert to_json(facts, shown)["gpus"][0]["flop_per_second"] is None
    assert to_json(facts, shown)["gpus"][0]["pipes_percent"] == {}
    text = drawn(Screen(PLAIN), facts, shown)
    assert "gpu is lost" in text
    lost = dataclasses.replace(script, faults=tuple(SimDead(i, 0, 10**18) for i in (0, 1)))
    assert "2 GPUs  - TFLOP/s" in drawn(Screen(PLAIN), *watch(lost, 3))  # not 0


def test_a_counter_restart_is_a_gap_and_then_goes_on():
    script = dataclasses.replace(SCRIPT, gpm="cycles", faults=(SimReset(0, 1008 * S + 500_000_000),))
    _, (busy, _) = watch(script, 10)
    assert (busy.evidence_class.label, busy.flop_per_s) == ("gap", None)
    _, (busy, _) = watch(script, 20)
    assert busy.evidence_class.label == "A1"


ROWS = [
    {"name": "NVIDIA RTX PRO 6000 Blackwell Server Edition", "compute_capability": "12.0", "sms": 188},
    {"name": "NVIDIA GB300", "compute_capability": "10.3", "sms": 148},
    {"name": "A", "compute_capability": "99.0", "sms": 1},
]


@pytest.mark.parametrize("color", [False, True])
@pytest.mark.parametrize("unicode", [False, True])
def test_no_line_is_wider_than_80_columns(color, unicode):
    job = dataclasses.replace(JOB, workload=Workload(WorkloadKind.SLURM, job="1", run="r" * 250))
    devices = (SimDevice(), *(SimDevice(**row) for row in ROWS))
    script = dataclasses.replace(SCRIPT, node="n" * 200, devices=devices, jobs=(job,))
    screen = Screen(Terminal(live=False, color=color, unicode=unicode))
    clock = FakeClock()
    for count, frame in enumerate(frames(LiveRounds(SimSource(script, clock), clock, S)), start=1):
        text = drawn(screen, *frame)
        assert max(len(ANSI.sub("", line)) for line in text.splitlines()) <= 80
        assert text.isascii() or unicode
        assert bool(ANSI.search(text)) == color
        if count == 15:
            break
    assert "rrrrrrrr" in text


def test_history_grows_from_the_right_and_shows_what_was_not_measured():
    script = dataclasses.replace(SCRIPT, faults=(SimDead(0, 1003 * S, 1004 * S),))
    screen = Screen(PLAIN)
    clock = FakeClock(boot_ns=1000 * S)
    for count, frame in enumerate(frames(LiveRounds(SimSource(script, clock), clock, S)), start=1):
        row = drawn(screen, *frame).splitlines()[2]
        if count == 7:
            break
    (history,) = re.findall(r"[▁▂▃▄▅▆▇█·]{7}", row)
    # First reading, two intervals, the lost one, the first reading after it, two intervals.
    assert re.fullmatch(r"·[▄▅]{2}··[▄▅]{2}", history)


def test_a_live_screen_is_drawn_over():
    text = drawn(Screen(Terminal(live=True, color=False, unicode=True)), *watch(SCRIPT, 2))
    assert text.startswith("\x1b[H")
    assert text.endswith("\x1b[K\x1b[J")
    assert text.count("\x1b[K\r\n") == 3  # none behind the last line: it would scroll


def test_a_trace_is_watched_round_by_round(tmp_path):
    source = SimSource(SCRIPT, FakeClock())
    entities = [d.entity for d in source.facts().devices]
    with TraceWriter(tmp_path / "t", source.facts()) as writer:
        for t in range(1000, 1010):
            for entity in entities:
                writer.write(source.reading_at(entity, t * S, t))
    clock = FakeClock()
    with TraceFile(tmp_path / "t") as trace:
        rounds = list(frames(RecordedRounds(trace, clock, pace_s=0.5)))
    assert len(rounds) == 10
    assert [len(shown) for _, shown in rounds] == [2] * 10
    assert rounds[-1][1][0].evidence_class.label == "A1"
    assert clock.boot_ns() - FakeClock().boot_ns() == 9 * 500_000_000


def test_an_energy_only_gpu_and_a_device_that_comes_later():

    gpu = Device("GPU-1", "NVIDIA H100 80GB HBM3", "9.0", 132)
    mig = Device("MIG-1", "NVIDIA H100 80GB HBM3 MIG", "9.0", 16, mig=True, parent="GPU-1", gpu_instance=1)
    before = NodeFacts("n", bytes(16), "", "", "nvml", (gpu,))
    view = NodeView(before)
    assert len(view.update(before, [Reading("GPU-1", S, 1, {248: 1})])) == 1
    after = dataclasses.replace(before, devices=(gpu, mig))
    items = [
        Reading("GPU-1", 2 * S, 1, power_mw=5000),
        Reading("MIG-1", 2 * S, 1),
        Reading("GPU-x", 2 * S, 1),
    ]
    assert [s.device.entity for s in view.update(after, items)] == ["GPU-1", "MIG-1"]


@pytest.mark.e2e
def test_the_command():
    command = [
        sys.executable,
        "-c",
        "from flopmeter.cli.main import main; main()",
        "agent",
        "top",
        "--source",
        "sim",
    ]
    done = subprocess.run([*command, "--once", "--tick", "0.25"], capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert b"\x1b" not in done.stdout
    assert len(done.stdout.decode().splitlines()) == 10
    done = subprocess.run([*command, "--once", "--json", "--tick", "0.25"], capture_output=True, timeout=60)
    assert len(json.loads(done.stdout)["gpus"]) == 8
    with subprocess.Popen([*command, "--json", "--tick", "0.25"], stdout=subprocess.PIPE) as live:
        assert live.stdout is not None
        json.loads(live.stdout.readline())
        json.loads(live.stdout.readline())
        live.terminate()
        assert live.wait(60) == 0


# ---- what a person should look at --------------------------------------------------------------------------

GPU = Device("GPU-1", "NVIDIA H100 80GB HBM3", "9.0", 132, 1980)
PER_S = 132 * 1_755_000_000


class Odd:
    """A GPU whose energy counter runs twice as fast as its power, whose DRAM idles, and that two jobs hold."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock

    def facts(self) -> NodeFacts:
        card = Uncovered("00000000:41:00.0", "AMD", "1002:74a1", "NVML reads NVIDIA devices only")
        return NodeFacts("n", bytes(16), "595.1", "13", "nvml", (GPU,), uncovered=(card,))

    def read(self, entity: str) -> Reading:
        t = self.clock.boot_ns()
        seconds = t // S
        cycles = {
            i: 10**15 + seconds * (PER_S if i == 248 else PER_S // 2 * (i in (249, 250, 252)))
            for i in CYCLE_IDS
        }
        return Reading(
            entity, t, t, cycles, {10: 0.0}, (1755.0,), energy_mj=seconds * 1_200_000, power_mw=600_000,
            processes=(Process(1, 10), Process(2, 20)),
        )  # fmt: skip

    def close(self) -> None:
        pass


class TwoJobs:
    def find(self, pid: int, start_ticks: int) -> Workload | None:
        return Workload(WorkloadKind.SLURM, job=str(pid))


@pytest.mark.parametrize("color", [False, True])
def test_failed_checks_sharing_and_what_is_not_covered_are_shown_in_80_columns(color):
    clock = FakeClock()
    rounds = LiveRounds(Odd(clock), clock, S)
    screen = Screen(Terminal(live=False, color=color, unicode=True))
    for count, frame in enumerate(frames(rounds, Attributor(TwoJobs())), start=1):
        text = drawn(screen, *frame)
        assert max(len(ANSI.sub("", line)) for line in text.splitlines()) <= 80
        if count == 90:
            break
    plain = ANSI.sub("", text)
    assert "   ! energy-power: expected " in plain
    assert "   ! dram-per-flop: expected DRAM traffic" in plain
    assert "   ! shared: " in plain
    assert " - 00000000:41:00.0 AMD 1002:74a1 is not metered: " in plain
    got = to_json(*frame)
    assert [flag.partition(":")[0] for flag in got["gpus"][0]["flags"]] == [
        "dram-per-flop",
        "energy-power",
        "shared",
    ]
    assert got["uncovered"][0]["vendor"] == "AMD"
    assert got["gpus"][0]["flop_per_second"]["point"] != "0"  # flagged, and shown as metered


def test_a_silent_zero_is_shown_as_one_and_not_as_idle():
    a100 = Device("GPU-1", "NVIDIA A100-SXM4-80GB", "8.0", 108, 1410)
    facts = NodeFacts("n", bytes(16), "", "", "dcgm", (a100,))
    view = NodeView(facts)
    values = {"percent": {1: 0.0, 5: 0.0, 10: 0.0}, "utilization_gpu_pct": 97.0, "sm_clock_mhz": (1410.0,)}
    for t in (1, 2):
        (shown,) = view.update(facts, [Reading("GPU-1", t * S, t, **values)])
    assert (shown.evidence_class.label, shown.silent) == ("C", True)
    text = drawn(Screen(PLAIN), facts, [shown])
    assert "   ! silent-zero: expected profiling values above 0 with utilisation 97 %" in text
    assert "<= " in text
    idle = {**values, "utilization_gpu_pct": 0.0}
    (shown,) = view.update(facts, [Reading("GPU-1", 3 * S, 3, **idle)])
    assert (shown.evidence_class.label, shown.silent) == ("B2", False)


# ---- a terminal with keys --------------------------------------------------------------------------------------

ON_TERMINAL = Terminal(live=True, color=False, unicode=True)


def instances(n: int):
    """A node of `n` MIG instances, each busier than the one before."""
    devices = tuple(
        Device(f"MIG-{i}", "NVIDIA H100 80GB HBM3 MIG 1g.10gb", "9.0", 16, mig=True, parent="GPU-1")
        for i in range(n)
    )
    facts = NodeFacts("n", bytes(16), "595.1", "13", "nvml", devices)
    shown = [
        Shown(d, pipes_pct={"tensor": float(i)}, power_w=None if i % 2 else 700.0 - i, energy_mj=i * 10**9)
        for i, d in enumerate(devices)
    ]
    return facts, shown


def numbers(screen: Screen) -> list[int]:
    """Places of the rows that are shown."""
    found = [re.match(r" *(\d+) MIG", line) for line in screen.lines()]
    return [int(m[1]) for m in found if m]


def test_more_entities_than_lines_are_scrolled_through_and_none_is_out_of_reach():
    screen = Screen(ON_TERMINAL, width=80, height=24)
    screen.take(*instances(72))
    assert numbers(screen) == list(range(21))
    assert "1-21 of 72" in screen.lines()[-1]
    reached = set(numbers(screen))
    for _ in range(60):
        assert not screen.press("j")
        reached |= set(numbers(screen))
    assert reached == set(range(72))
    assert numbers(screen) == list(range(51, 72))  # no further than the end
    screen.press("k")
    assert numbers(screen)[0] == 50
    screen.press("g")
    assert numbers(screen)[0] == 0
    screen.press("page-down")
    assert numbers(screen)[0] == 20
    screen.height = 200  # a larger terminal shows all of it again
    assert len(numbers(screen)) == 72
    assert len(screen.lines()) == 200


def test_sorted_by_each_figure_the_largest_first_and_what_is_not_measured_last():
    screen = Screen(ON_TERMINAL, width=80, height=100)
    screen.take(*instances(6))
    orders = {}
    for _ in SORTS:
        orders[re.search(r"sort: (\S+)", screen.lines()[-1])[1]] = numbers(screen)
        screen.press("s")
    assert orders["place"] == [0, 1, 2, 3, 4, 5]
    assert orders["tensor"] == orders["energy"] == [5, 4, 3, 2, 1, 0]
    assert orders["power"] == [0, 2, 4, 1, 3, 5]
    assert orders["TFLOP/s"] == [0, 1, 2, 3, 4, 5]  # of none
    assert numbers(screen) == orders["place"]  # round again


def test_a_pause_keeps_the_figures_and_not_the_history_from_growing():
    screen = Screen(ON_TERMINAL, width=80, height=24)
    screen.take(*instances(2))
    screen.press("p")
    facts, shown = instances(2)
    later = [dataclasses.replace(one, pipes_pct={"tensor": 99.0}) for one in shown]
    screen.take(facts, later)
    assert "PAUSED" in screen.lines()[0]
    assert not any(" 99.0 " in line for line in screen.lines())
    screen.press("p")
    screen.take(facts, later)
    assert sum(" 99.0 " in line for line in screen.lines()) == 2
    assert list(screen.history["MIG-0"]) == [0.0, 99.0, 99.0]


@pytest.mark.parametrize("width", [20, 60, 80, 109, 110, 149, 150, 200])
@pytest.mark.parametrize("height", [1, 3, 24])
def test_every_size_is_kept_to_whatever_names_hold(width, height):
    facts, shown = instances(40)
    facts = dataclasses.replace(facts, node="漢字" * 200)
    hostile = Workload(WorkloadKind.SLURM, job="1", run="\x1b[2J漢" * 90)
    shown = [dataclasses.replace(one, workload=hostile, flags=("e\u0301\n" * 99,)) for one in shown]
    screen = Screen(ON_TERMINAL, width=width, height=height)
    screen.take(facts, shown)
    lines = screen.lines()
    assert len(lines) == height
    for line in lines:
        assert columns(line) <= width
        assert "\x1b" not in line
    screen.press("?")
    assert len(screen.lines()) == height
    assert not screen.press("j")
    assert not screen.help
    assert screen.press("q")
