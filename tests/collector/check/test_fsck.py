"""fsck: a good store is good; every kind of tampering is named, exactly, first."""

import hashlib
import shutil
import sqlite3
from dataclasses import replace
from datetime import date

import pytest
from builders import CLOCK_MHZ, SM_COUNT, WINDOW_NS, Chain, busy, gap
from desk import Desk

from flopmeter.collector.check.fsck import check_store, result_document, result_text
from flopmeter.collector.errors import StoreError
from flopmeter.collector.ingest.decide import TAKEN
from flopmeter.collector.law.regimes import shipped
from flopmeter.contract.evidence_class import EvidenceClass
from flopmeter.contract.limits import MAX_SM_CLOCK_MHZ
from flopmeter.contract.usage import IDLE, Workload, WorkloadKind

#: One row's elapsed cycles over ten days, so that a few records pass 10^23 and 10^25.
DAYS_NS = 10 * 86_400_000_000_000
#: Low lines, so that a handful of one-minute records crosses them; written down before the records came.
LOW = tuple(
    replace(r, threshold_flop=6 * 10**16 + 10**15 * i, status_as_of=date(2026, 1, 22))
    for i, r in enumerate(shipped())
)
OTHER = Workload(WorkloadKind.PROCESS, job="pg-77", dtype="fp8")


