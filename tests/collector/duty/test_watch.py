"""Deadlines in the collector's commits: opened once, told once, across restarts, clocks that step, and people's answers."""

import sqlite3
from dataclasses import replace
from datetime import date

import pytest
from builders import TRAINING, Chain
from desk import DAY_NS
from duty_books import (
    HOUR_NS,
    START,
    busy_minute,
    commit_at,
    deadlines,
    fsck,
    opened,
    quarters,
    regime,
    rule,
)

from flopmeter.collector.duty.answers import DEADLINE, EVENT, State
from flopmeter.collector.duty.deadlines import CROSSED, FORECAST
from flopmeter.collector.duty.saying import Person, answer, open_incident
from flopmeter.collector.duty.watch import DutyWatch
from flopmeter.collector.law.events import NewEvent
from flopmeter.collector.law.judge import Moment
from flopmeter.collector.store.base import Transaction

DUE = START + 14 * DAY_NS
KEY = "deadline:run:eu-gpai:notify:r1"
NEAR, OVER = "deadline.near", "deadline.overdue"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "books.db"


def crossed(path, *regimes, **settings):
    """A collector whose run has met the line at START."""
    desk = opened(path, *regimes, **settings)
    busy_minute(desk, Chain("n"))
    return desk


def types(events):
    return [e.type for e in events]


def resolve(path, *, outcome="done", about=DEADLINE, state=State.RESOLVED, number=1, now=START):
    db = sqlite3.connect(path)
    (found,) = db.execute(f"SELECT id FROM {about}s WHERE {about}_no = ?", (number,)).fetchone()
    db.close()
    return answer(path, about, found, state, Person("ada", "said", now), outcome=outcome)


def test_a_crossing_opens_its_deadline_in_the_same_commit(path):
    with crossed(path) as desk:
        assert deadlines(desk) == [(KEY, DUE)]
        assert desk.rows("SELECT event_no, opened_unix_ns, position FROM deadlines") == [(1, START, 1)]
        assert desk.rows("SELECT key FROM events WHERE event_no = 1") == [
            ("threshold:eu-gpai:r1:crossed:crossed:>10^14",)
        ]
    assert fsck(path, [regime()]).difference is None


def test_each_lead_time_and_the_end_are_told_once(path):
    with crossed(path) as desk:
        told = {}
        for hour in range(16 * 24):
            for e in commit_at(desk, START + hour * HOUR_NS):
                told[hour] = (e.type, e.data["lead_seconds"])
        assert told == {
            7 * 24: (NEAR, "604800"),
            12 * 24: (NEAR, "172800"),
            13 * 24: (NEAR, "86400"),
            14 * 24: (OVER, None),
        }
    assert fsck(path, [regime()]).difference is None


def test_a_restart_at_any_time_tells_nothing_twice(path):
    crossed(path).close()
    told = []
    for hour in range(0, 16 * 24, 6):
        with opened(path, now=START + hour * HOUR_NS) as desk:
            told += [e.type for e in commit_at(desk, START + hour * HOUR_NS)]
    assert told == [NEAR, NEAR, NEAR, OVER]
    assert fsck(path, [regime()]).difference is None


def test_a_collector_that_was_down_tells_what_is_true_now(path):
    """Not three warnings about a time that is past."""
    crossed(path).close()
    with opened(path, now=DUE - 30 * HOUR_NS) as desk:
        (near,) = commit_at(desk, DUE - 30 * HOUR_NS)
        assert near.data["lead_seconds"] == "172800"
    with opened(path, now=DUE + DAY_NS) as desk:
        assert types(commit_at(desk, DUE + DAY_NS)) == [OVER]
        assert commit_at(desk, DUE + 2 * DAY_NS) == []
    assert fsck(path, [regime()]).difference is None


