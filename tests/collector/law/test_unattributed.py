"""Busy and nobody's: raised once per node and day, with exact figures, derived again by fsck."""

import json
import sqlite3
from dataclasses import replace

import pytest
from builders import UNIX_NS, Chain, busy, gap
from desk import Desk
from relog import relog

from flopmeter.collector.check.fsck import check_store, result_text
from flopmeter.collector.ingest.decide import TAKEN
from flopmeter.collector.law.unattributed import over
from flopmeter.contract.usage import IDLE, UNATTRIBUTED, Measured, Workload, WorkloadKind

MINUTE_NS = 60_000_000_000
DAY_MINUTES = 24 * 60
STEP_MINUTES = 10
TRAINING = Workload(WorkloadKind.SLURM, job="4711", run="r1", dtype="bf16")
MIDNIGHT_NS = UNIX_NS + -UNIX_NS % (DAY_MINUTES * MINUTE_NS)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "books.sqlite"


def at_midnight(name, gpus=1):
    chain = Chain(name, gpus=gpus)
    chain.boot_ns += MIDNIGHT_NS - UNIX_NS
    chain.unix_ns = MIDNIGHT_NS
    return chain


def step(chain, rows, workloads=(UNATTRIBUTED, TRAINING, IDLE)):
    """Ten minutes."""
    ns = STEP_MINUTES * MINUTE_NS
    batch = chain.batch(rows, workloads)
    batch.window_end_boot_ns, batch.window_end_unix_ns = chain.boot_ns + ns, chain.unix_ns + ns
    raw = chain.next(payload=batch.SerializeToString())
    chain.boot_ns, chain.unix_ns = batch.window_end_boot_ns, batch.window_end_unix_ns
    return raw


def ten(entity=0, workload=0):
    return busy(entity, workload, duration_ns=STEP_MINUTES * MINUTE_NS)


def run(desk, chain, steps, rows=None, *, each=True):
    """The events of so many steps, committed one by one or together."""
    agent, events = desk.agent(chain), []
    for _ in range(steps):
        desk.offer(agent, step(chain, rows or [ten()]))
        if each:
            events += desk.commit().events
    return events if each else list(desk.commit().events)


def desk_on(path, **more):
    desk = Desk(path, **more)
    desk.now = MIDNIGHT_NS + 30 * DAY_MINUTES * MINUTE_NS
    return desk


def good(path):
    result = check_store(path, ())
    assert result.difference is None, result_text(result)
    return result


@pytest.mark.parametrize(
    ("minutes", "limit", "said"), [(60, 60, False), (61, 60, True), (10**9, 0, False), (1, 1, False)]
)
def test_the_limit_must_be_passed_and_0_is_none(minutes, limit, said):
    assert over(minutes * MINUTE_NS, limit) is said
    assert over(minutes * MINUTE_NS + 1, limit) is (limit > 0 and minutes >= limit)


@pytest.mark.parametrize("each", [True, False])
def test_an_event_when_the_day_passes_the_limit_with_exact_figures(path, each):
    with desk_on(path) as desk:
        assert run(desk, at_midnight("quiet"), 6, each=each) == [], "an hour is let pass"
        (event,) = run(desk, at_midnight("n1"), 12, each=each)
        steps = 7 if each else 12
        assert event.type == "usage.unattributed"
        assert event.subject == "node/c1/n1"
        assert event.data["day"] == "2026-09-22"
        assert event.data["device_seconds"] == steps * 600
        assert event.data["limit_minutes"] == 60
        flop = 132 * 1_700_000_000 * 600 * 40 // 100 * 4096
        assert event.data["flop"]["point"] == str(steps * flop)
        assert int(event.data["flop"]["lower"]) < steps * flop < int(event.data["flop"]["upper"])
    good(path)


def test_all_gpus_of_a_node_are_added_and_nodes_are_not(path):
    with desk_on(path) as desk:
        (event,) = run(desk, at_midnight("n1", 2), 4, [ten(0), ten(1)])
        assert event.data["device_seconds"] == 4 * 2 * 600
        assert run(desk, at_midnight("n2", 2), 6, [ten(0), ten(1, 1)]) == []
        assert run(desk, at_midnight("n3", 2), 6, [ten(0), ten(1, 1)]) == []
    good(path)


@pytest.mark.parametrize(
    "rows",
    [
        [ten(0, 1)],
        [ten(0, 2)],
        [gap(0, 0, duration_ns=STEP_MINUTES * MINUTE_NS)],
    ],
    ids=["a job's", "idle", "a gap: nobody saw it busy"],
)
def test_what_is_owned_idle_or_unseen_is_no_alarm(path, rows):
    with desk_on(path) as desk:
        assert run(desk, at_midnight("n1"), 20, rows) == []
    good(path)


def test_what_began_on_an_earlier_day_is_told_of_and_said(path):
    """An agent was down over midnight: how much of it was of which day cannot be known."""
    chain = at_midnight("n1")
    length = 20 * 60 * MINUTE_NS
    chain.unix_ns -= length - 30 * MINUTE_NS
    batch = chain.batch([busy(0, duration_ns=length)], (UNATTRIBUTED,))
    batch.window_end_boot_ns, batch.window_end_unix_ns = chain.boot_ns + length, chain.unix_ns + length
    with desk_on(path) as desk:
        assert desk.offer(desk.agent(chain), chain.next(payload=batch.SerializeToString())) is TAKEN
        (event,) = desk.commit().events
        assert event.data["day"] == "2026-09-22"
        assert event.data["device_seconds"] == event.data["earlier_device_seconds"] == 20 * 3600
        assert (
            "20.00 GPU-h so far, 20.00 of it in windows that began on an earlier day, without"
            in event.data["message"]
        )
    good(path)


