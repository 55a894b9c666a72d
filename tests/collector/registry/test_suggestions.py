"""Suggestions: what is asked, why, how surely; and what is not asked."""

from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flopmeter.collector.law.regimes import MODIFICATION, shipped
from flopmeter.collector.registry.entries import Link, Relation
from flopmeter.collector.registry.lineage import Lineage
from flopmeter.collector.registry.suggestions import (
    HAND_OVER_NS,
    MAX_SUGGESTIONS,
    Confidence,
    RunFacts,
    Suggestion,
    suggestions,
)

HOUR = 3_600_000_000_000
EU = "eu-systemic-risk"


def facts(run: str, begin_h: int, hours: int, point: int = 5 * 10**24, **more) -> RunFacts:
    kept = {
        "owner": "ada",
        "running": False,
        "models": frozenset({"NVIDIA H100 80GB HBM3"}),
        "sites": frozenset({"slurm:east"}),
        "counted": {EU: point},
        **more,
    }
    return RunFacts(run, first_unix_ns=begin_h * HOUR, last_unix_ns=(begin_h + hours) * HOUR, **kept)


def ask(*runs: RunFacts, links: Iterable[Link] = ()) -> tuple[Suggestion, ...]:
    return suggestions(runs, shipped(), Lineage(links))


def signals(s: Suggestion) -> set[str]:
    return {r.signal for r in s.reasons}


def test_one_run_in_two_names_at_two_sites_is_asked_about_with_every_reason():
    """Split under the line: east stops at 9e24, west goes on from its checkpoint an hour later."""
    checkpoint = frozenset({"sha256:4f0c"})
    east = facts("llm-7-part-1", 0, 100, 9 * 10**24, checkpoints=checkpoint)
    west = facts("llm-7-part-2", 101, 90, 8 * 10**24, checkpoints=checkpoint, sites=frozenset({"slurm:west"}))
    (found,) = [s for s in ask(west, east) if s.kind == "linked"]
    assert found.runs == ("llm-7-part-1", "llm-7-part-2")
    assert found.confidence is Confidence.HIGH
    assert signals(found) == {
        "checkpoint",
        "names",
        "owner",
        "hand-over",
        "hardware",
        "stop-under-a-line",
        "another-site",
    }
    assert "1 h 0 min after" in next(r.seen for r in found.reasons if r.signal == "hand-over")
    assert "which the two together pass" in next(r.seen for r in found.reasons if r.signal.startswith("stop"))
    assert all(r.not_proof for r in found.reasons)
    assert "adds nothing to any total" in found.not_proof
    assert found.command == "flopmeter runs link llm-7-part-2 continues llm-7-part-1 --why TEXT"


@pytest.mark.parametrize(
    ("second", "confidence"),
    [
        # Same owner and hardware, days apart, other names: any two jobs of a team.
        (facts("chat", 500, 10), None),
        # … begun within six hours: asked, softly.
        (facts("chat", 10 + 6, 10), Confidence.LOW),
        (facts("chat", 10 + 7, 10), None),
        # … while the first still ran: no hand-over.
        (facts("chat", 9, 10), None),
        # … and with a name that counts on.
        (facts("llm-2", 10 + 6, 10), Confidence.MEDIUM),
        (facts("llm-2", 500, 10), Confidence.LOW),
        (facts("llm-0", 500, 10), None),  # counts down
        # A shared checkpoint path is enough, whoever and wherever.
        (
            facts("x", 900, 1, owner="bob", models=frozenset({"GB200"}), checkpoints=frozenset({"c"})),
            Confidence.LOW,
        ),
    ],
)
def test_how_surely_is_how_much_there_is(second, confidence):
    first = facts("llm-1", 0, 10, 10**24, checkpoints=frozenset({"c"}))
    found = [s for s in ask(first, second) if s.kind == "linked"]
    assert [s.confidence for s in found] == ([] if confidence is None else [confidence])


def test_a_run_that_still_runs_hands_nothing_over_and_has_not_stopped():
    first = facts("llm-1", 0, 10, 9 * 10**24, running=True)
    (found,) = ask(first, facts("llm-2", 11, 5))
    assert signals(found) == {"names", "owner", "hardware"}


def test_repeated_stops_under_one_line_are_asked_about_once_for_all():
    runs = [facts(f"model-{c}", 1000 * i, 10, 9 * 10**24) for i, c in enumerate("abc")]
    (found,) = ask(*runs)
    assert (found.kind, found.runs) == ("stops-under-a-line", ("model-a", "model-b", "model-c"))
    assert found.confidence is Confidence.MEDIUM
    assert "3 runs of ada stopped" in found.reasons[0].seen
    assert "lawful" in found.reasons[0].not_proof
    (pair,) = ask(*runs[:2])
    assert pair.confidence is Confidence.LOW
    assert pair.id != found.id  # one more stop is a new question


