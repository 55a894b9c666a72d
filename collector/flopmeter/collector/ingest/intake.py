"""The event loop's side of ingest: agents, verification, decisions, and the group that is being filled.

Synchronous and without a transport, so that a model test can drive it record by record. One thread only.
"""

import hashlib

from nacl.bindings import crypto_sign_open
from nacl.exceptions import CryptoError

from flopmeter.collector.access.rows import ENDING
from flopmeter.collector.access.standing import Standing
from flopmeter.collector.books import GroupKey, Sums, add_rows, slot_of
from flopmeter.collector.clock_offset import Offset, worth_keeping
from flopmeter.collector.errors import StoreError
from flopmeter.collector.law.cross_check import flags
from flopmeter.collector.law.log_contradiction import log_flags
from flopmeter.collector.law.progress import by_workload
from flopmeter.collector.store.base import Catalogue, StoredAgent
from flopmeter.contract.errors import ContractError
from flopmeter.contract.ids import agent_id as id_of_key
from flopmeter.contract.ids import check_label
from flopmeter.contract.limits import MAX_RECORD_BYTES
from flopmeter.contract.record import (
    DOMAIN,
    HEADER_BYTES,
    HELLO_DOMAIN,
    MAX_SEQ,
    SIGNATURE_BYTES,
    Record,
    parse_record,
    record_hash,
)
from flopmeter.contract.usage import UNATTRIBUTED

from . import claims
from . import decide as ingest
from .admission import BY_TOKEN, Admission
from .claims import Claims
from .decide import TAKEN, Outcome, PushbackReason, PushedBack, RefusalCode, Refused
from .encode import BatchView, Implausible
from .group import Agent, Conflict, Group, Loss, TakenRecord, ToldTwice
from .identity import RuleList
from .identity_rules import shipped
from .names import KnownInventory, Names
from .silence import SilenceWatch

#: Forks kept per agent; each is an event, and a clone must not be able to fill the store with them.
MAX_CONFLICTS_PER_AGENT = 1_000
_SECOND_NS = 1_000_000_000
_UNATTRIBUTED = b"\x08\x02"  # as it is serialised: kind 2
_DAY_NS = 86_400 * _SECOND_NS


def verified(message: bytes, signature: bytes, public_key: bytes) -> bool:
    """Whether `signature` (Ed25519) by `public_key` covers `message`."""
    try:
        crypto_sign_open(signature + message, public_key)
    except CryptoError:
        return False
    return True


