"""Times as people write them, and the whole hours in between: the grain of the books. Pure."""

import re
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from flopmeter.collector.errors import RegistryError

HOUR_NS = 3_600_000_000_000
_DATE = re.compile(r"\d{4}-\d\d-\d\d\Z", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_HINT = "write 2026-11-20, or 2026-11-20T14:00Z; without an offset UTC is meant"
_SHOWN = 60


def instant(what: str, text: str) -> int:
    """A date (its midnight) or a date and time, as unix ns; UTC where no offset is said. Raises RegistryError."""
    shown = text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."
    try:
        when = datetime.fromisoformat(text.strip())
    except ValueError as e:
        raise RegistryError(f"{what}: expected a date, or a date and time, got {shown!r}", _HINT) from e
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    try:
        unix_ns = (when - _EPOCH) // timedelta(microseconds=1) * 1000
    except OverflowError as e:
        raise RegistryError(f"{what}: expected a time that exists in UTC, got {shown!r}", _HINT) from e
    if not 0 <= unix_ns < 1 << 63:
        raise RegistryError(f"{what}: expected a time from 1970 to 2262, got {shown!r}", _HINT)
    return unix_ns


def end_of(what: str, text: str) -> int:
    """As `instant`, but a bare date means its whole day: the last nanosecond of it."""
    begun = instant(what, text)
    return min(begun + 24 * HOUR_NS - 1, (1 << 63) - 1) if _DATE.match(text.strip()) else begun


class Span(NamedTuple):
    """Whole hours [from_hour, until_hour), None = open; and what had to be said about it."""

    from_hour: int | None
    until_hour: int | None
    notes: tuple[str, ...]


def whole_hours(from_text: str | None, until_text: str | None) -> Span:
    """The whole hours within a stretch of time: its ends are moved inward, and `notes` say so. Raises RegistryError."""
    notes: list[str] = []
    since = until = None
    if from_text is not None:
        unix_ns = instant("--from", from_text)
        since = -(-unix_ns // HOUR_NS)
        if since * HOUR_NS != unix_ns:
            notes.append(f"--from {from_text} was moved to the next whole hour, {hour_text(since)}")
    if until_text is not None:
        unix_ns = instant("--until", until_text)
        until = unix_ns // HOUR_NS
        if until * HOUR_NS != unix_ns:
            notes.append(f"--until {until_text} was moved to the whole hour before, {hour_text(until)}")
    if since is not None and until is not None and since >= until:
        raise RegistryError(
            f"span: expected at least one whole hour between --from and --until, got {from_text} to {until_text}",
            "time is tagged by whole hours of UTC; a shorter job is tagged as a job, exactly: --job JOB",
        )
    return Span(since, until, tuple(notes))


def hour_text(hour: int) -> str:
    """2026-11-20T14:00Z."""
    return f"{_EPOCH + timedelta(hours=hour):%Y-%m-%dT%H:%MZ}"


def span_text(from_hour: int | None, until_hour: int | None) -> str:
    """The hours of a tag, in words."""
    if from_hour is None and until_hour is None:
        return "all of the time"
    if from_hour is None:
        assert until_hour is not None
        return f"until {hour_text(until_hour)}"
    if until_hour is None:
        return f"from {hour_text(from_hour)} on"
    return f"{hour_text(from_hour)} to {hour_text(until_hour)}"
