"""A store with as much in it as an export can say, for tests of exports and of the views; and exports read back."""

import csv
import hashlib
import io
import json
from pathlib import Path
from typing import Any

from attest_books import LAWS, counted, full_store, said, take
from builders import Chain, busy, gap, inventory
from duty_books import opened

from flopmeter.collector.books import HOUR_NS
from flopmeter.collector.export.formats import unguarded
from flopmeter.collector.registry.entries import Assign, Declare, JobKey
from flopmeter.contract.usage import IDLE, UNATTRIBUTED, Workload, WorkloadKind

#: A job's label that a spreadsheet would run.
EVIL = "=HYPERLINK(A1)"
POD = Workload(
    WorkloadKind.POD,
    job="3f0c",
    run=EVIL,
    user="-1+1",
    dtype="fp8",
    identities=(("k8s.namespace", "physics"),),
)
ACCOUNT = Workload(
    WorkloadKind.SLURM, job="9", run="+sum", user="@eve", identities=(("slurm.account", "chem"),)
)


def export_store(path: Path) -> None:
    """Runs with hostile names, of four tenants, one of them assigned; an unknown GPU, a bridge over hours, idle time."""
    full_store(path)
    with opened(path, *LAWS) as desk:
        chain = Chain("gpu-node-19", gpus=3)
        odd = Chain("gpu-node-20", gpus=1)
        odd.inventory = inventory("gpu-node-20", gpus=1, name="NVIDIA X9000", capability="99.0")
        odd.digest = hashlib.sha256(odd.inventory).digest()
        for c in (chain, odd):
            c.unix_ns = desk.now + HOUR_NS
        desk.now += HOUR_NS
        agents = {c: desk.agent(c) for c in (chain, odd)}
        workloads = (POD, ACCOUNT, IDLE, UNATTRIBUTED)
        for i in range(4):
            desk.now += HOUR_NS
            for c in (chain, odd):
                c.unix_ns += HOUR_NS
                c.boot_ns += HOUR_NS
                # Odd numbers, so that rounding by the row is not rounding by the run.
                rows = [counted(busy(0, 0), hmma_cycles=10**9 + 7 * i + 1, fp32_cycles=10**8 + 3)]
                if c is chain:
                    rows += [busy(1, 1) if i % 2 else gap(1, 1), busy(2, 2 + i % 2, percent=1)]
                take(desk, agents[c], c.next(rows, workloads))
            desk.commit()
        # A bridge: what was metered in an outage of hours stands under all of them.
        chain.unix_ns += 5 * HOUR_NS
        chain.boot_ns += 5 * HOUR_NS
        desk.now += 5 * HOUR_NS
        take(
            desk,
            agents[chain],
            chain.next([busy(0, 0, duration_ns=5 * HOUR_NS), gap(1, 1, duration_ns=5 * HOUR_NS)], workloads),
        )
        job = JobKey("c1", int(WorkloadKind.SLURM), "9")
        said(path, Declare("assigned-run", owner="chem-lab", budget_flop=10**40), desk.now)
        said(path, Assign(job, "assigned-run", None), desk.now)
        desk.commit()


def of_csv(raw: bytes) -> list[dict[str, str]]:
    """Rows with the guard taken off; every one as long as the header."""
    assert raw.count(b"\r\n") >= 1
    header, *rows = list(csv.reader(io.StringIO(raw.decode(), newline="")))
    assert all(len(r) == len(header) for r in rows)
    return [dict(zip(header, map(unguarded, row), strict=True)) for row in rows]


def of_lines(raw: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in raw.decode().splitlines()]
