"""A node of the stand-in's GPUs whose driver, GPUs and agent fail in every way, and at the same time, by a seed.

The real binding, source, reader, loop, meter and spool, under virtual time. What the GPUs did is computed here from
what the script was told. Always: no number is negative, no nanosecond and no cycle is booked twice, every nanosecond of a
device that the node lists is cycles or a gap whose reason one of its own faults explains, the truth lies between
what was measured and what the gaps allow, and a GPU that nothing happened to has no gap for what happened to others.
"""

import contextlib
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pytest
from fakenvml.driver import COMPILER, NO_COMPILER, SECOND, Machine
from processes import wait_for

from flopmeter.agent.errors import SourceError
from flopmeter.agent.loop import Loop, LoopSettings
from flopmeter.agent.metering.meter import MeterSettings
from flopmeter.agent.pipeline import Pipeline, PipelineSettings, meter_factory
from flopmeter.agent.reader import Reader
from flopmeter.agent.reading import CYCLE_IDS, Reading
from flopmeter.agent.shipping.journal import load_journal
from flopmeter.agent.shipping.spool import Spool
from flopmeter.agent.sources import nvml_devices
from flopmeter.collector.encode import decode_batch, decode_inventory
from flopmeter.collector.ingest.anchors import AnchorCheck
from flopmeter.collector.ingest.encode import BatchView, device_bounds
from flopmeter.contract.evidence_class import EvidenceClass
from flopmeter.contract.record import parse_record
from flopmeter.contract.usage import GapReason, Measured, Usage

pytestmark = pytest.mark.skipif(COMPILER is None, reason=NO_COMPILER)

MHZ = 1500
SICK_S, WELL_S = 300, 260  # GPUs that were lost are looked for ever less often
#: Counters as of a node that has been up for weeks. After each reset they begin lower, or the reset could be in no counter.
UPTIME, LOWER = 8 * 10**15, 3 * 10**14

QUIET, COUNTS, SAMPLED, CUT, OLD, LATE = range(6)
SHARES = {QUIET: 0.45, COUNTS: 0.3, SAMPLED: 0.0, OLD: 0.6, LATE: 0.25}
#: What is metered by averages must not be steady, or an average over another time would do as well: (ms, permille).
BEAT = ((700, 900), (1_100, 50))
SMS = {QUIET: 132, COUNTS: 132, SAMPLED: 132, OLD: 108, LATE: 132}
ONE, FIVE = Machine.mig_uuid(CUT, 1), Machine.mig_uuid(CUT, 5)
#: Which reason a fault may leave, of the device that it is done to; what cycle counters bridge leaves none.
LEAVES = {
    "hang": {
        GapReason.READ_HUNG,
        GapReason.READ_FAILED,
    },  # and what is read beside a call that comes back late
    "lost": {GapReason.LOST, GapReason.RESET},
    "restart": {GapReason.RESET},
    "fails": {GapReason.READ_FAILED, GapReason.REFUSED, GapReason.RESET},
    "doubt": {GapReason.REFUSED},
    # REFUSED: of another model, and gone again before its scale was known.
    "made-anew": {GapReason.RESET, GapReason.LOST, GapReason.REFUSED, GapReason.READ_FAILED},
    "reload": {GapReason.RESET, GapReason.READ_FAILED, GapReason.LOST},
    "kill": {GapReason.AGENT_DOWN, GapReason.LOST},
}


class Patient(Reader):
    """Leaves behind a call that hangs in the driver, at once, and none that only this machine is slow with."""

    def _outcome(self, done):  # type: ignore[no-untyped-def]
        while True:
            try:
                return done.get(timeout=0.01)
            except queue.Empty:
                with self._lock:
                    if self._call is not None and self._clock.hangs(self._hand.native_id):
                        self._leave(self._call)
                        return None


def _patient_finds(m: Machine) -> type[Future]:
    """The same for the look at each GPU when NVML starts."""

    def hanging() -> set[int | None]:
        looking = [t for t in threading.enumerate() if t.name.startswith("nvml-gpu-")]
        return {t.native_id for t in looking if m.hangs(t.native_id)}

    class Patiently(Future):
        def __init__(self) -> None:
            super().__init__()
            self.left = hanging()

        def result(self, timeout=None):  # type: ignore[no-untyped-def]
            while not self.done():
                with contextlib.suppress(TimeoutError):
                    super().result(0.01)
                if not self.done() and hanging() - self.left:
                    raise TimeoutError
            return super().result()

    return Patiently


