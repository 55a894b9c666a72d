"""An ETag stands for what is told: unchanged books keep it whatever the clock says, and each kind of change moves it."""

import shutil

import pytest
from api_books import MINE, THEIRS, api_store, asked, one_more
from builders import Chain, busy

from flopmeter.collector.check.outcome import outcome_document, write_outcome
from flopmeter.collector.duty.answers import DEADLINE, EVENT, State
from flopmeter.collector.duty.saying import Person, answer
from flopmeter.contract.usage import Workload, WorkloadKind

HOUR_NS, MINUTE_NS = 3_600_000_000_000, 60_000_000_000
LAB = "slurm-account:c1/lab"
PATHS = (("events",), ("deadlines",), ("evidence",))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    path = tmp_path_factory.mktemp("etags") / "books.sqlite"
    api_store(path)
    return path


@pytest.fixture
def books(made, tmp_path):
    return asked(shutil.copy(made, tmp_path / "books.sqlite"))


def tags(books, *paths, **more):
    return [books.ask(*path, **more).etag for path in paths]


def one_of(books, kind, **more):
    return books.get(kind, **more)["items"][0]["id"]


def every(books):
    return (*PATHS, ("events", one_of(books, "events")), ("deadlines", one_of(books, "deadlines")))


@pytest.mark.parametrize("paging", [{}, {"limit": "1"}])
def test_unchanged_books_keep_their_etags_while_the_clock_goes_on(books, paging):
    paths = every(books)
    before = tags(books, *paths)
    pages = tags(books, *PATHS[:2], **paging)
    assert all(before)
    for _ in range(3):
        books.clock.now += HOUR_NS + 17
        assert tags(books, *paths) == before
        assert tags(books, *PATHS[:2], **paging) == pages
    assert tags(books, *PATHS[:2], tenant=LAB) == tags(books, *PATHS[:2], tenant=LAB)


def test_a_process_after_this_one_gives_the_same(books):
    other = asked(books.path, books.clock.now + HOUR_NS)
    paths = [p for p in every(books) if p != ("evidence",)]  # nothing in it has a time yet
    assert tags(other, *paths) == tags(books, *paths)


def test_the_header_keeps_its_etag_within_its_minute(books):
    books.clock.now += -books.clock.now % 60_000_000_000
    (before,) = tags(books, ("overview",))
    books.clock.now += 59_000_000_000
    assert tags(books, ("overview",)) == [before]


def test_what_is_asked_of_the_fleet_keeps_its_etag_within_its_minute(books):
    """A node's lag and status are as of the same moment as the map's."""
    paths = (("fleet",), ("fleet", "nodes", "gpu-node-41"), ("fleet", "inventory"))
    books.clock.now = books.clock.now // MINUTE_NS * MINUTE_NS
    before = tags(books, *paths)
    books.clock.now += MINUTE_NS - 1
    assert tags(books, *paths) == before
    fleet, node = books.get("fleet"), books.get("fleet", "nodes", "gpu-node-41")
    assert fleet["as_of"] == node["as_of"]
    books.clock.now += 2 * HOUR_NS
    assert (
        books.get("fleet", "nodes", "gpu-node-41")["items"][0]["lag_seconds"]
        > node["items"][0]["lag_seconds"]
    )


def test_what_is_newly_raised_moves_events_and_log(books):
    before = tags(books, *PATHS)
    chain = Chain("gpu-node-70", gpus=1)
    chain.unix_ns = books.clock.now
    large = Workload(WorkloadKind.SLURM, job="501", run="new-run")
    one_more(books.path, chain, (large,), [busy(0, 0)], now=books.clock.now + HOUR_NS)
    books.clock.now += 2 * HOUR_NS
    after = tags(books, *PATHS)
    assert books.get("events", run="new-run")["total"] > 0
    assert [a == b for a, b in zip(before, after, strict=True)] == [False, False, False]


def test_an_answer_moves_what_it_is_about_and_no_other(books):
    event, other = (e["id"] for e in books.get("events")["items"][:2])
    paths = (("events",), ("events", event), ("events", other), ("deadlines",))
    before = tags(books, *paths)
    said = books.post("events", event, "answers", document={"state": "acknowledged", "why": "seen"})
    assert said.status == 201
    after = tags(books, *paths)
    assert [a == b for a, b in zip(before, after, strict=True)] == [False, False, True, True]
    # Taken back: the same state, and another answer.
    books.clock.now += 1_000_000_000
    answer(books.path, EVENT, event, State.OPEN, Person("bob", "no", books.clock.now))
    assert tags(books, *paths)[:2] not in ([before[0], before[1]], [after[0], after[1]])


def test_a_deadline_moves_when_it_is_answered_and_when_it_is_past(books):
    first = one_of(books, "deadlines")
    paths = (("deadlines",), ("deadlines", first))
    before = tags(books, *paths)
    why = Person("bob", "drafted", books.clock.now)
    answer(books.path, DEADLINE, first, State.ACKNOWLEDGED, why)
    answered = tags(books, *paths)
    found = books.get("deadlines", first)["deadline"]
    books.clock.now = int(found["due_unix_ns"])
    past = tags(books, *paths)
    assert books.get("deadlines", first)["deadline"]["overdue"]
    for n in range(2):
        assert len({before[n], answered[n], past[n]}) == 3
    books.clock.now += HOUR_NS
    assert tags(books, *paths) == past


def test_evidence_moves_with_fsck_and_attestations(books):
    seen = tags(books, ("evidence",))
    same = outcome_document(None, time="2026-11-22T18:58:00Z", position=3, records=3, version="0.1.0")
    assert write_outcome(books.path, same)
    seen += tags(books, ("evidence",))
    differs = outcome_document("x", time="2026-11-22T18:59:00Z", position=3, records=3, version="0.1.0")
    assert write_outcome(books.path, differs)
    seen += tags(books, ("evidence",))
    assert len(set(seen)) == 3
    books.clock.now += HOUR_NS
    assert tags(books, ("evidence",)) == seen[-1:]


def test_a_tenants_lists_keep_still_while_others_work(books):
    before = tags(books, *PATHS[:2], tenant=LAB)
    mine = books.get("events", tenant=LAB)["as_of"]
    chain = Chain("gpu-node-71", gpus=1)
    chain.unix_ns = books.clock.now
    one_more(books.path, chain, (THEIRS,), [busy(0, 0)], now=books.clock.now + HOUR_NS)
    theirs = next(e["id"] for e in books.get("events")["items"] if e["subject"] == "rivals-secret")
    books.clock.now += 2 * HOUR_NS
    answer(books.path, EVENT, theirs, State.ACKNOWLEDGED, Person("eve", "x", books.clock.now))
    assert tags(books, *PATHS[:2], tenant=LAB) == before
    assert books.get("events", tenant=LAB)["as_of"] == mine
    assert MINE.run in {e["subject"] for e in books.get("events", tenant=LAB)["items"]}


def test_of_books_without_anything_too(tmp_path):
    from flopmeter.collector.store.sqlite import SqliteStore

    path = tmp_path / "books.sqlite"
    SqliteStore(path).close()
    books = asked(path)
    before = tags(books, *PATHS)
    books.clock.now += HOUR_NS
    assert tags(books, *PATHS) == before
