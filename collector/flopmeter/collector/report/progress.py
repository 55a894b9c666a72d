"""Declared beside measured in a run's report: claims of training code, the counters, MFU and HFU. Pure.

    MFU = claimed model FLOP / (device time x dense peak)      HFU = executed FLOP / (device time x dense peak)

both over the hours that have claims (docs/what-the-numbers-mean.md). The peak is that of the dtype which the run's
jobs declare, BF16 where they declare none or several; without a peak for every model there is no utilisation.
"""

from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any

from flopmeter.collector.errors import EstimateError
from flopmeter.collector.estimate.compare import Agreement
from flopmeter.collector.estimate.margin import MARGIN_PERCENT
from flopmeter.collector.estimate.peaks import DEFAULT_DTYPE, DTYPES, dense, find
from flopmeter.collector.figures import Model
from flopmeter.collector.law.progress import side_of
from flopmeter.collector.law.progress_measured import Beside, claims_json
from flopmeter.collector.spelling import figure_json
from flopmeter.contract.flop import Figure
from flopmeter.contract.w_table import WTable

_SECOND_NS = 1_000_000_000
_DIGITS = 10**6


def progress_document(
    found: Beside,
    models: Mapping[int, Model],
    table: WTable,
    dtypes: Iterable[str],
    *,
    margin_percent: int = MARGIN_PERCENT,
) -> dict[str, Any]:
    """`runs show --json`, under "progress". `margin_percent`: by which events are raised of it."""
    said = sorted(set(dtypes))
    dtype = said[0] if len(said) == 1 and said[0] in DTYPES else DEFAULT_DTYPE
    peak = _peak_flop(found, models, table, dtype)
    measured = found.measured
    return {
        **claims_json(found.claims),
        "measured": figure_json(measured),
        "device_seconds": found.device_ns / _SECOND_NS,
        "agreement": _agreement(found, margin_percent).value,
        "margin_percent": margin_percent,
        "dtype": dtype,
        "peak_flop": None if peak is None else str(peak),
        "mfu": None if peak is None else _share(found.claims.declared_flop, peak),
        "hfu": None
        if peak is None
        else {name: _share(getattr(measured, name), peak) for name in ("lower", "point", "upper")},
    }


def _agreement(found: Beside, margin_percent: int) -> Agreement:
    declared: int = found.claims.declared_flop
    if found.claims.empty or not found.device_ns:
        return Agreement.CANNOT_TELL
    if side_of(found.measured, declared, margin_percent) is not None:
        return Agreement.DISAGREES
    return Agreement.AGREES if _within(found.measured, declared, margin_percent) else Agreement.CANNOT_TELL


def _within(measured: Figure, declared: int, margin_percent: int) -> bool:
    """Whether every figure that the counters allow is within the margin of what is claimed."""
    return measured.lower * 100 >= declared * (100 - margin_percent) and measured.upper * 100 <= declared * (
        100 + margin_percent
    )


def _peak_flop(found: Beside, models: Mapping[int, Model], table: WTable, dtype: str) -> int | None:
    """What all devices can do in that time; None where a model's peak is not known, or it is a slice of a GPU."""
    whole = Fraction(0)
    for model_no, time_ns in found.model_ns.items():
        name = models[model_no].name
        try:
            sku = None if " MIG " in name else find(name, table)
        except EstimateError:  # the name fits several
            sku = None
        peak = None if sku is None else dense(sku, dtype, table)
        if peak is None:
            return None
        whole += peak * time_ns / _SECOND_NS
    return int(whole) or None


def _share(part: int, whole: int) -> float:
    return part * _DIGITS // whole / _DIGITS
