"""The one-third rule: item 8 of reference/regulations.md section 13, exact to the operation."""

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flopmeter.collector.law.countable import Ancestor, Share, countable
from flopmeter.collector.law.events import THRESHOLD_CROSSED, THRESHOLD_UNDETERMINED
from flopmeter.collector.law.modification import (
    known,
    line_of,
    modification_events,
    modification_state,
    verdict,
)
from flopmeter.collector.law.profiles import shipped as profiles
from flopmeter.collector.law.regimes import MODIFICATION, shipped
from flopmeter.collector.law.rules import Verdict
from flopmeter.collector.law.standing import Modification
from flopmeter.collector.registry.entries import Link, Relation
from flopmeter.collector.registry.lineage import Lineage
from flopmeter.contract.flop import ZERO, Figure

REGIMES = {r.id: r for r in shipped(MODIFICATION)}
KNOWN = REGIMES["eu-modifier"]
AT = 1_780_000_000 * 10**9  # 2026-05-28


def exactly(n: int) -> Figure:
    return Figure(n, n, n)


def raised(own: Figure, original: Figure | None, regimes=None, *, already=frozenset(), at=AT):
    made = Modification("tuned", "base", own, ZERO, original)
    found = REGIMES.values() if regimes is None else regimes
    return modification_events(made, found, already, at_unix_ns=at, since_position=4, position=5)


@pytest.mark.parametrize(
    ("original", "own", "said"),
    [
        (10**25, 3 * 10**24, Verdict.BELOW),  # 30.0 %
        (10**25, 33 * 10**23, Verdict.BELOW),  # the rounded figure of a published recipe
        (10**25, 3_333_333_333_333_333_333_333_333, Verdict.BELOW),  # a third, rounded down
        (10**25, 3_333_333_333_333_333_333_333_334, Verdict.CROSSED),  # just over 33.33… %
        (3 * 10**24, 10**24, Verdict.BELOW),  # a third exactly: "more than" is not "at least"
        (3 * 10**24, 10**24 + 1, Verdict.CROSSED),
        (3, 1, Verdict.BELOW),
        (2, 1, Verdict.CROSSED),
    ],
)
def test_the_line_is_a_third_to_the_operation(original, own, said):
    line = line_of(KNOWN, exactly(original))
    assert line is not None
    assert line.point == Fraction(original, 3)
    assert verdict(exactly(own), line, KNOWN) is said
    assert [e.data["regime"] for e in raised(exactly(own), exactly(original))] == (
        ["eu-modifier"] if said is Verdict.CROSSED else []
    )


def test_at_least_a_third_would_be_met_by_a_third():
    at_least = replace(KNOWN, comparison=">=")
    line = line_of(at_least, exactly(3 * 10**24))
    assert line is not None
    assert verdict(exactly(10**24), line, at_least) is Verdict.CROSSED
    assert verdict(exactly(10**24 - 1), line, at_least) is Verdict.BELOW


