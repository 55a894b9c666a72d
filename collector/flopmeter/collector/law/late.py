"""When a line was met that the books say is met: by late records, it was earlier. Pure.

A collector that was down, or an agent whose network was, brings work of hours ago. What is due then is due since the work
was done, and not since somebody heard of it: "within two weeks after that requirement is met" (reference/regulations.md
section 4, Art. 52(1)). The books tell time by hours, so that the beginning of the first hour counts: the safe reading.
"""

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, date, datetime

from flopmeter.collector.books import HOUR_NS, Slot
from flopmeter.collector.spelling import time_text

from .events import THRESHOLD_CROSSED, NewEvent
from .regimes import Regime, due_after_ns

#: Up to here a record is on its way: an hour of the books, a window, and agents that come again after a short outage.
LATE_NS = 2 * HOUR_NS
#: No record tells of more (ingest.encode.MAX_BRIDGE_NS is 400 days). What seems to span more is of a clock that was set
#: within the window, as that of a machine that began in 1970; when it ended is what is known of it.
MOST_HOURS = 401 * 24


def met_since(slots: Iterable[Slot], at_unix_ns: int) -> int | None:
    """The beginning of the work by which the books moved, in Unix ns; None: it was just done, or there was none."""
    first = min((slot.hour if slot.back > MOST_HOURS else slot.first for slot in slots), default=None)
    if first is None or at_unix_ns - first * HOUR_NS <= LATE_NS:
        return None
    return max(0, first) * HOUR_NS


def dated(event: NewEvent, regime: Regime, since_unix_ns: int) -> NewEvent:
    """A crossing by work of then: not before the law bound anybody."""
    since = max(since_unix_ns, 0 if regime.effective is None else _midnight(regime.effective))
    if event.type != THRESHOLD_CROSSED or since >= event.time_unix_ns:
        return event
    after_ns = due_after_ns(regime)
    text = time_text(since)
    data = {
        **event.data,
        "message": f"{event.data['message']} Records came late: what met it was done at some time since {text}, and what "
        "is due is reckoned from then, the earliest that it can be.",
        "met_since": text,
        "due": event.data["due"] if after_ns is None else time_text(since + after_ns),
    }
    return replace(event, data=data)


def _midnight(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1_000_000_000
