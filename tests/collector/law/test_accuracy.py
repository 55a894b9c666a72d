"""±30 % of the reported estimate: exact at the edge, never shown better than it is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flopmeter.cli.layout import Paint
from flopmeter.collector.law.accuracy import Accuracy, Within, accuracy_json, answer
from flopmeter.collector.report.parts_view import accuracy_view
from flopmeter.contract.flop import ZERO, Figure


@pytest.mark.parametrize(
    ("lower", "upper", "within"),
    [(70, 130, True), (69, 130, False), (70, 131, False), (100, 100, True), (0, 100, False)],
)
def test_thirty_percent_is_exact_at_its_edge(lower: int, upper: int, within: bool) -> None:
    assert Accuracy(Figure(lower, 100, upper)).within is within
    big = 10**26
    edge = Figure(big * 7 // 10, big, big * 13 // 10)
    assert Accuracy(edge).within
    assert not Accuracy(Figure(edge.lower - 1, big, edge.upper)).within
    assert not Accuracy(Figure(edge.lower, big, edge.upper + 1)).within


def test_the_three_answers_and_none() -> None:
    wide, narrow = Figure(50, 100, 200), Figure(80, 100, 110)
    assert answer(narrow, None) is answer(narrow, narrow) is Within.YES
    assert answer(wide, narrow) is Within.IF_DECLARED
    assert answer(wide, wide) is answer(wide, None) is Within.NO
    assert answer(ZERO, None) is answer(Figure(0, 0, 9), None) is Within.NO_ESTIMATE


def test_percentages_are_rounded_up() -> None:
    assert accuracy_json(Figure(2_383_872, 4_096_000, 4_218_880)) == {
        "within": False,
        "below_percent": 41.8,
        "above_percent": 3.0,
        "best_estimate": {"flop": "3301376", "percent": 27.8},
    }
    a = Accuracy(Figure(999, 1000, 1001))
    assert (a.below_percent, a.above_percent) == (0.1, 0.1)
    assert accuracy_json(ZERO)["below_percent"] is None


@given(st.integers(0, 10**27), st.integers(0, 10**27), st.integers(1, 10**27))
def test_no_other_single_number_has_a_smaller_margin(lower: int, more: int, other: int) -> None:
    upper = lower + more
    a = Accuracy(Figure(lower, lower, upper))
    if not a.middle:
        return
    # margin(E) = max(E - lower, upper - E) / E, compared without division; the middle is rounded down.
    margin = max(a.middle - lower, upper - a.middle)
    assert margin * other <= (max(other - lower, upper - other) + 1) * a.middle + other


@pytest.mark.parametrize("owed_s", [0.0, 7_200.0])
def test_what_silent_agents_owe_is_said_beside_the_margin(owed_s: float) -> None:
    document = {
        "accuracy": {**accuracy_json(Figure(80, 100, 110)), "if_declared": None},
        "declared_dtypes": [],
        "coverage": {"gaps": {"unreported": owed_s} if owed_s else {"reset": 60.0}},
    }
    lines = accuracy_view(document, Paint(colour=False, width=80))
    said = ["2.00 GPU-h of silent agents are priced in it, from 0 to the most"]
    assert [line.strip() for line in lines[1:]] == (said if owed_s else [])
