"""Which workload holds an entity (reference/metering.md section 5, DESIGN.md section 7).

What the source itself states (a trace, the simulator) stands. Else two kinds of evidence, both root's, are put together
by rules.py: the processes that hold the device, each found by its cgroup, and whom the scheduler gave the device to.
The meter gets a key (known.py); all that is known of a workload is put to it when the window is sealed.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import NamedTuple

from flopmeter.agent.metering.shares import Part, weigh
from flopmeter.agent.reading import Process, Reading
from flopmeter.contract.usage import IDLE, UNATTRIBUTED, Device, Workload

from .allocations import AllocationSource
from .claims import Claim, Claims, Place
from .known import Known, alike
from .labels import tidy
from .processes import WorkloadFinder
from .rules import Holders, holders_of, name

#: A process that could not be told may be too young: asked for again after as long as it was there, at most this long.
MAX_ASK_AGAIN_NS = 60_000_000_000
#: Processes that stay unknown for so long are not of this PID namespace.
UNSEEN_NS = 10_000_000_000
#: What is told once is remembered up to here.
_MOST_TOLD = 256
NO_HOST_PIDS = (
    "the processes that the driver names are not in /proc: expected the host's PID namespace "
    "(hostPID: true, --pid=host), and no hidepid on /proc"
)


class Holding(NamedTuple):
    """Who holds an entity. `workload` None: not known; of several workloads UNATTRIBUTED, and `parts` names them."""

    workload: Workload | None
    shared: str = ""  # the several, in words
    parts: tuple[Part, ...] = ()  # with their weights, in a fixed order
    snapshot: bool = (
        False  # by the processes of one instant; what a source states is true of the time before it
    )
    began_ns: int = (
        0  # boot time at which the first of the holders began that were not there before; 0 = not known
    )
    waiting: bool = False  # it was given to them, and no process of theirs is there

    @property
    def sharers(self) -> tuple[Workload, ...]:
        return tuple([workload for workload, _ in self.parts])


class Attribution(NamedTuple):
    """What an Attributor asks."""

    finder: WorkloadFinder | None  # what processes belong to
    sources: Sequence[
        AllocationSource
    ] = ()  # whom the scheduler gave a device to; best first: the first is believed
    claims: Claims | None = None  # what training code declares of itself


NO_ATTRIBUTION = Attribution(None)


class _Last(NamedTuple):
    """An entity's last answer, and what it was made from."""

    processes: tuple[Process, ...]
    given: Holders
    holding: Holding
    whose: tuple[Holders, ...]  # by process
    since_ns: int  # these processes are there since
    again_ns: int  # some could not be told: look again then; 0 = never


