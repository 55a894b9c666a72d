"""The canonical zip (docs/attestation-format.md 1): stored members, fixed dates and attributes, one spelling of all of it.

Written front to back; a member is a file on disk or bytes, so that a pack of any size needs no memory.
"""

import hashlib
import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

CHUNK_BYTES = 1 << 20
_DATE = 33  # 1980-01-01 in DOS's encoding
_UNIX, _MODE = 3, 0o100644
_V20, _V45 = 20, 45
_LIMIT = 0xFFFFFFFF


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
    offset = 0
    directory = []
    for m in members:
        local = _local(m)
        to.write(local)
        to.writelines(_chunks(m.content))
        directory.append(_central(m, offset))
        offset += len(local) + m.size
    listed = b"".join(directory)
    to.write(listed)
    to.write(_end(len(members), len(listed), offset))


def _chunks(content: bytes | Path) -> Iterable[bytes]:
    if isinstance(content, bytes):
        yield content
        return
    with content.open("rb") as f:
        while chunk := f.read(CHUNK_BYTES):
            yield chunk


def _version(*, large: bool) -> int:
    return _V45 if large else _V20


def _local(m: Member) -> bytes:
    name = m.name.encode()
    large = m.size >= _LIMIT
    extra = struct.pack("<HHQQ", 1, 16, m.size, m.size) if large else b""
    size = _LIMIT if large else m.size
    return (
        struct.pack(
            "<4sHHHHHIIIHH",
            b"PK\3\4",
            _version(large=large),
            0,
            0,
            0,
            _DATE,
            m.crc,
            size,
            size,
            len(name),
            len(extra),
        )
        + name
        + extra
    )


def _central(m: Member, offset: int) -> bytes:
    name = m.name.encode()
    large, far = m.size >= _LIMIT, offset >= _LIMIT
    values = ([m.size, m.size] if large else []) + ([offset] if far else [])
    extra = struct.pack(f"<HH{len(values)}Q", 1, 8 * len(values), *values) if values else b""
    size = _LIMIT if large else m.size
    version = _version(large=large or far)
    fields = (
        b"PK\1\2",
        version,
        _UNIX,
        version,
        0,
        0,
        0,
        _DATE,
        m.crc,
        size,
        size,
        len(name),
        len(extra),
        0,
        0,
        0,
    )
    head = struct.pack("<4sBBHHHHHIIIHHHHH", *fields)
    return head + struct.pack("<II", _MODE << 16, _LIMIT if far else offset) + name + extra


def _end(count: int, size: int, offset: int) -> bytes:
    far = offset >= _LIMIT
    end64 = b""
    if far:
        end64 = struct.pack(
            "<4sQHHIIQQQQ", b"PK\6\6", 44, _UNIX << 8 | _V45, _V45, 0, 0, count, count, size, offset
        )
        end64 += struct.pack("<4sIQI", b"PK\6\7", 0, offset + size, 1)
    shown = _LIMIT if far else offset
    return end64 + struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, count, count, size, shown, 0)
