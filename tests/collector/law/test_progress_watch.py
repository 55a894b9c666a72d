"""Claims beside the counters in a commit: rows kept, events raised, both derived again by fsck."""

import json
import sqlite3

import pytest
from builders import UNIX_NS, Chain, busy
from desk import Desk
from relog import relog

from flopmeter.collector.books import HOUR_NS
from flopmeter.collector.check.fsck import check_store, result_text
from flopmeter.collector.ingest.decide import TAKEN, Refused
from flopmeter.collector.law.progress import CLAIM_COLUMNS
from flopmeter.collector.registry.entries import Assign, Declare, JobKey
from flopmeter.collector.registry.say import say
from flopmeter.contract.limits import MAX_PROGRESS
from flopmeter.contract.usage import Workload, WorkloadKind

MINUTE_NS = 60_000_000_000
STEP_NS = 10 * MINUTE_NS
#: FLOP by the point of one GPU in one step: 40 % of 132 SMs x 1.7 GHz in HMMA, 4096 each.
STEP_FLOP = 132 * 1_700_000_000 * 600 * 40 // 100 * 4096
PARAMETERS = 1_000_000_000
#: Tokens that are worth what one GPU does in a step.
STEP_TOKENS = STEP_FLOP // (6 * PARAMETERS)
TRAINING = Workload(WorkloadKind.SLURM, job="4711", run="r1", dtype="bf16")
SAME_RUN = Workload(WorkloadKind.SLURM, job="4712", run="r1", dtype="bf16")
#: From the epoch of the builders to the next full hour.
TO_HOUR_NS = -UNIX_NS % (60 * MINUTE_NS)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "books.sqlite"


def step(chain, tokens=None, workload=TRAINING, **more):
    """The next ten minutes of one busy GPU, with a claim at their end."""
    batch = chain.batch([busy(0, duration_ns=STEP_NS)], (workload,))
    batch.window_end_boot_ns, batch.window_end_unix_ns = chain.boot_ns + STEP_NS, chain.unix_ns + STEP_NS
    if tokens is not None:
        said = {"parameters": PARAMETERS, "ranks": 0} | more
        batch.progress.add(
            workload_index=0,
            t_boot_ns=chain.boot_ns + STEP_NS,
            t_unix_ns=chain.unix_ns + STEP_NS,
            tokens=int(tokens),
            **said,
        )
    raw = chain.next(payload=batch.SerializeToString())
    chain.boot_ns, chain.unix_ns = batch.window_end_boot_ns, batch.window_end_unix_ns
    return raw


def metered(desk, steps, *, factor=1.0, chain=None, first=0, **more):
    """So many steps with a claim each, of `factor` times what the GPU did; the events raised."""
    chain = chain or on_the_hour("n1")
    agent = desk.agent(chain)
    events = []
    for number in range(1, steps + 1):
        assert desk.offer(agent, step(chain, first + number * STEP_TOKENS * factor, **more)) == TAKEN
        events += desk.commit().events
    return events


def on_the_hour(name):
    chain = Chain(name, gpus=1)
    chain.unix_ns += TO_HOUR_NS
    chain.boot_ns += TO_HOUR_NS
    return chain


def good(path):
    result = check_store(path, ())
    assert result.difference is None, result_text(result)
    return result


def claims(desk):
    return [dict(zip(CLAIM_COLUMNS.split(", "), row, strict=True)) for row in desk.rows(f"SELECT {CLAIM_COLUMNS} FROM progress ORDER BY workload_no, agent_no, hour")]  # fmt: skip


# --- what is kept ---


def test_one_row_an_hour_with_what_the_rises_are_worth(path):
    with Desk(path) as desk:
        assert metered(desk, 18) == [], "they agree"
        rows = claims(desk)
        first = (UNIX_NS + TO_HOUR_NS) // HOUR_NS
        # A window that ends on the hour stands in the hour that ends there.
        assert [r["hour"] - first for r in rows] == [0, 1, 2]
        assert [int(r["tokens"]) for r in rows] == [n * STEP_TOKENS for n in (6, 12, 18)]
        assert [int(r["flop"]) for r in rows] == [n * STEP_TOKENS * 6 * PARAMETERS for n in (5, 6, 6)]
        assert [int(r["opening_flop"]) for r in rows] == [STEP_TOKENS * 6 * PARAMETERS, 0, 0]
    good(path)


def test_it_goes_on_behind_a_restart_of_the_collector_and_a_failed_commit(path):
    chain = on_the_hour("n1")
    for n in range(1, 9):
        with Desk(path) as desk:
            agent = desk.agent(chain)
            if n % 3 == 0:
                desk.recover()
                agent = desk.agent(chain)
            desk.offer(agent, step(chain, n * STEP_TOKENS))
            desk.commit()
    with Desk(path) as desk:
        assert sum(int(r["flop"]) for r in claims(desk)) == 7 * STEP_TOKENS * 6 * PARAMETERS
    good(path)


