"""Estimates for people: what went in, the figure with its margin, the lines it reaches. Pure.

Figures are rounded for the eye only; verdicts come from exact integers.
"""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from flopmeter.cli.layout import Paint, folded, shortened, wrapped
from flopmeter.cli.output import band_texts, flop_text, lower_text, seconds_text, upper_text
from flopmeter.collector.spelling import threshold_text

_COLOURS = {"crossed": "red", "undetermined": "yellow", "below": "green"}
_AGAIN = {"selective": "attention", "full": "the whole forward pass"}
_AGREEMENT = {"agrees": "green", "disagrees": "red", "cannot tell": "yellow", "not metered": "yellow"}


def hardware_view(document: Mapping[str, Any], paint: Paint) -> str:
    """`estimate hardware`."""
    lines = [_head(document, paint), ""]
    for number, p in enumerate(document["periods"], 1):
        lines += _period(number, p, paint)
    lines += _figure(document, paint)
    share = int(document["flop"]["point"]) / int(document["ceiling_flop"])
    lines += [
        f"  ceiling    {flop_text(int(document['ceiling_flop']))} FLOP at U = 1: {share:.1%} of it is estimated",
        f"  time       {document['device_hours']:,.1f} device-hours",
    ]
    return "\n".join([*lines, *_thresholds(document, paint), *_remarks(document, paint)])


def _period(number: int, p: Mapping[str, Any], paint: Paint) -> list[str]:
    if p["said_as_device_hours"]:
        span = f"{p['device_hours']:,.1f} device-hours"
    elif p["start"]:
        span = f"{p['start'][:16]} to {p['end'][:16]} UTC ({seconds_text(p['seconds'])})"
    else:
        span = seconds_text(p["seconds"])
    title = p["name"] or f"period {number}"
    said = f"  {title}  {span} at U = {p['utilisation']:.1%}  {flop_text(int(p['flop']))} FLOP"
    first, *more = folded(said, paint.width).splitlines()
    lines = [first.replace(title, paint(title, bold=True), 1), *more]
    for h in p["hardware"]:
        units = "" if p["said_as_device_hours"] else f"{h['units']:,} x "
        peak = f"{int(h['peak_flop_per_s']) / 1e12:,.1f} TFLOP/s {h['dtype']}, dense"
        lines += folded(f"    {units}{h['sku'] or 'device'}  {peak}", paint.width).splitlines()
        lines += [paint(text, dim=True) for text in wrapped(h["peak_source"], paint.width, "      ", "")]
    return lines


def architecture_view(document: Mapping[str, Any], paint: Paint) -> str:
    """`estimate architecture`."""
    lines = [_head(document, paint), ""]
    per_token = document.get("per_token")
    if per_token is not None:
        forward, attention = int(per_token["matmul_forward_flop"]), int(per_token["attention_forward_flop"])
        said = f"  per token  {flop_text(int(per_token['model_flop']))} FLOP, 3 x forward"
        if attention:
            said += f"; attention is {attention / (forward + attention):.1%} of it"
        lines.append(said)
    if document["flop"] is not None:
        if document["model_flop"] != document["executed_flop"]:
            again = _AGAIN[document["recompute"]]
            lines += [
                f"  model      {flop_text(int(document['model_flop']))} FLOP, which learning needs",
                f"  executed   {flop_text(int(document['executed_flop']))} FLOP, {again} computed once more",
            ]
        lines += _figure(document, paint)
    speed = document.get("speed")
    if speed is not None:
        lines += _speed(speed, paint)
    thresholds = _thresholds(document, paint) if document["flop"] is not None else []
    return "\n".join([*lines, *thresholds, *_remarks(document, paint)])


def _speed(speed: Mapping[str, Any], paint: Paint) -> list[str]:
    peak = f"{speed['gpus']:,} GPUs of {speed['peak_flop_per_s'] / 1e12:,.1f} TFLOP/s, dense"
    mfu = paint(f"{speed['mfu']:.2%}", bold=True)
    lines = [
        *folded(
            f"  speed      {speed['tokens_per_second']:,.0f} tokens/s on {peak}", paint.width
        ).splitlines(),
        f"  MFU        {mfu}   HFU {speed['hfu']:.2%}",
    ]
    if speed["seconds"] is not None:
        lines.append(
            f"  takes      {seconds_text(speed['seconds'])} at that speed, {speed['device_hours']:,.1f} device-hours"
        )
    return lines


def _head(document: Mapping[str, Any], paint: Paint) -> str:
    kind = f"class {document['evidence_class']}: declared, not measured"
    said = f"Estimate by {document['method']}"
    formula = f"  C = {document['formula']}"
    first = paint(said, bold=True) + formula
    if len(said) + len(formula) + 2 + len(kind) <= paint.width:
        return f"{first}  {paint(kind, dim=True)}"
    return f"{first}\n{paint(kind, dim=True)}"


