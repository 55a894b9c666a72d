"""`flopmeter replay`: a trace through the real agent path, into a collector of its own or a named one."""

import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from random import SystemRandom
from typing import Any

from flopmeter.agent.errors import AgentError, SourceError
from flopmeter.agent.keys import load_or_create_key
from flopmeter.agent.metering.meter import Meter, MeterSettings
from flopmeter.agent.pipeline import Pipeline, PipelineSettings
from flopmeter.agent.reading import Happening, NodeFacts, Reading
from flopmeter.agent.shipping.chain import Chain
from flopmeter.agent.shipping.spool import Spool
from flopmeter.agent.shipping.status import Identity, Timing
from flopmeter.agent.shipping.uplink import Uplink
from flopmeter.agent.sources.compressed import expanded
from flopmeter.agent.sources.trace import TraceFile
from flopmeter.collector.report.queries import document
from flopmeter.collector.running import run_collector
from flopmeter.collector.settings import CollectorSettings
from flopmeter.collector.store_path import STORE_NAME
from flopmeter.contract.limits import DEFAULT_TICK_NS

from .progress import Progress

#: A collector on the same machine answers within this; one that does not is not there.
CONNECT_S = 5.0
#: The collector may be slow, but acknowledges something at least this often.
STALL_S = 60.0
#: Everything is kept in the spool after its acknowledgement: the totals are derived from it again.
KEEP_ALL = 1 << 50
_LINGER_MS = 20
_READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a replay came to. `warnings` tell what of the file was not usable."""

    document: dict[str, Any]
    readings: int
    records: int
    seconds: float
    collector: str  # "" = its own
    warnings: tuple[str, ...]


def replay(
    file: Path, *, collector: str = "", state: Path | None = None, window_ns: int, quiet: bool = False
) -> Replayed:
    """Play `file` and return the books that it makes.

    Raises SourceError for a trace that cannot be used (with the line), AgentError or CollectorError for a
    collector that cannot be reached or does not take the records. With `state` a replay that was cut short
    goes on where it was; without, nothing is left behind.
    """
    with ExitStack() as stack:
        trace = stack.enter_context(closing(TraceFile(file)))
        progress = stack.enter_context(Progress(f"replaying {file.name}", _lines(file), quiet=quiet))
        if state is None:
            state = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="flopmeter-replay-")))
        books = state / "collector"
        try:
            books.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as e:
            raise SourceError(
                f"--state {state}: cannot be made: {e.strerror or e}",
                "name a directory that you may write to",
            ) from e
        begun = time.monotonic()
        if collector:
            records = _play(trace, state, collector, window_ns, progress)
            seconds = time.monotonic() - begun
            # The named collector's books are not ours to read: the same records, booked once more here.
            with run_collector(_own(books / STORE_NAME)) as own:
                _ship_again(trace.facts(), state, own.address)
        else:
            with run_collector(_own(books / STORE_NAME)) as own:
                records = _play(trace, state, own.address, window_ns, progress)
            seconds = time.monotonic() - begun
        return Replayed(
            document=document(books / STORE_NAME, time.time_ns()),
            readings=progress.done,
            records=records,
            seconds=seconds,
            collector=collector,
            warnings=tuple(_warnings(trace)),
        )


class _Counted:
    """A recording that tells how far it is."""

    def __init__(self, trace: TraceFile, progress: Progress) -> None:
        self._trace = trace
        self._progress = progress

    def facts(self) -> NodeFacts:
        return self._trace.facts()

    def items(self) -> Iterator[Reading | Happening]:
        for done, item in enumerate(self._trace.items(), 1):
            yield item
            self._progress.update(done)

    def close(self) -> None:
        self._trace.close()


def _play(trace: TraceFile, state: Path, collector: str, window_ns: int, progress: Progress) -> int:
    def make_meter(facts: NodeFacts, journal: bytes | None) -> Meter:
        settings = MeterSettings(window_ns=window_ns, tick_ns=DEFAULT_TICK_NS)
        return Meter(facts, settings, agent_version=version("flopmeter"), journal=journal, replay=True)

    settings = PipelineSettings(
        state=state,
        collector=collector,
        keep_acked_bytes=KEEP_ALL,
        timing=Timing(connect_s=CONNECT_S),
    )
    pipeline = Pipeline.open(trace.facts(), make_meter, settings, agent_version=version("flopmeter"))
    try:
        assert pipeline.uplink is not None
        _await_connected(pipeline.uplink, collector)
        pipeline.play(_Counted(trace, progress))
        _await_acked(pipeline.uplink, pipeline.chain.spool, collector)
        return pipeline.chain.spool.newest_seq
    finally:
        pipeline.close()


def _ship_again(facts: NodeFacts, state: Path, collector: str) -> None:
    """Send all that the spool holds to another collector, as to one restored from nothing."""
    key = load_or_create_key(state)
    spool = Spool.open(state / "spool", keep_acked_bytes=KEEP_ALL)
    identity = Identity(facts.node, version("flopmeter"), facts.boot_id)
    uplink = Uplink(collector, Chain(spool, key), identity, rng=SystemRandom())
    try:
        uplink.start()
        _await_connected(uplink, collector)
        _await_acked(uplink, spool, collector)
    finally:
        uplink.stop()
        spool.close()


def _await_connected(uplink: Uplink, collector: str) -> None:
    uplink.wait_for(lambda: uplink.status.connected or uplink.status.refusals > 0, CONNECT_S + 1)
    status = uplink.status
    if status.fatal is not None:
        raise status.fatal
    if not status.connected:
        raise AgentError(
            f"collector {collector}: expected a flopmeter collector, got: {status.last_error or 'no answer'}",
            "see that it runs and admits this agent (flopmeter collector serve --admit-new …); without "
            "--collector a replay brings its own",
        )


def _await_acked(uplink: Uplink, spool: Spool, collector: str) -> None:
    """Wait until all is acknowledged, for as long as there is progress."""
    while spool.pending:
        pending = spool.pending
        uplink.wait_for(lambda was=pending: spool.pending < was, STALL_S)  # type: ignore[misc]
        status = uplink.status
        if status.fatal is not None:
            raise status.fatal
        if spool.pending >= pending:
            raise AgentError(
                f"collector {collector}: nothing acknowledged for {STALL_S:.0f} s, {pending} records are left "
                f"({status.last_error or 'no error seen'})",
                "look at the collector's log; with --state the same command goes on where this one ended",
            )


def _own(store: Path) -> CollectorSettings:
    return CollectorSettings(store=store, listen="127.0.0.1:0", http="", admit_new=True, linger_ms=_LINGER_MS)


def _lines(file: Path) -> int:
    """How many lines the trace has behind its first; 0 if that cannot be told beforehand."""
    try:
        with file.open("rb") as raw:
            stream, _ = expanded(raw)
            count = 0
            while part := stream.read(_READ_BYTES):
                count += part.count(b"\n")
            return max(0, count - 1)
    except Exception:  # noqa: BLE001 - the reader proper says what is wrong, with the line
        return 0


def _warnings(trace: TraceFile) -> Iterator[str]:
    if trace.truncated:
        yield f"{trace.path} ends in a half-written line, which was dropped"
    for name, count in sorted(trace.refused.items()):
        yield f"{name}: {count} values that a driver would not return were taken as not read"
