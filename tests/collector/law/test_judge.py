"""Regimes that come into force or are added later: every run is judged again, once a day and at a start."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from builders import UNIX_NS, Chain, busy
from desk import DAY_NS, Desk
from law_files import changed

from flopmeter.collector.check.fsck import check_store, result_text
from flopmeter.collector.ingest.decide import TAKEN
from flopmeter.collector.law.profiles import profile_of
from flopmeter.collector.law.regimes import shipped
from flopmeter.collector.law.standing import text_of
from flopmeter.collector.registry.entries import Declare, Link, Relation
from flopmeter.collector.registry.say import say
from flopmeter.contract.usage import Workload, WorkloadKind

OLD = next(r for r in shipped() if r.comparison == ">=" and r.ends is None)
BROAD = next(r for r in shipped() if r.id == "eu-systemic-risk")
#: Crossed by a window of busy(); in force long before.
LOW = changed(OLD, id="low", threshold_flop=10**15)
TODAY = datetime.fromtimestamp((UNIX_NS + DAY_NS) // 10**9, UTC).date()
TOMORROW = changed(LOW, id="tomorrow", effective=TODAY + timedelta(days=1))


def look(desk):
    """What a look now raises of runs; the agents here have fallen silent, which is told elsewhere."""
    if not desk.intake.review(desk.now):
        return ()
    return tuple(e for e in desk.commit().events if e.type != "agent.silent")


def good(desk, regimes):
    result = check_store(desk.store.path, regimes)
    assert result.difference is None, result_text(result)
    return result


def run_once(path, regimes):
    """A store in which one run executed something and stopped."""
    with Desk(path, regimes) as desk:
        chain = Chain("n")
        agent = desk.agent(chain)
        assert desk.offer(agent, chain.next([busy(0)])) is TAKEN
        return desk.commit().events


@pytest.fixture
def path(tmp_path):
    return tmp_path / "books.db"


def test_a_regime_added_later_meets_a_run_that_has_stopped_once(path):
    assert run_once(path, ()) == ()
    with Desk(path, [LOW]) as desk:
        (event,) = look(desk)
        assert (event.type, event.subject, event.data["regime"]) == ("threshold.crossed", "r1", "low")
        assert look(desk) == ()
        good(desk, [LOW])
    with Desk(path, [LOW]) as desk:
        assert look(desk) == ()
        assert good(desk, [LOW]).events == 1
        assert desk.rows("SELECT regime, from_position, until_position FROM judged") == [("low", 2, None)]


def test_a_regime_that_comes_into_force_meets_it_at_midnight(path):
    assert run_once(path, [TOMORROW]) == ()
    with Desk(path, [TOMORROW]) as desk:
        assert look(desk) == ()
        desk.now = UNIX_NS + DAY_NS + DAY_NS - (UNIX_NS % DAY_NS) - 1  # the last of the day
        assert look(desk) == ()
        desk.now += 1
        (event,) = look(desk)
        assert event.data["regime"] == "tomorrow"
        desk.now += 1
        assert look(desk) == ()
        good(desk, [TOMORROW])
        assert desk.rows("SELECT count(*) FROM events WHERE type = 'threshold.crossed'") == [(1,)]


def test_the_first_commit_of_the_day_judges_all_runs_even_without_a_look(path):
    run_once(path, [TOMORROW])
    with Desk(path, [TOMORROW]) as desk:
        other = Chain("other")
        agent = desk.agent(other)
        desk.now += DAY_NS
        assert desk.offer(agent, other.next([busy(0)])) is TAKEN
        (event,) = desk.commit().events
        assert (event.since_position, event.position) == (2, 2)
        good(desk, [TOMORROW])


def test_after_a_failed_commit_all_is_judged_again_and_nothing_raised_twice(path):
    run_once(path, ())
    with Desk(path, [LOW]) as desk:
        assert len(look(desk)) == 1
        desk.recover()
        assert look(desk) == ()
        assert good(desk, [LOW]).events == 1


def test_another_text_of_a_regime_ends_the_first(path):
    run_once(path, [LOW])
    other = changed(LOW, version="2")
    with Desk(path, [other]) as desk:
        look(desk)
        rows = desk.rows("SELECT digest, from_position, until_position FROM judged ORDER BY from_position")
        assert rows == [(text_of(LOW), 1, 1), (text_of(other), 2, None)]


def test_another_text_of_a_counting_profile_is_another_text_of_its_regimes():
    assert text_of(replace(LOW, counting="executed")) == LOW.digest
    broad, narrow = (text_of(replace(LOW, counting=name)) for name in ("eu-broad", "eu-narrow"))
    assert broad == f"{LOW.digest}+{profile_of('eu-broad').digest}" != narrow


def test_fsck_misses_the_event_of_a_stopped_run_and_one_that_came_late(path):
    run_once(path, ())
    with Desk(path, [LOW]) as desk:
        look(desk)
        chain = Chain("later")
        agent = desk.agent(chain)
        for _ in range(3):
            assert desk.offer(agent, chain.next([busy(0)])) is TAKEN
            desk.commit()
        good(desk, [LOW])
        desk.store._writer.execute("UPDATE events SET since_position = 4, position = 4")
        late = check_store(desk.store.path, [LOW]).difference
        assert late is not None
        assert late.column == "since_position"
        desk.store._writer.execute("DELETE FROM events")
        missed = check_store(desk.store.path, [LOW]).difference
        assert missed is not None
        assert (missed.table, missed.column, missed.got) == ("events", "row", "none")


def test_fsck_by_a_regime_that_the_collector_does_not_know_says_so(path):
    run_once(path, ())
    result = check_store(path, [LOW])
    assert result.difference is None
    assert "not judged by low" in result.notes[0]


@pytest.mark.parametrize("quiet", [1, 2, 3, 9])
def test_what_nobody_asked_for_is_in_the_figure_when_it_counts(path, quiet):
    """Minutes far below the line are added up unpriced; whoever asks then gets the figure of all of them."""
    far, chain = changed(OLD, id="far", threshold_flop=10**24), Chain("n")
    with Desk(path, [far]) as desk:
        agent = desk.agent(chain)

        def minute():
            assert desk.offer(agent, chain.next([busy(0)])) is TAKEN
            desk.commit()

        def executed():
            return desk.writer._judge.stands("r1").executed

        for _ in range(quiet + 1):
            minute()
        assert desk.writer._judge._runs["r1"].stale is (quiet > 1)
        asked = executed()
        minute()
        again = executed()
        desk.recover()  # all of it from the store
        assert again == executed()
        assert again.flop.point == asked.flop.point * (quiet + 2) // (quiet + 1)


def test_one_that_comes_into_force_beside_another_meets_a_run_that_has_stopped(path):
    run_once(path, [LOW, TOMORROW])
    with Desk(path, [LOW, TOMORROW]) as desk:
        assert look(desk) == ()
        desk.now += DAY_NS
        assert [e.data["regime"] for e in look(desk)] == ["tomorrow"]
        desk.now += DAY_NS
        assert look(desk) == ()
        good(desk, [LOW, TOMORROW])


def test_what_stands_on_a_run_is_judged_when_a_job_moves_there_and_brings_no_usage(path):
    """The label comes in a window in which the job did nothing: its earlier work is the run's from now on."""
    early, late = (Workload(WorkloadKind.SLURM, job="7", run=run, dtype="bf16") for run in ("", "base"))
    child = Workload(WorkloadKind.SLURM, job="8", run="child", dtype="bf16")
    line = replace(BROAD, id="line", threshold_flop=2 * 10**17, early=())
    with Desk(path, [line]) as desk:
        one, other = Chain("n"), Chain("m")
        agents = desk.agent(one), desk.agent(other)
        assert desk.offer(agents[0], one.next([busy(0)], (child,))) is TAKEN
        desk.commit()
        for said in (Declare("base", owner="lab"), Link("child", Relation.FINE_TUNES, "base")):
            say(path, lambda _, said=said: said, "ada@lab", "as it is", lambda: desk.now)
        for _ in range(5):
            assert desk.offer(agents[0], one.next([busy(0)], (early,))) is TAKEN
            assert "child" not in {e.subject for e in desk.commit().events}
        assert desk.offer(agents[1], other.next([], (late,))) is TAKEN
        assert {e.subject for e in desk.commit().events} == {"base", "child"}
    result = check_store(path, [line])
    assert result.difference is None, result_text(result)
