"""Numbers for names: workloads, device models, inventories. Owned by the event loop.

New names get their numbers here and their rows go into the open group, so a number is only ever used in
the transaction that makes it durable, or after it. After a failed commit the whole object is dropped and
made again from the store.
"""

import sys
from dataclasses import dataclass, field
from typing import Any

from flopmeter.collector.encode import decode_inventory
from flopmeter.collector.store.base import Catalogue
from flopmeter.contract.usage import Inventory, Workload

from .decide import scope_of
from .encode import DeviceBounds, device_bounds, divided
from .group import Group, NewWorkload
from .identity import RuleList, choose
from .identity_jobs import JobRows, Moved, Row, Seen, instance_of
from .identity_rules import identities_of, identities_text

#: Names kept in memory; past this, committed ones are looked up in the store again.
MAX_CACHED_WORKLOADS = 100_000
MAX_WORKLOADS_PER_INVENTORY = 4_096
JobId = tuple[str, int, str]  # scope, kind, job


@dataclass(slots=True)
class KnownInventory:
    """An inventory as the hot path needs it: small, because there is one per node."""

    inventory: Inventory  # node and cluster only; the devices are in the store
    bounds: tuple[DeviceBounds, ...]
    entities: tuple[str, ...]  # by index, as the bounds
    #: Serialised Workload -> workload_no, for this node's scope.
    workload_nos: dict[bytes, int] = field(default_factory=dict)


class Names:
    """Looks numbers up, and gives out new ones into `Group`s."""

    def __init__(self, catalogue: Catalogue, rules: RuleList) -> None:
        self._catalogue = catalogue
        self._rules = rules
        numbers = catalogue.next_numbers()
        self._next_workload_no = numbers.workload_no
        self._next_model_no = numbers.model_no
        self._models = catalogue.models()
        self._workloads: dict[tuple[Any, ...], int] = {}
        self._jobs: dict[JobId, JobRows] = {}
        self._inventories: dict[bytes, KnownInventory] = {}
        self._bounds: dict[DeviceBounds, DeviceBounds] = {}  # one object for all devices alike

    def inventory(self, digest: bytes) -> KnownInventory | None:
        """The inventory of that digest, or None if nobody has sent it."""
        known = self._inventories.get(digest)
        if known is None:
            raw = self._catalogue.inventory(digest)
            if raw is None:
                return None
            known = self._know(digest, decode_inventory(raw), None)
        return known

    def add_inventory(self, raw: bytes, digest: bytes, agent_no: int, now_unix_ns: int, group: Group) -> None:
        """Take an inventory in. Raises ContractError; the same one again changes nothing."""
        if self.inventory(digest) is not None:
            return
        self._know(digest, decode_inventory(raw), group)
        group.inventories.append((digest, agent_no, raw, now_unix_ns))

    def _know(self, digest: bytes, inventory: Inventory, group: Group | None) -> KnownInventory:
        bounds = []
        parents = divided(inventory)
        for device in inventory.devices:
            model = (device.name, device.compute_capability)
            number = self._models.get(model)
            if number is None:
                # A stored inventory's models are stored with it, so only a new one gets here.
                assert group is not None, f"model {model} of a stored inventory has no number"
                number = self._models[model] = self._next_model_no
                self._next_model_no += 1
                group.models.append((number, *model))
            alike = device_bounds(device, number, parents)
            bounds.append(self._bounds.setdefault(alike, alike))
        entities = tuple(sys.intern(device.entity) for device in inventory.devices)
        where = Inventory(inventory.node, sys.intern(inventory.cluster), "", "", "", ())
        known = self._inventories[digest] = KnownInventory(where, tuple(bounds), entities)
        return known

    def workload_no(
        self, known: KnownInventory, key: bytes, workload: Workload, span: tuple[int, int], group: Group
    ) -> int:
        """The number of `workload` on that inventory's node; a new one goes into `group`.

        `key` is its serialised form, `span` the wall-clock ends of the window that names it.
        """
        scope = scope_of(workload, known.inventory)
        identity = (
            scope,
            int(workload.kind),
            workload.job,
            workload.step,
            workload.run,
            workload.user,
            workload.dtype,
            workload.restart,
            identities_text(workload.identities),
        )
        number = self._workloads.get(identity)
        if number is None:
            number = self._catalogue.workload_no(identity)
            if number is None:
                number = self._next_workload_no
                self._next_workload_no += 1
                new, moved = self._new(number, identity, known.inventory, workload, span)
                group.workloads.append(new)
                group.moved += moved
            self._workloads[identity] = number
        if len(known.workload_nos) >= MAX_WORKLOADS_PER_INVENTORY:
            known.workload_nos.clear()
        known.workload_nos[key] = number
        return number

    def _new(
        self,
        number: int,
        identity: tuple[Any, ...],
        inventory: Inventory,
        workload: Workload,
        span: tuple[int, int],
    ) -> tuple[NewWorkload, list[Moved]]:
        """A workload seen for the first time, under the run that it belongs to, and what moves with it."""
        row, moved = Row(number, *choose(workload, inventory, self._rules)), list[Moved]()
        if row.run:
            seen = Seen(instance_of(workload.identities, self._rules), workload.restart, span[0])
            row, moved = self._job((identity[0], identity[1], identity[2])).add(row, seen)
        *named, text = identity
        return NewWorkload._make((number, *named, row.run, row.rule, *span, text, span[0])), moved

    def _job(self, job: JobId) -> JobRows:
        rows = self._jobs.get(job)
        if rows is None:
            rows = self._jobs[job] = JobRows(self._rules.rank)
            for r in self._catalogue.job_rows(*job):
                instance = instance_of(identities_of(r.identities), self._rules)
                rows.know(Row(r.workload_no, r.run, r.run_rule), Seen(instance, r.restart, r.begun_unix_ns))
        return rows

    def trim(self, open_group: Group) -> None:
        """After a commit: forget names that the store has, if too many are kept."""
        if len(self._workloads) > MAX_CACHED_WORKLOADS:
            self._workloads = {(*w[1:9], w.identities): w.workload_no for w in open_group.workloads}
            # What the open group adds to a job is in no store yet, so that the job's rows stay known.
            self._jobs = {job: self._jobs[job] for w in open_group.workloads if (job := w[1:4]) in self._jobs}
