"""Nothing is lost and nothing counted twice, to the cycle and to the nanosecond, whatever happens to the agent.

A node of exact counters lives through a random schedule. The oracle knows only what a reader of the
counters would: the first and last good reading of each epoch. The meter's sealed rows must come to that.
"""

from dataclasses import dataclass, field

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from metering import (
    BOOT,
    FIELDS,
    H100,
    JOB_A,
    JOB_B,
    SECOND,
    SMS,
    UNIX0,
    Gpu,
    device,
    duration,
    facts,
    meter,
    rows,
    total,
)

from flopmeter.agent.metering.intake import MAX_LACKING
from flopmeter.agent.metering.meter import Meter, Sealed
from flopmeter.agent.reading import CYCLE_IDS, Happening, HappeningKind, Reading
from flopmeter.agent.shipping.encode import encode_batch, encode_inventory
from flopmeter.collector.encode import decode_batch, decode_inventory
from flopmeter.collector.ingest.encode import BatchView, device_bounds
from flopmeter.contract.evidence_class import EvidenceClass
from flopmeter.contract.flop import Cycles, flop
from flopmeter.contract.usage import IDLE, UNATTRIBUTED, Device, Measured, Workload, WorkloadKind
from flopmeter.contract.w_table import current

SLOW = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
ENTITIES = ("GPU-0", "GPU-1")
WORKLOADS = (JOB_A, JOB_B, IDLE, UNATTRIBUTED)
ERRORS = ("NVML_ERROR_UNKNOWN", "NVML_ERROR_TIMEOUT", "NVML_ERROR_GPU_IS_LOST")

