"""The log as files in C2SP's tlog-tiles layout: checkpoint, tiles of hashes, bundles of leaves.

A static file server then serves a log that standard clients read. Full tiles never change, so an export goes on where
the one before ended; the checkpoint is written last, when all that it needs is there.
"""

import os
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from flopmeter.collector.errors import LogError, LogForkedError
from flopmeter.evidence.merkle import verify_consistency

from .checkpoint import Checkpoint
from .evidence_log import EvidenceLog
from .hashes import StoredHashes
from .tree import HASH_BYTES, WIDTH, tile_widths

CHECKPOINT, TILES, ENTRIES = "checkpoint", "tile", "entries"
_TMP = ".tmp"


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export came to."""

    checkpoint: Checkpoint
    files: int  # written by this one
    bytes: int


def tile_path(level: int | str, number: int, width: int = WIDTH) -> str:
    """C2SP tlog-tiles: the number in groups of three digits, all but the last with an x; a partial tile's width behind."""
    digits = f"{number:03d}"
    digits = digits.rjust(-(-len(digits) // 3) * 3, "0")
    groups = [digits[i : i + 3] for i in range(0, len(digits), 3)]
    path = "/".join([f"x{g}" for g in groups[:-1]] + groups[-1:])
    return f"{TILES}/{level}/{path}" + (f".p/{width}" if width < WIDTH else "")


def bundle(leaves: Iterator[bytes]) -> bytes:
    """An entry bundle: each leaf behind its length, two bytes, big-endian."""
    return b"".join(len(leaf).to_bytes(2, "big") + leaf for leaf in leaves)


def export(
    connection: sqlite3.Connection,
    directory: Path,
    *,
    with_leaves: bool = True,
    progress: Callable[[int, int], None] = lambda _a, _b: None,
) -> Exported:
    """Write what the latest checkpoint covers and is not there yet. `progress` gets leaves done, and of how many.

    `with_leaves` False: hashes alone, which is all that proofs need. Every leaf that is written is made again from its row and held against its stored hash, and the root that the
    hashes lead to against the checkpoint. Raises LogError, LogForkedError, and OSError for what cannot be written.
    """
    evidence = EvidenceLog(connection)
    head = evidence.latest()
    if head is None:
        raise LogError(
            "the evidence log has no checkpoint yet", "start `flopmeter collector serve` once: it signs one"
        )
    if evidence.root(head.size) != head.root:
        raise LogForkedError(
            f"log: expected hashes that lead to checkpoint {head.number}, with root {head.root.hex()}, got another root",
            "keep the store as evidence; `flopmeter collector fsck` finds what was changed",
        )
    directory.mkdir(parents=True, exist_ok=True)
    done = _done(evidence, directory, head)
    hashes = StoredHashes(connection)
    writer = _Writer(directory)
    for level, full, rest in tile_widths(head.size):
        begin = done // WIDTH ** (level + 1)  # full tiles of the export before
        for number in range(begin, full + (rest > 0)):
            width = WIDTH if number < full else rest
            start = number * WIDTH
            content = hashes.hashes(level, start, start + width)
            assert len(content) == width * HASH_BYTES
            writer.write(tile_path(level, number, width), content)
            if level == 0 and with_leaves:
                leaves = bundle(evidence.leaves(start, start + width))
                writer.write(tile_path(ENTRIES, number, width), leaves)
            if level == 0:
                progress(start + width, head.size)
    writer.last(CHECKPOINT, head.note)
    return Exported(head, writer.files, writer.bytes)


def _done(evidence: EvidenceLog, directory: Path, head: Checkpoint) -> int:
    """How many leaves the export that is there covers, which this one continues. Raises LogError if it does not."""
    try:
        note = (directory / CHECKPOINT).read_bytes()
    except FileNotFoundError:
        if any(p.name != TILES for p in directory.iterdir()):
            raise LogError(
                f"{directory}: expected an empty directory or an export of this log, found other files",
                "name another directory",
            ) from None
        return 0
    from flopmeter.evidence.errors import EvidenceError
    from flopmeter.evidence.note import parse_checkpoint

    try:
        before = parse_checkpoint(note)
        if before.origin != head.origin:
            raise EvidenceError("consistency", f"it is of the log {before.origin!r}")
        if before.size == 0 or before.size > head.size:
            raise EvidenceError(
                "consistency", f"it has {before.size} leaves, this log {head.size} under its head"
            )
        proof = evidence.consistency(before.size, head.size)
        verify_consistency(before.size, before.root, head.size, head.root, proof)
    except EvidenceError as e:
        raise LogError(
            f"{directory}: expected an export that this log continues, got another: {e.reason}",
            "keep it as evidence, and name another directory",
        ) from e
    return before.size


class _Writer:
    """Files that are whole or not there."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.files = self.bytes = 0

    def write(self, name: str, content: bytes) -> None:
        """Durable when `last` was called."""
        path = self._root / name
        if path.is_file() and path.stat().st_size == len(content) and path.read_bytes() == content:
            return  # an export that was cut had it already
        path.parent.mkdir(parents=True, exist_ok=True)
        self._put(path, content)

    def last(self, name: str, content: bytes) -> None:
        """When all else is durable: the file that says that it is there."""
        # One call for tens of thousands of files, which fsync one by one would take minutes.
        os.sync()
        self._put(self._root / name, content)
        os.sync()

    def _put(self, path: Path, content: bytes) -> None:
        tmp = path.with_name(path.name + _TMP)
        tmp.write_bytes(content)
        tmp.replace(path)
        self.files += 1
        self.bytes += len(content)
