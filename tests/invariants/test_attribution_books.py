"""What the agent attributes, in the collector's books: the same cycles, to the last, and fsck derives them again."""

from collections.abc import Iterable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from sqlite3 import connect

import pytest
from builders import Chain
from desk import Desk
from metering import BOOT, SECOND, SMS, Gpu, meter

from flopmeter.agent.metering.meter import Sealed
from flopmeter.agent.reading import Process
from flopmeter.agent.shipping.encode import encode_batch, encode_inventory
from flopmeter.agent.workloads.allocations import Allocations
from flopmeter.agent.workloads.attribution import Attributor
from flopmeter.collector.check.fsck import check_store
from flopmeter.collector.ingest.decide import Taken
from flopmeter.contract.identity import Identity
from flopmeter.contract.usage import Measured, Workload, WorkloadKind

BUSY = {249: 900, 250: 500, 252: 500}
SLUID = "s5K1KKYAYG5D0"


def step(job: str) -> Workload:
    return Workload(WorkloadKind.SLURM, job=job, step="0")


class Slurm:
    """Learns late that a job's unique id and a number are one job, and its name."""

    def __init__(self) -> None:
        self.known = False
        self.now: Allocations | None = None

    def latest(self) -> Allocations | None:
        return self.now

    def describe(self, workload: Workload) -> Workload:
        if not self.known or workload.kind is not WorkloadKind.SLURM:
            return workload
        return replace(workload, job="1", identities=(Identity("slurm.name", "train"),))

    def met(self, entity: str, workload: Workload) -> None:
        pass

    def close(self) -> None:
        pass


class Finder:
    def find(self, pid: int, start_ticks: int) -> Workload | None:
        return {1: step("1"), 2: step(SLUID)}.get(pid)


def booked(tmp_path: Path, sealed: Iterable[Sealed]) -> dict[tuple[str, int], int]:
    """Totals by (job, marks): HMMA cycles, as the store has them."""
    chain, desk = Chain("node-a"), Desk(tmp_path / "books.sqlite")
    chain.boot_id = BOOT
    windows = list(sealed)
    chain.inventory = encode_inventory(windows[0].inventory)
    agent = desk.agent(chain)
    for window in windows:
        assert encode_inventory(window.inventory) == chain.inventory
        desk.now = window.batch.window_end_unix_ns
        assert isinstance(desk.offer(agent, chain.next(payload=encode_batch(window.batch))), Taken)
        desk.commit()
    desk.store.close()
    result = check_store(tmp_path / "books.sqlite", ())
    assert result.difference is None, result
    with closing(connect(tmp_path / "books.sqlite")) as db:
        found = db.execute(
            "SELECT w.job, t.measured, SUM(t.hmma_cycles) FROM totals t JOIN workloads w USING (workload_no) GROUP BY 1, 2"
        )
        marks = int(Measured.APPORTIONED | Measured.OTHERS)
        total: dict[tuple[str, int], int] = {}
        for job, measured, cycles in found:
            key = job, measured & marks
            total[key] = total.get(key, 0) + cycles
        return total


@pytest.mark.parametrize("learned_at", [3, 9, 14, 99])
def test_two_names_of_one_job_on_one_gpu_are_booked_once(tmp_path: Path, learned_at: int) -> None:
    slurm, gpu = Slurm(), Gpu()
    agent = meter(attributor=Attributor(Finder(), [slurm]), window=10 * SECOND)
    sealed = agent.observe(gpu.reading(100 * SECOND, workload=None, processes=()))
    for second in range(1, 20):
        slurm.known = slurm.known or second >= learned_at
        gpu.run(SECOND, BUSY)
        there = (Process(1, 1, 60.0), Process(2, 2, 40.0)) if second > 6 else (Process(1, 1),)
        sealed += agent.observe(gpu.reading((100 + second) * SECOND, workload=None, processes=there))
    last = agent.flush(final=True)
    assert last is not None
    sealed.append(last)
    total = booked(tmp_path, sealed)
    own = {job: 0 for job, _ in total}
    for (job, marks), cycles in total.items():
        if not marks & Measured.OTHERS:
            own[job] += cycles
    assert sum(own.values()) == 19 * 1_700_000_000 * SMS // 2
    if learned_at <= 9:
        assert own.keys() == {"1"}
    if (
        learned_at == 99
    ):  # never: two jobs that shared, and the upper bound of each holds all that was done meanwhile
        shared = 13 * 1_700_000_000 * SMS // 2
        for job in ("1", SLUID):
            mine, beside = total[job, int(Measured.APPORTIONED)], total[job, int(Measured.OTHERS)]
            assert mine + beside == shared