shares = st.fixed_dictionaries(
    {249: st.integers(0, 1000), 250: st.integers(0, 1000), 251: st.integers(0, 300), 252: st.integers(0, 700)}
    | {key: st.integers(0, 500) for key in (253, 257, 258, 259, 260)}
)
#: One tick of the node: time, what each entity does and answers.
answers = st.sampled_from(["good"] * 6 + ["error", "partial", "glitch", "silent"])
step = st.fixed_dictionaries(
    {
        "ns": st.one_of(
            st.integers(SECOND // 4, 2 * SECOND),
            st.sampled_from([SECOND, 11 * SECOND, 61 * SECOND, 3_700 * SECOND]),
        ),
        "jitter": st.integers(0, 5_000_000),
        "shares": shares,
        "workload": st.sampled_from(WORKLOADS[:2] + WORKLOADS),
        "answers": st.tuples(answers, answers),
        "error": st.sampled_from(ERRORS),
        "then": st.sampled_from(["nothing"] * 12 + ["reset", "kill", "reboot", "stop", "tick"]),
    }
)

CALM: dict[str, object] = {"ns": SECOND, "jitter": 0, "shares": {}, "workload": JOB_A}
CALM |= {"answers": ("good", "good"), "error": "", "then": "nothing"}


@dataclass
class Oracle:
    """What one entity's counters and clock say, from good readings alone."""

    counted: dict[int, int] = field(default_factory=lambda: dict.fromkeys(CYCLE_IDS, 0))
    passed_ns: int = 0
    base: dict[int, int] | None = None
    first_ns: int | None = None
    last_ns: int = 0
    last_unix_ns: int = 0

    def good(self, t: int, unix: int, counters: dict[int, int]) -> None:
        if self.base is not None and all(counters[k] >= self.base[k] for k in CYCLE_IDS):
            for k in CYCLE_IDS:
                self.counted[k] += counters[k] - self.base[k]
        self.base = dict(counters)
        self.seen(t, unix)

    def seen(self, t: int, unix: int) -> None:
        if self.first_ns is None:
            if self.last_unix_ns:  # the first of a boot: the time between is known by the wall clock only
                self.passed_ns += unix - self.last_unix_ns
            self.first_ns = t
        else:
            self.passed_ns += t - self.last_ns
        self.last_ns, self.last_unix_ns = t, unix


class World:
    """A node with two GPUs, and its agent, which is killed and started again from its last journal."""

    def __init__(self, *, average: bool) -> None:
        self.t = 1_000 * SECOND
        self.up_since = 0
        self.boot = BOOT
        self.start = 4 * 10**18
        start = dict.fromkeys(CYCLE_IDS, self.start)
        self.gpus = [Gpu(e, average=average, counters=dict(start)) for e in ENTITIES]
        self.devices = tuple(device(i) for i in range(len(ENTITIES)))
        self.oracles = [Oracle() for _ in ENTITIES]
        self.sealed: list[Sealed] = []
        self.agent = self._agent(None)
        self.multiplier = SMS if average else 1
        self.restarted: set[str] = set()  # counters restarted, and no good reading since
        self.unsealed: set[str] = set()  # the first one of an epoch is in no journal yet
        self.unbridged: set[str] = set()
        self.lacking = dict.fromkeys(ENTITIES, 0)
        self.leapt = dict.fromkeys(ENTITIES, False)
        self._seconds(8)  # the scale is known from here on
        self._flush()

    def _agent(self, journal: bytes | None) -> Meter:
        return meter(facts(*self.devices, boot=self.boot), journal=journal)

    @property
    def boot_ns(self) -> int:
        return self.t - self.up_since

    def live(self, s: dict) -> None:  # type: ignore[type-arg]
        self.t += s["ns"]
        for gpu in self.gpus:
            gpu.run(s["ns"], s["shares"])
        for gpu, oracle, answer in zip(self.gpus, self.oracles, s["answers"], strict=True):
            self.t += s["jitter"]
            for other in self.gpus:
                other.run(s["jitter"], s["shares"])
            self._read(gpu, oracle, answer, s)
        # What was read between the last seal and a kill is bridged by the next good reading; if the counters
        # restart before that, it is lost and a gap says so. The oracle does not model that: it waits.
        if s["then"] in ("reset", "reboot") and self.unbridged:
            return
        if s["then"] == "reset":
            self.restarted = set(ENTITIES)
            for gpu in self.gpus:
                self._restart(gpu)
        elif s["then"] == "tick":
            self.sealed += self.agent.advance(self.boot_ns, UNIX0 + self.t)
        elif s["then"] in ("kill", "stop"):
            # Counters of an epoch whose beginning no journal holds are lost in a crash: a gap. So are those that were
            # read since the last seal in an epoch that is over. Not here.
            if s["then"] == "stop" or self.unsealed or self.restarted:
                self._flush()
            self.agent = self._agent(self.sealed[-1].journal)
            self.unbridged = set(ENTITIES)
            self.leapt = dict.fromkeys(ENTITIES, True)  # the journal may hold a first one
        elif s["then"] == "reboot":
            self.reboot()

    def _flush(self, *, final: bool = False) -> None:
        last = self.agent.flush(final=final)
        self.sealed += [last] if last else []
        self.unsealed.clear()

    def _restart(self, gpu: Gpu) -> None:
        """Counters start anew, each time so far below that no schedule passes where they stood: it is seen.

        One that is not seen, as all counters have passed their old values, no reader of counters could tell.
        """
        gpu.reset()
        self.start -= 3 * 10**16  # above 30 steps of 3,700 s, summed over the SMs
        gpu.counters = dict.fromkeys(CYCLE_IDS, self.start)

    def reboot(self) -> None:
        self._flush()  # an orderly one, so that the last reading is in the books
        self.boot = bytes([self.boot[0] + 1]) + self.boot[1:]
        self.t += 90 * SECOND
        self.up_since = self.t - 30 * SECOND
        for gpu, oracle in zip(self.gpus, self.oracles, strict=True):
            self._restart(gpu)
            gpu.run(30 * SECOND, {})
            oracle.base, oracle.first_ns = None, None
            self.leapt[gpu.entity] = False
        self.agent = self._agent(self.sealed[-1].journal)
        self.restarted = set(ENTITIES)

    def _read(self, gpu: Gpu, oracle: Oracle, answer: str, s: dict) -> None:  # type: ignore[type-arg]
        t, unix = self.boot_ns, UNIX0 + self.t
        if answer == "silent":
            return
        if answer == "good":
            oracle.good(t, unix, gpu.counters)
            self.leapt[gpu.entity] = False
            self.unbridged.discard(gpu.entity)
            self.unsealed |= self.restarted & {gpu.entity}
            self.restarted.discard(gpu.entity)
            self.lacking[gpu.entity] = 0
            self.take(gpu.reading(t, unix=unix, workload=s["workload"]))
        elif oracle.first_ns is None:
            return
        elif answer == "partial" and self.lacking[gpu.entity] < MAX_LACKING:
            # So long a missing counter is waited for; after that the others go on without it.
            self.lacking[gpu.entity] += 1
            some = {k: v for k, v in gpu.counters.items() if k != 252}
            self.take(gpu.reading(t, unix=unix, cycles=some))
        elif answer == "glitch" and not self.leapt[gpu.entity]:
            self.leapt[gpu.entity] = True  # a second one that agrees would be believed
            leap = {k: v + 10**17 for k, v in gpu.counters.items()}
            self.take(gpu.reading(t, unix=unix, cycles=leap))
        else:
            self.take(Reading(gpu.entity, t, unix, error=s["error"]))

    def take(self, reading: Reading) -> None:
        self.sealed += self.agent.observe(reading)

    def _seconds(self, count: int) -> None:
        """Quiet ones, in which all answer."""
        for _ in range(count):
            self.live(CALM)

    def end(self) -> None:
        self._seconds(2)
        self._flush(final=True)


@SLOW
@given(schedule=st.lists(step, max_size=30), average=st.booleans())
@example(  # counters restart, and the agent is killed before it has read them
    schedule=[
        CALM | {"then": "reset"},
        CALM | {"answers": ("error", "error"), "error": ERRORS[0], "then": "kill"},
    ],
    average=False,
)
def test_every_cycle_and_every_nanosecond_once(schedule: list, average: bool) -> None:  # type: ignore[type-arg]
    world = World(average=average)
    for s in schedule:
        world.live(s)
    world.end()

    for entity, oracle in zip(ENTITIES, world.oracles, strict=True):
        for key, name in FIELDS.items():
            assert total(world.sealed, name, entity) == oracle.counted[key] * world.multiplier, name
        assert duration(world.sealed, entity) == oracle.passed_ns
    _check_form(world.sealed)


def accepted(s: Sealed) -> None:
    """The collector takes it: both sides mean the same contract."""
    inventory = decode_inventory(encode_inventory(s.inventory))
    assert inventory == s.inventory
    payload = encode_batch(s.batch)
    BatchView(payload).groups([device_bounds(d, 0) for d in inventory.devices])
    assert decode_batch(payload) == s.batch


def _check_form(sealed: list[Sealed]) -> None:
    """What the contract asks of every batch, and lower <= point <= upper of every row."""
    arch = current().arch("9.0", H100)
    assert arch is not None
    end = {}
    for s in sealed:
        b = s.batch
        accepted(s)
        assert end.get(s.boot_id, b.window_start_boot_ns) == b.window_start_boot_ns < b.window_end_boot_ns
        end[s.boot_id] = b.window_end_boot_ns
        keys = [
            (u.entity_index, u.workload_index, u.evidence_class, u.measured, u.gap_reason) for u in b.usage
        ]
        assert len(set(keys)) == len(keys)
    for _, u in rows(sealed):
        assert u.duration_ns > 0
        assert (u.evidence_class is EvidenceClass.GAP) == (u.gap_reason != 0)
        figure = flop(
            Cycles(
                u.evidence_class,
                u.measured,
                u.spread_ppm,
                u.sm_elapsed_cycles,
                u.sm_active_cycles,
                u.hmma_cycles,
                u.imma_cycles,
                u.dmma_cycles,
                u.tensor_other_cycles,
                u.fp64_cycles,
                u.fp32_cycles,
                u.fp16_cycles,
                u.int_cycles,
            ),
            arch,
        )
        assert 0 <= figure.lower <= figure.point <= figure.upper
        if u.evidence_class is EvidenceClass.GAP:
            assert u.measured == Measured(0)
            assert u.sm_elapsed_cycles >= u.duration_ns * SMS * 1980 // 1000
            assert figure.upper > figure.point == 0


def _read_at(spans: list, kept: list[bool], average: bool) -> list[Sealed]:  # type: ignore[type-arg]
    """The same life of a GPU, read at the ends of the spans that are kept; the first and last always are."""
    gpu, agent, sealed = Gpu(average=average), meter(window=7 * SECOND), []
    t = 50 * SECOND
    for i, (ns, active) in enumerate(spans):
        if kept[i] or i in (0, len(spans) - 1):
            sealed += agent.observe(gpu.reading(t))
        t += ns
        gpu.run(ns, active)
    for _ in range(8):
        sealed += agent.observe(gpu.reading(t))
        t += SECOND
        gpu.run(SECOND, {})
    last = agent.flush(final=True)
    return [*sealed, last] if last else sealed


@SLOW
@given(
    spans=st.lists(st.tuples(st.integers(SECOND // 4, 5 * SECOND), shares), min_size=8, max_size=40),
    kept=st.lists(st.booleans(), min_size=40, max_size=40),
    average=st.booleans(),
)
def test_splitting_intervals_changes_nothing(spans: list, kept: list[bool], average: bool) -> None:  # type: ignore[type-arg]
    whole = _read_at(spans, [True] * len(spans), average)
    parts = _read_at(spans, kept, average)
    for name in (*FIELDS.values(), "duration_ns", "energy_mj"):
        assert total(whole, name) == total(parts, name)
    assert not total(whole, "duration_ns", gaps=True)


# ---- a replay that is killed after any window and played again ---------------------------------------

item = st.fixed_dictionaries(
    {
        "ns": st.one_of(
            st.integers(SECOND // 4, 3 * SECOND), st.sampled_from([SECOND, 15 * SECOND, 90 * SECOND])
        ),
        "entity": st.integers(0, 2),
        "percent": st.integers(0, 101),
        "kind": st.sampled_from(["good"] * 10 + ["error", "partial", "glitch", "bare", "unknown"]),
        "workload": st.sampled_from([None, *WORKLOADS]),
        "clock": st.booleans(),
        "event": st.sampled_from([None] * 20 + list(HappeningKind)),
        "early": st.sampled_from([0] * 9 + [2 * SECOND]),
    }
)


def _recording(items: list) -> list[Reading | Happening]:  # type: ignore[type-arg]
    """GPU-0 counts, GPU-1 gives percentages only, GPU-2 utilisation only; entities may be late by seconds."""
    t, wall, boots = 100 * SECOND, UNIX0, 0
    gpu = Gpu()
    last = [0, 0, 0]
    found: list[Reading | Happening] = []
    for i in items:
        t += i["ns"]
        wall += i["ns"]
        gpu.run(i["ns"], {249: 900, 250: 600, 252: 500})
        event = i["event"]
        if event is HappeningKind.REBOOT:
            t, boots, last = 5 * SECOND, boots + 1, [0, 0, 0]
            gpu.reset()
            found.append(Happening(event, t, wall, boot_id=bytes([99, boots]) + BOOT[2:]))
        elif event is HappeningKind.MIG_CHANGE:
            devices = (device(0), device(1), device(2, sm_count=60 + len(found)))
            found.append(Happening(event, t, wall, devices=devices))
        elif event is not None:
            found.append(Happening(event, t, wall, entity="GPU-0"))
        n = i["entity"]
        at = max(last[n] + 1, t - i["early"])
        last[n] = at
        name = "GPU-9" if i["kind"] == "unknown" else f"GPU-{n}"
        clocks = (1700.0,) if i["clock"] else ()
        if i["kind"] == "error":
            found.append(Reading(name, at, wall, error="NVML_ERROR_UNKNOWN"))
        elif n == 0 or i["kind"] == "bare":
            cycles = dict(gpu.counters)
            if i["kind"] == "partial":
                del cycles[250]
            if i["kind"] == "glitch":
                cycles = {k: v + 10**17 for k, v in cycles.items()}
            found.append(
                gpu.reading(
                    at,
                    unix=wall,
                    entity=name,
                    cycles={} if i["kind"] == "bare" else cycles,
                    sm_clock_mhz=clocks,
                    workload=i["workload"],
                )
            )
        else:
            percent = {5: i["percent"], 7: i["percent"] * 0.9} if n == 1 else {}
            found.append(
                Reading(
                    name,
                    at,
                    wall,
                    percent=percent,
                    sm_clock_mhz=clocks,
                    utilization_gpu_pct=50.0,
                    workload=i["workload"],
                )
            )
    return found


# ---- whatever comes ------------------------------------------------------------------------------------

anything = st.one_of(
    st.integers(0, 10**6),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=True),
)
garbage = st.builds(
    Reading,
    entity=st.sampled_from(["GPU-0", "GPU-1", "GPU-9", "", "x" * 300]),
    t_boot_ns=st.one_of(st.integers(0, 10**12), st.integers(0, 2**62)),
    t_unix_ns=st.integers(0, 2**63 - 1),
    cycles=st.dictionaries(st.sampled_from(CYCLE_IDS), anything, max_size=11),
    percent=st.dictionaries(st.integers(0, 20), st.floats(allow_nan=True), max_size=6),
    sm_clock_mhz=st.lists(st.floats(allow_nan=True), max_size=3).map(tuple),
    energy_mj=st.one_of(st.none(), st.integers(-(2**70), 2**70)),
    utilization_gpu_pct=st.one_of(st.none(), st.floats(allow_nan=True)),
    workload=st.one_of(
        st.none(),
        st.builds(
            Workload, st.sampled_from(WorkloadKind), st.text(), st.text(), restart=st.integers(-1, 2**40)
        ),
    ),
    error=st.one_of(st.none(), st.none(), st.text(max_size=5)),
)
odd_devices = st.builds(
    Device,
    entity=st.sampled_from(["GPU-0", "GPU-1", "nonsense"]),
    name=st.one_of(st.just(H100), st.text()),
    compute_capability=st.one_of(st.just("9.0"), st.text()),
    sm_count=st.integers(-1, 5_000),
    max_sm_clock_mhz=st.integers(-1, 10_000),
    serial=st.text(),
)


@SLOW
@given(devices=st.lists(odd_devices, max_size=3), items=st.lists(garbage, max_size=25), source=st.text())
def test_whatever_is_read_the_meter_goes_on_and_the_collector_takes_it(
    devices: list[Device], items: list[Reading], source: str
) -> None:
    agent = meter(facts(*devices, source=source) if devices else None, window=20 * SECOND)
    sealed = []
    for reading in sorted(items, key=lambda r: r.t_boot_ns):
        sealed += agent.observe(reading)
    last = agent.flush(final=True)
    for s in [*sealed, last] if last else sealed:
        span = s.batch.window_end_boot_ns - s.batch.window_start_boot_ns
        if span < 400 * 86_400 * SECOND:
            accepted(s)
        else:
            encode_batch(s.batch)


def _play(items: list[Reading | Happening], journal: bytes | None = None) -> list[Sealed]:
    node = facts(device(0), device(1), device(2), source="trace")
    agent = meter(node, window=20 * SECOND, journal=journal)
    sealed: list[Sealed] = []
    for i in items:
        sealed += agent.observe(i)
    last = agent.flush(final=True)
    return [*sealed, last] if last else sealed


_QUIET: dict[str, object] = {
    "ns": SECOND // 4,
    "entity": 0,
    "percent": 0,
    "kind": "good",
    "workload": None,
    "clock": False,
    "event": None,
    "early": 0,
}


@SLOW
@given(items=st.lists(item, min_size=5, max_size=60))
@example(
    # The end settles a failed read; settled once more from the last journal, nothing may be left to say.
    items=[_QUIET] * 4
    + [_QUIET | {"kind": "error"}, _QUIET | {"entity": 1, "event": HappeningKind.AGENT_START}]
)
@example(
    # What is sealed because an entity became another does not know yet of what changed.
    items=[_QUIET] * 11 + [_QUIET | {"entity": 2}] * 2 + [_QUIET | {"event": HappeningKind.MIG_CHANGE}] * 2
)
def test_a_replay_killed_after_any_window_goes_on_bit_for_bit(items: list) -> None:  # type: ignore[type-arg]
    recording = _recording(items)
    whole = _play(recording)
    for i, s in enumerate(whole):
        rest = _play(recording, s.journal)
        assert [encode_batch(r.batch) for r in rest] == [encode_batch(w.batch) for w in whole[i + 1 :]]
        assert [r.journal for r in rest] == [w.journal for w in whole[i + 1 :]]
        assert [r.boot_id for r in rest] == [w.boot_id for w in whole[i + 1 :]]
