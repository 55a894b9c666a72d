"""What judging costs: 10,000 runs under 20 regimes, each touched every minute, beside the same ingest under none.

In this process, on two stores that take the same signed records in turn, group by group: verifying, booking, fsync
and all, with the process set as `collector serve` sets its own. The figure is the CPU time of all groups after the first
minutes on the one, over that on the other; those minutes, which name the runs and judge each once, are told apart.

    python tests/bench/bench_judge.py
"""

import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from builders import Chain, busy
from desk import DAY_NS, Desk
from harness import Figure, calibrate, median, progress
from law_files import changed

from flopmeter.collector.ingest.decide import TAKEN
from flopmeter.collector.law.laws import read_laws
from flopmeter.collector.law.regimes import Regime, in_order, shipped
from flopmeter.collector.tuning import tune_process
from flopmeter.contract.usage import Workload, WorkloadKind

NODES, RUNS_EACH, MINUTES, FIRST, GROUP = 1_250, 8, 6, 2, 100
REGIMES = 20
GOAL = 0.10


def regimes() -> tuple[Regime, ...]:
    """The shipped ones that bind, and as many of a site's that lines lie all over the range, counted in every way."""
    found = list(read_laws(None).binding)
    base = shipped()
    for n in range(REGIMES - len(found)):
        of = base[n % len(base)]
        found.append(changed(of, id=f"site-{n}", threshold_flop=10**23 * 3**n + n))
    assert len(found) == REGIMES
    return in_order(found)


class Side:
    """One collector without a transport."""

    def __init__(self, path: Path, judged_by: tuple[Regime, ...], chains: list[Chain]) -> None:
        self.desk = Desk(path, judged_by)
        self.agents = [self.desk.agent(chain) for chain in chains]
        self.desk.commit()

    def take(self, first: int, records: list[bytes]) -> float:
        """CPU seconds of one group, from bytes to durable."""
        begun = time.process_time()
        desk = self.desk
        for agent, raw in zip(self.agents[first : first + len(records)], records, strict=True):
            assert desk.offer(agent, raw) is TAKEN
        desk.commit()
        return time.process_time() - begun


def measured(folder: Path) -> dict:
    tune_process()
    progress(f"judge: {NODES * RUNS_EACH:,} runs, {REGIMES} regimes")
    chains = [Chain(f"n{n}", gpus=RUNS_EACH) for n in range(NODES)]
    jobs = [
        [
            Workload(WorkloadKind.SLURM, job=f"{n}-{g}", run=f"run-{n}-{g}", dtype="bf16")
            for g in range(RUNS_EACH)
        ]
        for n in range(NODES)
    ]
    usage = [busy(g, g) for g in range(RUNS_EACH)]
    sides = Side(folder / "with.db", regimes(), chains), Side(folder / "without.db", (), chains)
    ratios, first, seconds = [], [0.0, 0.0], [0.0, 0.0]
    for minute in range(MINUTES):
        for begin in range(0, NODES, GROUP):
            some = range(begin, min(NODES, begin + GROUP))
            records = [chains[n].next(usage, jobs[n]) for n in some]
            took = [0.0, 0.0]
            for which in (0, 1) if (minute + begin // GROUP) % 2 else (1, 0):
                took[which] = sides[which].take(begin, records)
            if minute < FIRST:
                first = [a + b for a, b in zip(first, took, strict=True)]
            else:
                seconds = [a + b for a, b in zip(seconds, took, strict=True)]
                ratios.append(took[0] / took[1])
    review = []
    for side in sides:
        side.desk.now += DAY_NS
        side.desk.recover()  # as after a start, or with other files
        side.desk.intake.review(side.desk.now, listening=False)
        begun = time.process_time()
        side.desk.commit()
        review.append(time.process_time() - begun)
        side.desk.close()
    return {
        "ratio": seconds[0] / seconds[1],
        "median_of_groups": median(ratios),
        "groups": len(ratios),
        "first": first,
        "with_us": seconds[0] / (len(ratios) * GROUP) * 1e6,
        "without_us": seconds[1] / (len(ratios) * GROUP) * 1e6,
        "review_s": review,
    }


def run(folder: Path) -> list[Figure]:
    calibration = calibrate()
    found = measured(folder)
    added = found["ratio"] - 1
    return [
        Figure(
            "judge", f"{NODES * RUNS_EACH:,} runs, {REGIMES} regimes", f"{found['with_us']:.0f} us CPU a record",
            f"{found['without_us']:.0f} us under none", f"{found['ratio']:.3f}x", f"< {1 + GOAL:.2f}x",
            added < GOAL, calibration, found,
        ),
        Figure(
            "judge", f"the first {FIRST} minutes, which judge each run once", f"{found['first'][0]:.1f} s",
            f"{found['first'][1]:.1f} s under none", f"{found['first'][0] / found['first'][1]:.2f}x",
        ),
        Figure("judge", "all runs judged anew (a start, other files)", f"{found['review_s'][0]:.1f} s", f"{found['review_s'][1]:.1f} s under none"),
    ]  # fmt: skip


if __name__ == "__main__":
    from harness import table

    with tempfile.TemporaryDirectory() as made:
        print(table(run(Path(made))))
