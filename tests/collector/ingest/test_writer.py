"""Group commits: totals, hours, spans, runs and events, exact and once."""

import dataclasses
from datetime import UTC, date, datetime

import pytest
from builders import TRAINING, UNIX_NS, WINDOW_NS, Chain, busy, gap
from desk import Desk

from flopmeter.collector.books import SUM_FIELDS, GroupKey, add_rows
from flopmeter.collector.encode import decode_batch, decode_inventory
from flopmeter.collector.errors import StoreError
from flopmeter.collector.figures import Model, Tally, tally
from flopmeter.collector.ingest.decide import TAKEN, usage_rows
from flopmeter.collector.ingest.group import Group
from flopmeter.collector.ingest.writer import Writer
from flopmeter.collector.law.events import THRESHOLD_APPROACHING
from flopmeter.collector.law.regimes import shipped
from flopmeter.contract.evidence_class import SPREAD_STEPS_PPM, EvidenceClass
from flopmeter.contract.record import parse_record
from flopmeter.contract.usage import Workload, WorkloadKind
from flopmeter.contract.w_table import current

IDLE = Workload(WorkloadKind.IDLE)


@pytest.fixture
def desk(tmp_path):
    with Desk(tmp_path / "books.db") as desk:
        yield desk


def rederived(desk):
    """Totals added up again from the stored bytes, by the slow reader. One inventory, names by number."""
    totals = {}
    for (raw,) in desk.rows("SELECT record FROM records ORDER BY position"):
        batch = decode_batch(parse_record(raw).payload)
        (inventory,) = desk.rows("SELECT bytes FROM inventories WHERE digest = ?", batch.inventory_digest)[0]
        devices = decode_inventory(inventory).devices
        models = {
            (n, c): no for no, n, c in desk.rows("SELECT model_no, name, compute_capability FROM models")
        }
        workloads = {
            (r[1], r[2], r[3], r[4]): r[0]
            for r in desk.rows("SELECT workload_no, kind, job, run_label, dtype FROM workloads")
        }
        numbers = [workloads[int(w.kind), w.job, w.run, w.dtype] for w in batch.workloads]
        add_rows(totals, usage_rows(batch, numbers, [models[d.name, d.compute_capability] for d in devices]))
    return totals


def test_totals_are_the_sum_of_the_rows_over_groups_and_commits(desk):
    chains = [Chain(f"n{i}") for i in range(3)]
    agents = [desk.agent(c) for c in chains]
    for minute in range(5):
        for chain, agent in zip(chains, agents, strict=True):
            rows = [busy(0, percent=minute), busy(1, 1, percent=7), gap(0)]
            assert desk.offer(agent, chain.next(rows, [TRAINING, IDLE])) is TAKEN
        if minute % 2:
            desk.commit()
    desk.commit()
    totals = desk.totals()
    # Idle is per node and the totals are by workload: 3 idle rows, one training row, one gap row.
    assert len(totals) == 5
    assert sum(t[0] for t in totals.values()) == 5 * 3 * 3 * WINDOW_NS
    training = next(t for k, t in totals.items() if k.workload_no == 1 and k.evidence_class == 1)
    expected = [sum(getattr(busy(0, percent=m), f) for m in range(5)) * 3 for f in SUM_FIELDS]
    assert training == expected


def test_totals_equal_what_the_slow_reader_derives_from_stored_bytes(desk):
    chain = Chain("n", gpus=4)
    agent = desk.agent(chain)
    for i in range(4):
        rows = [busy(0, percent=i), busy(1, percent=9), gap(2, 1), busy(3, 1)]
        assert desk.offer(agent, chain.next(rows, [TRAINING, IDLE])) is TAKEN
        desk.commit()
    assert desk.totals() == rederived(desk)


