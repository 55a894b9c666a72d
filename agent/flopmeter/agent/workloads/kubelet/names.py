"""Which pod is which: the list has names, cgroups have UIDs, the API server has both. Pure state.

What is shipped names a pod by its UID where that is known, as names are used again: a StatefulSet's pod made anew is
another pod. The UID of (namespace, name) comes, best first, from the API server; from the cgroup of the only workload
whose processes run on a GPU that the list gives to that pod alone; else it stays unknown, and namespace/name names it.
Until then, in what `holders` says, every pod is namespace/name, and a later one of that name namespace/name#1: the
meter's key must not change when a UID is learned, or one pod would seem to hand its GPU over to another; nor be that of
another pod. `describe` puts the UID to it when the window is sealed.

A UID from a cgroup is believed until the pod leaves the list, or until it is met on a GPU that the list does not give
to that pod: a process may hold GPUs that nobody gave to its pod. Where lists are missing the pod may have left between
them: then the next UID that is met there counts.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from flopmeter.agent.workloads.labels import tidy_identities
from flopmeter.contract.usage import Workload, WorkloadKind

from .holders import Hold, PodName
from .metadata import PodMeta, fit, together

#: The identity that holds it.
UID = "k8s.pod_uid"
#: UIDs remembered as met where their pod has nothing; emptied, not grown, beyond.
MAX_STRAYS = 1_024
#: Pods remembered after they left the list: what they used is sealed at the end of the window only.
MAX_DEPARTED = 256


@dataclass(slots=True)
class _Pod:
    """What is known of one pod that holds a GPU."""

    name: PodName
    life: int = 0  # how many of that name were listed before it
    containers: tuple[str, ...] = ()  # that hold one
    entities: frozenset[str] = frozenset()
    bound: str = ""  # UID by cgroups
    sure: bool = True  # `bound` was met since the last missing list
    meta: PodMeta | None = None

    @property
    def uid(self) -> str:
        return self.meta.uid if self.meta is not None else self.bound

    @property
    def key(self) -> str:
        return fit("/".join(self.name) + (f"#{self.life}" if self.life else ""))

    @property
    def job(self) -> str:
        return self.uid or self.key


class Names:
    """The pods of the newest list, and those that left it not long ago."""

    def __init__(self) -> None:
        self._holds: Mapping[str, tuple[Hold, ...]] = {}
        self._pods: dict[PodName, _Pod] = {}
        self._by_key: dict[str, _Pod] = {}  # UID, and namespace/name -> pod, departed ones too
        self._departed: dict[PodName, _Pod] = {}
        self._strays: set[str] = set()

    @property
    def pods(self) -> frozenset[PodName]:
        """Those of the newest list that hold a GPU."""
        return frozenset(self._pods)

    def listed(self, holds: Mapping[str, tuple[Hold, ...]], *, missing: bool = False) -> None:
        """A new list; `missing`: some before it could not be had. A pod that comes back is another pod."""
        containers: dict[PodName, set[str]] = {}
        entities: dict[PodName, set[str]] = {}
        for entity, several in holds.items():
            for hold in several:
                containers.setdefault(hold.pod, set()).add(hold.container)
                entities.setdefault(hold.pod, set()).add(entity)
        self._holds = holds
        for name in [name for name in self._pods if name not in entities]:
            self._departed.pop(name, None)
            self._departed[name] = self._pods.pop(name)
        while len(self._departed) > MAX_DEPARTED:
            del self._departed[next(iter(self._departed))]
        for name, names in containers.items():
            pod = self._pods.get(name)
            if pod is None:
                before = self._departed.get(name)
                pod = self._pods[name] = _Pod(name, before.life + 1 if before else 0)
            pod.containers, pod.entities = tuple(sorted(names)), frozenset(entities[name])
            pod.sure = pod.sure and not missing
        self._index()

    def told(self, meta: PodMeta) -> bool:
        """What the API server says of a pod now. Whether it is new; nothing is kept of one that is not listed."""
        pod = self._pods.get(meta.name)
        if pod is None or pod.meta == meta:
            return False
        pod.meta = meta
        self._index()
        return True

    def met(self, entity: str, uid: str) -> bool:
        """Only processes of the pod `uid` hold the entity. Whether that taught anything."""
        known = self._by_key.get(uid)
        if (
            known is not None
            and known.name in self._pods
            and known.meta is None
            and entity not in known.entities
        ):
            self._stray(uid)
            known.bound = ""
            self._index()
            return True
        names = {hold.pod for hold in self._holds.get(entity, ())}
        if len(names) != 1 or uid in self._strays:
            return False
        pod = self._pods[names.pop()]
        if pod.meta is not None or (known is not None and known is not pod):
            return False  # who it is is known, or that UID is known to be another pod's
        if pod.bound and pod.bound != uid and pod.sure:
            return False
        changed = pod.bound != uid
        pod.bound, pod.sure = uid, True
        if changed:
            self._index()
        return changed

    def doubtful(self, entity: str, uid: str) -> frozenset[PodName]:
        """Pods that the API server should be asked of again: processes of another UID hold what was given to them."""
        if uid in self._by_key:
            return frozenset()
        return frozenset(h.pod for h in self._holds.get(entity, ()) if self._pods[h.pod].meta is not None)

    def holders(self) -> dict[str, tuple[Workload, ...]]:
        """By entity, in the order of the list."""
        made: dict[tuple[PodName, str], Workload] = {}
        found: dict[str, tuple[Workload, ...]] = {}
        for entity, holds in self._holds.items():
            for hold in holds:
                if (hold.pod, hold.container) not in made:
                    made[hold.pod, hold.container] = _workload(self._pods[hold.pod], hold.container)
            found[entity] = tuple([made[h.pod, h.container] for h in holds])
        return found

    def describe(self, workload: Workload) -> Workload:
        """A pod's workload with the pod's UID, names, labels and run; any other as it is."""
        if workload.kind is not WorkloadKind.POD:
            return workload
        # Of a process's cgroup: then no other pod of that name is meant.
        uid = dict(workload.identities).get(UID, "")
        pod = self._by_key.get(uid or workload.job)
        if pod is None:
            return replace(workload, job=uid) if uid and workload.job != uid else workload
        step = workload.step or (pod.containers[0] if len(pod.containers) == 1 else "")
        whole = _workload(pod, step)
        return replace(
            workload,
            job=pod.job,
            step=step,
            run=whole.run or workload.run,
            identities=tidy_identities([*whole.identities, *workload.identities]),
        )

    def _stray(self, uid: str) -> None:
        if len(self._strays) >= MAX_STRAYS:
            self._strays.clear()
        self._strays.add(uid)

    def _index(self) -> None:
        self._by_key = {}
        for pod in (*self._departed.values(), *self._pods.values()):  # who is there now wins
            self._by_key[pod.key] = pod
            if pod.uid:
                self._by_key[pod.uid] = pod


def _workload(pod: _Pod, container: str) -> Workload:
    namespace, name = pod.name
    own = [
        ("k8s.namespace", namespace),
        ("k8s.pod", name),
        (UID, pod.uid),
        ("k8s.container", container),
    ]
    meta = pod.meta
    return Workload(
        WorkloadKind.POD,
        job=pod.key,
        step=container,
        run=meta.run if meta is not None else "",
        identities=tidy_identities([*own, *(together(meta.found) if meta is not None else ())]),
    )
