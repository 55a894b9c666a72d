"""An auditor's pack, checked again from the agents' signed bytes (docs/attestation-format.md 8).

Reads the batch's wire format by itself. What is added up is cut out of rows of one form at a time, byte by byte of
their varints: as exact as one by one, and within a fraction of the time that a signature takes.
"""

import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from fractions import Fraction
from hashlib import sha256
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from flopmeter.audit.price import GAP, OTHERS, Table
from flopmeter.audit.stated import Window, check_extent, check_shares, extent
from flopmeter.evidence.errors import EvidenceError, require
from flopmeter.evidence.merkle import leaf_hash, node_hash, root_from_many

STEP, BLOCK = "pack", 256
_DOMAIN = b"flopmeter-batch-v1\n"  # protos/flopmeter/contract/record.py
_LEAF = (
    b'{"agent":"%b","hash":"%b","kind":"batch","received":"%d","salt":"%b","seq":"%d","v":"1",'
    b'"windowEnd":"%d","windowStart":"%d"}'
)
#: How a batch begins that an agent of ours wrote: version, inventory, four clocks. Any other is read field by field.
_USUAL = re.compile(rb"\n.[ -~]*\x12\x20(.{32})\x19.{8}!.{8}\)(.{8})1(.{8})", re.DOTALL).match
_GOES_ON = bytes(128) + b"\x80" * 128  # of each byte only whether its varint goes on
Price = tuple[tuple[str, str], int, int, int, str]  # device model, evidence class, measured, spread, dtype
Sums = dict[Price, list[int]]  # batch.proto's Usage from duration_ns to energy_mj: twelve numbers


class Bytes(Protocol):
    """A member's content; `span` gives exactly so many bytes of it."""

    @property
    def size(self) -> int: ...
    def span(self, at: int, size: int, /) -> bytes: ...


class Facts(NamedTuple):
    """What every part is checked against; it goes to each process once."""

    records: Bytes
    leaves: Bytes
    size: int  # of the log's tree
    range: tuple[int, int]  # of the log's indexes
    keys: Mapping[bytes, bytes]  # agent id -> public key
    nodes: Mapping[bytes, tuple[tuple[str, str], list[tuple[str, str]]]]  # inventory -> scopes, device models
    workloads: Mapping[tuple[str, str], str]  # (scope, SHA-256) of those that are the run's -> dtype
    left_out: Mapping[tuple[str, int], list[Mapping[str, Any]]]  # (agent, seq) -> manifest's leftOut


Link = tuple[
    int, bytes, int, bytes, int
]  # an agent's first seq and prev, last seq and hash, missing stretches


class Place(NamedTuple):
    """Some blocks: from where to where in records.bin and in leaves.bin."""

    at: int
    end: int
    leaf_at: int
    leaf_end: int


class Part(NamedTuple):
    """What some blocks of the log came to."""

    records: int
    sums: Sums
    chains: dict[bytes, Link]
    roots: dict[int, bytes]  # by block
    windows: list[Window]  # of its records
    indexes: list[Window]  # of its blocks' records in the log, from the first to behind the last
    left_out: list[int]  # device time of the run (ns) that another agent told of


class Batch(NamedTuple):
    """What rows beside these workloads, of this inventory, may be of."""

    models: list[tuple[str, str]]  # by entity
    dtypes: list[str | None]  # by workload; None: not of the run
    #: Outline of a row -> where its key ends and its numbers begin; key -> where its like is collected.
    found: dict[bytes, tuple[int, dict[bytes, list[bytes]]]]


class Odd(Exception):  # noqa: N818 - no error: the rows of this part are added up one by one
    """Rows with one outline and not one form."""


def varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while data[at] > 127:
        value, at, shift = value | (data[at] & 127) << shift, at + 1, shift + 7
    return value | data[at] << shift, at + 1


def field(data: bytes, at: int) -> tuple[int, Any, int]:
    """Number, value (an int, or bytes) and end of the protobuf field that begins there."""
    tag, at = varint(data, at)
    if not tag & 7:
        return tag >> 3, *varint(data, at)
    size, at = varint(data, at) if tag & 7 == 2 else ({1: 8, 5: 4}.get(tag & 7, len(data)), at)
    require(at + size <= len(data), STEP, "a message ends within a field")
    return tag >> 3, data[at : at + size], at + size


def fields(data: bytes) -> Iterator[tuple[int, Any]]:
    at = 0
    while at < len(data):
        number, value, at = field(data, at)
        yield number, value


