"""Kept forecasts, and events of forecasts, plans and early lines: whatever is changed in them, fsck names it."""

import json
import re
import shutil
import sqlite3
from contextlib import closing, contextmanager
from fractions import Fraction

import pytest
from duty_books import regime as text_of_a_law
from forecast_lab import BEGIN_NS, DAY_NS, HOUR_NS, HourLab, job, regime
from relog import relog

from flopmeter.collector.check.fsck import check_store
from flopmeter.collector.forecast.document import again
from flopmeter.collector.forecast.keep import to_text
from flopmeter.collector.law.events import PLAN_EXCEEDS, THRESHOLD_APPROACHING, THRESHOLD_FORECAST
from flopmeter.collector.registry.entries import Declare

HOUR_FLOP = 80241131520000000  # lower bound; test_watch.py measures it
LINE = regime(HOUR_FLOP * 48, early=(Fraction(1, 2), Fraction(10, 13)))


@pytest.fixture(scope="module")
def books(tmp_path_factory):
    """A run with a plan that it exceeds, a line that it will meet by plan and by forecast, and comes near to."""
    path = tmp_path_factory.mktemp("books") / "b.db"
    lab = HourLab(path, [LINE])
    lab.say(Declare("p", budget_flop=HOUR_FLOP * 100))
    lab.say(Declare("r", budget_flop=HOUR_FLOP * 20, expected_end_unix_ns=BEGIN_NS + 40 * DAY_NS))
    lab.commit()
    lab.hours(40)
    lab.good()
    assert {THRESHOLD_FORECAST, PLAN_EXCEEDS, THRESHOLD_APPROACHING} <= {e.type for e in lab.events}
    assert len(lab.every()) > 3
    lab.desk.close()
    return path


@pytest.fixture
def copy(books, tmp_path):
    path = tmp_path / "copy.db"
    shutil.copy(books, path)
    return path


@contextmanager
def writing(path):
    """As somebody would who knows the schema: triggers off, and on again."""
    with closing(sqlite3.connect(path)) as db, db:
        triggers = db.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for name, _ in triggers:
            db.execute(f"DROP TRIGGER {name}")
        yield db
        for _, sql in triggers:
            db.execute(sql)


def found(path):
    difference = check_store(path, [LINE]).difference
    assert difference is not None
    return difference.table, difference.column


def change(path, sql, *values):
    with writing(path) as db:
        assert db.execute(sql, values).rowcount > 0


def forecast(path, number, edit):
    """Rewrite a kept forecast as `edit` leaves it, all that follows from its inputs derived anew."""
    with closing(sqlite3.connect(path)) as db:
        (data,) = db.execute("SELECT data FROM forecasts WHERE forecast_no = ?", (number,)).fetchone()
    document = json.loads(data)
    edit(document)
    change(path, "UPDATE forecasts SET data = ? WHERE forecast_no = ?", to_text(again(document)), number)


def last_without_event(path):
    """The number of the last forecast, on which no event rests."""
    with closing(sqlite3.connect(path)) as db:
        (number,) = db.execute("SELECT max(forecast_no) FROM forecasts").fetchone()
        assert not db.execute(
            "SELECT 1 FROM events WHERE data LIKE ?", (f'%"forecast":"{number}"%',)
        ).fetchall()
    return number


def test_as_it_is_nothing_is_found(copy):
    assert check_store(copy, [LINE]).difference is None


def test_a_result_that_does_not_follow(copy):
    change(
        copy,
        'UPDATE forecasts SET data = replace(data, \'"answer":"will-be-met"\', \'"answer":"not-in-sight"\') '
        "WHERE data LIKE '%will-be-met%'",
    )
    assert found(copy) == ("forecasts", "data")


def _one_more(document):
    block = document["series"][0]["blocks"][-1]
    block["point"] = str(int(block["point"]) + 1)


def _younger(document):
    document["since"] = str(int(document["since"]) + 1)


def _surer(document):
    document["confidence_percent"] = 99


def _further(document):
    document["horizon_days"] = 31


