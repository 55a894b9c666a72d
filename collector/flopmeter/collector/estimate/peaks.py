"""Dense peak FLOP/s of a device model: SMs x W x official tensor clock (contract.w_table). Pure.

Sparse peaks are refused. Datasheets print them first, they are twice what a dense product can do, and the
EU's own examples use dense ones (reference/regulations.md section 4).
"""

import re
from dataclasses import dataclass
from fractions import Fraction

from flopmeter.collector.errors import EstimateError
from flopmeter.contract.w_table import DTYPE_RATE, FLOAT_TENSOR_RATES, Sku, WTable

from .numbers import rate

#: dtype as people say it -> rate of the W table. fp32 and fp64 are the vector pipes.
DTYPES = {**DTYPE_RATE, "fp32": "fp32", "fp64": "fp64", "fp64-tensor": "fp64_tensor"}
DEFAULT_DTYPE = "bf16"  # where none is said, as for counters (contract.flop.DEFAULT_RATE)
#: A given peak that is so much above a model's dense peak is not its dense peak. Datasheets round by under 2 %.
ABOVE_DENSE = Fraction(105, 100)
#: Where no model is named: how near to twice a known dense peak is taken for that sparse figure.
SPARSE_WITHIN = Fraction(1, 1000)
_SPARSE_FROM = (8, 0)  # 2:4 sparsity came with Ampere


@dataclass(frozen=True, slots=True)
class Peak:
    """A dense peak and where it comes from."""

    flop_per_s: Fraction
    dtype: str
    device: str  # the model as it was named; "" = none
    source: str  # in words, for the reader who checks
    confirmed: bool  # whether SMs, W and clock are all published and agree


def find(name: str, table: WTable) -> Sku | None:
    """The one SKU that `name` means, or None. Raises EstimateError where it means several."""
    hits = _candidates(name, table)
    if len(hits) > 1:
        several = " or ".join(f"{_short(s)} ({tera(dense(s, 'bf16', table))} bf16)" for s in hits)
        raise EstimateError(
            f"device {name!r}: expected one model, got a name that fits {len(hits)}",
            f"say which: {several}; or give its dense peak beside it",
        )
    return hits[0] if hits else None


def _candidates(name: str, table: WTable) -> list[Sku]:
    wanted = _plain(name)
    hits = [s for s in table.skus if any(re.search(s.name, n, re.IGNORECASE) for n in (name.strip(), wanted))]
    if hits or not wanted:
        return hits
    # "H100" is the beginning of several, and so is "H100 80GB": the first word says what else it might be.
    same = [s for s in table.skus if any(_plain(n).split()[0] == wanted.split()[0] for n in names(s))]
    begun = [s for s in table.skus if any(_plain(n).startswith(wanted) for n in names(s))]
    return same if len(same) > 1 else begun


def _short(sku: Sku) -> str:
    """The shortest of a model's names that is still its own: H100 SXM, not H100 80GB HBM3."""
    own = [n for n in names(sku) if names(sku)[0].split()[0] in n]
    return min(own, key=len)


def _plain(name: str) -> str:
    """Upper case, words apart: h100-sxm, H100_SXM and H100 SXM are one."""
    return " ".join(re.split(r"[\s_-]+", name.strip())).upper()


def names(sku: Sku) -> list[str]:
    """What a pattern of the table stands for, as people write it."""
    text = re.sub(r"\(\?<!\w+\)|\(\?![^)]*\)|\\b|\$", "", sku.name)
    return [re.sub(r"\(.*?\)\?", "", part) for part in text.split("|")]


def dense(sku: Sku, dtype: str, table: WTable) -> Fraction | None:
    """FLOP/s of all SMs at the official clock, or None where the model has no such rate."""
    arch = table.arch(sku.compute_capability, names(sku)[0])
    rate_name = DTYPES[dtype]
    if arch is None or rate_name not in arch.rates:
        return None
    mhz = sku.vector_mhz if _vector_clock(sku, rate_name) else sku.tensor_mhz
    return Fraction(sku.sms * arch.rates[rate_name] * mhz * 1_000_000)


def _vector_clock(sku: Sku, rate_name: str) -> bool:
    return rate_name in sku.vector_clocked


