"""What people say of keeping: holds, the days from which duties count, the site's own term. Appended, chained. Pure.

A later word on the same thing replaces the earlier and keeps it; a hold ends only by its release.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import NamedTuple

from flopmeter.collector.chained_words import NO_HASH, Fault, check_text, link_fault
from flopmeter.collector.errors import RetentionError, RetentionRefused
from flopmeter.contract.errors import ContractError
from flopmeter.contract.ids import check_label

#: First in the hash of every row, so that it is the hash of nothing else.
DOMAIN = b"flopmeter-retention/1\0"
HOLD = "hold"  # over a run; run "": over everything
RELEASE = "release"  # of the hold whose number is the value
PLACED = "placed"  # the value is the day on which the run's model was placed on the market
DROPPED = "dropped"  # … on which it was given up: it never will be, and its retention counts from there
WITHDRAWN = "withdrawn"  # the last day on which it was deployed
YEARS = "years"  # the value is the site's own term, from the market date
KINDS = (HOLD, RELEASE, PLACED, DROPPED, WITHDRAWN, YEARS)
DAYS = (PLACED, DROPPED, WITHDRAWN)
#: reference/regulations.md 13.25: 10 years after the model's market date.
DEFAULT_YEARS = 10
MAX_YEARS = 100
HOUR_NS = 3_600_000_000_000
_WHOLE = re.compile(r"(0|[1-9][0-9]{0,17})\Z")
#: A day is a civil day somewhere: it begins first at UTC+14 and ends last at UTC-12.
EARLIEST_NS, LATEST_NS = 14 * HOUR_NS, -12 * HOUR_NS


class SaidRow(NamedTuple):
    """A row of the retention table, in the order of its columns."""

    said_no: int
    unix_ns: int  # the clock of whoever said it
    position: int  # of the last record in the books then
    kind: str  # one of KINDS
    run: str
    value: str  # "" of a hold; a number; a day as 2027-03-01
    who: str
    why: str
    prev_hash: bytes
    hash: bytes


@dataclass(frozen=True, slots=True)
class Said:
    """What the rows come to."""

    holds: Mapping[int, SaidRow] = field(default_factory=dict)  # those that stand, by number
    days: Mapping[tuple[str, str], SaidRow] = field(default_factory=dict)  # (run, kind) -> the last word
    years: int = DEFAULT_YEARS
    years_said: SaidRow | None = None

    def market_day(self, run: str) -> tuple[date, SaidRow] | None:
        """From which day on the run's duties count, and who said so: the later word of placed and dropped."""
        rows = [r for kind in (PLACED, DROPPED) if (r := self.days.get((run, kind)))]
        if not rows:
            return None
        last = max(rows, key=lambda r: r.said_no)
        return date.fromisoformat(last.value), last

    def withdrawn_day(self, run: str) -> tuple[date, SaidRow] | None:
        """The last day of its deployment; None: it may still be deployed, or be so again."""
        market = self.market_day(run)
        if market is not None and market[1].kind == DROPPED:
            return market
        row = self.days.get((run, WITHDRAWN))
        if row is None or market is None or date.fromisoformat(row.value) < market[0]:
            return None
        return date.fromisoformat(row.value), row


def said_of(rows: Iterable[SaidRow]) -> Said:
    """What all of them together say. Their chain is not looked at (`check_chain` does)."""
    holds: dict[int, SaidRow] = {}
    days: dict[tuple[str, str], SaidRow] = {}
    years = None
    for row in rows:
        if row.kind == HOLD:
            holds[row.said_no] = row
        elif row.kind == RELEASE:
            holds.pop(int(row.value), None)
        elif row.kind == YEARS:
            years = row
        else:
            days[row.run, row.kind] = row
    return Said(holds, days, DEFAULT_YEARS if years is None else int(years.value), years)


