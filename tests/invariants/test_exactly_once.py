"""A model of agents, a bad network and a collector that dies: the books are the sum of what was accepted.

Two agents with real keys and chains; a network that drops, doubles and reorders; a collector on a real
SQLite file that is killed between commits, inside them at every statement, fails with and without having
persisted, and is restored from an older copy. Jobs get their labels late and move with all that was booked of them,
people say things in between, and training code claims progress. Always: acknowledged is stored, stored is booked once,
what is missing is named as a loss; a job's rows are of the run that any stored record states; and what people said is
kept, and applied by the next commit. At the end fsck derives all of it, claims and events too.

The network here is a list, and a crash is an exception: real processes and kills are in tests/faults.
"""

import contextlib
import shutil
import sqlite3
import tempfile
from dataclasses import replace
from pathlib import Path

from builders import TRAINING, Chain, busy, gap
from desk import Desk
from faulty_sqlite import Crash, Faults
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from flopmeter.collector.books import SUM_FIELDS
from flopmeter.collector.check.fsck import check_store, result_text
from flopmeter.collector.encode import decode_batch
from flopmeter.collector.errors import RegistryError, StoreError
from flopmeter.collector.ingest.decide import PushbackReason, PushedBack, RefusalCode, Refused
from flopmeter.collector.law.regimes import shipped
from flopmeter.collector.registry.entries import Assign, Declare, JobKey, Link, Relation
from flopmeter.collector.registry.say import say
from flopmeter.collector.store.sqlite import WRITES
from flopmeter.contract.record import parse_record
from flopmeter.contract.usage import Workload, WorkloadKind

IDLE = Workload(WorkloadKind.IDLE)
#: Jobs whose first rows have no label.
JOBS = ("7", "8")
OLD = {job: f"slurm:c1/{job}" for job in JOBS}
NAMES = (*OLD.values(), "late", "r1")
#: Lines that are crossed within some windows, so that commits raise events.
LOW = tuple(replace(r, threshold_flop=10**17 * 3**i) for i, r in enumerate(shipped()) if r.threshold_flop)
SAYINGS = (
    *(Declare(name, owner="x") for name in NAMES),
    *(Link("r1", Relation.CONTINUES, name) for name in OLD.values()),
    *(Assign(JobKey("c1", int(WorkloadKind.SLURM), job), run) for job in JOBS for run in ("r1", "")),
)
STATEMENTS = ["COMMIT", "COMMIT", "COMMIT", "BEGIN IMMEDIATE", *(sql for _, sql in WRITES)]
FOLDER = "/dev/shm" if Path("/dev/shm").is_dir() else None


class Node:
    """An agent: its chain, what it still holds, and what it was told is durable."""

    def __init__(self, name: str) -> None:
        self.chain = Chain(name)
        self.acked = 0
        self.oldest = 1  # lowest number it still holds
        self.next_send = 1

    @property
    def name(self) -> str:
        return self.chain.node


def sums(records: list[bytes]) -> list[int]:
    """All rows of all records, added by plain Python from decoded types."""
    result = [0] * len(SUM_FIELDS)
    for raw in records:
        for usage in decode_batch(parse_record(raw).payload).usage:
            for i, name in enumerate(SUM_FIELDS):
                result[i] += getattr(usage, name)
    return result


