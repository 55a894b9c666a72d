"""`flopmeter runs suggestions | accept | reject`: what a person is asked about a store, and what becomes of the answer."""

import json
import re
import sys
from importlib import resources

import pytest
from builders import WINDOW_NS, Chain, busy
from desk import Desk

from flopmeter.cli.main import main
from flopmeter.collector.check.fsck import check_store
from flopmeter.collector.law.regimes import shipped
from flopmeter.contract.identity import Identity
from flopmeter.contract.usage import Workload, WorkloadKind

BEGUN = 1_795_132_800_000_000_000  # 2026-11-20T00:00Z


@pytest.fixture
def store(tmp_path):
    """Stage 1, then stage 2 behind it, of one owner on the same GPUs; and somebody else's run between them."""
    path = tmp_path / "books.sqlite"
    chain = Chain()
    chain.unix_ns = BEGUN
    with Desk(path, shipped()) as desk:
        desk.now = BEGUN + 100 * WINDOW_NS
        agent = desk.agent(chain)
        for stage in ("1", "2"):
            mine = Workload(
                WorkloadKind.SLURM, job=f"10{stage}", run=f"llm-stage{stage}", user="ada", dtype="bf16"
            )
            other = Workload(WorkloadKind.SLURM, job="200", run="other", user="bob", dtype="bf16")
            for _ in range(3):
                desk.offer(agent, chain.next([busy(0), busy(1, 1)], (mine, other)))
        desk.commit()
    return path


@pytest.fixture
def runs(monkeypatch, capsys, store, tmp_path):
    """With a line of the site's own that these small runs are a notable part of."""
    directory = tmp_path / "regimes"
    directory.mkdir()
    korea = (resources.files("flopmeter.collector") / "regimes/korea.toml").read_text()
    small = korea.replace('id = "korea"', 'id = "site"').replace("exponent = 26", "exponent = 18")
    (directory / "site.toml").write_text(small)
    monkeypatch.setenv("FLOPMETER_STORE", str(store))
    monkeypatch.setenv("FLOPMETER_REGIMES", str(directory))

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


def test_a_checkpoint_that_two_runs_declare_is_a_reason_whoever_they_are(runs, store):
    """What agents ship of FLOPMETER_CHECKPOINT: the same hash at another owner's job."""
    chain = Chain("n9")
    chain.unix_ns = BEGUN + 7 * 86_400 * 10**9
    declared = (Identity("env:FLOPMETER_CHECKPOINT", "5e" * 16),)
    with Desk(store, shipped()) as desk:
        desk.now = chain.unix_ns + 100 * WINDOW_NS
        agent = desk.agent(chain)
        for run, user in (("abc", "carol"), ("xyz", "dave")):
            job = Workload(
                WorkloadKind.SLURM, job=f"job {run}", run=run, user=user, dtype="bf16", identities=declared
            )
            desk.offer(agent, chain.next([busy(0)], (job,)))
        desk.commit()
    (found,) = [s for s in asked(runs) if set(s["runs"]) == {"abc", "xyz"}]
    assert "checkpoint" in {r["signal"] for r in found["reasons"]}
    assert "5e5e" not in json.dumps(found)


def asked(runs, *words):
    code, out, _ = runs("suggestions", "--json", *words)
    assert code == 0
    return json.loads(out)["suggestions"]


def test_runs_that_may_be_one_are_asked_about_with_reasons_and_what_each_does_not_prove(runs):
    (found,) = asked(runs)
    assert found["runs"] == ["llm-stage1", "llm-stage2"]
    assert found["kind"] == "linked"
    assert {"names", "owner", "hand-over", "hardware"} <= {r["signal"] for r in found["reasons"]}
    assert all(r["not_proof"] for r in found["reasons"])
    assert found["answer"] is None
    code, out, _ = runs("suggestions")
    assert code == 0
    assert found["id"] in out
    assert "both belong to ada" in out
    assert "no finding" in " ".join(out.split())
    assert all(len(line) <= 80 for line in out.splitlines())


def test_an_answer_is_on_record_and_is_not_asked_again(runs, store):
    (found,) = asked(runs)
    code, out, _ = runs("reject", found["id"], "--why", "another corpus, another model")
    assert code == 0
    assert f"suggestion {found['id']} rejected" in out
    assert asked(runs) == []
    (again,) = asked(runs, "--all")
    assert again["answer"] == "rejected"
    assert runs("accept", found["id"][:6], "--why", "it was the same after all")[0] == 0
    assert asked(runs, "--all")[0]["answer"] == "accepted"
    code, out, _ = runs("entries", "--json")
    said = [(e["statement"]["accepted"], e["why"]) for e in json.loads(out)["entries"]]
    assert said == [(False, "another corpus, another model"), (True, "it was the same after all")]
    assert check_store(store, shipped()).difference is None


def test_the_link_that_it_proposes_can_be_said_and_leaves_nothing_to_ask(runs):
    (found,) = asked(runs)
    words = re.sub(r"^flopmeter runs ", "", found["command"]).replace("TEXT", "because").split()
    assert runs(*words)[0] == 0
    assert asked(runs, "--all") == []


def test_the_owner_is_who_was_declared(runs):
    runs("declare", "llm-stage2", "--owner", "somebody else")
    assert asked(runs) == [] or "owner" not in {r["signal"] for r in asked(runs)[0]["reasons"]}


@pytest.mark.parametrize("name", ["", "zz", "x" * 10_000, "\x1b[2J"])
def test_an_answer_to_nothing_is_refused(runs, name):
    for verb in ("accept", "reject"):
        code, out, err = runs(verb, name, "--why", "x")
        assert (code, out) == (1, "")
        assert "expected the id of one" in err
        assert "runs suggestions --all" in err
        assert "\x1b" not in err
