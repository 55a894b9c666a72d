"""The check of an attestation, step by step (docs/attestation-format.md 9): the first that fails raises EvidenceError."""

import json
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from fractions import Fraction
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from flopmeter.audit.statement import check, check_arithmetic, check_disclosures, instant, schema
from flopmeter.evidence import note
from flopmeter.evidence.bundle import signed_payload, strict_base64
from flopmeter.evidence.disclosure import field_digest, open_disclosures, parse_canonical
from flopmeter.evidence.errors import EvidenceError, require
from flopmeter.evidence.merkle import leaf_hash, verify_consistency, verify_inclusion
from flopmeter.evidence.sumtree import SumNode, leaf_node, verify_opening

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

BUNDLE, EVIDENCE, RECEIPT, MANIFEST = (
    "bundle.sigstore.json",
    "evidence.json",
    "receipt.tlog-proof",
    "pack/manifest.json",
)
CLOCKS_APART = timedelta(minutes=5)  # issuedAt is the issuer's clock, cosignatures and tokens have others'


class Member(Protocol):
    """A part of the file; `sha256` in hex is of all its bytes, `span` gives exactly so many of them."""

    @property
    def size(self) -> int: ...
    @property
    def sha256(self) -> str: ...
    def span(self, at: int, size: int, /) -> bytes: ...


class Key(NamedTuple):
    """The issuer's: `id` is the SHA-256 of its SPKI in hex; `valid` where it comes in a certificate."""

    public: "EllipticCurvePublicKey"
    id: str
    valid: tuple[datetime, datetime] | None = None


class Wanted(NamedTuple):
    """What a verifier asks for beside the file."""

    policy: note.Policy | None = None
    since: bytes | None = None  # the checkpoint that it kept
    coverage_percent: int = 0  # of the expected device time, at least
    timestamp: Callable[[bytes, bytes], datetime] | None = None  # checks a token over a checkpoint
    pack: Callable[[Mapping[str, Member], Any, Any, list[tuple[int, ...]]], str] | None = None


class Found(NamedTuple):
    """What holds, once all of it does."""

    predicate: Mapping[str, Any]
    level: str  # unwitnessed, timestamped, witnessed(k of n, names)
    thresholds: list[tuple[str, str, str]]  # rule, status, how that is known
    timestamps: tuple[int, int]  # of the checkpoint: verified, there
    proofs: tuple[int, int]  # of log entries: with their text, without
    opened: tuple[int, int]  # leaves of the sum tree: shown, there
    head: bytes  # the checkpoint, to be kept for the next time
    pack: str


