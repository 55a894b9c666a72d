"""What entries say together: later over earlier, narrow over wide, retracted as if never said, as of any time."""

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from registry_entries import HOURS, JOBS, RUNS, STEPS, entries, entry, histories

from flopmeter.collector.registry.entries import (
    Assign,
    Decision,
    Declare,
    Entry,
    External,
    Link,
    Purpose,
    Relation,
    Retract,
    Tag,
)
from flopmeter.collector.registry.formerly import Formerly, Once
from flopmeter.collector.registry.state import Registry
from flopmeter.contract.flop import Figure

JOB, OTHER = JOBS


def answers(registry: Registry) -> dict[str, object]:
    """All that anybody may ask of a registry, less who said it."""
    return {
        "run_of": {(j, s): registry.run_of(j, s, "chosen") for j in JOBS for s in STEPS},
        "purpose": {(r, j, h): registry.purpose(r, j, h) for r in RUNS for j in JOBS for h in HOURS},
        "again": {(r, j, h): registry.recomputation(r, j, h) for r in RUNS for j in JOBS for h in HOURS},
        "spans": {r: registry.has_spans(r) for r in RUNS},
        "tags": {r: registry.tags(r) for r in RUNS},
        "declared": {r: registry.declared(r) for r in RUNS},
        "runs": registry.declared_runs,
        "links": registry.links,
        "stands_on": set(registry.stands_on),
        "assigned": {r: registry.assigned_jobs(r) for r in RUNS},
        "assigned_runs": registry.assigned_runs,
        "now": {r: (registry.now(r), registry.each(r), registry.names(r)) for r in RUNS},
        "externals": dict(registry.externals),
        "decisions": dict(registry.decisions),
    }


@given(histories(), st.data())
def test_a_retracted_entry_was_never_said_from_then_on(made: list[Entry], data: st.DataObject) -> None:
    retracted = {e.statement.number for e in made if isinstance(e.statement, Retract)}
    without = [e for e in made if e.number not in retracted and not isinstance(e.statement, Retract)]
    assert answers(Registry.of(made)) == answers(Registry.of(without))


@given(histories(), st.randoms())
def test_the_order_in_which_entries_come_does_not_matter(made: list[Entry], random) -> None:
    shuffled = list(made)
    random.shuffle(shuffled)
    assert answers(Registry.of(shuffled)) == answers(Registry.of(made))


@given(histories(), st.integers(-1, 40))
def test_as_of_a_time_is_the_registry_of_the_entries_then(made: list[Entry], then: int) -> None:
    assert answers(Registry.of(made).at(then)) == answers(Registry.of([e for e in made if e.unix_ns <= then]))


lost = st.dictionaries(
    st.sampled_from(RUNS),
    st.lists(
        st.builds(Once, st.sampled_from(JOBS), st.sampled_from(STEPS), st.sampled_from(RUNS)),
        min_size=1,
        max_size=3,
    ).map(tuple),
    max_size=2,
)


@given(histories(max_size=8), st.just({}) | lost)
def test_one_more_entry_is_the_registry_of_all(made: list[Entry], formerly: Formerly) -> None:
    """Also where everything had been asked before, and what was worked out then is kept."""
    registry = Registry(formerly=formerly)
    for number, e in enumerate(made, 1):
        registry = registry.plus(e)
        whole = Registry.of(made[:number], formerly)
        assert answers(registry) == answers(whole)
        assert (registry.entries, registry.in_force) == (whole.entries, whole.in_force)


def test_each_further_tag_is_not_the_work_of_all_before(monkeypatch) -> None:
    """fsck and a new tag ask for a run's tags after every entry: 20,000 of them are said in a year."""
    *said, last = entries(
        Tag("r1", Purpose.PRETRAINING), Tag("r2", Purpose.RL), Tag("r1", Purpose.PRETRAINING)
    )
    registry = Registry.of(said)
    assert [e.number for e in registry.tag_entries("r1")] == [1]
    monkeypatch.setattr(Registry, "_all", lambda *_: pytest.fail("worked out anew from all entries"))
    grown = registry.plus(last)
    assert [e.number for e in grown.tag_entries("r1")] == [1, 3]
    assert [e.number for e in grown.tag_entries("r2")] == [2]
    assert [e.number for e in registry.tag_entries("r1")] == [1]


def test_the_empty_registry_leaves_everything_to_the_rules_and_counts_all() -> None:
    nothing = Registry.of([])
    assert nothing.run_of(JOB, "0", "slurm:c1/4711") == "slurm:c1/4711"
    assert nothing.purpose("r1", JOB, 0) is None
    assert not nothing.has_spans("r1")


def test_the_later_assignment_holds_and_the_step_beats_its_job() -> None:
    r = Registry.of(entries(Assign(JOB, "r1"), Assign(JOB, "r2"), Assign(JOB, "r3", "0"), Assign(JOB, "r1")))
    assert r.run_of(JOB, "1", "x") == "r1"
    assert r.run_of(JOB, "0", "x") == "r3"
    assert r.run_of(OTHER, "0", "x") == "x"
    found = r.assigned_by(JOB, "0")
    assert found is not None
    assert found.number == 3


def test_an_assignment_to_no_run_gives_back_to_the_rules() -> None:
    r = Registry.of(entries(Assign(JOB, "r1"), Assign(JOB, "", "0")))
    assert r.run_of(JOB, "0", "chosen") == "chosen"
    assert r.run_of(JOB, "1", "chosen") == "r1"
    assert Registry.of(entries(Assign(JOB, "r1"), Assign(JOB, ""))).run_of(JOB, "1", "chosen") == "chosen"


