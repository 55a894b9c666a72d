"""Silent agents' time inside the run's interval: who is charged, until when, at what price, and how it goes away."""

import hashlib
from dataclasses import replace
from fractions import Fraction

import pytest
from builders import CLOCK_MHZ, SM_COUNT, UNIX_NS, WINDOW_NS, Chain, busy, gap
from desk import Desk

from flopmeter.cli.layout import Paint
from flopmeter.collector.check.fsck import check_store, result_text
from flopmeter.collector.figures import Model
from flopmeter.collector.ingest.decide import TAKEN
from flopmeter.collector.ingest.encode import MAX_BRIDGE_NS
from flopmeter.collector.law.regimes import shipped
from flopmeter.collector.registry.entries import Declare, Link, Purpose, Relation, Tag
from flopmeter.collector.registry.say import say
from flopmeter.collector.report import queries
from flopmeter.collector.report.expected import ExpectedNode
from flopmeter.collector.report.runs_view import run_view, runs_view
from flopmeter.collector.report.unreported import (
    LONGEST_BRIDGE_NS,
    Owed,
    most_cycles,
    unreported,
    until_unix_ns,
)
from flopmeter.contract.evidence_class import EvidenceClass
from flopmeter.contract.flop import Cycles, flop
from flopmeter.contract.limits import MAX_SM_CLOCK_MHZ
from flopmeter.contract.usage import (
    IDLE,
    UNATTRIBUTED,
    Device,
    GapReason,
    Measured,
    NoticeKind,
    Workload,
    WorkloadKind,
)
from flopmeter.contract.w_table import current
from flopmeter.wire.v1 import batch_pb2

MINUTE_NS = 60_000_000_000
DAY_NS = 86_400_000_000_000
OTHER_JOB = Workload(WorkloadKind.SLURM, job="99", run="r2")
TRAINING = Workload(WorkloadKind.SLURM, job="4711", run="r1", dtype="bf16")
H100 = Device("GPU-1", "NVIDIA H100 80GB HBM3", "9.0", SM_COUNT, max_sm_clock_mhz=1_980)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "books.sqlite"


def upper_of_a_gap(entity_ns, *, mhz=1_980):
    """The upper bound of so much device time of an H100, as the contract prices any gap."""
    arch = current().arch("9.0", H100.name)
    cycles = SM_COUNT * mhz * entity_ns // 1_000
    return flop(Cycles(EvidenceClass.GAP, Measured(0), 0, elapsed=cycles), arch).upper


def desk_with(path, *minutes_by_chain):
    """A store with so many busy minutes of each chain, all beginning at the epoch."""
    desk = Desk(path, shipped())
    for chain, minutes in minutes_by_chain:
        agent = desk.agent(chain)
        for _ in range(minutes):
            desk.offer(agent, chain.next())
    desk.commit()
    return desk


def run_at(path, minute, name="r1", expected=()):
    with queries.reading(path) as reader:
        (run,) = reader.runs(queries.asked(UNIX_NS + minute * MINUTE_NS, shipped(), tuple(expected)), name)
    return run


def upper(run):
    return int(run["executed"]["flop"]["upper"])


# --- the rule of until when ---

NOW, HEARD = 10_000 * MINUTE_NS, 1_000 * MINUTE_NS


@pytest.mark.parametrize(
    ("case", "run_last", "owed", "until"),  # owed: over, taken over, gone
    [
        ("its other nodes report the run now", NOW - MINUTE_NS, (False, None, None), NOW),
        ("its other nodes saw the end", 5_000 * MINUTE_NS, (False, None, None), 5_000 * MINUTE_NS),
        ("no other node: nobody knows when it ended", HEARD, (False, None, None), NOW),
        ("stopped on purpose, others went on", NOW - MINUTE_NS, (True, None, None), NOW - MINUTE_NS),
        ("stopped on purpose, others saw the end", 2_000 * MINUTE_NS, (True, None, None), 2_000 * MINUTE_NS),
        ("stopped on purpose, nobody else", HEARD, (True, None, None), HEARD),
        ("another agent has the GPU", HEARD, (False, 1_100 * MINUTE_NS, None), 1_100 * MINUTE_NS),
        ("out of service", HEARD, (False, None, 1_200 * MINUTE_NS), 1_200 * MINUTE_NS),
        ("out of service before it was heard", HEARD, (False, None, 500 * MINUTE_NS), HEARD),
    ],
)
def test_until_when(case, run_last, owed, until):
    assert until_unix_ns(Owed("n1", H100, HEARD, *owed), run_last, NOW) == until, case


