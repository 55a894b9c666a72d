"""Slurm's word on who holds the GPUs: the job-mapping directory, looked at every tick, and squeue, asked where allowed.

Each has a thread of its own, for either may hang (a directory on a network file system, a controller that is down);
what they found is put into place whole, so that readers wait for nothing.
"""

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import NamedTuple

from flopmeter.agent.reading import NodeFacts
from flopmeter.agent.settings import AgentSettings
from flopmeter.contract.clock import Clock
from flopmeter.contract.usage import Uncovered, Workload, WorkloadKind

from .allocations import Allocations, AllocationSource
from .slurm_ask import Asker
from .slurm_facts import JobFacts, outdated, together
from .slurm_holders import GpuNames, gpu_names
from .slurm_mapping import Look, MappingDirectory

log = logging.getLogger(__name__)

#: An answer older than so many ticks, and at least so many seconds, is no longer believed: the directory hangs.
STALE_TICKS = 5
STALE_NS = 10_000_000_000
#: Facts of a job stay known for so long after its prolog's file is gone: its last window is sealed later.
REMEMBERED_NS = 600_000_000_000
MAX_REMEMBERED = 4_096
_CLOSE_S = 1.0
#: The start waits so long for the first look; a directory that hangs is gone on without.
_FIRST_S = 2.0
_MAPPING = "slurm-mapping"


class _Known(NamedTuple):
    """What the directory said, ready to be read by any thread: never changed, only replaced."""

    allocations: Allocations | None
    facts: Mapping[str, JobFacts]  # by job id
    by_sluid: Mapping[str, str]  # SLUID -> job id


