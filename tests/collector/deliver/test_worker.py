"""One sink's worker: at least once, per event its own backoff, nobody blocked by another's event."""

import sqlite3
import threading
from contextlib import closing

import pytest
from builders import Chain
from desk import Desk
from sinks import FakeClock, FakeSender, answer, outbox_rows, store_with_events, worker_of

from flopmeter.collector.deliver import outbox
from flopmeter.collector.deliver.answer import LEAST_ATTEMPTS, MAX_REFUSALS, failed, gone, refused
from flopmeter.collector.deliver.outbox import Standing
from flopmeter.collector.deliver.settings import Alertmanager, Endpoint
from flopmeter.collector.duty.answers import State
from flopmeter.collector.errors import SinkError
from flopmeter.collector.law.regimes import shipped

DELIVERED, WAITS, DEAD = (1, 0), (0, 0), (0, 1)


@pytest.fixture
def store(tmp_path):
    return store_with_events(tmp_path / "books.sqlite")


@pytest.fixture
def clock():
    return FakeClock()


def ends(store):
    return [row[3:] for row in outbox_rows(store)]


def numbers(sender):
    return [(m.event_no, m.answer_no) for m in sender.got]


def until_done(worker, clock, *, turns=50, step_s=900):
    for _ in range(turns):
        worker.deliver()
        clock.pass_s(step_s)
        if worker.counters.standing.waiting == 0:
            return
    raise AssertionError(worker.counters)


def test_all_is_delivered_once_in_order(store, clock):
    sender = FakeSender()
    worker = worker_of(store, sender, clock)
    assert worker.deliver() == 3
    assert worker.deliver() == 0
    assert numbers(sender) == [(1, 0), (2, 0), (3, 0)]
    assert ends(store) == [DELIVERED] * 3
    assert worker.counters.standing == Standing()


def test_a_delivery_that_fails_is_tried_again_after_its_own_time(store, clock):
    sender = FakeSender(script=[failed("no")])
    worker = worker_of(store, sender, clock)
    assert worker.deliver() == 2
    clock.pass_s(9.9)
    assert worker.deliver() == 0
    clock.pass_s(0.2)
    assert worker.deliver() == 1
    assert numbers(sender) == [(1, 0), (2, 0), (3, 0), (1, 0)]
    assert len({m.id for m in sender.got}) == 3
    assert outbox_rows(store)[0][2] == 2


def test_one_poisonous_event_blocks_no_other_and_ends_as_a_dead_letter(store, clock, caplog):
    """The receiver can never take event 1; 2 and 3, and those of later, arrive at once."""
    poison = lambda m: refused("400 not this") if m.event_no == 1 else None  # noqa: E731

    class Picky(FakeSender):
        def send(self, messages):
            self.script = [poison(messages[0])] if poison(messages[0]) else []
            return super().send(messages)

    sender = Picky()
    worker = worker_of(store, sender, clock)
    assert worker.deliver() == 2
    until_done(worker, clock)
    assert ends(store) == [DEAD, DELIVERED, DELIVERED]
    assert numbers(sender).count((1, 0)) == MAX_REFUSALS
    assert worker.counters.standing.dead == 1
    assert worker.counters.attempts == {"delivered": 2, "refused": MAX_REFUSALS}
    assert "put aside" in caplog.text
    assert outbox_rows(store, "said")[0] == ("400 not this",)


def test_what_cannot_be_written_down_is_refused_and_blocks_no_other(store, clock):
    """An event that a defect made unreadable."""
    with closing(sqlite3.connect(store)) as db, db:
        db.execute("UPDATE events SET data = '{' WHERE event_no = 2")
    sender = FakeSender(limit=10)
    worker = worker_of(store, sender, clock)
    assert worker.deliver() == 2
    until_done(worker, clock)
    assert ends(store) == [DELIVERED, DEAD, DELIVERED]


