"""An estimate that a site declared for a run: the second method beside the counters. Pure.

It is kept as it was written (an Entry, exact texts), so that the event which compares it can hold all of its
inputs, and fsck can compute it again from there.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flopmeter.collector.errors import EstimateError
from flopmeter.contract.w_table import WTable

from . import hardware
from .architecture import shape
from .fields import Entry, Fields
from .hardware import period

METHODS = ("hardware", "architecture")
#: After both the estimate was declared and its time was over: how long records may still be on their way.
GRACE_NS = 3_600_000_000_000
_HOUR_NS = 3_600_000_000_000
_OWN = ("run", "method", "by", "at", "complete", "as_of")


@dataclass(frozen=True, slots=True)
class Declared:
    """One [[estimate]]. `flop` is executed FLOP: what counters see."""

    run: str
    method: str
    by: str
    at_unix_ns: int
    as_of_unix_ns: int | None  # covers the run until this full hour; None: the whole run, which is over
    flop: int
    formula: str
    entry: Entry

    @property
    def canonical(self) -> str:
        """All of it as one spelling of JSON."""
        return json.dumps(self.entry, ensure_ascii=False, sort_keys=True, separators=(",", ":"))

    @property
    def digest(self) -> str:
        """SHA-256 of `canonical`, hex: says which estimate an event is about."""
        return hashlib.sha256(self.canonical.encode()).hexdigest()

    @property
    def before_hour(self) -> int | None:
        """Hours since 1970 that are compared end before this one; None: all of the run."""
        return None if self.as_of_unix_ns is None else self.as_of_unix_ns // _HOUR_NS

    @property
    def due_unix_ns(self) -> int:
        """From when the collector compares it."""
        return max(self.at_unix_ns, self.as_of_unix_ns or 0) + GRACE_NS


def declared(entry: Entry, where: Callable[[str], str], table: WTable) -> Declared:
    """Read one [[estimate]]. Raises EstimateError naming place and key."""
    f = Fields({k: v for k, v in entry.items() if k in _OWN}, where)
    run, method = f.text("run"), f.one_of("method", METHODS)
    by, at = f.text("by", "who declares it"), f.instant("at")
    complete = f.has("complete") and f.one_of("complete", ("true", "false")) == "true"
    as_of = f.instant("as_of") if f.has("as_of") else None
    if complete == (as_of is not None):
        raise EstimateError(
            f"{where('complete')}expected complete = true (the run is over) or as_of = a time, got "
            f"{'both' if complete else 'neither'}",
            "a plan's end must not be compared with what a running run has done so far; see docs/estimate.md",
        )
    if as_of is not None and as_of > at:
        raise f.fault("as_of", "a time not after `at`: what is still to come is a plan", entry["as_of"])
    if as_of is not None and as_of % _HOUR_NS:
        raise f.fault("as_of", "a full hour in UTC: the books can be cut there", entry["as_of"])
    inputs = {k: v for k, v in entry.items() if k not in _OWN}
    flop, formula = _computed(method, inputs, where, table)
    return Declared(run, method, by, at, as_of, flop, formula, entry)


def _computed(method: str, inputs: Entry, where: Callable[[str], str], table: WTable) -> tuple[int, str]:
    if method == "architecture":
        found = shape(inputs, where)
        return found.executed_flop, found.formula
    if "period" not in inputs:  # one period, its keys beside the rest
        return hardware.total([period(inputs, where, table)]), "N L H U"
    f = Fields(inputs, where)
    periods = [period(p, _of_period(where, i), table) for i, p in enumerate(f.entries("period"), 1)]
    f.done()
    return hardware.total(periods), "sum of N L H U"


def _of_period(where: Callable[[str], str], number: int) -> Callable[[str], str]:
    return lambda _key: f"{where(f'period#{number}')}period {number}: "


def from_document(document: Any, table: WTable) -> Declared:
    """The estimate that an event holds. Raises EstimateError."""
    if not isinstance(document, dict):
        raise EstimateError(f"estimate: expected an object, got {document!r:.60}")
    return declared(document, lambda _key: "", table)
