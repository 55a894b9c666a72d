"""New events as they are raised, for as long as somebody looks: also across a restart, or another store in its place."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from flopmeter.collector.errors import StoreError
from flopmeter.collector.report.queries import Reader, reading

from .reading import Found, Wanted, events_after, events_page, last_event


def follow(
    store: Path,
    wanted: Wanted,
    count: int,
    *,
    interval_s: float,
    tell: Callable[[str], None],
    sleep: Callable[[float], object] = time.sleep,
) -> Iterator[Found]:
    """The newest `count`, then each as it is raised, without end. `tell` hears why nothing can be read meanwhile.

    The first look raises StoreError: a name that was mistyped is not waited for.
    """
    with reading(store) as reader:
        page = events_page(reader, wanted, count)
        last = last_event(reader)
    yield from page.events
    failing = ""
    while True:
        sleep(interval_s)
        try:
            with reading(store) as reader:
                same = _holds(reader, last)
                new = events_after(reader, wanted, last[0]) if same else []
                now = last_event(reader)
        except StoreError as e:
            if str(e) != failing:
                failing = str(e)
                tell(f"waiting: {e}")
            continue
        failing = ""
        if not same:
            tell(
                "the store is another than before, or an older copy: going on with what it raises from now on"
            )
        last = now
        yield from new


def _holds(reader: Reader, last: tuple[int, str]) -> bool:
    """Whether the store still has the event that was last: one that was set back, or replaced, has not."""
    row = reader.rows("SELECT id FROM events WHERE event_no = ?", (last[0],)).fetchone()
    return last[0] == 0 or (row is not None and row[0] == last[1])
