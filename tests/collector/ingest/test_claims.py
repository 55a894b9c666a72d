"""One GPU, two agents: its time is booked once, the other's record is kept, and the first time is an event."""

import hashlib
from contextlib import closing

import pytest
import trace_lines
from builders import SM_COUNT, TRAINING, WINDOW_NS, Chain, busy, gap
from desk import Desk
from processes import flopmeter

from flopmeter.collector.check.fsck import check_store
from flopmeter.collector.errors import StoreError
from flopmeter.collector.ingest.claims import CLOCK_ERROR_NS
from flopmeter.collector.ingest.decide import TAKEN
from flopmeter.collector.running import run_collector
from flopmeter.collector.settings import CollectorSettings
from flopmeter.collector.store.reading import open_for_reading
from flopmeter.contract.evidence_class import EvidenceClass
from flopmeter.contract.limits import MAX_SM_CLOCK_MHZ
from flopmeter.contract.usage import IDLE, GapReason, Measured, NoticeKind, Usage
from flopmeter.wire.v1 import batch_pb2

SECOND_NS = 1_000_000_000


@pytest.fixture
def path(tmp_path):
    return tmp_path / "books.sqlite"


@pytest.fixture
def desk(path):
    with Desk(path) as desk:
        yield desk


def pair(*, same_boot=False):
    """Two agents, each with a key of its own, on the same two GPUs."""
    one, two = Chain("n", key_seed="one"), Chain("n", key_seed="two")
    if not same_boot:
        two.reboot()
    return one, two


def book(desk, agent, raw):
    assert desk.offer(agent, raw) is TAKEN
    return desk.commit().events


def device_ns(desk):
    """Device time in the books, in windows of one GPU."""
    return sum(sums[0] for sums in desk.totals().values()) / WINDOW_NS


def gaps(desk):
    """Gaps in the books by reason, in windows of one GPU."""
    found = {}
    for key, sums in desk.totals().items():
        if key.gap_reason:
            found[GapReason(key.gap_reason)] = found.get(GapReason(key.gap_reason), 0) + sums[0] / WINDOW_NS
    return found


def assert_sound(desk, path):
    assert check_store(path, ()).difference is None


@pytest.mark.parametrize("same_boot", [True, False], ids=["same boot", "wall clock"])
@pytest.mark.parametrize("restarted", [False, True])
def test_two_agents_on_one_node_are_counted_once_and_are_one_event_a_gpu(desk, path, same_boot, restarted):
    one, two = pair(same_boot=same_boot)
    first, second = desk.agent(one), desk.agent(two)
    events = []
    for _ in range(4):
        events += book(desk, first, one.next())
        if restarted:
            desk.recover()
        events += book(desk, second, two.next())
        if restarted:
            desk.recover()
    assert device_ns(desk) == 4 * 2
    assert [e.type for e in events] == ["evidence.fork"] * 2
    assert {e.data["agent"] for e in events} == {two.agent_id.hex()}
    assert {e.data["booked_agent"] for e in events} == {one.agent_id.hex()}
    assert len({e.data["entity"] for e in events}) == 2
    assert desk.rows("SELECT count(*) FROM records") == [(8,)]  # what was not booked is kept as evidence
    assert second.durable_seq == 4
    assert_sound(desk, path)


def test_a_recording_under_another_key_counts_nothing(desk, path):
    one, two = pair(same_boot=True)
    first = desk.agent(one)
    for _ in range(5):
        book(desk, first, one.next())
    before = desk.totals()
    second = desk.agent(two)
    events = [e for _ in range(5) for e in book(desk, second, two.next())]
    assert len(events) == 2
    assert desk.totals() == before
    assert_sound(desk, path)


def test_other_gpus_of_the_second_agent_count(desk, path):
    """A container that sees one GPU cannot take the others from the node's agent."""
    one, two = pair()
    one_gpu, node = desk.agent(one), desk.agent(two)
    book(desk, one_gpu, one.next([busy(0)]))
    (event,) = book(desk, node, two.next())
    assert event.data["agent"] == two.agent_id.hex()
    assert device_ns(desk) == 2
    assert_sound(desk, path)


