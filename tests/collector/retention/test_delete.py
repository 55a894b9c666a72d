"""Deleting a store: refused while anything binds it, whole when nothing does, and never half or unseen."""

import hashlib
import json
import os
import re
import shutil
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from builders import UNIX_NS, Chain
from desk import Desk
from faulty_sqlite import COMMIT, Crash, Faults

from flopmeter.collector.check.fsck import check_store
from flopmeter.collector.errors import RetentionRefused, StoreError
from flopmeter.collector.ingest.decide import TAKEN
from flopmeter.collector.law.laws import read_laws
from flopmeter.collector.retention import delete as module
from flopmeter.collector.retention.delete import check_deletable, delete_store
from flopmeter.collector.retention.queries import read_kept, say
from flopmeter.collector.retention.until import STORE, first_day, kept_for
from flopmeter.collector.retention.words import next_row
from flopmeter.collector.store.retention import SqliteRetention
from flopmeter.collector.store.sqlite import SqliteStore

LAW = read_laws(None).binding
YEAR_NS = 366 * 86_400 * 10**9
LATER = UNIX_NS + 12 * YEAR_NS


def at(day: str) -> int:
    return round(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp()) * 10**9


def word(path, kind, run="", value="", *, now=UNIX_NS + 30 * 86_400 * 10**9):
    return say(path, kind, run, value, who="ann", why="because", unix_ns=lambda: now)


@pytest.fixture
def path(tmp_path):
    """A store with one record (2026-09-21) of run r1, whose model was placed on the market on 2026-10-01."""
    path = tmp_path / "books.sqlite"
    chain = Chain()
    with Desk(path, LAW) as desk:
        assert desk.offer(desk.agent(chain), chain.next()) is TAKEN
        desk.commit()
    word(path, "placed", "r1", "2026-10-01")
    return path


def test_requirement_25_deletion_is_refused_until_the_longest_duty_has_ended(path) -> None:
    """10 years after 2026-10-01 (EU Code of Practice, and the default): the term's last day is 2036-10-01, and
    2036-10-02 has begun everywhere on Earth at 12:00 UTC.
    """
    for now in (UNIX_NS, at("2036-10-01T12:00:00"), at("2036-10-02T11:59:59")):
        with pytest.raises(RetentionRefused) as refused:
            check_deletable(path, LAW, now)
        assert "2036-10-02" in refused.value.hint
        assert re.search(r"run r1: (site|eu-gpai/)", str(refused.value))
    check_deletable(path, LAW, at("2036-10-02T12:00:00"))


def test_requirement_25_a_legal_hold_wins_over_terms_that_have_ended(path) -> None:
    word(path, "hold", "r1", now=LATER)
    with pytest.raises(RetentionRefused, match="hold 2") as refused:
        delete_store(path, LAW, who="ann", why="w", now_unix_ns=LATER + YEAR_NS)
    assert "not known" in refused.value.hint
    assert path.is_file()
    word(path, "release", "", "2", now=LATER)
    delete_store(path, LAW, who="ann", why="w", now_unix_ns=LATER + YEAR_NS)
    assert not path.exists()


def test_requirement_25_an_unknown_market_date_is_never_deletable(tmp_path) -> None:
    path = tmp_path / "b.sqlite"
    chain = Chain()
    with Desk(path, LAW) as desk:
        desk.offer(desk.agent(chain), chain.next())
        desk.commit()
    with pytest.raises(RetentionRefused, match="nobody has said when"):
        check_deletable(path, LAW, UNIX_NS + 200 * YEAR_NS)


