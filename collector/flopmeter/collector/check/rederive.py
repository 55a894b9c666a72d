"""The books, derived again from the stored records alone, one record at a time. Pure but for the crypto.

The rules are ingest's own (`ingest.sequence`, `ingest.window`, `books.add_rows`); the decoder is the plain
one (`encode.decode_batch`), not the one on ingest's hot path, so that a mistake there shows here.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

from flopmeter.collector.books import GroupKey, HourKey, Slot, Sums, add_rows, slot_of
from flopmeter.collector.encode import decode_batch, decode_inventory
from flopmeter.collector.figures import Model
from flopmeter.collector.ingest import claims
from flopmeter.collector.ingest import decide as ingest
from flopmeter.collector.ingest.anchors import AnchorCheck
from flopmeter.collector.ingest.claims import Claims
from flopmeter.collector.ingest.encode import device_bounds, divided
from flopmeter.collector.ingest.identity import RuleList, choose
from flopmeter.collector.ingest.identity_jobs import JobRows, Moved, Row, Seen, instance_of
from flopmeter.collector.ingest.identity_rules import before_lists, identities_text
from flopmeter.collector.ingest.intake import verified
from flopmeter.collector.law.cross_check import Flag, flags
from flopmeter.collector.law.log_contradiction import LogFlag, heard, log_flags
from flopmeter.collector.law.progress import ClaimHour, ClaimKey, add_claims, by_workload
from flopmeter.collector.law.unattributed import counts, day_of
from flopmeter.collector.log.entry import Batch as LogLeaf
from flopmeter.contract.errors import ContractError
from flopmeter.contract.identity import Identities
from flopmeter.contract.ids import agent_id as id_of_key
from flopmeter.contract.record import Record, parse_record, record_hash
from flopmeter.contract.usage import UNATTRIBUTED, Batch, Inventory, NoticeKind, Workload, WorkloadKind

_SECOND_NS = 1_000_000_000
RECORD_COLUMNS = "position, window_start_s, agent_no, seq, window_end_unix_ns, received_unix_ns, hash, record"


class Difference(Exception):  # noqa: N818
    """The first place where the books do not follow from the records."""

    def __init__(self, table: str, key: str, column: str, expected: object, got: object) -> None:
        self.table, self.key, self.column = table, key, column
        wanted, found = _text(expected), _text(got)
        same = next((i for i, (a, b) in enumerate(zip(wanted, found, strict=False)) if a != b), 0)
        self.expected, self.got = _shown(wanted, same), _shown(found, same)
        super().__init__(f"{table}, {key}: {column}: expected {self.expected}, got {self.got}")


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.hex() if value else "no bytes"
    return value if isinstance(value, str) else repr(value)


def _shown(text: str, same: int) -> str:
    """At most 300 characters, among them where it differs: behind the first `same` ones."""
    if len(text) <= 300:
        return text
    at = 0 if same < 200 else same - 60
    end = at + 294
    return ("..." if at else "") + text[at:end] + ("..." if end < len(text) else "")


def compare(table: str, key: str, columns: Iterable[tuple[str, object, object]]) -> None:
    """Raise Difference at the first (column, expected, got) that is not equal."""
    for column, expected, got in columns:
        if expected != got:
            raise Difference(table, key, column, expected, got)


@dataclass(slots=True)
class AgentBooks:
    """One agent as its records show it."""

    agent_no: int
    agent_id: bytes
    public_key: bytes
    head: ingest.Head = field(default_factory=ingest.Head)
    position: int = 0  # of its last record; 0 = none
    losses: list[tuple[int, int]] = field(default_factory=list)  # not yet met in the chain, by number
    inventory: Inventory | None = None  # of its last record
    nodes: set[str] = field(default_factory=set)  # that its inventories name
    versions: set[str] = field(default_factory=set)  # that its records were made by

    @property
    def name(self) -> str:
        return f"agent {self.agent_id.hex()}"


@dataclass(slots=True)
class Names:
    """The numbers that the store gave to names; each is checked when a record uses it."""

    models: Mapping[tuple[str, str], int]
    workloads: Mapping[tuple[Any, ...], int]  # scope, kind, job, step, run, user, dtype, restart, identities
    inventories: Mapping[bytes, Inventory]


@dataclass(slots=True)
class Span:
    """When a workload was seen, and the run that the rules give it."""

    run: str
    rule: str
    dtype: str
    first_unix_ns: int  # start of the earliest window that names it
    last_unix_ns: int
    begun_unix_ns: int  # start of the window that named it first
    job: tuple[str, int, str]  # scope, kind, job
    step: str
    restart: int
    identities: Identities


def check_inventory(digest: bytes, raw: bytes) -> Inventory:
    """The inventory behind a stored digest. Raises Difference."""
    key = f"digest {digest.hex()}"
    compare("inventories", key, [("bytes", digest, hashlib.sha256(raw).digest())])
    try:
        return decode_inventory(raw)
    except ContractError as e:
        raise Difference("inventories", key, "bytes", "an inventory", str(e)) from e


class Rederivation:
    """Feed it every record in position order; then compare what it holds with what the store holds."""

    def __init__(
        self,
        agents: Iterable[AgentBooks],
        names: Names,
        claimed_from: int = 1,
        rules: Sequence[tuple[int, RuleList]] = (),
        *,
        formerly_from: int = 1,
        slots_from: int = 1,
        signatures: bool = True,
    ) -> None:
        """`claimed_from`: the first position that was looked at for claims, `formerly_from` that of which names that
        work loses were kept; `rules`: lists, and from where on.

        `slots_from`: the first position whose usage stands in slots; before, in the hour of the window's end.
        `signatures` False: they are not verified again, which is fsck's to do and not a question's.
        """
        self._signatures = signatures
        self.agents = {a.agent_no: a for a in agents}
        for a in self.agents.values():
            compare("agents", f"agent_no {a.agent_no}", [("agent_id", id_of_key(a.public_key), a.agent_id)])
        self._names = names
        self.anchors = AnchorCheck()
        self.claims = Claims()
        self.contradicted: dict[str, tuple[LogFlag, int]] = {}  # by event key: who is heard against the log
        self.flags: dict[str, tuple[Flag, int]] = {}  # by event key: the first that tells of it, and where
        self._claimed_from = claimed_from
        self._formerly_from = formerly_from
        self._slots_from = slots_from
        self.unslotted = 0  # records of before it that would stand under several hours
        self.totals: dict[GroupKey, Sums] = {}
        self.hourly: dict[HourKey, Sums] = {}
        self.spans: dict[int, Span] = {}
        self.groups: dict[int, set[GroupKey]] = {}  # of `totals`, by workload
        self.hours: dict[int, set[HourKey]] = {}  # of `hourly`, by workload
        self.runs: dict[str, set[int]] = {}  # workloads by the run that the rules give them
        self.formerly: dict[str, set[int]] = {}  # … and by those that they were booked under before
        self.renamings = 0  # grows with whatever may change what `formerly` and `runs` say together
        self.busy_unowned: dict[
            tuple[int, int], int
        ] = {}  # (unattributed workload, day) -> position that added last
        self._unowned: set[int] = set()  # unattributed workloads
        self.claim_hours: dict[ClaimKey, ClaimHour] = {}
        self._claimers: dict[tuple[int, int], ClaimKey] = {}  # (workload, agent) -> its latest hour
        self.jobs: dict[tuple[str, int, str], list[int]] = {}  # workloads by scope, kind, job
        self._rules = list(rules)
        self._list: RuleList | None = None  # before any was noted there was none, and nothing was inherited
        self._jobs: dict[tuple[str, int, str], JobRows] = {}
        self.position = 0
        self.received_unix_ns = 0  # of the last record taken
        self.leaf = LogLeaf(0, "", b"", 0, 0, 0, 0)  # what the evidence log has of it
        self.work: tuple[Slot, AbstractSet[int]] = Slot(0), frozenset()  # when it was, and of which workloads

    def take(self, row: Sequence[Any]) -> None:
        """One row of records, its columns in RECORD_COLUMNS' order. Raises Difference."""
        position, window_start_s, agent_no, seq, window_end_ns, received_ns, stored_hash, raw = row
        key = f"position {position}"
        compare("records", f"position {self.position + 1}", [("position", self.position + 1, position)])
        self.position = position
        agent = self.agents.get(agent_no)
        if agent is None:
            raise Difference("records", key, "agent_no", "an admitted agent", agent_no)
        compare("records", key, [("hash", record_hash(raw), stored_hash)])
        try:
            record = parse_record(raw)
            batch = decode_batch(record.payload)
        except ContractError as e:
            raise Difference("records", key, "record", "a record of the contract", str(e)) from e
        compare(
            "records",
            key,
            [
                ("record, its agent id", agent.agent_id, record.agent_id),
                ("seq", record.seq, seq),
                ("window_start_s", batch.window_start_unix_ns // _SECOND_NS, window_start_s),
                ("window_end_unix_ns", batch.window_end_unix_ns, window_end_ns),
            ],
        )
        if self._signatures and not verified(record.message, record.signature, agent.public_key):
            raise Difference(
                "records",
                key,
                "record, its signature",
                f"one by the key of {agent.name}",
                "one that does not verify",
            )
        while self._rules and self._rules[0][0] <= position:
            self._list, self._jobs = self._rules.pop(0)[1], {}
        self._chain(key, agent, record, batch, received_ns)
        inventory = self._names.inventories.get(batch.inventory_digest)
        if inventory is None:
            raise Difference(
                "inventories", f"digest {batch.inventory_digest.hex()}", "bytes", f"what {key} names", "none"
            )
        self._add(key, agent, record, batch, inventory)
        stopped = any(n.kind is NoticeKind.AGENT_STOPPED for n in batch.notices)
        ingest.move(agent.head, record, stored_hash, batch, received_unix_ns=received_ns, stopped=stopped)
        agent.position, agent.inventory = position, inventory
        agent.nodes.add(inventory.node)
        agent.versions.add(batch.agent_version)
        ends = batch.window_start_unix_ns, batch.window_end_unix_ns
        self.leaf = LogLeaf(position, agent.agent_id.hex(), stored_hash, seq, *ends, received_ns)
        self.received_unix_ns = received_ns

    def _chain(
        self, key: str, agent: AgentBooks, record: Record, batch: Batch, received_unix_ns: int
    ) -> None:
        head = agent.head
        while agent.losses and agent.losses[0][0] == head.next_seq and record.seq > head.next_seq:
            head.lost.append(agent.losses.pop(0))
            self.anchors.forget(agent.agent_no)
        if record.seq != head.next_seq:
            raise Difference("records", key, f"seq of {agent.name}", head.next_seq, record.seq)
        if not head.any_prev:
            compare("records", key, [("record, its prev_hash", head.last_hash, record.prev_hash)])
        verdict = ingest.window(
            head, record, batch.window_start_boot_ns, batch.window_end_unix_ns, received_unix_ns
        )
        if verdict is not None:
            raise Difference(
                "records",
                key,
                "record, its window",
                "one behind the agent's last, and over when it came",
                verdict.message,
            )

    def _add(self, key: str, agent: AgentBooks, record: Record, batch: Batch, inventory: Inventory) -> None:
        model_nos = []
        for device in inventory.devices:
            number = self._names.models.get((device.name, device.compute_capability))
            if number is None:
                raise Difference(
                    "models",
                    f"{device.name} {device.compute_capability}",
                    "model_no",
                    f"what {key} names",
                    "none",
                )
            model_nos.append(number)
        workload_nos = [self._workload_no(key, batch, w, inventory) for w in batch.workloads]
        groups: dict[GroupKey, Sums] = {}
        try:
            told = claims.told(batch, record.boot_id, [d.entity for d in inventory.devices])
            left_out = self._left_out(agent, told)
            add_rows(groups, ingest.usage_rows(batch, workload_nos, model_nos, left_out.keys()))
            if left_out:
                parents = divided(inventory)
                devices = zip(inventory.devices, model_nos, strict=True)
                bounds = [device_bounds(device, number, parents) for device, number in devices]

                def numbered(index: int | None) -> int:
                    if index is not None:
                        return workload_nos[index]
                    return self._workload_no(key, batch, UNATTRIBUTED, inventory)

                add_rows(groups, claims.rests(told, left_out, bounds, numbered))
        except IndexError as e:
            raise Difference("records", key, "usage", "rows within inventory and workloads", str(e)) from e
        add_rows(self.totals, groups.items())
        slot = self._slot(batch)
        self.work = slot, {group_key.workload_no for group_key in groups}
        for group_key, sums in groups.items():
            hour_key = HourKey(slot, group_key)
            into = self.hourly.get(hour_key)
            if into is None:
                self.hourly[hour_key] = list(sums)
                self.hours.setdefault(group_key.workload_no, set()).add(hour_key)
            else:
                for i, number in enumerate(sums):
                    into[i] += number
            span = self.spans[group_key.workload_no]
            span.first_unix_ns = min(span.first_unix_ns, batch.window_start_unix_ns)
            span.last_unix_ns = max(span.last_unix_ns, batch.window_end_unix_ns)
            self.groups.setdefault(group_key.workload_no, set()).add(group_key)
            if group_key.workload_no in self._unowned and counts(group_key):
                self.busy_unowned[group_key.workload_no, day_of(slot)] = self.position
        self._claims(agent, batch, workload_nos, slot.hour)
        entities = [d.entity for d in inventory.devices]
        for flag in flags(batch.notices, agent.agent_id, inventory.node, entities, batch.window_end_unix_ns):
            self.flags.setdefault(flag.key, (flag, self.position))
        for said in log_flags(batch.notices, agent.agent_id, inventory.node, batch.window_end_unix_ns):
            if heard(said, [key for key in self.contradicted if key.startswith(said.day_prefix)]):
                self.contradicted[said.key] = said, self.position
        fault = self.anchors.take(agent.agent_no, record.boot_id, batch, inventory)
        if fault is not None:
            raise Difference("records", key, *fault)

    def _slot(self, batch: Batch) -> Slot:
        ends = batch.window_start_unix_ns, batch.window_end_unix_ns
        slot = slot_of(*ends, ingest.told_ns(batch))
        if self.position >= self._slots_from:
            return slot
        self.unslotted += bool(slot.back)
        return slot_of(*ends, 0, bridge_s=0)

    def _claims(self, agent: AgentBooks, batch: Batch, workload_nos: Sequence[int], hour: int) -> None:
        """Claims of training code, as the collector keeps them; in no total."""
        window = (batch.window_start_unix_ns, batch.window_end_unix_ns)
        for number, mine in {workload_nos[i]: c for i, c in by_workload(batch.progress).items()}.items():
            before = self._claimers.get((number, agent.agent_no))
            last = None if before is None else self.claim_hours[before]
            key = ClaimKey(number, agent.agent_no, hour if before is None else max(hour, before.hour))
            row = add_claims(last, last if key == before else None, mine, window)
            if row is not None:
                self.claim_hours[key], self._claimers[number, agent.agent_no] = row, key

    def _left_out(self, agent: AgentBooks, told: claims.Told) -> Mapping[int, int]:
        """Entities of which another agent had told the same time. Always the slow way: nothing is `quiet`."""
        if self.position < self._claimed_from:
            return {}
        return self.claims.take(agent.agent_no, agent.head, None, told).left_out

    def _workload_no(self, key: str, batch: Batch, w: Workload, inventory: Inventory) -> int:
        job = (ingest.scope_of(w, inventory), int(w.kind), w.job)
        text = identities_text(w.identities)
        identity = (*job, w.step, w.run, w.user, w.dtype, w.restart, text)
        number = self._names.workloads.get(identity)
        if number is None:
            raise Difference("workloads", repr(identity), "workload_no", f"what {key} names", "none")
        if w.kind is WorkloadKind.UNATTRIBUTED:
            self._unowned.add(number)
        if number not in self.spans:
            self._name(number, w, inventory, job, (batch.window_start_unix_ns, batch.window_end_unix_ns))
        return number

    def _name(
        self,
        number: int,
        w: Workload,
        inventory: Inventory,
        job: tuple[str, int, str],
        window: tuple[int, int],
    ) -> None:
        """A workload named for the first time: its run, and what goes with it, by the list in force."""
        row = Row(number, *choose(w, inventory, self._list or before_lists()))
        moved: list[Moved] = []
        if row.run and self._list is not None:
            seen = Seen(instance_of(w.identities, self._list), w.restart, window[0])
            row, moved = self._job(job, self._list).add(row, seen)
        span = Span(row.run, row.rule, w.dtype, *window, window[0], job, w.step, w.restart, w.identities)
        self.spans[number] = span
        self.runs.setdefault(row.run, set()).add(number)
        self.jobs.setdefault(job, []).append(number)
        self.renamings += bool(moved) or row.run in self.formerly
        for m in moved:
            if m.was != m.run and self.position >= self._formerly_from:
                self.formerly.setdefault(m.was, set()).add(m.workload_no)
            self.runs[self.spans[m.workload_no].run].discard(m.workload_no)
            self.runs[m.run].add(m.workload_no)
            self.spans[m.workload_no].run, self.spans[m.workload_no].rule = m.run, m.rule

    def _job(self, job: tuple[str, int, str], rules: RuleList) -> JobRows:
        rows = self._jobs.get(job)
        if rows is None:
            rows = self._jobs[job] = JobRows(rules.rank)
            for no in sorted(self.jobs.get(job, ())):
                s = self.spans[no]
                rows.know(
                    Row(no, s.run, s.rule), Seen(instance_of(s.identities, rules), s.restart, s.begun_unix_ns)
                )
        return rows


def models_by_no(models: Mapping[tuple[str, str], int]) -> dict[int, Model]:
    return {number: Model(*names) for names, number in models.items()}
