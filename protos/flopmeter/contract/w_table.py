"""The W table: FLOP per clock per SM by architecture, versioned, with the check against official peaks."""

import functools
import hashlib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib import resources
from typing import Any

from .errors import ContractError

CURRENT = "w_2026_11_3.toml"

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

#: Where legacy mma.sync work may have been counted; FP64 tensor work has no faster path.
LEGACY_PLACES = ("hmma", "imma", "residual")
#: How a figure is known: on hardware by tests/gpu, by NVIDIA's word, from another source, or not at all.
KNOWN = ("measured", "stated", "inferred", "unknown")
_FIGURES = ("hmma_holds", "residual_holds", "legacy_mma_permille", "sparse")


@dataclass(frozen=True, slots=True)
class Arch:
    """Rates of one compute capability (or of one family within it), FLOP per clock per SM.

    `hmma_holds` and `residual_holds` name the rates that an active cycle of HMMA, and of what only the
    any-tensor counter saw, may stand for; `legacy_mma_permille` is the least share of them that a fully active
    pipe of `legacy_mma_in` does (reference/metering.md 4.2, 4.3). `sparse` are nominal 2:4 rates: in no bound.
    """

    compute_capability: str
    name: str  # regular expression on the model name; "" = every model of the capability
    rates: Mapping[str, int] = field(hash=False)
    stated: tuple[str, ...] = ()
    hmma_holds: tuple[str, ...] = ()
    residual_holds: tuple[str, ...] = ()
    legacy_mma_permille: int = 1_000
    legacy_mma_in: tuple[str, ...] = ()
    sparse: Mapping[str, int] = field(default_factory=dict, hash=False)
    known: Mapping[str, str] = field(default_factory=dict, hash=False)

    def tensor_span(self) -> tuple[int, int]:
        """(lowest, highest) rate that a float tensor cycle can stand for, wherever it was counted."""
        rates = [self.rates[name] for name in (*self.hmma_holds, *self.residual_holds)]
        return min(rates), max(rates)

    def legacy_permille(self, place: str) -> int:
        """The least share of W, in permille, that a fully active cycle counted in `place` does."""
        return self.legacy_mma_permille if place in self.legacy_mma_in else 1_000


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
        archs = tuple(_arch(a) for a in data["arch"])
        skus = tuple(
            Sku(**{**s, "vector_clocked": tuple(s.get("vector_clocked", ()))}) for s in data.get("sku", ())
        )
        return WTable(id=data["id"], digest=hashlib.sha256(raw).hexdigest(), archs=archs, skus=skus)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, KeyError, TypeError, AttributeError) as e:
        raise ContractError(f"W table: expected the layout of {CURRENT}, got {e!r}") from e


def _arch(a: Mapping[str, Any]) -> Arch:
    rates = {k: _whole(k, v) for k, v in a["rates"].items()}
    arch = Arch(a["compute_capability"], a.get("name", ""), rates, tuple(a["stated"]))
    if not rates:  # metered in cycles: nothing else is known of it
        return arch
    arch = replace(
        arch,
        hmma_holds=tuple(a["hmma_holds"]),
        residual_holds=tuple(a["residual_holds"]),
        legacy_mma_permille=_whole("legacy_mma_permille", a["legacy_mma_permille"]),
        legacy_mma_in=tuple(a["legacy_mma_in"]),
        sparse={k: _whole(k, v) for k, v in a["sparse"].items()},
        known={name: a["known"][name] for name in _FIGURES},
    )
    where = f"W table: compute capability {arch.compute_capability} {arch.name}".rstrip()
    for key, names in (("hmma_holds", arch.hmma_holds), ("residual_holds", arch.residual_holds)):
        wrong = [n for n in names if n not in FLOAT_TENSOR_RATES or n not in rates]
        if wrong or not names:
            raise ContractError(f"{where}: {key}: expected float tensor rates of it, got {list(names)}")
    if "bf16" not in arch.hmma_holds:
        raise ContractError(
            f"{where}: hmma_holds: expected bf16, which the point takes where nothing is declared"
        )
    if arch.legacy_mma_permille > 1_000 or not set(arch.legacy_mma_in) <= set(LEGACY_PLACES):
        raise ContractError(
            f"{where}: expected a share of at most 1000 permille in {', '.join(LEGACY_PLACES)}, "
            f"got {arch.legacy_mma_permille} in {list(arch.legacy_mma_in)}"
        )
    if any(rate < rates.get(name, rate + 1) for name, rate in arch.sparse.items()):
        raise ContractError(f"{where}: sparse: expected rates of it, none below the dense one")
    if not set(arch.known.values()) <= set(KNOWN):
        raise ContractError(f"{where}: known: expected {', '.join(KNOWN)}, got {dict(arch.known)}")
    return arch


def _whole(name: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise ContractError(f"W table: rate {name}: expected a positive integer, got {value!r}")
    return value


@functools.cache
def current() -> WTable:
    """The table this version derives FLOP with."""
    return parse_w_table(resources.files(__package__).joinpath(CURRENT).read_bytes())
