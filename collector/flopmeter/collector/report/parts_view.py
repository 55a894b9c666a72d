"""What one run's figure is made of, and how well it is known, for people. Pure: a document in, text out."""

from collections.abc import Iterable, Mapping
from typing import Any

from flopmeter.cli.layout import Paint, Row, hours, table
from flopmeter.cli.output import band_texts, flop_text, upper_text
from flopmeter.collector.law.accuracy import LIMIT_PERCENT

_NAME = 13  # where a line's text begins, as in runs_view


def accuracy_view(document: Mapping[str, Any], paint: Paint) -> list[str]:
    """Within 30 % (EU) or not, as metered and as declared, and the single number that is known best."""
    a = document["accuracy"]
    if a["below_percent"] is None:
        return []
    lines = [f"{_around(a)}: {_verdict(a, paint)} the EU's ±{LIMIT_PERCENT} %"]
    best, which = a["best_estimate"], ""
    declared = a["if_declared"]
    if declared is not None and not a["within"]:
        dtypes = " and ".join(document["declared_dtypes"])
        lines.append(f"{_around(declared)} if {dtypes} is true as declared: {_verdict(declared, paint)}")
        if declared["below_percent"] is not None:
            best, which = declared["best_estimate"], " then"
    lines += _calibrated(document, paint)
    if not a["within"] and best["percent"] is not None:
        good = best["percent"] <= LIMIT_PERCENT
        said = f"best single figure{which}: {flop_text(int(best['flop']))} FLOP ±{best['percent']:g} %"
        lines.append(said + (", within" if good else ""))
    if owed := document["coverage"]["gaps"].get("unreported", 0):
        lines.append(f"{hours(owed)} of silent agents are priced in it, from 0 to the most")
    return _named("accuracy", lines)


def _calibrated(document: Mapping[str, Any], paint: Paint) -> list[str]:
    claim = (document.get("declared") or {}).get("calibration")
    if claim is None:
        return []
    found = document["accuracy"]["if_calibrated"]
    if found is None:
        return [f"the calibration of {claim['model']} fits no GPU of this run: not taken"]
    return [f"{_around(found)} if the calibration of {claim['model']} is true: {_verdict(found, paint)}"]


def nominal_view(document: Mapping[str, Any]) -> list[str]:
    """Other countings of the same cycles: in no figure above."""
    lines = []
    ops = document["executed"]["integer_ops"]
    if int(ops["point"]):
        both = int(document["executed"]["flop_and_integer_ops"]["point"])
        said = f"{flop_text(int(ops['point']))} operations on tensor cores, counted apart"
        lines += _named("integer", [f"{said}; {flop_text(both)} together"])
    nominal = int(document["nominal_sparse_flop"])
    if nominal > int(document["executed"]["flop"]["upper"]):
        lines += _named(
            "sparse", [f"nominally up to {upper_text(nominal)} FLOP, had all tensor work been 2:4 sparse"]
        )
    return lines


def parts_view(document: Mapping[str, Any], paint: Paint) -> list[str]:
    """The figure by evidence class, by pipe and, where there are several, by device model."""
    classes = document["by_evidence_class"]
    if not classes:
        return []
    blocks = [_parts("class", classes, paint)]
    if len(document["by_model"]) > 1:
        blocks.append(_parts("model", document["by_model"], paint))
    pipes = [
        (
            f"{name} (integer)" if "integer_ops" in p else name,
            p.get("flop") or p["integer_ops"],
            p["sm_cycles"],
        )
        for name, p in document["by_pipe"].items()
        if int(p["sm_cycles"])
    ]
    if pipes:
        rows = [(name, figure, (flop_text(int(cycles)),)) for name, figure, cycles in pipes]
        blocks.append(_table("pipe", ("SM-cycles",), rows, paint))
    return [line for block in blocks for line in (*block, "")][:-1]


def _parts(name: str, parts: Mapping[str, Any], paint: Paint) -> list[str]:
    rows = [
        (label, part["flop"], (hours(part["device_seconds"]), _share(part["device_time_share"])))
        for label, part in parts.items()
    ]
    return _table(name, ("device time", "share"), rows, paint)


def _three(figure: Mapping[str, str]) -> tuple[str, str, str]:
    lower, point, upper = band_texts(figure)
    return point, lower, upper


def _table(
    name: str,
    more: tuple[str, ...],
    parts: Iterable[tuple[str, Mapping[str, str], tuple[str, ...]]],
    paint: Paint,
) -> list[str]:
    """Numbers to the right, under their heads."""
    head = ("point", "lower", "upper", *more)
    cells = [(label, (*_three(f), *rest)) for label, f, rest in parts]
    widths = [max(len(h), *(len(row[i]) for _, row in cells)) for i, h in enumerate(head)]
    rows: list[Row] = [
        [
            (f"  {label}", {"bold": True}),
            *((f"{text:>{width}}", {}) for text, width in zip(row, widths, strict=True)),
        ]
        for label, row in cells
    ]
    heads = [f"{h:>{width}}" for h, width in zip(head, widths, strict=True)]
    return table([f"  {name}", *heads], rows, paint).splitlines()


def _share(share: float) -> str:
    percent = int(share * 1000) / 10
    return f"{percent:.1f} %" if percent or not share else "under 0.1 %"


def _around(a: Mapping[str, Any]) -> str:
    if a["below_percent"] is None:
        return "nothing"
    return f"−{a['below_percent']:g} % / +{a['above_percent']:g} %"


def _verdict(a: Mapping[str, Any], paint: Paint) -> str:
    return paint("within", "green") if a["within"] else paint("not within", "yellow")


def _named(name: str, lines: Iterable[str]) -> list[str]:
    first, *rest = lines
    return [f"  {name:{_NAME - 2}}{first}", *(" " * _NAME + line for line in rest)]
