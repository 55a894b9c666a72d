"""Plots: places on the paper follow from the figures, whatever these are; hostile names stay text."""

import itertools
import math
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flopmeter.collector.report.course import lines_of, points_of
from flopmeter.collector.report.plots import (
    HEIGHT,
    MAX_POINTS,
    WIDTH,
    Course,
    Line,
    Point,
    Span,
    Stand,
    curve_svg,
    described,
    stands_svg,
    thinned,
)

HOSTILE = "</title><script>alert(1)</script>\u202e'\"&\x1b[31m" + "x" * 300
FLOP = st.integers(0, 10**30)


class Svg(HTMLParser):
    """Tags, attributes and texts; fails on what is not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        self.tags.append((tag, dict(attrs)))

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    def of(self, tag, cls=None):
        return [a for t, a in self.tags if t == tag and (cls is None or a.get("class") == cls)]


def numbers(path: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"(-?[\d.]+) (-?[\d.]+)", path)]


@st.composite
def courses(draw):
    totals = [0, 0, 0]
    at, points = draw(st.integers(0, 2 * 10**9)), []
    for _ in range(draw(st.integers(1, 12))):
        points.append(Point(at, *totals))
        at += draw(st.integers(1, 10**7))
        grown = sorted(draw(st.tuples(FLOP, FLOP, FLOP)))
        totals = [n + g for n, g in zip(totals, grown, strict=True)]
    points.append(Point(at, *totals))
    ahead = draw(st.none() | st.integers(1, 10**8))
    lines = tuple(Line(flop, "law", True) for flop in draw(st.lists(st.integers(1, 10**27), max_size=3)))
    cone = None if ahead is None else Point(at + ahead, totals[0], totals[1] * 2, totals[2] * 3 + 1)
    return Course("run", tuple(points), cone, 90, lines)


@settings(max_examples=60, deadline=None)
@given(courses(), st.booleans())
def test_every_mark_lies_on_the_paper_and_in_order(course, log):
    svg = Svg(curve_svg(course, log=log, ident="x"))
    for _, attrs in svg.tags:
        for x, y in numbers(attrs.get("d", "")):
            assert 0 <= x <= WIDTH
            assert 0 <= y <= HEIGHT
    (point,) = svg.of("path", "point")
    path = numbers(point["d"])
    assert len(path) == len(thinned(course.points))
    assert [x for x, _ in path] == sorted(x for x, _ in path)
    assert [y for _, y in path] == sorted((y for _, y in path), reverse=True)  # a total only grows
    (band,) = svg.of("path", "band")
    edges = numbers(band["d"])
    upper, lower = edges[: len(path)], edges[len(path) :][::-1]
    assert all(u <= p <= low for (_, u), (_, p), (_, low) in zip(upper, path, lower, strict=True))


def test_a_logarithmic_scale_is_one():
    points = (Point(0, 1, 1, 1), *(Point(i, 10**i, 10**i, 10**i) for i in range(1, 7)))
    path = numbers(Svg(curve_svg(Course("r", points), log=True, ident="x")).of("path", "point")[0]["d"])
    steps = [before - after for (_, before), (_, after) in itertools.pairwise(path)]
    assert all(math.isclose(step, steps[0], abs_tol=0.2) for step in steps)
    straight = numbers(Svg(curve_svg(Course("r", points), log=False, ident="x")).of("path", "point")[0]["d"])
    assert straight[-1][1] < straight[-2][1] - 150  # on a linear one the last decade is nearly all


@pytest.mark.parametrize("log", [False, True])
def test_nothing_counted_and_more_than_a_float_holds_can_be_drawn(log):
    Svg(curve_svg(Course("r", (Point(5, 0, 0, 0),)), log=log, ident="x"))
    huge = Course(
        "r", (Point(0, 0, 0, 0), Point(9, 10**320, 10**330, 10**340)), lines=(Line(10**335, "l", True),)
    )
    Svg(curve_svg(huge, log=log, ident="x"))


def test_it_says_in_words_what_it_shows():
    course = Course(
        "llm-7",
        (Point(0, 0, 0, 0), Point(86_400, 10**22, 2 * 10**22, 4 * 10**22)),
        ahead=Point(10 * 86_400, 10**23, 2 * 10**23, 3 * 10**23),
        confidence_percent=90,
        lines=(Line(3 * 10**22, "a", True), Line(10**25, "b", True), Line(10**21, "c", True)),
    )
    said = described(course)
    assert "grew to 2.00e22 FLOP, between 1.00e22 and 4.00e22" in said
    assert "The band holds the line of a" in said
    assert "The band is below the line of b" in said
    assert "The band is above the line of c" in said
    assert "comes to 2.00e23 by 1970-01-11, between 1.00e23 and 3.00e23 (90 % interval)" in said
    svg = Svg(curve_svg(course, log=False, ident="x"))
    (root,) = svg.of("svg")
    ids = {a["id"] for _, a in svg.tags if "id" in a}
    assert set(root["aria-labelledby"].split()) <= ids
    assert said in svg.texts


def test_hostile_names_stay_text():
    spans = (Span(0, 3600, HOSTILE, 1),)
    course = Course(
        HOSTILE, (Point(0, 0, 0, 0), Point(7200, 1, 2, 3)), lines=(Line(2, HOSTILE, True),),
        purposes=spans, gaps=spans, blanks=spans,
    )  # fmt: skip
    stand = Stand(HOSTILE, 1, 2, 3, line=4, verdict=HOSTILE, in_force=False)
    for text in (curve_svg(course, log=False, ident="x"), stands_svg([stand], ident="y")):
        svg = Svg(text)
        assert not svg.of("script")
        assert not any(name.startswith("on") for _, attrs in svg.tags for name in attrs)
        assert "\u202e" not in text
        assert "\x1b" not in text


def test_a_long_run_is_thinned_and_keeps_its_ends():
    points = tuple(Point(i * 3600, i, i * 2, i * 3) for i in range(50_000))
    kept = thinned(points)
    assert (len(kept), kept[0], kept[-1]) == (MAX_POINTS, points[0], points[-1])
    assert len(curve_svg(Course("r", points), log=True, ident="x")) < 40_000


def slot(hour: int, hours: int, point: int) -> dict:
    flop = {"lower": str(point - 1), "point": str(point), "upper": str(point + 1)}
    return {"hour": f"2026-11-20T{hour:02}:00:00.000Z", "hours": hours, "flop": flop}


def test_totals_by_hour_are_added_up_and_level_where_nothing_is_recorded():
    begun = 1_795_132_800
    found = points_of([slot(0, 1, 10), slot(1, 1, 10), slot(5, 1, 10), slot(9, 3, 30)], begun + 36_000 - 60)
    assert [(p.unix_s - begun, p.lower, p.point, p.upper) for p in found] == [
        (0, 0, 0, 0),
        (3600, 9, 10, 11),
        (7200, 18, 20, 22),
        (5 * 3600, 18, 20, 22),
        (6 * 3600, 27, 30, 33),
        (7 * 3600, 27, 30, 33),
        (36_000 - 60, 56, 60, 64),  # the bridge; its hour is not over
    ]
    both = points_of(
        [slot(1, 1, 10), slot(1, 2, 20)], begun + 36_000
    )  # a bridge that ends where an hour does
    assert [(p.unix_s - begun, p.point) for p in both] == [(3600, 0), (7200, 30)]
    assert points_of([], begun) == ()


def test_lines_at_one_number_are_one_line():
    rows = [
        {"threshold_flop": "100", "in_force": True, "regime": "a"},
        {"threshold_flop": "100", "in_force": False, "regime": "b"},
        {"threshold_flop": "10", "in_force": False, "regime": "c"},
        *({"threshold_flop": "1000", "in_force": True, "regime": f"r{i}"} for i in range(5)),
    ]
    assert [(line.flop, line.label, line.in_force) for line in lines_of(rows)] == [
        (10, "not in force: c", False),
        (100, "a; not in force: b", True),
        (1000, "r0, r1, r2 and 2 more", True),
    ]
