"""The agent's chain of records, between the pipeline that seals and the uplink that ships.

Both threads change it under one lock: sealing appends at its tip, the uplink learns from the collector
what is in the books and moves what is not behind the collector's head.
"""

import itertools
import logging
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from flopmeter.agent.errors import SpoolError
from flopmeter.agent.keys import RecordKey
from flopmeter.agent.metering.remark import Remark
from flopmeter.contract.record import HEADER_BYTES, SIGNATURE_BYTES, ZERO_HASH, record_hash
from flopmeter.contract.usage import Batch, Inventory, NoticeKind

from .encode import Outline, decode_devices, decode_outline, encode_batch, encode_inventory
from .journal import Journal, JournalError, load_journal
from .seal import behind, reseal, seal_record
from .segment import Entry
from .spool import Spool, Tip
from .substitute import is_substitute, lost_stretch, substitute

log = logging.getLogger(__name__)


class SealedWindow(Protocol):
    """What the meter closes (meter.Sealed)."""

    @property
    def batch(self) -> Batch: ...
    @property
    def inventory(self) -> Inventory: ...
    @property
    def journal(self) -> bytes: ...
    @property
    def boot_id(self) -> bytes: ...
    @property
    def told(self) -> tuple[str, ...]: ...


@dataclass(frozen=True, slots=True)
class HeadFacts:
    """What the collector's Welcome says of this agent's chain in its books."""

    resume_seq: int  # the next number that it takes
    head_hash: bytes  # of its last record; b"" = it has none
    head_boot_id: bytes
    head_window_end_boot_ns: int


class Skip(NamedTuple):
    """Up to where the books hold usage of a boot. `reanchored`: by records that are not ours as we know them."""

    boot_id: bytes
    t_boot_ns: int
    reanchored: bool


class _End(NamedTuple):
    """Up to where a boot's time is told of."""

    boot_id: bytes
    t_boot_ns: int