def verify(members: Mapping[str, Member], key: Key, wanted: Wanted = Wanted()) -> Found:  # noqa: B008
    raw = signed_payload(_read(members, BUNDLE), key.public, key.id)  # 1
    statement = parse_canonical(raw, "schema")
    check(statement, schema()["statement"])  # before anything is read of it
    predicate = statement["predicate"]
    issued = instant(predicate["issuedAt"])
    good = key.valid is None or key.valid[0] <= issued <= key.valid[1]
    require(good, "signature", f"the key was not valid when it was issued, {predicate['issuedAt']}")

    subjects = {s["name"]: s["digest"]["sha256"] for s in statement["subject"]}  # 2
    there = [name for name in members if name not in {BUNDLE, RECEIPT}]
    require(
        [*subjects] == there and len(statement["subject"]) == len(there),
        "subject",
        f"{[*subjects]} is not {there}",
    )
    for name in there:
        require(members[name].sha256 == subjects[name], "subject", f"{name} is not the one that was signed")

    evidence = parse_canonical(
        _read(members, EVIDENCE, 1 << 28), "schema"
    )  # 3: a row and its proof for each device
    check(evidence, schema()["evidence"])
    entries, packed = predicate["evidence"], predicate["profile"] == "auditor"
    size, root = int(entries["treeSize"]), bytes.fromhex(entries["rootHash"][7:])
    leaves = [int(n) for n in entries["leafRange"]]
    whole = len(leaves) == 2 and leaves[0] <= leaves[1] <= size and predicate["scope"]["limits"]
    whole = whole and (MANIFEST in members) == packed and predicate["issuer"]["keyId"] == key.id
    require(whole, "schema", "leafRange, scope.limits, issuer.keyId, or a pack does not fit the statement")

    redacted = check_disclosures(predicate, evidence["disclosures"])  # 4
    head, receipt = note.parse_checkpoint(entries["checkpoint"].encode()), _receipt(members)  # 5
    log = note.parse_key(entries["logKey"])
    same = (head.origin, head.size, head.root) == (entries["origin"], size, root) and log.kind == note.LOG
    require(
        same, "checkpoint", "the statement's origin, treeSize, rootHash or logKey is not the checkpoint's"
    )
    note.signers(head, [log])
    note.signers(receipt.head, [log])
    level, stamped = _witnesses(head, receipt.head, log, wanted.policy, issued), 0
    for token in entries["timestamps"]:
        if wanted.timestamp is None:
            break
        at = wanted.timestamp(strict_base64(token), head.text)
        require(at <= issued + CLOCKS_APART, "checkpoint", f"stamped at {at}, after it was issued")
        stamped += 1
    level = "timestamped" if stamped and level == "unwitnessed" else level

    older = {}  # 6
    for item in evidence["consistency"]:
        before = (int(item["treeSize"]), bytes.fromhex(item["rootHash"][7:]))
        verify_consistency(*before, size, root, _hashes(item["proof"]))
        older[before] = True
    previous = entries["previous"]
    if previous:
        before = (int(previous["treeSize"]), bytes.fromhex(previous["rootHash"][7:]))
        require(before in older, "consistency", "evidence.json does not lead on from evidence.previous")
    if wanted.since is not None:
        kept = note.parse_checkpoint(wanted.since)
        note.signers(kept, [log])
        require(
            kept.origin == head.origin, "consistency", f"the head that was kept is of the log {kept.origin}"
        )
        require(
            kept.size <= size,
            "consistency",
            f"stale: of {size} entries; the head that was kept had {kept.size}",
        )
        leads = (kept.size, kept.root) == (size, root) or (kept.size, kept.root) in older
        require(
            leads,
            "consistency",
            f"no proof that the log goes on from the head that was kept, of {kept.size} entries",
        )
    verify_consistency(size, root, receipt.head.size, receipt.head.root, receipt.consistency)

    hidden = [p["index"] for p in evidence["proofs"] if p["body"] is None]  # 7
    require(not (packed and hidden), "inclusion", f"an auditor is not shown what entries {hidden[:9]} say")
    texts = [_entry(p, size, root) for p in evidence["proofs"]]
    _roles(predicate, evidence["proofs"], texts)
    verify_inclusion(
        receipt.place, receipt.head.size, leaf_hash(receipt.leaf), receipt.hashes, receipt.head.root
    )
    row = _row(receipt.leaf, receipt.body, "inclusion")
    told = (row.get("kind"), row.get("attestation_id"), row.get("statement_sha256"), row.get("record_digest"))
    this = ("issued", predicate["attestationId"], sha256(raw).hexdigest(), predicate["record"]["digest"][7:])
    require(told == this, "inclusion", "the receipt is of another attestation")

    opened = [_opening(o, entries["sumTree"]) for o in evidence["sumTree"]]  # 8
    _check_openings(predicate, redacted, opened, packed)
    _check_devices(predicate, evidence["devices"])

    thresholds = check_arithmetic(predicate, redacted)  # 9

    if wanted.coverage_percent:  # 10
        seconds = [predicate["coverage"].get(n) for n in ("observedDeviceSeconds", "expectedDeviceSeconds")]
        require(None not in seconds, "coverage", "the device time observed or expected is not shown")
        observed, expected = (Fraction(s) for s in seconds)
        enough = observed * 100 >= expected * wanted.coverage_percent
        require(
            enough,
            "coverage",
            f"observed {observed} s of {expected} device-seconds, asked for {wanted.coverage_percent} %",
        )

    pack = ""
    if packed and wanted.pack:  # 11
        manifest = parse_canonical(_read(members, MANIFEST), "pack")
        check(manifest, schema()["manifest"], "pack")
        pack = wanted.pack(members, manifest, predicate, [o[1] for o in opened])
    texts_shown = sum(p["body"] is not None for p in evidence["proofs"])
    return Found(
        predicate, level, thresholds, (stamped, len(entries["timestamps"])),
        (texts_shown, len(texts) - texts_shown), (len(opened), int(entries["sumTree"]["leafCount"])),
        entries["checkpoint"].encode(), pack,
    )  # fmt: skip


class _Receipt(NamedTuple):
    head: note.Checkpoint
    place: int
    hashes: tuple[bytes, ...]
    leaf: bytes
    body: str
    consistency: list[bytes]