def test_a_sender_with_a_defect_harms_nothing_else(store, clock, caplog):
    sender = FakeSender(script=[ZeroDivisionError("x")])
    worker = worker_of(store, sender, clock)
    assert worker.deliver() == 2
    until_done(worker, clock)
    assert ends(store) == [DELIVERED] * 3


def test_a_sink_that_is_down_is_not_asked_for_each_event(tmp_path, clock, caplog):
    store = store_with_events(tmp_path / "b.sqlite", [f"n{i}" for i in range(20)])
    sender = FakeSender(script=[failed("nobody")] * 3)
    worker = worker_of(store, sender, clock)
    assert worker.deliver() == 0
    assert len(sender.got) == 3
    assert worker.deliver() == 0  # it rests
    assert len(sender.got) == 3
    clock.pass_s(10)
    assert worker.deliver() == 20  # what failed for the outage does not wait for its own time
    assert caplog.text.count("nobody") == 1
    assert [e for e in ends(store) if e != DELIVERED] == []


def test_after_an_outage_nobody_waits_for_the_end_of_his_own_time(store, clock):
    """Each retry had waited longer. Somebody is there again when the next event comes, and gets all of them."""
    with closing(sqlite3.connect(store)) as db, db:
        db.execute("DELETE FROM outbox WHERE event_no = 3")
    sender = FakeSender(script=[failed("nobody")] * 12)
    worker = worker_of(store, sender, clock)
    while sender.script:
        worker.deliver()
        clock.pass_s(330)
    worker.deliver()
    assert worker.counters.standing.waiting == 0  # 330 s were enough for these
    with closing(sqlite3.connect(store)) as db, db:
        db.execute(
            "UPDATE outbox SET delivered_unix_ns = NULL, attempts = 9, due_unix_ns = ?", (clock.now_ns,)
        )
        db.execute("INSERT INTO outbox (event_no, sink, answer_no) SELECT 3, 'pager', 0")
    sender.script = [failed("nobody")] * 3
    worker.deliver()
    clock.pass_s(41)
    with closing(sqlite3.connect(store)) as db, db:
        db.execute("UPDATE outbox SET due_unix_ns = 0 WHERE event_no = 3")
    assert worker.deliver() == 3


def test_nothing_is_lost_over_a_long_outage_and_nothing_is_tried_for_ever(store, clock):
    """Three days (give_up_after_hours) from the first attempt on, then the dead letters."""
    down = [True]
    sender = FakeSender()
    sender.send = lambda messages: [failed("down") if down[0] else None for _ in messages]
    worker = worker_of(store, sender, clock, give_up_hours=72)
    began = clock.now_ns
    while ends(store) == [WAITS] * 3:
        worker.deliver()
        clock.pass_s(3_000)
        assert clock.now_ns - began < 80 * 3600 * 10**9
    assert clock.now_ns - began > 72 * 3600 * 10**9
    assert all(row[2] >= LEAST_ATTEMPTS for row in outbox_rows(store) if row[4])


def test_retry_after_rests_the_whole_sink(store, clock):
    sender = FakeSender(script=[failed("429", 120 * 10**9)])
    worker = worker_of(store, sender, clock)
    assert worker.deliver() == 0
    clock.pass_s(119)
    assert worker.deliver() == 0
    assert len(sender.got) == 1
    clock.pass_s(2)
    assert worker.deliver() == 3


def test_gone_stops_the_sink_and_keeps_its_events(store, clock, caplog):
    sender = FakeSender(script=[gone("410")])
    worker = worker_of(store, sender, clock)
    assert worker.deliver() == 0
    clock.pass_s(10**6)
    assert worker.deliver() == 0
    assert len(sender.got) == 1
    assert ends(store) == [WAITS] * 3
    assert worker.counters.gone
    assert worker_of(store, FakeSender(), clock).deliver() == 3  # the next start asks again


