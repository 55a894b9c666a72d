"""Small valid attestations of every profile, made the slow way from the page on the format, with keys and a log of
their own. Shares no line with flopmeter.audit, nor with what makes attestations in the collector.

made = attestation("auditor")
made.files["evidence.json"]      # bytes, by member
path = made.write(tmp_path)      # the zip
"""

import base64
import hashlib
import io
import json
import struct
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from importlib import resources
from pathlib import Path
from typing import Any

import evidence_reference as ref
from builders import H100, TRAINING, UNIX_NS
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from evidence_fleet import SUM_NAMES, Fleet, Group, extent, figure, fleet, groups_of, priced

from flopmeter.contract import w_table
from flopmeter.contract.evidence_class import EvidenceClass
from flopmeter.contract.flop import Figure
from flopmeter.wire.v1 import batch_pb2

__all__ = ["H100", "SUM_NAMES", "Fleet", "figure", "fleet", "groups_of", "priced"]  # for tests, from here

PREDICATE_TYPE = "https://flopmeter.dev/compute-attestation/v1"
PROFILES = ("aiOffice", "nationalAuthority", "auditor", "downstream")
MEMBERS = ("bundle.sigstore.json", "evidence.json", "receipt.tlog-proof")
PACK = tuple(
    f"pack/{n}" for n in ("manifest.json", "records.bin", "leaves.bin", "inventories.bin", "w_table.toml")
)
ORIGIN = "flopmeter.test/log"
KEY = ec.derive_private_key(0x5EED, ec.SECP256R1())
LOG = ref.Signer(ORIGIN, 1)
WITNESSES = (
    ref.Signer("witness.test/a", 4),
    ref.Signer("witness.test/b", 4),
    ref.Signer("witness.test/c", 4),
)
ISSUED, COSIGNED_UNIX_S = "2026-11-22T15:00:00Z", 1_795_359_000  # ten minutes before


def canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def digest_of(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()


def salt_of(text: str) -> bytes:
    return hashlib.sha256(b"salt of " + text.encode()).digest()[:16]


def key_pem() -> bytes:
    kind = serialization.PublicFormat.SubjectPublicKeyInfo
    return KEY.public_key().public_bytes(serialization.Encoding.PEM, kind)


def key_id() -> str:
    kind = serialization.PublicFormat.SubjectPublicKeyInfo
    return digest_of(KEY.public_key().public_bytes(serialization.Encoding.DER, kind))


def policy(quorum: int = 2) -> bytes:
    lines = [f"log {LOG.vkey}", *(f"witness {w.name} {w.vkey}" for w in WITNESSES)]
    lines += [f"group all {quorum} {' '.join(w.name for w in WITNESSES)}", "quorum all"]
    return "".join(f"{line}\n" for line in lines).encode()


def batch_leaf(raw: bytes, received: int, salt: bytes) -> bytes:
    batch = batch_pb2.Batch.FromString(raw[72:-64])
    return canonical(
        {
            "agent": raw[:16].hex(),
            "hash": digest_of(raw),
            "kind": "batch",
            "received": str(received),
            "salt": salt.hex(),
            "seq": str(int.from_bytes(raw[32:40], "big")),
            "v": "1",
            "windowEnd": str(batch.window_end_unix_ns),
            "windowStart": str(batch.window_start_unix_ns),
        }
    )


@dataclass
class Log:
    """Leaves, with what was opened of them."""

    leaves: list[bytes] = field(default_factory=list)
    bodies: dict[int, str] = field(default_factory=dict)
    later: Sequence[ref.Signer] = ()  # who cosigns the receipt's head

    def append(self, leaf: bytes) -> int:
        self.leaves.append(leaf)
        return len(self.leaves) - 1

    def say(self, kind: str, row: Mapping[str, Any]) -> int:
        body = canonical(row)
        number = str(len(self.leaves))
        leaf = {
            "body": digest_of(body),
            "kind": kind,
            "number": number,
            "salt": salt_of(number).hex(),
            "v": "1",
        }
        index = self.append(canonical(leaf))
        self.bodies[index] = body.decode()
        return index

    @property
    def hashes(self) -> list[bytes]:
        return [ref.sha256(b"\0" + leaf) for leaf in self.leaves]

    def note(self, *witnesses: ref.Signer) -> bytes:
        return ref.signed_checkpoint(ORIGIN, self.hashes, LOG, *witnesses, seconds=COSIGNED_UNIX_S)

    def proof(self, role: str, index: int) -> dict[str, Any]:
        proof = [h.hex() for h in ref.inclusion_proof(index, self.hashes)]
        leaf = self.leaves[index].decode()
        return {"role": role, "index": str(index), "leaf": leaf, "body": self.bodies[index], "proof": proof}


def pack_files(told: Fleet, indexes: Sequence[int], received: Sequence[int], log: Log) -> dict[str, bytes]:
    """pack/*, whose proofs are made of the whole tree's leaf hashes."""
    records, leaves, blocks = b"", b"", sorted({i // 256 for i in indexes})
    for block in blocks:
        mine = [
            (i, raw, at)
            for i, raw, at in zip(indexes, told.records, received, strict=True)
            if i // 256 == block
        ]
        framed = b"".join(struct.pack(">I", len(raw)) + raw for _, raw, _ in mine)
        siblings = ref.many_proof([i % 256 for i, _, _ in mine], log.hashes[256 * block : 256 * (block + 1)])
        leaves += struct.pack(">QIHH", block, len(framed), len(mine), len(siblings))
        leaves += b"".join(struct.pack(">BQ", i % 256, at) + salt_of(f"batch {i}") for i, _, at in mine)
        leaves += b"".join(siblings)
        records += framed
    roots = [ref.tree_root(log.hashes[at : at + 256]) for at in range(0, len(log.leaves), 256)]
    leaves += b"".join(ref.many_proof(blocks, roots))
    parts = sorted((1, ref.sha256(k), k) for k in told.keys) + sorted(
        (2, ref.sha256(i), i) for i in told.inventories
    )
    sums = [sum(column) for column in zip(*groups_of(told.records).values(), strict=True)]
    workload = batch_pb2.Batch.FromString(told.records[0][72:-64]).workloads[0].SerializeToString()
    manifest = {
        "format": "flopmeter-pack/1",
        "leftOut": [],
        "owed": [],
        "records": str(len(told.records)),
        "smCycles": [str(n) for n in sums],
        "workloads": [{"dtype": TRAINING.dtype, "scope": "c1", "sha256": digest_of(workload)}],
    }
    inventories = b"".join(struct.pack(">BI", kind, len(raw)) + raw for kind, _, raw in parts)
    table = resources.files("flopmeter.contract").joinpath(w_table.CURRENT).read_bytes()
    return dict(zip(PACK, (canonical(manifest), records, leaves, inventories, table), strict=True))


def record_fields(groups: Mapping[Group, list[int]], log: Log, entry: int, told: Fleet) -> dict[str, Any]:
    """The whole record, by path."""
    figures = [priced(group, sums) for group, sums in groups.items()]
    total = sum(figures[1:], figures[0])
    device_ns, gap_ns = (
        sum(s[0] for g, s in groups.items() if not only or g[1] == EvidenceClass.GAP)
        for only in (False, True)
    )
    points = dict[str, int]()
    for group, f in zip(groups, figures, strict=True):
        points[EvidenceClass(group[1]).label] = points.get(EvidenceClass(group[1]).label, 0) + f.point
    gaps = sum(f.upper for group, f in zip(groups, figures, strict=True) if group[1] == EvidenceClass.GAP)
    half = Figure(total.lower // 2, total.point // 2, total.upper // 2)
    rest = Figure(total.lower - half.lower, total.point - half.point, total.upper - half.upper + 1)
    table = resources.files("flopmeter.contract").joinpath(w_table.CURRENT).read_bytes()

    def threshold(rule: str, limit: str, status: str, of: str = "executed") -> dict[str, Any]:
        line = {"regime": rule, "comparison": ">=", "threshold_flop": limit}
        row = {"type": f"threshold.{status}", "data": canonical(line).decode()}
        index = None if status == "below" else str(log.say("event", row))
        return {
            "rule": rule, "ruleTableSha256": digest_of(rule.encode()), "limit": limit, "comparison": ">=", "total": of,
            "status": status, "firstCrossedAt": ISSUED if status == "crossed" else None, "knownWillBeMetAt": None,
            "eventLogIndex": index, "dueAt": None,
        }  # fmt: skip

    return {
        "/run/name": "r1",
        "/run/commitment": f"sha256:{digest_of(b'names')}",
        "/run/kind": "pretraining",
        "/run/purposeTags": ["pretraining"],
        "/run/lineage": [],
        "/run/linkedRuns": {"count": "0", "flop": figure(Figure(0, 0, 0))},
        **extent(told.records),
        "/period/closed": True,
        "/period/clock": {"source": "boot clocks", "maxSkewNs": "0", "rfc3161Count": "0"},
        "/totals/executedFlop": figure(total),
        "/totals/countable/eu": {
            "regime": "eu", "profileVersion": "broad 1", "flop": figure(half),
            "excluded": [{"tag": "evaluation", "flop": figure(rest), "evidenceLogIndex": str(entry)}],
        },
        "/totals/deviceSeconds": str(Fraction(device_ns, 10**9)),
        "/totals/energyJoules": {"value": str(Fraction(sum(s[11] for s in groups.values()), 1000)), "boundary": "boards"},
        "/byPrecision": [
            {"pipe": "hmma", "format": "bf16", "flop": figure(half)},
            {"pipe": "vector", "format": "vector", "flop": figure(rest)},
        ],
        "/method/id": "hardware-counters",
        "/method/version": "0.1.0",
        "/method/softwareDigest": None,
        "/method/tables": [{"name": "w_table.toml", "sha256": digest_of(table)}],
        "/method/evidenceClasses": [{"class": c, "flopShare": str(Fraction(n, total.point))} for c, n in points.items() if n],
        "/method/intervalMeaning": "bounds, not confidence",
        "/method/within30Percent": None,
        "/method/secondMethod": None,
        "/coverage/expectedDeviceSeconds": str(Fraction(device_ns, 10**9)),
        "/coverage/observedDeviceSeconds": str(Fraction(device_ns - gap_ns, 10**9)),
        "/coverage/gaps": {"count": "1", "seconds": str(Fraction(gap_ns, 10**9)), "longestSeconds": "1", "flopUpperAdded": str(gaps)},
        "/coverage/agents": {"expected": str(len(told.keys)), "reporting": str(len(told.keys))},
        "/coverage/devicesKnownNotReporting": "0",
        "/coverage/sequenceBreaks": "0",
        "/coverage/cloneAlarms": "0",
        "/coverage/clockViolations": "0",
        "/coverage/unattributedFlop": {"upper": "0"},
        "/thresholds/crossed": threshold("crossed", str(total.lower), "crossed"),
        "/thresholds/below": threshold("below", str(total.upper + 1), "below"),
        "/thresholds/open": threshold("open", f"{2 * total.lower + 1}/2", "undetermined"),
        "/thresholds/eu": threshold("eu", str(half.lower), "crossed", "countable:eu"),
        "/inventory/commitment": "",  # of the rows below
        "/inventory/devices": [{"model": H100, "count": "4"}],
        "/inventory/agentsCommitment": f"sha256:{digest_of(b'agents')}",
        "/inventory/hardwareAttested": None,
    }  # fmt: skip


#: path -> form, by profile: what a recipient is not shown as the record has it.
REDACTED: Mapping[str, Mapping[str, str]] = {
    "aiOffice": {"/run/name": "pseudonymised", "/inventory/agentsCommitment": "withheld"},
    "nationalAuthority": {"/run/name": "pseudonymised", "/totals/energyJoules": "withheld"},
    "auditor": {"/run/name": "pseudonymised"},
    "downstream": {
        "/run/name": "pseudonymised", "/totals/executedFlop": "rounded", "/byPrecision": "withheld",
        "/totals/countable/eu": "withheld", "/inventory/devices": "withheld", "/totals/deviceSeconds": "withheld",
    },
}  # fmt: skip


def view(fields: Mapping[str, Any], forms: Mapping[str, str]) -> dict[str, Any]:
    """The groups of the predicate that show the fields."""
    groups: dict[str, Any] = {
        "run": {"pseudonym": "run-7f3a"}, "period": {}, "totals": {"countable": []}, "method": {}, "coverage": {},
        "thresholds": [], "inventory": {},
    }  # fmt: skip
    for path, value in fields.items():
        if path == "/run/name" or forms.get(path) == "withheld":
            continue
        shown = value
        if forms.get(path) == "rounded":  # outwards, to two digits
            low, point, high = (int(value[b]) for b in ("lower", "point", "upper"))
            unit = 10 ** (len(str(low)) - 2)
            shown = figure(Figure(low // unit * unit, point // unit * unit, (high // unit + 1) * unit))
        if path.startswith("/totals/countable/"):
            groups["totals"]["countable"].append(shown)
        elif path.startswith("/thresholds/"):
            groups["thresholds"].append(shown)
        elif path.count("/") == 1:
            groups[path[1:]] = shown
        else:
            _, group, member = path.split("/")
            groups[group][member] = shown
    return groups


@dataclass
class Attestation:
    """A file's members, and what a verifier needs beside them."""

    files: dict[str, bytes]
    log: Log
    predicate: dict[str, Any]
    heads: dict[int, bytes]  # older checkpoints, by size

    def zipped(self) -> bytes:
        """By Python's zipfile: another writer than the product's."""
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as z:
            for name, raw in self.files.items():
                info = zipfile.ZipInfo(name)
                info.create_system, info.external_attr = 3, 0o100644 << 16
                z.writestr(info, raw)
        return out.getvalue()

    def write(self, folder: Path, name: str = "run.fma") -> Path:
        path = folder / name
        path.write_bytes(self.zipped())
        return path

    def unpacked(self, folder: Path) -> Path:
        for name, raw in self.files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(raw)
        return folder


Change = Callable[[dict[str, Any], dict[str, Any]], object]


def attestation(
    profile: str = "aiOffice",
    *,
    told: Fleet | None = None,
    witnesses: Sequence[ref.Signer] = (),
    later: Sequence[ref.Signer] = (),
    change: Change | None = None,  # of predicate and evidence.json, before they are signed
    change_pack: Callable[[dict[str, bytes]], object] | None = None,
    change_receipt: Callable[[dict[str, Any]], object] | None = None,
    around: int = 3,  # other leaves in the log before, between and behind
) -> Attestation:
    """All of it, as an honest issuer would make it but for the changes."""
    told, log, heads, other = told or fleet(), Log(later=later), dict[int, bytes](), iter(range(10**6))
    for _ in range(around):
        log.append(canonical({"other": str(next(other))}))
    entry = log.say("entry", {"entry_no": "1", "statement": "tag"})
    start = log.say("entry", {"entry_no": "2", "statement": "declare"})
    heads[len(log.leaves)] = log.note()
    indexes, received = [], []
    for n, raw in enumerate(told.records):
        if n % 3 == 1:
            log.append(canonical({"other": str(next(other))}))
        indexes.append(len(log.leaves))
        received.append(UNIX_NS + n)
        log.append(batch_leaf(raw, received[-1], salt_of(f"batch {indexes[-1]}")))
    heads[len(log.leaves)] = log.note()

    groups = groups_of(told.records)
    fields = record_fields(groups, log, entry, told)
    rows = [
        ref.disclosure(salt_of(f"row {i}"), f"/devices/{i}", {"model": H100, "uuid": f"GPU-{i}"})
        for i in range(4)
    ]
    row_hashes = [ref.sha256(b"\0" + row.encode()) for row in rows]
    fields["/inventory/commitment"] = f"sha256:{ref.tree_root(row_hashes).hex()}"
    disclosures = {path: ref.disclosure(salt_of(path), path, fields[path]) for path in sorted(fields)}
    decoys = [ref.base64url_of(ref.sha256(f"decoy {n}".encode())) for n in range(4)]
    digests = sorted([*map(ref.disclosure_digest, disclosures.values()), *decoys])
    record_digest = digest_of("".join(f"{d}\n" for d in digests).encode())
    record = log.say("attestation", {"kind": "record", "record_digest": record_digest})

    vectors = []
    for group, sums in groups.items():
        f = priced(group, sums)
        vectors.append(
            (f.lower, f.point, f.upper, sums[0], sums[0] if group[1] == EvidenceClass.GAP else 0, sums[11])
        )
    tree = ref.SlowSumTree(
        tuple(ref.SumLeaf(v, ref.sha256(f"group {i}".encode())) for i, v in enumerate(vectors))
    )
    forms = REDACTED[profile]
    size, root = len(log.leaves), ref.tree_root(log.hashes)
    opened = range(len(vectors)) if profile == "auditor" else [] if "/totals/executedFlop" in forms else [0]
    predicate: dict[str, Any] = {
        "schemaVersion": "1",
        "attestationId": "019ab000-0000-7000-8000-000000000001",
        "profile": profile,
        "issuedAt": ISSUED,
        "issuer": {"name": "A Lab", "role": "operator", "keyId": key_id()},
        "supersedes": [],
        **view(fields, forms),
        "evidence": {
            "origin": ORIGIN,
            "logKey": LOG.vkey,
            "treeSize": str(size),
            "rootHash": f"sha256:{root.hex()}",
            "leafRange": [str(indexes[0]), str(indexes[-1] + 1)],
            "checkpoint": log.note(*witnesses).decode(),
            "previous": _head(min(heads), log),
            "sumTree": {
                "alg": "flopmeter/sum-tree/v1",
                "root": f"sha256:{tree.root.hex()}",
                "leafCount": str(len(vectors)),
            },
            "recordEntry": {"index": str(record)},
            "timestamps": [],
        },
        "record": {"fieldDigests": digests, "digest": f"sha256:{record_digest}"},
        "redactions": [
            {
                "path": path,
                "form": form,
                "reason": "not owed",
                "digest": ref.disclosure_digest(disclosures[path]),
            }
            for path, form in sorted(forms.items())
        ],
        "scope": {
            "claim": "thisRunOnly",
            "limits": ["Nothing is left out: not proven."],
            "precommittedBy": str(start),
        },
    }
    proven = {("record", record), ("start", start)}
    proven |= {("event", int(t["eventLogIndex"])) for t in predicate["thresholds"] if t["eventLogIndex"]}
    proven |= {("entry", entry) for c in predicate["totals"]["countable"] for _ in c["excluded"]}
    evidence = {
        "consistency": [
            {**_head(n, log), "proof": [h.hex() for h in ref.consistency_proof(n, log.hashes)]}
            for n in sorted(heads)
        ],
        "devices": []
        if "devices" not in predicate["inventory"]
        else [{"index": "2", "row": rows[2], "proof": [h.hex() for h in ref.inclusion_proof(2, row_hashes)]}],
        "disclosures": [text for path, text in disclosures.items() if path not in forms],
        "proofs": [log.proof(role, index) for role, index in sorted(proven, key=lambda p: (p[1], p[0]))],
        "sumTree": [
            {
                "index": str(i),
                "sums": [str(n) for n in vectors[i]],
                "commitment": tree.leaves[i].commitment.hex(),
                "path": [{"sums": [str(n) for n in sums], "hash": h.hex()} for sums, h in tree.opening(i)],
            }
            for i in opened
        ],
    }
    pack = pack_files(told, indexes, received, log) if profile == "auditor" else {}
    if change is not None:
        change(predicate, evidence)
    if change_pack is not None:
        change_pack(pack)
    files = {"evidence.json": canonical(evidence), **pack}
    payload = canonical(
        {
            "_type": "https://in-toto.io/Statement/v1",
            "predicateType": PREDICATE_TYPE,
            "subject": [{"name": name, "digest": {"sha256": digest_of(raw)}} for name, raw in files.items()],
            "predicate": predicate,
        }
    )
    receipt = receipt_of(log, payload, predicate, size, change_receipt)
    made = {MEMBERS[0]: signed(payload), MEMBERS[1]: files.pop("evidence.json"), MEMBERS[2]: receipt, **files}
    return Attestation(made, log, predicate, heads)


def _head(size: int, log: Log) -> dict[str, str]:
    return {"treeSize": str(size), "rootHash": f"sha256:{ref.tree_root(log.hashes[:size]).hex()}"}


def signed(payload: bytes, key: ec.EllipticCurvePrivateKey = KEY) -> bytes:
    kind = "application/vnd.in-toto+json"
    signature = key.sign(
        f"DSSEv1 {len(kind)} {kind} {len(payload)} ".encode() + payload, ec.ECDSA(hashes.SHA256())
    )
    envelope = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": kind,
        "signatures": [{"keyid": key_id(), "sig": base64.b64encode(signature).decode()}],
    }
    return canonical(
        {
            "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
            "verificationMaterial": {"publicKey": {"hint": key_id()}},
            "dsseEnvelope": envelope,
        }
    )


def receipt_of(
    log: Log,
    payload: bytes,
    predicate: Mapping[str, Any],
    size: int,
    change: Callable[[dict[str, Any]], object] | None,
) -> bytes:
    """Of the entry that says that it was issued, under the log's next head."""
    row = {
        "kind": "issued",
        "attestation_id": predicate["attestationId"],
        "record_digest": predicate["record"]["digest"][7:],
        "statement_sha256": digest_of(payload),
    }
    if change is not None:
        change(row)
    index = log.say("attestation", row)
    extra = {
        "body": log.bodies[index],
        "leaf": log.leaves[index].decode(),
        "consistency": [h.hex() for h in ref.consistency_proof(size, log.hashes)],
    }
    return ref.tlog_proof(
        index, ref.inclusion_proof(index, log.hashes), log.note(*log.later), canonical(extra)
    )