def test_a_clock_that_steps_back_tells_nothing_twice_nor_early(path):
    with crossed(path) as desk:
        told = []
        for at in (7, 6, 7, 12, 1, 12, 6.9, 13, 14, 2, 7, 12, 13, 14, 15):
            now = START + int(at * DAY_NS)
            found = commit_at(desk, now)
            assert all(e.time_unix_ns == now for e in found)
            told += [(e.type, at) for e in found]
        assert told == [(NEAR, 7), (NEAR, 12), (NEAR, 13), (OVER, 14)]
    assert fsck(path, [regime()]).difference is None


def test_a_clock_a_year_ahead_and_back_raises_overdue_once_and_never_again(path):
    """What docs/deadlines.md says: told by the clock as it was; the list shows what is true by today's."""
    with crossed(path, regime(rule(), quarters())) as desk:
        ahead = commit_at(desk, START + 365 * DAY_NS)
        assert [(e.type, e.data["rule"]) for e in ahead] == [
            (OVER, "notify"),
            *[(OVER, "quarterly")] * 4,
        ]
        assert len(deadlines(desk)) == 1 + 5  # four quarters are past, and the next is open
        for day in range(1, 30):
            assert [e.data["rule"] for e in commit_at(desk, START + day * DAY_NS)] == []
    assert fsck(path, [regime(rule(), quarters())]).difference is None


def test_what_is_resolved_is_told_no_more_and_what_is_reopened_is(path):
    with crossed(path) as desk:
        assert types(commit_at(desk, DUE - 7 * DAY_NS)) == [NEAR]
        resolve(path)
        assert commit_at(desk, DUE - DAY_NS) == []
        assert commit_at(desk, DUE + DAY_NS) == []
        resolve(path, outcome="", state=State.OPEN)
        (event,) = commit_at(desk, DUE + 2 * DAY_NS)
        assert (event.type, event.data["answers"]) == (OVER, "2")
    assert fsck(path, [regime()]).difference is None


def test_who_acknowledges_is_still_told(path):
    with crossed(path) as desk:
        resolve(path, outcome="", state=State.ACKNOWLEDGED)
        assert types(commit_at(desk, DUE)) == [OVER]


def test_answers_about_events_change_nothing_of_deadlines(path):
    with crossed(path) as desk:
        resolve(path, outcome="", about=EVENT)
        (event,) = commit_at(desk, DUE)
        assert (event.type, event.data["answers"]) == (OVER, "1")
    assert fsck(path, [regime()]).difference is None


def test_the_first_event_starts_the_clock_and_no_other_restarts_it(path):
    """A forecast, then the crossing; then events that bear earlier times: the clock runs since it was first known."""
    law = regime()
    with opened(path, law) as desk:
        watch = DutyWatch(desk.store.books, [law])

        def judge(kind, number, unix_ns):
            event = NewEvent(f"{kind}:{number}", kind, "r1", unix_ns, 0, 0, {"regime": law.id})
            tx = Transaction()
            watch.judge([event], number, Moment(unix_ns, 1, 0), tx)
            return [(d.event_no, d.due_unix_ns) for d in tx.deadlines]

        assert judge(FORECAST, 1, START) == [(1, DUE)]
        assert judge(CROSSED, 2, START + 5 * DAY_NS) == []
        assert judge(CROSSED, 3, START - 5 * DAY_NS) == []
        assert judge("threshold.undetermined", 4, START) == []


def test_first_covered_is_once_for_the_organisation(path):
    law = regime(rule("audit", "first-covered", after_days=90))
    with crossed(path, law) as desk:
        desk.now += DAY_NS
        chain = Chain("m")
        agent = desk.agent(chain)
        desk.offer(agent, chain.next(workloads=(replace(TRAINING, job="2", run="r2"),)))
        desk.commit()
        assert desk.rows("SELECT DISTINCT subject FROM events ORDER BY 1") == [("r1",), ("r2",)]
        assert deadlines(desk) == [("deadline:organisation:eu-gpai:audit", START + 90 * DAY_NS)]
    assert fsck(path, [law]).difference is None