class Checker:
    """Checks parts of a pack, each some blocks of the log; every process has its own."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._verify: dict[bytes, Callable[[bytes, bytes], None]] = {}
        self._batches: dict[tuple[bytes, ...], Batch] = {}
        self._begins: dict[bytes, int] = {}  # outline of a row -> where its key ends and its numbers begin
        self._alike: dict[tuple[Price | None, bytes, int], list[bytes]] = {}  # until they are added up

    def __call__(self, place: Place) -> Part:
        facts, records, leaf_at, at = self._facts, 0, 0, 0
        leaves = facts.leaves.span(place.leaf_at, place.leaf_end - place.leaf_at)
        parcel = facts.records.span(place.at, place.end - place.at)
        part, rows = Part(0, {}, {}, {}, [], [], []), list[tuple[Batch, list[bytes]]]()
        while leaf_at < len(leaves):
            head = leaves[leaf_at : leaf_at + 16]
            block, length, count, more = (int.from_bytes(head[i:j]) for i, j in pairwise((0, 8, 12, 14, 16)))
            places = leaves[leaf_at + 16 : leaf_at + 16 + 25 * count + 32 * more]
            data, offset, raws, hashes = parcel[at : at + length], 0, list[bytes](), dict[int, bytes]()
            for _ in range(count):
                end = offset + 4 + int.from_bytes(data[offset : offset + 4])
                if not offset + 140 <= end <= length:
                    raise EvidenceError(STEP, f"block {block}: a record of a wrong length")
                raws.append(data[offset + 4 : end])
                offset = end
            require(offset == length and block not in part.roots, STEP, f"block {block}: twice, or too long")
            self._signed(raws)  # one kind of work at a time, for the caches' sake
            for i, raw in zip(range(0, 25 * count, 25), raws, strict=True):
                hashes[places[i]] = self._leaf(raw, places[i + 1 : i + 25], part, rows)
            first, last = BLOCK * block + min(hashes), BLOCK * block + max(hashes)
            fits = len(hashes) == count and facts.range[0] <= first and last < facts.range[1]
            require(fits, STEP, f"block {block}: a record in a wrong place")
            part.indexes.append((first, last + 1))
            proof = [places[i : i + 32] for i in range(25 * count, len(places), 32)]
            part.roots[block] = _block_root(min(BLOCK, facts.size - BLOCK * block), hashes, proof)
            at, leaf_at, records = at + length, leaf_at + 16 + len(places), records + count
        try:
            add(part.sums, self._added_alike(rows))
        except Odd:
            add(part.sums, self._added_one_by_one(rows))
        windows, indexes = extent(part.windows), extent(part.indexes)
        return part._replace(records=records, windows=windows, indexes=indexes, left_out=[sum(part.left_out)])

    def _leaf(self, raw: bytes, place: bytes, part: Part, rows: list[tuple[Batch, list[bytes]]]) -> bytes:
        """Chain and rows of a record; the hash of its leaf in the log."""
        agent, seq, digest = raw[:16], int.from_bytes(raw[32:40]), sha256(raw)
        link = (seq, raw[40:72], seq, digest.digest(), 0)
        part.chains[agent] = joined(agent, part.chains[agent], link) if agent in part.chains else link
        inventory, begin, end, workloads, usage = _cut(raw[72:-64])
        batch = self._batches.get((inventory, *workloads)) or self._batch(inventory, workloads)
        part.windows.append((begin, end))
        if self._facts.left_out and (agent.hex(), seq) in self._facts.left_out:
            usage = self._booked(batch, usage, self._facts.left_out[agent.hex(), seq], part)
        rows.append((batch, usage))
        name, received, salt = agent.hex().encode(), int.from_bytes(place[:8]), place[8:].hex().encode()
        return leaf_hash(_LEAF % (name, digest.hexdigest().encode(), received, salt, seq, end, begin))

    def _signed(self, raws: Iterable[bytes]) -> None:
        """Each by the key of the agent that it names."""
        keys, raw = self._verify, b""
        try:
            for raw in raws:
                verify = keys.get(raw[:16])
                if verify is None:
                    verify = Ed25519PublicKey.from_public_bytes(self._facts.keys[raw[:16]]).verify
                    keys[raw[:16]] = verify
                verify(raw[-64:], _DOMAIN + raw[:-64])
        except (InvalidSignature, KeyError, ValueError):
            who = f"agent {raw[:16].hex()}, record {int.from_bytes(raw[32:40])}"
            raise EvidenceError(STEP, f"{who}: not signed by its key") from None

    def _batch(self, inventory: bytes, workloads: list[bytes]) -> Batch:
        require(inventory in self._facts.nodes, STEP, f"no inventory {inventory.hex()} in inventories.bin")
        scopes, models = self._facts.nodes[inventory]
        of_run, dtypes = self._facts.workloads, list[str | None]()
        for w in workloads:
            digest = sha256(w).hexdigest()
            dtypes.append(next((of_run[s, digest] for s in scopes if (s, digest) in of_run), None))
            told = dict(fields(w)).get(6, b"").decode()
            require(
                dtypes[-1] in {None, told},
                STEP,
                f"workload {digest}: its dtype is {told!r}, not {dtypes[-1]!r}",
            )
        return self._batches.setdefault((inventory, *workloads), Batch(models, dtypes, {}))

    def _booked(
        self, batch: Batch, usage: list[bytes], left_out: list[Mapping[str, Any]], part: Part
    ) -> list[bytes]:
        """Without the entities that another agent told of; a gap stands for what nobody did (ADR 0007)."""
        for item in left_out:
            entity, workload = int(item["entity"]), item["workload"]
            told = [(row, dict(fields(row))) for row in usage]
            usage = [row for row, numbers in told if numbers.get(1, 0) != entity]
            of_run = [n for _, n in told if n.get(1, 0) == entity and _price(batch, n) is not None]
            part.left_out.append(sum(n.get(6, 0) for n in of_run))
            if workload is not None:
                price = _price(batch, {1: entity, 2: int(workload), 3: GAP})
                rest = [int(item["restNs"]), int(item["cycles"]), *[0] * 10]
                add(part.sums, {price: rest} if price else {})
        return usage

    def _added_one_by_one(self, rows: Iterable[tuple[Batch, list[bytes]]]) -> Sums:
        sums: Sums = {}
        for batch, row in ((batch, row) for batch, usage in rows for row in usage):
            numbers = dict(fields(row))
            if (price := _price(batch, numbers)) is not None:
                add(sums, {price: [numbers.get(n, 0) for n in range(6, 18)]})
        return sums

    def _added_alike(self, rows: Iterable[tuple[Batch, list[bytes]]]) -> Sums:
        """The same, of rows collected by outline and price; Odd where rows of one outline differ in form."""
        sums: Sums = {}
        try:
            for batch, usage in rows:
                found = batch.found
                for row in usage:
                    outline = row.translate(_GOES_ON)
                    if (known := found.get(outline)) is None:
                        known = found[outline] = (self._begins.setdefault(outline, _key_end(row)), {})
                    begin, likes = known
                    if (like := likes.get(row[:begin])) is None:
                        if begin != _key_end(row):
                            raise Odd
                        alike = (_price(batch, dict(fields(row))), outline, begin)
                        like = likes[row[:begin]] = self._alike.setdefault(alike, [])
                    like.append(row)
            for (price, _, begin), like in self._alike.items():
                if like and price is not None:
                    add(sums, {price: _sum(like, begin)})
        finally:
            for like in self._alike.values():
                like.clear()
        return sums


def add(into: Sums, sums: Mapping[Price, list[int]]) -> None:
    for price, numbers in sums.items():
        into[price] = [a + b for a, b in zip(into.get(price, [0] * 12), numbers, strict=True)]


def joined(agent: bytes, chain: Link, link: Link) -> Link:
    """Two stretches of an agent's records as one: numbers go up, and the next one names the hash of the last."""
    first, begun, last, last_hash, breaks = chain
    if not (link[0] > last and (link[0] > last + 1 or link[1] == last_hash)):
        raise EvidenceError(STEP, f"agent {agent.hex()}: record {link[0]} does not follow on record {last}")
    return first, begun, link[2], link[3], breaks + link[4] + (link[0] > last + 1)


