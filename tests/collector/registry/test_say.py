"""How a word gets into the store: looked up, checked, appended; again when somebody else was quicker."""

import sqlite3
import threading
from contextlib import closing

import pytest
from builders import Chain
from desk import Desk
from faulty_sqlite import Faults

from flopmeter.collector.errors import EntryRefused, RegistryError, StoreError
from flopmeter.collector.ingest.decide import TAKEN
from flopmeter.collector.registry import say as module
from flopmeter.collector.registry.checks import Known
from flopmeter.collector.registry.codec import to_entry
from flopmeter.collector.registry.entries import Assign, Declare, Entry, JobKey, Link, Purpose, Relation, Tag
from flopmeter.collector.registry.known import JobRow, find_job, known
from flopmeter.collector.registry.say import Said, draft, read_known, read_registry, say
from flopmeter.collector.registry.state import Registry
from flopmeter.collector.report.queries import reading
from flopmeter.collector.store.entries import SqliteEntries
from flopmeter.collector.store.sqlite import SqliteStore

NOW = 1_790_000_000_000_000_000
JOB = JobKey("c1", 3, "4711")


@pytest.fixture
def path(tmp_path):
    """A store with one record of job 4711, run r1."""
    path = tmp_path / "books.sqlite"
    chain = Chain()
    with Desk(path) as desk:
        assert desk.offer(desk.agent(chain), chain.next()) is TAKEN
        desk.commit()
    return path


def said(path, statement, *, now=NOW) -> Entry:
    return say(path, lambda _: statement, "ada@lab", "said", lambda: now)


def registry(path) -> Registry:
    with reading(path) as reader:
        return read_registry(reader)


def test_what_is_said_stands_in_the_store_with_who_when_why_and_where(path):
    entry = said(path, Assign(JOB, "r1"))
    assert entry == Entry(1, NOW, 1, "ada@lab", "said", Assign(JOB, "r1"))
    assert registry(path).entries == (entry,)


def test_what_may_not_be_said_leaves_nothing(path):
    for statement, error in (
        (Assign(JOB, "r9"), EntryRefused),
        (Assign(JobKey("c1", 3, "1"), "r1"), EntryRefused),
        (Tag("r1", Purpose.EVALUATION), RegistryError),
    ):
        with pytest.raises(error):
            said(path, statement)
    said(path, Declare("r9", owner="a"))
    with pytest.raises(EntryRefused, match="before it"):
        said(path, Declare("r9", owner="b"), now=NOW - 1)
    assert len(registry(path).entries) == 1


def test_a_run_counts_as_known_where_people_put_its_jobs(path):
    said(path, Declare("r2", owner="a"))
    said(path, Assign(JOB, "r2"))
    with reading(path) as reader:
        found = read_known(reader, read_registry(reader))
    assert found.runs == {"r2"}
    assert found.jobs[JOB].runs == {"r2"}
    with pytest.raises(EntryRefused, match="expected a job of run r1, got one of r2"):
        said(path, Declare("r1", owner="a"))
        said(path, Tag("r1", Purpose.RL, job=JOB))


def test_two_people_at_once_both_get_their_word_in(path):
    """Each reads, then waits for the other to have read too, before it appends: one of them is overtaken."""
    both = threading.Barrier(2)
    first = threading.local()
    failed = []

    def make(_: Known) -> Declare:
        if not getattr(first, "done", False):
            first.done = True
            both.wait(timeout=60)
        return Declare("r1", owner=threading.current_thread().name)

    def speak() -> None:
        try:
            say(path, make, "a", "b", lambda: NOW)
        except (RegistryError, StoreError) as e:
            failed.append(e)

    people = [threading.Thread(target=speak, name=name) for name in ("ada", "bob")]
    for p in people:
        p.start()
    for p in people:
        p.join()
    assert failed == []
    entries = registry(path).entries
    assert [e.number for e in entries] == [1, 2]
    assert {e.statement.owner for e in entries} == {"ada", "bob"}


def test_a_store_that_is_opened_for_writing_while_it_is_read_is_read_again(path):
    """Nobody has it open, so that it is read without a lock: a word of somebody else's in between must not end ours."""
    others = iter(range(3))

    def quick(reader, registry):
        for number in others:
            with SqliteEntries(path) as log:
                said_by = Said(Declare("r1", owner=f"x{number}"), "bob", "said")
                log.append_entry(module._next(_registry(log), Known(), said_by, lambda: NOW))
            break
        return read_known(reader, registry)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "read_known", quick)
        entry = said(path, Declare("r1", owner="ada"))
    assert entry.number == 4
    assert [e.who for e in registry(path).entries] == ["bob", "bob", "bob", "ada@lab"]


def _registry(log) -> Registry:
    return Registry.of(map(to_entry, log.entries()))


