"""What training code claims of one run, by the hour: kept, so that only hours that new records touched are looked at again. Pure."""

from collections.abc import Iterable, Mapping

from flopmeter.collector.law.progress import (
    ClaimHour,
    ClaimKey,
    Compared,
    Said,
    Until,
    compared_of,
    opened,
    said_of,
)


class ClaimsBook:
    """Told of claims hour by hour; `cut` forgets those from an hour on, which are then told again."""

    def __init__(self) -> None:
        self._by_hour: dict[int, list[tuple[ClaimKey, ClaimHour]]] = {}
        self._said: dict[int, Said] = {}  # of hours that open nothing
        #: First claims of a claimer: what they count for, the counters decide.
        self.openings: dict[ClaimKey, ClaimHour] = {}
        #: From which hour on it is to be told.
        self.lacks: int | None = 0

    def cut(self, hour: int) -> None:
        for late in [h for h in self._by_hour if h >= hour]:
            del self._by_hour[late]
            self._said.pop(late, None)
        self.openings = {key: row for key, row in self.openings.items() if key.hour < hour}
        self.lacks = hour if self.lacks is None else min(hour, self.lacks)

    def extend(self, rows: Iterable[tuple[ClaimKey, ClaimHour]]) -> None:
        """All claims of the hours that it lacks."""
        told: dict[int, list[tuple[ClaimKey, ClaimHour]]] = {}
        for key, row in rows:
            told.setdefault(key.hour, []).append((key, row))
            if row.opening_flop:
                self.openings[key] = row
        opening = {key.hour for key in self.openings}
        for hour, claimed in told.items():
            self._by_hour[hour] = sorted(claimed, key=lambda c: c[0])
            if hour not in opening:
                self._said[hour] = said_of(self._by_hour[hour], ())
        self.lacks = None

    def compared(self, until: Mapping[tuple[int, int], Until]) -> Compared | None:
        """As law.progress.compared has it of all claims; None: there is none."""
        if not self._by_hour:
            return None
        allowed, before, left_out = opened(self.openings, until)
        said = dict(self._said)
        for hour in {key.hour for key in self.openings}:
            said[hour] = said_of(self._by_hour[hour], allowed)
        return compared_of(said, self._by_hour[max(self._by_hour)], before, left_out=left_out)
