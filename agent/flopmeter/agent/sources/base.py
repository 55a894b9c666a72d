"""What a source of readings is. Four exist: nvml, dcgm, trace, sim."""

from collections.abc import Iterator
from typing import Protocol

from flopmeter.agent.reading import Happening, NodeFacts, Reading

#: Error of a reading: what the entity counts is not what it counted before (a GPU was reset, a MIG instance
#: made anew under the same UUID). No difference may be taken across it.
COUNTERS_RESTARTED = "FLOPMETER_COUNTERS_RESTARTED"

#: Words of NodeFacts.lacks where the driver answered no error. The SM count is not told: MIG mode is on and nothing is
#: cut from it; or the driver does not say how many cores there are.
MIG_EMPTY = "MIG_WITHOUT_INSTANCES"
NO_CORES = "CORES_NOT_TOLD"

#: After errors with one of these words devices are others than before: the facts are due.
_GONE = ("LOST", "RESET_REQUIRED", "RESTARTED", "NOT_FOUND", "UNINITIALIZED", "NOT_LOADED", "MISMATCH")


def gone(error: str) -> bool:
    """Whether the error of a reading says that `facts` should be asked again."""
    return any(word in error for word in _GONE)


class Source(Protocol):
    """Reads entities one by one. Opened by its own constructor, which raises SourceError if it cannot."""

    def facts(self) -> NodeFacts:
        """The node as it is now; asked again after a Happening or a device was lost or came."""
        ...

    def read(self, entity: str) -> Reading:
        """One reading, now. May block for as long as the driver does: the loop puts a deadline on it.

        A failed read is a Reading with `error` set; an exception other than AgentError is a defect.
        """
        ...

    def close(self) -> None: ...


class Recording(Protocol):
    """A source whose readings carry their own times and come as fast as they are taken (a trace)."""

    def facts(self) -> NodeFacts: ...

    def items(self) -> Iterator[Reading | Happening]:
        """In the order recorded. Raises TraceError at the first bad line."""
        ...

    def close(self) -> None: ...
