"""What `runs show --json` prints of a run, with the keys that people script against. Pure.

FLOP and cycles are decimal strings; times are device-seconds; a fraction is rounded down, so that it never
shows a line as reached that is not.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from flopmeter.collector.books import HOUR_NS, GroupKey, Slot, Sums
from flopmeter.collector.figures import Model, Tally
from flopmeter.collector.ingest.identity import RuleList, attempt_of
from flopmeter.collector.ingest.identity_rules import identities_of
from flopmeter.collector.law.accuracy import LIMIT_PERCENT, accuracy_json, answer
from flopmeter.collector.law.countable import UNTAGGED, Share, parts_json
from flopmeter.collector.law.events import NOT_RISK
from flopmeter.collector.law.modification import line_of, modification_key, modification_state
from flopmeter.collector.law.regimes import MODIFICATION, RUN, Regime
from flopmeter.collector.law.rules import Verdict, counted, in_force, verdict
from flopmeter.collector.law.standing import Counted, Standing, standing
from flopmeter.collector.law.thresholds import threshold_key, threshold_state
from flopmeter.collector.registry.codec import calibration_json
from flopmeter.collector.registry.counting import Counting
from flopmeter.collector.registry.entries import Declare
from flopmeter.collector.registry.words import names_json
from flopmeter.collector.spelling import figure_json, time_text
from flopmeter.contract.flop import Figure
from flopmeter.contract.flop import total as total_of
from flopmeter.contract.usage import WorkloadKind
from flopmeter.contract.w_table import WTable

from .run_figures import Part, RunFigures, run_figures
from .silence import Behind, Silence
from .unreported import RUNNING_WITHIN_NS, Unreported

MAX_JOBS_SHOWN = 100
MAX_VALUES_SHOWN = 20
_SECOND_NS = 1_000_000_000
_FRACTION_DIGITS = 10**9


class WorkloadRow(NamedTuple):
    """A row of the workloads table, less what all workloads of the run share."""

    workload_no: int
    scope: str
    kind: int
    job: str
    step: str
    user: str
    dtype: str
    restart: int
    run_rule: str
    first_unix_ns: int
    last_unix_ns: int
    identities: str  # as the store keeps them
    assigned_by: int  # the entry that put it here; 0: the rules did


@dataclass(frozen=True, slots=True)
class RunRows:
    """All that the books hold of one run."""

    run: str
    workloads: list[WorkloadRow]
    groups: dict[GroupKey, Sums]

    @property
    def first_unix_ns(self) -> int:
        return min(w.first_unix_ns for w in self.workloads)

    @property
    def last_unix_ns(self) -> int:
        return max(w.last_unix_ns for w in self.workloads)


def run_document(
    rows: RunRows,
    models: Mapping[int, Model],
    table: WTable,
    regimes: Iterable[Regime],
    counting: Counting,
    *,
    rules: RuleList,
    now_unix_ns: int,
    silence: Silence,
    raised: frozenset[str] = frozenset(),
    hourly: Iterable[tuple[Slot, str, GroupKey, Sums]] | None = None,
) -> dict[str, Any]:
    """One run's whole report, under regimes of either scope. `hourly` adds its curve under "hourly"."""
    missing = silence.of(rows.run)
    dtypes = {w.workload_no: w.dtype for w in rows.workloads}
    said = counting.registry.declared(rows.run)
    calibration = None if said is None else said.calibration
    figures = run_figures(rows.groups, models, dtypes, table, missing, calibration=calibration)
    regimes = tuple(regimes)
    stands = standing(counting, rows.run, (figures.booked_flop, figures.booked_integer_ops), regimes)
    of_runs = [r for r in regimes if r.scope == RUN]
    behind = {r.counting: silence.behind(counting, rows.run, r.counting) for r in of_runs}
    document: dict[str, Any] = {
        "run": rows.run,
        "status": status_of(rows, missing, now_unix_ns),
        "rule": _rules(rows.workloads)[0],
        "rules": _rules(rows.workloads),
        "assigned_by": sorted({w.assigned_by for w in rows.workloads if w.assigned_by}),
        "identities": _identities(rows.workloads),
        "attempts": _attempts(rows.workloads, rules),
        "declared": _declared(said),
        "names": names_json(counting.registry, rows.run),
        "first_seen": time_text(rows.first_unix_ns),
        "last_seen": time_text(rows.last_unix_ns),
        "jobs": _jobs(rows.workloads),
        "job_count": len({(w.scope, w.kind, w.job) for w in rows.workloads}),
        "declared_dtypes": sorted({w.dtype for w in rows.workloads if w.dtype}),
        "executed": {
            "flop": figure_json(figures.flop),
            "integer_ops": figure_json(figures.integer_ops),
            "flop_and_integer_ops": figure_json(figures.flop + figures.integer_ops),
            "sm_elapsed_cycles": str(figures.sm_elapsed_cycles),
        },
        "accuracy": _accuracy(figures),
        "nominal_sparse_flop": str(figures.nominal_sparse_flop),
        "purposes": [_purpose(share) for share in counting.work(rows.run)],
        "countable": {r.id: _countable(r, stands.of(r), behind[r.counting]) for r in of_runs},
        "by_pipe": {
            name: {
                "sm_cycles": str(p.cycles),
                ("integer_ops" if p.integer else "flop"): figure_json(p.operations),
            }
            for name, p in figures.by_pipe.items()
        },
        "by_precision": [
            {"pipe": kind.pipe, "format": kind.format, "flop": figure_json(part)}
            for kind, part in figures.by_precision.items()
        ],
        "by_evidence_class": {name: _part(p, figures) for name, p in figures.by_evidence_class.items()},
        "by_model": {name: _part(p, figures) for name, p in figures.by_model.items()},
        "coverage": _coverage(figures),
        "unreported": {
            "device_seconds": missing.duration_ns / _SECOND_NS,
            "flop": figure_json(figures.unreported_flop),
            "nodes": list(missing.nodes),
            "since": time_text(missing.since_unix_ns) if missing.nodes else None,
            "unpriced": list(missing.unpriced),
            # Runs below this one in the lineage whose agents are silent: that is in `countable` and `thresholds`.
            "ancestors": sorted({name for b in behind.values() for name in b.ancestors}),
        },
        "energy_joules": figures.energy_mj / 1000,
        "energy_unmeasured_device_seconds": figures.energy_unmeasured_ns / _SECOND_NS,
        "apportioned_device_seconds": figures.apportioned_ns / _SECOND_NS,
        "thresholds": [
            threshold_row(
                rows.run, r, stands.of(r), behind[r.counting], now_unix_ns=now_unix_ns, raised=raised
            )
            for r in of_runs
        ],
        "modifications": [
            m for r in regimes for m in _modified(r, stands, now_unix_ns, raised) if r.scope == MODIFICATION
        ],
        "lineage": _lineage(counting, stands, of_runs),
        "reasons": [str(r) for r in figures.reasons],
        "width": [{"cause": r.cause, "flop": str(r.flop), "text": r.text} for r in figures.reasons],
        "no_w_table": list(figures.no_w_table),
        "w_table": figures.w_table,
        "note": NOT_RISK,
    }
    if hourly is not None:
        document["hourly"] = hourly_series(hourly, models, table)
    return document


