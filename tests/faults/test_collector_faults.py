"""The collector's store fails at every statement, fills up, and dies: acknowledged stays stored, books stay sums."""

import errno
import hashlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import urllib.error
import urllib.request
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
from builders import TRAINING, Chain, busy, inventory
from desk import DAY_NS, Desk
from faulty_sqlite import Crash, Faults
from law_files import changed as changed_regime
from processes import wait_for
from registry_entries import entry
from sinks import file_worker
from wire_client import WireClient

from flopmeter.collector.books import SUM_FIELDS
from flopmeter.collector.check.fsck import check_store
from flopmeter.collector.clock_offset import Offset
from flopmeter.collector.duty.deadlines import rules_mark
from flopmeter.collector.duty.watch import RULES
from flopmeter.collector.encode import decode_batch
from flopmeter.collector.errors import SinkError, StoreError
from flopmeter.collector.estimate.margin import MARGIN_PERCENT
from flopmeter.collector.ingest.decide import TAKEN
from flopmeter.collector.ingest.identity_rules import of_text
from flopmeter.collector.ingest.identity_rules import shipped as shipped_rules
from flopmeter.collector.law.progress_watch import MARGIN
from flopmeter.collector.law.regimes import parse, shipped
from flopmeter.collector.law.unattributed import LIMIT
from flopmeter.collector.law.unattributed_watch import UNATTRIBUTED_MINUTES
from flopmeter.collector.registry.codec import to_row
from flopmeter.collector.registry.entries import Declare
from flopmeter.collector.running import run_collector
from flopmeter.collector.settings import CollectorSettings
from flopmeter.collector.store.entries import SqliteEntries
from flopmeter.collector.store.sqlite import WRITES
from flopmeter.contract.record import parse_record
from flopmeter.contract.usage import Workload, WorkloadKind
from flopmeter.wire.v1 import batch_pb2, ingest_pb2

IDLE = Workload(WorkloadKind.IDLE)
JOB_7 = Workload(WorkloadKind.SLURM, job="7")
JOB_7_NAMED = replace(JOB_7, run="r7")
#: Not in every commit: the law files of a site (test_law_faults.py).
ELSEWHERE = {"site_laws", "log_faults"}
STATEMENTS = {"BEGIN IMMEDIATE": "begin", "COMMIT": "commit"} | {
    sql: name for name, sql in WRITES if name not in ELSEWHERE
}


def changed(raw):
    """The inventory with another GPU in the place of its second."""
    message = batch_pb2.Inventory.FromString(raw)
    message.devices[1].entity = message.devices[1].entity[:-4] + "0000"
    return message.SerializeToString()


GPU_CHANGED = changed(inventory("n"))


def assert_books_are_sums(desk):
    expected = [0] * len(SUM_FIELDS)
    for (raw,) in desk.rows("SELECT record FROM records"):
        for usage in decode_batch(parse_record(raw).payload).usage:
            expected = [a + getattr(usage, f) for a, f in zip(expected, SUM_FIELDS, strict=True)]
    for table in ("totals", "hourly"):
        rows = desk.rows(f"SELECT {', '.join(SUM_FIELDS)} FROM {table}")
        assert [sum(int(r[i]) for r in rows) for i in range(len(SUM_FIELDS))] == expected


def claiming(chain, workloads, tokens):
    """The next record, in which the training code of the first workload says how far it is."""
    message = chain.batch([busy(0), busy(1, 1)], workloads)
    message.progress.add(
        workload_index=0,
        t_boot_ns=message.window_end_boot_ns,
        t_unix_ns=message.window_end_unix_ns,
        tokens=tokens,
        parameters=10**9,
    )
    return chain.next(payload=message.SerializeToString())


def fill(desk, chain, agent):
    """One group that makes every statement run.

    A new agent, a clock, names, a boot that ends, a fork, a loss, events, a GPU changed, a job that gets its run's name, and
    training code that went on; rules of runs, limits and the registry changed before it.
    """
    stranger = Chain(f"stranger-{chain.seq}")
    desk.hello(stranger, oldest_seq=3)  # a new agent that has lost two
    again = Chain(f"n-{chain.seq}", key_seed="n", gpus=1 + chain.seq)  # the node, renamed and rebuilt
    desk.agent(again)
    other_model = inventory("n", name="NVIDIA H200")
    assert desk.intake.inventory(agent, other_model, desk.now) is None
    chain.reboot()
    chain.inventory = GPU_CHANGED
    chain.digest = hashlib.sha256(GPU_CHANGED).digest()
    raw = claiming(chain, [TRAINING, JOB_7_NAMED], tokens=3_000)
    assert desk.offer(agent, raw) is TAKEN
    forged = chain.seal(chain.batch([]).SerializeToString(), seq=1, prev_hash=bytes(32))
    desk.offer(agent, forged)
    desk.intake.clock(agent, Offset(-5, 7, desk.now))
    return raw


