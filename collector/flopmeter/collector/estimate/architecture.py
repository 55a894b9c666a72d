"""Operations from the model's shape: 6PD, the transformer with attention and recomputation, or passes. Pure.

A multiply-add is 2. The backward pass does twice the forward's matrix products. Model FLOP are what learning
needs; executed FLOP add the activations that are computed again to save memory, which the EU does not count
(reference/regulations.md section 3) and counters do (reference/metering.md 4.4).

    matmul     2 (P_active - P_lookup)            per token, forward
    attention  4 L d S, causal half of it         per token, forward
    model      3 x (matmul + attention)
    executed   model + (matmul + attention where recomputed)
"""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeAlias

from flopmeter.collector.errors import EstimateError

from .fields import Entry, Fields
from .numbers import rounded

ATTENTION = ("causal", "full")
RECOMPUTE = ("none", "selective", "full")
#: "P well above one twelfth of the context length" is read as at least ten times that.
WELL_ABOVE = 10
_SHAPE = ("layers", "hidden", "context")


@dataclass(frozen=True, slots=True)
class Architecture:
    """What the formula asks for. `context` 0: attention is left out (6PD)."""

    params: int
    active_params: int  # those that one token meets; MoE has fewer than params
    lookup_params: int  # the input embedding: looked up, not multiplied
    layers: int
    hidden: int  # width of the attention: heads x head size
    context: int  # tokens per sequence
    causal: bool
    recompute: str  # one of RECOMPUTE
    tokens: int  # 0: not said, so that only rates can be told

    @property
    def matmul_per_token(self) -> int:
        """Forward, without attention's own products."""
        return 2 * (self.active_params - self.lookup_params)

    @property
    def attention_per_token(self) -> int:
        """Forward: scores and values against every earlier token; under a causal mask on average half of them."""
        return 4 * self.layers * self.hidden * self.context // (2 if self.causal else 1)

    @property
    def model_per_token(self) -> int:
        return 3 * (self.matmul_per_token + self.attention_per_token)

    @property
    def executed_per_token(self) -> int:
        again = self.attention_per_token if self.recompute in ("selective", "full") else 0
        again += self.matmul_per_token if self.recompute == "full" else 0
        return self.model_per_token + again

    @property
    def model_flop(self) -> int:
        return self.model_per_token * self.tokens

    @property
    def executed_flop(self) -> int:
        return self.executed_per_token * self.tokens

    @property
    def formula(self) -> str:
        active = "P" if self.active_params == self.params else "P_active"
        if self.lookup_params:
            active = f"({active} - P_lookup)"
        attention = f" + {6 if self.causal else 12} L d S" if self.attention_per_token else ""
        per_token = f"(6 {active}{attention})" if attention else f"6 {active}"
        return f"{per_token} D"

    def remarks(self) -> list[str]:
        found = []
        if not self.attention_per_token:
            said = "attention's own products are not in it: give layers, hidden and context to have them"
            if self.context and 12 * self.active_params < WELL_ABOVE * self.context:
                said = (
                    f"warning: 6PD holds where P is well above one twelfth of the context; {self.active_params:,} is not well "
                    f"above {self.context:,}/12. Give layers and hidden too, so that attention is counted"
                )
            found.append(said)
        elif self.attention_per_token * 2 > self.matmul_per_token:
            found.append(
                f"attention adds {self.attention_per_token / self.matmul_per_token:.0%} to 6PD at this context: 6PD alone "
                "would be far too low"
            )
        if self.recompute != "none":
            found.append(
                f"recomputed activations ({self.recompute}) are in the executed figure, as counters see them; the EU "
                "does not count them"
            )
        return found


@dataclass(frozen=True, slots=True)
class Passes:
    """The general case: full passes (forward and backward) x operations of one."""

    passes: Fraction
    flop_per_pass: Fraction

    @property
    def model_flop(self) -> int:
        return rounded(self.passes * self.flop_per_pass)

    @property
    def executed_flop(self) -> int:
        return self.model_flop

    @property
    def formula(self) -> str:
        return "full passes x operations per full pass"

    def remarks(self) -> list[str]:
        return []


Shape: TypeAlias = Architecture | Passes


def shape(entry: Entry, where: Callable[[str], str], *, need_tokens: bool = True) -> Shape:
    """A model as it is written down; takes all keys of `entry`. Raises EstimateError naming entry and key."""
    f = Fields(entry, where)
    found = (
        _passes(f) if f.has("passes") or f.has("flop_per_pass") else _architecture(f, need_tokens=need_tokens)
    )
    f.done()
    return found


def _passes(f: Fields) -> Passes:
    for key in ("params", "tokens"):
        if f.has(key):
            raise f.fault(key, "no such key beside passes and flop_per_pass", f.text(key))
    found = Passes(f.number("passes"), f.number("flop_per_pass"))
    if not found.model_flop:
        raise f.fault("flop_per_pass", "at least one operation in all", f.text("flop_per_pass"))
    return found


def _architecture(f: Fields, *, need_tokens: bool) -> Architecture:
    params = f.whole("params")
    active = f.whole("active_params") if f.has("active_params") else params
    if active > params:
        raise f.fault("active_params", f"at most params ({params:,})", f.text("active_params"))
    lookup = f.whole("lookup_params") if f.has("lookup_params") else 0
    if lookup >= active:
        raise f.fault(
            "lookup_params", f"fewer than the active parameters ({active:,})", f.text("lookup_params")
        )
    layers, hidden, context = (f.whole(key) if f.has(key) else 0 for key in _SHAPE)
    if bool(layers) != bool(hidden) or (layers and not context):
        missing = next(key for key, value in zip(_SHAPE, (layers, hidden, context), strict=True) if not value)
        raise EstimateError(
            f"{f.name(missing)}: expected layers, hidden and context together, got no {missing}",
            "attention costs 4 L d S per token; leave all three out for plain 6PD",
        )
    attention = f.one_of("attention", ATTENTION, "causal")
    recompute = f.one_of("recompute", RECOMPUTE, "none")
    if recompute == "selective" and not layers:
        raise f.fault(
            "recompute", "layers, hidden and context beside 'selective': it recomputes attention", recompute
        )
    tokens = f.whole("tokens") if need_tokens or f.has("tokens") else 0
    return Architecture(
        params, active, lookup, layers, hidden, context, attention == "causal", recompute, tokens
    )


@dataclass(frozen=True, slots=True)
class Speed:
    """A training speed and what it means on that hardware."""

    tokens_per_s: Fraction
    gpus: int
    peak_flop_per_s: Fraction

    def mfu(self, a: Architecture) -> Fraction:
        """Model FLOP utilisation: model FLOP/s over the dense peak of all GPUs."""
        return a.model_per_token * self.tokens_per_s / (self.gpus * self.peak_flop_per_s)

    def hfu(self, a: Architecture) -> Fraction:
        """Hardware FLOP utilisation: executed FLOP/s over the same."""
        return a.executed_per_token * self.tokens_per_s / (self.gpus * self.peak_flop_per_s)

    def check(self, a: Architecture) -> None:
        """Raises EstimateError where the hardware would have had to do more than it can."""
        if self.hfu(a) > 1:
            raise EstimateError(
                f"{float(self.tokens_per_s):,.0f} tokens/s on {self.gpus:,} GPUs: expected at most their dense peak, got "
                f"{float(self.hfu(a)):.0%} of it",
                "is the dtype right (fp8 has twice the peak of bf16), are the tokens per second of all GPUs, and is the "
                "context the one that was trained with?",
            )
