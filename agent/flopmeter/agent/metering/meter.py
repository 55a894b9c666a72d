"""The meter: readings in, sealed windows out. A pure state machine: no I/O, no clock of its own.

An entity's time is accounted exactly once: as cycles, or as a gap. With cycle counters an interval runs from
one good reading to the next, across failed reads, restarts of the agent and suspends, and belongs to the
window in which it ends. Without them every reading, good or failed, ends an interval, and silence becomes
a gap when the window closes. docs/metering.md and ARCHITECTURE.md tell the story; tests/invariants proves it.

Good readings wait for each other and are metered several ticks at a time, since what a tick a second costs is mostly
that the processor's caches have gone cold. Who held the entity is asked at once; all else is as if none had waited, and
none waits longer than its window is open.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from flopmeter.agent.reading import Happening, HappeningKind, NodeFacts, Reading
from flopmeter.agent.shipping.encode import encode_inventory, inventory_digest
from flopmeter.agent.shipping.journal import Journal, JournalError, dump_journal, load_journal, new_journal
from flopmeter.agent.workloads.attribution import Attributor
from flopmeter.agent.workloads.known import alike
from flopmeter.agent.workloads.processes import WorkloadFinder
from flopmeter.contract.limits import ANCHOR_PERIOD_NS, DEFAULT_TICK_NS, DEFAULT_WINDOW_NS
from flopmeter.contract.usage import (
    IDLE,
    UNATTRIBUTED,
    Batch,
    GapReason,
    Inventory,
    NoticeKind,
    Workload,
)
from flopmeter.contract.w_table import WTable, current

from .crosscheck import library_details
from .entity import describe
from .intake import Held, Intake
from .inventory import inventory_of
from .track import Track, dump_track, load_track
from .window import Window

#: An interval longer than this many ticks is not what was asked for (reference/metering.md 6.1).
LONG_TICKS = 10
#: The wall clock moving against the boot clock by more than this between two items is a step.
CLOCK_STEP_NS = 1_000_000_000
_MAX_UNIX_NS = (1 << 63) - 1
#: So many readings of each entity wait for each other. Of 8 most of the gain is had (tests/bench/bench_tick.py).
WAITING_TICKS = 8


@dataclass(frozen=True, slots=True)
class MeterSettings:
    """`tick_ns` is the usual time between readings; without counters ten of it without one are a gap."""

    window_ns: int = DEFAULT_WINDOW_NS
    tick_ns: int = DEFAULT_TICK_NS


@dataclass(frozen=True, slots=True)
class Sealed:
    """A closed window: what is signed, what it refers to, and the state to go on from."""

    batch: Batch
    inventory: Inventory
    journal: bytes  # for the spool, beside the record; `Meter(journal=…)` goes on from here
    boot_id: bytes  # of the window: a recording may run over reboots
    told: tuple[str, ...] = ()  # names of remarks that it or one before tells of, until `forget_told`


class Meter:
    """Meters one node. `facts` as the source tells them, `journal` of the last sealed window if there is one.

    `replay` (default: whether the facts say trace, which a recording of dcgm does not): the items come again
    from the beginning, so that a meter made from a journal ignores what is sealed already and then goes on
    exactly as if never stopped.
    Otherwise a journal means that the agent was down meanwhile. A journal that cannot be read is said in a
    notice, and metering starts anew. `because` says why nobody metered since the journal. `attributor` (default:
    one by `finder` alone) outlives the meter, where another goes on from the journal.
    """

    def __init__(
        self,
        facts: NodeFacts,
        settings: MeterSettings,
        *,
        agent_version: str,
        journal: bytes | None = None,
        table: WTable | None = None,
        finder: WorkloadFinder | None = None,
        attributor: Attributor | None = None,
        replay: bool | None = None,
        because: GapReason = GapReason.AGENT_DOWN,
    ) -> None:
        self._facts = facts
        self._settings = settings
        self._version = agent_version
        self._table = table or current()
        self._long_ns = LONG_TICKS * settings.tick_ns
        self._replay = facts.source == "trace" if replay is None else replay
        self._inventory: tuple[Inventory, bytes] | None = None
        self._unplaced: list[tuple[NoticeKind, str, str, str]] = []  # notices before the first time is known
        self._window_end = 0
        self._loaded_happened_ns = -1  # happenings up to here were taken before a restart
        self._skipping = False  # a replay is still in a boot before the journal's
        self._down = GapReason.NONE  # nobody metered until the next item
        # What lies in the open window and is not metered yet, in order: a good reading and who held its entity, or
        # None and how far time has come (boot, wall).
        self._waiting: list[tuple[Reading, Held] | tuple[None, tuple[int, int]]] = []
        self._j = new_journal(facts)
        attributor = attributor or Attributor(finder)
        self._in = Intake(self._j, self._table, facts.source, attributor, self._long_ns)
        for said in library_details(facts.library, facts.driver):
            self.note(NoticeKind.CROSS_CHECK, said)
        if journal:
            try:
                self._load(load_journal(journal), because)
                return
            except JournalError as e:
                self.note(NoticeKind.SPOOL_TORN, f"{e}; metering starts anew")
        self._take_devices()

    # ---- what the agent calls ------------------------------------------------------------------

    @property
    def boot_id(self) -> bytes:
        return self._j.boot_id

    def observe(self, item: Reading | Happening) -> list[Sealed]:
        """Close every window that ended at or before the item's time, then take the item.

        Items of one entity come in order of time. One that the journal says was taken already is ignored.
        """
        if isinstance(item, Happening):
            self._meter_waiting()
            return self._happen(item)
        track = self._in.tracks.get(item.entity)
        if track is None or not self._may_wait(track, item):
            self._meter_waiting()
            return self._take(item)
        track.waits_ns = item.t_boot_ns
        self._waiting.append((item, self._in.attribute(item)))  # now: later another may hold it
        if len(self._waiting) >= WAITING_TICKS * (len(self._in.tracks) + 1):
            self._meter_waiting()
        return []

    def advance(self, t_boot_ns: int, t_unix_ns: int) -> list[Sealed]:
        """Time passes without a reading: windows close; entities silent without counters get gaps."""
        if self._waiting and t_boot_ns < self._window_end:
            self._waiting.append((None, (t_boot_ns, t_unix_ns)))
            return []
        self._meter_waiting()
        if self._skipping or t_boot_ns < self._j.now_ns:
            return []
        sealed = self._roll(t_boot_ns) if t_boot_ns >= self._window_end else []
        self._pass(t_boot_ns, t_unix_ns)
        return sealed

    def flush(self, *, final: bool = False) -> Sealed | None:
        """Seal what there is up to the last item, with raw counters; None if there is nothing new.

        At a clean stop, intervals that counters hold open stay open in the journal: the next start bridges
        them. `final`: there is no next start (a recording is at its end), so they become gaps, and what is
        held back for want of a scale is priced.
        """
        self._meter_waiting()
        j = self._j
        if j.now_ns < 0 or self._skipping:
            return None
        tracks = self._in.tracks.values()
        if final:
            for track in tracks:
                self._in.settle(track)
        if not self._in.window:
            return None
        for track in tracks:
            self._in.anchor(track)
        return self._seal(max(j.now_ns, j.batch_start_ns + 1))

    def refacts(self, facts: NodeFacts) -> list[Sealed]:
        """Devices, or the driver, changed within one boot. Returns a window that a device which became another closes."""
        self._meter_waiting()
        if facts.driver != self._j.driver:
            self._reload_driver(f"driver {self._j.driver} became {facts.driver}")
        known = library_details(self._facts.library, self._facts.driver)
        for said in library_details(facts.library, facts.driver, self._facts.library):
            if said not in known:
                self.note(NoticeKind.CROSS_CHECK, said)
        self._facts = facts
        self._j.driver, self._j.nvml = facts.driver, facts.nvml
        return self._take_devices()

    def skip_to(self, boot_id: bytes, t_boot_ns: int, now_ns: int, *, reanchored: bool = False) -> bool:
        """Usage up to `t_boot_ns` is in the books already: drop it here, go on from there with a gap.

        False if that cannot be, as it is only `now_ns`; a replay comes from behind, and may skip ahead.
        """
        self._meter_waiting()
        j = self._j
        if boot_id != j.boot_id:
            return True
        if t_boot_ns <= j.batch_start_ns:
            if reanchored:  # else the books hold just what this meter sealed
                self._in.skip_reaching(t_boot_ns)
            return True
        if t_boot_ns > now_ns and not self._replay:
            return False
        self._in.skip_to(t_boot_ns)
        j.batch_start_ns = j.resume_ns = t_boot_ns
        j.batch_start_unix_ns = t_boot_ns + j.offset_ns
        self._window_end = self._end_after(t_boot_ns)
        return True

    def holders(self) -> dict[str, set[Workload]]:
        """Who held each entity since the journal, as far as the open window tells."""
        self._meter_waiting()
        describe = self._in.describe
        return {entity: {describe(w) for w in held} for entity, held in self._in.holders().items()}

    def bridge(self, because: GapReason, holders: Mapping[str, Collection[Workload]]) -> None:
        """Just made from a journal: the time since was metered, but `because` of something not kept.

        Where an entity's `holders` in that time were not one workload, the time is nobody's.
        """
        if self._down:
            self._down = because
        for entity, held in holders.items():
            track = self._in.tracks.get(entity)
            if track is None:
                continue
            known = {IDLE, UNATTRIBUTED} if track.workload is None else {track.workload, *track.sharers}
            known = {self._in.describe(w) for w in known}
            # What was learned of a workload meanwhile makes it no other one.
            if not all(any(alike(one, self._in.describe(w)) for one in known) for w in held):
                track.workload, track.sharers = UNATTRIBUTED, ()

    def note(self, kind: NoticeKind, detail: str = "", *, entity: str = "", name: str = "") -> None:
        """Something the books should explain, for the next batch, at the time of the last item.

        With a `name` the journal says that it was told, until `forget_told`.
        """
        self._meter_waiting()
        if self._j.now_ns < 0:
            self._unplaced.append((kind, entity, detail, name))
        else:
            self._tell(kind, entity, detail, name)

    def forget_told(self, names: Iterable[str]) -> None:
        """Nobody will ask any more whether these were told."""
        gone = set(names)
        self._j.told = [name for name in self._j.told if name not in gone]

    def _tell(self, kind: NoticeKind, entity: str, detail: str, name: str) -> None:
        self._in.say(kind, entity, detail)
        if name and name not in self._j.told:
            self._j.told.append(name)

    # ---- readings ------------------------------------------------------------------------------

    def _may_wait(self, track: Track, reading: Reading) -> bool:
        """A good reading in its place, of the open window."""
        t = reading.t_boot_ns
        if reading.error is not None or self._skipping:
            return False
        return max(track.loaded_ns, track.seen_ns, track.waits_ns) < t < self._window_end

    def _meter_waiting(self) -> None:
        """Meter what waits. It closes no window: all of it lies in the one that is open."""
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            if each[0] is not None:
                self._take(*each)
            elif each[1][0] >= self._j.now_ns:
                self._pass(*each[1])

    def _take(self, reading: Reading, held: Held | None = None) -> list[Sealed]:
        """Meter one reading. `held`: who held its entity then, where that was asked already."""
        t = reading.t_boot_ns
        track = self._in.tracks.get(reading.entity)
        if self._skipping or t <= (self._j.resume_ns if track is None else track.loaded_ns):
            self._down = GapReason.NONE  # time comes again: a replay, in which nobody was down
            return []
        sealed = self._roll(t) if t >= self._window_end else []
        self._pass(t, reading.t_unix_ns)
        if track is None:
            said = f"{reading.entity[:80]!r} is not in the inventory"
            self._in.say(NoticeKind.READING_REFUSED, "", said)
        elif t <= track.seen_ns:
            said = f"reading at {t} ns came after one at {track.seen_ns} ns"
            self._in.say(NoticeKind.READING_REFUSED, reading.entity, said)
        elif reading.error is not None:
            self._in.failed(track, t, reading.error)
        else:
            self._in.good(track, reading, *(held or self._in.attribute(reading)))
        return sealed

    # ---- time and windows ----------------------------------------------------------------------

    def _end_after(self, t: int) -> int:
        length = self._settings.window_ns
        return (t // length + 1) * length

    def _pass(self, t: int, unix: int) -> None:
        """Time has come to `t`: notice holes in it, and steps of the wall clock."""
        j = self._j
        offset = unix - t
        if j.now_ns < 0:
            j.now_ns, j.offset_ns = t, offset
            if j.batch_start_ns < 0:
                j.batch_start_ns, j.batch_start_unix_ns = t, unix
                if not j.past_boots:
                    j.began_ns = t
            self._window_end = self._end_after(max(t, j.batch_start_ns))
            for track in self._in.tracks.values():
                if track.born_ns < 0:
                    track.born_ns = t
        elif abs(offset - j.offset_ns) > CLOCK_STEP_NS:
            said = f"wall clock stepped by {offset - j.offset_ns} ns"
            self._in.say(NoticeKind.CLOCK_STEPPED, "", said)
        if self._down:
            j.hole_end_ns, j.hole_reason = t, self._down
            self._down = GapReason.NONE
        elif t - j.now_ns > self._long_ns:
            j.hole_end_ns, j.hole_reason = t, GapReason.SUSPENDED
        j.offset_ns = offset
        j.now_ns = max(j.now_ns, t)
        if self._unplaced:
            for unplaced in self._unplaced:
                self._tell(*unplaced)
            self._unplaced.clear()

    def _roll(self, t: int) -> list[Sealed]:
        """Close windows that ended at or before `t`. Long stretches of nothing are skipped, not sealed."""
        sealed: list[Sealed] = []
        j = self._j
        while j.now_ns >= 0 and t >= self._window_end:
            end = self._window_end
            awake = end - j.now_ns <= self._long_ns
            tracks = self._in.tracks.values()
            if awake:
                for track in tracks:
                    self._in.silent(track, end)
            if self._in.window:
                for track in tracks:
                    if track.base and track.base.t_boot_ns - track.anchored_ns >= ANCHOR_PERIOD_NS:
                        self._in.anchor(track)
                sealed.append(self._seal(end))
            self._window_end = self._end_after(end if awake else t)
        return sealed

    def _seal(self, end: int) -> Sealed:
        """The open window becomes a batch that ends at `end`; the journal is the state right after."""
        j, window = self._j, self._in.window
        inventory, digest, index = self._inventory_for(window.entities())
        workloads, usage = window.usage(index, self._in.describe)
        progress, unclaimed = self._in.progress(window.places)
        end_unix = end + j.offset_ns
        window.say_left_out(unclaimed, end, wall(end_unix))
        batch = Batch(
            agent_version=self._version,
            inventory_digest=digest,
            window_start_boot_ns=j.batch_start_ns,
            window_end_boot_ns=end,
            window_start_unix_ns=wall(j.batch_start_unix_ns),
            window_end_unix_ns=wall(end_unix),
            workloads=workloads,
            usage=usage,
            anchors=window.anchors(index),
            notices=window.notices(index),
            progress=progress,
        )
        self._in.window = Window()
        self._in.gone.clear()
        self._in.sealed()
        # A reading at an aligned end belongs to the window after; one at the end of a flush to this one.
        j.resume_ns = end - 1 if end > j.now_ns else end
        j.batch_start_ns, j.batch_start_unix_ns = end, end_unix
        j.tracks = {entity: dump_track(t) for entity, t in self._in.tracks.items()}
        return Sealed(batch, inventory, dump_journal(j), j.boot_id, tuple(j.told))

    def _inventory_for(self, named: set[str]) -> tuple[Inventory, bytes, dict[str, int]]:
        """The inventory that a batch refers to: the devices there are, and those that left in the window."""
        j = self._j
        devices = (*j.devices, *(d for e, d in self._in.gone.items() if e in named))
        inventory = inventory_of(self._facts, j.driver, j.nvml, devices)
        if self._inventory is None or self._inventory[0] != inventory:
            self._inventory = inventory, inventory_digest(encode_inventory(inventory))
        return *self._inventory, {d.entity: i for i, d in enumerate(devices)}

    # ---- the node changes ----------------------------------------------------------------------

    def _happen(self, item: Happening) -> list[Sealed]:
        j = self._j
        if item.kind is HappeningKind.REBOOT:
            return self._happen_reboot(item)
        t = item.t_boot_ns
        if self._skipping or t <= self._loaded_happened_ns:
            return []
        sealed = self._roll(t) if t >= self._window_end else []
        self._pass(t, item.t_unix_ns)
        said = "reported by the source"
        if item.kind is HappeningKind.GPU_RESET:
            tracks = self._in.tracks
            self._in.say(NoticeKind.GPU_RESET, item.entity if item.entity in tracks else "", said)
            for name, track in tracks.items():
                if item.entity in ("", name):
                    track.forget_base(GapReason.RESET)
        elif item.kind is HappeningKind.DRIVER_RELOAD:
            self._reload_driver(said)
        elif item.kind is HappeningKind.MIG_CHANGE:
            self._facts = replace(self._facts, devices=item.devices)
            sealed += self._take_devices()
        elif item.kind is HappeningKind.AGENT_STOP:
            self._in.say(NoticeKind.AGENT_STOPPED, "", said)
        elif item.kind is HappeningKind.AGENT_START:
            self._in.say(NoticeKind.AGENT_STARTED, "", said)
            j.hole_end_ns, j.hole_reason = t, GapReason.AGENT_DOWN
        j.happened_ns = max(j.happened_ns, t)  # not before: what a change seals does not know of it yet
        return sealed

    def _happen_reboot(self, item: Happening) -> list[Sealed]:
        j = self._j
        if item.boot_id == j.boot_id or item.boot_id in j.past_boots:
            # Played again: the boot that the journal is in, or one that lies behind.
            self._skipping = self._skipping and item.boot_id != j.boot_id
            return []
        if self._skipping:
            return []
        if len(item.boot_id) != len(j.boot_id):
            said = f"a reboot without a boot id of {len(j.boot_id)} bytes was ignored"
            self._in.say(NoticeKind.READING_REFUSED, "", said)
            return []
        sealed = []
        for track in self._in.tracks.values():
            self._in.release(track)
        if self._in.window and j.now_ns >= 0:
            sealed.append(self._seal(max(j.now_ns, j.batch_start_ns + 1)))
        self._reboot(item.boot_id)
        self._pass(item.t_boot_ns, item.t_unix_ns)
        j.happened_ns = item.t_boot_ns
        return sealed

    def _reboot(self, boot_id: bytes) -> None:
        """Another boot: its clock starts anew. The time between is owed, by the wall clock."""
        j = self._j
        for track in self._in.tracks.values():
            self._in.release(track)
            track.reboot(j.offset_ns)
        self.note(NoticeKind.REBOOTED, f"boot {boot_id.hex()} follows {j.boot_id.hex()}")
        j.past_boots.append(j.boot_id)
        j.boot_id = boot_id
        j.batch_start_ns = j.batch_start_unix_ns = j.resume_ns = j.now_ns = j.happened_ns = j.began_ns = -1
        j.hole_end_ns, j.hole_reason = -1, GapReason.NONE
        self._loaded_happened_ns = -1
        self._window_end = 0

    def _reload_driver(self, detail: str) -> None:
        self.note(NoticeKind.DRIVER_RELOADED, detail)
        self._in.reload_driver()

    def _take_devices(self, *, live: bool = True) -> list[Sealed]:
        sealed: list[Sealed] = []
        seal = lambda: sealed.append(self._seal(max(self._j.now_ns, self._j.batch_start_ns + 1)))  # noqa: E731
        if changed := self._in.take_devices(self._facts.devices, seal if live else None):
            self.note(NoticeKind.DEVICES_CHANGED, changed)
        return sealed

    def _load(self, j: Journal, because: GapReason) -> None:
        """Go on from a journal: same boot, or another one, or a replay from the beginning."""
        facts = self._facts
        parents = frozenset(d.parent for d in j.devices if d.mig and d.parent)
        tracks: dict[str, Track] = {}
        try:
            for device in j.devices:
                entity = describe(device, self._table, source=facts.source, parents=parents)
                tracks[device.entity] = load_track(entity, j.tracks[device.entity])
        except (KeyError, TypeError, ValueError) as e:
            raise JournalError(f"journal: expected a track for each device, got {e!r:.200}") from e
        self._j = self._in.j = j
        self._in.tracks = tracks
        self._loaded_happened_ns = j.happened_ns
        self._window_end = self._end_after(j.batch_start_ns)
        same_boot = j.boot_id == facts.boot_id
        if facts.boot_id in j.past_boots or (same_boot and self._replay):
            self._skipping = not same_boot  # a boot never comes back, but in a replay
            return
        if same_boot:
            self._down = because
            for track in tracks.values():
                if track.accounted_ns < 0:  # it was there, and no reading of it was kept
                    track.accounted_ns = track.born_ns
        else:
            self._reboot(facts.boot_id)
        if facts.driver != j.driver:
            self._reload_driver(f"driver {j.driver} became {facts.driver}")
        j.driver, j.nvml = facts.driver, facts.nvml
        self._take_devices(live=False)


def wall(unix_ns: int) -> int:
    """A wall-clock time as the wire holds it; a clock that says otherwise is cut to the nearest."""
    return min(max(unix_ns, 1), _MAX_UNIX_NS)
