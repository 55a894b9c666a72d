"""`flopmeter fleet inventory` for people. Pure: a document in, text out."""

from collections.abc import Mapping
from typing import Any

from flopmeter.cli.output import flop_text

from .fleet_view import missing_view
from .inventory import PRECISIONS
from .layout import Paint, Row, table, wrapped


def inventory_view(document: Mapping[str, Any], paint: Paint) -> str:
    """Per cluster one table of models; a peak is of all GPUs of the line."""
    if not document["clusters"]:
        return "no GPUs yet: start an agent (flopmeter agent run) and admit its key"
    page: list[str] = []
    for c in document["clusters"]:
        name = c["cluster"] or "(no cluster named)"
        page += [f"{paint(name, bold=True)}  {c['nodes']} nodes, {c['gpus']} GPUs"]
        page += _models(c, paint)
        page += _notes(c, paint)
        page.append("")
    page += wrapped(
        f"Dense peaks, never sparse: SMs × rate × official clock, table {document['w_table']}. Operations of different "
        "widths are not weighted and not added.",
        paint.width,
        "",
        "",
    )
    return "\n".join([*page, *missing_view(document["not_reporting"], paint)])


def _models(c: Mapping[str, Any], paint: Paint) -> list[str]:
    known = [p for p in PRECISIONS if p in c["peak_op_per_s"]]
    head = ("  model", "GPUs", *(f"{p} op/s" for p in known))
    rows: list[Row] = [
        (
            (f"  {m['model']}", {"bold": True}),
            (str(m["gpus"]), {}),
            *((flop_text(int(m["peak_op_per_s"][p])) if p in m["peak_op_per_s"] else "-", {}) for p in known),
        )
        for m in c["models"]
    ]
    if len(rows) > 1:
        sums = [flop_text(int(c["peak_op_per_s"][p])) for p in known]
        rows.append((("  all", {}), (str(c["gpus"]), {}), *((text, {}) for text in sums)))
    spare = [2 + known.index(p) for p in ("fp64", "fp32", "tf32") if p in known]
    return table(head, rows, paint, spare=spare).splitlines()


def _notes(c: Mapping[str, Any], paint: Paint) -> list[str]:
    share = c["share_of_1e20_op_per_s"]
    notes = [f"{share:.2%} of 10^20 op/s at its widest; the network's speed is not known here"]
    if c["models_without_a_peak"]:
        notes.append(f"no peak in the table for {', '.join(c['models_without_a_peak'])}: not in the sums")
    if c["uncovered"]:
        notes.append(f"{c['uncovered']} cards that nothing meters are not in it")
    return [line for note in notes for line in wrapped(note, paint.width, "  ", "")]
