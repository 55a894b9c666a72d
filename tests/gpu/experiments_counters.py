"""E0, E1, E2, E10, E16, E19: what the driver says, at which rate, how late, on which scale."""

import math
from collections.abc import Mapping
from itertools import pairwise
from statistics import fmean, median
from typing import Any

from flopmeter.agent.reading import CYCLE_IDS, PERCENT_IDS, SM_CYCLES_ELAPSED

from . import rules
from .agent_path import AgentPath, job, priced
from .experiment import Context, Experiment, Outcome, point
from .lab import SECOND, RawGpm, UnavailableError
from .measure import SETTLE_S, Bench, primary
from .work import Gemm, Idle

ALL_IDS = tuple(range(1, 477))
#: id of the percentage -> id of the counter of the same pipe (reference/metering.md 1.3).
PERCENT_OF_COUNTER = {5: 250, 7: 252, 9: 253, 6: 254, 8: 251, 2: 249, 4: 257, 11: 258, 12: 259, 13: 260}
#: DMMA: nvidia-ml-py has its id since 13.595 (reference/metering.md 1.3). Before, FP64 tensor work is in id 6.
SINCE_R595 = frozenset({8})
#: 74, 269-271: throttled ns; 272: accumulated frequency; 297: MMA stall (reference/metering.md 2.3).
FIELD_IDS = (74, 269, 270, 271, 272, 297)


def probe(raw: RawGpm, wait: Any) -> dict[str, Any]:
    """Which metric ids answer, over 300 ms, and which of them with no number."""
    older = raw.sample()
    wait(0.3)
    found = raw.metrics(older, raw.sample(), ALL_IDS)
    return {
        "answer": sorted(i for i, (code, _) in found.items() if code == 0),
        # An idle GPU whose SMs stand still has no fraction of its cycles to tell.
        "not_a_number": sorted(i for i, (code, value) in found.items() if code == 0 and math.isnan(value)),
        "codes": {str(i): code for i, (code, _) in found.items() if code != 0},
    }


def e0(ctx: Context) -> Outcome:
    out = Outcome()
    raw = ctx.lab.raw()
    try:
        found = probe(raw, ctx.lab.clock.wait)
    finally:
        raw.close()
    out.raw["probe"] = found
    answered = set(found["answer"])
    cycles = [i for i in CYCLE_IDS if i in answered]
    branch = int(ctx.bench.facts.driver.partition(".")[0] or 0)
    wanted = {i for i in PERCENT_IDS if branch >= 595 or i not in SINCE_R595}
    lacking = sorted(wanted - answered)
    out.checks.append(rules.equal("percentages 1-13 that flopmeter uses and that do not answer", lacking, []))
    if found["not_a_number"]:
        out.checks.append(rules.noted("ids that answer NaN on the idle GPU", str(found["not_a_number"])))
    if branch >= 595:
        out.checks.append(rules.equal("cycle counters that answer", cycles, list(CYCLE_IDS)))
    else:
        out.checks.append(
            rules.noted("cycle counters that answer", str(cycles), f"driver {branch} < 595: none expected")
        )
    try:
        user = ctx.lab.probe_as_user()
    except UnavailableError as e:
        out.skipped.append(f"as ordinary user: {e}")
    else:
        out.raw["as_user"] = user
        if user.get("error"):
            out.checks.append(rules.noted("GPM as an ordinary user", user["error"], "privilege is needed"))
        else:
            same = set(user["answer"]) >= answered
            out.checks.append(rules.equal("GPM as an ordinary user answers the same ids", same, True))
    return out


def e1(ctx: Context) -> Outcome:
    out = Outcome()
    result = out.take("idle", ctx.bench.measure(Idle(), 20, name="E1-idle"))
    found = primary(result)
    cycles, seconds = found["cycles"], found["seconds"]
    elapsed = cycles["elapsed"]
    pipes = ("hmma", "imma", "dmma", "tensor_other", "fp64", "fp32", "fp16")
    busiest = max(cycles[p] for p in pipes)
    # id 248 may stand still on an idle GPU; then nothing may have run either.
    share = 100 * busiest / elapsed if elapsed else 100.0 * (busiest > 0)
    out.checks.append(rules.at_most("busiest pipe, % of the elapsed cycles", share, 0.1))
    out.checks.append(
        rules.at_most("FLOP/s, point", point(result) / seconds if seconds else float("nan"), 1e11)
    )
    if ctx.bench.counters:
        rate = elapsed / seconds / max(1, ctx.bench.device.sm_count) / 1e6 if seconds else 0.0
        out.checks.append(
            rules.noted("id 248 while idle, MHz per SM", rate, "does the clock-gated SM count?")
        )
    return out