TWO_WEEKS = """
[[deadlines]]
id = "notify"
trigger = "known"
what = "Notify"
recipient = "the authority"
after_days = 14
timezone = "UTC"
source = "a test"
"""


def regimes(version="1"):
    low = changed_regime(shipped()[0], threshold_flop=10**14, effective=date(2020, 1, 1), version=version)
    return [parse("low.toml", (low.text + TWO_WEEKS).encode())]


def opened(path, faults, version="1", **settings):
    return Desk(path, regimes(version), sinks=("event-log",), connect=faults.connect, **settings)


OTHER_RULES = of_text(json.dumps(json.loads(shipped_rules().text) | {"apart": []}))
#: Another text of the regime, other rules of runs, other limits: each is noted with the next commit.
OTHER = {"version": "2", "rules": OTHER_RULES, "unattributed_minutes": 90, "progress_margin_percent": 40}


def say(path):
    with SqliteEntries(path) as log:
        log.append_entry(lambda last: to_row(entry(1, Declare("r1", owner="ada")), last.hash))


def tables(desk):
    """All that is in the store."""
    names = desk.rows("SELECT name FROM sqlite_master WHERE type = 'table'")
    return {name: desk.rows(f"SELECT * FROM {name}") for (name,) in names}


def what_was_noted(desk):
    """Of what the one commit changes beside the books: by rules, limits, people and training code."""
    return {
        "moved": desk.rows("SELECT run, run_rule FROM workloads WHERE job = '7' ORDER BY workload_no"),
        "identity_rules": desk.rows("SELECT from_position, text FROM identity_rules ORDER BY 1"),
        "progress": desk.rows("SELECT tokens, flop FROM progress"),
        "noted": [
            row
            for row in desk.rows("SELECT from_position, name, value FROM noted ORDER BY 1, 2")
            if row[1] in (MARGIN, LIMIT, RULES + REGIME.id)
        ],
        "applied": desk.rows("SELECT entry_no, from_position FROM applied"),
        "judged": desk.rows("SELECT from_position, until_position FROM judged ORDER BY 1"),
        "raised": desk.rows("SELECT DISTINCT subject FROM events WHERE type LIKE 'threshold%' ORDER BY 1"),
        "deadlines": desk.rows("SELECT subject, due_unix_ns - trigger_unix_ns FROM deadlines ORDER BY 1"),
    }


(REGIME,) = regimes()
NOTED_FIRST = {
    "moved": [("slurm:c1/7", "slurm-id")],
    "identity_rules": [(1, shipped_rules().text)],
    "progress": [("1000", "0")],
    "noted": [
        (1, RULES + REGIME.id, rules_mark(REGIME)),
        (1, MARGIN, MARGIN_PERCENT),
        (1, LIMIT, UNATTRIBUTED_MINUTES),
    ],
    "applied": [],
    "judged": [(1, None)],
    "raised": [("r1",), ("slurm:c1/7",)],
    "deadlines": [("r1", 14 * DAY_NS), ("slurm:c1/7", 14 * DAY_NS)],
}
#: Tables that no commit of a group writes.
NOT_THE_WRITERS = {
    "_sqlite_migrations",
    "claimed",
    "entries",
    "answers",
    "sinks",
    "retention",
    "formerly_kept",
    "log_identity",
    "tiles",
    "checkpoints",
    "cosignatures",
    "timestamps",
    "witnesses",
    "refused_heads",
    "certificates",
    "attestations",
    "attested",
    *ELSEWHERE,
}
NOTED_THEN = {
    "moved": [("r7", "label (inherited)"), ("r7", "label")],
    "identity_rules": [*NOTED_FIRST["identity_rules"], (2, OTHER_RULES.text)],
    "progress": [("3000", str(2_000 * 6 * 10**9))],
    "noted": [*NOTED_FIRST["noted"], (2, MARGIN, 40), (2, LIMIT, 90)],
    "applied": [(1, 2)],
    "judged": [(1, 1), (2, None)],
    "raised": [("r1",), ("r7",), ("slurm:c1/7",)],
    "deadlines": [("r1", 14 * DAY_NS), ("r7", 14 * DAY_NS), ("slurm:c1/7", 14 * DAY_NS)],
}


