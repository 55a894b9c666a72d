"""`flopmeter fleet list` for people: one line a node; what is wrong stands out. Pure: a document in, text out."""

import math
from collections.abc import Mapping
from typing import Any

from flopmeter.cli.output import seconds_text

from .layout import STATUS, Paint, Row, hours, table


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
        if n["fault"]:
            trouble.append(n["fault"])
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
    return f"{paint(summary, bold=True)}\n{table(head, rows, paint)}"


def _devices(node: Mapping[str, Any]) -> str:
    cut = node["entities"] - node["gpus"]
    return str(node["gpus"]) if cut <= 0 else f"{node['gpus']} ({node['entities']} MIG)"
