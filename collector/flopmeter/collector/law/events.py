"""Events: what the operator must know or do, raised once, as CloudEvents 1.0. Pure.

An event rests on the books at a position: its condition is false at `since_position - 1` and true at
`position`, which is what fsck checks. `key` says what must not be raised twice; the id follows from it.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flopmeter.collector.spelling import time_text

from .regimes import Regime
from .severity import severity_of

THRESHOLD_UNDETERMINED = "threshold.undetermined"
THRESHOLD_CROSSED = "threshold.crossed"
COVERAGE_LOST = "coverage.lost"
AGENT_SILENT = "agent.silent"
EVIDENCE_FORK = "evidence.fork"
METHOD_DISAGREES = "method.disagrees"
USAGE_UNATTRIBUTED = "usage.unattributed"
THRESHOLD_APPROACHING = "threshold.approaching"
THRESHOLD_FORECAST = "threshold.forecast"
PLAN_EXCEEDS = "plan.exceeds"
DEADLINE_NEAR = "deadline.near"
DEADLINE_OVERDUE = "deadline.overdue"
FLEET_CAPACITY = "fleet.capacity"
TYPES = (
    THRESHOLD_UNDETERMINED,
    THRESHOLD_CROSSED,
    COVERAGE_LOST,
    AGENT_SILENT,
    EVIDENCE_FORK,
    METHOD_DISAGREES,
    USAGE_UNATTRIBUTED,
    THRESHOLD_APPROACHING,
    THRESHOLD_FORECAST,
    PLAN_EXCEEDS,
    DEADLINE_NEAR,
    DEADLINE_OVERDUE,
    FLEET_CAPACITY,
)
SOURCE = "urn:flopmeter:collector"
#: Said with every threshold event (reference/regulations.md section 13, items 20 and 28).
NOT_RISK = "Compute is a trigger for scrutiny, not a measure of risk."


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event to be written in the transaction that caused it. `data` is JSON; big numbers are strings."""

    key: str
    type: str
    subject: str
    time_unix_ns: int
    since_position: int
    position: int
    data: dict[str, Any]

    @property
    def id(self) -> str:
        """32 hex digits of SHA-256 of the key: the same event has the same id wherever it is derived."""
        return event_id(self.key)

    @property
    def data_json(self) -> str:
        """`data` as the store keeps it: one spelling, so that fsck can compare text."""
        return json.dumps(self.data, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def event_id(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()[:32]


def law_json(regime: Regime) -> dict[str, Any]:
    """What an event about a line says of the law that draws it."""
    return {
        "regime": regime.id,
        "citation": regime.citation,
        "comparison": regime.comparison,
        "act": regime.act,
        "when_met": regime.when_met,
        "recipient": regime.recipient,
        "deadline": regime.deadline,
        "conditions": list(regime.conditions),
        "open_questions": list(regime.open_questions),
        "note": NOT_RISK,
        "regime_version": regime.version,
        "regime_digest": regime.digest,
    }


def counting_json(regime: Regime) -> dict[str, str]:
    """How that law counts a run."""
    return {"unit": regime.unit, "counting": regime.counting, "counting_note": regime.counting_note}


def of_agent(
    kind: str,
    key: str,
    agent: tuple[bytes, str],
    message: str,
    *,
    at_unix_ns: int,
    position: int,
    **more: str | None,
) -> NewEvent:
    """What the record at `position` tells of an agent (id, node)."""
    agent_id, node = agent[0].hex(), agent[1]
    data = {"message": message, "agent": agent_id, "node": node, **more}
    return NewEvent(key, kind, f"agent/{agent_id}", at_unix_ns, position, position, data)


def to_cloudevent(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the events table as CloudEvents 1.0 JSON. Positions are strings: they outgrow its integers.

    `severity` and the positions are extension attributes: names of small letters and digits only.
    """
    data = row["data"]
    said = json.loads(data) if isinstance(data, str) else data
    return {
        "specversion": "1.0",
        "id": row["id"],
        "source": SOURCE,
        "type": row["type"],
        "subject": row["subject"],
        "time": time_text(row["time_unix_ns"]),
        "datacontenttype": "application/json",
        "severity": severity_of(row["type"], said).value,
        "sinceposition": str(row["since_position"]),
        "position": str(row["position"]),
        "data": said,
    }
