"""E9, E11, E12, E14, E15, E17, E18: vector work, copies, duty cycles, sharing, energy, profilers, a killed agent."""

import shutil
import threading
from itertools import pairwise
from typing import Any

from flopmeter.contract.usage import GapReason

from . import rules
from .agent_path import AgentPath, job, priced, rate, rows_of
from .experiment import Context, Experiment, Outcome
from .lab import SECOND, Helper, Lab, UnavailableError
from .measure import SETTLE_S, primary
from .work import Copy, Gemm, IntMad, Work


def e9(ctx: Context) -> Outcome:
    """The same half-idle work, read each second and each seventh."""
    bench = ctx.bench
    bench.calibrate()
    out = Outcome()
    clock = ctx.lab.clock
    source = ctx.lab.source()
    path = AgentPath(bench.facts, 7 * SECOND, journal=bench.journal)
    due = [0]

    def read(name: str) -> None:
        path.observe(source.read(bench.device.entity)._replace(workload=job(name, "bf16")))

    def ready() -> None:
        read("between")
        due[0] = clock.boot_ns() + 7 * SECOND

    def each() -> None:
        if clock.boot_ns() >= due[0]:
            due[0] += 7 * SECOND
            read("slow")

    try:
        read("between")
        bench.quiet(SETTLE_S)
        result = out.take(
            "1 s", bench.measure(Gemm("bf16"), 35, name="E9-duty", ready=ready, each=each, duty=(0.35, 0.35))
        )
        read("slow")
    finally:
        source.close()
    path.seal()
    slow = priced(path.usage("slow"), bench.device, "bf16")
    true = result["true_flop"]
    ratios = {"1 s": primary(result)["ratio"], "7 s": rules.ratio(slow["flop"]["point"], true)}
    out.raw |= {"7 s": slow, "ratios": ratios}
    out.checks += [rules.within(f"tick {tick}: F/T", r, 1.0, 1) for tick, r in ratios.items()]
    out.checks.append(rules.agree("both ticks", ratios, 1))
    return out


def e11(ctx: Context) -> Outcome:
    """FP32 on the vector pipes; and integer work that the FP32 counter takes for FP32."""
    out = ctx.outcome()
    device = ctx.bench.device
    result = out.take("sgemm", ctx.bench.measure(Gemm("fp32"), 15, name="E11-fp32", ask_kernels=True))
    found = primary(result)
    out.checks.append(
        rules.at_least(
            "SGEMM: upper bound / T", rules.ratio(found["flop"]["upper"], result["true_flop"]), 1.0
        )
    )
    out.checks.append(rules.equal("SGEMM: lower bound (tensor pipes only)", found["flop"]["lower"], 0))
    implied = rules.ratio(result["true_flop"], found["cycles"]["fp32"])
    out.raw["implied fp32"] = implied
    out.checks.append(
        rules.noted("SGEMM: FLOP per active SM-cycle of FP32", implied, f"table {rate(device, 'fp32')}")
    )
    mads = out.attempt("int32", lambda: ctx.bench.measure(IntMad(), 12, name="E11-int32"))
    if mads is not None:
        cycles = primary(mads)["cycles"]
        false = cycles["fp32"] * rate(device, "fp32")
        out.raw |= {"int_false_flop": false, "int_pipes": rules.moved(cycles)}
        out.checks.append(
            rules.noted(
                "INT32: false FLOP in the upper bound per integer operation",
                rules.ratio(false, mads["true_integer_ops"]),
                "0 = the FP32 counter does not see integer work",
            )
        )
    return out


def e12(ctx: Context) -> Outcome:
    out = Outcome()
    raw = ctx.lab.raw()
    samples: list[Any] = []

    def each() -> None:
        if len(samples) < 2:
            samples.append(raw.sample())
            return
        if ctx.lab.clock.boot_ns() >= due[0]:
            samples[1] = raw.sample()
            due[0] = ctx.lab.clock.boot_ns() + SECOND

    due = [ctx.lab.clock.boot_ns()]
    try:
        result = out.take("copy", ctx.bench.measure(Copy(), 20, name="E12-copy", each=each))
        values = raw.metrics(samples[0], samples[1], (10,)) if len(samples) == 2 else {}
    finally:
        raw.close()
    out.checks.append(rules.equal("lower bound", primary(result)["flop"]["lower"], 0))
    out.checks.append(rules.equal("point", primary(result)["flop"]["point"], 0))
    code, dram = values.get(10, (-1, 0.0))
    if code == 0:
        out.checks.append(rules.between("DRAM bandwidth, %", dram, 80, 95))
    moved = 2 * result["calls"] * Copy().size / result["busy_seconds"] / 1e12
    out.checks.append(rules.noted("bytes read and written, TB/s", moved))
    return out