def _price(batch: Batch, numbers: Mapping[int, Any]) -> Price | None:
    entity, workload = numbers.get(1, 0), numbers.get(2, 0)
    fits = entity < len(batch.models) and workload < len(batch.dtypes)
    require(fits, STEP, f"a row of entity {entity}, workload {workload}, which its batch does not name")
    dtype, (level, measured, spread) = batch.dtypes[workload], (numbers.get(n, 0) for n in (3, 4, 5))
    return None if dtype is None else (batch.models[entity], level, measured, spread, dtype)


def _cut(payload: bytes) -> tuple[bytes, int, int, list[bytes], list[bytes]]:
    """Inventory's digest, wall clock at both ends, workloads and usage rows of a batch."""
    inventory, begin, stop, workloads, usage, at = b"", b"", b"", list[bytes](), list[bytes](), 0
    if (usual := _USUAL(payload)) and usual.start(1) == payload[1] + 4:
        (inventory, begin, stop), at = usual.groups(), usual.end()
    size = len(payload)
    while at < size:
        tag = payload[at]
        if tag & 0x87 == 2 and payload[at + 1] < 128:  # one byte of tag, one of length
            end = at + 2 + payload[at + 1]
            value = payload[at + 2 : end]
        else:
            _, value, end = field(payload, at)
        if tag == 0x42:
            usage.append(value)
        elif tag == 0x3A:
            workloads.append(value)
        elif tag == 0x12:
            inventory = value
        elif tag == 0x29:
            begin = value
        elif tag == 0x31:
            stop = value
        at = end
    require(at == size, STEP, "a batch ends within a field")
    return inventory, int.from_bytes(begin, "little"), int.from_bytes(stop, "little"), workloads, usage