class Attributor:
    """Chooses the workload of each reading; remembers each entity's last answer, so a tick costs little."""

    def __init__(
        self,
        finder: WorkloadFinder | None = None,
        sources: Sequence[AllocationSource] = (),
        claims: Claims | None = None,
    ) -> None:
        self._finder = finder
        self._sources = tuple(sources)
        self._parents: dict[str, str] = {}  # MIG instance -> the GPU it is cut from
        self._last: dict[str, _Last] = {}
        self._known = Known()
        self._claims = claims
        self._places: dict[Workload, set[Place]] = {}  # key -> what the cgroups of its processes name
        self._stated, self._tidied = IDLE, Holding(IDLE)
        self._sees = False  # some process was found: this is the PID namespace that the driver speaks of
        self._told: dict[tuple[str, str], None] = {}
        self.remarks: list[
            tuple[str, str]
        ] = []  # (entity, what is odd), each once; whoever tells them clears

    def attribute(self, reading: Reading) -> Holding:
        """Workload None: nobody says.

        No process, and given to nobody: idle. One workload among the processes: that. Several: each with its
        processes' SM utilisation as weight; what cannot be told is unattributed, alone as among others.
        """
        stated = reading.workload
        if stated is not None:
            if stated is not self._stated:
                self._stated, self._tidied = stated, Holding(tidy(stated))
            return self._tidied
        processes = reading.processes
        entity = reading.entity
        given = self._given(entity) if self._sources else ()
        if not processes and not given:
            if processes is not None:
                return _NOBODY
            return _UNKNOWN_NOW if self._sources else _UNKNOWN
        last = self._last.get(entity)
        if (
            last is None
            or not (last.given is given or last.given == given)
            or not _same(last.processes, processes or ())
            or (last.again_ns and reading.t_boot_ns >= last.again_ns)
        ):
            last = self._look(reading, given, last)
        if not last.holding.shared or not processes:
            return last.holding
        return last.holding._replace(parts=_shares(last.whose, processes))

    def shown(self, reading: Reading) -> Holding:
        """For eyes, of an attributor that meters nothing: the workload with all that is known of it.

        No window is sealed there, so what holds nothing by the newest readings is forgotten here.
        """
        holding = self.attribute(reading)
        if holding.workload is not None:
            holding = holding._replace(workload=self.describe(holding.workload))
        self.forget_all_but(w for last in self._last.values() for held in last.whose for w in held)
        self.remarks.clear()
        return holding

    def described(self, reading: Reading) -> Workload | None:
        """As `shown`."""
        return self.shown(reading).workload

    def describe(self, workload: Workload) -> Workload:
        """`workload`, as `attribute` named it, with all that is known of it by now."""
        if workload in _NO_WORKLOAD:
            return workload
        found = self._known.describe(workload)
        for source in self._sources:
            found = source.describe(found)
        if self._claims is not None and (claim := self._claims.of(self._places_of(workload))) is not None:
            found = claim.put_to(found)
        return found if found is workload else tidy(found)

    def news(self, workload: Workload) -> Claim | None:
        """What the workload has declared of itself since this was last asked for; None = nothing."""
        return None if self._claims is None else self._claims.news(self._places_of(workload))

    def forget(self, entity: str) -> None:
        self._last.pop(entity, None)

    def forget_all_but(self, workloads: Iterable[Workload]) -> None:
        """Only these hold something now: the others need not be remembered for ever."""
        held = set(workloads)
        if self._known.retain(held):
            self._last.clear()
            self._places = {key: places for key, places in self._places.items() if key in held}

    def take_devices(self, devices: Iterable[Device]) -> None:
        """Which instances are cut from which GPU: what was given whole was given with its instances."""
        self._parents = {d.entity: d.parent for d in devices if d.mig and d.parent}

    # ---- looking -------------------------------------------------------------------------------

    def _given(self, entity: str) -> Holders:
        found = self._allocated(entity)
        return found[0] if found else ()

    def _allocated(self, entity: str) -> tuple[Holders, int] | None:
        """To whom, and at what time that was true."""
        for source in self._sources:
            latest = source.latest()
            if latest is None:
                continue
            given = latest.by_entity.get(entity) or latest.by_entity.get(self._parents.get(entity, ""))
            if given:
                return given, latest.at_boot_ns
        return None

    def _look(self, reading: Reading, given: Holders, last: _Last | None) -> _Last:
        """Ask for the processes anew, and put them and the allocation together."""
        entity, now, processes = reading.entity, reading.t_boot_ns, reading.processes or ()
        tidied = tuple(map(tidy, given))
        found = [self._find(p) for p in processes]
        self._tell_sources(entity, found)
        held = {key for keys in last.whose for key in keys} if last is not None else set()
        whose: list[Holders] = []
        for workload in found:
            holders, odd = holders_of(workload, tidied)
            # Each side is within the contract's limits; put together they may not be.
            keys = tuple([self._key(tidy(holder), held) for holder in holders]) or (UNATTRIBUTED,)
            whose.append(keys)
            if workload is not None and len(keys) == 1:
                self._places.setdefault(keys[0], set()).add((workload.kind, workload.job, workload.step))
            if odd:
                self._remark(entity, odd)
        if not processes:
            whose = [tuple([self._key(holder, held) for holder in tidied])]
        same = last is not None and _same(last.processes, processes)
        since = last.since_ns if last is not None and same else now
        again = 0
        if None in found:
            again = now + min(max(now - since, 1), MAX_ASK_AGAIN_NS)
            if self._finder is not None and not self._sees and not any(found) and now - since >= UNSEEN_NS:
                self._remark("", NO_HOST_PIDS)
        before = last.processes if last is not None else processes
        began = _began_ns(before, processes) if processes else (self._allocated(entity) or ((), 0))[1]
        holding = _holding(whose, began)
        if not processes and reading.processes is not None:
            holding = holding._replace(waiting=True)
        kept = _Last(processes, given, holding, tuple(whose), since, again)
        self._last[entity] = kept
        return kept

    def _key(self, workload: Workload, held: Collection[Workload]) -> Workload:
        """What to meter it by. A source may learn that it is one of those that `held` the entity under another name.

        So it is with a pod: its cgroup has a UID, the kubelet's first list only a name. It did not change hands.
        """
        key = self._known.learn(workload)
        if self._sources and key not in held:
            told = self.describe(key)
            for old in held:
                if alike(self.describe(old), told):
                    self._known.add(old, workload)
                    return old
        return key

    def _places_of(self, key: Workload) -> Iterable[Place]:
        return self._places.get(key) or ((key.kind, key.job, key.step),)

    def _find(self, process: Process) -> Workload | None:
        if self._finder is None:
            return None
        workload = self._finder.find(process.pid, process.start_ticks)
        self._sees = self._sees or workload is not None
        return None if workload is None else tidy(workload)

    def _tell_sources(self, entity: str, found: Sequence[Workload | None]) -> None:
        if self._sources and len(several := set(found)) == 1 and (alone := several.pop()) is not None:
            for source in self._sources:
                source.met(entity, alone)

    def _remark(self, entity: str, text: str) -> None:
        if (entity, text) in self._told:
            return
        if len(self._told) >= _MOST_TOLD:
            del self._told[next(iter(self._told))]  # the oldest: what is new is told for ever
        self._told[entity, text] = None
        self.remarks.append((entity, text))


