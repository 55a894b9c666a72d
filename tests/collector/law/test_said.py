"""What people say of runs, and the totals that follow at once: in the judge, in fsck and in the reports alike."""

import sqlite3
from contextlib import closing
from dataclasses import replace
from fractions import Fraction

import pytest
from builders import UNIX_NS, WINDOW_NS, Chain, busy
from desk import Desk

from flopmeter.cli.layout import Paint
from flopmeter.collector.books import HOUR_NS
from flopmeter.collector.check.fsck import check_store, result_text
from flopmeter.collector.errors import StoreError
from flopmeter.collector.ingest.decide import TAKEN
from flopmeter.collector.law.regimes import MODIFICATION, shipped
from flopmeter.collector.registry.entries import (
    Assign,
    Declare,
    External,
    JobKey,
    Link,
    Purpose,
    Relation,
    Retract,
    Tag,
)
from flopmeter.collector.registry.say import say
from flopmeter.collector.report.queries import asked, reading
from flopmeter.collector.report.runs_view import run_view
from flopmeter.contract.flop import Figure
from flopmeter.contract.usage import IDLE, Workload, WorkloadKind

BROAD = next(r for r in shipped() if r.id == "eu-systemic-risk")
#: Six windows of an hour; the first ends in it.
HOUR = UNIX_NS // HOUR_NS


def job(name, run="", *, step=""):
    return Workload(WorkloadKind.SLURM, job=name, step=step, run=run, dtype="bf16")


def key(name):
    return JobKey("c1", int(WorkloadKind.SLURM), name)


A, B, C = job("1", "a"), job("2", "b"), job("3")


class Lab:
    """A collector and its one node; people speak beside it, through files of their own."""

    def __init__(self, path, regimes):
        self.path, self.regimes = path, tuple(regimes)
        self.chain = Chain("n", gpus=1)
        self.events = []
        self.desk = Desk(path, self.regimes)

    def reopen(self):
        self.desk.close()
        self.desk = Desk(self.path, self.regimes)

    def book(self, *workloads, windows=1):
        """Windows of 90 % tensor work, each shared evenly in time by the workloads; the events of the commit."""
        agent = self.desk.agent(self.chain)
        for _ in range(windows):
            share = WINDOW_NS // len(workloads)
            rows = [busy(0, i, duration_ns=share, percent=90) for i in range(len(workloads))]
            assert self.desk.offer(agent, self.chain.next(rows, workloads)) is TAKEN
        return self._commit()

    def look(self):
        """A review, as the server makes it now and then; what came of it."""
        return self._commit() if self.desk.intake.review(self.desk.now) else []

    def _commit(self):
        found = [e for e in self.desk.commit().events if e.type == "threshold.crossed"]
        self.events += found
        return [(e.subject, e.data["regime"], e.data["verdict"]) for e in found]

    def say(self, statement):
        self.desk.now += 1
        return say(self.path, lambda _: statement, "ada@lab", "as it is", lambda: self.desk.now)

    def runs(self):
        with reading(self.path) as reader:
            return {r["run"]: r for r in reader.runs(asked(0, self.regimes))}

    def executed(self):
        return {run: int(d["executed"]["flop"]["point"]) for run, d in self.runs().items()}

    def countable(self, regime=BROAD.id):
        return {run: int(d["countable"][regime]["flop"]["point"]) for run, d in self.runs().items()}

    def good(self):
        result = check_store(self.path, self.regimes)
        assert result.difference is None, result_text(result)
        return result


@pytest.fixture(scope="module")
def window(tmp_path_factory):
    """Lower bound of what one window is worth, which crossings are told by: lines lie between whole windows."""
    lab = Lab(tmp_path_factory.mktemp("one") / "b.db", [BROAD])
    lab.book(A)
    flop = lab.runs()["a"]["executed"]["flop"]
    lab.desk.close()
    return int(flop["lower"])