def _planless(document):
    document["plan"]["budget_flop"] = "1"


def _lineless(document):
    document["lines"] = [x for x in document["lines"] if x["regime"] is None]


def _target(document):
    document["lines"][0]["target"]["upper"] = "1"


def _total(document):
    document["series"][0]["total"]["upper"] += "0"


def _until(document):
    document["until"] = str(int(document["until"]) + 10**9)


SHORT = re.compile(r"\d\.\d\de\d+")


def reword(path, digits):
    """Each event of a plan as a flopmeter worded it that said every digit: what `digits` makes of it. How many there were."""
    with writing(path) as db:
        rows = [(n, json.loads(data)) for n, data in db.execute("SELECT event_no, data FROM events")]
        rows = [(n, d) for n, d in rows if SHORT.search(d["message"])]
        for number, d in rows:
            lower = {"plan": "planned", "forecast": "projected", "measured": "executed"}[d["basis"]]
            exact = iter((d.get("budget_flop") or d["counted_of_budget"], d[lower]["lower"]))
            d["message"] = SHORT.sub(lambda _, exact=exact: digits(next(exact)), d["message"])
            text = json.dumps(d, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
            db.execute("UPDATE events SET data = ? WHERE event_no = ?", (text, number))
    relog(path)
    return len(rows)


def test_sentences_say_figures_in_three_digits_and_no_bound_too_high(copy):
    with closing(sqlite3.connect(copy)) as db:
        events = [json.loads(data) for (data,) in db.execute("SELECT data FROM events")]
    said = [d for d in events if d.get("basis") in {"plan", "measured"}]
    assert {d["basis"] for d in said} == {"plan", "measured"}
    for d in said:
        lower = d["planned" if d["basis"] == "plan" else "executed"]["lower"]
        budget, shown = (Fraction(text) for text in SHORT.findall(d["message"]))
        assert shown <= int(lower) < shown * Fraction(101, 100)
        assert budget <= shown
        assert lower not in d["message"]


def test_a_store_whose_last_sentences_an_older_flopmeter_wrote_is_good(copy):
    assert reword(copy, str) > 2
    assert check_store(copy, [LINE]).difference is None


def test_no_other_digits_are_taken_for_an_older_sentence(copy):
    reword(copy, lambda exact: str(int(exact) + 1))
    assert found(copy) == ("events", "data")


@pytest.mark.parametrize(
    ("edit", "column"),
    [
        (_one_more, "data.series[0].blocks"),
        (_younger, "data.since"),
        (_surer, "data.confidence_percent, horizon_days"),
        (_further, "data.confidence_percent, horizon_days"),
        (_planless, "data.plan"),
        (_lineless, "data.lines"),
        (_target, "data.lines[0].answer"),
        (_total, "data.lines"),
        (_until, "data.lines[0]"),
    ],
)
def test_inputs_that_are_not_the_books(copy, edit, column):
    forecast(copy, last_without_event(copy), edit)
    table, where = found(copy)
    assert table == "forecasts"
    assert where.startswith("data"), where
    assert where.startswith(column) or edit in (_target, _total, _until, _one_more, _younger), where


def test_entries_that_had_not_been_said(copy):
    def early(document):
        document["entries"] = 1

    forecast(copy, last_without_event(copy), early)
    assert found(copy) == ("forecasts", "data.entries")


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("DELETE FROM forecasts WHERE forecast_no = 2", ("forecasts", "forecast_no")),
        ("UPDATE forecasts SET position = 2 WHERE forecast_no = 3", ("forecasts", "position")),
        ("UPDATE forecasts SET position = 10000 WHERE forecast_no = (SELECT max(forecast_no) FROM forecasts)", ("forecasts", "position")),
        ("UPDATE forecasts SET position = position + 1 WHERE forecast_no = (SELECT max(forecast_no) FROM forecasts)", ("forecasts", None)),
        ("UPDATE forecasts SET run = 'q' WHERE forecast_no = 2", ("forecasts", "data.run")),
        ("UPDATE forecasts SET unix_ns = unix_ns + 1 WHERE forecast_no = 2", ("forecasts", "data.unix_ns")),
        ("UPDATE forecasts SET data = 'null' WHERE forecast_no = 2", ("forecasts", "data")),
        ("UPDATE forecasts SET data = '{}' WHERE forecast_no = 2", ("forecasts", "data")),
        ("UPDATE noted SET value = 99 WHERE name = 'forecast-confidence-percent'", ("forecasts", "data.confidence_percent, horizon_days")),
    ],
)  # fmt: skip
def test_rows_that_were_changed(copy, sql, expected):
    change(copy, sql)
    table, column = found(copy)
    assert table == expected[0]
    assert expected[1] is None or column == expected[1]


