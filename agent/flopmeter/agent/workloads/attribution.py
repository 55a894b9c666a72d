"""Which workload holds an entity (reference/metering.md section 5, DESIGN.md section 7).

Best evidence first: what the source itself states (a trace, the simulator); else the processes that hold
the device, each found by its cgroup, which only root can write. The process environment is the user's own
and only corroborates: from an allow-list it may add a run label and a dtype to a workload that the cgroup
named, and its Slurm variables never replace a cgroup.
"""

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol

from flopmeter.agent.metering.shares import Part, weigh
from flopmeter.agent.reading import Process, Reading
from flopmeter.contract.usage import IDLE, UNATTRIBUTED, Workload, WorkloadKind
from flopmeter.contract.w_table import DTYPE_RATE

from .labels import tidy, tidy_label

#: The only variables of a job's environment that are ever looked at.
ALLOWED_VARIABLES = frozenset({"FLOPMETER_RUN", "FLOPMETER_DTYPE", "SLURM_JOB_ID", "SLURM_STEP_ID"})
MAX_ENVIRON_BYTES = 1 << 20
MAX_CGROUP_BYTES = 64 << 10
MAX_REMEMBERED = 4_096  # processes; the memory is emptied, not grown, beyond

#: Slurm, cgroup v1 and v2, with or without a prefix of the node: …/slurm…/job_4711/step_0/…
_SLURM = re.compile(r"/(?:[^/]+_)?slurm[^/]*(?:/[^/]+)*?/job_(\d+)(?:/step_([0-9A-Za-z_]+))?(?:/|$)")
#: Kubernetes: …/kubepods…/pod<uid>/… or …-pod<uid with underscores>.slice/…
_POD = re.compile(r"kubepods.*?pod([0-9a-fA-F][0-9a-fA-F_-]{30,}[0-9a-fA-F])(?:\.slice)?(?:/|$)")

#: As a container with a cgroup namespace of its own sees it too: /../../user.slice/…
_USERS_OWN = re.compile(r"(?:/\.\.)*/user\.slice/")


class WorkloadFinder(Protocol):
    """Finds what a process belongs to. (pid, start_ticks) names it; pids alone are reused."""

    def find(self, pid: int, start_ticks: int) -> Workload | None:
        """The workload, or None where it cannot be told (gone, not ours to see). Never raises OSError."""
        ...


class Holding(NamedTuple):
    """Who holds an entity. `workload` None: not known; of several workloads UNATTRIBUTED, and `parts` names them."""

    workload: Workload | None
    shared: str = ""  # the several, in words
    parts: tuple[Part, ...] = ()  # with their weights, in a fixed order
    snapshot: bool = (
        False  # by the processes of one instant; what a source states is true of the time before it
    )
    began_ns: int = (
        0  # boot time at which the first of the processes began that were not there before; 0 = not known
    )

    @property
    def sharers(self) -> tuple[Workload, ...]:
        return tuple([workload for workload, _ in self.parts])


class Attributor:
    """Chooses the workload of each reading; remembers each entity's last answer, so a tick costs little."""

    def __init__(self, finder: WorkloadFinder | None = None) -> None:
        self._finder = finder
        self._last: dict[str, tuple[tuple[Process, ...], Holding, list[Workload | None]]] = {}
        self._stated, self._tidied = IDLE, Holding(IDLE)

    def attribute(self, reading: Reading) -> Holding:
        """Workload None: the source does not say and processes were not read.

        No process: idle. One workload among the processes: that. Several: each with its processes' SM
        utilisation as weight; what cannot be told is unattributed, alone as among others.
        """
        stated = reading.workload
        if stated is not None:
            if stated is not self._stated:
                self._stated, self._tidied = stated, Holding(tidy(stated))
            return self._tidied
        processes = reading.processes
        if processes is None:
            return _UNKNOWN
        if not processes:
            return _NOBODY
        last = self._last.get(reading.entity)
        if last is not None and _same(last[0], processes):
            _, holding, found = last
        else:
            found = [self._find(p) for p in processes]
            holding = _holding(found, _began_ns(last[0] if last else processes, processes))
            self._last.pop(reading.entity, None)
            if None not in found:  # else asked for again: a process may have been too young
                self._last[reading.entity] = (processes, holding, found)
        if not holding.shared:
            return holding
        used = [(w or UNATTRIBUTED, p.sm_util_pct) for w, p in zip(found, processes, strict=True)]
        return holding._replace(parts=weigh(used))

    def forget(self, entity: str) -> None:
        self._last.pop(entity, None)

    def _find(self, process: Process) -> Workload | None:
        if self._finder is None:
            return None
        workload = self._finder.find(process.pid, process.start_ticks)
        return None if workload is None else tidy(workload)


