"""Work cut by what people said of it: each row in exactly one share, by the narrowest and latest word."""

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st
from registry_entries import HOURS, JOBS, RUNS, entries, histories

from flopmeter.collector.books import SUM_FIELDS, GroupKey, Slot
from flopmeter.collector.figures import Model, Tally
from flopmeter.collector.law.countable import countable
from flopmeter.collector.law.profiles import shipped
from flopmeter.collector.registry.entries import Declare, Entry, Purpose, Tag
from flopmeter.collector.registry.formerly import Once
from flopmeter.collector.registry.shares import Row, Told, shares, tallies, told
from flopmeter.collector.registry.state import Registry
from flopmeter.contract.w_table import current

JOB, OTHER = JOBS
MODELS = {1: Model("NVIDIA H100 80GB HBM3", "9.0")}
KEY = GroupKey(1, 1, 1, 1023, 0, 0)


def sums(hmma: int) -> list[int]:
    return [60_000_000_000, 10 * hmma, 9 * hmma, hmma, *([0] * (len(SUM_FIELDS) - 4))]


def row(job=JOB, hour=0, hmma=1_000_000, back=0) -> Row:
    return Row(job, Slot(hour, back), "bf16", KEY, sums(hmma))


EVALUATION = Tag("r1", Purpose.EVALUATION, 2, 4, None, ("e",))
AGAIN = Tag("r1", Purpose.RECOMPUTATION, None, None, JOB, ("e",), Fraction(1, 4))


def test_each_piece_names_the_entries_that_say_so() -> None:
    registry = Registry.of(entries(Declare("r1", purpose=Purpose.PRETRAINING), EVALUATION, AGAIN))
    assert told(registry, "r1", OTHER, Slot(0)) == Told(Purpose.PRETRAINING, None, (1,))
    assert told(registry, "r1", OTHER, Slot(3)) == Told(Purpose.EVALUATION, None, (2,))
    assert told(registry, "r1", JOB, Slot(3)) == Told(Purpose.EVALUATION, Fraction(1, 4), (2, 3))
    assert told(registry, "r2", JOB, Slot(3)) == Told(None, None, ())


def test_an_exclusion_leaves_the_executed_total_and_takes_exactly_its_own_hours() -> None:
    """regulations.md section 13, items 4 and 5: three hours of evaluation in the middle, a quarter recomputed."""
    rows = [row(hour=h, hmma=10**9 + h) for h in range(6)]
    whole = Tally()
    for r in rows:
        whole.add(r.key, r.dtype, r.sums)
    executed = whole.figures(MODELS, current())[0]
    broad = shipped()["eu-broad"]

    def counted(*said: object) -> int:
        found = tallies(Registry.of(entries(*said)), "r1", rows)  # type: ignore[arg-type]
        parts = shares(found, MODELS, current())
        assert sum(p.flop.point for p in parts) == executed.point
        return countable(broad, parts).flop.point

    rate = executed.point // sum(10**9 + h for h in range(6))
    assert counted() == executed.point
    assert counted(EVALUATION) == executed.point - rate * (2 * 10**9 + 2 + 3)
    assert counted(AGAIN) * 4 == executed.point * 3
    assert counted(EVALUATION, AGAIN) * 4 == (executed.point - rate * (2 * 10**9 + 5)) * 3


_rows = st.lists(
    st.builds(row, st.sampled_from(JOBS), st.sampled_from(HOURS), st.integers(0, 10**15), st.integers(0, 3)),
    max_size=20,
)


def test_a_bridge_is_what_was_said_of_all_its_hours_or_nobodys() -> None:
    later = Tag("r1", Purpose.EVALUATION, 4, 9, None, ("f",))
    rollouts = Tag("r1", Purpose.RL_ROLLOUTS, 4, 9, None, ("f",))
    hour, day = Slot(3), Slot(3, 23)
    assert told(Registry.of(entries(EVALUATION)), "r1", JOB, hour) == Told(Purpose.EVALUATION, None, (1,))
    # One that sticks out on either side counts, and who spoke of a part of it is named.
    for slot in (Slot(3, 2), Slot(4, 1), Slot(5, 3), day):
        assert told(Registry.of(entries(EVALUATION)), "r1", JOB, slot) == Told(None, None, (), (1,))
    assert told(Registry.of(entries(EVALUATION)), "r1", JOB, Slot(3, 1)).purpose is Purpose.EVALUATION
    # Two tags that say the same of its parts take it whole, two that do not take nothing of it.
    assert told(Registry.of(entries(EVALUATION, later)), "r1", JOB, Slot(8, 6)) == Told(
        Purpose.EVALUATION, None, (1, 2)
    )
    assert told(Registry.of(entries(EVALUATION, rollouts)), "r1", JOB, Slot(8, 6)) == Told(
        None, None, (), (1, 2)
    )
    # A tag that says of an hour that it counts is not lost in a wider word that leaves it out.
    wide = Declare("r1", purpose=Purpose.EVALUATION)
    within = Tag("r1", Purpose.PRETRAINING, 2, 3)
    assert told(Registry.of(entries(wide, within)), "r1", JOB, Slot(9, 8)) == Told(None, None, (), (1, 2))
    # A tag of the job needs no hours.
    whole = Tag("r1", Purpose.EVALUATION, None, None, JOB, ("e",))
    assert told(Registry.of(entries(whole, within)), "r1", JOB, day) == Told(Purpose.EVALUATION, None, (1,))
    again = Tag("r1", Purpose.RECOMPUTATION, 2, 4, None, ("e",), Fraction(1, 4))
    assert told(Registry.of(entries(wide, again)), "r1", JOB, Slot(4, 1)) == Told(
        Purpose.EVALUATION, None, (1,), (2,)
    )


