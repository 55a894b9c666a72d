"""Whose an interval is: from who held the entity at its two ends. Pure."""

from flopmeter.agent.workloads.attribution import Holding
from flopmeter.contract.usage import IDLE, UNATTRIBUTED, Workload

from .epochs import alone
from .interval import SM_ACTIVE, Interval
from .shares import Part, handed_over
from .track import Track


def parts_of(
    track: Track, holding: Holding, got: Interval, since_ns: int, *, bridged: bool
) -> tuple[Part, ...]:
    """Whose an interval is. Between adjacent readings the later one says, as a reading's workload states what
    has held the entity since the one before. A bridge over failed reads, a restart or a sleep is the
    workload's only if both ends agree: what happened in between was not seen. Unknown and busy is nobody's.
    """
    now = holding.workload
    if bridged and not same_holders(track, holding):
        return alone(UNATTRIBUTED)
    if holding.snapshot and (parts := _by_instants(track, holding, got, since_ns)):
        return parts
    if holding.parts:
        return holding.parts
    if now is None:
        return alone(UNATTRIBUTED if _busy(track, got) else IDLE)
    return alone(now)


def _by_instants(track: Track, holding: Holding, got: Interval, since_ns: int) -> tuple[Part, ...]:
    """Where processes tell, they are those of an instant, and who left since the last one worked too; () = none did.

    Work that no process of either instant can have done is nobody's (metering.md 5.2), unless the entity was given to
    somebody. Who was given it and had no process there did nothing.
    """
    now = holding.workload
    if (
        now is not None
        and now is track.workload
        and now is not IDLE
        and not track.sharers
        and not holding.parts
    ):
        return ()  # the usual case, quickly: one workload at both instants
    held = () if track.waiting else track.sharers or (track.workload,)
    left = [w for w in held if w is not None and w not in (IDLE, UNATTRIBUTED)]
    if now == IDLE or holding.waiting:
        if not _worked(got):
            return ()
        return tuple([(w, 1) for w in left]) or (() if holding.waiting else alone(UNATTRIBUTED))
    if now is None and not _busy(track, got):
        return ()
    new = holding.parts or alone(now or UNATTRIBUTED)
    if all(any(w == other for other, _ in new) for w in left):
        return ()
    return handed_over(left, new, since_ns, holding.began_ns, since_ns + got.numbers[0])


def same_holders(track: Track, holding: Holding) -> bool:
    """Whether the entity is held as at the last good reading. A job that waited for its first step is that job."""
    before, now = track.workload, holding.workload
    if (before, track.sharers) == (now, holding.sharers):
        return True
    if track.sharers or holding.sharers or before is None or now is None:
        return False
    return (track.waiting or holding.waiting) and (before.kind, before.job) == (now.kind, now.job)


def held_at_last(track: Track) -> tuple[Workload | None, tuple[Workload, ...]]:
    """Who held the entity at the last good reading."""
    return track.workload, track.sharers


def now_held(track: Track, holding: Holding) -> None:
    track.workload, track.sharers, track.waiting = holding.workload, holding.sharers, holding.waiting


def _busy(track: Track, got: Interval) -> bool:
    """Whether the SMs may have worked: they did, or nobody read whether they did. A GPU cut into instances has none."""
    return not track.entity.energy_only and (not got.measured & SM_ACTIVE or got.numbers[2] > 0)


def _worked(got: Interval) -> bool:
    """Whether something ran that was read, beyond what an idle GPU shows (0.1 %, metering.md section 8, E1)."""
    most = got.numbers[2] if got.measured & SM_ACTIVE else max(got.numbers[3:-1])
    return most * 1_000 > got.numbers[1]
