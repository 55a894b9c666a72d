"""How grave an event is: a pure function of the event, one table. Pure.

What a person must do, not how large a number is: critical starts or ends a legal clock or means that evidence cannot
be trusted; a warning asks for somebody this week; a notice is read; info is for the record.
"""

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any


class Severity(StrEnum):
    """In rising order."""

    INFO = "info"
    NOTICE = "notice"
    WARNING = "warning"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        """0 for info; for comparing."""
        return list(Severity).index(self)


_Data = Mapping[str, Any]
#: What meeting a threshold does (law.regimes.ACTS) where something must be handed to an authority for it.
_FILED = ("notification", "submission")
_DAY_S = 86_400


def _filed(data: _Data) -> Severity:
    """A clock for a filing runs from here; of coverage and documentation there is more time."""
    return Severity.CRITICAL if data.get("act") in _FILED else Severity.WARNING


def _undetermined(data: _Data) -> Severity:
    """Probably past the line, so that a clock may be running; or only possibly."""
    return _filed(data) if data.get("estimate") == "crossed" else Severity.NOTICE


def _capacity(data: _Data) -> Severity:
    """Met for certain, or only possibly."""
    return _filed(data) if data.get("verdict") == "crossed" else Severity.NOTICE


def _near(data: _Data) -> Severity:
    """A day or less: somebody must act today."""
    lead = data.get("lead_seconds")
    soon = isinstance(lead, str) and lead.isascii() and lead.isdigit() and int(lead[:12]) <= _DAY_S
    return Severity.CRITICAL if soon else Severity.WARNING


#: By type; one that is not here is a warning: it was not thought of, and is not to be missed.
TABLE: Mapping[str, Severity | Callable[[_Data], Severity]] = {
    "threshold.crossed": _filed,
    "threshold.forecast": _filed,
    "threshold.undetermined": _undetermined,
    "threshold.approaching": Severity.NOTICE,
    "plan.exceeds": Severity.WARNING,
    "fleet.capacity": _capacity,
    "deadline.near": _near,
    "deadline.overdue": Severity.CRITICAL,
    "coverage.lost": Severity.WARNING,
    "agent.silent": Severity.WARNING,
    "evidence.fork": Severity.CRITICAL,
    "method.disagrees": Severity.WARNING,
    "usage.unattributed": Severity.NOTICE,
    "sink.test": Severity.INFO,
}


def severity_of(kind: str, data: _Data) -> Severity:
    """The severity of an event of type `kind` that says `data`."""
    found = TABLE.get(kind, Severity.WARNING)
    return found if isinstance(found, Severity) else found(data)
