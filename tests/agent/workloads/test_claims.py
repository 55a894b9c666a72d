"""What training code declares: what is taken, what is refused, and whose it is."""

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from metering import BOOT, JOB_A, JOB_B, SECOND, Gpu, meter, taken

from flopmeter.agent.metering.window import MAX_WINDOW_PROGRESS
from flopmeter.agent.reading import Process, Reading
from flopmeter.agent.workloads.allocations import Allocations
from flopmeter.agent.workloads.attribution import Attributor
from flopmeter.agent.workloads.claims import (
    LOOK_AGAIN_NS,
    MAX_A_TICK,
    MAX_DATAGRAM_BYTES,
    MAX_LOOKS_A_TICK,
    MAX_PLACES,
    MAX_SPEAKERS,
    Claim,
    Claims,
    RefusedClaimError,
    parse_claim,
)
from flopmeter.contract.identity import Identity, check_identities
from flopmeter.contract.usage import Progress, Workload, WorkloadKind

A0 = (WorkloadKind.SLURM, "1", "0")
UID = "1f0c3a52-5b3e-4a57-9b4e-0c9c1d2e3f40"


class Finder:
    def __init__(self, found: dict[int, Workload]) -> None:
        self.found = found
        self.asked: list[int] = []

    def find(self, pid: int, start_ticks: int) -> Workload | None:
        self.asked.append(pid)
        return self.found.get(pid)


def datagram(**said: object) -> bytes:
    return json.dumps({"v": 1, **said}).encode()


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"[" * 3_000,
        b'{"v":2,"run":"x"}',
        b'{"v":true,"tokens":1.5}',
        datagram(run=1),
        datagram(run="a\nb"),
        datagram(run="\x1b[31m"),
        datagram(run="x" * 257),
        datagram(secret="x"),
        datagram(tokens=-1),
        datagram(tokens=1 << 63),
        datagram(tokens=True),
        datagram(tokens=1.0),
        datagram(tokens="1"),
        datagram(ranks=1 << 32),
        b'{"v":1,"tokens":NaN}',
        b'{"v":1,"tokens":' + b"9" * 5_000 + b"}",
        datagram(run="ok") + b" " * MAX_DATAGRAM_BYTES,
    ],
)
def test_what_is_refused_and_counted(raw: bytes) -> None:
    with pytest.raises(RefusedClaimError):
        parse_claim(raw)
    finder = Finder({1: JOB_A})
    claims = Claims(finder)
    claims.hear(1, raw, 1, 1)
    assert (claims.taken, claims.refused, claims.unknown) == (0, 1, 0)
    assert finder.asked == []
    assert claims.of([A0]) is None


@given(
    st.binary(max_size=200)
    | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(lambda v: json.dumps(v).encode())
)
def test_no_datagram_breaks_it(raw: bytes) -> None:
    claims = Claims(Finder({1: JOB_A}))
    claims.hear(1, raw, 1, 1)
    assert claims.taken + claims.refused == 1


def test_the_newest_word_counts_and_what_is_not_said_stays() -> None:
    claims = Claims(Finder({1: JOB_A, 2: JOB_B}))
    claims.hear(1, datagram(run=" gpt ", dtype="FP8", parameters=7), 5, 50)
    claims.hear(1, datagram(tokens=100), 6, 60)
    claims.hear(2, datagram(run="other"), 7, 70)
    assert claims.of([A0]) == Claim("gpt", "FP8", "", 100, 7, 0, 0, 6, 60)
    assert claims.of([]) is None
    claims.hear(1, datagram(run="none", tokens=101), 8, 80)
    assert claims.of([A0]) == Claim("", "FP8", "", 101, 7, 0, 0, 8, 80)


