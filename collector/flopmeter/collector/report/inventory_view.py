"""`flopmeter fleet inventory` for people. Pure: a document in, text out."""

from collections.abc import Mapping, Sequence
from typing import Any

from flopmeter.cli.layout import Paint, Row, table, wrapped
from flopmeter.cli.output import flop_text, lower_text, upper_text
from flopmeter.collector import empty
from flopmeter.collector.spelling import threshold_text

from .fleet_view import missing_view
from .peak import PRECISIONS

_VERDICTS = {
    "crossed": ("met", "red"),
    "undetermined": ("cannot be told", "yellow"),
    "below": ("below", "green"),
}


def inventory_view(document: Mapping[str, Any], paint: Paint) -> str:
    """Per cluster one table of models; a peak is of all GPUs of the line."""
    if not document["clusters"]:
        return empty.GPUS
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
    page += ["", *_sites(document, paint), *_capacity(document, paint), *_export_control(document, paint)]
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
    notes = [f"{c['share_of_1e20_op_per_s']:.2%} of 10^20 op/s at its widest"]
    if c["models_without_a_peak"]:
        notes.append(f"no peak in the table for {', '.join(c['models_without_a_peak'])}: not in the sums")
    if c["uncovered"]:
        notes.append(f"{c['uncovered']} cards that nothing meters are not in it")
    return [line for note in notes for line in wrapped(note, paint.width, "  ", "")]


def _sites(document: Mapping[str, Any], paint: Paint) -> list[str]:
    head = ("site", "nodes", "GPUs", "best op/s", "network, Gbit/s", "in no inventory")
    rows: list[Row] = [
        (
            (s["site"] or "(not known)", {"bold": s["site"] is not None}),
            (str(s["nodes"]), {}),
            (str(s["gpus"]), {}),
            (flop_text(int(s["best_op_per_s"])), {}),
            (_network(s), {}),
            (_absent(s["in_no_inventory"]), {}),
        )
        for s in document["sites"]
    ]
    said = (
        []
        if document["sites_file"]
        else ["Site and network are in no inventory: name them in a file (--sites, docs/fleet.md)."]
    )
    return [
        *table(head, rows, paint).splitlines(),
        *(line for t in said for line in wrapped(t, paint.width, "", "")),
        "",
    ]


def _network(site: Mapping[str, Any]) -> str:
    speeds = [str(n) for n in site["network_gbit_per_s"]]
    return ", ".join([*speeds, *(["not known"] if site["network_unknown_gpus"] else [])])


def _absent(found: Mapping[str, Any]) -> str:
    if not found["gpus"]:
        return "some" if found["and_more"] else ""
    return f"{found['gpus']}{' and more' if found['and_more'] else ''}"


def _capacity(document: Mapping[str, Any], paint: Paint) -> list[str]:
    """Each line, and every site's answer to it."""
    page: list[str] = []
    for line in document["capacity"]:
        drawn = f"{line['comparison']} {threshold_text(int(line['threshold_op_per_s']))} op/s"
        binds = "" if line["in_force"] else f" ({line['status']}: it binds nobody)"
        head = f"{line['regime']}: {drawn} behind more than {line['network_over_gbit_per_s']} Gbit/s{binds}"
        rows = [_answer(s, binds=line["in_force"]) for s in line["sites"]]
        page += [
            *wrapped(head, paint.width, "", ""),
            *table(("  site", "op/s", "answer"), rows, paint).splitlines(),
        ]
    if not page:
        return []
    said = (
        "A site's capacity lies between what is known to stand there behind a fast enough network, and that with what "
        "nobody named; ? is more, by GPUs of which too little is known. A line that binds nobody raises nothing."
    )
    return [*page, *wrapped(said, paint.width, "", ""), ""]


def _answer(s: Mapping[str, Any], *, binds: bool) -> Row:
    word, colour = _VERDICTS[s["verdict"]]
    low, high = s["op_per_s"]["lower"], s["op_per_s"]["upper"]
    most = "?" if high is None else upper_text(int(high))
    where = "(whole fleet)" if s["whole_fleet"] else s["site"] or "(not known)"
    return (
        (f"  {where}", {}),
        (flop_text(int(low)) if low == high else f"{lower_text(int(low))} to {most}", {}),
        (word, {"fg": colour if binds else None}),
    )


def _export_control(document: Mapping[str, Any], paint: Paint) -> list[str]:
    """Per card, in a table of its own: no operations, and in no sum."""
    cards: dict[str, Mapping[str, Any]] = {}
    for c in document["clusters"]:
        cards |= {m["model"]: m["export_control"] for m in c["models"]}
    rules: Sequence[Mapping[str, str]] = document["export_control_rules"]
    rows: list[Row] = [
        (
            (model, {}),
            (e["tpp"] or "not known", {}),
            (e["performance_density"] or "not known", {}),
            *((e["rules"][r["id"]], {}) for r in rules),
        )
        for model, e in sorted(cards.items())
    ]
    head = ("export control, per card", "TPP", "density", *(r["id"] for r in rules))
    said = (
        "TPP weights operations by their bit length; it is no FLOP and in no total. What a card is classified as, its "
        "maker says."
    )
    return [*table(head, rows, paint).splitlines(), *wrapped(said, paint.width, "", ""), ""]
