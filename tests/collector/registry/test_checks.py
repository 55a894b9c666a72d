"""What a new entry must satisfy: every refusal says what was expected, what was got, and what to do."""

from dataclasses import replace
from fractions import Fraction

import pytest
from registry_entries import JOBS, entries, entry

from flopmeter.collector.errors import EntryRefused, RegistryError
from flopmeter.collector.registry.checks import Known, KnownJob, check_entry
from flopmeter.collector.registry.entries import (
    Assign,
    Decision,
    Declare,
    Entry,
    External,
    JobKey,
    Link,
    Purpose,
    Relation,
    Retract,
    Statement,
    Tag,
)
from flopmeter.collector.registry.form import EXCLUSIONS
from flopmeter.collector.registry.state import Registry
from flopmeter.contract.flop import Figure

JOB, OTHER = JOBS
KNOWN = Known(
    runs={"r1", "r2", "r3"},
    jobs={JOB: KnownJob({"0", "1"}, {"r1"}), OTHER: KnownJob({"0"}, {"r2", "r1"})},
)
EVIDENCE = ("https://wiki/eval",)
RESTART = Tag("r1", Purpose.EVALUATION, 2, 4, None, EVIDENCE)


def refused(new: Statement, *before: Statement, known: Known | None = KNOWN) -> RegistryError:
    made = entries(*before)
    with pytest.raises(RegistryError) as e:
        check_entry(Registry.of(made), entry(len(made) + 1, new), known)
    assert e.value.hint
    assert len(str(e.value)) + len(e.value.hint) < 1500
    return e.value


def good(new: Statement, *before: Statement, known: Known | None = KNOWN) -> None:
    made = entries(*before)
    check_entry(Registry.of(made), entry(len(made) + 1, new), known)


LLAMA = External("llama", Figure(1, 2, 3), "its card")


def test_what_is_said_well_is_accepted() -> None:
    good(Declare("new", owner="nlp", budget_flop=38 * 10**24, dtype="bf16", purpose=Purpose.PRETRAINING))
    good(Declare("new", base_models=("llama", "r1")), LLAMA)
    good(Assign(JOB, "r2"))
    good(Assign(JOB, "", "0"))
    good(Assign(JOB, "new"), Declare("new", owner="nlp"))
    good(RESTART)
    good(Tag("r1", Purpose.RL))
    good(Tag("r1", Purpose.RECOMPUTATION, evidence=EVIDENCE, fraction=Fraction(1, 4)))
    good(Tag("r1", Purpose.RL, job=OTHER))
    good(Link("r1", Relation.FINE_TUNES, "r2"))
    good(Link("r1", Relation.FINE_TUNES, "llama"), LLAMA)
    good(LLAMA)
    good(LLAMA, LLAMA)
    good(Retract(1), Assign(JOB, "r2"))
    good(Decision("s1", accepted=True))


LONG, CONTROL = "x" * 10_000, "r1\x1b[31m"


@pytest.mark.parametrize("text", [LONG, CONTROL, "a\nb", " padded", "", "\ud800"], ids=lambda t: repr(t[:9]))
@pytest.mark.parametrize(
    "make",
    [
        lambda t: Declare(t, owner="a"),
        lambda t: Declare("r1", owner=t),
        lambda t: Declare("r1", hardware=t),
        lambda t: Declare("r1", base_models=(t,)),
        lambda t: Assign(JobKey("c1", 3, t), "r1"),
        lambda t: Tag(t, Purpose.RL),
        lambda t: Link(t, Relation.MERGES, "r1"),
        lambda t: Link("r1", Relation.MERGES, t),
        lambda t: External(t, Figure(1, 1, 1), "s"),
        lambda t: Decision(t, accepted=True),
    ],
)
def test_no_name_is_long_or_hostile_or_empty(make, text: str) -> None:
    e = refused(make(text), known=None)
    assert not isinstance(e, EntryRefused)
    assert "\x1b" not in str(e)


@pytest.mark.parametrize("text", [LONG, CONTROL, "a\nb", "  ", "", "\ud800"], ids=lambda t: repr(t[:9]))
def test_no_words_are_long_or_hostile_or_empty(text: str) -> None:
    refused(External("x", Figure(1, 1, 1), text))
    refused(replace(RESTART, evidence=(text,)))
    with pytest.raises(RegistryError, match="why"):
        check_entry(Registry(), entry(1, RESTART, why=text), KNOWN)
    with pytest.raises(RegistryError, match="who"):
        check_entry(Registry(), entry(1, RESTART, who=text), KNOWN)


