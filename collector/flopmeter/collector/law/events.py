"""Events: what the operator must know or do, raised once, as CloudEvents 1.0. Pure.

An event rests on the books at a position: its condition is false at `since_position - 1` and true at
`position`, which is what fsck checks. `key` says what must not be raised twice; the id follows from it.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from flopmeter.collector.duty.severity import severity_of
from flopmeter.collector.report.accuracy import LIMIT_PERCENT, accuracy_json
from flopmeter.contract.flop import ZERO, Figure
from flopmeter.contract.w_table import current

from .countable import Countable
from .deadline_rules import KNOWN
from .regimes import RUN, Regime, due_after_ns
from .rules import Verdict, counted, in_force, meets, verdict

if TYPE_CHECKING:
    from .standing import Standing

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
MAX_ANCESTORS_SHOWN = 50
#: How the keys of those begin that are about two agents on one entity.
TWICE_PREFIX = "fork:entity:"
THRESHOLD_PREFIX = "threshold:"
_WITHOUT_LINE = (f":{Verdict.CROSSED}", f":{Verdict.BELOW}")
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


def threshold_events(
    stands: "Standing",
    regimes: Iterable[Regime],
    raised: AbstractSet[str],
    *,
    at_unix_ns: int,
    since_position: int,
    position: int,
) -> list[NewEvent]:
    """What a run must raise where it stands now, less what `raised` (keys) has already.

    `at_unix_ns` dates the event and decides which regimes are in force; one that is not raises nothing.
    Idle and unattributed time (run "") is no training run and raises nothing.
    """
    found: list[NewEvent] = []
    run = stands.run
    if not run:
        return found
    for regime in regimes:
        if regime.scope != RUN:
            continue
        total = stands.of(regime)
        state = threshold_state(total.flop, regime, total.integer_ops)
        if state is None or not in_force(regime, at_unix_ns):
            continue
        answer, estimate = state
        key = threshold_key(regime, run, answer, estimate)
        if key not in raised:
            data = _threshold_data(stands, regime, state, at_unix_ns=at_unix_ns)
            kind = THRESHOLD_CROSSED if answer is Verdict.CROSSED else THRESHOLD_UNDETERMINED
            found.append(NewEvent(key, kind, run, at_unix_ns, since_position, position, data))
    return found


def threshold_state(
    figure: Figure, regime: Regime, integer_ops: Figure = ZERO
) -> tuple[Verdict, Verdict] | None:
    """(verdict, where the point lies), or None below: the condition that a threshold event states."""
    basis = counted(regime, figure, integer_ops)
    answer = verdict(basis, regime)
    if answer is Verdict.BELOW:
        return None
    return answer, Verdict.CROSSED if meets(basis.point, regime) else Verdict.BELOW


def threshold_key(regime: Regime, run: str, answer: Verdict, estimate: Verdict) -> str:
    """A crossing is one event, wherever the point lay; undetermined is one per side of the point. Of another line it is
    another event: a law whose number is raised can be met again.
    """
    if answer is Verdict.CROSSED:
        estimate = Verdict.CROSSED
    line = f"{regime.comparison}{threshold_text(regime.threshold_flop)}"
    return f"{THRESHOLD_PREFIX}{regime.id}:{run}:{answer}:{estimate}:{line}"


def current_key(key: str, data: str | None) -> str:
    """An event's key as it would be made today: flopmeter 0.1.0 made those of thresholds without the line."""
    if not key.startswith(THRESHOLD_PREFIX) or not key.endswith(_WITHOUT_LINE) or data is None:
        return key
    said = json.loads(data)
    return f"{key}:{said['comparison']}{threshold_text(int(said['threshold_flop']))}"


def _threshold_data(
    stands: "Standing", regime: Regime, state: tuple[Verdict, Verdict], *, at_unix_ns: int
) -> dict[str, Any]:
    answer, estimate = state
    run, total = stands.run, stands.of(regime)
    basis = counted(regime, total.flop, total.integer_ops)
    due, perhaps = due_texts(regime, answer, estimate, at_unix_ns)
    return {
        "message": _message(stands, regime, answer, estimate) + if_met(perhaps) + if_known(regime, due),
        "run": run,
        "regime": regime.id,
        "citation": regime.citation,
        "verdict": answer.value,
        "estimate": estimate.value,
        "threshold_flop": str(regime.threshold_flop),
        "comparison": regime.comparison,
        "unit": regime.unit,
        "counting": regime.counting,
        "counting_note": regime.counting_note,
        "counted": figure_json(basis),
        "accuracy": {"limit_percent": LIMIT_PERCENT, **accuracy_json(basis)},
        "flop": figure_json(stands.executed.flop),
        "integer_ops": figure_json(stands.executed.integer_ops),
        "countable": None if total.countable is None else countable_json(total.countable),
        "entries": str(stands.entries),
        "act": regime.act,
        "when_met": regime.when_met,
        "recipient": regime.recipient,
        "deadline": regime.deadline,
        "due": due,
        "due_if_met": perhaps,
        "met_since": None,
        "conditions": list(regime.conditions),
        "open_questions": list(regime.open_questions),
        "note": NOT_RISK,
        **({"replaces": regime.replaces} if regime.replaces else {}),
        "regime_version": regime.version,
        "regime_digest": regime.digest,
        "w_table": current().id,
    }


