"""What people said of a run by name follows its work when a label that comes late gives it another run."""

import sqlite3
from contextlib import closing
from dataclasses import replace

import pytest
from builders import UNIX_NS, WINDOW_NS, Chain, busy
from click.testing import CliRunner
from desk import Desk

from flopmeter.cli.layout import Paint
from flopmeter.collector.books import HOUR_NS
from flopmeter.collector.check.fsck import check_store, result_text
from flopmeter.collector.errors import EntryRefused
from flopmeter.collector.ingest.decide import TAKEN
from flopmeter.collector.law.regimes import shipped
from flopmeter.collector.registry.as_of import reading_as_of
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
from flopmeter.collector.registry.report_view import report_view
from flopmeter.collector.registry.reporting import run_report
from flopmeter.collector.registry.say import say
from flopmeter.collector.report.cli import runs
from flopmeter.collector.report.queries import asked, reading
from flopmeter.collector.report.runs_view import run_view
from flopmeter.contract.flop import Figure
from flopmeter.contract.usage import Workload, WorkloadKind

BROAD = next(r for r in shipped() if r.id == "eu-systemic-risk")
EVIDENCE = ("https://lab.example/1",)
HOUR = UNIX_NS // HOUR_NS
OLD = "slurm:c1/7"


def job(name, run="", *, step=""):
    return Workload(WorkloadKind.SLURM, job=name, step=step, run=run, dtype="bf16")


def key(name):
    return JobKey("c1", int(WorkloadKind.SLURM), name)


class Lab:
    """A collector with one node; people speak beside it."""

    def __init__(self, path, regimes):
        self.path, self.regimes = path, tuple(regimes)
        self.chain = Chain("n", gpus=1)
        self.desk = Desk(path, self.regimes)

    def book(self, *workloads):
        """One window, shared evenly; (subject, verdict) of the threshold events of its commit."""
        agent = self.desk.agent(self.chain)
        share = WINDOW_NS // len(workloads)
        rows = [busy(0, i, duration_ns=share, percent=90) for i in range(len(workloads))]
        assert self.desk.offer(agent, self.chain.next(rows, workloads)) is TAKEN
        return self.look()

    def look(self):
        self.desk.now += 1
        return {(e.subject, e.data["verdict"]) for e in self.desk.commit().events if "verdict" in e.data}

    def say(self, statement):
        self.desk.now += 1
        return say(self.path, lambda _: statement, "ada@lab", "as it is", lambda: self.desk.now)

    def runs(self):
        with reading(self.path) as reader:
            return {r["run"]: r for r in reader.runs(asked(0, self.regimes))}

    def flop(self):
        """run -> (executed, countable), points."""
        return {
            run: (
                int(d["executed"]["flop"]["point"]),
                int(d["countable"][BROAD.id]["flop"]["point"]),
            )
            for run, d in self.runs().items()
        }

    def report(self, run):
        with reading(self.path) as reader:
            return run_report(reader, run, asked(0, self.regimes))

    def restart(self):
        self.desk.close()
        self.desk = Desk(self.path, self.regimes)

    def good(self):
        result = check_store(self.path, self.regimes)
        assert result.difference is None, result_text(result)


@pytest.fixture(scope="module")
def window(tmp_path_factory):
    """(lower bound, point) of one window's work."""
    lab = Lab(tmp_path_factory.mktemp("one") / "b.db", [BROAD])
    lab.book(job("1"))
    flop = lab.runs()["slurm:c1/1"]["executed"]["flop"]
    lab.desk.close()
    return int(flop["lower"]), int(flop["point"])


