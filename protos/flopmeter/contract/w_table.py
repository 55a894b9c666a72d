"""The W table: FLOP per clock per SM by architecture, versioned, with the check against official peaks."""

import functools
import hashlib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources

from .errors import ContractError

CURRENT = "w_2026_11.toml"

#: Declared dtype -> rate name. What a job may say (Workload.dtype); anything else is refused, not guessed.
DTYPE_RATE: Mapping[str, str] = {
    "tf32": "tf32",
    "bf16": "bf16",
    "fp16": "bf16",
    "fp8": "fp8",
    "mxfp8": "fp8",
    "fp6": "fp6",
    "fp4": "fp4",
    "nvfp4": "fp4",
    "mxfp4": "fp4",
}

#: Rates of the float tensor dtypes that HMMA and the any-tensor residual can hold.
FLOAT_TENSOR_RATES = ("tf32", "bf16", "bf16_fp16acc", "fp8", "fp8_fp16acc", "fp6", "fp4")


@dataclass(frozen=True, slots=True)
class Arch:
    """Rates of one compute capability (or of one family within it), FLOP per clock per SM."""

    compute_capability: str
    name: str  # regular expression on the model name; "" = every model of the capability
    rates: Mapping[str, int] = field(hash=False)
    stated: tuple[str, ...] = ()

    def tensor_span(self) -> tuple[int, int]:
        """(lowest, highest) rate that a float tensor cycle can stand for."""
        rates = [self.rates[name] for name in FLOAT_TENSOR_RATES if name in self.rates]
        return min(rates), max(rates)


@dataclass(frozen=True, slots=True)
class Sku:
    """One model's official dense peaks, for the check that SMs x W x clock gives them."""

    name: str
    compute_capability: str
    sms: int
    tensor_mhz: int
    vector_mhz: int
    confirmed: bool
    tolerance_percent: float
    peaks: Mapping[str, float] = field(hash=False)
    vector_clocked: tuple[str, ...] = ()
    outliers: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class WTable:
    """A table version. `digest` is the SHA-256 of the file's bytes, for attestations."""

    id: str
    digest: str
    archs: tuple[Arch, ...]
    skus: tuple[Sku, ...]

    def arch(self, compute_capability: str, model: str = "") -> Arch | None:
        """The rates for a device, or None: then it is metered in cycles and reported as "no W table"."""
        found = [a for a in self.archs if a.compute_capability == compute_capability]
        named = [a for a in found if a.name and re.search(a.name, model)]
        best = named or [a for a in found if not a.name]
        return best[0] if best and best[0].rates else None

    def sku(self, compute_capability: str, model: str) -> Sku | None:
        for sku in self.skus:
            if sku.compute_capability == compute_capability and re.search(sku.name, model):
                return sku
        return None

    def confirmed(self, compute_capability: str, model: str) -> bool:
        """Whether the model is a listed SKU whose rates reconcile; else A1 and A2 become A3."""
        sku = self.sku(compute_capability, model)
        return sku is not None and sku.confirmed


def parse_w_table(raw: bytes) -> WTable:
    """Read a table file. Raises ContractError for anything that is not one."""
    try:
        data = tomllib.loads(raw.decode())
        archs = tuple(
            Arch(
                compute_capability=a["compute_capability"],
                name=a.get("name", ""),
                rates={k: _whole(k, v) for k, v in a["rates"].items()},
                stated=tuple(a["stated"]),
            )
            for a in data["arch"]
        )
        skus = tuple(
            Sku(**{**s, "vector_clocked": tuple(s.get("vector_clocked", ()))}) for s in data.get("sku", ())
        )
        return WTable(id=data["id"], digest=hashlib.sha256(raw).hexdigest(), archs=archs, skus=skus)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, KeyError, TypeError, AttributeError) as e:
        raise ContractError(f"W table: expected the layout of {CURRENT}, got {e!r}") from e


def _whole(name: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise ContractError(f"W table: rate {name}: expected a positive integer, got {value!r}")
    return value


@functools.cache
def current() -> WTable:
    """The table this version derives FLOP with."""
    return parse_w_table(resources.files(__package__).joinpath(CURRENT).read_bytes())