@pytest.mark.parametrize("kind", [THRESHOLD_FORECAST, PLAN_EXCEEDS, THRESHOLD_APPROACHING])
@pytest.mark.parametrize("basis", ["plan", "forecast", "measured", None])
def test_events_that_were_changed(copy, kind, basis):
    like = "%" if basis is None else f'%"basis":"{basis}"%'
    with writing(copy) as db:
        rows = db.execute(
            "SELECT event_no, data FROM events WHERE type = ? AND data LIKE ?", (kind, like)
        ).fetchall()
        for number, data in rows:
            db.execute(
                "UPDATE events SET data = ? WHERE event_no = ?",
                (data.replace(" FLOP", " TFLOP").replace("Run ", "Ran "), number),
            )
    if rows:
        assert found(copy) == ("events", "data")
    else:
        assert (kind, basis) not in {
            (THRESHOLD_FORECAST, "plan"),
            (THRESHOLD_FORECAST, "forecast"),
            (PLAN_EXCEEDS, "forecast"),
            (PLAN_EXCEEDS, "measured"),
            (THRESHOLD_APPROACHING, None),
        }


@pytest.mark.parametrize(
    "like", ["forecast:line:p:plan%", "forecast:line:r:forecast%", "plan:%measured", "approaching:%"]
)
def test_events_that_are_missing(copy, like):
    """The numbers behind it are closed up, so that only what it was raised by can tell."""
    with writing(copy) as db:
        numbers = [n for (n,) in db.execute("SELECT event_no FROM events WHERE key LIKE ?", (like,))]
        assert numbers
        for gone in sorted(numbers, reverse=True):
            db.execute("DELETE FROM events WHERE event_no = ?", (gone,))
            db.execute("DELETE FROM deadlines WHERE event_no = ?", (gone,)) if _has(
                db, "deadlines", "event_no"
            ) else None
            db.execute("UPDATE events SET event_no = event_no - 1 WHERE event_no > ?", (gone,))
    difference = check_store(copy, [LINE]).difference
    assert difference is not None
    assert (difference.column, difference.got) == ("row", "none"), difference
    assert like.split("%", maxsplit=1)[0] in difference.key


def _has(db, table, column):
    return column in [row[1] for row in db.execute(f"PRAGMA table_info({table})")]


@pytest.mark.parametrize(
    ("like", "sql"),
    [
        ("forecast:line:p:plan%", "time_unix_ns = time_unix_ns + 1"),
        ("forecast:line:p:plan%", "position = 100, since_position = 100"),
        ("forecast:line:r:forecast%", "position = 1, since_position = 1"),
        ("forecast:line:r:forecast%", "time_unix_ns = time_unix_ns - 1"),
        ("plan:%forecast", "since_position = 1"),
        ("approaching:line:r:1/2%", "position = 1, since_position = 1"),
        ("approaching:line:r:1/2%", "position = position + 3, since_position = since_position + 3"),
    ],
)
def test_events_of_another_time(copy, like, sql):
    change(copy, f"UPDATE events SET {sql} WHERE key LIKE ?", like)
    assert found(copy)[0] == "events"