class ProcFinder:
    """Reads /proc of this node with plain os calls. One look per process, remembered."""

    def __init__(self, root: str = "/proc") -> None:
        self._root = root
        self._known: dict[tuple[int, int], Workload] = {}

    def find(self, pid: int, start_ticks: int) -> Workload | None:
        """See WorkloadFinder. A process other than the one meant (its pid reused) is not found."""
        found = self._known.get((pid, start_ticks))
        if found is not None and start_ticks:
            return found
        stat = self._read(pid, "stat", 4_096)
        started, group = _stat(stat)
        if not started or (start_ticks and started != start_ticks):
            return None
        found = from_cgroup(self._read(pid, "cgroup", MAX_CGROUP_BYTES).decode(errors="replace"))
        if found is None:
            leader, _ = _stat(self._read(group, "stat", 4_096))
            found = Workload(WorkloadKind.PROCESS, job=f"{group}-{leader or started}")
        found = tidy(_corroborated(found, self._environ(pid)))
        if len(self._known) >= MAX_REMEMBERED:
            self._known.clear()
        self._known[pid, started] = found
        return found

    def _environ(self, pid: int) -> dict[str, str]:
        """The allowed variables; empty where the process is not ours to read."""
        found: dict[str, str] = {}
        for item in self._read(pid, "environ", MAX_ENVIRON_BYTES).split(b"\0"):
            name, _, value = item.partition(b"=")
            key = name.decode(errors="replace")
            if key in ALLOWED_VARIABLES:
                found[key] = value.decode(errors="replace")
        return found

    def _read(self, pid: int, name: str, limit: int) -> bytes:
        try:
            fd = os.open(f"{self._root}/{pid}/{name}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return b""
        try:
            parts: list[bytes] = []
            while limit > 0 and (part := os.read(fd, min(limit, 65_536))):
                parts.append(part)
                limit -= len(part)
            return b"".join(parts)
        except OSError:
            return b""
        finally:
            os.close(fd)


def from_cgroup(text: str) -> Workload | None:
    """The Slurm job step or the pod that the lines of /proc/PID/cgroup name, or None."""
    for line in text.splitlines():
        path = line.partition(":")[2].partition(":")[2]
        if _USERS_OWN.match(path):
            continue  # delegated to its user, who may name cgroups in it at will
        slurm = _SLURM.search(path)
        if slurm:
            return Workload(WorkloadKind.SLURM, job=slurm[1], step=slurm[2] or "")
        pod = _POD.search(path)
        if pod:
            return Workload(WorkloadKind.POD, job=pod[1].replace("_", "-"))
    return None


def _corroborated(workload: Workload, environ: dict[str, str]) -> Workload:
    """Add what the job says of itself, unless it claims to be another Slurm job than its cgroup says."""
    if workload.kind is WorkloadKind.SLURM and environ.get("SLURM_JOB_ID", workload.job) != workload.job:
        return workload
    dtype = environ.get("FLOPMETER_DTYPE", "").strip().lower()
    return replace(
        workload,
        run=tidy_label(environ.get("FLOPMETER_RUN", "")),
        dtype=dtype if dtype in DTYPE_RATE else "",
    )


def _name(workload: Workload | None) -> str:
    if workload is None:
        return "a process that cannot be told"
    return f"{workload.kind.label}:{workload.job}" + (f".{workload.step}" if workload.step else "")


_UNKNOWN = Holding(None)
_NOBODY = Holding(IDLE, snapshot=True)
_TICK_NS = 10_000_000  # of /proc/PID/stat: USER_HZ is 100


def _holding(found: Sequence[Workload | None], began_ns: int) -> Holding:
    several = set(found)
    if len(several) == 1:
        return Holding(several.pop() or UNATTRIBUTED, snapshot=True, began_ns=began_ns)
    shared = "held by " + ", ".join(sorted(_name(w) for w in several))
    return Holding(UNATTRIBUTED, shared, snapshot=True, began_ns=began_ns)


def _began_ns(before: Sequence[Process], now: Sequence[Process]) -> int:
    known = set(map(_IDENTITY, before))
    began = [p.start_ticks for p in now if p.start_ticks and _IDENTITY(p) not in known]
    return min(began, default=0) * _TICK_NS


_IDENTITY: Callable[[Process], tuple[int, int]] = lambda p: (p.pid, p.start_ticks)  # noqa: E731


def _same(before: Sequence[Process], now: Sequence[Process]) -> bool:
    return before is now or [*map(_IDENTITY, before)] == [*map(_IDENTITY, now)]


def _stat(raw: bytes) -> tuple[int, int]:
    """(start time in ticks, process group) of /proc/PID/stat; the name may hold anything, so cut behind it."""
    fields = raw.rpartition(b")")[2].split()
    try:
        return int(fields[19]), int(fields[2])
    except (IndexError, ValueError):
        return 0, 0