@pytest.mark.parametrize(
    ("own", "ids"),
    [
        (10**23 // 3, []),
        (10**23 // 3 + 1, ["eu-modifier-unknown"]),
        (10**25 // 3, ["eu-modifier-unknown"]),
        (10**25 // 3 + 1, ["eu-modifier-unknown", "eu-modifier-unknown-systemic-risk"]),
    ],
)
@pytest.mark.parametrize("original", [None, Figure(0, 0, 0), Figure(0, 0, 10**27)])
def test_where_the_original_is_unknown_the_fallbacks_hold(original, own, ids):
    """A declared run that nobody metered has taken 0 by the books: a third of that would be a line at 0."""
    assert not known(original)
    events = raised(exactly(own), original)
    assert [e.data["regime"] for e in events] == ids
    for e in events:
        assert e.data["original_flop"] is None
        assert e.data["line"]["point"] in ("100000000000000000000000/3", "10000000000000000000000000/3")
        assert e.data["conditions"]


def test_a_known_original_leaves_the_fallbacks_alone():
    assert [e.data["regime"] for e in raised(exactly(10**26), exactly(10**24))] == ["eu-modifier"]


@pytest.mark.parametrize(
    ("own", "answer", "estimate"),
    [
        # The original took 2.4 to 3.6e24, so that the line lies between 0.8 and 1.2e24.
        (exactly(12 * 10**23 + 1), Verdict.CROSSED, Verdict.CROSSED),
        (exactly(12 * 10**23), Verdict.UNDETERMINED, Verdict.CROSSED),
        (exactly(10**24), Verdict.UNDETERMINED, Verdict.BELOW),
        (exactly(8 * 10**23 + 1), Verdict.UNDETERMINED, Verdict.BELOW),
        (exactly(8 * 10**23), None, None),
        (Figure(5 * 10**23, 6 * 10**23, 9 * 10**23), Verdict.UNDETERMINED, Verdict.BELOW),
    ],
)
def test_bounds_of_both_sides_give_three_answers(own, answer, estimate):
    line = line_of(KNOWN, Figure(24 * 10**23, 3 * 10**24, 36 * 10**23))
    assert line is not None
    state = modification_state(own, line, KNOWN)
    assert state == (None if answer is None else (answer, estimate))


FIGURES = st.lists(st.integers(0, 10**26), min_size=3, max_size=3).map(lambda n: Figure(*sorted(n)))


@given(own=FIGURES, original=FIGURES, data=st.data())
def test_no_truth_within_the_bounds_contradicts_the_answer(own, original, data):
    line = line_of(KNOWN, original)
    if line is None:
        assert original.point == 0
        return
    truth = data.draw(st.integers(own.lower, own.upper))
    took = data.draw(st.integers(original.lower, original.upper))
    said = verdict(own, line, KNOWN)
    if 3 * truth > took:
        assert said is not Verdict.BELOW
    else:
        assert said is not Verdict.CROSSED


def test_an_event_is_raised_once_per_original_and_says_what_follows():
    (event,) = raised(exactly(10**25), exactly(2 * 10**25))
    assert event.type == THRESHOLD_CROSSED
    assert event.subject == "tuned"
    assert event.key == "modification:eu-modifier:tuned:crossed:crossed:>1/3:base"
    assert (event.since_position, event.position) == (4, 5)
    assert event.data["line"]["point"] == "20000000000000000000000000/3"
    assert event.data["counted"]["point"] == "1" + "0" * 25
    assert event.data["due"] == "2026-06-11T20:26:40.000Z"  # 14 days
    assert "more than 1/3 of base" in event.data["message"]
    assert "known before" in event.data["message"]
    assert "another provider's model" in event.data["conditions"][0]
    assert event.data["regime_digest"] == KNOWN.digest
    assert raised(exactly(10**25), exactly(2 * 10**25), already={event.key}) == []
    (maybe,) = raised(Figure(1, 10**25, 10**26), exactly(2 * 10**25), already={event.key})
    assert maybe.type == THRESHOLD_UNDETERMINED
    assert "probably" in maybe.data["message"]
    assert "known before" not in maybe.data["message"]
    assert maybe.data["due"] is None


def test_a_regime_that_is_not_in_force_raises_nothing():
    assert raised(exactly(10**25), exactly(10**25), at=1_750_000_000 * 10**9) == []  # 2025-06-15
    off = [replace(r, status="proposed") for r in REGIMES.values()]
    assert raised(exactly(10**25), exactly(10**25), off) == []


def test_run_regimes_have_no_line_here():
    assert all(line_of(r, original) is None for r in shipped() for original in (exactly(10**25), None))


def test_a_modification_over_two_stages_is_one_and_the_original_is_not_in_it():
    """Splitting a fine-tune into stages that continue each other does not bring it under the line."""
    lineage = Lineage(
        [
            Link("stage2", Relation.CONTINUES, "stage1"),
            Link("stage1", Relation.FINE_TUNES, "base"),
            Link("base", Relation.CONTINUES, "older"),
        ]
    )
    flop = {"stage1": 2 * 10**24, "stage2": 2 * 10**24, "base": 6 * 10**24, "older": 4 * 10**24}
    broad = profiles()["eu-broad"]

    def count(run: str, *without: str) -> Figure:
        above = [
            Ancestor(r.name, r.ruling, r.path, (Share(None, exactly(flop[r.name])),))
            for r in lineage.ancestors(run, broad, without=without)
        ]
        return countable(broad, [Share(None, exactly(flop[run]))], above).flop

    (original,) = lineage.originals("stage2")
    own, took = count("stage2", original), count(original)
    assert (own, took) == (exactly(4 * 10**24), exactly(10**25))
    assert [e.data["regime"] for e in raised(own, took)] == ["eu-modifier"]
    assert raised(exactly(flop["stage2"]), took) == []  # a stage alone would be under it
