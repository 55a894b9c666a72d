"""A simulated cluster on the real path: meters, spools, uplinks, one collector; all in this process.

The script's hours are fed in lock-step, some at a time, and the collector's clock is the script's: so what
the history caused, an event for example, is dated when it happened there and not when it was played.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Self

from flopmeter.agent.errors import AgentError
from flopmeter.agent.metering.meter import MeterSettings
from flopmeter.agent.pipeline import Pipeline, PipelineSettings, meter_factory
from flopmeter.agent.reading import Happening, NodeFacts, Reading
from flopmeter.agent.shipping.status import Timing
from flopmeter.agent.workloads.attribution import Attribution
from flopmeter.collector.running import RunningCollector, run_collector
from flopmeter.collector.settings import CollectorSettings
from flopmeter.collector.store_path import STORE_NAME
from flopmeter.contract.usage import NoticeKind

from .node import BEFORE_EDGE_NS, SimNode
from .people import People
from .scenario import HOUR_NS, Scenario
from .voice import Voice
from .witness import DemoWitness

HISTORY = MeterSettings(window_ns=HOUR_NS, tick_ns=HOUR_NS)
LIVE = MeterSettings(window_ns=5_000_000_000, tick_ns=1_000_000_000)
#: How much history goes by between two looks at the acknowledgements, and so how exactly events are dated.
CHUNK_HOURS = 8
#: Hours go by in a second: every ack is answered by the node's clock, so that its offset is of late.
_TIMING = Timing(clock_s=0.0)
_LINGER_MS = 5  # the agents come in lock-step: there is nothing to wait for
_ACK_DEADLINE_S = 60.0
_REVIEW_NS = 15_000_000_000  # live, between two looks of the collector for silent agents


class Agent:
    """One node's agent: as `flopmeter agent run` would be, but told the time."""

    def __init__(self, sim: SimNode, state: Path, collector: str, unix_ns: Callable[[], int]) -> None:
        self.sim = sim
        self._settings = PipelineSettings(state=state, collector=collector, timing=_TIMING, unix_ns=unix_ns)
        self._voice = Voice(sim)
        self._pipeline: Pipeline | None = None

    @property
    def running(self) -> bool:
        return self._pipeline is not None

    def start(self, ns: int, settings: MeterSettings) -> None:
        ours = version("flopmeter")
        self._voice = Voice(self.sim)
        heard = Attribution(self._voice, claims=self._voice.claims)
        make_meter = meter_factory(settings, agent_version=ours, attribution=heard)
        rng = Random(self.sim.node.name)
        facts = self.sim.facts(ns)
        self._pipeline = Pipeline.open(facts, make_meter, self._settings, agent_version=ours, rng=rng)
        self._pipeline.note(NoticeKind.AGENT_STARTED, f"simulated node {facts.node}")

    def play(self, hours: range) -> int:
        """Feed those hours as a recording; how many readings that were. All of it is durable on return."""
        return self._play([hour * HOUR_NS for hour in hours], BEFORE_EDGE_NS)

    def play_instant(self, ns: int) -> int:
        """The same of one instant that ends what is open."""
        return self._play([ns], 0)

    def _play(self, times: Sequence[int], then_ns: int) -> int:
        assert self._pipeline is not None
        return self._pipeline.play(_Recorded(self, times, then_ns)).items

    def tick(self, ns: int) -> int:
        """Read every GPU at `ns`; how many readings that were."""
        assert self._pipeline is not None
        self._voice.speak(ns)
        count = 0
        for reading in self.sim.readings(ns):
            self._pipeline.observe(reading)
            count += 1
        return count

    def advance(self, ns: int, by_ns: int) -> None:
        """Let time pass by so much after a reading at `ns`."""
        assert self._pipeline is not None
        self._pipeline.advance(self.sim.boot_ns(ns) + by_ns, self.sim.unix_ns(ns) + by_ns)

    def speak(self, ns: int) -> None:
        self._voice.speak(ns)

    def wait_acked(self) -> None:
        if self._pipeline is not None and not self._pipeline.wait_acked(_ACK_DEADLINE_S):
            status = self._pipeline.status
            raise AgentError(
                f"{self.sim.node.name}: the collector did not acknowledge within {_ACK_DEADLINE_S:.0f} s "
                f"({status.last_error if status else 'no uplink'})",
                "is the disk full, or the machine very busy?",
            )

    def stop(self) -> None:
        """End as a restart would: what was sealed is shipped, nothing else is said."""
        if self._pipeline is not None:
            self._pipeline.close()
            self._pipeline = None


class _Recorded:
    """A Recording of a simulated node: its readings at some instants, and some time behind each."""

    def __init__(self, agent: Agent, times: Sequence[int], then_ns: int) -> None:
        self._agent = agent
        self._times = times
        self._then_ns = then_ns

    def facts(self) -> NodeFacts:
        return self._agent.sim.facts(self._times[0])

    def items(self) -> Iterator[Reading | Happening]:
        for ns in self._times:
            self._agent.speak(ns)
            yield from self._agent.sim.readings(ns)
            if self._then_ns:  # the window is closed where windows end, with what was said within it
                self._agent.advance(ns, self._then_ns)

    def close(self) -> None: ...


