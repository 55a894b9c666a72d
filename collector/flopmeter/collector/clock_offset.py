"""How far an agent's wall clock is off: the agent's minus the collector's, as an interval that is sure. Pure.

The agent says its wall clock, and how long after something that we said it did so. So we know between which two instants of
ours it was read: not before that long after we said it, not after its word came. Nothing is taken for symmetric; the
interval is as wide as the way there and back. An agent that lies about its clock is believed: this is a diagnosis, and
nothing of the books rests on it.
"""

from typing import NamedTuple

_SECOND_NS = 1_000_000_000
#: Two clocks that nobody slews (CLOCK_MONOTONIC_RAW) run apart by less: crystals are good to 100 ppm each, and worse ones
#: are no longer followed by NTP, whose tolerance ends at 500 ppm (RFC 5905, MAXFREQ).
DRIFT_PPM = 500
#: An Ack longer ago than this tells nothing: an agent that lives says something every half a minute.
MAX_SINCE_NS = 3_600 * _SECOND_NS
_MAX_UNIX_NS = (1 << 63) - 1

#: When what is kept of an agent gives way (`worth_keeping`).
MOVED_NS = 50_000_000
KEPT_NS = 600 * _SECOND_NS
#: Narrower than this is narrow enough.
NARROW_NS = 10_000_000

#: A clock that is surely off by more is marked: usage stands under the hours that the node's clock says, and since when a
#: line was met, from which deadlines run, goes by it, too. Of that, seconds move little; and no clock that NTP keeps is
#: off by seconds. Long before MAX_CLOCK_AHEAD_NS, past which nothing more is taken of a clock that is ahead.
OFF_NS = 10 * _SECOND_NS
#: An agent that is heard is measured again long before (KEPT_NS): an older offset says nothing of now.
FRESH_NS = 3_600 * _SECOND_NS
#: By how much clocks are counted to be off, for metrics.
STEPS_NS = (_SECOND_NS, OFF_NS, 120 * _SECOND_NS)


class Offset(NamedTuple):
    """An agent's wall clock minus the collector's lies within, bounds included."""

    lower_ns: int
    upper_ns: int
    measured_unix_ns: int  # by the collector's clock

    @property
    def width_ns(self) -> int:
        return self.upper_ns - self.lower_ns

    @property
    def surely_ns(self) -> int:
        """By how much it is off at the least, whichever way; 0: it may be right."""
        return max(self.lower_ns, -self.upper_ns, 0)

    def fresh(self, now_unix_ns: int) -> bool:
        """Whether it says something of now. One of a time that is to come is of a clock of ours that was set back since."""
        return abs(now_unix_ns - self.measured_unix_ns) < FRESH_NS


def clock_offset(
    t_unix_ns: int, *, said_ns: int, since_ns: int, received_ns: int, received_unix_ns: int
) -> Offset | None:
    """The offset of an agent that read `t_unix_ns` at least `since_ns` (by its own clock) after we said something.

    `said_ns` (not after we did) and `received_ns` are of a clock of ours that nobody sets; `received_unix_ns` is our wall
    clock at `received_ns`. None: an older agent, which says 0, or what cannot be.
    """
    if not (0 < t_unix_ns <= _MAX_UNIX_NS and 0 <= since_ns <= MAX_SINCE_NS):
        return None
    earliest_ns = said_ns + since_ns * (1_000_000 - DRIFT_PPM) // 1_000_000
    way_ns = received_ns - earliest_ns
    if way_ns < 0:
        return None
    lower_ns = t_unix_ns - received_unix_ns
    return Offset(lower_ns, lower_ns + way_ns, received_unix_ns)


def worth_keeping(kept: Offset | None, new: Offset) -> bool:
    """Whether `new` is to take the place of what is kept: rarely, because each is written to the store."""
    if kept is None or new.lower_ns > kept.upper_ns + MOVED_NS or new.upper_ns < kept.lower_ns - MOVED_NS:
        return True
    age_ns = abs(new.measured_unix_ns - kept.measured_unix_ns)  # our clock may have been set back
    if new.width_ns > 2 * max(kept.width_ns, NARROW_NS):
        return age_ns >= 2 * KEPT_NS  # a narrow one may still come
    return age_ns >= KEPT_NS or (kept.width_ns > NARROW_NS and 2 * new.width_ns <= kept.width_ns)
