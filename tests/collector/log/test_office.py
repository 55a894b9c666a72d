"""Heads on time, beside a collector that takes records: said loudly when they cannot be made, and never in its way."""

import asyncio
import logging
import re
import sqlite3
import urllib.request
from contextlib import closing
from itertools import pairwise

import pytest
from builders import UNIX_NS, Chain
from click.testing import CliRunner
from desk import Desk
from log_rig import check_whole, opened, tamper
from processes import wait_for
from serving import settings_for
from wire_client import WireClient

from flopmeter.collector.check.fsck import check_store
from flopmeter.collector.errors import SettingsError
from flopmeter.collector.ingest.decide import TAKEN
from flopmeter.collector.keys import LOG_KEY, log_key
from flopmeter.collector.law.laws import read_laws
from flopmeter.collector.log.office import LogOffice, LogView
from flopmeter.collector.running import run_collector
from flopmeter.collector.settings import CollectorSettings
from flopmeter.evidence.merkle import verify_consistency

LOUD = "THE EVIDENCE LOG CONTRADICTS ITSELF"


def fill(path, count: int = 3) -> None:
    with Desk(path) as desk:
        chain = Chain()
        agent = desk.agent(chain)
        for _ in range(count):
            assert desk.offer(agent, chain.next()) is TAKEN
        desk.commit()


def in_office(path, script, **settings):
    """Run `script(office)` on an event loop; what `begun`, `released` and `contradicted` were told."""
    told: list[tuple[str, object]] = []

    async def released(checkpoint) -> None:
        with opened(path) as log:  # durable before anybody sees it, for another connection too
            assert log.checkpoint_of(checkpoint.size) is not None
        told.append(("released", checkpoint.size))

    async def main() -> None:
        office = LogOffice(
            path,
            path.parent / "keys",
            every_s=settings.pop("every_s", 60.0),
            unix_ns=lambda: UNIX_NS,
            begun=lambda: told.append(("begun", None)),
            released=released,
            contradicted=lambda said: told.append(("contradicted", said)),
            **settings,
        )
        try:
            await script(office)
        finally:
            await office.stop()

    asyncio.run(main())
    return told


def metric(running, name: str) -> float:
    with urllib.request.urlopen(f"http://{running.http_address}/metrics") as answer:
        (line,) = re.findall(rf"^flopmeter_collector_log_{name} (\S+)$", answer.read().decode(), re.MULTILINE)
    return float(line)


def test_a_head_is_durable_before_it_is_released_and_begun_before_it_is_looked_at(path):
    fill(path)

    async def script(office):
        head = await office.seal()
        assert (await office.seal()) == head
        assert office.standing.checkpoint_size == office.standing.size == head.size
        assert office.standing.proven_unix_ns == UNIX_NS

    told = in_office(path, script)
    assert [what for what, _ in told] == ["begun", "released"] * 2
    check_whole(path)


def test_an_empty_log_is_no_failure(path):
    async def script(office):
        assert await office.seal() is None
        assert office.standing.failures == 0

    assert in_office(path, script) == [("begun", None)]
    with opened(path) as log:
        assert log.identity is not None  # its keys can be handed out before the first leaf


def test_heads_are_made_every_so_often_and_at_the_stop(path):
    fill(path)

    async def script(office):
        office.start()
        first = asyncio.Event()

        async def told(_) -> None:
            first.set()

        office.on_release(told)
        await asyncio.wait_for(first.wait(), 60)
        fill_more(path)

    told = in_office(path, script, every_s=0.02)
    assert told[-1][0] == "released"  # the stop made one over what came last
    with opened(path) as log:
        assert log.latest().size == log.size == told[-1][1]


def test_a_stop_does_not_wait_for_a_log_that_has_much_to_catch_up_with(path, monkeypatch):
    """An older store's first heads take minutes; a stop makes one of them, of which nobody is told that it covers all."""
    monkeypatch.setattr("flopmeter.collector.log.seal.STEP_LEAVES", 50)
    fill(path, 300)

    async def script(office):
        office.start()

    told = in_office(path, script)
    assert [what for what, _ in told] == ["begun"]
    with opened(path) as log:
        assert log.latest().size == 50

    async def catch_up(office):
        await office.seal()
        assert office.standing.checkpoint_size == office.standing.size > 300

    assert in_office(path, catch_up)[-1][0] == "released"
    check_whole(path)


