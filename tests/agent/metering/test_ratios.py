"""k of each pipe: what disagrees, what is accepted as a constant, what is left to the percentages."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flopmeter.agent.metering.ratios import (
    ENOUGH,
    EXACT,
    ONE,
    PAIRS,
    PERCENT_OF,
    PLACES,
    PLAIN,
    STOOD_STILL,
    Judged,
    Ratios,
    agree,
    busy,
    clean,
    judge,
    load_ratios,
    needs_settling,
    settle,
)
from flopmeter.agent.reading import CYCLE_IDS

HMMA = CYCLE_IDS.index(252)
E = 1_700_000_000


def counts(**active: int) -> list[int]:
    """Elapsed, and active cycles by counter id ("c252")."""
    return [E] + [active.get(f"c{key}", 0) for key in CYCLE_IDS[1:]]


def test_each_counter_has_the_percentage_that_speaks_of_it() -> None:
    """reference/metering.md 1.3 and 2.1."""
    assert dict(zip(CYCLE_IDS, PERCENT_OF, strict=True)) == {
        248: 0,
        249: 2,
        250: 5,
        251: 8,
        252: 7,
        253: 9,
        254: 6,
        257: 4,
        258: 11,
        259: 12,
        260: 13,
    }


@pytest.mark.parametrize(
    ("counted", "percent", "agrees"),
    [
        (E // 2, 50.0, True),
        (E // 2, 50.5, True),  # 1 %, and what one decimal rounds away
        (E // 2, 50.6, False),
        (E // 2, 49.4, False),
        (0, 0.05, True),
        (0, 0.06, False),
        (0, 60.0, False),  # the counter stood still
        (E // 2, 0.0, False),
        (E * 132, 100.0, False),
        (0, 0.0, True),
    ],
)
def test_within_one_percent_and_the_resolution(counted: int, percent: float, agrees: bool) -> None:
    deltas = counts(c252=counted)
    assert agree(deltas, {7: percent}, EXACT) is agrees
    (judged,) = judge(deltas, clean({7: percent})[0], EXACT)
    assert judged.agrees is agrees
    assert judged.evidence is (percent > 5)


@given(
    active=st.lists(st.integers(0, 10**12), min_size=PLACES - 1, max_size=PLACES - 1),
    percent=st.dictionaries(
        st.sampled_from(PERCENT_OF[1:]), st.one_of(st.floats(allow_nan=True), st.floats(0, 100))
    ),
    k=st.lists(st.integers(1_000, 2**32 - 1), min_size=PLACES - 1, max_size=PLACES - 1),
)
def test_the_quick_look_sees_all_that_the_exact_one_does(
    active: list[int], percent: dict, k: list[int]
) -> None:  # type: ignore[type-arg]
    deltas, worth = [E, *active], (ONE, *k)
    exact = all(j.agrees for j in judge(deltas, clean(percent)[0], worth))
    if not exact and agree(deltas, percent, worth):  # at the very edge, where floats round
        near = {key: value for key, value in percent.items() if 0 <= value <= 100.5}
        assert not agree(
            deltas, {key: value * (1 + 1e-6) + 1e-6 for key, value in near.items()}, worth
        ) or not agree(deltas, {key: value * (1 - 1e-6) - 1e-6 for key, value in near.items()}, worth)


def note(ratios: Ratios, *values: int, accept: bool = True) -> list[str]:
    """Intervals whose percentage asks for these k, in ppm; what is said."""
    said = []
    for k_ppm in values:
        agrees = abs(k_ppm - ratios.k[HMMA]) * 100 <= ratios.k[HMMA]
        said += ratios.note([Judged(HMMA, k_ppm * 1_000, agrees, 50_000_000)], accept=accept)
    return [f"{f.about}: {f.text}" for f in said]


def test_ten_in_a_row_within_one_percent_are_a_constant() -> None:
    ratios = Ratios()
    said = note(ratios, *([250_000, 252_000] * 5)[:-1])
    assert ratios.k == EXACT
    assert ratios.disputed
    assert [s.partition(":")[0] for s in said] == ["counter 252 (hmma)"]
    (said,) = note(ratios, 252_000)
    assert "0.251000" in said
    assert ratios.k[HMMA] == 251_000
    assert ratios.k[:HMMA] + ratios.k[HMMA + 1 :] == EXACT[1:]
    assert not ratios.disputed


def test_what_varies_by_more_is_none_and_said_once() -> None:
    ratios = Ratios()
    said = note(ratios, *([250_000, 253_000] * 30))
    assert [s.partition(" of")[0] for s in said[1:]] == ["no constant k"]
    assert ratios.k == EXACT
    assert ratios.disputed
    assert len(ratios.recent[HMMA]) == ENOUGH
    assert len(note(ratios, *([250_000] * 10))) == 1  # steady after all
    assert ratios.k[HMMA] == 250_000


def test_an_interval_that_fits_ends_the_row() -> None:
    ratios = Ratios()
    note(ratios, *([250_000] * 9), ONE, *([250_000] * 9))
    assert ratios.k == EXACT
    note(ratios, 250_000)
    assert ratios.k[HMMA] == 250_000


def test_back_to_one_is_exactly_one() -> None:
    ratios = Ratios()
    note(ratios, *([250_000] * 10))
    note(ratios, *([1_004_000] * 10))
    assert ratios.k is EXACT


@pytest.mark.parametrize("k_ppm", [0, 999])
def test_what_parts_per_million_cannot_tell_is_no_constant(k_ppm: int) -> None:
    ratios = Ratios()
    note(ratios, *([k_ppm] * 20))
    assert ratios.k == EXACT
    assert ratios.disputed


def test_before_its_time_a_constant_is_not_accepted_and_evidence_is_kept() -> None:
    ratios = Ratios()
    note(ratios, *([250_000] * 30), accept=False)
    assert ratios.k == EXACT
    note(ratios, 250_000)
    assert ratios.k[HMMA] == 250_000


def test_idle_pipes_tell_nothing_of_k_but_are_said() -> None:
    ratios = Ratios()
    said = [
        f for _ in range(20) for f in ratios.note([Judged(HMMA, 250_000_000, agrees=False, part=1_000_000)])
    ]
    assert len(said) == 1
    assert not ratios.disputed


def test_settling() -> None:
    deltas = counts(c252=E // 2)
    assert settle(deltas, (), {7: 50.0}, PLAIN) == ((Judged(HMMA, 10**9, agrees=True, part=50_000_000),), {})
    judged, shares = settle(deltas, (), {7: 40.0, 12: 3.0}, PLAIN)  # type: ignore[misc]
    assert shares == {HMMA: 40_000_000, CYCLE_IDS.index(259): 3_000_000}
    assert [j.agrees for j in judged] == [False, False]
    # A pipe active for longer than time needs its own percentage.
    assert "active of" in settle(counts(c252=2 * E), (), {12: 0.0}, PLAIN)  # type: ignore[operator]
    assert settle(counts(c252=2 * E), (), {7: 60.0}, PLAIN)[1] == {HMMA: 60_000_000}
    # A counter that was not read: its percentage stands for it, and nothing is held against the counter.
    judged, shares = settle(counts(), (HMMA,), {7: 60.0}, PLAIN)  # type: ignore[misc]
    assert (judged, shares) == ((), {HMMA: 60_000_000})
    # Id 248 stood still.
    assert settle([0] * PLACES, (), {7: 0.0}, PLAIN) == ((), {})
    assert settle([0, 5, *[0] * (PLACES - 2)], (), {}, PLAIN) == STOOD_STILL
    assert [busy(p) for p in ({}, {7: 0.05}, {7: 0.06}, {7: math.nan})] == [False, False, True, False]


def test_a_disputed_counter_without_its_percentage_is_worth_nothing_known() -> None:
    ratios = Ratios()
    note(ratios, 2_000_000)
    deltas = counts(c252=E // 4)
    assert needs_settling(deltas, ratios)
    assert "disputed" in settle(deltas, (), {}, ratios)  # type: ignore[operator]
    assert "disputed" in settle(deltas, (), {12: 0.0}, ratios)  # type: ignore[operator]
    assert settle(deltas, (), {7: 50.0}, ratios)[1] == {HMMA: 50_000_000}
    assert not needs_settling(deltas, PLAIN)


def test_one_disagreement_does_not_stay_with_a_pipe_that_went_idle() -> None:
    """An agent's restart is bridged by counters, and an idle pipe's are worth nothing whatever k is."""
    ratios = Ratios()
    note(ratios, 2_000_000)
    ratios.note([Judged(HMMA, 0, agrees=True, part=0)])
    assert ratios.disputed
    assert settle(counts(c252=E // 3_000), (), {}, ratios) == ((), {})
    assert "disputed" in settle(counts(c252=E // 1_000), (), {}, ratios)  # type: ignore[operator]
    ratios.note([Judged(HMMA, 10**9, agrees=True, part=600_000)])  # 0.6 %: k 1 it is
    assert not ratios.disputed


def test_ratios_are_kept_as_they_are() -> None:
    ratios = Ratios()
    note(ratios, *([250_000] * 10), 300_000)
    again = load_ratios(ratios.dump())
    assert again == ratios
    assert load_ratios(Ratios().dump()).k is EXACT
    good = ratios.dump()
    for bad in (
        [],
        [[1] * 3, [], []],
        [[*good[0][:-1], 1.5], [], []],
        [good[0], [[HMMA]], []],
        [good[0], [[0, 1]], []],
        [good[0], [[PLACES, 1]], []],
        [good[0], [[HMMA, -1]], []],
        [good[0], [[HMMA, "1"]], []],
        [good[0], [], [[HMMA]]],
    ):
        with pytest.raises((ValueError, TypeError, KeyError)):
            load_ratios(bad)


@given(st.dictionaries(st.integers(0, 20), st.floats(allow_nan=True)))
def test_only_percentages_come_clean(percent: dict) -> None:  # type: ignore[type-arg]
    fractions, refused = clean(percent)
    for _, key in PAIRS:
        value = percent.get(key)
        assert (key in fractions) == (value is not None and 0 <= value <= 100.5)
        assert value is None or key in fractions or refused
        if key in fractions:
            assert fractions[key] == min(round(value * 10**6), 10**8)
            assert not math.isnan(value)
