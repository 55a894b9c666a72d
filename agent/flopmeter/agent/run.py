"""`flopmeter agent run` behind its command line: from settings to parts that run, and back to an exit."""

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import ExitStack
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from random import SystemRandom
from typing import cast

from flopmeter.cli.systemd import Notifier
from flopmeter.contract.clock import Clock
from flopmeter.contract.enrolment import DEFAULT_ENROL_PORT

from .access.credentials import Access, Files, Joined, Plain
from .access.state import IDENTITY_FILE
from .keys import under_way
from .loop import Loop, LoopSettings, SystemClock, stop_on_signals
from .metering.meter import MeterSettings
from .pipeline import Pipeline, PipelineSettings, meter_factory
from .reader import Reader
from .reading import Happening, NodeFacts, Reading
from .settings import AgentSettings, parse_address
from .sources.base import Recording, Source
from .sources.open import opening
from .workloads.allocations import AllocationSource
from .workloads.attribution import Attribution, Attributor
from .workloads.claims import Claims
from .workloads.declare_socket import open_declare_socket
from .workloads.processes import ProcFinder

log = logging.getLogger(__name__)

#: Starting NVML wakes every GPU where persistence mode is off, seconds each; no answer for so long is said, again and again.
NO_ANSWER_NS = 20_000_000_000
#: While it starts, a signal to stop is seen this often.
_STOP_SEEN_S = 0.5


def named(facts: NodeFacts, settings: AgentSettings) -> NodeFacts:
    """The facts with the names that the settings give, where they give any."""
    return replace(facts, node=settings.node or facts.node, cluster=settings.cluster or facts.cluster)


class NamedSource:
    """A source whose node and cluster bear the names from the settings."""

    def __init__(self, source: Source, settings: AgentSettings) -> None:
        self._source = source
        self._settings = settings
        #: What the scheduler could give out and nothing meters is of the node, too.
        self.allocations: Sequence[AllocationSource] = ()

    def facts(self) -> NodeFacts:
        facts = named(self._source.facts(), self._settings)
        more = [u for source in self.allocations for u in source.unmetered()]
        return replace(facts, uncovered=(*facts.uncovered, *more)) if more else facts

    def read(self, entity: str) -> Reading:
        return self._source.read(entity)

    def close(self) -> None:
        self._source.close()


class NamedRecording:
    """A recording, likewise."""

    def __init__(self, recording: Recording, settings: AgentSettings) -> None:
        self._recording = recording
        self._settings = settings

    def facts(self) -> NodeFacts:
        return named(self._recording.facts(), self._settings)

    def items(self) -> Iterator[Reading | Happening]:
        return self._recording.items()

    def close(self) -> None:
        self._recording.close()


def run_agent(settings: AgentSettings) -> None:
    """Run until stopped. Raises AgentError for what cannot be started or gone on with."""
    logging.basicConfig(
        level=settings.log_level.upper(), stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s"
    )
    ours = version("flopmeter")
    log.info("flopmeter agent %s: %s", ours, settings.shown())
    if under_way(settings.state):
        _end_rekey(settings)
    clock = SystemClock()
    with stop_on_signals(clock.stop):
        opened = _opened(settings.source, clock)
        if opened is None:
            log.warning("told to stop before the source answered: nothing was metered")
        elif hasattr(opened, "items"):
            _play(NamedRecording(cast("Recording", opened), settings), settings, ours, clock)
        else:
            _meter(NamedSource(opened, settings), settings, ours, clock)


