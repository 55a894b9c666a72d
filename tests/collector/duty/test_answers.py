"""Answers: appended and chained beside a collector that runs, by whom and why, and nothing else gets in."""

import sqlite3
import threading

import pytest
from builders import Chain
from desk import DAY_NS
from duty_books import START, busy_minute, commit_at, fsck, opened, regime, rule

from flopmeter.collector.duty.answers import DEADLINE, EVENT, State
from flopmeter.collector.duty.saying import Person, answer, look_up, open_incident
from flopmeter.collector.errors import DutyError, DutyRefused, StoreError
from flopmeter.collector.law.events import event_id
from flopmeter.collector.report.queries import reading
from flopmeter.collector.store.answers import SELECT, answer_rows

CROSSED = event_id("threshold:eu-gpai:r1:crossed:crossed:>10^14")
LAW = regime(rule(), rule("incident", "incident", after_days=None, after_hours=72))
ADA = Person("ada", "seen", START)


@pytest.fixture
def path(tmp_path):
    with opened(tmp_path / "books.db", LAW) as desk:
        busy_minute(desk, Chain("n"))
    return tmp_path / "books.db"


def answers(path):
    with reading(path) as reader:
        return answer_rows(reader.rows(SELECT, (0,)))


def test_the_life_of_an_event(path):
    steps = [State.ACKNOWLEDGED, State.ACKNOWLEDGED, State.RESOLVED, State.OPEN, State.RESOLVED]
    was = [answer(path, EVENT, CROSSED, state, ADA).was for state in steps]
    assert was == [State.OPEN, *steps[:-1]]
    rows = answers(path)
    assert [(r.answer_no, r.about, r.number, r.position, r.state) for r in rows] == [
        (n, "event", 1, 1, state.value) for n, state in enumerate(steps, 1)
    ]
    assert fsck(path, [LAW]).difference is None


@pytest.mark.parametrize(
    ("before", "to"),
    [
        ([], State.OPEN),
        ([State.RESOLVED], State.RESOLVED),
        ([State.RESOLVED], State.ACKNOWLEDGED),
        ([State.RESOLVED, State.OPEN], State.OPEN),
    ],
)
def test_a_step_that_makes_no_sense_is_refused(path, before, to):
    for state in before:
        answer(path, EVENT, CROSSED, state, ADA)
    with pytest.raises(DutyRefused, match="expected it to be") as e:
        answer(path, EVENT, CROSSED, to, ADA)
    assert e.value.exit_code == 1
    assert e.value.hint
    assert len(answers(path)) == len(before)


@pytest.mark.parametrize("field", ["who", "why"])
@pytest.mark.parametrize(
    "text", ["", "   ", "x" * 2_001, "x" * 10_000, "a\nb", "a\x00b", "\x1b[31mred", "a\u202eb", "\ud800"]
)
def test_hostile_words_are_refused_and_nothing_is_said(path, field, text):
    with pytest.raises(DutyError) as e:
        answer(path, EVENT, CROSSED, State.RESOLVED, ADA._replace(**{field: text}))
    assert e.value.exit_code == 2
    assert str(e.value).isprintable()
    assert len(str(e.value)) < 300
    assert answers(path) == []


def test_words_in_any_language_are_taken(path):
    for why in ("\u5df2\u901a\u77e5\u59d4\u5458\u4f1a", "d\u00e9clar\u00e9 \u00e0 l'office", "x" * 2_000):
        answer(path, EVENT, CROSSED, State.ACKNOWLEDGED, ADA._replace(why=why))
    assert len(answers(path)) == 3


@pytest.mark.parametrize(
    "prefix",
    [
        "",
        "abc",
        "zzzz",
        "x" * 10_000,
        "%",
        "____",
        "\x1b[31m",
        "0" * 33,
        "' OR 1=1 --",
        "\u0661\u0662\u0663\u0664",
    ],
)
def test_what_is_no_id_finds_nothing(path, prefix):
    with pytest.raises(DutyError) as e:
        answer(path, EVENT, prefix, State.RESOLVED, ADA)
    assert str(e.value).isprintable()
    assert len(str(e.value)) < 300


def test_an_id_is_known_by_its_beginning_if_it_is_the_only_one(path):
    assert answer(path, EVENT, CROSSED[:4].upper(), State.ACKNOWLEDGED, ADA).id == CROSSED
    db = sqlite3.connect(path)
    twin = CROSSED[:6] + ("0" if CROSSED[6] != "0" else "1") * 26
    db.execute("INSERT INTO events SELECT 2, ?, 'k', type, subject, 1, 0, 0, data FROM events", (twin,))
    db.commit()
    db.close()
    with pytest.raises(DutyRefused, match="several"):
        answer(path, EVENT, CROSSED[:6], State.ACKNOWLEDGED, ADA)
    assert answer(path, EVENT, CROSSED[:7], State.ACKNOWLEDGED, ADA).id == CROSSED
    with pytest.raises(DutyRefused, match="found none"):
        answer(path, EVENT, "0000", State.ACKNOWLEDGED, ADA)


