"""fleet.capacity: raised once, in the transaction that makes it true; and fsck derives it again from the records."""

import hashlib
import json
import sqlite3
import time
from contextlib import suppress

import pytest
from builders import Chain, busy
from desk import DAY_NS, Desk
from faulty_sqlite import Crash, Faults
from filing_ledger import regime
from hypothesis import given, settings
from hypothesis import strategies as st
from relog import relog

from flopmeter.collector.check.fsck import check_store
from flopmeter.collector.errors import CollectorError, StoreChangedError, StoreError
from flopmeter.collector.law.events import FLEET_CAPACITY
from flopmeter.collector.law.severity import Severity, severity_of
from flopmeter.collector.report.capacity_watch import Standing
from flopmeter.collector.report.machines import Told, counted, machines
from flopmeter.collector.report.queries import reading
from flopmeter.collector.report.sites import parse_sites
from flopmeter.collector.running import RunningCollector
from flopmeter.collector.settings import CollectorSettings
from flopmeter.contract.usage import Device, Inventory
from flopmeter.wire.v1 import batch_pb2

H100 = "NVIDIA H100 80GB HBM3"
BF16 = 132 * 4096 * 1_830_000_000
SITES = parse_sites(
    "sites",
    b"""
[[site]]
name = "west"
clusters = ["c1"]
network_gbit_per_s = 400
""",
)
DARK = parse_sites("sites", b'[[site]]\nname = "west"\nclusters = ["c1"]\n')


def line(gpus, **keys):
    return regime(
        "1",
        regime_id="xx-cluster",
        **{
            "threshold_flop": "",
            "threshold_op_s": f'"{gpus * BF16}"',
            "network_gbit_s": "100",
            "precision": '"bf16"',
            "one_datacenter": "true",
            "comparison": '">="',
            "unit": '"operations-per-second"',
            "scope": '"fleet-capacity"',
            "counting": '"executed"',
            "effective": "2025-01-01",
            "status_as_of": "2025-01-02",
        }
        | keys,
    )


@pytest.fixture
def path(tmp_path):
    return tmp_path / "books.sqlite"


def events(desk):
    return [
        (key, json.loads(data))
        for key, data in desk.rows(
            "SELECT key, data FROM events WHERE type = ? ORDER BY event_no", FLEET_CAPACITY
        )
    ]


def good(path, law):
    result = check_store(path, (law,))
    assert result.difference is None, result.difference
    return result


MET, MAY = "capacity:xx-cluster:site/west:crossed", "capacity:xx-cluster:site/west:undetermined"


def test_it_is_raised_by_the_gpu_that_makes_it_true_and_once(path):
    law = line(4)
    with Desk(path, (law,), sites=SITES) as desk:
        one, two, three = Chain("n1"), Chain("n2"), Chain("n3")
        first, second = desk.agent(one), desk.agent(two)
        desk.offer(first, one.next())
        desk.commit()
        assert events(desk) == []
        desk.offer(second, two.next())
        done = desk.commit()
        ((key, data),) = events(desk)
        assert key == MET == done.events[0].key
        assert (data["site"], data["gpus_sure"], data["op_per_s"]["lower"]) == ("west", "4", str(4 * BF16))
        assert data["message"].startswith("Site west is past the line of A law of the test (>= ")
        assert "not a measure of risk" in data["message"]
        assert (data["sites_digest"], data["regime_digest"]) == (SITES.digest, law.digest)
        assert severity_of(FLEET_CAPACITY, data) is Severity.CRITICAL
        desk.offer(desk.agent(three), three.next())
        desk.offer(first, one.next())
        assert not desk.commit().events
        assert len(events(desk)) == 1
    good(path, law)


def test_nothing_is_raised_twice_after_a_start_and_a_failed_commit(path):
    law = line(2)
    with Desk(path, (law,), sites=SITES) as desk:
        chain = Chain("n1")
        agent = desk.agent(chain)
        desk.offer(agent, chain.next())
        desk.commit()
        desk.recover()
        agent = desk.agent(chain)
        desk.offer(agent, chain.next())
        assert not desk.commit().events
    with Desk(path, (law,), sites=SITES) as desk:
        agent = desk.agent(chain)
        desk.offer(agent, chain.next())
        assert not desk.commit().events
        assert [key for key, _ in events(desk)] == [MET]
    good(path, law)


def test_what_nobody_named_makes_it_cannot_be_told_and_naming_it_decides(path):
    """A start with another file of sites is a real change: another answer, another event."""
    law = line(2)
    with Desk(path, (law,), sites=DARK) as desk:
        chain = Chain("n1")
        desk.offer(desk.agent(chain), chain.next())
        desk.commit()
        ((key, data),) = events(desk)
        assert key == MAY
        assert "it depends on GPUs whose site or network nobody named" in data["message"]
    good(path, law)
    with Desk(path, (law,), sites=SITES) as desk:
        desk.intake.group.review = True
        desk.commit()
        assert [key for key, _ in events(desk)] == [MAY, MET]
    good(path, law)