@pytest.mark.parametrize(
    ("point", "asked"),
    [
        (10**25 * 10 // 13, False),  # just below 10/13
        (10**25 * 10 // 13 + 1, True),
        (10**25, True),  # the line itself is not met under >
        (10**25 + 1, False),  # met: it is no stop under it
    ],
)
def test_just_under_a_line_is_where_thirty_percent_could_hide_a_crossing(point, asked):
    runs = [facts(f"model-{c}", 1000 * i, 10, point) for i, c in enumerate("ab")]
    assert [s.kind for s in ask(*runs)] == (["stops-under-a-line"] if asked else [])


def test_other_owners_running_runs_and_small_ones_are_let_be():
    stop = facts("a", 0, 10, 9 * 10**24)
    assert ask(stop, facts("b", 1000, 10, 9 * 10**24, owner="bob")) == ()
    assert ask(stop, facts("b", 1000, 10, 9 * 10**24, running=True)) == ()
    assert ask(replace(stop, owner=""), facts("b", 1000, 10, 9 * 10**24, owner="")) == ()
    assert (
        suggestions([facts("llm-1", 0, 10), facts("llm-2", 11, 1)], shipped(MODIFICATION), Lineage([])) == ()
    )  # no line here
    small = [facts(f"sweep-{i}", 11 * i, 10, 10**18) for i in range(50)]
    assert ask(*small) == ()  # a sweep: numbered, one after the other, and nothing to any line


def test_what_is_linked_already_is_not_asked_about_by_whatever_path():
    runs = [facts(f"llm-{i}", 20 * i, 10, 9 * 10**24) for i in (1, 2, 3)]
    assert {s.kind for s in ask(*runs)} == {"linked", "stops-under-a-line"}
    links = [Link("llm-3", Relation.CONTINUES, "llm-2"), Link("llm-2", Relation.INITIALISED_FROM, "llm-1")]
    assert ask(*runs, links=links) == ()
    (left,) = [s for s in ask(*runs, links=links[:1]) if s.kind == "linked"]
    assert left.runs == ("llm-1", "llm-2")


def test_an_id_stays_when_more_reasons_come_up():
    first, second = facts("llm-1", 0, 10), facts("llm-2", 12, 10)
    (before,) = ask(first, second)
    checkpoint = frozenset({"c"})
    (after,) = ask(replace(first, checkpoints=checkpoint), replace(second, checkpoints=checkpoint))
    assert before.id == after.id
    assert before.confidence is Confidence.MEDIUM
    assert after.confidence is Confidence.HIGH
    assert len(before.id) == 16


def test_names_that_a_shell_would_read_are_quoted():
    (found,) = ask(facts("it's; rm -rf 1", 0, 10), facts("it's; rm -rf 2", 12, 10))
    assert found.command == (
        """flopmeter runs link 'it'"'"'s; rm -rf 2' continues 'it'"'"'s; rm -rf 1' --why TEXT"""
    )


RUNS = st.lists(
    st.builds(
        facts,
        st.sampled_from([f"r-{i}" for i in range(6)] + ["x", "y"]),
        st.integers(0, 50),
        st.integers(0, 20),
        st.sampled_from([0, 10**24, 9 * 10**24, 2 * 10**25]),
        owner=st.sampled_from(["ada", "bob", ""]),
        running=st.booleans(),
        checkpoints=st.frozensets(st.sampled_from(["c", "d"]), max_size=2),
    ),
    max_size=6,
    unique_by=lambda f: f.run,
)


@given(runs=RUNS, order=st.randoms())
def test_no_order_changes_the_questions_and_each_is_asked_once(runs, order):
    found = ask(*runs)
    order.shuffle(runs)
    assert ask(*runs) == found
    assert len({s.id for s in found}) == len(found)
    by_name = {f.run: f for f in runs}
    for s in found:
        assert set(s.runs) <= set(by_name)
        starts = [by_name[r].first_unix_ns for r in s.runs]
        assert starts == sorted(starts)
        if "hand-over" in signals(s):
            assert 0 <= starts[1] - by_name[s.runs[0]].last_unix_ns <= HAND_OVER_NS


def test_a_thousand_runs_are_a_page_of_questions():
    runs = [facts(f"llm-{i}", 11 * i, 10) for i in range(1_000)]
    assert len(ask(*runs)) == MAX_SUGGESTIONS
