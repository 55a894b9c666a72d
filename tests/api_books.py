"""The API without a process: questions put to a store in which people said something of everything."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from attest_books import LAWS, said, take
from builders import UNIX_NS, Chain, busy, gap
from desk import Desk
from duty_books import opened
from export_books import export_store
from schema_check import faults

from flopmeter.collector.api.answering import answer
from flopmeter.collector.api.asking import wish_of
from flopmeter.collector.api.books import Books
from flopmeter.collector.api.question import Answer, Question
from flopmeter.collector.api.schemas import SCHEMAS
from flopmeter.collector.books import HOUR_NS
from flopmeter.collector.registry.entries import Declare, External, Link, Purpose, Relation, Tag
from flopmeter.contract.flop import Figure
from flopmeter.contract.usage import Workload, WorkloadKind

#: Slurm accounts in cluster c1, as `fleet tenants` prints their ids.
LAB, RIVAL = "slurm-account:c1/lab", "slurm-account:c1/rival"
MINE = Workload(
    WorkloadKind.SLURM, job="77", run="mine", dtype="bf16", identities=(("slurm.account", "lab"),)
)
SECOND = Workload(WorkloadKind.SLURM, job="78", run="second", identities=(("slurm.account", "lab"),))
THEIRS = Workload(
    WorkloadKind.SLURM,
    job="99",
    run="rivals-secret",
    user="mallory",
    identities=(("slurm.account", "rival"),),
)


class Clock:
    def __init__(self, now: int) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now


@dataclass
class Asked:
    """A store, its books, and a clock that only tests move."""

    path: Path
    clock: Clock
    books: Books
    seen: list[tuple[Question, Answer]] = field(default_factory=list)

    def ask(
        self,
        *segments: str,
        method: str = "GET",
        body: bytes = b"",
        role: str = "admin",
        tenant: str = "",
        who: str = "ada",
        **parameters: str,
    ) -> Answer:
        """Every good answer is held to its schema."""
        question = Question(method, segments, parameters, body, who, role, tenant)
        found = answer(question, self.books)
        self.seen.append((question, found))
        if found.kind == "application/problem+json":
            assert faults(json.loads(found.body), SCHEMAS["Problem"], SCHEMAS) == []
            assert found.status >= 400
        else:
            route = wish_of(question).route
            assert (found.status, found.kind) == (route.status, route.kind)
            if route.schema:
                assert faults(json.loads(found.body), SCHEMAS[route.schema], SCHEMAS) == [], segments
        return found

    def get(self, *segments: str, **more: Any) -> Any:
        """The document of an answer that is expected to be good."""
        found = self.ask(*segments, **more)
        assert found.status in (200, 201), found.body
        return json.loads(found.body)

    def post(self, *segments: str, document: Any, **more: Any) -> Answer:
        return self.ask(*segments, method="POST", body=json.dumps(document).encode(), **more)


def asked(path: Path, now: int | None = None, **settings: Any) -> Asked:
    clock = Clock(last_window_end(path) + 60_000_000_000 if now is None else now)
    return Asked(path, clock, Books(path, clock=clock, **settings))


def last_window_end(path: Path) -> int:
    from flopmeter.collector.report.queries import reading

    with reading(path) as reader:
        (end,) = reader.rows("SELECT max(window_end_unix_ns) FROM records").fetchone()
    return end or UNIX_NS


def api_store(path: Path) -> None:
    """export_store's runs; runs of two tenants, one of which stands on the other's; tags, links, an external model."""
    export_store(path)
    with opened(path, *LAWS) as desk:
        desk.now += 6 * HOUR_NS  # behind what export_store said last
        chain = Chain("gpu-node-41", gpus=4)
        chain.unix_ns = desk.now - 10 * 60_000_000_000
        agent = desk.agent(chain)
        for i in range(6):
            desk.now += HOUR_NS
            chain.unix_ns += HOUR_NS
            chain.boot_ns += HOUR_NS
            rows = [
                busy(0, 0),
                busy(1, 0 if i == 3 else 1),
                busy(2, 2),
                gap(3, 0) if i == 2 else busy(3, 0, percent=30 + i),
            ]
            take(desk, agent, chain.next(rows, (MINE, SECOND, THEIRS)))
            desk.commit()
        hour = desk.now // HOUR_NS
        said(path, Declare("mine", budget_flop=10**22, dtype="bf16"), desk.now)
        said(path, Tag("mine", Purpose.EVALUATION, hour - 3, hour - 2, None, ("sha256:00",)), desk.now)
        said(path, External("llama", Figure(10**20, 2 * 10**20, 3 * 10**20), "its model card"), desk.now)
        said(path, Link("mine", Relation.FINE_TUNES, "rivals-secret"), desk.now)
        said(path, Link("mine", Relation.CONTINUES, "llama"), desk.now)
        said(path, Link("second", Relation.CONTINUES, "mine"), desk.now)
        said(path, External("ancient", Figure(1, 2, 3), "somebody's word"), desk.now)
        said(path, Link("rivals-secret", Relation.CONTINUES, "ancient"), desk.now)
        desk.commit()


def one_more(path: Path, chain: Chain, workloads: Any, rows: Any, *, now: int) -> None:
    """Another record of an agent, committed."""
    with Desk(path, LAWS) as desk:
        desk.now = now
        agent = desk.agent(chain)
        take(desk, agent, chain.next(rows, workloads))
        desk.commit()


def unpacked_names(coded: list[int | str]) -> list[str]:
    """What fleet_cells.front_coded was given, as the page reads it."""
    found, last = [], ""
    for same, rest in zip(coded[::2], coded[1::2], strict=True):
        last = last[: int(same)] + str(rest)
        found.append(last)
    return found