def test_claims_are_in_no_total(path, tmp_path):
    plain = tmp_path / "plain.sqlite"
    with Desk(path) as desk, Desk(plain) as without:
        metered(desk, 12)
        chain = on_the_hour("n1")
        agent = without.agent(chain)
        for _ in range(12):
            without.offer(agent, step(chain))
        without.commit()
        assert desk.totals() == without.totals()


def test_a_clock_that_is_set_back_does_not_lose_the_row(path):
    chain = on_the_hour("n1")
    with Desk(path) as desk:
        agent = desk.agent(chain)
        for n in range(1, 9):
            if n == 7:
                chain.unix_ns -= 90 * MINUTE_NS
            desk.offer(agent, step(chain, n * STEP_TOKENS))
            desk.commit()
        assert sum(int(r["flop"]) for r in claims(desk)) == 7 * STEP_TOKENS * 6 * PARAMETERS
    good(path)


@pytest.mark.parametrize(
    "said",
    [
        {"workload_index": 1},
        {"workload_index": 2**31},
        {"t_unix_ns": 0},
        {"t_unix_ns": 2**63},
        {"t_boot_ns": 2**63},
    ],
)
def test_a_claim_that_cannot_be_one_refuses_the_record_and_nothing_falls(path, said):
    chain = on_the_hour("n1")
    batch = chain.batch([busy(0)], (TRAINING,))
    batch.progress.add(**({"workload_index": 0, "t_boot_ns": 1, "t_unix_ns": 1, "tokens": 1} | said))
    with Desk(path) as desk:
        agent = desk.agent(chain)
        out = desk.offer(agent, chain.seal(batch.SerializeToString()))
        assert isinstance(out, Refused), out
        assert "progress" in out.message
        desk.commit()
        assert claims(desk) == []


def test_too_many_claims_refuse_the_record(path):
    chain = on_the_hour("n1")
    batch = chain.batch([busy(0)], (TRAINING,))
    for _ in range(MAX_PROGRESS + 1):
        batch.progress.add(workload_index=0, t_boot_ns=1, t_unix_ns=1, tokens=1)
    with Desk(path) as desk:
        assert isinstance(desk.offer(desk.agent(chain), chain.seal(batch.SerializeToString())), Refused)


def test_the_largest_numbers_of_the_wire_are_taken(path):
    big = 2**64 - 1
    with Desk(path) as desk:
        chain = on_the_hour("n1")
        agent = desk.agent(chain)
        for n in (0, big, 0, big):
            assert desk.offer(agent, step(chain, n, parameters=big, ranks=2**32 - 1)) == TAKEN
        desk.commit()
        (row,) = claims(desk)
        assert int(row["flop"]) == 2 * big * 6 * big
    good(path)


# --- events ---


def test_claims_far_above_the_counters_are_an_event_once(path):
    with Desk(path) as desk:
        events = metered(desk, 30, factor=5)
        (event,) = events
        assert (event.type, event.subject) == ("method.disagrees", "r1")
        assert event.data["side"] == "less"
        assert "claims more work than the counters" in event.data["message"]
        # When the first claim of the third hour comes, of the first hour: what six claims come to.
        assert event.data["declared_flop"] == str(6 * 5 * STEP_TOKENS * 6 * PARAMETERS)
        assert (event.data["hours"], event.data["opening_left_out"]) == (1, False)
    good(path)


def test_claims_far_below_the_counters_are_an_event(path):
    with Desk(path) as desk:
        (event,) = metered(desk, 20, factor=0.2)
        assert event.data["side"] == "more"
        assert int(event.data["measured"]["lower"]) * 10 > int(event.data["declared_flop"]) * 13
    good(path)


def test_what_the_bounds_allow_is_no_event(path):
    with Desk(path) as desk:
        assert metered(desk, 30, factor=2) == []
    good(path)


def test_an_hour_is_waited_for_records_of_others(path):
    with Desk(path) as desk:
        assert metered(desk, 12, factor=5) == [], "the first hour is over, but not by an hour"
        chain = on_the_hour("n1")
    with Desk(path) as desk:
        assert desk.rows("SELECT count(*) FROM events")[0][0] == 0
    assert chain.seq == 0


def test_never_is_a_setting_and_it_is_noted(path):
    with Desk(path, progress_margin_percent=0) as desk:
        assert metered(desk, 30, factor=5) == []
        noted = desk.rows("SELECT name, value FROM noted ORDER BY name")
        assert ("progress-margin-percent", 0) in [tuple(r) for r in noted]
    good(path)


def test_a_restart_at_a_checkpoint_is_no_disagreement(path):
    chain = on_the_hour("n1")
    with Desk(path) as desk:
        agent, events, tokens = desk.agent(chain), [], 0
        for n in range(1, 31):
            tokens = tokens + STEP_TOKENS if n % 7 else tokens - 4 * STEP_TOKENS
            desk.offer(agent, step(chain, tokens))
            events += desk.commit().events
        assert events == []
        assert sum(r["falls"] for r in claims(desk)) == 4
    good(path)


def test_a_resumed_count_is_not_held_against_this_run(path):
    with Desk(path) as desk:
        assert metered(desk, 30, first=10**13) == []
    good(path)