def _key_end(row: bytes) -> int:
    """Where the fields up to spread_ppm end."""
    at = 0
    while at < len(row):
        number, _, end = field(row, at)
        if number > 5:
            break
        at = end
    return at


def _sum(rows: list[bytes], at: int) -> list[int]:
    """Of rows that are alike from `at` on but for the digits: column by column, in base 128."""
    data, width, first, sums, last = b"".join(rows), len(rows[0]), rows[0], [0] * 12, 5
    while at < width:
        number, value, end = field(first, at)
        digits = varint(first, at)[1]
        even = all(data[c::width].count(first[c]) == len(rows) for c in range(at, digits))
        if not even or number <= last or not isinstance(value, int):
            raise Odd
        for place, c in enumerate(range(digits, end) if number < 18 else ()):
            sums[number - 6] += _total(data[c::width]) - 128 * len(rows) * (c + 1 < end) << 7 * place
        at, last = end, number
    return sums


def _total(column: bytes) -> int:
    """The sum of some bytes: Adler-32's low half is that of at most 256 of them, plus 1."""
    parts = (column[i : i + 256] for i in range(0, len(column), 256))
    return sum((zlib.adler32(part) & 0xFFFF) - 1 for part in parts)


def _block_root(size: int, hashes: Mapping[int, bytes], proof: list[bytes]) -> bytes:
    if not len(hashes) == size == BLOCK or proof:
        return root_from_many(size, hashes, proof)
    level = [hashes[i] for i in range(BLOCK)]
    while len(level) > 1:
        level = list(map(node_hash, level[::2], level[1::2]))
    return level[0]


def places(records: Bytes, leaves: Bytes, count: int, at_once: int = 4) -> Iterator[Place]:
    """The parts that a Checker takes; last, what stands in leaves.bin behind them: the siblings of the blocks."""
    at = leaf_at = blocks = window_at = 0
    begin, window = (0, 0), b""
    while count > 0:
        if leaf_at + 16 > window_at + len(window):
            window_at, window = leaf_at, leaves.span(leaf_at, max(16, min(1 << 20, leaves.size - leaf_at)))
        head = window[leaf_at - window_at : leaf_at - window_at + 16]
        here, siblings = int.from_bytes(head[12:14]), int.from_bytes(head[14:16])
        require(0 < here <= BLOCK, STEP, "leaves.bin: a block of no records, or of too many")
        at, leaf_at = at + int.from_bytes(head[8:12]), leaf_at + 16 + 25 * here + 32 * siblings
        count, blocks = count - here, blocks + 1
        if blocks == at_once or count <= 0:
            yield Place(begin[0], at, begin[1], leaf_at)
            begin, blocks = (at, leaf_at), 0
    require(
        count == 0 and at == records.size, STEP, "the manifest's number of records is not that of the pack"
    )
    yield Place(at, at, leaf_at, leaves.size)


def inventories(raw: bytes) -> tuple[dict[bytes, bytes], dict[bytes, Any]]:
    """inventories.bin: record keys by agent id; scopes and device models by an inventory's digest."""
    keys, nodes, at = dict[bytes, bytes](), dict[bytes, Any](), 0
    while at < len(raw):
        kind, end = raw[at], at + 5 + int.from_bytes(raw[at + 1 : at + 5])
        value, digest = raw[at + 5 : end], sha256(raw[at + 5 : end]).digest()
        require(
            end <= len(raw) and kind in (1, 2), STEP, "inventories.bin: a block of no known kind or length"
        )
        if kind == 1:
            keys[digest[:16]] = value
        else:
            node, devices = dict(fields(value)), [dict(fields(v)) for n, v in fields(value) if n == 6]
            names = [node.get(n, b"").decode() for n in (2, 1)]
            models = [(d.get(2, b"").decode(), d.get(3, b"").decode()) for d in devices]
            nodes[digest] = ((names[0], "/".join(names)), models)
        at = end
    return keys, nodes


