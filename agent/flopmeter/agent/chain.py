"""The agent's chain of records, between the pipeline that seals and the uplink that ships.

Both threads change it under one lock: sealing appends at its tip, the uplink learns from the collector
what is in the books and moves what is not behind the collector's head.
"""

import logging
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from flopmeter.contract.record import ZERO_HASH, record_hash
from flopmeter.contract.usage import Batch, Inventory, NoticeKind

from .encode import encode_batch, encode_inventory
from .keys import RecordKey
from .seal import behind, reseal, seal_record
from .segment import Entry
from .spool import Spool, Tip

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


@dataclass(frozen=True, slots=True)
class HeadFacts:
    """What the collector's Welcome says of this agent's chain in its books."""

    resume_seq: int  # the next number that it takes
    head_hash: bytes  # of its last record; b"" = it has none
    head_boot_id: bytes
    head_window_end_boot_ns: int


@dataclass(frozen=True, slots=True)
class Remark:
    """Something the meter must write into its next batch."""

    kind: NoticeKind
    detail: str


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
        self._remarks: list[Remark] = [Remark(NoticeKind.SPOOL_TORN, cut.reason) for cut in spool.cuts]
        self._skip: tuple[bytes, int] | None = None
        self._kept_digest = b""

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
            return b""  # the meter says that it starts anew

    def append(self, windows: Sequence[SealedWindow]) -> None:
        """Seal and make durable (D1), one write for all.

        Raises SpoolFullError (nothing kept, go on later), RecordTooLargeError, or SpoolError (stop).
        """
        payloads = [encode_batch(window.batch) for window in windows]
        with self._lock:
            tip = self.spool.tip
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
                entries.append(entry)
                tip = behind(entry)
            self.spool.append(entries)
        self.on_append()

    def take_remarks(self) -> tuple[list[Remark], tuple[bytes, int] | None]:
        """Remarks for the next batch, and (boot id, time) up to which the books already hold usage."""
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
            if fits and not self._told_already(head):
                if seq <= spool.acked_seq:
                    log.warning("collector holds records up to %d only: refilling it from the spool", seq - 1)
                    spool.regress(seq - 1)
                spool.ack(seq - 1)
                if not tip.journal:
                    # The meter starts from nothing behind books that are not empty: a recording played again.
                    self._skip = (head.head_boot_id, head.head_window_end_boot_ns)
            else:
                self._reanchor(head, head_hash)
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

    def refuse(self, seq: int, reason: str) -> None:
        """The collector will never take record `seq`: set it aside, seal those behind it again."""
        with self._lock:
            if not self.spool.holds(seq):
                return
            entry = self.spool.entry(seq)
            self._set_aside(entry, reason)
            start = Tip(seq, entry.prev_hash, b"")
            self.spool.rebase(seq, seq, entry.prev_hash, self._resealed(self.spool.entries(seq + 1), start))
            self.refused_records += 1
            text = (
                f"record {seq} (window {entry.window_start_boot_ns}-{entry.window_end_boot_ns} ns) "
                f"was refused: {reason}"
            )
            self._remarks.append(Remark(NoticeKind.RECORD_REFUSED, text))
            log.error("%s; kept in %s", text, self.spool.directory / "quarantine")

    def _reanchor(self, head: HeadFacts, head_hash: bytes) -> None:
        spool = self.spool
        acked, newest = spool.acked_seq, spool.newest_seq
        aside = 0
        moved: list[int] = []
        for entry in spool.entries(1):
            same_boot = entry.boot_id == head.head_boot_id
            if entry.seq <= acked and not same_boot:
                continue  # it was in the books once, and nothing shows that it is not now
            if not same_boot or entry.window_start_boot_ns >= head.head_window_end_boot_ns:
                moved.append(entry.seq)
            elif entry.seq > acked:
                self._set_aside(
                    entry, f"its time is in the books already, up to record {head.resume_seq - 1}"
                )
                aside += 1
        start = Tip(head.resume_seq, head_hash, b"")
        again = self._resealed((spool.entry(seq) for seq in moved), start)
        spool.rebase(1, head.resume_seq, head_hash, again)
        text = (
            f"the collector's last record is {head.resume_seq - 1} ({head_hash.hex()[:16]}), not in our chain, "
            f"which ended at {newest}: {len(moved)} records sealed again behind it, {aside} set aside"
        )
        self._remarks.append(Remark(NoticeKind.REANCHORED, text))
        if head.head_boot_id:
            self._skip = (head.head_boot_id, head.head_window_end_boot_ns)
        log.warning("re-anchored: %s", text)

    def _resealed(self, entries: Iterator[Entry], tip: Tip) -> Iterator[Entry]:
        for entry in entries:
            again = reseal(self.key, entry, tip)
            tip = behind(again)
            yield again

    def _set_aside(self, entry: Entry, reason: str) -> None:
        name = f"record-{entry.seq}-{record_hash(entry.record).hex()[:16]}"
        self.spool.quarantine(name, entry.record, reason)
