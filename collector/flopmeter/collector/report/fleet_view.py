"""`flopmeter fleet list` for people: what is missing first, and thousands of nodes do not scroll it away. Pure."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from flopmeter.cli.layout import STATUS, Paint, Row, hours, table, wrapped
from flopmeter.cli.output import band_texts, seconds_text
from flopmeter.collector import empty

from .clock_text import clocks_said, offset_text

MAX_NODES_NAMED = 4
MAX_MISSING_SHOWN = 40
MAX_SMALL = 30  # nodes of a fleet that are shown one by one, whatever they are
MAX_NEEDING_SHOWN = 40
MAX_KINDS_SHOWN = 12
_MUCH = 0.5  # of a node's time, that nobody owned


_MODES = {
    "persistence_off": "Persistence mode is off on {gpus} GPUs of {nodes}: when the last client leaves, the driver may "
    "unload and its counters start again. Turn it on: nvidia-smi -pm 1, or nvidia-persistenced.",
    "confidential": "Confidential-computing mode is on for {gpus} GPUs of {nodes}: NVIDIA says that performance counters "
    "are off in it, so that such a GPU may be metered worse, or not at all.",
}


def fleet_view(fleet: Mapping[str, Any], paint: Paint, *, every: bool = False) -> str:
    """`fleet list`: what is missing, then the nodes that need somebody, then the rest by kind; `every`: a line for each."""
    if not fleet["nodes"]:
        return empty.NODES
    states = ", ".join(f"{count} {name}" for name, count in sorted(fleet["nodes_by_status"].items()))
    share = math.floor(fleet["unattributed_share"] * 1000) / 10
    summary = (
        f"{fleet['nodes_total']} nodes ({states}), {fleet['gpus']} GPUs · {hours(fleet['device_seconds'])} metered, "
        f"{hours(fleet['idle_device_seconds'])} idle, {share:.1f} % unattributed"
    )
    page = [paint(line, bold=True) for line in wrapped(summary, paint.width, "", "")]
    page += _coverage(fleet["coverage"], paint)
    page += missing_view(fleet["not_reporting"], paint)
    page += _every(fleet, paint) if every or len(fleet["nodes"]) <= MAX_SMALL else _needing(fleet, paint)
    for note in (
        *_unattributed(fleet),
        *_libraries(fleet),
        *_uncovered(fleet),
        *_modes(fleet),
        *clocks_said(fleet),
        *_faults(fleet),
    ):
        page += ["", *wrapped(note, paint.width, "  ", "")]
    return "\n".join(page)


def _every(fleet: Mapping[str, Any], paint: Paint) -> list[str]:
    return ["", *_nodes_table(fleet["nodes"], paint)]


def _needing(fleet: Mapping[str, Any], paint: Paint) -> list[str]:
    """The nodes that somebody should look at, the worst first; the others as one line for each kind."""
    needing = [n for n in fleet["nodes"] if needs_somebody(n)]
    page = []
    if needing:
        page = ["", paint(f"{len(needing)} of {fleet['nodes_total']} nodes need somebody", bold=True)]
        page += _nodes_table(sorted(needing, key=_grave)[:MAX_NEEDING_SHOWN], paint)
        if len(needing) > MAX_NEEDING_SHOWN:
            page.append(f"  and {len(needing) - MAX_NEEDING_SHOWN} more; --all has each of them")
    rest: dict[str, list[int]] = {}
    for n in fleet["nodes"]:
        if not needs_somebody(n):
            kind = f"{n['status']}, {', '.join(n['models']) or 'no GPU'}, class {' '.join(n['last_window']['classes']) or '-'}"
            counts = rest.setdefault(kind, [0, 0])
            counts[0] += 1
            counts[1] += n["gpus"]
    if rest:
        page += ["", paint("In order" if needing else "All in order", bold=True)]
        for kind, (nodes, gpus) in sorted(rest.items(), key=lambda item: -item[1][0])[:MAX_KINDS_SHOWN]:
            page += wrapped(f"{nodes} nodes, {gpus} GPUs: {kind}", paint.width, "    ", "  ")
        if len(rest) > MAX_KINDS_SHOWN:
            page.append(f"  and {len(rest) - MAX_KINDS_SHOWN} more kinds")
        page.append(paint("  (--all has a line for each node)", dim=True))
    return page


def needs_somebody(n: Mapping[str, Any]) -> bool:
    """Whether a node is not metered as it should be, or tells of what cannot be."""
    return bool(n["status"] in ("silent", "never") or _gap(n) or _unowned(n) >= _MUCH or _trouble(n))


def _grave(n: Mapping[str, Any]) -> tuple[bool, bool, float, str]:
    """Silent ones first, those that tell of trouble next, then by how much is missing."""
    return n["status"] not in ("silent", "never"), not _trouble(n), -_gap(n), n["node"]


def _gap(n: Mapping[str, Any]) -> float:
    window = n["last_window"]
    return float(window["gap_seconds"] / (window["device_seconds"] or 1.0))


def _unowned(n: Mapping[str, Any]) -> float:
    window = n["last_window"]
    return float(window["unattributed_seconds"] / (window["device_seconds"] or 1.0))


def _trouble(n: Mapping[str, Any]) -> str:
    found = [
        f"{n[key]} {word}"
        for key, word in (
            ("conflicts", "conflicts"),
            ("lost_records", "lost"),
            ("refused_records", "refused"),
        )
        if n[key]
    ]
    if n["uncovered"]:
        found.append(f"{len(n['uncovered'])} not metered")
    if n["library_differs"]:
        found.append("library differs")
    if n["clock_offset"] is not None and n["clock_offset"]["surely_off"]:
        found.append("clock off")
    if n["fault"]:
        found.append("unreadable")
    return "; ".join(found)


def _nodes_table(nodes: Iterable[Mapping[str, Any]], paint: Paint) -> list[str]:
    """One line a node; what is wrong stands out."""
    head = ("node", "", "GPUs", "model", "class", "lag", "clock", "gap", "unattributed", "trouble")
    rows: list[Row] = []
    for n in nodes:
        mark, fg = STATUS[n["status"]]
        gap, unowned = _gap(n), _unowned(n)
        rows.append(
            (
                (n["node"], {"bold": True}),
                (f"{mark} {n['status']}", {"fg": fg}),
                (_devices(n), {}),
                (", ".join(n["models"]), {}),
                (" ".join(n["last_window"]["classes"]), {}),
                (seconds_text(n["lag_seconds"]) if n["lag_seconds"] is not None else "-", {}),
                (offset_text(n["clock_offset"]) if n["clock_offset"] is not None else "-", {}),
                (f"{gap:.0%}" if gap else "", {"fg": "yellow"}),
                (f"{unowned:.0%}" if unowned else "", {"fg": "yellow"}),
                (_trouble(n), {"fg": "red"}),
            )
        )
    return table(
        head, rows, paint, spare=(6, 5, 3), cut=(9, 0)
    ).splitlines()  # clock, lag, model; trouble, node


def _coverage(c: Mapping[str, Any], paint: Paint) -> list[str]:
    """Expected against observed, and what the gap is made of."""
    expected, gap = c["expected_device_seconds"], c["gap_device_seconds"]
    if not expected:
        return []
    observed = math.floor((1 - gap / expected) * 1000) / 10
    said = f"coverage: {observed:.1f} % of {hours(expected)} expected"
    gaps = ", ".join(f"{name} {hours(s)}" for name, s in c["gaps"].items())
    return wrapped(said + (f"; gaps: {gaps}" if gaps else ""), paint.width, "", "")


def missing_view(found: Sequence[Mapping[str, Any]], paint: Paint) -> list[str]:
    """GPUs that exist and do not report, one line for each node and cause, the longest missing first."""
    if not found:
        return []
    lines = ["", paint("Known to exist and not reporting", bold=True)]
    ranked = sorted(found, key=lambda m: (m["since"] is None, m["since"] or "", m["node"]))
    rows: list[Row] = [
        (
            (f"  {m['node']}", {"bold": True}),
            ("?" if m["gpus"] is None else str(m["gpus"]), {}),
            (m["cause"], {"fg": "red"}),
            ((m["since"] or "")[:16].replace("T", " ") or "not known", {}),
            (m["what"], {"dim": True}),
        )
        for m in ranked[:MAX_MISSING_SHOWN]
    ]
    head = ("  node", "GPUs", "cause", "since (UTC)", "what")
    lines += table(head, rows, paint, cut=(4, 0)).splitlines()
    if len(ranked) > MAX_MISSING_SHOWN:
        lines.append(f"  and {len(ranked) - MAX_MISSING_SHOWN} more; --json has all")
    return lines


def _unattributed(fleet: Mapping[str, Any]) -> Iterable[str]:
    found = fleet["unattributed"]
    if found["device_seconds"]:
        yield unattributed_text(found)


def unattributed_text(found: Mapping[str, Any]) -> str:
    """What nobody owned, with its FLOP: said wherever totals of runs are."""
    lower, point, upper = band_texts(found["flop"])
    return (
        f"Unattributed, in no run: {hours(found['device_seconds'])}, {point} FLOP, between {lower} and {upper}. Busy GPUs "
        "that no job owned, or time of which nobody knows the owner."
    )


def _libraries(fleet: Mapping[str, Any]) -> Iterable[str]:
    for d in fleet["library_disagreements"]:
        told = "; ".join(
            f"{library['path'] or 'path not known'} ({library['sha256'][:12] or 'hash not known'}) on {_nodes(library['nodes'])}"
            for library in d["libraries"]
        )
        yield (
            f"NVML libraries differ among nodes of driver {d['driver']}: {told}. An altered library can tell any counter: "
            "compare the file with the one in the driver's package."
        )


def _uncovered(fleet: Mapping[str, Any]) -> Iterable[str]:
    found: dict[tuple[str, str, str], list[str]] = {}
    for n in fleet["nodes"]:
        for u in n["uncovered"]:
            found.setdefault((u["vendor"], u["model"], u["reason"]), []).append(n["node"])
    for (vendor, model, reason), nodes in sorted(found.items()):
        yield f"Not metered: {len(nodes)} × {vendor} {model} on {_nodes(sorted(set(nodes)))}: {reason}"


def _faults(fleet: Mapping[str, Any]) -> Iterable[str]:
    for n in fleet["nodes"]:
        if n["fault"]:
            yield f"The last record of {n['node']} cannot be read: {n['fault']}"


def _modes(fleet: Mapping[str, Any]) -> Iterable[str]:
    for key, said in _MODES.items():
        nodes = [n for n in fleet["nodes"] if n[key]]
        if nodes:
            yield said.format(gpus=sum(n[key] for n in nodes), nodes=_nodes([n["node"] for n in nodes]))


def _nodes(names: Sequence[str]) -> str:
    shown = ", ".join(names[:MAX_NODES_NAMED])
    return shown if len(names) <= MAX_NODES_NAMED else f"{shown} and {len(names) - MAX_NODES_NAMED} more"


def _devices(node: Mapping[str, Any]) -> str:
    cut = node["entities"] - node["gpus"]
    return str(node["gpus"]) if cut <= 0 else f"{node['gpus']} ({node['entities']} MIG)"