def test_a_jobs_tag_beats_a_spans_which_beats_the_declared_purpose() -> None:
    said = (
        Tag("r1", Purpose.EVALUATION, job=JOB, evidence=("e",)),
        Tag("r1", Purpose.RL, 2, 4),
        Declare("r1", purpose=Purpose.PRETRAINING),
    )
    for order in (said, said[::-1]):
        r = Registry.of(entries(*order))
        assert r.purpose("r1", JOB, 3) is Purpose.EVALUATION
        assert r.purpose("r1", OTHER, 3) is Purpose.RL
        assert [r.purpose("r1", OTHER, h) for h in (1, 2, 3, 4)] == [
            Purpose.PRETRAINING,
            Purpose.RL,
            Purpose.RL,
            Purpose.PRETRAINING,
        ]
        assert r.purpose("r2", JOB, 3) is None
        assert r.has_spans("r1")


def test_who_said_so_is_named_with_it() -> None:
    again = Tag("r1", Purpose.RECOMPUTATION, evidence=("e",), fraction=Fraction(1, 4))
    made = entries(
        Declare("r1", purpose=Purpose.RL),
        Declare("r1", owner="a"),
        Tag("r1", Purpose.FINETUNING, 2, 3),
        again,
    )
    r = Registry.of(made)
    assert r.purpose_by("r1", JOB, 2) == (made[2], Purpose.FINETUNING)
    assert r.purpose_by("r1", JOB, 3) == (made[0], Purpose.RL)
    assert r.purpose_by("r2", JOB, 3) is None
    assert r.recomputation_by("r1", JOB, 0) == (made[3], Fraction(1, 4))
    assert r.recomputation_by("r2", JOB, 0) is None


def test_an_open_span_has_one_end() -> None:
    r = Registry.of(entries(Tag("r1", Purpose.RL, from_hour=3), Tag("r2", Purpose.RL, until_hour=3)))
    assert [r.purpose("r1", JOB, h) for h in (2, 3, 10**6)] == [None, Purpose.RL, Purpose.RL]
    assert [r.purpose("r2", JOB, h) for h in (0, 2, 3)] == [Purpose.RL, Purpose.RL, None]


def test_a_tag_of_the_whole_run_has_no_span() -> None:
    assert not Registry.of(entries(Tag("r1", Purpose.RL))).has_spans("r1")


def test_recomputation_is_a_fraction_beside_the_purpose() -> None:
    again = Tag("r1", Purpose.RECOMPUTATION, evidence=("e",), fraction=Fraction(1, 4))
    of_job = replace(again, job=JOB, fraction=Fraction(1, 3))
    r = Registry.of(entries(of_job, Tag("r1", Purpose.RL), again))
    assert r.purpose("r1", OTHER, 0) is Purpose.RL
    assert r.recomputation("r1", OTHER, 0) == Fraction(1, 4)
    assert r.recomputation("r1", JOB, 0) == Fraction(1, 3)
    assert r.recomputation("r2", JOB, 0) is None


def test_a_later_declaration_replaces_only_what_it_says() -> None:
    r = Registry.of(
        entries(
            Declare("r1", owner="nlp", budget_flop=10, base_models=("llama",)),
            Declare("r1", budget_flop=20, dtype="bf16"),
        )
    )
    assert r.declared("r1") == Declare(
        "r1", owner="nlp", budget_flop=20, dtype="bf16", base_models=("llama",)
    )
    assert r.declared("r2") is None
    assert r.declared_runs == ("r1",)


def test_a_retraction_brings_back_what_stood_before() -> None:
    made = entries(Declare("r1", budget_flop=10), Declare("r1", budget_flop=20), Retract(2))
    assert Registry.of(made).declared("r1") == Declare("r1", budget_flop=10)
    before = Registry.of(made).at(made[1].unix_ns).declared("r1")
    assert before == Declare("r1", budget_flop=20)


def test_links_externals_and_decisions() -> None:
    link = Link("r2", Relation.FINE_TUNES, "r1")
    old, new = (External("llama", Figure(n, n, n), "its card") for n in (1, 2))
    r = Registry.of(entries(link, link, old, new, Decision("s1", True), Decision("s1", False)))
    assert r.links == (link,)
    assert r.externals == {"llama": new}
    assert r.decisions["s1"].accepted is False


def test_a_runs_history_keeps_what_was_taken_back() -> None:
    made = entries(
        Declare("r1", owner="a"),
        Link("r2", Relation.DISTILS, "r1"),
        Retract(2),
        Tag("r3", Purpose.RL),
        Assign(JOB, "r1"),
    )
    assert [e.number for e in Registry.of(made).about("r1")] == [1, 2, 3, 5]
    assert [e.number for e in Registry.of(made).about("r3")] == [4]
    assert Registry.of(made).entry(4) == entry(4, Tag("r3", Purpose.RL))
    assert Registry.of(made).entry(9) is None


def test_where_an_assigned_job_went_is_in_the_history_of_the_run_that_it_left() -> None:
    made = entries(Assign(JOB, "r1"), Assign(OTHER, "r3"), Assign(JOB, ""), Assign(JOB, "r2"), Retract(3))
    assert [e.number for e in Registry.of(made).about("r1")] == [1, 3, 4, 5]
    assert [e.number for e in Registry.of(made).about("r3")] == [2]
