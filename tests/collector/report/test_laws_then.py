"""Runs as of a time are shown by the law files of that time, which the store kept."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from builders import Chain
from click.testing import CliRunner
from desk import DAY_NS, Desk
from law_files import REGIME

from flopmeter.collector.law.laws import LawFile, of_files
from flopmeter.collector.law.regimes import shipped
from flopmeter.collector.report.cli import runs
from flopmeter.collector.report.laws_then import regimes_then
from flopmeter.collector.spelling import time_text


def laws(exponent: int, version: str):
    text = REGIME.replace("exponent = 24", f"exponent = {exponent}").replace('"1"', f'"{version}"', 1)
    return of_files([LawFile("own.toml", text.encode())])


@pytest.fixture
def then(tmp_path: Path) -> tuple[Path, list[int]]:
    """A line at 10^15, a day later at 10^20, a day later none; and a moment in each."""
    path, chain, moments = tmp_path / "books.db", Chain("n"), []
    now = [laws(15, "1")]
    with Desk(path, laws=lambda: now[0]) as desk:
        agent = desk.agent(chain)
        for now[0] in (laws(15, "1"), laws(20, "2"), of_files(())):
            desk.offer(agent, chain.next())
            desk.intake.review(desk.now)
            desk.commit()
            moments.append(desk.now + DAY_NS // 2)
            desk.now += DAY_NS
    return path, moments


def test_each_time_has_the_texts_of_its_day(then):
    path, moments = then
    found = [{r.id: r for r in regimes_then(path, at, ())}.get("site-rule") for at in moments]
    assert [r and (r.version, r.threshold_flop) for r in found] == [("1", 10**15), ("2", 10**20), None]
    assert regimes_then(path, 5, shipped()) == shipped()  # before anything was judged


def test_runs_as_of_name_the_version(then):
    path, moments = then
    for at, wanted in zip(moments, (("1", "crossed"), ("2", "below"), None), strict=True):
        out = CliRunner().invoke(
            runs,
            ["show", "r1", "--as-of", time_text(at), "--store", str(path), "--json"],
            catch_exceptions=False,
        )
        document = json.loads(out.stdout)
        by_id = {t["regime"]: t for t in document["thresholds"]}
        site = by_id.get("site-rule")
        assert (site and (site["version"], site["verdict_of_records"])) == wanted
        assert by_id["eu-gpai"]["digest"] == next(r.digest for r in shipped() if r.id == "eu-gpai")


def test_where_a_text_was_not_kept_the_regimes_here_stand_in(then):
    path, moments = then
    with closing(sqlite3.connect(path)) as db:
        db.executescript("DROP TRIGGER texts_are_kept; DELETE FROM texts;")
    assert regimes_then(path, moments[0], shipped()) == shipped()
