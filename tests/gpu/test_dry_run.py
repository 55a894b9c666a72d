"""The whole program on a simulated GPU that counts exactly: what it finds must be what was scripted."""

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from gpu import report
from gpu.agent_path import AgentPath, priced
from gpu.answers import UNKNOWN, answers, legacy_permille, toml
from gpu.experiment import ERROR, Context, Outcome
from gpu.fake_lab import FakeLab, Script
from gpu.state import State
from gpu.worker import AGAIN, DONE, EXPERIMENTS, GRACE_S, ORDER, TIME_UP, left, work_off

from flopmeter.agent.reading import Reading
from flopmeter.agent.sources.trace import TraceFile
from flopmeter.contract.w_table import CURRENT, parse_w_table

ROOT = Path(__file__).parents[2]
VALIDATE = ROOT / "tests/gpu/validate.py"
QUIET: Callable[[str], None] = lambda text: None  # noqa: E731


@cache
def whole_run(script: Script, only: tuple[str, ...] = ()) -> State:
    """All experiments, or `only` some, which costs less."""
    with TemporaryDirectory() as folder:
        state = State.load(Path(folder))
        assert work_off(FakeLab(script), state, only=only, budget_s=1e9, say=QUIET) == DONE
        return state


def statuses(state: State) -> dict[str, str]:
    return {key: result["status"] for key, result in state.results.items()}


@pytest.mark.parametrize("average", [True, False], ids=["average", "sum"])
def test_an_exact_gpu_passes_everything(average: bool) -> None:
    state = whole_run(Script(average=average))
    assert statuses(state) == dict.fromkeys(ORDER, "pass") | {"E5": "noted", "E19": "noted"}
    assert state.results["E2"]["raw"]["scale"] == ("average" if average else "sum")
    lines = [line for r in state.results.values() for line in r["lines"] if line["ratio"] and line["true"]]
    ratios = [x["ratio"] for x in lines if "2:4" not in x["what"] and "8200" not in x["what"]]
    assert len(ratios) > 40
    assert all(abs(r - 1) < 0.001 for r in ratios), "A1 and A2, both scales"
    assert {x["classes"] for x in lines if x["by"] == "counters"} == {"A1"}
    assert {x["classes"] for x in lines if x["by"] == "percentages"} == {"A2"}


def test_a_driver_without_cycle_counters_is_tested_in_class_a2() -> None:
    state = whole_run(Script(driver="580.159.04"))
    got = statuses(state)
    assert {k for k, v in got.items() if v == "not run"} == {"E2", "E18"}
    assert "R595" in state.results["E2"]["why"]
    assert set(got.values()) == {"pass", "noted", "not run"}
    assert {x["by"] for r in state.results.values() for x in r["lines"]} == {"percentages"}
    found = answers(state.results)
    assert found["scale of id 248"] == UNKNOWN
    assert (
        found["class A1 and A2 against 2MNK"]
        == "F/T bf16 by percentages 1.0000, fp16 by percentages 1.0000 (E3)"
    )
    assert (
        "the driver's buffer" in found["class A2's clock term"]
        or "driver's buffer" in found["class A2's clock term"]
    )
    assert "clock64 on the SMs, 1755 MHz" in found["class A2's clock term"]
    assert 8 not in state.results["E0"]["raw"]["probe"]["answer"]


@pytest.mark.parametrize(("in_hmma", "place"), [(True, "hmma"), (False, "any")])
def test_where_fp8_is_counted(in_hmma: bool, place: str) -> None:
    state = whole_run(Script(fp8_in_hmma=in_hmma), ("E4", "E6"))
    assert state.results["E4"]["status"] == "pass"
    assert state.results["E4"]["raw"]["fp8_place"] == place
    pipes = state.results["E4"]["raw"]["class_map"]["fp8"]
    assert pipes == {"hmma" if in_hmma else "tensor_other": 1.0}


def test_a_slow_mma_sync_fails_e6_and_becomes_the_allowance() -> None:
    state = whole_run(Script(mma_sync_percent=62), ("E3", "E4", "E6", "E13"))
    failed = {k for k, v in statuses(state).items() if v == "fail"}
    assert failed == {"E6"}
    by_name = {c["name"]: c["ok"] for c in state.results["E6"]["checks"]}
    assert by_name["flash: operations per active SM-cycle"] is False
    assert by_name["cudnn: operations per active SM-cycle"] is True
    assert by_name["flash: truth within bounds"] is True, "the table's allowance is wide enough for 62 %"
    assert "legacy_mma_permille = 619" in toml(state)
    assert "E3 did not pass" not in toml(state)
    assert report.verdict(state) == 1


