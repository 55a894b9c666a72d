"""The full record of a run: every field of the predicate by its path, unrounded (docs/attestation-format.md 4, 5). Pure.

What the record must name without saying it (runs, devices, agents, groups) is a salted commitment here; `Openings` are
what opens them, and stay with the operator.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

from flopmeter.collector.figures import Model, Priced, is_others
from flopmeter.collector.law.accuracy import Accuracy
from flopmeter.collector.law.countable import Part
from flopmeter.collector.law.regimes import Regime
from flopmeter.collector.law.rules import counted, in_force
from flopmeter.collector.report.documents import figure_of as document_figure
from flopmeter.collector.report.precision import by_precision
from flopmeter.contract.evidence_class import EvidenceClass
from flopmeter.contract.flop import ZERO, Figure, total

from .disclosures import SALT_BYTES, Random, base64url, disclosure
from .gather import Gathered
from .rows import rows_root
from .standing import Crossing
from .sum_tree import SumLeaf
from .values import escaped, figure, fraction, seconds, sha256, time_text

METHOD = "hardware-counters"
#: What the interval is, and is not.
INTERVAL = (
    "The truth lies between lower and upper whatever the job did within what the counters saw: gaps from 0 to the most that "
    "the hardware can do, formats from the least to the greatest that a pipe can hold. It is no confidence interval."
)
CLOCK = (
    "Durations are of the nodes' boot clocks, which never step; dates of their wall clocks, held against the collector's "
    "at receipt. maxSkewNs is the most that one was ahead."
)
#: Where a figure has no upper bound that anybody knows: the greatest power of ten that the number grammar has.
NO_BOUND = 10**38
_KINDS = {
    "pretraining": "pretraining",
    "finetuning": "finetuning",
    "rl": "rl",
    "rl-rollouts": "rl",
    "inference": "inference",
}
_UNTAGGED = "untagged"


@dataclass(frozen=True, slots=True)
class Openings:
    """Texts behind the record's commitments: salted disclosures. As secret as the books."""

    names: str
    lineage: tuple[str, ...]
    groups: tuple[str, ...]  # as the sum tree's leaves
    devices: tuple[str, ...]
    agents: tuple[str, ...]


class Excluded(NamedTuple):
    """Work that a profile leaves out, and the registry entry that says why it may."""

    tag: str
    flop: Figure
    entry: int


@dataclass(frozen=True, slots=True)
class Fields:
    """The record, before it is sealed."""

    values: dict[str, Any]  # by path
    openings: Openings
    leaves: tuple[SumLeaf, ...]
    entries: tuple[int, ...]  # registry entries that exclusions rest on
    unknown_ancestors: int


def fields(
    g: Gathered,
    crossings: Mapping[str, Crossing],
    log_index: Mapping[int, int],
    random: Random,
    *,
    software: tuple[str, str],
    timestamps: int,
) -> Fields:
    """`crossings` by regime id; `log_index` of registry entries; `software`: version, and digest in hex."""

    def salted(path: str, value: Any) -> str:
        return disclosure(base64url(random(SALT_BYTES)), path, value)

    leaves = sum_leaves(g, salted)
    openings = Openings(
        names=salted("/run/names", _names(g)),
        lineage=tuple(
            salted(f"/lineage/{i}", ancestor["name"]) for i, ancestor in enumerate(g.document["lineage"])
        ),
        groups=tuple(leaf.opening for leaf in leaves),
        devices=tuple(
            salted(f"/devices/{i}", {"model": model, "uuid": uuid})
            for i, (uuid, model) in enumerate(sorted(g.seen.devices.items()))
        ),
        agents=tuple(
            salted(f"/agents/{i}", {"agent": agent.hex()})
            for i, agent in enumerate(sorted(g.agent_ids.values()))
        ),
    )
    excluded = {r.id: _excluded(g, r) for r in _regimes(g, crossings)}
    values: dict[str, Any] = {
        "/run/name": g.run,
        "/run/commitment": sha256(openings.names.encode()),
        "/run/kind": _kind(g),
        "/run/purposeTags": sorted({p["purpose"] for p in g.document["purposes"]} - {_UNTAGGED}),
        "/run/lineage": [
            _ancestor(a, opening) for a, opening in zip(g.document["lineage"], openings.lineage, strict=True)
        ],
        "/run/linkedRuns": _linked(g),
        "/period/start": time_text(g.first_unix_ns),
        "/period/end": time_text(g.last_unix_ns),
        "/period/closed": g.closed,
        "/period/clock": {
            "source": CLOCK,
            "maxSkewNs": str(g.seen.ahead_ns),
            "rfc3161Count": str(timestamps),
        },
        "/totals/executedFlop": figure(g.figures.flop),
        "/totals/deviceSeconds": seconds(g.figures.expected_ns),
        "/totals/wallSeconds": seconds(max(0, g.last_unix_ns - g.first_unix_ns)),
        "/totals/energyJoules": _energy(g),
        "/byPrecision": [
            {"pipe": kind.pipe, "format": kind.format, "flop": figure(part)}
            for kind, part in by_precision((*g.booked, *g.owed), g.models, g.table).items()
        ],
        **_method(g, *software),
        **_coverage(g),
        "/inventory/commitment": "sha256:" + rows_root(openings.devices).hex(),
        "/inventory/agentsCommitment": "sha256:" + rows_root(openings.agents).hex(),
        "/inventory/devices": _devices(g),
        "/inventory/hardwareAttested": None,
    }
    for r in _regimes(g, crossings):
        key = escaped(r.id)
        values[f"/totals/countable/{key}"] = _countable(g, r, excluded[r.id], log_index)
        values[f"/thresholds/{key}"] = _threshold(r, crossings[r.id])
    return Fields(
        values,
        openings,
        leaves,
        tuple(sorted({e.entry for found in excluded.values() for e in found})),
        sum(a["flop"] is None for a in g.document["lineage"]),
    )