def e2(ctx: Context) -> Outcome:
    """Scale of id 248 and k of every pipe, worked out apart from the agent's own calibration, and against it."""
    bench = ctx.bench
    bench.need_counters()
    out = Outcome()
    result = out.take("run", bench.measure(Gemm("bf16"), 20, name="E2-bf16"))
    readings = [r for r in bench.readings[1:] if SM_CYCLES_ELAPSED in r.cycles and r.sm_clock_mhz]
    pairs = list(pairwise(readings))[:-1]  # the last one holds the quiet end
    counted = sum(b.cycles[248] - a.cycles[248] for a, b in pairs)
    clocked = sum(fmean(b.sm_clock_mhz) * (b.t_boot_ns - a.t_boot_ns) / 1000 for a, b in pairs)
    scale = rules.ratio(counted, clocked)
    sms = bench.device.sm_count
    name = rules.counted_over(scale, sms)
    out.raw["counts_per_clock"] = scale
    out.raw["scale"] = name
    said = "sum" if bench.scales == {sms} else "average" if bench.scales == {1} else str(bench.scales)
    out.checks.append(
        rules.Check("counts of id 248 per clock", scale, f"near 1 or near {sms}, within 10 %", bool(name))
    )
    out.checks.append(rules.equal("the agent's own verdict", said, name))
    constants: dict[str, float | None] = {}
    for percent_id, counter_id in PERCENT_OF_COUNTER.items():
        values = []
        for a, b in pairs:
            active = b.cycles.get(counter_id, 0) - a.cycles.get(counter_id, 0)
            if b.percent.get(percent_id, 0.0) > 5 and active > 0:
                share = active / (b.cycles[248] - a.cycles[248])
                values.append(b.percent[percent_id] / 100 / share)
        if values:
            constants[str(counter_id)] = rules.stable_constant(values)
            out.raw[f"k_{counter_id}"] = values
    out.raw["k"] = constants
    for key in ("250", "252"):
        k = constants.get(key)
        out.checks.append(
            rules.Check(f"k of id {key}", k, "stable within 1 % over 10 intervals", k is not None)
        )
    out.raw["agent_k_ppm"] = sorted(map(list, bench.k_ppm))
    out.raw["agent_said"] = [n for n in bench.notices if n.startswith("calibration")]
    del result
    return out


def e10(ctx: Context) -> Outcome:
    """Ticks from 20 ms to 50 s over one and the same run; those an agent never takes, by raw GPM."""
    bench, lab = ctx.bench, ctx.lab
    out = Outcome()
    clock = lab.clock
    bench.calibrate()  # the agents of the other ticks go on from what it found
    slow = {t: _Ticker(bench, t) for t in (0.25, 1.0, 10.0, 50.0)}
    raw = lab.raw()
    fast = {t: _RawTicker(raw, t, bench.counters) for t in (0.02, 0.05, 0.1)}
    bench.quiet(SETTLE_S)

    def ready() -> None:
        for ticker in slow.values():
            ticker.begin(clock.boot_ns())

    def each() -> None:
        now = clock.boot_ns()
        for ticker in slow.values():
            ticker.maybe(now)
        for raw_ticker in fast.values():
            raw_ticker.maybe(now)

    try:
        result = out.take(
            "run", bench.measure(Gemm("bf16"), 51, name="E10-bf16", ready=ready, each=each, chunk_s=0.008)
        )
        ratios: dict[float, float] = {}
        for tick, ticker in slow.items():
            found = ticker.end(result["true_flop"])
            out.raw[f"tick {tick:g}"] = found
            ratios[tick] = found["ratio"]
    finally:
        for ticker in slow.values():
            ticker.close()
        raw.close()
    for tick, raw_ticker in fast.items():
        seen = raw_ticker.result()
        out.raw[f"tick {tick:g}"] = seen
        out.checks.append(
            rules.noted(
                f"tick {tick * 1000:g} ms: pairs stale or out of range, %",
                seen["bad_percent"],
                f"{seen['pairs']} pairs"
                + (f", {seen['off_by_10_percent']:.3g} % more than a tenth off" if "median" in seen else ""),
            )
        )
    out.checks.append(
        rules.agree("ticks of 0.25 s and longer, F/T", {f"{t:g} s": r for t, r in ratios.items()}, 1)
    )
    # Against the longest tick, which has the run in one piece: what all ticks have in common is E3's.
    best = rules.smallest_honest_tick({t: rules.ratio(r, ratios[50.0]) for t, r in ratios.items()})
    out.checks.append(rules.noted("smallest tick of the agent within 1 % of the longest", best, "seconds"))
    return out


