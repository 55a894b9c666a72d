"""What people see: `forecast show`, and the line in `runs show`."""

import json
import re

import pytest
from click.testing import CliRunner
from forecast_lab import BEGIN_NS, DAY_NS, HOUR_NS, HourLab, regime

from flopmeter.cli.layout import Paint
from flopmeter.cli.main import flopmeter
from flopmeter.collector.forecast.live import forecast_now, last_kept, outlook_of, shown
from flopmeter.collector.forecast.settings import Outlook
from flopmeter.collector.forecast.view import brief_view, dates, forecast_view
from flopmeter.collector.registry.entries import Declare
from flopmeter.collector.report.queries import reading

HOUR_FLOP = 80241131520000000
LINES = [regime(HOUR_FLOP * n, id=name) for name, n in (("near", 192), ("far", 400), ("later", 100_000))]


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """Five days of a run with a stop of ten hours, a plan that is too small, and lines near and far."""
    made = HourLab(tmp_path_factory.mktemp("show") / "b.db", LINES, outlook=Outlook(95, 20))
    made.say(Declare("r", budget_flop=HOUR_FLOP * 150, expected_end_unix_ns=BEGIN_NS + 30 * DAY_NS))
    made.say(Declare("p", budget_flop=HOUR_FLOP * 500))
    made.hours(20)
    made.quiet(10)
    made.hours(80)
    made.desk.close()
    return made


def document(lab, run="r", outlook=None, hours=0):
    with reading(lab.path) as reader:
        made = forecast_now(
            reader, run, lab.regimes, outlook or outlook_of(reader), lab.desk.now + hours * HOUR_NS
        )
        return None if made is None else shown(reader, made, lab.regimes)


def test_the_page_fits_and_says_all_that_matters(lab):
    text = forecast_view(document(lab), Paint(colour=False, width=80))
    assert max(map(len, text.splitlines())) <= 80
    assert "if it goes on as in the last 72 h" in text
    assert re.search(r"near +> 1\.54e19 +will be met +2026-09-\d\d", text)
    assert re.search(r"later +> 8\.02e21 +not in sight", text)
    assert "95 % interval" in text
    assert "declared end" in text
    assert "not a measure of risk" in " ".join(text.split())
    assert "near: threshold.forecast by forecast on 2026-09-" in text
    assert "budget: plan.exceeds by forecast" in text
    plotted = [line for line in text.splitlines() if "░" in line]
    assert len(plotted) > 6
    assert any("●" in line for line in plotted)
    assert "█" in text
    assert "─" in text


def test_what_is_shown_is_what_the_collector_keeps(lab):
    """Asked at the moment of the last one kept, of the lines in sight: the same inputs, the same results."""
    with reading(lab.path) as reader:
        (data, unix_ns) = reader.rows(
            "SELECT data, unix_ns FROM forecasts ORDER BY forecast_no DESC"
        ).fetchone()
        kept = json.loads(data)
        made = forecast_now(reader, "r", lab.regimes, outlook_of(reader), unix_ns)
    assert (kept["confidence_percent"], kept["horizon_days"]) == (95, 20)
    if kept["blocks_end_hour"] == made["blocks_end_hour"]:
        assert [s["blocks"] for s in kept["series"]] == [s["blocks"] for s in made["series"]][
            : len(kept["series"])
        ]
    assert {x["regime"] for x in kept["lines"]} <= {x["regime"] for x in made["lines"]}


def test_a_run_that_has_not_begun_is_shown_by_its_plan(lab):
    d = document(lab, "p")
    assert {x["regime"]: x["by_plan"] for x in d["lines"] if x["regime"]} == {
        "near": True,
        "far": True,
        "later": False,
    }
    text = forecast_view(d, Paint(colour=False, width=80))
    assert "too young" in text
    assert "will be met by plan" in text
    assert "threshold.forecast by plan" in text


def test_what_is_no_longer_said_is_said(lab):
    text = " ".join(forecast_view(document(lab, hours=24 * 20), Paint(colour=False, width=80)).split())
    assert "at rest: nothing done in the last 72 h" in text
    assert "this forecast no longer says so, and the event stands until a person resolves it" in text


def test_nobody_knows_the_run(lab):
    assert document(lab, "nobody") is None


def test_dates_in_words():
    def at(earliest, point, latest):
        return dates({"earliest": earliest, "point": point, "latest": latest})

    a, b, c = (f"{day}T10:00:00.000Z" for day in ("2026-12-02", "2026-12-04", "2027-01-09"))
    assert at(a, b, c) == "2026-12-04 (12-02 to 2027-01-09)"
    assert at(a, b, None) == "2026-12-04 (from 12-02 on)"
    assert at(a, None, None) == "not at this rate; 2026-12-02 at the earliest"
    assert at(None, None, None) == "never at this rate"
    assert dates(None) == ""


def test_the_line_in_runs_show(lab):
    with reading(lab.path) as reader:
        found = last_kept(reader, "r")
        assert last_kept(reader, "p") is None
    assert [x["regime"] for x in found["lines"]][:2] == ["near", None] or found["lines"][0]["regime"] is None
    lines = brief_view(found, Paint(colour=False, width=80))
    assert max(map(len, lines)) <= 80
    assert "if it goes on as in the last 72 h (95 %," in lines[0]
    assert any("near > 1.54e19 will be met: 2026-09-" in line for line in lines)
    assert brief_view(None, Paint(colour=False, width=80)) == []


@pytest.mark.parametrize("name", ["forecast", "runs"])
def test_commands_print_it(lab, name):
    args = [name, "show", "r", "--store", str(lab.path)]
    done = CliRunner().invoke(flopmeter, args)
    assert done.exit_code == 0, done.output
    as_json = CliRunner().invoke(flopmeter, [*args, "--json"])
    found = json.loads(as_json.output)
    if name == "runs":
        assert found["forecast"]["method"] == "flopmeter-forecast/1"
        assert "forecast" in done.output
    else:
        assert found["run"] == "r"
        assert found["kept"]
        assert all(isinstance(s["total"]["point"], str) for s in found["series"])


def test_settings_that_are_none(lab):
    for args in (["--confidence", "91"], ["--days", "0"]):
        done = CliRunner().invoke(flopmeter, ["forecast", "show", "r", "--store", str(lab.path), *args])
        assert done.exit_code == 2
        assert "expected a" in done.output


def test_as_of_hides_what_was_made_later(lab):
    done = CliRunner().invoke(
        flopmeter,
        ["forecast", "show", "r", "--store", str(lab.path), "--as-of", "2026-09-23T00:00Z", "--json"],
    )
    found = json.loads(done.stdout)
    assert found["kept"]
    assert all(k["time"] < "2026-09-23" for k in found["kept"])
    assert found["time"].startswith("2026-09-23T00:00")