def test_what_is_deleted_leaves_a_certificate_of_its_bytes(path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    gone = delete_store(path, LAW, who="ann", why="all terms ended", now_unix_ns=LATER)
    assert sorted(p.name for p in path.parent.iterdir()) == [gone.certificate.name]
    said = json.loads(gone.certificate.read_text())
    assert (said["sha256"], said["records"], said["last_position"], said["agents"]) == (digest, "1", "1", "1")
    assert (said["who"], said["why"], said["format"]) == ("ann", "all terms ended", "flopmeter-deletion/1")
    assert said["last_hashes"]["entries"] is None
    assert len(said["last_hashes"]["retention"]) == 64


def test_a_collector_that_runs_keeps_its_store(path) -> None:
    store = SqliteStore(path)
    try:
        with pytest.raises(StoreError, match="another collector"):
            delete_store(path, LAW, who="a", why="w", now_unix_ns=LATER)
    finally:
        store.close()
    assert path.is_file()


def test_a_store_that_was_altered_is_evidence(path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DELETE FROM totals")
        connection.commit()
    with pytest.raises(RetentionRefused, match="books follow from its records"):
        delete_store(path, LAW, who="a", why="w", now_unix_ns=LATER)
    assert path.is_file()


def test_who_deletes_shortens_no_term_by_giving_other_law_files(tmp_path) -> None:
    """A site's own regime wants 30 years. It binds also whoever does not name its directory, or names a milder text."""
    site = tmp_path / "site"
    site.mkdir()
    raw = next(Path("collector/flopmeter/collector/regimes").resolve().glob("korea.toml")).read_text()
    (site / "ours.toml").write_text(raw.replace('id = "korea"', 'id = "ours"') + _RULE)
    law = read_laws(site).binding
    path, chain = tmp_path / "b.sqlite", Chain()
    with Desk(path, law) as desk:
        desk.offer(desk.agent(chain), chain.next())
        desk.commit()
    word(path, "placed", "r1", "2026-10-01")
    (site / "ours.toml").write_text((site / "ours.toml").read_text().replace("years = 30", "years = 1"))
    for given in (law, LAW, read_laws(site).binding):
        with pytest.raises(RetentionRefused, match="ours/file") as refused:
            check_deletable(path, given, LATER)
        assert "2056-10-02" in refused.value.hint
    with closing(sqlite3.connect(path)) as connection:  # as an older flopmeter left it: without the text
        connection.execute("DROP TRIGGER texts_are_kept")
        connection.execute("DELETE FROM texts")
        connection.commit()
    with pytest.raises(StoreError, match="regime ours"):
        read_kept(path, LAW)


_RULE = """
[[retention]]
id = "file"
what = "the file"
years = 30
begins = "placed"
source = "a contract"
"""


@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_a_store_of_two_names_is_not_deleted_by_one(path, link) -> None:
    other = path.with_name("other.sqlite")
    link(path, other)
    with pytest.raises(RetentionRefused, match="only name"):
        delete_store(other, LAW, who="a", why="w", now_unix_ns=LATER)
    assert path.is_file()


def test_a_hold_that_is_added_meanwhile_is_not_told_as_said(path, monkeypatch) -> None:
    """It waits for the store's lock, and then the store is gone: an error, never a hold over nothing."""
    monkeypatch.setattr("flopmeter.collector.store.appending.BUSY_TIMEOUT_S", 0.05)
    checked = check_deletable

    def and_somebody_adds_a_hold(*args):
        checked(*args)
        with pytest.raises(StoreError):
            word(path, "hold", "r1")

    monkeypatch.setattr(module, "check_deletable", and_somebody_adds_a_hold)
    delete_store(path, LAW, who="a", why="w", now_unix_ns=LATER)
    assert not path.exists()


@pytest.mark.parametrize("dies_at", ["_write", "_sync_folder"])
def test_killed_on_the_way_it_is_whole_or_gone_and_the_same_command_goes_on(
    path, monkeypatch, dies_at
) -> None:
    class Killed(BaseException):
        pass

    def killed(*_):
        raise Killed

    before = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(module, dies_at, killed)
        with pytest.raises(Killed):
            delete_store(path, LAW, who="a", why="w", now_unix_ns=LATER)
    assert path.is_file()
    assert path.read_bytes() == before
    gone = delete_store(path, LAW, who="b", why="w", now_unix_ns=LATER)
    assert not path.exists()
    assert json.loads(gone.certificate.read_text())["who"] == "b"


def test_the_first_day_is_the_same_by_both_ways(path) -> None:
    kept = read_kept(path, LAW)
    assert first_day(kept_for(STORE, kept.facts, kept.said, kept.regimes)).isoformat() == "2036-10-02"


@pytest.mark.parametrize("before", [True, False])
def test_a_word_is_said_or_it_is_not_whenever_its_command_dies(path, before) -> None:
    faults = Faults()
    faults.plan(COMMIT, before=before, error=Crash())
    with SqliteRetention(path, connect=faults.connect) as log, pytest.raises(Crash):
        log.append_said(
            lambda _, said, position: next_row(
                said[-1], position, "hold", "r1", "", who="a", why="w", unix_ns=LATER
            )
        )
    assert len(read_kept(path, LAW).said.holds) == (0 if before else 1)
    assert check_store(path, LAW).difference is None


def test_words_on_keeping_are_never_changed_or_deleted(path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        for sql in ("UPDATE retention SET who = 'eve'", "DELETE FROM retention"):
            with pytest.raises(sqlite3.IntegrityError):
                connection.execute(sql)


@pytest.mark.parametrize(
    ("sql", "column"),
    [
        ("UPDATE retention SET value = '1990-01-01'", "hash"),
        ("UPDATE retention SET who = 'eve'", "hash"),
        ("UPDATE retention SET said_no = 2", "said_no"),
        ("UPDATE retention SET prev_hash = zeroblob(31) || x'01'", "prev_hash"),
    ],
)
def test_fsck_names_a_word_that_was_altered_and_no_term_is_told_from_it(path, tmp_path, sql, column) -> None:
    copy = tmp_path / "copy.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    shutil.copy(path, copy)
    assert check_store(copy, LAW).difference is None
    with closing(sqlite3.connect(copy)) as connection:
        connection.execute("DROP TRIGGER retention_stays")
        connection.execute(sql)
        connection.commit()
    found = check_store(copy, LAW).difference
    assert (found.table, found.column) == ("retention", column)
    with pytest.raises(StoreError, match="altered"):
        read_kept(copy, LAW)


def test_no_other_command_of_ours_deletes_a_file_or_a_row_unseen() -> None:
    """Every place in the sources that removes a file, by name: a new one must say here why it may. No row ever goes."""
    root = Path(__file__).parents[3] / "collector/flopmeter"
    sources = {str(p.relative_to(root)): p.read_text() for p in root.rglob("*.py")}
    removes = re.compile(r"\.unlink\(|\bos\.(?:remove|unlink|rmdir|removedirs)\(|\brmtree\(")
    found = {name for name, text in sources.items() if removes.search(text)}
    assert "collector/retention/delete.py" in found
    assert found <= MAY_REMOVE.keys()
    assert [name for name, text in sources.items() if re.search(r"\bDELETE\s+FROM\b", text)] == []


MAY_REMOVE = {
    "collector/backup/place.py": "copies that a backup began and did not finish, and nothing that has a copy's name",
    "collector/keys.py": "a key file that it made and could not write whole",
    "collector/attest/create.py": "an attestation's file that it made and could not write whole",
    "witness/keys.py": "a key file that it made and could not write whole",
    "collector/retention/delete.py": "the store, when nothing binds it",
    "collector/filing/cli.py": "a draft that it made and could not write whole",
    "collector/paper/write.py": "a report or draft that it made and could not write whole",
    "collector/export/destination.py": "an export's part file that it made and could not finish",
    "collector/web/downloads.py": "its own folder of an attestation that was handed out, or could not be",
    "collector/check/outcome.py": "what fsck came to, as a file that it made and could not write whole",
    "collector/duty/deadlines_cli.py": "a calendar that it made and could not write whole",
    "play/place.py": "the demo's own folder in the temporary directory",
}
