"""Sealing: a payload becomes a record by getting its number, its chain and its signature."""

from flopmeter.agent.errors import AgentError
from flopmeter.agent.keys import RecordKey
from flopmeter.contract.limits import MAX_RECORD_BYTES
from flopmeter.contract.record import DOMAIN, HEADER_BYTES, SIGNATURE_BYTES, record_hash, unsigned_record

from .segment import Entry
from .spool import Tip


class RecordTooLargeError(AgentError):
    """A window has more detail than one record may carry."""


def seal_record(key: RecordKey, boot_id: bytes, tip: Tip, payload: bytes) -> bytes:
    """The signed record of `payload`, next behind `tip`. Same input, same bytes."""
    size = HEADER_BYTES + len(payload) + SIGNATURE_BYTES
    if size > MAX_RECORD_BYTES:
        raise RecordTooLargeError(
            f"window: its record would be {size} bytes, at most {MAX_RECORD_BYTES} are allowed",
            "shorten --window, so that fewer workloads fall into one",
        )
    unsigned = unsigned_record(
        agent_id=key.agent_id, boot_id=boot_id, seq=tip.next_seq, prev_hash=tip.prev_hash, payload=payload
    )
    return unsigned + key.sign(DOMAIN + unsigned)


def reseal(key: RecordKey, entry: Entry, tip: Tip) -> Entry:
    """The same usage under another number: for a record that is in nobody's books."""
    payload = entry.record[HEADER_BYTES:-SIGNATURE_BYTES]
    return Entry(
        record=seal_record(key, entry.boot_id, tip, payload),
        journal=entry.journal,
        inventory_digest=entry.inventory_digest,
        window_start_boot_ns=entry.window_start_boot_ns,
        window_end_boot_ns=entry.window_end_boot_ns,
    )


def behind(entry: Entry) -> Tip:
    """The tip that `entry` leaves."""
    return Tip(entry.seq + 1, record_hash(entry.record), entry.journal)