def e14(ctx: Context) -> Outcome:
    """A product and a copy in two processes: the device's sum must be right, whoever is given what."""
    out = ctx.outcome()
    out.attempt("time-slicing", lambda: _shared(ctx, out, "time-slicing", None))

    def under_mps() -> dict[str, Any]:
        with ctx.lab.mps():
            return _shared(ctx, out, "MPS", _Elsewhere(ctx.lab, Gemm("bf16")))

    out.attempt("MPS", under_mps)
    return out


class _Elsewhere:
    """Work of another process as a workload: it begins with the first reading and ends before the last."""

    def __init__(self, lab: Lab, work: Work) -> None:
        self._lab = lab
        self._helper: Helper | None = lab.helper(work)
        self._working = False

    def go(self) -> None:
        if self._helper is not None:
            self._helper.go()
            self._working = True

    def pump(self) -> int:
        self._lab.clock.wait(0.05)
        return 0

    def drain(self) -> int:
        if not self._working or self._helper is None:
            return 0
        helper, self._helper = self._helper, None
        return helper.stop()

    def kernels(self) -> list[str]:
        return []

    def close(self) -> None:
        if self._helper is not None:
            self._helper.stop()
            self._helper = None


def _shared(ctx: Context, out: Outcome, mode: str, elsewhere: _Elsewhere | None) -> dict[str, Any]:
    try:
        helper = ctx.lab.helper(Copy(1 << 30))
    except UnavailableError:
        if elsewhere is not None:
            elsewhere.close()
        raise

    def ready() -> None:
        helper.go()
        if elsewhere is not None:
            elsewhere.go()

    try:
        result = ctx.bench.measure(Gemm("bf16"), 15, name=f"E14-{mode}", ready=ready, running=elsewhere)
    finally:
        calls = helper.stop()
    out.checks.append(rules.within(f"{mode}: F/T of the device", primary(result)["ratio"], 1.0, 3))
    shares = []
    for reading in ctx.bench.readings[1:-1]:
        by_pid = {p.pid: p.sm_util_pct for p in reading.processes or () if p.sm_util_pct is not None}
        if helper.pid in by_pid and len(by_pid) > 1 and (whole := sum(by_pid.values())):
            shares.append(1 - by_pid[helper.pid] / whole)
    mean = sum(shares) / len(shares) if shares else None
    out.checks.append(
        rules.noted(
            f"{mode}: share of the product's process by smUtil",
            mean,
            "1 would be right: the copy runs no FLOP" if shares else "no process utilisation to be had",
        )
    )
    return result | {"helper_calls": calls, "smutil_shares": shares}


def e15(ctx: Context) -> Outcome:
    """Energy counter against the integral of power, and joules per FLOP of what ran before."""
    out = Outcome()
    result = out.take("run", ctx.bench.measure(Gemm("bf16"), 60, name="E15-bf16"))
    energies = [(r.t_boot_ns, r.energy_mj) for r in ctx.bench.readings if r.energy_mj is not None]
    power = [(t, p) for t, p in result["power_mw"]]
    if len(energies) > 1 and len(power) > 1:
        counted = energies[-1][1] - energies[0][1]
        out.raw |= {"energy_mj": counted, "integral_mj": rules.energy_integral_mj(power)}
        out.checks.append(
            rules.within(
                "energy counter against integral of power",
                rules.ratio(counted, rules.energy_integral_mj(power)),
                1.0,
                5,
            )
        )
    else:
        out.skipped.append("this driver gives no energy or no power here")
    band: dict[str, float] = {}
    for key in ("E3", "E4", "E12"):
        for part, old in ctx.results.get(key, {}).get("raw", {}).items():
            if isinstance(old, dict) and "work" in old:
                ran = old["true_flop"] + old["true_integer_ops"]
                joules = primary(old)["energy_mj"] / 1000
                band[f"{key} {part}"] = joules / ran * 1e12 if ran else joules / old["busy_seconds"]
    out.raw["joules_per_tflop"] = band
    out.checks += [
        rules.noted(f"{k}: " + ("W" if k.startswith("E12") else "J per 10^12 operations"), v)
        for k, v in band.items()
    ]
    return out


