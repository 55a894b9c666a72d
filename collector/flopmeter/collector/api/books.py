"""All that answers are made from: the store, and what was read of it before. One process has one.

What is asked of lists is answered from a `View`, which is made again when the books moved: by whoever asks (`fresh`), or
in the background at an interval several times as long as it takes, so that a big fleet's pages cost its collector
little. What a person just said (events, deadlines) is always read from the store.
"""

import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

from flopmeter.collector.books import GroupKey
from flopmeter.collector.errors import RegimeError, StoreChangedError
from flopmeter.collector.figures import Tally
from flopmeter.collector.law.events import AGENT_SILENT
from flopmeter.collector.law.laws import Laws, read_laws
from flopmeter.collector.law.signing import PublicKey, read_public_key
from flopmeter.collector.report.documents import RunRows
from flopmeter.collector.report.expected import read_expected
from flopmeter.collector.report.progress_queries import progress_of, untils
from flopmeter.collector.report.queries import Reader, asked, reading
from flopmeter.collector.report.sites import NO_SITES, Sites, read_sites
from flopmeter.collector.store_path import store_file

from .apart import Commands
from .curve_book import CurveBook
from .curves import Curves, most_rows
from .event_index import EventIndex
from .fleet_rows import FleetRows
from .numbers import MINUTE_NS, Numbers, first_hour, numbers_of
from .paging import Orders
from .recent import Sparks
from .touched import Touched
from .view import Beside, View, view_of

log = logging.getLogger(__name__)

_FORECASTS = """
    SELECT forecast_no, run, unix_ns, method, data FROM forecasts WHERE forecast_no IN (
        SELECT max(forecast_no) FROM forecasts WHERE forecast_no > ? GROUP BY run)"""
_DAY_NS = 24 * 60 * MINUTE_NS
#: A store whose collector starts while it is read is read again; more often than this it never settles.
TRIES = 5


