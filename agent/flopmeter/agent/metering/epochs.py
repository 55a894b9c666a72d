"""What an entity's counters count, and since when: their scale, the k of each pipe, epochs, anchors. Pure.

Base of intake.Intake, with the state that both work on. An epoch is a time in which counters ran without a restart
and usage is their difference times one scale and one k; it begins and ends with anchors that quote the raw values.
"""

from flopmeter.agent.shipping.journal import Journal
from flopmeter.contract.evidence_class import EvidenceClass
from flopmeter.contract.usage import Device, GapReason, NoticeKind, Workload

from .calibrate import PATIENCE_NS, UNDECIDED_GAP, Evidence, Scale
from .interval import Interval, Point, gap_numbers
from .ratios import PLAIN, Judged, Ratios
from .shares import Part, split
from .track import Track, anchor_of
from .window import Window

#: The wire holds 32 bits: counted in seconds of the boot, more than a century.
_LATEST_EPOCH = (1 << 32) - (1 << 24)


class Epochs:
    """The tracks of one node's entities, and the window that they are booked into.

    Shares the state `j` with the meter, which writes it into the journal.
    """

    def __init__(self, j: Journal) -> None:
        self.j = j
        self.window = Window()
        self.tracks: dict[str, Track] = {}
        self.gone: dict[str, Device] = {}  # left in the open window

    def say(self, kind: NoticeKind, entity: str, detail: str) -> None:
        now = self.j.now_ns
        self.window.say(kind, now, now + self.j.offset_ns, entity, detail)

    # ---- booking -------------------------------------------------------------------------------

    def book(self, entity: str, parts: tuple[Part, ...], got: Interval) -> None:
        """An interval, or what stands for a gap, to its one workload or divided among several."""
        if len(parts) == 1:
            self.window.add(entity, parts[0][0], got)
            return
        for workload, row in split(got, parts):
            if any(row.numbers):
                self.window.add(entity, workload, row)

    def book_gap(self, track: Track, parts: tuple[Part, ...], reason: GapReason, duration_ns: int) -> None:
        """A gap, priced, to its one workload or divided among several."""
        entity, numbers = track.entity.device.entity, gap_numbers(track.entity, duration_ns)
        if len(parts) == 1:
            self.window.add_gap(entity, parts[0][0], reason, numbers)
            return
        for workload, row in split(Interval(EvidenceClass.GAP, 0, 0, numbers), parts):
            if any(row.numbers):
                self.window.add_gap(entity, workload, reason, row.numbers, row.measured)

    # ---- scale ---------------------------------------------------------------------------------

    def scale_of(self, track: Track) -> Scale | None:
        return Scale.SUM if track.entity.sm_count == 1 else self.j.scales.get(track.entity.device.name)

    def multiplier(self, track: Track) -> int:
        scale = self.scale_of(track)
        return 0 if scale is None else scale.multiplier(track.entity)

    def calibrate(self, track: Track, *, k_told: bool = True) -> None:
        """After an interval was held back: is the scale known now, or patience over?

        `k_told` False: no percentage of the tensor pipes beside it, as with an exporter's totals. Then nothing can
        show that k is not 1 (reference/metering.md 7.2, item 2), and that is said.
        """
        model = track.entity.device.name
        evidence = track.held.evidence
        ratio = f"{evidence.ratio_permille() / 1000:.3f} counts per clock"
        scale = evidence.verdict(track.entity)
        if scale is not None:
            self.j.scales[model] = scale
            sms = track.entity.sm_count
            said = f"{model}: cycle counters are the {scale} over {sms} SMs ({ratio})"
            unchecked = (
                "" if k_told else "; k of each pipe is taken for 1, unchecked: no percentages beside them"
            )
            self.say(NoticeKind.CALIBRATION, "", said + unchecked)
            for other in self.tracks.values():
                if other.entity.device.name == model:
                    self.release(other)
        elif track.held.held_ns >= PATIENCE_NS:
            if model not in self.j.puzzled:
                self.j.puzzled.append(model)
                said = f"{model}: expected 1 or {track.entity.sm_count} counts per clock, got {ratio}"
                self.say(NoticeKind.CALIBRATION, "", f"{said}; percentages are used where they were read")
                # Else the clock was not read, or the counter stood still with the SMs.
                if evidence.ratio_permille():
                    detail = evidence.scale_detail(track.entity)
                    self.say(NoticeKind.CROSS_CHECK, track.entity.device.entity, detail)
            self.release(track)

    def release(self, track: Track) -> None:
        """Price what was held back, by the scale if it is known, else by percentages or as a gap."""
        scale = self.scale_of(track)
        if scale is None and not track.held.sums:
            return
        entity = track.entity.device.entity
        for workload, got in track.held.release(track.entity, scale):
            if not isinstance(got, Interval):
                numbers = gap_numbers(track.entity, got)
                self.window.add_gap(entity, workload, UNDECIDED_GAP, numbers)
            elif any(got.numbers):
                self.window.add(entity, workload, got)
        track.held.evidence = Evidence()
        if track.start is None:
            return
        start, track.start = track.start, None
        if scale is not None:
            self._quote(track, start, scale)
        elif track.base is not None:
            self.new_epoch(track, track.base)  # the counters do not explain what was booked

    def forget_scale(self, device: Device) -> None:
        """The scale does not fit: measure it again, for all of the model, each in a new epoch."""
        if self.j.scales.pop(device.name, None) is None:
            return
        self.j.ratios.pop(device.name, None)
        self.say(NoticeKind.CALIBRATION, "", f"{device.name}: scale of cycle counters is measured again")
        self._new_epochs(device.name)

    # ---- k of each pipe ------------------------------------------------------------------------

    def ratios(self, track: Track) -> Ratios:
        return self.j.ratios.get(track.entity.device.name, PLAIN)

    def judge(self, track: Track, judged: tuple[Judged, ...], *, priced: bool) -> None:
        """Learn from an interval in which a counter and its percentage disagreed, or did before."""
        model = track.entity.device.name
        findings = self.j.ratios.setdefault(model, Ratios()).note(judged, accept=priced)
        for finding in findings:
            self.say(NoticeKind.CALIBRATION, "", f"{finding.about} of {model}: {finding.text}")
        if any(finding.accepted for finding in findings):
            self._new_epochs(model)

    # ---- epochs and anchors --------------------------------------------------------------------

    def new_epoch(self, track: Track, now: Point) -> None:
        """Counters start anew at `now`: quoted as soon as the scale is known."""
        track.start = None
        track.rest = ()
        if now.counters[0] is None or track.entity.energy_only or not track.entity.sm_count:
            return
        # Above all that an agent before us, whose state was lost, may have used in this boot: between anchors
        # of two lives lies time that is in no window.
        track.epoch = max(track.epoch + 1, min(now.t_boot_ns // 1_000_000_000, _LATEST_EPOCH))
        scale = self.scale_of(track)
        if scale is None:
            track.start = now
        else:
            self._quote(track, now, scale)

    def anchor(self, track: Track) -> None:
        """Quote the counters at the last good reading, unless they were quoted there already."""
        scale = self.scale_of(track)
        base = track.base
        if base is None or scale is None or track.start is not None or not track.counting:
            return
        if base.t_boot_ns > track.anchored_ns:
            self._quote(track, base, scale)

    def _new_epochs(self, model: str) -> None:
        for track in self.tracks.values():
            if track.entity.device.name == model and track.counting and track.base is not None:
                self.new_epoch(track, track.base)

    def _quote(self, track: Track, at: Point, scale: Scale) -> None:
        track.anchored_ns = at.t_boot_ns
        entity = track.entity.device.entity
        summed_over = scale.summed_over(track.entity)
        self.window.anchor(entity, anchor_of(at, track.epoch, summed_over, self.ratios(track).k))


def alone(workload: Workload) -> tuple[Part, ...]:
    """The parts of an entity that one workload has."""
    return ((workload, 1),)