@pytest.mark.parametrize(
    ("new", "said", "to_do"),
    [
        (Declare("r1"), "got nothing", "--owner"),
        (Declare("r1", budget_flop=0), "expected FLOP from 1", "3.8e25"),
        (Declare("r1", budget_flop=-5), "expected FLOP from 1", "3.8e25"),
        (Declare("r1", budget_flop=10**5000), "more than 60 digits", "3.8e25"),
        (Declare("r1", expected_end_unix_ns=1 << 63), "before 2262", "2027-03-01"),
        (Declare("r1", dtype="bf61"), "expected one of tf32, bf16", "matrix"),
        (Declare("r1", base_models=("r2", "r2")), "each once", "once"),
        (Declare("r1", base_models=tuple(f"m{i}" for i in range(65))), "at most 64", "direct"),
        (Declare("r1", purpose=Purpose.INFERENCE), "takes compute out", "runs tag r1 --purpose inference"),
        (Tag("r1", Purpose.RL, 4, 4), "at least one whole hour", "--job"),
        (Tag("r1", Purpose.RL, 5, 4), "at least one whole hour", "--job"),
        (Tag("r1", Purpose.RL, -1), "1970 to 2262", "2026"),
        (Tag("r1", Purpose.RL, None, 10**9), "1970 to 2262", "2026"),
        (replace(RESTART, evidence=()), "expected evidence for it, got none", "--evidence"),
        (replace(RESTART, evidence=("e",) * 33), "at most 32", "one file"),
        (Tag("r1", Purpose.RECOMPUTATION, evidence=EVIDENCE), "fraction of the work", "--fraction 1/4"),
        (Tag("r1", Purpose.RL, fraction=Fraction(1, 2)), "with recomputation only", "--job"),
        (Tag("r1", Purpose.RECOMPUTATION, fraction=Fraction(1, 4)), "expected evidence", "--evidence"),
        (Assign(JobKey("c1", 1, "idle"), "r1"), "a kind of slurm, pod", "runs show"),
        (Assign(JobKey("c1", 99, "x"), "r1"), "a kind of slurm, pod", "runs show"),
        (External("m", Figure(2, 1, 3), "s"), "lower <= point <= upper", "order the bounds"),
        (External("m", Figure(-1, 1, 3), "s"), "lower <= point <= upper", "order the bounds"),
        (External("m", Figure(1, 1, 10**41), "s"), "<= 10^40", "order the bounds"),
        (Retract(0), "number from 1", "runs entries"),
    ],
)
def test_what_could_never_stand(new: Statement, said: str, to_do: str) -> None:
    e = refused(new)
    assert not isinstance(e, EntryRefused)
    assert said in str(e)
    assert to_do in e.hint


@pytest.mark.parametrize("fraction", [Fraction(0), Fraction(1), Fraction(5, 4), Fraction(-1, 4)])
def test_a_fraction_lies_between_none_and_all(fraction: Fraction) -> None:
    e = refused(Tag("r1", Purpose.RECOMPUTATION, evidence=EVIDENCE, fraction=fraction))
    assert "more than 0 and less than 1" in str(e)


@pytest.mark.parametrize("purpose", sorted(EXCLUSIONS - {Purpose.RECOMPUTATION}))
def test_every_exclusion_needs_evidence(purpose: Purpose) -> None:
    assert "evidence" in str(refused(Tag("r1", purpose)))
    good(Tag("r1", purpose, evidence=EVIDENCE))


@pytest.mark.parametrize(
    ("new", "said", "to_do"),
    [
        (Tag("r9", Purpose.RL), "run 'r9': expected a run of the books or a declared one", "runs declare r9"),
        (Assign(JOB, "r11"), "found neither", "did you mean r1"),
        (Link("r9", Relation.MERGES, "r1"), "found neither", "runs declare r9"),
        (Link("r1", Relation.MERGES, "lama"), "parent 'lama'", "runs external lama"),
        (Declare("new", base_models=("lama",)), "parent 'lama'", "runs external lama"),
        (Assign(JobKey("c1", 3, "9"), "r1"), "job '9' of c1: expected one that the books hold", "runs show"),
        (Assign(JobKey("c2", 3, "4711"), "r1"), "job '4711' of c2", "did you mean 4711"),
        (Assign(JOB, "r1", "7"), "expected a step of 0, 1, got '7'", "leave --step out"),
        (Tag("r2", Purpose.RL, job=JOB), "expected a job of run r2, got one of r1", "assign it first"),
        (External("r1", Figure(1, 1, 1), "s"), "got that of a run", "another name"),
    ],
)
def test_what_the_books_do_not_hold(new: Statement, said: str, to_do: str) -> None:
    e = refused(new)
    assert isinstance(e, EntryRefused)
    assert said in str(e)
    assert to_do in e.hint
    good(new, known=None)


def test_a_run_must_not_take_an_external_models_name() -> None:
    assert "that of an external model" in str(refused(Declare("llama", owner="a"), LLAMA))
    assert "that of a run" in str(refused(External("new", Figure(1, 1, 1), "s"), Declare("new", owner="a")))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (RESTART, Tag("r1", Purpose.RL, 3, 9)),
        (RESTART, Tag("r1", Purpose.RL, 0, 3)),
        (RESTART, Tag("r1", Purpose.RL)),
        (RESTART, Tag("r1", Purpose.RL, until_hour=3)),
        (Tag("r1", Purpose.RL), RESTART),
        (Tag("r1", Purpose.RL, from_hour=3), RESTART),
        (Tag("r1", Purpose.RL, job=JOB), Tag("r1", Purpose.PRETRAINING, 3, 4, JOB)),
        (
            Tag("r1", Purpose.RECOMPUTATION, 0, 4, None, EVIDENCE, Fraction(1, 4)),
            Tag("r1", Purpose.RECOMPUTATION, 3, 5, None, EVIDENCE, Fraction(1, 3)),
        ),
    ],
)
def test_two_tags_of_one_hour_must_not_disagree(old: Tag, new: Tag) -> None:
    e = refused(new, old)
    assert isinstance(e, EntryRefused)
    assert "(entry 1, by ada@lab)" in str(e)
    assert "runs retract 1" in e.hint
    good(new, old, Retract(1))


