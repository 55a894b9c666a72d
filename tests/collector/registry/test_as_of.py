"""The books as they stood: what was printed then is what is answered now, to the last integer and key."""

import json
import sqlite3
from contextlib import closing

import pytest
from builders import UNIX_NS, WINDOW_NS, Chain, busy, gap
from desk import DAY_NS, Desk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flopmeter.collector.errors import EntryRefused, StoreError
from flopmeter.collector.law.regimes import shipped
from flopmeter.collector.registry.as_of import reading_as_of
from flopmeter.collector.registry.entries import (
    Assign,
    Declare,
    JobKey,
    Link,
    Purpose,
    Relation,
    Retract,
    Statement,
    Tag,
)
from flopmeter.collector.registry.reporting import run_report
from flopmeter.collector.registry.say import say
from flopmeter.collector.report.queries import asked, reading
from flopmeter.contract.usage import IDLE, UNATTRIBUTED, Workload, WorkloadKind

A = Workload(WorkloadKind.SLURM, job="1", step="0", run="a", dtype="bf16")
B = Workload(WorkloadKind.SLURM, job="2", step="0", dtype="fp8")
ONE, TWO = (JobKey("c1", 3, job) for job in ("1", "2"))
MINUTE = WINDOW_NS


def printed(path, unix_ns: int) -> str:
    """`runs show --json` of every run, and what `runs list --json` has, as of its own moment."""
    with reading(path) as reader:
        return _documents(reader, unix_ns)


def _documents(reader, unix_ns: int) -> str:
    question = asked(unix_ns, shipped())
    names = [d["run"] for d in reader.runs(question)]
    shown = [reader.runs(question, name, series=True) for name in names]
    return json.dumps([reader.runs(question), shown, reader.fleet(question), reader.events()], sort_keys=True)


def printed_as_of(path, unix_ns: int) -> str:
    with reading_as_of(path, unix_ns) as then:
        return _documents(then.reader, unix_ns)


class Lab:
    """A collector, its agents and people, minute by minute."""

    def __init__(self, path) -> None:
        self.path = path
        self.desk = Desk(path, shipped())
        self.desk.now = UNIX_NS + 60 * MINUTE
        self.chains = [Chain("n1", gpus=2), Chain("n2", gpus=2)]
        self.agents = [self.desk.agent(chain) for chain in self.chains]

    def record(self, agent: int, *rows, workloads=(A, B, IDLE)) -> None:
        self.desk.offer(self.agents[agent], self.chains[agent].next(list(rows), workloads))

    def commit(self) -> None:
        self.desk.commit()

    def say(self, statement: Statement) -> None:
        say(self.path, lambda _: statement, "ada", "said", lambda: self.desk.now)

    def later(self) -> None:
        self.desk.now += MINUTE


@pytest.fixture
def lab(tmp_path):
    lab = Lab(tmp_path / "books.sqlite")
    yield lab
    lab.desk.close()


def test_every_moment_of_a_history_is_answered_as_it_was_then(lab):
    """Records, new jobs, a silent agent, losses, entries and their retraction: each moment is kept, then asked for."""
    kept: dict[int, str] = {}

    def keep() -> None:
        kept[lab.desk.now] = printed(lab.path, lab.desk.now)
        lab.later()

    lab.record(0, busy(0), busy(1, 2))
    lab.commit()
    keep()
    lab.say(Declare("a", owner="nlp", purpose=Purpose.PRETRAINING))
    keep()
    lab.record(0, busy(0), gap(1, 1))
    lab.record(1, busy(0, 1), busy(1, 1))
    lab.commit()
    keep()
    lab.say(Assign(TWO, "a"))
    keep()
    lab.say(Tag("a", Purpose.EVALUATION, job=TWO, evidence=("https://x",)))
    keep()
    lab.record(1, busy(0, 1, percent=70), busy(1, 2))
    lab.commit()
    keep()
    lab.say(Retract(2)) if False else lab.say(Retract(3))
    keep()
    lab.desk.agent(Chain("n3"), oldest_seq=4)  # three records are gone: a loss, and an event
    lab.commit()
    keep()
    lab.say(Assign(TWO, ""))
    lab.say(Declare("b", owner="nlp"))
    lab.say(Link("b", Relation.FINE_TUNES, "a"))
    keep()
    lab.desk.now += DAY_NS
    lab.record(0, busy(0, 0, percent=10))
    lab.commit()
    keep()
    assert len(set(kept.values())) >= 6  # they do differ
    for moment, document in kept.items():
        assert printed_as_of(lab.path, moment) == document, moment
    assert printed_as_of(lab.path, lab.desk.now) == printed(lab.path, lab.desk.now)


def test_no_answer_reads_a_table_as_it_stands_today(lab):
    """Whatever a report will ask of the store one day: it must be laid over, or have no time (models' numbers,
    which tables there are).
    """
    lab.record(0, busy(0), busy(1, 1))
    lab.commit()
    lab.say(Declare("a", owner="x"))
    read: set[str] = set()

    def watch(action, table, _column, schema, within):
        if action == sqlite3.SQLITE_READ and schema == "main" and within is None:
            read.add(table)
        return sqlite3.SQLITE_OK

    with reading_as_of(lab.path, lab.desk.now) as then:
        then.reader._db.set_authorizer(watch)
        _documents(then.reader, lab.desk.now)
        run_report(then.reader, "a", asked(lab.desk.now, shipped()))
        then.reader._db.set_authorizer(None)
    assert read <= {"models", "sqlite_master"}