def _read(members: Mapping[str, Member], name: str, limit: int = 1 << 26) -> bytes:
    require(
        name in members and members[name].size <= limit,
        "subject",
        f"{name} is missing, or over {limit} bytes",
    )
    return members[name].span(0, members[name].size)


def _hashes(texts: list[str]) -> list[bytes]:
    return [bytes.fromhex(text) for text in texts]


def _receipt(members: Mapping[str, Member]) -> _Receipt:
    index, hashes, extra, head = note.parse_proof(_read(members, RECEIPT))
    told = parse_canonical(extra or b"", "inclusion")
    check(told, schema()["receipt"], "inclusion")
    leaf, body, more = told["leaf"].encode(), told["body"], _hashes(told["consistency"])
    return _Receipt(note.parse_checkpoint(head), index, hashes, leaf, body, more)


def _witnesses(
    head: note.Checkpoint, later: note.Checkpoint, log: note.Key, policy: note.Policy | None, issued: datetime
) -> str:
    """The level by the verifier's own policy: of the checkpoint, or of the receipt's, which goes on from it."""
    if policy is None:
        return "unwitnessed"
    require(
        log in policy.logs, "checkpoint", f"the log {log.name} is none of the policy's, or has another key"
    )
    for one in (head, later):  # the receipt's, too: it is made with the file
        signed = note.signers(one, [log, *(key for key, _ in policy.witnesses.values())])
        latest = max((seconds for seconds in signed.values() if seconds is not None), default=0)
        early = latest <= (issued + CLOCKS_APART).timestamp()
        require(early, "checkpoint", f"cosigned at {latest} (Unix s), after it was issued")
    try:
        cosigned = policy.check(head)
    except EvidenceError:
        cosigned = policy.check(later)
    known: dict[str, str] = {}
    for name, (key, _) in policy.witnesses.items():
        known.setdefault(key.name, name)
    names = sorted({known[key.name] for key in cosigned})  # two keys of one key name: one witness
    return f"witnessed({len(names)} of {len(known)}, {', '.join(names)})" if names else "unwitnessed"


def _row(leaf: bytes, body: str | None, step: str) -> Any:
    """What the entry says, its leaf's kind in it; that alone where its row is not shown."""
    told = parse_canonical(leaf, step)
    require(isinstance(told, dict), step, "a leaf that is none")
    if body is None:
        return {"leaf": told.get("kind")}
    require(told.get("body") == sha256(body.encode()).hexdigest(), step, "a row of another leaf")
    row = parse_canonical(body.encode(), step)
    require(isinstance(row, dict), step, "a row that is none")
    return {**row, "leaf": told.get("kind")}


def _entry(proof: Mapping[str, Any], size: int, root: bytes) -> dict[str, Any]:
    """What a log entry says, once its place is proven."""
    leaf = proof["leaf"].encode()
    verify_inclusion(int(proof["index"]), size, leaf_hash(leaf), _hashes(proof["proof"]), root)
    return dict(_row(leaf, proof["body"], "inclusion"))


def _roles(predicate: Mapping[str, Any], proofs: list[Any], rows: list[dict[str, Any]]) -> None:
    """Each entry that the statement refers to is proven, in its role, and nothing else."""
    record, start = predicate["evidence"]["recordEntry"]["index"], predicate["scope"]["precommittedBy"]
    wanted = {("record", record), ("start", start)}
    wanted |= {("event", t["eventLogIndex"]) for t in predicate["thresholds"]}
    wanted |= {
        ("entry", e["evidenceLogIndex"]) for c in predicate["totals"]["countable"] for e in c["excluded"]
    }
    got = [(p["role"], p["index"]) for p in proofs]
    fits = set(got) == {w for w in wanted if w[1] is not None} and len(set(got)) == len(got)
    require(fits, "inclusion", f"the entries proven are {sorted(got)[:9]}, the statement's others")
    early = start is None or int(start) < int(predicate["evidence"]["leafRange"][0])
    require(
        early, "inclusion", f"entry {start} is the declared start, and is not before the run's first batch"
    )
    kinds = {"record": "attestation", "start": "entry", "event": "event", "entry": "entry"}
    for (role, index), row in zip(got, rows, strict=True):
        require(row["leaf"] == kinds[role], "inclusion", f"entry {index} is not of kind {kinds[role]}")
        if role == "event" and len(row) > 1:
            for t in predicate["thresholds"]:
                told = t["eventLogIndex"] != index or _tells(row, t)
                require(told, "inclusion", f"event {index} does not say that {t['rule']} is {t['status']}")
        if role == "record":
            told = (row.get("kind"), row.get("record_digest"))
            this = ("record", predicate["record"]["digest"][7:])
            require(told == this, "inclusion", f"entry {index} is not that of this record")


