"""Writes the canonical zip (docs/attestation-format.md 1), front to back: a pack of any size needs no memory.

What stands between the contents is `flopmeter.cli.container.frames`, by which the verifier checks every byte.
"""

import hashlib
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

CHUNK_BYTES = 1 << 17


@dataclass(frozen=True, slots=True)
class Member:
    """A file of the container. `content` is its bytes, or where they lie."""

    name: str
    content: bytes | Path
    size: int
    crc: int
    sha256: str


def member(name: str, content: bytes | Path) -> Member:
    """With what must be known before it is written."""
    digest, crc, size = hashlib.sha256(), 0, 0
    for chunk in _chunks(content):
        digest.update(chunk)
        crc = zlib.crc32(chunk, crc)
        size += len(chunk)
    return Member(name, content, size, crc, digest.hexdigest())


def write(to: BinaryIO, members: Sequence[Member]) -> None:
    """The whole file."""
    from flopmeter.cli.container import frames

    found = frames([(m.name, m.size, m.crc) for m in members])
    for frame, m in zip(found, members, strict=False):
        to.write(frame)
        to.writelines(_chunks(m.content))
    to.write(found[-1])


def _chunks(content: bytes | Path) -> Iterable[bytes]:
    if isinstance(content, bytes):
        yield content
        return
    with content.open("rb") as f:
        while chunk := f.read(CHUNK_BYTES):
            yield chunk
