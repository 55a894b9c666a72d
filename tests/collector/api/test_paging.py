"""Pages: complete, without repetition, also while the books grow."""

import pytest
from api_books import asked, one_more
from builders import Chain, busy
from hypothesis import given, settings
from hypothesis import strategies as st

from flopmeter.collector.api.paging import Orders, cursor, read_cursor
from flopmeter.collector.api.problems import Problem
from flopmeter.contract.usage import Workload, WorkloadKind

NAMES = [f"run-{i:02d}" for i in range(9)]


def workload(name):
    return Workload(WorkloadKind.SLURM, job=name, run=name)


@pytest.fixture
def store(tmp_path):
    """Nine runs; the higher its number, the more one has done."""
    path = tmp_path / "books.sqlite"
    chain = Chain("gpu-1", gpus=9)
    rows = [busy(i, i, percent=10 + i) for i in range(9)]
    one_more(path, chain, tuple(map(workload, NAMES)), rows, now=chain.unix_ns + 60_000_000_000)
    return path, chain


def pages(books, *path, between=None, **parameters):
    found, after, count = [], {}, 0
    while True:
        document = books.get(*path, limit="4", **parameters, **after)
        found += document["items"]
        count += 1
        assert len(document["items"]) <= 4
        if document["next"] is None:
            return found, count
        after = {"after": document["next"]}
        if between is not None:
            between(count)


def test_pages_are_the_whole_list_once(store):
    books = asked(store[0])
    for sort in ("size", "run", "last_seen", "nearest", "rate", "open_events"):
        found, count = pages(books, "runs", sort=sort)
        assert [i["run"] for i in found] == [i["run"] for i in books.get("runs", sort=sort)["items"]]
        assert sorted(i["run"] for i in found) == NAMES
        assert count == 3
    assert [i["run"] for i in books.get("runs")["items"]] == NAMES[::-1]
    assert [i["run"] for i in books.get("runs", q="RUN-0", sort="run", limit="2")["items"]] == NAMES[:2]


def test_nothing_is_left_out_and_nothing_comes_twice_while_the_books_grow(store):
    path, chain = store
    books = asked(path)

    def grow(page):
        """The smallest run becomes the largest, and a new one begins."""
        books.clock.now += 60_000_000_000
        rows = [busy(0, 0, percent=90), *(busy(i, 1) for i in range(1, 9))]
        names = (workload(NAMES[0]), workload(f"new-{page}"))
        one_more(path, chain, names, rows, now=books.clock.now)
        if page == 1:
            assert books.get("runs")["items"][0]["run"] == f"new-{page}"
            assert books.get("runs")["items"][1]["run"] == NAMES[0]

    found, _ = pages(books, "runs", between=grow)
    assert [i["run"] for i in found] == NAMES[::-1]
    assert (
        found[-1]["executed"]
        == next(i for i in books.get("runs")["items"] if i["run"] == NAMES[0])["executed"]
    )


def test_events_too(store):
    books = asked(store[0])
    every = books.get("events")["items"]
    found, _ = pages(books, "events")
    assert found == every


@pytest.mark.parametrize("after", ["", "x", "!!!", "MQ", cursor([]), cursor(["1", -1]), cursor(["9", 1]), cursor({"a": 1}), cursor(-1), cursor(True), "A" * 1_000])  # fmt: skip
def test_a_cursor_of_somebody_elses_making_is_refused(store, after):
    books = asked(store[0])
    assert books.ask("runs", after=after).status == 400
    if after != "MQ":
        assert books.ask("regimes", after=after).status == 400


def test_a_cursor_is_good_for_the_question_that_it_was_given_for(store):
    books = asked(store[0])
    after = books.get("runs", limit="4")["next"]
    assert books.ask("runs", limit="4", after=after).status == 200
    assert books.ask("runs", limit="4", after=after, q="run").status == 400
    assert books.ask("runs", limit="4", after=after, tenant="owner:x").status == 400


def test_orders_are_given_up_in_turn():
    orders = Orders(most=2)
    first = orders.keep("a", ["x"])
    second = orders.keep("a", ["y"])
    orders.find("a", cursor([first, 0]))  # asked for: the other is the older now
    orders.keep("a", ["z"])
    assert orders.find("a", cursor([first, 0]))[1] == ["x"]
    with pytest.raises(Problem):
        orders.find("a", cursor([second, 0]))


@settings(max_examples=50)
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5), st.lists, max_leaves=4))
def test_a_cursor_is_read_as_it_was_made(value):
    assert read_cursor(cursor(value)) == value
