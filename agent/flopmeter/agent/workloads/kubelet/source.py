"""The kubelet as a source of allocations: a thread that lists, one that asks the API server, and what they know."""

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING, NamedTuple

from flopmeter.agent.errors import KubernetesError, NotGrantedError
from flopmeter.agent.reading import NodeFacts
from flopmeter.agent.shipping.backoff import Backoff
from flopmeter.agent.workloads.allocations import Allocations
from flopmeter.contract.clock import Clock
from flopmeter.contract.limits import MAX_ENTITIES
from flopmeter.contract.usage import Uncovered, Workload, WorkloadKind

from .client import KubeletClient
from .device_ids import Gpus, gpus_of, meant, unknown_uuids
from .encode import decode_allocatable, decode_listing
from .holders import HandOver, PodName, SliceDevice, held
from .metadata import Found, PodMeta, together
from .names import Names
from .node_gpus import minor_numbers

if TYPE_CHECKING:  # it brings TLS and HTTP, for those only who ask the API server
    from .api import Api

log = logging.getLogger(__name__)

_S = 1_000_000_000
#: Not asked more often than this, however short the tick (reference/deploy.md 1.3: at the sample period).
MIN_PERIOD_S = 1.0
#: While nothing changes it is asked this often at most: a call costs 2 ms of CPU, as much as a tick. What changes
#: first, processes on a GPU, wakes it at once; so this blurs a hand-over only where those are not seen.
QUIET_PERIOD_S = 5.0
#: Lists without a change after which it is quiet.
BUSY_LISTS = 10
#: After failures it is asked again within this. A kubelet that restarts is away for some ten seconds.
MAX_WAIT_S = 15.0
#: How long a list is believed without a newer one. Only the kubelet gives devices out, so what it said stays true
#: while it is away, but that pods may end.
BELIEVED_NS = 60 * _S
#: What the node could give out changes with its hardware and its device plugin only.
ALLOCATABLE_EVERY_NS = 600 * _S
#: After a time without lists a pod may have gone and another of its name have come in between.
GAP_NS = 10 * _S
#: Labels of a pod may be changed while it runs; its node's agent learns of it within this, jittered by a half.
REFRESH_S = 300.0
#: A pod that the API server does not know (yet), or whose UID is in doubt, is asked for again no sooner.
AGAIN_S = 5.0
#: After a refusal: an operator has to do something first.
REFUSED_S = 300.0
_IDLE_S = 1.0


class Problem(NamedTuple):
    """Something that is not as it should be, and what an operator can do about it."""

    why: str
    change: str

    def __str__(self) -> str:
        return f"{self.why}; {self.change}" if self.change else self.why


class Labels:
    """Asks the API server of the pods that hold GPUs, each when it is due. Used by one thread, but for `want`."""

    def __init__(self, api: "Api", clock: Clock, rng: Random) -> None:
        self._api = api
        self._clock = clock
        self._rng = rng
        self._backoff = Backoff(rng, base_s=1.0, cap_s=60.0)
        self._due_ns: dict[PodName, int] = {}
        self._wanted: frozenset[PodName] = frozenset()
        self._doubted: set[PodName] = set()
        self._lock = threading.Lock()
        self._clusters: dict[
            PodName, tuple[str, Found]
        ] = {}  # by (namespace, RayCluster): its UID, what it says
        self._slices_wanted = False
        self._slices_due_ns = 0
        self.slices: Mapping[SliceDevice, str] = {}
        self.problem: Problem | None = None

    def want(self, pods: frozenset[PodName], *, slices: bool) -> None:
        """What the newest list names."""
        self._wanted, self._slices_wanted = pods, slices

    def doubt(self, pods: frozenset[PodName]) -> None:
        """These are perhaps not who they were."""
        with self._lock:
            self._doubted |= pods

    def step(self, told: Callable[[PodMeta], None]) -> float:
        """Ask for what is due; what comes goes to `told`. Returns how long to wait, in seconds."""
        try:
            for pod in self._due():
                # First, whatever comes: one pod does not keep the others waiting.
                self._due_ns[pod] = self._in_ns(AGAIN_S)
                meta = self._api.pod(pod)
                if meta is not None:
                    self._tell(meta, told)
                    self._due_ns[pod] = self._in_ns(REFRESH_S)
            if self._slices_wanted and self._clock.boot_ns() >= self._slices_due_ns:
                self._slices_due_ns = self._in_ns(AGAIN_S if not self.slices else 60.0)
                self.slices = self._api.resource_slices()
        except KubernetesError as e:
            problem = Problem(str(e), e.hint)
            if problem != self.problem:
                log.warning("kubernetes: %s", problem)
                self.problem = problem
            if isinstance(e, NotGrantedError):
                return REFUSED_S * (0.5 + self._rng.random())
            return max(_IDLE_S, self._backoff.next_s())
        self._backoff.reset()
        self.problem = None
        return _IDLE_S

    def _due(self) -> list[PodName]:
        now, wanted = self._clock.boot_ns(), self._wanted
        self._due_ns = {pod: self._due_ns.get(pod, 0) for pod in sorted(wanted)}
        with self._lock:
            doubted, self._doubted = self._doubted, set()
        for pod in doubted & wanted:
            self._due_ns[pod] = min(self._due_ns[pod], self._in_ns(AGAIN_S))
        self._clusters = {n: c for n, c in self._clusters.items() if any(n[0] == pod[0] for pod in wanted)}
        return [pod for pod, due in self._due_ns.items() if due <= now]

    def _tell(self, meta: PodMeta, told: Callable[[PodMeta], None]) -> None:
        """A pod of KubeRay's with where its cluster came from, too: that stands on the RayCluster only."""
        owner = meta.owner
        if owner is None or owner.kind != "RayCluster" or not owner.api.startswith("ray.io/"):
            told(meta)
            return
        key = (meta.name[0], owner.name)
        if self._clusters.get(key, ("", ()))[0] != owner.uid:
            told(meta)  # at once; its cluster may take long, or be refused
            try:
                self._clusters[key] = owner.uid, self._api.cluster(meta.name, owner)
            except NotGrantedError as e:
                log.info("%s; the pod's own labels have to do", e)
                self._clusters[key] = owner.uid, ()
        told(replace(meta, found=together(meta.found, self._clusters[key][1])))

    def _in_ns(self, seconds: float) -> int:
        return self._clock.boot_ns() + round(seconds * (0.5 + self._rng.random()) * _S)


