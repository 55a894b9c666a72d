"""Countable totals: exact integers, each part once, and why. Items 4 to 7 of reference/regulations.md section 13."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flopmeter.collector.law.countable import Ancestor, Countable, Share, countable, parts_json
from flopmeter.collector.law.profiles import Answer, shipped
from flopmeter.collector.registry.entries import Purpose, Relation
from flopmeter.contract.flop import ZERO, Figure, total

BROAD, NARROW, STATE, KOREA = (shipped()[p] for p in ("eu-broad", "eu-narrow", "us-state", "korea"))
PROFILES = (BROAD, NARROW, STATE, KOREA)


def exactly(n: int) -> Figure:
    return Figure(n, n, n)


def points(shares: list[Share]) -> dict[str, int]:
    return {p.id: countable(p, shares).flop.point for p in PROFILES}


def test_recomputation_of_a_quarter_lowers_the_eu_totals_by_exactly_that_and_no_other():
    """Item 4: with recomputation tagged at 25 % of executed, EU-countable falls by exactly that."""
    executed = Figure(8 * 10**24, 10**25, 12 * 10**24)
    shares = [Share(Purpose.PRETRAINING, executed, recomputation=Fraction(1, 4), entries=(7,))]
    for profile in (BROAD, NARROW):
        found = countable(profile, shares)
        assert found.flop == Figure(6 * 10**24, 75 * 10**23, 9 * 10**24)
        (cut,) = found.left_out
        assert (cut.activity, cut.entries, cut.flop.point) == ("recomputation", (7,), 25 * 10**23)
    for profile in (STATE, KOREA):
        found = countable(profile, shares)
        assert found.flop == executed
        assert not found.left_out
        (said,) = found.silent
        assert (said.activity, said.flop.point) == ("recomputation", 25 * 10**23)


def test_private_synthetic_data_raises_the_broad_total_and_not_the_narrow_one():
    """Item 6: both EU definitions at once."""
    training = Share(Purpose.PRETRAINING, exactly(9 * 10**24))
    data = Share(Purpose.SYNTHETIC_DATA, exactly(2 * 10**24 + 1))
    before, after = points([training]), points([training, data])
    assert before == dict.fromkeys(before, 9 * 10**24)
    assert after == {
        "eu-broad": 11 * 10**24 + 1,  # past 10^25
        "eu-narrow": 9 * 10**24,
        "us-state": 11 * 10**24 + 1,
        "korea": 11 * 10**24 + 1,
    }


#: 2^n FLOP of the n-th purpose: a total names its set.
EACH = {p: 1 << i for i, p in enumerate(p for p in Purpose if p is not Purpose.RECOMPUTATION)}


@pytest.mark.parametrize(
    ("profile", "left_out"),
    [
        (
            "eu-broad",
            {"synthetic-data-public", "teacher", "auxiliary", "experiment", "evaluation", "inference"},
        ),
        (
            "eu-narrow",
            {
                "synthetic-data",
                "synthetic-data-public",
                "teacher",
                "auxiliary",
                "experiment",
                "evaluation",
                "preprocessing",
                "inference",
            },
        ),
        ("us-state", {"inference"}),
        ("korea", {"experiment", "evaluation", "inference"}),
    ],
)
def test_each_profile_sums_exactly_the_purposes_that_it_counts(profile, left_out):
    shares = [Share(p, exactly(n), exactly(n << 20)) for p, n in EACH.items()]
    shares.append(Share(None, exactly(1 << 40)))
    found = countable(shipped()[profile], shares)
    wanted = sum(n for p, n in EACH.items() if p.value not in left_out)
    assert found.flop == exactly(wanted + (1 << 40))  # untagged counts
    assert found.integer_ops == exactly(wanted << 20)
    assert {p.activity for p in found.left_out} == left_out
    silent = {p.activity for p in found.silent}
    assert silent == {p.value for p in EACH if shipped()[profile].of(p).answer is Answer.SILENT}


def ancestor(name: str, relation: Relation, *shares: Share, profile=BROAD) -> Ancestor:
    return Ancestor(name, profile.relations[relation], (f"{relation.value} {name}",), shares)


def test_merges_add_a_distilled_teacher_does_not_and_says_why():
    """Item 7, for the EU's broad definition."""
    own = [Share(Purpose.PRETRAINING, exactly(10**24))]
    parents = [
        ancestor("a", Relation.MERGES, Share(Purpose.PRETRAINING, exactly(3 * 10**24))),
        ancestor("b", Relation.MERGES, Share(Purpose.PRETRAINING, exactly(5 * 10**24))),
        ancestor("t", Relation.DISTILS, Share(Purpose.PRETRAINING, exactly(7 * 10**25))),
    ]
    found = countable(BROAD, own, parents)
    assert found.flop == exactly(9 * 10**24)
    (out,) = found.left_out
    assert (out.of, out.path, out.flop) == ("t", ("distils t",), exactly(7 * 10**25))
    assert "distillation" in out.ruling.words
    assert [p.of for p in found.parts] == ["", "a", "b", "t"]


def test_an_ancestors_own_tags_and_recomputation_apply_to_its_part():
    base = ancestor(
        "base",
        Relation.FINE_TUNES,
        Share(Purpose.PRETRAINING, exactly(8 * 10**24), recomputation=Fraction(1, 4), entries=(3,)),
        Share(Purpose.EVALUATION, exactly(10**24), entries=(4,)),
    )
    found = countable(BROAD, [Share(Purpose.FINETUNING, exactly(10**23))], [base])
    assert found.flop == exactly(10**23 + 6 * 10**24)
    assert {(p.of, p.activity, p.entries) for p in found.left_out} == {
        ("base", "recomputation", (3,)),
        ("base", "evaluation", (4,)),
    }


