"""Readings of entities, taken one by one into the open window: every nanosecond as cycles or as a gap, once.

The meter (meter.py) tells the time and closes windows; what a reading means is decided here. With cycle
counters an interval runs from one good reading to the next, across whatever failed in between. Without
them every reading, good or failed, ends an interval.
"""

from collections.abc import Iterable

from flopmeter.contract.limits import MAX_ENTITIES
from flopmeter.contract.usage import IDLE, UNATTRIBUTED, Device, GapReason, NoticeKind, Workload
from flopmeter.contract.w_table import WTable

from .attribution import Attributor
from .calibrate import PATIENCE_NS, UNDECIDED_GAP, Evidence, Scale
from .crosscheck import Check, rate_detail
from .interval import (
    SM_ACTIVE,
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
    fit,
    gap_numbers,
    point,
)
from .journal import Journal
from .reading import Reading
from .track import Track, anchor_of
from .window import Window

#: A gap over a reboot is taken from the wall clock, which may be wrong; no more than this is booked.
MAX_REBOOT_GAP_NS = 31 * 86_400_000_000_000
#: So many readings in a row that lack a counter are waited out; then the others go on without it.
MAX_LACKING = 10

_NOT_METERED = (GapReason.AGENT_DOWN, GapReason.SPOOL_FULL)
_AFTER_FAILED_READ = (GapReason.READ_FAILED, GapReason.READ_HUNG, GapReason.LOST)


