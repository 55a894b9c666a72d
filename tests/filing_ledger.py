"""A ledger whose figures can be checked by hand, for the tests of drafts.

Every busy minute of one GPU has 132 SMs x 1,700 MHz x 60 s = 13,464,000,000,000 elapsed SM-cycles, 40 % of them in
HMMA; at 4,096 FLOP a cycle (BF16) that is MINUTE_FLOP. Run llm-7 has 90 such minutes: 60 on one GPU, 30 on another,
which has a gap of one minute besides.
"""

from pathlib import Path

from builders import UNIX_NS, WINDOW_NS, Chain, busy, gap
from desk import Desk

from flopmeter.collector.filing.gather import material
from flopmeter.collector.filing.material import Material
from flopmeter.collector.law.regimes import Regime, parse, shipped
from flopmeter.collector.registry.entries import Declare
from flopmeter.collector.registry.say import say
from flopmeter.collector.report.queries import asked, reading
from flopmeter.contract.usage import Workload, WorkloadKind

RUN = "llm-7"
MINUTE_FLOP = 13_464_000_000_000 * 40 // 100 * 4096
POINT = 90 * MINUTE_FLOP  # 1,985,347,584,000,000,000 = 1.985... x 10^18, by hand
#: A minute after the last record: nobody is silent yet.
NOW = UNIX_NS + 61 * WINDOW_NS
LABELLED = Workload(WorkloadKind.SLURM, job="4711", step="0", run=RUN, user="ada", dtype="bf16")


def fill(
    path: Path, run: str = RUN, regimes: tuple[Regime, ...] | None = None, budget: int | None = None
) -> Path:
    """An hour of two GPUs: the second works for the run from minute 29 on, and cannot be read in minute 29."""
    chain = Chain()
    w = Workload(WorkloadKind.SLURM, job="4711", step="0", run=run, user="ada", dtype="bf16")
    with Desk(path, shipped() if regimes is None else regimes) as desk:
        desk.now = NOW
        agent = desk.agent(chain)
        if budget is not None:
            say(path, lambda _: Declare(run, budget_flop=budget), "ada@lab", "the plan", lambda: NOW)
        for minute in range(60):
            rows = [busy(0)]
            if minute >= 29:
                rows.append(gap(1) if minute == 29 else busy(1))
            desk.offer(agent, chain.next(rows, (w,)))
        desk.commit()
    return path


def regime(
    threshold: str, *, regime_id: str = "eu-systemic-risk", act: str = "notification", **keys: str
) -> Regime:
    """A regime of a test's own: its line is where the ledger is."""
    values = {
        "schema": '"flopmeter-regime/1"',
        "version": '"test-1"',
        "id": f'"{regime_id}"',
        "title": '"A law of the test"',
        "citation": '"Test Act, Art. 1"',
        "status": '"in-force"',
        "status_as_of": "2026-01-02",
        "effective": "2026-01-01",
        "threshold_flop": f'"{threshold}"',
        "comparison": '">"',
        "unit": '"floating-point"',
        "scope": '"run"',
        "counting": '"eu-broad"',
        "counting_note": '"cumulative compute"',
        "act": f'"{act}"',
        "when_met": '"then it is notified"',
        "recipient": '"an office"',
        "deadline": '"two weeks"',
        "conditions": '["the model is one"]',
        "open_questions": '["is it"]',
        "source": '"nowhere"',
        **keys,
    }
    return parse(f"{regime_id}.toml", "\n".join(f"{k} = {v}" for k, v in values.items() if v).encode())


def gathered(path: Path, regimes: tuple[Regime, ...], run: str = RUN, now: int = NOW) -> Material:
    """What a draft is made of, a minute after the last record."""
    with reading(path) as reader:
        return material(reader, run, asked(now, regimes), regimes)
