"""From the books to a Picture: one read of the store, as any other reader would do it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from flopmeter.collector.figures import Model, Tally
from flopmeter.collector.ingest.decide import usage_rows
from flopmeter.collector.law.events import EVIDENCE_FORK, THRESHOLD_CROSSED
from flopmeter.collector.report.curve import points_by_hour
from flopmeter.collector.report.fleet import AgentState
from flopmeter.collector.report.queries import Asked, Reader, asked, reading
from flopmeter.collector.spelling import threshold_text
from flopmeter.contract.evidence_class import EvidenceClass
from flopmeter.contract.usage import WorkloadKind

from .view import EventLine, NodeCell, Picture, RunLine, Severity, Tick

SPARK_DAYS = 30
EVENTS_SHOWN = 6
_SECOND_NS = 1_000_000_000
_HOUR_S, _DAY_S = 3_600, 86_400
_CRITICAL = frozenset({THRESHOLD_CROSSED, EVIDENCE_FORK})
IDLE, UNATTRIBUTED = -1, -2


def take(store: Path, now_unix_ns: int, *, mode: str, live: bool, progress_ppm: int = 1_000_000) -> Picture:
    """What the books say at this moment. Raises StoreError."""
    question = asked(now_unix_ns)
    with reading(store) as reader:
        agents = reader.agents()
        documents = reader.runs(question, series=True)
        events = reader.events()
        classes = _classes(reader, documents)
        registry = reader.registry()
        holders = [
            [reader.run_of(w, a.inventory, registry) for w in a.batch.workloads]
            if a.batch is not None and a.inventory is not None
            else []
            for a in agents
        ]
    names = [d["run"] for d in documents]
    statuses = [a.status(now_unix_ns) for a in agents]
    rates = _rates(zip(agents, holders, strict=True), question)
    devices = [d for a in agents if a.inventory for d in a.inventory.devices]
    return Picture(
        unix_ns=now_unix_ns,
        mode=mode,
        live=live,
        progress_ppm=progress_ppm,
        nodes_live=statuses.count("live"),
        nodes_silent=statuses.count("silent"),
        gpus=len({d.parent or d.entity for d in devices}),
        models=tuple(sorted({d.name for d in devices})),
        classes=classes,
        runs=tuple(_run(d, rates.get(d["run"], 0), now_unix_ns) for d in documents),
        events=latest_events(events),
        nodes=tuple(
            _node(a, held, names, s == "silent") for a, held, s in zip(agents, holders, statuses, strict=True)
        ),
        spark_label=f"{SPARK_DAYS} DAYS",
    )


def with_hints(picture: Picture, hints: Iterable[str], link: str = "") -> Picture:
    return replace(picture, hints=tuple(hints), link=link)


def _run(document: dict[str, Any], rate: int, now_unix_ns: int) -> RunLine:
    flop = {k: int(v) for k, v in document["executed"]["flop"].items()}
    coverage = document["coverage"]
    expected = coverage["expected_device_seconds"]
    active = document["status"] == "running"
    return RunLine(
        name=document["run"],
        lower=flop["lower"],
        point=flop["point"],
        upper=flop["upper"],
        rate_flop_per_s=rate if active else 0,
        spark=_daily(document["hourly"], now_unix_ns),
        energy_joules=int(document["energy_joules"]),
        device_hours=int(coverage["observed_device_seconds"] // 3600),
        gap_ppm=int(coverage["gap_device_seconds"] * 1_000_000 // expected) if expected else 0,
        ticks=_ticks(document["thresholds"]),
        active=active,
    )


def _ticks(thresholds: Sequence[dict[str, Any]]) -> tuple[Tick, ...]:
    """One tick per figure: regimes that share a threshold share it, and the strictest answer is told."""
    order = ("below", "undetermined", "crossed")
    found: dict[int, str] = {}
    for t in thresholds:
        flop = int(t["threshold_flop"])
        found[flop] = max(found.get(flop, "below"), t["verdict"], key=order.index)
    return tuple(Tick(flop, threshold_text(flop), answer) for flop, answer in sorted(found.items()))


def _daily(hourly: Sequence[dict[str, Any]], now_unix_ns: int) -> tuple[int, ...]:
    """FLOP per day of the last days, in units that fit any arithmetic: points are exact integers."""
    today = now_unix_ns // _SECOND_NS // _DAY_S
    days = [0] * SPARK_DAYS
    for hour, point in points_by_hour(hourly).items():
        ago = today - hour * _HOUR_S // _DAY_S
        if 0 <= ago < SPARK_DAYS:
            days[SPARK_DAYS - 1 - ago] += point
    return tuple(days)


def latest_events(events: Sequence[Mapping[str, Any]]) -> tuple[EventLine, ...]:
    """The newest first; what comes again every day of one thing is one line, that of its newest, with how often."""
    again: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for event in reversed(events):
        alone = event["type"] in _CRITICAL or event["type"].startswith("threshold.")
        once = event["id"] if alone else event["subject"]
        again.setdefault((event["type"], once), []).append(event)
    return tuple(_event(same[0], len(same)) for same in list(again.values())[:EVENTS_SHOWN])


def _event(event: Mapping[str, Any], times: int) -> EventLine:
    at = datetime.fromisoformat(event["time"])
    return EventLine(
        unix_ns=int(at.timestamp() * 1000) * 1_000_000,
        severity=Severity.CRITICAL if event["type"] in _CRITICAL else Severity.WARNING,
        type=event["type"] + (f" ×{times}" if times > 1 else ""),
        text=event["data"]["message"],
    )


def _classes(reader: Reader, documents: Iterable[dict[str, Any]]) -> tuple[tuple[str, int], ...]:
    """Share of all device time by evidence class, in ppm, best class first."""
    seconds: dict[str, float] = {}
    for document in documents:
        for label, part in document["by_evidence_class"].items():
            seconds[label] = seconds.get(label, 0.0) + part["device_seconds"]
    for _, key, sums in reader.unowned_totals():
        label = EvidenceClass(key.evidence_class).label
        seconds[label] = seconds.get(label, 0.0) + sums[0] / _SECOND_NS
    whole = sum(seconds.values())
    order = [c.label for c in EvidenceClass]
    return tuple(
        (label, int(seconds[label] * 1_000_000 / whole))
        for label in sorted(seconds, key=order.index)
        if seconds[label] > 0
    )


def _rates(agents: Iterable[tuple[AgentState, Sequence[str]]], question: Asked) -> dict[str, int]:
    """FLOP per second of each run, from the latest window of every agent; with each, whose its workloads are."""
    rates: dict[str, int] = {}
    for agent, holders in agents:
        batch, inventory = agent.batch, agent.inventory
        if batch is None or inventory is None:
            continue
        window_ns = batch.window_end_boot_ns - batch.window_start_boot_ns
        if window_ns <= 0 or agent.status(question.now_unix_ns) != "live":
            continue
        models = {i: Model(d.name, d.compute_capability) for i, d in enumerate(inventory.devices)}
        tallies: dict[str, Tally] = {}
        rows = usage_rows(batch, range(len(batch.workloads)), range(len(inventory.devices)))
        for key, numbers in rows:
            workload = batch.workloads[key.workload_no]
            run = holders[key.workload_no]
            if run:
                tallies.setdefault(run, Tally()).add(key, workload.dtype, numbers)
        for run, tally in tallies.items():
            point = tally.figures(models, question.table)[0].point
            rates[run] = rates.get(run, 0) + point * _SECOND_NS // window_ns
    return rates


def _node(agent: AgentState, holders: Sequence[str], runs: Sequence[str], silent: bool) -> NodeCell:
    """Who held each GPU for most of the latest window."""
    batch, inventory = agent.batch, agent.inventory
    if batch is None or inventory is None:
        return NodeCell(agent.node, silent, ())
    longest: dict[int, tuple[int, int]] = {}
    for usage in batch.usage:
        workload = batch.workloads[usage.workload_index]
        held = IDLE
        if workload.kind is WorkloadKind.UNATTRIBUTED:
            held = UNATTRIBUTED
        elif workload.kind is not WorkloadKind.IDLE:
            run = holders[usage.workload_index]
            held = runs.index(run) if run in runs else UNATTRIBUTED
        if usage.duration_ns > longest.get(usage.entity_index, (0, IDLE))[0]:
            longest[usage.entity_index] = (usage.duration_ns, held)
    return NodeCell(
        agent.node,
        silent,
        tuple(longest.get(i, (0, IDLE))[1] for i in range(len(inventory.devices))),
    )