def peak(device: str, dtype: str, given: str, table: WTable) -> Peak:
    """The dense peak of `device` for `dtype`, or the `given` one where it can be one. Raises EstimateError."""
    kind = dtype or DEFAULT_DTYPE
    if kind not in DTYPES:
        raise EstimateError(
            f"dtype: expected one of {', '.join(DTYPES)}, got {dtype!r}",
            "integer operations are no FLOP; leave it out for bf16",
        )
    if given:
        value = rate("peak", given)
        possible = _candidates(device, table)
        if possible and not any(_official(s, kind, table) for s in possible) and _rated(possible[0], table):
            raise _no_such_rate(device, kind, possible[0], table)
        checked = _refuse_sparse(value, kind, possible, device, table)
        said = "given" if checked else "given; no model of the W table to check it by"
        twin = None if checked else _sparse_twin(value, kind, table)
        said += f"; it is the sparse peak of {names(twin)[0]}" if twin is not None else ""
        return Peak(value, kind, device, said, confirmed=checked)
    if not device:
        raise EstimateError(
            "expected a device model or a peak, got neither",
            "name the model (such as 'H100 SXM'), or its dense peak (such as 989e12)",
        )
    sku = find(device, table)
    if sku is None:
        raise EstimateError(
            f"device {device!r}: expected a model of the W table, got none of them",
            f"give its dense peak in FLOP/s beside it, or name one of: {', '.join(names(s)[0] for s in table.skus)}",
        )
    found = dense(sku, kind, table)
    if found is None:
        raise _no_such_rate(device, kind, sku, table)
    arch = table.arch(sku.compute_capability, names(sku)[0])
    assert arch is not None  # dense() found a rate in it
    mhz = sku.vector_mhz if _vector_clock(sku, DTYPES[kind]) else sku.tensor_mhz
    said = f"{sku.sms} SMs x {arch.rates[DTYPES[kind]]} FLOP/cycle x {mhz} MHz, {table.id}"
    return Peak(found, kind, device, said, confirmed=sku.confirmed)


def _rated(sku: Sku, table: WTable) -> list[str]:
    """Dtypes whose dense peak the table knows."""
    return [d for d in DTYPES if dense(sku, d, table) is not None]


def _no_such_rate(device: str, dtype: str, sku: Sku, table: WTable) -> EstimateError:
    known = _rated(sku, table)
    what = f"has {', '.join(known)}" if known else "is known by its SM count only"
    say = "say one of these" if known else "give its dense peak in FLOP/s beside the model"
    return EstimateError(
        f"device {device!r}: expected a dtype with a known rate, got {dtype}: it {what}", say
    )


def _refuse_sparse(value: Fraction, dtype: str, possible: list[Sku], device: str, table: WTable) -> bool:
    """U counts dense operations: a sparse peak would double the estimate. True: it was held against its model."""
    limits = [d for s in possible if (d := _official(s, dtype, table)) is not None]
    if limits:
        limit = max(limits)
        if value <= limit * ABOVE_DENSE:
            return True
        twice = any(abs(value - 2 * d) <= 2 * d * (ABOVE_DENSE - 1) for d in limits)
        got = "its sparse peak" if twice else "more than that"
        raise EstimateError(
            f"peak: expected at most the dense {dtype} peak of {device}, {tera(limit)}, got {tera(value)}: {got}",
            "leave the peak out, so that the table's dense one is taken; datasheets print the 2:4-sparse figure, "
            "twice as high. If the work was of another dtype, say it",
        )
    if device:  # a model that the table does not know: nothing to compare with
        return False
    other = "give the dense peak, or the model's name instead; if the device is another one, name it too"
    twin = _sparse_twin(value, dtype, table)
    if twin is not None:
        raise EstimateError(
            f"peak: expected a dense {dtype} peak, got {tera(value)}: that is the sparse one of "
            f"{names(twin)[0]}, twice its dense {tera(_official(twin, dtype, table))}",
            other,
        )
    highest = max(d for s in table.skus if (d := _official(s, dtype, table)) is not None)
    if value > highest * ABOVE_DENSE:
        raise EstimateError(
            f"peak: expected a dense {dtype} peak of one device, got {tera(value)}: none of the W table has more than "
            f"{tera(highest)}",
            f"a sparse peak, or one of a narrower dtype? {other}",
        )
    return False


def _sparse_twin(value: Fraction, dtype: str, table: WTable) -> Sku | None:
    """A model whose 2:4-sparse peak `value` is."""
    for s in table.skus:
        d = _official(s, dtype, table)
        version = tuple(map(int, s.compute_capability.split(".")))
        if d is not None and version >= _SPARSE_FROM and abs(value - 2 * d) <= 2 * d * SPARSE_WITHIN:
            return s
    return None


def _official(sku: Sku, dtype: str, table: WTable) -> Fraction | None:
    """The dense peak by the table, else by the datasheet as the table quotes it."""
    found = dense(sku, dtype, table)
    if found is None and DTYPES[dtype] in sku.peaks:
        return Fraction(str(sku.peaks[DTYPES[dtype]])) * 10**12
    return found


def tera(flop_per_s: Fraction | None) -> str:
    """For people: 989.4 TFLOP/s."""
    return "no W table" if flop_per_s is None else f"{float(flop_per_s) / 1e12:,.1f} TFLOP/s"


def tensor_dtypes() -> tuple[str, ...]:
    """The dtypes of a table of peaks, one name per rate."""
    return tuple(name for name in ("tf32", "bf16", "fp8", "fp4") if DTYPES[name] in FLOAT_TENSOR_RATES)