def test_a_share_that_no_pipe_can_have_is_not_offered() -> None:
    """Another kernel than was meant, or another pipe: a line to paste would look like an answer."""
    text = toml(whole_run(Script(mma_sync_percent=20), ("E6",)))
    assert "legacy_mma_permille: a share of 0.2000 is no rate" in text
    assert "\nlegacy_mma_permille = " not in text
    assert "E3 did not pass" in text


def test_pipes_that_stood_still_are_no_answer(tmp_path: Path) -> None:
    """GPM that answers, with zeros: no share, no rate, and a report that is written all the same."""
    state = State.load(tmp_path)
    only = ["E3", "E4", "E6", "E16"]
    assert (
        work_off(FakeLab(Script(pipes_stand_still=True)), state, only=only, budget_s=1e9, say=QUIET) == DONE
    )
    for kept in (state, State.load(tmp_path)):
        found = answers(kept.results)
        assert found["mma.sync: share of the table's rate on an active SM-cycle"] == UNKNOWN
        assert found["FP8 in HMMA or only in ANY"] == UNKNOWN
        assert tomllib.loads(toml(kept)) == {}
        assert "E3   FAIL" in report.table(kept)
        assert "| E6 |" in report.markdown(kept, found)


def test_counters_that_say_too_much_are_found() -> None:
    judged = ("E3", "E4", "E8", "E9", "E13", "E14", "E17", "E18")
    got = statuses(whole_run(Script(counting_error_permille=60), judged))
    assert got == dict.fromkeys(judged, "fail")


def test_what_is_missing_is_not_run_and_says_why() -> None:
    script = Script(torch_scaled_mm=False, torch_int_mm=False, second_user=False, ncu=False)
    state = whole_run(script, ("E0", "E3", "E4", "E17"))
    assert "torch._scaled_mm" in state.results["E4"]["why"]
    assert "torch._int_mm" in state.results["E4"]["why"]
    assert set(state.results["E4"]["raw"]["class_map"]) == {"tf32", "fp64"}
    assert state.results["E0"]["status"] == "pass"
    assert state.results["E17"]["status"] == "not run"
    assert "ncu" in state.results["E17"]["why"]
    assert answers(state.results)["FP8 in HMMA or only in ANY"] == UNKNOWN
    assert report.verdict(state) == 0


def test_a_profiler_that_stops_gpm_is_found(tmp_path: Path) -> None:
    state = State.load(tmp_path)
    lab = FakeLab(Script(profiler_stops_gpm=True))
    assert work_off(lab, state, only=["E17"], budget_s=1e9, say=QUIET) == DONE
    (check,) = [c for c in state.results["E17"]["checks"] if c["name"].startswith("readings without GPM")]
    assert check["ok"] is False


def test_two_processes_under_mps(tmp_path: Path) -> None:
    """The product then runs in another process; what it says it did is the truth to compare with."""
    state = State.load(tmp_path)
    assert work_off(FakeLab(Script(mps=True)), state, only=["E14"], budget_s=1e9, say=QUIET) == DONE
    result = state.results["E14"]
    assert (result["status"], result["why"]) == ("pass", "")
    assert result["raw"]["MPS"]["calls"] > 1000
    assert result["raw"]["MPS"]["counters"]["ratio"] == pytest.approx(1, abs=1e-6)
    assert "no MPS daemon" in whole_run(Script()).results["E14"]["why"]


# ---- resuming ----------------------------------------------------------------------------------------------


class Killed(BaseException):
    """As a signal would: nothing catches it."""


def with_experiment(key: str, run: Callable[[Context], Outcome]) -> dict[str, Any]:
    return EXPERIMENTS | {key: replace(EXPERIMENTS[key], run=run)}


def killed(ctx: Context) -> Outcome:
    raise Killed


def broken(ctx: Context) -> Outcome:
    raise RuntimeError("CUDA error: an illegal memory access was encountered")


def test_a_rerun_goes_on_after_a_kill(tmp_path: Path) -> None:
    only = ["E0", "E3", "E16"]
    for _ in range(2):
        with pytest.raises(Killed):
            work_off(
                FakeLab(),
                State.load(tmp_path),
                only=only,
                budget_s=1e9,
                say=QUIET,
                experiments=with_experiment("E3", killed),
            )
    state = State.load(tmp_path)
    assert set(state.results) == {"E0"}
    assert state.attempts == {"E0": 1, "E3": 2}, "E0 was not run again"
    said: list[str] = []
    assert work_off(FakeLab(), state, only=only, budget_s=1e9, say=said.append) == DONE
    assert state.results["E3"]["status"] == ERROR
    assert "without an end" in state.results["E3"]["why"]
    assert state.results["E16"]["status"] == "pass"
    assert left(State.load(tmp_path), only) == []