def hourly_series(
    hourly: Iterable[tuple[Slot, str, GroupKey, Sums]], models: Mapping[int, Model], table: WTable
) -> list[dict[str, Any]]:
    """FLOP per slot, only those that have any record: `hours` of them, `hour` being the last. Rounding of bounds is per
    slot, so they may differ from the total's by an operation or so per slot and group; points add up exactly.
    """
    tallies: dict[Slot, Tally] = {}
    for slot, dtype, key, sums in hourly:
        tallies.setdefault(slot, Tally()).add(key, dtype, sums)
    return [
        {
            "hour": time_text(slot.hour * HOUR_NS),
            "hours": slot.back + 1,
            "flop": figure_json(t.figures(models, table)[0]),
        }
        for slot, t in sorted(tallies.items())
    ]


def status_of(rows: RunRows, missing: Unreported, now_unix_ns: int) -> str:
    if rows.last_unix_ns >= now_unix_ns - RUNNING_WITHIN_NS:
        return "running"
    return "silent" if missing.duration_ns else "stopped"


def _jobs(workloads: list[WorkloadRow]) -> list[dict[str, Any]]:
    seen: dict[tuple[str, int, str], dict[str, Any]] = {}
    for w in workloads:
        job = seen.setdefault(
            (w.scope, w.kind, w.job),
            {
                "scope": w.scope,
                "kind": WorkloadKind(w.kind).label,
                "job": w.job,
                "user": w.user,
                "restarts": 0,
            },
        )
        job["restarts"] = max(job["restarts"], w.restart)
    return list(seen.values())[:MAX_JOBS_SHOWN]