def _tells(event: Mapping[str, Any], threshold: Mapping[str, str]) -> bool:
    """The event says of this rule and line what the threshold does; of what silence leaves open, that somebody is silent."""
    rule, status = threshold["rule"], threshold["status"]
    if event.get("type") == "agent.silent":
        return status == "undetermined"
    try:
        said = json.loads(event["data"])
        line = (said["regime"], said["comparison"], str(said["threshold_flop"]))
    except (ValueError, KeyError, TypeError, RecursionError):
        return False
    this = (rule, threshold["comparison"], threshold["limit"])
    return line == this and event.get("type") == f"threshold.{status}"


def _opening(o: Mapping[str, Any], tree: Mapping[str, str]) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
    """Index, sums and the tree's total of a leaf that is opened."""
    size, index, sums = int(tree["leafCount"]), int(o["index"]), tuple(int(n) for n in o["sums"])
    path = [SumNode(tuple(int(n) for n in s["sums"]), bytes.fromhex(s["hash"])) for s in o["path"]]
    require(
        all(len(s) == 6 for s in (sums, *(p.sums for p in path))), "sum tree", "a vector is not of six sums"
    )
    total = tuple(map(sum, zip(sums, *(p.sums for p in path), strict=True)))
    leaf = leaf_node(size, index, sums, bytes.fromhex(o["commitment"]))
    verify_opening(size, index, leaf, path, total=total, root=bytes.fromhex(tree["root"][7:]))
    return index, sums, total


def _check_openings(
    predicate: Mapping[str, Any], redacted: set[str], opened: list[Any], packed: bool
) -> None:
    totals, count = predicate["totals"], int(predicate["evidence"]["sumTree"]["leafCount"])
    exact = "executedFlop" in totals and "/totals/executedFlop" not in redacted
    indexes = [o[0] for o in opened]
    enough = (
        indexes == sorted(set(indexes)) and (opened or not exact) and (len(opened) == count or not packed)
    )
    require(enough, "sum tree", f"{len(opened)} of {count} leaves are opened: too few, or one twice")
    for total in (o[2] for o in opened):
        if exact:
            told = tuple(int(totals["executedFlop"][b]) for b in ("lower", "point", "upper"))
            require(total[:3] == told, "sum tree", f"the tree's total is {total[:3]}, executedFlop is {told}")
        energy, gaps = totals.get("energyJoules", {}).get("value"), predicate["coverage"].get("gaps", {})
        for path, sums, unit, value in (
            ("/totals/deviceSeconds", total[3], 10**9, totals.get("deviceSeconds")),
            ("/coverage/gaps", total[4], 10**9, gaps.get("seconds")),
            ("/totals/energyJoules", total[5], 1_000, energy or "0"),
        ):
            right = value is None or path in redacted or Fraction(sums, unit) == Fraction(value)
            require(right, "sum tree", f"the tree's sum is {sums}/{unit}, {path} is {value}")


def _check_devices(predicate: Mapping[str, Any], devices: list[Any]) -> None:
    inventory = predicate["inventory"]
    require(
        not devices or {"devices", "commitment"} <= set(inventory),
        "sum tree",
        "devices are opened and not counted",
    )
    left = {d["model"]: int(d["count"]) for d in inventory.get("devices", ())}
    size = sum(int(d["count"]) for d in inventory.get("devices", ()))
    seen = set[str]()
    for d in devices:
        root, leaf = bytes.fromhex(inventory["commitment"][7:]), leaf_hash(d["row"].encode())
        verify_inclusion(int(d["index"]), size, leaf, _hashes(d["proof"]), root)
        ((path, row),) = open_disclosures([d["row"]], [field_digest(d["row"])]).items()
        fits = path == f"/devices/{d['index']}" and isinstance(row, dict) and {*row} == {"model", "uuid"}
        fits = fits and all(isinstance(text, str) for text in row.values()) and row["uuid"] not in seen
        require(fits, "sum tree", f"device {d['index']}: there twice, or its row is another's: {path:.99}")
        seen.add(row["uuid"])
        left[row["model"]] = left.get(row["model"], 0) - 1
    more = sorted(model for model, count in left.items() if count < 0)
    require(not more, "sum tree", f"more devices are opened than inventory.devices counts, of {more}"[:200])