class Intake:
    """Judges what agents say and fills `group`. `reset` after a failed commit; `committed` after a good one."""

    def __init__(self, catalogue: Catalogue, admission: Admission, rules: RuleList | None = None) -> None:
        """`rules` choose the runs of workloads; None: the shipped ones."""
        self._catalogue = catalogue
        self._rules = rules or shipped()
        self._admission = admission
        self._agents: dict[bytes, Agent] = {}
        self._conflicts: dict[int, set[tuple[int, bytes]]] = {}
        self._access_waits = False
        self._barred: list[Agent] = []
        self.group = Group()
        self.names: Names
        self._next_agent_no = 1
        self._watch = SilenceWatch()
        self._reviewed_day = -1
        self._heard = self._answered = 0
        self.reset()

    def reset(self) -> None:
        """Forget everything not committed and read the store again. Raises StoreError.

        Agent objects that streams hold stay valid: they are set back to their committed heads. An agent
        whose admission was not committed is gone, and must say Hello again.
        """
        self.group = Group()
        self._standing = Standing()
        self._apply_access()
        self._watch.restart()
        self._reviewed_day = -1
        self._heard = self._answered = 0  # the last entry, and the last answer, that a review saw
        self._conflicts.clear()
        self.names = Names(self._catalogue, self._rules)
        self._next_agent_no = self._catalogue.next_numbers().agent_no
        known = self._agents
        self._agents = {}
        self._by_no: dict[int, Agent] = {}
        for stored in self._catalogue.agents():
            agent = known.get(stored.agent_id)
            if agent is None:
                agent = Agent(*stored[:7])
            else:
                # What a Hello said that was not committed is forgotten, too: the next one says it again.
                agent.agent_no, agent.node, agent.version = stored.agent_no, stored.node, stored.version
                agent.admitted_how, agent.admitted_unix_ns = stored.admitted_how, stored.admitted_unix_ns
                agent.uncommitted.clear()
                agent.clock = None
            agent.entered, agent.barred = True, self._standing.barred.get(stored.agent_id, "")
            agent.head = _head_of(stored)
            agent.durable_seq = agent.head.last_seq
            self._agents[agent.agent_id] = self._by_no[agent.agent_no] = agent
        heads = {agent.agent_no: agent.head for agent in self._agents.values()}
        try:
            self._claims = Claims(heads, self._catalogue.claims(), self._catalogue.told_twice())
        except KeyError as e:
            raise StoreError(
                f"claims: expected those of admitted agents, got one of agent_no {e}",
                "see what is wrong with `flopmeter collector fsck`; restore a backup",
            ) from e

    @property
    def agent_count(self) -> int:
        """Agents that may speak."""
        return len(self._agents)

    def knows(self, agent: Agent) -> bool:
        """False: its admission was not committed, and it must say Hello again."""
        return self._agents.get(agent.agent_id) is agent

    def take_group(self) -> Group:
        """The filled group, to be committed; a new one is opened."""
        group, self.group = self.group, Group()
        if not group:  # which is not committed
            self.group.clocks = group.clocks
        if self._access_waits:  # a new group holds no record that what waits could be too late for
            self._apply_access()
        return group

    def committed(self, group: Group) -> dict[int, Agent]:
        """Note that `group` is durable; the agents whose records were in it, by agent_no."""
        by_no: dict[int, Agent] = {}
        agents = self._agents
        for record in group.records:
            agent = by_no.get(record.agent_no)
            if agent is None:
                agent = by_no[record.agent_no] = agents[record.raw[:16]]
            agent.uncommitted.pop(record.seq, None)
            agent.durable_seq = record.seq
        self.names.trim(self.group)
        if group.new_agents:
            self._apply_access()
        return by_no

    # --- who may speak ---

    def look_at_access(self) -> bool:
        """Apply what people, enrolment and renewal wrote since the last look; True if there is something to commit."""
        self._apply_access()
        return bool(self.group.access_no or self._access_waits)

    def take_barred(self) -> list[Agent]:
        """Agents that were barred since the last call: nothing more is taken of them, and their streams may end."""
        barred, self._barred = self._barred, []
        return barred

    def _apply_access(self) -> None:
        """Go on in the access table: its rows stand in the log before the records of the group that is open.

        So a row that ends an agent must not be applied while the group holds a record of it, which was taken before:
        such a row, and all behind it, wait for the next group.
        """
        self._access_waits = False
        standing, last = self._standing, self._catalogue.last_access()
        if last == standing.access_no:
            return
        for row in self._catalogue.standing(standing.access_no, last):
            agent = self._agents.get(row.agent_id)
            if row.kind in ENDING and agent is not None:
                if any(r.agent_no == agent.agent_no for r in self.group.records):
                    self._access_waits = True
                    self.group.access_no = standing.access_no
                    return
                self._barred.append(agent)
            standing.apply(row)
            if agent is not None:
                agent.entered, agent.barred = True, standing.barred.get(row.agent_id, "")
        standing.access_no = self.group.access_no = last
        self.group.clones += standing.clones
        standing.clones.clear()

    # --- what time alone brings ---

    def review(self, now_unix_ns: int, *, listening: bool = True) -> bool:
        """Put into `group` who has fallen silent, once a day that all runs are to be judged, and that somebody said
        something of runs or of deadlines (its commit is when that is applied, if none was before); and have clocks kept
        that no commit took along.

        Call it now and then; True if there is something to commit. `listening` False: since the last call the
        collector could not hear its agents all the time, so that nobody is silent by that.
        """
        if not listening:
            self._watch.restart()
        self.group.silences += self._watch.new(self._agents.values(), now_unix_ns)
        said = self._catalogue.entries(self._heard)
        if said:
            self._heard = said[-1].entry_no
            self.group.review = True
        answered = self._catalogue.last_answer()
        if answered != self._answered:
            self._answered = answered
            self.group.review = True
        self.group.clocks_waited = bool(self.group.clocks)
        today = now_unix_ns // _DAY_NS
        if today != self._reviewed_day:
            self._reviewed_day = today
            self.group.review = True
        return bool(self.group.silences or self.group.review or self.group.clocks_waited)

    # --- who speaks ---

    def hello(
        self,
        *,
        public_key: bytes,
        node: str,
        version: str,
        oldest_seq: int,
        newest_seq: int,
        now_unix_ns: int,
    ) -> Agent | Refused:
        """Judge a Hello whose signature was verified: the agent, or why not.

        Admits a new key if the operator allows it; names records that the agent no longer has. Both are
        in `group` and only true once it is committed.
        """
        try:
            agent_id = id_of_key(public_key)
            check_label("node", node)
            check_label("agent_version", version)
        except ContractError as e:
            return Refused(RefusalCode.MALFORMED, str(e))
        if not 0 <= oldest_seq <= newest_seq <= MAX_SEQ:
            return Refused(
                RefusalCode.MALFORMED,
                f"hello: expected 0 <= oldest_seq <= newest_seq < 2^63, got {oldest_seq}, {newest_seq}",
            )
        if agent_id not in self._agents:
            self._apply_access()  # it may have enrolled a moment ago
        fault = self._standing.fault(agent_id, node)
        if fault:
            return Refused(RefusalCode.UNKNOWN_AGENT, fault)
        agent = self._agents.get(agent_id)
        if agent is None:
            how = BY_TOKEN if agent_id in self._standing.enrolled else self._admission.admit(public_key)
            if not how:
                return Refused(
                    RefusalCode.UNKNOWN_AGENT,
                    f"agent {agent_id.hex()} ({node}) was not admitted; add its public key "
                    f"{public_key.hex()} to the collector's --admit file",
                )
            agent = Agent(self._next_agent_no, agent_id, public_key, node, version, how, now_unix_ns)
            agent.entered = how == BY_TOKEN
            self._next_agent_no += 1
            self._agents[agent_id] = self._by_no[agent.agent_no] = agent
            self.group.new_agents.append(agent)
        elif (agent.node, agent.version) != (node, version):
            agent.node, agent.version = node, version
            self.group.seen_agents.append((node, version, agent.agent_no))
        gone = ingest.loss(agent.head, oldest_seq)
        if gone is not None:
            first, last = gone
            agent.head.lost.append(gone)
            self.group.losses.append(
                Loss(agent, first, last, now_unix_ns, f"the agent's oldest record is {oldest_seq}")
            )
        return agent

    def inventory(self, agent: Agent, raw: bytes, now_unix_ns: int) -> Refused | None:
        """Take an inventory in; None = good (or known already)."""
        try:
            self.names.add_inventory(
                raw, hashlib.sha256(raw).digest(), agent.agent_no, now_unix_ns, self.group
            )
        except ContractError as e:
            return Refused(RefusalCode.MALFORMED, str(e))
        return None

    def clock(self, agent: Agent, offset: Offset | None) -> None:
        """Keep how far its clock is off (None: not known) with what is committed next, or by the next `review`."""
        if offset is not None and worth_keeping(agent.clock, offset):
            agent.clock = self.group.clocks[agent.agent_no] = offset

    # --- what is said ---

    def offer(self, agent: Agent, raw: bytes, now_unix_ns: int) -> tuple[Outcome, int]:
        """Judge one record; (outcome, its number, 0 where it has none). Taken records are in `group`."""
        if agent.barred:
            return Refused(RefusalCode.UNKNOWN_AGENT, agent.barred), 0
        if len(raw) > MAX_RECORD_BYTES:
            return (
                Refused(
                    RefusalCode.TOO_LARGE,
                    f"record: expected at most {MAX_RECORD_BYTES} bytes, got {len(raw)}",
                ),
                agent.head.next_seq,
            )
        try:
            record = parse_record(raw)
        except ContractError as e:
            return Refused(RefusalCode.MALFORMED, str(e)), agent.head.next_seq
        return self._judge(agent, record, now_unix_ns), record.seq

    def _judge(self, agent: Agent, record: Record, now_unix_ns: int) -> Outcome:
        head, raw = agent.head, record.raw
        if record.agent_id != agent.agent_id:
            return Refused(
                RefusalCode.WRONG_AGENT,
                f"record {record.seq}: expected agent {agent.agent_id.hex()}, got {record.agent_id.hex()}; "
                "a stream carries one agent's records",
            )
        next_seq = head.next_seq
        if record.seq > next_seq:
            out = ingest.sequence(head, record)
            assert out is not None
            return out
        if not verified(DOMAIN + raw[:-SIGNATURE_BYTES], raw[-SIGNATURE_BYTES:], agent.public_key):
            return Refused(
                RefusalCode.BAD_SIGNATURE,
                f"record {record.seq}: the signature does not verify under the key of {agent.agent_id.hex()}",
            )
        digest = record_hash(raw)
        if record.seq < next_seq:
            return self._behind(agent, record, digest, now_unix_ns)
        out = ingest.sequence(head, record)
        if out is not None:
            return out
        try:
            view = BatchView(raw[HEADER_BYTES:-SIGNATURE_BYTES])
            out = ingest.window(head, record, view.window_start_boot_ns, view.window_end_unix_ns, now_unix_ns)
            if out is not None:
                self._note_fork(agent, record, None, out, now_unix_ns)
                return out
            known = self.names.inventory(view.inventory_digest)
            if known is None:
                return PushedBack(
                    PushbackReason.INVENTORY_UNKNOWN,
                    f"record {record.seq} names inventory {view.inventory_digest.hex()}, which was not sent",
                )
            local = view.groups(known.bounds)
            keys = view.workload_keys()
            numbers = [known.workload_nos.get(key, 0) for key in keys]
            if 0 in numbers:
                # All are checked before any gets a number, so that a refused batch leaves no trace.
                workloads = [view.workload(i) for i in range(len(keys))]
                span = (view.window_start_unix_ns, view.window_end_unix_ns)
                numbers = [
                    self.names.workload_no(known, key, workload, span, self.group)
                    for key, workload in zip(keys, workloads, strict=True)
                ]
        except Implausible as e:
            return Refused(RefusalCode.IMPLAUSIBLE, f"record {record.seq}: {e}")
        except ContractError as e:
            return Refused(RefusalCode.MALFORMED, f"record {record.seq}: {e}")
        if self._claims.quiet(agent.agent_no, known, view.entities):
            groups = [(GroupKey(numbers[key[0]], *key[1:]), sums) for key, sums in local.items()]
        else:
            groups = self._claim(agent, record, view, known, numbers)
        if head.last_seq and record.boot_id != head.boot_id:
            self.group.boots.append((agent.agent_no, head.boot_id, head.window_end_boot_ns))
        ingest.move(head, record, digest, view, received_unix_ns=now_unix_ns, stopped=view.stopped)
        self.group.records.append(
            TakenRecord(
                agent.agent_no,
                record.seq,
                digest,
                raw,
                view.window_start_unix_ns,
                view.window_end_unix_ns,
                now_unix_ns,
                head.usual_window_ns,
                view.inventory_digest,
                slot_of(view.window_start_unix_ns, view.window_end_unix_ns, view.told_ns),
                groups,
            )
        )
        if told := view.flags:
            node, index, end_ns = known.inventory.node, len(self.group.records) - 1, view.window_end_unix_ns
            found = flags(told, agent.agent_id, node, known.entities, end_ns)
            self.group.flagged.append((index, found))
            self.group.contradicted += [(index, f) for f in log_flags(told, agent.agent_id, node, end_ns)]
        if claimed := view.progress:
            claims_of = {numbers[i]: mine for i, mine in by_workload(claimed).items()}
            self.group.progress.append((len(self.group.records) - 1, claims_of))
        self.group.record_bytes += len(raw)
        agent.uncommitted[record.seq] = digest
        return TAKEN

    def _claim(
        self, agent: Agent, record: Record, view: BatchView, known: KnownInventory, numbers: list[int]
    ) -> list[tuple[GroupKey, Sums]]:
        """What of the record's usage is booked: all but what another agent told of before (claims.py)."""
        told = claims.told(view, record.boot_id, known.entities)
        taken = self._claims.take(agent.agent_no, agent.head, known, told)
        self.group.claims += taken.begun
        self.group.ended_claims += taken.ended
        for entity, booked_no, _, since_unix_ns in taken.twice:
            self.group.twice.append(ToldTwice(entity, self._by_no[booked_no], agent, since_unix_ns))
        booked: dict[GroupKey, Sums] = {}
        models = [bounds.model_no for bounds in known.bounds]
        add_rows(booked, ingest.usage_rows(view, numbers, models, taken.left_out.keys()))

        def number(index: int | None) -> int:
            if index is not None:
                return numbers[index]
            span = (view.window_start_unix_ns, view.window_end_unix_ns)
            return known.workload_nos.get(_UNATTRIBUTED) or self.names.workload_no(
                known, _UNATTRIBUTED, UNATTRIBUTED, span, self.group
            )

        add_rows(booked, claims.rests(told, taken.left_out, known.bounds, number))
        return list(booked.items())

    def _behind(self, agent: Agent, record: Record, digest: bytes, now_unix_ns: int) -> Outcome:
        known = agent.uncommitted.get(record.seq)
        if known is None and record.seq == agent.head.last_seq:
            known = agent.head.last_hash
        if known is None:
            known = self._stored_hash(agent, record)
        outcome = ingest.behind(agent.head, record, digest, known)
        self._note_fork(agent, record, known, outcome, now_unix_ns)
        return outcome

    def _note_fork(
        self, agent: Agent, record: Record, known: bytes | None, outcome: Outcome, now_unix_ns: int
    ) -> None:
        """Keep a signed record that proves a clone or a fork; it becomes an event."""
        if not isinstance(outcome, Refused) or outcome.code != RefusalCode.CONFLICT:
            return
        digest = record.hash
        seen = self._conflicts.setdefault(agent.agent_no, set())
        if (record.seq, digest) not in seen and len(seen) < MAX_CONFLICTS_PER_AGENT:
            seen.add((record.seq, digest))
            self.group.conflicts.append(Conflict(agent, record.seq, digest, known, record.raw, now_unix_ns))

    def _stored_hash(self, agent: Agent, record: Record) -> bytes | None:
        """The stored record's hash. Found by its window: the same bytes name the same window."""
        try:
            view = BatchView(record.payload)
        except ContractError:
            return None
        return self._catalogue.record_hash(
            view.window_start_unix_ns // _SECOND_NS, agent.agent_no, record.seq
        )


def _head_of(stored: StoredAgent) -> ingest.Head:
    """The head that the agent's last record leaves, as when it was taken. Raises StoreError."""
    head = ingest.Head(lost=stored.lost, boots=stored.boots)
    if stored.last_record is not None:
        try:
            record = parse_record(stored.last_record)
            view = BatchView(record.payload)
            digest = record_hash(record.raw)
            came_ns = stored.last_received_unix_ns or 0
            ingest.move(head, record, digest, view, received_unix_ns=came_ns, stopped=view.stopped)
            head.usual_window_ns = stored.usual_window_ns or 0  # which earlier records say, too
        except ContractError as e:
            raise StoreError(
                f"agent {stored.agent_id.hex()}: expected its last record in the store, got {e}",
                "see what is wrong with `flopmeter collector fsck`; restore a backup",
            ) from e
    return head


def hello_verified(nonce: bytes, body: bytes, signature: bytes, public_key: bytes) -> bool:
    """Whether a Hello's signature covers this stream's nonce and its body."""
    if len(public_key) != 32 or len(signature) != SIGNATURE_BYTES:
        return False
    return verified(HELLO_DOMAIN + nonce + body, signature, public_key)
