"""Figures for people: a bound that is shown never excludes the exact number, whatever the number is."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flopmeter.cli.output import band_texts, flop_text, lower_text, upper_text

NUMBERS = st.one_of(
    st.integers(-(10**30), 10**30),
    st.integers(0, 20_000),
    st.builds(lambda k, d: 10**k + d, st.integers(0, 40), st.integers(-2, 2)),  # about a line of the law
    st.builds(
        lambda lead, k, d: lead * 10**k + d, st.integers(100, 999), st.integers(2, 30), st.integers(-1, 1)
    ),
)


@given(NUMBERS)
def test_a_bound_never_excludes_the_number_and_is_no_further_off_than_it_must_be(n):
    low, high = Fraction(lower_text(n)), Fraction(upper_text(n))
    assert low <= n <= high
    assert (high - low) * 100 <= abs(n)
    if low == n:
        assert high == n  # what three digits say exactly is said exactly


@given(NUMBERS)
def test_a_point_is_the_nearer_of_its_bounds_but_no_power_of_ten_that_it_has_not_reached(n):
    low, point, high = (Fraction(text(n)) for text in (lower_text, flop_text, upper_text))
    assert point in {low, high}
    inner, outer = (low, high) if n >= 0 else (high, low)  # nearer to nought, further from it
    if set(str(abs(outer)).rstrip("0")) == {"1"} and outer != n and abs(n) >= 10_000:
        assert point == inner
    else:
        assert point == (outer if abs(outer - n) <= abs(n - inner) else inner)


@given(st.lists(NUMBERS, min_size=3, max_size=3).map(sorted))
def test_what_is_in_order_is_shown_in_order(three):
    figure = dict(zip(("lower", "point", "upper"), map(str, three), strict=True))
    low, point, high = map(Fraction, band_texts(figure))
    assert low <= point <= high


@pytest.mark.parametrize(
    ("n", "said"),
    [  # the same as in tests/collector/web/format.test.js
        (0, ("0", "0", "0")),
        (9_999, ("9999", "9999", "9999")),
        (99_949, ("9.99e4", "9.99e4", "1.00e5")),
        (10**25 - 1, ("9.99e24", "9.99e24", "1.00e25")),
        (10**25, ("1.00e25", "1.00e25", "1.00e25")),
        (10**25 + 1, ("1.00e25", "1.00e25", "1.01e25")),
        (794870124316091110471963, ("7.94e23", "7.95e23", "7.95e23")),
        (12_350, ("1.23e4", "1.24e4", "1.24e4")),
        (12_349, ("1.23e4", "1.23e4", "1.24e4")),
        (-377015992666030080000000, ("-3.78e23", "-3.77e23", "-3.77e23")),
    ],
)
def test_how_they_look(n, said):
    assert (lower_text(n), flop_text(n), upper_text(n)) == said