class Books:
    """Threads may ask; one at a time refreshes."""

    def __init__(
        self,
        store: Path,
        *,
        regimes: Path | None = None,
        regime_key: Path | None = None,
        expect: Path | None = None,
        sites: Path | None = None,
        keys: Path | None = None,
        fresh: bool = True,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        """`fresh`: whoever asks waits for what is newest; else `refresh` is called by somebody beside."""
        self.store, self.regimes_dir, self.clock = store_file(store), regimes, clock
        self._begun_unix_ns = clock()
        self._regime_key = regime_key
        self._fresh = fresh
        self._expect = () if expect is None else read_expected(expect)
        self.sites: Sites = NO_SITES if sites is None else read_sites(sites)
        self._laws: tuple[int, Laws] | None = None
        self._with_sparks = fresh  # in a background's first view they are left out
        self._begin()
        self._view: View | None = None
        self._refreshing = Lock()
        self.refreshes = 0
        self.apart = Commands(self.store, regimes=regimes, keys=keys, clock=clock)

    def _begin(self) -> None:
        """Nothing was read yet."""
        self.events = EventIndex()
        self.orders = Orders()
        self.curves = Curves()
        self._fleet = FleetRows()
        self._sparks = Sparks()
        self._had_sparks = False
        self._forecasts: dict[str, tuple[int, str, dict[str, Any]]] = {}
        self._last_forecast = 0
        self._seen_events = 0
        self._touched: Touched | None = None
        self._file: tuple[int, int] | None = None
        #: Of which view, and its runs that are to be read ahead, the longest last.
        self._ahead: tuple[View, list[RunRows]] | None = None

    @property
    def decoded(self) -> int:
        """Records of agents that were decoded since the start."""
        return self._fleet.decoded

    @contextmanager
    def reading(self) -> Iterator[Reader]:
        """One state of the store. Raises StoreError."""
        with reading(self.store) as reader:
            yield reader

    def view(self) -> View:
        """What lists are answered from. Raises StoreError where none can be made."""
        if self._view is None or self._fresh:
            self.refresh()
        assert self._view is not None
        return self._view

    def newest(self, instants: Iterable[int | None]) -> int:
        """`as_of` of an answer that is read from the store when it is asked for: the newest instant that it rests on, so
        that it does not move by itself. Of one that rests on nothing yet: when this process began.
        """
        return max((i for i in instants if i is not None), default=self._begun_unix_ns)

    def refresh(self) -> bool:
        """Make the view again if anything moved, or a minute has passed. Whether it was made."""
        with self._refreshing:
            for attempt in range(TRIES):
                try:
                    file = self._which_file()
                    with self.reading() as reader:
                        made = self._refresh(reader, file)
                except StoreChangedError:
                    if attempt == TRIES - 1:
                        raise
                else:
                    return made
        raise AssertionError

    def laws(self, change: int) -> Laws:
        """The regimes by which runs are judged: the shipped ones and the site's; read again when the collector's changed."""
        if self._laws is None or self._laws[0] != change:
            try:
                laws = read_laws(self.regimes_dir, self._key())
            except RegimeError as e:  # the collector goes on with what it has, and so do its pages
                log.warning("%s: its regimes cannot be read: %s", self.regimes_dir, e)
                laws = self._laws[1] if self._laws is not None else read_laws(None)
            self._laws = change, laws
        return self._laws[1]

    def _key(self) -> PublicKey | None:
        return (
            None
            if self._regime_key is None or self.regimes_dir is None
            else read_public_key(self._regime_key)
        )

    def _check_same(self, file: tuple[int, int] | None, numbers: Numbers) -> None:
        """Forget all that was read where another store lies in the place of the one it was read of: nothing of it holds."""
        old = self._view
        if self._file not in (None, file) or (old is not None and numbers.before(old.numbers)):
            log.warning("%s: another store, or an earlier one, is there now: it is read anew", self.store)
            self._begin()
            if self._laws is not None:
                self._laws = -1, self._laws[1]
        self._file = file

    def _which_file(self) -> tuple[int, int] | None:
        """Asked before it is opened: one that takes its place behind this is another the next time."""
        try:
            state = self.store.stat()
        except OSError:
            return None
        return state.st_dev, state.st_ino

    def _refresh(self, reader: Reader, file: tuple[int, int] | None) -> bool:
        now, numbers = self.clock(), numbers_of(reader)
        self._check_same(file, numbers)
        old = self._view
        with_sparks = self._with_sparks
        self._with_sparks = True  # the first view does not wait for them
        if (
            old is not None
            and old.numbers == numbers
            and old.as_of_unix_ns // MINUTE_NS == now // MINUTE_NS
            and self._had_sparks
        ):
            return False
        if self._touched is None:
            self._touched = Touched(numbers.position)
            hour: int | None = 0
        else:
            hour = first_hour(reader, self._touched.position)
            self._touched.note(numbers.position, hour)
        question = asked(now, self.laws(numbers.law).binding, self._expect)
        self.events.update(reader)
        agents = self._fleet.refresh(reader, self._newly_silent())
        self._read_forecasts(reader)
        side = reader.run_side(question, go_on=True)
        if with_sparks:
            since = hour if self._had_sparks else 0
            self._sparks.refresh(reader, since, now // _DAY_NS, side, question.table)
        self._had_sparks = with_sparks
        beside = Beside(self.events, self._forecasts, self._sparks if with_sparks else None)
        self._view = view_of(reader, question, numbers, side, agents, beside)
        self.refreshes += 1
        return True

    def read_ahead(self) -> bool:
        """Read the curve of one run that is long, and that nobody asked for yet: the longest of them. False: none is left.

        Raises StoreError.
        """
        view = self._view
        if view is None:
            return False
        if self._ahead is None or self._ahead[0] is not view:
            long = [r for r in view.rows.values() if self.curves.is_long(r)]
            self._ahead = view, sorted(long, key=most_rows)
        waiting = self._ahead[1]
        while waiting:
            rows = waiting.pop()
            if not self.curves.has(rows.run) and self.curves.room_for(rows):
                with self.reading() as reader:
                    self.curves.ahead(reader, rows, numbers_of(reader).position)
                return True
        return False

    def curve(self, reader: Reader, rows: RunRows, position: int) -> CurveBook:
        """The run's cumulative sums as of the reader's state, whose last record is `position`."""
        assert self._touched is not None, "a view was made before"
        return self.curves.of(reader, rows, self._touched, position)

    def progress(self, reader: Reader, rows: RunRows, view: View) -> dict[str, Any] | None:
        """`progress` of `runs show --json`, from what is kept of the run."""
        if view.claimed.isdisjoint(w.workload_no for w in rows.workloads):
            return None
        models, table = view.side.models, view.question.table
        with self.curves.lock:
            book = self.curve(reader, rows, numbers_of(reader).position)
            claims = self.curves.claims(reader, rows)
            found = claims.compared(untils(reader.rows, rows.workloads, claims.openings, models, table))
            if found is None:
                return None
            hours = book.split(found.hours)
            self.curves.refine(reader, rows, book, hours.part)
            tally = Tally()
            for key, sums in book.sums_of(hours).items():
                tally.add(GroupKey(0, *key[:-1], 0), key.dtype, sums)
        return progress_of(reader.rows, rows.workloads, found, tally, models, table)

    def _newly_silent(self) -> list[str]:
        events = self.events.events
        found = [
            e.subject.removeprefix("agent/") for e in events[self._seen_events :] if e.type == AGENT_SILENT
        ]
        self._seen_events = len(events)
        return found

    def _read_forecasts(self, reader: Reader) -> None:
        for number, run, unix_ns, method, text in reader.rows(_FORECASTS, (self._last_forecast,)):
            self._last_forecast = max(self._last_forecast, number)
            self._forecasts[run] = unix_ns, method, json.loads(text)
