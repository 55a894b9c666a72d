"""The pipeline: reading → meter → sealed window ─D1▶ spool → uplink. One function for live and replay.

What is fed in is metered; what the meter closes is sealed and made durable before anything else sees it.
When the spool has no room the meter goes back to its last durable state, so that the windows that found
no room become one bridge: exact from cycle counters, a gap without them, never nothing.
"""

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random, SystemRandom
from typing import Protocol

from flopmeter.contract.usage import GapReason, NoticeKind, Workload

from .access.credentials import Access
from .access.heads import Heads
from .errors import AgentError, SpoolFullError
from .keys import load_or_create_key, under_way
from .metering.meter import Meter, MeterSettings
from .metering.remark import Remark
from .reading import Happening, NodeFacts, Reading
from .shipping.chain import Chain, SealedWindow, Skip
from .shipping.seal import RecordTooLargeError
from .shipping.spool import DEFAULT_KEEP_ACKED_BYTES, DEFAULT_LIMIT_BYTES, Spool
from .shipping.status import Identity, Status, Timing
from .shipping.uplink import Uplink
from .sources.base import Recording
from .workloads.attribution import NO_ATTRIBUTION, Attribution, Attributor

log = logging.getLogger(__name__)

#: Windows of a recording that share one write and one fsync.
GROUP_WINDOWS = 64
#: While a recording waits for room it looks again this often; acks wake it sooner.
_ROOM_RETRY_S = 1.0
#: Notices that wait for room; beyond it they are not kept, as a window tells each kind once.
_MOST_SAID = 128
#: Holders of an entity that are remembered while detail is given up: a third says that it was not one alone.
_MOST_HOLDERS = 3
#: A recording that found no room for this long is given up; what is durable stays.
ROOM_TIMEOUT_S = 600.0


class PipelineMeter(Protocol):
    """What the pipeline needs of meter.Meter."""

    def observe(self, item: Reading | Happening) -> Sequence[SealedWindow]: ...
    def advance(self, t_boot_ns: int, t_unix_ns: int) -> Sequence[SealedWindow]: ...
    def flush(self, *, final: bool = False) -> SealedWindow | None: ...
    def refacts(self, facts: NodeFacts) -> Sequence[SealedWindow]: ...
    def skip_to(self, boot_id: bytes, t_boot_ns: int, now_ns: int, *, reanchored: bool = False) -> bool: ...
    def note(self, kind: NoticeKind, detail: str, *, name: str = "") -> None: ...
    def forget_told(self, names: Sequence[str]) -> None: ...
    def holders(self) -> Mapping[str, Collection[Workload]]: ...
    def bridge(self, because: GapReason, holders: Mapping[str, Collection[Workload]]) -> None: ...


#: Makes a meter that goes on from a journal (None = from nothing).
MeterFactory = Callable[[NodeFacts, bytes | None], PipelineMeter]


def meter_factory(
    settings: MeterSettings,
    *,
    agent_version: str,
    attribution: Attribution = NO_ATTRIBUTION,
    replay: bool | None = None,
) -> MeterFactory:
    """The real meter. `attribution` is asked who held a device, where the source does not say.

    `replay`: pass True for a recording, whose items come again from the beginning after a restart, whatever
    source it was recorded from.
    """
    attributor = Attributor(*attribution)  # what was learned of workloads outlives a meter

    def make(facts: NodeFacts, journal: bytes | None) -> PipelineMeter:
        return Meter(
            facts,
            settings,
            agent_version=agent_version,
            journal=journal,
            attributor=attributor,
            replay=replay,
        )

    return make


@dataclass(frozen=True, slots=True)
class PipelineSettings:
    """Where the pipeline keeps its state and where it ships to."""

    state: Path
    collector: str = ""  # HOST:PORT; "" = keep everything in the spool
    spool_limit_bytes: int = DEFAULT_LIMIT_BYTES
    keep_acked_bytes: int = DEFAULT_KEEP_ACKED_BYTES
    timing: Timing = field(default_factory=Timing)
    #: How to speak to it, for a node of that name; `forget`: the token led to another authority. None: plain text.
    access: "Callable[[str, Callable[[], None]], Access] | None" = None
    unix_ns: Callable[[], int] = time.time_ns  # the node's wall clock, of which the collector is told


@dataclass(slots=True)
class Counts:
    """What the pipeline did since its start, for metrics and summaries."""

    readings: int = 0
    failed_readings: int = 0
    happenings: int = 0
    windows: int = 0  # sealed and durable
    given_up: int = 0  # times that detail was given up for want of room


@dataclass(frozen=True, slots=True)
class Summary:
    """What a recording came to."""

    items: int
    windows: int
    first_seq: int
    last_seq: int
    acked_seq: int


