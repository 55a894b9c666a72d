"""Runs a workload between two quiet readings and sets what flopmeter counted against what was executed.

    quiet, reading | work, a reading every tick | drained, quiet, reading

All work lies within the two outer readings, so that nothing depends on how late the driver's counters are.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flopmeter.agent.reading import Happening, HappeningKind, Reading
from flopmeter.agent.sources.trace import TraceWriter
from flopmeter.contract.usage import Workload

from . import rules
from .agent_path import BETWEEN, AgentPath, has_counters, job, priced
from .lab import SECOND, Lab, Running, UnavailableError
from .work import Gemm, Work

#: Longer than any internal refresh of the counters that is known of (100 ms, reference/metering.md 1.2).
QUIET_S = 0.5
CHUNK_S = 0.05
#: An agent with a long tick finds out at its second reading that the driver's buffer of clocks is shorter, and lets
#: them be collected in between. What is validated is an agent that has run for a while, not its first interval.
SETTLE_S = 8.0
#: Enough for the scale (5 s) and k_p (10 intervals) of reference/metering.md 7.2.
CALIBRATE_S = 12.0


@dataclass
class Bench:
    """The lab with flopmeter's meter over it, kept from one measurement to the next as an agent would."""

    lab: Lab
    traces: Path
    tick_s: float = 1.0
    readings: list[Reading] = field(default_factory=list)  # of the last measurement
    calibrated: bool = False
    may_profile: bool = True
    _looked_again: bool = False

    def __post_init__(self) -> None:
        self.source = self.lab.source()
        self.facts = self.source.facts()
        if not self.facts.devices:
            left = "; ".join(f"{u.model}: {u.reason}" for u in self.facts.uncovered)
            raise UnavailableError(f"flopmeter finds no GPU to read here ({left or 'the driver lists none'})")
        self.device = self.facts.devices[0]
        self._paths = self._new_paths(self.tick_s)
        self.first = self.read()
        self.counters = has_counters(self.first)
        self.gpm_fault = self._gpm_fault()

    def look_again(self) -> str:
        """The fault with work on the GPU, asked for once: an idle one may have nothing to tell, and say so."""
        if self.gpm_fault and not self._looked_again:
            self._looked_again = True
            try:
                running = self.lab.build(Gemm("bf16"), CHUNK_S)
            except UnavailableError:
                return self.gpm_fault
            self.gpm_fault = self._gpm_fault(running)
            running.drain()
            running.close()
        return self.gpm_fault

    def _gpm_fault(self, running: Running | None = None) -> str:
        """Why no tensor percentage can be read here; "" if it can. Without one nothing is measured against it."""
        if any(d.mig for d in self.facts.devices):
            return "MIG is on: its instances are metered, and the workloads are of a whole GPU"
        raw = self.lab.raw()
        try:
            older = raw.sample()
            end = self.lab.clock.boot_ns() + SECOND // 2
            while self.lab.clock.boot_ns() < end:
                if running is not None:
                    running.pump()
                else:
                    self.lab.clock.wait(0.3)
            found = raw.metrics(older, raw.sample(), (5, 7))
        except UnavailableError as e:
            return str(e)
        except Exception as e:  # noqa: BLE001 - NVML's errors, whose module the simulation does without
            return f"GPM cannot be read: {type(e).__name__}: {e}"
        finally:
            raw.close()
        refused = {key: code for key, (code, _) in found.items() if code != 0}
        return f"GPM gives no tensor percentage: return codes {refused}" if len(refused) == len(found) else ""

    def _new_paths(self, tick_s: float) -> dict[str, AgentPath]:
        tick_ns = round(tick_s * 1e9)
        return {
            "counters": AgentPath(self.facts, tick_ns),
            "percentages": AgentPath(self.facts, tick_ns, counters=False),
        }

    @property
    def notices(self) -> list[str]:
        return self._paths["counters"].notices

    @property
    def scales(self) -> set[int]:
        return self._paths["counters"].scales

    @property
    def k_ppm(self) -> set[tuple[int, ...]]:
        return self._paths["counters"].k_ppm

    @property
    def journal(self) -> bytes | None:
        return self._paths["counters"].journal

    def read(self, workload: Workload = BETWEEN) -> Reading:
        reading = self.source.read(self.device.entity)._replace(workload=workload)
        for path in self._paths.values():
            path.observe(reading)
        return reading

    def quiet(self, seconds: float = QUIET_S) -> None:
        self.lab.clock.wait(seconds)

    def need_counters(self) -> None:
        if not self.counters:
            raise UnavailableError(
                f"driver {self.facts.driver} has no cycle counters 248-260: R595 or later is needed"
            )

    def calibrate(self) -> None:
        """Let the meter find scale and k_p, once: an agent on a node has done that long before."""
        if self.counters and not self.calibrated:
            self.calibrated = True
            self.measure(Gemm("bf16"), CALIBRATE_S, name="calibration", record=False)

    def measure(
        self,
        work: Work,
        seconds: float,
        *,
        name: str,
        record: bool = True,
        ready: Callable[[], None] = lambda: None,
        each: Callable[[], None] = lambda: None,
        duty: tuple[float, float] | None = None,
        chunk_s: float = CHUNK_S,
        ask_kernels: bool = False,
        running: Running | None = None,
    ) -> dict[str, Any]:
        """Run `work` for about `seconds`; the result as JSON. `ready` is called on the quiet GPU before the
        first work, `each` between chunks of it. Kernels are named after the last reading, by one more call.

        `duty`: (on, off) in seconds. `running`: `work`, prepared by the caller. Raises UnavailableError where this machine cannot run it.
        """
        if name != "calibration":
            self.calibrate()
        running = running or self.lab.build(work, chunk_s)
        # Anew each time: beside counters the agent keeps whole clock histories only for the first two minutes,
        # and class A2 is to be validated with them.
        self.source.close()
        self.source = self.lab.source()
        workload = job(name, work.declared)
        try:
            writer = self._trace(name) if record else None
            try:
                calls, busy_s = self._run(running, workload, (seconds, duty), (ready, each), writer)
            finally:
                if writer is not None:
                    writer.close()
            kernels = running.kernels() if ask_kernels and self.may_profile else []
        finally:
            running.close()
        for path in self._paths.values():
            path.seal()
        return self._result(work, name, calls, busy_s, kernels)

    def _run(
        self,
        running: Running,
        workload: Workload,
        span: tuple[float, tuple[float, float] | None],
        hooks: tuple[Callable[[], None], Callable[[], None]],
        writer: TraceWriter | None,
    ) -> tuple[int, float]:
        clock = self.lab.clock
        running.pump()  # clocks and caches as in the middle of the run; not counted
        running.drain()
        self.quiet()
        self.readings = []
        self._take(self.read(), writer)
        ready, each = hooks
        seconds, duty = span
        ready()
        begin = due = clock.boot_ns()
        calls = 0
        while (now := clock.boot_ns()) < begin + seconds * SECOND:
            if duty is None or (now - begin) % round(sum(duty) * SECOND) < duty[0] * SECOND:
                calls += running.pump()
            else:
                calls += running.drain()
                clock.wait(0.01)
            each()
            if clock.boot_ns() >= due + self.tick_s * SECOND:
                due += round(self.tick_s * SECOND)
                self._take(self.read(workload), writer)
        calls += running.drain()
        busy_s = (clock.boot_ns() - begin) / 1e9
        self.quiet()
        self._take(self.read(workload), writer)
        return calls, busy_s

    def _take(self, reading: Reading, writer: TraceWriter | None) -> None:
        self.readings.append(reading)
        if writer is not None:
            writer.write(reading)

    def _trace(self, name: str) -> TraceWriter:
        """The recorder of `flopmeter agent record`."""
        self.traces.mkdir(parents=True, exist_ok=True)
        file = "".join(c if c.isalnum() or c in ".-" else "-" for c in name)
        writer = TraceWriter(self.traces / f"{file}.jsonl.gz", self.facts, overwrite=True)
        clock = self.lab.clock
        writer.write(Happening(HappeningKind.AGENT_START, clock.boot_ns(), clock.unix_ns()))
        return writer

    def _result(self, work: Work, name: str, calls: int, busy_s: float, kernels: list[str]) -> dict[str, Any]:
        result: dict[str, Any] = {
            "work": work.key,
            "declared": work.declared,
            "calls": calls,
            "true_flop": calls * work.flop,
            "true_integer_ops": calls * work.int_ops,
            "busy_seconds": busy_s,
            "kernels": kernels[:8],
            "errors": sorted({r.error for r in self.readings if r.error}),
            "power_mw": [(r.t_boot_ns, r.power_mw) for r in self.readings if r.power_mw is not None],
        }
        for key, path in self._paths.items():
            if key == "counters" and not self.counters:
                continue
            result[key] = priced(path.usage(name), self.device, work.declared)
            result[key]["ratio"] = rules.ratio(result[key]["flop"]["point"], result["true_flop"])
        result["primary"] = "counters" if self.counters else "percentages"
        return result

    def close(self) -> None:
        self.source.close()


def primary(result: dict[str, Any]) -> dict[str, Any]:
    """What flopmeter would have booked on this machine: by counters where the driver has them."""
    found: dict[str, Any] = result[result["primary"]]
    return found


def implied_rate(result: dict[str, Any], *pipes: str) -> float:
    """W_implied: operations per active SM-cycle of `pipes`."""
    cycles = primary(result)["cycles"]
    return rules.ratio(result["true_flop"] + result["true_integer_ops"], sum(cycles[p] for p in pipes))
