"""The spool: sealed records on disk until the collector has them, and the meter's state with each.

    DIR/lock                    held by the one agent that may write (flock)
    DIR/<number>.seg            segments in the order of their making; append-only
    DIR/acked                   last acknowledged number; a hint, may be older than the truth
    DIR/covered                 last number under a signed head of the collector's log; a hint likewise, and
                                only there where the collector has shown such a head
    DIR/inventory/<sha256>      serialised inventories that records name
    DIR/quarantine/             what was cut off or refused, kept for a person; never sent
    DIR/untold/                 remarks that no durable record tells of yet (untold.py)

A segment is a row of frames, `length (4) | crc32 over length and body (4) | body`, little-endian. The
first frame is its head (segment.py): the place in the chain where it starts. A crash can tear the last
frames of the last segment: they were never sent (D1 comes before sending), so they are cut and reported;
the meter goes on from the journal before them and the counters bridge the time.
"""

import bisect
import logging
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from flopmeter.agent.errors import SpoolError, SpoolFullError
from flopmeter.agent.files import (
    make_directory,
    os_error,
    read_named_by_hash,
    sync_directory,
    take_lock,
    write_file,
)
from flopmeter.agent.metering.remark import Remark
from flopmeter.contract.record import ZERO_HASH, record_hash
from flopmeter.contract.usage import NoticeKind

from .mark import Mark
from .quarantine import Quarantine
from .segment import Cut, Entry, Head, Segment, read_segment, segment_path, write_segment
from .untold import Untold

log = logging.getLogger(__name__)

#: A segment is closed behind this size: small enough to forget in steps, large enough to be few.
SEGMENT_BYTES = 4 << 20
#: Default size limit of what was not acknowledged: about two months of 8 GPUs at 60 s windows.
DEFAULT_LIMIT_BYTES = 256 << 20
#: Acknowledged records kept to refill a collector that was restored from an older copy: days.
DEFAULT_KEEP_ACKED_BYTES = 32 << 20
MIN_LIMIT_BYTES = 64 << 10
#: The acked hint is written again after this many more records; losing it costs a few repeats.
_ACKED_EVERY = 16


class Tip(NamedTuple):
    """Where the chain goes on: the next record's number and prev_hash, and the meter's state before it."""

    next_seq: int
    prev_hash: bytes
    journal: bytes


