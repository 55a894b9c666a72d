"""Readings of entities, taken one by one into the open window: every nanosecond as cycles or as a gap, once.

The meter (meter.py) tells the time and closes windows; what a reading means is decided here. With cycle
counters an interval runs from one good reading to the next, across whatever failed in between. Without
them every reading, good or failed, ends an interval.
"""

from collections.abc import Callable, Iterable, Mapping

from flopmeter.agent.reading import ANY_TENSOR_UTIL, HMMA_TENSOR_UTIL, Reading
from flopmeter.agent.shipping.journal import Journal
from flopmeter.agent.sources.base import COUNTERS_RESTARTED
from flopmeter.agent.workloads.attribution import Attributor, Holding
from flopmeter.contract.checks import Check
from flopmeter.contract.limits import MAX_ENTITIES
from flopmeter.contract.usage import UNATTRIBUTED, Device, GapReason, NoticeKind, Progress, Workload
from flopmeter.contract.w_table import WTable

from .crosscheck import rate_detail
from .entity import counts_on, describe, fit
from .epochs import Epochs, alone
from .interval import (
    Interval,
    NoInterval,
    Point,
    Why,
    by_counters,
    by_percent,
    clock,
    energy_only,
    failure_reason,
    point,
)
from .ratios import STOOD_STILL, busy
from .track import Track
from .whose import held_at_last, now_held, parts_of, same_holders
from .window import MAX_WINDOW_PROGRESS

#: A gap over a reboot is taken from the wall clock, which may be wrong; no more than this is booked.
MAX_REBOOT_GAP_NS = 31 * 86_400_000_000_000
#: So many readings in a row that lack a counter are waited out; then the others go on without it.
MAX_LACKING = 10

Remarks = tuple[tuple[str, str], ...]  # (entity, what is odd about who holds it)
Held = tuple[Holding, Remarks]

_TENSOR_PERCENT = frozenset({ANY_TENSOR_UTIL, HMMA_TENSOR_UTIL})
_NOT_METERED = (GapReason.AGENT_DOWN, GapReason.SPOOL_FULL)
_AFTER_FAILED_READ = (GapReason.READ_FAILED, GapReason.READ_HUNG, GapReason.LOST)


