"""From what a user types (`--source`) to an opened source. Sources are imported when they are asked for."""

import logging
import threading
from concurrent.futures import Future
from typing import cast

from flopmeter.agent.errors import SettingsError, SourceError
from flopmeter.contract.clock import Clock

from .base import Recording, Source

log = logging.getLogger(__name__)

FORMS = "nvml, dcgm:URL, sim, trace:FILE"


def open_source(spec: str, clock: Clock) -> Source | Recording:
    """Open `nvml`, `dcgm[:URL]`, `sim` or `trace:FILE`. Raises SettingsError for anything else, SourceError.

    Only `trace:` gives a Recording (it has `items`); the others are Sources (they have `read`).
    """
    kind, _, rest = spec.partition(":")
    if kind == "nvml" and not rest:
        try:
            from .nvml import NvmlSource
        except ModuleNotFoundError as e:
            raise SourceError(
                f"nvml: the package {e.name!r} is not installed", "install flopmeter[agent]"
            ) from e

        return NvmlSource(clock)
    if kind == "dcgm":
        from .dcgm import DEFAULT_URL, DcgmSource

        return DcgmSource(rest or DEFAULT_URL, clock, beside=_nvml_if_it_starts(clock))
    if kind == "sim" and not rest:
        from .sim import SimSource, default_script

        return SimSource(default_script(), clock)
    if kind == "trace" and rest:
        from .trace import TraceFile

        return TraceFile(rest)
    raise SettingsError(f"source: expected one of {FORMS}, got {spec!r}", "for example --source nvml")


def opening(spec: str, clock: Clock) -> "Future[Source | Recording]":
    """`open_source` on a thread of its own: a call that hangs in the driver can be left, and ends with the process."""
    answer: Future[Source | Recording] = Future()

    def ask() -> None:
        try:
            answer.set_result(open_source(spec, clock))
        except BaseException as e:  # noqa: BLE001 - raised again where it is waited for
            answer.set_exception(e)

    threading.Thread(target=ask, name="flopmeter-open", daemon=True).start()
    return answer


def _nvml_if_it_starts(clock: Clock) -> Source | None:
    """NVML beside an exporter, for what its page does not say; an agent without the driver does without."""
    try:
        opened = open_source("nvml", clock)
    except SourceError as e:
        log.info("dcgm: NVML cannot be asked beside the exporter: %s", e)
        return None
    return cast("Source", opened)
