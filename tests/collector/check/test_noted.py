"""fsck on what no record says: by which entries, rules and regimes runs were judged since when; and on the schema."""

import shutil
import sqlite3
from contextlib import closing

import pytest
from builders import WINDOW_NS, Chain, busy
from desk import Desk
from law_files import changed
from relog import relog

from flopmeter.collector.check.fsck import check_store, result_text
from flopmeter.collector.ingest.decide import TAKEN
from flopmeter.collector.ingest.identity_rules import before_lists
from flopmeter.collector.law.regimes import shipped
from flopmeter.collector.registry.entries import Declare
from flopmeter.collector.registry.say import say
from flopmeter.contract.usage import Workload, WorkloadKind

LOW = tuple(changed(r, threshold_flop=10**16) for r in shipped())
JOB = Workload(WorkloadKind.SLURM, job="1", run="a", dtype="bf16")


class Office:
    def __init__(self, path, regimes=LOW):
        self.path, self.chain = path, Chain("n", gpus=1)
        self.start(regimes)

    def start(self, regimes=LOW, rules=None):
        self.desk = Desk(self.path, regimes, rules=rules)
        self.desk.now += self.chain.seq * 10**9

    def book(self):
        raw = self.chain.next([busy(0, duration_ns=WINDOW_NS, percent=90)], [JOB])
        assert self.desk.offer(self.desk.agent(self.chain), raw) is TAKEN
        self.desk.now += 10**9
        self.desk.commit()

    def say(self, owner):
        self.desk.now += 10**9
        say(self.path, lambda _: Declare("a", owner=owner), "ada@lab", "so", lambda: self.desk.now)


@pytest.fixture(scope="module")
def books(tmp_path_factory):
    """Two starts, the second with other identity rules; three entries, of which no event tells; all lines crossed."""
    path = tmp_path_factory.mktemp("noted") / "books.db"
    office = Office(path)
    office.book()
    for owner in ("x", "y"):
        office.say(owner)
        office.book()
    office.desk.close()
    office.start(rules=before_lists())
    office.book()
    office.say("z")
    office.book()
    office.desk.close()
    return path


@pytest.fixture
def copy(books, tmp_path):
    return shutil.copy(books, tmp_path / "books.db")


def tamper(path, *statements):
    """As somebody who knows: the triggers are dropped, and made again behind it."""
    with closing(sqlite3.connect(path)) as db:
        triggers = db.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for name, _ in triggers:
            db.execute(f"DROP TRIGGER {name}")
        for sql in statements:
            assert db.execute(sql).rowcount, "the tampering must change something"
        for _, sql in triggers:
            db.execute(sql)
        db.commit()


def difference(path):
    found = check_store(path, LOW).difference
    return None if found is None else f"{found.table}, {found.key}: {found.column}"


def test_it_is_good_before(books):
    result = check_store(books, LOW)
    assert result.difference is None, result_text(result)
    with closing(sqlite3.connect(books)) as db:
        assert db.execute("SELECT entry_no, from_position FROM applied").fetchall() == [
            (1, 2),
            (2, 3),
            (3, 5),
        ]
        assert db.execute("SELECT from_position FROM identity_rules").fetchall() == [(1,), (4,)]
        assert db.execute("SELECT count(*) FROM events").fetchone()[0] > 2


LAST = ("DELETE FROM entries WHERE entry_no = 3", "DELETE FROM applied WHERE entry_no = 3")


