"""Which pod a cgroup belongs to, by its path. Pure.

Only root, and what root delegated to, makes cgroups. So the outermost pod of a path is believed, nothing below a
user's own `user.slice` is, and nothing below a container: a workload that may nest cgroups writes what it likes there.

Forms, with their cgroup drivers (reference/deploy.md 1.3; `<uid_>` has underscores for its dashes):

    cgroupfs    /kubepods/besteffort/pod<uid>/<cid>                      guaranteed pods: no QoS folder
    systemd     /kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<uid_>.slice/cri-containerd-<cid>.scope
    mixed       /kubepods-burstable-pod<uid_>.slice:cri-containerd:<cid>  (a runtime with the other driver)
    nested      /docker/<id>/kubelet/kubepods/…, /kubelet.slice/kubelet-kubepods.slice/…  (kind, --cgroup-root)
    relative    /../../../besteffort/pod<uid>/<cid>  as an agent sees it whose container has a cgroup namespace

A pod's UID is a UUID; that of a static pod, which the kubelet reads from a file, is 32 hex digits.
"""

import re
from dataclasses import dataclass

_UID = r"(?P<uid>[0-9a-f]{8}([-_])[0-9a-f]{4}\2[0-9a-f]{4}\2[0-9a-f]{4}\2[0-9a-f]{12}|[0-9a-f]{32})"
#: The folder that the kubelet makes for a pod: cgroupfs behind `kubepods`, systemd with the whole path in its name.
_POD = re.compile(
    r"(?:/kubepods(?:/(?:besteffort|burstable))?/pod"
    r"|\A(?:/\.\.)+(?:/(?:besteffort|burstable))?/pod"
    r"|/(?:[A-Za-z0-9_.]+-)*kubepods(?:-besteffort|-burstable)?-pod)" + _UID + r"(?P<end>\.slice)?(?=[/:]|\Z)"
)
#: The first folder below: the container, whatever its runtime writes before the id.
_CONTAINER = re.compile(r"(?:/|:[a-z-]+:)(?:[a-z-]+-)?([0-9a-f]{64})(?:\.scope)?(?=/|\Z)")
_USERS_OWN = re.compile(r"(?:/\.\.)*/user\.slice(?:/|\Z)")


@dataclass(frozen=True, slots=True)
class PodCgroup:
    """A pod as the kubelet named its cgroup."""

    uid: str  # as the API server writes it
    container_id: str = (
        ""  # 64 hex digits; "" = the path names none (the pod's own folder, an unknown runtime)
    )
    start: int = 0  # where in the path the pod begins: of two schedulers' marks, the outermost counts


def pod_of_cgroup(path: str) -> PodCgroup | None:
    """The pod of one path (the third field of a line of /proc/PID/cgroup), or None."""
    if _USERS_OWN.match(path):
        return None
    pod = _POD.search(path)
    if pod is None:
        return None
    uid = pod["uid"].replace("_", "-")
    container = _CONTAINER.match(path, pod.end())
    return PodCgroup(uid, container[1] if container else "", pod.start())