@pytest.mark.parametrize("restarted", [False, True])
def test_short_windows_do_not_slip_through_the_clocks_tolerance(desk, path, restarted):
    """Live and interleaved, each record within the tolerance of the other's end: bounded by it in all."""
    one, two = pair()
    first, second = desk.agent(one), desk.agent(two)
    events = []
    for second_no in range(40):
        for chain, agent in ((one, first), (two, second)):
            batch = chain.batch([busy(0, duration_ns=SECOND_NS)])
            begin = 1_000 * SECOND_NS + second_no * SECOND_NS
            batch.window_start_boot_ns, batch.window_end_boot_ns = begin, begin + SECOND_NS
            batch.window_end_unix_ns = batch.window_start_unix_ns + SECOND_NS
            raw = chain.next(payload=batch.SerializeToString())
            chain.unix_ns += SECOND_NS - WINDOW_NS
            events += book(desk, agent, raw)
            if restarted:
                desk.recover()
    assert len(events) == 1
    booked_s = sum(sums[0] for sums in desk.totals().values()) // SECOND_NS
    assert 40 <= booked_s <= 40 + CLOCK_ERROR_NS // SECOND_NS
    assert_sound(desk, path)


@pytest.mark.parametrize("ahead_ns", [0, CLOCK_ERROR_NS])
def test_a_node_that_gets_a_new_key_goes_on(desk, path, ahead_ns):
    one, two = pair()
    first, second = desk.agent(one), desk.agent(two)
    events = [e for _ in range(3) for e in book(desk, first, one.next())]
    two.unix_ns = one.unix_ns - ahead_ns  # the new system's clock may be a little behind
    events += [e for _ in range(3) for e in book(desk, second, two.next())]
    assert events == []
    assert device_ns(desk) == 6 * 2
    assert_sound(desk, path)


def test_a_clock_further_off_than_that_is_an_event_and_passes(desk, path):
    one, two = pair()
    first, second = desk.agent(one), desk.agent(two)
    book(desk, first, one.next())
    two.unix_ns = one.unix_ns - CLOCK_ERROR_NS - 1
    assert len(book(desk, second, two.next())) == 2
    two.unix_ns += CLOCK_ERROR_NS + 1  # the clock was set
    book(desk, second, two.next())
    assert device_ns(desk) == 2 * 2
    assert_sound(desk, path)


def test_a_new_key_in_the_same_boot_goes_on_to_the_nanosecond(desk, path):
    one, two = pair(same_boot=True)
    first, second = desk.agent(one), desk.agent(two)
    book(desk, first, one.next())
    two.boot_ns, two.unix_ns = one.boot_ns, 1  # boot time decides, whatever the wall clock says
    assert book(desk, second, two.next()) == ()
    one.boot_ns = two.boot_ns - 1
    assert len(book(desk, first, one.next())) == 2
    assert device_ns(desk) == 2 * 2
    assert_sound(desk, path)


def moved(chain, gpu):
    """`chain`'s node without its GPU number `gpu`: another inventory."""
    message = batch_pb2.Inventory.FromString(chain.inventory)
    del message.devices[gpu]
    chain.inventory = message.SerializeToString()
    chain.digest = hashlib.sha256(chain.inventory).digest()
    chain.gpus -= 1


@pytest.mark.parametrize("restarted", [False, True])
def test_a_gpu_moves_to_another_node_and_back(desk, path, restarted):
    """`one` has GPUs 0 and 1, `two` gets 0; what both had told before is shipped late."""
    one, two = pair()
    home = one.inventory, one.digest
    first, second = desk.agent(one), desk.agent(two)
    moved(two, 1)
    two.unix_ns = one.unix_ns + 2 * WINDOW_NS

    def say(agent, chain):
        assert desk.hello(chain) is agent  # the inventory of now
        events = book(desk, agent, chain.next())
        if restarted:
            desk.recover()
        return events

    events = [*say(first, one)]
    late = one.next()
    events += say(second, two)  # before the first node has shipped all of its own time
    events += book(desk, first, late)
    moved(one, 0)
    events += say(first, one)
    events += say(second, two)
    two_last = two.next()
    one.unix_ns = two.unix_ns  # back home
    one.inventory, one.digest = home
    one.gpus = 2
    events += say(first, one)
    events += book(desk, second, two_last)
    events += say(first, one)
    assert events == []
    assert device_ns(desk) == 2 + 2 + 1 + 2 + 2 + 3
    assert_sound(desk, path)


def test_a_late_record_that_runs_into_the_others_time_is_left_out(desk, path):
    """The first agent's own stretch goes on, into what the second has booked since."""
    one, two = pair()
    first, second = desk.agent(one), desk.agent(two)
    book(desk, first, one.next())
    two.unix_ns = one.unix_ns + WINDOW_NS
    assert book(desk, second, two.next()) == ()
    assert book(desk, first, one.next()) == ()
    assert len(book(desk, first, one.next())) == 2
    assert device_ns(desk) == 3 * 2
    assert_sound(desk, path)


