"""What is wrong with one run or one agent is said in its place, and the rest stands."""

import contextlib
import json
import sqlite3

import pytest
from api_books import LAB, RIVAL, api_store, asked

from flopmeter.collector.api.answering import answer
from flopmeter.collector.api.books import Books
from flopmeter.collector.api.question import Question


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "books.sqlite"
    api_store(path)
    return path


def damage(path, *statements):
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        for statement in statements:
            assert db.execute(statement).rowcount > 0


OF_RUN = "workload_no IN (SELECT workload_no FROM workloads WHERE run = '{}')"


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE totals SET hmma_cycles = 'plenty' WHERE " + OF_RUN.format("+sum"),
        "UPDATE totals SET model_no = 999 WHERE " + OF_RUN.format("+sum"),
        "UPDATE totals SET evidence_class = 77 WHERE " + OF_RUN.format("+sum"),
    ],
)
def test_a_run_that_cannot_be_priced_says_so_in_its_line_and_the_others_stand(path, statement, caplog):
    good = {i["run"]: i for i in asked(path).get("runs")["items"]}
    (name,) = [n for n in good if n in {"+sum", "assigned-run"}]
    damage(path, statement)
    books = asked(path)
    lines = books.get("runs")["items"]
    assert lines[0]["run"] == name  # first: somebody is to look at it
    assert "fsck" in lines[0]["fault"]
    assert {i["run"]: i for i in lines[1:]} == {n: i for n, i in good.items() if n != name}
    assert books.ask("runs", name).status == 500
    assert books.ask("runs", name, "curve").status == 500
    assert books.get("runs", "mine")["run"] == "mine"
    assert books.get("overview")["runs"]["total"] == len(good)


def test_a_run_that_stands_on_it_says_so_too(path):
    damage(path, "UPDATE totals SET hmma_cycles = 'plenty' WHERE " + OF_RUN.format("rivals-secret"))
    faults = {i["run"]: i["fault"] for i in asked(path).get("runs")["items"]}
    assert {n for n, f in faults.items() if f is not None} == {"rivals-secret", "mine", "second"}


def test_a_record_that_cannot_be_read_is_a_mark_on_its_node(path):
    whole = asked(path).get("fleet")
    damage(
        path,
        "UPDATE records SET record = zeroblob(300) WHERE position = (SELECT position FROM heads JOIN agents USING (agent_no) "
        "WHERE node = 'gpu-node-41')",
    )
    books = asked(path)
    found = books.get("fleet")
    marks = [found["rows"]["marks"]["values"][i] for i in found["rows"]["marks"]["of"]]
    assert [m for m in marks if "f" in m] == ["f"]
    assert found["nodes_total"] == whole["nodes_total"]
    (node,) = books.get("fleet", "nodes", "gpu-node-41")["items"]
    assert node["fault"]
    assert node["devices"] == []


def test_an_agent_whose_row_is_nonsense_takes_nobody_with_it(path):
    whole = asked(path).get("fleet")["rows"]
    damage(path, "UPDATE agents SET agent_id = 'text' WHERE node = 'gpu-node-41'")
    found = asked(path).get("fleet")["rows"]
    assert found["names"] == whole["names"]
    assert "f" in "".join(found["marks"]["values"])


def test_totals_of_nobodys_time_that_cannot_be_read_leave_the_runs(path):
    damage(
        path,
        "UPDATE totals SET duration_ns = 'long' WHERE workload_no IN (SELECT workload_no FROM workloads WHERE run = '')",
    )
    books = asked(path)
    assert books.get("runs")["total"] > 5
    assert books.ask("fleet").status == 500
    assert books.get("overview")["nodes"] is None


def test_no_store_is_an_answer_and_tells_a_tenant_nothing(tmp_path):
    books = Books(tmp_path / "books.sqlite")
    found = answer(Question("GET", ("runs",), role="viewer"), books)
    assert found.status == 503
    assert "found no such file" in json.loads(found.body)["detail"]
    theirs = answer(Question("GET", ("runs",), role="viewer", tenant=LAB), books)
    assert theirs.status == 503
    assert str(tmp_path) not in theirs.body.decode()


def test_a_registry_whose_chain_is_broken_is_an_answer(path):
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute("DROP TRIGGER entries_stay")
        db.execute("UPDATE entries SET statement = '{' WHERE entry_no = 1")
    found = asked(path).ask("runs", tenant=RIVAL)
    assert found.status == 503
    assert "entry" not in json.loads(found.body)["detail"]


def test_an_empty_store_has_empty_answers(tmp_path):
    from desk import Desk

    path = tmp_path / "books.sqlite"
    with Desk(path):
        pass
    books = asked(path, now=1_800_000_000_000_000_000)
    assert books.get("runs")["items"] == []
    assert books.get("fleet")["rows"]["count"] == 0
    assert books.get("overview")["log"]["checkpoint"] is None
    assert books.get("evidence")["log"]["checkpoint"] is None
    assert books.get("events")["items"] == books.get("deadlines")["items"] == []


@pytest.mark.parametrize("value", ["data = '{'", "data = '[]'", "subject = x'ff'", "time_unix_ns = 'x'"])
def test_an_event_that_cannot_be_read_takes_no_other_page_with_it(path, value):
    good = asked(path)
    total, still_open = good.get("events")["total"], good.get("overview")["events"]["open"]
    first = good.get("events")["items"][-1]
    damage(path, f"UPDATE events SET {value} WHERE event_no = 1")
    books = asked(path)
    found = books.ask("events")
    assert (found.status, first["id"] in found.body.decode()) == (500, True)
    assert books.ask("events", first["id"]).status == 500
    assert books.get("events", limit="2")["total"] == total
    for page in (("runs",), ("runs", "mine"), ("fleet",), ("deadlines",), ("state",)):
        assert books.ask(*page).status == 200, page
    assert books.get("overview")["events"]["open"] == still_open


def test_a_run_whose_owner_cannot_be_read_is_no_tenants(path):
    whole = asked(path)
    damage(path, "UPDATE workloads SET identities = '{' WHERE run = 'mine'")
    books = asked(path)
    assert {i["run"] for i in books.get("runs")["items"]} == {i["run"] for i in whole.get("runs")["items"]}
    assert {i["run"] for i in books.get("runs", tenant=LAB)["items"]} == {"second"}
    assert books.ask("runs", "mine", tenant=LAB).status == 404
