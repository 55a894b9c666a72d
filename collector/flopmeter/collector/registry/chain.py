"""Whether stored entries are what was said, in the order in which it was said. Pure: for fsck, and for reading."""

from collections.abc import Callable, Iterable

from flopmeter.collector.chained_words import NO_HASH, Fault
from flopmeter.collector.errors import RegistryError

from .checks import Known, check_entry
from .codec import EntryRow, entry_hash, to_entry
from .entries import Entry
from .state import Registry


def check_chain(
    rows: Iterable[EntryRow], known: Callable[[Entry], Known | None] = lambda _: None
) -> Fault | None:
    """Walk the rows in order: numbers without holes, each hash over the one before, each entry admissible then.

    `known` says what the books held when an entry was made; None: what it names is not looked up.
    """
    prev_hash, registry = NO_HASH, Registry()
    for number, row in enumerate(rows, 1):
        if row.entry_no != number:
            return Fault(number, "entry_no", number, row.entry_no)
        if row.prev_hash != prev_hash:
            return Fault(number, "prev_hash", prev_hash, row.prev_hash)
        try:
            entry = to_entry(row)
        except RegistryError as e:
            return Fault(number, "statement", "a statement", str(e))
        digest = entry_hash(prev_hash, entry)
        if row.hash != digest:
            return Fault(number, "hash", digest, row.hash)
        try:
            check_entry(registry, entry, known(entry))
        except RegistryError as e:
            return Fault(number, "statement", "one that was admissible when it was made", str(e))
        prev_hash, registry = digest, registry.plus(entry)
    return None
