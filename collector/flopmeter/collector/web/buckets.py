"""How much one asker may ask: so many at once, and so many a second. Pure: the clock is given."""

import math
from collections import OrderedDict

#: Askers remembered; past this the one that asked longest ago is forgotten, which can only make its bucket full.
MAX_KEYS = 10_000


class Buckets:
    """A token bucket per key. One thread at a time."""

    def __init__(self, per_s: float, burst: int) -> None:
        self._per_s, self._burst = per_s, burst
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()  # key -> (what is left, when)

    def wait_s(self, key: str, now_s: float, cost: int = 1) -> int:
        """Take `cost`; 0: it may. Else whole seconds until it could, and nothing was taken."""
        left, since = self._left.get(key, (float(self._burst), now_s))
        left = min(float(self._burst), left + max(0.0, now_s - since) * self._per_s)
        wait = 0 if left >= cost else max(1, math.ceil((cost - left) / self._per_s))
        self._left[key] = (left if wait else left - cost, now_s)
        self._left.move_to_end(key)
        while len(self._left) > MAX_KEYS:
            self._left.popitem(last=False)
        return wait
