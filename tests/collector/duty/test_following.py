"""`events list --follow`: each event once, across restarts, a store that is away for a while, and another in its place."""

import shutil
from itertools import islice

import pytest
from builders import Chain
from desk import DAY_NS
from duty_books import START, busy_minute, commit_at, opened

from flopmeter.collector.duty.following import follow
from flopmeter.collector.duty.reading import Wanted
from flopmeter.collector.errors import StoreError


@pytest.fixture
def path(tmp_path):
    with opened(tmp_path / "books.db") as desk:
        busy_minute(desk, Chain("n"))
    return tmp_path / "books.db"


def told(path, day):
    """A collector starts, tells what there is to tell of a deadline that day, and ends."""
    with opened(path, now=START + day * DAY_NS) as desk:
        commit_at(desk, START + day * DAY_NS)


def followed(path, *steps, wanted=Wanted(), count=10, events):  # noqa: B008 - it is frozen
    """The types of the first so many events, and what was said; `steps` happen one before each look."""
    said, left = [], list(steps)

    def sleep(_):
        assert left, "it waits for something that will not happen"
        left.pop(0)()

    found = follow(path, wanted, count, interval_s=1, tell=said.append, sleep=sleep)
    return [e.cloud["type"].removeprefix("deadline.") for e in islice(found, events)], said


def nothing():
    pass


def test_each_is_told_once_across_restarts_of_the_collector(path):
    types, said = followed(
        path,
        nothing,
        lambda: told(path, 7),
        nothing,
        lambda: told(path, 12),
        lambda: told(path, 14),
        events=4,
    )
    assert types == ["threshold.crossed", "near", "near", "overdue"]
    assert said == []


def test_a_store_that_is_away_is_waited_for_and_said_once(path, tmp_path):
    aside = tmp_path / "aside"

    def back():
        aside.rename(path)
        told(path, 7)

    types, said = followed(path, lambda: path.rename(aside), nothing, nothing, back, events=2)
    assert types == ["threshold.crossed", "near"]
    assert len(said) == 1
    assert said[0].startswith("waiting: ")


def test_a_store_that_was_set_back_is_said_and_followed_from_its_end(path, tmp_path):
    old = tmp_path / "old"
    shutil.copy(path, old)

    def restored():
        for file in path.parent.glob("books.db*"):
            file.unlink()
        shutil.copy(old, path)

    types, said = followed(path, lambda: told(path, 7), restored, nothing, lambda: told(path, 12), events=3)
    assert types == ["threshold.crossed", "near", "near"]
    assert ["older copy" in line for line in said] == [True]


def test_what_is_not_wanted_is_passed_over(path):
    types, _ = followed(
        path, lambda: told(path, 7), lambda: told(path, 14), wanted=Wanted(kind="deadline.overdue"), events=1
    )
    assert types == ["overdue"]


def test_it_begins_with_a_page(path):
    told(path, 7)
    told(path, 12)
    types, _ = followed(path, count=2, events=2)
    assert types == ["near", "near"]


def test_a_name_that_was_mistyped_is_not_waited_for(tmp_path):
    with pytest.raises(StoreError, match="no such file"):
        followed(tmp_path / "none.db", events=1)