def _opened(spec: str, clock: SystemClock) -> Source | Recording | None:
    """The source, however long its driver takes, which is said; None: told to stop meanwhile.

    A driver that hangs gives no way to end a call: who waits in it hears no signal.
    """
    answer = opening(spec, clock)
    began_ns = said_ns = clock.boot_ns()
    while not clock.stopping:
        try:
            return answer.result(_STOP_SEEN_S)
        except FutureTimeout:
            if answer.done():
                raise
        now_ns = clock.boot_ns()
        if now_ns - said_ns >= NO_ANSWER_NS:
            said_ns = now_ns
            log.error("%s: no answer for %d s: see the kernel's log", spec, (now_ns - began_ns) // 10**9)
    return None


def _end_rekey(settings: AgentSettings) -> None:
    """Go on with a change of the record key that was cut off: until it is done no key may sign. Raises RekeyError."""
    from .rekey import rekey

    changed = rekey(settings.state, settings.collector, settings.server_name, only_finish=True)
    if changed is not None:
        log.warning("the change of the record key is done: agent %s from here on", changed.new_agent_id)


def _meter(source: NamedSource, settings: AgentSettings, ours: str, clock: SystemClock) -> None:
    """Live: until a signal."""
    from .metrics import AgentView, MetricsServer

    notifier = Notifier()
    reader = Reader(source, clock, deadline_s=settings.read_deadline / 1e9, beat=notifier.beat)
    with ExitStack() as undo:
        undo.callback(reader.close)
        finder = ProcFinder(more=frozenset(filter(None, settings.job_variables.split(","))))
        claims = Claims(finder, open_declare_socket(settings.declare_socket))
        undo.callback(claims.close)
        first = reader.facts()
        pipeline: Pipeline | None = None
        sources = open_allocations(settings, lambda: pipeline.facts if pipeline else first, clock)
        source.allocations = sources
        for allocations in sources:
            undo.callback(allocations.close)
        attribution = Attribution(finder, sources, claims)
        pipeline = _pipeline(first, settings, ours, attribution, replay=False)
        undo.callback(pipeline.close)
        attributor = Attributor(*attribution)
        view = AgentView(
            pipeline, version=ours, tick_ns=settings.tick, workload=attributor.described, claims=claims
        )

        seen = bool(settings.metrics_address or settings.otlp)
        if seen:
            pipeline.on_durable = view.on_durable

        def on_tick(readings: list[Reading]) -> None:
            claims.listen(clock.boot_ns(), clock.unix_ns())
            if seen:
                view.on_tick(readings)

        loop = Loop(
            reader,
            pipeline,
            clock,
            LoopSettings(tick_ns=settings.tick, stop_timeout_s=settings.stop_timeout / 1e9),
            on_tick=on_tick,
            beat=notifier.beat,
            on_stop=lambda: notifier.stopping("sealing and shipping what is left"),
        )
        view.ticks = loop.ticks
        if settings.metrics_address:
            undo.callback(MetricsServer(settings.metrics_address, view).close)
        if settings.otlp:
            from .otlp import otlp_exporter

            exporter = otlp_exporter(settings, view)
            exporter.start()
            undo.callback(exporter.close)
        notifier.ready(f"metering {len(pipeline.facts.devices)} devices")
        loop.run()


def open_allocations(
    settings: AgentSettings, facts: Callable[[], NodeFacts], clock: Clock
) -> list[AllocationSource]:
    """What tells whom the scheduler gave the GPUs to, best first: the first that names an entity's holder is believed.

    `facts`: the node as it is by now, from memory.
    """
    from .workloads.kubelet.open import kubelet_source
    from .workloads.slurm_source import slurm_source

    opened = (kubelet_source(settings, facts, clock), slurm_source(settings, facts, clock))
    return [source for source in opened if source is not None]


def _play(recording: Recording, settings: AgentSettings, ours: str, clock: SystemClock) -> None:
    """A trace as the source: played once, as fast as it goes."""
    with ExitStack() as undo:
        undo.callback(recording.close)
        pipeline = _pipeline(recording.facts(), settings, ours, Attribution(None), replay=True)
        undo.callback(pipeline.close)
        Notifier().ready("playing a trace")
        summary = pipeline.play(recording, stopping=lambda: clock.stopping)
        log.info("played %d items: %d windows sealed", summary.items, summary.windows)
        if settings.collector and not pipeline.wait_acked(settings.stop_timeout / 1e9):
            log.warning("%d records not acknowledged; they stay", pipeline.chain.spool.pending)


def open_access(settings: AgentSettings, node: str, forget: Callable[[], None]) -> Access:
    """How this agent speaks to its collector: by files, by a certificate that it joined for, or in plain text."""
    if settings.tls_cert:
        paths = (Path(settings.tls_cert), Path(settings.tls_key), Path(settings.tls_ca))
        return Files(*paths, settings.server_name)
    if not (settings.join or settings.join_file or (settings.state / IDENTITY_FILE).exists()):
        return Plain()
    address = settings.enrol or f"{settings.collector.rpartition(':')[0]}:{DEFAULT_ENROL_PORT}"
    return Joined(
        settings.state,
        node,
        parse_address(address),
        lambda: Path(settings.join_file).read_text() if settings.join_file else settings.join,
        rng=SystemRandom(),
        server_name=settings.server_name,
        other_authority=forget,
    )


def _pipeline(
    facts: NodeFacts,
    settings: AgentSettings,
    ours: str,
    attribution: Attribution,
    *,
    replay: bool,
) -> Pipeline:
    meter_settings = MeterSettings(settings.window, settings.tick)
    pipeline = Pipeline.open(
        facts,
        meter_factory(meter_settings, agent_version=ours, attribution=attribution, replay=replay),
        PipelineSettings(
            state=settings.state,
            collector=settings.collector,
            spool_limit_bytes=settings.spool_limit,
            keep_acked_bytes=settings.keep_acked,
            access=lambda node, forget: open_access(settings, node, forget),
        ),
        agent_version=ours,
    )
    key, spool = pipeline.chain.key, pipeline.chain.spool
    log.info("agent %s, public key %s", key.agent_id.hex(), key.public.hex())
    log.info(
        "node %s: %d devices from %s; next record %d, %d wait for the collector",
        facts.node,
        len(facts.devices),
        facts.source,
        spool.tip.next_seq,
        spool.pending,
    )
    return pipeline