def _figure(document: Mapping[str, Any], paint: Paint) -> list[str]:
    flop = document["flop"]
    lower, upper = lower_text(int(flop["lower"])), upper_text(int(flop["upper"]))
    rounded = f"{document['two_figures']} FLOP"
    # What is printed digit by digit stays whole: on a line of its own where it is long.
    wide = 26 + len(rounded) + len(f"{int(flop['point']):,}") > paint.width
    gap = "\n" + " " * 13 if wide else "   "
    return [
        "",
        f"  estimate   {paint(rounded, bold=True)}{gap}unrounded {int(flop['point']):,}",
        f"  ±{document['margin_percent']} %      between {lower} and {upper}: the error that the EU accepts",
    ]


def _thresholds(document: Mapping[str, Any], paint: Paint) -> list[str]:
    rows = document["thresholds"]
    if not rows:
        return []
    width = max(len(r["regime"]) for r in rows)
    lines = [""]
    for r in rows:
        line = f"{r['comparison']} {threshold_text(int(r['threshold_flop']))}"
        later = "" if r["in_force"] else "  (not in force)"
        lines.append(
            f"  {r['regime']:<{width}}  {line:<8}  {paint(r['answer'], _COLOURS[r['verdict']])}{later}"
        )
    return lines


def _remarks(document: Mapping[str, Any], paint: Paint) -> list[str]:
    lines = [""]
    for remark in [*document["remarks"], document["note"]]:
        broken = textwrap.wrap(remark, paint.width - 2, initial_indent="  ", subsequent_indent="    ")
        fg = "yellow" if remark.startswith("warning") else None
        lines += [paint(text, fg, dim=fg is None) for text in broken]
    return lines


def peaks_view(rows: Sequence[Mapping[str, Any]], dtypes: Sequence[str], paint: Paint) -> str:
    """`estimate peaks`: dense TFLOP/s by model and dtype."""
    width = max(len(r["sku"]) for r in rows)
    lines = [
        paint(
            f"{'dense TFLOP/s':<{width}}"
            + "".join(f"{'bf16, fp16' if d == 'bf16' else d:>11}" for d in dtypes),
            bold=True,
        )
    ]
    for r in rows:
        cells = [r["peaks_flop_per_s"].get(d) for d in dtypes]
        shown = "".join(f"{int(c) / 1e12:>11,.1f}" if c else f"{'-':>11}" for c in cells)
        fitted = "" if r["confirmed"] else " not confirmed"
        lines.append(f"{r['sku']:<{width}}{shown}{paint(fitted, dim=True)}")
    return "\n".join(lines)


def comparison_view(rows: Sequence[Mapping[str, Any]], paint: Paint) -> str:
    """`estimate compare`: both methods beside each other."""
    lines = []
    for r in rows:
        upto = f"until {r['as_of'][:16]} UTC" if r["as_of"] else "whole run"
        lines.append(
            f"{paint(shortened(r['run'], paint.width - 40), bold=True)}  {paint(r['agreement'], _AGREEMENT[r['agreement']], bold=True)}  "
            f"{paint(upto, dim=True)}"
        )
        estimate, measured = r["estimate"], r["measured"]
        said = f"by {r['method']} ({r['formula']}), {r['by']}, {r['at'][:16]} UTC"
        lines.append(f"  estimate   {_three(estimate)}")
        lines += [paint(text, dim=True) for text in wrapped(said, paint.width, " " * 13, "")]
        if measured is None:
            lines.append("  counters   nothing: no record of it in this store")
            continue
        lines.append(f"  counters   {_three(measured)}")
        declared = r["if_declared"]
        if declared is not None:
            lower, _, upper = band_texts(declared["measured"])
            said = f"between {lower} and {upper} if the declared dtypes are true: {declared['agreement']}"
            lines += wrapped(said, paint.width, " " * 13, "")
        if r["measured_to_estimate"] is not None:
            factor = r["measured_to_estimate"]
            said = f"{factor:,.2f}" if factor >= 0.1 else f"{factor:.2g}"  # 0.00 would say nothing
            lines.append(f"  counters' point is {said} x the estimate")
        lines += [
            paint(text, dim=True)
            for text in textwrap.wrap(
                _WHY[r["agreement"]], paint.width - 4, initial_indent="  ", subsequent_indent="  "
            )
        ]
    return "\n".join(lines)


_WHY = {
    "agrees": "Whatever the true figure is within the counters' bounds, it is within 30 % of the estimate.",
    "disagrees": "No figure within the counters' bounds is within 30 % of the estimate: one of the two is wrong. Look for "
    "recomputation, a wrong dtype or peak, tokens counted twice, jobs that are missing from the run or do not belong to it.",
    "cannot tell": "The counters' bounds reach beyond the estimate's 30 %: neither agreement nor disagreement follows.",
}


def _three(figure: Mapping[str, str]) -> str:
    lower, point, upper = band_texts(figure)
    if not int(figure["point"]):
        return f"at most {upper} FLOP: nothing here has a point"
    return f"{point} FLOP, between {lower} and {upper}"
