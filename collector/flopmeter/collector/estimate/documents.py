"""What `flopmeter estimate … --json` prints, with the keys that people script against. Pure.

FLOP are decimal strings; times and shares are floats, for display.
"""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from flopmeter.collector.law.events import NOT_RISK
from flopmeter.collector.spelling import figure_json, time_text
from flopmeter.contract.evidence_class import EvidenceClass
from flopmeter.contract.flop import Figure

from .architecture import Architecture, Shape, Speed
from .compare import compare, ratio
from .declared import Declared
from .hardware import Period, device_seconds, remarks, total
from .margin import MARGIN_PERCENT, NOTIFIED_FIGURES, Line, margin
from .numbers import figures, rounded

CLASS_D = "declared, not measured: as good as what was put in"


def _estimate(method: str, formula: str, flop: int, lines: Sequence[Line], w_table: str) -> dict[str, Any]:
    return {
        "method": method,
        "formula": formula,
        "evidence_class": EvidenceClass.D.label,
        "flop": figure_json(margin(flop)),
        "margin_percent": MARGIN_PERCENT,
        "two_figures": figures(flop, NOTIFIED_FIGURES),
        "thresholds": [_threshold(line) for line in lines],
        "w_table": w_table,
        "note": f"Evidence class D: {CLASS_D}. {NOT_RISK}",
    }


def _threshold(line: Line) -> dict[str, Any]:
    r = line.regime
    return {
        "regime": r.id,
        "title": r.title,
        "in_force": line.in_force,
        "threshold_flop": str(r.threshold_flop),
        "comparison": r.comparison,
        "counting": r.counting,
        "verdict": line.verdict.value,
        "reached": line.reached,
        "rounding_hides": line.rounding_hides,
        "answer": line.answer,
    }


def hardware_document(periods: Sequence[Period], lines: Sequence[Line], w_table: str) -> dict[str, Any]:
    """`estimate hardware --json`."""
    formula = "N x L x H x U" if len(periods) == 1 else "sum of N x L x H x U over periods"
    return {
        **_estimate("hardware", formula, total(periods), lines, w_table),
        "device_hours": float(device_seconds(periods) / 3600),
        "ceiling_flop": str(rounded(sum((p.ceiling for p in periods), Fraction(0)))),
        "periods": [_period(p) for p in periods],
        "remarks": remarks(periods),
    }


def _period(p: Period) -> dict[str, Any]:
    return {
        "name": p.name,
        "seconds": float(p.seconds),
        "start": time_text(p.start_unix_ns) if p.start_unix_ns is not None else None,
        "end": time_text(p.end_unix_ns) if p.end_unix_ns is not None else None,
        "device_hours": float(p.units * p.seconds / 3600),
        "said_as_device_hours": p.device_hours,
        "utilisation": float(p.utilisation),
        "mean_peak_flop_per_s": float(p.mean_peak),
        "hardware": [
            {
                "units": h.units,
                "sku": h.peak.device,
                "dtype": h.peak.dtype,
                "peak_flop_per_s": str(rounded(h.peak.flop_per_s)),
                "peak_source": h.peak.source,
                "peak_confirmed": h.peak.confirmed,
            }
            for h in p.hardware
        ],
        "flop": str(rounded(p.flop)),
    }


def architecture_document(
    shape: Shape, lines: Sequence[Line], w_table: str, speed: Speed | None = None
) -> dict[str, Any]:
    """`estimate architecture --json`. Without tokens there is no total: flop is null, the rates stand."""
    document = {
        **_estimate("architecture", shape.formula, shape.executed_flop, lines, w_table),
        "model_flop": str(shape.model_flop),
        "executed_flop": str(shape.executed_flop),
        "remarks": shape.remarks(),
    }
    if not isinstance(shape, Architecture):
        return document
    document["recompute"] = shape.recompute
    document["per_token"] = {
        "matmul_forward_flop": str(shape.matmul_per_token),
        "attention_forward_flop": str(shape.attention_per_token),
        "model_flop": str(shape.model_per_token),
        "executed_flop": str(shape.executed_per_token),
    }
    if not shape.tokens:
        document |= {"flop": None, "two_figures": None, "model_flop": None, "executed_flop": None}
    if speed is not None:
        document["speed"] = _speed(shape, speed)
    return document


def _speed(shape: Architecture, speed: Speed) -> dict[str, Any]:
    seconds = float(shape.tokens / speed.tokens_per_s) if shape.tokens else None
    return {
        "tokens_per_second": float(speed.tokens_per_s),
        "gpus": speed.gpus,
        "peak_flop_per_s": float(speed.peak_flop_per_s),
        "mfu": float(speed.mfu(shape)),
        "hfu": float(speed.hfu(shape)),
        "seconds": seconds,
        "device_hours": seconds * speed.gpus / 3600 if seconds is not None else None,
    }


def comparison_document(
    d: Declared, measured: Figure | None, if_declared: Figure | None = None
) -> dict[str, Any]:
    """One line of `estimate compare --json`; `measured` None: the store has no such run.

    `if_declared`: what the counters say if the jobs' declared dtypes are true; a claim, so that it decides nothing.
    """
    points = ratio(measured, d.flop) if measured is not None else None
    return {
        "run": d.run,
        "method": d.method,
        "formula": d.formula,
        "by": d.by,
        "at": time_text(d.at_unix_ns),
        "as_of": time_text(d.as_of_unix_ns) if d.as_of_unix_ns is not None else None,
        "estimate": figure_json(margin(d.flop)),
        "measured": figure_json(measured) if measured is not None else None,
        "measured_to_estimate": float(f"{float(points):.4g}") if points is not None else None,
        "agreement": compare(measured, d.flop).value if measured is not None else "not metered",
        "if_declared": {
            "measured": figure_json(if_declared),
            "agreement": compare(if_declared, d.flop).value,
        }
        if if_declared is not None
        else None,
        "digest": d.digest,
    }
