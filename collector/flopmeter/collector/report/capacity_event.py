"""fleet.capacity: a site's machines make a cluster as a law in force draws its line, or may. Pure.

Raised once per regime, site and answer: "met" where even what is known to stand there meets the line, "cannot be told"
where what nobody named decides. By whose machines, is the inventories of record: each agent's as of its last record.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from flopmeter.collector.law.events import FLEET_CAPACITY, NOT_RISK, NewEvent, law_json
from flopmeter.collector.law.regimes import Regime
from flopmeter.collector.law.rules import Verdict, capacity_verdict, in_force
from flopmeter.collector.law.standing import text_of
from flopmeter.collector.spelling import threshold_text
from flopmeter.contract.w_table import WTable

from .capacity import SITE_UNKNOWN, Capacity, capacities
from .sites import Place, Sites

#: How their keys begin.
CAPACITY_PREFIX = "capacity:"
#: Before a file's digest ("" without one): it is noted at each start, by which file of sites events are judged from
#: that position on. By name and not by value, so that of two starts at one position both stay.
SITES_PREFIX = "sites:"


def capacity_key(regime_id: str, c: Capacity, answer: Verdict) -> str:
    """What is not raised twice."""
    return f"{CAPACITY_PREFIX}{regime_id}:{_subject(c)}:{answer}"


def _subject(c: Capacity) -> str:
    return "fleet" if c.whole_fleet else f"site/{c.site}"


def capacity_events(
    regimes: Iterable[Regime],
    counts: Mapping[tuple[Place, str], int],
    sites: Sites,
    table: WTable,
    *,
    at_unix_ns: int,
    since_position: int,
    position: int,
) -> list[NewEvent]:
    """All that holds of `counts` (GPUs by place and model) under those of `regimes` that are in force then.

    A card whose peak nobody knows raises nothing by itself: one of it would make every site "cannot be told". It is
    named in the event, and in `fleet inventory`.
    """
    found = []
    for regime in regimes:
        if regime.capacity is None or not in_force(regime, at_unix_ns):
            continue
        for c in capacities(regime, counts, (), table):
            answer = capacity_verdict(c.op_s, regime)
            if answer is not Verdict.BELOW:
                found.append(
                    NewEvent(
                        key=capacity_key(regime.id, c, answer),
                        type=FLEET_CAPACITY,
                        subject=_subject(c),
                        time_unix_ns=at_unix_ns,
                        since_position=since_position,
                        position=position,
                        data=_data(regime, c, answer, sites, table),
                    )
                )
    return found


def _data(regime: Regime, c: Capacity, answer: Verdict, sites: Sites, table: WTable) -> dict[str, Any]:
    line = regime.capacity
    assert line is not None
    return {
        "message": _message(regime, c, answer),
        **law_json(regime),
        "site": None if c.whole_fleet or c.site == SITE_UNKNOWN else c.site,
        "whole_fleet": c.whole_fleet,
        "verdict": answer.value,
        "op_per_s": {"lower": str(c.op_s.lower), "upper": str(c.op_s.upper)},
        "open_above": list(c.open_above),
        "threshold_op_per_s": str(line.op_s),
        "network_over_gbit_per_s": line.network_gbit_s,
        "precision": line.precision,
        "gpus_sure": str(c.gpus),
        "regime_text": text_of(regime),
        "sites_digest": sites.digest,
        "w_table": table.id,
    }


def _message(regime: Regime, c: Capacity, answer: Verdict) -> str:
    line = regime.capacity
    assert line is not None
    if c.whole_fleet:
        where = "The whole fleet"
    else:
        where = f"Site {c.site}" if c.site != SITE_UNKNOWN else "The GPUs whose site nobody named"
    drawn = f"{regime.comparison} {threshold_text(line.op_s)} operations a second behind more than {line.network_gbit_s} Gbit/s"
    if answer is Verdict.CROSSED:
        said = f"is past the line of {regime.title} ({drawn}): {c.gpus} GPUs at their dense peak."
    else:
        said = (
            f"may be past the line of {regime.title} ({drawn}): it depends on GPUs whose site or network nobody named "
            "(docs/fleet.md)."
        )
    return f"{where} {said} {NOT_RISK}"
