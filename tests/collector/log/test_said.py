"""`collector log show` and GET /evidence: how the log and its witnesses stand, the last error of each with it."""

import json
import sqlite3
from contextlib import closing

import pytest
from api_books import asked
from builders import Chain
from click.testing import CliRunner
from duty_books import busy_minute, opened, regime

from flopmeter.collector.log.cli import log

GOOD = ("good.example", "good.example+00000000+AA", 7, 7, 1_790_000_000, 1_790_000_060_000_000_000, "")
BAD = (
    "bad.example",
    "bad.example+00000000+AA",
    0,
    None,
    None,
    1_790_000_060_000_000_000,
    "503: \x1b[31mfull " + "x" * 120,
)


@pytest.fixture
def store(tmp_path):
    path = tmp_path / "books.sqlite"
    with opened(path, regime()) as desk:
        busy_minute(desk, Chain("gpu-1"))
    with closing(sqlite3.connect(path)) as db, db:
        db.executemany("INSERT INTO witnesses VALUES (?, ?, ?, ?, ?, ?, ?)", [GOOD, BAD])
    return path


def test_each_witness_is_shown_with_its_last_error(store):
    shown = CliRunner().invoke(log, ["show", "--store", str(store)]).output
    assert "good.example: cosigned 7 leaves at 2026-09-21T14:13:20Z" in " ".join(shown.split())
    assert "bad.example: cosigned nothing yet" in shown
    assert "last error: 503: ?[31mfull" in shown
    assert "\x1b" not in shown
    assert all(len(line) <= 80 for line in shown.splitlines() if "xxx" not in line and "vkey" not in line)


def test_json_and_the_api_say_the_same(store):
    found = json.loads(CliRunner().invoke(log, ["show", "--json", "--store", str(store)]).output)
    witnesses = found.pop("witnesses")
    evidence = asked(store).get("evidence")
    assert witnesses == evidence["witnesses"]
    assert found == evidence["log"]
    assert [w["error"] is None for w in witnesses] == [False, True]
    assert found["leaves"]["batch"] == 1
