"""`flopmeter runs declare | assign | tag | link | external | retract | entries` as people and scripts meet them."""

import hashlib
import json
import re
import sys

import pytest
from builders import WINDOW_NS, Chain, busy
from desk import Desk

from flopmeter.cli.main import main
from flopmeter.collector.check.fsck import check_store
from flopmeter.collector.law.regimes import shipped
from flopmeter.contract.usage import Workload, WorkloadKind

LABELLED = Workload(WorkloadKind.SLURM, job="4711", step="0", run="llm-7", dtype="bf16")
LOST = Workload(WorkloadKind.SLURM, job="4712", step="0", dtype="bf16")
BEGUN = 1_795_132_800_000_000_000  # 2026-11-20T00:00Z
NOW = BEGUN + (14 * 3600 + 300) * 10**9


@pytest.fixture
def store(tmp_path):
    """Job 4711 of run llm-7, and job 4712 that nobody labelled; two minutes of each, in hour 14 of that day."""
    path = tmp_path / "books.sqlite"
    chain = Chain()
    chain.unix_ns = BEGUN + 14 * 3600 * 10**9
    with Desk(path, shipped()) as desk:
        desk.now = chain.unix_ns + 10 * WINDOW_NS
        agent = desk.agent(chain)
        for _ in range(2):
            desk.offer(agent, chain.next([busy(0), busy(1, 1)], (LABELLED, LOST)))
        desk.commit()
    return path


