"""Figures: derived from sums exactly, the same however the sums were grouped."""

from builders import run_flop
from hypothesis import given
from hypothesis import strategies as st

from flopmeter.collector.books import SUM_FIELDS, GroupKey
from flopmeter.collector.figures import Model, Tally, tally
from flopmeter.collector.report.run_figures import run_figures
from flopmeter.contract.evidence_class import EvidenceClass
from flopmeter.contract.flop import Cycles, Figure, flop
from flopmeter.contract.usage import ALL_MEASURED, GapReason, Measured
from flopmeter.contract.w_table import current

TABLE = current()
H100 = Model("NVIDIA H100 80GB HBM3", "9.0")
B200 = Model("NVIDIA B200", "10.0")
UNKNOWN = Model("Graphcore?", "99.0")
MODELS = {1: H100, 2: B200, 3: UNKNOWN}
A1, GAP = int(EvidenceClass.A1), int(EvidenceClass.GAP)


def key(*, workload=1, model=1, cls=A1, measured=int(ALL_MEASURED), spread=0, gap=0):
    return GroupKey(workload, model, cls, measured, spread, gap)


def sums(**named):
    assert set(named) <= set(SUM_FIELDS)
    return [named.get(field, 0) for field in SUM_FIELDS]


def test_one_group_is_the_contracts_arithmetic():
    group = {key(): sums(duration_ns=10**9, sm_elapsed_cycles=10**9, sm_active_cycles=10**9, hmma_cycles=7)}
    c = Cycles(EvidenceClass.A1, ALL_MEASURED, 0, elapsed=10**9, active=10**9, hmma=7)
    arch = TABLE.arch("9.0", H100.name)
    assert run_flop(group, MODELS, {1: "bf16"}, TABLE) == flop(c, arch, "bf16")
    assert run_flop(group, MODELS, {1: "fp8"}, TABLE).point == 7 * 8192
    assert run_flop(group, MODELS, {}, TABLE).point == 7 * 4096


def test_one_more_cycle_near_10_to_the_26_changes_every_bound():
    cycles = 10**26 // 4096
    before = run_flop({key(): sums(sm_elapsed_cycles=10 * cycles, hmma_cycles=cycles)}, MODELS, {}, TABLE)
    after = run_flop({key(): sums(sm_elapsed_cycles=10 * cycles, hmma_cycles=cycles + 1)}, MODELS, {}, TABLE)
    assert abs(before.point - 10**26) < 4096
    assert after.point - before.point == 4096  # a double would drop anything under 8.6e9 here
    assert after.lower > before.lower
    assert after.upper > before.upper


def test_rounding_happens_once_however_many_workloads_restarts_and_gaps():
    one = {key(): sums(sm_elapsed_cycles=3_000_003, hmma_cycles=999_999)}
    many = {key(workload=w): sums(sm_elapsed_cycles=1_000_001, hmma_cycles=333_333) for w in (1, 2, 3)}
    assert run_flop(one, MODELS, {}, TABLE) == run_flop(many, MODELS, {}, TABLE)
    gaps = {
        key(cls=GAP, measured=0, gap=int(r)): sums(duration_ns=5, sm_elapsed_cycles=7)
        for r in (GapReason.RESET, GapReason.LOST)
    }
    whole = {key(cls=GAP, measured=0, gap=1): sums(duration_ns=10, sm_elapsed_cycles=14)}
    assert run_flop(gaps, MODELS, {}, TABLE) == run_flop(whole, MODELS, {}, TABLE)