class _Ticker:
    """An agent of its own with another tick, over the same work: source, meter and all."""

    def __init__(self, bench: Bench, tick_s: float) -> None:
        self._bench = bench
        self._tick_ns = round(tick_s * SECOND)
        self._name = f"tick-{tick_s:g}"
        self._source = bench.lab.source()
        self._path = AgentPath(bench.facts, self._tick_ns, journal=bench.journal)
        self._due = 0
        self._read("between")

    def _read(self, name: str) -> None:
        reading = self._source.read(self._bench.device.entity)
        self._path.observe(reading._replace(workload=job(name, "bf16")))

    def begin(self, now_ns: int) -> None:
        """Just before the work: what lies behind is not this run's."""
        self._read("between")
        self._due = now_ns + self._tick_ns

    def maybe(self, now_ns: int) -> None:
        if now_ns >= self._due:
            self._due += self._tick_ns
            self._read(self._name)

    def end(self, true_flop: int) -> dict[str, Any]:
        self._read(self._name)
        self._path.seal()
        found = priced(self._path.usage(self._name), self._bench.device, "bf16")
        return found | {"ratio": rules.ratio(found["flop"]["point"], true_flop)}

    def close(self) -> None:
        self._source.close()


class _RawTicker:
    """Pairs of samples closer than the driver allows: how many are stale or nonsense."""

    def __init__(self, raw: RawGpm, tick_s: float, counters: bool) -> None:
        self._raw, self._tick_ns = raw, round(tick_s * SECOND)
        self._id = 252 if counters else 7
        self._due = 0
        self._sample: Any = None
        self._values: list[float] = []

    def maybe(self, now_ns: int) -> None:
        if now_ns < self._due or len(self._values) >= 500:
            return
        self._due = now_ns + self._tick_ns
        older, self._sample = self._sample, self._raw.sample()
        if older is None:
            return
        code, value = self._raw.metrics(older, self._sample, (self._id,)).get(self._id, (-1, 0.0))
        self._values.append(value if code == 0 else float("nan"))

    def result(self) -> dict[str, Any]:
        """Stale, on a GPU that works all the time: a counter that did not move; a percentage that is 0, out of
        range, or the very same number as before. How far percentages scatter is told beside it.
        """
        values = self._values
        if self._id == 252:
            bad = sum(not b > a for a, b in pairwise(values))
        else:
            bad = sum(not 0 < v <= 100.5 for v in values) + sum(a == b != 0 for a, b in pairwise(values))
        pairs = max(1, len(values) - (self._id == 252))
        told = {"pairs": len(values), "bad": bad, "bad_percent": 100 * bad / pairs, "first": values[:100]}
        if self._id != 252 and (good := [v for v in values if 0 < v <= 100.5]):
            middle = median(good)
            told["median"] = middle
            told["off_by_10_percent"] = 100 * sum(abs(v / middle - 1) > 0.1 for v in good) / pairs
        return told


