"""What is known of the workloads that were met: a short key to meter by, and all the rest for when a window is sealed.

The meter tells workloads apart by key: kind, job, step. Run label, dtype, identities are learned beside it, and may
come seconds later than the first cycles do (a process seen before its environment is there, a kubelet that answers
slowly). So they are put to the key when the window closes, and a job does not fall into two for what was learned late.
Pure.
"""

from collections.abc import Collection
from dataclasses import replace

from flopmeter.contract.identity import Identity, identities
from flopmeter.contract.usage import Workload, WorkloadKind

#: Workloads remembered before those that hold nothing any more are forgotten; and within one window, of one name.
MAX_KNOWN = 1_024
#: Says that one job step told of more trainings in one window than are told apart.
CROWDED = Identity("host.trainings", f"more than {MAX_KNOWN}")
#: A pod has one in its life; another of the same namespace and name is another pod.
POD_UID = "k8s.pod_uid"


class Known:
    """Workloads by key. A key is itself a Workload: what the meter books to."""

    def __init__(self) -> None:
        self._described: dict[Workload, Workload] = {}  # key -> all that was learned of it
        self._keys: dict[Workload, list[Workload]] = {}  # kind, job, step -> the keys of that name

    def __len__(self) -> int:
        return len(self._described)

    def learn(self, found: Workload) -> Workload:
        """The key of `found`, and remember what it says.

        Two that bear one name but contradict each other (another run or dtype, another value of one identity: two
        trainings in one job step) are two workloads: the second's key is all that it said at first.
        """
        bare = Workload(found.kind, found.job, found.step)
        keys = self._keys.setdefault(bare, [])
        for key in keys:
            known = self._described[key]
            if known == found:
                return key
            both = together(known, found)
            if both is not None:
                self._described[key] = both
                return key
        if len(keys) >= MAX_KNOWN and found.kind is not WorkloadKind.POD:
            # Somebody floods: what its processes say of themselves is left out, whose they are is not.
            roots = [each for each in found.identities if not each.by_user]
            found = replace(found, run="", dtype="", identities=identities([*roots, CROWDED]))
            self._described.setdefault(found, found)
            return found
        key = found if keys else bare
        keys.append(key)
        self._described[key] = found
        return key

    def add(self, key: Workload, found: Workload) -> None:
        """`found` is the workload with that key, under another name."""
        both = together(self._described.get(key, key), found)
        if both is not None:
            self._described[key] = both

    def describe(self, key: Workload) -> Workload:
        """All that is known of the workload with that key; `key` itself if nothing is."""
        return self._described.get(key, key)

    def retain(self, keys: Collection[Workload]) -> bool:
        """Forget the others, once there are too many. Whether any was forgotten."""
        if len(self._described) <= MAX_KNOWN:
            return False
        held = set(keys)
        self._described = {key: known for key, known in self._described.items() if key in held}
        self._keys = {}
        for key in self._described:
            self._keys.setdefault(Workload(key.kind, key.job, key.step), []).append(key)
        return True


def alike(a: Workload, b: Workload) -> bool:
    """Whether two descriptions, of earlier and of later, may be of one workload."""
    return (a.kind, a.job, a.step) == (b.kind, b.job, b.step) and together(a, b) is not None


def together(a: Workload, b: Workload) -> Workload | None:
    """What both say of one workload, `b` the later; None where they contradict each other.

    Two trainings in one job do: by run, dtype, or a variable of their environment; and so do two pods of one name. What
    else the scheduler or the kernel says may change in a job's life (a label, a requeue), and the later word counts.
    """
    for one, other in ((a.run, b.run), (a.dtype, b.dtype)):
        if one and other and one != other:
            return None
    seen = dict(a.identities)
    for name, value in b.identities:
        if (name.startswith("env:") or name == POD_UID) and seen.get(name, value) != value:
            return None
    return replace(
        a,
        run=a.run or b.run,
        dtype=a.dtype or b.dtype,
        user=b.user or a.user,
        restart=max(a.restart, b.restart),
        identities=identities([*b.identities, *a.identities]),
    )