def sum_leaves(g: Gathered, salted: Any) -> tuple[SumLeaf, ...]:
    """One for each group that is priced alike, then one for each of silent agents."""
    return tuple(
        SumLeaf(_sums(group), salted(f"/groups/{i}", _group(group, g.models)))
        for i, group in enumerate((*g.booked, *g.owed))
    )


def _sums(group: Priced) -> tuple[int, ...]:
    gap = group.key.evidence_class == EvidenceClass.GAP and not is_others(group.key.measured)
    duration_ns, energy_mj = group.sums[0], group.sums[-1]
    f = group.flop
    return (f.lower, f.point, f.upper, duration_ns, duration_ns if gap else 0, energy_mj)


def _group(group: Priced, models: Mapping[int, Model]) -> dict[str, str]:
    model = models[group.key.model_no]
    return {
        "model": model.name,
        "capability": model.compute_capability,
        "class": EvidenceClass(group.key.evidence_class).label,
        "measured": str(group.key.measured),
        "spread": str(group.key.spread_ppm),
        "dtype": group.key.dtype,
    }


def _names(g: Gathered) -> dict[str, Any]:
    return {
        "run": g.run,
        "jobs": sorted({m.job.job for m in g.members}),
        "users": sorted({m.user for m in g.members}),
        "owner": g.document["declared"]["owner"] if g.document["declared"] else None,
    }


def _kind(g: Gathered) -> str:
    """What most of its work was for, by the operator's word."""
    shares: dict[str, int] = {}
    for p in g.document["purposes"]:
        kind = _KINDS.get(p["purpose"], "other")
        shares[kind] = shares.get(kind, 0) + int(p["flop"]["upper"])
    return max(sorted(shares), key=lambda k: shares[k], default="other")


def _ancestor(a: Mapping[str, Any], opening: str) -> dict[str, Any]:
    relation = " / ".join(step.split(" ", 1)[0] for step in reversed(a["path"]))
    known = a["flop"]
    return {
        "relation": relation if known else f"{relation}; compute not known",
        "runCommitment": sha256(opening.encode()),
        "flopCarried": known or figure(Figure(0, 0, NO_BOUND)),
    }


def _linked(g: Gathered) -> dict[str, Any]:
    """Runs of the books that somebody linked this one to, over whatever links, either way; and all that they did."""
    near: dict[str, set[str]] = {}
    for link in g.registry.stands_on:
        near.setdefault(link.run, set()).add(link.parent)
        near.setdefault(link.parent, set()).add(link.run)
    found, queue = {g.run}, [g.run]
    for name in queue:
        fresh = near.get(name, set()) - found
        found |= fresh
        queue += sorted(fresh)
    works = [work for name in sorted(found - {g.run}) if (work := g.counting.work(name))]
    return {"count": str(len(works)), "flop": figure(total(s.flop for work in works for s in work))}


def _energy(g: Gathered) -> dict[str, Any]:
    unmeasured = g.figures.energy_unmeasured_ns + g.figures.gap_ns + g.figures.unreported_ns
    value = None if not g.figures.energy_mj and unmeasured else fraction(Fraction(g.figures.energy_mj, 1000))
    left = "; not all of the time was read" if unmeasured else ""
    return {"value": value, "boundary": f"the GPUs' boards, by their own counters{left}"}


def _regimes(g: Gathered, crossings: Mapping[str, Crossing]) -> list[Regime]:
    return [r for r in g.regimes if r.id in crossings]


def counted_of(g: Gathered, r: Regime) -> Figure:
    """What the regime compares, silent agents' upper bound included."""
    return document_figure(g.document["countable"][r.id]["flop"])


