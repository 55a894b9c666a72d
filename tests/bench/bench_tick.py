"""The agent's tick: CPU to read 8 GPUs through the stand-in driver (tests/fakenvml) and to meter them, at 1 Hz.

A process of its own; real nvidia-ml-py, real source, guarded reader, attribution of a real process, meter, windows of
60 s. Two figures each: ticks a second apart, as an agent lives them, between which the processor's caches go cold, as
the mean over one whole window with its end; and ticks one behind the other, which is what the code costs by itself, by
part. Clocks that are polled between ticks are a figure of their own. The stand-in's own time is C, and is stated; a
real driver's is its own, and not in here. Nor is what it takes to set the stand-in's clock.
"""

import ctypes
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from harness import HERE, CannotRun, Figure, calibrate, cores, median, progress, run_json

if TYPE_CHECKING:
    from fakenvml.driver import Machine

GPUS, GOAL_US = 8, 1_000.0  # 0.1 % of one core at 1 Hz
SETTLE, ROUNDS, TICKS = 150, 9, 60  # a round, and what is paced, holds exactly one end of a window
KINDS = {
    "A1": ("", "cycle counters"),
    "A2": ("cycles=0", "percentages, 50 buffered clock samples each"),
    "A2-polled": ("cycles=0 ring_ms=0", "percentages, clocks polled at 10 Hz"),
}


def run(folder: Path) -> list[Figure]:
    figures = []
    for kind, (_, said) in KINDS.items():
        progress(f"tick: {kind}, {TICKS} s paced, {ROUNDS} x {TICKS} ticks")
        here = folder / kind
        here.mkdir()
        got = run_json(
            [HERE / "bench_tick.py", kind, here], core=cores()[0], timeout_s=180, what=f"tick {kind}"
        )
        if got["readings"] != got["good"]:
            raise CannotRun(f"tick {kind}: {got['readings']} readings, only {got['good']} good")
        for pace, cost in (("1 Hz", got["paced_us"]), ("back to back", got["tick_us"])):
            figures.append(
                Figure(
                    "tick", f"{kind} ({said}), {pace}", f"{cost:.0f} us, {cost / 1e4:.3f} % of a core",
                    f"of it the stand-in driver {got['driver_us']:.0f} us", "", f"<= {GOAL_US:.0f} us",
                    cost <= GOAL_US, got["calibration_us"], got,
                )
            )  # fmt: skip
        parts = f"source {got['source_us']:.0f} us, meter {got['meter_us']:.0f} us"
        figures.append(Figure("tick", "  by part, back to back", parts, detail=got))
        if got["polls_us"]:
            polls = f"{got['polls_us']:.0f} us a second, {got['polls_us'] / 1e4:.3f} % of a core"
            figures.append(Figure("tick", "  polls of clocks at 10 Hz, beside the ticks", polls, detail=got))
    return figures


def measure(kind: str, folder: Path) -> dict:
    sys.path.insert(0, str(HERE.parent))
    from fakenvml.driver import COMPILER, NO_COMPILER, SECOND, Machine

    if COMPILER is None:
        raise SystemExit(NO_COMPILER)
    from flopmeter.agent.metering.meter import Meter, MeterSettings
    from flopmeter.agent.reader import Reader
    from flopmeter.agent.workloads.processes import ProcFinder

    setting = KINDS[kind][0]
    busy = f"clock=1980:0.6,1410:0.4 hmma=0.45 fp32=0.05 dram=0.3 power=655000 procs={os.getpid()}"
    cpu = time.process_time_ns
    with Machine(folder, *(f"gpu g{i} {busy} {setting}" for i in range(GPUS))) as m:
        source = m.source()
        facts = source.facts()
        entities = [d.entity for d in facts.devices]
        meter = Meter(facts, MeterSettings(), agent_version="bench", finder=ProcFinder())
        reader = Reader(source, m, deadline_s=2.0)
        spent = {"source": 0, "meter": 0, "readings": 0, "good": 0}

        def tick() -> None:
            a = cpu()
            readings = reader.read(entities)
            b = cpu()
            for reading in readings:
                meter.observe(reading)
            meter.advance(m.boot_ns(), m.unix_ns())
            spent["source"] += b - a
            spent["meter"] += cpu() - b
            spent["readings"] += len(readings)
            spent["good"] += sum(r.error is None for r in readings)

        def second(wait: Callable[[float], None]) -> int:
            """A second passes; what the polls of clocks in it cost, in ns."""
            if kind != "A2-polled":
                wait(1.0)
                m.advance(SECOND)
                return 0
            polls = 0
            for _ in range(10):
                wait(0.1)
                m.advance(SECOND // 10)
                before = cpu()
                source.poll()
                polls += cpu() - before
            return polls

        # As the agent's loop does it: on a thread that could be left behind, another looking at it.
        measured = reader.guarded(lambda: _ticks(second, tick, m, spent))
        reader.close()
    return {"kind": kind, "readings": spent["readings"], "good": spent["good"], **measured}


def _ticks(
    second: Callable[[Callable[[float], None]], int],
    tick: Callable[[], None],
    m: "Machine",
    spent: dict[str, int],
) -> dict:
    cpu = time.process_time_ns

    def ticks(wait: Callable[[float], None] = lambda _: None, count: int = TICKS) -> tuple[float, float]:
        """(us of one tick, us of the polls before it), over so many."""
        polls = whole = 0
        for _ in range(count):
            polls += second(wait)
            before = cpu()
            tick()
            whole += cpu() - before
        return whole / count / 1e3, polls / count / 1e3

    ticks(count=SETTLE)
    calibration = calibrate()
    paced, polls = ticks(time.sleep)
    spent["source"] = spent["meter"] = 0
    rounds = [ticks()[0] for _ in range(ROUNDS)]
    parts = {what: spent[what] / 1e3 / ROUNDS / TICKS for what in ("source", "meter")}
    ctypes.c_int.in_dll(m.lib, "fakenvml_timed").value = 1
    before = m.lib.fakenvml_ns()
    ticks()
    driver = (m.lib.fakenvml_ns() - before) / 1e3 / TICKS
    return {
        "paced_us": paced, "polls_us": polls, "tick_us": median(rounds), "source_us": parts["source"],
        "meter_us": parts["meter"], "driver_us": driver, "calibration_us": calibration,
    }  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], Path(sys.argv[2]))))