def test_answers_stand_in_the_store_as_they_were_said(path):
    answer(path, EVENT, CROSSED, State.ACKNOWLEDGED, ADA)
    db = sqlite3.connect(path)
    for sql in (
        "UPDATE answers SET who = 'eve'",
        "DELETE FROM answers",
        "INSERT INTO answers SELECT 3, about, number, unix_ns, position, state, who, why, detail, hash, hash FROM answers",
        "INSERT INTO answers SELECT 2, about, number, unix_ns, position, state, who, why, detail, prev_hash, hash FROM answers",
        "UPDATE deadlines SET due_unix_ns = 1",
        "DELETE FROM deadlines",
    ):
        with pytest.raises(sqlite3.IntegrityError, match=r"append|never"):
            db.execute(sql)
    db.close()


def test_a_dry_run_says_nothing(path):
    said = answer(path, EVENT, CROSSED, State.RESOLVED, ADA._replace(keep=False))
    assert said.answer.answer_no == 1
    open_incident(path, LAW, "incident", ADA._replace(keep=False), trigger_unix_ns=START)
    assert answers(path) == []
    with reading(path) as reader:
        assert reader.rows("SELECT count(*) FROM deadlines").fetchone()[0] == 1


def test_an_incident_is_opened_once(path):
    made, said = open_incident(path, LAW, "incident", ADA, trigger_unix_ns=START - DAY_NS)
    assert (said.about, said.number, said.state) == ("incident", 2, "open")
    with pytest.raises(DutyRefused, match="not open yet"):
        open_incident(path, LAW, "incident", ADA, trigger_unix_ns=START - DAY_NS)
    other, _ = open_incident(path, LAW, "incident", ADA, trigger_unix_ns=START - DAY_NS, subject="r1")
    assert other.id != made.id
    answer(path, DEADLINE, made.id, State.RESOLVED, ADA, outcome="done")
    assert fsck(path, [LAW]).difference is None


@pytest.mark.parametrize(
    ("name", "at", "subject"),
    [
        ("notify", START, ""),  # an event opens that one
        ("nothing", START, ""),
        ("x" * 10_000, START, ""),
        ("incident", START + 1, ""),  # it has not happened yet
        ("incident", START, "a\nb"),
        ("incident", START, "x" * 10_000),
    ],
)
def test_what_no_person_can_open_is_refused(path, name, at, subject):
    with pytest.raises(DutyError) as e:
        open_incident(path, LAW, name, ADA, trigger_unix_ns=at, subject=subject)
    assert len(str(e.value)) < 400
    assert answers(path) == []


def test_people_and_a_collector_at_once_lose_nothing(path):
    """Answers, incidents and commits that open and tell, all at the same store."""
    law = LAW
    refused = []

    def people(name):
        for n in range(15):
            try:
                answer(path, EVENT, CROSSED, State.ACKNOWLEDGED, Person(name, f"{n}", START))
                open_incident(
                    path,
                    law,
                    "incident",
                    Person(name, f"{n}", START),
                    trigger_unix_ns=START - n,
                    subject=name,
                )
            except StoreError as e:
                refused.append(e)

    threads = [threading.Thread(target=people, args=(name,)) for name in ("ada", "bob")]
    with opened(path, law) as desk:
        for t in threads:
            t.start()
        chain = Chain("m")
        for day in range(20):
            commit_at(desk, START + day * DAY_NS)
            busy_minute(desk, chain)
        for t in threads:
            t.join()
        commit_at(desk, START + 20 * DAY_NS)
        busy_minute(desk, chain)
    assert refused == []
    assert len(answers(path)) == 60
    with reading(path) as reader:
        assert reader.rows("SELECT count(*) FROM deadlines").fetchone()[0] == 31
        over = reader.rows("SELECT count(*) FROM events WHERE type = 'deadline.overdue'").fetchone()[0]
    assert over == 31
    assert fsck(path, [law]).difference is None


def test_a_store_that_is_not_there_is_not_made(tmp_path):
    with pytest.raises(StoreError, match="no such file"):
        answer(tmp_path / "none.db", EVENT, CROSSED, State.RESOLVED, ADA)
    assert not list(tmp_path.iterdir())


def test_looking_up_reads_by_the_index(path):
    """Among 100,000 events an id is found without reading them."""
    with reading(path) as reader:
        sql = (
            "EXPLAIN QUERY PLAN SELECT event_no, id FROM events WHERE id >= ? AND id < ? ORDER BY id LIMIT 3"
        )
        plan = " ".join(str(r[3]) for r in reader.rows(sql, ("a", "b")))
        assert "USING INDEX" in plan or "USING COVERING INDEX" in plan
        assert look_up(reader.rows, EVENT, CROSSED)[0] == 1
