"""The access table: chained, appended, backfilled; and the order in which its rows and records stand in the log."""

import sqlite3
from contextlib import closing

import pytest
from access_rig import Node, desk_at, rows
from builders import Chain
from desk import Desk as Pipeline
from old_stores import first_schema

from flopmeter.collector.access.desk import Desk
from flopmeter.collector.access.errors import AccessRefused
from flopmeter.collector.access.rows import NewAccess, check_chain, sealed
from flopmeter.collector.chained_words import NO_HASH
from flopmeter.collector.check.fsck import check_store
from flopmeter.collector.ingest.admission import Admission
from flopmeter.collector.ingest.decide import TAKEN, Refused
from flopmeter.collector.ingest.group import Agent
from flopmeter.collector.store.sqlite import SqliteStore


def some():
    return sealed(
        [NewAccess(i, "renewed", bytes(16), f"n{i}", {"sequence": str(i)}) for i in range(1, 4)], 0, None, 0
    )


def test_rows_are_chained_and_each_change_shows():
    good = some()
    assert check_chain(good) is None
    assert good[0].prev_hash == NO_HASH
    for number in range(3):
        for column, other in {
            "unix_ns": 7,
            "position": 7,
            "kind": "revoked",
            "agent_id": b"x" * 16,
            "subject": "other",
            "detail": "{}",
            "prev_hash": b"x" * 32,
            "hash": b"x" * 32,
            "access_no": 9,
        }.items():
            changed = [*good]
            changed[number] = changed[number]._replace(**{column: other})
            fault = check_chain(changed)
            assert fault is not None
            assert fault.number == number + 1, column
    assert check_chain(good[1:]) is not None
    assert check_chain([good[0], good[2]]) is not None


def test_a_detail_has_one_text():
    row = some()[0]._replace(detail='{"a": "b"}')
    from flopmeter.collector.access.rows import row_hash

    fault = check_chain([row._replace(hash=row_hash(row))])
    assert fault is not None
    assert fault.column == "detail"


def test_the_store_refuses_what_is_no_append(tmp_path, clock, node, store):
    node.joined(desk_at(tmp_path, clock))
    with closing(sqlite3.connect(store)) as connection:
        for sql in (
            "UPDATE access SET kind = 'admitted' WHERE access_no = 1",
            "DELETE FROM access WHERE access_no = 3",
            (
                "INSERT INTO access SELECT 9, unix_ns, position, kind, agent_id, subject, detail, prev_hash, hash "
                "FROM access WHERE access_no = 3"
            ),
            (
                "INSERT INTO access SELECT 4, unix_ns, position, kind, agent_id, subject, detail, prev_hash, hash "
                "FROM access WHERE access_no = 3"
            ),
        ):
            with pytest.raises(sqlite3.IntegrityError):
                connection.execute(sql)


def test_agents_of_an_older_store_have_a_row_each(tmp_path):
    path = tmp_path / "old.db"
    with Pipeline(path) as books:
        for name in ("gpu-001", "gpu-002"):
            chain = Chain(name)
            agent = books.agent(chain)
            books.commit()
            assert books.offer(agent, chain.next()) is TAKEN
        books.commit()
    first_schema(path)
    SqliteStore(path).close()
    found = rows(path)
    assert check_chain(found) is None
    assert [(r.kind, r.subject, r.position) for r in found] == [
        ("admitted", "gpu-001", 0),
        ("admitted", "gpu-002", 0),
    ]
    assert found[0].detail == f'{{"how":"first-use","key":"{Chain("gpu-001").public_key.hex()}"}}'
    with Pipeline(path, admission=Admission()) as books:  # they may still speak
        agent = books.agent(Chain("gpu-001"), oldest_seq=0)
        assert agent.entered