@pytest.mark.parametrize(
    "new",
    [
        Tag("r1", Purpose.RL, 4, 9),
        Tag("r1", Purpose.RL, 0, 2),
        Tag("r1", Purpose.EVALUATION, 3, 9, None, EVIDENCE),
        Tag("r2", Purpose.RL, 2, 4),
        Tag("r1", Purpose.RL, 2, 4, JOB),
        Tag("r1", Purpose.RECOMPUTATION, 2, 4, None, EVIDENCE, Fraction(1, 4)),
    ],
)
def test_tags_that_do_not_meet_or_do_not_disagree_stand_together(new: Tag) -> None:
    good(new, RESTART)


def test_no_run_stands_on_itself() -> None:
    assert "got r1 on r1" in str(refused(Link("r1", Relation.CONTINUES, "r1")))
    chain = (Link("r1", Relation.CONTINUES, "r2"), Link("r2", Relation.MERGES, "r3"))
    e = refused(Link("r3", Relation.DISTILS, "r1"), *chain)
    assert "got r3 on r1 on r2 on r3" in str(e)
    assert "retract" in e.hint
    assert "on r1" in str(refused(Declare("r3", base_models=("r1",)), *chain))
    assert "circle" in str(refused(Link("r2", Relation.MERGES, "r1"), Declare("r1", base_models=("r2",))))
    good(Link("r3", Relation.DISTILS, "r1"), *chain, Retract(1))
    good(Link("r1", Relation.MERGES, "r3"), *chain)  # a shared ancestor is no circle


def test_a_long_line_of_descent_is_walked() -> None:
    runs = {f"g{i}" for i in range(5_001)}
    chain = [Link(f"g{i}", Relation.CONTINUES, f"g{i + 1}") for i in range(5_000)]
    known = Known(runs=runs)
    assert "circle" in str(refused_last(Link("g5000", Relation.CONTINUES, "g0"), chain, known))


def refused_last(new: Statement, before: list[Link], known: Known) -> RegistryError:
    made = entries(*before)
    with pytest.raises(RegistryError) as e:
        check_entry(Registry.of(made), entry(len(made) + 1, new), known)
    return e.value


def test_the_same_link_twice() -> None:
    link = Link("r1", Relation.MERGES, "r2")
    assert "said already" in str(refused(link, link))
    good(link, link, Retract(1))
    good(replace(link, relation=Relation.DISTILS), link)


def test_only_what_holds_can_be_retracted() -> None:
    assert "from 1 to 1, got 5" in str(refused(Retract(5), RESTART))
    assert "was retracted by entry 2" in str(refused(Retract(1), RESTART, Retract(1)))
    e = refused(Retract(2), RESTART, Retract(1))
    assert "itself a retraction" in str(e)
    assert "say again what entry 1 said" in e.hint


def test_what_others_stand_on_is_not_retracted_under_them() -> None:
    link = Link("r1", Relation.FINE_TUNES, "llama")
    e = refused(Retract(1), LLAMA, link)
    assert "entry 2 rests on llama" in str(e)
    assert "runs retract 2" in e.hint or "retract entry 2" in e.hint
    good(Retract(1), LLAMA, link, Retract(2))
    good(Retract(1), LLAMA, LLAMA, link)  # another entry still states it
    plan, use = Declare("new", owner="a"), Link("new", Relation.MERGES, "r1")
    assert "entry 2 rests on new" in str(refused(Retract(1), plan, use))
    good(Retract(1), Declare("r1", owner="a"), Link("r1", Relation.MERGES, "r2"))  # the books hold r1


@pytest.mark.parametrize(
    ("new", "said"),
    [
        (Entry(1, 10**10, 9, "a", "b", RESTART), "expected number 3, got 1"),
        (Entry(4, 10**10, 9, "a", "b", RESTART), "expected number 3, got 4"),
        (Entry(3, 10**9, 9, "a", "b", RESTART), "1.000 s before it"),
        (Entry(3, 10**10, 1, "a", "b", RESTART), "expected a position not before entry 2's"),
    ],
)
def test_entries_go_forward_only(new: Entry, said: str) -> None:
    before = Registry.of(entries(Declare("r1", owner="a"), Declare("r1", owner="b")))
    with pytest.raises(EntryRefused, match=said) as e:
        check_entry(before, new, KNOWN)
    assert e.value.hint
    check_entry(before, Entry(3, 2 * 10**9, 2, "a", "b", RESTART), KNOWN)  # the same instant is no step back
