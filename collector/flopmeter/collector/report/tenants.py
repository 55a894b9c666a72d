"""`flopmeter fleet tenants`: what each customer's runs did, for know-your-customer reports. Pure.

A tenant is, in this order: the owner that people declared of the run; else the Slurm account, within its cluster; else
the Kubernetes namespace, within its cluster; else nobody, which is said. Counted is what the records say that a
workload did itself: without what its run stands on, so that no work is in two sums, and without what silent agents may
still owe. No user's name is in it: nothing but what identifies the tenant (reference/regulations.md sections 2 and 12).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from fractions import Fraction
from typing import Any, NamedTuple

from flopmeter.collector.books import HOUR_NS, GroupKey, Slot
from flopmeter.collector.figures import Model, Tally
from flopmeter.collector.law.countable import countable
from flopmeter.collector.law.regimes import Regime
from flopmeter.collector.law.rules import Verdict, counted, in_force, tenant_verdict
from flopmeter.collector.registry.entries import JobKey
from flopmeter.collector.registry.shares import Row, shares, tallies
from flopmeter.collector.registry.state import Registry
from flopmeter.collector.spelling import figure_json, time_text
from flopmeter.contract.flop import Figure, total
from flopmeter.contract.w_table import WTable

ACCOUNT, NAMESPACE = "slurm.account", "k8s.namespace"
_SECOND_NS = 1_000_000_000
#: GPUs held in an hour are a mean over it, in thousandths.
_MILLI = 1_000


class By(StrEnum):
    """What names a tenant."""

    OWNER = "owner"  # people's word, in the run registry
    ACCOUNT = "slurm-account"
    NAMESPACE = "k8s-namespace"
    NOBODY = "nobody"


class Tenant(NamedTuple):
    """`scope` is the cluster within which an account or a namespace means one thing; "" of an owner."""

    by: By
    scope: str
    name: str

    @property
    def id(self) -> str:
        """One text of it; two tenants never share one."""
        if self.by is By.NOBODY:
            return "nobody"
        return f"{self.by}:{self.name}" if self.by is By.OWNER else f"{self.by}:{self.scope}/{self.name}"


NOBODY = Tenant(By.NOBODY, "", "")


class Work(NamedTuple):
    """One workload of a run."""

    run: str
    job: JobKey
    dtype: str
    identities: Mapping[str, str]
    first_unix_ns: int
    last_unix_ns: int
    rows: Iterable[tuple[Slot, GroupKey, Iterable[int]]]


def tenant_of(owner: str | None, job: JobKey, identities: Mapping[str, str]) -> Tenant:
    """Whose the work is. `owner`: as the run is declared."""
    if owner:
        return Tenant(By.OWNER, "", owner)
    account, namespace = identities.get(ACCOUNT, ""), identities.get(NAMESPACE, "")
    if account:
        return Tenant(By.ACCOUNT, job.scope, account)
    return Tenant(By.NAMESPACE, job.scope, namespace) if namespace else NOBODY


@dataclass(frozen=True, slots=True)
class Books:
    """What prices the work, and by what it is judged. `regimes`: of scope tenant, whether or not they bind."""

    registry: Registry
    models: Mapping[int, Model]
    table: WTable
    regimes: tuple[Regime, ...]
    now_unix_ns: int


@dataclass(slots=True)
class _Part:
    """What one tenant did of one run."""

    rows: list[Row] = field(default_factory=list)
    first_unix_ns: int = 1 << 63
    last_unix_ns: int = 0


def tenants_document(works: Iterable[Work], books: Books) -> dict[str, Any]:
    """`fleet tenants --json`, the largest first; what is nobody's last."""
    found: dict[Tenant, dict[str, _Part]] = {}
    owners: dict[str, str | None] = {}
    for w in works:
        if w.run not in owners:
            declared = books.registry.declared(w.run)
            owners[w.run] = None if declared is None else declared.owner
        whose = tenant_of(owners[w.run], w.job, w.identities)
        part = found.setdefault(whose, {}).setdefault(w.run, _Part())
        part.rows += [Row(w.job, slot, w.dtype, key, sums) for slot, key, sums in w.rows]
        part.first_unix_ns = min(part.first_unix_ns, w.first_unix_ns)
        part.last_unix_ns = max(part.last_unix_ns, w.last_unix_ns)
    documents = [_tenant(whose, parts, books) for whose, parts in found.items()]
    documents.sort(key=lambda d: (d["by"] == By.NOBODY, -int(d["flop"]["point"]), d["tenant"]))
    return {
        "tenants": documents,
        "note": "What the records say that each tenant's workloads did themselves; time of no run is in none.",
        "w_table": books.table.id,
    }