class Spool:
    """One agent's records. Safe to use from several threads. `Spool.open` makes one.

    `append` returns only when the entries are durable (D1). After a failed fsync nobody knows what the
    disk holds: every later call raises SpoolError, and a restart reads what is really there.
    """

    def __init__(self, directory: Path, lock_fd: int, limit_bytes: int, keep_acked_bytes: int) -> None:
        self.directory = directory
        self.limit_bytes = limit_bytes
        self.keep_acked_bytes = keep_acked_bytes
        self.segment_bytes = min(SEGMENT_BYTES, max(4096, limit_bytes // 8))
        self.aside = Quarantine(directory / "quarantine")
        self.untold = Untold(directory / "untold")
        self.cuts: list[Cut] = []  # what the last start found torn or damaged, and cut
        self._lock_fd = lock_fd
        self._mutex = threading.RLock()
        self._segments: list[Segment] = []
        self._tip = Tip(1, ZERO_HASH, b"")
        self._acked = 0
        self._acked_mark = Mark(directory / "acked")  # only a hint: the collector's Welcome says the truth
        self._covered = Mark(directory / "covered")  # None: the collector never showed a head of a log
        self._broken = ""
        self._write_fd = -1
        self._read_fd = -1
        self._read_path: Path | None = None

    @classmethod
    def open(
        cls,
        directory: Path,
        *,
        limit_bytes: int = DEFAULT_LIMIT_BYTES,
        keep_acked_bytes: int = DEFAULT_KEEP_ACKED_BYTES,
    ) -> "Spool":
        """Lock and read the spool in `directory`. Raises SpoolError if another process has it."""
        if limit_bytes < MIN_LIMIT_BYTES:
            raise SpoolError(
                f"spool limit: expected at least {MIN_LIMIT_BYTES} bytes, got {limit_bytes}",
                "raise --spool-limit",
            )
        try:
            for path in (directory, *(directory / name for name in ("inventory", "quarantine", "untold"))):
                make_directory(path)
            lock_fd = take_lock(directory)
        except OSError as e:
            raise SpoolError(
                f"spool {directory}: cannot be opened: {e.strerror or e}",
                "run the agent as the owner of the state directory, and see that its disk has room",
            ) from e
        spool = cls(directory, lock_fd, limit_bytes, keep_acked_bytes)
        try:
            spool._recover()
        except OSError as e:
            spool.close()
            raise SpoolError(
                f"spool {directory}: cannot be read: {e.strerror or e}",
                "check the disk; nothing was changed that was not cut and kept in quarantine",
            ) from e
        except BaseException:
            spool.close()
            raise
        return spool

    # What it holds.

    @property
    def tip(self) -> Tip:
        with self._mutex:
            return self._tip

    @property
    def oldest_seq(self) -> int:
        """Lowest number still held; 0 = none."""
        with self._mutex:
            return next((s.first_seq for s in self._segments if s.count), 0)

    @property
    def newest_seq(self) -> int:
        """Highest number held; 0 = none."""
        with self._mutex:
            return next((s.last_seq for s in reversed(self._segments) if s.count), 0)

    @property
    def acked_seq(self) -> int:
        with self._mutex:
            return self._acked

    @property
    def covered_seq(self) -> int:
        """Up to where a signed head of the collector's log covers the records; all acknowledged where it keeps none."""
        with self._mutex:
            return self._acked if self._covered.value is None else self._covered.value

    @property
    def pending(self) -> int:
        """Records held and not acknowledged."""
        with self._mutex:
            return sum(max(0, s.last_seq - max(s.first_seq - 1, self._acked)) for s in self._segments)

    @property
    def unacked_bytes(self) -> int:
        with self._mutex:
            return sum(s.bytes_after(self._acked) for s in self._segments)

    @property
    def total_bytes(self) -> int:
        with self._mutex:
            return sum(s.size for s in self._segments)

    @property
    def full(self) -> bool:
        """The size limit is reached: appends are refused until something is acknowledged."""
        return self.unacked_bytes >= self.limit_bytes

    def holds(self, seq: int) -> bool:
        with self._mutex:
            return self._find(seq) is not None

    def entry(self, seq: int) -> Entry:
        """The entry of number `seq`. KeyError if it is not held."""
        with self._mutex:
            segment = self._find(seq)
            if segment is None:
                raise KeyError(seq)
            return self._read(segment, seq)

    def entries(self, first: int, last: int | None = None) -> Iterator[Entry]:
        """Every held entry from `first` (to `last`), in order; numbers that are not held are passed over."""
        with self._mutex:
            spans = [(s.first_seq, s.last_seq) for s in self._segments if s.count]
        for low, high in spans:
            for seq in range(max(first, low), min(high, high if last is None else last) + 1):
                yield self.entry(seq)

    def inventory(self, digest: bytes) -> bytes:
        """A kept inventory. SpoolError if it is gone or damaged."""
        return read_named_by_hash(self.directory / "inventory" / digest.hex())

    # Changing it.

    def keep_inventory(self, digest: bytes, data: bytes) -> None:
        """Keep `data` under its SHA-256. Durable on return. SpoolFullError leaves nothing behind."""
        path = self.directory / "inventory" / digest.hex()
        with self._mutex:
            if not path.exists():
                self._check()
                write_file(path, data)

    def append(self, entries: Sequence[Entry]) -> None:
        """Make `entries` durable: one write, one fsync (D1). They must go on from the tip, in order.

        Raises SpoolFullError at the size limit or on a full disk: nothing of them is kept then, and the
        spool goes on. Any other SpoolError means that the state of the disk is not known: stop.
        """
        if not entries:
            return
        with self._mutex:
            self._check()
            tip = self._tip
            for entry in entries:
                if entry.seq != tip.next_seq or entry.prev_hash != tip.prev_hash:
                    raise SpoolError(f"append: expected record {tip.next_seq} in chain, got {entry.seq}")
                tip = Tip(entry.seq + 1, record_hash(entry.record), entry.journal)
            frames = [entry.frame() for entry in entries]
            size = sum(map(len, frames))
            unacked = self.unacked_bytes
            if unacked + size > self.limit_bytes:
                raise SpoolFullError(
                    f"spool {self.directory}: {unacked} bytes wait for the collector, "
                    f"limit {self.limit_bytes}, {size} more asked",
                    "bring the collector back, or raise --spool-limit",
                )
            self._forget(room_for=size)
            try:
                segment = self._active(entries[0].seq)
                self._write(segment, b"".join(frames))
            except OSError as e:
                raise os_error(f"spool {self.directory}: cannot append", e) from e
            # D1: durable from here. A crash before it loses frames that nobody was sent; the journal of
            # the entry before is then the newest, and the meter meters the time again from the counters.
            for frame in frames:
                segment.add(len(frame))
            self._tip = tip

    def ack(self, seq: int) -> None:
        """The collector holds everything up to `seq`: keep a little to refill it, forget the rest."""
        with self._mutex:
            seq = min(seq, self.newest_seq)
            if seq > self._acked:
                self._acked = seq
                self._acked_mark.set(seq, every=_ACKED_EVERY)
                self._forget()

    def cover(self, seq: int) -> None:
        """A signed head of the collector's log covers everything up to `seq` (0: one was shown, of what is not said).

        From the first one on, what no head covers is kept although it was acknowledged, as far as the limit allows:
        until then a collector that is set back, and its log with it, could deny that it ever had it.
        """
        with self._mutex:
            seq = min(seq, self.newest_seq)
            if self._covered.value is None or seq > self._covered.value:
                self._covered.set(seq, every=_ACKED_EVERY)
                self._forget()

    def regress(self, seq: int) -> None:
        """The collector holds less than it did (restored from an older copy): `seq` is its last."""
        with self._mutex:
            if seq < self._acked:
                self._acked = seq
                self._acked_mark.set(seq)
                self._uncover(seq)

    def rebase(self, voids_from: int, next_seq: int, prev_hash: bytes, entries: Iterable[Entry]) -> None:
        """Replace every held entry from number `voids_from` on by `entries`, which start at `next_seq`.

        Crash-safe: the new segment is complete and durable before it gets its name, and by getting it
        makes the others void. Before the rename the old entries stand, behind it the new ones.
        """
        with self._mutex:
            self._check()
            entries = iter(entries)
            first = next(entries, None)
            base = self._journal_before(voids_from) if first else self._tip.journal
            number = self._segments[-1].number + 1 if self._segments else 1
            head = Head(next_seq, prev_hash, base, voids_from)
            segment, last = self._new_segment(number, head, first, entries)
            # D1: the new chain is durable from here.
            self._close_files()
            try:
                self._void(voids_from)
            except OSError as e:
                self._broken = f"records that were replaced could not be cut ({e.strerror})"
                self._check()
            self._segments.append(segment)
            if last is None:
                self._tip = Tip(next_seq, prev_hash, base)
            else:
                self._tip = Tip(last.seq + 1, record_hash(last.record), last.journal)
            self._acked = next_seq - 1
            self._acked_mark.set(self._acked)
            self._uncover(voids_from - 1)

    def quarantine(self, name: str, data: bytes, reason: str) -> Path:
        """Keep `data` aside for a person, with a text that says why. Durable on return."""
        with self._mutex:
            return self.aside.keep(name, data, reason)

    def close(self) -> None:
        """Write the acked hint, let go of files and lock. A second close does nothing."""
        with self._mutex:
            if self._lock_fd < 0:
                return
            if not self._broken:
                self._acked_mark.write()
                self._covered.write()
            self._close_files()
            os.close(self._lock_fd)
            self._lock_fd = -1
            self._broken = "closed"

    # Inside.

    def _check(self) -> None:
        if self._broken:
            raise SpoolError(
                f"spool {self.directory}: {self._broken}",
                "start the agent again: it reads what the disk holds",
            )

    def _find(self, seq: int) -> Segment | None:
        i = bisect.bisect_right(self._segments, seq, key=lambda s: s.first_seq) - 1
        while i >= 0 and not self._segments[i].count:  # an empty one may share its first number
            i -= 1
        if i < 0 or not self._segments[i].first_seq <= seq <= self._segments[i].last_seq:
            return None
        return self._segments[i]

    def _read(self, segment: Segment, seq: int) -> Entry:
        try:
            if self._read_path != segment.path:
                if self._read_fd >= 0:
                    os.close(self._read_fd)
                self._read_fd, self._read_path = -1, None
                self._read_fd = os.open(segment.path, os.O_RDONLY)
                self._read_path = segment.path
            return segment.read(self._read_fd, seq)
        except (OSError, ValueError) as e:
            self._broken = f"record {seq} in {segment.path.name} was durable and is now damaged ({e})"
            self._check()
            raise AssertionError from e

    def _active(self, next_seq: int) -> Segment:
        """The segment to append to; a new one where the last is large or the numbers do not go on."""
        last = self._segments[-1] if self._segments else None
        if last is not None and last.size < self.segment_bytes and last.first_seq + last.count == next_seq:
            return last
        number = last.number + 1 if last else 1
        head = Head(next_seq, self._tip.prev_hash, self._tip.journal)
        segment, _ = self._new_segment(number, head, None, ())
        if self._write_fd >= 0:
            os.close(self._write_fd)
            self._write_fd = -1
        self._segments.append(segment)
        return segment

    def _new_segment(
        self, number: int, head: Head, first: Entry | None, rest: Iterable[Entry]
    ) -> tuple[Segment, Entry | None]:
        try:
            return write_segment(self.directory, number, head, first, rest)
        except OSError as e:
            self._broken = f"segment {number} was written, but not its name ({e.strerror})"
            self._check()
            raise AssertionError from e

    def _write(self, segment: Segment, data: bytes) -> None:
        if self._write_fd < 0:
            self._write_fd = os.open(segment.path, os.O_WRONLY)
        view, at = memoryview(data), segment.size
        try:
            while view:
                written = os.pwrite(self._write_fd, view, at)
                view, at = view[written:], at + written
        except OSError as e:
            try:
                os.ftruncate(self._write_fd, segment.size)
            except OSError as undo:
                self._broken = f"write failed ({e.strerror}) and could not be undone ({undo.strerror})"
                self._check()
            raise os_error(f"spool {self.directory}: cannot write", e) from e
        try:
            os.fdatasync(self._write_fd)
        except OSError as e:
            self._broken = f"fsync failed ({e.strerror}): what the disk holds is not known"
            self._check()

    def _forget(self, room_for: int = 0) -> None:
        """Remove the oldest acknowledged segments beyond what is kept; never the newest entry.

        What no head of the collector's log covers goes only where its room is needed for what nobody has yet.
        """
        newest = self.newest_seq
        total, unacked = self.total_bytes, self.unacked_bytes
        while len(self._segments) > 1:
            oldest = self._segments[0]
            if oldest.count and (oldest.last_seq > self._acked or oldest.last_seq >= newest):
                return
            few = (total - unacked) - oldest.size < self.keep_acked_bytes
            if (few or oldest.last_seq > self.covered_seq) and total + room_for <= self.limit_bytes:
                return
            if (self._acked_mark.written or 0) < oldest.last_seq:
                self._acked_mark.write()
            if self._read_path == oldest.path:
                os.close(self._read_fd)
                self._read_fd, self._read_path = -1, None
            try:
                oldest.path.unlink(missing_ok=True)
            except OSError as e:  # it holds nothing that is needed: next time, or at the next start
                log.warning("spool: cannot remove %s: %s", oldest.path, e.strerror or e)
                return
            total -= oldest.size
            del self._segments[0]

    def _journal_before(self, seq: int) -> bytes:
        """The meter's state before record `seq`, as well as it is known; b"" = none."""
        if self.holds(seq - 1):
            return self.entry(seq - 1).journal
        return next((s.head.journal for s in self._segments if s.first_seq == seq), b"")

    def _void(self, voids_from: int) -> None:
        """Cut entries from `voids_from` on out of all segments. Done again at every start until it holds."""
        for segment in self._segments:
            segment.cut_from(voids_from)
        gone = [s for s in self._segments if not s.count]
        self._segments = [s for s in self._segments if s.count]
        for segment in gone:
            segment.path.unlink(missing_ok=True)
        sync_directory(self.directory)

    def _uncover(self, seq: int) -> None:
        if self._covered.value is not None and self._covered.value > seq:
            self._covered.set(seq)

    def _close_files(self) -> None:
        for fd in (self._write_fd, self._read_fd):
            if fd >= 0:
                os.close(fd)
        self._write_fd = self._read_fd = -1
        self._read_path = None

    def _recover(self) -> None:
        """Read every segment, cut what is torn, finish what a crash interrupted."""
        for tmp in self.directory.rglob("*.tmp"):
            tmp.unlink()  # never had a name, so nothing stands on it
        used: set[str] = set()
        numbers = sorted(int(p.stem) for p in self.directory.glob("*.seg") if p.stem.isdigit())
        for number in numbers:
            path = segment_path(self.directory, number)
            segment, cut, digests = read_segment(path)
            used |= digests
            if cut is not None:
                name = f"cut-{path.stem}-{cut.offset}"
                self.quarantine(name, cut.data, cut.reason)
                self.untold.keep(Remark(NoticeKind.SPOOL_TORN, cut.reason, name))
                os.truncate(path, cut.offset)
                self.cuts.append(cut)
                log.warning("spool: %s", cut.reason)
            if segment is None:
                path.unlink()
                continue
            if segment.head.voids_from:
                self._void(segment.head.voids_from)
            elif self._segments and segment.first_seq <= self._segments[-1].last_seq:
                raise SpoolError(
                    f"spool {self.directory}: {path.name} starts at {segment.first_seq}, behind "
                    f"{self._segments[-1].last_seq}: segments of two spools lie in one directory",
                    "move the foreign segments away",
                )
            self._segments.append(segment)
        if self._segments:
            last = self._segments[-1]
            if last.count:
                newest = self._read(last, last.last_seq)
                self._tip = Tip(newest.seq + 1, record_hash(newest.record), newest.journal)
            else:
                self._tip = Tip(last.first_seq, last.head.prev_hash, last.head.journal)
        # What stands before the oldest segment was acknowledged before it was forgotten.
        forgotten = self._segments[0].first_seq - 1 if self._segments else 0
        self._acked = max(forgotten, min(self._acked_mark.value or 0, self._tip.next_seq - 1))
        self._acked_mark.value = self._acked
        self._uncover(self._acked)
        for path in (self.directory / "inventory").iterdir():
            if path.name not in used:
                path.unlink()
