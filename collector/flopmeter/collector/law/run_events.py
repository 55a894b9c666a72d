"""What a run must raise where it stands: of lines, of shares of what it modifies, and of what it comes near. Pure."""

from collections.abc import Iterable
from collections.abc import Set as AbstractSet

from .early import early_events
from .events import NewEvent
from .late import dated
from .modification import modification_events
from .regimes import MODIFICATION, RUN, Regime
from .standing import Standing
from .thresholds import threshold_events


def run_events(
    stands: Standing,
    regimes: Iterable[Regime],
    raised: AbstractSet[str],
    *,
    at_unix_ns: int,
    since_position: int,
    position: int,
    met_since_unix_ns: int | None = None,
) -> list[NewEvent]:
    """What the run must raise where it stands, under regimes of either scope, less what `raised` (keys) has already.

    `met_since_unix_ns`: where the work by which it moved was done that long ago (late.met_since).
    """
    regimes = tuple(regimes)
    rests = {"at_unix_ns": at_unix_ns, "since_position": since_position, "position": position}
    found = threshold_events(stands, [r for r in regimes if r.scope == RUN], raised, **rests)
    for regime in regimes:
        if regime.scope == MODIFICATION:
            for made in stands.modifications[regime.counting]:
                found += modification_events(made, [regime], raised, **rests)
    if met_since_unix_ns is not None:
        by_id = {r.id: r for r in regimes}
        found = [dated(event, by_id[event.data["regime"]], met_since_unix_ns) for event in found]
    return found + early_events(stands, regimes, raised, **rests)
