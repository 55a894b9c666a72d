"""Readings that wait to be metered (meter.WAITING_TICKS) come to just what they come to when each is metered at once.

To the byte: batches, inventories, journals, and what is asked of the meter in between. Who holds an entity changes all
the time here, and a process that is over cannot be told any more: so each is asked for when its reading comes.
"""

from itertools import accumulate

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from metering import BOOT, SECOND, UNIX0, Gpu, device, facts

from flopmeter.agent.metering import meter as module
from flopmeter.agent.metering.meter import Meter, MeterSettings, Sealed
from flopmeter.agent.reading import Happening, HappeningKind, Process, Reading
from flopmeter.contract.usage import NoticeKind, Workload, WorkloadKind

WINDOW = 20 * SECOND
LIVES_NS = 4 * SECOND  # a process is in /proc for so long


class Finder:
    """/proc at a time of its own: process n is of job n // 2, and over some seconds after it began."""

    def __init__(self, *, blind: bool) -> None:
        self.blind = blind  # not the driver's PID namespace: after a while it is remarked
        self.now = 0
        self.asked: list[tuple[int, int]] = []

    def find(self, pid: int, start_ticks: int) -> Workload | None:
        self.asked.append((self.now, pid))
        if self.blind or self.now > start_ticks * 10_000_000 + LIVES_NS:
            return None
        return Workload(WorkloadKind.SLURM, job=str(pid // 2), step=str(pid))


kinds = st.sampled_from(["good"] * 12 + ["error", "late", "again", "partial", "bare", "unknown"])
ticks = st.fixed_dictionaries({
    "ns": st.one_of(st.just(SECOND), st.integers(SECOND // 4, 3 * SECOND), st.sampled_from([25 * SECOND, 700 * SECOND])),
    "kinds": st.tuples(kinds, kinds, kinds),
    "step": st.sampled_from([0] * 12 + [-3 * SECOND, 5 * SECOND]),  # of the wall clock
    "held": st.tuples(*[st.sampled_from([(), (2,), (2,), (3,), (4, 5), (4, 6)])] * 3),
    "tell": st.sampled_from([None, 1_000, 1_000, 1_000, -SECOND // 2]),  # the time, when this much has passed
    "then": st.sampled_from([None] * 16 + [*HappeningKind, "note", "holders", "devices", "driver", "flush", "kill", "skip"]),
})  # fmt: skip
CALM = {
    "ns": SECOND,
    "kinds": ("good",) * 3,
    "step": 0,
    "held": ((2,), (), (4, 5)),
    "tell": 1_000,
    "then": None,
}


def _lived(schedule: list, waiting: int, *, blind: bool) -> tuple[list[Sealed], list[object]]:  # type: ignore[type-arg]
    """What a node seals, and what its meter answers in between. GPU-0 counts, GPU-1 and GPU-2 give percentages."""
    finder, sealed, said = Finder(blind=blind), [], []
    boot, t, boots, off = BOOT, 100 * SECOND, 0, UNIX0

    def started(journal: bytes | None) -> Meter:
        node = facts(device(0), device(1), device(2), boot=boot)
        return Meter(
            node,
            MeterSettings(window_ns=WINDOW),
            agent_version="0",
            journal=journal,
            finder=finder,
            replay=False,
        )

    gpu, agent, began = Gpu(), started(None), {}
    usual, module.WAITING_TICKS = module.WAITING_TICKS, waiting
    try:
        for s, at in zip(schedule, accumulate((s["ns"] for s in schedule), initial=t), strict=False):
            t = at if not boots else t + s["ns"]
            off += s["step"]
            finder.now = t
            gpu.run(s["ns"], {249: 900, 250: 600, 252: 500})
            for n, (kind, held) in enumerate(zip(s["kinds"], s["held"], strict=True)):
                t += 1_000
                began = {pid: began.get(pid, t // 10_000_000) for held in s["held"] for pid in held}
                processes = tuple(Process(pid, began[pid], 30.0 * pid) for pid in held)
                sealed += agent.observe(_reading(gpu, n, kind, (t, off + t), processes))
            if s["tell"] is not None:
                sealed += agent.advance(t + s["tell"], off + t + s["tell"])
                t += 1_000
            then = s["then"]
            if then == "note":
                agent.note(NoticeKind.AGENT_STARTED, "as was said", name="x")
            elif then == "holders":
                said.append(agent.holders())
            elif then == "devices":
                sealed += agent.refacts(facts(device(0), device(2, sm_count=60 + len(sealed)), boot=boot))
                sealed += agent.refacts(facts(device(0), device(1), device(2), boot=boot))
            elif then == "driver":
                sealed += agent.refacts(facts(device(0), device(1), device(2), boot=boot, driver="600.1"))
                sealed += agent.refacts(facts(device(0), device(1), device(2), boot=boot))
            elif then == "flush":
                sealed += [last] if (last := agent.flush()) else []
            elif then == "kill":
                agent = started(sealed[-1].journal if sealed else None)
            elif then == "skip":
                said.append(agent.skip_to(boot, t - SECOND // 2, t))
            elif then is HappeningKind.REBOOT:
                t, boots = 5 * SECOND, boots + 1
                gpu.reset()
                boot = bytes([99, boots]) + BOOT[2:]
                sealed += agent.observe(Happening(then, t, off + t, boot_id=boot))
            elif then is HappeningKind.MIG_CHANGE:
                devices = (device(0), device(1), device(2, sm_count=60 + len(sealed)))
                sealed += agent.observe(Happening(then, t, off + t, devices=devices))
            elif then is not None:
                sealed += agent.observe(Happening(then, t, off + t, entity="GPU-0"))
        sealed += [last] if (last := agent.flush(final=True)) else []
    finally:
        module.WAITING_TICKS = usual
    return sealed, [*said, finder.asked]


def _reading(gpu: Gpu, n: int, kind: str, at: tuple[int, int], processes: tuple[Process, ...]) -> Reading:
    t, unix = at
    name = "GPU-9" if kind == "unknown" else f"GPU-{n}"
    at = {"late": t - 2 * SECOND, "again": t - 1}.get(kind, t)
    if kind == "error":
        return Reading(name, at, unix, error="NVML_ERROR_UNKNOWN")
    held = {"unix": unix, "entity": name, "workload": None, "processes": processes}
    if n == 0:
        cycles = {k: v for k, v in gpu.counters.items() if kind != "partial" or k != 250}
        return gpu.reading(at, cycles={} if kind == "bare" else cycles, **held)
    percent = {} if kind == "bare" else {2: 80.0, 5: 50.0, 7: 40.0}
    return gpu.reading(at, cycles={}, percent=percent, **held)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(schedule=st.lists(ticks, max_size=40), calm=st.integers(0, 12), blind=st.booleans())
@example(
    schedule=[CALM | {"held": ((2,),) * 3}] * 9 + [CALM | {"held": ((3,),) * 3}] * 3, calm=0, blind=False
)
@example(schedule=[CALM] * 5 + [CALM | {"then": HappeningKind.REBOOT}] + [CALM] * 9, calm=9, blind=False)
@example(schedule=[CALM | {"then": "devices"}] + [CALM] * 9, calm=10, blind=False)
@example(schedule=[CALM | {"then": "holders"}, CALM | {"then": "skip"}] + [CALM] * 9, calm=10, blind=False)
@example(schedule=[CALM | {"then": "note"}] + [CALM] * 2, calm=10, blind=False)
@example(schedule=[CALM | {"tell": -SECOND // 2}] + [CALM] * 9, calm=10, blind=True)
def test_waiting_changes_nothing(schedule: list, calm: int, blind: bool) -> None:  # type: ignore[type-arg]
    schedule = [CALM] * calm + schedule
    at_once = _lived(schedule, 0, blind=blind)
    for waiting in (1, 3, module.WAITING_TICKS):
        assert _lived(schedule, waiting, blind=blind) == at_once


def test_readings_do_wait_and_no_longer_than_their_window() -> None:
    gpu, agent = Gpu(), Meter(facts(), MeterSettings(window_ns=WINDOW), agent_version="0")
    t, sealed = 100 * SECOND, []
    metered = []
    for _ in range(21):
        t += SECOND
        gpu.run(SECOND, {249: 900})
        sealed += agent.observe(gpu.reading(t, workload=None, processes=()))
        sealed += agent.advance(t + 1, UNIX0 + t + 1)
        metered.append(agent._in.tracks["GPU-0"].seen_ns)
    assert len(set(metered)) < 8, "each reading was metered at once"
    assert [s.batch.window_end_boot_ns for s in sealed] == [120 * SECOND]
    assert (
        sum(u.duration_ns for u in sealed[0].batch.usage) == 18 * SECOND
    )  # all from the first to the 119th second
