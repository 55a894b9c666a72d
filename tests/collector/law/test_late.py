"""Work that comes to the books late: the line was met when it was done."""

import json
import sqlite3
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from builders import TRAINING, UNIX_NS, Chain, busy
from duty_books import HOUR_NS, busy_minute, fsck, opened, regime

from flopmeter.collector.books import Slot
from flopmeter.collector.ingest.decide import TAKEN
from flopmeter.collector.law.late import LATE_NS, met_since
from flopmeter.collector.spelling import time_text

DAY_NS = 24 * HOUR_NS
WORK_HOUR_NS = UNIX_NS // HOUR_NS * HOUR_NS
NOW = WORK_HOUR_NS + 10 * DAY_NS


@pytest.fixture
def path(tmp_path):
    return tmp_path / "books.db"


def late_minute(desk, chain):
    """A minute of the chain's own time, whatever the collector's clock says."""
    agent = desk.agent(chain)
    desk.offer(agent, chain.next())
    desk.commit()


def crossing(desk):
    ((data, time),) = desk.rows("SELECT data, time_unix_ns FROM events WHERE type = 'threshold.crossed'")
    return json.loads(data), time


@pytest.mark.parametrize(
    ("slots", "at_hours", "since"),
    [
        ([], 100, None),
        ([Slot(98)], 100, None),  # up to two hours are a record on its way
        ([Slot(97)], 100, 97),
        ([Slot(99), Slot(97)], 100, 97),  # the earliest of it
        ([Slot(99, 4)], 100, 95),  # a bridge over an outage: since its first hour
        ([Slot(200)], 100, None),  # a node's clock that is ahead
        ([Slot(490_000, 490_000)], 490_001, None),  # one that was set within the window: it began in 1970
        ([Slot(490_000, 490_000)], 490_009, 490_000),
    ],
)
def test_work_is_late_by_its_first_hour(slots, at_hours, since):
    assert met_since(slots, at_hours * HOUR_NS) == (None if since is None else since * HOUR_NS)
    assert LATE_NS == 2 * HOUR_NS


def test_the_two_weeks_began_when_the_work_was_done(path):
    with opened(path, now=NOW) as desk:
        late_minute(desk, Chain("n"))
        data, time = crossing(desk)
        assert time == NOW  # it became known today …
        assert data["met_since"] == time_text(WORK_HOUR_NS)  # … and was so ten days ago
        assert data["due"] == time_text(WORK_HOUR_NS + 14 * DAY_NS)
        assert "Records came late" in data["message"]
        assert desk.rows("SELECT trigger_unix_ns, due_unix_ns FROM deadlines") == [
            (WORK_HOUR_NS, WORK_HOUR_NS + 14 * DAY_NS)
        ]
    assert fsck(path, [regime()]).difference is None


def test_what_is_prompt_says_nothing_of_it(path):
    with opened(path) as desk:
        busy_minute(desk, Chain("n"))
        data, time = crossing(desk)
        assert data["met_since"] is None
        assert "late" not in data["message"]
        assert desk.rows("SELECT trigger_unix_ns FROM deadlines") == [(time,)]


def test_a_machine_that_began_in_1970_met_nothing_then(path):
    """Its clock was set within the window: a minute is not half a century, and nothing was due since the law began."""
    with opened(path, now=UNIX_NS + 60 * 10**9) as desk:
        chain = Chain("n")
        batch = chain.batch([busy(0)])
        batch.window_start_unix_ns = 1
        agent = desk.agent(chain)
        assert desk.offer(agent, chain.next(payload=batch.SerializeToString())) is TAKEN
        desk.commit()
        data, time = crossing(desk)
        assert data["met_since"] is None
        assert desk.rows("SELECT trigger_unix_ns FROM deadlines") == [(time,)]
    assert fsck(path, [regime()]).difference is None


def test_only_what_the_run_did_dates_it(path):
    """Another run's backlog comes in the same commit."""
    with opened(path, now=NOW) as desk:
        prompt, late = Chain("n"), Chain("m")
        ahead = NOW - HOUR_NS - UNIX_NS
        prompt.unix_ns, prompt.boot_ns = prompt.unix_ns + ahead, prompt.boot_ns + ahead
        for chain, run in ((prompt, "r1"), (late, "r2")):
            desk.offer(desk.agent(chain), chain.next(workloads=[replace(TRAINING, run=run, job=run)]))
        desk.commit()
        rows = desk.rows("SELECT subject, data FROM events WHERE type = 'threshold.crossed'")
        since = {run: json.loads(data)["met_since"] for run, data in rows}
        assert since == {"r1": None, "r2": time_text(WORK_HOUR_NS)}
    assert fsck(path, [regime()]).difference is None


def test_no_clock_runs_before_the_law_binds(path):
    day = datetime.fromtimestamp((WORK_HOUR_NS + 5 * DAY_NS) // 1_000_000_000, UTC).date()
    law = regime(effective=day)
    with opened(path, law, now=NOW) as desk:
        late_minute(desk, Chain("n"))
        data, _ = crossing(desk)
        assert data["met_since"] == f"{day}T00:00:00.000Z"
    assert fsck(path, [law]).difference is None


@pytest.mark.parametrize("said", [None, time_text(WORK_HOUR_NS - DAY_NS), time_text(WORK_HOUR_NS + DAY_NS)])
def test_fsck_derives_it_again(path, said):
    with opened(path, now=NOW) as desk:
        for chain in (Chain("n"), Chain("m")):
            agent = desk.agent(chain)
            desk.offer(agent, chain.next())
        desk.commit()
    db = sqlite3.connect(path)
    (data,) = db.execute("SELECT data FROM events WHERE type = 'threshold.crossed'").fetchone()
    changed = json.dumps(
        json.loads(data) | {"met_since": said}, ensure_ascii=False, sort_keys=True, separators=(",", ":")
    )
    db.execute("UPDATE events SET data = ? WHERE type = 'threshold.crossed'", (changed,))
    db.commit()
    db.close()
    found = fsck(path, [regime()]).difference
    assert found is not None
    assert (found.table, found.column) == ("events", "data")