def due_texts(
    regime: Regime, answer: Verdict, estimate: Verdict, at_unix_ns: int
) -> tuple[str | None, str | None]:
    """(when the first thing is due that meeting the line starts; when it were, if the estimate is right and is past it).

    The second starts no clock here: whether a best estimate is knowledge is for a person to say.
    """
    after_ns = due_after_ns(regime)
    if after_ns is None or estimate is not Verdict.CROSSED:
        return None, None
    text = time_text(at_unix_ns + after_ns)
    return (text, None) if answer is Verdict.CROSSED else (None, text)


def if_met(due: str | None) -> str:
    """What a message says of a clock that may be running."""
    return "" if due is None else f" If the estimate is right, what is due runs from now, to {due}."


def if_known(regime: Regime, due: str | None) -> str:
    """What the message of a crossing says of a clock that a plan or a forecast may have started: `due` is the latest."""
    if due is None or not any(rule.trigger == KNOWN for rule in regime.deadlines):
        return ""
    return " Where it was known before that it would be, what is due runs since then, and is due sooner than said here."


def _message(stands: "Standing", regime: Regime, answer: Verdict, estimate: Verdict) -> str:
    line = threshold_text(regime.threshold_flop)
    past = f"at or above {line}" if regime.comparison == ">=" else f"above {line}"
    if answer is Verdict.CROSSED:
        said = f"executed {past} FLOP: even the lower bound is past the line of {regime.title}."
    elif estimate is Verdict.CROSSED:
        said = f"has probably executed {past} FLOP ({regime.title}): the estimate is past the line, the lower bound is not."
    else:
        said = f"may have executed {past} FLOP ({regime.title}): the upper bound is past the line, the estimate is not."
    found = stands.of(regime).countable
    names = [] if found is None else sorted({p.of for p in found.parts if p.of and p.counted})
    stood_on = f", with what it stands on ({_few(names)})," if names else ""
    left = " What that law leaves out is not in it." if found is not None and found.left_out else ""
    return f"Run {stands.run}{stood_on} {said}{left} {NOT_RISK}"


def countable_json(found: Countable) -> dict[str, Any]:
    """A total by a counting profile, and where it comes from: what stood in it, and what the text leaves open."""
    ancestors: dict[str, dict[str, Any]] = {}
    for p in found.parts:
        if p.of:
            flop = figure_json(p.flop)
            known = ancestors.setdefault(
                p.of, {"run": p.of, "path": list(p.path), "counted": False, "flop": figure_json(ZERO)}
            )
            if p.counted:
                known["counted"] = True
                known["flop"] = {name: str(int(known["flop"][name]) + int(flop[name])) for name in flop}
    return {
        "profile": found.profile.id,
        "profile_version": found.profile.version,
        "profile_digest": found.profile.digest,
        "flop": figure_json(found.flop),
        "integer_ops": figure_json(found.integer_ops),
        "ancestors": list(ancestors.values())[:MAX_ANCESTORS_SHOWN],
        "ancestors_counted": sum(1 for a in ancestors.values() if a["counted"]),
        "excluded": sorted({p.activity for p in found.left_out}),
        "silent": sorted({p.activity for p in found.silent}),
        "entries": sorted({number for p in found.parts for number in p.entries}),
    }


