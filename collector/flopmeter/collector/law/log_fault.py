"""The collector's own evidence log contradicts itself, or a head that it signed: an event, once for each contradiction.

So does a witness that refused a head because it has cosigned another one under the same key (docs/witness.md).
"""

import hashlib

from .events import EVIDENCE_FORK, NewEvent

_PREFIX = "fork:own-log:"
#: How what a witness found begins.
REFUSED = "Witness "
_OWN = (
    "The evidence log contradicts itself, or a head that it signed: {}. No checkpoint is signed while that is so; records "
    "go on being taken. Keep the store as evidence, and compare it with a backup: somebody or something has changed it."
)
_WITNESSED = (
    "{}. Either this collector's store was set back (a restored copy), or another collector signs with its key, or the "
    "witness errs. From here on it witnesses nothing of this log; records go on being taken. Keep the store as evidence, "
    "and ask the witness for both heads (docs/witness.md)."
)


def fault_key(said: str) -> str:
    """The key of the one event of that contradiction."""
    return _PREFIX + hashlib.sha256(said.encode()).hexdigest()[:32]


def fault_event(said: str, *, at_unix_ns: int, position: int) -> NewEvent:
    """`said`: what was expected and what was found, the same each time that it is found."""
    return NewEvent(
        key=fault_key(said),
        type=EVIDENCE_FORK,
        subject="log",
        time_unix_ns=at_unix_ns,
        since_position=position,
        position=position,
        data={
            "message": (_WITNESSED if said.startswith(REFUSED) else _OWN).format(said),
            "found": said,
        },
    )