@given(histories(), st.sampled_from(RUNS), _rows)
def test_no_word_holds_for_an_hour_of_which_it_was_not_said(
    made: list[Entry], run: str, rows: list[Row]
) -> None:
    """Hour by hour, the long way: what takes compute out of a total was said of all the time that it takes."""
    registry = Registry.of(made)
    for r in rows:
        found = told(registry, run, r.job, r.slot)
        hours = range(r.slot.first, r.slot.hour + 1)
        purposes = {registry.purpose(run, r.job, hour) for hour in hours}
        parts = {registry.recomputation(run, r.job, hour) for hour in hours}
        assert found.purpose == (purposes.pop() if len(purposes) == 1 else None)
        assert found.recomputation == (parts.pop() if len(parts) == 1 else None)
        assert bool(found.across) == (len(purposes) > 1 or len(parts) > 1)
        assert set(found.across) <= {e.number for e in registry.tag_entries(run)} | {
            e.number for e in made if isinstance(e.statement, Declare) and e.statement.run == run
        }


@given(histories(), st.sampled_from(RUNS), _rows)
def test_what_counts_is_never_below_what_was_executed_less_what_lies_wholly_in_tags(
    made: list[Entry], run: str, rows: list[Row]
) -> None:
    registry = Registry.of(made)
    rate = row(hmma=1)
    whole = Tally()
    whole.add(rate.key, rate.dtype, sums(10**15))
    per_cycle = whole.figures(MODELS, current())[0].point // 10**15
    executed = sum(per_cycle * list(r.sums)[3] for r in rows)
    for profile in shipped().values():
        most = Fraction(0)  # that any exclusion may take
        for r in rows:
            flop = per_cycle * list(r.sums)[3]
            hours = range(r.slot.first, r.slot.hour + 1)
            if all(not profile.of(registry.purpose(run, r.job, hour)).counted for hour in hours):
                most += flop
            else:
                most += flop * min(registry.recomputation(run, r.job, hour) or Fraction(0) for hour in hours)
        counted = countable(profile, shares(tallies(registry, run, rows), MODELS, current())).flop.point
        assert executed - most <= counted <= executed


@given(histories(), st.sampled_from(RUNS), _rows)
def test_shares_hold_every_row_exactly_once(made: list[Entry], run: str, rows: list[Row]) -> None:
    found = tallies(Registry.of(made), run, rows)
    total = [0] * len(SUM_FIELDS)
    for tally in found.values():
        for group in tally._sums.values():
            total = [a + b for a, b in zip(total, group, strict=True)]
    assert total == [sum(column) for column in zip(*(r.sums for r in rows), strict=True)] or not rows


@given(histories(), st.sampled_from(RUNS), _rows)
def test_a_run_without_spans_may_be_cut_without_hours(made: list[Entry], run: str, rows: list[Row]) -> None:
    registry = Registry.of(made)
    if registry.has_spans(run):
        return
    by_hour = tallies(registry, run, rows)
    at_once = tallies(registry, run, [r._replace(slot=Slot(0)) for r in rows])
    assert {t: tally._sums for t, tally in by_hour.items()} == {
        t: tally._sums for t, tally in at_once.items()
    }


def test_a_tag_by_a_name_that_the_work_has_lost_takes_no_bridge_that_it_does_not_cover() -> None:
    """Its edges are those of the run that the work is now of."""
    tag = Tag("old", Purpose.EVALUATION, 2, 4, None, ("e",))
    registry = Registry.of(entries(tag), {"old": (Once(JOB, "", "r1"),)})
    assert told(registry, "r1", JOB, Slot(3, 1)) == Told(Purpose.EVALUATION, None, (1,))
    assert told(registry, "r1", JOB, Slot(5, 3)) == Told(None, None, (), (1,))
    assert told(registry, "r1", JOB, Slot(3, 3)) == Told(None, None, (), (1,))
    assert told(registry, "r1", OTHER, Slot(3, 1)) == Told(None, None, ())
