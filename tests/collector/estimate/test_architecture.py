"""Operations from the model's shape: what is in the formula, what is not, and what is refused."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flopmeter.collector.errors import EstimateError
from flopmeter.collector.estimate.architecture import Architecture, Passes, Speed, shape
from flopmeter.collector.estimate.fields import OPTIONS

TINY = {"params": "1000", "tokens": "10"}
WITH_ATTENTION = {**TINY, "layers": "2", "hidden": "8", "context": "16"}


def of(entry: dict[str, str]) -> Architecture:
    found = shape(entry, lambda _: OPTIONS)
    assert isinstance(found, Architecture)
    return found


def test_six_p_d() -> None:
    a = of(TINY)
    assert (a.model_flop, a.executed_flop, a.formula) == (60_000, 60_000, "6 P D")


def test_attention_causal_is_half_of_full() -> None:
    """Scores and values: 2 products of 2 x 8 x 16 per token and layer; forward once, backward twice."""
    full = of({**WITH_ATTENTION, "attention": "full"})
    assert full.attention_per_token == 2 * (2 * 2 * 8 * 16)
    assert full.model_flop == 10 * (6 * 1000 + 3 * 2 * 2 * 2 * 8 * 16)
    assert full.formula == "(6 P + 12 L d S) D"
    causal = of(WITH_ATTENTION)
    assert causal.attention_per_token * 2 == full.attention_per_token
    assert causal.formula == "(6 P + 6 L d S) D"
    assert of({**WITH_ATTENTION, "attention": "causal"}) == causal


def test_recomputation_is_executed_and_not_model() -> None:
    none = of(WITH_ATTENTION)
    selective = of({**WITH_ATTENTION, "recompute": "selective"})
    full = of({**WITH_ATTENTION, "recompute": "full"})
    assert none.model_flop == selective.model_flop == full.model_flop == none.executed_flop
    assert selective.executed_flop - none.executed_flop == 10 * none.attention_per_token
    assert full.executed_flop * 3 == full.model_flop * 4, "one more forward pass"
    assert of({**TINY, "recompute": "full"}).executed_flop == 10 * 8 * 1000
    assert any("EU does not count" in r for r in full.remarks())
    assert not any("EU" in r for r in none.remarks())


def test_experts_and_lookups() -> None:
    a = of({**TINY, "active_params": "300", "lookup_params": "100"})
    assert a.model_flop == 10 * 6 * 200
    assert a.formula == "6 (P_active - P_lookup) D"
    assert of({**TINY, "active_params": "300"}).formula == "6 P_active D"


@given(
    p=st.integers(1, 10**13), d=st.integers(1, 10**15), layers=st.integers(1, 200), hidden=st.integers(1, 10**5),
    context=st.integers(1, 10**6),
)  # fmt: skip
def test_bounds_between_the_ways_of_counting(
    *, p: int, d: int, layers: int, hidden: int, context: int
) -> None:
    made = {}
    for attention in ("causal", "full"):
        for recompute in ("none", "selective", "full"):
            made[attention, recompute] = of(
                {
                    "params": str(p),
                    "tokens": str(d),
                    "layers": str(layers),
                    "hidden": str(hidden),
                    "context": str(context),
                    "attention": attention,
                    "recompute": recompute,
                }
            )
    for (_, recompute), a in made.items():
        assert 6 * p * d < a.model_flop <= a.executed_flop <= a.model_flop * 4 // 3 + 1
        assert (recompute == "none") == (a.executed_flop == a.model_flop)
    assert made["causal", "none"].model_flop < made["full", "none"].model_flop


def test_passes_are_the_general_case() -> None:
    found = shape({"passes": "1e6", "flop_per_pass": "2.5e17"}, lambda _: OPTIONS)
    assert isinstance(found, Passes)
    assert found.model_flop == found.executed_flop == 25 * 10**22


@pytest.mark.parametrize(
    ("entry", "key"),
    [
        ({"tokens": "10"}, "params"),
        ({"params": "10"}, "tokens"),
        ({**TINY, "params": "1.5"}, "params"),
        ({**TINY, "tokens": "-1"}, "tokens"),
        ({**TINY, "active_params": "1001"}, "active-params"),
        ({**TINY, "lookup_params": "1000"}, "lookup-params"),
        ({**TINY, "active_params": "10", "lookup_params": "10"}, "lookup-params"),
        ({**TINY, "layers": "2"}, "hidden"),
        ({**TINY, "hidden": "2"}, "layers"),
        ({**TINY, "layers": "2", "hidden": "2"}, "context"),
        ({**TINY, "recompute": "selective"}, "recompute"),
        ({**TINY, "recompute": "some"}, "recompute"),
        ({**TINY, "attention": "sliding"}, "attention"),
        ({**TINY, "experts": "8"}, "experts"),
        ({**TINY, "passes": "3"}, "params"),
        ({"passes": "3"}, "flop-per-pass"),
        ({"passes": "3", "flop_per_pass": "1", "layers": "3"}, "layers"),
        ({"passes": "0.1", "flop_per_pass": "1"}, "flop-per-pass"),
    ],
)
def test_each_fault_names_its_option(entry: dict[str, str], key: str) -> None:
    with pytest.raises(EstimateError) as caught:
        shape(entry, lambda _: OPTIONS)
    assert str(caught.value).startswith(f"--{key}: "), caught.value
    assert caught.value.hint


def test_six_p_d_says_that_it_needs_a_large_model() -> None:
    """The guidelines' footnote: P well above one twelfth of the context length."""

    def warned(params: int, context: int) -> bool:
        found = of({"params": str(params), "tokens": "1", "context": str(context)}).remarks()
        return any(r.startswith("warning: 6PD") for r in found)

    assert warned(99_999, 120_000)
    assert not warned(100_000, 120_000)
    assert not warned(8 * 10**9, 8192)
    assert not of({**TINY, "context": "1"}).remarks()[0].startswith("warning")


def test_long_context_says_how_much_six_p_d_would_miss() -> None:
    long = of({"params": "8e9", "tokens": "1", "layers": "32", "hidden": "4096", "context": "131072"})
    (said,) = long.remarks()
    assert "attention adds 215% to 6PD" in said
    assert (
        of({"params": "8e9", "tokens": "1", "layers": "32", "hidden": "4096", "context": "8192"}).remarks()
        == []
    )


# --- speed ---


def test_mfu_and_hfu_are_shares_of_the_peak() -> None:
    a = of({**WITH_ATTENTION, "recompute": "full"})
    speed = Speed(Fraction(7), 3, Fraction(a.executed_per_token))
    assert speed.hfu(a) == Fraction(7, 3)
    assert speed.mfu(a) == Fraction(7, 4)
    with pytest.raises(EstimateError, match="expected at most their dense peak, got 233% of it"):
        speed.check(a)
    Speed(Fraction(3), 3, Fraction(a.executed_per_token)).check(a)  # exactly the peak


def test_a_model_flop_figure_below_the_peak_does_not_excuse_an_executed_one_above() -> None:
    a = of({**TINY, "recompute": "full"})
    with pytest.raises(EstimateError):
        Speed(Fraction(1), 1, Fraction(7000)).check(a)
