"""Stores to attest from, for tests: made by hand, with as much in them as an attestation can say. And files read back."""

import base64
import hashlib
import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from builders import H100, WINDOW_NS, Chain, busy, gap
from desk import Desk
from duty_books import opened, regime

from flopmeter.collector.attest.create import create
from flopmeter.collector.attest.issuing import Issued
from flopmeter.collector.attest.request import Means, Request
from flopmeter.collector.attest.signing import FileSigner
from flopmeter.collector.ingest.decide import TAKEN
from flopmeter.collector.ingest.group import Agent
from flopmeter.collector.law.regimes import Regime, parse
from flopmeter.collector.registry.entries import (
    Declare,
    External,
    JobKey,
    Link,
    Purpose,
    Relation,
    Statement,
    Tag,
)
from flopmeter.collector.registry.say import say
from flopmeter.collector.report.queries import asked
from flopmeter.contract.evidence_class import EvidenceClass
from flopmeter.contract.flop import Figure
from flopmeter.contract.usage import ALL_MEASURED, Measured, Usage, Workload, WorkloadKind

RUN = "secret-llama"
USER, NODE, JOB, OWNER = "ada.lovelace", "gpu-node-17", "4711-train", "skunkworks"
TRAINING = Workload(WorkloadKind.SLURM, job=JOB, run=RUN, user=USER, dtype="bf16")
OTHER = Workload(WorkloadKind.SLURM, job="4712", run="another-run", user="bob")
EVALUATING = Workload(WorkloadKind.SLURM, job="4713", run=RUN, user=USER, dtype="fp8")
#: Every name that no recipient but an auditor may read.
NAMES = (RUN, USER, NODE, JOB, OWNER, "another-run", "base-model", "4713", H100)


def law(name: str, flop: int, *, bare: bool = True) -> Regime:
    """A site's own regime with that line. `bare`: it sets no deadline."""
    text = regime(flop=flop, bare=bare).text
    old = next(line for line in text.splitlines() if line.startswith("id "))
    return parse(name, text.replace(old, f'id = "{name}"').encode())


CROSSED = law("eu-near", 10**14, bare=False)
BELOW = law("us-far", 10**30)
LAWS = (CROSSED, BELOW)


def said(path: Path, statement: Statement, unix_ns: int) -> int:
    """Number of the entry."""
    return say(path, lambda _: statement, "ada@lab", "a test", lambda: unix_ns).number


def take(desk: Desk, agent: Agent, raw: bytes) -> None:
    assert desk.offer(agent, raw) is TAKEN


def counted(usage: Usage, **changed: Any) -> Usage:
    """The row, with less measured."""
    return replace(usage, **changed)


def percent_row(entity: int, workload: int) -> Usage:
    """A row of a source that has percentages: class B1, a clock spread, not every pipe."""
    measured = Measured.SM_ACTIVE | Measured.HMMA | Measured.IMMA | Measured.TENSOR_OTHER | Measured.ENERGY
    row = busy(entity, workload, percent=25)
    return counted(
        row,
        evidence_class=EvidenceClass.B1,
        measured=measured,
        spread_ppm=20_000,
        fp32_cycles=0,
        imma_cycles=10**9,
    )


def shared_rows(entity: int, workload: int) -> list[Usage]:
    """The workload's share of a GPU that another holds as well, and what that one was given."""
    mine = counted(busy(entity, workload, percent=10), measured=ALL_MEASURED | Measured.APPORTIONED)
    others = counted(
        mine, measured=ALL_MEASURED & ~Measured.ENERGY | Measured.OTHERS, duration_ns=0, sm_elapsed_cycles=0,
        energy_mj=0,
    )  # fmt: skip
    return [mine, others]


def full_store(path: Path, laws: tuple[Regime, ...] = LAWS, *, minutes: int = 3) -> None:
    """Declared beforehand; two nodes, one of them metered twice, one rebooted; percentages, gaps, a shared GPU; a tag
    that excludes, a base model, a run that it continues.
    """
    opened(path, *laws).close()
    with opened(path, *laws) as desk:
        start = desk.now
        said(path, Declare(RUN, owner=OWNER, budget_flop=10**20, purpose=Purpose.PRETRAINING), start - 1)
        one, two = Chain(NODE), Chain("gpu-node-18", gpus=1)
        twin = Chain(NODE, key_seed="twin")
        twin.reboot()
        for chain in (one, two, twin):
            chain.unix_ns = start - 20 * WINDOW_NS
        agents = {c: desk.agent(c) for c in (one, two, twin)}
        workloads = (TRAINING, OTHER, EVALUATING)
        for _ in range(minutes):
            for chain in (one, two):
                rows = [busy(0, 0), *([percent_row(1, 2)] if chain is one else [])]
                take(desk, agents[chain], chain.next(rows, workloads))
            desk.commit()
        take(desk, agents[one], one.next([gap(0, 0), busy(1, 1)], workloads))
        take(desk, agents[two], two.next(shared_rows(0, 0), workloads))
        # The twin tells of the same two GPUs, from the middle of what is booked on.
        twin.unix_ns = one.unix_ns - WINDOW_NS // 2
        take(desk, agents[twin], twin.next([busy(0, 0), busy(1, 2)], workloads))
        desk.commit()
        two.reboot()
        two.unix_ns += WINDOW_NS
        take(desk, agents[two], two.next([busy(0, 0, percent=30)], workloads))
        desk.commit()
        job = JobKey("c1", int(WorkloadKind.SLURM), "4713")
        said(path, Tag(RUN, Purpose.EXPERIMENT, job=job, evidence=("ticket 7",)), desk.now)
        said(path, External("base-model", Figure(10**12, 2 * 10**12, 3 * 10**12), "its paper"), desk.now)
        said(path, Link(RUN, Relation.FINE_TUNES, "base-model"), desk.now)
        said(path, Link(RUN, Relation.CONTINUES, "another-run"), desk.now)
        desk.commit()


def attest(path: Path, profile: str, output: Path, laws: tuple[Regime, ...] = LAWS, **changed: Any) -> Issued:
    """As `flopmeter attest create` does."""
    means = changed.pop("means", None) or Means(FileSigner(keys(path)), lambda now: asked(now, laws))
    request = Request(path, keys(path), changed.pop("run", RUN), profile, output, who="ada@lab")
    return create(replace(request, **changed), means)


def keys(path: Path) -> Path:
    return path.parent / "keys"


def members(file: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(file) as z:
        return {name: z.read(name) for name in z.namelist()}


def statement(file: Path) -> dict[str, Any]:
    return dict(json.loads(payload(file)))


def predicate(file: Path) -> dict[str, Any]:
    return dict(statement(file)["predicate"])


def payload(file: Path) -> bytes:
    envelope = json.loads(members(file)["bundle.sigstore.json"])["dsseEnvelope"]
    return base64.b64decode(envelope["payload"])


def evidence(file: Path) -> dict[str, Any]:
    return dict(json.loads(members(file)["evidence.json"]))


def sha256(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()