def test_what_was_left_out_keeps_nobody_else_out(desk, path):
    one, two = pair()
    first, second = desk.agent(one), desk.agent(two)
    book(desk, first, one.next())
    two.unix_ns = one.unix_ns + WINDOW_NS // 2
    for agent, chain in ((second, two), (first, one), (first, one), (second, two)):
        book(desk, agent, chain.next())
    # The second's two windows, in which the first had none, and half a one before them that is a gap.
    assert device_ns(desk) == (1 + 2 + 0.5) * 2
    assert gaps(desk) == {GapReason.RECORD_LOST: 1.0}
    assert_sound(desk, path)


def test_a_row_over_a_restart_reaches_back_behind_its_window(desk, path):
    """The first agent's counters bridge the time in which the second metered."""
    one, two = pair()
    moved(two, 1)
    first, second = desk.agent(one), desk.agent(two)
    book(desk, first, one.next())
    moved(one, 0)
    desk.hello(one)
    book(desk, first, one.next())
    two.unix_ns = one.unix_ns
    book(desk, second, two.next())
    one = Chain("n", key_seed="one")
    one.seq, one.prev_hash = first.head.last_seq, first.head.last_hash
    one.boot_ns, one.unix_ns = first.head.window_end_boot_ns + WINDOW_NS, two.unix_ns
    events = book(desk, first, one.next([busy(0, duration_ns=2 * WINDOW_NS), busy(1)]))
    assert len(events) == 1
    assert device_ns(desk) == 2 + 1 + 1 + 1
    assert_sound(desk, path)


@pytest.mark.parametrize("workloads", [1, 2])
@pytest.mark.parametrize("stopped", [False, True])
def test_the_rest_of_what_is_left_out_is_a_priced_gap(desk, path, stopped, workloads):
    """The first agent was down for ten windows and its counters bridge them; the second metered one of them.

    Unless the second said that it stops, one more window is its to tell of.
    """
    one, two = pair()
    first, second = desk.agent(one), desk.agent(two)
    book(desk, first, one.next())
    two.unix_ns = one.unix_ns
    batch = two.batch()
    if stopped:
        batch.notices.add(kind=int(NoticeKind.AGENT_STOPPED), t_boot_ns=1, t_unix_ns=1)
    book(desk, second, two.next(payload=batch.SerializeToString()))
    one.boot_ns += 9 * WINDOW_NS
    one.unix_ns += 9 * WINDOW_NS
    rows = [busy(0, duration_ns=10 * WINDOW_NS), busy(1, duration_ns=10 * WINDOW_NS)]
    if workloads == 2:
        rows += [busy(0, 1, duration_ns=1), busy(1, 1, duration_ns=1)]
    assert len(book(desk, first, one.next(rows, [TRAINING, IDLE][:workloads]))) == 2
    rest = 9 if stopped else 8
    assert gaps(desk) == {GapReason.RECORD_LOST: 2 * rest}
    assert device_ns(desk) == 2 * (1 + 1 + rest)
    ((run, elapsed),) = desk.rows(
        "SELECT run, sm_elapsed_cycles FROM totals JOIN workloads USING (workload_no) WHERE gap_reason != 0"
    )
    assert run == ("r1" if workloads == 1 else "")  # several held it: nobody's
    assert int(elapsed) >= 2 * rest * SM_COUNT * MAX_SM_CLOCK_MHZ * WINDOW_NS // 1_000
    assert_sound(desk, path)


def test_a_gap_claims_nothing_and_is_no_event(desk, path):
    """Who cannot read a GPU does not stand in the way of who can."""
    one, two = pair()
    blind, seeing = desk.agent(one), desk.agent(two)
    events = [*book(desk, blind, one.next([gap(0)]))]  # nobody knew better until then
    for _ in range(2):
        events += book(desk, seeing, two.next([busy(0)]))
    assert device_ns(desk) == 3
    events += book(desk, blind, one.next([gap(0)]))
    assert events == []
    assert device_ns(desk) == 3
    assert_sound(desk, path)


def test_a_failed_commit_forgets_its_claims(desk, path):
    one, two = pair(same_boot=True)
    first = desk.agent(one)
    desk.commit()
    assert desk.offer(first, one.next()) is TAKEN
    desk.recover()  # as after a failed commit: the record is not in the books
    second = desk.agent(two)
    assert book(desk, second, two.next()) == ()
    assert desk.hello(one) is first
    assert len(book(desk, first, one.records[0])) == 2
    assert device_ns(desk) == 2
    assert_sound(desk, path)


def test_the_hot_path_writes_and_asks_nothing(desk, monkeypatch):
    """One claim a GPU for an agent's life, whatever it ships."""
    one = Chain("n")
    agent = desk.agent(one)
    book(desk, agent, one.next())
    monkeypatch.setattr(desk.intake._claims, "take", None)
    for _ in range(3):
        book(desk, agent, one.next())
    assert desk.rows("SELECT claim_no, until_unix_ns FROM claims") == [(1, None), (2, None)]