def days_open(desk):
    return [key.rsplit(":", 1)[1] for key, _ in deadlines(desk)]


def test_a_calendar_opens_its_next_day_when_the_last_is_past(path):
    law = regime(quarters())
    with crossed(path, law) as desk:
        seen = []
        for day in range(0, 400, 5):
            commit_at(desk, START + day * DAY_NS)
            if days_open(desk) != seen:
                seen = days_open(desk)
        assert seen == ["2026-10-15", "2027-01-15", "2027-04-15", "2027-07-15", "2027-10-15", "2028-01-15"]
    assert fsck(path, [law]).difference is None


def test_a_calendar_that_was_missed_has_every_day_of_it(path):
    law = regime(quarters())
    crossed(path, law).close()
    with opened(path, law, now=START + 250 * DAY_NS) as desk:
        found = commit_at(desk, START + 250 * DAY_NS)
        assert types(found) == [OVER] * 3
        assert days_open(desk) == ["2026-10-15", "2027-01-15", "2027-04-15", "2027-07-15"]
    assert fsck(path, [law]).difference is None


def test_a_calendar_ends_with_the_law_or_by_a_persons_word(path):
    law = regime(quarters())
    with crossed(path, law) as desk:
        resolve(path, outcome="not-applicable")
        assert commit_at(desk, START + 200 * DAY_NS) == []
        assert days_open(desk) == ["2026-10-15"]
        resolve(path, outcome="", state=State.OPEN)  # taken back: the days since then are owed
        commit_at(desk, START + 200 * DAY_NS)
        assert days_open(desk) == ["2026-10-15", "2027-01-15", "2027-04-15"]
    ended = regime(quarters(), ends=date(2027, 4, 1))
    with opened(path, ended, now=START + 300 * DAY_NS) as desk:
        commit_at(desk, START + 300 * DAY_NS)
        assert days_open(desk) == ["2026-10-15", "2027-01-15", "2027-04-15"]


def test_a_day_that_was_done_is_followed_by_the_next(path):
    with crossed(path, regime(quarters())) as desk:
        resolve(path, outcome="done")
        assert commit_at(desk, START + 60 * DAY_NS) == []
        assert days_open(desk) == ["2026-10-15", "2027-01-15"]


def test_a_clock_that_jumps_by_centuries_holds_no_commit(path):
    with crossed(path, regime(quarters())) as desk:
        commit_at(desk, START + 200 * 365 * DAY_NS)
        assert len(days_open(desk)) == 65
        commit_at(desk, START)
        assert len(days_open(desk)) == 65


def test_an_incident_is_opened_by_a_person_and_told_by_the_collector(path):
    law = regime(rule("incident", "incident", after_days=None, after_hours=72))
    with crossed(path, law) as desk:
        assert deadlines(desk) == []
        person = Person("ada", "weights were copied", START + HOUR_NS)
        made, _ = open_incident(path, law, "incident", person, trigger_unix_ns=START)
        told = [(h, e.type) for h in range(80) for e in commit_at(desk, START + h * HOUR_NS)]
        assert told == [(36, NEAR), (62, NEAR), (67, NEAR), (72, OVER)]
        assert deadlines(desk) == [(made.key, START + 72 * HOUR_NS)]
    assert fsck(path, [law]).difference is None


def test_rules_that_come_later_meet_events_that_were_there(path):
    """An upgrade, or a file of today: the clock of what was raised before runs since then."""
    bare = regime(bare=True)
    with crossed(path, bare) as desk:
        assert deadlines(desk) == []
    law = regime()
    with opened(path, law, now=START + DAY_NS) as desk:
        commit_at(desk, START + DAY_NS)
        assert deadlines(desk) == [(KEY, DUE)]
        assert desk.rows("SELECT opened_unix_ns FROM deadlines") == [(START + DAY_NS,)]
        assert desk.rows("SELECT value FROM noted WHERE name LIKE 'deadline-rules:%'") != []
    assert fsck(path, [law]).difference is None
    with opened(path, law, now=START + DAY_NS) as desk:  # noted: the events are not looked through again
        desk.store.books.triggers = None
        commit_at(desk, START + 2 * DAY_NS)


