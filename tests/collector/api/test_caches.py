"""What is read again when the books move: counted, since how long that takes depends on the machine."""

import pytest
from api_books import MINE, SECOND, api_store, asked, one_more
from attest_books import said
from builders import Chain, busy
from hypothesis import given, settings
from hypothesis import strategies as st

from flopmeter.collector.api.curve_book import CurveBook, chosen
from flopmeter.collector.api.fleet_cells import front_coded, unpacked_names
from flopmeter.collector.api.touched import Touched
from flopmeter.collector.books import HOUR_NS, SUM_FIELDS, GroupKey, Slot
from flopmeter.collector.figures import PriceKey
from flopmeter.collector.registry.entries import Assign, JobKey
from flopmeter.contract.evidence_class import EvidenceClass
from flopmeter.contract.flop import Figure
from flopmeter.contract.usage import WorkloadKind


@pytest.fixture
def store(tmp_path):
    path = tmp_path / "books.sqlite"
    api_store(path)
    chain = Chain("gpu-node-60", gpus=2)
    books = asked(path)
    chain.unix_ns = books.clock.now
    books.clock.now += HOUR_NS
    more(books, chain)
    return books, chain


def more(books, chain, workloads=(MINE, SECOND), hours=0):
    """A record of an hour later."""
    chain.unix_ns += hours * HOUR_NS
    chain.boot_ns += hours * HOUR_NS
    books.clock.now = max(books.clock.now, chain.unix_ns + 120_000_000_000)
    one_more(books.path, chain, workloads, [busy(0, 0), busy(1, 1)], now=books.clock.now)


def test_nothing_is_made_again_while_nothing_moves(store):
    books, _ = store
    books.get("runs"), books.get("fleet"), books.get("runs", "mine", "curve")
    made, decoded, rows = books.books.refreshes, books.books.decoded, books.books.curves.rows
    for _ in range(3):
        books.get("runs"), books.get("fleet"), books.get("overview"), books.get("runs", "mine", "curve")
    assert (books.books.refreshes, books.books.decoded, books.books.curves.rows) == (made, decoded, rows)


def test_a_minute_makes_lines_again_and_decodes_no_record(store):
    books, _ = store
    books.get("runs")
    made, decoded = books.books.refreshes, books.books.decoded
    books.clock.now += 60_000_000_000
    books.get("runs")
    assert (books.books.refreshes, books.books.decoded) == (made + 1, decoded)
    books.clock.now += 20 * 60_000_000_000
    assert books.get("runs", q="mine")["items"][0]["status"] != "running"


def test_of_the_fleet_only_agents_whose_head_moved_are_decoded(store):
    books, chain = store
    first = books.get("fleet")
    decoded = books.books.decoded
    assert decoded == first["nodes_total"] > 3
    more(books, chain)
    books.get("fleet")
    assert books.books.decoded == decoded + 1


def test_of_a_curve_only_hours_that_new_records_touched_are_read_again(store):
    books, chain = store
    before = books.get("runs", "mine", "curve", points="600")
    whole = books.books.curves.rows
    more(books, chain, hours=1)
    after = books.get("runs", "mine", "curve", points="600")
    assert books.books.curves.rows == whole + 1
    assert after["times"][:-2] == before["times"][:-1]  # the last ended with the last record
    assert after["cumulative"]["point"][:-1] == before["cumulative"]["point"]
    assert after == asked(books.path, books.clock.now).get("runs", "mine", "curve", points="600")


def test_what_comes_late_is_read_from_its_hour_on(store):
    books, _ = store
    books.get("runs", "mine", "curve")
    late = Chain("gpu-node-61", gpus=2)
    late.unix_ns = books.clock.now - 6 * HOUR_NS
    more(books, late)
    found = books.get("runs", "mine", "curve", points="600")
    assert found == asked(books.path, books.clock.now).get("runs", "mine", "curve", points="600")


