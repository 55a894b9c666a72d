"""How often one address may be refused before it is not even looked at. Pure: the clock is given."""

import ipaddress

#: An operator who mistypes a token some times is heard; a machine that guesses is not.
REFUSALS, PER_S = 10, 60.0
#: Addresses remembered; past this the oldest are forgotten.
MAX_ADDRESSES = 10_000
_V6_PREFIX = 64  # one customer has that many


class Rates:
    """Counts refusals per address. One thread at a time."""

    def __init__(self) -> None:
        self._refused: dict[str, tuple[float, int]] = {}  # address -> begin of its minute, count

    def wait_s(self, address: str, now_s: float) -> int:
        """How long that address must wait; 0 = it need not."""
        since, count = self._refused.get(_network(address), (now_s, 0))
        left = since + PER_S - now_s
        return max(1, round(left)) if count >= REFUSALS and left > 0 else 0

    def refused(self, address: str, now_s: float) -> None:
        """Note a refusal."""
        network = _network(address)
        since, count = self._refused.pop(network, (now_s, 0))
        if now_s - since >= PER_S:
            since, count = now_s, 0
        self._refused[network] = (since, count + 1)  # at the end: the oldest stand first
        while len(self._refused) > MAX_ADDRESSES:
            del self._refused[next(iter(self._refused))]


def _network(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, _V6_PREFIX), strict=False))
    return str(parsed)