def test_nothing_older_than_a_record_may_bridge_is_charged():
    assert LONGEST_BRIDGE_NS == MAX_BRIDGE_NS
    owed = Owed("n1", H100, HEARD, False, None, None)
    assert until_unix_ns(owed, HEARD, HEARD + 1_000 * DAY_NS) == HEARD + MAX_BRIDGE_NS


# --- the price ---


@pytest.mark.parametrize(
    ("device", "mhz"),
    [
        (H100, 1_980),
        (replace(H100, max_sm_clock_mhz=0), MAX_SM_CLOCK_MHZ),
        (replace(H100, max_sm_clock_mhz=9_000), MAX_SM_CLOCK_MHZ),
        (replace(H100, compute_capability="10.0", max_sm_clock_mhz=1_900), MAX_SM_CLOCK_MHZ),  # not believed
        (replace(H100, compute_capability="?"), MAX_SM_CLOCK_MHZ),
    ],
)
def test_the_highest_clock_is_believed_as_agents_believe_it(device, mhz):
    assert most_cycles(device, MINUTE_NS) == SM_COUNT * mhz * MINUTE_NS // 1_000


def test_an_entity_that_two_jobs_of_the_run_held_is_charged_once():
    models = {7: Model(H100.name, "9.0")}
    owed = Owed("n1", H100, HEARD, False, None, None)
    once, twice = (unreported([owed] * n, HEARD, HEARD + MINUTE_NS, models) for n in (1, 2))
    assert once.duration_ns == twice.duration_ns == MINUTE_NS
    arch = current()
    assert once.tally.figures(models, arch) == twice.tally.figures(models, arch)


def test_a_device_of_unknown_size_has_no_price_and_is_named():
    owed = Owed("n1", replace(H100, sm_count=0), HEARD, False, None, None)
    found = unreported([owed], HEARD, HEARD + MINUTE_NS, {7: Model(H100.name, "9.0")})
    assert (found.duration_ns, found.unpriced) == (MINUTE_NS, (H100.name,))


# --- in the run's document ---


def test_silence_widens_the_upper_bound_by_the_most_that_can_have_been_done(path):
    a, b = Chain("n1"), Chain("n2")
    with desk_with(path, (a, 20), (b, 4)):
        pass
    run = run_at(path, 20)
    owed_ns = 2 * 16 * MINUTE_NS
    assert run["unreported"]["device_seconds"] == owed_ns / 1e9
    assert run["unreported"]["nodes"] == ["n2"]
    assert int(run["unreported"]["flop"]["upper"]) == upper_of_a_gap(owed_ns)
    assert run["unreported"]["flop"]["lower"] == run["unreported"]["flop"]["point"] == "0"
    booked = run_at(path, 4)  # before it was late
    assert booked["unreported"]["nodes"] == []
    assert upper(run) - upper(booked) == upper_of_a_gap(owed_ns)
    for key in ("lower", "point"):
        assert run["executed"]["flop"][key] == booked["executed"]["flop"][key]
    c = run["coverage"]
    assert c["expected_device_seconds"] == c["observed_device_seconds"] + c["gap_device_seconds"] == 80 * 60.0