DAMAGE = {
    "a claim less": "DELETE FROM claims WHERE claim_no = 2",
    "another end": "UPDATE claims SET until_boot_id = x'00', until_boot_ns = 1, until_unix_ns = 1 WHERE claim_no = 1",
    "another agent": "UPDATE claims SET agent_no = 2 WHERE claim_no = 1",
    "no event": "DELETE FROM events WHERE event_no = (SELECT max(event_no) FROM events)",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_fsck_derives_claims_and_their_events_again(path, damage):
    one, two = pair()
    with Desk(path) as desk:
        first, second = desk.agent(one), desk.agent(two)
        book(desk, first, one.next())
        book(desk, second, two.next())
        assert_sound(desk, path)
        desk.store.books._connection.execute(DAMAGE[damage])
        difference = check_store(path, ()).difference
    assert difference is not None
    assert difference.table == ("events" if damage == "no event" else "claims")


def test_fsck_finds_usage_that_was_booked_twice(path, monkeypatch):
    """As a collector whose check does not work would leave it."""
    one, two = pair()
    with Desk(path) as desk:
        monkeypatch.setattr("flopmeter.collector.ingest.claims.Claims._met", lambda *_: (None, 0))
        book(desk, desk.agent(one), one.next())
        book(desk, desk.agent(two), two.next())
        monkeypatch.undo()
        assert check_store(path, ()).difference is not None


def energy_only(ns):
    """What is metered of a GPU that is cut into MIG instances: its energy."""
    return Usage(0, 0, EvidenceClass.C, Measured.ENERGY, 0, ns, 0, energy_mj=ns * 600 // 1_000_000)


def test_the_energy_of_a_divided_gpu_counts_once(desk, path):
    """Its rows are the parent's own; what its instances did is theirs."""
    one, two = pair()
    for chain in (one, two):
        message = batch_pb2.Inventory.FromString(chain.inventory)
        whole, part = message.devices
        whole.sm_count = 0
        part.mig, part.parent, part.gpu_instance_plus_one = True, whole.entity, 2
        chain.inventory = message.SerializeToString()
        chain.digest = hashlib.sha256(chain.inventory).digest()
    first, second = desk.agent(one), desk.agent(two)
    book(desk, first, one.next([energy_only(WINDOW_NS)]))
    (event,) = book(desk, second, two.next([energy_only(WINDOW_NS), busy(1)]))
    assert event.data["entity"] == batch_pb2.Inventory.FromString(one.inventory).devices[0].entity
    assert sum(sums[-1] for sums in desk.totals().values()) == (
        energy_only(WINDOW_NS).energy_mj + busy(1).energy_mj
    )
    assert_sound(desk, path)


def test_a_recording_replayed_again_under_another_key_by_the_real_agent(tmp_path):
    """The second agent is at ease: all of it is acknowledged, kept, and in no total."""
    trace = trace_lines.write(tmp_path / "t.jsonl", trace_lines.steady(130))
    settings = CollectorSettings(
        store=tmp_path / "b.db", listen="127.0.0.1:0", http="", admit_new=True, linger_ms=5
    )
    found = []
    with run_collector(settings, lambda: trace_lines.UNIX_NS + 86_400 * SECOND_NS) as collector:
        for name in ("one", "two"):
            done = flopmeter(
                "replay", trace, "--collector", collector.address, "--state", tmp_path / name, "--json"
            )
            assert done.returncode == 0, done.stderr
            with closing(open_for_reading(settings.store)) as db:
                found.append(
                    (
                        db.execute("SELECT * FROM totals").fetchall(),
                        db.execute("SELECT * FROM hourly").fetchall(),
                    )
                )
        assert collector.counters.events == {"evidence.fork": 2}
        assert not collector.counters.refusals
    assert found[0] == found[1] != ([], [])
    with closing(open_for_reading(settings.store)) as db:
        by_agent = db.execute("SELECT count(*) FROM records GROUP BY agent_no").fetchall()
    assert len(by_agent) == 2
    assert by_agent[0] == by_agent[1]
    assert check_store(settings.store, ()).difference is None


def test_a_claim_of_nobody_is_told_and_not_a_defect(path):
    with Desk(path) as desk:
        book(desk, desk.agent(chain := Chain("n")), chain.next())
        desk.store.books._connection.execute("UPDATE claims SET agent_no = 7")
    with pytest.raises(StoreError, match="agent_no 7") as e:
        Desk(path)
    assert "fsck" in e.value.hint