def test_silent_in_the_relation_is_said_of_the_ancestors_part():
    base = ancestor("base", Relation.MERGES, Share(None, exactly(5)), profile=NARROW)
    found = countable(NARROW, [Share(None, exactly(2))], [base])
    assert found.flop == exactly(7)
    (part,) = found.silent
    assert (part.of, part.ruling) == ("base", NARROW.relations[Relation.MERGES])


def test_a_part_that_was_left_out_already_is_not_cut_again():
    found = countable(BROAD, [Share(Purpose.EVALUATION, exactly(8), recomputation=Fraction(1, 4))])
    assert found.flop == ZERO
    (part,) = found.parts
    assert (part.activity, part.flop) == ("evaluation", exactly(8))


def test_what_is_counted_is_rounded_outward_and_once():
    third = Fraction(1, 3)
    one = countable(BROAD, [Share(None, Figure(10, 11, 13), recomputation=third)])
    assert one.flop == Figure(6, 8, 9)  # 6.67 down, 7.33 up, 8.67 up
    assert one.left_out[0].flop == Figure(3, 3, 5)
    split = [
        Share(None, Figure(4, 5, 6), recomputation=third),
        Share(None, Figure(6, 6, 7), recomputation=third),
    ]
    assert countable(BROAD, split) == one


@pytest.mark.parametrize("fraction", [Fraction(-1, 4), Fraction(5, 4)])
def test_a_fraction_that_is_none_and_a_purpose_that_is_a_fraction_are_refused(fraction):
    with pytest.raises(ValueError, match="from 0 to 1"):
        countable(BROAD, [Share(None, exactly(4), recomputation=fraction)])
    with pytest.raises(ValueError, match="expected a fraction of a share"):
        countable(BROAD, [Share(Purpose.RECOMPUTATION, exactly(4))])


def test_parts_as_reports_print_them():
    found = countable(BROAD, [Share(Purpose.EVALUATION, exactly(10**24), entries=(2, 5))])
    assert parts_json(found.parts) == [
        {
            "of": None,
            "path": [],
            "activity": "evaluation",
            "answer": "excluded",
            "counted": False,
            "words": BROAD.of(Purpose.EVALUATION).words,
            "source": BROAD.of(Purpose.EVALUATION).source,
            "inferred": False,
            "entries": [2, 5],
            "flop": {"lower": "1" + "0" * 24, "point": "1" + "0" * 24, "upper": "1" + "0" * 24},
            "integer_ops": {"lower": "0", "point": "0", "upper": "0"},
        }
    ]


FIGURES = st.lists(st.integers(0, 10**26), min_size=3, max_size=3).map(lambda n: Figure(*sorted(n)))
SHARES = st.builds(
    Share,
    st.sampled_from([None, *EACH]),
    FIGURES,
    FIGURES,
    st.none() | st.fractions(0, 1, max_denominator=1000),
    st.sampled_from([(), (1,), (2, 3)]),
)


@given(
    profile=st.sampled_from(PROFILES),
    shares=st.lists(SHARES, max_size=6),
    parents=st.lists(st.tuples(st.sampled_from(list(Relation)), st.lists(SHARES, max_size=3)), max_size=3),
    order=st.randoms(),
)
def test_every_operation_is_in_one_part_and_no_order_changes_the_total(profile, shares, parents, order):
    above = [
        ancestor(f"p{i}", relation, *found, profile=profile) for i, (relation, found) in enumerate(parents)
    ]
    found = countable(profile, shares, above)
    executed = total(s.flop for s in [*shares, *(s for _, of_parent in parents for s in of_parent)])
    parts = total(p.flop for p in found.parts)
    assert parts.point == executed.point
    assert parts.lower <= executed.lower <= executed.upper <= parts.upper
    most = 2 * len(found.parts)  # an operation at most for each cut
    assert executed.lower - parts.lower <= most >= parts.upper - executed.upper
    assert found.flop == total(p.flop for p in found.parts if p.counted)
    for p in found.parts:
        assert 0 <= p.flop.lower <= p.flop.point <= p.flop.upper
    order.shuffle(shares)
    order.shuffle(above)
    assert countable(profile, shares, above) == found


def test_none_and_nothing_computed_again_stand_in_one_order():
    """ "Nobody said" and "none of it" are two parts: whoever adds up in another order must print the same."""
    said = Share(None, Figure(1, 1, 1), recomputation=Fraction(0), entries=(1,))
    silent = Share(None, Figure(2, 2, 2), entries=(1,))
    assert countable(BROAD, [said, silent]) == countable(BROAD, [silent, said])


@given(profile=st.sampled_from(PROFILES), shares=st.lists(SHARES, max_size=5), more=SHARES)
def test_more_work_never_lowers_the_total(profile, shares, more):
    less, all_of_it = countable(profile, shares).flop, countable(profile, [*shares, more]).flop
    assert all_of_it.lower >= less.lower
    assert all_of_it.point >= less.point
    assert all_of_it.upper >= less.upper


def test_where_recomputation_counts_nothing_is_lost_to_rounding():
    found: Countable = countable(STATE, [Share(None, Figure(10, 11, 13), recomputation=Fraction(1, 3))])
    assert found.flop == Figure(10, 11, 13)
    assert [p.flop for p in found.parts] == [Figure(7, 8, 9), Figure(3, 3, 4)]