def e16(ctx: Context) -> Outcome:
    """The clock by polling at 1, 20 and 1000 Hz and by the driver's buffer, against counters and against the SMs."""
    bench, lab = ctx.bench, ctx.lab
    out = Outcome()
    raw = lab.raw()
    clock = lab.clock
    polls: dict[int, list[float]] = {1: [], 20: [], 1000: []}
    due = dict.fromkeys(polls, 0)
    marks: list[Mapping[int, tuple[int, int]]] = []  # the SMs' own clocks, every 5 s
    next_mark = [0]
    try:
        lab.sm_clocks()  # compiles its kernel, which would stop the work for long
    except UnavailableError as e:
        next_mark[0] = clock.boot_ns() + 3600 * SECOND
        out.skipped.append(f"clock read on the SMs: {e}")
    fetch = [0, 0]  # next time, newest sample seen
    buffered: list[float] = []

    def each() -> None:
        # Between chunks, 1000 polls a second would starve the queue: bursts of ten stand for them.
        now = clock.boot_ns()
        if now >= next_mark[0]:
            next_mark[0] = now + 5 * SECOND
            marks.append(lab.sm_clocks())
        for hertz, seen in polls.items():
            if now >= due[hertz]:
                due[hertz] = now + SECOND // min(hertz, 100)
                seen.extend(raw.clock_mhz() for _ in range(10 if hertz == 1000 else 1))
        if now >= fetch[0]:  # what was buffered before the work began is only looked at for its time
            fresh = raw.clock_samples(fetch[1])
            if fetch[0]:
                buffered.extend(mhz for _, mhz in fresh)
            fetch[:] = [now + SECOND, max((t for t, _ in fresh), default=fetch[1])]

    try:
        result = out.take("run", bench.measure(Gemm("bf16"), 20, name="E16-bf16", each=each, chunk_s=0.008))
    finally:
        raw.close()
    means = {f"{hertz} Hz": fmean(seen) for hertz, seen in polls.items() if seen}
    if buffered:
        means["driver's buffer"] = fmean(buffered)
    inner = bench.readings[1:-1]  # what class A2 multiplies with: the samples that the agent's readings hold
    weighed = [
        (fmean(b.sm_clock_mhz), b.t_boot_ns - a.t_boot_ns) for a, b in pairwise(inner) if b.sm_clock_mhz
    ]
    if weighed:
        means["the agent's readings"] = sum(m * t for m, t in weighed) / sum(t for _, t in weighed)
    out.raw |= {"means_mhz": means, "polled": {str(h): s[:2000] for h, s in polls.items()}}
    out.raw["buffered"] = buffered[:2000]
    before, after = (marks[0], marks[-1]) if marks else ({}, {})
    on_sm = [m for sm in before.keys() & after.keys() if (m := rules.slope_mhz([before[sm], after[sm]]))]
    if on_sm:
        out.raw["sm_clock_mhz"] = {
            "mean": fmean(on_sm),
            "low": min(on_sm),
            "high": max(on_sm),
            "sms": len(on_sm),
        }
    if bench.counters:
        readings = [r for r in bench.readings[1:-1] if 248 in r.cycles]
        counts = readings[-1].cycles[248] - readings[0].cycles[248]
        scale = bench.device.sm_count if bench.scales == {bench.device.sm_count} else 1
        truth = counts / scale * 1000 / (readings[-1].t_boot_ns - readings[0].t_boot_ns)
        about = "id 248"
    elif on_sm:
        truth, about = fmean(on_sm), "clock64 on the SMs"
    else:
        out.skipped.append("nothing to hold the clock against: no counters, no clock on the SMs")
        out.checks += [rules.noted(f"mean clock by {k}, MHz", v) for k, v in means.items()]
        return out
    out.raw |= {"true_mhz": truth, "true_by": about, "seconds": result["busy_seconds"]}
    for key, mean in means.items():
        off = abs(mean / truth - 1) * 100
        out.checks.append(rules.at_most(f"mean clock by {key} against {about}, % off", off, 2.0))
    return out


def e19(ctx: Context) -> Outcome:
    out = Outcome()
    raw = ctx.lab.raw()
    seen: list[tuple[int, dict[int, tuple[int, float]]]] = []
    clock = ctx.lab.clock
    due = [0]

    def each() -> None:
        if clock.boot_ns() >= due[0]:
            due[0] = clock.boot_ns() + SECOND
            seen.append((clock.boot_ns(), raw.fields(FIELD_IDS)))

    try:
        out.take("run", ctx.bench.measure(Gemm("bf16"), 10, name="E19-bf16", each=each))
    finally:
        raw.close()
    for key in FIELD_IDS:
        values = [(t, f[key][1]) for t, f in seen if f.get(key, (1, 0))[0] == 0]
        codes = sorted({f[key][0] for _, f in seen if key in f})
        out.raw[f"field {key}"] = {"codes": codes, "values": values}
        told = f"{values[0][1]:g} … {values[-1][1]:g}" if values else f"return code {codes}"
        out.checks.append(rules.noted(f"field {key} under load, 1 Hz", told))
    return out


EXPERIMENTS = (
    Experiment("E0", "probe of all GPM ids, as root and as an ordinary user", 6, e0, without_gpm=True),
    Experiment("E1", "idle", 25, e1),
    Experiment("E2", "scale of id 248 and k of every pipe", 40, e2),
    Experiment("E10", "ticks from 20 ms to 50 s", 75, e10),
    Experiment("E16", "mean SM clock by polling and by the driver's buffer", 30, e16, without_gpm=True),
    Experiment("E19", "fields 272, 297 and the throttle counters under load", 16, e19, without_gpm=True),
)