def anchored(chain, batch, *, elapsed, hmma, entities=2):
    """Quote counters that stand where the usage booked so far says, at the end of the window."""
    for entity in range(entities):
        a = batch.anchors.add(
            entity_index=entity,
            t_boot_ns=chain.boot_ns + WINDOW_NS,
            t_unix_ns=chain.unix_ns + WINDOW_NS,
            epoch=0,
            scale=1,
        )
        a.counter_ids.extend([248, 252])
        a.counter_values.extend([elapsed // SM_COUNT, hmma // SM_COUNT])
    return batch


@pytest.fixture(scope="module")
def books(tmp_path_factory):
    """Two agents: crossings, a gap, an idle GPU, two workloads, a loss, a fork, anchors."""
    path = tmp_path_factory.mktemp("good") / "books.sqlite"
    with Desk(path, LOW, sinks=("event-log",)) as desk:
        a, b = Chain("n1"), Chain("n2")
        agent_a, agent_b = desk.agent(a), desk.agent(b)
        elapsed = SM_COUNT * CLOCK_MHZ * WINDOW_NS // 1_000
        for minute in range(6):
            batch = a.batch()
            if minute in {0, 4}:
                anchored(a, batch, elapsed=10**15 + minute * elapsed, hmma=minute * elapsed * 40 // 100)
            desk.offer(agent_a, a.next(payload=batch.SerializeToString()))
            desk.offer(
                agent_b,
                b.next(
                    [busy(0), busy(1, 1), gap(0, 2)], (Workload(WorkloadKind.SLURM, job="9"), IDLE, OTHER)
                ),
            )
            if minute % 2:
                desk.commit()
        fork = a.seal(a.batch([busy(0, percent=1)]).SerializeToString(), seq=2)
        desk.offer(agent_a, fork)
        desk.commit()
        b.seq += 3  # three records that never came
        b.prev_hash = hashlib.sha256(b"unknown").digest()
        agent_b = desk.agent(b, oldest_seq=10)
        desk.offer(agent_b, b.next())
        desk.commit()
    return path


@pytest.fixture
def copy(books, tmp_path):
    path = tmp_path / "books.sqlite"
    shutil.copy(books, path)
    return path


def tamper(path, sql, *values):
    with sqlite3.connect(path) as db:
        cursor = db.execute(sql, values)
        assert cursor.rowcount != 0, "the tampering must change something"
    db.close()


def blob(path, sql):
    with sqlite3.connect(path) as db:
        found = db.execute(sql).fetchone()[0]
    db.close()
    return found


def first_difference(path, regimes=LOW):
    result = check_store(path, regimes)
    assert result.difference is not None
    return result


def test_a_good_store_is_good(books):
    seen = []
    result = check_store(books, LOW, progress=lambda done, whole: seen.append((done, whole)))
    assert result.difference is None, result_text(result)
    assert (result.records, result.agents) == (13, 2)
    assert result.anchor_pairs == 2
    assert result.events > 5
    assert result.notes == ()
    assert seen[-1] == (13, 13)
    assert "good" in result_text(result)
    assert result_document(result)["ok"] is True


def test_an_empty_store_is_good(tmp_path):
    Desk(tmp_path / "books.sqlite", LOW).close()
    assert check_store(tmp_path / "books.sqlite", LOW).difference is None


def test_it_can_be_checked_while_the_collector_writes(tmp_path):
    with Desk(tmp_path / "books.sqlite", LOW) as desk:
        chain = Chain()
        agent = desk.agent(chain)
        desk.offer(agent, chain.next())
        desk.commit()
        assert check_store(tmp_path / "books.sqlite", LOW).records == 1
        desk.offer(agent, chain.next())
        desk.commit()
        assert check_store(tmp_path / "books.sqlite", LOW).difference is None


def flip(raw, at):
    return raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]


@pytest.mark.parametrize("at", [0, 20, 39, 60, 80, 200, -1])
def test_one_flipped_bit_anywhere_in_a_record(copy, at):
    raw = blob(copy, "SELECT record FROM records WHERE position = 5")
    tamper(copy, "UPDATE records SET record = ? WHERE position = 5", flip(raw, at % len(raw)))
    d = first_difference(copy).difference
    assert (d.table, d.key, d.column) == ("records", "position 5", "hash")


@pytest.mark.parametrize("at", [80, 200, -1])
def test_a_flipped_bit_with_the_hash_made_to_fit_still_lacks_the_signature(copy, at):
    raw = blob(copy, "SELECT record FROM records WHERE position = 5")
    forged = flip(raw, at % len(raw))
    digest = hashlib.sha256(forged).digest()
    tamper(copy, "UPDATE records SET record = ?, hash = ? WHERE position = 5", forged, digest)
    d = first_difference(copy).difference
    assert (d.table, d.key) == ("records", "position 5")
    assert d.column.startswith("record")


@pytest.mark.parametrize(
    "column",
    ["duration_ns", "sm_elapsed_cycles", "hmma_cycles", "energy_mj", "fp32_cycles"],
)
def test_one_cycle_more_in_a_total_or_an_hour_is_named_with_both_numbers(copy, column):
    for table in ("totals", "hourly"):
        value = blob(copy, f"SELECT {column} FROM {table} ORDER BY 1 DESC LIMIT 1")
        tamper(copy, f"UPDATE {table} SET {column} = ? WHERE {column} = ?", str(int(value) + 1), value)
        d = first_difference(copy).difference
        assert (d.table, d.column, d.expected, d.got) == (table, column, value, str(int(value) + 1))
        tamper(copy, f"UPDATE {table} SET {column} = ? WHERE {column} = ?", value, str(int(value) + 1))
    assert check_store(copy, LOW).difference is None


@pytest.mark.parametrize(
    ("sql", "table", "says"),
    [
        ("DELETE FROM records WHERE position = 5", "records", "expected 5, got 6"),
        ("DELETE FROM records WHERE position = 13", "heads", "position: expected 12, got 13"),
        ("DELETE FROM totals WHERE workload_no = 1", "totals", "row"),
        ("UPDATE records SET seq = 99 WHERE position = 5", "records", "seq"),
        ("UPDATE records SET agent_no = 2, seq = 50 WHERE position = 1", "records", "agent id"),
        ("UPDATE records SET agent_no = 77 WHERE position = 1", "records", "an admitted agent"),
        (
            "UPDATE records SET window_start_s = window_start_s + 1 WHERE position = 3",
            "records",
            "window_start_s",
        ),
        (
            "UPDATE records SET window_end_unix_ns = window_end_unix_ns + 1 WHERE position = 3",
            "records",
            "window_end_unix_ns",
        ),
        (
            "UPDATE records SET received_unix_ns = received_unix_ns - 864e11 * 9 WHERE position = 3",
            "records",
            "over when it came",
        ),
        ("UPDATE heads SET position = 1 WHERE agent_no = 1", "heads", "position"),
        ("DELETE FROM heads WHERE agent_no = 1", "heads", "position"),
        ("UPDATE heads SET usual_window_ns = 1 WHERE agent_no = 1", "heads", "usual_window_ns"),
        ("INSERT INTO heads VALUES (77, 1, 1)", "heads", "no such agent"),
        ("UPDATE agents SET agent_id = zeroblob(16) WHERE agent_no = 1", "agents", "agent_id"),
        ("UPDATE agents SET public_key = zeroblob(32) WHERE agent_no = 1", "agents", "agent_id"),
        ("DELETE FROM losses", "records", "seq of agent"),
        ("UPDATE losses SET to_seq = 8", "records", "seq of agent"),
        ("INSERT INTO losses VALUES (9, 1, 40, 50, 0, 'made up')", "losses", "from_seq"),
        ("DELETE FROM conflicts", "conflicts", "the row that this event is about"),
        ("UPDATE conflicts SET seq = 3", "conflicts", "its seq"),
        ("UPDATE conflicts SET record = zeroblob(200)", "conflicts", "expected"),
        (
            "UPDATE workloads SET run = 'another' WHERE run = 'r1'",
            "workloads",
            "run: expected r1, got another",
        ),
        (
            "UPDATE workloads SET last_unix_ns = last_unix_ns + 1 WHERE run = 'r1'",
            "workloads",
            "last_unix_ns",
        ),
        ("UPDATE workloads SET dtype = 'fp8' WHERE run = 'r1'", "workloads", "workload_no"),
        ("UPDATE models SET name = 'NVIDIA B200'", "models", "model_no"),
        ("INSERT INTO models VALUES (9, 'NVIDIA B200', '10.0')", "models", "a model of a stored inventory"),
        (
            "INSERT INTO workloads VALUES (99, 's', 3, 'j', '', '', '', '', 0, 'r9', 'job', 1, 1, '', 1)",
            "workloads",
            "none: no record names it",
        ),
        ("UPDATE inventories SET bytes = zeroblob(9) WHERE agent_no = 1", "inventories", "bytes"),
        ("DELETE FROM inventories WHERE agent_no = 1", "inventories", "none"),
        ("DELETE FROM events WHERE event_no = 1", "events", "event_no"),
        ("DELETE FROM events WHERE event_no = (SELECT max(event_no) FROM events)", "events", "none"),
        ("UPDATE events SET position = position + 1 WHERE type = 'threshold.crossed'", "events", "data"),
        ("UPDATE events SET position = 999, since_position = 999 WHERE event_no = 1", "events", "position"),
        ("UPDATE events SET since_position = position WHERE event_no = 1", "events", "since_position"),
        ("UPDATE events SET position = 1, since_position = 1 WHERE type = 'threshold.crossed'", "events", ""),
        ("UPDATE events SET id = 'x' WHERE event_no = 1", "events", "id"),
        ("UPDATE events SET type = 'agent.silent' WHERE event_no = 1", "events", "type"),
        (
            "UPDATE events SET data = replace(data, '\"crossed\"', '\"below\"') WHERE type = 'threshold.crossed'",
            "events",
            "data",
        ),
        ("UPDATE events SET data = 'nonsense' WHERE event_no = 1", "events", "JSON"),
        ("UPDATE events SET subject = 'r2' WHERE type = 'threshold.crossed'", "events", ""),
        ("INSERT INTO outbox (event_no, sink) VALUES (999, 'event-log')", "outbox", "an event"),
    ],
)
def test_tampering_is_named(copy, sql, table, says):
    tamper(copy, sql)
    result = first_difference(copy)
    d = result.difference
    assert d.table == table, result_text(result)
    assert says in result_text(result) or says in f"{d.column}: expected {d.expected}, got {d.got}"
    assert result_document(result)["difference"]["table"] == table
    assert result_document(result)["ok"] is False


def test_two_records_swapped(copy):
    rows = []
    with sqlite3.connect(copy) as db:
        rows = db.execute("SELECT * FROM records WHERE position IN (1, 3)").fetchall()
        db.execute("DELETE FROM records WHERE position IN (1, 3)")
        for row, position in zip(rows, (3, 1), strict=True):
            db.execute("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (position, *row[1:]))
    db.close()
    d = first_difference(copy).difference
    assert (d.table, d.key, d.expected, d.got) == ("records", "position 1", "1", "2")


def test_a_total_that_no_record_adds_to(copy):
    tamper(
        copy,
        "INSERT INTO totals SELECT 3, model_no, 7, 0, 0, 0, "
        + ", ".join(["'0'"] * 12)
        + " FROM totals LIMIT 1",
    )
    d = first_difference(copy).difference
    assert (d.table, d.column) == ("totals", "row")


def test_an_event_deleted_with_the_numbers_made_to_fit_is_still_missed(copy):
    """The crossing's row is gone and all numbers closed up: what must have been raised is not there."""
    number = blob(copy, "SELECT min(event_no) FROM events WHERE type = 'threshold.crossed'")
    tamper(copy, "DELETE FROM outbox")
    tamper(copy, "DELETE FROM events WHERE event_no = ?", number)
    for n in range(number + 1, 100):
        with sqlite3.connect(copy) as db:
            db.execute("UPDATE events SET event_no = ? WHERE event_no = ?", (n - 1, n))
        db.close()
    d = first_difference(copy).difference
    assert (d.table, d.column) == ("events", "row")
    assert d.key.startswith("key threshold:")
    assert d.got == "none"


def test_counters_that_say_more_than_the_usage_are_named(tmp_path):
    """An agent that signs usage below what its own counters show."""
    elapsed = SM_COUNT * CLOCK_MHZ * WINDOW_NS // 1_000
    with Desk(tmp_path / "books.sqlite", LOW) as desk:
        chain = Chain()
        agent = desk.agent(chain)
        for minute in range(4):
            batch = chain.batch([busy(0, percent=10), busy(1, percent=10)])
            if minute in {0, 3}:
                anchored(chain, batch, elapsed=minute * elapsed, hmma=minute * elapsed * 40 // 100)
            desk.offer(agent, chain.next(payload=batch.SerializeToString()))
        desk.commit()
    d = first_difference(tmp_path / "books.sqlite").difference
    assert (d.table, d.key) == ("records", "position 4")
    assert "hmma_cycles" in d.column
    assert "counter 252" in d.expected


def test_gaps_and_lower_classes_between_anchors_are_not_called_lies(tmp_path):
    elapsed = SM_COUNT * CLOCK_MHZ * WINDOW_NS // 1_000
    with Desk(tmp_path / "books.sqlite", LOW) as desk:
        chain = Chain()
        agent = desk.agent(chain)
        for minute in range(4):
            a2 = replace(busy(1), evidence_class=EvidenceClass.A2)
            batch = chain.batch([gap(0) if minute == 1 else busy(0), a2])
            if minute in {0, 3}:
                anchored(chain, batch, elapsed=minute * elapsed * 3, hmma=0)
            desk.offer(agent, chain.next(payload=batch.SerializeToString()))
        desk.commit()
    assert check_store(tmp_path / "books.sqlite", LOW).difference is None


def test_a_workload_that_is_named_before_it_is_used(tmp_path):
    with Desk(tmp_path / "books.sqlite", LOW) as desk:
        chain = Chain()
        agent = desk.agent(chain)
        desk.offer(agent, chain.next([busy(0)], (OTHER, IDLE)))
        desk.commit()
        desk.offer(agent, chain.next([busy(0), busy(1, 1)], (OTHER, IDLE)))
        desk.commit()
    assert check_store(tmp_path / "books.sqlite", LOW).difference is None


def test_a_new_boot_starts_boot_time_again(tmp_path):
    with Desk(tmp_path / "books.sqlite", LOW) as desk:
        chain = Chain()
        agent = desk.agent(chain)
        for value in (5 * 10**12, 10**9):
            batch = anchored(chain, chain.batch(), elapsed=value * SM_COUNT, hmma=0)
            desk.offer(agent, chain.next(payload=batch.SerializeToString()))
            chain.reboot()
        desk.commit()
    result = check_store(tmp_path / "books.sqlite", LOW)
    assert result.difference is None
    assert result.anchor_pairs == 0


def test_totals_near_10_to_the_26_and_regimes_that_only_the_store_knows(tmp_path):
    """A bridging row of 10 days on 2 GPUs, many times over: events at exact totals, derived again."""
    most = SM_COUNT * MAX_SM_CLOCK_MHZ * DAYS_NS // 1_000
    row = replace(
        busy(0), duration_ns=DAYS_NS, sm_elapsed_cycles=most, sm_active_cycles=most, hmma_cycles=most
    )
    with Desk(tmp_path / "books.sqlite", shipped()) as desk:
        chain = Chain()
        agent = desk.agent(chain)
        for _ in range(170):
            desk.offer(agent, chain.next([row, replace(row, entity_index=1)]))
        desk.commit()
        crossed = {e.data["regime"] for e in desk.commit().events} | {
            r[0] for r in desk.rows("SELECT key FROM events")
        }
    assert "threshold:eu-gpai:r1:crossed:crossed:>10^23" in crossed
    assert check_store(tmp_path / "books.sqlite", shipped()).difference is None
    only_korea = [r for r in shipped() if r.id == "korea"]
    result = check_store(tmp_path / "books.sqlite", only_korea)
    assert result.difference is None
    assert result.notes == ()


def test_a_file_that_is_no_store_cannot_be_read(tmp_path):
    (tmp_path / "x").write_bytes(b"not a database at all" * 100)
    for name in ("x", "absent"):
        with pytest.raises(StoreError) as e:
            check_store(tmp_path / name, LOW)
        assert e.value.exit_code == 3
        assert e.value.hint


@pytest.mark.parametrize("open_elsewhere", [False, True])
def test_a_damaged_file_is_told_with_what_to_do(tmp_path, open_elsewhere):
    """Not "check it with fsck": that is what was asked."""
    path = tmp_path / "b.db"
    chain = Chain("n")
    with Desk(path) as desk:
        assert desk.offer(desk.agent(chain), chain.next()) is TAKEN
        desk.commit()
        (page,) = desk.rows("SELECT rootpage FROM sqlite_master WHERE name = 'totals'")[0]
        (size,) = desk.rows("PRAGMA page_size")[0]
    with path.open("r+b") as f:
        f.seek((page - 1) * size)
        f.write(b"\xff" * size)
    other = sqlite3.connect(path)
    if open_elsewhere:
        other.execute("SELECT count(*) FROM agents").fetchone()  # the WAL is there: read beside a collector
    with pytest.raises(StoreError, match="malformed") as e:
        check_store(path, ())
    other.close()
    assert "keep it as evidence" in e.value.hint
    assert "fsck" not in e.value.hint