def next_row(
    before: SaidRow | None,
    position: int,
    kind: str,
    run: str,
    value: str,
    *,
    who: str,
    why: str,
    unix_ns: int,
) -> SaidRow:
    """The row behind `before`. Raises RetentionError where a text may not stand in the books."""
    number, prev_hash = (0, NO_HASH) if before is None else (before.said_no, before.hash)
    unsealed = SaidRow(number + 1, unix_ns, position, kind, run, value, who, why, prev_hash, NO_HASH)
    check_form(unsealed)
    return unsealed._replace(hash=row_hash(unsealed))


def row_hash(row: SaidRow) -> bytes:
    """SHA-256 over the domain, the hash before, and all that the row says."""
    said = json.dumps(
        [str(v) for v in row[:8]], separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()
    return hashlib.sha256(DOMAIN + row.prev_hash + said).digest()


def check_form(row: SaidRow) -> None:
    """Raise RetentionError unless the row is one that could be said, whatever was said before."""
    if row.kind not in KINDS:
        raise RetentionError(f"kind: expected one of {', '.join(KINDS)}, got {row.kind[:40]!r}")
    check_text(RetentionError, "who", row.who, "say who says it: --who")
    check_text(RetentionError, "why", row.why, "say why, in a sentence that an auditor can follow: --why")
    if row.run:
        try:
            check_label("run", row.run)
        except ContractError as e:
            raise RetentionError(str(e), "name the run as `flopmeter runs list` does") from e
    if bool(row.run) is (row.kind in (RELEASE, YEARS)) and row.kind != HOLD:
        wanted = "no run" if row.run else "a run"
        raise RetentionError(f"run: expected {wanted} with {row.kind}, got {row.run!r}")
    if row.kind in DAYS:
        day = day_of("day", row.value)
        if day > latest_day(row.unix_ns):
            raise RetentionError(
                f"day: expected one that has begun, got {day}",
                "say it when it has happened: what is only planned starts no term",
            )
    elif row.kind in (RELEASE, YEARS):
        whole = bool(_WHOLE.match(row.value))
        if not whole or (row.kind == YEARS and int(row.value) > MAX_YEARS):
            raise RetentionError(
                f"{row.kind}: expected a whole number"
                + (f" from 0 to {MAX_YEARS}" if row.kind == YEARS else "")
                + f", got {row.value[:40]!r}"
            )
    elif row.value:
        raise RetentionError(f"hold: expected no value, got {row.value[:40]!r}")


def check_release(said: Said, number: int) -> None:
    """Raise RetentionRefused unless that hold stands."""
    if number not in said.holds:
        raise RetentionRefused(
            f"hold {number}: expected a hold that stands ({', '.join(map(str, said.holds)) or 'there is none'})",
            "`flopmeter collector hold list` has them",
        )


def check_chain(rows: Iterable[SaidRow]) -> Fault | None:
    """Walk the rows in order: numbers without holes, each hash over the one before, each one that could be said."""
    good: list[SaidRow] = []
    for number, row in enumerate(rows, 1):
        fault = link_fault(row, number, good[-1].hash if good else NO_HASH, row_hash)
        if fault is not None:
            return fault
        if good and row.position < good[-1].position:
            return Fault(number, "position", f"not before {good[-1].position}", row.position)
        try:
            check_form(row)
            if row.kind == RELEASE:
                check_release(said_of(good), int(row.value))
        except RetentionError as e:
            return Fault(number, "kind, run, value, who, why", "what could be said then", str(e))
        good.append(row)
    return None


def day_of(what: str, text: str) -> date:
    """A day written as 2027-03-01. Raises RetentionError."""
    try:
        day = date.fromisoformat(text)
    except ValueError:
        day = None
    if day is None or day.isoformat() != text:
        raise RetentionError(f"{what}: expected a day as 2027-03-01, got {text[:40]!r}")
    return day


def latest_day(unix_ns: int) -> date:
    """The latest date that it was anywhere then: what a term counts from is never dated too early."""
    return _day(unix_ns + EARLIEST_NS)


def earliest_day(unix_ns: int) -> date:
    """The earliest date that it is anywhere then: a day that this has reached has begun everywhere."""
    return _day(unix_ns + LATEST_NS)


def _day(unix_ns: int) -> date:
    return datetime.fromtimestamp(unix_ns // 10**9, UTC).date()