class Pipeline:
    """Feed it from one thread. `open` makes one; `stop` or `close` ends it."""

    def __init__(
        self,
        facts: NodeFacts,
        make_meter: MeterFactory,
        chain: Chain,
        uplink: Uplink | None,
    ) -> None:
        self.chain = chain
        self.uplink = uplink
        self.counts = Counts()
        self.facts = facts
        #: Told of windows once they are durable, each once; it raises nothing.
        self.on_durable: Callable[[Sequence[SealedWindow]], None] = lambda _: None
        self._make_meter = make_meter
        self._meter = make_meter(facts, chain.journal)
        self._group: list[SealedWindow] = []
        self._said: list[Remark] = []  # notices that are not durable yet
        self._skip: tuple[Skip, int] | None = None  # the books hold usage up to there; not durable yet
        self._held: dict[str, set[Workload]] = {}  # who held each entity since detail is given up
        self._group_limit = self._part = 1
        self._room_until_s = 0.0  # 0 = not waiting for room
        self._wait_for_room = False
        self._say_again = False
        if uplink is not None:
            uplink.start()

    @classmethod
    def open(
        cls,
        facts: NodeFacts,
        make_meter: MeterFactory,
        settings: PipelineSettings,
        *,
        agent_version: str,
        rng: Random | None = None,
    ) -> "Pipeline":
        """Take the state directory (one agent at a time), go on where it ends, connect if asked to."""
        key = load_or_create_key(settings.state)
        spool = Spool.open(
            settings.state / "spool",
            limit_bytes=settings.spool_limit_bytes,
            keep_acked_bytes=settings.keep_acked_bytes,
        )
        try:
            if under_way(settings.state):
                raise AgentError(
                    f"state {settings.state}: a change of its record key is not done",
                    "flopmeter agent rekey goes on with it, and so does flopmeter agent run",
                )
            key = load_or_create_key(
                settings.state
            )  # another one, if it was changed before the lock was ours
            if spool.newest_seq and spool.entry(spool.newest_seq).record[:16] != key.agent_id:
                raise AgentError(
                    f"state {settings.state}: its spool was written with another record key",
                    "restore the key that belongs to it, or move the spool away",
                )
            chain = Chain(spool, key)
            uplink = None
            if settings.collector:
                identity = Identity(facts.node, agent_version, facts.boot_id)
                heads = Heads(settings.state, tell=chain.tell_contradiction)
                uplink = Uplink(
                    settings.collector,
                    chain,
                    identity,
                    rng=rng or SystemRandom(),
                    timing=settings.timing,
                    heads=heads,
                    access=settings.access(facts.node, heads.forget) if settings.access else None,
                    unix_ns=settings.unix_ns,
                )
            return cls(facts, make_meter, chain, uplink)
        except BaseException:
            spool.close()
            raise

    # Feeding.

    def observe(self, item: Reading | Happening) -> None:
        """Meter one item; windows that it closes are durable on return."""
        self._before(item.t_boot_ns)
        if isinstance(item, Reading):
            self.counts.readings += 1
            self.counts.failed_readings += item.error is not None
        else:
            self.counts.happenings += 1
        self._take(self._meter.observe(item))

    def advance(self, t_boot_ns: int, t_unix_ns: int) -> None:
        """Tell the time, so that windows close although nothing was read."""
        self._before(t_boot_ns)
        self._take(self._meter.advance(t_boot_ns, t_unix_ns))

    def note(self, kind: NoticeKind, detail: str, name: str = "") -> None:
        """Write a notice into the window that is open."""
        if len(self._said) < _MOST_SAID:
            self._said.append(Remark(kind, detail, name))
        self._meter.note(kind, detail, name=name)

    def refacts(self, facts: NodeFacts) -> None:
        """The node's devices have changed."""
        self.facts = facts
        self._take(self._meter.refacts(facts))

    def stop(self, deadline_s: float) -> bool:
        """Seal what is open, give the collector `deadline_s` to take it, close. True: all was acknowledged."""
        try:
            last = self._meter.flush()
            if last is not None:
                self._take([last])
            self._flush_group()
            if self.uplink is None:
                return False
            done = self._wait_acked(self.uplink, deadline_s)
            if not done:
                log.warning("stopping with %d records not acknowledged; they stay", self.chain.spool.pending)
            return done
        finally:
            self.close()

    def close(self) -> None:
        """Let go of everything at once, as a crash would, but tidily."""
        if self.uplink is not None:
            self.uplink.stop()
        self.chain.spool.close()

    @property
    def status(self) -> Status | None:
        return self.uplink.status if self.uplink is not None else None

    # Inside.

    def _before(self, t_boot_ns: int) -> None:
        if self.uplink is not None and self.uplink.status.fatal is not None:
            raise self.uplink.status.fatal
        remarks, skip = self.chain.take_remarks()
        if skip is not None:
            self._skip = (skip, t_boot_ns)
            if not self._skip_to(*self._skip):
                log.error("collector: says it has usage up to %d ns, now is %d ns", skip.t_boot_ns, t_boot_ns)
        for remark in remarks:
            self.note(remark.kind, remark.detail, remark.name)

    def _skip_to(self, skip: Skip, now_ns: int) -> bool:
        return self._meter.skip_to(skip.boot_id, skip.t_boot_ns, now_ns, reanchored=skip.reanchored)

    def _take(self, sealed: Sequence[SealedWindow]) -> None:
        # After detail was given up, what was said stands in the open window, not in those just sealed. And only
        # now does the new meter know the time: earlier it would stand in a window that is over.
        owed, self._say_again = (self._said[:] if self._say_again else []), False
        if sealed:
            self._group.extend(sealed)
            if len(self._group) >= self._group_limit:
                self._flush_group()
        if owed:
            self._said[:0] = [remark for remark in owed if remark not in self._said]
            if not self._say_again:
                for remark in self._said:
                    self._meter.note(remark.kind, remark.detail, name=remark.name)

    def _flush_group(self) -> None:
        group, self._group = self._group, []
        while group:
            part = group[: self._part]
            try:
                self.chain.append(part)  # D1: durable from here, and only now may the uplink send them
            except SpoolFullError as e:
                if not self._wait_for_room:
                    self._give_up_detail(e, group)
                    return
                if len(part) > 1:
                    self._part = len(part) // 2  # a whole group may never fit
                else:
                    self._await_room(e)
                continue
            except RecordTooLargeError as e:
                if self._wait_for_room:
                    raise  # a recording cannot go back
                self._give_up_detail(e, group)
                return
            self._durable(part)
            del group[: len(part)]
            self._room_until_s = 0.0

    def _durable(self, windows: Sequence[SealedWindow]) -> None:
        """These are sealed and safe: nothing of what led to them need be held any longer."""
        self.counts.windows += len(windows)
        self._said.clear()
        self._held.clear()
        self._skip = None
        if told := windows[-1].told:
            self._meter.forget_told(self.chain.told(told))
        self.on_durable(windows)

    def _give_up_detail(self, why: AgentError, windows: Sequence[SealedWindow]) -> None:
        """Back to the last durable state: the next window that finds room bridges the time from there."""
        if not self._held:
            log.error("%s (%s); detail is given up until there is room", why, why.hint)
        self.counts.given_up += 1
        for window in windows:
            for u in window.batch.usage:
                entity = window.inventory.devices[u.entity_index].entity
                self._hold(entity, (window.batch.workloads[u.workload_index],))
        for entity, holders in self._meter.holders().items():
            self._hold(entity, holders)
        self._meter = self._make_meter(self.facts, self.chain.journal)
        self._meter.bridge(GapReason.SPOOL_FULL, self._held)
        if self._skip is not None:
            self._skip_to(*self._skip)
        if not any(remark.kind is NoticeKind.SPOOL_FULL for remark in self._said):
            self._said.append(Remark(NoticeKind.SPOOL_FULL, str(why)))
        self._say_again = True

    def _hold(self, entity: str, workloads: Collection[Workload]) -> None:
        held = self._held.setdefault(entity, set())
        for workload in workloads:
            if len(held) < _MOST_HOLDERS:
                held.add(workload)

    def _wait_acked(self, uplink: Uplink, timeout_s: float) -> bool:
        # Not by number: a refusal or a re-anchoring renumbers what is pending.
        return uplink.wait_for(lambda: self.chain.spool.pending == 0, timeout_s)

    def _await_room(self, why: SpoolFullError) -> None:
        """A recording can wait: until acks make room, or somebody does on the disk."""
        if self.uplink is None:
            raise why
        now_s = time.monotonic()
        if not self._room_until_s:
            log.info("waiting for room: %s", why)
            self._room_until_s = now_s + ROOM_TIMEOUT_S
        elif now_s > self._room_until_s:
            raise why
        acked = self.chain.spool.acked_seq
        self.uplink.wait_for(lambda: self.chain.spool.acked_seq > acked, _ROOM_RETRY_S)
        if self.uplink.status.fatal is not None:
            raise self.uplink.status.fatal

    # Recordings.

    def play(
        self,
        recording: Recording,
        *,
        progress: Callable[[int, int, int], None] | None = None,
        group_windows: int = GROUP_WINDOWS,
        stopping: Callable[[], bool] = lambda: False,
    ) -> Summary:
        """Feed a whole recording as fast as it goes. Call `stop` or `wait_acked` behind it.

        `progress(items done, CLOCK_BOOTTIME reached, acknowledged number)` after each group. Waits for room
        where the spool is full. Played again over the same state, it goes on where that ends; so where
        `stopping()` becomes true, what is open is left unsealed.
        """
        self._group_limit = self._part = group_windows
        self._wait_for_room = True
        first_seq = self.chain.spool.tip.next_seq
        done, windows = 0, self.counts.windows
        for item in recording.items():
            if stopping():
                break
            self.observe(item)
            done += 1
            if progress is not None and self.counts.windows != windows:
                windows = self.counts.windows
                progress(done, item.t_boot_ns, self.chain.spool.acked_seq)
        else:
            last = self._meter.flush(final=True)
            if last is not None:
                self._take([last])
        self._flush_group()
        spool = self.chain.spool
        return Summary(done, self.counts.windows, first_seq, spool.newest_seq, spool.acked_seq)

    def wait_acked(self, timeout_s: float) -> bool:
        """Wait until all that was sealed is acknowledged; raises what made the uplink give up."""
        if self.uplink is None:
            return False
        done = self._wait_acked(self.uplink, timeout_s)
        if not done and self.uplink.status.fatal is not None:
            raise self.uplink.status.fatal
        return done
