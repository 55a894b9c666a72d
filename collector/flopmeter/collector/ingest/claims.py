"""Who meters which entity, and up to when: no GPU's time is added up for two agents. Pure.

A claim is one agent's stretch of an entity's time. It begins with the first usage that the agent tells of the
entity and reaches to the agent's last record, for as long as the agent's inventory lists the entity. Usage of the
same time by another agent (two agents on one node, a recording replayed under another key) is not booked: its
record is taken and kept, its other entities count, and the first time is an event; of a record that reaches past
the other's claim the rest is a gap. A GPU that moves to another
node, and a node that gets a new key, just begin another claim behind the old one. A gap says that nothing is
known: it claims nothing, and where another agent knows, it is left out without an event.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from flopmeter.collector.books import NO_SUMS, GroupKey
from flopmeter.contract.evidence_class import EvidenceClass
from flopmeter.contract.usage import Batch, GapReason

from .decide import Head

if TYPE_CHECKING:
    from .encode import BatchView, DeviceBounds

#: Two nodes' wall clocks may disagree by this much where a GPU passes from one to the other: a real-time clock
#: counts whole seconds and drifts by up to 2 s in a day without power (20 ppm), a node that keeps time by NTP is
#: within 1 s (the agent calls more a clock step), and no GPU changes nodes or operating system in less. Between
#: agents of one boot there is one clock that never steps, and no tolerance.
CLOCK_ERROR_NS = 5_000_000_000
_EVER = -(1 << 63)


class Until(NamedTuple):
    """Where a claim ends: a window's end on both clocks."""

    boot_id: bytes
    boot_ns: int
    unix_ns: int


@dataclass(slots=True, eq=False)
class Claim:
    """One row of the claims table. `until` None: up to the agent's last record."""

    claim_no: int
    entity: str
    agent_no: int
    boot_id: bytes  # of the boot in which it began
    since_boot_ns: int
    since_unix_ns: int
    until: Until | None = None

    @property
    def row(self) -> tuple[int, str, int, bytes, int, int, bytes | None, int | None, int | None]:
        until = self.until or (None, None, None)
        return (
            self.claim_no,
            self.entity,
            self.agent_no,
            self.boot_id,
            self.since_boot_ns,
            self.since_unix_ns,
            *until,
        )


class Told(NamedTuple):
    """What a record tells of: the window's ends, and its inventory's entities by index."""

    boot_id: bytes
    start_boot_ns: int
    end_boot_ns: int
    end_unix_ns: int
    entities: Sequence[str]
    #: Entities with usage -> longest row, ns: one over a restart reaches back behind the window's start.
    longest_ns: Mapping[int, int]
    metered: AbstractSet[int]  # those of them of which not all is a gap
    #: Entity -> index of the workload that held it all the time; None: there were several.
    held: Mapping[int, int | None]


def told(batch: "BatchView | Batch", boot_id: bytes, entities: Sequence[str]) -> Told:
    """What a batch tells of; `entities` are its inventory's."""
    longest_ns: dict[int, int] = {}
    metered: set[int] = set()
    held: dict[int, int | None] = {}
    for row in batch.usage:
        index = row.entity_index
        if held.setdefault(index, row.workload_index) != row.workload_index:
            held[index] = None
        longest_ns[index] = max(longest_ns.get(index, 0), row.duration_ns)
        if row.evidence_class != EvidenceClass.GAP:
            metered.add(index)
    return Told(
        boot_id,
        batch.window_start_boot_ns,
        batch.window_end_boot_ns,
        batch.window_end_unix_ns,
        entities,
        longest_ns,
        metered,
        held,
    )