def test_what_was_checked_before_is_checked_again_when_somebody_else_was_quicker(path):
    """Two tags that contradict each other: the second to come is refused, not written unseen."""
    others = iter([Tag("r1", Purpose.RL)])

    def make(_: Known) -> Tag:
        for other in others:  # somebody else, between our look and our word
            said(path, other)
        return Tag("r1", Purpose.PRETRAINING)

    with pytest.raises(EntryRefused, match="expected no other purpose"):
        say(path, make, "a", "b", lambda: NOW)
    assert len(registry(path).entries) == 1


def test_a_program_that_never_lets_go_is_named_at_last(path, monkeypatch):
    monkeypatch.setattr(module, "TRIES", 3)

    def make(_: Known) -> Declare:
        said(path, Declare("r1", owner="other"))
        return Declare("r1", owner="me")

    with pytest.raises(EntryRefused, match="3 times somebody else"):
        say(path, make, "a", "b", lambda: NOW)


def test_nothing_is_built_on_a_registry_that_was_altered(path):
    said(path, Declare("r1", owner="ada"))
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("DROP TRIGGER entries_stay")
        db.execute("UPDATE entries SET who = 'eve@lab'")
    with pytest.raises(StoreError, match=r"entry 1 of the run registry: .* altered") as e:
        said(path, Declare("r1", owner="bob"))
    assert "fsck" in e.value.hint


def test_a_collector_that_runs_keeps_running(path):
    chain = Chain(key_seed="two")
    with Desk(path) as desk:
        agent = desk.agent(chain)
        for _ in range(3):
            assert desk.offer(agent, chain.next()) is TAKEN
            desk.commit()
            said(path, Declare("r1", owner="ada"))
        assert len(desk.store.books.entries()) == 3
        assert [r.position for r in desk.store.books.entries()] == [2, 3, 4]


def test_a_full_disk_is_named(path, monkeypatch):
    faults = Faults()
    faults.plan("INSERT", before=True)
    monkeypatch.setattr(module, "SqliteEntries", lambda p: SqliteEntries(p, connect=faults.connect))
    with pytest.raises(StoreError, match="disk is full") as e:
        said(path, Declare("r1", owner="ada"))
    assert "free space" in e.value.hint
    assert registry(path).entries == ()


def test_an_empty_store_takes_a_plan(tmp_path):
    path = tmp_path / "books.sqlite"
    SqliteStore(path).close()
    assert said(path, Declare("r1", owner="ada")).position == 0
    with pytest.raises(EntryRefused, match="found neither"):
        said(path, Link("r1", Relation.MERGES, "r2"))


def test_a_draft_is_what_would_be_said(path):
    with reading(path) as reader:
        held = read_registry(reader)
        books = read_known(reader, held)
    entry = draft(held, books, Said(Declare("r1", owner="ada"), "ada@lab", "said"), NOW)
    assert entry.number == 1
    assert registry(path).entries == ()
    with pytest.raises(EntryRefused):
        draft(held, books, Said(Assign(JOB, "r9"), "ada@lab", "said"), NOW)


# ---- jobs by name ------------------------------------------------------------------------------------------

ROWS = [
    JobRow("c1", 3, "4711", "0", "r1"),
    JobRow("c1", 3, "4711", "1", "r2"),
    JobRow("c2", 3, "4711", "", "r3"),
    JobRow("c1/n1", 5, "a/b", "", "r4"),
    JobRow("c1", 1, "", "", ""),
    JobRow("c1", 2, "", "", ""),
]


def test_jobs_have_their_steps_and_runs_and_nobodys_time_is_no_job():
    found = known(ROWS, Registry())
    assert found.runs == {"r1", "r2", "r3", "r4"}
    assert found.jobs[JOB].steps == {"0", "1"}
    assert found.jobs[JOB].runs == {"r1", "r2"}
    assert len(found.jobs) == 3
    assert known([], Registry()) == Known()


def test_a_job_is_found_by_its_id_or_by_its_whole_name():
    found = known(ROWS, Registry())
    assert find_job("slurm:c1/4711", found) == JOB
    assert find_job("a/b", found) == find_job("process:c1/n1/a/b", found) == JobKey("c1/n1", 5, "a/b")
    with pytest.raises(EntryRefused, match="got 2 of that id: slurm:c1/4711, slurm:c2/4711") as e:
        find_job("4711", found)
    assert "--job slurm:c1/4711" in e.value.hint
    with pytest.raises(EntryRefused, match="found none") as e:
        find_job("4712", found)
    assert "did you mean 4711" in e.value.hint
    with pytest.raises(EntryRefused) as e:
        find_job("x" * 10_000, found)
    assert len(str(e.value)) < 300
