"""The bounds contain the truth, whatever ran, on every architecture of the W table.

A script says what each SM-cycle really did: which dtype, by which instructions, in which pipe, on sparse operands or
not. From it follow the counters, as the driver would count them, and the true FLOP. Only the counters go on, through
the same sealing and pricing as everything; the truth must lie within what comes out.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flopmeter.agent.metering.interval import Interval
from flopmeter.agent.metering.shares import split, weigh
from flopmeter.agent.metering.window import Window
from flopmeter.collector.books import SUM_FIELDS, GroupKey
from flopmeter.collector.figures import Model, tally
from flopmeter.collector.report.run_figures import run_figures
from flopmeter.contract.evidence_class import CYCLE_ERROR_PPM, MISMATCH_PPM, EvidenceClass
from flopmeter.contract.flop import Cycles, Figure, flop, integer_ops, nominal_sparse, total
from flopmeter.contract.pipes import residual
from flopmeter.contract.usage import ALL_MEASURED, Measured, Usage, Workload, WorkloadKind
from flopmeter.contract.w_table import DTYPE_RATE, FLOAT_TENSOR_RATES, Arch, current

TABLE = current()
ARCHS = [a for a in TABLE.archs if a.rates]
DTYPES = st.sampled_from(["", "unknown", *DTYPE_RATE])


@dataclass(frozen=True)
class Work:
    """What `cycles` SM-cycles of one kind did."""

    cycles: int
    counter: str  # which one saw it: hmma, any (no other tensor counter), imma, dmma, fp64, fp32, fp16, int
    flop: int
    ops: int = 0
    nominal: int = 0  # what a datasheet calls it, where its operands were 2:4 sparse


#: Legacy mma.sync keeps the pipe busy at this much of the rate or more, per mille (metering.md 4.3 for Hopper).
LEGACY_SHARE = {"9.0": 600, "10.0": 300, "10.3": 300}


@st.composite
def tensor_work(draw: st.DrawFn, arch: Arch) -> Work:
    """Float tensor work in any dtype that the architecture has, by wgmma or mma.sync, sparse or dense."""
    cycles = draw(st.integers(0, 10**12))
    dtype = draw(st.sampled_from([n for n in FLOAT_TENSOR_RATES if n in arch.rates]))
    # TF32 and 16 bit are counted by HMMA (metering.md 4.1); of FP8 and narrower nobody said.
    narrow = dtype.startswith("fp")
    counter = draw(st.sampled_from(("hmma", "any"))) if narrow else "hmma"
    share = draw(st.integers(LEGACY_SHARE.get(arch.compute_capability, 1000), 1000))
    # 2:4-sparse operands: the same cycles execute the dense number of operations (metering.md 3.2).
    sparse = draw(st.booleans()) and dtype in arch.sparse
    called = cycles * (arch.sparse if sparse else arch.rates)[dtype] * share // 1000
    return Work(cycles, counter, cycles * arch.rates[dtype] * share // 1000, nominal=called)


@st.composite
def other_work(draw: st.DrawFn, arch: Arch) -> Work:
    """FP64 and integer tensor work, and what the vector pipes do: from no FLOP at all to their full rate."""
    cycles = draw(st.integers(0, 10**12))
    share = draw(st.integers(0, 1000))
    kinds = ["fp64", "fp32", "fp16", "int"]
    kinds += ["dmma"] if "fp64_tensor" in arch.rates else []
    kinds += ["imma"] if "int8" in arch.rates else []
    kind = draw(st.sampled_from(kinds))
    rates = arch.rates
    if kind == "dmma":
        return Work(cycles, kind, cycles * rates["fp64_tensor"])
    if kind == "imma":
        slow = draw(st.integers(LEGACY_SHARE.get(arch.compute_capability, 1000), 1000))
        rate = draw(st.sampled_from([rates[n] for n in ("int8", "int4") if n in rates]))
        return Work(cycles, kind, 0, cycles * rate * slow // 1000)
    if kind == "int":
        return Work(cycles, kind, 0, cycles * rates["int32"] * share // 1000)
    rate = rates["fp16_vector" if kind == "fp16" else kind]
    return Work(cycles, kind, cycles * rate * share // 1000)


@dataclass(frozen=True)
class Device:
    """A scripted stretch of one device: what it did, and what its counters say of it."""

    arch: Arch
    work: tuple[Work, ...]
    idle: int  # elapsed cycles without anything
    stalled: int  # active cycles in which no pipe worked

    @property
    def flop(self) -> int:
        return sum(w.flop for w in self.work)

    @property
    def ops(self) -> int:
        """What integer tensor cores did: what `integer_ops` counts from below."""
        return sum(w.ops for w in self.work)

    def seen(self, *counters: str) -> int:
        return sum(w.cycles for w in self.work if w.counter in counters)

    @property
    def any(self) -> int:
        return self.seen("hmma", "any", "imma", "dmma")

    @property
    def active(self) -> int:
        vector = max(self.seen(c) for c in ("fp64", "fp32", "fp16", "int"))
        return max(self.any, vector) + self.stalled

    @property
    def elapsed(self) -> int:
        return self.active + self.idle


@st.composite
def devices(draw: st.DrawFn) -> Device:
    arch = draw(st.sampled_from(ARCHS))
    work = draw(st.lists(st.one_of(tensor_work(arch), other_work(arch)), max_size=6))
    idle, stalled = draw(st.tuples(st.integers(0, 10**14), st.integers(0, 10**12)))
    return Device(arch, tuple(work), idle, stalled)


#: What a source can read: everything; GPM without some ids; DCGM with HMMA or the any-tensor counter alone.
SETS = st.one_of(
    st.just(ALL_MEASURED),
    st.sampled_from(
        [
            ALL_MEASURED & ~Measured.HMMA,
            ALL_MEASURED & ~Measured.IMMA,
            ALL_MEASURED & ~Measured.DMMA,
            Measured.SM_ACTIVE | Measured.TENSOR_OTHER,
            Measured.SM_ACTIVE | Measured.TENSOR_OTHER | Measured.HMMA | Measured.FP32,
            Measured.SM_ACTIVE | Measured.HMMA,
            Measured.SM_ACTIVE,
            Measured(0),
        ]
    ),
    st.integers(0, int(ALL_MEASURED)).map(Measured),
)


def sealed(d: Device, measured: Measured, grade: EvidenceClass, spread: int = 0, off_ppm: int = 0) -> Cycles:
    """What a row holds of `d` where `measured` was read; the true cycles are `off_ppm` off what was counted."""

    def read(bit: Measured, true: int) -> int:
        return true * 1_000_000 // (1_000_000 + off_ppm) if bit in measured else 0

    hmma = read(Measured.HMMA, d.seen("hmma"))
    imma = read(Measured.IMMA, d.seen("imma"))
    dmma = read(Measured.DMMA, d.seen("dmma"))
    tensor = read(Measured.TENSOR_OTHER, d.any)
    elapsed = d.elapsed * 1_000_000 // (1_000_000 + off_ppm)
    other = residual(
        tensor_any=tensor,
        hmma=hmma if Measured.HMMA in measured else None,
        imma=imma,
        dmma=dmma,
        elapsed=elapsed,
        mismatch_ppm=MISMATCH_PPM[grade],
    )
    return Cycles(
        grade,
        measured,
        spread,
        elapsed=elapsed,
        active=read(Measured.SM_ACTIVE, d.active),
        hmma=hmma,
        imma=imma,
        dmma=dmma,
        tensor_other=other if Measured.TENSOR_OTHER in measured else 0,
        fp64=read(Measured.FP64, d.seen("fp64")),
        fp32=read(Measured.FP32, d.seen("fp32")),
        fp16=read(Measured.FP16, d.seen("fp16")),
        int=read(Measured.INT, d.seen("int")),
    )


def kinds(arch: Arch) -> list[Work]:
    """Every kind of work that the architecture can do, at its full rate and at its least."""
    cycles, rates = 10**12, arch.rates
    least = LEGACY_SHARE.get(arch.compute_capability, 1000)
    found = []
    for dtype in (n for n in FLOAT_TENSOR_RATES if n in rates):
        by_any = dtype.startswith("fp") or dtype in arch.residual_holds
        for counter in ("hmma", "any") if by_any else ("hmma",):
            found += [Work(cycles, counter, cycles * rates[dtype] * share // 1000) for share in (least, 1000)]
    found += [Work(cycles, "dmma", cycles * rates["fp64_tensor"])] if "fp64_tensor" in rates else []
    for name in (n for n in ("int8", "int4") if n in rates):
        found += [Work(cycles, "imma", 0, cycles * rates[name] * share // 1000) for share in (least, 1000)]
    for kind, name in (("fp64", "fp64"), ("fp32", "fp32"), ("fp16", "fp16_vector")):
        found += [Work(cycles, kind, cycles * rates[name] * share) for share in (0, 1)]
    return [*found, Work(cycles, "int", 0, cycles * rates["int32"])]


@pytest.mark.parametrize("arch", ARCHS, ids=lambda a: f"{a.compute_capability} {a.name}".strip())
def test_each_kind_of_work_and_any_two_lie_within_the_bounds(arch: Arch) -> None:
    """All of them and not a sample: a bound that has one dtype or one rate too few cannot pass."""
    for one, other in itertools.combinations_with_replacement(kinds(arch), 2):
        d = Device(arch, (one, other) if one is not other else (one,), 0, 0)
        c = sealed(d, ALL_MEASURED, EvidenceClass.A1)
        figure, ops = flop(c, arch), integer_ops(c, arch)
        assert figure.lower <= d.flop <= figure.upper, d
        assert ops.lower <= d.ops <= ops.upper, d
    for work, grade, spread, way in itertools.product(
        kinds(arch), (c for c in EvidenceClass if CYCLE_ERROR_PPM[c]), (0, 200_000), (-1, 1)
    ):
        d = Device(arch, (work,), 0, 0)
        c = sealed(d, ALL_MEASURED, grade, spread, way * (CYCLE_ERROR_PPM[grade] + spread))
        figure, rounding = flop(c, arch), 2 * sum(arch.rates.values())
        assert figure.lower - rounding <= d.flop <= figure.upper + rounding, (d, grade, spread, way)


@given(d=devices(), measured=SETS, dtype=DTYPES)
def test_the_truth_lies_within_the_bounds(d: Device, measured: Measured, dtype: str) -> None:
    c = sealed(d, measured, EvidenceClass.A1)
    figure, ops = flop(c, d.arch, dtype), integer_ops(c, d.arch)
    assert figure.lower <= d.flop <= figure.upper
    assert figure.lower <= figure.point <= figure.upper
    assert ops.lower <= d.ops <= ops.upper
    assert sum(max(w.nominal, w.flop) for w in d.work) <= nominal_sparse(c, d.arch)


@given(
    d=devices(),
    measured=SETS,
    grade=st.sampled_from([c for c in EvidenceClass if CYCLE_ERROR_PPM[c]]),
    spread=st.sampled_from([0, 20_000, 200_000]),
    off=st.integers(-1000, 1000),
)
def test_counts_that_are_off_by_what_their_class_and_clock_allow(
    d: Device, measured: Measured, grade: EvidenceClass, spread: int, off: int
) -> None:
    room = CYCLE_ERROR_PPM[grade] + spread
    c = sealed(d, measured, grade, spread, room * off // 1000)
    rounding = 2 * sum(d.arch.rates.values())  # a counter has whole cycles
    figure, ops = flop(c, d.arch), integer_ops(c, d.arch)
    assert figure.lower - rounding <= d.flop <= figure.upper + rounding
    assert ops.lower - rounding <= d.ops <= ops.upper + rounding


@given(d=devices(), dtype=st.sampled_from(["bf16", "tf32", "fp8"]))
def test_a_declaration_that_is_true_narrows_and_still_contains_the_truth(d: Device, dtype: str) -> None:
    rate = DTYPE_RATE[dtype]
    if rate not in d.arch.hmma_holds:
        return
    true = tuple(
        Work(w.cycles, w.counter, w.cycles * d.arch.rates[rate]) for w in d.work if w.counter == "hmma"
    ) + tuple(w for w in d.work if w.counter != "hmma")
    d = Device(d.arch, true, d.idle, d.stalled)
    c = sealed(d, ALL_MEASURED, EvidenceClass.A1)
    plain, trusted = flop(c, d.arch, dtype), flop(c, d.arch, dtype, trusted=True)
    assert plain.lower <= trusted.lower <= d.flop <= trusted.upper <= plain.upper


@given(d=devices(), kind=st.sampled_from([EvidenceClass.GAP, EvidenceClass.C]))
def test_what_could_not_be_read_is_within_what_it_could_have_been(d: Device, kind: EvidenceClass) -> None:
    active = Measured.SM_ACTIVE if kind is EvidenceClass.C else Measured(0)
    c = Cycles(kind, active, 0, elapsed=d.elapsed, active=d.active if active else 0)
    assert flop(c, d.arch).lower == 0
    assert d.flop <= flop(c, d.arch).upper
    assert d.ops <= integer_ops(c, d.arch).upper


# ---- splitting ------------------------------------------------------------------------------------------

H100 = Model("NVIDIA H100 80GB HBM3", "9.0")
ME, YOU, THEY = (Workload(WorkloadKind.SLURM, job=str(n), run=f"r{n}", dtype="bf16") for n in range(3))


def numbers(d: Device, measured: Measured) -> tuple[int, ...]:
    """What the agent adds up of an interval: NUMBERS order, the any-tensor counter whole."""
    read = (
        (Measured.SM_ACTIVE, d.active),
        (Measured.HMMA, d.seen("hmma")),
        (Measured.IMMA, d.seen("imma")),
        (Measured.DMMA, d.seen("dmma")),
        (Measured.TENSOR_OTHER, d.any),
        (Measured.FP64, d.seen("fp64")),
        (Measured.FP32, d.seen("fp32")),
        (Measured.FP16, d.seen("fp16")),
        (Measured.INT, d.seen("int")),
        (Measured.ENERGY, d.elapsed // 10**9),
    )
    return (d.elapsed, d.elapsed, *(true if bit in measured else 0 for bit, true in read))


def interval(d: Device, measured: Measured) -> Interval:
    return Interval(EvidenceClass.A1, int(measured), 0, numbers(d, measured))


def priced(usage: Sequence[Usage], workload: int | None = None) -> Figure:
    """The figure of one workload's rows (None: of all, as one run) on an H100, through the books' own arithmetic."""
    groups: dict[GroupKey, list[int]] = {}
    for u in usage:
        if workload in (None, u.workload_index):
            key = GroupKey(1, 1, int(u.evidence_class), int(u.measured), u.spread_ppm, 0)
            sums = groups.setdefault(key, [0] * len(SUM_FIELDS))
            for i, name in enumerate(SUM_FIELDS):
                sums[i] += getattr(u, name)
    return tally(groups, {1: "bf16"}).figures({1: H100}, TABLE)[0]


@st.composite
def hopper_devices(draw: st.DrawFn) -> Device:
    arch = next(a for a in ARCHS if a.compute_capability == "9.0")
    work = draw(st.lists(st.one_of(tensor_work(arch), other_work(arch)), max_size=5))
    return Device(arch, tuple(work), *draw(st.tuples(st.integers(0, 10**14), st.integers(0, 10**12))))


@given(ds=st.lists(hopper_devices(), min_size=1, max_size=5), cut=st.integers(0, 5))
def test_splitting_intervals_changes_nothing(ds: list[Device], cut: int) -> None:
    """Intervals of one window, however many they are read as, come to the same rows and the same figure."""
    one, many = Window(), Window()
    for d in ds:
        many.add("GPU-0", ME, interval(d, ALL_MEASURED))
    for part in (ds[:cut], ds[cut:]):
        if part:
            whole = tuple(map(sum, zip(*(numbers(d, ALL_MEASURED) for d in part), strict=True)))
            one.add("GPU-0", ME, Interval(EvidenceClass.A1, int(ALL_MEASURED), 0, whole))
    assert one.usage({"GPU-0": 0}) == many.usage({"GPU-0": 0})


@given(ds=st.lists(hopper_devices(), min_size=1, max_size=5), dtype=DTYPES)
def test_windows_apart_are_windows_together(ds: list[Device], dtype: str) -> None:
    """Points add up exactly however windows are grouped; bounds of the whole contain those of the parts."""
    usage: list[Usage] = []
    for d in ds:
        window = Window()
        window.add("GPU-0", ME, interval(d, ALL_MEASURED))
        usage += window.usage({"GPU-0": 0})[1]
    whole, parts = priced(usage), total(priced([u]) for u in usage)
    assert whole.point == parts.point
    assert parts.lower <= whole.lower <= parts.lower + len(usage)
    assert parts.upper - len(usage) <= whole.upper
    assert whole.lower <= sum(d.flop for d in ds) <= whole.upper


# ---- sharing --------------------------------------------------------------------------------------------


@given(
    d=hopper_devices(),
    measured=SETS,
    percents=st.tuples(*[st.none() | st.floats(0, 100)] * 3),
    really=st.lists(st.sampled_from((0, 1, 2)), min_size=5, max_size=5),
)
def test_every_sharer_may_have_done_what_it_did(
    d: Device, measured: Measured, percents: tuple[float | None, ...], really: list[int]
) -> None:
    """Three jobs on one GPU. Who did which work, `really`, has nothing to do with the split by SM utilisation."""
    parts = weigh(zip((ME, YOU, THEY), percents, strict=True))
    window = Window()
    for workload, part in split(interval(d, measured), parts):
        window.add("GPU-0", workload, part)
    workloads, usage = window.usage({"GPU-0": 0})
    shares = [u for u in usage if u.measured & Measured.APPORTIONED]
    others = [u for u in usage if u.measured & Measured.OTHERS]
    assert len(shares) + len(others) == len(usage)
    for name in SUM_FIELDS:
        if name == "tensor_other_cycles":
            continue  # of each share's own residual, noise is dropped
        whole = dict(zip(SUM_FIELDS, numbers(d, measured), strict=True))
        assert sum(getattr(u, name) for u in shares) == whole[name], name
    for u in others:
        assert (u.duration_ns, u.sm_elapsed_cycles, u.energy_mj) == (0, 0, 0)
    held = {workload: index for index, workload in enumerate(workloads)}
    for number, workload in enumerate((ME, YOU, THEY)):
        did = sum(w.flop for w, by in zip(d.work, really, strict=False) if by == number)
        if workload not in held:  # a weight of 0 has no row if nothing of it was left over by rounding
            continue
        figure = priced(usage, held[workload])
        assert figure.lower == 0
        assert did <= figure.upper, "whatever the split really was"
        assert figure.point <= figure.upper
    # A run that held the device with several jobs has no lower bound either, and all of it as its upper.
    together = priced(usage)
    assert together.lower == 0
    assert d.flop <= together.upper


@given(d=hopper_devices(), weights=st.tuples(st.floats(0.1, 100), st.floats(0.1, 100)))
def test_points_of_sharers_add_up_to_the_device(d: Device, weights: tuple[float, float]) -> None:
    whole, shared = Window(), Window()
    whole.add("GPU-0", ME, interval(d, ALL_MEASURED))
    for workload, part in split(interval(d, ALL_MEASURED), weigh(zip((ME, YOU), weights, strict=True))):
        shared.add("GPU-0", workload, part)
    _, alone = whole.usage({"GPU-0": 0})
    workloads, usage = shared.usage({"GPU-0": 0})
    points = sum(priced(usage, i).point for i in range(len(workloads)))
    device = priced(alone).point
    # The residual is dropped or kept by its share of the elapsed cycles: near 0.5 %, rounding of a division may
    # decide otherwise for one part than for the whole.
    edge = sum(u.tensor_other_cycles for u in usage if u.measured & Measured.APPORTIONED)
    of_whole = sum(u.tensor_other_cycles for u in alone)
    assert points - edge * 8192 == device - of_whole * 8192
    if d.any * 1000 < d.elapsed or not d.seen("any"):
        assert points == device


def test_a_report_of_a_shared_run_adds_up() -> None:
    """By class, by pipe, by reason: the same run, told three ways."""
    arch = next(a for a in ARCHS if a.compute_capability == "9.0")
    d = Device(arch, (Work(10**9, "hmma", 10**9 * 4096), Work(10**8, "any", 10**8 * 8192)), 10**9, 0)
    window = Window()
    for workload, part in split(interval(d, ALL_MEASURED), weigh(((ME, 30.0), (YOU, 70.0)))):
        window.add("GPU-0", workload, part)
    _, usage = window.usage({"GPU-0": 0})
    groups: dict[GroupKey, list[int]] = {}
    for u in usage:
        key = GroupKey(u.workload_index + 1, 1, int(u.evidence_class), int(u.measured), u.spread_ppm, 0)
        groups[key] = [getattr(u, name) for name in SUM_FIELDS]
    mine = {k: v for k, v in groups.items() if k.workload_no == 1}
    report = run_figures(mine, {1: H100}, {1: "bf16"}, TABLE)
    assert report.flop == tally(mine, {1: "bf16"}).figures({1: H100}, TABLE)[0]
    assert sum(r.flop for r in report.reasons) == report.flop.upper - report.flop.lower
    assert sum(p.operations.point for p in report.by_pipe.values() if not p.integer) == report.flop.point
    assert report.flop.upper >= d.flop


#: How far off each counter may be on its own, in 10^-5: k_p is accepted within 1 % (metering.md 7.2, item 2); an
#: exporter's gauges are of times of their own, multiplexed (7.1: 5-10 %).
APART = {EvidenceClass.A1: 990, EvidenceClass.A2: 990, EvidenceClass.B1: 10_000, EvidenceClass.B2: 10_000}


@given(
    arch=st.sampled_from([a for a in ARCHS if "fp64_tensor" in a.rates]),
    grade=st.sampled_from(sorted(APART)),
    hmma_read=st.booleans(),
    work=st.tuples(*[st.sampled_from((0, 2_500)) | st.integers(0, 2_500)] * 4),
    off=st.tuples(*[st.sampled_from((-1.0, 1.0)) | st.floats(-1, 1)] * 4),
)
def test_counters_that_are_each_a_little_off_leave_no_float_work_over(
    arch: Arch,
    grade: EvidenceClass,
    hmma_read: bool,
    work: tuple[int, int, int, int],
    off: tuple[float, float, float, float],
) -> None:
    """BF16, INT8, FP64, and the best that only the any-tensor counter sees; each counter off on its own."""
    elapsed = 1_000_000_000
    hmma, imma, dmma, narrow = work = tuple(n * 100_000 for n in work)
    best = max(arch.rates[n] for n in arch.residual_holds)
    true_flop = hmma * arch.rates["bf16"] + dmma * arch.rates["fp64_tensor"] + narrow * best
    true_ops = imma * arch.rates["int8"]
    seen = [
        n * 100_000 // (100_000 + round(o * APART[grade]))
        for n, o in zip((hmma, imma, dmma, sum(work)), off, strict=True)
    ]
    measured = ALL_MEASURED if hmma_read else ALL_MEASURED & ~Measured.HMMA
    other = residual(
        tensor_any=seen[3],
        hmma=seen[0] if hmma_read else None,
        imma=seen[1],
        dmma=seen[2],
        elapsed=elapsed,
        mismatch_ppm=MISMATCH_PPM[grade],
    )
    counted = Cycles(
        grade,
        measured,
        0,
        elapsed,
        active=elapsed,
        hmma=seen[0] if hmma_read else 0,
        imma=seen[1],
        dmma=seen[2],
        tensor_other=other,
    )
    figure, ops = flop(counted, arch), integer_ops(counted, arch)
    rounding = 2 * sum(arch.rates.values())  # a counter has whole cycles
    assert figure.lower - rounding <= true_flop <= figure.upper + rounding
    assert figure.lower <= figure.point <= figure.upper
    assert ops.lower - rounding <= true_ops <= ops.upper + rounding