def test_every_part_of_a_run_still_adds_up(path):
    with desk_with(path, (Chain("n1"), 20), (Chain("n2"), 4)):
        pass
    run = run_at(path, 20)
    flop_of = run["executed"]["flop"]
    for parts in (run["by_evidence_class"], run["by_model"]):
        for key in ("lower", "point", "upper"):
            assert sum(int(p["flop"][key]) for p in parts.values()) == int(flop_of[key])
        assert sum(p["device_seconds"] for p in parts.values()) == run["coverage"]["expected_device_seconds"]
    assert sum(int(w["flop"]) for w in run["width"]) == int(flop_of["upper"]) - int(flop_of["lower"])
    assert any(w["cause"] == "unreported" and "n2" in w["text"] for w in run["width"])


@pytest.mark.parametrize("counting", ["eu-narrow", "us-state", "executed"])
def test_silence_can_make_a_line_undetermined_and_raises_no_event(path, counting):
    a, b = Chain("n1"), Chain("n2")
    with desk_with(path, (a, 20), (b, 4)) as desk:
        desk.now = UNIX_NS + 20 * MINUTE_NS
    low = upper(run_at(path, 4)) + 1  # past the records' upper bound
    regimes = tuple(
        replace(r, threshold_flop=low, counting=counting) if r.id == "eu-gpai" else r for r in shipped()
    )
    with queries.reading(path) as reader:
        (run,) = reader.runs(queries.asked(UNIX_NS + 20 * MINUTE_NS, regimes))
        assert not [e for e in reader.events() if e["type"].startswith("threshold.")]
    (line,) = [t for t in run["thresholds"] if t["regime"] == "eu-gpai"]
    assert (line["verdict"], line["verdict_of_records"]) == ("undetermined", "below")
    assert line["event_raised"] is False
    assert check_store(path, shipped()).difference is None