def rests(
    told: Told,
    left_out: Mapping[int, int],
    bounds: Sequence["DeviceBounds"],
    workload_no: Callable[[int | None], int],
) -> Iterable[tuple[GroupKey, list[int]]]:
    """What stands in the books for the time of a left-out entity that nobody else told of: a gap, never nothing.

    `workload_no` of a workload's index; None = unattributed.
    """
    for index, rest_ns in left_out.items():
        if rest_ns:
            most_cycles = 0 if bounds[index].divided else bounds[index].cycles_per_us * rest_ns // 1_000
            number = workload_no(told.held[index])
            key = GroupKey(
                number, bounds[index].model_no, int(EvidenceClass.GAP), 0, 0, int(GapReason.RECORD_LOST)
            )
            yield key, [rest_ns, most_cycles, *NO_SUMS[2:]]


class Twice(NamedTuple):
    """An entity of which two agents told the same time, met for the first time."""

    entity: str
    booked_agent_no: int
    agent_no: int  # whose usage was left out
    since_unix_ns: int  # of the usage that was left out first


@dataclass(slots=True)
class Taken:
    """What a record changed.

    `left_out`: index of an entity whose usage must not be booked -> how much of its time is in no other claim, ns.
    """

    left_out: dict[int, int] = field(default_factory=dict)
    begun: list[Claim] = field(default_factory=list)
    ended: list[Claim] = field(default_factory=list)
    twice: list[Twice] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class _Holding:
    """What one agent holds, and what `quiet` compares."""

    head: Head
    claims: dict[str, Claim] = field(default_factory=dict)
    inventory: object = None
    indexes: set[int] = field(default_factory=set)
    contested: bool = False


