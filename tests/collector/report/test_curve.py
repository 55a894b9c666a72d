"""The curve of a run: every operation in some hour, bridges drawn evenly and said."""

from hypothesis import given
from hypothesis import strategies as st

from flopmeter.cli.layout import Paint
from flopmeter.collector.books import HOUR_NS
from flopmeter.collector.report.curve import curve_view, points_by_hour, sparkline
from flopmeter.collector.spelling import time_text

PAINT = Paint(colour=False, width=80)
H = 497_000


def slot(hour: int, point: int, hours: int = 1):
    figure = {name: str(point) for name in ("lower", "point", "upper")}
    return {"hour": time_text(hour * HOUR_NS), "hours": hours, "flop": figure}


def test_a_bridge_is_drawn_evenly_over_its_hours_and_no_operation_is_lost() -> None:
    found = points_by_hour([slot(H, 10), slot(H + 4, 7, 3), slot(H + 4, 100)])
    assert found == {H: 10, H + 2: 2, H + 3: 2, H + 4: 3 + 100}


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 10**26), st.integers(1, 40)), max_size=8))
def test_points_add_up(slots: list[tuple[int, int, int]]) -> None:
    found = points_by_hour(slot(H + hour, point, hours) for hour, point, hours in slots)
    assert sum(found.values()) == sum(point for _, point, _ in slots)
    assert all(H - 40 < hour <= H + 50 for hour in found)


def test_what_is_drawn_evenly_is_said_and_windows_of_an_hour_are_not() -> None:
    whole = [slot(H + n, 10**18) for n in range(4)]
    assert len(curve_view(whole, PAINT)) == 1
    over_the_edge = [slot(H + n, 10**18, 2) for n in range(4)]
    assert len(curve_view(over_the_edge, PAINT)) == 1
    lines = curve_view([*whole, slot(H + 24, 2 * 10**19, 20)], PAINT)
    text = " ".join(" ".join(lines).split())
    assert "peak 1.00e18 FLOP/h" in text, "not all twenty hours' work in one"
    assert (
        "2.00e19 FLOP of it in one bridge of up to 20 h, drawn evenly: in which hour it was is not known"
        in text
    )
    assert all(len(line) <= 80 for line in lines)
    two = " ".join(curve_view([slot(H, 1, 3), slot(H + 9, 1, 7)], PAINT))
    assert "in 2 bridges of up to 7 h" in two


def test_sparkline_shows_idle_hours_as_blanks_and_never_overflows() -> None:
    assert sparkline([0, 1, 8, 0, 4], 10) == " ▂█ ▅"
    assert len(sparkline(list(range(1000)), 72)) <= 72
    assert sparkline([], 5) == ""
    assert sparkline([10**26, 1], 5) == "█▁"