def _accuracy(figures: RunFigures) -> dict[str, Any]:
    """Against the EU's 30 %: as metered, as if the declared dtype were true, and as if the run's calibration were."""
    declared, calibrated = figures.flop_if_declared, figures.flop_if_calibrated
    return {
        "limit_percent": LIMIT_PERCENT,
        "answer": answer(figures.flop, declared).value,
        **accuracy_json(figures.flop),
        "if_declared": None
        if declared is None
        else {"flop": figure_json(declared), **accuracy_json(declared)},
        "if_calibrated": None
        if calibrated is None
        else {"flop": figure_json(calibrated), **accuracy_json(calibrated)},
    }


def _part(part: Part, figures: RunFigures) -> dict[str, Any]:
    whole_ns = figures.expected_ns
    return {
        "device_time_share": part.duration_ns / whole_ns if whole_ns else 0.0,
        "flop": figure_json(part.flop),
        "integer_ops": figure_json(part.integer_ops),
        "device_seconds": part.duration_ns / _SECOND_NS,
        "sm_elapsed_cycles": str(part.sm_elapsed_cycles),
    }


def _coverage(figures: RunFigures) -> dict[str, Any]:
    """Expected is observed plus gap. What silent agents still owe is a gap too, and says so."""
    gaps = {reason.label: ns / _SECOND_NS for reason, ns in figures.gaps_ns.items()}
    if figures.unreported_ns:
        gaps["unreported"] = figures.unreported_ns / _SECOND_NS
    return {
        "expected_device_seconds": figures.expected_ns / _SECOND_NS,
        "observed_device_seconds": figures.observed_ns / _SECOND_NS,
        "gap_device_seconds": (figures.gap_ns + figures.unreported_ns) / _SECOND_NS,
        "gaps": gaps,
    }


def _rules(workloads: Iterable[WorkloadRow]) -> list[str]:
    """Which rules put the run's workloads here, the one of most of them first."""
    counts = Counter("assigned" if w.assigned_by else w.run_rule for w in workloads)
    return sorted(counts, key=lambda rule: (-counts[rule], rule))


def _identities(workloads: Iterable[WorkloadRow]) -> dict[str, list[str]]:
    """All that was seen of who the run's workloads are: each name's values, the first ones where there are many."""
    found: dict[str, set[str]] = {}
    for text in {w.identities for w in workloads}:
        for name, value in identities_of(text).items():
            found.setdefault(name, set()).add(value)
    return {name: sorted(found[name])[:MAX_VALUES_SHOWN] for name in sorted(found)}


def _attempts(workloads: Iterable[WorkloadRow], rules: RuleList) -> list[str]:
    """What tells one attempt of the run from the next, by the rules that chose: a JobSet's restarts, for one."""
    told = {(w.run_rule, w.identities) for w in workloads if w.identities}
    found = {attempt_of(rules, rule, identities_of(text)) for rule, text in told} - {""}
    return sorted(found, key=lambda attempt: (len(attempt), attempt))[:MAX_VALUES_SHOWN]


def _declared(said: Declare | None) -> dict[str, Any] | None:
    if said is None:
        return None
    end = said.expected_end_unix_ns
    return {
        "owner": said.owner,
        "budget_flop": None if said.budget_flop is None else str(said.budget_flop),
        "hardware": said.hardware,
        "expected_end": None if end is None else time_text(end),
        "dtype": said.dtype,
        "purpose": None if said.purpose is None else said.purpose.value,
        "base_models": list(said.base_models),
        "calibration": None if said.calibration is None else calibration_json(said.calibration),
    }


def _purpose(share: Share) -> dict[str, Any]:
    """Work that one thing was said of; together the run's, but for what bounds are rounded by."""
    again = share.recomputation
    return {
        "purpose": UNTAGGED if share.purpose is None else share.purpose.value,
        "recomputation": None if again is None else f"{again.numerator}/{again.denominator}",
        "entries": list(share.entries),
        "across": list(share.across),
        "flop": figure_json(share.flop),
        "integer_ops": figure_json(share.integer_ops),
    }


def _with_unreported(total: Counted, behind: Behind) -> tuple[Figure, Figure]:
    return total.flop + behind.flop, total.integer_ops + behind.integer_ops