class Claims:
    """All claims. Feed it every record in the order in which they are booked, before its head is moved."""

    def __init__(
        self,
        heads: Mapping[int, Head] | None = None,
        stored: Iterable[Claim] = (),
        pairs: Iterable[tuple[str, int, int]] = (),
    ) -> None:
        """`heads` of the agents that hold a stored claim; `pairs` of agents that were found on one entity."""
        self._by_entity: dict[str, tuple[Claim, ...]] = {}
        self._holdings: dict[int, _Holding] = {}
        self._pairs = {(entity, min(a, b), max(a, b)) for entity, a, b in pairs}
        self._next_no = 1
        for claim in stored:
            self._by_entity[claim.entity] = (*self._by_entity.get(claim.entity, ()), claim)
            self._next_no = max(self._next_no, claim.claim_no + 1)
            if claim.until is None and heads is not None:
                self._holding(claim.agent_no, heads[claim.agent_no]).claims[claim.entity] = claim

    def quiet(self, agent_no: int, inventory: object, indexes: AbstractSet[int]) -> bool:
        """Whether usage of `indexes` in `inventory` (the same object as last time) just goes on.

        The hot path: true for all records but an agent's first, those after a change of devices, and where
        another agent has a claim that this one could run into.
        """
        holding = self._holdings.get(agent_no)
        return (
            holding is not None
            and holding.inventory is inventory
            and not holding.contested
            and indexes <= holding.indexes
        )

    def take(self, agent_no: int, head: Head, inventory: object, told: Told) -> Taken:
        """Take one record in, `head` being the agent's before it."""
        holding = self._holding(agent_no, head)
        taken = Taken()
        listed = set(told.entities)
        for entity in [e for e in holding.claims if e not in listed]:
            self._end(holding, entity, taken)
        for index in sorted(told.longest_ns):
            entity = told.entities[index]
            own = holding.claims.get(entity)
            length_ns = max(told.end_boot_ns - told.start_boot_ns, told.longest_ns[index])
            met, covered_ns = self._met(entity, agent_no, told, length_ns, own)
            if met is not None:
                taken.left_out[index] = max(0, length_ns - covered_ns)
                if own is not None:
                    self._end(holding, entity, taken)
                pair = (entity, min(met, agent_no), max(met, agent_no))
                if pair not in self._pairs and index in told.metered:
                    self._pairs.add(pair)
                    taken.twice.append(Twice(entity, met, agent_no, told.end_unix_ns - length_ns))
            elif own is None and index in told.metered:
                taken.begun.append(self._begin(holding, entity, agent_no, told, length_ns))
        holding.inventory = inventory
        holding.indexes = {i for i, entity in enumerate(told.entities) if entity in holding.claims}
        holding.contested = any(self._ahead(entity, agent_no, told) for entity in holding.claims)
        return taken

    @property
    def rows(self) -> list[Claim]:
        """All claims, by number."""
        return sorted((c for claims in self._by_entity.values() for c in claims), key=lambda c: c.claim_no)

    @property
    def pairs(self) -> AbstractSet[tuple[str, int, int]]:
        """(entity, agent_no, higher agent_no) of all that were told twice."""
        return self._pairs

    def _holding(self, agent_no: int, head: Head) -> _Holding:
        holding = self._holdings.get(agent_no)
        if holding is None:
            holding = self._holdings[agent_no] = _Holding(head)
        return holding

    def _begin(self, holding: _Holding, entity: str, agent_no: int, told: Told, length_ns: int) -> Claim:
        claim = Claim(
            self._next_no,
            entity,
            agent_no,
            told.boot_id,
            told.end_boot_ns - length_ns,
            told.end_unix_ns - length_ns,
        )
        self._next_no += 1
        others = self._by_entity.get(entity, ())
        for other in others:
            if other.until is None and other.agent_no != agent_no:
                self._holdings[other.agent_no].contested = True
        self._by_entity[entity] = (*others, claim)
        holding.claims[entity] = claim
        return claim

    def _end(self, holding: _Holding, entity: str, taken: Taken) -> None:
        claim = holding.claims.pop(entity)
        claim.until = _until(holding.head)
        taken.ended.append(claim)

    def _reach(self, claim: Claim) -> Until:
        return claim.until or _until(self._holdings[claim.agent_no].head)

    def _soon_ns(self, claim: Claim) -> int:
        """What the claim's agent will tell of with its next record: one of its windows, if it goes on."""
        if claim.until is not None:
            return 0
        head = self._holdings[claim.agent_no].head
        return 0 if head.stopped else head.usual_window_ns

    def _met(
        self, entity: str, agent_no: int, told: Told, length_ns: int, own: Claim | None
    ) -> tuple[int | None, int]:
        """The other agent that has booked some of this time of the entity already; how much others have, ns."""
        met, covered_ns = None, 0
        for claim in self._by_entity.get(entity, ()):
            if claim.agent_no == agent_no:
                continue
            until = self._reach(claim)
            soon_ns = self._soon_ns(claim)
            if until.boot_id == told.boot_id:
                since = claim.since_boot_ns if claim.boot_id == told.boot_id else _EVER
                start = max(told.end_boot_ns - length_ns, since)
                shared_ns = min(told.end_boot_ns, until.boot_ns) - start
                covered_ns += max(0, min(told.end_boot_ns, until.boot_ns + soon_ns) - start)
                allowed_ns = 0
            else:
                # The whole claim is compared, not one record: else short windows would each be within the
                # tolerance. Once that is used up there is none.
                known = (entity, min(agent_no, claim.agent_no), max(agent_no, claim.agent_no)) in self._pairs
                begun = told.end_unix_ns - length_ns
                if own is not None and not known:
                    begun = min(begun, own.since_unix_ns)
                shared_ns = min(told.end_unix_ns, until.unix_ns) - max(begun, claim.since_unix_ns)
                start = max(told.end_unix_ns - length_ns, claim.since_unix_ns)
                covered_ns += max(0, min(told.end_unix_ns, until.unix_ns + soon_ns) - start)
                allowed_ns = 0 if known else CLOCK_ERROR_NS
            if shared_ns > allowed_ns and met is None:
                met = claim.agent_no
        return met, covered_ns

    def _ahead(self, entity: str, agent_no: int, told: Told) -> bool:
        """Whether another agent's claim on the entity could be met by a later record of this agent."""
        return any(
            c.agent_no != agent_no and (c.until is None or c.until.unix_ns > told.end_unix_ns)
            for c in self._by_entity[entity]
        )


def _until(head: Head) -> Until:
    return Until(head.boot_id, head.window_end_boot_ns, head.window_end_unix_ns)
