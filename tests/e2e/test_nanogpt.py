"""Real input: a published training log (8 H100, 5,100 steps) as a trace, replayed, comes out at its total."""

import json
from pathlib import Path
from typing import Any

import nanogpt_trace
import pytest
from nanogpt_trace import GPUS, IDLE_AFTER_S, IDLE_BEFORE_S, RUN
from processes import flopmeter

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(
        not nanogpt_trace.STEPS_CSV.exists(), reason="../shared/data/runs is not beside this checkout"
    ),
]


def replay(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    done = flopmeter("replay", path, "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    return next(r for r in document["runs"] if r["run"] == RUN), document


def test_the_log_is_joined_where_its_clock_restarts() -> None:
    run = nanogpt_trace.load()
    assert run.steps == 5100
    # Step 10 ended at 54,881 ms; the clock then starts again, and step 11 took 176 ms.
    assert run.ends_ms[9] == 54_881
    assert run.ends_ms[10] == 54_881 + 176
    assert run.duration_ms == 54_881 + 910_545
    assert all(a < b for a, b in zip(run.ends_ms, run.ends_ms[1:], strict=False))


def test_what_is_put_in_is_the_logs_own_figure() -> None:
    """The timed steps carry the FLOPs that the log's architecture gives; steps 1 to 10 the same each."""
    run = nanogpt_trace.load()
    facts = json.loads(nanogpt_trace.RUN_JSON.read_text())
    timed = run.hmma_cycles(5100) - run.hmma_cycles(10)
    per_gpu = facts["flops_with_full_attention"] / GPUS / 4096
    assert abs(timed - per_gpu) <= 2
    assert run.flop == facts["flops_with_full_attention"] * 5100 // 5090


@pytest.mark.parametrize(
    ("form", "suffix", "grade", "ppm"),
    [
        ("sum", ".jsonl", "A1", 1_000),
        ("average", ".jsonl.gz", "A1", 1_000),
        ("percent", ".jsonl", "A2", 10_000),
    ],
)
def test_replayed_it_comes_out_at_its_total(
    tmp_path: Path, form: str, suffix: str, grade: str, ppm: int
) -> None:
    path = tmp_path / f"nanogpt-{form}{suffix}"
    put_in = nanogpt_trace.write(path, form)
    run, document = replay(path)

    flop = {k: int(v) for k, v in run["executed"]["flop"].items()}
    assert abs(flop["point"] - put_in.flop) * 1_000_000 <= put_in.flop * ppm
    assert flop["lower"] < put_in.flop < flop["upper"]
    assert set(run["by_evidence_class"]) == {grade}

    # The clock: the joined log on eight GPUs, neither the restart lost nor a second counted twice.
    coverage = run["coverage"]
    device_s = put_in.duration_ms * GPUS / 1000
    assert coverage["expected_device_seconds"] == pytest.approx(device_s, abs=1e-6)
    assert coverage["gap_device_seconds"] == 0
    # 600 W under load by construction of the trace.
    assert float(run["energy_joules"]) == pytest.approx(device_s * 600, rel=1e-6)

    # All of the trace is in the books: the run, and the idle seconds around it.
    total_s = (put_in.duration_ms / 1000 + IDLE_BEFORE_S + IDLE_AFTER_S) * GPUS
    assert document["fleet"]["device_seconds"] == pytest.approx(total_s, abs=1e-6)


def test_cycles_and_percentages_agree(tmp_path: Path) -> None:
    """Two traces of one run, two ways to meter it: the same work within the percentages' own bound."""
    points = []
    for form in ("sum", "percent"):
        path = tmp_path / f"{form}.jsonl"
        nanogpt_trace.write(path, form, seconds=120)
        points.append(int(replay(path)[0]["executed"]["flop"]["point"]))
    assert abs(points[0] - points[1]) * 100 <= points[0]


def test_a_second_replay_into_the_same_books_counts_nothing_twice(tmp_path: Path) -> None:
    path = tmp_path / "nanogpt.jsonl"
    nanogpt_trace.write(path, "sum", seconds=150)
    state = tmp_path / "state"
    first = flopmeter("replay", path, "--state", state, "--json")
    again = flopmeter("replay", path, "--state", state, "--json")
    assert (first.returncode, again.returncode) == (0, 0), first.stderr + again.stderr
    totals = [
        {r["run"]: (r["executed"], r["coverage"]) for r in json.loads(done.stdout)["runs"]}
        for done in (first, again)
    ]
    assert totals[0] == totals[1]
