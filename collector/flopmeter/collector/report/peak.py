"""What one GPU of a model can do in a second, at the very most: dense, by precision. Pure.

Computed from the W table where its rates are known, else the datasheet's figure as the table quotes it. Never sparse
(reference/regulations.md 13.23); operations of different widths are never added or weighted (13.15).
"""

from fractions import Fraction

from flopmeter.collector.errors import EstimateError
from flopmeter.collector.estimate.peaks import DTYPES, dense, find, names
from flopmeter.contract.w_table import Sku, WTable

#: In the order of tables. int8 is of integer operations: beside FLOP, where a text counts both.
PRECISIONS = ("fp64", "fp32", "tf32", "bf16", "fp8", "fp4")
INTEGER = "int8"
_TERA = 10**12


def sku_of(model: str, table: WTable) -> Sku | None:
    """The one SKU that the model's name means."""
    try:
        return find(model, table)
    except EstimateError:  # the name fits several: none is guessed
        return None


def peaks_op_s(model: str, table: WTable) -> dict[str, int]:
    """Operations a second of one GPU by precision, INTEGER last; {} where the table has no peak of the model."""
    sku = sku_of(model, table)
    if sku is None:
        return {}
    found = {}
    for precision in (*PRECISIONS, INTEGER):
        peak = _computed(sku, precision, table)
        if peak is None:
            peak = _printed(sku, precision)
        if peak is not None:
            found[precision] = int(peak)
    return found


def best_op_s(peaks: dict[str, int]) -> int:
    """The most operations of one precision, whichever; 0: no peak is known."""
    return max(peaks.values(), default=0)


def _computed(sku: Sku, precision: str, table: WTable) -> Fraction | None:
    if precision in DTYPES:
        return dense(sku, precision, table)
    arch = table.arch(sku.compute_capability, names(sku)[0])
    if arch is None or precision not in arch.rates:
        return None
    return Fraction(sku.sms * arch.rates[precision] * sku.tensor_mhz * 1_000_000)


def _printed(sku: Sku, precision: str) -> Fraction | None:
    value = sku.peaks.get(DTYPES.get(precision, precision))
    return None if value is None else Fraction(str(value)) * _TERA
