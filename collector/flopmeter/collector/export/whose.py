"""Which workload is of which run and which tenant, one at a time: a store of years has millions of them."""

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from flopmeter.collector.api.tenancy import Sight
from flopmeter.collector.ingest.identity_rules import identities_of
from flopmeter.collector.registry.entries import JobKey
from flopmeter.collector.report.tenants import tenant_of
from flopmeter.contract.usage import WorkloadKind

if TYPE_CHECKING:
    from flopmeter.collector.registry.state import Registry
    from flopmeter.collector.report.queries import Reader

_COLUMNS = "workload_no, scope, kind, job, step, user, dtype, restart, run, identities"
_ONE = f"SELECT {_COLUMNS} FROM workloads WHERE workload_no = ?"  # noqa: S608
_ALL = f"SELECT {_COLUMNS} FROM workloads WHERE run != ''"  # noqa: S608
#: Of an hour of the largest fleet there are as many; more are read again.
_KEPT = 65_536


class Whose(NamedTuple):
    """A workload, and whose it is."""

    run: str  # after what people assigned; "": idle or unattributed
    tenant: str  # "" of what is no run's
    kind: int
    scope: str
    job: str
    step: str
    user: str
    dtype: str
    restart: int

    @property
    def owner(self) -> str:
        """Whose figures it is added to: the run's, or the fleet's idle or unattributed ones; no run begins so."""
        if self.run:
            return self.run
        return "\0idle" if self.kind == WorkloadKind.IDLE else "\0unattributed"


class Workloads:
    """Of one state of the books. Raises StoreError."""

    def __init__(self, reader: "Reader") -> None:
        self._reader = reader
        self._registry: Registry = reader.registry()
        self.of = lru_cache(_KEPT)(self._of)

    def _of(self, workload_no: int) -> Whose:
        return self._whose(self._reader.rows(_ONE, (workload_no,)).fetchone())

    def _whose(self, row: tuple[int, str, int, str, str, str, str, int, str, str]) -> Whose:
        _, scope, kind, job, step, user, dtype, restart, chosen, identities = row
        if not chosen:
            return Whose("", "", kind, scope, job, step, user, dtype, restart)
        key = JobKey(scope, kind, job)
        run = self._registry.run_of(key, step, chosen)
        declared = self._registry.declared(run)
        tenant = tenant_of(None if declared is None else declared.owner, key, identities_of(identities))
        return Whose(run, tenant.id, kind, scope, job, step, user, dtype, restart)

    def numbers(self, run: str, tenant: str) -> list[int]:
        """Workloads of that run ("": any) that are that tenant's ("": anybody's). None of a run that is not named to it."""
        found: list[int] = []
        if run and tenant and run not in self.named_to(tenant):
            return found
        for row in self._reader.rows(_ALL):
            w = self._whose(row)
            if run in ("", w.run) and tenant in ("", w.tenant):
                found.append(row[0])
        return found

    def tenants(self) -> dict[str, str]:
        """Run -> the tenant whose all of its work is; "" where it is of several: then it is no tenant's to see."""
        found: dict[str, str] = {}
        for row in self._reader.rows(_ALL):
            w = self._whose(row)
            found[w.run] = w.tenant if found.get(w.run, w.tenant) == w.tenant else ""
        return found

    def runs_of(self, tenant: str) -> frozenset[str]:
        """Runs of which all work is that tenant's: of any other it would see what somebody else did."""
        return frozenset(run for run, whose in self.tenants().items() if whose == tenant)

    def named_to(self, tenant: str) -> frozenset[str]:
        """Runs whose names that tenant knows: those that are its own, and those into which its work came by what itself said.

        Where people alone put its work into another's run, the name is somebody else's word (as api.shared_runs has it).
        """
        own = set(self.runs_of(tenant))
        for row in self._reader.rows(_ALL):
            w = self._whose(row)
            if w.tenant == tenant and w.run == row[8]:
                own.add(w.run)
        return frozenset(own)

    def sight(self, tenant: str) -> tuple[Sight, frozenset[str]]:
        """What that tenant may see, and the names that runs stand on, which it may not all."""
        named = {name for link in self._registry.stands_on for name in (link.run, link.parent)}
        return Sight(tenant, self.tenants(), self._registry), frozenset(named)