def e17(ctx: Context) -> Outcome:
    """A profiler beside the agent: GPM goes on, and the profiler's operations are 2MNK."""
    out = Outcome()
    work = Gemm("bf16")
    found: list[dict[str, float]] = []
    refused: list[str] = []

    def profile() -> None:
        try:
            found.append(ctx.lab.profiled_flop(work))
        except UnavailableError as e:
            refused.append(str(e))

    thread = threading.Thread(target=profile, daemon=True)
    ctx.bench.quiet()
    readings = [ctx.bench.read()]
    thread.start()
    while thread.is_alive():
        ctx.bench.quiet(1.0)
        readings.append(ctx.bench.read())
    ctx.bench.quiet()
    readings.append(ctx.bench.read())
    out.raw["readings_meanwhile"] = len(readings)
    if not found:
        out.skipped.append("; ".join(refused) or "the profiler's thread ended without a word")
        return out
    out.raw["profiler"] = found[0]
    for name, value in found[0].items():
        if value:
            out.checks.append(rules.within(f"{name} of one product", value, work.flop, 1))
    silent = [r.error or "no GPM value" for r in readings if r.error or not (r.cycles or r.percent)]
    out.checks.append(rules.equal("readings without GPM while it was profiled", silent, []))
    backwards = sum(b.cycles.get(248, 0) < a.cycles.get(248, 0) for a, b in pairwise(readings))
    out.checks.append(rules.equal("readings in which id 248 ran backwards", backwards, 0))
    result = out.take("after", ctx.bench.measure(work, 6, name="E17-after"))
    out.checks.append(rules.within("F/T after the profiler", primary(result)["ratio"], 1.0, 3))
    return out


def e18(ctx: Context) -> Outcome:
    """The agent is killed for 20 s under load: since-boot counters bridge the time."""
    bench, lab = ctx.bench, ctx.lab
    bench.need_counters()
    out = Outcome()
    folder = ctx.folder / "agent-E18"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    work: Work = Gemm("bf16")
    running = lab.build(work, 0.05)
    agent = lab.agent(folder, "E18")
    clock = lab.clock
    calls = 0
    try:
        for phase in range(3):
            if phase == 1:
                agent.kill()
            elif phase == 2:
                agent = lab.agent(folder, "E18")
            end = clock.boot_ns() + (20 if phase == 1 else 14) * SECOND
            while clock.boot_ns() < end:
                calls += running.pump()
                if phase != 1:
                    agent.poll()
        running.drain()
        bench.quiet()
    finally:
        agent.stop()
        running.close()
    rows, data = rows_of(folder)
    found = priced(rows, bench.device, "bf16")
    true = calls * work.flop
    got = rules.ratio(found["flop"]["point"], true)
    out.raw |= {"agent": found, "calls": calls, "true_flop": true, "notices": data["notices"]}
    out.lines.append(
        {
            "what": f"{work.key}, agent killed for 20 s",
            "by": "counters",
            "classes": "+".join(sorted(found["classes"])),
            "measured": found["flop"]["point"],
            "true": true,
            "ratio": got,
        }
    )
    out.checks.append(rules.within("F/T over the kill", got, 1.0, 3))
    out.checks.append(rules.equal("starts of the agent", data["starts"], 2))
    gaps = sum(r.duration_ns for r in rows if r.gap_reason is not GapReason.NONE) / 1e9
    out.checks.append(rules.at_most("seconds booked as a gap", gaps, 0.0))
    return out


EXPERIMENTS = (
    Experiment("E9", "duty cycle of 0.35 s, ticks of 1 s and 7 s", 50, e9),
    Experiment("E11", "FP32 product; INT32 multiply-adds", 45, e11),
    Experiment("E12", "copy within the device", 28, e12),
    Experiment("E14", "two processes, time-sliced, then MPS", 70, e14),
    Experiment("E15", "energy against power; joules per FLOP", 70, e15, without_gpm=True),
    Experiment("E17", "a profiler beside the agent", 80, e17),
    Experiment("E18", "agent killed for 20 s", 65, e18),
)