def test_several_claimers_of_one_run_are_one_claim(path):
    one, two = on_the_hour("n1"), on_the_hour("n2")
    with Desk(path) as desk:
        agents = desk.agent(one), desk.agent(two)
        events = []
        for n in range(1, 21):
            for chain, agent in zip((one, two), agents, strict=True):
                desk.offer(agent, step(chain, 2 * n * STEP_TOKENS))  # both say what both did
            events += desk.commit().events
        assert events == []
    good(path)


def test_the_other_jobs_of_the_run_are_counted_beside_the_claim(path):
    """A claim of the whole run by one of its jobs: nine others did their part."""
    chains = [on_the_hour(f"n{i}") for i in range(10)]
    with Desk(path) as desk:
        agents = [desk.agent(c) for c in chains]
        events = []
        for n in range(1, 21):
            for i, (chain, agent) in enumerate(zip(chains, agents, strict=True)):
                tokens = 10 * n * STEP_TOKENS if i == 0 else None
                desk.offer(agent, step(chain, tokens, TRAINING if i == 0 else SAME_RUN))
            events += desk.commit().events
        assert events == []
    good(path)


def test_a_job_that_somebody_assigns_brings_its_claims_along(path):
    """Two jobs of a run, one of which claims five times what it did: the disagreement is of the run that it goes to."""
    one, two = on_the_hour("n1"), on_the_hour("n2")
    with Desk(path) as desk:
        agents, events = (desk.agent(one), desk.agent(two)), []
        for n in range(1, 31):
            desk.offer(agents[0], step(one, 5 * n * STEP_TOKENS))
            desk.offer(agents[1], step(two, None, SAME_RUN))
            if n == 9:  # before the first comparison
                moved = Assign(JobKey("c1", int(WorkloadKind.SLURM), "4711"), "other")
                say(path, lambda _: Declare("other", owner="ada"), "ada@lab", "it is", lambda: desk.now)
                say(path, lambda _, moved=moved: moved, "ada@lab", "it is", lambda: desk.now)
            events += desk.commit().events
        (event,) = events
        assert (event.subject, event.data["side"]) == ("other", "less")
        assert int(event.data["measured"]["point"]) == 6 * STEP_FLOP, "its own job's counters, and no other's"
    good(path)


def test_late_records_of_other_runs_in_the_same_commit_are_not_this_runs(path):
    mine, other = on_the_hour("n1"), on_the_hour("n2")
    elsewhere = Workload(WorkloadKind.SLURM, job="77", run="r9", dtype="bf16")
    with Desk(path) as desk:
        agents, events = (desk.agent(mine), desk.agent(other)), []
        for n in range(1, 14):
            desk.offer(agents[0], step(mine, 5 * n * STEP_TOKENS))
            if n == 13:  # which is the claim that the first hour is compared at
                for _ in range(5):
                    desk.offer(agents[1], step(other, None, elsewhere))
            events += desk.commit().events
        (event,) = events
        assert int(event.data["measured"]["point"]) == 6 * STEP_FLOP
    good(path)


# --- fsck ---


@pytest.mark.parametrize(
    ("sql", "table"),
    [
        ("UPDATE progress SET tokens = tokens + 1 WHERE rowid_hour", "progress"),
        ("UPDATE progress SET flop = '1'", "progress"),
        ("UPDATE progress SET falls = 3", "progress"),
        ("DELETE FROM progress", "progress"),
        ("INSERT INTO progress SELECT workload_no, 77, hour, ranks, tokens, parameters, flop_per_token, flop, opening_flop, falls, first_unix_ns, last_unix_ns FROM progress", "progress"),
        ("UPDATE events SET data = json_set(data, '$.tokens', '1')", "events"),
        ("UPDATE events SET data = json_set(data, '$.measured.upper', '1')", "events"),
        ("UPDATE events SET data = json_set(data, '$.from', 'x')", "events"),
        ("UPDATE events SET data = json_set(data, '$.to', '2026-09-22T00:00:00.000Z')", "events"),
        ("UPDATE events SET position = position + 1", "events"),
        ("UPDATE noted SET value = 99 WHERE name = 'progress-margin-percent'", "events"),
    ],
)  # fmt: skip
def test_fsck_finds_what_does_not_follow(path, sql, table):
    with Desk(path) as desk:
        assert len(metered(desk, 20, factor=5)) == 1
    good(path)
    with sqlite3.connect(path) as db:
        db.execute(sql.replace("rowid_hour", "1"))
    found = check_store(path, ()).difference
    assert found is not None
    assert found.table == table, found


def test_an_event_priced_with_another_table_is_not_derived(path):
    with Desk(path) as desk:
        metered(desk, 20, factor=5)
    with sqlite3.connect(path) as db:
        (data,) = db.execute("SELECT data FROM events").fetchone()
        data = json.dumps(json.loads(data) | {"w_table": "w-2020-01.1", "tokens": "5"})
        db.execute("UPDATE events SET data = ?", (data,))
    relog(path)
    good(path)