class ExactlyOnce(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp(dir=FOLDER))
        self.faults = Faults()
        self.nodes = [Node("a"), Node("b")]
        self.network: list[tuple[Node, bytes]] = []
        self.copy: Path | None = None
        self.restored = False
        self.forks: set[bytes] = set()
        self.said = 0  # entries that somebody was told are in the books
        self.tokens = 0
        self.open()

    def open(self) -> None:
        self.desk = Desk(self.folder / "books.db", LOW, connect=self.faults.connect)
        for node in self.nodes:
            self.connect(node)

    def connect(self, node: Node) -> None:
        """Hello and Welcome: the agent goes to where the collector says; what it lacks is named a loss."""
        oldest = node.oldest if node.chain.seq >= node.oldest else 0
        self.desk.agent(node.chain, oldest_seq=oldest)
        if not self.commit_now():
            return
        node.next_send = self.desk.agent(node.chain, oldest_seq=oldest).head.next_seq
        assert node.next_send >= node.oldest or oldest == 0

    def commit_now(self) -> bool:
        """Commit; deliver acks. After a crash the collector is opened again, after an error it recovers."""
        group = self.desk.intake.take_group()
        self.desk.now += 1_000_000
        try:
            if group:
                self.desk.writer.commit(group)
                self.desk.intake.committed(group)
                (entries,), (applied,) = (
                    self.desk.rows(f"SELECT coalesce(max(entry_no), 0) FROM {table}")[0]
                    for table in ("entries", "applied")
                )
                assert applied == entries  # by what was said before this commit it judged
        except StoreError:
            self.desk.recover()
            self.rewind()
            return False
        except Crash:
            self.die()
            return False
        for record in group.records:
            node = next(n for n in self.nodes if n.chain.agent_id == record.raw[:16])
            node.acked = max(node.acked, record.seq)
        return True

    def rewind(self) -> None:
        """What the server pushes back after a failed commit, and an agent that was not admitted yet."""
        for node in self.nodes:
            agent = self.desk.intake._agents.get(node.chain.agent_id)
            if agent is None:
                self.connect(node)
            else:
                node.next_send = agent.head.next_seq

    def die(self) -> None:
        self.faults.error = None
        with contextlib.suppress(sqlite3.Error):
            self.desk.close()  # rolls back what was open, as the next opening would
        self.open()

    # --- what happens ---

    @rule(statement=st.sampled_from(SAYINGS))
    def say(self, statement: Declare | Link | Assign) -> None:
        """A person's command, in a process of its own beside the collector."""
        with contextlib.suppress(RegistryError):  # not admissible as things stand
            say(self.folder / "books.db", lambda _: statement, "ada@lab", "so", lambda: self.desk.now)
            self.said += 1

    @rule(which=st.integers(0, 1), job=st.sampled_from(JOBS), label=st.booleans(), claims=st.booleans())
    def run_a_job(self, which: int, job: str, label: bool, claims: bool) -> None:
        """A window of a job that states its run or does not, and whose code claims progress or does not."""
        chain = self.nodes[which].chain
        workload = Workload(WorkloadKind.SLURM, job=job, run="late" if label else "", dtype="bf16")
        batch = chain.batch([busy(0, percent=30)], [workload])
        if claims:
            self.tokens += 1_000
            batch.progress.add(
                workload_index=0,
                t_boot_ns=chain.boot_ns,
                t_unix_ns=chain.unix_ns,
                tokens=self.tokens,
                parameters=10**9,
                ranks=1,
            )
        chain.next(payload=batch.SerializeToString())
        self.deliver_all(self.nodes[which])

    def deliver_all(self, node: Node) -> None:
        for seq in range(node.next_send, node.chain.seq + 1):
            self.receive(node, node.chain.records[seq - 1])
            node.next_send = max(node.next_send, seq + 1)

    @rule(which=st.integers(0, 1), percent=st.integers(0, 90), missing=st.booleans(), boot=st.integers(0, 9))
    def seal(self, which: int, percent: int, missing: bool, boot: int) -> None:
        chain = self.nodes[which].chain
        if boot == 0:
            chain.reboot()
        rows = [busy(0, percent=percent), busy(1, 1), *([gap(1)] if missing else [])]
        chain.next(rows, [TRAINING, IDLE])

    @rule(which=st.integers(0, 1), count=st.integers(1, 3), percent=st.integers(0, 90))
    def work(self, which: int, count: int, percent: int) -> None:
        """A good minute or three: sealed, sent and received in order. Not committed."""
        node = self.nodes[which]
        for _ in range(count):
            self.seal(which, percent, missing=False, boot=1)
        self.deliver_all(node)

    @rule(which=st.integers(0, 1), count=st.integers(1, 4))
    def send(self, which: int, count: int) -> None:
        node = self.nodes[which]
        for _ in range(count):
            if node.next_send <= node.chain.seq:
                self.network.append((node, node.chain.records[node.next_send - 1]))
                node.next_send += 1

    @precondition(lambda self: self.network)
    @rule(data=st.data(), twice=st.booleans())
    def deliver(self, data: st.DataObject, twice: bool) -> None:
        at = data.draw(st.integers(0, len(self.network) - 1))
        node, raw = self.network[at] if twice else self.network.pop(at)
        self.receive(node, raw)

    def receive(self, node: Node, raw: bytes) -> None:
        agent = self.desk.intake._agents.get(node.chain.agent_id)
        if agent is None:
            return  # its admission was not committed; it will say Hello again
        outcome = self.desk.offer(agent, raw)
        seq = parse_record(raw).seq
        if isinstance(outcome, PushedBack):
            assert outcome.reason in (PushbackReason.OUT_OF_SEQUENCE, PushbackReason.INVENTORY_UNKNOWN)
            node.next_send = agent.head.next_seq
        elif isinstance(outcome, Refused):
            # Only what was declared lost before is refused: nobody forged anything here.
            assert outcome.code == RefusalCode.BROKEN_CHAIN, outcome
            assert any(first <= seq <= last for first, last in agent.head.lost) or agent.head.lost

    @precondition(lambda self: self.network)
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        self.network.pop(data.draw(st.integers(0, len(self.network) - 1)))

    @rule()
    def commit(self) -> None:
        self.commit_now()

    @rule(at=st.sampled_from(STATEMENTS), before=st.booleans(), dies=st.booleans(), which=st.integers(0, 1))
    def commit_under_fault(self, at: str, before: bool, dies: bool, which: int) -> None:
        self.work(which, 1, 50)
        self.run_a_job(which, "7", label=False, claims=True)
        self.faults.plan(at, before=before, error=Crash() if dies else None)
        self.commit_now()
        self.faults.error = None
        self.work(which, 1, 40)  # memory that was not read again would show here
        self.run_a_job(which, "7", label=False, claims=True)
        self.commit_now()

    @rule()
    def kill(self) -> None:
        self.die()

    @rule(which=st.integers(0, 1))
    def reconnect(self, which: int) -> None:
        self.connect(self.nodes[which])

    @rule(which=st.integers(0, 1))
    def forget(self, which: int) -> None:
        """The agent drops what was acknowledged."""
        node = self.nodes[which]
        node.oldest = node.acked + 1

    @rule(which=st.integers(0, 1))
    def forge(self, which: int) -> None:
        """A clone of the key signs another first record."""
        node = self.nodes[which]
        agent = self.desk.intake._agents.get(node.chain.agent_id)
        if agent is None or agent.head.last_seq < 1 or agent.head.lost:
            return
        forged = node.chain.seal(node.chain.batch([]).SerializeToString(), seq=1, prev_hash=bytes(32))
        outcome = self.desk.offer(agent, forged)
        assert isinstance(outcome, Refused)
        assert outcome.code == RefusalCode.CONFLICT

    @rule()
    def back_up(self) -> None:
        self.copy = self.folder / "copy.db"
        self.copy.unlink(missing_ok=True)
        with contextlib.closing(sqlite3.connect(self.copy)) as target:
            self.desk.store.catalogue._connection.backup(target)

    @precondition(lambda self: self.copy is not None)
    @rule()
    def restore(self) -> None:
        """The disk dies and an older copy takes its place."""
        assert self.copy is not None
        self.desk.close()
        for suffix in ("", "-wal", "-shm"):
            (self.folder / f"books.db{suffix}").unlink(missing_ok=True)
        shutil.copy(self.copy, self.folder / "books.db")
        self.restored = True
        with contextlib.closing(sqlite3.connect(self.copy)) as db:
            (self.said,) = db.execute("SELECT count(*) FROM entries").fetchone()
        self.open()

    # --- what always holds ---

    @invariant()
    def books_are_the_sum_of_the_stored_records(self) -> None:
        if not hasattr(self, "desk"):
            return
        stored = [raw for (raw,) in self.desk.rows("SELECT record FROM records")]
        for table in ("totals", "hourly"):
            booked = [0] * len(SUM_FIELDS)
            for row in self.desk.rows(f"SELECT {', '.join(SUM_FIELDS)} FROM {table}"):
                booked = [a + int(b) for a, b in zip(booked, row, strict=True)]
            assert booked == sums(stored)
        self.rows_of_a_job_are_of_the_run_that_any_record_states(stored)
        assert self.desk.rows("SELECT count(*) FROM entries") == [(self.said,)]
        for node in self.nodes:
            mine = {parse_record(r).seq: r for r in stored if r[:16] == node.chain.agent_id}
            # Stored once each, and byte for byte what the agent sealed.
            assert len(mine) == sum(r[:16] == node.chain.agent_id for r in stored)
            assert all(node.chain.records[seq - 1] == raw for seq, raw in mine.items())
            # Acknowledged is stored, unless the disk died under it (then it is sent again, or named).
            if not self.restored:
                assert set(range(1, node.acked + 1)) <= mine.keys()

    def rows_of_a_job_are_of_the_run_that_any_record_states(self, stored: list[bytes]) -> None:
        told = {
            (w.job, w.run)
            for raw in stored
            for w in decode_batch(parse_record(raw).payload).workloads
            if w.job in JOBS
        }
        labelled = {job for job, label in told if label}
        # Every stored row stands under one run, the stated one if any states it, …
        assert {
            (job, run)
            for job, run in self.desk.rows("SELECT job, run FROM workloads WHERE job IN ('7', '8')")
        } == {(job, "late" if job in labelled else OLD[job]) for job, _ in told}
        # … and keeps no name but its own first one. Rows that came under the label never had it.
        lost = self.desk.rows(
            "SELECT w.job, w.run_label, f.run FROM formerly f JOIN workloads w USING (workload_no)"
        )
        assert all(not label and run == OLD[job] and job in labelled for job, label, run in lost)

    def teardown(self) -> None:
        """The network calms down: everything arrives, and the books are complete or say what is not."""
        if not hasattr(self, "desk"):
            return
        self.die()
        for node in self.nodes:
            self.connect(node)
            agent = self.desk.agent(
                node.chain, oldest_seq=node.oldest if node.chain.seq >= node.oldest else 0
            )
            for seq in range(agent.head.next_seq, node.chain.seq + 1):
                self.receive(node, node.chain.records[seq - 1])
            assert self.commit_now()
            (number,) = self.desk.rows("SELECT agent_no FROM agents WHERE agent_id = ?", node.chain.agent_id)[
                0
            ]
            lost = {
                seq
                for first, last in self.desk.rows(
                    "SELECT from_seq, to_seq FROM losses WHERE agent_no = ?", number
                )
                for seq in range(first, last + 1)
            }
            stored = {s for (s,) in self.desk.rows("SELECT seq FROM records WHERE agent_no = ?", number)}
            held = range(1, node.chain.seq + 1)
            unheld = {s for s in held if s < node.oldest}
            assert stored | lost >= set(held) - unheld
            assert stored.isdisjoint(lost)
            if not self.restored:
                assert not lost
                assert stored == set(held)
            else:
                assert lost <= unheld
        self.books_are_the_sum_of_the_stored_records()
        self.desk.close()
        result = check_store(self.folder / "books.db", LOW)
        assert result.difference is None, result_text(result)
        shutil.rmtree(self.folder)


ExactlyOnce.TestCase.settings = settings(
    max_examples=150,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
TestExactlyOnce = ExactlyOnce.TestCase
