"""Whom the scheduler gave each entity to: the kubelet's list, Slurm's prolog files. What a source of it must do."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from flopmeter.contract.usage import Uncovered, Workload


@dataclass(frozen=True, slots=True)
class Allocations:
    """Who held what at one instant. An entity that is absent was given to nobody."""

    at_boot_ns: int  # CLOCK_BOOTTIME at which it was true
    by_entity: Mapping[str, tuple[Workload, ...]]  # NVIDIA UUID -> holders; several = shared


class AllocationSource(Protocol):
    """Reads on a thread of its own: every method here answers at once from memory, and never raises."""

    def latest(self) -> Allocations | None:
        """The newest answer; None while there is none, or it has become too old to be believed."""
        ...

    def describe(self, workload: Workload) -> Workload:
        """`workload` with what is known of it by now (identities, run label, restart); itself if nothing is."""
        ...

    def met(self, entity: str, workload: Workload) -> None:
        """Told: processes of `workload` alone hold the entity, by their cgroups. A source may learn from it.

        The kubelet does: its list has names and no UID, a cgroup has the UID and no name. Others do nothing.
        """
        ...

    def unmetered(self) -> tuple[Uncovered, ...]:
        """GPUs that the scheduler could give out on this node, and that nothing here meters; in a fixed order."""
        ...

    def close(self) -> None:
        """Stop the thread. May be called twice."""
        ...