def test_two_starts_with_other_files_and_no_record_between(path):
    law = line(2)
    chain = Chain("n1")
    with Desk(path, (), sites=DARK) as desk:
        desk.offer(desk.agent(chain), chain.next())
        desk.commit()
    for sites, keys in ((DARK, [MAY]), (SITES, [MAY, MET]), (DARK, [MAY, MET])):
        with Desk(path, (law,), sites=sites) as desk:
            desk.intake.group.review = True
            desk.commit()
            assert [key for key, _ in events(desk)] == keys
        good(path, law)
    with Desk(path, (law,), sites=DARK) as desk:
        desk.offer(desk.agent(chain), chain.next())
        desk.commit()
    good(path, law)


def test_without_a_file_of_sites_it_cannot_be_told(path):
    law = line(2)
    with Desk(path, (law,)) as desk:
        chain = Chain("n1")
        desk.offer(desk.agent(chain), chain.next())
        desk.commit()
        assert [key for key, _ in events(desk)] == ["capacity:xx-cluster:site/:undetermined"]
    good(path, law)


def test_a_law_that_comes_into_force_meets_a_fleet_that_stood_still(path):
    law = line(2, effective="2026-10-01", status_as_of="2026-01-02", status='"enacted"')
    with Desk(path, (law,), sites=SITES) as desk:
        assert desk.now < 1_790_812_800_000_000_000, "before 2026-10-01"
        chain = Chain("n1")
        desk.offer(desk.agent(chain), chain.next())
        desk.commit()
        assert events(desk) == []
        desk.now += 30 * DAY_NS
        desk.intake.group.review = True
        desk.commit()
        assert [key for key, _ in events(desk)] == [MET]
    good(path, law)


@pytest.mark.parametrize("status", ['"revoked"', '"proposed"'])
def test_a_law_that_binds_nobody_raises_nothing_and_costs_nothing(path, status):
    law = line(1, status=status)
    with Desk(path, (law,), sites=SITES) as desk:
        assert desk.writer._capacity is None
        chain = Chain("n1")
        desk.offer(desk.agent(chain), chain.next())
        desk.commit()
        assert events(desk) == []


def test_an_inventory_that_comes_back_is_seen(path):
    """Of two cards, then one, then two again: the second event's condition was false in between, and it is one event."""
    law = line(2)
    chain = Chain("n1")
    whole, digest = chain.inventory, chain.digest
    message = batch_pb2.Inventory.FromString(whole)
    del message.devices[1:]
    one = message.SerializeToString()
    with Desk(path, (law,), sites=SITES) as desk:
        chain.inventory, chain.digest = one, hashlib.sha256(one).digest()
        desk.offer(desk.agent(chain), chain.next([busy(0)]))
        desk.commit()
        assert events(desk) == []
        chain.inventory, chain.digest = whole, digest
        desk.offer(desk.agent(chain), chain.next())
        desk.commit()
        assert [key for key, _ in events(desk)] == [MET]
    good(path, law)


def test_no_card_that_is_told_of_twice_counts_twice(path):
    """Two agents of one node: its two GPUs are two."""
    law = line(4)
    with Desk(path, (law,), sites=SITES) as desk:
        for chain in (Chain("n1"), Chain("n1", key_seed="again")):
            desk.offer(desk.agent(chain), chain.next())
            desk.commit()
        assert events(desk) == []
    good(path, law)


# --- fsck ---


@pytest.fixture
def stored(path):
    law = line(4)
    with Desk(path, (law,), sites=SITES) as desk:
        for name in ("n1", "n2", "n3"):
            chain = Chain(name)
            desk.offer(desk.agent(chain), chain.next())
            desk.commit()
    good(path, law)
    return path, law


def tampered(path, *statements):
    with sqlite3.connect(path) as db:
        db.create_function("sha256", 1, lambda t: hashlib.sha256(t.encode()).hexdigest())
        names = ("texts_stay", "texts_are_kept")
        kept = [db.execute("SELECT sql FROM sqlite_master WHERE name = ?", (n,)).fetchone()[0] for n in names]
        for name in names:
            db.execute(f"DROP TRIGGER {name}")
        for sql in statements:
            assert db.execute(sql).rowcount, sql
        for sql in kept:
            db.execute(sql)
    db.close()