def _few(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def threshold_text(threshold: int) -> str:
    """10^25 where it is a power of ten, else the digits."""
    digits = str(threshold)
    return f"10^{len(digits) - 1}" if digits.strip("0") == "1" else digits


def figure_json(figure: Figure) -> dict[str, str]:
    """lower, point, upper as decimal strings."""
    return {"lower": str(figure.lower), "point": str(figure.point), "upper": str(figure.upper)}


def fork_event(
    agent_id: bytes,
    node: str,
    seq: int,
    *,
    stored_hash: bytes | None,
    refused_hash: bytes,
    at_unix_ns: int,
    position: int,
) -> NewEvent:
    """One agent signed two records of one number: a cloned key, or a spool set back. Once per refused record.

    `stored_hash` None: the record in the books is older than what the collector compared with.
    """
    agent = agent_id.hex()
    return NewEvent(
        key=f"fork:{agent}:{seq}:{refused_hash.hex()}",
        type=EVIDENCE_FORK,
        subject=f"agent/{agent}",
        time_unix_ns=at_unix_ns,
        since_position=position,
        position=position,
        data={
            "message": f"Agent {agent} of node {node} signed another record number {seq} than the one in the "
            "books: its key is in use twice, or its spool was set back. The second was refused and kept.",
            "agent": agent,
            "node": node,
            "seq": str(seq),
            "stored_hash": stored_hash.hex() if stored_hash is not None else None,
            "refused_hash": refused_hash.hex(),
        },
    )


def twice_key(entity: str, agent_id: bytes, other_agent_id: bytes) -> str:
    """The key of the one event about two agents on one entity, whichever of them was first."""
    one, two = sorted((agent_id.hex(), other_agent_id.hex()))
    return f"{TWICE_PREFIX}{entity}:{one}:{two}"


def twice_event(
    entity: str,
    booked: tuple[bytes, str],
    left_out: tuple[bytes, str],
    since_unix_ns: int,
    *,
    at_unix_ns: int,
    position: int,
) -> NewEvent:
    """Two agents (id, node) told of the same time of one entity. Once per entity and pair of agents."""
    (first, first_node), (second, second_node) = booked, left_out
    return NewEvent(
        key=twice_key(entity, first, second),
        type=EVIDENCE_FORK,
        subject=f"agent/{second.hex()}",
        time_unix_ns=at_unix_ns,
        since_position=position,
        position=position,
        data={
            "message": f"Agents {first.hex()} of node {first_node} and {second.hex()} of node {second_node} both "
            f"meter {entity}, from {time_text(since_unix_ns)} on. Of each time only what came first is in the "
            "totals; the other's records are kept, and their other entities count. Stop one of the two; or one "
            "of the nodes' clocks is wrong.",
            "entity": entity,
            "agent": second.hex(),
            "node": second_node,
            "booked_agent": first.hex(),
            "booked_node": first_node,
            "since": time_text(since_unix_ns),
        },
    )


def loss_event(
    agent_id: bytes, node: str, from_seq: int, to_seq: int, reason: str, *, at_unix_ns: int, position: int
) -> NewEvent:
    """Records from_seq … to_seq of an agent will never come: their time is missing, and named."""
    agent = agent_id.hex()
    return NewEvent(
        key=f"loss:{agent}:{from_seq}:{to_seq}",
        type=COVERAGE_LOST,
        subject=f"agent/{agent}",
        time_unix_ns=at_unix_ns,
        since_position=position,
        position=position,
        data={
            "message": f"Records {from_seq} to {to_seq} of agent {agent} on node {node} are lost: {reason}. "
            "What the node did in their time is in no total.",
            "agent": agent,
            "node": node,
            "from_seq": str(from_seq),
            "to_seq": str(to_seq),
            "reason": reason,
        },
    )


def silent_key(agent_id: str, last_seq: int, window_end_unix_ns: int) -> str:
    """The key of the one event of a silence: it is over when the agent's last record is another."""
    return f"silent:{agent_id}:{last_seq}:{window_end_unix_ns}"


def silent_event(
    agent_id: bytes,
    node: str,
    last_seq: int,
    window_end_unix_ns: int,
    received_unix_ns: int,
    *,
    at_unix_ns: int,
    position: int,
) -> NewEvent:
    """Nothing was heard of an agent for too long. Once per silence: the next record ends it."""
    agent = agent_id.hex()
    return NewEvent(
        key=silent_key(agent, last_seq, window_end_unix_ns),
        type=AGENT_SILENT,
        subject=f"agent/{agent}",
        time_unix_ns=at_unix_ns,
        since_position=position,
        position=position,
        data={
            "message": f"Agent {agent} of node {node} has been silent since {time_text(received_unix_ns)}: "
            f"what its GPUs did since {time_text(window_end_unix_ns)} is in no total until it reports.",
            "agent": agent,
            "node": node,
            "last_seq": str(last_seq),
            "window_end": time_text(window_end_unix_ns),
            "received": time_text(received_unix_ns),
        },
    )


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


def time_text(unix_ns: int) -> str:
    """RFC 3339 in UTC, to the millisecond."""
    seconds, ns = divmod(unix_ns, 1_000_000_000)
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{ns // 1_000_000:03d}Z"