class SlurmSource:
    """An AllocationSource. Nothing runs before `start`, so that tests turn it by hand: `look`, and the asker's `turn`."""

    def __init__(
        self,
        node: Callable[[], NodeFacts],
        clock: Clock,
        *,
        directory: str = "",
        asker: Asker | None = None,
        tick_ns: int = 1_000_000_000,
    ) -> None:
        self._node = node
        self._clock = clock
        self._directory = MappingDirectory(directory) if directory else None
        self._asker = asker
        self._tick_ns = tick_ns
        self._stale_ns = max(STALE_NS, STALE_TICKS * tick_ns)
        self._known = _Known(None, {}, {})
        self._remembered: dict[str, tuple[JobFacts, int]] = {}  # job -> its facts, when they were last read
        self._names: tuple[NodeFacts, GpuNames] | None = None
        self._troubles: frozenset[str] = frozenset()
        self._stop = threading.Event()
        self._looked = threading.Event()  # once, whatever was there
        self._threads: list[threading.Thread] = []

    def start(self, wait_s: float = 0.0) -> None:
        """Begin the threads; give the first look at the directory so long.

        The first reading ends the time in which the agent was down. That was a job's only if it is named again.
        """
        for name, turn in (
            (_MAPPING, self.look if self._directory else None),
            ("slurm-ask", self._asker.turn if self._asker else None),
        ):
            if turn is not None:
                thread = threading.Thread(target=self._turn, args=(name, turn), name=name, daemon=True)
                thread.start()
                self._threads.append(thread)
        if self._directory is not None:
            self._looked.wait(wait_s)

    # ---- AllocationSource: from memory, from any thread -------------------------------------------

    def latest(self) -> Allocations | None:
        """See AllocationSource. None as long as the directory is not there: then nobody has said anything."""
        newest = self._known.allocations
        if newest is None or self._clock.boot_ns() - newest.at_boot_ns > self._stale_ns:
            return None
        return newest

    def describe(self, workload: Workload) -> Workload:
        """See AllocationSource. A job that its cgroup names by its SLUID gets its number, where the prolog told it."""
        if workload.kind is not WorkloadKind.SLURM:
            return workload
        known = self._known
        job = known.by_sluid.get(workload.job, workload.job)
        facts = self._facts(job, known)
        if job != workload.job:
            workload = replace(workload, job=job)
        return facts.put_to(workload) if facts else workload

    def met(self, entity: str, workload: Workload) -> None:
        """See AllocationSource: a job to ask squeue for."""
        if self._asker is not None and workload.kind is WorkloadKind.SLURM:
            self._asker.facts(workload.job)

    def unmetered(self) -> tuple[Uncovered, ...]:
        return ()  # its files name GPUs that jobs hold, not what the node has

    def close(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(_CLOSE_S)  # one that hangs is a daemon's, and ends with the process
        self._threads = []

    # ---- the thread of the directory --------------------------------------------------------------

    def look(self) -> None:
        """Look at the directory once. Never raises OSError: what is wrong is said once, in the log."""
        assert self._directory is not None
        now = self._clock.boot_ns()
        try:
            found = self._directory.look(self._gpu_names())
        except FileNotFoundError:
            # Before the first prolog made it; nobody has said anything.
            self._say(frozenset({f"{self._directory.path} is not there (yet)"}))
            self._known = self._known._replace(allocations=None)
            return
        except OSError as e:
            self._say(frozenset({f"{self._directory.path}: {e.strerror or e}"}))
            self._known = self._known._replace(allocations=None)
            return
        self._say(frozenset(f"{self._directory.path}/{each}" for each in found.troubles))
        self._known = self._put(found, now)

    def _put(self, found: Look, now: int) -> _Known:
        for job, facts in found.facts.items():
            self._remembered[job] = facts, now
        kept = {j: (f, t) for j, (f, t) in self._remembered.items() if now - t <= REMEMBERED_NS}
        self._remembered = (
            kept if len(kept) <= MAX_REMEMBERED else {j: v for j, v in kept.items() if v[1] == now}
        )
        facts_by_job = {job: facts for job, (facts, _) in self._remembered.items()}
        by_sluid = {f.sluid: job for job, f in facts_by_job.items() if f.sluid}
        known = _Known(None, facts_by_job, by_sluid)
        before = self._known.allocations.by_entity if self._known.allocations else {}
        by_entity = {}
        for entity, jobs in found.holders.items():
            holders = tuple(self._workload(job, known) for job in jobs)
            by_entity[entity] = before[entity] if before.get(entity) == holders else holders
        return known._replace(allocations=Allocations(now, MappingProxyType(by_entity)))

    def _workload(self, job: str, known: _Known) -> Workload:
        facts = self._facts(job, known)
        bare = Workload(WorkloadKind.SLURM, job)
        return facts.put_to(bare) if facts else bare

    def _facts(self, job: str, known: _Known) -> JobFacts | None:
        prolog = known.facts.get(job)
        if self._asker is None:
            return prolog
        asked = self._asker.facts(job)
        if outdated(prolog, asked):
            self._asker.ask_again(job)
        return together(prolog, asked)

    def _gpu_names(self) -> GpuNames:
        node = self._node()
        if self._names is None or self._names[0] is not node:
            self._names = node, gpu_names(node)
        return self._names[1]

    def _say(self, troubles: frozenset[str]) -> None:
        """Each once, until it is gone and comes again."""
        for each in sorted(troubles - self._troubles):
            log.warning("job mapping: %s", each)
        self._troubles = troubles

    def _turn(self, name: str, turn: Callable[[], None]) -> None:
        said = ""
        while not self._stop.is_set():
            try:
                turn()
            except Exception as e:
                if said != repr(e):
                    said = repr(e)
                    log.exception("%s: a defect; it goes on, and what it knew grows stale", name)
            if name == _MAPPING:
                self._looked.set()
            self._stop.wait(self._tick_ns / 1e9)


def slurm_source(
    settings: AgentSettings, node: Callable[[], NodeFacts], clock: Clock
) -> AllocationSource | None:
    """The source that the settings ask for, running; None where they name neither a directory nor squeue.

    `node` answers at once: what is metered by now, under its UUIDs.
    """
    if not settings.slurm_job_mapping_dir and not settings.slurm_squeue:
        return None
    asker = None
    if settings.slurm_squeue:
        asker = Asker(settings.slurm_squeue, settings.slurm_squeue_period, clock)
    directory = settings.slurm_job_mapping_dir
    source = SlurmSource(node, clock, directory=directory, asker=asker, tick_ns=settings.tick)
    source.start(wait_s=_FIRST_S)
    return source
