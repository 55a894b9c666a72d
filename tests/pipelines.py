"""A pipeline over a simulated node, for tests: run it, and read what it left."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from random import Random

from sim_node import SimRecording

from flopmeter.agent.metering.meter import MeterSettings
from flopmeter.agent.pipeline import Pipeline, PipelineSettings, meter_factory
from flopmeter.agent.reading import Happening, Reading
from flopmeter.agent.shipping.spool import Spool
from flopmeter.agent.shipping.status import Timing
from flopmeter.collector.encode import decode_batch
from flopmeter.contract.evidence_class import EvidenceClass
from flopmeter.contract.record import parse_record
from flopmeter.contract.usage import Batch, NoticeKind

WINDOW_NS = 10_000_000_000
FAST = Timing(backoff_base_s=0.01, backoff_cap_s=0.05)
MAKE_METER = meter_factory(MeterSettings(window_ns=WINDOW_NS), agent_version="0.1.0")


def settings(state: Path, **changes: object) -> PipelineSettings:
    return replace(PipelineSettings(state=state, timing=FAST), **changes)  # type: ignore[arg-type]


def opened(recording: SimRecording, state: Path, **changes: object) -> Pipeline:
    return Pipeline.open(
        recording.facts(), MAKE_METER, settings(state, **changes), agent_version="0.1.0", rng=Random(1)
    )


def records(state: Path) -> list[bytes]:
    spool = Spool.open(state / "spool")
    found = [e.record for e in spool.entries(1)]
    spool.close()
    return found


def batches(raw: list[bytes]) -> list[Batch]:
    return [decode_batch(parse_record(r).payload) for r in raw]


def sums(of: list[Batch]) -> Counter[str]:
    """Everything that is conserved: per entity time and counters, all rows of all batches."""
    total: Counter[str] = Counter()
    for batch in of:
        for u in batch.usage:
            total[f"{u.entity_index} ns"] += u.duration_ns
            if u.evidence_class is not EvidenceClass.GAP:
                total[f"{u.entity_index} elapsed"] += u.sm_elapsed_cycles
                total[f"{u.entity_index} hmma"] += u.hmma_cycles
                total[f"{u.entity_index} mj"] += u.energy_mj
    return total


def notices(of: list[Batch]) -> list[NoticeKind]:
    return [n.kind for batch in of for n in batch.notices]


def live(recording: SimRecording) -> SimRecording:
    """The same readings from a source that is no recording: then a journal means that time was lost."""
    facts = replace(recording.facts(), source="nvml")
    recording.facts = lambda: facts  # type: ignore[method-assign]
    return recording


def feed(pipeline: Pipeline, items: list[Reading | Happening]) -> None:
    for item in items:
        pipeline.observe(item)