def test_who_is_revoked_while_an_older_store_gets_its_log_is_so_behind_what_it_shipped(tmp_path):
    """The start that makes the log may take minutes, or be killed; a command beside it waits for neither."""
    path = tmp_path / "old.db"
    chain, other = Chain("gpu-001"), Chain("gpu-002")
    with Pipeline(path) as books:
        agents = {name: books.agent(c) for name, c in (("a", chain), ("b", other))}
        books.commit()
        for _ in range(3):
            assert books.offer(agents["a"], chain.next()) is TAKEN
            assert books.offer(agents["b"], other.next()) is TAKEN
        books.commit()
    first_schema(path)
    store = SqliteStore(path)
    Desk(path, None).revoke_agent(agents["a"].agent_id, who="ann", why="stolen")
    store.backfill_log()
    store.close()
    assert checked(path) is None
    with Pipeline(path, admission=Admission()) as books:
        assert isinstance(books.hello(chain), Refused)
        leaves = order(books)
    assert leaves == ["access 1", "access 2", *(f"batch {n}" for n in range(1, 7)), "access 3"]


def order(pipeline: Pipeline) -> list[str]:
    """Kinds of leaves, in the log's order."""
    found = []
    for _, kind, first, count in pipeline.rows(
        "SELECT first_index, kind, first_number, count FROM log ORDER BY 1"
    ):
        found += [f"{kind} {number}" for number in range(first, first + count)]
    return [leaf for leaf in found if leaf.split()[0] in ("access", "batch")]


@pytest.fixture
def books(store):
    with Pipeline(store, admission=Admission(admit_new=True)) as books:
        yield books


def commit(books):
    """One commit, as the server does it: who is admitted says nothing before it."""
    group = books.intake.take_group()
    done = books.writer.commit(group)
    books.intake.committed(group)
    return done


def greeted(books, chain):
    """A Hello, with nothing committed."""
    agent = books.hello(chain)
    assert isinstance(agent, Agent), agent
    return agent


def entered(books, chain):
    agent = greeted(books, chain)
    commit(books)
    assert agent.entered
    return agent


def test_an_admission_stands_before_the_first_record(books):
    chain = Chain("gpu-001")
    agent = greeted(books, chain)
    assert not agent.entered
    commit(books)
    assert agent.entered
    assert books.offer(agent, chain.next()) is TAKEN
    commit(books)
    assert order(books) == ["access 1", "batch 1"]


def test_a_revocation_stands_behind_the_last_record_that_counts_and_before_nothing_of_that_agent(
    books, store
):
    revoked, other = Chain("gpu-001"), Chain("gpu-002")
    a, b = entered(books, revoked), entered(books, other)
    assert books.offer(a, revoked.next()) is TAKEN  # in the open group …
    Desk(store, None).revoke_agent(a.agent_id, who="ann", why="stolen")
    assert books.intake.look_at_access()
    assert not a.barred  # … which was taken before, so that the row waits for the next group
    assert books.offer(b, other.next()) is TAKEN
    commit(books)
    assert a.barred
    outcome = books.offer(a, revoked.next())
    assert isinstance(outcome, Refused)
    assert "was revoked" in outcome.message
    assert books.offer(b, other.next()) is TAKEN
    commit(books)
    assert order(books) == ["access 1", "access 2", "batch 1", "batch 2", "access 3", "batch 3"]
    assert books.intake.take_barred() == [a]
    refused = books.hello(revoked)
    assert isinstance(refused, Refused)


def test_a_revocation_counts_at_once_where_nothing_of_that_agent_waits(books, store):
    revoked, other = Chain("gpu-001"), Chain("gpu-002")
    a, b = entered(books, revoked), entered(books, other)
    assert books.offer(b, other.next()) is TAKEN
    Desk(store, None).revoke_agent(a.agent_id, who="ann", why="stolen")
    assert books.intake.look_at_access()
    assert isinstance(books.offer(a, revoked.next()), Refused)
    commit(books)
    assert order(books) == ["access 1", "access 2", "access 3", "batch 1"]


def test_a_new_agent_behind_a_revocation_that_waits_waits_too(books, store):
    revoked, other = Chain("gpu-001"), Chain("gpu-002")
    a = entered(books, revoked)
    assert books.offer(a, revoked.next()) is TAKEN
    Desk(store, None).revoke_agent(a.agent_id, who="ann", why="stolen")
    b = greeted(books, other)
    books.intake.look_at_access()
    assert not a.barred
    commit(books)
    assert a.barred
    assert b.entered
    assert books.offer(b, other.next()) is TAKEN
    commit(books)
    assert order(books) == ["access 1", "batch 1", "access 2", "access 3", "batch 2"]