group_keys = st.builds(
    key,
    workload=st.integers(1, 4),
    model=st.integers(1, 3),
    cls=st.sampled_from([int(c) for c in EvidenceClass if c is not EvidenceClass.D]),
    measured=st.sampled_from(
        [
            int(ALL_MEASURED),
            0,
            int(Measured.SM_ACTIVE | Measured.TENSOR_OTHER),
            int(ALL_MEASURED | Measured.APPORTIONED),
            int(ALL_MEASURED | Measured.OTHERS),
        ]
    ),
    spread=st.sampled_from([0, 2_000, 50_000]),
)
#: A row no device contradicts: pipes within the elapsed cycles.
numbers = st.builds(
    lambda elapsed, pipes: [10**9, elapsed, elapsed, *(p % (elapsed // 8 + 1) for p in pipes), 5],
    st.integers(0, 10**24),
    st.lists(st.integers(0, 10**24), min_size=8, max_size=8),
)


def only_measured(group, row):
    """What was not measured is 0, as ingest insists."""
    bits = [None, None, *(bit for bit in Measured if bit in ALL_MEASURED)]
    row = [n if bit is None or bit & group.measured else 0 for n, bit in zip(row, bits, strict=True)]
    return [0, 0, *row[2:-1], 0] if group.measured & Measured.OTHERS else row


DTYPES = {1: "bf16", 2: "fp8", 3: ""}


@given(st.lists(st.tuples(group_keys, numbers), max_size=20), st.data())
def test_incremental_and_whole_agree_bounds_are_ordered_and_totals_only_grow(rows, data):
    running = Tally()
    groups: dict[GroupKey, list[int]] = {}
    last = Figure(0, 0, 0)
    for k, every in rows:
        row = only_measured(k, every)
        running.add(k, DTYPES.get(k.workload_no, ""), row)
        groups[k] = [a + b for a, b in zip(groups.get(k, [0] * len(row)), row, strict=True)]
        figure, ops = running.figures(MODELS, TABLE)
        assert figure.lower <= figure.point <= figure.upper
        assert ops.lower <= ops.point <= ops.upper
        assert figure.lower >= last.lower
        assert figure.point >= last.point
        last = figure
    shuffled = dict(data.draw(st.permutations(list(groups.items()))))
    assert tally(shuffled, DTYPES).figures(MODELS, TABLE) == running.figures(MODELS, TABLE)
    report = run_figures(groups, MODELS, DTYPES, TABLE)
    assert (report.flop, report.integer_ops) == running.figures(MODELS, TABLE)
    assert sum(r.flop for r in report.reasons) == report.flop.upper - report.flop.lower
    for parts in (report.by_evidence_class, report.by_model):
        assert sum(p.flop.point for p in parts.values()) == report.flop.point
        assert sum(p.duration_ns for p in parts.values()) == report.expected_ns
    assert sum(p.operations.point for n, p in report.by_pipe.items() if not p.integer) == report.flop.point
    assert sum(p.point for p in report.by_precision.values()) == report.flop.point
    assert sum(p.upper for p in report.by_precision.values()) >= report.flop.upper


def test_a_tally_with_another_included_is_that_of_both_and_shares_no_sums_with_it():
    first, second = Tally(), Tally()
    for into, dtype in ((first, ""), (second, ""), (second, "bf16")):
        into.add(key(), dtype, sums(hmma_cycles=1))
    alone = first.figures(MODELS, TABLE)[0].point
    both = Tally()
    both.include(first)
    both.include(second)
    assert both.figures(MODELS, TABLE)[0].point == alone + second.figures(MODELS, TABLE)[0].point
    both.add(key(), "", sums(hmma_cycles=1))
    assert first.figures(MODELS, TABLE)[0].point == alone


def test_an_unknown_device_is_neither_guessed_nor_safely_below():
    group = {key(model=3): sums(sm_elapsed_cycles=100, sm_active_cycles=50, hmma_cycles=50)}
    figure = run_flop(group, MODELS, {}, TABLE)
    assert (figure.lower, figure.point) == (0, 0)
    highest = max(max(a.rates.values()) for a in TABLE.archs if a.rates)
    assert figure.upper >= 50 * highest
    report = run_figures(group, MODELS, {}, TABLE)
    assert report.no_w_table == (UNKNOWN.name,)
    assert report.by_pipe["hmma"].cycles == 50
    assert report.reasons[0].cause == "no-w-table"
    assert "no W table for Graphcore?" in report.reasons[0].text


def test_gaps_are_priced_from_zero_to_the_most_and_named():
    groups = {
        key(): sums(duration_ns=60, sm_elapsed_cycles=1000, hmma_cycles=100, energy_mj=9),
        key(cls=GAP, measured=0, gap=int(GapReason.RESET)): sums(duration_ns=40, sm_elapsed_cycles=1000),
    }
    report = run_figures(groups, MODELS, {}, TABLE)
    assert (report.observed_ns, report.gap_ns, report.expected_ns) == (60, 40, 100)
    assert report.gaps_ns == {GapReason.RESET: 40}
    gap = report.by_evidence_class["gap"].flop
    assert (gap.lower, gap.point) == (0, 0)
    assert gap.upper == 1000 * (8192 + 128 + 256 + 512)
    assert str(report.reasons[0]).startswith("92 % of the width: gaps:")
    assert report.energy_mj == 9
    assert report.energy_unmeasured_ns == 0


def test_the_widths_of_all_reasons_are_the_width():
    groups = {
        key(
            measured=int(Measured.SM_ACTIVE | Measured.TENSOR_OTHER), cls=int(EvidenceClass.B2), spread=5000
        ): sums(duration_ns=1, sm_elapsed_cycles=10**6, sm_active_cycles=10**6, tensor_other_cycles=10**5),
        key(): sums(
            duration_ns=60,
            sm_elapsed_cycles=10**6,
            sm_active_cycles=10**6,
            hmma_cycles=10**5,
            fp32_cycles=10**4,
        ),
    }
    report = run_figures(groups, MODELS, {}, TABLE)
    assert sum(r.flop for r in report.reasons) == report.flop.upper - report.flop.lower
    texts = [str(r) for r in report.reasons]
    shares = [int(t.split(" ", 1)[0]) for t in texts if not t.startswith("under")]
    assert shares == sorted(shares, reverse=True)
    assert 100 - len(texts) <= sum(shares) <= 100
    text = "\n".join(texts)
    for word in (
        "tensor cycle does 2048 to 8192",
        "class B2: integer and FP64 tensor work was not read apart",
        "pipes that class B2 did not read",
        "mma.sync keeps a tensor pipe of NVIDIA H100 80GB HBM3 active at 60 %",
        "dropped as noise below 0.5 %",
        "clock was sampled",
        "vector pipes",
        "class A1: counter to cycles is good to 3 %",
    ):
        assert word in text


SHARED = int(ALL_MEASURED | Measured.APPORTIONED)
OTHERS = int(ALL_MEASURED & ~Measured.ENERGY | Measured.OTHERS)


def test_what_others_did_on_a_shared_gpu_is_in_the_upper_bound_and_in_nothing_else():
    mine = sums(duration_ns=30, sm_elapsed_cycles=600, sm_active_cycles=300, hmma_cycles=100, energy_mj=7)
    theirs = sums(sm_active_cycles=300, hmma_cycles=200, fp32_cycles=50)
    alone = run_figures({key(): mine}, MODELS, {1: "bf16"}, TABLE)
    report = run_figures(
        {key(measured=SHARED): mine, key(measured=OTHERS): theirs}, MODELS, {1: "bf16"}, TABLE
    )
    assert (report.flop.lower, report.flop.point) == (0, 100 * 4096)
    assert report.flop.upper == alone.flop.upper + -(-(200 * 8192 + 50 * 256) * 103 // 100)
    assert (report.observed_ns, report.gap_ns, report.apportioned_ns) == (30, 0, 30)
    assert (report.energy_mj, report.energy_unmeasured_ns, report.sm_elapsed_cycles) == (7, 0, 600)
    hmma = report.by_pipe["hmma"]
    assert hmma.cycles == 100
    assert (hmma.operations.lower, hmma.operations.point) == (0, 100 * 4096)
    assert hmma.operations.upper >= 300 * 8192
    part = report.by_evidence_class["A1"]
    assert (part.duration_ns, part.sm_elapsed_cycles, part.flop) == (30, 600, report.flop)
    assert "shared GPUs" in str(report.reasons[0])
    assert report.flop_if_declared is not None
    assert report.flop_if_declared.lower == 0


def test_a_shared_gap_is_its_time_once():
    groups = {
        key(cls=GAP, measured=int(Measured.APPORTIONED), gap=1): sums(duration_ns=30, sm_elapsed_cycles=600),
        key(cls=GAP, measured=int(Measured.SM_ACTIVE | Measured.OTHERS), gap=1): sums(sm_active_cycles=400),
    }
    report = run_figures(groups, MODELS, {}, TABLE)
    assert report.gaps_ns == {GapReason.READ_FAILED: 30}
    assert report.flop == Figure(0, 0, 1000 * (8192 + 128 + 256 + 512))
    beside = {k: v for k, v in groups.items() if k.measured & Measured.OTHERS}
    assert run_figures(beside, MODELS, {}, TABLE).gaps_ns == {}, "a holder that was given nothing of it"


def test_a_declaration_is_tried_as_true_and_never_moves_the_bounds():
    groups = {key(): sums(duration_ns=1, sm_elapsed_cycles=10**6, hmma_cycles=10**5)}
    said, unsaid = (run_figures(groups, MODELS, d, TABLE) for d in ({1: "bf16"}, {}))
    assert unsaid.flop_if_declared is None
    assert said.flop == unsaid.flop
    trusted = said.flop_if_declared
    assert said.flop.lower < trusted.lower == 10**5 * 4096 * 6 // 10 * 97 // 100
    assert trusted.point == said.flop.point
    assert trusted.upper < said.flop.upper
    mixed = {**groups, key(workload=2): sums(duration_ns=1, sm_elapsed_cycles=10**6, hmma_cycles=10**5)}
    half = run_figures(mixed, MODELS, {1: "bf16"}, TABLE)
    assert half.flop_if_declared == trusted + unsaid.flop


def test_sparsity_is_nominal_and_in_no_figure():
    groups = {key(): sums(duration_ns=1, sm_elapsed_cycles=10**6, hmma_cycles=10**5)}
    report = run_figures(groups, MODELS, {}, TABLE)
    assert report.flop.upper < report.nominal_sparse_flop <= 2 * report.flop.upper
    unknown = run_figures({key(model=3): sums(sm_elapsed_cycles=100)}, MODELS, {}, TABLE)
    assert unknown.nominal_sparse_flop == unknown.flop.upper


def test_energy_that_nobody_read_is_told_apart_from_none_used():
    groups = {key(measured=int(ALL_MEASURED & ~Measured.ENERGY)): sums(duration_ns=60, sm_elapsed_cycles=1)}
    report = run_figures(groups, MODELS, {}, TABLE)
    assert report.energy_unmeasured_ns == 60
