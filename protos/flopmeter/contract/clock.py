"""Time as the parts see it: passed in, never taken, so that tests own it."""

from typing import Protocol


class Clock(Protocol):
    """Two clocks of one node, in integer nanoseconds, and a wait that a stop can cut short."""

    def boot_ns(self) -> int:
        """CLOCK_BOOTTIME: never steps, runs through suspend. Durations are taken from this one."""
        ...

    def unix_ns(self) -> int:
        """Wall clock, which may step. Dates are taken from this one."""
        ...

    def wait(self, seconds: float) -> bool:
        """Wait at most `seconds`; True if a stop was asked for meanwhile."""
        ...
