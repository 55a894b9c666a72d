"""Processes that start and end between two readings: in no list, and found by the driver's samples."""

import os

import pytest
from fakenvml.driver import COMPILER, NO_COMPILER, SECOND, Machine

from flopmeter.agent.metering.meter import Meter, MeterSettings
from flopmeter.agent.sources.nvml import STRANGERS_NS, WATCH_NS
from flopmeter.contract.usage import UNATTRIBUTED, Measured, NoticeKind, Workload, WorkloadKind

pytestmark = pytest.mark.skipif(COMPILER is None, reason=NO_COMPILER)

OWN, GONE = os.getpid(), 4_100_000_001  # above any pid_max: in no /proc
ASKED = "nvmlDeviceGetProcessUtilization"
JOB = Workload(WorkloadKind.SLURM, job="1", step="0")


@pytest.fixture
def node(tmp_path):  # type: ignore[no-untyped-def]
    with Machine(tmp_path, f"gpu g0 hmma=0.5 procs={OWN}:60") as machine:
        yield machine


def ticks(m: Machine, source, seconds: int) -> list[list[tuple[int, float | None]]]:  # type: ignore[no-untyped-def]
    found = []
    for _ in range(seconds):
        m.advance(SECOND)
        found.append([(p.pid, p.sm_util_pct) for p in source.read(m.uuid(0)).processes])
    return found


def test_one_that_nobody_listed_is_found_within_seconds_and_then_at_each_reading(node: Machine) -> None:
    source = node.source()
    alone = [(OWN, None)]
    assert ticks(node, source, 12) == [alone] * 12
    node.say(f"gpu g0 gone={GONE}:40")
    found = ticks(node, source, 12)
    first = next(i for i, there in enumerate(found) if len(there) > 1)
    assert first <= STRANGERS_NS // SECOND
    assert found[first:] == [[(OWN, 60.0), (GONE, 40.0)]] * (12 - first)
    node.say("gpu g0 gone=")
    assert ticks(node, source, 3) == [alone] * 3
    source.close()


def test_asked_for_every_few_seconds_unless_one_was_found(node: Machine) -> None:
    source = node.source()
    ticks(node, source, 10)
    before = node.calls(ASKED)
    ticks(node, source, 50)
    each = 2  # calls: how much room, and then the samples
    assert node.calls(ASKED) - before <= each * (50 * SECOND // STRANGERS_NS + 1)
    node.say(f"gpu g0 gone={GONE}:40")
    ticks(node, source, 10)
    node.say("gpu g0 gone=")
    before = node.calls(ASKED)
    ticks(node, source, 20)
    assert node.calls(ASKED) - before == each * 20
    ticks(node, source, WATCH_NS // SECOND)
    before = node.calls(ASKED)
    ticks(node, source, 50)
    assert node.calls(ASKED) - before <= each * (50 * SECOND // STRANGERS_NS + 1)
    source.close()


@pytest.mark.parametrize(
    "lines",
    [
        [f"gpu g0 gone={GONE}:0"],  # used nothing
        [f"gpu g0 gone={os.getppid()}:40"],  # lives: a graphics client, an MPS server
        [f"gpu g0 gone={GONE}:101"],
        ["gpu g0 gone=0:40"],
        [f"gpu g0 gone={GONE}:40 fail.{ASKED}=3"],
        [f"gpu g0 gone={GONE}:40 procs=4100000002:60"],  # nobody is in this /proc: not ours to tell
    ],
)
def test_who_is_no_stranger(node: Machine, lines: list[str]) -> None:
    source = node.source()
    ticks(node, source, 6)
    for line in lines:
        node.say(line)
    assert {len(there) for there in ticks(node, source, 12)} == {1}
    source.close()


def test_who_was_listed_before_is_no_stranger(node: Machine) -> None:
    """Its work is in the intervals in which it was listed."""
    node.say(f"gpu g0 procs={GONE}:40")
    source = node.source()
    ticks(node, source, 7)
    node.say(f"gpu g0 procs={OWN}:60,{GONE}:40")
    ticks(node, source, 2)
    node.say(f"gpu g0 procs={OWN}:60 gone={GONE}:40")
    assert ticks(node, source, 1) == [[(OWN, None)]]
    source.close()


def test_samples_of_before_we_came_are_nobodys(node: Machine) -> None:
    node.say(f"gpu g0 gone={GONE}:40")
    source = node.source()
    node.advance(SECOND)
    assert len(source.read(node.uuid(0)).processes) == 1
    source.close()


def test_what_it_did_is_not_the_listed_ones_alone(node: Machine) -> None:
    class Finder:
        def find(self, pid: int, start_ticks: int) -> Workload | None:
            return JOB if pid == OWN else None

    source = node.source()
    meter = Meter(source.facts(), MeterSettings(window_ns=3600 * SECOND), agent_version="t", finder=Finder())

    def run(seconds: int) -> None:
        for _ in range(seconds):
            node.advance(SECOND)
            meter.observe(source.read(node.uuid(0)))

    run(15)
    node.say(f"gpu g0 gone={GONE}:20")
    run(10)
    node.say("gpu g0 gone=")
    run(5)
    sealed = meter.flush(final=True)
    source.close()
    assert sealed is not None
    batch = sealed.batch
    own_rows = [u for u in batch.usage if Measured.OTHERS not in u.measured]
    by = {
        (batch.workloads[u.workload_index], Measured.APPORTIONED in u.measured): u.duration_ns / SECOND
        for u in own_rows
        if not u.gap_reason
    }
    assert by[UNATTRIBUTED, True] * 3 == pytest.approx(by[JOB, True])  # 60 to 20
    assert 5 <= by[UNATTRIBUTED, True] + by[JOB, True] <= 10
    assert sum(u.duration_ns for u in own_rows) == 29 * SECOND
    assert NoticeKind.SHARED_DEVICE in {n.kind for n in batch.notices}


def test_the_first_sample_of_all_may_be_a_strangers(node: Machine) -> None:
    """The listed process rests, so that there is no sample of anybody when they are first asked for."""
    node.say("gpu g0 proc_samples=0")
    source = node.source()
    ticks(node, source, 7)
    node.say(f"gpu g0 proc_samples=1 gone={GONE}:40")
    assert any(len(there) > 1 for there in ticks(node, source, int(STRANGERS_NS / SECOND)))
    source.close()