class Intake(Epochs):
    """The entities of one node, and what their readings mean.

    `long_ns`: an interval longer than this is not what was asked for (10 ticks, reference/metering.md 6.1).
    """

    def __init__(self, j: Journal, table: WTable, source: str, attributor: Attributor, long_ns: int) -> None:
        super().__init__(j)
        self._table = table
        self._source = source
        self._attributor = attributor
        self._long_ns = long_ns

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

    def describe(self, workload: Workload) -> Workload:
        """All that is known by now of a workload that rows name."""
        return self._attributor.describe(workload)

    def progress(self, places: Mapping[Workload, int]) -> tuple[tuple[Progress, ...], int]:
        """What those workloads have declared since the last window, by where they are in the batch; and of how many more
        the batch has no room for it.
        """
        news = [
            (place, said)
            for key, place in places.items()
            if (said := self._attributor.news(key)) and said.tokens
        ]
        told = tuple(
            [
                Progress(place, c.t_boot_ns, c.t_unix_ns, c.tokens, c.parameters, c.flop_per_token, c.ranks)
                for place, c in news[:MAX_WINDOW_PROGRESS]
            ]
        )
        return told, len(news) - len(told)

    def sealed(self) -> None:
        """A window is closed: who holds nothing any more need not be remembered."""
        held = {workload for several in self.holders().values() for workload in several}
        for track in self.tracks.values():
            held.update(track.sharers)
        self._attributor.forget_all_but(held)

    # ---- readings ------------------------------------------------------------------------------

    def attribute(self, reading: Reading) -> Held:
        """Who holds its entity. To be asked at once: processes go, and are given other devices."""
        holding, remarks = self._attributor.attribute(reading), self._attributor.remarks
        if not remarks:
            return holding, ()
        odd = tuple(remarks)
        remarks.clear()
        return holding, odd

    def good(self, track: Track, reading: Reading, holding: Holding, odd: Remarks) -> None:
        """A reading with values, later than the entity's last, and what `attribute` said of it."""
        now = point(reading)
        if holding.shared != track.shared:
            track.shared = holding.shared
            if holding.shared:
                self.say(NoticeKind.SHARED_DEVICE, reading.entity, holding.shared)
        for entity, said in odd:
            self.say(NoticeKind.ATTRIBUTION, entity, said)
        if track.counting:
            self._by_counters(track, reading, now, holding)
        else:
            self._by_percent(track, reading, now, holding)
        seen, track.seen_ns = track.seen_ns, now.t_boot_ns
        if seen >= 0:
            track.cadences = (track.cadences[1], now.t_boot_ns - seen)

    def failed(self, track: Track, t: int, code: str) -> None:
        """A read failed. Counters hold the time open, unless they restarted; without them it is a gap, at once."""
        reason = GapReason.RESET if code == COUNTERS_RESTARTED else failure_reason(code)
        if reason is GapReason.RESET:
            self.say(
                NoticeKind.GPU_RESET, track.entity.device.entity, "the source says that counters restarted"
            )
        if track.counting and reason is not GapReason.RESET:
            track.bridging = True
            track.why = reason
        else:
            if track.accounted_ns < 0 and track.owed_unix_ns < 0:
                track.accounted_ns = t  # first heard of now
            self._gap(track, t, self._too_long(track, t) or reason, *held_at_last(track))
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
                self._gap(track, end, track.why, *held_at_last(track))
        elif reason := self._too_long(track, end):
            self._gap(track, end, reason, *held_at_last(track))

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
            self._gap(track, until, reason, *held_at_last(track))
            track.forget_base(reason)
            self.silent(
                track, now
            )  # as it is without counters: settled again from the journal, nothing is left

    def _by_counters(self, track: Track, reading: Reading, now: Point, holding: Holding) -> None:
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
                self._restart(track, now, holding, GapReason.READ_FAILED)
                return
        got = self._difference(track, base, now, reading)
        if isinstance(got, Interval):
            track.doubted = None
            self._accept(track, got, reading, now, holding)
        elif got.why is Why.RESET:
            self.say(NoticeKind.GPU_RESET, reading.entity, got.detail)
            self._restart(track, now, holding, GapReason.RESET)
        else:
            self._doubt(track, got, reading, now, holding)

    def _difference(self, track: Track, since: Point, now: Point, reading: Reading) -> Interval | NoInterval:
        """By counters. The reading's percentages help where they speak of all the time since `since`.

        An exporter's never do for sure: its gauges are averages over a time of its own.
        """
        entity = track.entity
        beside = since.t_boot_ns == track.seen_ns and self._hole(track) not in _NOT_METERED
        percent = reading.percent if beside and not entity.from_dcgm else {}
        ratios = self.ratios(track)
        got = by_counters(since, now, entity, self.multiplier(track), ratios, track.rest, percent)
        if (
            isinstance(got, Interval)
            and not got.numbers[1]
            and not entity.from_dcgm
            and busy(reading.percent)
        ):
            return NoInterval(Why.REFUSED, STOOD_STILL)  # whatever part of the time the percentages speak of
        return got

    def _accept(self, track: Track, got: Interval, reading: Reading, now: Point, holding: Holding) -> None:
        """An interval by counters, from the base to `now`, which becomes the base."""
        base, track.base = track.base, now
        assert base is not None
        adjacent = not track.bridging and now.t_boot_ns - base.t_boot_ns <= self._long_ns
        bridged = not adjacent or self.j.hole_end_ns > base.t_boot_ns
        parts = parts_of(track, holding, got, base.t_boot_ns, bridged=bridged)
        now_held(track, holding)
        track.rest = got.rest
        priced = self.multiplier(track) > 0
        if priced:
            self.book(reading.entity, parts, got)
            self._cross_check(track, got, reading)
        else:
            # Clock samples and percentages speak of the time since the last reading, good or not, but not of
            # one in which nobody metered.
            beside = base.t_boot_ns == track.seen_ns and self._hole(track) not in _NOT_METERED
            sampled = by_percent(base.t_boot_ns, base, reading, now, track.entity)[0] if beside else None
            track.held.add(parts, got, sampled, base.late_ns)
            self.window.held_back = True
            clocks = clock(base.clock_khz, reading) if beside else None
            track.held.evidence.add(got.numbers[1], got.numbers[0], clocks, base.late_ns)
        if got.judged:
            self.judge(track, got.judged, priced=priced)
        if not priced:
            self.calibrate(track, k_told=not reading.percent.keys().isdisjoint(_TENSOR_PERCENT))
        track.accounted_ns = now.t_boot_ns
        track.bridging = False
        track.lacking = 0
        track.why = GapReason.NONE
        if None in base.counters + now.counters and _ids(base) != _ids(now):
            self.new_epoch(track, now)

    def _doubt(self, track: Track, got: NoInterval, reading: Reading, now: Point, holding: Holding) -> None:
        """Values that cannot be true, against the last good reading. One is ignored; two in a row win.

        The time up to the first of them is then a gap, since nobody knows what the counters did.
        """
        self.say(NoticeKind.READING_REFUSED, reading.entity, got.detail)
        if got.why is Why.TOO_FAST:
            self._flag(track, rate_detail(got.detail))
        if track.doubted is None:
            track.doubted = now, holding.workload
            track.bridging = True
            return
        since, held_by = track.doubted
        self._restart(track, since, Holding(held_by), GapReason.REFUSED)
        again = self._difference(track, since, now, reading)
        if isinstance(again, NoInterval) and again.why is Why.TOO_FAST:
            # From one of them to the other, too: no value that stuck, but a scale that is another, of all of the model.
            self.forget_scale(track.entity.device)
            again = self._difference(track, since, now, reading)
        if isinstance(again, Interval):
            self._accept(track, again, reading, now, holding)
        elif again.why is Why.RESET:
            self._restart(track, now, holding, GapReason.RESET)
        else:
            track.doubted = now, holding.workload
            track.bridging = True

    def _by_percent(self, track: Track, reading: Reading, now: Point, holding: Holding) -> None:
        t, base = now.t_boot_ns, track.base
        got: Interval | None = None
        reason = GapReason.NONE
        if track.accounted_ns >= 0 or track.owed_unix_ns >= 0:
            late = self._too_long(track, t)
            whole = track.accounted_ns == track.seen_ns and track.owed_unix_ns < 0
            if whole and not late and (base is not None or track.why in _AFTER_FAILED_READ):
                if track.entity.energy_only:
                    got = energy_only(track.seen_ns, base, now, track.entity)
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
            self._restart(track, now, holding, reason)
            return
        parts = parts_of(track, holding, got, track.seen_ns, bridged=False)
        self.book(reading.entity, parts, got)
        self._cross_check(track, got, reading)
        track.accounted_ns = t
        now_held(track, holding)
        track.base = now
        track.why = GapReason.NONE
        if now.counters[0] is not None:
            self.new_epoch(track, now)

    def _restart(self, track: Track, now: Point, holding: Holding, reason: GapReason) -> None:
        """Whatever is not accounted for until `now` is a gap; count from `now` on, in a new epoch."""
        sharers = holding.sharers
        same = same_holders(track, holding)
        whose = (holding.workload, sharers) if same else (UNATTRIBUTED, ())
        self._gap(track, now.t_boot_ns, reason, *whose, now.t_unix_ns)
        track.forget_base(GapReason.NONE)
        track.base = now
        now_held(track, holding)
        self.new_epoch(track, now)

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

    def _gap(  # noqa: PLR0917
        self,
        track: Track,
        until: int,
        reason: GapReason,
        workload: Workload | None,
        sharers: tuple[Workload, ...],
        unix: int = 0,
    ) -> None:
        """Book the time from `accounted_ns` to `until` as a gap; after a reboot, what is owed by the wall clock."""
        duration = 0
        if track.owed_unix_ns >= 0:
            passed = (unix or until + self.j.offset_ns) - track.owed_unix_ns
            duration = min(passed, MAX_REBOOT_GAP_NS)
            track.owed_unix_ns = -1
            if passed != max(duration, 0):
                said = f"by the wall clock {passed} ns passed over a reboot; {max(duration, 0)} ns are booked as a gap"
                self.say(NoticeKind.REBOOTED, track.entity.device.entity, said)
        elif track.accounted_ns >= 0:
            duration = until - track.accounted_ns
        if duration > 0:
            alike = tuple([(sharer, 1) for sharer in sharers]) or alone(workload or UNATTRIBUTED)
            self.book_gap(track, alike, reason, duration)
        track.accounted_ns = until

    def _gap_if_open(self, track: Track, reason: GapReason) -> None:
        now = self.j.now_ns
        if now >= 0 and (track.owed_unix_ns >= 0 or 0 <= track.accounted_ns < now):
            self._gap(track, now, reason, *held_at_last(track))

    # ---- devices -------------------------------------------------------------------------------

    def reload_driver(self) -> None:
        """Counters restart, and another driver may count on another scale."""
        for track in self.tracks.values():
            self.release(track)
            track.forget_base(GapReason.RESET)
        self.j.scales.clear()
        self.j.ratios.clear()
        self.j.puzzled.clear()

    def skip_to(self, t: int) -> None:
        """Usage up to `t` is in the books already: drop what is open; from there on it is a gap."""
        self.window.drop_usage()
        for track in self.tracks.values():
            track.held.clear()
            track.forget_base(GapReason.RECORD_LOST)
            # A gap over a reboot lies before `t`, too; and who was not heard of yet may have been before our time.
            track.accounted_ns, track.owed_unix_ns = t, -1
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

    def take_devices(self, devices: Iterable[Device], seal: Callable[[], None] | None) -> str:
        """Make the tracks fit `devices`: settle those that left, begin those that came, restart the changed.

        `seal` closes the window: a batch describes each entity once, so that what one did before it became another, as
        an instance made anew with other SMs, must not stand beside what it does from here on. None, at the start: what is
        open of a changed one is a gap of what it is now. Returns what changed, in words; "" if nothing did, or there was
        nothing before.
        """
        j = self.j
        listed = tuple(devices)
        allowed = [d for d in map(fit, listed) if d is not None][:MAX_ENTITIES]
        new = {d.entity: d for d in allowed}
        before = {d.entity: d for d in j.devices}
        parents = frozenset(d.parent for d in new.values() if d.mig and d.parent)
        now = {e: describe(d, self._table, source=self._source, parents=parents) for e, d in new.items()}
        changed = {e for e, t in self.tracks.items() if e in now and not counts_on(t.entity, now[e])}
        if seal is not None:
            for entity in changed:
                self.release(self.tracks[entity])
                self._gap_if_open(self.tracks[entity], GapReason.RESET)
            back = {e for e, device in self.gone.items() if new.get(e, device) != device}
            if not self.window.entities().isdisjoint(changed | back):
                seal()
        self._attributor.take_devices(allowed)
        for entity, device in before.items():
            if entity not in new:
                track = self.tracks.pop(entity)
                self.release(track)
                self._gap_if_open(track, GapReason.LOST)
                self._attributor.forget(entity)
                self.gone[entity] = device
        for entity, described in now.items():
            if (known := self.tracks.get(entity)) is None:
                self.tracks[entity] = Track(entity=described, born_ns=j.now_ns)
                self.gone.pop(entity, None)
                continue
            known.entity = described
            if entity in changed:
                known.forget_base(GapReason.RESET)
        j.devices = tuple(new.values())
        text = ""
        if len(new) < len(listed):
            text = f"{len(listed) - len(new)} of {len(listed)} left out (too many, doubled or no UUID); "
        if before and before != new:
            came, went = len(new.keys() - before.keys()), len(before.keys() - new.keys())
            others = sum(1 for e in new.keys() & before.keys() if new[e] != before[e])
            text += f"{came} came, {went} went, {others} changed"
        return text


def _ids(p: Point) -> tuple[bool, ...]:
    return tuple(v is not None for v in p.counters)