def test_each_day_anew_and_once_a_day(path):
    with desk_on(path) as desk:
        events = run(desk, at_midnight("n1"), 3 * 144)
        assert [e.data["day"] for e in events] == ["2026-09-22", "2026-09-23", "2026-09-24"]
    good(path)


def test_two_days_in_one_commit_are_two_events(path):
    with desk_on(path) as desk:
        events = run(desk, at_midnight("n1"), 160, each=False)
        assert [e.data["day"] for e in events] == ["2026-09-22", "2026-09-23"]
    good(path)


def test_it_is_not_raised_again_by_a_collector_that_starts_anew(path):
    chain, raised = at_midnight("n1"), []
    for _ in range(12):
        with desk_on(path) as desk:
            raised += run(desk, chain, 1)
    assert [e.data["device_seconds"] for e in raised] == [7 * 600]
    good(path)


def test_a_failed_commit_forgets_what_it_added(path):
    chain = at_midnight("n1")
    with desk_on(path) as desk:
        run(desk, chain, 6)
        desk.recover()
        (event,) = run(desk, chain, 1)
        assert event.data["device_seconds"] == 7 * 600
    good(path)


def test_another_limit_is_noted_and_holds_from_then_on(path):
    chain = at_midnight("n1")
    with desk_on(path, unattributed_minutes=0) as desk:
        assert run(desk, chain, 20) == []
    good(path)
    with desk_on(path, unattributed_minutes=30) as desk:
        (event,) = run(desk, chain, 1)
        assert event.data["device_seconds"] == 21 * 600, "the day's, from before the limit too"
        noted = [tuple(r) for r in desk.rows("SELECT value FROM noted WHERE name = 'unattributed-minutes'")]
        assert noted == [(0,), (30,)]
    good(path)


def test_a_shared_gpu_without_owners_counts_its_time_once(path):
    share = replace(ten(), measured=ten().measured | Measured.APPORTIONED)
    others = replace(
        ten(),
        measured=(ten().measured & ~Measured.ENERGY) | Measured.OTHERS,
        duration_ns=0,
        sm_elapsed_cycles=0,
        energy_mj=0,
    )
    with desk_on(path) as desk:
        (event,) = run(desk, at_midnight("n1"), 8, [share, others])
        assert event.data["device_seconds"] == 7 * 600
    good(path)


def test_a_day_that_nothing_was_added_to_under_the_new_limit_is_not_owed(path):
    with desk_on(path, unattributed_minutes=0) as desk:
        assert run(desk, at_midnight("n1"), 20) == []
    with desk_on(path, unattributed_minutes=30) as desk:
        assert run(desk, at_midnight("n2"), 1) == []
    good(path)


# --- fsck ---


def test_fsck_finds_an_event_that_came_late(path):
    with desk_on(path, unattributed_minutes=70) as desk:
        (event,) = run(desk, at_midnight("n1"), 12)
        assert event.data["device_seconds"] == 8 * 600
    with sqlite3.connect(path) as db:  # as if the limit had been an hour: it was passed a record earlier
        db.execute("UPDATE noted SET value = 60 WHERE name = 'unattributed-minutes'")
        text = json.dumps(event.data | {"limit_minutes": 60}).replace("1.17 GPU-h a", "1.00 GPU-h a")
        db.execute("UPDATE events SET data = ?", (text,))
    found = check_store(path, ()).difference
    assert found is not None
    assert (found.table, found.column) == ("events", "since_position")


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE events SET data = json_set(data, '$.device_seconds', 1)",
        "UPDATE events SET data = json_set(data, '$.flop.upper', '1')",
        "UPDATE events SET data = json_set(data, '$.day', '2026-09-23')",
        "UPDATE events SET data = json_set(data, '$.limit_minutes', 59)",
        "UPDATE events SET position = position - 1, since_position = since_position - 1",
        "UPDATE events SET position = position + 1, since_position = since_position + 1",
        "UPDATE events SET position = 999",
        "UPDATE events SET subject = 'node/c1/n2'",
        "DELETE FROM events",
        "UPDATE noted SET value = 10000 WHERE name = 'unattributed-minutes'",
        "UPDATE noted SET value = 10 WHERE name = 'unattributed-minutes'",
    ],
)
def test_fsck_finds_what_does_not_follow(path, sql):
    with desk_on(path) as desk:
        assert len(run(desk, at_midnight("n1"), 12)) == 1
    good(path)
    with sqlite3.connect(path) as db:
        db.execute(sql)
        db.execute("DELETE FROM outbox")
    found = check_store(path, ()).difference
    assert found is not None
    assert found.table == "events"


def test_an_event_that_was_priced_with_another_table_is_derived_but_for_its_flop(path):
    with desk_on(path) as desk:
        run(desk, at_midnight("n1"), 12)
    with sqlite3.connect(path) as db:
        db.execute("UPDATE events SET data = json_set(data, '$.w_table', 'w-2020-01.1', '$.flop.upper', '1')")
    relog(path)
    good(path)
    with sqlite3.connect(path) as db:
        db.execute("UPDATE events SET data = json_set(data, '$.device_seconds', 1)")
    relog(path)
    assert check_store(path, ()).difference is not None