@pytest.mark.parametrize("back_s", [10, 3_600, 10**7])
def test_a_clock_that_is_set_back_stops_nothing(store, clock, back_s):
    worker = worker_of(store, FakeSender(script=[failed("no")] * 3), clock)
    worker.deliver()
    clock.pass_s(-back_s)
    until_done(worker, clock, step_s=30, turns=200)
    assert ends(store) == [DELIVERED] * 3


def test_a_crash_between_delivery_and_note_repeats_with_the_same_id(store, clock):
    class Killed(BaseException):
        pass

    class Dies(FakeSender):
        def send(self, messages):
            super().send(messages)
            raise Killed

    first = Dies()
    with pytest.raises(Killed):
        worker_of(store, first, clock).deliver()
    assert ends(store) == [WAITS] * 3
    again = FakeSender()
    assert worker_of(store, again, clock).deliver() == 3
    assert first.got[0].id == again.got[0].id
    assert first.got[0].body == again.got[0].body


def test_a_delivery_that_could_not_be_noted_is_repeated_with_the_same_id(store, clock, monkeypatch):
    """The disk is full for a moment: the receiver has it, we do not know it."""
    real = outbox.note

    def full(*_):
        monkeypatch.setattr(outbox, "note", real)
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(outbox, "note", full)
    sender = FakeSender()
    worker = worker_of(store, sender, clock)
    with pytest.raises(SinkError, match="disk is full"):
        worker.deliver()
    assert worker.deliver() == 3
    assert [m.event_no for m in sender.got] == [1, 1, 2, 3]
    assert sender.got[0].id == sender.got[1].id


def test_a_store_that_is_locked_or_gone_is_an_error_with_a_hint(tmp_path, clock):
    with pytest.raises(SinkError, match="outbox") as e:
        worker_of(tmp_path / "none", FakeSender(), clock).deliver()
    assert e.value.hint
    assert not (tmp_path / "none").exists()


# --- what people answer ---


def test_answers_are_deliveries_of_their_own_once_each(store, clock):
    sender = FakeSender()
    worker = worker_of(store, sender, clock, states=True)
    worker.deliver()
    answer(store, 2, State.ACKNOWLEDGED, why="on it")
    answer(store, 2, State.RESOLVED, why="done")
    assert worker.deliver() == 2
    assert worker.deliver() == 0
    said = [m.document for m in sender.got[3:]]
    assert [d["type"] for d in said] == ["coverage.lost.acknowledged", "coverage.lost.resolved"]
    assert [d["data"]["why"] for d in said] == ["on it", "done"]
    assert all(d["data"]["event"] == sender.got[1].id for d in said)
    assert len({d["id"] for d in said} | {m.id for m in sender.got[:3]}) == 5


def test_a_resolution_can_be_taken_back(store, clock):
    sender = FakeSender()
    worker = worker_of(store, sender, clock, states=True)
    worker.deliver()
    answer(store, 1, State.RESOLVED)
    answer(store, 1, State.OPEN)
    worker.deliver()
    assert [m.document["type"] for m in sender.got[3:]] == [
        "coverage.lost.resolved",
        "coverage.lost.reopened",
    ]


def test_who_does_not_ask_gets_no_answers_nor_those_of_before_when_he_does(store, clock):
    worker = worker_of(store, FakeSender(), clock)
    worker.deliver()
    answer(store, 1, State.ACKNOWLEDGED)
    assert worker.deliver() == 0
    asks = FakeSender()
    worker = worker_of(store, asks, clock, states=True)
    assert worker.deliver() == 0
    answer(store, 1, State.RESOLVED)
    assert worker.deliver() == 1
    assert asks.got[0].document["type"] == "coverage.lost.resolved"


def test_an_answer_waits_until_what_it_answers_is_delivered(store, clock):
    sender = FakeSender(script=[failed("no")])
    worker = worker_of(store, sender, clock, states=True)
    worker.deliver()
    answer(store, 1, State.ACKNOWLEDGED)
    assert worker.deliver() == 0
    assert worker._pause_s() > 1  # and nobody spins for it
    clock.pass_s(11)
    assert worker.deliver() == 2
    assert numbers(sender)[-2:] == [(1, 0), (1, 1)]


