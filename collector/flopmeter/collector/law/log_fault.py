"""The collector's own evidence log contradicts itself, or a head that it signed: an event, once for each contradiction."""

import hashlib

from .events import EVIDENCE_FORK, NewEvent

_PREFIX = "fork:own-log:"
MAX_SAID = 2_000


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
            "message": f"The evidence log contradicts itself, or a head that it signed: {said}. No checkpoint is signed "
            "while that is so; records go on being taken. Keep the store as evidence, and compare it with a backup: "
            "somebody or something has changed it.",
            "found": said,
        },
    )
