"""The records that hold a run's work, one after the other, with what of each the books left out. In bounded memory."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from flopmeter.collector.encode import decode_inventory, decode_workload, parse_batch
from flopmeter.collector.ingest import claims, decide
from flopmeter.collector.ingest.encode import device_bounds, divided
from flopmeter.collector.ingest.identity_rules import identities_text
from flopmeter.collector.report.queries import Reader
from flopmeter.contract.errors import ContractError
from flopmeter.contract.record import Record, parse_record, record_hash
from flopmeter.contract.usage import Inventory, NoticeKind, Workload

from .errors import AttestRefused

_SECOND_NS = 1_000_000_000
_KEY = "scope, kind, job, step, run_label, user, dtype, restart, identities"
_RANGE = "SELECT min(position), max(position) FROM records WHERE window_start_s BETWEEN ? AND ?"
_RECORDS = (
    "SELECT position, agent_no, received_unix_ns, record FROM records WHERE position BETWEEN ? AND ? "
    "ORDER BY position"
)
_CLAIMED = "SELECT coalesce(max(from_position), 1) FROM claimed"
#: Number of `workloads` in batch.proto, and protobuf's wire types.
_WORKLOADS = 7
_VARINT, _LENGTH, _FIXED = 0, 2, {1: 8, 5: 4}
#: Inventories kept decoded: a node has one for months.
_KEPT = 4_096
#: Names of work that are looked up once: some hundred bytes each.
_NAMES_KEPT = 100_000

WorkloadKey = tuple[str, int, str, str, str, str, str, int, str]


@dataclass(frozen=True, slots=True)
class Rest:
    """What stands in the books for time of a left-out entity that nobody else told of: a gap (ADR 0007)."""

    duration_ns: int
    most_cycles: int
    workload_index: int | None  # None: several had it, and it is nobody's


@dataclass(frozen=True, slots=True)
class RunBatch:
    """One record in which somebody of the run did anything."""

    position: int
    agent_no: int
    received_unix_ns: int
    raw: bytes
    record: Record
    batch: Any  # a flopmeter.wire.v1.Batch, whose names are those of contract.usage: ingest has checked its numbers
    inventory: Inventory
    workload_nos: Mapping[int, int]  # by index, of those that are the run's
    left_out: Mapping[int, Rest]  # by entity index: another agent told of it


def first_and_last(reader: Reader, first_unix_ns: int, last_unix_ns: int) -> tuple[int, int]:
    """Positions between which every record lies whose window begins in that time; (0, -1): there is none."""
    found = reader.rows(_RANGE, (first_unix_ns // _SECOND_NS, last_unix_ns // _SECOND_NS)).fetchone()
    return (0, -1) if found[0] is None else (found[0], found[1])


class RunBatches:
    """A run's records. Raises StoreError, and AttestRefused for a record that cannot be read."""

    def __init__(self, reader: Reader, workload_nos: Iterable[int]) -> None:
        self._reader = reader
        self._mine = self._keys(workload_nos)
        self._known: dict[tuple[bytes, bytes], int | None] = {}  # by inventory and workload
        self._inventory = lru_cache(_KEPT)(self._read_inventory)

    def _keys(self, workload_nos: Iterable[int]) -> dict[WorkloadKey, int]:
        sql = f"SELECT {_KEY} FROM workloads WHERE workload_no = ?"  # noqa: S608
        return {tuple(self._reader.rows(sql, (no,)).fetchone()): no for no in workload_nos}

    def between(self, first: int, last: int) -> Iterator[RunBatch]:
        """Those at these positions, in order, as if every agent's word were booked."""
        for position, agent_no, received, raw in self._reader.rows(_RECORDS, (first, last)):
            record, batch = self._read(position, raw)
            found = self._run_batch((position, agent_no, received), record, batch, {})
            if found is not None:
                yield found

    def booked_between(self, first: int, last: int) -> Iterator[RunBatch]:
        """Those at these positions, with what the books left out because another agent had told of it.

        Which is for claims to say, and they are told of every record from the first on, of agents that share a GPU.
        """
        sharing = self._sharing(last)
        if not sharing:
            yield from self.between(first, last)
            return
        held = claims.Claims()
        heads: dict[int, decide.Head] = {}
        claimed_from = int(self._reader.rows(_CLAIMED).fetchone()[0])
        for position, agent_no, received, raw in self._reader.rows(_RECORDS, (1, last)):
            shares = agent_no in sharing
            if position < first and not shares:
                continue
            record, batch = self._read(position, raw)
            rests: dict[int, Rest] = {}
            if shares:
                head = heads.setdefault(agent_no, decide.Head())
                if position >= claimed_from:
                    rests = self._left_out(held, agent_no, head, record, batch)
                stopped = any(n.kind == NoticeKind.AGENT_STOPPED for n in batch.notices)
                decide.move(head, record, record_hash(raw), batch, received_unix_ns=received, stopped=stopped)
            if position >= first:
                found = self._run_batch((position, agent_no, received), record, batch, rests)
                if found is not None:
                    yield found

    def _sharing(self, last: int) -> set[int]:
        """Agents that told of an entity that another told of as well."""
        told: set[tuple[int, bytes]] = set()
        for position, agent_no, _, raw in self._reader.rows(_RECORDS, (1, last)):
            told.add((agent_no, self._read(position, raw)[1].inventory_digest))
        agents: dict[str, set[int]] = {}
        for agent_no, digest in told:
            for device in self._inventory(digest).devices:
                agents.setdefault(device.entity, set()).add(agent_no)
        return {no for numbers in agents.values() if len(numbers) > 1 for no in numbers}

    def _left_out(
        self, held: claims.Claims, agent_no: int, head: decide.Head, record: Record, batch: Any
    ) -> dict[int, Rest]:
        inventory = self._inventory(batch.inventory_digest)
        told = claims.told(batch, record.boot_id, [d.entity for d in inventory.devices])
        left_out = held.take(agent_no, head, None, told).left_out
        if not left_out:
            return {}
        parents = divided(inventory)
        bounds = [device_bounds(device, 0, parents) for device in inventory.devices]
        rests = {}
        for index, rest_ns in left_out.items():
            most = 0 if bounds[index].divided else bounds[index].cycles_per_us * rest_ns // 1_000
            rests[index] = Rest(rest_ns, most, told.held[index])
        return rests

    def _run_batch(
        self, at: tuple[int, int, int], record: Record, batch: Any, left_out: Mapping[int, Rest]
    ) -> RunBatch | None:
        """`at`: position, agent_no, received_unix_ns."""
        numbers = {
            index: number
            for index, w in enumerate(batch.workloads)
            if (number := self._number(batch.inventory_digest, w, index)) is not None
        }
        if not numbers or not any(u.workload_index in numbers for u in batch.usage):
            return None
        inventory = self._inventory(batch.inventory_digest)
        return RunBatch(*at, record.raw, record, batch, inventory, numbers, left_out)

    def _number(self, digest: bytes, message: Any, index: int) -> int | None:
        """Of the run's workload that the message is; None: it is none of the run's."""
        key = (digest, message.SerializeToString())
        if key not in self._known:
            if len(self._known) >= _NAMES_KEPT:
                self._known.clear()
            self._known[key] = self._mine.get(
                key_of(decode_workload(message, index), self._inventory(digest))
            )
        return self._known[key]

    @staticmethod
    def _read(position: int, raw: bytes) -> tuple[Record, Any]:
        try:
            record = parse_record(raw)
            return record, parse_batch(record.payload)
        except ContractError as e:
            raise AttestRefused(
                f"record {position}: expected a record of the contract, got {e}",
                "see what is wrong with `flopmeter collector fsck`",
            ) from e

    def _read_inventory(self, digest: bytes) -> Inventory:
        return decode_inventory(self.inventory_bytes(digest))

    def inventory_bytes(self, digest: bytes) -> bytes:
        """As it came."""
        found = self._reader.rows("SELECT bytes FROM inventories WHERE digest = ?", (digest,)).fetchone()
        if found is None:
            raise AttestRefused(
                f"inventory {digest.hex()}: expected it in the store, found none",
                "see what is wrong with `flopmeter collector fsck`",
            )
        return bytes(found[0])


def key_of(w: Workload, inventory: Inventory) -> WorkloadKey:
    """How the workloads table knows it."""
    text = identities_text(w.identities)
    return (
        decide.scope_of(w, inventory),
        int(w.kind),
        w.job,
        w.step,
        w.run,
        w.user,
        w.dtype,
        w.restart,
        text,
    )


def workload_bytes(payload: bytes) -> list[bytes]:
    """A batch's Workload messages as they stand in it, in order. Nothing is encoded again. `payload` has been parsed."""
    found, at = [], 0
    while at < len(payload):
        tag, at = _varint(payload, at)
        if tag & 7 == _LENGTH:
            size, at = _varint(payload, at)
            if tag >> 3 == _WORKLOADS:
                found.append(payload[at : at + size])
            at += size
        elif tag & 7 == _VARINT:
            _, at = _varint(payload, at)
        else:
            at += _FIXED[tag & 7]
    return found


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while data[at] & 0x80:
        value |= (data[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
    return value | data[at] << shift, at + 1