_NO_WORKLOAD = (IDLE, UNATTRIBUTED)
_UNKNOWN = Holding(None)
_UNKNOWN_NOW = Holding(None, snapshot=True)
_NOBODY = Holding(IDLE, snapshot=True)
_TICK_NS = 10_000_000  # of /proc/PID/stat: USER_HZ is 100


def _holding(whose: Sequence[Holders], began_ns: int) -> Holding:
    several = {workload for holders in whose for workload in holders}
    if len(several) == 1:
        return Holding(several.pop(), snapshot=True, began_ns=began_ns)
    words = {name(None) if w == UNATTRIBUTED else name(w) for w in several}
    shared = "held by " + ", ".join(sorted(words))
    parts = weigh([(w, None) for w in several])
    return Holding(UNATTRIBUTED, shared, parts, snapshot=True, began_ns=began_ns)


def _shares(whose: Sequence[Holders], processes: Sequence[Process]) -> tuple[Part, ...]:
    """Each process's SM utilisation to whose it is, in equal parts where that is several."""
    used: list[tuple[Workload, float | None]] = []
    for holders, process in zip(whose, processes, strict=True):
        share = process.sm_util_pct
        each = None if share is None else share / len(holders)
        used += [(workload, each) for workload in holders]
    return weigh(used)


def _began_ns(before: Sequence[Process], now: Sequence[Process]) -> int:
    known = set(map(_IDENTITY, before))
    began = [p.start_ticks for p in now if p.start_ticks and _IDENTITY(p) not in known]
    return min(began, default=0) * _TICK_NS


_IDENTITY: Callable[[Process], tuple[int, int]] = lambda p: (p.pid, p.start_ticks)  # noqa: E731


def _same(before: Sequence[Process], now: Sequence[Process]) -> bool:
    return before is now or [*map(_IDENTITY, before)] == [*map(_IDENTITY, now)]