def test_what_people_say_moves_work_and_curves_follow(store):
    books, _ = store
    before = books.get("runs", "mine", "curve")
    said(books.path, Assign(JobKey("c1", int(WorkloadKind.SLURM), "78"), "mine", None), books.clock.now)
    after = books.get("runs", "mine", "curve", points="600")
    assert int(after["cumulative"]["point"][-1]) > int(before["cumulative"]["point"][-1])
    assert after["jobs_total"] == 2
    assert books.ask("runs", "second").status == 404
    said(books.path, Assign(JobKey("c1", int(WorkloadKind.SLURM), "78"), "", None), books.clock.now + 1)
    assert books.get("runs", "mine", "curve")["cumulative"] == before["cumulative"]


def test_sparks_read_days_that_moved(store):
    books, chain = store
    books.get("runs")
    rows = books.books._sparks.rows
    more(books, chain, hours=1)
    books.get("runs")
    again = books.books._sparks.rows - rows
    assert 0 < again < rows  # the day, not the month


# ---- arithmetic --------------------------------------------------------------------------------------------


def rows_of(hours):
    return [
        (Slot(h, 0), "", GroupKey(w, 1, int(EvidenceClass.A1), 0, s, 0), [n] * len(SUM_FIELDS))
        for h, w, s, n in hours
    ]


def price(_: PriceKey, sums: tuple[int, ...]) -> tuple[Figure, Figure]:
    return Figure(sums[0], sums[0], sums[0]), Figure(0, 0, 0)


_told = st.lists(
    st.tuples(st.integers(0, 20), st.integers(1, 3), st.sampled_from([0, 2_000]), st.integers(0, 10**30)),
    max_size=30,
)


@settings(max_examples=60)
@given(_told, _told, st.integers(0, 22))
def test_a_book_that_was_cut_and_told_again_is_one_that_was_told_once(told, later, cut):
    book = CurveBook()
    book.extend(rows_of(told))
    for h in range(22):  # prices are kept, and must not outlive what they are of
        book.at(h, price)
    kept = [t for t in told if t[0] < cut]
    new = [t for t in later if t[0] >= cut]
    book.cut(cut)
    assert book.extend(rows_of(new)) == len(new)
    for h in range(-1, 23):
        expected = sum(n for hour, _, _, n in kept + new if hour <= h)
        assert book.at(h, price)[0].point == expected
    assert book.hours == sorted({t[0] for t in kept + new})


@settings(max_examples=60)
@given(
    st.lists(st.integers(0, 1_000), unique=True).map(sorted),
    st.integers(0, 1_000),
    st.integers(0, 1_000),
    st.integers(2, 40),
)
def test_chosen_hours_are_few_and_hold_both_ends(hours, first, last, most):
    inside = [h for h in hours if first <= h <= last]
    found = chosen(hours, first, last, most)
    assert len(found) == len(set(found)) <= most
    assert set(found) <= set(inside)
    if inside:
        assert (found[0], found[-1]) == (inside[0], inside[-1])
        assert len(found) == min(most, len(inside))


@settings(max_examples=100)
@given(st.lists(st.tuples(st.integers(1, 5), st.none() | st.integers(0, 9)), max_size=15), st.integers(0, 80))
def test_touched_says_the_earliest_hour_behind_any_position(stretches, asked_for):
    touched, position, told = Touched(10), 10, []
    for step, hour in stretches:
        position += step
        touched.note(position, hour)
        told.append((position, hour))
    expected = min((h for p, h in told if p > asked_for and h is not None), default=None)
    assert touched.since(asked_for) == (0 if asked_for < 10 else expected)
    assert touched.position == position


@settings(max_examples=60)
@given(st.lists(st.text(max_size=6), max_size=12))
def test_front_coded_names_are_read_back(names):
    assert unpacked_names(front_coded(names)) == names


def test_in_the_background_the_largest_runs_curves_are_kept_up_to_date(store):
    there, _ = store
    books = asked(there.path, there.clock.now, fresh=False)
    books.books.refresh()
    books.clock.now += 60_000_000_000
    for _ in range(4):  # some each time
        books.books.refresh()
        books.clock.now += 60_000_000_000
    rows = books.books.curves.rows
    expected = there.get("runs", "mine", "curve", points="600")["cumulative"]
    assert books.get("runs", "mine", "curve", points="600")["cumulative"] == expected
    assert books.books.curves.rows == rows > 0
