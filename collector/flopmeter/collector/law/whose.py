"""Whose compute a workload is, on the writer's thread: the rules' choice, moves of this group, and what people say.

A cache of the store, and ahead of it by what the group that is being committed brings.
"""

from collections.abc import Iterable, Mapping, Sequence

from flopmeter.collector.errors import RegistryError, StoreError
from flopmeter.collector.ingest.identity_jobs import Moved
from flopmeter.collector.registry.codec import to_entry
from flopmeter.collector.registry.entries import Entry, JobKey
from flopmeter.collector.registry.formerly import Once, formerly
from flopmeter.collector.registry.state import Registry, names_of
from flopmeter.collector.store.base import Books, Held

#: Entries that are taken in one by one; more of them are read anew, at a start.
FEW_ENTRIES = 100


class Whose:
    """Owned by the writer; dropped by `reset` after any failure."""

    def __init__(self, books: Books) -> None:
        self._books = books
        self.reset()

    def reset(self) -> None:
        """Forget all, and read what people said. Raises StoreError."""
        self.registry = Registry()
        self.before = self.registry  # the last look
        self._mentioned: set[str] = set()  # in any entry
        self._renamed: set[str] = set()  # names that this group gives to work, or takes from it
        self._workloads: dict[int, Held] = {}
        self._runs: dict[int, str] = {}
        self._moved: dict[str, set[int]] = {}  # run -> what the rules give it with this group
        self._left: dict[str, set[int]] = {}  # run -> what goes from it with this group
        self.look()

    def add(self, workloads: Mapping[int, Held], moved: Sequence[Moved]) -> None:
        """What the group brings: new workloads, and those that go to other runs with it."""
        self._workloads.update(workloads)
        self._moved, self._left = {}, {}
        for no, held in workloads.items():
            self._moved.setdefault(held.run, set()).add(no)
        self.know(m.workload_no for m in moved)
        for m in moved:
            self._workloads[m.workload_no] = self._workloads[m.workload_no]._replace(run=m.run)
            self._runs.pop(m.workload_no, None)
            self._moved.setdefault(m.run, set()).add(m.workload_no)
            if m.was != m.run:
                self._left.setdefault(m.was, set()).add(m.workload_no)
        self._renamed = {*self._moved, *self._left}
        if moved and self._mentioned:
            self._renamed |= self._books.names_lost(m.workload_no for m in moved)

    def look(self) -> None:
        """Take in what was said since `before`, and which names that people used work gets or loses with this group.

        `registry` stays the same object where nothing changed.
        """
        self.before = registry = self.registry
        rows = self._books.entries(len(registry.entries))
        try:
            said = [to_entry(row) for row in rows]
        except RegistryError as e:
            raise StoreError(f"the run registry cannot be read: {e}", e.hint) from e
        new = {name for e in said for name in names_of(e.statement)} - self._mentioned
        self._mentioned |= new
        if changed := self._formerly(new | (self._renamed & self._mentioned)):
            known = {**registry.formerly, **changed}
            registry = registry.knowing({name: once for name, once in known.items() if once})
        registry = _grown(registry, said)
        if registry is not self.before:
            self.registry, self._runs = registry, {}

    def _formerly(self, names: set[str]) -> dict[str, tuple[Once, ...]]:
        """Of each name where the work is that had it; () for one that no work has lost."""
        if len(names) > FEW_ENTRIES:
            names &= self._books.names_lost() | self._left.keys() | self.registry.formerly.keys()
        found = formerly(names, self._once)
        return {name: found.get(name, ()) for name in names}

    def _once(self, name: str) -> list[Once]:
        lost = {*self._books.workloads_once(name), *self._left.get(name, ())}
        if not lost:
            return []
        numbers = lost | {*self._books.workloads_of_run(name), *self._moved.get(name, ())}
        self.know(numbers)
        held = [self._workloads[no] for no in numbers]
        return [Once(JobKey(w.scope, w.kind, w.job), w.step, w.run) for w in held]

    def know(self, workload_nos: Iterable[int]) -> None:
        """Read what is not known yet, in one go."""
        missing = {no for no in workload_nos if no not in self._workloads}
        self._workloads.update(self._books.workloads(missing))

    def held(self, workload_no: int) -> Held:
        """One that is known."""
        return self._workloads[workload_no]

    def run_of(self, workload_no: int) -> str:
        """The run of one that is known; "" for idle and unattributed time."""
        run = self._runs.get(workload_no)
        if run is None:
            w = self._workloads[workload_no]
            run = self.registry.run_of(JobKey(w.scope, w.kind, w.job), w.step, w.run) if w.run else ""
            self._runs[workload_no] = run
        return run

    def workloads_of(self, run: str) -> list[int]:
        """Every workload of `run`, by number."""
        found = {*self._books.workloads_of_run(run), *self._moved.get(run, ())}
        for job in self.registry.assigned_jobs(run):
            found.update(self.workloads_of_job(job))
        self.know(found)
        return sorted(no for no in found if self.run_of(no) == run)

    def workloads_of_job(self, job: JobKey) -> list[int]:
        """Every workload of one job, those that this group brings too."""
        found = set(self._books.workloads_of_job(job.scope, job.kind, job.job))
        brought = {no for numbers in self._moved.values() for no in numbers}
        self.know(brought)
        found |= {no for no in brought if self._workloads[no][2:5] == (job.scope, job.kind, job.job)}
        return sorted(found)

    def runs_of_job(self, job: JobKey, registry: Registry) -> set[str]:
        """The runs that one job's workloads have by `registry`."""
        numbers = self.workloads_of_job(job)
        self.know(numbers)
        held = [self._workloads[no] for no in numbers]
        return {registry.run_of(job, w.step, w.run) for w in held if w.run}

    def runs(self) -> set[str]:
        """Every run that anything belongs to; some that nothing does any more."""
        return {*self._books.runs(), *self._moved, *self.registry.assigned_runs} - {""}

    def trim(self, most: int) -> None:
        """After a commit: forget, if too much is kept."""
        self._moved, self._left, self._renamed = {}, {}, set()
        if len(self._workloads) > most:
            self._workloads, self._runs = {}, {}


def _grown(registry: Registry, said: Sequence[Entry]) -> Registry:
    if len(said) > FEW_ENTRIES:
        return Registry.of((*registry.entries, *said), registry.formerly)
    for entry in said:
        registry = registry.plus(entry)
    return registry
