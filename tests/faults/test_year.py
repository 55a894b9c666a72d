"""A year of a simulated lab gives exactly the events and due dates below, whenever the collector is killed.

Both tables were worked out by hand from the rules, with the figures of tests/year.py: a day of both GPUs is 8 u; a total
of p u has the bounds 0.97 p and 1.03 p; the commit of a day knows of all days before it. `r` counts the days that base
has run, so that p = 8 r; its commit is 5 July + r up to r = 30 (4 August), and 15 August + (r - 31) after the stall.

- Early line (10/13 of the line, regulations.md 13.10): told by the point, and by the upper bound where that is there
  first: 60 u: 46.15; 600 u: 461.54; 1,000 u: 769.23.
- Undetermined: the upper bound is past the line, the lower is not; once on each side of the point. Crossed: the lower is
  past it. The EU's and the states' lines are met by more than them, Korea's by as much.
- Known by plan (13.9): the declared 900 u are above 60 and 600, below 1,000.
- Known by forecast (forecast/project.py): the total's lower bound, plus the rate's lower edge over the time to the
  declared end, meets the line; over 30 days where no end is declared, or it is past; and over no more than three times
  as long as the run has lasted. A window of six hours counts as if
  it had gone on evenly, so that after any whole day the recent past is twelve equal blocks of x. The edge is the mean
  of those and one of nothing, 12 x / 13, less t s sqrt(2/13), with t = 1.782 (90 %, 12 blocks) and s = x / sqrt(13):
  (0.92308 - 0.19386) x = 0.72922 x. At 7.76 u a day for certain that is 5.6587 u a day: 169.8 u in 30 days. Of a run
  that began d days ago and never paused, 7.76 d + 3 x 5.6587 d = 24.74 d (and 0.1 for the ten minutes).
- A clock runs from the event that made it known, or from the beginning of the work that crossed a line, where that
  came more than two hours late (regulations.md 4: "within two weeks after that requirement is met"). Base, tuned and
  California were known by plan or forecast before.
- Near (seven days, two days, one day before it is due, in proportion where the whole is less than 14 days) and overdue,
  unless it was resolved before. What is past due is told by the next commit.
"""

import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from books_dump import dump
from year import Agent, Lab, agents, play

from flopmeter.collector.check.fsck import check_store
from flopmeter.collector.law.judge import JUDGED

APPROACHING, UNDETERMINED, CROSSED = "threshold.approaching", "threshold.undetermined", "threshold.crossed"
FORECAST, EXCEEDS = "threshold.forecast", "plan.exceeds"
NEAR, OVERDUE, SILENT = "deadline.near", "deadline.overdue", "agent.silent"
GPAI, EU, MODIFIER, KOREA = "eu-gpai", "eu-systemic-risk", "eu-modifier", "korea"
CA, CT, NY, IL = "us-ca-sb53", "us-ct-sb5", "us-ny-raise", "us-il-aisma"