@pytest.mark.parametrize("dies", [False, True], ids=["error", "crash"])
@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("statement", STATEMENTS, ids=STATEMENTS.values())
def test_a_commit_that_fails_at_any_statement_is_all_or_nothing(tmp_path, statement, before, dies):
    """The table: only COMMIT that took effect leaves the group; everything else leaves nothing of it."""
    faults = Faults()
    chain = Chain("n")
    desk = opened(tmp_path / "b.db", faults)
    agent = desk.agent(chain)
    assert desk.offer(agent, claiming(chain, [TRAINING, JOB_7], tokens=1_000)) is TAKEN
    assert desk.intake.inventory(agent, GPU_CHANGED, desk.now) is None
    desk.commit()
    desk.close()
    say(tmp_path / "b.db")
    desk = opened(tmp_path / "b.db", faults, **OTHER)
    agent = desk.agent(chain)
    before_it = tables(desk)
    assert what_was_noted(desk) == NOTED_FIRST

    raw = fill(desk, chain, agent)
    faults.plan(statement, before=before, error=Crash() if dies else None)
    with pytest.raises(Crash if dies else StoreError):
        desk.commit()
    assert faults.error is None, "the statement did not run: this case tests nothing"
    faults.error = None
    if dies:
        desk.close()
        desk = opened(tmp_path / "b.db", faults, **OTHER)
        agent = desk.agent(chain)
    else:
        desk.recover()
    with desk:
        persisted = statement == "COMMIT" and not before
        assert agent.head.next_seq == (3 if persisted else 2)
        assert agent.durable_seq == agent.head.last_seq
        after_it = tables(desk)
        unchanged = {name for name, rows in before_it.items() if after_it[name] == rows}
        assert unchanged == (NOT_THE_WRITERS if persisted else set(before_it))
        assert what_was_noted(desk) == (NOTED_THEN if persisted else NOTED_FIRST)
        for table in ("losses", "conflicts"):
            assert desk.rows(f"SELECT count(*) FROM {table}") == [(int(persisted),)]
        assert_books_are_sums(desk)
        # The agent sends it again, and more: counted once.
        outcome = desk.offer(agent, raw)
        assert (outcome is TAKEN) is not persisted
        assert desk.offer(agent, chain.next([busy(0), busy(1, 1)], [TRAINING, IDLE])) is TAKEN
        desk.commit()
        assert desk.rows("SELECT seq FROM records ORDER BY seq") == [(1,), (2,), (3,)]
        assert_books_are_sums(desk)
        assert what_was_noted(desk) == NOTED_THEN
        assert desk.rows("SELECT count(*) FROM events") == desk.rows("SELECT count(*) FROM outbox")
        found = check_store(tmp_path / "b.db", regimes(OTHER["version"]))
        assert found.difference is None


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 2 MiB."""
    at = tmp_path / "disk"
    at.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", at], capture_output=True)
    if mounted.returncode:
        pytest.skip("a small file system cannot be mounted here (needs root)")
    yield at
    subprocess.run(["umount", at], check=True)


@pytest.mark.faults
def test_a_full_disk_loses_nothing_and_ends_when_there_is_room(small_disk):
    ballast = small_disk / "ballast"
    chain = Chain("n", gpus=8)
    with Desk(small_disk / "b.db") as desk:
        agent = desk.agent(chain)
        desk.commit()
        ballast.write_bytes(b"x" * (1 << 20))
        acked, failures = 0, 0
        while not failures:
            assert desk.offer(agent, chain.next()) is TAKEN
            try:
                desk.commit()
                acked = agent.durable_seq
            except StoreError as e:
                assert "free space" in e.hint
                failures += 1
            assert chain.seq < 5_000, "the disk never filled"
        desk.recover()
        assert agent.durable_seq == acked
        assert_books_are_sums(desk)
        ballast.unlink()
        for raw in chain.records[acked:]:
            assert desk.offer(agent, raw) is TAKEN
        desk.commit()
        assert desk.rows("SELECT count(*) FROM records") == [(chain.seq,)]
        assert_books_are_sums(desk)


WRITING = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from builders import Chain
from desk import DAY_NS, Desk
chain = Chain("n")
with Desk(Path(sys.argv[2])) as desk:
    agent = desk.agent(chain)
    while chain.seq < agent.head.last_seq:
        chain.next()
    while True:
        for _ in range(5):
            assert desk.offer(agent, chain.next()).__class__.__name__ == "Taken"
        desk.commit()
        print(agent.durable_seq, flush=True)
"""


