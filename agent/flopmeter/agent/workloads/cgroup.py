"""What a process's cgroup path says of whose it is. Pure: the text of /proc/PID/cgroup in, names out.

Only root can move a process to another cgroup, but for the subtrees that are delegated to a user (systemd's user
managers): whoever runs there names them at will, so what they say is that user's own claim.
"""

import re
from dataclasses import dataclass

from flopmeter.contract.usage import Workload, WorkloadKind

from .kubelet.pod_cgroup import pod_of_cgroup
from .slurm_cgroup import slurm_of_cgroup

#: As a container with a cgroup namespace of its own sees it too: /../../user.slice/…
_USERS_OWN = re.compile(r"(?:/\.\.)*/user\.slice/")
#: docker-<id>.scope, libpod-<id>.scope, cri-containerd-<id>.scope (systemd); /docker/<id>, /libpod_parent/libpod-<id>
_CONTAINER = re.compile(r"/(?:[a-z]+(?:-[a-z]+)*-|docker/|lxc/)([0-9a-f]{64})(?:\.scope)?(?:/|$)")
#: The outermost unit: below it a service may have been given the right to name cgroups itself (Delegate=).
_UNIT = re.compile(r"/([^/]+\.(?:service|scope))(?:/|$)")
#: Scopes that a login or the system's start makes: they say nothing of what runs in them.
_NO_UNITS = re.compile(r"(?:init|session-[^/]*)\.scope\Z")
_CONTAINER_CHARS = 12  # as docker and podman show an id


@dataclass(frozen=True, slots=True)
class Place:
    """Where a process runs, by its cgroup."""

    workload: Workload | None = None  # the Slurm step or the pod, which the scheduler put there
    container: str = ""  # id of its container, 64 hex digits
    unit: str = ""  # its systemd unit
    claimed: str = ""  # a unit or container that its user named: a claim

    @property
    def job(self) -> str:
        """The name of what root put it into where no scheduler did; "" = nothing but the machine."""
        return f"container-{self.container[:_CONTAINER_CHARS]}" if self.container else self.unit


def place(text: str) -> Place:
    """What the lines of /proc/PID/cgroup say; cgroup v1 has one for each controller, and the first that names wins.

    Slurm before pods: a Slurm path is believed from its beginning only, so that no pod can lie around it.
    """
    slurm = slurm_of_cgroup(text)
    if slurm is not None:
        return Place(Workload(WorkloadKind.SLURM, job=slurm.job, step=slurm.step))
    container = unit = claimed = ""
    for line in text.splitlines():
        path = line.partition(":")[2].partition(":")[2]
        pod = pod_of_cgroup(path)
        if pod is not None:
            return Place(Workload(WorkloadKind.POD, job=pod.uid))
        if _USERS_OWN.match(path):
            named = _CONTAINER.search(path) or _last_unit(path)
            claimed = claimed or (named[1] if named else "")
        elif found := _CONTAINER.search(path):
            container = container or found[1]
        elif (found := _UNIT.search(path)) and not _NO_UNITS.match(found[1]):
            unit = unit or found[1]
    return Place(None, container, unit, claimed)


def _last_unit(path: str) -> re.Match[str] | None:
    """The innermost unit below a user's manager, user@1000.service, which itself says nothing."""
    found = [m for m in _UNIT.finditer(path.replace("/", "//")) if not m[1].startswith("user@")]
    named = [m for m in found if not _NO_UNITS.match(m[1])]
    return named[-1] if named else None