@pytest.mark.parametrize(
    ("sql", "table", "column"),
    [
        ("DELETE FROM events WHERE type = 'fleet.capacity'", "events", "row"),
        (
            "UPDATE events SET data = json_set(data, '$.gpus_sure', '5') WHERE type = 'fleet.capacity'",
            "events",
            "data",
        ),
        (
            "UPDATE events SET position = 1, since_position = 1 WHERE type = 'fleet.capacity'",
            "events",
            "key",
        ),
        (
            "UPDATE events SET position = 3, since_position = 3 WHERE type = 'fleet.capacity'",
            "events",
            "since_position",
        ),
        ("UPDATE events SET subject = 'site/east' WHERE type = 'fleet.capacity'", "events", "subject"),
        ("DELETE FROM texts WHERE text LIKE '%[[site]]%'", "texts", "row"),
        ("UPDATE texts SET text = replace(text, '400', '401') WHERE text LIKE '%[[site]]%'", "texts", "text"),
        (
            "UPDATE events SET data = json_set(data, '$.sites_digest', '') WHERE type = 'fleet.capacity'",
            "events",
            "data.sites_digest",
        ),
        ("DELETE FROM noted WHERE name LIKE 'sites:%'", "events", "data.sites_digest"),
        (
            "UPDATE events SET data = json_set(data, '$.regime_text', 'x') WHERE type = 'fleet.capacity'",
            "events",
            "data.regime_text",
        ),
    ],
)
def test_fsck_names_what_was_changed(stored, sql, table, column):
    path, law = stored
    tampered(path, sql)
    difference = check_store(path, (law,)).difference
    assert difference is not None
    assert (difference.table, difference.column) == (table, column), difference


def test_fsck_says_that_an_event_by_another_w_table_was_not_derived_again(stored):
    path, law = stored
    tampered(
        path, "UPDATE events SET data = json_set(data, '$.w_table', 'w-1') WHERE type = 'fleet.capacity'"
    )
    relog(path)
    assert "events of capacity by w-1 were not derived again" in good(path, law).notes


@pytest.mark.parametrize("dies", [False, True], ids=["error", "crash"])
@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("statement", ["COMMIT", "INSERT INTO events", "INSERT OR REPLACE INTO noted"])
def test_a_commit_that_fails_loses_no_event_and_raises_none_twice(path, statement, before, dies):
    law, faults, chain = line(2), Faults(), Chain("n1")
    desk = Desk(path, (law,), sites=SITES, connect=faults.connect)
    desk.offer(desk.agent(chain), chain.next())
    faults.plan(statement, before=before, error=Crash() if dies else None)
    with pytest.raises(Crash if dies else StoreError):
        desk.commit()
    assert faults.error is None, "the statement did not run: this case tests nothing"
    if dies:
        desk.close()
        desk = Desk(path, (law,), sites=SITES, connect=faults.connect)
    else:
        desk.recover()
    persisted = statement == "COMMIT" and not before
    assert len(events(desk)) == persisted
    desk.offer(desk.agent(chain, oldest_seq=1), chain.records[0])
    desk.intake.group.review = True
    desk.commit()
    assert [key for key, _ in events(desk)] == [MET]
    desk.close()
    good(path, law)


# --- the arithmetic of what stands where ---


def inventory(node, cluster, uuids):
    return Inventory(node, cluster, "", "", "", tuple(Device(u, H100, "9.0", 132, 1980) for u in uuids))


told = st.tuples(
    st.integers(1, 4), st.sampled_from(["c1", "c2"]), st.sets(st.sampled_from(["a", "b", "c", "d"]))
)


@settings(deadline=None)
@given(st.lists(told, max_size=20))
def test_what_is_kept_up_is_what_is_counted_from_nothing(steps):
    """After any course of inventories: the same as machines() finds in the last ones, by the order of agents."""
    standing, last = Standing(SITES), {}
    for number, cluster, uuids in steps:
        last[number] = inventory(f"n{number}", cluster, sorted(uuids))
        standing.tell(number, last[number])
        again = Standing(SITES)
        for n in sorted(last):
            again.tell(n, last[n])
        kept = {key: n for key, n in standing.counts.items() if n}
        assert kept == {key: n for key, n in again.counts.items() if n}
        assert kept == counted(machines([Told(i, n) for n, i in last.items()], SITES))


# --- the whole collector ---


def test_collector_serve_takes_the_file_of_sites(path, tmp_path):
    """Its setting reaches the writer; the events' list shows what it raised, and fsck agrees."""
    chain = Chain("n1")
    with Desk(path) as desk:
        desk.offer(desk.agent(chain), chain.next())
        desk.commit()
    laws = tmp_path / "laws"
    laws.mkdir()
    law = line(2)
    (laws / "xx-cluster.toml").write_text(law.text)
    sites = tmp_path / "sites.toml"
    sites.write_text(SITES.text)
    settings = CollectorSettings(store=path, listen="127.0.0.1:0", http="", regimes=laws, sites=sites)
    running = RunningCollector(settings, review_s=0.05)
    try:
        found, deadline = [], time.monotonic() + 60
        while not found and time.monotonic() < deadline:
            with suppress(StoreChangedError), reading(path) as reader:
                found = [e for e in reader.events() if e["type"] == FLEET_CAPACITY]
    finally:
        running.stop()
    assert [(e["subject"], e["data"]["verdict"]) for e in found] == [("site/west", "crossed")]
    good(path, law)


def test_a_bad_file_of_sites_stops_the_start(path, tmp_path):
    sites = tmp_path / "sites.toml"
    sites.write_text("[[site]]\n")
    settings = CollectorSettings(store=path, listen="127.0.0.1:0", http="", sites=sites)
    with pytest.raises(CollectorError, match="site 1: name: expected a line"):
        RunningCollector(settings)
    assert not path.exists(), "nothing was made"