def test_an_agent_that_comes_back_with_its_counters_makes_it_exact(path):
    a, b = Chain("n1"), Chain("n2")
    with desk_with(path, (a, 20), (b, 4)) as desk:
        silent = run_at(path, 20)
        away_ns = 16 * MINUTE_NS
        bridge = b.batch([busy(i, duration_ns=away_ns) for i in (0, 1)])
        bridge.window_end_boot_ns, bridge.window_end_unix_ns = b.boot_ns + away_ns, b.unix_ns + away_ns
        agent = desk.agent(b)
        assert desk.offer(agent, b.next(payload=bridge.SerializeToString())) == TAKEN
        desk.commit()
    back = run_at(path, 20)
    assert back["unreported"]["device_seconds"] == 0
    assert back["coverage"]["gap_device_seconds"] == 0
    assert back["coverage"]["observed_device_seconds"] == silent["coverage"]["expected_device_seconds"]
    flop_of = {k: int(v) for k, v in back["executed"]["flop"].items()}
    assert flop_of["upper"] < upper(silent), "the interval shrinks"
    assert flop_of["point"] > int(silent["executed"]["flop"]["point"])
    elapsed = SM_COUNT * CLOCK_MHZ * MINUTE_NS // 1_000
    assert int(back["by_pipe"]["hmma"]["sm_cycles"]) == 80 * (elapsed * 40 // 100)


@pytest.mark.parametrize("percent", [0, 1, 50, 100])
def test_whatever_the_agent_tells_later_was_within_the_bounds(path, percent):
    a, b = Chain("n1"), Chain("n2")
    with desk_with(path, (a, 20), (b, 4)) as desk:
        silent = run_at(path, 20)
        agent = desk.agent(b)
        for _ in range(16):
            rows = [
                replace(busy(i, percent=percent), sm_active_cycles=busy(i).sm_elapsed_cycles) for i in (0, 1)
            ]
            desk.offer(agent, b.next(rows))
        desk.commit()
    truth = {k: int(v) for k, v in run_at(path, 20)["executed"]["flop"].items()}
    told = {k: int(v) for k, v in silent["executed"]["flop"].items()}
    assert told["lower"] <= truth["lower"] <= truth["upper"] <= told["upper"]


def test_a_run_on_no_other_node_is_charged_until_now(path):
    with desk_with(path, (Chain("n1"), 4)):
        pass
    assert run_at(path, 8)["unreported"]["device_seconds"] == 0, "late is not yet silent"
    run = run_at(path, 64)
    assert (run["status"], run["unreported"]["device_seconds"]) == ("silent", 2 * 60 * 60.0)


def test_the_end_is_where_the_runs_other_nodes_saw_it(path):
    a, b = Chain("n1"), Chain("n2")
    with desk_with(path, (a, 20), (b, 4)) as desk:
        agent = desk.agent(a)
        for _ in range(30):
            desk.offer(agent, a.next([busy(0), busy(1)], (IDLE,)))
        desk.commit()
    run = run_at(path, 50)
    assert run["unreported"]["device_seconds"] == 2 * 16 * 60.0, "to minute 20, not to minute 50"
    assert run["status"] == "silent"


@pytest.mark.parametrize("workload", [IDLE, UNATTRIBUTED])
def test_what_no_job_held_is_no_runs(path, workload):
    a, b = Chain("n1"), Chain("n2")
    with desk_with(path, (a, 20), (b, 3)) as desk:
        desk.offer(desk.agent(b), b.next([busy(0), busy(1, 1)], (workload, TRAINING)))
        desk.commit()
    assert run_at(path, 20)["unreported"]["device_seconds"] == 16 * 60.0


def test_an_entity_that_changed_hands_may_be_anybodys_that_held_it(path):
    b = Chain("n2", gpus=1)
    with desk_with(path, (Chain("n1"), 20), (b, 3)) as desk:
        half = [busy(0, w, duration_ns=WINDOW_NS // 2) for w in (0, 1)]
        desk.offer(desk.agent(b), b.next(half, (TRAINING, OTHER_JOB)))
        desk.commit()
    assert run_at(path, 20)["unreported"]["device_seconds"] == 16 * 60.0
    assert run_at(path, 20, "r2")["unreported"]["device_seconds"] == 16 * 60.0


def test_a_run_that_had_the_job_before_is_not_charged_for_its_later_steps(path):
    """One job id, one run a step: the second had the GPU when the agent fell silent."""
    steps = [replace(TRAINING, step=str(n), run=f"step-{n}") for n in range(2)]
    b = Chain("n2", gpus=1)
    with desk_with(path, (Chain("n1"), 20)) as desk:
        agent = desk.agent(b)
        for workload in steps:
            for _ in range(2):
                desk.offer(agent, b.next([busy(0)], (workload,)))
        desk.commit()
    assert run_at(path, 20, "step-0")["unreported"]["device_seconds"] == 0
    assert run_at(path, 20, "step-1")["unreported"]["device_seconds"] == 16 * 60.0


def test_an_agent_that_stopped_is_charged_as_far_as_the_run_was_seen_elsewhere(path):
    a, b = Chain("n1"), Chain("n2")
    stop = b.batch()
    stop.notices.add(kind=NoticeKind.AGENT_STOPPED, t_boot_ns=1, t_unix_ns=1)
    with desk_with(path, (a, 20)) as desk:
        desk.offer(desk.agent(b), b.next(payload=stop.SerializeToString()))
        desk.commit()
    assert run_at(path, 22)["unreported"]["device_seconds"] == 2 * 19 * 60.0
    alone = Chain("n3")
    last = alone.batch([busy(0)], (OTHER_JOB,))
    last.notices.add(kind=NoticeKind.AGENT_STOPPED, t_boot_ns=1, t_unix_ns=1)
    with Desk(path, shipped()) as desk:
        desk.offer(desk.agent(alone), alone.next(payload=last.SerializeToString()))
        desk.commit()
    assert run_at(path, 60, "r2")["unreported"]["device_seconds"] == 0


@pytest.mark.parametrize(
    ("source", "came_after_days", "over"),
    [("trace", 0, True), ("dcgm", 2, True), ("dcgm", 0.5, False), ("nvml", 2, False), ("sim", 2, False)],
)
def test_a_recording_that_was_replayed_is_over(path, source, came_after_days, over):
    chain = Chain("n1")
    message = batch_pb2.Inventory.FromString(chain.inventory)
    message.source = source
    chain.inventory = message.SerializeToString()
    chain.digest = hashlib.sha256(chain.inventory).digest()
    with Desk(path, shipped()) as desk:
        desk.now = UNIX_NS + 4 * MINUTE_NS + int(came_after_days * DAY_NS)
        agent = desk.agent(chain)
        for _ in range(4):
            desk.offer(agent, chain.next())
        desk.commit()
    assert run_at(path, 600)["unreported"]["device_seconds"] == (0 if over else 2 * 596 * 60.0)
    with queries.reading(path) as reader:
        found = reader.fleet(queries.asked(UNIX_NS + 600 * MINUTE_NS, ()))["not_reporting"]
    assert bool(found) is not over


def test_a_gpu_that_another_agent_took_over_is_not_charged_twice(path):
    b, again = Chain("n2"), Chain("n2", key_seed="set up anew")
    again.unix_ns += 30 * MINUTE_NS
    again.boot_ns += 30 * MINUTE_NS
    with desk_with(path, (b, 4)) as desk:
        desk.now = UNIX_NS + DAY_NS
        agent = desk.agent(again)
        for _ in range(30):
            desk.offer(agent, again.next([busy(0), busy(1)], (IDLE,)))
        desk.commit()
    assert run_at(path, 60)["unreported"]["device_seconds"] == 2 * 26 * 60.0, "minutes 4 to 30"
    with queries.reading(path) as reader:
        fleet = reader.fleet(queries.asked(UNIX_NS + 60 * MINUTE_NS, ()))
    assert fleet["not_reporting"] == [], "its successor reports"


def test_a_node_out_of_service_is_charged_until_then_and_no_longer(path):
    with desk_with(path, (Chain("n1"), 4)):
        pass
    gone = ExpectedNode("n1", 2, gone_unix_ns=UNIX_NS + 10 * MINUTE_NS, by="ops", why="returned")
    assert run_at(path, 60, expected=[gone])["unreported"]["device_seconds"] == 2 * 6 * 60.0


def test_a_gpu_cut_into_instances_is_charged_by_its_instances(path):
    chain = Chain("n1", gpus=2)
    message = batch_pb2.Inventory.FromString(chain.inventory)
    message.devices[1].mig, message.devices[1].parent = True, message.devices[0].entity
    message.devices[1].sm_count = 16
    chain.inventory = message.SerializeToString()
    chain.digest = hashlib.sha256(chain.inventory).digest()
    instance = replace(
        busy(1),
        **{
            n: getattr(busy(1), n) * 16 // 132
            for n in ("sm_elapsed_cycles", "sm_active_cycles", "hmma_cycles", "fp32_cycles")
        },
    )
    whole = replace(gap(0, reason=GapReason.LOST), sm_elapsed_cycles=0)
    with Desk(path, shipped()) as desk:
        agent = desk.agent(chain)
        desk.offer(agent, chain.next([whole, instance]))
        desk.commit()
    run = run_at(path, 61)
    assert run["unreported"]["device_seconds"] == 60 * 60.0
    assert int(run["unreported"]["flop"]["upper"]) == -(-upper_of_a_gap(60 * MINUTE_NS) * 16 // 132) or (
        abs(int(run["unreported"]["flop"]["upper"]) - upper_of_a_gap(60 * MINUTE_NS) * 16 // 132) < 10**6
    )


def test_the_books_know_nothing_of_it(path):
    with desk_with(path, (Chain("n1"), 20), (Chain("n2"), 4)):
        pass
    result = check_store(path, shipped())
    assert result.difference is None, result_text(result)


def test_silence_of_an_ancestor_widens_what_stands_on_it_and_says_so(path):
    """The base's node fell silent: what it may have done since is in every run that counts the base, once."""
    a, b = Chain("n1"), Chain("n2")
    with Desk(path, shipped()) as desk:
        for chain, minutes, workload in ((a, 20, OTHER_JOB), (b, 4, TRAINING)):
            agent = desk.agent(chain)
            for _ in range(minutes):
                desk.offer(agent, chain.next([busy(0), busy(1)], [workload]))
        desk.commit()
        for statement in (
            Link("r2", Relation.FINE_TUNES, "r1"),
            Declare("r3", owner="x"),
            Link("r3", Relation.DISTILS, "r1"),
        ):
            say(path, lambda _, s=statement: s, "ada", "so", lambda: UNIX_NS)
    base, child, heard = run_at(path, 20, "r1"), run_at(path, 20, "r2"), run_at(path, 4, "r2")
    owed = int(base["unreported"]["flop"]["upper"])
    assert owed > 0
    assert child["unreported"]["flop"]["upper"] == "0"
    assert child["unreported"]["ancestors"] == ["r1"]
    assert child["executed"] == heard["executed"]  # what it did itself is known
    for regime in ("eu-gpai", "eu-systemic-risk"):
        now, then = (d["countable"][regime]["flop"] for d in (child, heard))
        assert int(now["upper"]) - int(then["upper"]) == owed
        assert (now["lower"], now["point"]) == (then["lower"], then["point"])
        assert child["countable"][regime]["unreported"]["upper"] == str(owed)
    lines = {t["regime"]: t for t in child["thresholds"]}
    assert lines["eu-gpai"]["fraction_bounds"][1] >= heard["thresholds"][0]["fraction_bounds"][1]
    page = run_view({**child, "hourly": []}, Paint(colour=False, width=80))
    assert (
        "  agents     of r1, which the run stands on, are silent: in each countable total\n"
        "             from 0 to the most\n"
    ) in page
    low = replace(
        next(r for r in shipped() if r.id == "eu-gpai"),
        threshold_flop=int(heard["countable"]["eu-gpai"]["flop"]["upper"]) + 1,
    )
    with queries.reading(path) as reader:
        (run,) = reader.runs(queries.asked(UNIX_NS + 20 * MINUTE_NS, (low,)), "r2")
    assert [(t["verdict"], t["verdict_of_records"]) for t in run["thresholds"]] == [("undetermined", "below")]


def test_a_line_of_runs_list_is_the_runs_document_in_short(path):
    """Whatever the list shows has the value that `runs show` gives it: silent agents, tags, lineage and all."""
    a, b = Chain("n1"), Chain("n2")
    with Desk(path, shipped()) as desk:
        for chain, minutes, workload in ((a, 20, OTHER_JOB), (b, 4, TRAINING)):
            agent = desk.agent(chain)
            for minute in range(minutes):
                rows = [busy(0), gap(1) if minute == 2 else busy(1, percent=7)]
                desk.offer(agent, chain.next(rows, [workload]))
        desk.commit()
        hour = UNIX_NS // 3_600_000_000_000
        for statement in (
            Link("r2", Relation.FINE_TUNES, "r1"),
            Tag("r1", Purpose.EVALUATION, hour, hour + 1, evidence=("e",)),
            Tag("r2", Purpose.RECOMPUTATION, fraction=Fraction(1, 3), evidence=("e",)),
        ):
            say(path, lambda _, s=statement: s, "ada", "so", lambda: UNIX_NS)
    for minute in (4, 20):
        for line in (10**15, 4 * 10**17, 10**25):
            regimes = tuple(replace(r, threshold_flop=line + i * 10**14) for i, r in enumerate(shipped()))
            question = queries.asked(UNIX_NS + minute * MINUTE_NS, regimes)
            with queries.reading(path) as reader:
                whole, short = reader.runs(question), reader.briefs(question)
            assert [d["run"] for d in short] == [d["run"] for d in whole] == ["r2", "r1"]
            for d, s in zip(whole, short, strict=True):
                (near,) = s.pop("thresholds")
                assert near in told(d["thresholds"])
                for key, value in s.items():
                    assert value == d[key] if isinstance(value, str) else value.items() <= d[key].items()
                s["thresholds"] = [near]
            assert runs_view(short, WIDE) == runs_view(whole, WIDE)


def told(rows):
    return [{key: value for key, value in row.items() if key != "event_raised"} for row in rows]


WIDE = Paint(colour=False, width=200)