def test_a_revocation_is_known_after_a_failed_commit_and_after_a_restart(store):
    chain = Chain("gpu-001")
    with Pipeline(store, admission=Admission(admit_new=True)) as books:
        a = entered(books, chain)
        assert books.offer(a, chain.next()) is TAKEN
        Desk(store, None).revoke_agent(a.agent_id, who="ann", why="stolen")
        books.recover()  # the record was not committed, and is not
        assert a.barred
        assert isinstance(books.offer(a, chain.next()), Refused)
        commit(books)
        assert order(books) == ["access 1", "access 2"]
    with Pipeline(store) as again:
        assert isinstance(again.hello(chain), Refused)


def test_who_came_by_a_token_may_speak_under_that_name_only(tmp_path, clock, store):
    desk = desk_at(tmp_path, clock)
    node = Node(Chain("gpu-001")).joined(desk)
    with Pipeline(store, admission=Admission()) as books:  # no file, and no trust on first use
        assert isinstance(books.hello(Chain("gpu-009")), Refused)
        other_name = Chain("gpu-002", key_seed="gpu-001")
        assert other_name.agent_id == node.agent_id
        refused = books.hello(other_name)
        assert isinstance(refused, Refused)
        assert "enrolled as node 'gpu-001'" in refused.message
        agent = greeted(books, node.chain)
        assert agent.admitted_how == "token"
        commit(books)
        assert books.offer(agent, node.chain.next()) is TAKEN
        commit(books)
        assert order(books) == ["access 1", "access 2", "access 3", "batch 1"]


def test_a_clone_is_an_event_once_and_survives_a_restart(tmp_path, clock, store):
    desk = desk_at(tmp_path, clock)
    node = Node(Chain("gpu-001")).joined(desk)
    with Pipeline(store, admission=Admission()) as books:
        greeted(books, node.chain)
        commit(books)
        desk.renew(node.agent_id, node.new_key().csr(desk.ca.trust_domain), 1)
        with pytest.raises(Exception, match="in use twice"):
            desk.renew(node.agent_id, node.new_key().csr(desk.ca.trust_domain), 1)
        assert books.intake.look_at_access()
        assert [e.type for e in commit(books).events] == ["evidence.fork"]
    with Pipeline(store, admission=Admission()) as again:
        assert commit(again).events == ()
        assert again.rows("SELECT type, subject FROM events") == [
            ("evidence.fork", f"agent/{node.agent_id.hex()}")
        ]
        assert isinstance(again.hello(node.chain), Refused)


def checked(store):
    return check_store(store, []).difference


@pytest.fixture
def cloned(tmp_path, clock, store):
    """A store with an agent whose keys were in use twice, and one that goes on."""
    desk = desk_at(tmp_path, clock)
    node, other = (Node(Chain(name)).joined(desk) for name in ("gpu-001", "gpu-002"))
    with Pipeline(store, admission=Admission()) as books:
        a, b = entered(books, node.chain), entered(books, other.chain)
        assert books.offer(a, node.chain.next()) is TAKEN
        commit(books)
        with pytest.raises(AccessRefused, match="in use twice"):
            desk.renew(node.agent_id, node.new_key().csr(desk.ca.trust_domain), 0)
        books.intake.look_at_access()
        commit(books)
        assert books.offer(b, other.chain.next()) is TAKEN
        commit(books)
    return store


def test_fsck_finds_the_row_of_each_clones_event_and_the_event_of_each_row(cloned):
    assert checked(cloned) is None
    with closing(sqlite3.connect(cloned)) as connection:
        for (trigger,) in connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'access'"
        ).fetchall():
            connection.execute(f"DROP TRIGGER {trigger}")
        connection.execute("DELETE FROM access WHERE kind = 'clone-seen'")
        connection.commit()
    difference = checked(cloned)
    assert difference is not None
    assert difference.table in ("access", "log", "conflicts")


def test_fsck_misses_the_event_of_a_clone(cloned):
    with closing(sqlite3.connect(cloned)) as connection:
        connection.execute("DELETE FROM events WHERE key GLOB 'fork:*:clone'")
        connection.commit()
    difference = checked(cloned)
    assert difference is not None
    assert difference.table in ("events", "log")
