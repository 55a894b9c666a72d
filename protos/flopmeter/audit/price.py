"""FLOP from SM-cycles by a W table, in exact fractions: a second implementation of reference/metering.md 4.2, 4.3."""

import re
import tomllib
from collections.abc import Mapping, Sequence
from fractions import Fraction
from math import ceil, floor
from typing import Any

from flopmeter.evidence.errors import EvidenceError, require

#: Half-width of the counter-to-cycles step in ppm, of A1, A2, A3, B1, B2 (4.5, 7.1); the others bound from above only.
_ERROR_PPM = {1: 30_000, 2: 30_000, 3: 130_000, 4: 100_000, 5: 100_000}
#: Two counters of those classes may disagree by so many ppm about the same work (7.1, 7.2).
_APART_PPM = {1: 20_000, 2: 20_000, 3: 20_000, 4: 225_000, 5: 225_000}
_RATE = {
    "fp16": "bf16",
    "mxfp8": "fp8",
    "nvfp4": "fp4",
    "mxfp4": "fp4",
}  # declared -> rate, where they differ
_DTYPES = {"tf32", "bf16", "fp8", "fp6", "fp4", *_RATE}
GAP = 8  # Usage.evidence_class of time without a reading
# What was measured, as batch.proto's Usage.measured has it; a pipe that nobody read is priced at the most it can be.
_ACTIVE, _HMMA, _IMMA, _DMMA, _ANY, _APPORTIONED, OTHERS = 1, 2, 4, 8, 16, 1024, 2048
_VECTOR = (("fp64", 32, 7), ("fp32", 64, 8), ("fp16_vector", 128, 9))  # rate, bit, place among the sums


class Table:
    """A W table's architectures. Raises EvidenceError for a file that is none."""

    def __init__(self, raw: bytes) -> None:
        try:
            self._archs = [dict(arch) for arch in tomllib.loads(raw.decode())["arch"]]
            for a in self._archs:  # all that is read of it; a pattern that cannot run away
                sizes = [*a["rates"].values(), a.get("legacy_mma_permille", 1)]
                plain = re.fullmatch(r"[\w .|-]*(\\b|\$)?", a.setdefault("name", ""))
                known = set(a.get("hmma_holds", ())) | set(a.get("residual_holds", ())) <= set(a["rates"])
                fits = plain and known and all(type(n) is int and n > 0 for n in sizes)
                require(
                    fits and isinstance(a["compute_capability"], str), "pack", f"w_table.toml: {a['name']}"
                )
                if a["rates"]:
                    _flop(a, (1, 0, 0, ""), [0] * 12)  # whatever is missing, is missed now
        except (ValueError, KeyError, TypeError, AttributeError) as e:
            raise EvidenceError("pack", f"w_table.toml: expected a W table, got {str(e)[:200]}") from e

    def flop(self, price: tuple[Any, int, int, int, str], sums: Sequence[int]) -> tuple[int, int, int]:
        """(lower, point, upper) of one group's twelve sums."""
        (name, capability), level, measured, spread, dtype = price
        fits = [a for a in self._archs if a["compute_capability"] == capability]
        named = [a for a in fits if a["name"] and re.search(a["name"], name)]
        arch: Mapping[str, Any] = next(iter(named or [a for a in fits if not a["name"]]), {"rates": {}})
        if arch["rates"]:
            return _flop(arch, (level, measured, spread, dtype), sums)
        most = [0, sums[2] if measured & _ACTIVE else sums[1], *sums[2:]]  # no rates: up to the table's best
        return 0, 0, max((_flop(a, (8, 0, 0, ""), most)[2] for a in self._archs if a["rates"]), default=0)


def _flop(
    arch: Mapping[str, Any], price: tuple[int, int, int, str], sums: Sequence[int]
) -> tuple[int, int, int]:
    level, measured, spread, dtype = price
    _, elapsed, active, hmma, imma, dmma, other, *_ = sums
    rates, most = arch["rates"], active if measured & _ACTIVE else elapsed
    fp64, vector = rates.get("fp64_tensor", 0), sum(rates[rate] for rate, _, _ in _VECTOR)
    held, rest = ([rates[n] for n in arch[key]] for key in ("hmma_holds", "residual_holds"))
    error = Fraction(_ERROR_PPM.get(level, 0) + spread, 1_000_000)
    if level not in _ERROR_PPM:
        return 0, 0, ceil(most * (max(*held, *rest, fp64) + vector) * (1 + error))
    share, legacy = Fraction(arch["legacy_mma_permille"], 1000), arch["legacy_mma_in"]
    slow, slow_rest = (share if place in legacy else 1 for place in ("hmma", "residual"))
    name = _RATE.get(dtype, dtype) if dtype in _DTYPES else ""
    point = rates[name if name in arch["hmma_holds"] else "bf16"]
    likely = max(rates.get("fp8", 0), rates.get(name, point))
    if not measured & _HMMA:  # the any-tensor counter stands for all of it
        rest, likely, slow_rest = held + rest, point, min(slow, slow_rest)
    least = min(rest) * slow_rest
    if not measured & _IMMA and "int8" in rates:
        least = Fraction(0)
    elif not measured & _DMMA and fp64:
        least = min(least, Fraction(fp64))
    top = max(*rest, fp64)
    lower = hmma * min(held) * slow + other * least + dmma * fp64
    middle = hmma * point + other * min(max(likely, min(rest)), max(rest)) + dmma * fp64
    upper = Fraction(hmma * max(held) + other * top + dmma * fp64)
    upper += sum((sums[i] + (0 if measured & bit else most)) * rates[rate] for rate, bit, i in _VECTOR)
    if not measured & _ANY:
        upper += max(0, most - hmma - imma - dmma) * top
    else:  # a residual within the counters' noise was dropped when the row was sealed
        apart = (imma + dmma) * _APART_PPM[level] * (1 if measured & _HMMA and level < 4 else 2)
        noise = Fraction((elapsed * 5_000 if measured & _HMMA else 0) + apart, 1_000_000)
        upper += min(noise, Fraction(max(0, most - hmma - imma - dmma - other))) * top
    lower = 0 if measured & (_APPORTIONED | OTHERS) else floor(lower * max(Fraction(0), 1 - error))
    return lower, 0 if measured & OTHERS else middle, ceil(upper * (1 + error))
