"""An agent's failed cross-check is an event, once a day, in the transaction of its record, and derived again."""

import sqlite3

import pytest
from builders import UNIX_NS, WINDOW_NS, Chain
from desk import DAY_NS, Desk

from flopmeter.collector.check.fsck import check_store
from flopmeter.collector.encode import decode_inventory
from flopmeter.collector.ingest.decide import TAKEN
from flopmeter.collector.law.events import event_id
from flopmeter.contract.checks import Check, check_name
from flopmeter.contract.usage import NoticeKind

ENERGY = "energy-power: expected 36000000 mJ by power, got 54000000 mJ by the energy counter in 60 s"
DRAM = "dram-per-flop: expected DRAM traffic with tensor pipes active 60 % of 60 s, got 0 ppm"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "books.sqlite"


@pytest.fixture
def desk(path):
    with Desk(path) as desk:
        yield desk


def record(chain: Chain, *said: tuple[int, str], kind: NoticeKind = NoticeKind.CROSS_CHECK) -> bytes:
    """The chain's next record, with notices: (index of the entity, detail)."""
    batch = chain.batch()
    for entity, detail in said:
        batch.notices.add(
            kind=kind, t_boot_ns=5, t_unix_ns=UNIX_NS, entity_index_plus_one=entity + 1, detail=detail
        )
    return chain.next(payload=batch.SerializeToString())


def book(desk, agent, *records):
    for raw in records:
        assert desk.offer(agent, raw) is TAKEN
    return list(desk.commit().events)


def entity(chain: Chain, index: int) -> str:
    return decode_inventory(chain.inventory).devices[index].entity


def test_a_failed_check_is_an_event_with_what_was_expected_and_got(desk, path):
    chain = Chain("n")
    agent = desk.agent(chain)
    book(desk, agent, record(chain))
    (event,) = book(desk, agent, record(chain), record(chain, (1, ENERGY)), record(chain))
    assert (event.type, event.subject) == ("method.disagrees", f"entity/{entity(chain, 1)}")
    assert (event.since_position, event.position) == (3, 3)
    data = event.data
    assert (data["check"], data["detail"], data["entity"]) == ("energy-power", ENERGY, entity(chain, 1))
    assert (data["agent"], data["node"]) == (chain.agent_id.hex(), "n")
    assert ENERGY in data["message"]
    assert check_store(path, ()).difference is None


def test_it_is_raised_once_per_agent_entity_check_and_day(desk, path):
    chain, other = Chain("n"), Chain("m")
    agent, second = desk.agent(chain), desk.agent(other)
    first = book(
        desk, agent, record(chain, (0, ENERGY), (0, DRAM), (1, ENERGY), (-1, "library-path: expected …"))
    )
    assert [e.data["check"] for e in first] == [
        "energy-power",
        "dram-per-flop",
        "energy-power",
        "library-path",
    ]
    assert first[-1].subject == f"agent/{chain.agent_id.hex()}"
    # Again, in one group and in the next, and after the collector forgot all that it held in memory.
    assert book(desk, agent, record(chain, (0, ENERGY)), record(chain, (0, ENERGY + " and more"))) == []
    desk.recover()
    assert book(desk, agent, record(chain, (0, ENERGY))) == []
    assert len(book(desk, second, record(other, (0, ENERGY)), record(other, (0, ENERGY)))) == 1
    # The next day, by the agent's own time.
    chain.unix_ns += DAY_NS
    desk.now += 2 * DAY_NS
    (again,) = book(desk, agent, record(chain, (0, ENERGY)))
    assert again.key != first[0].key
    assert again.key.rpartition(":")[0] == first[0].key.rpartition(":")[0]
    assert check_store(path, ()).difference is None


def test_other_notices_are_no_events_and_unknown_checks_are_one(desk, path):
    chain = Chain("n")
    agent = desk.agent(chain)
    assert book(desk, agent, record(chain, (0, ENERGY), kind=NoticeKind.READING_REFUSED)) == []
    strange = [f"made-up-{i}: expected this, got that" for i in range(100)]
    events = book(desk, agent, record(chain, *((0, s) for s in strange)))
    assert [(e.data["check"], e.data["detail"]) for e in events] == [("other", strange[0])]
    assert check_store(path, ()).difference is None


def test_totals_do_not_change_by_it(path, tmp_path):
    sums = []
    for said in ((), ((0, ENERGY), (1, DRAM))):
        chain = Chain("n")
        with Desk(tmp_path / f"{len(said)}.sqlite") as desk:
            book(desk, desk.agent(chain), record(chain, *said))
            sums.append(desk.totals())
    assert sums[0] == sums[1] != {}


@pytest.mark.parametrize(
    ("column", "sql"),
    [
        ("row", "DELETE FROM events"),
        ("since_position", "UPDATE events SET position = 1, since_position = 1"),
        ("data", "UPDATE events SET data = replace(data, '54000000', '36000000')"),
        ("subject", "UPDATE events SET subject = 'entity/GPU-other'"),
        ("key", "UPDATE events SET key = replace(key, 'energy-power', 'rate')"),
    ],
)
def test_fsck_derives_them_again(path, column, sql):
    chain = Chain("n")
    with Desk(path) as desk:
        agent = desk.agent(chain)
        book(desk, agent, record(chain))
        book(desk, agent, record(chain, (0, ENERGY)))
    assert check_store(path, ()).difference is None
    with sqlite3.connect(path) as db:
        db.execute(sql)
        for event_no, key in db.execute("SELECT event_no, key FROM events").fetchall():
            db.execute("UPDATE events SET id = ? WHERE event_no = ?", (event_id(key), event_no))
    db.close()
    difference = check_store(path, ()).difference
    assert difference is not None
    assert (difference.table, difference.column) == ("events", column)


def test_check_names():
    assert {check_name(f"{c}: expected x, got y") for c in Check} == {c.value for c in Check}
    assert check_name("") == check_name("energy") == check_name("rate expected") == "other"
    assert WINDOW_NS < DAY_NS
