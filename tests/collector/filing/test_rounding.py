"""Two significant figures, orders of magnitude and ranges of months: exact, and the rule is the one that is stated."""

from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Context
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flopmeter.collector.filing.rounding import (
    TwoFigures,
    decimal_text,
    magnitude,
    magnitude_text,
    months_range,
    two_figures,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (23 * 10**24, "2.3×10^25"),
        (10**25, "1.0×10^25"),
        (225 * 10**23, "2.2×10^25"),  # a half, to the even digit
        (235 * 10**23, "2.4×10^25"),
        (225 * 10**23 + 1, "2.3×10^25"),
        (995 * 10**22, "1.0×10^25"),  # a half again, and 99.5 is next to the even 100
        (995 * 10**22 - 1, "9.9×10^24"),
        (16384, "1.6×10^4"),
        (1638, "1600"),
        (16, "16"),
        (7, "7.0"),
        (Fraction(1, 8), "0.12"),
        (Fraction(1, 3), "0.33"),
        (Fraction(1, 3000), "3.3×10^-4"),
    ],
)
def test_two_figures(value, text):
    assert two_figures(value).text == text


@settings(deadline=None)
@given(st.integers(1, 10**30))
def test_two_figures_are_what_decimal_makes_of_it(n):
    """Against another implementation, with more digits than the number has."""
    expected = Context(prec=2, rounding=ROUND_HALF_EVEN).create_decimal(n)
    assert two_figures(n).value == Fraction(expected)


@settings(deadline=None)
@given(st.fractions(min_value=Fraction(1, 10**9), max_value=10**30))
def test_two_figures_are_off_by_half_a_step_at_most(x):
    got = two_figures(x)
    assert 10 <= got.digits <= 99
    assert abs(got.value - x) * 2 <= Fraction(10) ** (got.exponent - 1)
    assert Fraction(10) ** magnitude(x) <= x < Fraction(10) ** (magnitude(x) + 1)


def test_nothing_that_is_filed_is_negative():
    with pytest.raises(ValueError, match="from 0 on"):
        two_figures(-1)
    with pytest.raises(ValueError, match="above 0"):
        magnitude(0)


def test_an_order_of_magnitude_says_no_more_than_that():
    assert magnitude_text(10**25) == "from 10^25 to below 10^26"
    assert magnitude_text(10**25 - 1) == "from 10^24 to below 10^25"
    assert magnitude_text(0) == "0"
    assert {magnitude_text(n * 10**24) for n in range(1, 10)} == {"from 10^24 to below 10^25"}


def ns(*when):
    return int(datetime(*when, tzinfo=UTC).timestamp()) * 10**9


@pytest.mark.parametrize(
    ("begun", "ended", "text"),
    [
        (ns(2026, 1, 31), ns(2026, 2, 27), "less than 1 month"),
        (ns(2026, 1, 31), ns(2026, 2, 28), "1 to 3 months"),  # February has no 31st
        (ns(2026, 1, 1), ns(2026, 4, 1), "1 to 3 months"),
        (ns(2026, 1, 1), ns(2026, 4, 1, 0, 0, 1), "3 to 6 months"),
        (ns(2025, 11, 30), ns(2026, 5, 30), "3 to 6 months"),
        (ns(2025, 11, 30), ns(2026, 5, 31), "more than 6 months"),
        (ns(2026, 1, 1), ns(2026, 1, 1), "less than 1 month"),
    ],
)
def test_months(begun, ended, text):
    assert months_range(begun, ended) == text


def test_decimals_and_the_value_of_a_rounded_figure():
    assert decimal_text(Fraction(1, 4)) == "0.2"
    assert decimal_text(Fraction(3, 4)) == "0.8"
    assert decimal_text(Fraction(40, 3), 2) == "13.33"
    assert decimal_text(Fraction(3), 0) == "3"
    assert TwoFigures(23, 25).value == 23 * 10**24