def _countable(regime: Regime, total: Counted, behind: Behind) -> dict[str, Any]:
    """What the regime counts of the run and of what it stands on, and what it leaves out or says nothing of."""
    found = total.countable
    document: dict[str, Any] = {
        "flop": figure_json(counted(regime, *_with_unreported(total, behind))),
        "unreported": figure_json(counted(regime, behind.flop, behind.integer_ops)),
        "unit": regime.unit,
        "counting": regime.counting,
        "note": regime.counting_note,
        "profile": None,
        "excluded": [],
        "silent": [],
        "ancestors": [],
    }
    if found is not None:
        profile = found.profile
        document["profile"] = {"id": profile.id, "version": profile.version, "digest": profile.digest}
        document["excluded"] = parts_json(found.left_out)
        document["silent"] = parts_json(found.silent)
        document["ancestors"] = parts_json(p for p in found.parts if p.of and p.counted)
    return document


def _lineage(counting: Counting, stands: Standing, regimes: Iterable[Regime]) -> list[dict[str, Any]]:
    """All that the run stands on, the nearest first: how, how much it took itself, and which regime counts any of it."""
    paths: dict[str, tuple[str, ...]] = {stands.run: ()}
    queue = [stands.run]
    for name in queue:
        for link in counting.lineage.parents(name):
            if link.parent not in paths:
                paths[link.parent] = (*paths[name], f"{link.relation.value} {link.parent}")
                queue.append(link.parent)
    by: dict[str, set[str]] = {}
    for r in regimes:
        found = stands.of(r).countable
        for p in found.parts if found is not None else ():
            if p.of and p.counted:
                by.setdefault(p.of, set()).add(r.id)
    externals = counting.registry.externals
    return [
        {
            "name": name,
            "path": list(paths[name]),
            "external": name in externals,
            "source": externals[name].source if name in externals else None,
            # null: neither the books nor anybody's word have a figure of it
            "flop": figure_json(total_of(s.flop for s in shares))
            if (shares := counting.shares(name))
            else None,
            "counted_by": sorted(by.get(name, ())),
        }
        for name in queue[1:]
    ]


def _modified(
    regime: Regime, stands: Standing, now_unix_ns: int, raised: frozenset[str]
) -> Iterable[dict[str, Any]]:
    """The run against a share of what it fine-tunes, as one regime draws the line."""
    for made in stands.modifications.get(regime.counting, ()):
        line = line_of(regime, made.original_flop)
        if line is None:
            continue
        basis = counted(regime, made.flop, made.integer_ops)
        state = modification_state(basis, line, regime)
        yield {
            "regime": regime.id,
            "title": regime.title,
            "in_force": in_force(regime, now_unix_ns),
            "original": made.original,
            "original_flop": None if made.original_flop is None else figure_json(made.original_flop),
            "share": str(regime.share),
            "line": {"lower": str(line.lower), "point": str(line.point), "upper": str(line.upper)},
            "comparison": regime.comparison,
            "counted": figure_json(basis),
            "verdict": Verdict.BELOW.value if state is None else state[0].value,
            "event_raised": state is not None
            and modification_key(regime, made.run, made.original, *state) in raised,
        }


def threshold_row(
    run: str,
    regime: Regime,
    total: Counted,
    behind: Behind,
    *,
    now_unix_ns: int,
    raised: frozenset[str] = frozenset(),
) -> dict[str, Any]:
    """Where the run stands by one regime. `behind`: of silent agents."""
    basis = counted(regime, *_with_unreported(total, behind))
    state = threshold_state(total.flop, regime, total.integer_ops)
    booked = counted(regime, total.flop, total.integer_ops)
    return {
        "regime": regime.id,
        "title": regime.title,
        "in_force": in_force(regime, now_unix_ns),
        "status": regime.status,
        "effective": regime.effective.isoformat() if regime.effective else None,
        "threshold_flop": str(regime.threshold_flop),
        "comparison": regime.comparison,
        "unit": regime.unit,
        "counting": regime.counting,
        "version": regime.version,
        "digest": regime.digest,
        "verdict": verdict(basis, regime).value,
        # What the records alone say: silence can make it undetermined, and raises no event (unreported.py).
        "verdict_of_records": verdict(booked, regime).value,
        "fraction": _fraction(basis.point, regime),
        "fraction_bounds": [_fraction(basis.lower, regime), _fraction(basis.upper, regime)],
        "act": regime.act,
        "recipient": regime.recipient,
        "deadline": regime.deadline,
        "event_raised": state is not None and threshold_key(regime, run, *state) in raised,
    }


def _fraction(value: int, regime: Regime) -> float:
    return value * _FRACTION_DIGITS // regime.threshold_flop / _FRACTION_DIGITS


def figure_of(document: Mapping[str, str]) -> Figure:
    """The figure that `figure_json` wrote."""
    return Figure(int(document["lower"]), int(document["point"]), int(document["upper"]))
