"""What training code claims of one run, by the hour: kept, so that only hours that new records touched are looked at again. Pure."""

from collections.abc import Iterable, Mapping
from operator import itemgetter

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
    """Told of claims hour by hour; `cut` forgets those from an hour on, which are then told again.

    Of each hour it keeps what it comes to; the claims themselves only of hours that open something, and of the last.
    """

    def __init__(self) -> None:
        self._said: dict[int, Said] = {}
        self._rows: dict[int, list[tuple[ClaimKey, ClaimHour]]] = {}
        #: First claims of a claimer: what they count for, the counters decide.
        self.openings: dict[ClaimKey, ClaimHour] = {}
        #: From which hour on it is to be told; None: it is whole.
        self.lacks: int | None = 0

    def cut(self, hour: int) -> None:
        """Forget that hour, all behind it, and the last one before, whose claims are to be told again."""
        begin = min(hour, max((h for h in self._said if h < hour), default=hour))
        for late in [h for h in self._said if h >= begin]:
            del self._said[late]
            self._rows.pop(late, None)
        self.openings = {key: row for key, row in self.openings.items() if key.hour < begin}
        self.lacks = begin if self.lacks is None else min(begin, self.lacks)

    def extend(self, rows: Iterable[tuple[ClaimKey, ClaimHour]]) -> None:
        """All claims of the hours that it lacks."""
        told: dict[int, list[tuple[ClaimKey, ClaimHour]]] = {}
        for key, row in rows:
            told.setdefault(key.hour, []).append((key, row))
            if row.opening_flop:
                self.openings[key] = row
        opening = {key.hour for key in self.openings}
        last = max(told, default=None)
        for hour, claimed in told.items():
            claimed.sort(key=itemgetter(0))
            self._said[hour] = said_of(claimed, ())
            if hour in opening or hour == last:
                self._rows[hour] = claimed
        self.lacks = None

    def compared(self, until: Mapping[tuple[int, int], Until]) -> Compared | None:
        """As law.progress.compared has it of all claims; None: there is none."""
        if not self._said:
            return None
        allowed, before, left_out = opened(self.openings, until)
        said = dict(self._said)
        for hour in {key.hour for key in allowed}:
            said[hour] = said_of(self._rows[hour], allowed)
        return compared_of(said, self._rows[max(said)], before, left_out=left_out)
