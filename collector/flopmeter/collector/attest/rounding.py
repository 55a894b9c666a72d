"""Figures as a recipient is owed them: two significant figures, or an order of magnitude. Pure, exact.

Bounds are rounded outwards, so that the truth stays between them; points to the nearest. What adds up unrounded adds up
rounded: parts are cut to the total's unit, and what that leaves goes to those that lost most. No status is ever taken
from a rounded figure (reference/regulations.md 13.19): thresholds are compared before.
"""

from collections.abc import Sequence
from fractions import Fraction

from flopmeter.collector.filing.rounding import magnitude, two_figures
from flopmeter.contract.flop import Figure


def unit_of(value: int | Fraction) -> Fraction:
    """The place of the second significant figure, 1 at least; 1 of nothing."""
    if not value:
        return Fraction(1)
    return max(Fraction(1), Fraction(10) ** (two_figures(value).exponent - 1))


def rounded(f: Figure) -> Figure:
    """To two significant figures of the point (of the upper bound where there is no point)."""
    return _to(f, _unit(f), round(Fraction(f.point) / _unit(f)))


def rounded_parts(whole: Figure, parts: Sequence[Figure]) -> list[Figure]:
    """`parts` of `whole`, whose points add up to its: they add up to `rounded(whole)`'s."""
    unit = _unit(whole)
    units = _whole([Fraction(p.point) / unit for p in parts], round(Fraction(whole.point) / unit))
    return [_to(p, unit, n) for p, n in zip(parts, units, strict=True)]


def percents(shares: Sequence[Fraction]) -> list[int]:
    """Shares that add up to one, in percent that add up to a hundred. Of none, none."""
    return _whole([100 * share for share in shares], 100) if shares else []


def order_of(f: Figure) -> Figure:
    """Its order of magnitude: powers of ten, the bounds outwards, the point the greatest that it reaches."""
    return Figure(power_below(f.lower), power_below(f.point), power_above(f.upper))


def power_below(value: int) -> int:
    """The greatest power of ten that is not above `value`; 0 of 0."""
    return 10 ** magnitude(value) if value else 0


def power_above(value: int) -> int:
    """The least power of ten that is not below `value`; 0 of 0."""
    below = power_below(value)
    return below if below == value else below * 10


def near(value: Fraction) -> Fraction:
    """A quantity to two significant figures, to the nearest, a half to the even digit."""
    return two_figures(value).value


def up(value: int) -> int:
    """To two significant figures, upwards."""
    unit = int(unit_of(value))
    return -(-value // unit) * unit


def _whole(parts: Sequence[Fraction], total: int) -> list[int]:
    """Whole numbers that add up to `total`: each cut, and what that leaves to those that lost most."""
    found = [p.numerator // p.denominator for p in parts]
    most_cut = sorted(range(len(parts)), key=lambda i: (found[i] - parts[i], i))
    for i in most_cut[: total - sum(found)]:
        found[i] += 1
    return found


def _unit(f: Figure) -> Fraction:
    return unit_of(f.point or f.upper)


def _to(f: Figure, unit: Fraction, point_units: int) -> Figure:
    u = int(unit)
    return Figure(f.lower // u * u, point_units * u, -(-f.upper // u) * u)