def fill_more(path) -> None:
    with opened(path) as log:
        db = log._connection
        db.execute("BEGIN IMMEDIATE")
        db.execute(
            "INSERT INTO losses (agent_no, from_seq, to_seq, noticed_unix_ns, reason) VALUES (1, 1, 1, 1, '')"
        )
        from flopmeter.collector.log.append import Appender

        Appender(db).append()
        db.execute("COMMIT")


def test_one_that_is_told_of_a_head_and_fails_stops_nobody(path, caplog):
    fill(path)
    heard = []

    async def script(office):
        async def bad(_) -> None:
            raise RuntimeError("a defect")

        async def good(head) -> None:
            heard.append(head.size)

        office.on_release(bad)
        office.on_release(good)
        assert await office.seal() is not None

    in_office(path, script)
    assert len(heard) == 1
    assert "telling of checkpoint 1 failed" in caplog.text


def test_a_store_that_cannot_be_written_is_tried_again_and_nothing_is_released(path, caplog, monkeypatch):
    fill(path)
    monkeypatch.setattr("flopmeter.collector.log.office.BUSY_TIMEOUT_S", 0.01)

    async def script(office):
        with closing(sqlite3.connect(path, isolation_level=None)) as holder:
            holder.execute("BEGIN IMMEDIATE")  # a hung writer; a full disk reads the same from here
            assert await office.seal() is None
            assert await office.seal() is None
            holder.execute("ROLLBACK")
        assert (office.standing.failures, office.standing.forked) == (2, False)
        assert await office.seal() is not None

    told = in_office(path, script)
    assert [what for what, _ in told].count("released") == 1
    assert "no checkpoint of the evidence log" in caplog.text
    assert "records go on being taken" in caplog.text
    assert "signed again" in caplog.text
    assert LOUD not in caplog.text


@pytest.mark.parametrize("what", ["mode", "another", "damaged", "missing"])
def test_a_key_that_must_not_be_used_signs_nothing(path, caplog, what):
    fill(path)
    keys = path.parent / "keys"

    async def once(office):
        assert await office.seal() is not None

    in_office(path, once)
    if what == "mode":
        (keys / LOG_KEY).chmod(0o644)
    else:
        (keys / LOG_KEY).unlink()
        if what == "another":
            log_key(keys)
        elif what == "damaged":
            (keys / LOG_KEY).touch(0o600)
    fill_more(path)

    async def never(office):
        assert await office.seal() is None
        assert (office.standing.failures, office.standing.forked) == (1, False)

    in_office(path, never)
    with opened(path) as log:
        assert len(list(log.checkpoints())) == 1
    # No other is made in its place, which a backup of the keys would then hold.
    assert (keys / LOG_KEY).exists() == (what != "missing")


def test_a_store_that_was_replaced_under_it_releases_nothing(path, tmp_path):
    fill(path)

    async def script(office):
        assert await office.seal() is not None
        moved = tmp_path / "moved.sqlite"
        with opened(path) as log:
            log._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        path.rename(moved)
        path.write_bytes(moved.read_bytes())
        assert await office.seal() is None
        assert office.standing.failures == 1

    told = in_office(path, script)
    assert [what for what, _ in told].count("released") == 1