@pytest.fixture
def runs(monkeypatch, capsys, store):
    """`flopmeter runs WORDS` in this process: (exit code, stdout, stderr)."""
    monkeypatch.setenv("FLOPMETER_STORE", str(store))
    monkeypatch.delenv("FLOPMETER_REGIMES", raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("time.time_ns", lambda: NOW)  # else silent GPUs would owe more with every question

    def run(*words: str):
        monkeypatch.setattr(sys, "argv", ["flopmeter", "runs", *words])
        try:
            main()
            code = 0
        except SystemExit as e:
            code = e.code or 0
        out = capsys.readouterr()
        return code, out.out, out.err

    return run


def history(runs):
    code, out, _ = runs("entries", "--json")
    assert code == 0
    return json.loads(out)["entries"]


WHY = ("--why", "a reason")


def test_every_kind_of_word_gets_in_and_is_listed(runs, store):
    said = [
        ("declare", "llm-7", "--owner", "nlp", "--budget", "3.8e25", "--end", "2027-03-01", "--dtype", "bf16",
         "--hardware", "2048 x H100", "--purpose", "pretraining"),
        ("external", "llama-3.1-8b", "--flop", "7.22e23", "--upper", "8e23", "--source", "model card"),
        ("declare", "llm-7-chat", "--base", "llama-3.1-8b"),
        ("assign", "llm-7", "--job", "4712", *WHY),
        ("tag", "llm-7", "--purpose", "rl", "--from", "2026-11-20", "--until", "2026-11-21", *WHY),
        ("tag", "llm-7", "--purpose", "evaluation", "--job", "4712", "--evidence", "https://x/7", *WHY),
        ("tag", "llm-7", "--purpose", "recomputation", "--fraction", "1/4", "--evidence", "https://x/8", *WHY),
        ("link", "llm-7-chat", "fine-tunes", "llm-7", *WHY),
        ("retract", "6", *WHY),
        ("assign", "--back", "--job", "slurm:c1/4712", "--step", "0", *WHY),
    ]  # fmt: skip
    for number, words in enumerate(said, 1):
        code, out, err = runs(*words)
        assert (code, err) == (0, ""), words
        assert f"entry {number} is in the books" in out
        assert all(len(line) <= 80 for line in out.splitlines())
    found = history(runs)
    assert [e["number"] for e in found] == list(range(1, 11))
    assert [e["statement"]["kind"] for e in found[:4]] == ["declare", "external", "declare", "assign"]
    assert found[0]["statement"]["budget_flop"] == str(38 * 10**24)
    assert found[1]["statement"]["flop"] == {
        "lower": str(722 * 10**21),
        "point": str(722 * 10**21),
        "upper": str(8 * 10**23),
    }
    assert found[4]["statement"]["from_hour"] == str(BEGUN // (3600 * 10**9))
    assert found[6]["statement"]["fraction"] == "1/4"
    assert [e["retracted_by"] for e in found] == [None] * 5 + [9] + [None] * 4
    code, out, _ = runs("entries")
    assert code == 0
    for words in (
        "run llm-7 declared: owner nlp; budget 3.80e25 FLOP",
        "ends 2027-03-01",
        "job slurm:c1/4712 belongs to run llm-7",
        "2026-11-20T00:00Z to 2026-11-21T00:00Z, was rl",
        "1/4 of run llm-7, all of the time, was recomputation",
        "(taken back by entry 9)",
        "evidence: https://x/8",
        "step 0 goes back to what the rules chose",
    ):
        assert words in " ".join(out.split()), words
    assert all(len(line) <= 80 for line in out.splitlines())
    assert check_store(store, shipped()).difference is None


def test_a_runs_own_history(runs):
    runs("declare", "a", "--owner", "x")
    runs("declare", "b", "--owner", "x")
    _, out, _ = runs("entries", "b", "--json")
    assert [e["number"] for e in json.loads(out)["entries"]] == [2]
    assert runs("entries", "c")[1] == "no entries: nobody has said anything of run c\n"


def test_pages_fit_whatever_the_names_are(runs):
    long = "team-foundation-models/" + "x" * 200
    for words in (
        ("declare", long, "--owner", long, "--hardware", long),
        ("tag", long, "--purpose", "evaluation", "--evidence", "https://" + "y" * 500, "--why", "z" * 500),
        ("entries",),
        ("entries", long),
    ):
        code, out, _ = runs(*words)
        assert code == 0
        assert [line for line in out.splitlines() if len(line) > 80] == []
        assert "x" * 200 in "".join(out.split())


def test_an_empty_history_says_how_to_begin(runs):
    code, out, _ = runs("entries")
    assert (code, "runs declare" in out) == (0, True)
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize(
    ("words", "code", "said", "to_do"),
    [
        (("assign", "r9", "--job", "4712", *WHY), 1, "found neither", "runs declare r9"),
        (("assign", "llm-7", "--job", "9", *WHY), 1, "found none", "runs show RUN"),
        (("assign", "llm-7", "--job", "4712", "--step", "7", *WHY), 1, "expected a step of 0", "--step"),
        (("assign", "--job", "4712", *WHY), 2, "got both or neither", ""),
        (("assign", "llm-7", "--back", "--job", "4712", *WHY), 2, "got both or neither", ""),
        (("assign", "llm-7", "--job", "4712"), 2, "--why", ""),
        (("assign", "llm-7", "--job", "4712", "--why", " "), 2, "why: expected some words", "--why TEXT"),
        (("assign", "llm-7", "--job", "4712", "--who", "", *WHY), 2, "who: expected a name", "--who NAME"),
        (("tag", "llm-7", "--purpose", "evaluation", *WHY), 2, "expected evidence for it", "--evidence"),
        (("tag", "llm-7", "--purpose", "fun", *WHY), 2, "expected one of pretraining", ""),
        (("tag", "llm-7", "--purpose", "rl"), 2, "--why", ""),
        (
            ("tag", "llm-7", "--purpose", "rl", "--job", "4712", *WHY),
            1,
            "a job of run llm-7",
            "assign it first",
        ),
        (
            ("tag", "llm-7", "--purpose", "rl", "--from", "soon", *WHY),
            2,
            "--from: expected a date",
            "2026-11-20",
        ),
        (
            (
                "tag",
                "llm-7",
                "--purpose",
                "rl",
                "--from",
                "2026-11-20T10:10",
                "--until",
                "2026-11-20T10:50",
                *WHY,
            ),
            2,
            "at least one whole hour",
            "--job",
        ),
        (
            (
                "tag",
                "llm-7",
                "--purpose",
                "recomputation",
                "--fraction",
                "5/4",
                "--evidence",
                "https://x",
                *WHY,
            ),
            2,
            "less than 1",
            "--fraction 1/4",
        ),
        (
            (
                "tag",
                "llm-7",
                "--purpose",
                "recomputation",
                "--fraction",
                "lots",
                "--evidence",
                "https://x",
                *WHY,
            ),
            2,
            "expected a fraction",
            "1/4",
        ),
        (
            ("tag", "llm-7", "--purpose", "evaluation", "--evidence", "ticket 7", *WHY),
            2,
            "expected a URL",
            "file",
        ),
        (("link", "llm-7", "likes", "x", *WHY), 2, "expected one of continues", ""),
        (("link", "llm-7", "continues", "x", *WHY), 1, "parent 'x'", "runs external x"),
        (("link", "llm-7", "continues", "llm-7", *WHY), 1, "circle", "retract"),
        (("declare", "llm-7"), 2, "got nothing", "--owner"),
        (("declare", "llm-7", "--budget", "much"), 2, "--budget: expected a number", "3.8e25"),
        (("declare", "llm-7", "--end", "soon"), 2, "--end: expected a date", "2026"),
        (
            ("declare", "x" * 10_000, "--owner", "a"),
            2,
            "expected at most 256 characters, got 10000",
            "shorten",
        ),
        (("declare", "a\x1b[2J", "--owner", "a"), 2, "printable", "control"),
        (
            ("external", "m", "--flop", "1e24", "--lower", "2e24", "--source", "s"),
            2,
            "lower <= point",
            "order",
        ),
        (("retract", "1", *WHY), 1, "expected an entry from 1 to 0", "runs entries"),
        (("retract", "0", *WHY), 2, "", ""),
    ],
    ids=lambda v: " ".join(v)[:60] if isinstance(v, tuple) else "",
)
def test_what_may_not_be_said_is_refused_with_what_to_do_and_nothing_stays(runs, words, code, said, to_do):
    for more in ((), ("--dry-run",)):
        got, out, err = runs(*words, *more)
        assert (got, out) == (code, "")
        assert said in err
        assert to_do in err
        assert "Traceback" not in err
        assert "\x1b" not in err
    assert history(runs) == []


EVIDENCE = ("--evidence", "https://x/7")


def changes(runs, *words):
    code, out, err = runs(*words, "--dry-run", "--json")
    assert (code, err) == (0, "")
    document = json.loads(out)
    assert document["dry_run"] is True
    return {(c["run"], c["total"]): c for c in document["changes"]}


def shown(runs, run):
    """The totals of `runs show`, as a dry run names them."""
    code, out, _ = runs("show", run, "--json")
    if code == 3:
        return {}
    document = json.loads(out)
    return (
        {"executed": document["executed"]["flop"]}
        | {name: c["flop"] for name, c in document["countable"].items()}
        | {f"{m['regime']} (of {m['original']})": m["counted"] for m in document["modifications"]}
    )


@pytest.mark.parametrize(
    "words",
    [
        ("assign", "llm-7", "--job", "4712", *WHY),
        ("tag", "llm-7", "--purpose", "evaluation", *EVIDENCE, *WHY),
        ("tag", "llm-7", "--purpose", "evaluation", "--until", "2026-11-20T14:00", *EVIDENCE, *WHY),
        ("tag", "llm-7", "--purpose", "recomputation", "--fraction", "1/3", *EVIDENCE, *WHY),
        ("tag", "llm-7", "--purpose", "rl", *WHY),
        ("link", "llm-7", "fine-tunes", "slurm:c1/4712", *WHY),
        ("declare", "llm-7", "--owner", "nlp"),
        ("external", "m", "--flop", "1e24", "--source", "s"),
    ],
    ids=lambda words: " ".join(words)[:50],
)
def test_a_dry_run_says_what_then_happens_and_says_nothing(runs, words):
    """Every total of every run, before and after, as `runs show` has them; what did not change is not in it."""
    names = ("llm-7", "slurm:c1/4712")
    before = {run: shown(runs, run) for run in names}
    foreseen = changes(runs, *words)
    assert history(runs) == []
    assert {run: shown(runs, run) for run in names} == before
    assert runs(*words)[0] == 0
    after = {run: shown(runs, run) for run in names}
    happened = {
        (run, total): {"run": run, "total": total, "before": was, "after": now}
        for run in names
        for total in {**before[run], **after[run]}
        if (was := before[run].get(total)) != (now := after[run].get(total))
    }
    assert foreseen == happened


def test_a_dry_run_for_people(runs):
    code, out, err = runs("tag", "llm-7", "--purpose", "evaluation", *EVIDENCE, *WHY, "--dry-run")
    assert (code, err) == (0, "")
    assert "dry run, nothing was said; it would be entry 1:" in out
    assert "No executed total would change." in out
    assert re.search(
        r"llm-7: eu-gpai, eu-systemic-risk, korea\n    before \S+e\S+  \S+  \S+\n    after  0  0  0", out
    )
    assert "us-ca-sb53" not in out  # silent: it counts on
    assert "No total would change." in runs("tag", "llm-7", "--purpose", "rl", *WHY, "--dry-run")[1]
    moved = runs("assign", "llm-7", "--job", "4712", *WHY, "--dry-run")[1]
    assert re.search(
        r"slurm:c1/4712: executed, [^:]*\n    before \S+  \S+  \S+\n    after  no such run", moved
    )


def test_a_quarter_recomputed_takes_exactly_a_quarter(runs):
    """reference/regulations.md section 13, item 4."""
    found = changes(runs, "tag", "llm-7", "--purpose", "recomputation", "--fraction", "1/4", *EVIDENCE, *WHY)
    broad = found["llm-7", "eu-systemic-risk"]
    assert int(broad["after"]["point"]) * 4 == int(broad["before"]["point"]) * 3
    assert ("llm-7", "executed") not in found
    assert ("llm-7", "us-ca-sb53") not in found


def test_times_are_moved_inward_and_that_is_said(runs):
    words = (
        "tag",
        "llm-7",
        "--purpose",
        "rl",
        "--from",
        "2026-11-20T09:10",
        "--until",
        "2026-11-20T15:50",
        *WHY,
    )
    code, out, err = runs(*words, "--json")
    assert code == 0
    assert "moved to the next whole hour, 2026-11-20T10:00Z" in err
    document = json.loads(out)
    assert len(document["notes"]) == 2
    assert document["entry"]["says"] == "run llm-7, 2026-11-20T10:00Z to 2026-11-20T15:00Z, was rl"


def test_a_file_given_as_evidence_is_kept_by_its_digest(runs, tmp_path):
    path = tmp_path / "plan.yaml"
    path.write_text("x")
    runs(
        "tag", "llm-7", "--purpose", "evaluation", "--evidence", str(path), "--evidence", "https://x/1", *WHY
    )
    (entry,) = history(runs)
    digest = hashlib.sha256(b"x").hexdigest()
    assert entry["statement"]["evidence"] == [f"{path} sha256:{digest}", "https://x/1"]


def test_who_says_it_is_the_login_and_the_host_unless_said(runs, monkeypatch):
    monkeypatch.setenv("LOGNAME", "ada")
    monkeypatch.delenv("SUDO_USER", raising=False)
    monkeypatch.setattr("socket.gethostname", lambda: "login-1")
    runs("declare", "a", "--owner", "x")
    monkeypatch.setenv("SUDO_USER", "bob")
    runs("declare", "a", "--owner", "y")
    runs("declare", "a", "--owner", "z", "--who", "Eve (compliance)")

    def nobody():
        raise KeyError("uid not found")

    monkeypatch.delenv("SUDO_USER")
    monkeypatch.setattr("getpass.getuser", nobody)
    monkeypatch.setattr("os.getuid", lambda: 4711)
    runs("declare", "a", "--owner", "w")
    assert [e["who"] for e in history(runs)] == [
        "ada@login-1",
        "bob@login-1",
        "Eve (compliance)",
        "uid-4711@login-1",
    ]


def test_json_of_an_entry_has_what_a_script_needs(runs):
    code, out, _ = runs("declare", "llm-7", "--owner", "nlp", "--json")
    document = json.loads(out)
    assert code == 0
    assert document["dry_run"] is False
    entry = document["entry"]
    assert set(entry) == {
        "number", "time", "unix_ns", "position", "who", "why", "says", "statement", "retracted_by",
    }  # fmt: skip
    assert (entry["number"], entry["position"]) == (1, 2)
    assert entry["statement"] == {"kind": "declare", "run": "llm-7", "owner": "nlp"}
    assert re.match(r"\d{4}-\d\d-\d\dT", entry["time"])


def test_a_time_that_has_not_come_is_no_time_to_ask_for(runs):
    for words in (("list",), ("show", "llm-7"), ("report", "llm-7")):
        code, out, err = runs(*words, "--as-of", "2026-11-20T14:05:01Z")
        assert (code, out) == (2, "")
        assert "expected a time that has come, got 2026-11-20T14:05:01" in err
        assert runs(*words, "--as-of", "soon")[0] == 2
    assert runs("list", "--as-of", "2026-11-20T14:05:00Z")[0] == 0


def test_no_store_is_named_with_what_to_do(runs, monkeypatch, tmp_path):
    monkeypatch.setenv("FLOPMETER_STORE", str(tmp_path / "none.sqlite"))
    for words in (
        ("declare", "a", "--owner", "b"),
        ("entries",),
        ("declare", "a", "--owner", "b", "--dry-run"),
    ):
        code, out, err = runs(*words)
        assert (code, out) == (3, "")
        assert "found no such file" in err
        assert "Hint:" in err
