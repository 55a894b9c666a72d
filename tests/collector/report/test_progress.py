"""Declared beside measured in a run's report: the formula, the counters over the same hours, MFU and HFU."""

import hashlib

import pytest
from builders import UNIX_NS, Chain, busy
from desk import Desk

from flopmeter.cli.layout import Paint
from flopmeter.collector.figures import Tally
from flopmeter.collector.law.progress import ClaimHour, ClaimKey, compared
from flopmeter.collector.law.progress_measured import beside_of
from flopmeter.collector.report import queries
from flopmeter.collector.report.progress import progress_document
from flopmeter.collector.report.progress_view import progress_view
from flopmeter.collector.report.runs_view import run_view
from flopmeter.contract.usage import Workload, WorkloadKind
from flopmeter.contract.w_table import current
from flopmeter.wire.v1 import batch_pb2

MINUTE_NS = 60_000_000_000
HOUR_NS = 60 * MINUTE_NS
TRAINING = Workload(WorkloadKind.SLURM, job="4711", run="r1", dtype="bf16")
PARAMETERS = 10**9
#: What one GPU does in a minute by the point, and its dense BF16 peak (132 SMs, 1,830 MHz).
MINUTE_FLOP = 132 * 1_700_000_000 * 60 * 40 // 100 * 4096
PEAK = 132 * 4096 * 1_830_000_000
TOKENS = MINUTE_FLOP // (6 * PARAMETERS)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "books.sqlite"


def fill(path, minutes, *, tokens=TOKENS, workload=TRAINING, chain=None, first=0, margin=30, **more):
    chain = chain or Chain("n1", gpus=1)
    chain.unix_ns += -chain.unix_ns % HOUR_NS
    with Desk(path, progress_margin_percent=margin) as desk:
        agent = desk.agent(chain)
        for minute in range(1, minutes + 1):
            batch = chain.batch([busy(0)], (workload,))
            batch.progress.add(
                workload_index=0,
                t_boot_ns=chain.boot_ns,
                t_unix_ns=chain.unix_ns,
                tokens=first + minute * tokens,
                **({"parameters": PARAMETERS, "ranks": 0} | more),
            )
            desk.offer(agent, chain.next(payload=batch.SerializeToString()))
        desk.commit()


def progress(path):
    with queries.reading(path) as reader:
        (run,) = reader.runs(queries.asked(UNIX_NS, ()))
    return run["progress"]


def test_a_run_without_claims_has_none(path):
    chain = Chain("n1")
    with Desk(path) as desk:
        desk.offer(desk.agent(chain), chain.next())
        desk.commit()
    assert progress(path) is None
    assert progress_view(None, Paint(colour=False, width=80)) == []


def test_claims_stand_beside_the_counters_of_the_same_hours(path):
    fill(path, 30)
    p = progress(path)
    assert p["declared_flop"] == str(30 * TOKENS * 6 * PARAMETERS)
    assert p["tokens"] == str(30 * TOKENS)
    assert p["parameters"] == str(PARAMETERS)
    assert p["measured"]["point"] == str(30 * MINUTE_FLOP)
    assert p["device_seconds"] == 30 * 60.0
    assert (p["hours"], p["ranks"], p["opening_left_out"]) == (1, 0, False)
    assert p["agreement"] == "cannot tell", "the counters' own bounds are wider than 30 %"
    assert p["peak_flop"] == str(30 * 60 * PEAK)