def test_nothing_is_changed_by_asking(lab):
    lab.record(0, busy(0), busy(1, 1))
    lab.commit()
    lab.later()
    lab.record(0, busy(0), busy(1, 1))
    lab.commit()
    before = printed(lab.path, lab.desk.now)
    with closing(sqlite3.connect(lab.path)) as db:
        dump = list(db.iterdump())
        printed_as_of(lab.path, lab.desk.now - 1)
        assert list(db.iterdump()) == dump
    assert printed(lab.path, lab.desk.now) == before


def test_a_collectors_clock_that_is_set_back_takes_nothing_of_later_in(lab):
    """The clock was five minutes fast, and is set right: what comes then is dated earlier than what had come before."""
    moments = []
    for n in range(3):
        lab.record(n % 2, busy(0), busy(1, 1))
        lab.commit()
        lab.say(Tag("a", Purpose.EVALUATION if n else Purpose.RL, job=ONE, evidence=(f"e{n}",)))
        if n < 2:
            lab.say(Retract(2 * n + 1))
        lab.commit()
        moments.append((lab.desk.now, printed(lab.path, lab.desk.now)))
        lab.later()
    lab.desk.now -= 6 * MINUTE
    for n in range(4):
        lab.record(n % 2, busy(0, duration_ns=90 * MINUTE), workloads=(UNATTRIBUTED,))
        with pytest.raises(EntryRefused, match="expected a time not before"):  # words are never dated back
            lab.say(Declare(f"later-{n}", owner="x"))
        lab.commit()
        lab.later()
    with reading(lab.path) as reader:
        assert {e["type"].rpartition(".")[2] for e in reader.events()} == {"unattributed"}, (
            "dated before them"
        )
    for then, before in moments[:2]:
        assert printed_as_of(lab.path, then) == before
        with reading_as_of(lab.path, then) as found:
            assert found.set_back > 0
    # No record shows that the clock ever passed the third moment; by the clock it is still to come (the command says so).
    assert lab.desk.now < moments[2][0]
    lab.desk.now += 10 * MINUTE
    with reading_as_of(lab.path, lab.desk.now) as found:
        assert (found.records, found.entries, found.set_back) == (7, 5, 0)
        assert _documents(found.reader, lab.desk.now) == printed(lab.path, lab.desk.now)


def test_an_agent_admitted_by_a_clock_that_was_fast_is_there_with_its_records(lab):
    lab.record(0, busy(0))
    lab.commit()
    lab.desk.now += 60 * MINUTE
    lab.chains.append(Chain("n3", gpus=2))
    lab.agents.append(lab.desk.agent(lab.chains[2]))
    lab.desk.commit()
    lab.desk.now -= 60 * MINUTE
    lab.record(2, busy(0))
    lab.commit()
    with reading_as_of(lab.path, lab.desk.now) as found:
        assert found.records == 2
        assert [a.node for a in found.reader.agents()] == ["n1", "n2", "n3"]


def test_before_everything_there_was_nothing(lab):
    lab.record(0, busy(0))
    lab.commit()
    with reading_as_of(lab.path, UNIX_NS) as then:
        assert (then.records, then.entries) == (0, 0)
        assert then.reader.runs(asked(UNIX_NS, shipped())) == []


def test_what_it_took_is_told(lab):
    seen: list[tuple[int, int]] = []
    for _ in range(3):
        lab.record(0, busy(0))
    lab.commit()
    lab.say(Declare("a", owner="x"))
    with reading_as_of(lab.path, lab.desk.now, lambda *p: seen.append(p)) as then:
        assert (then.records, then.entries) == (3, 1)
    assert seen == [(3, 3)]


def test_records_that_contradict_each_other_are_not_answered_from(lab):
    for _ in range(2):
        lab.record(0, busy(0))
    lab.commit()
    lab.desk.close()
    with closing(sqlite3.connect(lab.path)) as db:
        db.execute(
            "UPDATE records SET record = (SELECT record FROM records WHERE position = 2) WHERE position = 1"
        )
        db.commit()
    with pytest.raises(StoreError, match="got a difference") as e, reading_as_of(lab.path, lab.desk.now):
        pass
    assert "fsck" in e.value.hint
    lab.desk = Desk(lab.path, ())


_steps = st.one_of(
    st.tuples(st.just("record"), st.integers(0, 1), st.integers(0, 2), st.integers(0, 2)),
    st.tuples(st.just("assign"), st.sampled_from([ONE, TWO]), st.sampled_from(["a", "b", ""])),
    st.tuples(st.just("tag"), st.sampled_from(["a", "b"])),
    st.tuples(st.just("commit")),
    st.tuples(st.just("keep")),
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(_steps, max_size=25))
def test_whatever_happens_each_moment_is_answered_as_it_was(tmp_path_factory, steps):
    lab = Lab(tmp_path_factory.mktemp("lab") / "books.sqlite")
    kept: dict[int, str] = {}
    try:
        lab.record(0, busy(0), busy(1, 1))
        lab.commit()
        lab.say(Declare("a", owner="x"))
        lab.say(Declare("b", owner="x"))
        for number, (kind, *words) in enumerate([*steps, ("keep",)]):
            lab.later()
            if kind == "record":
                lab.record(words[0], busy(0, words[1]), busy(1, words[2]))
            elif kind == "assign":
                lab.say(Assign(words[0], words[1]))
            elif kind == "tag":  # an hour of its own each, so that no two contradict each other
                lab.say(Tag(words[0], Purpose.RL, number, number + 1))
            else:
                lab.commit()
                if kind == "keep":
                    kept[lab.desk.now] = printed(lab.path, lab.desk.now)
        for moment, document in kept.items():
            assert printed_as_of(lab.path, moment) == document
    finally:
        lab.desk.close()
