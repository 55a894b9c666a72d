"""Stores from before usage stood in slots: they stay good, keep their meaning, and go on by the new rule."""

import sqlite3
from contextlib import closing

import pytest
from builders import UNIX_NS, WINDOW_NS, Chain, batch, busy
from desk import Desk
from old_stores import first_schema

from flopmeter.collector.books import BRIDGE, BRIDGE_S, HOUR_NS, slot_of
from flopmeter.collector.check.fsck import check_store, result_text
from flopmeter.collector.ingest.decide import TAKEN
from flopmeter.collector.law.regimes import shipped
from flopmeter.collector.registry.entries import Purpose, Tag
from flopmeter.collector.registry.say import say
from flopmeter.collector.report.queries import asked, reading

BROAD = next(r for r in shipped() if r.id == "eu-systemic-risk")
AWAY_NS = 20 * HOUR_NS
TO_HOUR_NS = -UNIX_NS % HOUR_NS
DAY_NS = 24 * HOUR_NS


def window(chain: Chain, length_ns: int) -> bytes:
    """The next record, of `length_ns`; as an agent's that was away for that long."""
    boot, unix = (chain.boot_ns, chain.boot_ns + length_ns), (chain.unix_ns, chain.unix_ns + length_ns)
    message = batch(chain.digest, [busy(0, duration_ns=length_ns)], boot_ns=boot, unix_ns=unix)
    raw = chain.next(payload=message.SerializeToString())
    chain.boot_ns, chain.unix_ns = boot[1], unix[1]
    return raw


def lived(desk: Desk, chain: Chain) -> int:
    """Some windows that end with the hour among them, an outage, some more; the hour of the return."""
    agent = desk.agent(chain)
    for length in [*[WINDOW_NS] * 3, AWAY_NS, *[WINDOW_NS] * 3]:
        raw = window(chain, length)
        desk.now = chain.unix_ns
        assert desk.offer(agent, raw) is TAKEN
        desk.commit()
    return (chain.unix_ns - 3 * WINDOW_NS) // HOUR_NS


def left_out(path, now) -> tuple[int, int]:
    """(of, executed) the run, by the point."""
    with reading(path) as reader:
        (run,) = reader.runs(asked(now, (BROAD,)), "r1")
    executed = int(run["executed"]["flop"]["point"])
    return executed - int(run["countable"][BROAD.id]["flop"]["point"]), executed


@pytest.fixture
def old(tmp_path):
    """A store of the first schema, its usage under the hour of the windows' ends; its agent, and the hour of its return."""
    path, chain = tmp_path / "books.sqlite", Chain("n", gpus=1)
    chain.unix_ns += TO_HOUR_NS - 2 * WINDOW_NS  # the second window ends with the hour
    with pytest.MonkeyPatch.context() as patch, Desk(path, [BROAD]) as desk:
        patch.setattr("flopmeter.collector.ingest.intake.slot_of", lambda *ends: slot_of(*ends, bridge_s=0))
        hour = lived(desk, chain)
    first_schema(path)
    return path, chain, hour


def test_an_old_store_is_good_and_says_what_stands_in_one_hour(old):
    path, chain, _ = old
    with Desk(path, [BROAD]) as desk:
        desk.now = chain.unix_ns
        result = check_store(path, [BROAD])
        assert result.difference is None, result_text(result)
        assert next(n for n in result.notes if "older flopmeter" in n).startswith(
            "records before position 8 "
        )
        rows = desk.rows("SELECT DISTINCT hour, back FROM hourly ORDER BY 1")
        first = (UNIX_NS + TO_HOUR_NS) // HOUR_NS
        assert rows == [(first - 1, 0), (first, 0), (first + 20, 0)]


def test_it_goes_on_by_the_new_rule_and_what_was_booked_keeps_its_meaning(old):
    path, chain, first_return = old
    with Desk(path, [BROAD]) as desk:
        desk.now = chain.unix_ns
        chain.unix_ns += -chain.unix_ns % HOUR_NS
        second_return = lived(desk, chain)
        assert desk.rows("SELECT value, from_position FROM noted WHERE name = ?", BRIDGE) == [(BRIDGE_S, 8)]
        result = check_store(path, [BROAD])
        assert result.difference is None, result_text(result)
        assert "hours: 1. " in next(n for n in result.notes if "older flopmeter" in n)

        one_window = left_out(path, desk.now)[1] // (2 * (6 + 20 * 60))
        for hour, windows in ((first_return, 3 + 20 * 60), (second_return, 3)):
            evidence = (f"https://lab/{hour}",)
            before = left_out(path, desk.now)[0]
            desk.now += 1
            say(
                path,
                lambda _, hour=hour, evidence=evidence: Tag(
                    "r1", Purpose.EVALUATION, hour, hour + 1, evidence=evidence
                ),
                "ada",
                "eval",
                lambda: desk.now,
            )
            taken = left_out(path, desk.now)[0] - before
            assert round(taken / one_window) == windows
        assert desk.intake.review(desk.now + DAY_NS)
        desk.commit()
        assert check_store(path, [BROAD]).difference is None


@pytest.mark.parametrize(
    ("sql", "table"),
    [
        ("UPDATE noted SET from_position = 1 WHERE name = 'bridge-seconds'", "hourly"),
        ("UPDATE noted SET from_position = 99 WHERE name = 'bridge-seconds'", "noted"),
        ("DELETE FROM noted WHERE name = 'bridge-seconds'", "noted"),
    ],
)
def test_since_when_is_part_of_what_is_checked(old, sql, table):
    path, chain, _ = old
    with Desk(path, [BROAD]) as desk:
        desk.now = chain.unix_ns
        lived(desk, chain)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        assert db.execute(sql).rowcount == 1
    found = check_store(path, [BROAD]).difference
    assert found is not None
    assert found.table == table