@pytest.fixture
def lab(tmp_path, window):
    """Its one line lies at two and a half windows, by the broad definition of the EU."""
    made = Lab(tmp_path / "books.db", [line(window * 5 // 2)])
    made.look()
    yield made
    if made.desk is not None:
        made.desk.close()


def line(flop, **changes):
    return replace(BROAD, threshold_flop=flop, **changes)


CROSSED = ("a", BROAD.id, "crossed")


def test_an_assignment_moves_totals_and_raises_without_any_new_usage(lab):
    lab.book(A, windows=2)
    lab.book(C)
    assert lab.look() == []
    before = lab.executed()
    lab.say(Assign(key("3"), "a"))
    assert lab.executed() == {
        "a": before["a"] + before["slurm:c1/3"]
    }  # reports do not wait for the collector
    assert lab.look() == [CROSSED]
    assert lab.look() == []  # heard once
    lab.good()
    shown = lab.runs()["a"]
    assert (shown["rule"], shown["rules"], shown["assigned_by"]) == ("assigned", ["assigned", "label"], [1])
    assert shown["thresholds"][0]["event_raised"]
    assert lab.events[0].data["entries"] == "1"
    assert (lab.events[0].since_position, lab.events[0].position) == (3, 3)


def test_an_assignment_is_for_what_comes_later_too_and_can_be_given_back(lab):
    lab.book(C)
    lab.say(Declare("a", owner="ada"))
    lab.say(Assign(key("3"), "a"))
    assert lab.book(C) == []
    assert lab.executed().keys() == {"a"}
    lab.say(Assign(key("3"), ""))
    assert lab.book(C) == [("slurm:c1/3", BROAD.id, "crossed")]
    assert lab.executed().keys() == {"slurm:c1/3"}
    lab.good()


def test_a_step_may_be_another_run_than_its_job(lab):
    lab.book(job("3", step="0"), job("3", step="1"))
    for run in "ab":
        lab.say(Declare(run, owner="ada"))
    lab.say(Assign(key("3"), "a"))
    lab.say(Assign(key("3"), "b", "1"))
    executed = lab.executed()
    assert executed["a"] == executed["b"]
    assert lab.book(job("3", step="1"), windows=3) == [("b", BROAD.id, "crossed")]
    lab.good()


def test_an_excluded_purpose_leaves_the_countable_total_by_exactly_itself(lab):
    """regulations.md section 13, items 4 and 5."""
    lab.book(A, windows=2)
    lab.book(job("9", "a"))
    executed = lab.executed()["a"]
    assert [e.subject for e in lab.events] == ["a"]
    lab.say(Tag("a", Purpose.EVALUATION, job=key("9"), evidence=("sha256:0",)))
    assert lab.look() == []
    assert lab.executed()["a"] == executed
    assert lab.countable()["a"] == executed * 2 // 3
    shown = lab.runs()["a"]
    assert {p["purpose"]: int(p["flop"]["point"]) for p in shown["purposes"]} == {
        "untagged": executed * 2 // 3,
        "evaluation": executed // 3,
    }
    (left_out,) = shown["countable"][BROAD.id]["excluded"]
    assert (left_out["activity"], left_out["entries"]) == ("evaluation", [1])
    assert shown["thresholds"][0]["verdict"] == "undetermined"
    lab.good()


def test_what_is_excluded_before_it_counts_raises_nothing_until_it_is_retracted(lab):
    lab.book(A)
    lab.say(Tag("a", Purpose.EVALUATION, evidence=("sha256:0",)))
    assert lab.book(A, windows=4) == []
    assert lab.countable()["a"] == 0
    lab.say(Retract(1))
    assert lab.look() == [CROSSED]
    assert lab.events[0].data["entries"] == "2"
    lab.good()


def test_a_span_is_told_apart_by_hours_of_the_windows_end(lab):
    lab.book(A)
    first = lab.chain.unix_ns // HOUR_NS
    while lab.chain.unix_ns // HOUR_NS == first:
        lab.book(A, windows=10)
    executed = lab.executed()["a"]
    lab.say(Tag("a", Purpose.EXPERIMENT, from_hour=first, until_hour=first + 1, evidence=("notes",)))
    excluded = executed - lab.countable()["a"]
    with reading(lab.path) as reader:
        (run,) = reader.runs(asked(0), "a", series=True)
    assert [int(h["flop"]["point"]) for h in run["hourly"]] == [excluded, executed - excluded]
    assert 0 < excluded < executed
    lab.book(A, windows=2)
    lab.good()


def test_recomputation_of_a_quarter_leaves_three_quarters(lab):
    """regulations.md section 13, item 4."""
    lab.book(A)
    lab.say(Tag("a", Purpose.RECOMPUTATION, evidence=("sha256:0",), fraction=Fraction(1, 4)))
    executed = lab.executed()["a"]
    assert lab.countable()["a"] == -(-executed * 3 // 4)
    assert lab.book(A, windows=2) == []  # three windows, of which two and a quarter count
    assert lab.book(A) == [CROSSED]
    lab.good()


def test_a_link_adds_the_ancestor_and_the_ancestors_growth_counts_too(lab):
    """regulations.md section 13, item 7: what b stands on is in its total, without any usage of b's own."""
    lab.book(A)
    lab.book(B)
    lab.say(Link("b", Relation.FINE_TUNES, "a"))
    assert lab.look() == []
    assert lab.countable()["b"] == lab.countable()["a"] + lab.executed()["b"]
    assert lab.book(A) == [("b", BROAD.id, "crossed")]  # a is at two windows, b at three
    data = lab.events[-1].data
    assert [(a["run"], a["path"], a["counted"]) for a in data["countable"]["ancestors"]] == [
        ("a", ["fine-tunes a"], True)
    ]
    assert data["countable"]["ancestors_counted"] == 1
    assert int(data["counted"]["point"]) == int(data["flop"]["point"]) * 3
    assert "with what it stands on (a)" in data["message"]
    (above,) = lab.runs()["b"]["lineage"]
    assert (above["name"], above["external"], above["counted_by"]) == ("a", False, [BROAD.id])
    assert lab.book(A) == [CROSSED]
    lab.good()


def test_a_teachers_training_does_not_count_for_the_eu(lab):
    lab.book(A, windows=2)
    lab.book(B)
    lab.say(Link("b", Relation.DISTILS, "a"))
    assert lab.look() == []
    assert lab.countable()["b"] == lab.executed()["b"]
    (above,) = lab.runs()["b"]["lineage"]
    assert above["counted_by"] == []
    lab.good()


def test_a_label_that_bears_an_external_models_name_hides_nothing_of_either(lab):
    """The model can be declared before anybody labels a job so: what is metered under that name counts all the same."""
    lab.book(A)
    lab.say(External("x", Figure(5, 6, 7), "its model card"))
    assert lab.book(job("9", "x"), windows=2) == []
    assert lab.book(job("9", "x")) == [("x", BROAD.id, "crossed")]
    executed = lab.executed()
    assert executed["x"] == 3 * executed["a"]
    assert lab.countable() == {"a": executed["a"], "x": executed["x"] + 6}
    (purpose,) = lab.runs()["x"]["purposes"]
    assert purpose["flop"]["point"] == str(executed["x"])
    lab.say(Link("a", Relation.CONTINUES, "x"))
    assert lab.look() == [CROSSED]
    assert lab.countable()["a"] == executed["a"] + executed["x"] + 6
    lab.good()


def test_what_held_halfway_through_a_commit_was_never_judged(lab):
    """Crossed within one commit, taken back by a tag with no record behind it: undetermined for the first time then."""
    assert lab.book(A, windows=3) == [CROSSED]
    half = Fraction(1, 2)
    lab.say(Tag("a", Purpose.RECOMPUTATION, fraction=half, evidence=("https://lab.example/config",)))
    lab.look()
    with reading(lab.path) as reader:
        assert [e["type"] for e in reader.events()] == ["threshold.crossed", "threshold.undetermined"]
    lab.good()


def test_a_run_that_a_job_was_assigned_to_stands_without_its_declaration(lab):
    """The declaration is taken back, the job stays: what is said of the run afterwards was admissible, for fsck too."""
    lab.book(A, C)
    lab.say(Declare("new", owner="ada"))
    lab.say(Assign(key("3"), "new"))
    lab.say(Retract(1))
    lab.say(Tag("new", Purpose.PRETRAINING))
    lab.look()
    assert set(lab.executed()) == {"a", "new"}
    lab.good()


def test_data_from_a_run_that_bears_an_external_models_name_counts_and_the_declared_training_does_not(
    lab, window
):
    """Generating is the run's own work; what trained the model is a teacher's, which the broad definition leaves out."""
    lab.book(A, windows=1)
    lab.say(External("gpt", Figure(10**30, 10**30, 10**30), "its model card"))
    lab.book(job("2", "gpt"), windows=2)
    did = lab.executed()
    lab.say(Link("a", Relation.SYNTHETIC_DATA_FROM, "gpt"))
    assert lab.countable()["a"] == did["a"] + did["gpt"]
    assert CROSSED in lab.look()  # three windows, past a line of two and a half
    lab.good()


def test_an_external_ancestor_counts_by_its_declared_figure(lab, window):
    lab.book(A)
    lab.say(External("base-7b", Figure(window, 2 * window, 3 * window), "its model card"))
    lab.say(Declare("a", base_models=("base-7b",)))
    assert lab.look() == []
    (above,) = lab.runs()["a"]["lineage"]
    assert (above["name"], above["external"], above["source"]) == ("base-7b", True, "its model card")
    lab.say(External("base-7b", Figure(3 * window, 3 * window, 3 * window), "a letter"))
    assert lab.look() == [CROSSED]
    lab.good()


def test_a_third_of_the_original(tmp_path, window):
    """regulations.md section 13, item 8; the fine-tuned model's own compute is no part of its modification."""
    regimes = [r for r in shipped(MODIFICATION) if r.id == "eu-modifier"]
    lab = Lab(tmp_path / "b.db", regimes)
    lab.book(A)
    lab.say(External("base", Figure(6 * window, 6 * window, 6 * window), "its model card"))
    lab.say(Link("a", Relation.FINE_TUNES, "base"))
    assert lab.look() == []
    assert lab.book(A) == []  # two windows: a third of six, to the operation
    assert lab.book(A) == [("a", "eu-modifier", "crossed")]
    (made,) = lab.runs()["a"]["modifications"]
    assert (made["original"], made["share"], made["verdict"], made["event_raised"]) == (
        "base",
        "1/3",
        "crossed",
        True,
    )
    lab.good()
    lab.desk.close()


def test_an_original_whose_compute_becomes_known_draws_a_line_under_what_modified_it(tmp_path):
    """The original's first window is a few times its lower bound at most: three of the modification are past a third."""
    lab = Lab(tmp_path / "b.db", [r for r in shipped(MODIFICATION) if r.id == "eu-modifier"])
    lab.say(Declare("b", owner="ada"))
    lab.book(A, windows=3)
    lab.say(Link("a", Relation.FINE_TUNES, "b"))
    assert lab.look() == []
    assert lab.book(A) == []
    (above,) = lab.runs()["a"]["lineage"]
    assert (above["name"], above["flop"]) == ("b", None)
    assert "fine-tunes b: what it took is not known, counted by no regime" in run_view(
        lab.runs()["a"], Paint(colour=False, width=99)
    )
    assert lab.book(B) == [("a", "eu-modifier", "crossed")]
    lab.good()
    lab.desk.close()


@pytest.mark.parametrize("how", ["reopened", "after a failed commit"])
def test_what_was_said_while_nobody_listened_is_heard_at_the_next_start(lab, how):
    lab.book(A, windows=2)
    lab.book(C)
    lab.say(Assign(key("3"), "a"))
    result = lab.good()  # killed here: what was said is in the store, and nothing was raised yet
    assert "the last 1 entries were not yet judged by" in " ".join(result.notes)
    if how == "reopened":
        lab.reopen()
    else:
        lab.desk.recover()
    assert lab.look() == [CROSSED]
    assert lab.good().notes == ()


def test_an_entry_at_every_turn_and_every_turn_is_good(lab):
    """The same end, whatever was said between which windows, and whenever the collector came to hear of it."""
    for statement in (
        Declare("a", owner="ada"),
        Assign(key("2"), "a"),
        Tag("a", Purpose.EVALUATION, HOUR, HOUR + 1, evidence=("e",)),
        Assign(key("2"), ""),
        Link("b", Relation.CONTINUES, "a"),
        Retract(3),
        Retract(5),
    ):
        lab.book(A, B, IDLE)
        lab.say(statement)
        lab.good()
        if not isinstance(statement, Retract):
            lab.look()
        lab.good()
    assert [r for (r,) in lab.desk.rows("SELECT entry_no FROM applied")] == [1, 2, 3, 4, 5, 6]
    lab.look()
    lab.good()


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("UPDATE entries SET why = 'another reason'", "entries, entry_no 1: hash"),
        ("UPDATE entries SET statement = replace(statement, '\"a\"', '\"b\"')", "entries, entry_no 1: hash"),
        ("DELETE FROM entries", "applied, entry_no 1: entry_no"),
        ("DELETE FROM applied", "data.entries"),
        ("UPDATE applied SET from_position = 1", "applied, entry_no 1: from_position"),
        ("UPDATE applied SET from_position = 9", "data.entries"),
        ('UPDATE events SET data = replace(data, \'"entries":"1"\', \'"entries":"0"\')', ": key"),
        ("UPDATE events SET data = replace(data, '\"excluded\":[]', '\"excluded\":[1]')", ": data"),
        ("DELETE FROM events WHERE type = 'threshold.crossed'", "key threshold:eu-systemic-risk:a:crossed"),
        ("UPDATE workloads SET run = 'b' WHERE workload_no = 2", "workload_no 2: run"),
    ],
)
def test_fsck_names_what_was_tampered_with(lab, sql, said):
    lab.book(A, windows=2)
    lab.book(C)
    lab.say(Assign(key("3"), "a"))
    assert lab.look() == [CROSSED]
    lab.good()
    lab.desk.close()
    lab.desk = None
    with closing(sqlite3.connect(lab.path)) as db:
        for (trigger,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            db.execute(f"DROP TRIGGER {trigger}")
        assert db.execute(sql).rowcount
        db.commit()
    difference = check_store(lab.path, lab.regimes).difference
    assert difference is not None
    assert said in f"{difference.table}, {difference.key}: {difference.column}"


def test_a_registry_that_cannot_be_read_stops_the_collector_with_what_to_do(lab):
    """Totals by half of what was said would be wrong ones: agents keep their records instead."""
    lab.book(A)
    lab.say(Declare("a", owner="ada"))
    lab.desk.close()
    lab.desk = None
    with closing(sqlite3.connect(lab.path)) as db:
        db.execute("DROP TRIGGER entries_stay")
        db.execute("UPDATE entries SET statement = '{}'")
        db.commit()
    with pytest.raises(StoreError, match="the run registry cannot be read: entry 1") as e:
        Desk(lab.path, lab.regimes)
    assert "flopmeter collector fsck" in e.value.hint
    with pytest.raises(StoreError, match="entry 1"):
        lab.runs()
    difference = check_store(lab.path, lab.regimes).difference
    assert (difference.table, difference.key) == ("entries", "entry_no 1")