Places = Iterator[Place]
Runner = Callable[[Facts, Places, int], Iterable[Part]]  # the last: how many records there are


def one_by_one(facts: Facts, parts: Places, _: int = 0) -> Iterable[Part]:
    """In this process."""
    return map(Checker(facts), parts)


def check_pack(
    members: Mapping[str, Any],
    manifest: Any,
    predicate: Any,
    opened: list[tuple[int, ...]],
    run: Runner = one_by_one,
) -> str:
    """All of it; what was found, in a sentence. `opened`: the sums of the sum tree's leaves."""
    log, w_table = predicate["evidence"], members["pack/w_table.toml"]
    size, root = int(log["treeSize"]), bytes.fromhex(log["rootHash"][7:])
    tables = {t["name"]: t["sha256"] for t in predicate["method"]["tables"]}
    require(
        tables.get("w_table.toml") == w_table.sha256, STEP, "w_table.toml is not the one of method.tables"
    )
    records, leaves = members["pack/records.bin"], members["pack/leaves.bin"]
    table, count = Table(w_table.span(0, w_table.size)), 0
    raw = members["pack/inventories.bin"].span(0, members["pack/inventories.bin"].size)
    begin, end = (int(n) for n in log["leafRange"])
    of_run = {(w["scope"], w["sha256"]): w["dtype"] for w in manifest["workloads"]}
    left_out: dict[tuple[str, int], list[Any]] = {}
    for item in manifest["leftOut"]:
        left_out.setdefault((item["agent"], int(item["seq"])), []).append(item)
    sums, chains, roots = dict[Price, list[int]](), dict[bytes, Link](), dict[int, bytes]()
    windows, indexes, left_out_ns = list[Window](), list[Window](), 0
    try:
        facts = Facts(records, leaves, size, (begin, end), *inventories(raw), of_run, left_out)
        parts = list(places(records, leaves, int(manifest["records"])))
        for part in run(facts, iter(parts[:-1]), int(manifest["records"])):
            require(not roots or min(part.roots) > max(roots), STEP, "leaves.bin: blocks out of order")
            add(sums, part.sums)
            roots |= part.roots
            count += part.records
            windows, indexes = extent(windows + part.windows), extent(indexes + part.indexes)
            left_out_ns += sum(part.left_out)
            for agent, link in part.chains.items():
                chains[agent] = joined(agent, chains[agent], link) if agent in chains else link
    except (IndexError, UnicodeDecodeError, TypeError, AttributeError) as e:
        raise EvidenceError(STEP, f"a message that is none: {e}") from e
    above = leaves.span(parts[-1].leaf_at, parts[-1].leaf_end - parts[-1].leaf_at)
    siblings = [above[i : i + 32] for i in range(0, len(above), 32)]
    require(
        root_from_many(-(-size // BLOCK), roots, siblings) == root,
        STEP,
        "the batches are not in the log under this checkpoint",
    )
    require(
        indexes == [(begin, end)],
        STEP,
        f"the batches do not begin and end leafRange, {begin}-{end}",
    )
    check_extent(predicate, windows, len(chains))
    groups = list(sums.items())
    for o in manifest["owed"]:
        require(
            len(o["model"]) == 2 and len(o["cycles"]) == 12 and o["class"] == str(GAP), STEP, "owed: no gap"
        )
        price = (tuple(o["model"]), GAP, int(o["measured"]), int(o["spread"]), o["dtype"])
        groups.append((price, [int(n) for n in o["cycles"]]))
    found, cycles = list[tuple[int, ...]](), [0] * 12
    for price, numbers in groups:
        gap = numbers[0] if price[1] == GAP and not price[2] & OTHERS else 0
        found.append((*table.flop(price, numbers), numbers[0], gap, numbers[11]))
        cycles = cycles if price[2] & OTHERS else [a + b for a, b in zip(cycles, numbers, strict=True)]
    wrong = f"the batches come to {sorted(found)[:9]}, the statement says {sorted(opened)[:9]}"
    require(sorted(found) == sorted(opened), STEP, wrong[:900])
    check_shares(predicate, [(price[1], *flop[:3]) for (price, _), flop in zip(groups, found, strict=True)])
    told = [int(n) for n in manifest["smCycles"]]
    require(cycles == told, STEP, f"the batches come to SM-cycles {cycles}, the manifest says {told}")
    breaks = sum(link[4] for link in chains.values())
    less = (
        f", {len(left_out)} left out in part ({Fraction(left_out_ns, 10**9)} device-seconds)"
        if left_out
        else ""
    )
    return f"{count} batches of {len(chains)} agents, {breaks} breaks in their numbers{less}"