class Chain:
    """Append, ship, acknowledge, move. Every method may be called from any thread."""

    def __init__(self, spool: Spool, key: RecordKey) -> None:
        self.spool = spool
        self.key = key
        self.on_append: Callable[[], None] = lambda: None
        self.refused_records = 0
        self._lock = threading.RLock()
        self._forked = False  # the collector refused our chain as such: do not trust a matching number
        self._overlapped = 0  # the last record that was refused for telling of time in the books
        self._telling: dict[str, int] = {}  # remarks, and a record not before the one that tells of it
        self._remarks = self._untold()
        self._skip = self._skip_behind_another_key()
        self._kept_digest = b""
        self._head: HeadFacts | None = None  # as the last Welcome said
        self._holes_stay = False  # the collector refused the gap that stands for one

    # The pipeline's side.

    @property
    def journal(self) -> bytes | None:
        """The meter's state behind the newest record; None = start from nothing."""
        packed = self.spool.tip.journal
        if not packed:
            return None
        try:
            return zlib.decompress(packed)
        except zlib.error as e:  # under a good checksum: written by something else
            log.warning("journal of record %d does not unpack: %s", self.spool.tip.next_seq - 1, e)
            return packed  # the meter says that it is none, and starts anew

    def append(self, windows: Sequence[SealedWindow]) -> None:
        """Seal and make durable (D1), one write for all.

        Raises SpoolFullError (nothing kept, go on later), RecordTooLargeError, or SpoolError (stop).
        """
        payloads = [encode_batch(window.batch) for window in windows]
        with self._lock:
            tip = self.spool.tip
            end = self._end()
            entries: list[Entry] = []
            for window, payload in zip(windows, payloads, strict=True):
                digest = window.batch.inventory_digest
                if digest != self._kept_digest:
                    self.spool.keep_inventory(digest, encode_inventory(window.inventory))
                    self._kept_digest = digest
                entry = Entry(
                    record=seal_record(self.key, window.boot_id, tip, payload),
                    journal=zlib.compress(window.journal, 1),  # larger than its record, and much alike
                    inventory_digest=digest,
                    window_start_boot_ns=window.batch.window_start_boot_ns,
                    window_end_boot_ns=window.batch.window_end_boot_ns,
                )
                gap = self._hole(entry, end, tip)
                if gap is not None:
                    entries.append(gap)
                    entry = reseal(self.key, entry, behind(gap))
                entries.append(entry)
                tip = behind(entry)
                end = _End(entry.boot_id, entry.window_end_boot_ns)
            self.spool.append(entries)
        self.on_append()

    def told(self, names: Sequence[str]) -> list[str]:
        """Durable records tell of these remarks. Returns those that the collector has, which are forgotten.

        Until then a torn spool may take the record with it; the journal before it then does not say told.
        """
        with self._lock:
            spool = self.spool
            for name in names:
                self._telling.setdefault(name, spool.newest_seq)
            gone = [name for name, seq in self._telling.items() if seq <= spool.acked_seq]
            if gone:
                spool.untold.told(gone)
                for name in gone:
                    del self._telling[name]
            return gone

    def _skip_behind_another_key(self) -> Skip | None:
        """The meter's state is there and no record is: the record key was changed (rekey.py).

        To the collector the GPUs pass to another agent. An interval that began before the last window's end would
        tell of time that is booked for the one before us, so that such a one is a gap from there on.
        """
        if self.spool.tip.next_seq != 1 or not self.spool.tip.journal:
            return None
        try:
            journal = load_journal(self.journal or b"")
        except JournalError:
            return None
        return Skip(journal.boot_id, journal.batch_start_ns, True)

    def take_remarks(self) -> tuple[list[Remark], Skip | None]:
        """Remarks for the next batch, and up to where the books already hold usage."""
        if not self._remarks and self._skip is None:
            return [], None
        with self._lock:
            remarks, self._remarks = self._remarks, []
            skip, self._skip = self._skip, None
            return remarks, skip

    # The uplink's side.

    def records_from(self, seq: int, max_count: int, max_bytes: int) -> list[Entry]:
        """Entries `seq`, `seq`+1, … that are held, within both limits; at least one if it is held."""
        found: list[Entry] = []
        size = 0
        with self._lock:
            while len(found) < max_count and self.spool.holds(seq):
                entry = self.spool.entry(seq)
                size += len(entry.record) + 8
                if found and size > max_bytes:
                    break
                found.append(entry)
                seq += 1
        return found

    def resume(self, head: HeadFacts) -> int:
        """The number to send from, after the collector said where its books end.

        Where its head is a record of ours, simply what follows; else what is in nobody's books is
        sealed again behind its head (re-anchoring).
        """
        with self._lock:
            spool, seq = self.spool, head.resume_seq
            head_hash = head.head_hash or ZERO_HASH
            tip = spool.tip
            fits = seq == tip.next_seq and head_hash == tip.prev_hash
            if not fits and spool.holds(seq):
                # At the oldest that we hold its predecessor may be any: the collector has noted the loss.
                oldest = spool.oldest_seq
                fits = spool.entry(seq).prev_hash == head_hash or (seq == oldest > 1 and not self._forked)
            ours = fits and not self._told_already(head)
            if ours:
                if seq <= spool.acked_seq:
                    log.warning("collector holds records up to %d only: refilling it from the spool", seq - 1)
                    spool.regress(seq - 1)
                spool.ack(seq - 1)
            else:
                self._reanchor(head, head_hash)
            self._head = head
            self._fill_hole(head)
            if head.head_boot_id:
                # Nothing to skip for a meter that is behind the books' end, as it is but when its state was
                # lost or is older than the books, or when an agent before us did not live to skip.
                lost = not ours or (self._skip is not None and self._skip.reanchored)
                self._skip = Skip(head.head_boot_id, head.head_window_end_boot_ns, lost)
            self._forked = False
            return seq

    def _told_already(self, head: HeadFacts) -> bool:
        """Whether what follows the head tells of time that the books hold: sealed by a meter that had lost its state."""
        if not self.spool.holds(head.resume_seq):
            return False
        entry = self.spool.entry(head.resume_seq)
        return (
            entry.boot_id == head.head_boot_id and entry.window_start_boot_ns < head.head_window_end_boot_ns
        )

    def ack(self, seq: int) -> None:
        self.spool.ack(seq)

    def forked(self) -> None:
        """The collector has another record in the place of one of ours: at the next Welcome, re-anchor."""
        self._forked = True

    def overlaps(self, seq: int) -> bool:
        """Record `seq` tells of time that is in the books: True if the next Welcome can settle it.

        It says up to where they reach, and all that lies before is set aside at once; False if it was
        asked already, and this one record must be refused.
        """
        asked, self._overlapped = self._overlapped, seq
        return asked != seq

    def refuse(self, seq: int, reason: str, *, in_books: bool = False) -> None:
        """The collector will never take record `seq`: set it aside, seal a gap in its place and the rest again.

        `in_books`: its time is in the books already, so that nothing stands in its place.
        """
        with self._lock:
            if not self.spool.holds(seq):
                return
            entry = self.spool.entry(seq)
            text = (
                f"record {seq} (window {entry.window_start_boot_ns}-{entry.window_end_boot_ns} ns) "
                f"was refused: {reason}"
            )
            name = self._set_aside(entry, reason)
            start = Tip(seq, entry.prev_hash, b"")
            instead = None if in_books else self._instead(entry, text, start)
            if instead is None:
                if in_books:
                    text += "; its time is in the books already"
                self._remark(Remark(NoticeKind.RECORD_REFUSED, text, name))
            rest = self._resealed(self.spool.entries(seq + 1), behind(instead) if instead else start)
            again = itertools.chain([instead] if instead else [], rest)
            self.spool.rebase(seq, seq, entry.prev_hash, again)
            self.refused_records += 1
            self._holes_stay = self._holes_stay or (instead is None and not entry.journal)
            log.error("%s; kept in %s", text, self.spool.directory / "quarantine")
        self.on_append()

    def _instead(self, entry: Entry, text: str, tip: Tip, start_boot_ns: int = 0) -> Entry | None:
        """What stands in the place of `entry`, sealed at `tip`; None where that was refused, too."""
        outline = _outline(entry)
        if outline is None or is_substitute(outline):
            return None
        try:
            inventory = self.spool.inventory(entry.inventory_digest)
        except SpoolError as e:
            log.warning("record %d: the time that is lost with it cannot be priced: %s", entry.seq, e)
            return None
        ends = {index: end for index, (end, _) in self._readings(entry).items()}
        payload = substitute(outline, inventory, text, start_boot_ns=start_boot_ns, ends=ends)
        return Entry(
            record=seal_record(self.key, entry.boot_id, tip, payload),
            journal=entry.journal,
            inventory_digest=entry.inventory_digest,
            window_start_boot_ns=max(entry.window_start_boot_ns, start_boot_ns),
            window_end_boot_ns=entry.window_end_boot_ns,
        )

    def _end(self) -> _End | None:
        """Up to where the records before the tip tell of their boot; where none is held, the books."""
        spool, head = self.spool, self._head
        if spool.holds(spool.tip.next_seq - 1):
            newest = spool.entry(spool.tip.next_seq - 1)
            return _End(newest.boot_id, newest.window_end_boot_ns)
        if head is not None and head.resume_seq == spool.tip.next_seq:
            return _End(head.head_boot_id, head.head_window_end_boot_ns)
        return None

    def _hole(self, entry: Entry, end: _End | None, tip: Tip) -> Entry | None:
        """A gap from `end` to `entry`, whose meter began without the state that led to `end`; None if there is none."""
        if end is None or entry.boot_id != end.boot_id or not 0 < end.t_boot_ns < entry.window_start_boot_ns:
            return None
        outline, journal = _outline(entry), _journal(entry)
        if outline is None or journal is None or journal.began_ns != entry.window_start_boot_ns:
            return None
        if self._holes_stay:
            return None
        came = {name for name, track in journal.tracks.items() if track["times"][0] > journal.began_ns}
        try:
            inventory = self.spool.inventory(entry.inventory_digest)
        except SpoolError as e:
            log.warning("the time before record %d cannot be priced: %s", entry.seq, e)
            return None
        return Entry(
            record=seal_record(
                self.key, entry.boot_id, tip, lost_stretch(outline, inventory, end.t_boot_ns, came)
            ),
            journal=b"",  # from here a meter begins without state, as this one did
            inventory_digest=entry.inventory_digest,
            window_start_boot_ns=end.t_boot_ns,
            window_end_boot_ns=entry.window_start_boot_ns,
        )

    def _fill_hole(self, head: HeadFacts) -> None:
        """Records that were sealed before the books' end was known, by an agent that had lost its state."""
        spool, seq = self.spool, head.resume_seq
        if not spool.holds(seq):
            return
        end = _End(head.head_boot_id, head.head_window_end_boot_ns)
        prev_hash = spool.entry(seq).prev_hash
        gap = self._hole(spool.entry(seq), end, Tip(seq, prev_hash, b""))
        if gap is not None:
            rest = self._resealed(spool.entries(seq), behind(gap))
            spool.rebase(seq, seq, prev_hash, itertools.chain([gap], rest))

    def _reanchor(self, head: HeadFacts, head_hash: bytes) -> None:
        spool = self.spool
        acked, newest = spool.acked_seq, spool.newest_seq
        head_end = head.head_window_end_boot_ns
        aside = 0
        moved: list[tuple[int, bool]] = []  # number, and whether a part of its time is in the books
        for entry in spool.entries(1):
            same_boot = entry.boot_id == head.head_boot_id
            if entry.seq <= acked and not same_boot:
                continue  # it was in the books once, and nothing shows that it is not now
            if not same_boot or (
                entry.window_start_boot_ns >= head_end and not self._reaches(entry, head_end)
            ):
                moved.append((entry.seq, False))
            elif entry.seq > acked:
                books = f"its time is in the books already, up to record {head.resume_seq - 1}"
                if entry.window_end_boot_ns > head_end:
                    books = f"its time up to {head_end} ns is in the books already; the rest of it is a gap"
                    moved.append((entry.seq, True))
                self._set_aside(entry, books)
                aside += 1
        start = Tip(head.resume_seq, head_hash, b"")
        if acked == aside == 0 and spool.oldest_seq <= 1 and not self._forked:
            kind, name = NoticeKind.SPOOL_LOST, "lost"
            text = "the spool was empty or begun anew: what was in it and not acknowledged is a gap; "
        else:
            kind, name, text = NoticeKind.REANCHORED, "reanchored", ""
        text += (
            f"the collector's last record is {head.resume_seq - 1} ({head_hash.hex()[:16]}), not in our chain, "
            f"which ended at {newest}: {sum(not cut for _, cut in moved)} records sealed again behind it, "
            f"{aside} set aside, as their time is in the books already"
        )
        self._remark(Remark(kind, text, f"{name}-{head.resume_seq}-{head_hash.hex()[:16]}"))
        spool.rebase(1, head.resume_seq, head_hash, self._moved(moved, start, head_end))
        log.warning("re-anchored: %s", text)

    def _moved(self, moved: list[tuple[int, bool]], tip: Tip, head_end: int) -> Iterator[Entry]:
        for seq, cut in moved:
            entry = self.spool.entry(seq)
            if cut:
                text = f"record {seq}: its time up to {head_end} ns was in the books already"
                again = self._instead(entry, text, tip, head_end)
            else:
                again = reseal(self.key, entry, tip)
            if again is not None:
                tip = behind(again)
                yield again

    def _resealed(self, entries: Iterator[Entry], tip: Tip) -> Iterator[Entry]:
        for entry in entries:
            again = reseal(self.key, entry, tip)
            tip = behind(again)
            yield again

    def _reaches(self, entry: Entry, head_end: int) -> bool:
        """Whether the record tells of time before `head_end`, though its window starts behind it.

        An interval belongs to the window in which it ends, so that one over a restart can start long before;
        one from the last reading before the window's edge, as each window has, starts hardly before.
        """
        outline = _outline(entry)
        if outline is None:
            return False
        readings = self._readings(entry)
        for index, time_ns in outline.time_ns.items():
            end, usual_ns = readings.get(index, (outline.window_end_boot_ns, 0))
            if end - time_ns + usual_ns * 3 // 2 < head_end:  # half as much again is jitter
                return True
        return False

    def _readings(self, entry: Entry) -> dict[int, tuple[int, int]]:
        """By entity_index: the last reading of the record, and how far apart they are; as its journal tells."""
        try:
            journal = _journal(entry)
            tracks = journal.tracks if journal is not None else {}
            devices = decode_devices(self.spool.inventory(entry.inventory_digest))
            times = {i: tracks[d.entity]["times"] for i, d in enumerate(devices) if d.entity in tracks}
            return {i: (t[2], min(filter(None, t[-2:]), default=0)) for i, t in times.items() if t[2] >= 0}
        except (SpoolError, LookupError, TypeError):
            return {}

    def _set_aside(self, entry: Entry, reason: str) -> str:
        name = f"record-{entry.seq}-{record_hash(entry.record).hex()[:16]}"
        self.spool.quarantine(name, entry.record, reason)
        return name

    def tell_contradiction(self, name: str, detail: str) -> None:
        """The collector's log is not what it was: a notice of the next batch. Durable on return."""
        with self._lock:
            self._remark(Remark(NoticeKind.LOG_CONTRADICTION, detail, name))

    def _remark(self, remark: Remark) -> None:
        """For the next batch, or for that after a restart."""
        self.spool.untold.keep(remark)
        self._remarks.append(remark)

    def _untold(self) -> list[Remark]:
        """What no record tells of yet, although an agent before us learned it."""
        kept = self.spool.untold.all()
        if not kept:
            return []
        try:
            told = set(load_journal(self.journal or b"").told)
        except JournalError:
            told = set()
        return [r for r in kept if r.name not in told]


def _journal(entry: Entry) -> Journal | None:
    """The meter's state behind a record; None if there is none that can be read."""
    try:
        return load_journal(zlib.decompress(entry.journal))
    except (zlib.error, JournalError):
        return None


def _outline(entry: Entry) -> Outline | None:
    return decode_outline(entry.record[HEADER_BYTES:-SIGNATURE_BYTES])
