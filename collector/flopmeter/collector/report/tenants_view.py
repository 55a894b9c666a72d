"""`flopmeter fleet tenants`: reads what tenants.py adds up, and shows it to people."""

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from flopmeter.cli.layout import Paint, Row, hours, table, wrapped
from flopmeter.cli.output import flop_text, lower_text, upper_text
from flopmeter.collector import empty
from flopmeter.collector.books import SUM_FIELDS, GroupKey, Slot
from flopmeter.collector.ingest.identity_rules import identities_of
from flopmeter.collector.law.regimes import Regime

from .tenants import Books, Work, tenants_document

if TYPE_CHECKING:
    from .queries import Asked, Reader

_HOURLY = f"SELECT hour, back, {', '.join(GroupKey._fields)}, {', '.join(SUM_FIELDS)} FROM hourly WHERE workload_no = ?"  # noqa: S608
_BY = {
    "owner": "declared owner",
    "slurm-account": "Slurm account",
    "k8s-namespace": "namespace",
    "nobody": "",
}


def tenants_of(reader: "Reader", question: "Asked", regimes: Iterable[Regime]) -> dict[str, Any]:
    """The document of a store. Raises StoreError."""
    from flopmeter.collector.registry.run_books import RunBooks

    registry = reader.registry()
    books = RunBooks(reader, registry)
    names = dict(reader.rows("SELECT workload_no, identities FROM workloads WHERE run != ''"))

    def works() -> Iterator[Work]:
        for run in reader.run_names():
            for m in books.members(run):
                rows = (
                    (Slot(*r[:2]), GroupKey._make(r[2:8]), [int(text) for text in r[8:]])
                    for r in reader.rows(_HOURLY, (m.workload_no,))
                )
                seen = identities_of(names[m.workload_no])
                yield Work(run, m.job, m.dtype, seen, m.first_unix_ns, m.last_unix_ns, rows)

    priced = Books(registry, reader.models(), question.table, tuple(regimes), question.now_unix_ns)
    return tenants_document(works(), priced)


def tenants_view(document: Mapping[str, Any], paint: Paint) -> str:
    """A table of tenants, then what the regimes on tenants say."""
    found = document["tenants"]
    if not found:
        return empty.TENANTS
    rows: list[Row] = [
        (
            (_name(t), {"bold": t["by"] != "nobody"}),
            (_BY[t["by"]], {}),
            (str(len(t["runs"])), {}),
            (flop_text(int(t["flop"]["point"])), {}),
            (f"{lower_text(int(t['flop']['lower']))} to {upper_text(int(t['flop']['upper']))}", {}),
            (hours(t["device_seconds"]), {}),
            (t["largest_run"], {}),
        )
        for t in found
    ]
    head = ("tenant", "by", "runs", "FLOP", "between", "GPU time", "largest run")
    lines = [table(head, rows, paint, spare=(1, 4), cut=(6, 0)), ""]
    for t in found:
        lines += [line for text in _answers(t) for line in wrapped(text, paint.width, "", "")]
    lines += wrapped(
        "What the records say that each tenant's workloads did themselves. Time of no run is in none of it; who a tenant "
        "is, and where from, is not in these books.",
        paint.width,
        "",
        "",
    )
    return "\n".join(lines)


def _name(t: Mapping[str, Any]) -> str:
    if t["by"] == "nobody":
        return "(nobody's)"
    return str(t["name"]) if t["scope"] is None else f"{t['scope']}/{t['name']}"


def _answers(t: Mapping[str, Any]) -> Iterator[str]:
    for r in t["regimes"]:
        if r["verdict"] is not None and (r["in_force"] or r["verdict"] != "below"):
            binds = "" if r["in_force"] else f" ({r['status']}: it binds nobody)"
            yield f"{_name(t)}: {r['regime']} {r['verdict']}{binds}"
