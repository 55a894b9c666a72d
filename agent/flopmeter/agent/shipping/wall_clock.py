"""What one stream tells the collector of the agent's wall clock, and when. No transport.

The collector knows when it said something (its Challenge, an Ack) and when our word came. If our word says how long after
that something it was sent, the collector knows between which two instants of its own clock ours was read: a round trip.
"""

import time
from collections.abc import Callable
from typing import NamedTuple


class ClockSaid(NamedTuple):
    """As Heartbeat in ingest.proto."""

    t_unix_ns: int
    acked_seq: int  # 0: no Ack came on this stream
    since_ack_ns: int


def raw_ns() -> int:
    """A clock that nobody sets and nobody slews: chrony may run CLOCK_MONOTONIC 8 % fast (maxslewrate)."""
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)


class WallClock:
    """Of one stream: an Ack of another one is unknown to the collector."""

    def __init__(
        self, every_s: float, unix_ns: Callable[[], int], steady_ns: Callable[[], int] = raw_ns
    ) -> None:
        """`every_s`: how often an Ack is answered by the clock."""
        self._every_ns = int(every_s * 1e9)
        self._unix_ns, self._steady_ns = unix_ns, steady_ns
        self._acked_seq = self._acked_at_ns = 0
        self._answered_ns = steady_ns()  # the Hello says it, too
        self.due = False  # an Ack came just now: said at once, the clock is known within a round trip

    def acked(self, seq: int) -> None:
        """An Ack of `seq` was received. Of several of one number the first counts, as the collector has it."""
        if seq > self._acked_seq:
            self._acked_seq, self._acked_at_ns = seq, self._steady_ns()
            self.due = self._acked_at_ns - self._answered_ns >= self._every_ns

    def said(self) -> ClockSaid:
        """To be sent now."""
        if self.due:
            self.due, self._answered_ns = False, self._steady_ns()
        # In this order: what passes between the two makes the time since the Ack shorter than it was, never longer.
        since_ns = self._steady_ns() - self._acked_at_ns if self._acked_seq else 0
        return ClockSaid(self._unix_ns(), self._acked_seq, since_ns)
