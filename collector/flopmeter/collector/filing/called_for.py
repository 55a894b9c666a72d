"""Which drafts the events call for: one line per run, kind and regime. Pure."""

from collections.abc import Iterable, Mapping
from typing import Any

from flopmeter.cli.layout import Paint, Row, table, wrapped
from flopmeter.collector.law.regimes import Regime

from .kinds import KINDS, Kind

_TYPES = ("threshold.crossed", "threshold.forecast", "threshold.undetermined")


def listing(events: Iterable[Mapping[str, Any]], regimes: Iterable[Regime]) -> dict[str, Any]:
    """`drafts list --json`. Of several events of one run and regime the first that calls for it is named."""
    here = {r.id: (r.act, r.replaces) for r in regimes}
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    for e in events:
        data = e["data"]
        regime, run = data.get("regime"), data.get("run")
        if e["type"] not in _TYPES or not run:
            continue
        act, replaces = here.get(regime, (data.get("act", ""), data.get("replaces")))
        kind = next((k.id for k in KINDS.values() if _calls_for(k, act, replaces or regime)), None)
        if kind is None:
            continue
        found.setdefault(
            (run, kind, regime),
            {
                "run": run,
                "kind": kind,
                "regime": regime,
                "event": e["id"],
                "type": e["type"],
                "time": e["time"],
            },
        )
    return {
        "kinds": [
            {"kind": k.id, "act": k.act, "what": k.what, "regime": k.regime or None} for k in KINDS.values()
        ],
        "called_for": list(found.values()),
    }


def _calls_for(kind: Kind, act: str, regime_id: str) -> bool:
    """A form is of one jurisdiction, the first word of a regime's id: no house rule is notified to the Commission."""
    of = regime_id.partition("-")[0]
    return kind.act == act and (not kind.regime or kind.regime.partition("-")[0] == of)


def listing_view(document: Mapping[str, Any], paint: Paint) -> str:
    """`drafts list` for people."""
    kinds: list[Row] = [((k["kind"], {"bold": True}), (k["what"], {})) for k in document["kinds"]]
    lines = [table(("kind", "what"), kinds, paint, cut=(1,)), ""]
    if not document["called_for"]:
        lines += wrapped(
            "No event calls for one yet; any can be made: flopmeter drafts make KIND RUN.",
            paint.width,
            "",
            "",
        )
        return "\n".join(lines)
    rows: list[Row] = [
        (
            (c["run"], {"bold": True}),
            (c["kind"], {}),
            (c["regime"], {}),
            (c["type"], {}),
            (c["time"][:10], {}),
        )
        for c in document["called_for"]
    ]
    lines.append(table(("run", "kind", "regime", "event", "since"), rows, paint, spare=(4, 2), cut=(0, 2)))
    return "\n".join(lines)
