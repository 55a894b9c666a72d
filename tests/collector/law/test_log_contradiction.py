"""What agents say against the collector's own log is an event: three agents a day, in the transaction of their record."""

import sqlite3

import pytest
from builders import UNIX_NS, Chain
from desk import DAY_NS, Desk

from flopmeter.collector.check.fsck import check_store
from flopmeter.collector.ingest.decide import TAKEN
from flopmeter.collector.law.events import event_id
from flopmeter.contract.usage import NoticeKind

SET_BACK = "set-back: 20 leaves (root c69e) of 'flopmeter-test' were signed and seen; now the log has 8"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "books.sqlite"


@pytest.fixture
def desk(path):
    with Desk(path) as desk:
        yield desk


def record(chain: Chain, *details: str) -> bytes:
    batch = chain.batch()
    for detail in details:
        batch.notices.add(kind=NoticeKind.LOG_CONTRADICTION, t_boot_ns=5, t_unix_ns=UNIX_NS, detail=detail)
    return chain.next(payload=batch.SerializeToString())


def book(desk, agent, *records):
    for raw in records:
        assert desk.offer(agent, raw) is TAKEN
    return list(desk.commit().events)


def test_it_is_an_event_once_an_agent_and_day(desk, path):
    chain = Chain("n")
    agent = desk.agent(chain)
    (event,) = book(desk, agent, record(chain), record(chain, SET_BACK, "forked: …"), record(chain, SET_BACK))
    assert (event.type, event.subject) == ("evidence.fork", f"agent/{chain.agent_id.hex()}")
    assert (event.since_position, event.position) == (2, 2)
    assert event.data["detail"] == SET_BACK
    assert SET_BACK in event.data["message"]
    desk.recover()
    assert book(desk, agent, record(chain, SET_BACK)) == []
    chain.unix_ns += DAY_NS
    desk.now += 2 * DAY_NS
    assert len(book(desk, agent, record(chain, SET_BACK))) == 1
    assert check_store(path, ()).difference is None


def test_a_whole_fleet_that_says_it_is_three_events(desk, path):
    chains = [Chain(f"n{i}") for i in range(6)]
    agents = [desk.agent(chain) for chain in chains]
    for agent, chain in list(zip(agents, chains, strict=True))[:4]:
        assert desk.offer(agent, record(chain, SET_BACK)) is TAKEN
    assert [e.data["node"] for e in desk.commit().events] == ["n0", "n1", "n2"]
    assert book(desk, agents[5], record(chains[5], SET_BACK)) == []
    assert check_store(path, ()).difference is None


@pytest.mark.parametrize(
    ("column", "sql"),
    [
        ("row", "DELETE FROM events"),
        ("since_position", "UPDATE events SET position = 1, since_position = 1"),
        ("data", "UPDATE events SET data = replace(data, '20 leaves', '21 leaves')"),
        ("subject", "UPDATE events SET subject = 'agent/other'"),
        ("key", "UPDATE events SET key = replace(key, 'fork:log:', 'fork:log:x')"),
    ],
)
def test_fsck_derives_it_again(path, column, sql):
    chain = Chain("n")
    with Desk(path) as desk:
        agent = desk.agent(chain)
        book(desk, agent, record(chain))
        book(desk, agent, record(chain, SET_BACK))
    assert check_store(path, ()).difference is None
    with sqlite3.connect(path) as db:
        db.execute(sql)
        for event_no, key in db.execute("SELECT event_no, key FROM events").fetchall():
            db.execute("UPDATE events SET id = ? WHERE event_no = ?", (event_id(key), event_no))
    db.close()
    difference = check_store(path, ()).difference
    assert difference is not None
    assert (difference.table, difference.column) == ("events", column)