def test_an_error_costs_one_experiment_and_is_tried_once_more(tmp_path: Path) -> None:
    only = ["E3", "E16"]
    experiments = with_experiment("E3", broken)
    state = State.load(tmp_path)
    codes = []
    while not codes or codes[-1] == AGAIN:
        codes.append(work_off(FakeLab(), state, only=only, budget_s=1e9, say=QUIET, experiments=experiments))
    assert codes == [AGAIN, AGAIN, DONE]
    assert "illegal memory access" in state.results["E3"]["why"]
    assert "Traceback" in state.results["E3"]["traceback"]
    assert state.results["E16"]["status"] == "pass"


@pytest.mark.parametrize("end", [RuntimeError, Killed], ids=["error", "crash"])
def test_the_part_that_ends_an_experiment_is_left_out_the_second_time(
    tmp_path: Path, end: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel that loses the CUDA context, hangs or crashes may not cost what the others of E6 told."""
    build = FakeLab.build

    def built(lab: FakeLab, work: Any, chunk_s: float) -> Any:
        if work.key.startswith("mma.sync m16n8k16"):
            raise end("an illegal memory access was encountered")
        return build(lab, work, chunk_s)

    monkeypatch.setattr(FakeLab, "build", built)
    code = AGAIN
    while code == AGAIN:
        try:
            code = work_off(FakeLab(), State.load(tmp_path), only=["E6"], budget_s=1e9, say=QUIET)
        except Killed:
            code = AGAIN
    state = State.load(tmp_path)
    assert (code, state.attempts, state.parts) == (DONE, {"E6": 2}, {})
    result = state.results["E6"]
    assert result["status"] == "pass"
    assert result["why"] == "mma.sync: the attempt before ended in it (an error, a hang or a crash)"
    assert {"flash", "cudnn", "mma.sync gemm", "mma.sync tf32", "mma.sync int8"} <= set(result["raw"])


def test_the_budget_is_kept(tmp_path: Path) -> None:
    state = State.load(tmp_path)
    now = [0.0]
    only = ["E0", "E2", "E3", "E16"]

    def say(text: str) -> None:
        now[0] += 20.0  # each line of output stands for 20 s

    budget = EXPERIMENTS["E0"].seconds + EXPERIMENTS["E2"].seconds + 40.0
    assert work_off(FakeLab(), state, only=only, budget_s=budget, say=say, now_s=lambda: now[0]) == TIME_UP
    assert set(state.results) == {"E0", "E2"}
    assert "E3" not in state.attempts, "what does not fit is not begun"
    assert work_off(FakeLab(), state, only=only, budget_s=1e9, say=QUIET) == DONE
    assert set(state.results) == set(only)


def test_what_does_not_fit_makes_room_for_a_shorter_one(tmp_path: Path) -> None:
    state = State.load(tmp_path)
    assert (
        work_off(FakeLab(), state, only=["E3", "E5"], budget_s=EXPERIMENTS["E5"].seconds + 20, say=QUIET)
        == TIME_UP
    )
    assert set(state.results) == {"E5"}


def test_the_watchdog_is_wound_for_every_experiment_and_ends_with_the_budget(tmp_path: Path) -> None:
    wound: list[int] = []
    state = State.load(tmp_path)
    work_off(FakeLab(), state, only=["E0", "E16"], budget_s=1e9, say=QUIET, watchdog=wound.append)
    assert wound == [2 * EXPERIMENTS["E0"].seconds + 60, 0, 2 * EXPERIMENTS["E16"].seconds + 60, 0]
    wound.clear()
    work_off(FakeLab(), state, only=["E5"], budget_s=30, say=QUIET, now_s=lambda: 0.0, watchdog=wound.append)
    assert wound == [30 + GRACE_S, 0], "a hang in the last experiment leaves time to tell of the others"


def test_a_second_attempt_asks_no_profiler(tmp_path: Path) -> None:
    """It may be what ended the first."""
    asked: list[bool] = []

    def look(ctx: Context) -> Outcome:
        asked.append(ctx.bench.may_profile)
        raise RuntimeError

    state = State.load(tmp_path)
    while (
        work_off(
            FakeLab(), state, only=["E6"], budget_s=1e9, say=QUIET, experiments=with_experiment("E6", look)
        )
        == AGAIN
    ):
        pass
    assert asked == [True, False]


def test_without_gpm_nothing_is_measured_against_it(tmp_path: Path) -> None:
    """One sentence for each, in a second, and not forty minutes of zeros that look like a failed product."""
    state = State.load(tmp_path)
    lab = FakeLab(Script(gpm=False))
    assert work_off(lab, state, budget_s=1e9, say=QUIET) == DONE
    got = statuses(state)
    assert {k for k, v in got.items() if v != "not run"} == {"E0", "E15", "E16", "E19"}
    assert got["E0"] == "fail"
    assert got["E15"] == got["E16"] == "pass"
    assert all("no tensor percentage" in r["why"] for k, r in state.results.items() if got[k] == "not run")


def test_order_and_budget_of_the_whole() -> None:
    assert ORDER[:9] == ("E0", "E2", "E3", "E4", "E6", "E16", "E13", "E18", "E10")  # section 8
    assert set(ORDER) == set(EXPERIMENTS) == {f"E{n}" for n in range(20)}
    assert all(e.seconds <= 120 for e in EXPERIMENTS.values())
    assert sum(e.seconds for e in EXPERIMENTS.values()) < 1800, "30 minutes in all"


# ---- what it leaves ------------------------------------------------------------------------------------------


def test_traces_are_small_and_play(tmp_path: Path) -> None:
    state = State.load(tmp_path)
    assert work_off(FakeLab(), state, only=["E3"], budget_s=1e9, say=QUIET) == DONE
    traces = sorted((tmp_path / "traces").iterdir())
    assert [t.name for t in traces] == ["E3-bf16.jsonl.gz", "E3-fp16.jsonl.gz"]
    for path in traces:
        assert path.stat().st_size < 50_000
        trace = TraceFile(path)
        items = list(trace.items())
        trace.close()
        assert len(items) > 20
        assert not trace.refused
        assert trace.facts().driver == "595.58.03"


def test_a_trace_played_again_gives_the_same_flop(tmp_path: Path) -> None:
    """By a meter that knows nothing of the run before: it finds the scale by itself."""
    state = State.load(tmp_path)
    assert work_off(FakeLab(), state, only=["E3"], budget_s=1e9, say=QUIET) == DONE
    booked = state.results["E3"]["raw"]["bf16"]["counters"]
    trace = TraceFile(tmp_path / "traces/E3-bf16.jsonl.gz")
    facts = trace.facts()
    path = AgentPath(facts, 1_000_000_000)
    for item in trace.items():
        if isinstance(item, Reading):
            path.observe(item)
    trace.close()
    path.seal(final=True)
    again = priced(path.usage("E3-bf16"), facts.devices[0], "bf16")
    assert again["classes"].keys() == {"A1"}
    assert again["cycles"] == booked["cycles"]
    assert again["flop"] == booked["flop"]


def test_table_and_markdown_show_every_experiment_and_that_it_was_simulated() -> None:
    state = whole_run(Script())
    text, page = report.table(state), report.markdown(state, answers(state.results))
    for key in ORDER:
        assert f"\n{key:<4} " in text
        assert f"| {key} |" in page
    assert report.SIMULATED in text
    assert report.SIMULATED in page
    assert "# SIMULATED: do not paste." in toml(state)
    assert "# id 248 is the average over the SMs (1.0000 counts per clock)" in toml(state)
    assert "# k of the counters: 250 1.0000, 252 1.0000" in toml(state)
    widths = {line.replace("\\|", "").count("|") for line in page.splitlines() if line.startswith("| E")}
    assert widths == {9, 6, 4}
    assert "| E4 | fp8 | `simulated_gemm_tilesize128x256x64_kernel` |" in page


def test_an_empty_state_reports_everything_as_open() -> None:
    state = State(Path("nowhere"))
    assert report.table(state).count("not run yet") == len(ORDER)
    assert report.summary(state)["left"] == list(ORDER)
    found = answers({})
    assert UNKNOWN in found.values()
    assert "not measured" in toml(state)


@pytest.mark.parametrize(
    "script", [Script(), Script(fp8_in_hmma=False), Script(mma_sync_percent=62)], ids=["hmma", "any", "slow"]
)
def test_the_w_table_takes_the_snippet(script: Script) -> None:
    """Pasted over the lines of 9.0 in a copy of the current table, it is a table."""
    state = whole_run(script, ("E3", "E4", "E6", "E13") if script.mma_sync_percent < 100 else ("E4", "E6"))
    snippet = tomllib.loads(toml(state))
    assert snippet["hmma_holds"][:2] == ["tf32", "bf16"]
    text = (ROOT / "protos/flopmeter/contract" / CURRENT).read_text()
    head, mark, rest = text.partition('compute_capability = "9.0"\n')
    body, end, tail = rest.partition("\n\n")
    kept = [line for line in body.splitlines() if line.partition(" = ")[0] not in snippet]
    pasted = [line for line in toml(state).splitlines() if not line.startswith("#")]
    table = parse_w_table((head + mark + "\n".join(kept + pasted) + end + tail).encode())
    arch = table.arch("9.0", "NVIDIA H200")
    assert arch is not None
    assert arch.legacy_mma_permille == snippet["legacy_mma_permille"]
    assert list(arch.hmma_holds) == snippet["hmma_holds"]


def test_allowance_is_rounded_down() -> None:
    assert legacy_permille(1.0) == 1000
    assert legacy_permille(0.95) == 949
    assert legacy_permille(2539.5 / 4096) == 618
    assert legacy_permille(0.0001) == 1


# ---- the program as it is called -----------------------------------------------------------------------------


def call(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Without site-packages: a GPU machine has nothing of ours installed."""
    command = [sys.executable, "-I", "-S", VALIDATE, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_it_needs_nothing_installed(tmp_path: Path) -> None:
    done = call(
        "run", "--simulate", "--out", tmp_path / "o", "--only", "E0,E3", "--bundle", tmp_path / "b.tar.gz"
    )
    assert done.returncode == 0, done.stderr
    assert "E3   PASS" in done.stdout
    assert (tmp_path / "b.tar.gz").exists()
    again = call("run", "--simulate", "--out", tmp_path / "o", "--only", "E0,E3")
    assert "about 50 s" not in again.stdout, "nothing is run twice"
    told = call(
        "report",
        "--out",
        tmp_path / "o",
        "--json",
        "--markdown",
        tmp_path / "r.md",
        "--toml",
        tmp_path / "w.toml",
    )
    assert json.loads(told.stdout)["results"]["E3"]["status"] == "pass"
    assert "SIMULATED" in (tmp_path / "r.md").read_text()
    assert "SIMULATED" in (tmp_path / "w.toml").read_text()


def test_a_budget_too_small_says_run_again(tmp_path: Path) -> None:
    done = call("run", "--simulate", "--out", tmp_path, "--budget-s", "40")
    assert done.returncode == 4
    assert "run again for the rest" in done.stdout
    done_now = set(json.loads((tmp_path / "state.json").read_text())["results"])
    assert done_now == {"E0", "E5", "E19"}, "what is shorter and further down still fits"


def test_a_result_can_be_asked_for_again_and_the_old_one_is_kept(tmp_path: Path) -> None:
    out, bundle = tmp_path / "o", tmp_path / "b.tar.gz"
    call("run", "--simulate", "--out", out, "--only", "E0,E5", "--bundle", bundle)
    # As on the next machine: an empty folder, and the bundle of the call before.
    done = call(
        "run", "--simulate", "--out", tmp_path / "p", "--only", "E5", "--again", "E5", "--bundle", bundle
    )
    assert done.returncode == 0, done.stderr
    assert "E5: 2:4 sparse" in done.stdout
    assert "E0: " not in done.stdout
    state = State.load(tmp_path / "p")
    assert [old["key"] for old in state.superseded] == ["E5"]
    assert state.attempts == {"E0": 1, "E5": 1}
    assert "Run again, and what the run before said: E5 (noted)." in report.markdown(state, {})
    assert call("run", "--simulate", "--out", out, "--again", "E5,E77").returncode == 2


def test_a_worker_that_ends_before_it_begins_is_not_started_for_ever(tmp_path: Path) -> None:
    """As where the driver's library kills the process that opens it: the GPU's time is not spent on that."""
    (tmp_path / "pynvml.py").write_text("import os\nos.abort()\n")
    command = [sys.executable, VALIDATE, "run", "--out", tmp_path / "o"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, env={**os.environ, "PYTHONPATH": str(tmp_path)}
    )
    assert done.returncode == 3
    assert done.stdout.count("the worker ended with -6") == 2
    assert "before it begins" in done.stderr


def test_usage_and_missing_results_have_their_exit_codes(tmp_path: Path) -> None:
    assert call("run", "--simulate", "--out", tmp_path, "--only", "E99").returncode == 2
    assert call("report", "--out", tmp_path).returncode == 3
    assert "E19" in call("list").stdout


def test_without_a_driver_it_says_so(tmp_path: Path) -> None:
    done = call("run", "--out", tmp_path, "--only", "E0")
    assert done.returncode == 3
    assert "nvidia-ml-py" in done.stderr
    assert not (tmp_path / "state.json").exists()
