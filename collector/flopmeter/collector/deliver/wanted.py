"""Which events a sink gets: by type, severity and regime. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Wanted:
    """Empty means all. Every list that is not empty must agree."""

    types: tuple[str, ...] = ()  # whole ("threshold.crossed") or the word they begin with ("threshold")
    severities: tuple[str, ...] = ()
    regimes: tuple[str, ...] = ()  # an event that is about no regime is then not wanted

    def wants(self, kind: str, severity: str, data: Mapping[str, Any]) -> bool:
        return (
            (not self.types or any(is_of(kind, t) for t in self.types))
            and (not self.severities or severity in self.severities)
            and (not self.regimes or data.get("regime") in self.regimes)
        )


EVERYTHING = Wanted()


def is_of(kind: str, family: str) -> bool:
    """Whether event type `kind` is `family`, or of the family: threshold.crossed is of threshold."""
    return kind == family or kind.startswith(family + ".")