def test_processes_that_count_their_own_are_added_up() -> None:
    claims = Claims(Finder(dict.fromkeys(range(1, 1_000), JOB_A)))
    for pid in (1, 2, 3):
        claims.hear(pid, datagram(tokens=10 * pid, ranks=1), 1, 1)
    claims.hear(1, datagram(tokens=11, ranks=1), 2, 2)
    found = claims.of([A0])
    assert found is not None
    assert (found.tokens, found.ranks) == (61, 3)
    for pid in range(1, 1_000):
        claims.listen(3, 3)  # another tick
        claims.hear(pid, datagram(tokens=(1 << 63) - 1, ranks=(1 << 32) - 1), 3, 3)
    found = claims.of([A0])
    assert found is not None
    assert (found.tokens, found.ranks) == ((1 << 63) - 1, (1 << 32) - 1)
    assert len(claims._spoken[A0].by_process) == MAX_SPEAKERS
    assert claims.uncounted > 0
    claims.hear(1, datagram(tokens=5), 4, 4)  # of the whole run, from here on
    found = claims.of([A0])
    assert found is not None
    assert (found.tokens, found.ranks) == (5, 0)
    claims.hear(1, datagram(tokens=7, ranks=1), 5, 5)  # and back again
    found = claims.of([A0])
    assert found is not None
    assert (found.tokens, found.ranks) == (7, 1)


def test_a_sender_that_cannot_be_told_is_counted() -> None:
    finder = Finder({})
    claims = Claims(finder)
    for pid in (0, -1, 7):
        claims.hear(pid, datagram(run="x"), 1, 1)
    assert (claims.unknown, finder.asked) == (3, [7])


def test_a_storm_costs_a_bounded_number_of_looks_and_memory() -> None:
    finder = Finder({pid: Workload(WorkloadKind.PROCESS, job=str(pid)) for pid in range(1, 5_000)})

    class Flood:
        def __init__(self) -> None:
            self.n = 0

        def take(self, most: int) -> list[tuple[int, bytes]]:
            self.n += most
            return [(self.n - i, datagram(run="x")) for i in range(most)]

        def close(self) -> None:
            pass

    claims = Claims(finder, Flood())
    for tick in range(100):
        before = len(finder.asked)
        claims.listen(tick * SECOND, tick * SECOND)
        assert len(finder.asked) - before == MAX_LOOKS_A_TICK < MAX_A_TICK
    assert len(claims._spoken) <= MAX_PLACES
    assert claims.forgotten == claims.taken - MAX_PLACES
    assert len(claims._looked) <= MAX_PLACES
    one = Claims(finder)
    del finder.asked[:]
    for i in range(1_000):
        one.hear(3, datagram(tokens=i), i, i)
    assert finder.asked == [3]
    one.hear(3, datagram(tokens=9), LOOK_AGAIN_NS, 1)
    assert finder.asked == [3, 3]


def test_a_claim_names_what_nothing_better_does() -> None:
    claim = Claim(run="r", dtype="FP8", purpose="rl")
    told = claim.put_to(Workload(WorkloadKind.SLURM, job="1"))
    assert (told.run, told.dtype) == ("r", "fp8")
    assert told.identities == (("declared:dtype", "FP8"), ("declared:purpose", "rl"), ("declared:run", "r"))
    assert all(each.by_user for each in check_identities(told.identities))
    labelled = claim.put_to(JOB_A)
    assert (labelled.run, labelled.dtype) == ("a", "bf16")
    assert Claim(dtype="float99").put_to(JOB_B).identities == (("declared:dtype", "float99"),)


# ---- through the meter -------------------------------------------------------------------------------


class Kubelet:
    def __init__(self, *given: Workload) -> None:
        self.now = Allocations(1, {"GPU-0": given})

    def latest(self) -> Allocations:
        return self.now

    def describe(self, workload: Workload) -> Workload:
        return workload

    def met(self, entity: str, workload: Workload) -> None:
        pass

    def close(self) -> None:
        pass


