"""Whether a site's machines make a cluster as a law draws its line: 10^20 operations a second behind a fast network. Pure.

What is not known widens the answer and never settles it. The lower bound holds the GPUs that are known to stand at the
site behind a network that is known to be faster than the line asks for; the upper bound besides those whose network,
or site, nobody named. GPUs whose peak is not known, and GPUs that are known to exist and stand in no inventory, leave
the upper bound open: then it cannot be told that a site is below (reference/regulations.md 13.23).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from flopmeter.collector.law.regimes import ANY_PRECISION, Regime
from flopmeter.collector.law.rules import Verdict, capacity_verdict, in_force
from flopmeter.contract.flop import Figure
from flopmeter.contract.w_table import WTable

from .peak import best_op_s, peaks_op_s
from .sites import Place

#: Where a line is not of one datacenter: all sites together.
FLEET = "fleet"
SITE_UNKNOWN = ""


@dataclass(frozen=True, slots=True)
class Capacity:
    """One site (or the fleet) under one regime. Operations a second; the point is the lower bound: nothing is guessed."""

    site: str  # SITE_UNKNOWN: of the GPUs whose site nobody named
    whole_fleet: bool
    op_s: Figure
    open_above: tuple[str, ...]  # why the upper bound is not one; empty: it is
    verdict: Verdict
    gpus: int  # in the lower bound


@dataclass(frozen=True, slots=True)
class Unseen:
    """GPUs known to exist and in no inventory. `gpus` None: nobody knows how many."""

    site: str
    gpus: int | None


def capacities(
    regime: Regime, counts: Mapping[tuple[Place, str], int], unseen: Iterable[Unseen], table: WTable
) -> list[Capacity]:
    """Every site by name, then the fleet where the line is not of one datacenter. `regime` has a capacity.

    `counts`: GPUs by where they stand and by model.
    """
    line = regime.capacity
    assert line is not None
    fast = {
        key: n
        for key, n in counts.items()
        if n
        and not (key[0].network_gbit_per_s is not None and key[0].network_gbit_per_s <= line.network_gbit_s)
    }
    worth = _worth(line.precision, {model for _, model in fast}, table)
    unseen = list(unseen)
    sites = sorted({place.site for (place, _), n in counts.items() if n} | {u.site for u in unseen})
    result = [_site(regime, site, fast, unseen, worth) for site in sites]
    if not line.one_datacenter:
        result.append(_whole(regime, result, fast, unseen, worth))
    return result


def _site(
    regime: Regime,
    site: str,
    fast: Mapping[tuple[Place, str], int],
    unseen: Iterable[Unseen],
    worth: Mapping[str, int | None],
) -> Capacity:
    """`fast`: what stands behind a network that is fast enough, or of which nobody said how fast it is."""
    sure, most, gpus = 0, 0, 0
    strange: set[str] = set()
    for (place, model), n in fast.items():
        if place.site not in (site, SITE_UNKNOWN):
            continue  # known to stand elsewhere
        op_s = worth[model]
        if op_s is None:
            strange.add(f"no peak is known of {model}")
            continue
        most += n * op_s
        if place.site == site != SITE_UNKNOWN and place.network_gbit_per_s is not None:
            sure, gpus = sure + n * op_s, gpus + n
    strange |= {_unseen(u) for u in unseen if u.site in (site, SITE_UNKNOWN)}
    return _capacity(regime, site, Figure(sure, sure, most), strange, gpus)


def _whole(
    regime: Regime,
    sites: list[Capacity],
    fast: Mapping[tuple[Place, str], int],
    unseen: Iterable[Unseen],
    worth: Mapping[str, int | None],
) -> Capacity:
    """All sites as one: whether a network joins them is not known, so that the largest of them is the lower bound."""
    largest = max(sites, key=lambda c: c.op_s.lower, default=None)
    sure, gpus = (0, 0) if largest is None else (largest.op_s.lower, largest.gpus)
    strange = {f"no peak is known of {model}" for _, model in fast if worth[model] is None}
    strange |= {_unseen(u) for u in unseen}
    most = sum(n * (worth[model] or 0) for (_, model), n in fast.items())
    return _capacity(regime, FLEET, Figure(sure, sure, most), strange, gpus, whole_fleet=True)


def _worth(precision: str, models: Iterable[str], table: WTable) -> dict[str, int | None]:
    """Operations a second of one GPU of each model; None: not known. A precision that a model lacks is none of it."""
    worth: dict[str, int | None] = {}
    for model in models:
        peaks = peaks_op_s(model, table)
        if not peaks:
            worth[model] = None
        else:
            worth[model] = best_op_s(peaks) if precision == ANY_PRECISION else peaks.get(precision, 0)
    return worth


def _unseen(u: Unseen) -> str:
    return "GPUs that exist are in no inventory" if u.gpus is None or u.gpus else ""


def _capacity(
    regime: Regime, site: str, op_s: Figure, strange: set[str], gpus: int, *, whole_fleet: bool = False
) -> Capacity:
    open_above = tuple(sorted(strange - {""}))
    answer = capacity_verdict(op_s, regime)
    if answer is Verdict.BELOW and open_above:
        answer = Verdict.UNDETERMINED
    return Capacity(site, whole_fleet, op_s, open_above, answer, gpus)


def capacity_document(regime: Regime, found: Iterable[Capacity], now_unix_ns: int) -> dict[str, Any]:
    """`fleet inventory --json`, one of "capacity"; op/s as decimal strings."""
    line = regime.capacity
    assert line is not None
    return {
        "regime": regime.id,
        "title": regime.title,
        "status": regime.status,
        "in_force": in_force(regime, now_unix_ns),
        "threshold_op_per_s": str(line.op_s),
        "comparison": regime.comparison,
        "network_over_gbit_per_s": line.network_gbit_s,
        "precision": line.precision,
        "one_datacenter": line.one_datacenter,
        "regime_version": regime.version,
        "regime_digest": regime.digest,
        "sites": [site_json(c) for c in found],
    }


def site_json(c: Capacity) -> dict[str, Any]:
    """One answer. "site" null: of the GPUs whose site is not known; or of the whole fleet, which it says."""
    return {
        "site": None if c.whole_fleet or c.site == SITE_UNKNOWN else c.site,
        "whole_fleet": c.whole_fleet,
        "op_per_s": {"lower": str(c.op_s.lower), "upper": None if c.open_above else str(c.op_s.upper)},
        "known_op_per_s": str(c.op_s.upper),
        "open_above": list(c.open_above),
        "gpus_sure": c.gpus,
        "verdict": c.verdict.value,
    }
