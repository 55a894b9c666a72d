"""The counters up to an hour: what bridges it may have been before or not, and widens the bounds."""

from hypothesis import given
from hypothesis import strategies as st

from flopmeter.collector.books import SUM_FIELDS, GroupKey, Slot
from flopmeter.collector.estimate.cut import figure_before
from flopmeter.collector.figures import Model, Tally
from flopmeter.contract.flop import Figure
from flopmeter.contract.usage import ALL_MEASURED
from flopmeter.contract.w_table import current

MODELS = {1: Model("NVIDIA H100 80GB HBM3", "9.0")}
KEY = GroupKey(1, 1, 1, int(ALL_MEASURED), 0, 0)
TABLE = current()


def sums(hmma: int) -> list[int]:
    return [60_000_000_000, 10 * hmma, 9 * hmma, hmma, *([0] * (len(SUM_FIELDS) - 4))]


def rows(*slots: tuple[Slot, int]):
    return [(slot, "bf16", KEY, sums(hmma)) for slot, hmma in slots]


def worth(*hmma: int) -> Figure:
    tally = Tally()
    for n in hmma:
        tally.add(KEY, "bf16", sums(n))
    return tally.figures(MODELS, TABLE)[0]


def test_a_bridge_over_the_hour_counts_in_the_upper_bound_alone():
    books = rows((Slot(4), 10**9), (Slot(9, 3), 10**12), (Slot(12, 9), 10**10), (Slot(20, 2), 10**11))
    assert figure_before(None, books, MODELS, TABLE) == worth(10**9, 10**12, 10**10, 10**11)
    whole, part = worth(10**9, 10**12), worth(10**10)
    assert figure_before(10, books, MODELS, TABLE) == Figure(
        whole.lower, whole.point, whole.upper + part.upper
    )
    assert figure_before(4, books, MODELS, TABLE) == Figure(0, 0, part.upper)
    assert figure_before(3, books, MODELS, TABLE) is None
    assert figure_before(21, books, MODELS, TABLE) == worth(10**9, 10**12, 10**10, 10**11)


@given(
    st.lists(
        st.tuples(st.integers(0, 30), st.integers(0, 30), st.integers(0, 10**15)), min_size=1, max_size=8
    ),
    st.integers(0, 40),
)
def test_it_never_falls_with_the_hour_and_ends_at_the_whole(found, hour):
    books = rows(*((Slot(h, min(back, h)), n) for h, back, n in found))
    nothing = Figure(0, 0, 0)
    one = figure_before(hour, books, MODELS, TABLE) or nothing
    later = figure_before(hour + 1, books, MODELS, TABLE) or nothing
    assert one.lower <= one.point <= one.upper
    assert (one.lower, one.point) <= (later.lower, later.point)
    # Bounds of two tallies are each rounded outward: by less than an operation for each.
    assert one.upper <= later.upper + 2
    whole = figure_before(None, books, MODELS, TABLE)
    assert figure_before(31, books, MODELS, TABLE) == whole