#: Commit of that day (00:10 UTC), type, subject, regime (or plan, or agent), and by what.
EVENTS = [
    # The plan, said on 1 July at noon: 900 u > 600 u > 60 u. The EU's two weeks begin here.
    ("2026-07-02", FORECAST, "base", GPAI, "plan"),
    ("2026-07-02", FORECAST, "base", EU, "plan"),
    ("2026-07-08", FORECAST, "base", GPAI, "forecast"),  # 24.74 x 3 = 74.2; after two days 49.5
    (
        "2026-07-30",
        FORECAST,
        "base",
        EU,
        "forecast",
    ),  # 24.74 x 25 = 618; 24: 594. 75 days ahead, of 105 to its end
    # Due on 16 July; acknowledged on the 5th, which silences nothing; resolved on the 14th at noon: no third, no overdue.
    ("2026-07-09", NEAR, "base", EU, "7 d"),
    ("2026-07-14", NEAR, "base", EU, "2 d"),
    ("2026-07-11", APPROACHING, "base", GPAI, "point"),  # r = 6: 48 > 46.15
    ("2026-07-13", CROSSED, "base", GPAI, ""),  # r = 8: 64, of which 62.08 for certain; r = 7: 57.68 at most
    # 4 to 13 August: a stall. Nothing is raised by it.
    ("2026-09-10", APPROACHING, "base", EU, "upper"),  # r = 57: 456 x 1.03 = 469.7; r = 56: 461.44
    ("2026-09-11", APPROACHING, "base", EU, "point"),  # r = 58: 464
    ("2026-09-26", UNDETERMINED, "base", EU, "below"),  # r = 73: 584 x 1.03 = 601.5
    (
        "2026-09-29",
        UNDETERMINED,
        "base",
        EU,
        "crossed",
    ),  # r = 76: 608; r = 75 is 600 exactly, which is not more
    (
        "2026-10-01",
        CROSSED,
        "base",
        EU,
        "",
    ),  # r = 78: 624 x 0.97 = 605.3; r = 77: 597.5. Its clock runs since July.
    # The second agent ships last on the 5th; 18 hours (three windows) later it is silent. It comes back with all of it.
    ("2026-10-06", SILENT, "agent b", "", ""),
    # r = 94: 752 x 1.03 = 774.6. Connecticut's law binds since 1 October; New York's and Illinois' do not yet.
    ("2026-10-17", APPROACHING, "base", KOREA, "upper"),
    ("2026-10-17", APPROACHING, "base", CA, "upper"),
    ("2026-10-17", APPROACHING, "base", CT, "upper"),
    ("2026-10-20", APPROACHING, "base", KOREA, "point"),  # r = 97: 776
    ("2026-10-20", APPROACHING, "base", CA, "point"),
    ("2026-10-20", APPROACHING, "base", CT, "point"),
    # Of the declared 900: 7.76 r + 5.6587 x (120 - r) = 901.7 at r = 106, 899.6 at 105. 7.76 x 116 = 900.2.
    ("2026-10-29", EXCEEDS, "base", "plan", "forecast"),
    ("2026-11-08", EXCEEDS, "base", "plan", "measured"),
    # r = 120: 931.2 at the declared end, which is past; in 30 days 1,101. California's calendar begins here.
    ("2026-11-12", FORECAST, "base", KOREA, "forecast"),
    ("2026-11-12", FORECAST, "base", CA, "forecast"),
    ("2026-11-12", FORECAST, "base", CT, "forecast"),
    # Data for the next model, two days of it: 49.5 at most is known, and from the 15th on, when it is said to be data,
    # none of it is in the narrow definition. It raises nothing.
    # chat stands on base (960) and on its data (16, which the narrow definition leaves out): k days of it, 976 + 8 k.
    # k = 1: 984: past 60 and 600 at once; x 1.03 = 1,013.5, past 1,000 at most; past 769.23 by the point.
    ("2026-11-21", CROSSED, "chat", GPAI, ""),
    ("2026-11-21", CROSSED, "chat", EU, ""),
    ("2026-11-21", APPROACHING, "chat", KOREA, "point"),
    ("2026-11-21", APPROACHING, "chat", CA, "point"),
    ("2026-11-21", APPROACHING, "chat", CT, "point"),
    ("2026-11-21", UNDETERMINED, "chat", KOREA, "below"),
    ("2026-11-21", UNDETERMINED, "chat", CA, "below"),
    ("2026-11-21", UNDETERMINED, "chat", CT, "below"),
    # k = 3: 1,000 x 0.97 = 970, and 9 days x 5.6587 = 51 more. k = 2: 962.2 + 34.1.
    ("2026-11-23", FORECAST, "chat", KOREA, "forecast"),
    ("2026-11-23", FORECAST, "chat", CA, "forecast"),
    ("2026-11-23", FORECAST, "chat", CT, "forecast"),
    ("2026-11-23", UNDETERMINED, "chat", KOREA, "crossed"),  # k = 3: 1,000 exactly: as much, and not more
    ("2026-11-24", UNDETERMINED, "chat", CA, "crossed"),  # k = 4: 1,008
    ("2026-11-24", UNDETERMINED, "chat", CT, "crossed"),
    ("2026-11-27", CROSSED, "chat", KOREA, ""),  # k = 7: 1,032 x 0.97 = 1,001.04; k = 6: 993.3
    ("2026-11-27", CROSSED, "chat", CA, ""),
    ("2026-11-27", CROSSED, "chat", CT, ""),
    # What crossed was done on the 20th, from midnight on, and came more than two hours later: due since then, on 4
    # December at midnight; resolved on the 1st.
    ("2026-11-27", NEAR, "chat", EU, "7 d"),
    # tuned modifies a model of 27 u, a third of which is 9, and 10/13 of that 6.92. 8 u; 16 u, 15.52 for certain.
    ("2026-12-06", APPROACHING, "tuned", MODIFIER, "point"),
    ("2026-12-06", FORECAST, "tuned", MODIFIER, "forecast"),  # 24.7 > 9: its two weeks begin here
    ("2026-12-07", FORECAST, "tuned", GPAI, "forecast"),  # 27 + 49.5 > 60, with the model it stands on
    ("2026-12-07", CROSSED, "tuned", MODIFIER, ""),
    # Due on 20 December; acknowledged on the 15th, resolved on the 22nd, late.
    ("2026-12-13", NEAR, "tuned", MODIFIER, "7 d"),
    ("2026-12-18", NEAR, "tuned", MODIFIER, "2 d"),
    ("2026-12-19", NEAR, "tuned", MODIFIER, "1 d"),
    ("2026-12-20", OVERDUE, "tuned", MODIFIER, ""),
    # California's summary, due when 31 December ends there: 08:00 UTC on the next day. Resolved on the 28th.
    ("2026-12-26", NEAR, "regime/us-ca-sb53", CA, "7 d"),
    # New York's and Illinois' laws come into force, for runs that have long ended.
    ("2027-01-01", APPROACHING, "base", NY, "point"),
    ("2027-01-01", APPROACHING, "base", IL, "point"),
    ("2027-01-01", CROSSED, "chat", NY, ""),
    ("2027-01-01", CROSSED, "chat", IL, ""),
    # second: as base began, but with no more than 30 days ahead: 380.2 + 169.8 at its end is short of 600.
    ("2027-01-14", FORECAST, "second", GPAI, "forecast"),
    ("2027-01-17", APPROACHING, "second", GPAI, "point"),
    ("2027-01-19", CROSSED, "second", GPAI, ""),
    # The EU's line falls to 350 u, by its file: 392 x 0.97 = 380.2. Base and chat were past 600; that they are past this
    # other number too is another event. Their clocks, for the same duty, have run long since.
    ("2027-03-02", CROSSED, "base", EU, ""),
    ("2027-03-02", CROSSED, "chat", EU, ""),
    ("2027-03-02", CROSSED, "second", EU, ""),
    ("2027-03-09", NEAR, "second", EU, "7 d"),
    ("2027-03-14", NEAR, "second", EU, "2 d"),
    ("2027-03-15", NEAR, "second", EU, "1 d"),
    ("2027-03-16", OVERDUE, "second", EU, ""),
    # Illinois: 90 days from 1 January 00:10 are 1 April 00:10. Resolved on 26 March, as not applicable.
    ("2027-03-25", NEAR, "regime/us-il-aisma", IL, "7 d"),
    # The first quarter: 31 March ends at 04:00 UTC in New York, at 07:00 in California, where it is done on the 27th.
    ("2027-03-26", NEAR, "regime/us-ca-sb53", CA, "7 d"),
    ("2027-03-26", NEAR, "regime/us-ny-raise", NY, "7 d"),
    ("2027-03-31", NEAR, "regime/us-ny-raise", NY, "2 d"),
    ("2027-04-01", NEAR, "regime/us-ny-raise", NY, "1 d"),
    ("2027-04-02", OVERDUE, "regime/us-ny-raise", NY, ""),
    # An incident on 10 April at 11:00: 24 h (told 12 h ahead, at the soonest) and 72 h (36 h ahead). Both reported on
    # the 12th at noon: the first too late.
    ("2027-04-11", NEAR, "regime/us-ny-raise", NY, "12 h"),
    ("2027-04-12", OVERDUE, "regime/us-ny-raise", NY, ""),
    ("2027-04-12", NEAR, "regime/us-ny-raise", NY, "36 h"),
    # The second quarter: 30 June. The year ends before it is due.
    ("2027-06-25", NEAR, "regime/us-ca-sb53", CA, "7 d"),
    ("2027-06-25", NEAR, "regime/us-ny-raise", NY, "7 d"),
    ("2027-06-30", NEAR, "regime/us-ca-sb53", CA, "2 d"),
    ("2027-06-30", NEAR, "regime/us-ny-raise", NY, "2 d"),
    ("2027-07-01", NEAR, "regime/us-ca-sb53", CA, "1 d"),
    ("2027-07-01", NEAR, "regime/us-ny-raise", NY, "1 d"),
]

