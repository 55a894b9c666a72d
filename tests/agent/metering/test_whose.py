"""Whose an interval is, by who held the entity at its two ends."""

import json
from dataclasses import replace

import pytest
from metering import JOB_A, JOB_B, SECOND, SMS, device

from flopmeter.agent.metering.entity import describe
from flopmeter.agent.metering.interval import ENERGY, HMMA, SM_ACTIVE, Interval
from flopmeter.agent.metering.track import Track, dump_track, load_track
from flopmeter.agent.metering.whose import now_held, parts_of, same_holders
from flopmeter.agent.workloads.attribution import Holding
from flopmeter.contract.evidence_class import EvidenceClass
from flopmeter.contract.identity import identities
from flopmeter.contract.usage import IDLE, UNATTRIBUTED, Workload, WorkloadKind
from flopmeter.contract.w_table import current

GIVEN_A = Workload(WorkloadKind.SLURM, job=JOB_A.job)
NOBODY, UNKNOWN = Holding(IDLE, snapshot=True), Holding(None, snapshot=True)
WAITS_A, WAITS_B = (Holding(w, snapshot=True, waiting=True) for w in (GIVEN_A, JOB_B))
RUNS_A, RUNS_B = (Holding(w, snapshot=True) for w in (JOB_A, JOB_B))
LOST = Holding(UNATTRIBUTED, snapshot=True)
MHZ = 1_700


def interval(active: int = 900) -> Interval:
    """One second, `active` permille of it."""
    elapsed = MHZ * 1_000_000 * SMS
    pipes = [elapsed * active // 1000, elapsed * active // 2000, *(0,) * 8]
    return Interval(EvidenceClass.A1, SM_ACTIVE | HMMA, 0, (SECOND, elapsed, *pipes))


def track(before: Holding) -> Track:
    found = Track(describe(device(), current(), source="sim", parents=frozenset()))
    now_held(found, before)
    return found


@pytest.mark.parametrize(
    ("before", "now", "active", "wanted"),
    [
        # Processes come and go; nobody gave anything.
        (NOBODY, RUNS_A, 900, {JOB_A}),
        (RUNS_A, NOBODY, 900, {JOB_A}),
        (RUNS_A, NOBODY, 0, {IDLE}),
        (NOBODY, NOBODY, 900, {UNATTRIBUTED}),
        (RUNS_A, RUNS_B, 900, {JOB_A, JOB_B}),
        (RUNS_A, RUNS_A, 900, {JOB_A}),
        # Given and idle: the time is the holder's, work is whose processes were there, else the holder's.
        (WAITS_A, WAITS_A, 0, {GIVEN_A}),
        (WAITS_A, WAITS_A, 900, {GIVEN_A}),
        (WAITS_A, RUNS_A, 900, {JOB_A}),
        (WAITS_A, RUNS_B, 900, {JOB_B}),
        (RUNS_A, WAITS_A, 900, {JOB_A}),
        (RUNS_A, WAITS_B, 900, {JOB_A}),
        (RUNS_A, WAITS_B, 0, {JOB_B}),
        (NOBODY, WAITS_B, 900, {JOB_B}),
        (LOST, WAITS_A, 900, {GIVEN_A}),
        (WAITS_A, NOBODY, 900, {UNATTRIBUTED}),
        (WAITS_A, NOBODY, 0, {IDLE}),
        # The list of processes cannot be had any more.
        (RUNS_A, UNKNOWN, 900, {JOB_A, UNATTRIBUTED}),
        (RUNS_A, UNKNOWN, 0, {IDLE}),
        (UNKNOWN, UNKNOWN, 900, {UNATTRIBUTED}),
    ],
)
def test_between_adjacent_readings(before: Holding, now: Holding, active: int, wanted: set[Workload]) -> None:
    parts = parts_of(track(before), now, interval(active), 0, bridged=False)
    assert {workload for workload, _ in parts} == wanted


@pytest.mark.parametrize(
    ("before", "now", "same"),
    [
        (RUNS_A, RUNS_A, True),
        (RUNS_A, RUNS_B, False),
        (WAITS_A, RUNS_A, True),  # of one job, whose step was not known
        (RUNS_A, WAITS_A, True),
        (WAITS_A, RUNS_B, False),
        (RUNS_A, Holding(GIVEN_A, snapshot=True), False),
        (UNKNOWN, UNKNOWN, True),
        (UNKNOWN, WAITS_A, False),
        (Holding(UNATTRIBUTED, parts=((JOB_A, 1), (JOB_B, 2))), Holding(UNATTRIBUTED, parts=((JOB_A, 2), (JOB_B, 1))), True),
        (Holding(UNATTRIBUTED, parts=((JOB_A, 1), (JOB_B, 2))), WAITS_A, False),
    ],
)  # fmt: skip
def test_a_bridge_is_the_holders_only_if_both_ends_agree(before: Holding, now: Holding, same: bool) -> None:
    kept = track(before)
    assert same_holders(kept, now) is same
    parts = parts_of(kept, now, interval(), 0, bridged=True)
    assert (parts == ((UNATTRIBUTED, 1),)) is (not same or now == UNKNOWN)


def test_a_gpu_that_is_cut_into_instances_is_not_busy_itself() -> None:
    """Its SMs are metered there; its own rows are energy, and no work that lacks an owner."""
    cut = frozenset({device().entity})
    for unknown in (Holding(None), UNKNOWN):
        for parents, wanted in ((cut, IDLE), (frozenset(), UNATTRIBUTED)):
            found = Track(describe(device(), current(), source="sim", parents=parents))
            now_held(found, unknown)
            got = Interval(EvidenceClass.C, ENERGY, 0, (SECOND, *(0,) * 10, 5))
            assert parts_of(found, unknown, got, 0, bridged=False) == ((wanted, 1),)


def test_by_time_where_one_gave_way_to_another() -> None:
    began = Holding(JOB_B, snapshot=True, began_ns=SECOND // 4)
    assert dict(parts_of(track(RUNS_A), began, interval(), 0, bridged=False)) == {
        JOB_A: SECOND // 4,
        JOB_B: SECOND * 3 // 4,
    }


def test_who_only_waited_is_remembered_over_a_restart() -> None:
    for holding in (WAITS_A, RUNS_A):
        kept = track(holding)
        again = load_track(kept.entity, dump_track(kept))
        assert (again.workload, again.waiting) == (kept.workload, holding.waiting)
    old = dump_track(track(WAITS_A))
    del old["waiting"]  # a journal of a version before
    assert load_track(kept.entity, old).waiting is False


def test_keys_that_only_an_identity_tells_apart_are_two_over_a_restart() -> None:
    """Two trainings in one job step, their cycles held back until they have a price: none is lost with the agent."""
    keys = [replace(JOB_A, run="", identities=identities([("env:WANDB_RUN_ID", run)])) for run in ("x", "y")]
    kept = track(Holding(UNATTRIBUTED, parts=((keys[0], 1), (keys[1], 1))))
    kept.held.add([(keys[0], 1), (keys[1], 1)], interval(), None)
    now_held(kept, Holding(UNATTRIBUTED, parts=((keys[0], 1), (keys[1], 1))))
    again = load_track(kept.entity, json.loads(json.dumps(dump_track(kept))))
    assert again.held.sums == kept.held.sums
    assert again.sharers == (keys[0], keys[1])
