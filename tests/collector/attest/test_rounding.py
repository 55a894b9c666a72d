"""Rounding for recipients: bounds outwards, parts that still add up, and no status that changes."""

from fractions import Fraction

from hypothesis import example, given
from hypothesis import strategies as st

from flopmeter.collector.attest import rounding
from flopmeter.collector.attest.profiles import PROFILES, view
from flopmeter.collector.attest.values import figure, figure_of
from flopmeter.contract.flop import ZERO, Figure, total

numbers = st.integers(0, 10**12) | st.integers(0, 10**30)
figures = st.lists(numbers, min_size=3, max_size=3).map(sorted).map(lambda n: Figure(*n))


@given(figures)
@example(Figure(0, 0, 0))
@example(Figure(0, 0, 7))
@example(Figure(99, 996, 10_049))
def test_bounds_go_outwards_and_the_point_to_the_nearest(f):
    found = rounding.rounded(f)
    assert found.lower <= f.lower <= f.upper <= found.upper
    assert found.lower <= found.point <= found.upper
    unit = rounding.unit_of(f.point or f.upper)
    assert abs(found.point - f.point) * 2 <= unit
    assert found.lower % unit == found.point % unit == found.upper % unit == 0
    if f.point >= 100:
        assert len(str(found.point).rstrip("0")) <= 2


@given(st.lists(figures, min_size=1, max_size=9))
@example([Figure(0, 75, 75), Figure(0, 74, 74)])
@example([Figure(0, 4, 4)] * 3)
def test_parts_that_add_up_add_up_rounded(parts):
    whole = total(parts)
    found, of = rounding.rounded_parts(whole, parts), rounding.rounded(whole)
    assert sum(f.point for f in found) == of.point
    assert sum(f.lower for f in found) <= of.lower
    assert sum(f.upper for f in found) >= of.upper
    for f, part in zip(found, parts, strict=True):
        assert f.lower <= part.lower
        assert part.upper <= f.upper
        assert f.lower <= f.point <= f.upper


@given(figures)
@example(Figure(1, 10, 100))
def test_an_order_of_magnitude_holds_the_figure(f):
    found = rounding.order_of(f)
    assert found.lower <= f.lower
    assert f.upper <= found.upper
    assert found.lower <= found.point <= f.point
    for n in found.lower, found.point, found.upper:
        assert not n or str(n).strip("0") == "1"


@given(
    st.lists(figures, min_size=1, max_size=6),
    st.integers(0, 10**6),
    st.integers(0, 10**6),
    st.sampled_from(PROFILES),
)
def test_no_view_changes_a_status_and_none_shows_less_than_the_truth(parts, expected, gap, profile):
    whole = total(parts)
    threshold = {
        "rule": "eu-x", "status": "crossed", "limit": "7", "firstCrossedAt": None, "knownWillBeMetAt": None,
        "eventLogIndex": "1", "dueAt": None,
    }  # fmt: skip
    values = {
        "/run/name": "r1",
        "/run/kind": "other",
        "/totals/executedFlop": figure(whole),
        "/totals/deviceSeconds": str(expected + gap),
        "/byPrecision": [{"pipe": "hmma", "format": "bf16", "flop": figure(p)} for p in parts],
        "/coverage/expectedDeviceSeconds": str(expected + gap),
        "/coverage/observedDeviceSeconds": str(expected),
        "/coverage/gaps": {
            "count": "1",
            "seconds": str(gap),
            "longestSeconds": str(gap),
            "flopUpperAdded": "1234567",
        },
        "/thresholds/eu-x": threshold,
    }
    shown = view(values, profile)
    assert shown.shown["/thresholds/eu-x"]["status"] == "crossed"
    assert "/run/name" not in shown.shown
    if "/totals/executedFlop" in shown.shown:
        seen = figure_of(shown.shown["/totals/executedFlop"])
        assert seen.lower <= whole.lower
        assert whole.upper <= seen.upper
        lines = [figure_of(line["flop"]) for line in shown.shown["/byPrecision"]]
        assert sum(f.point for f in lines) == seen.point
        assert sum((f.upper for f in lines), 0) >= seen.upper
    if "/coverage/gaps" in shown.shown:
        seconds = [
            Fraction(shown.shown[f"/coverage/{name}"])
            for name in ("expectedDeviceSeconds", "observedDeviceSeconds")
        ]
        assert Fraction(shown.shown["/coverage/gaps"]["seconds"]) == seconds[0] - seconds[1] >= 0
        assert int(shown.shown["/coverage/gaps"]["flopUpperAdded"]) >= 1234567
    redacted = {r.path for r in shown.redactions}
    assert redacted >= {p for p in values if shown.shown.get(p) != values[p]}
    assert not redacted & {p for p, v in shown.shown.items() if v == values[p]}


@given(st.lists(st.integers(1, 10**20), min_size=1, max_size=8))
def test_shares_add_up_to_a_hundred_percent(parts):
    shares = [Fraction(p, sum(parts)) for p in parts]
    found = rounding.percents(shares)
    assert sum(found) == 100
    assert all(abs(n - 100 * share) < 1 for n, share in zip(found, shares, strict=True))


def test_nothing_rounded_is_nothing():
    assert rounding.rounded(ZERO) == rounding.order_of(ZERO) == ZERO
    assert rounding.rounded_parts(ZERO, [ZERO, ZERO]) == [ZERO, ZERO]
