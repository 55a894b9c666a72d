"""What changes under the process that answers: another process after it, answers by others, files of regimes, the store itself."""

import shutil

import pytest
from api_books import api_store, asked
from builders import Chain
from duty_books import busy_minute, opened, regime, rule

from flopmeter.collector.api import answering, told
from flopmeter.collector.duty.answers import EVENT, State
from flopmeter.collector.duty.saying import Person, answer


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    path = tmp_path_factory.mktemp("moved") / "books.sqlite"
    api_store(path)
    return path


@pytest.fixture
def path(made, tmp_path):
    return shutil.copy(made, tmp_path / "books.sqlite")


def test_a_cursor_of_the_process_before_is_refused_and_is_no_others_order(made):
    first, second = asked(made), asked(made)
    after = first.get("runs", limit="2")["next"]
    assert second.get("runs", limit="2")["next"] is not None
    assert second.ask("runs", limit="2", after=after).status == 400


def test_a_deadline_that_is_resolved_meanwhile_hides_no_other(path):
    books = asked(path)
    every = {d["id"] for d in books.get("deadlines")["items"]}
    page = books.get("deadlines", limit="3")
    found = [d["id"] for d in page["items"]]
    assert page["total"] == len(every) > 6
    done = {"state": "resolved", "why": "filed", "outcome": "done"}
    for name in found[:2]:
        assert books.post("deadlines", name, "answers", document=done).status == 201
    while page["next"] is not None:
        page = books.get("deadlines", limit="3", after=page["next"])
        found += [d["id"] for d in page["items"]]
    assert sorted(found) == sorted(every)
    assert books.ask("deadlines", limit="3", after="MQ").status == 400


def test_a_runs_open_events_are_those_of_now_whoever_answered(path):
    books = asked(path, fresh=False)
    event = next(e for e in books.get("events", run="mine")["items"])
    before = books.get("runs", "mine")["open_events"][event["severity"]]
    answer(path, EVENT, event["id"], State("resolved"), Person("bob", "by the command line", books.clock.now))
    assert books.get("runs", "mine")["open_events"][event["severity"]] == before - 1


def test_an_event_is_shown_while_the_files_of_regimes_cannot_be_read(tmp_path):
    path, laws = tmp_path / "books.sqlite", tmp_path / "laws"
    laws.mkdir()
    with opened(path, regime(rule())) as desk:
        busy_minute(desk, Chain("gpu-1"))
    (laws / "half.toml").write_text("id = [")
    books = asked(path, regimes=laws)
    event = books.get("events", type="threshold.crossed")["items"][0]
    assert books.get("events", event["id"])["event"]["over"] is None


PAGES = (("runs",), ("overview",), ("fleet",), ("events",), ("deadlines",), ("runs", "mine", "curve"))


def test_another_store_in_its_place_is_read_anew(path, tmp_path):
    """An earlier one, too, as of a backup: nothing that was read of the other shows."""
    other = tmp_path / "other.sqlite"
    with opened(other, regime(rule())) as desk:
        busy_minute(desk, Chain("gpu-1"))
    books = asked(path)
    for page in PAGES:
        books.get(*page)
    shutil.copy(path, tmp_path / "kept.sqlite")
    for there in (other, tmp_path / "kept.sqlite"):
        shutil.copy(there, tmp_path / "new")
        (tmp_path / "new").replace(path)
        anew = asked(path, books.clock.now)
        for page in PAGES:
            assert books.ask(*page).body == anew.ask(*page).body, (there.name, page)


def test_an_answer_that_fits_no_frame_is_a_problem_and_not_the_processes_end(made, monkeypatch):
    monkeypatch.setattr(answering, "MAX_BODY_BYTES", 2_000)
    books = asked(made)
    found = books.ask("runs", "mine", "report")
    assert (found.status, b"2000 bytes" in found.body) == (500, True)
    assert books.ask("state").status == 200


def test_answers_that_are_kept_take_a_bounded_room(made, monkeypatch):
    books = asked(made)
    size = len(books.ask("runs").body)
    monkeypatch.setattr(told, "_MOST_KEPT_BYTES", 3 * size)
    for limit in range(5, 30):
        books.get("runs", limit=str(limit))
        assert sum(map(len, books.books.view().kept.values())) <= 3 * size