@pytest.mark.faults
def test_killed_while_committing_what_was_acknowledged_is_there(tmp_path):
    store = tmp_path / "b.db"
    tests = str(Path(__file__).parents[1])
    for round_ in range(6):
        process = subprocess.Popen([sys.executable, "-c", WRITING, tests, store], stdout=subprocess.PIPE)
        assert process.stdout is not None
        acked = 0
        for _ in range(3 + round_):
            acked = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        rest, _ = process.communicate()
        acked = max([acked, *(int(line) for line in rest.split(b"\n")[:-1])])
        with Desk(store) as desk:
            seqs = [s for (s,) in desk.rows("SELECT seq FROM records ORDER BY seq")]
            assert seqs == list(range(1, len(seqs) + 1))
            assert acked <= len(seqs)
            assert len(seqs) % 5 == 0  # groups are whole
            assert desk.rows("PRAGMA integrity_check") == [("ok",)]
            assert_books_are_sums(desk)


def test_an_unwritable_folder_is_said_with_its_cause(tmp_path):
    blocker = tmp_path / "file"
    blocker.write_text("")
    with pytest.raises(StoreError, match=os.strerror(errno.ENOTDIR) + "|" + os.strerror(errno.EEXIST)):
        Desk(blocker / "b.db")


def deleted(store, aside):
    store.rename(aside)


def replaced(store, aside):
    """By a copy of itself, as a restore would."""
    copy = store.with_suffix(".copy")
    shutil.copy2(store, copy)
    store.rename(aside)
    copy.rename(store)


def wal_deleted(store, aside):
    store.with_name(store.name + "-wal").rename(aside)


@pytest.mark.parametrize("vanish", [deleted, replaced, wal_deleted])
def test_a_store_that_is_taken_away_acknowledges_nothing_more(tmp_path, monkeypatch, caplog, vanish):
    """Commits into the file that is still open succeed, and would be lost with the process."""
    monkeypatch.setattr("flopmeter.collector.ingest.committer.RECOVERY_PAUSE_S", 0.02)
    store, aside = tmp_path / "b.db", tmp_path / "aside"
    settings = CollectorSettings(
        store=store,
        listen="127.0.0.1:0",
        http="127.0.0.1:0",
        admit_new=True,
        linger_ms=5,
        event_log=tmp_path / "events.jsonl",
    )
    chain = Chain()
    with (
        run_collector(settings) as collector,
        WireClient(collector.address, chain) as client,
    ):
        client.hello()
        client.records(chain.next())
        client.ack(1)
        vanish(store, aside)
        client.records(chain.next())
        pushback = client.read("pushback").pushback
        assert (pushback.reason, pushback.resume_seq) == (ingest_pb2.Pushback.REASON_STORE_UNAVAILABLE, 2)
        wait_for("tried again and again", lambda: caplog.text.count("still cannot commit") >= 3)
        assert not collector._collector.server.ready
        with pytest.raises(urllib.error.HTTPError, match="503") as e:
            urllib.request.urlopen(f"http://{collector.http_address}/readyz", timeout=60)
        e.value.close()
        assert "found another file" in caplog.text if vanish is replaced else "found no file" in caplog.text
        assert "put it back" in caplog.text
        # Put back, it goes on; nothing had been promised meanwhile.
        aside.rename(store.with_name(store.name + "-wal") if vanish is wal_deleted else store)
        wait_for("ready", lambda: collector._collector.server.ready)
        client.records(*chain.records[1:])
        client.ack(2)
    db = sqlite3.connect(store)
    assert db.execute("SELECT seq FROM records ORDER BY seq").fetchall() == [(1,), (2,)]
    db.close()


def test_the_event_log_does_not_make_a_store_that_was_deleted(tmp_path):
    store = tmp_path / "b.db"
    Desk(store).close()
    store.unlink()
    with pytest.raises(SinkError, match="cannot read the outbox"):
        file_worker(store, tmp_path / "events.jsonl").deliver()
    assert not store.exists()