class KubeletSource:
    """See AllocationSource. `start` begins the threads; without it `poll` and `ask` are called by hand."""

    def __init__(
        self,
        client: KubeletClient,
        facts: Callable[[], NodeFacts],
        clock: Clock,
        *,
        rng: Random,
        period_s: float = MIN_PERIOD_S,
        api: "Api | None" = None,
        minors: Callable[[], dict[str, int]] = minor_numbers,
    ) -> None:
        self._client = client
        self._facts = facts
        self._clock = clock
        self._period_s = min(max(MIN_PERIOD_S, period_s), QUIET_PERIOD_S)
        self._minors = minors
        self._labels = Labels(api, clock, rng) if api is not None else None
        self._backoff = Backoff(rng, base_s=self._period_s, cap_s=MAX_WAIT_S)
        self._lock = threading.Lock()  # guards what follows, between the threads
        self._names = Names()
        self._latest: Allocations | None = None
        # The listing thread's own.
        self._hand_over = HandOver()
        self._raw = b""
        self._seen: tuple[object, ...] = ()
        self._gpus: tuple[NodeFacts | None, Gpus] = (None, Gpus())
        self._same = 0  # lists without a change
        self._allocatable_due_ns = 0
        self._unmetered: tuple[str, ...] = ()  # UUIDs
        self._problems: dict[str, tuple[Problem, ...]] = {"list": (), "devices": (), "inventory": ()}
        self._stop = threading.Event()
        self._woken = threading.Event()  # list again soon
        self._asked = threading.Event()  # once, whatever came
        self._threads: list[threading.Thread] = []

    # From any thread, at once.

    def latest(self) -> Allocations | None:
        latest = self._latest
        if latest is None or self._clock.boot_ns() - latest.at_boot_ns > BELIEVED_NS:
            return None
        return latest

    def describe(self, workload: Workload) -> Workload:
        if workload.kind is not WorkloadKind.POD:
            return workload
        with self._lock:
            return self._names.describe(workload)

    def unmetered(self) -> tuple[Uncovered, ...]:
        # A GPU that the driver lists and nothing can read is in the inventory already, without its UUID: which of the
        # two lists has it twice nobody can tell, so then the driver's stands alone.
        if any(u.vendor == _NVIDIA for u in self._facts().uncovered if u.reason != _UNMETERED):
            return ()
        return tuple(Uncovered("", _NVIDIA, uuid, _UNMETERED) for uuid in self._unmetered)

    def met(self, entity: str, workload: Workload) -> None:
        if workload.kind is not WorkloadKind.POD:
            return
        self._woken.set()
        with self._lock:
            if self._labels is not None:
                self._labels.doubt(self._names.doubtful(entity, workload.job))
            if self._names.met(entity, workload.job):
                self._make()

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What is not as it should be now."""
        asked = (self._labels.problem,) if self._labels is not None and self._labels.problem else ()
        return (*asked, *(problem for several in self._problems.values() for problem in several))

    def start(self, wait_s: float = 0.0) -> None:
        """Begin the threads; give the first list so long to come, or to fail.

        The first reading ends the time in which the agent was down. That was a pod's only if it is named again.
        """
        steps: list[tuple[str, Callable[[], float], Callable[[float], bool]]]
        steps = [("kubelet", self.poll, self._pause)]
        if self._labels is not None:
            steps.append(("kubernetes-api", self.ask, self._stop.wait))
        for name, step, pause in steps:
            thread = threading.Thread(target=self._run, args=(step, pause), name=name, daemon=True)
            self._threads.append(thread)
            thread.start()
        self._asked.wait(wait_s)

    def close(self) -> None:
        self._stop.set()
        self._woken.set()
        self._client.close()
        for thread in self._threads:
            thread.join(timeout=1.0)
        self._threads.clear()

    # The threads.

    def poll(self) -> float:
        """One list. Returns how long to wait for the next, in seconds."""
        try:
            raw = self._client.list_pods()
            now = self._clock.boot_ns()
            self._take(raw, now)
            if now >= self._allocatable_due_ns:
                self._allocatable_due_ns = now + ALLOCATABLE_EVERY_NS
                self._gpus = None, Gpus()  # a module that was loaded late has minor numbers only now
                self._inventory()
        except KubernetesError as e:
            self._say("list", (Problem(str(e), e.hint),))
            return max(self._period_s, self._backoff.next_s())
        finally:
            self._asked.set()
        self._backoff.reset()
        self._say("list", ())
        return self._period_s if self._same < BUSY_LISTS else QUIET_PERIOD_S

    def ask(self) -> float:
        """One look at what the API server should be asked. Returns how long to wait, in seconds."""
        assert self._labels is not None
        return self._labels.step(self._told)

    def _pause(self, wait_s: float) -> bool:
        """Wait; shorter, but for one period, where processes changed meanwhile. Whether to stop."""
        if self._stop.wait(min(wait_s, self._period_s)):
            return True
        self._woken.wait(max(0.0, wait_s - self._period_s))
        self._woken.clear()
        return self._stop.is_set()

    def _run(self, step: Callable[[], float], pause: Callable[[float], bool]) -> None:
        while not self._stop.is_set():
            try:
                wait_s = step()
            except Exception:
                log.exception("kubernetes: failed in a way it should not; goes on")
                wait_s = MAX_WAIT_S
            if pause(wait_s):
                return

    def _take(self, raw: bytes, now: int) -> None:
        gpus = self._known_gpus()
        slices = self._labels.slices if self._labels is not None else {}
        latest = self._latest
        missing = latest is not None and now - latest.at_boot_ns > GAP_NS
        if raw == self._raw and self._seen == (gpus, slices) and not missing:
            self._same += 1
            with self._lock:
                self._publish(now)
            return
        self._same = 0
        found = held(decode_listing(raw), gpus, slices)
        self._raw, self._seen = raw, (gpus, slices)
        with self._lock:
            self._names.listed(self._hand_over.settle(found.by_entity), missing=missing)
            self._latest = Allocations(now, self._names.holders())
        if self._labels is not None:
            self._labels.want(self._names.pods, slices=found.unresolved_claims or bool(slices))
        self._say("devices", _unresolved("", found.unresolved.items()))

    def _told(self, meta: PodMeta) -> None:
        with self._lock:
            if self._names.told(meta):
                self._make()

    def _make(self) -> None:
        """Anew, with the lock held: something is known that was not. Nothing before the first list."""
        if self._latest is not None:
            self._latest = Allocations(self._latest.at_boot_ns, self._names.holders())

    def _publish(self, now: int) -> None:
        """As it was known, still true now."""
        assert self._latest is not None
        self._latest = Allocations(now, self._latest.by_entity)

    def _known_gpus(self) -> Gpus:
        facts = self._facts()
        if self._gpus[0] is not facts:
            self._gpus = facts, gpus_of(facts, self._minors())
        return self._gpus[1]

    def _inventory(self) -> None:
        """GPUs that the node could give out and nothing here meters."""
        raw = self._client.allocatable()
        if raw is None:
            return
        gpus = self._known_gpus()
        listed = decode_allocatable(raw)
        self._unmetered = tuple(sorted(unknown_uuids((i for _, i in listed), gpus)))[:MAX_ENTITIES]
        ids = [(f"{r} {i}", meant(r, i, gpus)) for r, i in listed]
        unknown = [(words, m.why) for words, m in ids if m is not None and not m.entity]
        self._say("inventory", _unresolved("could be given out, and is not known: ", unknown))

    def _say(self, about: str, problems: tuple[Problem, ...]) -> None:
        """Each once in the log, until it is gone."""
        before = self._problems.get(about, ())
        for each in problems[:_MOST_SAID]:
            if each not in before:
                log.warning("kubernetes: %s", each)
        self._problems[about] = problems[:_MOST_SAID]


def _unresolved(about: str, devices: Iterable[tuple[str, str]]) -> tuple[Problem, ...]:
    return tuple(Problem(f"{about}{what}: {why}", _SEE) for what, why in sorted(devices))


_MOST_SAID = 32
_NVIDIA = "NVIDIA"
_UNMETERED = "the kubelet could give it out, and nothing here meters it"
_SEE = "see docs/kubernetes.md, Device ids; its time is booked by processes alone"
