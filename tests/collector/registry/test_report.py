"""`flopmeter runs report RUN`: what stands behind a run's totals, on whose word, and what is open."""

import json
import sys

import pytest
from builders import WINDOW_NS, Chain, busy, gap
from desk import Desk

from flopmeter.cli.layout import Paint
from flopmeter.cli.main import main
from flopmeter.collector.books import GroupKey, Slot
from flopmeter.collector.law.regimes import shipped
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
from flopmeter.collector.registry.kind import Looks, guess_json
from flopmeter.collector.registry.report_view import report_view
from flopmeter.collector.registry.reporting import run_report
from flopmeter.collector.registry.say import say
from flopmeter.collector.report.queries import asked, reading
from flopmeter.contract.flop import Figure
from flopmeter.contract.usage import ALL_MEASURED, Workload, WorkloadKind

BEGUN = 1_795_132_800_000_000_000  # 2026-11-20T00:00Z
HOUR_NS = 3_600_000_000_000
NOW = BEGUN + 40 * HOUR_NS
LABELLED = Workload(WorkloadKind.SLURM, job="4711", step="0", run="llm-7", user="ada", dtype="bf16")
LOST = Workload(WorkloadKind.SLURM, job="4712", step="0", dtype="bf16")
JOB, STRAY = (JobKey("c1", 3, job) for job in ("4711", "4712"))


@pytest.fixture
def store(tmp_path):
    """Run llm-7: job 4711 an hour of two GPUs, minute by minute, over an hour's edge; job 4712 has no label."""
    path = tmp_path / "books.sqlite"
    chain = Chain()
    chain.unix_ns = BEGUN + 14 * HOUR_NS - 30 * WINDOW_NS
    with Desk(path, shipped()) as desk:
        desk.now = NOW
        agent = desk.agent(chain)
        for minute in range(60):
            second = gap(1, 0) if minute == 7 else busy(1, 1)
            desk.offer(agent, chain.next([busy(0), second], (LABELLED, LOST)))
        desk.commit()
    return path


def told(path, *statements, who="ada@lab"):
    for s in statements:
        say(path, lambda _, s=s: s, who, "a good reason", lambda: NOW)


def report(path, run="llm-7", now=NOW):
    with reading(path) as reader:
        return run_report(reader, run, asked(now))


def shown(path, run="llm-7"):
    with reading(path) as reader:
        (document,) = reader.runs(asked(NOW, shipped()), run)
    return document


