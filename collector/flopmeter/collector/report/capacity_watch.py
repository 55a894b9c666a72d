"""fleet.capacity, in the transaction of the commit that makes it true. Owned by the writer, on its thread.

It keeps how many GPUs stand where, by model. A commit costs one comparison per record; only an inventory that is not
the agent's last one, a new day or a start adds up anything. Of two agents that tell of one GPU, the one that was
admitted last has it.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from flopmeter.collector.law.events import NewEvent
from flopmeter.collector.law.judge import Moment
from flopmeter.collector.law.regimes import Regime
from flopmeter.collector.store.base import Books, Noted, Transaction
from flopmeter.contract.record import parse_record
from flopmeter.contract.usage import Inventory
from flopmeter.contract.w_table import WTable

from .capacity_event import CAPACITY_PREFIX, SITES_PREFIX, capacity_events
from .machines import gpus_of
from .sites import Place, Sites

if TYPE_CHECKING:
    from flopmeter.collector.ingest.group import Group

_DAY_NS = 86_400_000_000_000


class Standing:
    """GPUs by place and model, kept up as agents' inventories change. Pure; fsck counts with it, too."""

    def __init__(self, sites: Sites) -> None:
        self._sites = sites
        self._of: dict[int, set[str]] = {}  # agent_no -> UUIDs that it tells of
        self._tellers: dict[
            str, dict[int, tuple[Place, str]]
        ] = {}  # UUID -> agent_no -> where, and what it is
        self.counts: dict[tuple[Place, str], int] = {}

    def tell(self, agent_no: int, inventory: Inventory) -> None:
        """That is the agent's inventory from now on."""
        place = self._sites.place(inventory.cluster, inventory.node)
        now = gpus_of(inventory)
        before = self._of.get(agent_no, set())
        self._of[agent_no] = set(now)
        for entity in before | now.keys():
            tellers = self._tellers.setdefault(entity, {})
            self._count(tellers, -1)
            tellers.pop(agent_no, None)
            if entity in now:
                tellers[agent_no] = (place, now[entity])
            self._count(tellers, 1)
            if not tellers:
                del self._tellers[entity]

    def _count(self, tellers: Mapping[int, tuple[Place, str]], n: int) -> None:
        if tellers:
            key = tellers[max(tellers)]
            self.counts[key] = self.counts.get(key, 0) + n


class CapacityWatch:
    """A cache of the store, dropped by `reset` after any failure."""

    def __init__(self, books: Books, regimes: Iterable[Regime], sites: Sites, table: WTable) -> None:
        """`regimes`: those with a capacity that may bind; there is one at least."""
        self._books = books
        self._regimes = tuple(regimes)
        self._sites, self._table = sites, table
        self.reset()

    def reset(self) -> None:
        """Forget all. It is read again with the next commit: every agent's last record, which takes a while."""
        self._standing = Standing(self._sites)
        self._digests: dict[int, bytes] = {}  # agent_no -> of its inventory of record
        self._raised: set[str] = set()
        self._day = -1  # look once
        self._read = self._noted = False

    def _know(self) -> None:
        """What the store held before this commit. Raises StoreError."""
        if not self._read:
            self._raised = self._books.event_keys_from(CAPACITY_PREFIX)
            self._tell({no: _names(record) for no, record in self._books.last_records()}, {})
            self._read = True

    def judge(self, group: "Group", at: Moment, tx: Transaction) -> list[NewEvent]:
        """What must be raised now that `group`'s records stand; by which file of sites goes into `tx`."""
        self._know()
        if not self._noted:
            tx.noted.append(Noted(SITES_PREFIX + self._sites.digest, 1, at.since_position, at.unix_ns))
            if self._sites.digest:
                tx.texts.append((self._sites.digest, self._sites.text, at.unix_ns))
            self._noted = True
        last = {r.agent_no: r.inventory for r in group.records}
        changed = {no: digest for no, digest in last.items() if self._digests.get(no) != digest}
        day = at.unix_ns // _DAY_NS
        if not changed and day == self._day:
            return []
        self._day = day
        self._tell(changed, {digest: raw for digest, _, raw, _ in group.inventories})
        events = capacity_events(
            self._regimes,
            self._standing.counts,
            self._sites,
            self._table,
            at_unix_ns=at.unix_ns,
            since_position=min(at.since_position, at.position),
            position=at.position,
        )
        new = [e for e in events if e.key not in self._raised]
        self._raised |= {e.key for e in new}
        return new

    def _tell(self, digests: Mapping[int, bytes], brought: Mapping[bytes, bytes]) -> None:
        """Agents' inventories from now on; `brought` are not in the store yet."""
        from flopmeter.collector.encode import decode_inventory

        known: dict[bytes, Inventory] = {}
        for agent_no, digest in digests.items():
            if digest not in known:
                raw = brought.get(digest) or self._books.inventory(digest)
                if raw is None:  # fsck says of which record it is
                    continue
                known[digest] = decode_inventory(raw)
            self._standing.tell(agent_no, known[digest])
            self._digests[agent_no] = digest


def _names(record: bytes) -> bytes:
    """The digest of the inventory that a stored record names."""
    from flopmeter.collector.ingest.encode import BatchView

    return BatchView(parse_record(record).payload).inventory_digest