def reading(gpu: Gpu, t: int, *pids: int) -> Reading:
    gpu.run(SECOND, {249: 900, 250: 500, 252: 500})
    return gpu.reading(t, workload=None, processes=tuple(Process(pid, pid) for pid in pids))


def test_claims_reach_the_record_at_the_windows_end_once() -> None:
    bare = Workload(WorkloadKind.SLURM, job="1", step="0")
    claims = Claims(Finder({7: bare}))
    agent, gpu = meter(attributor=Attributor(Finder({7: bare}), (), claims), window=10 * SECOND), Gpu()
    sealed = []
    for t in range(100, 141):
        sealed += agent.observe(reading(gpu, t * SECOND, 7))
        if t == 103:
            claims.hear(7, datagram(run="gpt", purpose="rl", tokens=5, parameters=7), t * SECOND, 1_000 + t)
        if t == 107:
            claims.hear(7, datagram(tokens=6), t * SECOND, 1_000 + t)
        if t == 125:
            claims.hear(7, datagram(dtype="fp8"), t * SECOND, 1_000 + t)
    assert [s.batch.progress for s in sealed] == [
        (Progress(0, 107 * SECOND, 1_107, 6, 7, 0, 0),), (), (Progress(0, 125 * SECOND, 1_125, 6, 7, 0, 0),), (),
    ]  # fmt: skip
    assert {w.run for s in sealed for w in s.batch.workloads} == {"gpt"}
    assert [w.dtype for s in sealed for w in s.batch.workloads] == ["", "", "fp8", "fp8"]
    assert Identity("declared:run", "gpt") in sealed[0].batch.workloads[0].identities
    taken(sealed)


def test_claims_that_a_window_has_no_room_for_are_counted_in_it() -> None:
    crowd = {
        pid: Workload(WorkloadKind.SLURM, job=str(pid), step="0") for pid in range(1, MAX_WINDOW_PROGRESS + 4)
    }
    claims = Claims(Finder(crowd))
    agent, gpu = meter(attributor=Attributor(Finder(crowd), (), claims), window=10 * SECOND), Gpu()
    for pid in crowd:
        claims.listen(0, 0)  # a tick each: so many senders are looked up
        claims.hear(pid, datagram(tokens=pid), 1, 1)
    sealed = []
    for t in range(100, 112):
        sealed += agent.observe(reading(gpu, t * SECOND, *crowd))
    told = [n.detail for s in sealed for n in s.batch.notices if "no room" in n.detail]
    assert sum(len(s.batch.progress) for s in sealed) == MAX_WINDOW_PROGRESS
    assert told == ["no room in this window for 3 workloads' claims of progress"]


def test_a_pods_claim_finds_it_under_the_kubelets_name() -> None:
    """The cgroup of who declares has the UID; the workload bears the name that the kubelet's list gave it."""
    given = Workload(WorkloadKind.POD, job="ns/a", step="main")
    finder = Finder({7: Workload(WorkloadKind.POD, job=UID), 8: Workload(WorkloadKind.POD, job=UID)})
    claims = Claims(finder)
    agent, gpu = meter(attributor=Attributor(finder, [Kubelet(given)], claims), window=10 * SECOND), Gpu()
    sealed = []
    claims.hear(
        8, datagram(run="gpt", tokens=5), 99 * SECOND, 99
    )  # before it holds a GPU, and from beside it
    for t in range(100, 112):
        sealed += agent.observe(reading(gpu, t * SECOND, 7))
    (workload,) = sealed[0].batch.workloads
    assert (workload.job, workload.step, workload.run) == ("ns/a", "main", "gpt")
    assert [p.tokens for p in sealed[0].batch.progress] == [5]


def test_this_process_by_its_own_number() -> None:
    from flopmeter.agent.workloads.processes import ProcFinder

    claims = Claims(ProcFinder())
    claims.hear(os.getpid(), datagram(run="mine"), 1, 1)
    assert claims.taken == 1
    assert len(BOOT) == 16