def test_hours_are_by_the_windows_end_and_add_up_to_the_totals(desk):
    chain = Chain("n")
    agent = desk.agent(chain)
    for _ in range(130):
        assert desk.offer(agent, chain.next([busy(0)])) is TAKEN
    desk.commit()
    rows = desk.rows("SELECT hour, duration_ns FROM hourly ORDER BY hour")
    assert [h for h, _ in rows] == sorted(
        {(UNIX_NS + i * WINDOW_NS) // 3_600_000_000_000 for i in range(1, 131)}
    )
    assert sum(int(d) for _, d in rows) == 130 * WINDOW_NS == desk.totals()[GroupKey(1, 1, 1, 1023, 0, 0)][0]


def test_sums_past_64_bits_are_exact(desk):
    chain = Chain("n", gpus=8)
    agent = desk.agent(chain)
    long = busy(0, duration_ns=399 * 86_400 * 10**9)
    total = 0
    for _ in range(12):
        rows = [dataclasses.replace(long, entity_index=i) for i in range(8)]
        assert desk.offer(agent, chain.next(rows)) is TAKEN
        desk.commit()
        total += 8 * long.sm_elapsed_cycles
    assert total > 1 << 63
    assert desk.totals()[GroupKey(1, 1, 1, 1023, 0, 0)][1] == total


def test_spans_grow_with_the_workload(desk):
    chain = Chain("n")
    agent = desk.agent(chain)
    for _ in range(3):
        assert desk.offer(agent, chain.next()) is TAKEN
        desk.commit()
    assert desk.rows("SELECT first_unix_ns, last_unix_ns FROM workloads") == [
        (UNIX_NS, UNIX_NS + 3 * WINDOW_NS)
    ]


def test_one_workload_over_many_nodes_is_one_row_and_idle_is_one_per_node(desk):
    for i in range(4):
        chain = Chain(f"n{i}")
        assert desk.offer(desk.agent(chain), chain.next([busy(0), busy(1, 1)], [TRAINING, IDLE])) is TAKEN
    desk.commit()
    assert sorted(desk.rows("SELECT kind, scope FROM workloads")) == sorted(
        [(3, "c1")] + [(1, f"c1/n{i}") for i in range(4)]
    )


def test_a_reopened_store_goes_on_where_it_was(tmp_path):
    chain = Chain("n")
    with Desk(tmp_path / "b.db") as desk:
        agent = desk.agent(chain)
        assert desk.offer(agent, chain.next()) is TAKEN
        desk.commit()
        kept = chain.next()
        assert desk.offer(agent, kept) is TAKEN  # and never committed
    with Desk(tmp_path / "b.db") as desk:
        agent = desk.agent(chain)
        assert agent.head.next_seq == 2
        assert desk.offer(agent, kept) is TAKEN
        desk.commit()
        assert desk.totals()[GroupKey(1, 1, 1, 1023, 0, 0)][0] == 2 * 2 * WINDOW_NS
        assert desk.rows("SELECT position, seq FROM records") == [(1, 1), (2, 2)]


# --- events ---


def line(flop, comparison):
    """A shipped regime, moved to `flop`, in force for ever."""
    base = next(r for r in shipped() if r.unit == "floating-point")
    return dataclasses.replace(
        base,
        threshold_flop=flop,
        comparison=comparison,
        status="in-force",
        effective=date(2020, 1, 1),
        ends=None,
    )


def crossing_desk(tmp_path, flop, comparison=">", **more):
    desk = Desk(tmp_path / "books.db", [line(flop, comparison)], **more)
    chain = Chain("n")
    return desk, chain, desk.agent(chain)


def figure_after(minutes):
    key = GroupKey(1, 1, 1, 1023, 0, 0)
    sums = [getattr(busy(0), f) * 2 * minutes for f in SUM_FIELDS]
    models = {1: Model("NVIDIA H100 80GB HBM3", "9.0")}
    return tally({key: sums}, {1: "bf16"}).figures(models, current())[0]


@pytest.mark.parametrize("restart", [False, True])
def test_a_threshold_is_raised_once_in_the_commit_that_crossed_it(tmp_path, restart):
    # The line lies just under the lower bound after six minutes.
    flop = figure_after(6).lower - 1
    desk, chain, agent = crossing_desk(tmp_path, flop)
    raised = []
    for _ in range(8):
        assert desk.offer(agent, chain.next()) is TAKEN
        raised.append([e.data["verdict"] for e in desk.commit().events])
        if restart:
            desk.close()
            desk, _, _ = crossing_desk(tmp_path, flop)
            agent = desk.agent(chain)
    with desk:
        assert raised[5] == ["crossed"]
        assert sum(r.count("crossed") for r in raised) == 1
        assert sum(len(r) for r in raised) == len(desk.rows("SELECT key FROM events"))
        rows = desk.rows("SELECT since_position, position FROM events WHERE type = 'threshold.crossed'")
        assert rows == [(6, 6)]


@pytest.mark.parametrize(
    ("comparison", "less", "crossed"), [(">", 0, False), (">", 1, True), (">=", 0, True), (">=", -1, False)]
)
def test_exactly_at_the_line(tmp_path, comparison, less, crossed):
    desk, chain, agent = crossing_desk(tmp_path, figure_after(3).lower - less, comparison)
    with desk:
        for _ in range(3):
            assert desk.offer(agent, chain.next()) is TAKEN
        events = desk.commit().events
    assert ("crossed" in [e.data["verdict"] for e in events]) is crossed


def test_events_and_their_outbox_rows_are_in_the_same_commit(tmp_path):
    desk, chain, agent = crossing_desk(tmp_path, 10**15, sinks=("event-log", "pager"))
    with desk:
        assert desk.offer(agent, chain.next()) is TAKEN
        done = desk.commit()
        (number,) = desk.rows("SELECT event_no FROM events")[0]
        assert len(done.events) == 1
        assert desk.rows("SELECT event_no, sink FROM outbox ORDER BY sink") == [
            (number, "event-log"),
            (number, "pager"),
        ]


@pytest.mark.parametrize("evidence_class", list(EvidenceClass))
@pytest.mark.parametrize("measured", [0, 1, 31, 1022, 1023])
@pytest.mark.parametrize("spread", [0, SPREAD_STEPS_PPM[-1]])
def test_no_cycle_adds_more_than_the_bound_says(desk, evidence_class, measured, spread):
    """Every kind of cycle, on every listed architecture and on none, alone and with the others."""
    writer = Writer(desk.store.books, shipped())
    for arch in [*current().archs, None]:
        model = Model(arch.name if arch else "unheard of", arch.compute_capability if arch else "99.0")
        for counted in [*range(1, 11), range(1, 11), (1, 2)]:
            places = [counted] if isinstance(counted, int) else counted
            sums = [0] * 12
            for i in places:
                sums[i] = 10**15
            tally = Tally()
            tally.add(GroupKey(1, 1, evidence_class, measured, spread, 0), "fp4", sums)
            flop, ops = tally.figures({1: model}, current())
            assert flop.upper + ops.upper <= writer._judge._most_per_cycle * sum(sums)


@pytest.mark.parametrize("minutes", [1, 2, 7, 40])
@pytest.mark.parametrize("bound", ["lower", "point", "upper"])
def test_a_run_that_is_not_priced_every_time_still_raises_in_the_right_minute(tmp_path, minutes, bound):
    """Each bound passes its line in minute `minutes`, from far below; pricing is skipped until then."""
    near = line(getattr(figure_after(minutes), bound) - 1, ">")
    far = dataclasses.replace(near, id="far", threshold_flop=10**30)
    with Desk(tmp_path / "books.db", [near, far]) as desk:
        chain = Chain("n")
        agent = desk.agent(chain)
        found = []
        for minute in range(1, minutes + 3):
            assert desk.offer(agent, chain.next()) is TAKEN
            events = [e for e in desk.commit().events if e.type != THRESHOLD_APPROACHING]
            found += [(minute, e.data["verdict"], e.data["estimate"]) for e in events]
        expected = {
            "lower": ("crossed", "crossed"),
            "point": ("undetermined", "crossed"),
            "upper": ("undetermined", "below"),
        }[bound]
        assert (minutes, *expected) in found


def test_far_from_every_line_nothing_is_priced(tmp_path, monkeypatch):
    desk, chain, agent = crossing_desk(tmp_path, 10**30)
    priced = []
    figures = Tally.figures
    monkeypatch.setattr(Tally, "figures", lambda *a: priced.append(1) or figures(*a))
    with desk:
        for _ in range(5):
            assert desk.offer(agent, chain.next()) is TAKEN
            desk.commit()
        assert len(priced) == 1
        desk.now += 86_400 * 10**9  # another day, and the same regimes are in force
        assert desk.offer(agent, chain.next()) is TAKEN
        desk.commit()
        assert len(priced) == 1


def test_a_regime_that_comes_into_force_meets_a_run_that_is_past_its_line(tmp_path):
    tomorrow = datetime.fromtimestamp(UNIX_NS / 1e9 + 3 * 86_400, UTC).date()
    regime = dataclasses.replace(line(10**15, ">"), effective=tomorrow)
    with Desk(tmp_path / "books.db", [regime]) as desk:
        chain = Chain("n")
        agent = desk.agent(chain)
        assert desk.offer(agent, chain.next()) is TAKEN
        assert desk.commit().events == ()
        desk.now += 5 * 86_400 * 10**9
        assert desk.offer(agent, chain.next()) is TAKEN
        (event,) = desk.commit().events
        assert event.data["verdict"] == "crossed"


def test_idle_time_raises_nothing(tmp_path):
    desk, chain, agent = crossing_desk(tmp_path, 1)
    with desk:
        assert desk.offer(agent, chain.next([busy(0)], [IDLE])) is TAKEN
        assert desk.commit().events == ()


def test_a_fork_is_an_event_once_and_its_bytes_are_kept(desk):
    chain = Chain("n")
    agent = desk.agent(chain)
    desk.offer(agent, chain.next())
    desk.commit()
    forged = chain.seal(chain.batch([busy(0)]).SerializeToString(), seq=1, prev_hash=bytes(32))
    for _ in range(2):
        desk.offer(agent, forged)
        desk.commit()
    desk.intake.reset()  # forgets which forks it has seen
    desk.writer.reset()
    desk.offer(agent, forged)
    desk.commit()
    assert desk.rows("SELECT type FROM events") == [("evidence.fork",)]
    assert desk.rows("SELECT seq, record FROM conflicts") == [(1, forged)]
    assert desk.rows("SELECT count(*) FROM records") == [(1,)]


def test_lost_records_are_named_once_and_the_chain_goes_on_behind_them(tmp_path):
    chain = Chain("n")
    with Desk(tmp_path / "b.db") as desk:
        agent = desk.agent(chain)
        desk.offer(agent, chain.next())
        desk.commit()
        for _ in range(3):
            lost = chain.next()
        agent = desk.agent(chain, oldest_seq=5)
        assert desk.commit().events[0].type == "coverage.lost"
    with Desk(tmp_path / "b.db") as desk:
        agent = desk.agent(chain, oldest_seq=5)  # says so again
        assert agent.head.next_seq == 5
        assert desk.offer(agent, chain.next()) is TAKEN
        desk.commit()
        outcome = desk.offer(agent, lost)
        assert "declared lost" in outcome.message
        assert desk.rows("SELECT from_seq, to_seq FROM losses") == [(2, 4)]
        assert desk.rows("SELECT type FROM events") == [("coverage.lost",)]


def test_a_failed_commit_leaves_memory_to_be_read_again(desk, monkeypatch):
    chain = Chain("n")
    agent = desk.agent(chain)
    first, second = chain.next(), chain.next()
    desk.offer(agent, first)
    desk.commit()
    desk.offer(agent, second)
    write = desk.store.books.write

    def fails(transaction):
        raise StoreError("disk full")

    desk.store.books.write = fails
    with pytest.raises(StoreError):
        desk.writer.commit(desk.intake.take_group())
    desk.store.books.write = write
    desk.recover()
    assert agent.head.next_seq == 2
    assert desk.offer(agent, second) is TAKEN
    desk.commit()
    assert desk.totals() == rederived(desk)


def test_a_failed_commit_forgets_what_a_hello_said(desk):
    """Or the next Hello, which says the same, would not be written."""
    desk.agent(Chain("old-name", key_seed="k"))
    desk.commit()
    renamed = Chain("new-name", key_seed="k")
    agent = desk.agent(renamed)
    assert (agent.node, desk.intake.group.seen_agents) == ("new-name", [("new-name", "0.1.0", 1)])
    desk.recover()  # the group was not committed
    assert agent.node == "old-name"
    assert desk.agent(renamed) is agent
    desk.commit()
    assert desk.rows("SELECT node FROM agents") == [("new-name",)]


def test_an_empty_group_is_false():
    assert not Group()