def test_a_contradiction_stops_the_signing_raises_an_event_once_and_records_are_taken(tmp_path, caplog):
    settings = settings_for(tmp_path, checkpoint_s=1)
    chain = Chain()
    with run_collector(settings) as running:
        with WireClient(running.address, chain) as client:
            client.hello()
            client.records(chain.next(), chain.next())
            client.ack(2)
            first = running.seal()
            assert first is not None
            assert metric(running, "forked") == 0
            client.records(chain.next())
            client.ack(3)
            raw = bytearray(stored(running, "SELECT record FROM records WHERE position = 3"))
            raw[-1] ^= 1
            tamper(running.store_path, "UPDATE records SET record = ? WHERE position = 3", bytes(raw))
            with caplog.at_level(logging.CRITICAL):
                assert running.seal() is None
                assert running.seal() is None
            assert LOUD in caplog.text
            assert metric(running, "forked") == 1
            assert metric(running, "failures_total") >= 2
            assert metric(running, "checkpoint_size") == first.size
            running.review()
            wait_for("the event", lambda: stored(running, "SELECT count(*) FROM log_faults") == 1, 60)
            running.review()
            client.records(chain.next())  # and records go on being taken
            client.ack(4)
        events = rows(running, "SELECT key, subject, data FROM events WHERE type = 'evidence.fork'")
        assert len(events) == 1
        assert events[0][1] == "log"
        assert "which the row now gives" in events[0][2]
        assert rows(running, "SELECT key FROM log_faults") == [events[0][:1]]
        raw[-1] ^= 1
        tamper(running.store_path, "UPDATE records SET record = ? WHERE position = 3", bytes(raw))
        assert running.seal() is not None
        assert metric(running, "forked") == 0
        path = running.store_path
    check_whole(path)
    assert check_store(path, read_laws(None).binding).difference is None
    tamper(path, "UPDATE log_faults SET said = 'nothing'")
    assert check_store(path, read_laws(None).binding).difference.table in ("events", "log_faults")


def rows(running, sql: str) -> list:
    with closing(sqlite3.connect(running.store_path)) as db:
        return db.execute(sql).fetchall()


def stored(running, sql: str):
    return rows(running, sql)[0][0]


def test_all_that_was_acknowledged_is_under_a_head_after_the_stop_and_starts_go_on(tmp_path):
    """A storm of restarts: each finds its log, and leaves it whole."""
    settings, chain = settings_for(tmp_path), Chain()
    heads = []
    for start in range(6):
        with run_collector(settings) as running:
            if start % 2:
                with WireClient(running.address, chain) as client:
                    client.hello()
                    client.records(chain.next())
                    client.ack(chain.seq)
            path = running.store_path
        with opened(path) as log:
            assert log.latest().size == log.size
            heads.append(log.latest())
    check_whole(path)
    view = LogView(path)
    for old, new in pairwise(heads):
        proof = view.consistency(old.size, new.size)
        verify_consistency(old.size, old.root, new.size, new.root, proof)
    assert view.latest() == heads[-1]
    assert view.vkey().startswith(heads[0].origin)


def test_another_name_for_the_log_is_refused_before_anything_is_served(tmp_path):
    with run_collector(settings_for(tmp_path, log_origin="lab.example/one")) as running:
        running.review()  # something is in it then: by which laws it judges
        assert running.seal().origin == "lab.example/one"
    for again in ("", "lab.example/one"):
        run_collector(settings_for(tmp_path, log_origin=again)).stop()
    with pytest.raises(SettingsError, match="under which this store's log was begun"):
        run_collector(settings_for(tmp_path, log_origin="lab.example/two"))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"checkpoint_s": 0}, "--checkpoint-s: expected 1 to 60"),
        ({"checkpoint_s": 61}, "--checkpoint-s: expected 1 to 60"),
        ({"log_origin": "a b"}, "--log-origin: expected"),
        ({"log_origin": "a+b"}, "--log-origin: expected"),
        ({"log_origin": "a\nb"}, "--log-origin: expected"),
        ({"log_origin": "x" * 10_000}, "--log-origin: expected"),
        ({"log_origin": "caf\u00e9"}, "--log-origin: expected"),
    ],
)
def test_settings_out_of_range(values, said):
    with pytest.raises(SettingsError, match=said) as e:
        CollectorSettings(**values)
    assert len(str(e.value)) < 500


def test_the_command_line_takes_the_settings():
    from flopmeter.collector.cli import serve

    said = CliRunner().invoke(serve, ["--help"]).output
    for name in ("--keys", "--log-origin", "--checkpoint-s"):
        assert name in said
