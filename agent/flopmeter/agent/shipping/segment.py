"""One file of the spool: a head frame, then entries. Framing, reading back, writing whole."""

import contextlib
import mmap
import os
import struct
import zlib
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from flopmeter.agent.errors import SpoolError
from flopmeter.agent.files import os_error, sync_directory
from flopmeter.contract.limits import MAX_RECORD_BYTES
from flopmeter.contract.record import HEADER_BYTES, MIN_RECORD_BYTES

_MAGIC = b"FMSPOOL1"
_FRAME = struct.Struct("<II")  # length of the body, crc32 over length and body
_HEAD = struct.Struct("<8sQ32sQ")  # magic, first number, prev_hash, voids_from; then the journal
_ENTRY = struct.Struct("<QQ32sI")  # window start, window end, inventory digest, record length
#: A packed journal is the counters of at most MAX_ENTITIES entities: some 300 KiB. Larger is damage.
MAX_JOURNAL_BYTES = 4 << 20
_MAX_BODY = _ENTRY.size + MAX_RECORD_BYTES + MAX_JOURNAL_BYTES
_WRITE_BYTES = 1 << 20


def _frame(body: bytes) -> bytes:
    length = len(body).to_bytes(4, "little")
    return length + zlib.crc32(body, zlib.crc32(length)).to_bytes(4, "little") + body


@dataclass(frozen=True, slots=True)
class Entry:
    """One record with what must become durable in the same write."""

    record: bytes
    journal: bytes  # the meter's state after this record's window, packed
    inventory_digest: bytes  # 32 bytes
    window_start_boot_ns: int
    window_end_boot_ns: int

    @property
    def boot_id(self) -> bytes:
        return self.record[16:32]

    @property
    def seq(self) -> int:
        return int.from_bytes(self.record[32:40], "big")

    @property
    def prev_hash(self) -> bytes:
        return self.record[40:HEADER_BYTES]

    def frame(self) -> bytes:
        if len(self.journal) > MAX_JOURNAL_BYTES:
            raise SpoolError(f"journal: expected at most {MAX_JOURNAL_BYTES} bytes, got {len(self.journal)}")
        fixed = _ENTRY.pack(
            self.window_start_boot_ns, self.window_end_boot_ns, self.inventory_digest, len(self.record)
        )
        return _frame(fixed + self.record + self.journal)


def _entry(body: bytes) -> Entry:
    start, end, digest, size = _ENTRY.unpack_from(body)
    split = _ENTRY.size + size
    record = body[_ENTRY.size : split]
    if not MIN_RECORD_BYTES <= len(record) == size:
        raise ValueError("record does not fit its frame")
    return Entry(record, body[split:], digest, start, end)


@dataclass(frozen=True, slots=True)
class Head:
    """Where in the chain a segment starts, and the meter's state there."""

    first_seq: int
    prev_hash: bytes
    journal: bytes
    voids_from: int = 0  # entries of earlier segments from this number on are void; 0 = none are

    def frame(self) -> bytes:
        return _frame(_HEAD.pack(_MAGIC, self.first_seq, self.prev_hash, self.voids_from) + self.journal)


@dataclass(frozen=True, slots=True)
class Cut:
    """Bytes that a start found torn or damaged and cut off."""

    path: Path
    offset: int
    data: bytes
    reason: str


@dataclass(slots=True)
class Segment:
    """A segment file as it is known in memory: 8 bytes an entry."""

    path: Path
    number: int
    head: Head
    size: int  # bytes of valid frames = where the next frame goes
    _ends: "array[int]" = field(default_factory=lambda: array("Q"))  # offset behind each entry
    _base: int = 0  # offset behind the head

    @property
    def count(self) -> int:
        return len(self._ends)

    @property
    def first_seq(self) -> int:
        return self.head.first_seq

    @property
    def last_seq(self) -> int:
        """Number of its last entry; first_seq - 1 where it has none."""
        return self.head.first_seq + len(self._ends) - 1

    def add(self, frame_bytes: int) -> None:
        self.size += frame_bytes
        self._ends.append(self.size)

    def bytes_after(self, seq: int) -> int:
        """Bytes of entries with numbers above `seq`."""
        n = seq - self.first_seq + 1
        if n <= 0:
            return self.size - self._base
        return self.size - self._ends[n - 1] if n < len(self._ends) else 0

    def read(self, fd: int, seq: int) -> Entry:
        """Entry `seq` by its place. ValueError if the bytes are not what was written."""
        i = seq - self.first_seq
        start = self._ends[i - 1] if i else self._base
        data = os.pread(fd, self._ends[i] - start, start)
        body = _body(data, 0)
        if body is None:
            raise ValueError("checksum")
        entry = _entry(body)
        if entry.seq != seq:
            raise ValueError(f"number {entry.seq} in the place of {seq}")
        return entry

    def cut_from(self, seq: int) -> None:
        """Cut entries from number `seq` on, in the file too."""
        n = max(0, seq - self.first_seq)
        if n < len(self._ends):
            self.size = self._ends[n - 1] if n else self._base
            del self._ends[n:]
            os.truncate(self.path, self.size)


