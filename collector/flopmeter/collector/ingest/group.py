"""What passes from the event loop to the writer thread: a group of things to commit together.

The loop fills a Group, hands it over whole and never touches it again; so nothing is shared and locked.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

from flopmeter.collector.books import GroupKey, Slot, Sums
from flopmeter.collector.clock_offset import Offset
from flopmeter.collector.law.cross_check import Flag
from flopmeter.collector.law.log_contradiction import LogFlag
from flopmeter.contract.usage import Progress

from .claims import Claim
from .decide import Head
from .identity_jobs import Moved


@dataclass(slots=True)
class Agent:
    """One admitted agent as the loop knows it. `head` runs ahead of the store by what is in open groups."""

    agent_no: int
    agent_id: bytes
    public_key: bytes
    node: str
    version: str
    admitted_how: str
    admitted_unix_ns: int
    head: Head = field(default_factory=Head)
    #: Its row in the access table was applied: from here on its records may count.
    entered: bool = True
    barred: str = ""  # why no record of it is taken any more
    #: Highest sequence number that is committed; never acknowledge past it.
    durable_seq: int = 0
    #: seq -> hash of records taken and not yet committed.
    uncommitted: dict[int, bytes] = field(default_factory=dict)
    clock: Offset | None = None  # how far it is off, as it was last given to be kept


class TakenRecord(NamedTuple):
    """A verified record on its way into the books."""

    agent_no: int
    seq: int
    hash: bytes
    raw: bytes
    window_start_unix_ns: int
    window_end_unix_ns: int
    received_unix_ns: int
    usual_window_ns: int  # of the agent, with this record
    inventory: bytes  # digest of the one that it names
    slot: Slot
    groups: list[tuple[GroupKey, Sums]]


class NewWorkload(NamedTuple):
    """A workload seen for the first time, in the order of the workloads table's columns."""

    workload_no: int
    scope: str
    kind: int
    job: str
    step: str
    run_label: str
    user: str
    dtype: str
    restart: int
    run: str
    run_rule: str
    first_unix_ns: int
    last_unix_ns: int
    identities: str
    begun_unix_ns: int


class Loss(NamedTuple):
    """Numbers that an agent no longer had."""

    agent: Agent
    from_seq: int
    to_seq: int
    noticed_unix_ns: int
    reason: str


class Silence(NamedTuple):
    """An agent of which nothing came for too long."""

    agent: Agent
    last_seq: int
    window_end_unix_ns: int
    received_unix_ns: int


class Conflict(NamedTuple):
    """A signed record whose number is taken by other bytes."""

    agent: Agent
    seq: int
    hash: bytes
    stored_hash: bytes | None
    raw: bytes
    received_unix_ns: int


class ToldTwice(NamedTuple):
    """Two agents told of the same time of one entity (claims.Twice), met for the first time."""

    entity: str
    booked: Agent
    left_out: Agent
    since_unix_ns: int


@dataclass(slots=True)
class Group:
    """All that one transaction will make durable."""

    records: list[TakenRecord] = field(default_factory=list)
    new_agents: list[Agent] = field(default_factory=list)
    seen_agents: list[tuple[str, str, int]] = field(default_factory=list)  # node, version, agent_no
    inventories: list[tuple[bytes, int, bytes, int]] = field(default_factory=list)
    models: list[tuple[int, str, str]] = field(default_factory=list)  # model_no, name, compute capability
    workloads: list[NewWorkload] = field(default_factory=list)
    moved: list[Moved] = field(default_factory=list)  # workloads, these or earlier ones, to another run
    losses: list[Loss] = field(default_factory=list)
    #: Up to which row of the access table its records are judged by; 0: by the same as the group before. The rows
    #: get their place in the log before the records do.
    access_no: int = 0
    clones: list[tuple[bytes, str, int]] = field(default_factory=list)  # agent id, node, access_no
    conflicts: list[Conflict] = field(default_factory=list)
    silences: list[Silence] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)  # begun
    ended_claims: list[Claim] = field(default_factory=list)
    twice: list[ToldTwice] = field(default_factory=list)
    flagged: list[tuple[int, list[Flag]]] = field(default_factory=list)  # index into records
    contradicted: list[tuple[int, LogFlag]] = field(default_factory=list)  # index into records
    #: Claims of training code: index into records, then by workload number.
    progress: list[tuple[int, dict[int, list[Progress]]]] = field(default_factory=list)
    log_faults: list[str] = field(default_factory=list)  # what our own log was found to contradict
    clocks: dict[int, Offset] = field(default_factory=dict)  # by agent_no; they wait for a commit …
    clocks_waited: bool = False  # … and now get one of their own
    review: bool = False  # commit even if there is nothing else: it is time to judge all runs
    boots: list[tuple[int, bytes, int]] = field(
        default_factory=list
    )  # agent_no, ended boot, its last window's end
    record_bytes: int = 0

    def __bool__(self) -> bool:
        return bool(
            self.records
            or self.new_agents
            or self.seen_agents
            or self.inventories
            or self.models
            or self.workloads
            or self.losses
            or self.access_no
            or self.conflicts
            or self.silences
            or self.log_faults
            or self.review
            or self.clocks_waited
        )