def test_an_answer_to_an_event_that_the_sink_did_not_want_is_not_its(store, clock):
    with closing(sqlite3.connect(store)) as db, db:
        db.execute("DELETE FROM outbox WHERE event_no = 3")
    worker = worker_of(store, FakeSender(), clock, states=True)
    worker.deliver()
    answer(store, 3, State.ACKNOWLEDGED)
    assert worker.deliver() == 0


def test_alertmanager_is_told_again_until_a_person_has_resolved(store, clock):
    sender = FakeSender(limit=10)
    worker = worker_of(store, sender, clock, Alertmanager(Endpoint("http://127.0.0.1/"), repost_s=60))
    worker.deliver()
    assert [m.event_no for m in sender.got] == [1, 2, 3, 1, 2, 3]  # delivered, and told of as open
    sender.got.clear()
    clock.pass_s(59)
    worker.deliver()
    assert sender.got == []
    clock.pass_s(1)
    worker.deliver()
    assert [m.event_no for m in sender.got] == [1, 2, 3]
    sender.got.clear()
    answer(store, 2, State.RESOLVED)
    worker.deliver()
    assert [(m.event_no, m.state) for m in sender.got] == [(2, "resolved")]
    sender.got.clear()
    clock.pass_s(60)
    worker.deliver()
    assert [m.event_no for m in sender.got] == [1, 3]


def test_one_event_that_became_unreadable_keeps_no_other_alert_from_firing(store, clock):
    sender = FakeSender(limit=10)
    worker = worker_of(store, sender, clock, Alertmanager(Endpoint("http://127.0.0.1/")))
    worker.deliver()
    with closing(sqlite3.connect(store)) as db, db:
        db.execute("UPDATE events SET data = '{' WHERE event_no = 2")
    sender.got.clear()
    clock.pass_s(60)
    worker.deliver()
    assert [m.event_no for m in sender.got] == [1, 3]


def test_what_is_said_of_a_deadline_is_over_when_that_is_resolved(store, clock):
    with closing(sqlite3.connect(store)) as db, db:
        columns = [row[1] for row in db.execute("PRAGMA table_info(deadlines)")]
        row = dict.fromkeys(columns, 0) | {"deadline_no": 1, "id": "d1", "key": "k", "timezone": "UTC"}
        db.execute(
            f"INSERT INTO deadlines ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})", [*row.values()]
        )
        db.execute(
            "UPDATE events SET type = 'deadline.near', data = json_set(data, '$.deadline', 'd1') WHERE event_no = 2"
        )
    sender = FakeSender(limit=10)
    worker = worker_of(store, sender, clock, Alertmanager(Endpoint("http://127.0.0.1/")))
    worker.deliver()
    answer(store, 1, State.RESOLVED, about="deadline")
    sender.got.clear()
    clock.pass_s(60)
    worker.deliver()
    assert [m.event_no for m in sender.got] == [1, 3]


# --- threads ---


def test_a_sink_that_hangs_delays_no_commit(tmp_path, clock):
    entered, release = threading.Event(), threading.Event()

    class Hangs(FakeSender):
        def send(self, messages):
            entered.set()
            release.wait(30)
            return super().send(messages)

    path = tmp_path / "b.sqlite"
    with Desk(path, shipped(), sinks=("pager",)) as desk:
        desk.agent(Chain("n1"), oldest_seq=5)
        desk.commit()
        worker = worker_of(path, Hangs(), clock)
        worker.start()
        try:
            assert entered.wait(60)
            desk.agent(Chain("n2"), oldest_seq=5)
            assert len(desk.commit().events) == 1  # no lock is held while the sink hangs
        finally:
            release.set()
            worker.ask_to_stop()
            worker.join(60)
    assert ends(path) == [DELIVERED] * 2
