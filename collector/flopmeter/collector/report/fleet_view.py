"""`flopmeter fleet list` for people: one line a node; what is wrong stands out. Pure: a document in, text out."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from flopmeter.cli.output import flop_text, seconds_text

from .layout import STATUS, Paint, Row, hours, table, wrapped

MAX_NODES_NAMED = 4
MAX_MISSING_SHOWN = 40


_MODES = {
    "persistence_off": "Persistence mode is off on {gpus} GPUs of {nodes}: when the last client leaves, the driver may "
    "unload and its counters start again. Turn it on: nvidia-smi -pm 1, or nvidia-persistenced.",
    "confidential": "Confidential-computing mode is on for {gpus} GPUs of {nodes}: NVIDIA says that performance counters "
    "are off in it, so that such a GPU may be metered worse, or not at all.",
}


def fleet_view(fleet: Mapping[str, Any], paint: Paint) -> str:
    """`fleet list`: one line a node; what is wrong stands out."""
    if not fleet["nodes"]:
        return "no nodes yet: start an agent (flopmeter agent run) and admit its key"
    states = ", ".join(f"{count} {name}" for name, count in sorted(fleet["nodes_by_status"].items()))
    share = math.floor(fleet["unattributed_share"] * 1000) / 10
    head = ("node", "", "GPUs", "model", "class", "lag", "gap", "unattributed", "trouble")
    rows: list[Row] = []
    for n in fleet["nodes"]:
        mark, fg = STATUS[n["status"]]
        window = n["last_window"]
        whole = window["device_seconds"] or 1.0
        trouble = [
            f"{n[key]} {word}"
            for key, word in (
                ("conflicts", "conflicts"),
                ("lost_records", "lost"),
                ("refused_records", "refused"),
            )
            if n[key]
        ]
        if n["uncovered"]:
            trouble.append(f"{len(n['uncovered'])} not metered")
        if n["library_differs"]:
            trouble.append("library differs")
        if n["fault"]:
            trouble.append("unreadable")
        gap, unowned = window["gap_seconds"] / whole, window["unattributed_seconds"] / whole
        rows.append(
            (
                (n["node"], {"bold": True}),
                (f"{mark} {n['status']}", {"fg": fg}),
                (_devices(n), {}),
                (", ".join(n["models"]), {}),
                (" ".join(n["last_window"]["classes"]), {}),
                (seconds_text(n["lag_seconds"]) if n["lag_seconds"] is not None else "-", {}),
                (f"{gap:.0%}" if gap else "", {"fg": "yellow"}),
                (f"{unowned:.0%}" if unowned else "", {"fg": "yellow"}),
                ("; ".join(trouble), {"fg": "red"}),
            )
        )
    summary = (
        f"{fleet['nodes_total']} nodes ({states}), {fleet['gpus']} GPUs · {hours(fleet['device_seconds'])} metered, "
        f"{hours(fleet['idle_device_seconds'])} idle, {share:.1f} % unattributed"
    )
    page = [paint(line, bold=True) for line in wrapped(summary, paint.width, "", "")]
    page += _coverage(fleet["coverage"], paint)
    page.append(table(head, rows, paint, spare=(5, 3), cut=(8, 0)))  # lag, model; trouble, node
    page += missing_view(fleet["not_reporting"], paint)
    for note in (
        *_unattributed(fleet),
        *_libraries(fleet),
        *_uncovered(fleet),
        *_modes(fleet),
        *_faults(fleet),
    ):
        page += ["", *wrapped(note, paint.width, "  ", "")]
    return "\n".join(page)


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
    point, lower, upper = (flop_text(int(found["flop"][k])) for k in ("point", "lower", "upper"))
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
