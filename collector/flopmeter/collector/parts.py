"""The parts of a collector, each made from its settings; what is not asked for is not imported."""

import logging
from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING

from flopmeter.contract.w_table import current

from .errors import EstimateError, RegimeError, SettingsError
from .ingest.heads import Head
from .settings import CollectorSettings
from .store.sqlite import SqliteStore

if TYPE_CHECKING:
    from pathlib import Path

    from .access.front import Front
    from .deliver.settings import SinkSettings
    from .estimate.declared import Declared
    from .law.events import NewEvent
    from .law.signing import PublicKey
    from .log.office import LogView
    from .report.sites import Sites

log = logging.getLogger(__name__)


class AgentsLog:
    """What agents are told of the log (ingest.heads.Log)."""

    def __init__(self, view: "LogView") -> None:
        self.vkey, self.consistency, self._view = view.vkey, view.consistency, view

    def latest(self) -> Head | None:
        found = self._view.latest()
        return None if found is None else Head(found.size, found.note)


def check_origin(store: SqliteStore, origin: str) -> None:
    """A log keeps its name; said before anything is served."""
    known = store.log_origin()
    if origin and known not in ("", origin):
        raise SettingsError(
            f"--log-origin: expected {known!r}, under which this store's log was begun, got {origin!r}",
            "leave it out, or name it as it is: heads under another name would be those of another log",
        )


def front(settings: CollectorSettings, path: "Path", unix_ns: Callable[[], int]) -> "Front | None":
    """TLS and what goes with it; None: plain text. Raises CollectorError."""
    if not settings.tls:
        return None
    from .access.front import Front  # cryptography, only where it is asked for

    return Front(settings, path, unix_ns)


def regime_key(settings: CollectorSettings) -> "PublicKey | None":
    if settings.regime_key is None:
        return None
    from .law.signing import read_public_key  # only by those who ask for signatures

    try:
        return read_public_key(settings.regime_key)
    except RegimeError as e:
        raise SettingsError(f"--regime-key: {e}", e.hint) from e


def no_laws(e: RegimeError) -> SettingsError:
    return SettingsError(
        f"--regimes: {e}", e.hint
    )  # a setting that cannot be used: another exit than `regimes check`


def say_last_good(fault: RegimeError) -> None:
    log.error(
        "--regimes: the law files are not taken, and the collector starts with the site's files that it applied last "
        "(kept in the store), so that metering and legal clocks go on. Mend them; `flopmeter regimes status` shows "
        "what is judged by:\n%s\n%s",
        fault,
        fault.hint,
    )


def sinks_of(settings: CollectorSettings, known: Collection[str]) -> "tuple[SinkSettings, ...]":
    """Where events go; each is asked now whether it could, before the first event. Raises SettingsError."""
    if settings.event_log is None and settings.sinks is None:
        return ()
    from .deliver.office import configured  # only by those who have some

    found = configured(settings.event_log, settings.sinks, known)
    for sink in found:
        log.info("sink %s: %s", sink.name, sink.target.type)
    return found


def recipients_of(sinks: "tuple[SinkSettings, ...]") -> "Callable[[NewEvent], Iterable[str]] | None":
    if not sinks:
        return None
    from .deliver.office import recipients

    return recipients(sinks)


def estimates_of(path: "Path") -> "tuple[Declared, ...]":
    from .estimate.files import read_estimates  # only by those who declare some

    try:
        return tuple(read_estimates(path, current()))
    except EstimateError as e:
        raise SettingsError(f"--estimates: {e}", e.hint) from e


def check_expected(path: "Path") -> None:
    """Raises CollectorError for a file that the page's process could not read."""
    from .report.expected import read_expected

    read_expected(path)


def sites_of(path: "Path") -> "Sites":
    from .report.sites import read_sites  # only by those who have one

    return read_sites(path)