def _tenant(whose: Tenant, parts: Mapping[str, _Part], books: Books) -> dict[str, Any]:
    runs = [_run(name, part, books) for name, part in parts.items()]
    runs.sort(key=lambda r: (-int(r["flop"]["point"]), r["run"]))
    gpus = _most_gpus(row for part in parts.values() for row in part.rows)
    times: dict[str, int] = {}
    for part in parts.values():
        for row in part.rows:
            name = books.models[row.key.model_no].name
            times[name] = times.get(name, 0) + next(iter(row.sums))
    return {
        "tenant": whose.id,
        "by": whose.by.value,
        "scope": whose.scope or None,
        "name": whose.name or None,
        "flop": _sum(runs, "flop"),
        "integer_ops": _sum(runs, "integer_ops"),
        "device_seconds": sum(times.values()) / _SECOND_NS,
        "device_seconds_by_model": {name: ns / _SECOND_NS for name, ns in sorted(times.items())},
        "most_gpus": gpus,
        "first_seen": time_text(min(p.first_unix_ns for p in parts.values())),
        "last_seen": time_text(max(p.last_unix_ns for p in parts.values())),
        "largest_run": runs[0]["run"],
        "runs": runs,
        "regimes": [_verdict(r, parts, books) for r in books.regimes],
    }


def _sum(runs: Iterable[Mapping[str, Any]], name: str) -> dict[str, str]:
    runs = list(runs)
    return {bound: str(sum(int(r[name][bound]) for r in runs)) for bound in ("lower", "point", "upper")}


def _run(name: str, part: _Part, books: Books) -> dict[str, Any]:
    tally = Tally()
    time_ns = 0
    for row in part.rows:
        sums = list(row.sums)
        tally.add(row.key, row.dtype, sums)
        time_ns += sums[0]
    flop, ops = tally.figures(books.models, books.table)
    return {
        "run": name,
        "flop": figure_json(flop),
        "integer_ops": figure_json(ops),
        "device_seconds": time_ns / _SECOND_NS,
        "first_seen": time_text(part.first_unix_ns),
        "last_seen": time_text(part.last_unix_ns),
    }


def _most_gpus(rows: Iterable[Row]) -> dict[str, Any] | None:
    """The most devices held at once, as the mean of the hour in which that was; what bridges hours is spread over them."""
    by_hour: dict[int, Fraction] = {}
    for row in rows:
        slot = row.slot
        for hour in range(slot.first, slot.hour + 1):
            time = Fraction(next(iter(row.sums)), slot.back + 1)
            by_hour[hour] = by_hour.get(hour, Fraction(0)) + time
    if not by_hour:
        return None
    hour = max(by_hour, key=lambda h: (by_hour[h], -h))
    return {
        "mean_of_an_hour": int(by_hour[hour] * _MILLI / HOUR_NS) / _MILLI,
        "hour": time_text(hour * HOUR_NS),
    }


def _verdict(regime: Regime, parts: Mapping[str, _Part], books: Books) -> dict[str, Any]:
    """All that the tenant's runs did, as the regime counts it; without a number in the text there is no answer."""
    sums = [_counted(regime, run, part, books) for run, part in parts.items()]
    answer: Verdict | None = tenant_verdict(sums, regime) if regime.has_line else None
    return {
        "regime": regime.id,
        "status": regime.status,
        "in_force": in_force(regime, books.now_unix_ns),
        "threshold_flop": str(regime.threshold_flop) if regime.has_line else None,
        "comparison": regime.comparison,
        "counted": figure_json(total(sums)),
        "verdict": None if answer is None else answer.value,
    }


def _counted(regime: Regime, run: str, part: _Part, books: Books) -> Figure:
    work = shares(tallies(books.registry, run, part.rows), books.models, books.table)
    profile = regime.counted_by
    if profile is None:
        return counted(regime, total(s.flop for s in work), total(s.integer_ops for s in work))
    found = countable(profile, work)
    return counted(regime, found.flop, found.integer_ops)