#: Rule, run, when its clock began, when it is due (UTC).
DEADLINES = [
    (
        f"{EU}/notify",
        "base",
        "2026-07-02T00:10",
        "2026-07-16T00:10",
    ),  # 14 days from when the plan made it known
    (
        f"{EU}/notify",
        "chat",
        "2026-11-20T00:00",
        "2026-12-04T00:00",
    ),  # met by the work of that day, heard of later
    (
        f"{CA}/risk-summary",
        "",
        "2026-11-12T00:10",
        "2027-01-01T08:00",
    ),  # from when it was known that it will be met
    (f"{MODIFIER}/notify", "tuned", "2026-12-06T00:10", "2026-12-20T00:10"),
    (f"{IL}/first-audit", "", "2027-01-01T00:10", "2027-04-01T00:10"),
    (f"{NY}/risk-summary", "", "2027-01-01T00:10", "2027-04-01T04:00"),  # 31 December was before the law
    (f"{CA}/risk-summary", "", "2027-01-01T08:00", "2027-04-01T07:00"),
    (f"{EU}/notify", "second", "2027-03-02T00:10", "2027-03-16T00:10"),
    (f"{NY}/incident", "", "2027-04-10T11:00", "2027-04-13T11:00"),
    (f"{NY}/imminent-incident", "", "2027-04-10T11:00", "2027-04-11T11:00"),
    (f"{NY}/risk-summary", "", "2027-04-01T04:00", "2027-07-01T04:00"),
    (f"{CA}/risk-summary", "", "2027-04-01T07:00", "2027-07-01T07:00"),
]


