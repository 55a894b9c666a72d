"""The forecast held against what happened: real time courses from ../shared/data, asked at parts of their length.

No clock is measured here: how wrong the point was, how often the interval held, and how early a line was known.

    python tests/bench/bench_forecast.py        the tables of docs/forecast.md
"""

import sys
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from forecast_courses import DATA, Course, Stretched, courses
from harness import CannotRun, Figure, median

from flopmeter.collector.forecast.project import HOUR_NS, Crossing, crossing, projected, rates
from flopmeter.collector.law.lines import Target

LENGTHS_DAYS = (14, 30, 60)
ASKED_PERCENT = (10, 25, 50, 75)
CONFIDENCES = (80, 90, 95)
#: Lines at these parts of what a course came to: one that was met, and one that was not.
MET_PERCENT, NOT_MET_PERCENT = 80, 125


def asked(course: Course, days: int, percent: int, confidence: int) -> tuple[float, bool, bool, float]:
    """(error of the point, interval held, lower edge held, width), all of the total at the end, as parts of it."""
    s = Stretched(course, days * 24)
    hour = s.hours * percent // 100
    h = s.history(hour)
    rate = rates(h, confidence)
    assert rate is not None
    then = projected(h.total, rate, (s.hours - hour) * HOUR_NS)
    whole = s.whole
    return (
        (then.point - whole) / whole,
        then.lower <= whole <= then.upper,
        then.lower <= whole,
        (then.upper - then.lower) / whole,
    )


def known(course: Course, days: int, part_percent: int) -> tuple[int | None, int, Crossing | None]:
    """(hour in which it became known that the line would be met, hour in which it was, what was foreseen then)."""
    s = Stretched(course, days * 24)
    goal = s.whole * part_percent // 100
    for hour in range(4, s.hours + 1):
        h = s.history(hour)
        rate = rates(h, 90)
        if rate is None:
            continue
        if h.total.lower >= goal:
            break
        if projected(h.total, rate, (s.hours - hour) * HOUR_NS).lower >= goal:
            at = crossing(h.total, rate, Target(goal, goal, goal), hour * HOUR_NS)
            return hour, s.when(goal), at
    return None, s.when(goal), None


def tables() -> dict:
    if not DATA.is_dir():
        raise CannotRun("../shared/data is not beside this checkout")
    every = list(courses())
    kinds = defaultdict(int)
    for c in every:
        kinds[c.kind] += 1
    by_part = {}
    for percent in ASKED_PERCENT:
        got = [asked(c, days, percent, 90) for c in every for days in LENGTHS_DAYS]
        by_part[percent] = {
            "median_error": median([abs(e) for e, *_ in got]),
            "worst_tenth": sorted(abs(e) for e, *_ in got)[len(got) * 9 // 10],
            "inside": sum(inside for _, inside, _, _ in got) / len(got),
            "lower_held": sum(lower for _, _, lower, _ in got) / len(got),
            "width": median([width for *_, width in got]),
        }
    coverage = {}
    for confidence in CONFIDENCES:
        got = [asked(c, d, p, confidence) for c in every for d in LENGTHS_DAYS for p in ASKED_PERCENT]
        coverage[confidence] = (
            sum(inside for _, inside, _, _ in got) / len(got),
            sum(lower for _, _, lower, _ in got) / len(got),
        )
    early = {}
    for days in LENGTHS_DAYS:
        met = [known(c, days, MET_PERCENT) for c in every]
        false = [known(c, days, NOT_MET_PERCENT) for c in every]
        heard = [(hour, when, at) for hour, when, at in met if hour is not None]
        early[days] = {
            "known_before": len(heard),
            "of": len(every),
            "lead_days": median([(when - hour) / 24 for hour, when, _ in heard]),
            "lead_part": median([(when - hour) / when for hour, when, _ in heard]),
            "date_error_days": median(
                [abs(at.point / HOUR_NS - when) / 24 for _, when, at in heard if at and at.point is not None]
            ),
            "within": sum(
                at.earliest <= when * HOUR_NS and (at.latest is None or when * HOUR_NS <= at.latest + HOUR_NS)
                for _, when, at in heard
                if at is not None and at.earliest is not None
            ),
            "false": sum(hour is not None for hour, *_ in false),
        }
    return {"kinds": dict(kinds), "by_part": by_part, "coverage": coverage, "early": early}


def run(folder: Path) -> list[Figure]:
    found = tables()
    return [
        Figure("forecast", "courses", ", ".join(f"{n} {kind}" for kind, n in found["kinds"].items())),
        *(
            Figure(
                "forecast", f"asked at {percent} %", f"point off by {f['median_error']:.1%} (median)",
                f"one in ten by over {f['worst_tenth']:.0%}",
                f"interval held {f['inside']:.0%}, lower edge {f['lower_held']:.0%}", detail=f,
            )
            for percent, f in found["by_part"].items()
        ),
        *(
            Figure("forecast", f"stated {c} %", f"interval held {inside:.0%}", f"lower edge {lower:.0%}")
            for c, (inside, lower) in found["coverage"].items()
        ),
        *(
            Figure(
                "forecast", f"{days} days, line at {MET_PERCENT} %",
                f"known in {f['known_before']} of {f['of']}, {f['lead_days']:.1f} days before (median, {f['lead_part']:.0%})",
                f"date off by {f['date_error_days']:.1f} days, within the interval {f['within']} times",
                f"line at {NOT_MET_PERCENT} %: said {f['false']} times, wrongly", detail=f,
            )
            for days, f in found["early"].items()
        ),
    ]  # fmt: skip


if __name__ == "__main__":
    from harness import table

    print(table(run(Path())))
