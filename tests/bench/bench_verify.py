"""How fast an auditor's pack is checked again, beside the raw Ed25519 rate of the same library in the same run.

Batches of 8 GPUs, as agents of one run's nodes would sign them, one behind the other in the log. The goal (issue 6) is 0.85 of
the raw rate, on every core that there is: raw verifications and whole parts of the check (signature, chain, place in the
log, rows) take turns in the same processes, one for each core. The ratio is of CPU time, median of turns. What is done
once and in one process (hashes of the members, the tree above the blocks) is told apart, per batch.

    python tests/bench/bench_verify.py
"""

import hashlib
import os
import struct
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import corpus
import evidence_files
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from harness import FLOPMETER, Figure, calibrate, median

from flopmeter.audit.pack import BLOCK, Checker, Facts, Place, places
from flopmeter.cli import container
from flopmeter.contract.record import DOMAIN
from flopmeter.evidence.merkle import root_from_many
from flopmeter.wire.v1 import batch_pb2

NODES, EACH, TURNS = 64, 128, 7
GOAL, GOAL_S = 0.85, 1.0


def pack(folder: Path) -> Facts:
    """records.bin and leaves.bin of one run, whose batches are alone in the log."""
    nodes = corpus.build(NODES, EACH, end_unix_ns=1_790_000_000_000_000_000)
    framed = [node.records[k] for k in range(EACH) for node in nodes]
    with (folder / "records.bin").open("wb") as records, (folder / "leaves.bin").open("wb") as leaves:
        for at in range(0, len(framed), BLOCK):
            block = framed[at : at + BLOCK]
            data = b"".join(struct.pack(">I", len(raw)) + raw for raw in block)
            records.write(data)
            leaves.write(struct.pack(">QIHH", at // BLOCK, len(data), len(block), 0))
            leaves.writelines(struct.pack(">BQ16s", i, at + i, b"\7" * 16) for i in range(len(block)))
    keys = {hashlib.sha256(node.public_key).digest()[:16]: node.public_key for node in nodes}
    models = [("NVIDIA H100 80GB HBM3", "9.0")] * corpus.GPUS
    scopes = {hashlib.sha256(n.inventory).digest(): (("bench", f"bench/{n.name}"), models) for n in nodes}
    first = batch_pb2.Batch.FromString(nodes[0].records[0][72:-64]).workloads[0].SerializeToString()
    of_run = {("bench", hashlib.sha256(first).hexdigest()): "bf16"}
    members = [_member(folder / name) for name in ("records.bin", "leaves.bin")]
    return Facts(members[0], members[1], len(framed), (0, len(framed)), keys, scopes, of_run, {})


def _member(path: Path) -> container.Member:
    raw = path.read_bytes()
    return container.Member(str(path), 0, len(raw), hashlib.sha256(raw).hexdigest(), 0)


_facts: Facts
_checker: Checker


def _start(facts: Facts) -> None:
    global _facts, _checker
    _facts, _checker = facts, Checker(facts)


def _raw(place: Place) -> float:
    """CPU seconds of a part's signatures, and of nothing else: keys, messages, signatures are there before."""
    leaves, at, signed, keys = _facts.leaves.span(place.leaf_at, place.leaf_end - place.leaf_at), 0, [], {}
    data, offset = _facts.records.span(place.at, place.end - place.at), 0
    while at < len(leaves):
        count = int.from_bytes(leaves[at + 12 : at + 14])
        at += 16 + 25 * count
        for _ in range(count):
            end = offset + 4 + int.from_bytes(data[offset : offset + 4])
            raw, offset = data[offset + 4 : end], end
            if raw[:16] not in keys:
                keys[raw[:16]] = Ed25519PublicKey.from_public_bytes(_facts.keys[raw[:16]])
            signed.append((keys[raw[:16]], raw[-64:], DOMAIN + raw[:-64]))
    begun = time.process_time()
    for key, signature, message in signed:
        key.verify(signature, message)
    return time.process_time() - begun


def _check(place: Place) -> float:
    begun = time.process_time()
    _checker(place)
    return time.process_time() - begun


def once(facts: Facts, roots: dict[int, bytes]) -> float:
    """CPU seconds of what one process does for all the others."""
    begun = time.process_time()
    for member in (facts.records, facts.leaves):
        with Path(member.path).open("rb") as f:
            container._member(f.fileno(), member.path, 0, member.size)
    list(places(facts.records, facts.leaves, facts.size))
    root_from_many(len(roots), roots, [])
    return time.process_time() - begun


def command(folder: Path) -> float:
    """Seconds of `flopmeter verify` for an attestation without a pack, from the first byte of Python on."""
    made = evidence_files.attestation("aiOffice", witnesses=evidence_files.WITNESSES)
    (folder / "lab.pem").write_bytes(evidence_files.key_pem())
    (folder / "policy").write_bytes(evidence_files.policy())
    words = [
        FLOPMETER,
        "verify",
        made.write(folder),
        "--key",
        folder / "lab.pem",
        "--policy",
        folder / "policy",
    ]
    begun = time.monotonic()
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - begun


def run(folder: Path) -> list[Figure]:
    facts = pack(folder)
    count, cores = facts.size, len(os.sched_getaffinity(0))
    parts = list(places(facts.records, facts.leaves, count))[:-1]
    ratios, spent = [], {_raw: 0.0, _check: 0.0}
    with ProcessPoolExecutor(cores, get_context("spawn"), _start, (facts,)) as pool:
        for turn in range(-1, TURNS):  # the first: everybody starts, every outline is met
            times = {work: sum(pool.map(work, parts)) for work in spent}
            if turn >= 0:
                ratios.append(times[_raw] / times[_check])
                spent = {work: spent[work] + times[work] for work in spent}
    raw_us, check_us = (seconds / TURNS / count * 1e6 for seconds in spent.values())
    roots = {block: bytes(32) for block in range(-(-count // BLOCK))}
    once_us = min(once(facts, roots) for _ in range(3)) / count * 1e6
    seconds = min(command(folder) for _ in range(3))
    ratio, cal = median(ratios), calibrate(0.5)
    return [
        Figure(
            "verify",
            f"auditor's pack, {count} batches of 8 GPUs, {cores} cores",
            f"{check_us:.0f} us a batch",
            f"{raw_us:.0f} us Ed25519 alone",
            f"{ratio:.2f}",
            f">= {GOAL}",
            ratio >= GOAL,
            cal,
            {"ratios": ratios, "record_bytes": facts.records.size // count},
        ),
        Figure("verify", "  once, in one process", f"{once_us:.1f} us a batch", calibration_us=cal),
        Figure(
            "verify",
            "attestation without a pack, whole command",
            f"{seconds:.2f} s",
            goal=f"< {GOAL_S:.0f} s",
            met=seconds < GOAL_S,
            calibration_us=cal,
        ),
    ]


if __name__ == "__main__":
    from harness import table

    with tempfile.TemporaryDirectory() as name:
        print(table(run(Path(name))))
