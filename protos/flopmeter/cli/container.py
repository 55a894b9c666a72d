"""An attestation's file: a zip of which every byte is fixed, or a folder of its members (docs/attestation-format.md 1)."""

import os
import stat
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from flopmeter.evidence.errors import EvidenceError

STEP = "container"
FILES = ("bundle.sigstore.json", "evidence.json", "receipt.tlog-proof")
PACK = (
    "pack/manifest.json",
    "pack/records.bin",
    "pack/leaves.bin",
    "pack/inventories.bin",
    "pack/w_table.toml",
)
_MOST = (1 << 32) - 1  # from here on zip64 says it
_BLOCK = 1 << 20
#: Read only; no link is followed and no pipe waited for, where the operating system has words for that.
_PLAIN = sum(getattr(os, f"O_{flag}", 0) for flag in ("RDONLY", "NOFOLLOW", "NONBLOCK", "CLOEXEC", "BINARY"))


class Member(NamedTuple):
    """The content of one member, on disk; `sha256` and `crc` are of all of it."""

    path: str
    at: int
    size: int
    sha256: str
    crc: int

    def span(self, at: int, size: int, /) -> bytes:
        """Exactly so many bytes from there. Raises EvidenceError."""
        data = b""
        if 0 <= at <= at + size <= self.size:
            with _opened(self.path) as number:
                data = _at(number, size, self.at + at)
        if len(data) != size:
            raise EvidenceError("pack", f"expected {size} bytes at {at} of a member of {self.size} bytes")
        if size == self.size and sha256(data).hexdigest() != self.sha256:
            raise EvidenceError(STEP, "a member was changed while it was checked")
        return data


@contextmanager
def _opened(path: str) -> Iterator[int]:
    """A plain file, open for reading: no link, no pipe that hangs, no device without an end."""
    number = os.open(path, _PLAIN)
    try:
        if not stat.S_ISREG(os.fstat(number).st_mode):
            raise EvidenceError(STEP, f"expected a plain file, got something else: {path}")
        yield number
    finally:
        os.close(number)


def _at(number: int, size: int, at: int) -> bytes:
    """As many of `size` bytes as there are at that place."""
    os.lseek(number, at, os.SEEK_SET)
    parts = []
    while size > 0 and (part := os.read(number, size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def read(file: str | Path) -> dict[str, Member]:
    """The members of a zip, of a folder, or beside a bundle. Raises EvidenceError, OSError."""
    path = Path(file)
    if path.name == FILES[0]:
        return _folder(path.parent)
    if path.is_dir():
        return _folder(path)
    with _opened(str(path)) as number:
        return _zip(number, str(path))


def _folder(path: Path) -> dict[str, Member]:
    names = FILES + (PACK if os.path.lexists(path / "pack") else ())
    found = {}
    for name in names:
        with _opened(str(path / name)) as number:
            found[name] = _member(number, str(path / name), 0, os.fstat(number).st_size)
    return found


def _zip(number: int, path: str) -> dict[str, Member]:
    size, at, found = os.fstat(number).st_size, 0, dict[str, Member]()
    for name in (*FILES, *PACK):
        head = _at(number, 50 + len(name), at)
        if head[:4] == b"PK\1\2" and len(found) == len(FILES):
            break
        length = int.from_bytes(head[22:26], "little")
        extra = head[30 + len(name) :]
        wide = length == _MOST and extra[:4] == b"\1\0\x10\0"
        length = int.from_bytes(extra[4:12], "little") if wide else length
        at += 30 + len(name) + 20 * wide
        if head[30 : 30 + len(name)] != name.encode() or at + length > size:
            raise EvidenceError(STEP, f"expected the member {name} before byte {at}, got none that is whole")
        found[name] = _member(number, path, at, length)
        at += length
    at = 0
    for member, frame in zip(
        [*found.values(), None], frames([(n, m.size, m.crc) for n, m in found.items()]), strict=True
    ):
        if _at(number, len(frame), at) != frame:
            raise EvidenceError(
                STEP, f"the bytes from {at} on are not those of a canonical zip of these members"
            )
        at += len(frame) + (member.size if member else 0)
    if at != size:
        raise EvidenceError(STEP, f"expected the file to end at {at}, got {size} bytes")
    return found


def _member(number: int, path: str, at: int, size: int) -> Member:
    hashed, crc = sha256(), 0
    for begin in range(at, at + size, _BLOCK):
        block = _at(number, min(_BLOCK, at + size - begin), begin)
        hashed.update(block)
        crc = zlib.crc32(block, crc)
    return Member(path, at, size, hashed.hexdigest(), crc)


def frames(members: Sequence[tuple[str, int, int]]) -> list[bytes]:
    """What stands before each content (name, size, CRC-32), and behind the last: the file but for the contents."""
    result, central, at = [], b"", 0
    for name, size, crc in members:
        wide, far = size >= _MOST, at >= _MOST
        sizes = struct.pack("<HHHHIII", 0, 0, 0, 33, crc, *(min(size, _MOST),) * 2)
        extra = struct.pack("<HHQQ", 1, 16, size, size) if wide else b""
        lengths = struct.pack("<HH", len(name), len(extra))
        result.append(b"PK\3\4" + _version(wide) + sizes + lengths + name.encode() + extra)
        numbers = [size, size] * wide + [at] * far
        extra = struct.pack(f"<HH{len(numbers)}Q", 1, 8 * len(numbers), *numbers) if numbers else b""
        place = struct.pack("<HHHHHII", len(name), len(extra), 0, 0, 0, 0o100644 << 16, min(at, _MOST))
        version = _version(wide or far)
        central += b"PK\1\2" + version[:1] + b"\3" + version + sizes + place + name.encode() + extra
        at += len(result[-1]) + size
    end, count = at + len(central), len(members)
    if at >= _MOST:
        central += b"PK\6\6" + struct.pack("<QHHIIQQQQ", 44, 0x32D, 45, 0, 0, count, count, end - at, at)
        central += b"PK\6\7" + struct.pack("<IQI", 0, end, 1)
    directory = struct.pack("<HHHHIIH", 0, 0, count, count, end - at, min(at, _MOST), 0)
    return [*result, central + b"PK\5\6" + directory]


def _version(large: bool) -> bytes:
    return b"\x2d\0" if large else b"\x14\0"
