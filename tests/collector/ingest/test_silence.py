"""Silent agents: one event per silence, at the right time, and what fsck says of it."""

import json
from dataclasses import replace

import pytest
from builders import WINDOW_NS, Chain
from desk import Desk

from flopmeter.collector.check.fsck import check_store, result_text
from flopmeter.collector.ingest.decide import TAKEN, Head
from flopmeter.collector.ingest.silence import GRACE_NS, SILENT_AT_LEAST_NS, is_silent, silent_after_ns
from flopmeter.collector.report.queries import reading

SECOND = 1_000_000_000
MINUTE = 60 * SECOND
HEAD = Head(5, received_unix_ns=1000 * MINUTE, usual_window_ns=MINUTE)


@pytest.fixture
def desk(tmp_path):
    with Desk(tmp_path / "books.db") as desk:
        yield desk


def ship(desk, agent, chain, **how):
    assert desk.offer(agent, chain.next(**how)) is TAKEN
    return desk.commit()


def look(desk):
    """The silences raised by a look now."""
    return desk.commit().events if desk.intake.review(desk.now) else ()


def good(desk):
    result = check_store(desk.store.path, ())
    assert result.difference is None, result_text(result)
    return result


@pytest.mark.parametrize(
    ("head", "late_ns", "silent"),
    [
        (HEAD, SILENT_AT_LEAST_NS, False),
        (HEAD, SILENT_AT_LEAST_NS + 1, True),
        (replace(HEAD, stopped=True), 10**15, False),
        (replace(HEAD, last_seq=0), 10**15, False),
        (replace(HEAD, usual_window_ns=SECOND), SILENT_AT_LEAST_NS, False),
        (replace(HEAD, usual_window_ns=60 * MINUTE), 180 * MINUTE, False),
        (replace(HEAD, usual_window_ns=60 * MINUTE), 180 * MINUTE + 1, True),
    ],
)
def test_when(head, late_ns, silent):
    assert is_silent(head, head.received_unix_ns + late_ns) is silent


def test_a_short_window_at_a_stop_does_not_make_an_agent_of_long_windows_silent(desk):
    chain = Chain("n")
    agent = desk.agent(chain)
    ship(desk, agent, chain)
    usual = agent.head.usual_window_ns
    assert usual == WINDOW_NS
    agent.head.usual_window_ns = 100 * usual  # as after hours of long windows
    ship(desk, agent, chain)
    assert agent.head.usual_window_ns == 75 * usual
    assert silent_after_ns(agent.head) == 225 * usual


def test_one_event_a_silence_and_another_for_the_next(desk):
    chain, other = Chain("n"), Chain("m")
    agent, talker = desk.agent(chain), desk.agent(other)
    ship(desk, agent, chain)
    assert look(desk) == ()  # the grace begins
    desk.now += GRACE_NS
    ship(desk, talker, other)
    (event,) = look(desk)
    head = agent.head
    assert event.key == f"silent:{chain.agent_id.hex()}:1:{head.window_end_unix_ns}"
    assert (event.type, event.subject) == ("agent.silent", f"agent/{chain.agent_id.hex()}")
    assert event.position == 2
    assert json.loads(event.data_json)["node"] == "n"
    desk.now += MINUTE
    ship(desk, talker, other)
    assert look(desk) == ()
    ship(desk, agent, chain)  # it is back …
    assert look(desk) == ()
    desk.now += SILENT_AT_LEAST_NS + 1
    ship(desk, talker, other)
    (again,) = look(desk)  # … and gone
    assert again.key == f"silent:{chain.agent_id.hex()}:2:{agent.head.window_end_unix_ns}"
    assert good(desk).events == 2
    with reading(desk.store.path) as reader:
        states = {a.node: (a.silences, a.silence_open) for a in reader.agents()}
        assert states == {"n": (2, True), "m": (0, False)}
    ship(desk, agent, chain)
    with reading(desk.store.path) as reader:
        assert [(a.silences, a.silence_open) for a in reader.agents() if a.node == "n"] == [(2, False)]


def test_an_agent_that_comes_back_in_the_very_group_rests_on_the_books_before_it(desk):
    chain = Chain("n")
    agent = desk.agent(chain)
    ship(desk, agent, chain)
    look(desk)
    desk.now += GRACE_NS
    assert desk.intake.review(desk.now)
    assert desk.offer(agent, chain.next()) is TAKEN
    (event,) = desk.commit().events
    assert event.position == 1
    good(desk)


def test_not_raised_again_by_a_collector_that_starts_anew(desk):
    chain = Chain("n")
    agent = desk.agent(chain)
    ship(desk, agent, chain)
    look(desk)
    desk.now += GRACE_NS
    assert len(look(desk)) == 1
    desk.recover()
    desk.now += GRACE_NS
    assert look(desk) == ()  # grace
    desk.now += GRACE_NS
    assert look(desk) == ()  # silent still, and the books have that
    assert good(desk).events == 1


def test_a_collector_that_did_not_listen_gives_time_to_come_back(desk):
    chain = Chain("n")
    agent = desk.agent(chain)
    ship(desk, agent, chain)
    look(desk)
    desk.now += 100 * GRACE_NS
    assert not desk.intake.review(desk.now, listening=False) or desk.intake.group.silences == []
    desk.now += GRACE_NS - 1
    assert look(desk) == ()
    desk.now += 1
    assert len(look(desk)) == 1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("UPDATE events SET time_unix_ns = time_unix_ns - 200000000000", "over 180 s after"),
        ("UPDATE events SET position = 2, since_position = 2", "key: expected"),
        ("UPDATE events SET position = 9, since_position = 9", "position: expected at most 2"),
        ("UPDATE events SET subject = 'agent/00'", "an admitted agent"),
        ("UPDATE events SET data = replace(data, 'silent since', 'quiet since')", "data: expected"),
    ],
)
def test_fsck_derives_it_again(desk, change, says):
    chain = Chain("n")
    agent = desk.agent(chain)
    ship(desk, agent, chain)
    look(desk)
    desk.now += GRACE_NS
    assert len(look(desk)) == 1
    ship(desk, agent, chain)
    good(desk)
    desk.store._writer.execute(change)
    result = check_store(desk.store.path, ())
    assert result.difference is not None
    assert says in f"{result.difference.column}: expected {result.difference.expected}"