def _excluded(g: Gathered, r: Regime) -> list[Excluded]:
    """The run's own work that the profile leaves out. What it stands on is in `lineage`, in no executed total."""
    profile = r.counted_by
    if profile is None:
        return []
    parts: Sequence[Part] = g.counting.countable(g.run, profile).left_out
    return [
        Excluded(p.activity, counted(r, p.flop, p.integer_ops), max(p.entries))
        for p in parts
        if not p.of and p.entries
    ]


def _countable(
    g: Gathered, r: Regime, excluded: Sequence[Excluded], log_index: Mapping[int, int]
) -> dict[str, Any]:
    profile = r.counted_by
    return {
        "regime": r.id,
        "profileVersion": "executed"
        if profile is None
        else f"{profile.id} {profile.version} sha256:{profile.digest}",
        "flop": figure(counted_of(g, r)),
        "excluded": [
            {"tag": e.tag, "flop": figure(e.flop), "evidenceLogIndex": str(log_index[e.entry])}
            for e in excluded
        ],
    }


def _threshold(r: Regime, crossing: Crossing) -> dict[str, Any]:
    def when(unix_ns: int | None) -> str | None:
        return None if unix_ns is None else time_text(unix_ns)

    return {
        "rule": r.id,
        "ruleTableSha256": r.digest,
        "limit": str(r.threshold_flop),
        "comparison": r.comparison,
        "total": f"countable:{r.id}",
        "status": crossing.status.value,
        "firstCrossedAt": when(crossing.first_crossed_unix_ns),
        "knownWillBeMetAt": when(crossing.known_unix_ns),
        "eventLogIndex": None if crossing.event_index is None else str(crossing.event_index),
        "dueAt": when(crossing.due_unix_ns),
    }


def _method(g: Gathered, version: str, digest: str) -> dict[str, Any]:
    point = g.figures.flop.point
    classes: dict[str, int] = {}
    for group in g.booked:
        label = EvidenceClass(group.key.evidence_class).label
        classes[label] = classes.get(label, 0) + group.flop.point
    second = None
    if g.second is not None:
        declared, flop, agreement = g.second
        agrees = {"agrees": True, "disagrees": False}.get(agreement.value)
        second = {"id": declared.method, "flop": figure(flop), "agrees": agrees}
    return {
        "/method/id": METHOD,
        "/method/version": version,
        "/method/softwareDigest": f"sha256:{digest}",
        "/method/tables": [{"name": "w_table.toml", "sha256": g.table.digest}],
        "/method/evidenceClasses": [
            {"class": label, "flopShare": fraction(Fraction(n, point))}
            for label, n in sorted(classes.items())
            if n
        ],
        "/method/intervalMeaning": INTERVAL,
        "/method/within30Percent": Accuracy(g.figures.flop).within if point else None,
        "/method/secondMethod": second,
    }


def _coverage(g: Gathered) -> dict[str, Any]:
    f, seen = g.figures, g.seen
    gaps = [p for p in (*g.booked, *g.owed) if p.key.evidence_class == EvidenceClass.GAP]
    added = sum((p.flop for p in gaps), ZERO).upper
    count = seen.gaps + (g.silent_devices if f.unreported_ns else 0)
    longest = max(seen.longest_gap_ns, g.longest_owed_ns)
    return {
        "/coverage/expectedDeviceSeconds": seconds(f.expected_ns),
        "/coverage/observedDeviceSeconds": seconds(f.observed_ns),
        "/coverage/gaps": {
            "count": str(count),
            "seconds": seconds(f.gap_ns + f.unreported_ns),
            "longestSeconds": seconds(longest),
            "flopUpperAdded": str(added),
        },
        "/coverage/agents": {
            "expected": str(len(g.agent_ids)),
            "reporting": str(len(g.agent_ids) - len(g.silent_ids)),
        },
        "/coverage/devicesKnownNotReporting": str(g.not_reporting),
        "/coverage/sequenceBreaks": str(g.losses),
        "/coverage/cloneAlarms": str(g.forks),
        "/coverage/clockViolations": str(seen.clock_steps),
        "/coverage/unattributedFlop": {"upper": str(g.unattributed_upper)},
    }


def _devices(g: Gathered) -> list[dict[str, str]]:
    counts: dict[str, int] = {}
    for model in g.seen.devices.values():
        counts[model] = counts.get(model, 0) + 1
    return [{"model": model, "count": str(n)} for model, n in sorted(counts.items())]


def in_force_then(g: Gathered) -> list[Regime]:
    """Regimes whose line the run is held against: those that bind now."""
    return [r for r in g.regimes if r.has_line and in_force(r, g.now_unix_ns)]