@pytest.fixture
def lab(tmp_path, window):
    """Its one line lies at two and a half windows."""
    made = Lab(tmp_path / "books.db", [replace(BROAD, threshold_flop=window[0] * 5 // 2)])
    made.look()
    yield made
    made.desk.close()


def test_lineage_follows_to_the_run_that_the_label_names_and_crosses_in_that_commit(lab, window):
    lab.book(job("1", "base"))
    lab.book(job("7"))
    lab.say(Link(OLD, Relation.CONTINUES, "base"))
    assert lab.look() == set()
    assert lab.book(job("7", "llama-3")) == {("llama-3", "crossed")}  # two windows of its own, one of base
    (_, point), flop = window, lab.flop()
    assert flop["llama-3"] == (2 * point, 3 * point)
    assert OLD not in flop
    lab.good()
    lab.restart()
    assert lab.look() == set()  # raised once
    lab.good()


def test_what_stands_on_the_old_name_stands_on_the_new_one(lab, window):
    lab.book(job("1", "child"))
    lab.book(job("7"))
    lab.say(Link("child", Relation.FINE_TUNES, OLD))
    lab.look()
    # The label is another job's too: its work came in with the name.
    assert lab.book(job("7", "llama-3"), job("8", "llama-3")) >= {("child", "crossed")}
    assert lab.flop()["child"] == (window[1], 3 * window[1])
    (above,) = lab.runs()["child"]["lineage"]
    assert above["name"] == "llama-3"
    lab.good()


def test_an_exclusion_follows_the_work_it_was_said_of_and_takes_nothing_else(lab, window):
    lab.book(job("7"))
    lab.say(Tag(OLD, Purpose.EVALUATION, evidence=EVIDENCE))
    lab.book(job("7", "llama-3"), job("8", "llama-3"))
    lab.good()
    executed, countable = lab.flop()["llama-3"]
    assert (executed, countable) == (2 * window[1], window[1] // 2)  # all of job 7, nothing of job 8
    lab.say(Tag("llama-3", Purpose.PRETRAINING, job=key("7")))  # said of the job itself: narrower
    assert lab.flop()["llama-3"] == (executed, executed)
    lab.look()
    lab.good()


def test_what_was_declared_of_the_old_name_is_of_its_work_alone_where_it_says_a_purpose(lab, window):
    lab.book(job("7"))
    lab.say(Declare(OLD, owner="nlp", budget_flop=10**24, purpose=Purpose.PRETRAINING))
    lab.say(Declare("llama-3", owner="ada"))
    lab.say(Tag("llama-3", Purpose.EVALUATION, evidence=EVIDENCE))
    lab.book(job("7", "llama-3"), job("8", "llama-3"))
    shown = lab.runs()["llama-3"]["declared"]
    assert (shown["owner"], shown["budget_flop"]) == (
        "ada",
        str(10**24),
    )  # its own word first, field by field
    assert lab.flop()["llama-3"] == (2 * window[1], window[1] * 3 // 2)  # job 8 is left out
    lab.look()
    lab.good()


def test_declared_bases_of_both_names_count(lab, window):
    for name in ("1", "2"):
        lab.book(job(name, f"base-{name}"))
    lab.book(job("7"))
    lab.say(Declare(OLD, base_models=("base-1",)))
    lab.say(Declare("llama-3", base_models=("base-2",)))
    lab.book(job("7", "llama-3"))
    assert lab.flop()["llama-3"] == (2 * window[1], 4 * window[1])
    lab.look()
    lab.good()


def test_a_job_assigned_to_the_old_name_goes_with_it(lab, window):
    lab.book(job("7"))
    lab.book(job("9"))
    lab.say(Assign(key("9"), OLD))
    lab.look()
    lab.book(job("7", "llama-3"))
    assert lab.flop() == {"llama-3": (3 * window[1], 3 * window[1])}
    lab.look()
    lab.good()


def two_jobs(lab):
    """A group of two jobs whose one name both lose: array tasks that are labelled apart."""
    identities = (("slurm.array_job", "7"),)
    parts = [Workload(WorkloadKind.SLURM, job=f"7{i}", dtype="bf16", identities=identities) for i in (1, 2)]
    lab.book(*parts)
    (old,) = lab.flop()
    return old, parts


def labelled(part, run):
    return Workload(WorkloadKind.SLURM, job=part.job, run=run, dtype="bf16", identities=part.identities)


def test_where_the_work_went_to_two_runs_lineage_follows_to_both_and_no_exclusion_to_any(lab, window):
    old, (one, two) = two_jobs(lab)
    lab.book(job("1", "base"))
    lab.say(Tag(old, Purpose.EVALUATION, evidence=EVIDENCE))
    lab.say(Declare(old, owner="nlp"))
    lab.say(Link(old, Relation.CONTINUES, "base"))
    lab.say(Declare("child", owner="ada"))
    lab.book(job("3", "child"))
    lab.say(Link("child", Relation.CONTINUES, old))
    lab.look()
    assert lab.flop()[old] == (window[1], window[1])  # evaluation is left out; base counts
    lab.book(labelled(one, "a"))
    flop = lab.flop()
    # Some stayed: what stayed is told of as before, what went counts, and both stand on base.
    assert flop[old] == (window[1] // 2, window[1])
    assert flop["a"] == (window[1] * 3 // 2, window[1] * 5 // 2)
    lab.good()
    lab.book(labelled(two, "b"))
    flop = lab.flop()
    assert old not in flop
    assert flop["a"] == flop["b"] == (window[1] * 3 // 2, window[1] * 5 // 2)
    assert flop["child"] == (window[1], 5 * window[1])  # itself, a, b, and base once
    assert lab.runs()["a"]["declared"] is None
    lab.good()


def test_what_people_moved_themselves_is_followed_by_nothing(lab, window):
    lab.book(job("7"))
    lab.book(job("1", "base"))
    lab.say(Link(OLD, Relation.CONTINUES, "base"))
    lab.say(Declare("mine", owner="ada"))
    lab.say(Assign(key("7"), "mine"))
    lab.look()
    lab.book(job("7", "llama-3"))
    assert lab.flop()["mine"] == (2 * window[1], 2 * window[1])
    lab.good()


def test_a_model_of_that_name_goes_nowhere(lab, window):
    """A tracker's name, which is the user's word, may be an external model's; what was linked was the model."""
    w = Workload(WorkloadKind.PROCESS, job="p", dtype="bf16", identities=(("env:WANDB_RUN_ID", "gpt"),))
    lab.book(w)
    (old,) = lab.flop()
    lab.book(Workload(WorkloadKind.PROCESS, job="p", run="llama-3", dtype="bf16", identities=w.identities))
    lab.say(External(old, Figure(1, 1, 1), "card"))
    lab.say(Link("llama-3", Relation.FINE_TUNES, old))
    assert lab.flop()["llama-3"] == (2 * window[1], 2 * window[1] + 1)
    lab.look()
    lab.good()


def test_a_circle_that_the_label_closes_counts_each_once(lab, window):
    """`a` stands on the job, the label's run on `a`: no entry was wrong when it was said."""
    lab.book(job("1", "a"), job("8", "llama-3"))
    lab.book(job("7"))
    lab.say(Link("a", Relation.CONTINUES, OLD))
    lab.say(Link("llama-3", Relation.CONTINUES, "a"))
    lab.look()
    lab.book(job("7", "llama-3"))
    total = 3 * window[1]
    assert {c for _, c in lab.flop().values()} == {total}
    lab.look()
    lab.book(job("2", "b"))
    lab.say(Link("b", Relation.CONTINUES, "llama-3"))  # answered, although what it links to runs in a circle
    assert lab.flop()["b"][1] == total + window[1]
    lab.look()
    lab.good()


def test_the_old_name_may_come_back(lab, window):
    """A name that new work gets again is that work's: what was said by it holds for both."""
    old, (one, two) = two_jobs(lab)
    lab.book(job("1", "base"))
    lab.say(Link(old, Relation.CONTINUES, "base"))
    lab.say(Tag(old, Purpose.EVALUATION, evidence=EVIDENCE))
    lab.book(labelled(one, "a"), labelled(two, "a"))
    assert lab.flop()["a"] == (2 * window[1], window[1])  # both jobs are left out, base is not
    lab.good()
    third = Workload(WorkloadKind.SLURM, job="73", dtype="bf16", identities=one.identities)
    lab.book(third)
    flop = lab.flop()
    assert flop["a"] == (2 * window[1], 3 * window[1])  # the exclusion is the new work's now
    assert flop[old] == (window[1], window[1])
    lab.look()
    lab.good()


def test_as_of_a_time_before_the_label_the_old_name_stands(lab, window):
    lab.book(job("1", "base"))
    lab.book(job("7"))
    lab.say(Link(OLD, Relation.CONTINUES, "base"))
    lab.look()
    then = lab.desk.now
    lab.desk.now += 10
    lab.book(job("7", "llama-3"))
    with reading_as_of(lab.path, then) as books:
        found = {r["run"]: r for r in books.reader.runs(asked(then, lab.regimes))}
    assert set(found) == {"base", OLD}
    assert int(found[OLD]["countable"][BROAD.id]["flop"]["point"]) == 2 * window[1]
    with reading_as_of(lab.path, lab.desk.now) as books:
        found = {r["run"]: r for r in books.reader.runs(asked(then, lab.regimes))}
    assert int(found["llama-3"]["countable"][BROAD.id]["flop"]["point"]) == 3 * window[1]


def test_a_word_taken_back_is_followed_no_more(lab, window):
    lab.book(job("7"))
    lab.say(Tag(OLD, Purpose.EVALUATION, from_hour=HOUR, until_hour=HOUR + 1, evidence=EVIDENCE))
    lab.book(job("7", "llama-3"))
    assert lab.flop()["llama-3"] == (2 * window[1], 0)
    lab.say(Retract(1))
    assert lab.flop()["llama-3"] == (2 * window[1], 2 * window[1])
    lab.look()
    lab.good()


def test_fsck_derives_the_names_that_work_has_lost(lab):
    lab.book(job("7"))
    lab.book(job("7", "llama-3"))
    lab.good()
    for sql, expected in (
        ("DELETE FROM formerly", "one: it was booked under slurm:c1/7"),
        ("UPDATE formerly SET run = 'x'", "none: it was never booked under x"),
    ):
        with closing(sqlite3.connect(lab.path)) as db, db:
            kept = db.execute("SELECT * FROM formerly").fetchall()
            assert db.execute(sql).rowcount == 1
        found = check_store(lab.path, lab.regimes).difference
        assert found is not None
        assert (found.table, found.expected) == ("formerly", expected)
        with closing(sqlite3.connect(lab.path)) as db, db:
            db.execute("DELETE FROM formerly")
            db.executemany("INSERT INTO formerly VALUES (?, ?)", kept)
    lab.good()


def test_show_report_and_entries_say_under_which_names_the_work_was_known(lab):
    old, (one, _) = two_jobs(lab)
    lab.book(job("7"))
    lab.say(Declare(OLD, owner="nlp"))
    lab.say(Declare(old, owner="vision"))
    lab.book(job("7", "llama-3"), labelled(one, "llama-3"))
    shown = lab.runs()["llama-3"]
    assert shown["names"] == [
        {"name": old, "runs": ["llama-3", old], "all_said": False},
        {"name": OLD, "runs": ["llama-3"], "all_said": True},
    ]
    page = " ".join(run_view(shown, Paint(colour=False, width=80)).split())
    assert f"known as {OLD} before: what was said by that name holds for that work" in page
    assert f"work that was named {old} is in llama-3, {old} now" in page
    for run in ("llama-3", OLD, old):
        document = lab.report(run)
        page = " ".join(report_view(document, Paint(colour=False, width=80)).split())
        assert f"work that was named {old} is in" in page or run == OLD
    assert (
        lab.report("llama-3")["declared"] | {"owner": "nlp", "entries": [1]}
        == lab.report("llama-3")["declared"]
    )
    assert lab.report(OLD)["names"] == [{"name": OLD, "runs": ["llama-3"], "all_said": True}]
    with reading(lab.path) as reader:
        assert [e.number for e in reader.registry().about("llama-3")] == [1, 2]
    found = CliRunner().invoke(runs, ["show", OLD, "--store", str(lab.path)])
    assert "its work is in llama-3 now" in str(found.exception)


def test_what_is_said_by_a_lost_name_is_refused_with_the_new_one(lab):
    lab.book(job("7"), job("1", "a"))
    lab.say(Link("a", Relation.CONTINUES, OLD))
    lab.book(job("7", "llama-3"))
    for statement in (Tag(OLD, Purpose.PRETRAINING), Link("a", Relation.MERGES, OLD)):
        with pytest.raises(EntryRefused, match="its work is in llama-3 now"):
            lab.say(statement)
    with pytest.raises(EntryRefused, match="expected no circle"):
        lab.say(Link("llama-3", Relation.CONTINUES, "a"))  # a stands on its work, by the name that it had
    lab.good()