@pytest.mark.parametrize(
    ("statements", "said"),
    [
        (LAST, "applied, from_position 5: entry_no"),
        (("DELETE FROM applied WHERE entry_no = 2",), "applied, from_position 3: entry_no"),
        (("DELETE FROM applied WHERE entry_no = 3",), "applied, from_position 5: entry_no"),
        (("UPDATE applied SET from_unix_ns = from_unix_ns + 1 WHERE entry_no = 2",), "applied, from_position 3: from_unix_ns"),
        (("UPDATE applied SET from_position = 4 WHERE entry_no = 2",), "applied, from_position 3: entry_no"),
        (("UPDATE identity_rules SET from_position = 3 WHERE from_position = 4",), "identity_rules, from_position 3: digest"),
        (("UPDATE identity_rules SET from_position = 5 WHERE from_position = 4",), "identity_rules, from_position 4: digest"),
        (("DELETE FROM identity_rules WHERE from_position = 4",), "identity_rules, from_position 4: digest"),
        (("UPDATE identity_rules SET from_unix_ns = 7 WHERE from_position = 4",), "identity_rules, from_position 4: from_unix_ns"),
        (("DELETE FROM judged",), "judged, from_position 1: rows"),
        (("DELETE FROM judged WHERE regime = 'korea'",), "judged, from_position 1: rows"),
        (("UPDATE judged SET from_position = 2 WHERE regime = 'korea'",), "judged, from_position 1: rows"),
        (("UPDATE judged SET until_position = 2 WHERE regime = 'korea'",), "judged, from_position 4: rows"),
        # The second row is gone too: what events say is left.
        (("DELETE FROM judged", "DELETE FROM noted WHERE name = 'judged-by'"), "judged, regime "),
        (("DELETE FROM noted WHERE name = 'entries' AND from_position = 3",), "applied, from_position 3: entry_no"),
    ],
)  # fmt: skip
def test_what_was_noted_once_shows_by_its_second_row(copy, statements, said):
    tamper(copy, *statements)
    assert said in (difference(copy) or "nothing")


def test_what_it_cannot_see_is_what_the_docs_say(copy):
    """Both rows gone, and no event tells of the entry: nothing in the store is left that knew of it (docs/collector.md)."""
    tamper(copy, *LAST, "DELETE FROM noted WHERE name = 'entries' AND from_position = 5")
    assert difference(copy) == "entries, entry_no 3: row"  # but its leaf is in the log …
    relog(copy)
    assert difference(copy) is None  # … unless that was made anew, which no head that was signed allows


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("DROP TRIGGER entries_stay", "trigger entries_stay: sql"),
        ("DROP TRIGGER answers_are_kept", "trigger answers_are_kept: sql"),
        ("DROP INDEX records_once", "index records_once: sql"),
        ("CREATE TABLE mine (x)", "table mine: sql"),
        (
            "CREATE TRIGGER t AFTER INSERT ON totals BEGIN UPDATE totals SET hmma_cycles = '0'; END",
            "trigger t: sql",
        ),
        ("ALTER TABLE entries ADD COLUMN x", "table entries: sql"),
        ("DELETE FROM _sqlite_migrations WHERE id = 3", "_sqlite_migrations, rows: name"),
    ],
)
def test_the_schema_is_that_of_the_migrations(copy, sql, said):
    with closing(sqlite3.connect(copy)) as db:
        db.execute(sql)
        db.commit()
    assert said in (difference(copy) or "nothing")


def test_a_trigger_made_again_with_another_text_is_another(copy):
    with closing(sqlite3.connect(copy)) as db:
        (sql,) = db.execute("SELECT sql FROM sqlite_master WHERE name = 'entries_stay'").fetchone()
        db.execute("DROP TRIGGER entries_stay")
        db.execute(sql.replace("BEGIN", "WHEN NEW.entry_no < 0 BEGIN"))
        db.commit()
    assert difference(copy) == "sqlite_master, trigger entries_stay: sql"


def test_starts_with_other_regimes_and_no_record_between_are_good(tmp_path):
    """One that is left out and comes back, an event of a commit without a record: none of that is tampering."""
    path = tmp_path / "books.db"
    office = Office(path, ())
    office.book()
    for regimes in (LOW[:3], LOW[3:], LOW, (), LOW):
        office.desk.close()
        office.start(regimes)
        office.desk.commit()
        result = check_store(path, regimes)
        assert result.difference is None, result_text(result)
    office.book()
    office.desk.close()
    assert check_store(path, LOW).difference is None


def test_a_store_of_an_older_flopmeter_is_not_accused(copy):
    """It has no second rows of its first years."""
    tamper(
        copy,
        "DELETE FROM noted WHERE name IN ('entries', 'identity-rules', 'judged-by') AND from_position < 4",
    )
    assert difference(copy) is None