def test_rules_that_went_and_came_back_miss_no_event(path):
    law, bare = regime(), regime(bare=True)
    opened(path, law).close()
    with opened(path, law) as desk:
        desk.commit()
    with crossed(path, bare) as desk:
        assert deadlines(desk) == []
    with opened(path, law) as desk:
        desk.commit()
        assert deadlines(desk) == [(KEY, DUE)]


def test_a_changed_rule_leaves_what_is_open_as_it_was_opened(path):
    crossed(path).close()
    changed = regime(rule(after_days=30))
    with opened(path, changed, now=START + DAY_NS) as desk:
        desk.commit()
        assert deadlines(desk) == [(KEY, DUE)]


def test_lead_times_are_settable_and_a_new_setting_tells_nothing_again(path):
    with crossed(path, deadline_leads_ns=(3 * DAY_NS,)) as desk:
        told = [(d, e.data["lead_seconds"]) for d in range(15) for e in commit_at(desk, START + d * DAY_NS)]
        assert told == [(11, "259200"), (14, None)]
    with opened(path, now=START + 8 * DAY_NS, deadline_leads_ns=(5 * DAY_NS, DAY_NS)) as desk:
        for day in range(8, 20):
            assert commit_at(desk, START + day * DAY_NS) == []


def test_between_two_things_to_tell_nothing_is_looked_at(path):
    """The quiet path: one comparison. A thousand deadlines cost a commit no more than none."""
    law = regime()
    with opened(path, law) as desk:
        watch = DutyWatch(desk.store.books, [law])
        events = [NewEvent(f"k{n}", CROSSED, f"r{n}", START, 0, 0, {"regime": law.id}) for n in range(1_000)]
        watch.judge(events, 1, Moment(START, 1, 0), Transaction())
        looks = []
        watch._look = lambda at, tx: looks.append(at.unix_ns) or []
        for second in range(100):
            assert watch.judge([], 1_001, Moment(START + second * 10**9, 1, 0), Transaction()) == []
        assert looks == []
        watch.judge([], 1_001, Moment(DUE - 7 * DAY_NS, 1, 0), Transaction())
        assert looks == [DUE - 7 * DAY_NS]


def test_a_commit_that_failed_leaves_no_deadline_in_memory(path):
    from faulty_sqlite import Faults

    faults = Faults()
    with opened(path, connect=faults.connect) as desk:
        chain = Chain("n")
        agent = desk.agent(chain)
        raw = chain.next()
        desk.offer(agent, raw)
        faults.plan("COMMIT", before=True)
        with pytest.raises(Exception, match="full"):
            desk.commit()
        desk.recover()
        assert deadlines(desk) == []
        desk.offer(desk.agent(chain), raw)
        desk.commit()
        assert deadlines(desk) == [(KEY, DUE)]


def test_requirement_20_coverage_is_worded_apart_from_a_duty_to_file(path):
    audit = rule("audit", "first-covered", after_days=90)
    law = regime(audit, act="coverage")
    with crossed(path, law) as desk:
        (near,) = commit_at(desk, START + 89 * DAY_NS)
        assert near.data["act"] == "coverage"
        assert "asks for no report of the figure itself" in near.data["message"]
        assert near.subject == "regime/eu-gpai"
        assert near.data["run"] is None
    filing = regime(audit, act="notification")
    with crossed(path.with_name("other.db"), filing) as desk:
        (near,) = commit_at(desk, START + 89 * DAY_NS)
        assert "asks for no report" not in near.data["message"]
