"""How many connections there may be, of one address and of all. Pure.

The last places are kept for addresses that hold few: a probe of /healthz finds one whoever holds the rest.
"""

MAX_CONNECTIONS = 512
#: A browser opens six, and more than one person may come from one address.
MAX_OF_ONE = 128
#: Kept for addresses that have at most FEW.
RESERVED, FEW = 64, 4


class Places:
    """One thread at a time."""

    def __init__(self, *, total: int = MAX_CONNECTIONS, of_one: int = MAX_OF_ONE) -> None:
        self._total, self._of_one = total, of_one
        self._open: dict[str, int] = {}
        self.taken = 0

    def take(self, address: str) -> bool:
        """Whether there is one for that address; then it is taken."""
        held = self._open.get(address, 0)
        left = self._total - self.taken
        if held >= self._of_one or left <= 0 or (left <= RESERVED and held >= FEW):
            return False
        self._open[address] = held + 1
        self.taken += 1
        return True

    def leave(self, address: str) -> None:
        held = self._open[address] - 1
        self.taken -= 1
        if held:
            self._open[address] = held
        else:
            del self._open[address]