TEN = 600 * 10**9


def minute(unix_ns: int) -> str:
    assert unix_ns % (60 * 10**9) == 0
    return datetime.fromtimestamp(unix_ns // 10**9, UTC).strftime("%Y-%m-%dT%H:%M")


def row(kind: str, subject: str, data: dict) -> tuple[str, str, str, str]:
    """(type, subject, regime, by what) of an event, as the table has it."""
    if kind == SILENT:
        return kind, f"agent {data['node']}", "", ""
    if kind == EXCEEDS:
        return kind, subject, "plan", data["basis"]
    if kind == NEAR:
        hours = int(data["lead_seconds"]) // 3_600
        lead = f"{hours // 24} d" if hours % 24 == 0 else f"{hours} h"
        return kind, subject, data["regime"], lead
    by = {APPROACHING: "by", UNDETERMINED: "estimate", FORECAST: "basis"}.get(kind)
    return kind, subject, data["regime"], data[by] if by else ""


def events(path: Path) -> list[tuple[str, str, str, str, str]]:
    with closing(sqlite3.connect(path)) as db:
        rows = db.execute("SELECT time_unix_ns, type, subject, data FROM events").fetchall()
    # A collector that has just started gives agents five minutes before it calls one silent.
    found = [
        (minute(at - TEN if kind == SILENT and minute(at)[-2:] == "20" else at), kind, s, d)
        for at, kind, s, d in rows
    ]
    return [(at, *row(kind, subject, json.loads(data))) for at, kind, subject, data in found]


def deadlines(path: Path) -> list[tuple[str, str, str, str]]:
    with closing(sqlite3.connect(path)) as db:
        rows = db.execute(
            "SELECT regime, rule, subject, trigger_unix_ns, due_unix_ns FROM deadlines"
        ).fetchall()
    return [(f"{regime}/{rule}", run, minute(began), minute(due)) for regime, rule, run, began, due in rows]


def tables(path: Path) -> dict[str, set[tuple[object, ...]]]:
    """All that is in the store, but for when migrations ran, what is noted at each start of a collector, and when
    silence was told: a collector that has just started waits with that. Of the evidence log what is in it: each store
    has a salt of its own, so that no leaf is another store's.
    """
    every = "SELECT name FROM sqlite_master WHERE type = 'table' AND name != '_sqlite_migrations'"
    with closing(sqlite3.connect(path)) as db:
        found = {name: set(db.execute(f"SELECT * FROM {name}")) for (name,) in db.execute(every).fetchall()}
    found["noted"] = {r for r in found["noted"] if r[0] != JUDGED}
    del found["log_identity"]
    found["log"] = {
        (kind, number) for _, kind, first, count, _ in found["log"] for number in range(first, first + count)
    }
    found["events"] = {(*r[:5], 0, 0, 0, r[8]) if r[3] == SILENT else r for r in found["events"]}
    return found


@pytest.fixture(scope="module")
def of() -> tuple[Agent, Agent]:
    return agents()


@pytest.fixture(scope="module")
def quiet(tmp_path_factory, of) -> Lab:
    """Nothing is killed."""
    return play(tmp_path_factory.mktemp("quiet"), of)


@pytest.fixture(scope="module", params=[False, True], ids=["undisturbed", "killed"])
def lab(request, tmp_path_factory, of, quiet) -> Lab:
    """Killed: at every commit twice, before and after the durable point."""
    return play(tmp_path_factory.mktemp("killed"), of, killed=True) if request.param else quiet


def test_the_year_raises_exactly_the_events_of_the_table(lab) -> None:
    assert sorted(events(lab.path)) == sorted((f"{day}T00:10", *rest) for day, *rest in EVENTS)


def test_the_year_opens_exactly_the_deadlines_of_the_table(lab) -> None:
    assert sorted(deadlines(lab.path)) == sorted(DEADLINES)


def test_the_year_ends_with_good_books(lab) -> None:
    found = check_store(lab.path, lab.regimes())
    assert found.difference is None
    assert found.notes == ()


def test_the_books_are_those_of_a_collector_that_was_never_killed(lab, quiet) -> None:
    """None lost, none twice: every table whole, but for what tells of a start."""
    assert lab.kills == (2 * 366 if lab.killed else 0)
    assert dump(lab.path) == dump(quiet.path)
    assert tables(lab.path) == tables(quiet.path)