ALL = (
    Declare(
        "llm-7", owner="nlp", budget_flop=10**18, expected_end_unix_ns=BEGUN, purpose=Purpose.PRETRAINING
    ),
    Assign(STRAY, "llm-7"),
    Tag("llm-7", Purpose.EVALUATION, job=STRAY, evidence=("https://x/7",)),
    Tag("llm-7", Purpose.RL, from_hour=BEGUN // HOUR_NS + 14),
    External("llama", Figure(7, 8, 9), "model card"),
    Link("llm-7", Relation.FINE_TUNES, "llama"),
    Declare("llm-7-chat", base_models=("llm-7",)),
)


def test_figures_are_those_of_runs_show(store):
    told(store, *ALL)
    document, run = report(store), shown(store)
    assert document["executed"] == run["executed"]
    assert document["coverage"] == run["coverage"]
    for regime in shipped():
        assert document["countable"][regime.id]["flop"] == run["countable"][regime.id]["flop"]


def test_jobs_and_purposes_each_hold_all_of_the_run_once(store):
    told(store, *ALL)
    document = report(store)
    for part in ("jobs", "purposes"):
        assert sum(p["device_seconds"] for p in document[part]) == 2 * 3600
        assert sum(int(p["flop"]["point"]) for p in document[part]) == int(
            document["executed"]["flop"]["point"]
        )


def test_which_rule_or_person_put_a_job_there(store):
    told(store, Assign(STRAY, "llm-7"))
    by_job = {j["job"]: j for j in report(store)["jobs"]}
    assert len(by_job["slurm:c1/4711"]["rules"]) == 1
    assert by_job["slurm:c1/4711"]["assigned_by"] == []
    assert (by_job["slurm:c1/4712"]["rules"], by_job["slurm:c1/4712"]["assigned_by"]) == ([], [1])
    told(store, Retract(1))
    assert [j["job"] for j in report(store)["jobs"]] == ["slurm:c1/4711"]


def test_purposes_by_hours_with_the_entries_that_say_so(store):
    told(store, *ALL)
    found = {p["purpose"]: p for p in report(store)["purposes"]}
    assert found["pretraining"]["spans"] == [["2026-11-20T13:00Z", "2026-11-20T14:00Z"]]
    assert found["rl"]["spans"] == [["2026-11-20T14:00Z", "2026-11-20T15:00Z"]]
    assert found["evaluation"]["spans"] == [["2026-11-20T13:00Z", "2026-11-20T15:00Z"]]
    assert [found[p]["entries"] for p in ("pretraining", "evaluation", "rl")] == [[1], [3], [4]]
    assert found["evaluation"]["device_seconds"] == 59 * 60
    # Windows end on the minute: that which ends at 14:00 is of the hour that ends then.
    assert found["rl"]["device_seconds"] == 30 * 60
    assert report(store, "llm-7-chat")["purposes"] == []


def test_what_is_left_out_is_named_with_whose_word_it_is(store):
    told(store, *ALL)
    broad = report(store)["countable"]["eu-systemic-risk"]
    (left,) = broad["left_out"]
    assert left["activity"] == "evaluation"
    assert left["said_by"] == [
        {"entry": 3, "who": "ada@lab", "why": "a good reason", "time": "2026-11-21T16:00:00.000Z"}
    ]
    assert left["words"]
    assert left["source"]
    jobs = {j["job"]: j for j in report(store)["jobs"]}
    assert left["flop"] == jobs["slurm:c1/4712"]["flop"]
    assert [a["name"] for a in broad["ancestors"]] == ["llama"]
    assert broad["ancestors"][0]["flop"] == {"lower": "7", "point": "8", "upper": "9"}
    assert broad["profile"]["id"] == "eu-broad"
    silent = report(store)["countable"]["us-ca-sb53"]["silent"]
    assert "evaluation" in {p["activity"] for p in silent}


def test_hours_that_are_left_out_are_those_that_were_tagged(store):
    told(store, Tag("llm-7", Purpose.EVALUATION, until_hour=BEGUN // HOUR_NS + 14, evidence=("https://x/7",)))
    document = report(store)
    (left,) = document["countable"]["eu-systemic-risk"]["left_out"]
    found = {p["purpose"]: p for p in document["purposes"]}
    assert left["flop"] == found["evaluation"]["flop"]
    assert 0 < int(left["flop"]["point"]) < int(document["executed"]["flop"]["point"])
    excluded = document["countable"]["eu-systemic-risk"]["flop"]["point"]
    assert int(excluded) + int(left["flop"]["point"]) == int(document["executed"]["flop"]["point"])


def test_the_plan_is_held_against_what_was_measured(store):
    told(store, *ALL)
    document = report(store)
    point = int(document["executed"]["flop"]["point"])
    assert document["plan"]["budget_used_ppm"]["point"] == point * 10**6 // 10**18
    assert document["plan"]["past_expected_end"] is True
    assert document["declared"]["by"] == ["ada@lab"]
    told(store, Declare("llm-7", budget_flop=10**12))
    text = report_view(report(store), Paint(colour=False, width=80))
    assert "past its budget" in text


def test_lineage_both_ways(store):
    told(store, *ALL)
    lineage = report(store)["lineage"]
    assert lineage["parents"] == [
        {
            "relation": "fine-tunes",
            "parent": "llama",
            "known": True,
            "external": {"flop": {"lower": "7", "point": "8", "upper": "9"}, "source": "model card"},
        }
    ]
    assert lineage["stood_on_by"] == ["llm-7-chat"]


def test_a_parent_whose_jobs_went_to_another_run_is_said_to_add_nothing(store):
    """The link names what is empty now: the total is smaller by it, and the reader has to hear that."""
    told(store, Declare("b", owner="ada"), Link("b", Relation.CONTINUES, "slurm:c1/4712"))
    (parent,) = report(store, "b")["lineage"]["parents"]
    assert parent["known"]
    assert "nothing is known" not in report_view(report(store, "b"), Paint(colour=False, width=200))
    told(store, Assign(STRAY, "llm-7"))
    (parent,) = report(store, "b")["lineage"]["parents"]
    assert not parent["known"]
    said = "continues slurm:c1/4712: nothing is known of it, and nothing added"
    assert said in report_view(report(store, "b"), Paint(colour=False, width=200))


def test_corrections_are_what_was_said_anew_or_taken_back(store):
    told(store, *ALL)
    assert report(store)["corrections"] == []
    told(store, Declare("llm-7", hardware="8 x H100"))  # nothing said before is contradicted
    assert report(store)["corrections"] == []
    told(store, Declare("llm-7", budget_flop=2 * 10**18), Retract(4))
    assert [e["number"] for e in report(store)["corrections"]] == [4, 9, 10]


def test_a_run_that_has_not_begun_has_a_report(store):
    told(store, *ALL)
    document = report(store, "llm-7-chat")
    assert document["status"] == "not begun"
    assert document["executed"] is None
    assert document["declared"]["base_models"] == ["llm-7"]
    text = report_view(document, Paint(colour=False, width=80))
    assert "no job of this run has been metered" in text


def test_a_run_of_which_nobody_said_anything_has_one_too(store):
    document = report(store)
    assert document["declared"] is None
    assert document["plan"] is None
    (only,) = document["purposes"]
    assert only["purpose"] == "untagged"
    assert (only["looks_like"]["guess"], only["looks_like"]["confidence"]) == ("unknown", None)
    text = " ".join(report_view(document, Paint(colour=False, width=80)).split())
    assert "from outside: cannot be told (0 whole hours with tensor counters" in text
    assert document["corrections"] == document["entries"] == []


def test_a_purpose_is_held_against_what_its_own_hours_look_like(store):
    """Said to be evaluation, and steady for a day like a training."""
    document = report(store)
    (only,) = document["purposes"]
    looks = Looks()
    for hour in range(30):
        sums = [8 * 3_600 * 10**9, 10**18, 9 * 10**17, 4 * 10**17, *(0,) * 7, 18 * 10**9]
        looks.add(Slot(hour), GroupKey(1, 1, 1, int(ALL_MEASURED), 0, 0), sums)
    only["looks_like"] = guess_json(looks.guess(), Purpose.EVALUATION)
    text = " ".join(report_view(document, Paint(colour=False, width=80)).split())
    assert (
        "it looks like training, not like what it was declared (high confidence; a guess, counted nowhere)"
        in text
    )


def test_open_questions_and_what_is_not_shown_are_said(store):
    document = report(store)
    assert set(document["open_questions"]) == {r.id for r in shipped()}
    text = " ".join(report_view(document, Paint(colour=False, width=80)).split())
    for words in (
        "Open questions, for a lawyer",
        "not a measure of risk",
        "GPUs that flopmeter does not meter",
    ):
        assert words in text


@pytest.mark.parametrize("width", [60, 80, 200])
def test_the_page_fits_whatever_the_names_are(store, width):
    long = "team-foundation-models/" + "x" * 200
    told(
        store,
        *ALL,
        Declare("llm-7", owner=long),
        Tag("llm-7", Purpose.FINETUNING, 0, 5),
        Declare(long, owner="a"),
    )
    told(store, Link("llm-7", Relation.MERGES, long), who=long)
    for run in ("llm-7", long):
        text = report_view(report(store, run), Paint(colour=False, width=width))
        assert [line for line in text.splitlines() if len(line) > width] == []
        assert "x" * 200 in "".join(text.split())


@pytest.fixture
def runs(monkeypatch, capsys, store):
    monkeypatch.setenv("FLOPMETER_STORE", str(store))
    monkeypatch.delenv("FLOPMETER_REGIMES", raising=False)

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["flopmeter", "runs", *words])
        try:
            main()
            code = 0
        except SystemExit as e:
            code = e.code or 0
        out = capsys.readouterr()
        return code, out.out, out.err

    return run


def test_the_command_prints_a_page_or_a_document(runs, store):
    told(store, *ALL)
    code, out, err = runs("report", "llm-7")
    assert (code, err) == (0, "")
    for title in (
        "Report on run llm-7",
        "Declared",
        "Measured",
        "Jobs (2)",
        "What it was for",
        "Corrections",
    ):
        assert title in out
    code, out, _ = runs("report", "llm-7", "--json")
    assert code == 0
    assert json.loads(out)["run"] == "llm-7"


def test_runs_show_points_from_a_run_that_has_not_begun_to_its_report(runs, store):
    told(store, *ALL)
    code, out, err = runs("show", "llm-7-chat")
    assert (code, out) == (3, "")
    assert "found only what people said of it" in err
    assert "flopmeter runs report llm-7-chat" in err


def test_as_a_modification_it_is_held_against_its_original(runs, store):
    told(store, *ALL)
    document = report(store)
    (found,) = [m for m in document["modifications"] if m["regime"] == "eu-modifier"]
    assert (found["original"], found["verdict"]) == ("llama", "crossed")
    _, out, _ = runs("report", "llm-7")
    assert "eu-modifier, of llama: crossed." in out


def test_an_unknown_run_is_named(runs):
    code, out, err = runs("report", "llm-8")
    assert (code, out) == (3, "")
    assert "found neither" in err
    assert "did you mean llm-7" in err
    code, _, err = runs("report", "")
    assert code == 3


def test_as_of_a_time_it_says_what_was_known_then(runs, store):
    told(store, Declare("llm-7", owner="nlp"))
    code, out, err = runs("report", "llm-7", "--as-of", "2026-11-21T15:59:59", "--json")
    assert code == 3  # the records came a second later
    assert "As of 2026-11-21T15:59:59" in err
    code, out, _ = runs("report", "llm-7", "--as-of", "2026-11-21T16:00:00", "--json")
    assert code == 0
    assert json.loads(out)["declared"]["owner"] == "nlp"
