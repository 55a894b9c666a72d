"""Putting the collector together: which part is given what, and in what order they start and stop."""

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from . import parts
from .errors import CollectorError, RegimeError, SettingsError
from .ingest import identity_rules
from .ingest.admission import Admission, read_admit_file
from .ingest.heads import Head
from .ingest.identity import RuleList
from .ingest.intake import Intake
from .ingest.server import REVIEW_S, IngestServer
from .ingest.writer import Writer
from .law.laws import Laws, read_laws
from .law.watch import LawWatch, last_good
from .metrics import Counters
from .settings import CollectorSettings, leads_ns, split_address
from .store.sqlite import SqliteStore
from .store_path import store_file

if TYPE_CHECKING:
    from pathlib import Path

    from flopmeter.cli.otlp import Exporter

    from .access.front import Front
    from .deliver.office import Office
    from .estimate.declared import Declared
    from .law.signing import PublicKey
    from .log.checkpoint import Checkpoint
    from .log.office import LogOffice
    from .log.witness_office import WitnessOffice
    from .metrics_books import BooksMetrics
    from .metrics_page import CollectorMetrics
    from .report.sites import Sites
    from .web.server import EdgeServer

log = logging.getLogger(__name__)
#: /healthz answers no when the event loop did not turn within this time.
ALIVE_TIMEOUT_S = 2.0


class _Named(NamedTuple):
    """What the settings name, read."""

    admission: Admission
    key: "PublicKey | None"  # that signs the law files
    laws: Laws | None  # None: faulty; then the store's last good ones hold
    fault: RegimeError | None
    estimates: "tuple[Declared, ...]"
    sites: "Sites | None"
    rules: RuleList


def _named(s: CollectorSettings) -> _Named:
    """Raises CollectorError where any of it is bad, before anything is opened."""
    admission = Admission(read_admit_file(s.admit) if s.admit else {}, s.admit_new)
    key = parts.regime_key(s)
    laws, fault = None, None
    try:
        laws = read_laws(s.regimes, key)
    except RegimeError as e:
        fault = e
        if not store_file(s.store).exists():  # there was never a good one
            raise parts.no_laws(e) from e
    estimates = parts.estimates_of(s.estimates) if s.estimates else ()
    sites = parts.sites_of(s.sites) if s.sites else None
    if s.expect:
        parts.check_expected(s.expect)
    rules = identity_rules.with_site(s.identity_rules)
    return _Named(admission, key, laws, fault, estimates, sites, rules)