class Intake:
    """The entities of one node. Shares the state `j` with the meter, which writes it into the journal.

    `long_ns`: an interval longer than this is not what was asked for (10 ticks, reference/metering.md 6.1).
    """

    def __init__(self, j: Journal, table: WTable, source: str, attributor: Attributor, long_ns: int) -> None:
        self.j = j
        self.window = Window()
        self.tracks: dict[str, Track] = {}
        self.gone: dict[str, Device] = {}  # left in the open window
        self._table = table
        self._source = source
        self._attributor = attributor
        self._long_ns = long_ns

    def say(self, kind: NoticeKind, entity: str, detail: str) -> None:
        now = self.j.now_ns
        self.window.say(kind, now, now + self.j.offset_ns, entity, detail)

    def holders(self) -> dict[str, set[Workload]]:
        """Who held each entity in the open window, by its rows, what is held back, and the last reading."""
        found = self.window.holders()
        for entity, track in self.tracks.items():
            held = {key.workload for key in track.held.sums}
            if track.workload is not None:
                held.add(track.workload)
            if held:
                found.setdefault(entity, set()).update(held)
        return found

    # ---- readings ------------------------------------------------------------------------------

    def good(self, track: Track, reading: Reading) -> None:
        """A reading with values, later than the entity's last."""
        now = point(reading)
        workload, shared = self._attributor.attribute(reading)
        if shared != track.shared:
            track.shared = shared
            if shared:
                self.say(NoticeKind.SHARED_DEVICE, reading.entity, shared)
        if track.counting:
            self._by_counters(track, reading, now, workload)
        else:
            self._by_percent(track, reading, now, workload)
        seen, track.seen_ns = track.seen_ns, now.t_boot_ns
        if seen >= 0:
            track.cadences = (track.cadences[1], now.t_boot_ns - seen)

    def failed(self, track: Track, t: int, code: str) -> None:
        """A read failed. Counters hold the time open; without them it is a gap, at once."""
        reason = failure_reason(code)
        if track.counting:
            track.bridging = True
            track.why = reason
        else:
            if track.accounted_ns < 0 and track.owed_unix_ns < 0:
                track.accounted_ns = t  # first heard of now
            self._gap(track, t, self._too_long(track, t) or reason, track.workload)
            track.forget_base(reason)
        track.seen_ns = t

    def silent(self, track: Track, end: int) -> None:
        """The window closes: a gap for an entity that no reading came from for long, unless counters hold."""
        if track.counting:
            return
        if track.seen_ns < 0:
            if end - track.born_ns > self._long_ns:
                if track.accounted_ns < 0:
                    track.accounted_ns = track.born_ns
                track.why = track.why or GapReason.READ_HUNG
                self._gap(track, end, track.why, track.workload)
        elif reason := self._too_long(track, end):
            self._gap(track, end, reason, track.workload)

    def settle(self, track: Track) -> None:
        """Nothing more will come of what is open: price what is held back, book the rest up to now."""
        self.release(track)
        now = self.j.now_ns
        if not track.counting:
            self.silent(track, now)
        elif track.seen_ns > track.accounted_ns or now - track.seen_ns > self._long_ns:
            # The last reading was not a good one, or the others went on for long without this entity.
            until = now if now - track.seen_ns > self._long_ns else track.seen_ns
            reason = GapReason.REFUSED if track.doubted else self._hole(track) or track.why
            reason = reason or GapReason.READ_HUNG
            self._gap(track, until, reason, track.workload)
            track.forget_base(reason)

    def _by_counters(self, track: Track, reading: Reading, now: Point, workload: Workload | None) -> None:
        base = track.base
        assert base is not None
        if None in now.counters and any(
            a is None and b is not None for a, b in zip(now.counters, base.counters, strict=True)
        ):
            # Some counters were not read. For a while they are waited for: the next whole reading is exact.
            track.lacking += 1
            waited = track.lacking > MAX_LACKING
            elapsed_read = now.counters[0] is not None
            if not waited or (not elapsed_read and not reading.percent):
                track.bridging = True
                track.why = GapReason.READ_FAILED
                return
            if not elapsed_read:
                self._restart(track, now, workload, GapReason.READ_FAILED)
                return
        multiplier = self._multiplier(track)
        got = by_counters(base, now, track.entity, multiplier)
        if isinstance(got, Interval):
            track.doubted = None
            self._accept(track, got, reading, now, workload, priced=multiplier > 0)
        elif got.why is Why.RESET:
            self.say(NoticeKind.GPU_RESET, reading.entity, got.detail)
            self._restart(track, now, workload, GapReason.RESET)
        else:
            self._doubt(track, got, reading, now, workload)

    def _accept(
        self,
        track: Track,
        got: Interval,
        reading: Reading,
        now: Point,
        workload: Workload | None,
        *,
        priced: bool,
    ) -> None:
        """An interval by counters, from the base to `now`, which becomes the base."""
        base, track.base = track.base, now
        assert base is not None
        adjacent = not track.bridging and now.t_boot_ns - base.t_boot_ns <= self._long_ns
        bridged = not adjacent or self.j.hole_end_ns > base.t_boot_ns
        whose = _whose(track.workload, workload, bridged=bridged, busy=_busy(got))
        track.workload = workload
        if priced:
            self.window.add(reading.entity, whose, got)
            self._cross_check(track, got, reading)
        else:
            # Clock samples and percentages speak of the time since the last reading, good or not.
            beside = not track.bridging
            sampled = by_percent(base.t_boot_ns, base, reading, now, track.entity)[0] if beside else None
            track.held.add(whose, got, sampled)
            self.window.held_back = True
            clocks = clock(base.clock_khz, reading) if beside else None
            track.held.evidence.add(got.numbers[1], got.numbers[0], clocks)
            self._calibrate(track)
        track.accounted_ns = now.t_boot_ns
        track.bridging = False
        track.lacking = 0
        track.why = GapReason.NONE
        if None in base.counters + now.counters and _ids(base) != _ids(now):
            self._new_epoch(track, now)

    def _doubt(
        self, track: Track, got: NoInterval, reading: Reading, now: Point, workload: Workload | None
    ) -> None:
        """Values that cannot be true, against the last good reading. One is ignored; two in a row win.

        The time up to the first of them is then a gap, since nobody knows what the counters did.
        """
        self.say(NoticeKind.READING_REFUSED, reading.entity, got.detail)
        if got.why is Why.TOO_FAST:
            self._flag(track, rate_detail(got.detail))
        if track.doubted is None:
            track.doubted = now, workload
            track.bridging = True
            return
        since, held_by = track.doubted
        if got.why is Why.TOO_FAST:
            self._forget_scale(track.entity.device)
        self._restart(track, since, held_by, GapReason.REFUSED)
        multiplier = self._multiplier(track)
        again = by_counters(since, now, track.entity, multiplier)
        if isinstance(again, Interval):
            self._accept(track, again, reading, now, workload, priced=multiplier > 0)
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
            late = self._too_long(track, t)
            whole = track.accounted_ns == track.seen_ns and track.owed_unix_ns < 0
            if whole and not late and (base is not None or track.why in _AFTER_FAILED_READ):
                if track.entity.energy_only:
                    got = energy_only(track.seen_ns, base, now)
                else:
                    got, refused = by_percent(track.seen_ns, base, reading, now, track.entity)
                    reason = GapReason.REFUSED if refused else GapReason.READ_FAILED
                    if refused.startswith(Check.SILENT_ZERO):
                        self._flag(track, refused)
                    elif refused:
                        self.say(NoticeKind.READING_REFUSED, reading.entity, refused)
            else:
                reason = track.why if base is None else GapReason.NONE
                reason = reason or late or self._hole(track) or GapReason.READ_HUNG
        if got is None:
            self._restart(track, now, workload, reason)
            return
        whose = _whose(track.workload, workload, bridged=False, busy=_busy(got))
        self.window.add(reading.entity, whose, got)
        self._cross_check(track, got, reading)
        track.accounted_ns = t
        track.workload = workload
        track.base = now
        track.why = GapReason.NONE
        if now.counters[0] is not None:
            self._new_epoch(track, now)

    def _restart(self, track: Track, now: Point, workload: Workload | None, reason: GapReason) -> None:
        """Whatever is not accounted for until `now` is a gap; count from `now` on, in a new epoch."""
        whose = workload if track.workload == workload else UNATTRIBUTED
        self._gap(track, now.t_boot_ns, reason, whose, now.t_unix_ns)
        track.forget_base(GapReason.NONE)
        track.base = now
        track.workload = workload
        self._new_epoch(track, now)

    # ---- cross-checks: they flag, they never correct -------------------------------------------

    def _cross_check(self, track: Track, got: Interval, reading: Reading) -> None:
        entity = track.entity
        checks, exporter = track.checks, entity.from_dcgm
        for detail in checks.add(entity.device, got.measured, got.numbers, reading, exporter=exporter):
            self.say(NoticeKind.CROSS_CHECK, reading.entity, detail)

    def _flag(self, track: Track, detail: str) -> None:
        """A check that fails at one reading; told once an hour."""
        if track.checks.may_tell(detail.partition(":")[0], self.j.now_ns):
            self.say(NoticeKind.CROSS_CHECK, track.entity.device.entity, detail)

    # ---- gaps ----------------------------------------------------------------------------------

    def _hole(self, track: Track) -> GapReason:
        """Why nobody read: the agent was down or asleep since the entity's last reading; NONE if it was not."""
        return self.j.hole_reason if self.j.hole_end_ns > track.seen_ns else GapReason.NONE

    def _too_long(self, track: Track, t: int) -> GapReason:
        """The reason if percentages do not speak of all the time since the entity's last reading, else NONE.

        They are averages since the source's last reading: not over a time in which nobody read or none was
        kept, however short; and not over far more than the usual time.
        """
        if track.seen_ns < 0:
            return GapReason.NONE
        hole = self._hole(track)
        if t - track.seen_ns > track.longest_ns(self._long_ns):
            return hole or GapReason.READ_HUNG
        return hole if hole in _NOT_METERED else GapReason.NONE

    def _gap(
        self, track: Track, until: int, reason: GapReason, workload: Workload | None, unix: int = 0
    ) -> None:
        """Book the time from `accounted_ns` to `until` as a gap; after a reboot, what is owed by the wall clock."""
        duration = 0
        if track.owed_unix_ns >= 0:
            duration = min((unix or until + self.j.offset_ns) - track.owed_unix_ns, MAX_REBOOT_GAP_NS)
            track.owed_unix_ns = -1
        elif track.accounted_ns >= 0:
            duration = until - track.accounted_ns
        if duration > 0:
            numbers = gap_numbers(track.entity, duration)
            self.window.add_gap(track.entity.device.entity, workload or UNATTRIBUTED, reason, numbers)
        track.accounted_ns = until

    def _gap_if_open(self, track: Track, reason: GapReason) -> None:
        now = self.j.now_ns
        if now >= 0 and (track.owed_unix_ns >= 0 or 0 <= track.accounted_ns < now):
            self._gap(track, now, reason, track.workload)

    # ---- scale, epochs, anchors ----------------------------------------------------------------

    def _scale(self, track: Track) -> Scale | None:
        return Scale.SUM if track.entity.sm_count == 1 else self.j.scales.get(track.entity.device.name)

    def _multiplier(self, track: Track) -> int:
        scale = self._scale(track)
        return 0 if scale is None else scale.multiplier(track.entity)

    def _calibrate(self, track: Track) -> None:
        """After an interval was held back: is the scale known now, or patience over?"""
        model = track.entity.device.name
        evidence = track.held.evidence
        ratio = f"{evidence.ratio_permille() / 1000:.3f} counts per clock"
        scale = evidence.verdict(track.entity)
        if scale is not None:
            self.j.scales[model] = scale
            sms = track.entity.sm_count
            said = f"{model}: cycle counters are the {scale} over {sms} SMs ({ratio})"
            self.say(NoticeKind.CALIBRATION, "", said)
            for other in self.tracks.values():
                if other.entity.device.name == model:
                    self.release(other)
        elif track.held.held_ns >= PATIENCE_NS:
            if model not in self.j.puzzled:
                self.j.puzzled.append(model)
                said = f"{model}: expected 1 or {track.entity.sm_count} counts per clock, got {ratio}"
                self.say(NoticeKind.CALIBRATION, "", f"{said}; percentages are used where they were read")
            self.release(track)

    def release(self, track: Track) -> None:
        """Price what was held back, by the scale if it is known, else by percentages or as a gap."""
        entity = track.entity.device.entity
        scale = self._scale(track)
        if scale is None and not track.held.sums:
            return
        for workload, got in track.held.release(track.entity, scale):
            if isinstance(got, Interval):
                self.window.add(entity, workload, got)
            else:
                self.window.add_gap(entity, workload, UNDECIDED_GAP, gap_numbers(track.entity, got))
        track.held.evidence = Evidence()
        if track.start is None:
            return
        start, track.start = track.start, None
        if scale is not None:
            self._quote(track, start, scale)
        elif track.base is not None:
            self._new_epoch(track, track.base)  # the counters do not explain what was booked

    def _forget_scale(self, device: Device) -> None:
        """The scale does not fit: measure it again, for all of the model, each in a new epoch."""
        if self.j.scales.pop(device.name, None) is None:
            return
        self.say(NoticeKind.CALIBRATION, "", f"{device.name}: scale of cycle counters is measured again")
        for track in self.tracks.values():
            if track.entity.device.name == device.name and track.counting and track.base is not None:
                self._new_epoch(track, track.base)

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

    def anchor(self, track: Track) -> None:
        """Quote the counters at the last good reading, unless they were quoted there already."""
        scale = self._scale(track)
        base = track.base
        if base is None or scale is None or track.start is not None or not track.counting:
            return
        if base.t_boot_ns > track.anchored_ns:
            self._quote(track, base, scale)

    def _quote(self, track: Track, at: Point, scale: Scale) -> None:
        track.anchored_ns = at.t_boot_ns
        entity = track.entity.device.entity
        self.window.anchor(entity, anchor_of(at, track.epoch, scale.summed_over(track.entity)))

    # ---- devices -------------------------------------------------------------------------------

    def reload_driver(self) -> None:
        """Counters restart, and another driver may count on another scale."""
        for track in self.tracks.values():
            self.release(track)
            track.forget_base(GapReason.RESET)
        self.j.scales.clear()
        self.j.puzzled.clear()

    def skip_to(self, t: int) -> None:
        """Usage up to `t` is in the books already: drop what is open; from there on it is a gap."""
        self.window.drop_usage()
        for track in self.tracks.values():
            track.held.clear()
            track.forget_base(GapReason.RECORD_LOST)
            if track.accounted_ns >= 0:
                track.accounted_ns = t
            track.seen_ns = max(track.seen_ns, t)
            track.loaded_ns = max(track.loaded_ns, t)

    def skip_reaching(self, t: int) -> None:
        """As `skip_to`, for a window that starts behind `t`: only what reaches back from it before `t`.

        An interval over a restart belongs to the window in which it ends, and can start long before it.
        """
        for entity, track in self.tracks.items():
            begun = track.accounted_ns - self.window.duration_ns(entity)
            if track.accounted_ns < 0 or begun >= t:
                continue
            self.window.drop_usage_of(entity)
            track.held.clear()
            track.forget_base(GapReason.RECORD_LOST)
            track.accounted_ns = t

    def take_devices(self, devices: Iterable[Device]) -> str:
        """Make the tracks fit `devices`: settle those that left, begin those that came, restart the changed.

        Returns what changed, in words; "" if nothing did, or there was nothing before.
        """
        j = self.j
        listed = tuple(devices)
        allowed = [d for d in map(fit, listed) if d is not None][:MAX_ENTITIES]
        new = {d.entity: d for d in allowed}
        before = {d.entity: d for d in j.devices}
        parents = frozenset(d.parent for d in new.values() if d.mig and d.parent)
        for entity, device in before.items():
            if entity not in new:
                track = self.tracks.pop(entity)
                self.release(track)
                self._gap_if_open(track, GapReason.LOST)
                self._attributor.forget(entity)
                self.gone[entity] = device
        for entity, device in new.items():
            described = describe(device, self._table, source=self._source, parents=parents)
            known = self.tracks.get(entity)
            if known is None:
                self.tracks[entity] = Track(entity=described, born_ns=j.now_ns)
                self.gone.pop(entity, None)
            elif known.entity != described:
                self.release(known)
                self._gap_if_open(known, GapReason.RESET)
                known.entity = described
                known.forget_base(GapReason.RESET)
        j.devices = tuple(new.values())
        text = ""
        if len(new) < len(listed):
            text = f"{len(listed) - len(new)} of {len(listed)} left out (too many, doubled or no UUID); "
        if before and before != new:
            came, went = len(new.keys() - before.keys()), len(before.keys() - new.keys())
            changed = sum(1 for e in new.keys() & before.keys() if new[e] != before[e])
            text += f"{came} came, {went} went, {changed} changed"
        return text


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


def _busy(got: Interval) -> bool:
    """Whether the SMs may have worked: they did, or nobody read whether they did."""
    return not got.measured & SM_ACTIVE or got.numbers[2] > 0


def _ids(p: Point) -> tuple[bool, ...]:
    return tuple(v is not None for v in p.counters)
