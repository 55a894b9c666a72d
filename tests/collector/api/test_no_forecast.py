"""Where there is no forecast it is said why."""

import pytest
from api_books import api_store, asked

from flopmeter.collector.api.run_lines import no_forecast
from flopmeter.collector.spelling import time_text

HOUR_NS = 3_600_000_000_000
NOW = 1_795_000_000_000_000_000
LINES = [{"regime": "a", "threshold_flop": str(64 * 10**6)}, {"regime": "b", "threshold_flop": str(10**9)}]


def line(upper=10**6, *, status="running", hours=100):
    figure = {"lower": "0", "point": "0", "upper": str(upper)}
    return {
        "status": status,
        "countable": {"a": figure, "b": figure},
        "first_seen": time_text(NOW - hours * HOUR_NS),
    }


@pytest.mark.parametrize(
    ("found", "lines", "why"),
    [
        (line(), [], "no-line"),
        (line(status="stopped"), LINES, "not-running"),
        (line(status="silent"), LINES, "not-running"),
        (line(10**6 - 1), LINES, "far"),
        (line(10**6), LINES, "not-yet"),
        (line(10**6, hours=3), LINES, "too-young"),
        (line(10**6 - 1, hours=3), LINES, "far"),
    ],
)
def test_why(found, lines, why):
    assert no_forecast(found, lines, NOW) == why


def test_every_line_has_a_forecast_or_says_why_not(tmp_path):
    path = tmp_path / "books.sqlite"
    api_store(path)
    books = asked(path)
    seen = set()
    for item in books.get("runs")["items"]:
        assert (item["forecast"] is None) == (item["no_forecast"] is not None)
        seen.add(item["no_forecast"])
    books.clock.now += 2 * HOUR_NS
    seen |= {item["no_forecast"] for item in books.get("runs")["items"]}
    assert seen >= {"not-running", None}