class Cluster:
    """`with Cluster(...) as cluster: cluster.history(...)`, then `cluster.live(...)` again and again.

    `end_unix_ns` is when the history ends: the present, so that laws in force now are in force there. Its hours are
    those of UTC, because the books keep usage by these, and the last full one ends within the hour before the present.
    """

    def __init__(self, scenario: Scenario, directory: Path, end_unix_ns: int, http: str = "") -> None:
        """`http`: where the collector serves its page; "": nowhere."""
        self.scenario = scenario
        self._http = http
        first_hour = end_unix_ns // HOUR_NS - scenario.hours
        self.start_unix_ns = first_hour * HOUR_NS - BEFORE_EDGE_NS
        self.end_unix_ns = end_unix_ns
        self.now_unix_ns = first_hour * HOUR_NS  # the collector's clock, too
        #: Until when all agents' records are in the books, while the history is played: they come one agent after the other.
        self.settled_unix_ns = self.now_unix_ns
        self.readings = 0
        self._reviewed_ns = end_unix_ns
        self._directory = directory
        self._collector: RunningCollector | None = None
        self._witness: DemoWitness | None = None
        self._agents: list[Agent] = []
        self._people = People(scenario, self.store, first_hour)

    @property
    def beyond_ns(self) -> int:
        """How much of the work behind the last reading of a full hour is in the books at the end of the history."""
        behind_ns = self.end_unix_ns % HOUR_NS
        return behind_ns and behind_ns + BEFORE_EDGE_NS

    @property
    def store(self) -> Path:
        return self._directory / STORE_NAME

    @property
    def http_address(self) -> str:
        """Where the page is served; "": nowhere."""
        return self._collector.http_address if self._collector is not None else ""

    def __enter__(self) -> Self:
        self._witness = witness = DemoWitness(self.store)
        settings = CollectorSettings(
            store=self.store,
            listen="127.0.0.1:0",
            http=self._http,
            admit_new=True,
            linger_ms=_LINGER_MS,
            log_origin=witness.log_origin,
            witness_policy=witness.policy,
        )
        try:
            self._collector = run_collector(
                settings,
                lambda: self.now_unix_ns,
                review_s=None,
                books_unix_ns=lambda: self.settled_unix_ns or self.now_unix_ns,
            )
        except BaseException:
            witness.stop()
            raise
        for node in self.scenario.nodes:
            sim = SimNode(self.scenario, node, self.start_unix_ns)
            state = self._directory / "agents" / node.name
            state.mkdir(parents=True, exist_ok=True)
            self._agents.append(Agent(sim, state, self._collector.address, lambda: self.now_unix_ns))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for agent in self._agents:
            with suppress(AgentError):  # nothing of a simulated agent is wanted after its books are closed
                agent.stop()
        if self._collector is not None:
            self._collector.stop()
        if self._witness is not None:  # behind the collector, whose last head it is still asked for
            self._witness.stop()

    def history(self, progress: Callable[[int], None], chunk_hours: int = CHUNK_HOURS) -> None:
        """Play the whole history; `progress(readings so far)` after each chunk, when all is in the books."""
        hour = 0
        while hour <= self.scenario.hours:
            chunk = range(hour, min(hour + chunk_hours, self.scenario.hours + 1))
            self.now_unix_ns = self._edge(chunk[-1])
            for agent in self._agents:
                self._play(agent, chunk)
            self._look(chunk[-1])
            progress(self.readings)
            hour = chunk[-1] + 1
        self._present()
        self.settled_unix_ns = 0  # from here on it is the present
        progress(self.readings)

    def _edge(self, hour: int) -> int:
        """The full hour of UTC right behind the readings of that hour."""
        return self.start_unix_ns + hour * HOUR_NS + BEFORE_EDGE_NS

    def _look(self, hour: int) -> None:
        """All is in the books: people say and answer what they have to, and the collector looks at it."""
        assert self._collector is not None
        self.settle()
        self.settled_unix_ns = self.now_unix_ns
        self._people.speak(hour, self.now_unix_ns)
        self._collector.review()

    def _play(self, agent: Agent, chunk: range) -> None:
        node = agent.sim.node
        begin = chunk[0]
        for hour in chunk:
            if not node.reads(hour):
                continue
            if node.starts(hour):
                agent.stop()
                agent.start(hour * HOUR_NS, HISTORY)
                begin = hour
            silent = hour < self.scenario.hours and not node.reads(hour + 1)
            if silent or hour == chunk[-1] or node.starts(hour + 1):
                self.readings += agent.play(range(begin, hour + 1))
                begin = hour + 1
            if silent:
                agent.wait_acked()
                agent.stop()

    def _present(self) -> None:
        """From the last full hour to now: what was done since stands under this hour, in records of its own."""
        if not self.beyond_ns:
            return
        self.now_unix_ns = self.end_unix_ns
        for unix_ns in (self._edge(self.scenario.hours), self.end_unix_ns):
            for agent in self._agents:
                if agent.running:
                    self.readings += agent.play_instant(unix_ns - self.start_unix_ns)
        self._look(self.scenario.hours)

    def go_live(self) -> None:
        """From here on a reading every second: the agents restart with the live settings."""
        for agent in self._agents:
            if agent.running:
                agent.stop()
                agent.start(self.end_unix_ns - self.start_unix_ns, LIVE)
        if self._collector is not None:
            self._collector.seal()  # the history was played in seconds: its last head is of some day within it

    def settle(self) -> None:
        """Wait until the collector has all that was sealed."""
        for agent in self._agents:
            agent.wait_acked()

    def live(self, unix_ns: int) -> None:
        """One tick of every agent that lives."""
        self.now_unix_ns = max(self.now_unix_ns, unix_ns)
        ns = unix_ns - self.start_unix_ns
        for agent in self._agents:
            if agent.running:
                self.readings += agent.tick(ns)
        if self.now_unix_ns - self._reviewed_ns >= _REVIEW_NS and self._collector is not None:
            self._reviewed_ns = self.now_unix_ns
            self._collector.review()
