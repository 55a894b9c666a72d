"""fsck and the texts that were judged by: an old verdict by the old file, and what was got at is named."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from builders import Chain
from desk import Desk
from law_files import PROFILE, REGIME, changed

from flopmeter.collector.check.fsck import Result, check_store, result_text
from flopmeter.collector.check.rederive import Difference
from flopmeter.collector.check.texts import Judgement, Texts
from flopmeter.collector.law.laws import LawFile, of_files
from flopmeter.collector.law.regimes import shipped

GPAI = next(r for r in shipped() if r.id == "eu-gpai")
HOUSE = REGIME.replace("exponent = 24", "exponent = 15").replace('"executed"', '"house"')
OWN = of_files([LawFile("own.toml", HOUSE.encode()), LawFile("house.toml", PROFILE.encode())])
SITE = next(r for r in OWN.regimes if r.id == "site-rule")


def check(path: Path, regimes: tuple = ()) -> Result:
    return check_store(path, regimes)


def good(path: Path, regimes: tuple = ()) -> None:
    result = check(path, regimes)
    assert result.difference is None, result_text(result)
    assert not any("derived again" in note for note in result.notes)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A run over an old line of a shipped regime and over a site's, each by a text that fsck is not given."""
    file, chain = tmp_path / "books.db", Chain("n")
    for low in (10**15, 10**16):
        with Desk(file, (changed(GPAI, threshold_flop=low), SITE)) as desk:
            desk.offer(desk.agent(chain), chain.next())
            desk.commit()
            desk.intake.review(desk.now)
            desk.commit()
    return file


def alter(path: Path, *statements: str) -> None:
    """By somebody who knows the triggers."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        triggers = [sql for (sql,) in db.execute("SELECT sql FROM sqlite_master WHERE type = 'trigger'")]
        for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            db.execute(f"DROP TRIGGER {name}")
        for statement in statements:
            db.execute(statement)
        for sql in triggers:
            db.execute(sql)


def test_an_old_verdict_is_derived_with_the_old_file_and_needs_no_other(path):
    good(path)
    good(path, shipped())  # whose eu-gpai is another text
    with closing(sqlite3.connect(path)) as db:
        (old,) = db.execute("SELECT data FROM events WHERE key LIKE 'threshold:eu-gpai:%'").fetchone()
    assert f'"threshold_flop":"{10**15}"' in old


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE texts SET text = replace(text, 'exponent = 15', 'exponent = 14')", "texts, digest"),
        ("DELETE FROM texts WHERE text LIKE '%board%'", "judged, regime site-rule"),
        ("DELETE FROM texts WHERE text LIKE '%flopmeter-counting%'", "judged, regime"),
        (
            'UPDATE events SET data = replace(data, \'"regime_digest":"\', \'"regime_digest":"0\')',
            "judged, regime eu-gpai: row",
        ),
        (
            "UPDATE events SET data = replace(data, '\"lower\"', '\"Lower\"') WHERE key LIKE '%site-rule%'",
            "event",
        ),
        ("UPDATE events SET data = replace(data, 'tell the board', 'tell nobody')", "data"),
        ("DELETE FROM events WHERE key LIKE '%site-rule%'", "event"),
    ],
)
def test_what_was_got_at_is_named(path, statement, said):
    alter(path, statement)
    result = check(path, shipped())
    assert result.difference is not None
    assert said in f"{result.difference.table}, {result.difference.key}: {result.difference.column}"


@pytest.fixture
def site_path(tmp_path: Path) -> Path:
    """A collector with a site's files, which changed once."""
    file, chain = tmp_path / "books.db", Chain("n")
    found = [OWN, of_files([LawFile("own.toml", HOUSE.replace('"house"', '"executed"').encode())])]
    laws = [found[0]]
    with Desk(file, laws=lambda: laws[0]) as desk:
        for laws[0] in found:
            desk.offer(desk.agent(chain), chain.next())
            desk.intake.review(desk.now)
            desk.commit()
    return file


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE site_laws SET law_no = 3 WHERE law_no = 2", "site_laws, law_no 3: law_no"),
        ("DELETE FROM site_laws WHERE law_no = 1", "site_laws, law_no 2: law_no"),
        ("UPDATE site_laws SET from_position = 5 WHERE law_no = 1", "site_laws, law_no 2: from_position"),
        ("UPDATE site_laws SET files = '5'", "site_laws, law_no 1: files"),
        ('UPDATE site_laws SET files = \'[["own.toml","00"]]\'', "site_laws, law_no 1: files, own.toml"),
        (
            "UPDATE site_laws SET files = (SELECT files FROM site_laws WHERE law_no = 1) WHERE law_no = 2",
            "judged, regime site-rule: row",
        ),
    ],
)
def test_the_sites_files_as_they_were_applied(site_path, statement, said):
    good(site_path)
    alter(site_path, statement)
    found = check(site_path).difference
    assert found is not None
    assert f"{found.table}, {found.key}: {found.column}" == said


def test_texts_cannot_be_changed_or_deleted(path):
    with closing(sqlite3.connect(path)) as db:
        for statement in ("UPDATE texts SET text = ''", "DELETE FROM texts"):
            with pytest.raises(sqlite3.IntegrityError, match="texts are never"):
                db.execute(statement)


def test_a_store_of_an_older_flopmeter_is_noted_and_not_accused(path):
    alter(path, "DELETE FROM texts")
    result = check(path, shipped())
    assert result.difference is None
    assert any("site-rule were not derived again" in note for note in result.notes), result.notes


def test_a_clock_that_was_set_back_before_the_upgrade_accuses_nobody():
    """What ended before the first commit that kept texts was an older flopmeter's, whatever the clock said then."""
    late = Judgement("r", "00", from_unix_ns=200, until_position=4)
    none = Texts((), ())
    none.check_kept([late], 100, since_position=5)
    for row, since_position in ((late, 4), (late, None), (late._replace(until_position=None), 5)):
        with pytest.raises(Difference, match="kept text"):
            none.check_kept([row], 100, since_position)


@pytest.mark.parametrize("at", [0, 10, 250, 400, 899])
def test_a_difference_of_long_values_is_shown_where_it_is(at):
    """Whoever reads what fsck says sees in what the two differ, not 300 characters that are the same."""
    long = "".join(chr(ord("a") + i % 26) for i in range(900))
    d = Difference("events", "event 4", "data", long, long[:at] + "#" + long[at + 1 :])
    assert "#" in d.got
    assert d.got != d.expected
    assert max(len(d.got), len(d.expected)) <= 300