def test_a_plan_that_was_heard_of_before_the_law_in_a_quiet_hour(tmp_path):
    """Both commits are without a record, and note one position."""
    lab = HourLab(tmp_path / "b.db", [regime(HOUR_FLOP * 1000, id="far")])
    lab.hours(2)
    lab.say(Declare("p", budget_flop=HOUR_FLOP * 100))
    lab.quiet(1)
    lab.reopen([regime(HOUR_FLOP * 1000, id="far"), LINE])
    lab.quiet(1)
    assert [e.subject for e in lab.events if e.type == THRESHOLD_FORECAST] == ["p"]
    lab.good()
    lab.desk.close()


def test_a_plan_that_an_older_flopmeter_heard_of(tmp_path):
    """It held no plan against a line, and noted no settings: the event is of the first commit that did."""
    path = tmp_path / "b.db"
    lab = HourLab(path, [LINE])
    lab.say(Declare("p", budget_flop=HOUR_FLOP * 100))
    lab.quiet(1)
    lab.desk.close()
    with writing(path) as db:
        db.execute("DELETE FROM noted WHERE name LIKE 'forecast-%' OR name = 'bridge-seconds'")
        db.execute("DELETE FROM events WHERE key LIKE 'forecast:%'")
        db.execute("DELETE FROM deadlines")
    relog(path)
    lab.good()
    upgraded = HourLab(path, [LINE])
    upgraded.desk.now = lab.desk.now
    assert [e.subject for e in upgraded.quiet(1) if e.type == THRESHOLD_FORECAST] == ["p"]
    upgraded.good()
    upgraded.desk.close()


def laws(*hours):
    """Texts of one regime, with a line at so many hours of work."""
    return [text_of_a_law(flop=HOUR_FLOP * n) for n in hours]


def test_law_files_that_change_twice_in_a_quiet_hour(tmp_path):
    """No record says by which of them the forecast in between was made; it does itself."""
    first, second, third = laws(48, 5, 100)
    lab = HourLab(tmp_path / "b.db", [first])
    lab.hours(6)
    for law in (second, third):
        lab.reopen([law])
        lab.quiet(1)
    kept = {(r.position, line["digest"][:64]) for r in lab.every() for line in json.loads(r.data)["lines"]}
    assert kept == {(4, first.digest), (6, second.digest), (6, third.digest)}
    lab.good()
    lab.desk.close()


def test_a_plan_is_not_late_by_a_text_that_was_away_when_it_was_heard_of(tmp_path):
    near, far = laws(48, 1000)
    lab = HourLab(tmp_path / "b.db", [near])
    lab.hours(2)
    lab.reopen([far])
    lab.hours(1)
    lab.say(Declare("p", budget_flop=HOUR_FLOP * 100))
    lab.hours(2)
    lab.reopen([near])
    assert [e.subject for e in lab.quiet(1) if e.type == THRESHOLD_FORECAST] == ["p"]
    lab.good()
    lab.desk.close()


def test_a_plan_that_came_to_a_run_with_a_name_is_not_late(tmp_path):
    """It was heard of as the plan of a job, which a label made another run's work."""
    lab = HourLab(tmp_path / "b.db", [LINE])
    lab.hours(1, workload=job("1"))
    lab.say(Declare("slurm:c1/1", budget_flop=HOUR_FLOP * 100))
    assert [e.subject for e in lab.commit() if e.type == THRESHOLD_FORECAST] == ["slurm:c1/1"]
    assert [e.subject for e in lab.hours(1) if e.type == THRESHOLD_FORECAST] == ["r"]
    lab.good()
    lab.desk.close()


def test_a_clock_that_stepped_back_between_a_plan_and_a_law(tmp_path):
    near, far = laws(48, 1000)
    lab = HourLab(tmp_path / "b.db", [far])
    lab.hours(2)
    lab.say(Declare("p", budget_flop=HOUR_FLOP * 100))
    lab.quiet(1)
    lab.reopen([near])
    lab.desk.now -= 2 * HOUR_NS
    assert [e.subject for e in lab.commit() if e.type == THRESHOLD_FORECAST] == ["p"]
    lab.good()
    lab.desk.close()