def test_mfu_and_hfu_are_over_the_dense_peak_of_the_declared_dtype(path):
    fill(path, 30, tokens=TOKENS * 3 // 4)  # a quarter of what was executed is recomputation
    p = progress(path)
    assert p["mfu"] == pytest.approx(0.75 * MINUTE_FLOP / (60 * PEAK), abs=1e-5)
    assert p["hfu"]["point"] == pytest.approx(MINUTE_FLOP / (60 * PEAK), abs=1e-6)
    assert p["hfu"]["lower"] < p["mfu"] < p["hfu"]["point"] < p["hfu"]["upper"]
    assert p["dtype"] == "bf16"


def test_fp8_has_another_peak(path):
    fill(path, 5, workload=Workload(WorkloadKind.SLURM, job="1", run="r1", dtype="fp8"))
    assert (progress(path)["dtype"], progress(path)["peak_flop"]) == ("fp8", str(5 * 60 * 2 * PEAK))


@pytest.mark.parametrize("name", ["NVIDIA X9000", "NVIDIA H100 80GB HBM3 MIG 1g.10gb"])
def test_a_model_without_a_peak_has_no_utilisation(path, name):
    chain = Chain("n1", gpus=1)
    message = batch_pb2.Inventory.FromString(chain.inventory)
    message.devices[0].name = name
    chain.inventory = message.SerializeToString()
    chain.digest = hashlib.sha256(chain.inventory).digest()
    fill(path, 5, chain=chain)
    p = progress(path)
    assert (p["peak_flop"], p["mfu"], p["hfu"]) == (None, None, None)
    assert "MFU" not in "\n".join(progress_view(p, Paint(colour=False, width=80)))


@pytest.mark.parametrize(
    ("factor", "answer"), [(10, "disagrees"), (0.1, "disagrees"), (1, "cannot tell"), (2, "cannot tell")]
)
def test_the_answer(path, factor, answer):
    fill(path, 10, tokens=int(TOKENS * factor))
    assert progress(path)["agreement"] == answer


@pytest.mark.parametrize(
    ("margin", "shown", "agreement"), [(30, 30, "disagrees"), (90, 90, "cannot tell"), (0, 30, "disagrees")]
)
def test_the_margin_is_the_one_that_the_collector_noted(path, margin, shown, agreement):
    """What is shown as a disagreement is what an event is raised of; where none are raised, by the usual margin."""
    fill(path, 30, tokens=6 * TOKENS, margin=margin)
    p = progress(path)
    assert (p["margin_percent"], p["agreement"]) == (shown, agreement)


def test_what_was_done_before_this_job_is_left_out(path):
    fill(path, 10, first=10**15)
    p = progress(path)
    assert p["opening_left_out"] is True
    assert p["declared_flop"] == str(9 * TOKENS * 6 * PARAMETERS)
    assert p["tokens"] == str(10**15 + 10 * TOKENS)


def test_the_page_says_it_within_eighty_columns(path):
    fill(path, 30, first=10**15, ranks=8)
    with queries.reading(path) as reader:
        (run,) = reader.runs(queries.asked(UNIX_NS))
    text = run_view(run, Paint(colour=False, width=80))
    assert max(map(len, text.splitlines())) <= 80
    flat = " ".join(text.split())
    assert "declared 6.40e17 FLOP, at 1.00e15 tokens, by 8 processes" in flat
    assert "counters 6.62e17 FLOP, between 1.92e17 and" in flat
    hfu = MINUTE_FLOP / (60 * PEAK)  # 37.2 %
    down = [f"{int(share * 1000) / 10:.1f} %" for share in (hfu * 29 / 30, hfu)]  # as on the page
    assert f"MFU {down[0]}, HFU {down[1]} (" in flat
    assert "tokens from before this run's jobs are left out" in flat


def test_restarts_and_missing_formulas_are_said():
    document = {
        "declared_flop": "5",
        "tokens": "7",
        "parameters": "0",
        "ranks": 0,
        "hours": 2,
        "hours_without_formula": 1,
        "restarts_at_a_checkpoint": 3,
        "opening_left_out": False,
        "measured": {"lower": "1", "point": "2", "upper": "3"},
        "device_seconds": 1.0,
        "agreement": "disagrees",
        "margin_percent": 30,
        "mfu": None,
        "hfu": None,
        "dtype": "bf16",
    }
    text = " ".join(" ".join(progress_view(document, Paint(colour=False, width=80))).split())
    assert "by the whole run" in text
    assert "3 times back to a checkpoint" in text
    assert "1 h left out: neither parameters nor FLOP per token said" in text
    assert "disagrees within 30 %" in text


def test_rows_of_several_claimers_are_one_answer():
    row = ClaimHour(0, 5, 1, 0, 60, 0, 0, 1, 2)
    claims = compared({ClaimKey(1, 1, 9): row, ClaimKey(1, 2, 9): row}, {})
    found = progress_document(beside_of(claims, Tally(), {}, current()), {}, current(), [])
    assert (found["declared_flop"], found["agreement"], found["mfu"]) == ("60", "cannot tell", None)
