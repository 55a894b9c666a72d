"""A job's own counts per dtype, as a recorded claim: beside the bounds, and in no total (reference/metering.md 4.2 b)."""

import json
import sys
from fractions import Fraction

import pytest
from builders import WINDOW_NS, Chain, busy
from desk import Desk

from flopmeter.cli.main import main
from flopmeter.collector.check.fsck import check_store
from flopmeter.collector.law.regimes import shipped
from flopmeter.collector.registry.calibrating import calibrated
from flopmeter.contract.flop import Calibration
from flopmeter.contract.usage import Workload, WorkloadKind

JOB = Workload(WorkloadKind.SLURM, job="4711", step="0", run="llm-7", dtype="bf16")
H100 = "NVIDIA H100 80GB HBM3"
BEGUN = 1_795_132_800_000_000_000
WHY = ("--why", "ncu on steps 100 to 120")


@pytest.fixture
def store(tmp_path):
    chain = Chain()
    chain.unix_ns = BEGUN
    with Desk(tmp_path / "books.sqlite", shipped()) as desk:
        desk.now = chain.unix_ns + 10 * WINDOW_NS
        agent = desk.agent(chain)
        for _ in range(2):
            desk.offer(agent, chain.next([busy(0)], (JOB,)))
        desk.commit()
    return tmp_path / "books.sqlite"


@pytest.fixture
def runs(monkeypatch, capsys, store):
    monkeypatch.setenv("FLOPMETER_STORE", str(store))
    monkeypatch.delenv("FLOPMETER_REGIMES", raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("time.time_ns", lambda: BEGUN + 3 * WINDOW_NS)

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["flopmeter", "runs", *words])
        try:
            main()
            code = 0
        except SystemExit as e:
            code = int(e.code or 0)
        out = capsys.readouterr()
        return code, out.out, out.err

    return run


def shown(runs) -> dict:
    return json.loads(runs("show", "llm-7", "--json")[1])


def test_a_calibration_narrows_what_stands_beside_the_bounds_and_nothing_else(runs, store):
    before = shown(runs)
    assert before["accuracy"]["if_calibrated"] is None
    code, out, err = runs("declare", "llm-7", "--calibration", "3.9e18", "1e15", "2", H100, *WHY)
    assert (code, err) == (0, "")
    assert all(len(line) <= 80 for line in out.splitlines())
    after = shown(runs)
    for name in ("executed", "thresholds", "countable", "by_pipe", "by_evidence_class", "width"):
        assert after[name] == before[name], name
    counts = {"model": H100, "flop": str(39 * 10**17), "cycles": str(10**15), "error_ppm": "20000"}
    assert after["declared"]["calibration"] == counts
    # By hand: HMMA-active SM-cycles of two minutes x 3,900, 2 % for the claim and 3 % for class A1.
    cycles = int(after["by_pipe"]["hmma"]["sm_cycles"]) + int(after["by_pipe"]["tensor_other"]["sm_cycles"])
    found = {k: int(v) for k, v in after["accuracy"]["if_calibrated"]["flop"].items()}
    assert found["point"] == cycles * 3_900
    assert found["lower"] == cycles * 3_900 * 98 * 97 // 10_000
    plain = {k: int(v) for k, v in after["executed"]["flop"].items()}
    saved = Fraction(103, 100) * cycles * (8_192 - Fraction(3_900 * 102, 100))
    assert abs(plain["upper"] - found["upper"] - saved) <= 1
    assert after["accuracy"]["if_calibrated"]["within"]
    assert not after["accuracy"]["within"]
    text = " ".join(runs("show", "llm-7")[1].split())
    assert f"if the calibration of {H100} is true: within" in text
    report = " ".join(runs("report", "llm-7")[1].split())
    assert f"3.90e18 FLOP in 1.00e15 tensor SM-cycles of {H100}, within 2 %" in report
    assert "calibration 3.90e18 FLOP in 1.00e15" in " ".join(runs("entries")[1].split())
    assert check_store(store, shipped()).difference is None


@pytest.mark.parametrize(
    ("model", "flop"),
    [("NVIDIA H200", "3.9e18"), (H100, "9e18"), (H100, "1e18")],
    ids=["other", "above", "below"],
)
def test_a_calibration_that_no_gpu_of_the_run_can_have_done_is_said_and_not_taken(runs, model, flop):
    assert runs("declare", "llm-7", "--calibration", flop, "1e15", "2", model, *WHY)[0] == 0
    assert shown(runs)["accuracy"]["if_calibrated"] is None
    assert f"the calibration of {model} fits no GPU of this run: not taken" in " ".join(
        runs("show", "llm-7")[1].split()
    )


def test_what_is_no_calibration_is_refused_in_words(runs):
    for words, said in (
        (("much", "1e15", "2", H100), "first: FLOP: expected a number"),
        (("1e18", "1.5", "2", H100), "second: SM-cycles: expected a whole number"),
        (("1e18", "1e15", "101", H100), "error of 0 to 1000000 ppm"),
        (("1e18", "1e15", "2", "x" * 10_000), "model of the calibration"),
        (("1e18", "1e15", "2", "a\x1bb"), "model of the calibration"),
    ):
        code, _, err = runs("declare", "llm-7", "--calibration", *words, *WHY)
        assert code == 2
        assert said in " ".join(err.split()), err
        assert len(err) < 2_000


def test_percent_is_rounded_away_from_certainty():
    assert calibrated("1e3", "1", "0.00001", H100).counts == Calibration(1_000, 1, 1)
