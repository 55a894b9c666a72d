"""Rows that are rounded one by one, and still add up to what their group comes to."""

from hypothesis import given, settings
from hypothesis import strategies as st

from flopmeter.collector.books import GroupKey
from flopmeter.collector.export.prices import Growing
from flopmeter.collector.figures import Model, Tally
from flopmeter.contract.evidence_class import UPPER_ONLY, EvidenceClass
from flopmeter.contract.flop import total
from flopmeter.contract.usage import Measured
from flopmeter.contract.w_table import current

PIPE_BITS = (2, 4, 8, 16, 32, 64, 128, 256)  # contract.usage.Measured, in the order of the sums
MODELS = {
    1: Model("NVIDIA H100 80GB HBM3", "9.0"),
    2: Model("NVIDIA X9000", "99.0"),
    3: Model("NVIDIA A100-SXM4-80GB", "8.0"),
}


@st.composite
def rows(draw: st.DrawFn) -> tuple[str, GroupKey, str, list[int]]:
    grade = draw(st.sampled_from(list(EvidenceClass)))
    measured = 0 if grade in UPPER_ONLY else draw(st.integers(0, 2047))
    key = GroupKey(
        draw(st.integers(1, 2)), draw(st.sampled_from(list(MODELS))), int(grade), measured,
        draw(st.sampled_from((0, 5_000, 1_000_000))), 0,
    )  # fmt: skip
    elapsed = draw(st.integers(0, 9)) * 10 ** draw(st.integers(0, 18)) + draw(st.integers(0, 9))
    active = elapsed * draw(st.integers(0, 10)) // 10
    part = draw(st.integers(0, 30))
    # What was not read is 0, and the tensor pipes are never active for longer than the SMs together.
    pipes = [active // (5 + part + i) if measured & bit else 0 for i, bit in enumerate(PIPE_BITS)]
    return (
        draw(st.sampled_from(["a-run", "b-run"])),
        key,
        draw(st.sampled_from(["", "bf16", "fp8"])),
        [elapsed, elapsed, active if measured & Measured.SM_ACTIVE else 0, *pipes, 7],
    )


@given(st.lists(rows(), max_size=12))
@settings(max_examples=80, deadline=None)
def test_rows_add_up_to_the_figures_of_their_run(found) -> None:
    growing = Growing(MODELS, current())
    grown = [(owner, *growing.add(owner, key, dtype, sums)) for owner, key, dtype, sums in found]
    for run in ("a-run", "b-run"):
        tally = Tally()
        for owner, key, dtype, sums in found:
            if owner == run:
                tally.add(key, dtype, sums)
        flop, ops = tally.figures(MODELS, current())
        assert total(f for owner, f, _ in grown if owner == run) == flop
        assert total(o for owner, _, o in grown if owner == run) == ops


@given(st.lists(rows(), max_size=12))
@settings(max_examples=80, deadline=None)
def test_a_row_has_its_figures_in_order_and_takes_nothing_back(found) -> None:
    growing = Growing(MODELS, current())
    for owner, key, dtype, sums in found:
        for figure in growing.add(owner, key, dtype, sums):
            assert 0 <= figure.lower <= figure.point <= figure.upper