class Killed(BaseException):
    """kill -9."""


@dataclass
class Truth:
    """What a device has, since when; and when it was on the agent's list."""

    share: float
    sms: list[tuple[int, int]]  # (since boot ns, SMs)
    first: int = -1  # the first reading that the books can know of
    last: int = -1
    unlisted: list[tuple[int, int]] = field(default_factory=list)
    suffered: set[str] = field(default_factory=set)

    def elapsed(self, since: int, until: int) -> int:
        """SM-cycles."""
        ends = [at for at, _ in self.sms[1:]] + [until]
        spans = (
            (max(at, since), min(end, until), sms) for (at, sms), end in zip(self.sms, ends, strict=True)
        )
        return sum(max(0, end - at) * sms for at, end, sms in spans) * MHZ // 1000

    def hmma(self) -> float:
        """SM-cycles, from the first reading to the last."""
        if self.share:
            return self.elapsed(self.first, self.last) * self.share
        (at, sms), *_ = self.sms
        beat = [permille for ms, permille in BEAT for _ in range(ms)]
        ms = range((self.first - at) // 1_000_000, (self.last - at) // 1_000_000)
        return sum(beat[i % len(beat)] for i in ms) * MHZ * sms

    def not_listed(self) -> list[tuple[int, int]]:
        """In order, none twice."""
        joined: list[tuple[int, int]] = []
        for at, end in sorted(self.unlisted):
            at, end = max(at, self.first), min(end, self.last)  # noqa: PLW2901
            if joined and at <= joined[-1][1]:
                joined[-1] = joined[-1][0], max(end, joined[-1][1])
            elif end > at:
                joined.append((at, end))
        return joined


class Node:
    def __init__(self, m: Machine, folder: Path, seed: int) -> None:
        self.m, self.folder, self.rng = m, folder, Random(seed)
        self.resets = self.ticks = self.reloads = 0
        self.over: list[tuple[int, Callable[[], None]]] = []  # (tick, what ends a fault)
        self.busy: set[str] = set()  # GPUs that have a fault under way
        self.hung = folder / "hang"
        self.listed: set[str] = set()
        self.sealed_listed: set[str] = set()
        self.sealed_ns = self.looked_ns = m.boot_ns()
        self.scale = self.rng.choice(["sum", "average"])
        for i in range(LATE + 1):  # in this order they have their numbers
            m.say(f"gpu g{i} pci={_pci(i)}")
        for i, share in SHARES.items():
            old = "name=NVIDIA_A100-SXM4-40GB cc=8.0 sms=108 gpm=0" if i == OLD else ""
            m.say(f"gpu g{i} {old} scale={self.scale} clock={MHZ} hmma={share} power=300000")
        beat = ",".join(f"{permille / 1000}:{ms / 1000}" for ms, permille in BEAT)
        m.say(f"gpu g{SAMPLED} cycles=0 hmma={beat}")
        m.say(f"gpu g{CUT} scale={self.scale} clock={MHZ} power=300000")
        self.gi(1, 32, 0.5)
        self.gi(5, 60, 0.4)
        m.say(f"node order={','.join(f'g{i}' for i in range(LATE))}")
        for i in range(LATE + 1):
            self.count_from(f"gpu g{i}")
            self.show(i) if i != LATE else None
        now = m.boot_ns()
        self.truth = {m.uuid(i): Truth(SHARES[i], [(now, SMS[i])]) for i in SHARES}
        self.truth |= {m.uuid(CUT): Truth(1, [(now, 0)])}
        self.truth |= {ONE: Truth(0.5, [(now, 32)]), FIVE: Truth(0.4, [(now, 60)])}

    # ---- what is done to it ----

    def gi(self, number: int, sms: int, share: float) -> None:
        self.m.say(f"gi g{CUT} {number} sms={sms} start={number - 1} size={sms // 16} hmma={share}")
        self.count_from(f"gi g{CUT} {number}")

    def count_from(self, who: str) -> None:
        self.resets += 1
        at = UPTIME - self.resets * LOWER // 4
        self.m.say(f"{who} " + " ".join(f"add.{i}={at}" for i in CYCLE_IDS))

    def show(self, i: int) -> None:
        folder = self.m.sysfs / "bus" / "pci" / "devices" / _pci(i)[4:]
        folder.mkdir(parents=True)
        for name, value in (("vendor", "10de"), ("device", "2330"), ("class", "030200")):
            (folder / name).write_text(f"0x{value}\n")
        (folder / "driver").symlink_to("../../../../bus/pci/drivers/nvidia")

    def later(self, seconds: tuple[int, int], *steps: Callable[[], None]) -> None:
        end = self.ticks + self.rng.randint(*seconds)
        self.over += [(end, step) for step in steps]

    def suffers(self, i: int, fault: str) -> None:
        for each in [self.m.uuid(i), *([ONE, FIVE] if i == CUT else [])]:
            self.truth[each].suffered.add(fault)

    def fault(self) -> None:
        """One more, to whatever else is under way."""
        kinds = [
            self.hang, self.hang, self.lost, self.lost, self.restart, self.falls, self.fails, self.fails, self.fails,
            self.made_anew, self.made_anew, self.reload, self.renumber, self.step, self.card_comes, self.kill,
        ]  # fmt: skip
        self.rng.choice(kinds)()

    def free(self, *allowed: int) -> int | None:
        free = [i for i in allowed if f"g{i}" not in self.busy]
        if not free:
            return None
        i = self.rng.choice(free)
        self.busy.add(f"g{i}")
        return i

    def well(self, i: int) -> Callable[[], None]:
        return lambda: self.busy.discard(f"g{i}")

    def hang(self) -> None:
        """One GPU at a time: a round waits for two, and lets the others pass."""
        if self.hung.exists() or (i := self.free(COUNTS, SAMPLED, CUT, OLD)) is None:
            return
        what = self.rng.choice(["*", "nvmlGpmSampleGet", "nvmlDeviceGetPowerUsage", "nvmlDeviceGetMigMode"])
        for truth in self.truth.values():  # where NVML must be started anew meanwhile, all wait for the one
            truth.suffered.add("hang")
        self.hung.touch()
        self.m.say(f"gpu g{i} hang.{what}={self.hung}")
        self.later((1, 25), lambda: self.m.say(f"gpu g{i} hang.{what}="), self.hung.unlink, self.well(i))

    def lost(self) -> None:
        if (i := self.free(COUNTS, SAMPLED, CUT, OLD)) is None:
            return
        how = self.rng.choice(["lost", "reset"])
        self.suffers(i, "lost")
        self.m.say(f"gpu g{i} state={how}")

        def back() -> None:
            self.m.say(f"gpu g{i} state=ok reset")
            self.count_again(i)

        self.later((1, 40), back, self.well(i))

    def count_again(self, i: int) -> None:
        self.count_from(f"gpu g{i}")
        if i == CUT:
            for number in (1, 5):
                if self.truth[{1: ONE, 5: FIVE}[number]].sms[-1][1]:
                    self.count_from(f"gi g{CUT} {number}")

    def restart(self) -> None:
        """Counters begin anew, and nothing says so."""
        if (i := self.free(COUNTS, SAMPLED, CUT)) is not None:
            self.suffers(i, "restart")
            self.m.say(f"gpu g{i} reset")
            self.count_again(i)
            self.well(i)()

    def falls(self) -> None:
        if (i := self.free(COUNTS)) is not None:
            self.suffers(i, "restart")
            self.m.say(f"gpu g{i} add.{self.rng.choice(CYCLE_IDS)}=-{LOWER // 8}")
            self.well(i)()

    def fails(self) -> None:
        """A value that is none, or a function that fails."""
        if (i := self.free(COUNTS, SAMPLED, OLD)) is None:
            return
        what = self.rng.choice([
            *(f"value.{n}={x}" for n in (5, 7, 248, 252) for x in ("nan", "-3", "250", "140737488355328")),
            *(f"err.{n}={code}" for n in (5, 7, 248, 252, "*") for code in (3, 21, 999)),
            "value.248=5e17", "value.energy=1", "value.energy=18446744073709551615",
            *(f"fail.{f}={code}" for f in FUNCTIONS for code in (3, 4, 999)),
        ])  # fmt: skip
        self.suffers(i, "fails")
        if i == COUNTS:  # k is of the model: in doubt, it bridges nothing of the others either
            self.suffers(QUIET, "doubt")
            self.suffers(LATE, "doubt")
        self.m.say(f"gpu g{i} {what}")
        self.later((1, 20), lambda: self.m.say(f"gpu g{i} {what.partition('=')[0]}="), self.well(i))

    def made_anew(self) -> None:
        if (i := self.free(CUT)) is None:
            return
        self.truth[FIVE].suffered.add("made-anew")
        self.m.say(f"gi g{CUT} 5 remove")
        self.truth[FIVE].sms.append((self.m.boot_ns(), 0))
        sms = self.rng.choice([16, 32, 60])

        def again() -> None:
            self.gi(5, sms, 0.4)
            self.truth[FIVE].sms.append((self.m.boot_ns(), sms))

        if self.rng.random() < 0.5:
            again()
            self.well(i)()
        else:
            self.later((1, 30), again, self.well(i))

    def reload(self) -> None:
        """The driver, under the agent. Nothing else is wrong meanwhile: what is, would stay so."""
        if self.busy:
            return
        for i in range(LATE + 1):
            self.suffers(i, "reload")
            self.busy.add(f"g{i}")
        self.reloads += 1
        self.m.say("node reload init=9")
        for i in range(LATE + 1):
            self.m.say(f"gpu g{i} fail.*=18")
            self.count_again(i)
        steps = [lambda i=i: self.m.say(f"gpu g{i} fail.*=") for i in range(LATE + 1)]
        self.later((1, 12), *steps, lambda: self.m.say("node init=0"), self.busy.clear)

    def renumber(self) -> None:
        """Seen at the next start of NVML, whatever it is for."""
        names = [f"g{i}" for i in range(LATE + (self.m.uuid(LATE) in self.listed))]
        self.rng.shuffle(names)
        self.m.say(f"node order={','.join(names)}")

    def step(self) -> None:
        self.m.step_wall_clock(self.rng.choice([-3600, -2, 2, 5, 86_400]) * SECOND)

    def card_comes(self) -> None:
        if not (self.m.sysfs / "bus" / "pci" / "devices" / _pci(LATE)[4:]).exists():
            self.m.say(f"node order={','.join(f'g{i}' for i in range(LATE + 1))}")
            self.show(LATE)

    def kill(self) -> None:
        """Not while a call hangs: here its thread would outlive the process."""
        if not self.hung.exists() and not self.reader.stuck:
            for truth in self.truth.values():
                truth.suffered.add("kill")
            raise Killed

    # ---- its life ----

    def live(self) -> None:
        while True:
            try:
                source = self.m.source()
            except SourceError:  # the driver is away; whoever runs the agent starts it again
                with contextlib.suppress(Killed):
                    self.wait(1)
                continue
            self.reader = Patient(source, self.m, deadline_s=60)
            facts = self.reader.facts()
            pipeline = Pipeline.open(
                facts,
                meter_factory(MeterSettings(window_ns=10 * SECOND), agent_version="0.1.0"),
                PipelineSettings(state=self.folder / "state"),
                agent_version="0.1.0",
            )
            self.pipeline = pipeline
            pipeline.on_durable = self.durable
            self.look({d.entity for d in facts.devices})
            loop = Loop(self.reader, pipeline, self.m, LoopSettings(stop_timeout_s=0), on_tick=self.ticked)
            try:
                loop.run()
            except Killed:
                source.close()
                lived = self.listed & self.sealed_listed
                self.m.advance(self.rng.choice([0, 1, 7]) * SECOND // 2)
                for entity, truth in self.truth.items():
                    if entity not in lived:  # the journal knows nothing of it
                        truth.unlisted.append((self.sealed_ns, self.m.boot_ns() + 2 * SECOND))
                self.looked_ns = self.sealed_ns
            else:
                return

    def durable(self, windows) -> None:  # type: ignore[no-untyped-def]
        self.sealed_ns = windows[-1].batch.window_end_boot_ns
        self.sealed_listed = {d.entity for d in load_journal(windows[-1].journal).devices}

    def ticked(self, readings: list[Reading]) -> None:
        for reading in readings:
            truth = self.truth[reading.entity]
            if truth.first < 0:
                truth.first = reading.t_boot_ns
            truth.last = reading.t_boot_ns
        self.look({reading.entity for reading in readings})

    def look(self, listed: set[str]) -> None:
        """Between two looks at which a device was not on the list both times, it was in nobody's time."""
        now = self.m.boot_ns()
        for entity, truth in self.truth.items():
            if entity not in listed or entity not in self.listed:
                truth.unlisted.append((self.looked_ns - 2 * SECOND, now))
        self.listed, self.looked_ns = listed, now

    def wait(self, seconds: float) -> bool:
        self.m.advance(round(seconds * SECOND))
        if seconds < 0.2:  # between two GPM samples
            return False
        self.ticks += 1
        for each in [each for each in self.over if each[0] <= self.ticks]:
            self.over.remove(each)
            each[1]()
            if not self.hung.exists():
                wait_for("the hung call has come back", lambda: not self.reader.stuck)
        if 25 <= self.ticks < 25 + SICK_S and self.rng.random() < 0.2:
            self.fault()
        return self.ticks >= 25 + SICK_S + WELL_S


FUNCTIONS = (
    "nvmlGpmSampleGet", "nvmlGpmMetricsGet", "nvmlDeviceGetTotalEnergyConsumption", "nvmlDeviceGetPowerUsage",
    "nvmlDeviceGetUtilizationRates", "nvmlDeviceGetSamples", "nvmlDeviceGetComputeRunningProcesses_v3",
)  # fmt: skip


def _pci(i: int) -> str:
    return f"00000000:{0x10 + i:02X}:00.0"


def _books(state: Path) -> dict[str, list[Usage]]:
    """By device; each batch is such that the collector takes it, and no anchor contradicts the usage."""
    found: dict[str, list[Usage]] = {}
    check = AnchorCheck()
    spool = Spool.open(state / "spool")
    for entry in spool.entries(1):
        record = parse_record(entry.record)
        batch, inventory = (
            decode_batch(record.payload),
            decode_inventory(spool.inventory(entry.inventory_digest)),
        )
        BatchView(record.payload).groups([device_bounds(d, 0) for d in inventory.devices])
        assert check.take(0, entry.boot_id, batch, inventory) is None
        for usage in batch.usage:
            found.setdefault(inventory.devices[usage.entity_index].entity, []).append(usage)
    spool.close()
    return found


@pytest.mark.parametrize("seed", [1, 3, 20, 52, 62])  # that found something, once
def test_whatever_fails_at_once_the_books_hold_all_of_it_once(tmp_path, seed, monkeypatch):
    with ExitStack() as stack:
        m = stack.enter_context(Machine(tmp_path))
        monkeypatch.setattr(nvml_devices, "Future", _patient_finds(m))
        node = Node(m, tmp_path, seed)
        m.wait = node.wait
        node.live()
    books = _books(tmp_path / "state")
    assert node.listed >= {m.uuid(i) for i in range(LATE)} | {ONE, FIVE}, "all are back"
    for entity, truth in node.truth.items():
        rows = books.get(entity, [])
        if truth.first < 0:
            assert not rows
            continue
        unlisted = truth.not_listed()
        short = truth.last - truth.first - sum(u.duration_ns for u in rows)
        assert 0 <= short <= sum(end - at for at, end in unlisted), entity
        assert all(
            v >= 0 for u in rows for v in (u.duration_ns, u.sm_elapsed_cycles, u.hmma_cycles, u.energy_mj)
        )
        told = [u for u in rows if u.evidence_class not in (EvidenceClass.GAP, EvidenceClass.C)]
        hmma = sum(u.hmma_cycles for u in told if Measured.HMMA in u.measured)
        vague = sum(u.sm_elapsed_cycles for u in rows if u not in told or Measured.HMMA not in u.measured)
        vague += sum(truth.elapsed(at, end) for at, end in unlisted)
        true = truth.hmma()
        assert hmma <= true * 1.000_001 + 1_000, entity
        assert true <= hmma * 1.000_001 + vague + 1_000, entity
        assert sum(u.energy_mj for u in rows) <= 300 * (truth.last - truth.first) / 1e6 + 1_000, entity
        reasons = {u.gap_reason for u in rows} - {GapReason.NONE}
        assert reasons <= set().union(*(LEAVES[fault] for fault in truth.suffered)), entity
    quiet = [u for u in books[m.uuid(QUIET)] if u.gap_reason]
    assert {u.gap_reason for u in quiet} <= (
        LEAVES["reload"] | LEAVES["doubt"] if node.reloads else LEAVES["doubt"]
    )
    assert sum(u.duration_ns for u in quiet) <= (node.reloads + 1) * 60 * SECOND