class Collector:
    """All parts of one collector, opened in `start` and closed in `stop`, both on the event loop."""

    def __init__(
        self,
        settings: CollectorSettings,
        unix_ns: Callable[[], int] = time.time_ns,
        review_s: float | None = REVIEW_S,
        books_unix_ns: Callable[[], int] | None = None,
    ) -> None:
        """`books_unix_ns`: as of when the page is answered; None: this machine's clock."""
        self.settings = settings
        self._books_unix_ns = books_unix_ns
        self._review_s = review_s
        self._unix_ns = unix_ns
        self.address = self.http_address = self.enrol_address = self.page = ""
        self._front: Front | None = None
        self._http: EdgeServer | None = None
        self._otlp: Exporter | None = None
        self._office: Office | None = None
        self._log: LogOffice | None = None
        self._witnesses: WitnessOffice | None = None
        self._law_task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Open the store and serve. Raises CollectorError; then nothing is left open."""
        s = self.settings
        named = _named(s)
        self._loop = asyncio.get_running_loop()
        path = store_file(s.store)
        self.store = SqliteStore(path)
        try:
            parts.check_origin(self.store, s.log_origin)
            await asyncio.to_thread(self.store.backfill_log)  # of an older flopmeter's store; else nothing
            self._assemble(path, named)
            await self._serve(path)
        except BaseException:
            self.store.close()
            raise

    def _assemble(self, path: "Path", named: _Named) -> None:
        """Everything that agents and sinks need. Raises CollectorError."""
        s = self.settings
        laws = named.laws or last_good(self.store.books)
        if laws is None:
            assert named.fault is not None
            raise parts.no_laws(named.fault) from named.fault
        if named.fault is not None:
            parts.say_last_good(named.fault)
        self._front = parts.front(s, path, self._unix_ns)
        self.laws = LawWatch(s.regimes, named.key, laws, fault=named.fault, unix_ns=self._unix_ns)
        sinks = parts.sinks_of(s, {r.id for r in laws.regimes})
        writer = Writer(
            self.store.books,
            (),
            laws=lambda: self.laws.laws,
            recipients=parts.recipients_of(sinks),
            estimates=named.estimates,
            sites=named.sites,
            unattributed_minutes=s.unattributed_minutes,
            progress_margin_percent=s.progress_margin_percent,
            outlook=s.outlook,
            deadline_leads_ns=leads_ns("--deadline-leads", s.deadline_leads),
            rules=named.rules,
            unix_ns=self._unix_ns,
        )
        admission = named.admission
        intake = Intake(self.store.catalogue, admission, named.rules)
        if not (admission.keys or admission.admit_new or s.enrol):
            log.warning(
                "no new agent can be admitted (%d are in the books): name a file of public keys with --admit "
                "(an agent prints its key when it starts, and the log here names those refused), or trust "
                "any key with --admit-new",
                intake.agent_count,
            )
        self.server = IngestServer(
            intake,
            writer,
            probe=self.store.books.probe,
            linger_s=s.linger_ms / 1_000,
            counters=Counters(),
            unix_ns=self._unix_ns,
            raised=self._wake_sinks,
            review_s=self._review_s,
            guard=self._front,
        )
        if sinks:
            from .deliver.office import Office

            self._office = Office(path, sinks, self._unix_ns)
        self._witnesses = self._witness_office(path)

    async def _serve(self, path: "Path") -> None:
        """Listen, agents first. Raises CollectorError; then nobody is listened to."""
        host, _ = split_address("--listen", self.settings.listen)
        try:
            port = await self.server.start(self.settings.listen)
            self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            self._log = self._log_office(path)
            if self._front is not None:
                self.enrol_address = self._front.start_enrolment()
            await self._start_faces()
        except SettingsError:  # of what only they read; nothing else was started yet
            await self.server.stop()
            for started in (self._front, self._http):
                if started is not None:
                    await asyncio.to_thread(started.stop)
            raise
        except OSError as e:
            await self.server.stop()
            raise CollectorError(str(e), "is another collector running on this address?") from e
        if self._office is not None:
            self._office.start()
        self._log.start()
        if self._witnesses is not None:
            self._witnesses.start()
        self._look_now = asyncio.Event()
        if self._review_s is not None:
            self._law_task = self._loop.create_task(self._watch_laws(self._review_s))

    def _log_office(self, path: "Path") -> "LogOffice":
        # Imported only now, like the pages: agents are listened for by then.
        from .keys import keys_directory
        from .log.office import LogOffice, LogView

        s, server = self.settings, self.server
        server.keep_log(parts.AgentsLog(LogView(path)))

        async def released(checkpoint: "Checkpoint") -> None:
            if server.heads is not None:
                await server.heads.released(Head(checkpoint.size, checkpoint.note))

        office = LogOffice(
            path,
            keys_directory(s.keys, path),
            origin=s.log_origin,
            every_s=s.checkpoint_s,
            unix_ns=self._unix_ns,
            begun=lambda: server.heads.begun() if server.heads is not None else None,
            released=released,
            contradicted=server.log_contradicts,
        )
        if self._witnesses is not None:
            office.on_release(self._witnesses.released)
        return office

    def _witness_office(self, path: "Path") -> "WitnessOffice | None":
        """Witnesses and timestamp authorities, for those who name some. Raises SettingsError."""
        s, loop, server = self.settings, self._loop, self.server
        if s.witness_policy is None and not s.tsa:
            return None
        from .log.witness_office import office_of

        def contradicted(said: str) -> None:
            with contextlib.suppress(RuntimeError):  # stopped meanwhile: it is told again at the next start
                loop.call_soon_threadsafe(server.log_contradicts, said)

        return office_of(
            path,
            s.witness_policy,
            s.tsa,
            s.tsa_ca,
            unix_ns=self._unix_ns,
            contradicted=contradicted,
        )

    async def seal(self) -> "Checkpoint | None":
        """A head of the evidence log over all that is committed, now. None where none can be made."""
        return None if self._log is None else await self._log.seal()

    async def _start_faces(self) -> None:
        s = self.settings
        if not (s.http or s.otlp):
            return
        # Imported only now: agents are listened for by then, and a start is a sixth faster.
        from .metrics_books import BooksMetrics
        from .metrics_page import CollectorMetrics

        server = self.server
        # The HTTP port has the process that answers.
        books = BooksMetrics(always=bool(s.otlp)) if s.http else None
        metrics = CollectorMetrics(
            server.counters,
            lambda: server.stream_count,
            lambda: server.ready,
            self._office,
            self.laws,
            log_office=self._log,
            witnesses=self._witnesses,
            front=self._front,
            books=books,
            store=store_file(s.store),
        )
        if books is not None:
            self._start_http(metrics, books)
        if s.otlp:
            from .otlp import otlp_exporter

            # What it imports takes most of a second, and agents are served by now.
            self._otlp = await asyncio.to_thread(otlp_exporter, s.otlp, metrics, self.store.log_origin())
            self._otlp.start()

    def _start_http(self, metrics: "CollectorMetrics", books: "BooksMetrics") -> None:
        from .web.making import edge_server, page_address

        server = self.server
        self._http = edge_server(
            self.settings,
            store_file(self.settings.store),
            self._unix_ns,
            metrics=metrics,
            books=books,
            alive=self._alive,
            ready=lambda: server.ready,
            tls=self._front.tls if self._front is not None else None,
            books_unix_ns=self._books_unix_ns,
        )
        host, _ = split_address("--http", self.settings.http)
        self.http_address = f"{host}:{self._http.port}"
        self.page = page_address(self.settings, self._http.port)

    def look_now(self) -> None:
        """Look at the law files, now and not at the next time. On the event loop."""
        self._look_now.set()

    async def review(self) -> None:
        """Look at the law files, for silent agents and for a new day, now; what came of it is committed."""
        await self._look_at_laws()
        await self.server.review()

    async def _watch_laws(self, every_s: float) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._look_now.wait(), every_s)
            self._look_now.clear()
            try:
                await self._look_at_laws()
            except Exception:  # what holds, holds on
                log.exception("looking at the law files failed")

    async def _look_at_laws(self) -> None:
        if await asyncio.to_thread(self.laws.look):  # a directory on a network may hang
            self.server.judge_anew()

    def _wake_sinks(self) -> None:
        if self._office is not None:
            self._office.wake()

    def _alive(self) -> bool:
        if not self.server.writer_lives:
            return False
        turned = threading.Event()
        self._loop.call_soon_threadsafe(turned.set)
        return turned.wait(ALIVE_TIMEOUT_S)

    async def stop(self) -> None:
        """Commit and acknowledge what was taken, then close everything."""
        if self._law_task is not None:
            self._law_task.cancel()
        await self.server.stop()
        if self._log is not None:
            await self._log.stop()
        if self._witnesses is not None:
            await asyncio.to_thread(self._witnesses.stop)
        if self._front is not None:
            await asyncio.to_thread(self._front.stop)
        if self._otlp is not None:
            await asyncio.to_thread(self._otlp.close)
        if self._http is not None:
            await asyncio.to_thread(self._http.stop)
        if self._office is not None:
            await asyncio.to_thread(self._office.stop)
        self.store.close()
