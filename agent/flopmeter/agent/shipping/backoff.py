"""How long to wait before trying again: exponential, full jitter, capped."""

from random import Random

#: Reconnects after a collector's restart spread over a minute (reference/performance.md section 3:
#: a storm of 12,500 handshakes costs the collector some 20 CPU-seconds).
DEFAULT_CAP_S = 60.0
DEFAULT_BASE_S = 1.0


class Backoff:
    """`next_s()` draws from 0 to base x 2^n, at most `cap_s`; `reset()` after a success."""

    def __init__(self, rng: Random, base_s: float = DEFAULT_BASE_S, cap_s: float = DEFAULT_CAP_S) -> None:
        self._rng = rng
        self._base_s = base_s
        self._cap_s = cap_s
        self.failures = 0

    def next_s(self, at_least_s: float = 0.0) -> float:
        """The next wait; never under `at_least_s` (what the collector asked for), jittered above it."""
        ceiling = min(self._cap_s, self._base_s * 2.0 ** min(self.failures, 32))
        self.failures += 1
        return at_least_s + self._rng.uniform(0.0, ceiling)

    def longest(self) -> None:
        """From now on draw from the whole cap: trying sooner cannot help."""
        self.failures = max(self.failures, 32)

    def reset(self) -> None:
        self.failures = 0
