"""What the processes of this node belong to: /proc, read with plain os calls, one look a process.

Best first: the Slurm step or the pod that its cgroup names; else, on bare metal, its container or systemd unit; else
its process group, told by boot, number and start of its leader (reference/deploy.md 1.4, bare process).
"""

import os
from typing import Protocol

from flopmeter.contract.identity import identities
from flopmeter.contract.usage import Workload, WorkloadKind

from .cgroup import Place, place
from .environ import ALLOWED_VARIABLES, allowed_of, corroborated
from .labels import tidy

MAX_ENVIRON_BYTES = 1 << 20
MAX_CGROUP_BYTES = 64 << 10
MAX_REMEMBERED = 4_096  # processes; the memory is emptied, not grown, beyond
_STAT_BYTES = 4_096
_BOOT_CHARS = 8  # of the boot id: enough to tell a node's boots apart


class WorkloadFinder(Protocol):
    """Finds what a process belongs to. (pid, start_ticks) names it; pids alone are reused."""

    def find(self, pid: int, start_ticks: int) -> Workload | None:
        """The workload, or None where it cannot be told (gone, not ours to see). Never raises OSError."""
        ...


class ProcFinder:
    """Reads /proc of this node. `more`: variables that the site adds to the allow-list."""

    def __init__(self, root: str = "/proc", more: frozenset[str] = frozenset()) -> None:
        self._root = root
        self._allowed = ALLOWED_VARIABLES | more
        self._known: dict[tuple[int, int], Workload] = {}
        self._boot = self._read("sys/kernel/random", "boot_id", 64)[:_BOOT_CHARS].decode(errors="replace")

    def find(self, pid: int, start_ticks: int) -> Workload | None:
        """See WorkloadFinder. A process other than the one meant (its pid reused) is not found."""
        found = self._known.get((pid, start_ticks))
        if found is not None and start_ticks:
            return found
        started, group = _stat(self._read(pid, "stat", _STAT_BYTES))
        if not started or (start_ticks and started != start_ticks):
            return None
        if (found := self._known.get((pid, started))) is not None:
            return found
        where = place(self._read(pid, "cgroup", MAX_CGROUP_BYTES).decode(errors="replace"))
        environ = allowed_of(self._read(pid, "environ", MAX_ENVIRON_BYTES), self._allowed)
        if _stat(self._read(pid, "stat", _STAT_BYTES))[0] != started:
            return None  # it ended meanwhile: what was read may be another's
        found = tidy(corroborated(where.workload or self._bare(where, pid, started, group), environ))
        if len(self._known) >= MAX_REMEMBERED:
            self._known.clear()
        self._known[pid, started] = found
        return found

    def _bare(self, where: Place, pid: int, started: int, group: int) -> Workload:
        """A process that no scheduler started."""
        job = where.job
        if not job:
            leader, _ = _stat(self._read(group, "stat", _STAT_BYTES))
            job = f"{group}-{leader or started}"
            job = f"{self._boot}-{job}" if self._boot else job
        seen = [
            ("host.container", where.container),
            ("host.unit", where.unit),
            ("host.uid", self._uid(pid)),
            ("declared:unit", where.claimed),
        ]
        return Workload(WorkloadKind.PROCESS, job=job, identities=identities(seen))

    def _uid(self, pid: int) -> str:
        try:
            return str(os.stat(f"{self._root}/{pid}").st_uid)  # noqa: PTH116
        except OSError:
            return ""

    def _read(self, where: int | str, name: str, limit: int) -> bytes:
        try:
            fd = os.open(f"{self._root}/{where}/{name}", os.O_RDONLY | os.O_CLOEXEC)
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


def _stat(raw: bytes) -> tuple[int, int]:
    """(start time in ticks, process group) of /proc/PID/stat; the name may hold anything, so cut behind it."""
    fields = raw.rpartition(b")")[2].split()
    try:
        return int(fields[19]), int(fields[2])
    except (IndexError, ValueError):
        return 0, 0