def _body(data: bytes | mmap.mmap, at: int) -> bytes | None:
    """The body of the frame at `at`; None if there is no whole, undamaged frame."""
    if len(data) - at < _FRAME.size:
        return None
    length, crc = _FRAME.unpack_from(data, at)
    start = at + _FRAME.size
    if not 0 < length <= _MAX_BODY or length > len(data) - start:
        return None
    body = data[start : start + length]
    return body if zlib.crc32(body, zlib.crc32(data[at : at + 4])) == crc else None


def segment_path(directory: Path, number: int) -> Path:
    return directory / f"{number:010d}.seg"


def read_segment(path: Path) -> tuple[Segment | None, Cut | None, set[str]]:
    """Read a segment back: what is whole, what must be cut, and the inventories it names (hex).

    None for the segment if even its head is damaged: then all of it is cut.
    """
    if not path.stat().st_size:
        return None, Cut(path, 0, b"", f"{path.name}: empty, removed"), set()
    # Mapped, not read: a segment made by moving the whole spool is as large as the spool.
    with path.open("rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return _read_frames(path, data)


def _read_frames(path: Path, data: mmap.mmap) -> tuple[Segment | None, Cut | None, set[str]]:
    head_body = _body(data, 0)
    if head_body is None or len(head_body) < _HEAD.size or not head_body.startswith(_MAGIC):
        return None, Cut(path, 0, data[:], f"{path.name}: head damaged, {len(data)} bytes set aside"), set()
    _, first_seq, prev_hash, voids_from = _HEAD.unpack_from(head_body)
    at = _FRAME.size + len(head_body)
    segment = Segment(
        path, int(path.stem), Head(first_seq, prev_hash, head_body[_HEAD.size :], voids_from), at, _base=at
    )
    digests: set[str] = set()
    reason = ""
    while at < len(data) and not reason:
        body = _body(data, at)
        if body is None:
            reason = "torn or damaged"
            break
        try:
            entry = _entry(body)
        except (ValueError, struct.error) as e:
            reason = f"not an entry ({e})"
            break
        if entry.seq != segment.first_seq + segment.count:
            reason = f"record {entry.seq} where {segment.first_seq + segment.count} was expected"
            break
        digests.add(entry.inventory_digest.hex())
        segment.add(_FRAME.size + len(body))
        at = segment.size
    if not reason:
        return segment, None, digests
    text = (
        f"{path.name}: {reason} at byte {at}, behind record {segment.last_seq}: {len(data) - at} bytes cut "
        "and kept in quarantine"
    )
    return segment, Cut(path, at, data[at:], text), digests


def write_segment(
    directory: Path, number: int, head: Head, first: Entry | None, rest: Iterable[Entry]
) -> tuple[Segment, Entry | None]:
    """Write a whole segment: it has its name only when all of it is durable. Returns it and its last entry.

    Raises SpoolFullError for a full disk and SpoolError for another failure to write: nothing is left behind
    then. Raises OSError where it cannot be told whether the name is there.
    """
    path = segment_path(directory, number)
    tmp = path.with_suffix(".tmp")
    frame = head.frame()
    segment = Segment(path, number, head, len(frame), _base=len(frame))
    last: Entry | None = None
    try:
        with tmp.open("wb", buffering=_WRITE_BYTES) as f:
            f.write(frame)
            for entry in chain(() if first is None else (first,), rest):
                frame = entry.frame()
                f.write(frame)
                segment.add(len(frame))
                last = entry
            f.flush()
            os.fsync(f.fileno())
    except OSError as e:
        with contextlib.suppress(OSError):  # the next start removes it
            tmp.unlink(missing_ok=True)
        raise os_error(f"spool {directory}: cannot write {path.name}", e) from e
    tmp.rename(path)
    sync_directory(directory)
    return segment, last
