"""Whatever happens in whatever order: no record stands in the log outside of the time in which its agent's key counted."""

import contextlib
import tempfile
from pathlib import Path

from access_rig import rows
from builders import Chain
from desk import Desk as Pipeline
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flopmeter.collector.access.desk import Desk
from flopmeter.collector.access.errors import AccessRefused
from flopmeter.collector.access.rows import ENDING, check_chain
from flopmeter.collector.check.fsck import check_store
from flopmeter.collector.ingest.decide import TAKEN
from flopmeter.collector.ingest.group import Agent

NAMES = ("a", "b")
STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["hello", "record", "record", "revoke"]), st.sampled_from(NAMES)),
        st.tuples(st.sampled_from(["look", "look", "commit", "fail", "token"]), st.just("")),
    ),
    min_size=12,
    max_size=40,
)


def in_the_log(books: Pipeline) -> tuple[dict[int, int], list[tuple[int, bytes]]]:
    """Index by access row, and (index, agent id) of every record."""
    index = {}
    for at, kind, first, count in books.rows("SELECT first_index, kind, first_number, count FROM log"):
        index.update({(kind, first + i): at + i for i in range(count)})
    agents = dict(books.rows("SELECT agent_no, agent_id FROM agents"))
    records = [
        (index["batch", position], agents[agent_no])
        for position, agent_no in books.rows("SELECT position, agent_no FROM records")
    ]
    numbers = {number: at for (kind, number), at in index.items() if kind == "access"}
    return numbers, records


@settings(max_examples=25, deadline=None)
@given(STEPS)
@example([("record", "a"), ("revoke", "a"), ("look", "")])
@example([("record", "a"), ("revoke", "a"), ("record", "b"), ("look", ""), ("record", "b"), ("commit", "")])
@example([("revoke", "a"), ("record", "a"), ("fail", ""), ("hello", "b"), ("record", "b"), ("look", "")])
def test_no_record_stands_outside_of_its_agents_time(steps):
    with tempfile.TemporaryDirectory() as directory:
        store = Path(directory) / "b.db"
        with Pipeline(store) as books:
            run(books, store, steps)
            while books.intake.group:  # as the committer goes on
                commit(books)
            numbers, records = in_the_log(books)
        found = rows(store)
        assert check_chain(found) is None
        for index, agent_id in records:
            mine = [row for row in found if row.agent_id == agent_id]
            assert numbers[mine[0].access_no] < index
            for row in mine:
                if row.kind in ENDING and row.access_no in numbers:
                    assert index < numbers[row.access_no]
        assert set(numbers) == {row.access_no for row in found} or not records  # none is left out
        result = check_store(store, [])
        assert result.difference is None, result.difference


def run(books: Pipeline, store: Path, steps) -> None:
    chains = {name: Chain(name, gpus=1) for name in NAMES}
    agents: dict[str, Agent] = {}
    desk = Desk(store, None)
    begun = [("hello", name) for name in NAMES] + [("commit", "")]
    for what, name in [*begun, *steps]:
        if what == "hello":
            said = books.hello(chains[name])
            if isinstance(said, Agent):
                agents[name] = said
        elif what == "record" and name in agents and agents[name].entered:  # the server says Welcome then
            chain, agent = chains[name], agents[name]
            if agent.head.next_seq == chain.seq + 1:
                outcome = books.offer(agent, chain.next())
                assert (outcome is TAKEN) is (not agent.barred)
        elif what == "revoke" and name in agents:
            with contextlib.suppress(AccessRefused):
                desk.revoke_agent(agents[name].agent_id, who="tests", why="because")
        elif what == "token":
            desk.make_api_token(role="viewer", name="x", lasts_s=0, who="tests")
        elif what == "look":
            books.intake.look_at_access()
        elif what == "commit":
            commit(books)
        elif what == "fail":  # what was taken and not committed is sent again: its chain is set back
            books.recover()
            agents.clear()
            for chain in chains.values():
                forget(books, chain)
    books.intake.look_at_access()


def forget(books: Pipeline, chain: Chain) -> None:
    """The agent goes back to what is durable; it will send the same records again."""
    agent = books.intake._agents.get(chain.agent_id)
    durable = agent.durable_seq if agent is not None else 0
    kept = chain.records[:durable]
    fresh = Chain(chain.node, gpus=1)
    for _ in kept:
        fresh.next()
    assert fresh.records == kept
    chain.__dict__.update(fresh.__dict__)


def commit(books: Pipeline) -> None:
    group = books.intake.take_group()
    if group:
        books.writer.commit(group)
        books.intake.committed(group)
