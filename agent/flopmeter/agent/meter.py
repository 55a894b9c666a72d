"""The meter: readings in, sealed windows out. A pure state machine: no I/O, no clock of its own.

An entity's time is accounted exactly once: as cycles, or as a gap. With cycle counters an interval runs from
one good reading to the next, across failed reads, restarts of the agent and suspends, and belongs to the
window in which it ends. Without them every reading, good or failed, ends an interval, and silence becomes
a gap when the window closes. docs/metering.md and ARCHITECTURE.md tell the story; tests/invariants proves it.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from flopmeter.contract.limits import ANCHOR_PERIOD_NS, DEFAULT_TICK_NS, DEFAULT_WINDOW_NS, MAX_ENTITIES
from flopmeter.contract.usage import (
    IDLE,
    UNATTRIBUTED,
    Batch,
    Device,
    GapReason,
    Inventory,
    NoticeKind,
    Workload,
)
from flopmeter.contract.w_table import WTable, current

from .attribution import Attributor, WorkloadFinder
from .calibrate import PATIENCE_NS, UNDECIDED_GAP, Evidence, Scale
from .encode import encode_inventory, inventory_digest
from .interval import (
    SM_ACTIVE,
    Entity,
    Interval,
    NoInterval,
    Point,
    Why,
    by_counters,
    by_percent,
    clock,
    describe,
    energy_only,
    failure_reason,
    gap_numbers,
    point,
)
from .journal import Journal, JournalError, dump_journal, load_journal
from .reading import Happening, HappeningKind, NodeFacts, Reading
from .track import Track, anchor_of, dump_track, load_track
from .window import Window

#: An interval longer than this many ticks is not what was asked for (reference/metering.md 6.1).
LONG_TICKS = 10
#: The wall clock moving against the boot clock by more than this between two items is a step.
CLOCK_STEP_NS = 1_000_000_000
#: A gap over a reboot is taken from the wall clock, which may be wrong; no more than this is booked.
MAX_REBOOT_GAP_NS = 31 * 86_400_000_000_000

_AFTER_FAILED_READ = (GapReason.READ_FAILED, GapReason.READ_HUNG, GapReason.LOST)


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


class Meter:
    """Meters one node. `facts` as the source tells them, `journal` of the last sealed window if there is one.

    `replay` (default: whether the source is a trace): the items come again from the beginning, so that a
    meter made from a journal ignores what is sealed already and then goes on exactly as if never stopped.
    Otherwise a journal means that the agent was down meanwhile. A journal that cannot be read is said in a
    notice, and metering starts anew.
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
        replay: bool | None = None,
    ) -> None:
        self._settings = settings
        self._version = agent_version
        self._table = table or current()
        self._attributor = Attributor(finder)
        self._long_ns = LONG_TICKS * settings.tick_ns
        self._replay = facts.source == "trace" if replay is None else replay
        self._window = Window()
        self._tracks: dict[str, Track] = {}
        self._gone: dict[str, Device] = {}  # left in this window
        self._inventory: tuple[Inventory, bytes] | None = None
        self._unplaced: list[tuple[NoticeKind, str, str]] = []  # notices before the first time is known
        self._skipping = False  # a replay is still in a boot before the journal's
        self._j = Journal(
            boot_id=facts.boot_id,
            past_boots=[],
            driver=facts.driver,
            nvml=facts.nvml,
            devices=(),
            scales={},
            puzzled=[],
            batch_start_ns=-1,
            batch_start_unix_ns=-1,
            resume_ns=-1,
            now_ns=-1,
            offset_ns=0,
            first_ns=-1,
            happened_ns=-1,
            hole_end_ns=-1,
            hole_reason=GapReason.NONE,
            tracks={},
        )
        self._facts = facts
        self._window_end = 0
        self._loaded_now = -1
        self._loaded_happened = -1
        self._down = False
        if journal is None:
            self._take_devices(facts.devices)
        else:
            try:
                self._load(load_journal(journal))
            except JournalError as e:
                self._take_devices(facts.devices)
                self.note(NoticeKind.SPOOL_TORN, f"{e}; metering starts anew")

    # ---- what the agent calls ------------------------------------------------------------------

    @property
    def boot_id(self) -> bytes:
        return self._j.boot_id

    @property
    def resume_boot_ns(self) -> int:
        """Readings at or before this boot time are in sealed windows; -1 = none is."""
        return self._j.resume_ns

    def observe(self, item: Reading | Happening) -> list[Sealed]:
        """Close every window that ended at or before the item's time, then take the item.

        Items of one entity come in order of time. One that the journal says was taken already is ignored.
        """
        if isinstance(item, Happening):
            return self._happen(item)
        if self._skipping:
            return []
        t = item.t_boot_ns
        track = self._tracks.get(item.entity)
        if t <= (self._loaded_now if track is None else track.loaded_ns):
            return []
        sealed = self._roll(t) if t >= self._window_end else []
        self._pass(t, item.t_unix_ns)
        if track is None:
            self._say(NoticeKind.READING_REFUSED, "", f"{item.entity[:80]!r} is not in the inventory")
        elif t <= track.seen_ns:
            said = f"reading at {t} ns came after one at {track.seen_ns} ns"
            self._say(NoticeKind.READING_REFUSED, item.entity, said)
        elif item.error is not None:
            self._failed(track, item, item.error)
        else:
            self._good(track, item)
        return sealed

    def advance(self, t_boot_ns: int, t_unix_ns: int) -> list[Sealed]:
        """Time passes without a reading: windows close; entities that stay silent without counters get gaps."""
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
        j = self._j
        if j.now_ns < 0:
            return None
        if final:
            for track in self._tracks.values():
                self._settle(track, GapReason.READ_FAILED)
        if not self._window:
            return None
        for track in self._tracks.values():
            self._anchor(track)
        return self._seal(max(j.now_ns, j.batch_start_ns + 1))

    def refacts(self, facts: NodeFacts) -> None:
        """Devices came, went or changed, or the driver did. The boot does not change while an agent lives."""
        if facts.driver != self._j.driver:
            self._reload_driver(f"driver {self._j.driver} became {facts.driver}")
        self._facts = facts
        self._j.driver, self._j.nvml = facts.driver, facts.nvml
        self._take_devices(facts.devices)

    def skip_to(self, boot_id: bytes, t_boot_ns: int) -> None:
        """Usage up to `t_boot_ns` is in the books already: drop it here, go on from there with a gap."""
        j = self._j
        if boot_id != j.boot_id or t_boot_ns <= j.batch_start_ns:
            return
        self._window.drop_usage()
        for track in self._tracks.values():
            track.held.sums.clear()
            track.held.held_ns = 0
            track.forget_base(GapReason.RECORD_LOST)
            if track.accounted_ns >= 0:
                track.accounted_ns = t_boot_ns
            track.loaded_ns = max(track.loaded_ns, min(track.seen_ns, t_boot_ns), t_boot_ns)
            track.seen_ns = max(track.seen_ns, t_boot_ns)
        j.batch_start_ns = j.resume_ns = t_boot_ns
        j.batch_start_unix_ns = t_boot_ns + j.offset_ns
        self._loaded_now = max(self._loaded_now, t_boot_ns)
        self._window_end = self._end_after(t_boot_ns)

    def note(self, kind: NoticeKind, detail: str = "", *, entity: str = "") -> None:
        """Something the books should explain, for the next batch, at the time of the last item."""
        if self._j.now_ns < 0:
            self._unplaced.append((kind, entity, detail))
        else:
            self._say(kind, entity, detail)

    # ---- time and windows ----------------------------------------------------------------------

    def _end_after(self, t: int) -> int:
        length = self._settings.window_ns
        return (t // length + 1) * length

    def _pass(self, t: int, unix: int) -> None:
        """Time has come to `t`: notice holes in it, and steps of the wall clock."""
        j = self._j
        offset = unix - t
        if j.now_ns < 0:
            j.now_ns = j.first_ns = t
            j.offset_ns = offset
            if j.batch_start_ns < 0:
                j.batch_start_ns, j.batch_start_unix_ns = t, unix
            self._window_end = self._end_after(t)
            for track in self._tracks.values():
                if track.born_ns < 0:
                    track.born_ns = t
        elif abs(offset - j.offset_ns) > CLOCK_STEP_NS:
            self._say(NoticeKind.CLOCK_STEPPED, "", f"wall clock stepped by {offset - j.offset_ns} ns")
        if self._down:
            self._down = False
            j.hole_end_ns, j.hole_reason = t, GapReason.AGENT_DOWN
        elif t - j.now_ns > self._long_ns:
            j.hole_end_ns, j.hole_reason = t, GapReason.SUSPENDED
        j.offset_ns = offset
        j.now_ns = max(j.now_ns, t)
        if self._unplaced:
            for kind, entity, detail in self._unplaced:
                self._say(kind, entity, detail)
            self._unplaced.clear()

    def _roll(self, t: int) -> list[Sealed]:
        """Close windows that ended at or before `t`. Long stretches of nothing are skipped, not sealed."""
        sealed: list[Sealed] = []
        j = self._j
        while j.now_ns >= 0 and t >= self._window_end:
            end = self._window_end
            awake = end - j.now_ns <= self._long_ns
            if awake:
                for track in self._tracks.values():
                    self._silent(track, end)
            if self._window:
                for track in self._tracks.values():
                    if (
                        track.base is not None
                        and track.base.t_boot_ns - track.anchored_ns >= ANCHOR_PERIOD_NS
                    ):
                        self._anchor(track)
                sealed.append(self._seal(end))
            self._window_end = self._end_after(end if awake else t)
        return sealed

    def _silent(self, track: Track, end: int) -> None:
        """The window closes: book a gap for an entity that no reading came from for long, unless counters hold."""
        if track.counting:
            return
        if track.seen_ns < 0:
            if end - track.born_ns > self._long_ns:
                if track.accounted_ns < 0:
                    track.accounted_ns = track.born_ns
                track.why = track.why or GapReason.READ_HUNG
                self._gap(track, end, track.why, track.workload)
        elif end - track.seen_ns > track.longest_ns(self._long_ns):
            self._gap(track, end, self._hole(track) or GapReason.READ_HUNG, track.workload)

    def _hole(self, track: Track) -> GapReason:
        """Why nobody read: the agent was down or asleep since the entity's last reading; NONE if it was not."""
        return self._j.hole_reason if self._j.hole_end_ns > track.seen_ns else GapReason.NONE

    def _seal(self, end: int) -> Sealed:
        """The open window becomes a batch that ends at `end`; the journal is the state right after."""
        j, window = self._j, self._window
        inventory, digest, index = self._inventory_for(window.entities())
        workloads, usage = window.usage(index)
        end_unix = end + j.offset_ns
        batch = Batch(
            agent_version=self._version,
            inventory_digest=digest,
            window_start_boot_ns=j.batch_start_ns,
            window_end_boot_ns=end,
            window_start_unix_ns=j.batch_start_unix_ns,
            window_end_unix_ns=end_unix,
            workloads=workloads,
            usage=usage,
            anchors=window.anchors(index),
            notices=window.notices(index),
        )
        self._window = Window()
        self._gone.clear()
        # A reading at an aligned end belongs to the window after; one at the end of a flush to this one.
        j.resume_ns = end - 1 if end > j.now_ns else end
        j.batch_start_ns, j.batch_start_unix_ns = end, end_unix
        j.tracks = {entity: dump_track(t) for entity, t in self._tracks.items()}
        return Sealed(batch, inventory, dump_journal(j), j.boot_id)

    def _inventory_for(self, named: set[str]) -> tuple[Inventory, bytes, dict[str, int]]:
        """The inventory that a batch refers to: the devices there are, and those that left in the window."""
        devices = [*self._j.devices, *(d for e, d in self._gone.items() if e in named)]
        if self._inventory is None or self._inventory[0].devices != tuple(devices):
            f, j = self._facts, self._j
            inventory = Inventory(f.node, f.cluster, j.driver, j.nvml, f.source, tuple(devices))
            self._inventory = inventory, inventory_digest(encode_inventory(inventory))
        inventory, digest = self._inventory
        return inventory, digest, {d.entity: i for i, d in enumerate(inventory.devices)}

    # ---- readings ------------------------------------------------------------------------------

    def _good(self, track: Track, reading: Reading) -> None:
        now = point(reading)
        workload, shared = self._attributor.attribute(reading)
        if shared != track.shared:
            track.shared = shared
            if shared:
                self._say(NoticeKind.SHARED_DEVICE, reading.entity, shared)
        if track.counting and not track.entity.energy_only:
            self._by_counters(track, reading, now, workload)
        else:
            self._by_percent(track, reading, now, workload)
        seen, track.seen_ns = track.seen_ns, now.t_boot_ns
        if seen >= 0:
            track.cadences = (track.cadences[1], now.t_boot_ns - seen)

    def _failed(self, track: Track, reading: Reading, code: str) -> None:
        """A read failed. Counters hold the time open; without them it is a gap, at once."""
        t = reading.t_boot_ns
        reason = failure_reason(code)
        if track.counting:
            track.bridging = True
        else:
            if track.accounted_ns < 0 and track.owed_unix_ns < 0:
                track.accounted_ns = t  # first heard of now
            self._gap(track, t, self._long_hole(track, t) or reason, track.workload)
            track.forget_base(reason)
        track.seen_ns = t

    def _by_counters(self, track: Track, reading: Reading, now: Point, workload: Workload | None) -> None:
        base = track.base
        assert base is not None
        short = now.t_boot_ns - base.t_boot_ns <= self._long_ns
        if None in now.counters and any(
            a is None and b is not None for a, b in zip(now.counters, base.counters, strict=True)
        ):
            # Some counters were not read. For a while they are waited for: the next whole reading is exact.
            if short or (now.counters[0] is None and not reading.percent):
                track.bridging = True
                return
            if now.counters[0] is None:
                self._restart(track, now, workload, GapReason.READ_FAILED)
                return
        got = by_counters(base, now, track.entity, self._multiplier(track))
        if isinstance(got, Interval):
            track.doubted = None
            self._accept(track, got, reading, now, workload)
        elif got.why is Why.RESET:
            self._say(NoticeKind.GPU_RESET, reading.entity, got.detail)
            self._restart(track, now, workload, GapReason.RESET)
        else:
            self._doubt(track, got, reading, now, workload)

    def _accept(
        self, track: Track, got: Interval, reading: Reading, now: Point, workload: Workload | None
    ) -> None:
        base, track.base = track.base, now
        assert base is not None
        short = now.t_boot_ns - base.t_boot_ns <= self._long_ns
        adjacent = short and not track.bridging
        bridged = not adjacent or self._j.hole_end_ns > base.t_boot_ns
        busy = not got.measured & SM_ACTIVE or got.numbers[2] > 0
        whose = _whose(track.workload, workload, bridged=bridged, busy=busy)
        if self._multiplier(track):
            self._window.add(reading.entity, whose, got)
        else:
            sampled = (
                by_percent(base.t_boot_ns, base, reading, now, track.entity)[0]
                if not track.bridging
                else None
            )
            track.held.add(whose, got, sampled)
            clocks = clock(base.clock_khz, reading) if not track.bridging else None
            track.held.evidence.add(got.numbers[1], got.numbers[0], clocks)
            self._calibrate(track)
        track.accounted_ns = now.t_boot_ns
        track.workload = workload
        track.bridging = False
        if base.counters is not now.counters and _ids(base) != _ids(now):
            self._new_epoch(track, now)

    def _doubt(
        self, track: Track, got: NoInterval, reading: Reading, now: Point, workload: Workload | None
    ) -> None:
        """Values that cannot be true, against the last good reading. One is ignored; two agreeing win.

        The time in between is then a gap, since nobody knows what the counters did.
        """
        self._say(NoticeKind.READING_REFUSED, reading.entity, got.detail)
        track.bridging = True
        if track.doubted is None:
            track.doubted = now, workload
            return
        (since, held_by), track.doubted = track.doubted, None
        self._restart(track, since, held_by, GapReason.REFUSED)
        if got.why is Why.TOO_FAST:
            self._forget_scale(track.entity.device)
        again = by_counters(since, now, track.entity, self._multiplier(track))
        if isinstance(again, Interval):
            self._accept(track, again, reading, now, workload)
        elif again.why is Why.RESET:
            self._restart(track, now, workload, GapReason.RESET)
        else:
            track.doubted = now, workload
            track.bridging = True

    def _by_percent(self, track: Track, reading: Reading, now: Point, workload: Workload | None) -> None:
        t, base = now.t_boot_ns, track.base
        got: Interval | None = None
        reason = GapReason.NONE
        if track.accounted_ns >= 0 or track.owed_unix_ns >= 0:
            whole = track.accounted_ns == track.seen_ns and track.owed_unix_ns < 0
            late = self._long_hole(track, t)
            if whole and not late and (base is not None or track.why in _AFTER_FAILED_READ):
                if track.entity.energy_only:
                    got = energy_only(track.seen_ns, base, now)
                else:
                    got, refused = by_percent(track.seen_ns, base, reading, now, track.entity)
                    reason = GapReason.REFUSED if refused else GapReason.READ_FAILED
                    if refused:
                        self._say(NoticeKind.READING_REFUSED, reading.entity, refused)
            else:
                reason = track.why if base is None else GapReason.NONE
                reason = reason or late or self._hole(track) or GapReason.READ_HUNG
        if got is not None:
            busy = not got.measured & SM_ACTIVE or got.numbers[2] > 0
            whose = _whose(track.workload, workload, bridged=False, busy=busy)
            self._window.add(reading.entity, whose, got)
            track.accounted_ns = t
            track.workload = workload
            track.base = now
            track.why = GapReason.NONE
            if now.counters[0] is not None:
                self._new_epoch(track, now)
        else:
            self._restart(track, now, workload, reason)

    def _long_hole(self, track: Track, t: int) -> GapReason:
        """The reason if the time since the entity's last reading is too long for percentages, else NONE."""
        if track.seen_ns < 0 or t - track.seen_ns <= track.longest_ns(self._long_ns):
            return GapReason.NONE
        return self._hole(track) or GapReason.READ_HUNG

    def _restart(self, track: Track, now: Point, workload: Workload | None, reason: GapReason) -> None:
        """Whatever is not accounted for until `now` is a gap; count from `now` on, in a new epoch."""
        same = track.workload == workload
        self._gap(track, now.t_boot_ns, reason, workload if same else UNATTRIBUTED, now.t_unix_ns)
        track.forget_base(GapReason.NONE)
        track.base = now
        track.workload = workload
        track.accounted_ns = now.t_boot_ns
        self._new_epoch(track, now)

    def _gap(
        self, track: Track, until: int, reason: GapReason, workload: Workload | None, unix: int = 0
    ) -> None:
        """Book the time from `accounted_ns` to `until` as a gap."""
        duration = 0
        if track.owed_unix_ns >= 0:
            duration = min(
                max(0, (unix or until + self._j.offset_ns) - track.owed_unix_ns), MAX_REBOOT_GAP_NS
            )
            track.owed_unix_ns = -1
        elif track.accounted_ns >= 0:
            duration = until - track.accounted_ns
        if duration > 0:
            device = track.entity.device.entity
            numbers = gap_numbers(track.entity, duration)
            self._window.add_gap(device, workload or UNATTRIBUTED, reason, numbers)
        track.accounted_ns = until

    def _settle(self, track: Track, reason: GapReason) -> None:
        """Nothing more will come of what is open: price what is held back, book the rest up to now."""
        self._release(track, self._scale(track))
        until = self._j.now_ns
        if track.counting and track.base is not None and until - track.seen_ns <= self._long_ns:
            until = track.seen_ns  # its last reading; the others came a little later
        if track.accounted_ns >= 0 and until > track.accounted_ns:
            reason = self._hole(track) or track.why or reason
            if track.counting or until - track.seen_ns > track.longest_ns(self._long_ns):
                self._gap(track, until, reason, track.workload)
                track.forget_base(reason)

    # ---- scale, epochs, anchors ----------------------------------------------------------------

    def _scale(self, track: Track) -> Scale | None:
        return Scale.SUM if track.entity.sm_count == 1 else self._j.scales.get(track.entity.device.name)

    def _multiplier(self, track: Track) -> int:
        scale = self._scale(track)
        return 0 if scale is None else scale.multiplier(track.entity)

    def _calibrate(self, track: Track) -> None:
        """After an interval was held back: is the scale known now, or patience over?"""
        model = track.entity.device.name
        evidence = track.held.evidence
        scale = evidence.verdict(track.entity)
        ratio = evidence.ratio_permille() / 1000
        if scale is not None:
            self._j.scales[model] = scale
            said = f"{model}: cycle counters are the {scale} over {track.entity.sm_count} SMs; "
            self._say(NoticeKind.CALIBRATION, "", f"{said}{ratio:.3f} counts per clock")
            for other in self._tracks.values():
                if other.entity.device.name == model:
                    self._release(other, scale)
        elif track.held.held_ns >= PATIENCE_NS:
            if model not in self._j.puzzled:
                self._j.puzzled.append(model)
                said = f"{model}: expected 1 or {track.entity.sm_count} counts per clock, got {ratio:.3f}; "
                self._say(NoticeKind.CALIBRATION, "", f"{said}percentages are used where they were read")
            self._release(track, None)

    def _release(self, track: Track, scale: Scale | None) -> None:
        """Price what was held back."""
        entity = track.entity.device.entity
        for workload, got in track.held.release(track.entity, scale):
            if isinstance(got, Interval):
                self._window.add(entity, workload, got)
            else:
                self._window.add_gap(entity, workload, UNDECIDED_GAP, gap_numbers(track.entity, got))
        track.held.evidence = Evidence()
        if scale is None:
            if track.base is not None and track.start is not None:
                self._new_epoch(track, track.base)  # the counters do not explain what was booked
        elif track.start is not None:
            start, track.start = track.start, None
            self._quote(track, start, scale)

    def _forget_scale(self, device: Device) -> None:
        if self._j.scales.pop(device.name, None) is not None:
            self._say(NoticeKind.CALIBRATION, "", f"{device.name}: scale doubted; it is measured again")

    def _new_epoch(self, track: Track, now: Point) -> None:
        """Counters start anew at `now`: quoted as soon as the scale is known."""
        track.start = None
        if now.counters[0] is None or track.entity.energy_only or not track.entity.sm_count:
            return
        track.epoch += 1
        scale = self._scale(track)
        if scale is None:
            track.start = now
        else:
            self._quote(track, now, scale)

    def _anchor(self, track: Track) -> None:
        """Quote the counters at the last good reading, unless they were quoted there already."""
        scale = self._scale(track)
        base = track.base
        if base is None or scale is None or track.start is not None or not track.counting:
            return
        if base.t_boot_ns > track.anchored_ns and not track.entity.energy_only:
            self._quote(track, base, scale)

    def _quote(self, track: Track, at: Point, scale: Scale) -> None:
        track.anchored_ns = at.t_boot_ns
        entity = track.entity.device.entity
        self._window.anchor(entity, anchor_of(at, track.epoch, scale.summed_over(track.entity)))

    # ---- the node changes ----------------------------------------------------------------------

    def _happen(self, item: Happening) -> list[Sealed]:
        j = self._j
        if item.kind is HappeningKind.REBOOT:
            return self._happen_reboot(item)
        if self._skipping or item.t_boot_ns <= self._loaded_happened:
            return []
        sealed = self._roll(item.t_boot_ns) if item.t_boot_ns >= self._window_end else []
        self._pass(item.t_boot_ns, item.t_unix_ns)
        j.happened_ns = max(j.happened_ns, item.t_boot_ns)
        entity = item.entity if item.entity in self._tracks else ""
        if item.kind is HappeningKind.GPU_RESET:
            self._say(NoticeKind.GPU_RESET, entity, "reported by the source")
            for name, track in self._tracks.items():
                if item.entity in ("", name):
                    track.forget_base(GapReason.RESET)
        elif item.kind is HappeningKind.DRIVER_RELOAD:
            self._reload_driver("reported by the source")
        elif item.kind is HappeningKind.MIG_CHANGE:
            self._facts = replace(self._facts, devices=item.devices)
            self._take_devices(item.devices)
        elif item.kind is HappeningKind.AGENT_STOP:
            self._say(NoticeKind.AGENT_STOPPED, "", "reported by the source")
        elif item.kind is HappeningKind.AGENT_START:
            self._say(NoticeKind.AGENT_STARTED, "", "reported by the source")
            j.hole_end_ns, j.hole_reason = item.t_boot_ns, GapReason.AGENT_DOWN
        return sealed

    def _happen_reboot(self, item: Happening) -> list[Sealed]:
        j = self._j
        if item.boot_id == j.boot_id or item.boot_id in j.past_boots:
            self._skipping = self._skipping and item.boot_id != j.boot_id
            return []
        sealed = []
        for track in self._tracks.values():
            self._release(track, self._scale(track))
        if self._window:
            sealed.append(self._seal(max(j.now_ns, j.batch_start_ns + 1)))
        self._reboot(item.boot_id)
        self._pass(item.t_boot_ns, item.t_unix_ns)
        j.happened_ns = item.t_boot_ns
        self._say(NoticeKind.REBOOTED, "", f"boot {item.boot_id.hex()} follows {j.past_boots[-1].hex()}")
        return sealed

    def _reboot(self, boot_id: bytes) -> None:
        """Another boot: its clock starts anew. The time between is owed, by the wall clock."""
        j = self._j
        for track in self._tracks.values():
            if track.owed_unix_ns < 0 and track.accounted_ns >= 0:
                track.owed_unix_ns = track.accounted_ns + j.offset_ns
            track.forget_base(GapReason.RESET)
            track.born_ns = track.seen_ns = track.loaded_ns = track.accounted_ns = track.anchored_ns = -1
            track.cadences = (0, 0)
        j.past_boots.append(j.boot_id)
        j.boot_id = boot_id
        j.batch_start_ns = j.batch_start_unix_ns = j.resume_ns = j.now_ns = j.first_ns = j.happened_ns = -1
        j.hole_end_ns, j.hole_reason = -1, GapReason.NONE
        self._loaded_now = self._loaded_happened = -1
        self._window_end = 0

    def _reload_driver(self, detail: str) -> None:
        """Counters restart, and another driver may count on another scale."""
        self.note(NoticeKind.DRIVER_RELOADED, detail)
        for track in self._tracks.values():
            self._release(track, self._scale(track))
            track.forget_base(GapReason.RESET)
        self._j.scales.clear()
        self._j.puzzled.clear()

    def _take_devices(self, devices: Iterable[Device]) -> None:
        """Make the tracks fit `devices`: settle those that left, begin those that came, restart the changed."""
        j = self._j
        new = {d.entity: d for d in tuple(devices)[:MAX_ENTITIES]}
        before = {d.entity: d for d in j.devices}
        parents = frozenset(d.parent for d in new.values() if d.mig and d.parent)
        for entity, device in before.items():
            if entity not in new:
                track = self._tracks.pop(entity)
                track.seen_ns = max(track.seen_ns, track.accounted_ns)
                self._release(track, self._scale(track))
                self._gap_if_open(track, GapReason.LOST)
                self._attributor.forget(entity)
                self._gone[entity] = device
        for entity, device in new.items():
            described: Entity = describe(device, self._table, source=self._facts.source, parents=parents)
            known = self._tracks.get(entity)
            if known is None:
                self._tracks[entity] = Track(entity=described, born_ns=j.now_ns)
                self._gone.pop(entity, None)
            elif known.entity != described:
                self._release(known, self._scale(known))
                self._gap_if_open(known, GapReason.RESET)
                known.entity = described
                known.forget_base(GapReason.RESET)
        j.devices = tuple(new.values())
        if before and before != new:
            came, went = len(new.keys() - before.keys()), len(before.keys() - new.keys())
            changed = sum(1 for e in new.keys() & before.keys() if new[e] != before[e])
            self.note(NoticeKind.DEVICES_CHANGED, f"{came} came, {went} went, {changed} changed")

    def _gap_if_open(self, track: Track, reason: GapReason) -> None:
        now = self._j.now_ns
        if now >= 0 and (track.owed_unix_ns >= 0 or 0 <= track.accounted_ns < now):
            self._gap(track, now, reason, track.workload)

    # ---- journal -------------------------------------------------------------------------------

    def _load(self, j: Journal) -> None:
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
        self._j, self._tracks = j, tracks
        self._loaded_now, self._loaded_happened = j.resume_ns, j.happened_ns
        self._window_end = self._end_after(j.batch_start_ns)
        same_boot = j.boot_id == facts.boot_id
        if self._replay and (same_boot or facts.boot_id in j.past_boots):
            self._skipping = not same_boot
            return
        if same_boot:
            self._down = True
        else:
            self.note(NoticeKind.REBOOTED, f"boot {facts.boot_id.hex()} follows {j.boot_id.hex()}")
            for track in self._tracks.values():
                self._release(track, self._scale(track))
            self._reboot(facts.boot_id)
        if facts.driver != j.driver:
            self._reload_driver(f"driver {j.driver} became {facts.driver}")
        j.driver, j.nvml = facts.driver, facts.nvml
        self._take_devices(facts.devices)

    def _say(self, kind: NoticeKind, entity: str, detail: str) -> None:
        now = self._j.now_ns
        self._window.say(kind, now, now + self._j.offset_ns, entity, detail)


def _whose(before: Workload | None, now: Workload | None, *, bridged: bool, busy: bool) -> Workload:
    """Whose an interval is. Between adjacent readings the later one says, as a reading's workload states what
    has held the entity since the one before. A bridge over failed reads, a restart or a sleep is the
    workload's only if both ends agree: what happened in between was not seen. Unknown and busy is nobody's.
    """
    if bridged and before != now:
        return UNATTRIBUTED
    if now is None:
        return UNATTRIBUTED if busy else IDLE
    return now


def _ids(p: Point) -> tuple[bool, ...]:
    return tuple(v is not None for v in p.counters)
