"""A simulated lab over a year: two agents of one GPU each, people, and a collector that may be killed at every commit.

One window of six hours on one GPU is 10^18 FLOP, written u: 3.90625 x 10^15 SM-cycles of the FP64 tensor pipe at 256
FLOP each, in evidence class A1, whose counters may be 3 % off either way. So a day of both GPUs is 8 u, and a total of
p u has the bounds 0.97 p and 1.03 p. The laws are the shipped ones with their lines moved to what such a lab can
reach: 10^23 to 60 u, 10^25 to 600 u, 10^26 to 1,000 u.

Agents ship at midnight what they metered the day before; the collector commits at ten past. People speak at noon.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import cache
from importlib import resources
from pathlib import Path
from types import SimpleNamespace

from builders import SM_COUNT, Chain, batch
from desk import Desk
from faulty_sqlite import COMMIT, Crash, Faults

from flopmeter.collector.duty.answers import DEADLINE, State
from flopmeter.collector.duty.saying import Person, answer, open_incident
from flopmeter.collector.ingest.decide import Refused
from flopmeter.collector.law.laws import read_laws
from flopmeter.collector.law.regimes import Regime
from flopmeter.collector.registry.entries import Declare, External, Link, Purpose, Relation, Statement, Tag
from flopmeter.collector.registry.say import say
from flopmeter.contract.evidence_class import EvidenceClass
from flopmeter.contract.flop import Figure
from flopmeter.contract.record import record_hash
from flopmeter.contract.usage import ALL_MEASURED, IDLE, Usage, Workload, WorkloadKind

U = 10**18
CYCLES = U // 256
HOUR_NS = 3_600 * 10**9
FIRST, LAST = date(2026, 7, 1), date(2027, 7, 1)  # first and last commit
LINES = {"eu-gpai": 60, "eu-systemic-risk": 600} | dict.fromkeys(
    ("korea", "us-ca-sb53", "us-ct-sb5", "us-ny-raise", "us-il-aisma"), 1_000
)
OUTAGE = (
    date(2026, 10, 5),
    date(2026, 10, 10),
)  # of the second agent: silent from the first, back before the second


@dataclass(frozen=True, slots=True)
class Stretch:
    """Both GPUs work for one run, from the first day up to (not on) the second."""

    run: str
    job: str
    since: date
    until: date


#: What the GPUs did; on all other days they idled.
COURSE = (
    Stretch("base", "100", date(2026, 7, 5), date(2026, 8, 4)),  # 30 days, then a stall
    Stretch("base", "101", date(2026, 8, 14), date(2026, 11, 12)),  # 90 days, after a restart as another job
    Stretch("synth", "102", date(2026, 11, 13), date(2026, 11, 15)),
    Stretch("chat", "103", date(2026, 11, 20), date(2026, 11, 28)),
    Stretch("tuned", "104", date(2026, 12, 5), date(2026, 12, 7)),
    Stretch("second", "105", date(2027, 1, 11), date(2027, 3, 1)),
)


def ns(day: date, hour: int = 0, minute: int = 0) -> int:
    at = datetime(day.year, day.month, day.day, hour, minute, tzinfo=UTC)
    return round(at.timestamp()) * 10**9


def days(since: date, until: date) -> Iterator[date]:
    while since < until:
        yield since
        since += timedelta(days=1)


def write_laws(folder: Path, eu_line: int = LINES["eu-systemic-risk"]) -> Path:
    """Site law files that stand in the place of shipped ones: the same texts with other numbers."""
    folder.mkdir()
    for name, line in {**LINES, "eu-systemic-risk": eu_line}.items():
        text = resources.files("flopmeter.collector").joinpath(f"regimes/{name}.toml").read_text()
        head, _, rest = text.partition("threshold_flop = ")
        moved = f'{head}replaces = "{name}"\nthreshold_flop = "{line * U}"\n{rest.partition(chr(10))[2]}'
        (folder / f"{name}.toml").write_text(moved)
    return folder


@cache
def _binding(folder: Path) -> tuple[Regime, ...]:
    return read_laws(folder).binding


# ---- agents ----------------------------------------------------------------------------------------------


class _Node:
    """One agent's chain of records over the year."""

    def __init__(self, name: str) -> None:
        self.chain = Chain(name, gpus=1)
        self.chain.unix_ns = ns(FIRST)

    def window(self, hours: int, workload: Workload, *, windows: int, bridged_hours: int = 0) -> bytes:
        """A record of `hours`: so many windows' work; with `bridged_hours`, of an interval that reaches back so far."""
        chain, length = self.chain, hours * HOUR_NS
        cycles = CYCLES * windows
        row = Usage(
            entity_index=0,
            workload_index=0,
            evidence_class=EvidenceClass.A1,
            measured=ALL_MEASURED,
            spread_ppm=0,
            duration_ns=length + bridged_hours * HOUR_NS,
            sm_elapsed_cycles=cycles or SM_COUNT * hours * 3_600 * 10**9,
            sm_active_cycles=cycles,
            dmma_cycles=cycles,
        )
        message = batch(
            chain.digest,
            [row],
            [workload],
            boot_ns=(chain.boot_ns, chain.boot_ns + length),
            unix_ns=(chain.unix_ns, chain.unix_ns + length),
        )
        raw = chain.seal(message.SerializeToString())
        chain.seq, chain.prev_hash = chain.seq + 1, record_hash(raw)
        chain.boot_ns, chain.unix_ns = chain.boot_ns + length, chain.unix_ns + length
        return raw

    def skip(self, hours: int) -> None:
        """Nobody meters; the counters run on."""
        self.chain.boot_ns += hours * HOUR_NS
        self.chain.unix_ns += hours * HOUR_NS

    def day(self, day: date, *, away: bool) -> list[bytes]:
        work = next((s for s in COURSE if s.since <= day < s.until), None)
        if work is None:
            return [self.window(24, IDLE, windows=0)]
        workload = Workload(WorkloadKind.SLURM, job=work.job, run=work.run)
        if away and day < OUTAGE[1] - timedelta(days=1):
            self.skip(24)
            return []
        if away:  # back in the evening of the last day: one interval, from the counters, over all of it
            self.skip(18)
            gone = 24 * (OUTAGE[1] - OUTAGE[0]).days - 6
            return [self.window(6, workload, windows=gone // 6 + 1, bridged_hours=gone)]
        return [self.window(6, workload, windows=1) for _ in range(4)]


@dataclass(frozen=True, slots=True)
class Agent:
    """What the collector sees of an agent: who it is, and what it ships at the end of each day."""

    chain: Chain
    shipped: dict[date, list[bytes]]


def agents() -> tuple[Agent, Agent]:
    """The same records each time."""
    found = []
    for name in ("a", "b"):
        node = _Node(name)
        away = OUTAGE if name == "b" else (LAST, LAST)
        shipped = {
            day + timedelta(days=1): node.day(day, away=away[0] <= day < away[1]) for day in days(FIRST, LAST)
        }
        found.append(Agent(node.chain, shipped))
    return found[0], found[1]


# ---- the lab ---------------------------------------------------------------------------------------------


@dataclass
class Lab:
    """A collector on the store at `path`; with `killed`, at every commit twice, and started again at once.

    The first time its transaction is lost, the second time it is durable and nobody was told.
    """

    path: Path
    laws: Path
    killed: bool = False
    kills: int = 0
    now: int = ns(FIRST, 0, 10)
    faults: Faults = field(default_factory=Faults)

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        self.desk = Desk(self.path, self.regimes(), connect=self.faults.connect)
        self._sessions: dict[str, object] = {}

    def regimes(self) -> tuple[Regime, ...]:
        return _binding(self.laws)

    def stop(self) -> None:
        self.desk.close()

    def change_laws(self, laws: Path) -> None:
        """Stopped, and started with other files."""
        self.stop()
        self.laws = laws
        self.start()

    def step(self, day: date, of: Sequence[Agent]) -> None:
        """What agents have shipped by then, in one commit at ten past midnight; and a look at who is silent."""
        self.now = ns(day, 0, 10)
        for before in (True, False) if self.killed else ():
            self.faults.plan(COMMIT, before=before, error=Crash())
            with contextlib.suppress(Crash):
                self._take(day, of)
                raise AssertionError("it was to die in its commit")
            self.kills += 1
            self.stop()
            self.start()
        self._take(day, of)
        self.now = self.desk.now = ns(
            day, 0, 20
        )  # a collector that has just started gives agents five minutes
        if self.desk.intake.review(self.now):
            self.desk.commit()

    def _take(self, day: date, of: Sequence[Agent]) -> None:
        self.desk.now = self.now
        for agent in of:
            self._ship(agent, day)
        self.desk.intake.review(self.now)
        self.desk.commit()

    def _ship(self, agent: Agent, day: date) -> None:
        """All of the day that is not acknowledged; as a stream that begins anew sends it again after a restart."""
        sent = agent.shipped.get(day, [])
        if not sent:
            return
        name = agent.chain.node
        if name not in self._sessions:
            chain = agent.chain
            who = SimpleNamespace(
                public_key=chain.public_key, node=name, seq=len(sent), inventory=chain.inventory
            )
            self._sessions[name] = self.desk.agent(who)  # type: ignore[arg-type]
        for raw in sent:
            outcome = self.desk.offer(self._sessions[name], raw)  # type: ignore[arg-type]
            assert not isinstance(outcome, Refused), outcome

    # ---- people ----

    def say(self, *statements: Statement) -> None:
        for statement in statements:
            say(self.path, lambda _, s=statement: s, "ann", "the lab's word", lambda: self.now)  # type: ignore[misc]

    def answer(self, regime: str, rule: str, state: State, outcome: str = "") -> None:
        """Of the last deadline of that rule."""
        ((id_,),) = self.desk.rows(
            "SELECT id FROM deadlines WHERE regime = ? AND rule = ? ORDER BY due_unix_ns DESC LIMIT 1",
            regime,
            rule,
        )
        answer(self.path, DEADLINE, id_, state, Person("ann", "seen to", self.now), outcome=outcome)

    def incident(self, regime: str, rule: str, at: int) -> None:
        found = next(r for r in self.regimes() if r.id == regime)
        open_incident(self.path, found, rule, Person("ann", "it happened", self.now), trigger_unix_ns=at)


def plan(lab: Lab) -> None:
    """900 u until 12 November."""
    lab.say(Declare("base", "nlp", 900 * U, "2 x H100", ns(date(2026, 11, 12))))


def data_made(lab: Lab) -> None:
    lab.say(Tag("synth", Purpose.SYNTHETIC_DATA, evidence=("https://wiki.lab/synth",)))


def fine_tune(lab: Lab) -> None:
    lab.say(
        Declare("chat", "nlp"),
        Link("chat", Relation.FINE_TUNES, "base"),
        Link("chat", Relation.SYNTHETIC_DATA_FROM, "synth"),
    )


def anothers_model(lab: Lab) -> None:
    """27 u, trained elsewhere: exact, since a figure that somebody publishes has no bounds of its own."""
    lab.say(
        External("llama", Figure(27 * U, 27 * U, 27 * U), "model card"),
        Declare("tuned", "nlp"),
        Link("tuned", Relation.FINE_TUNES, "llama"),
    )


def incidents(lab: Lab) -> None:
    for rule in ("incident", "imminent-incident"):
        lab.incident("us-ny-raise", rule, ns(date(2027, 4, 10), 11))


def reported(lab: Lab) -> None:
    for rule in ("incident", "imminent-incident"):
        lab.answer("us-ny-raise", rule, State.RESOLVED, "done")


def acknowledges(regime: str, rule: str) -> Callable[[Lab], None]:
    return lambda lab: lab.answer(regime, rule, State.ACKNOWLEDGED)


def resolves(regime: str, rule: str, outcome: str = "done") -> Callable[[Lab], None]:
    return lambda lab: lab.answer(regime, rule, State.RESOLVED, outcome)


#: What people said and did, at noon (UTC) of the day.
WORDS: dict[date, Callable[[Lab], None]] = {
    date(2026, 7, 1): plan,
    date(2026, 7, 5): acknowledges("eu-systemic-risk", "notify"),
    date(2026, 7, 14): resolves("eu-systemic-risk", "notify"),
    date(2026, 11, 15): data_made,
    date(2026, 11, 19): fine_tune,
    date(2026, 12, 1): resolves("eu-systemic-risk", "notify"),
    date(2026, 12, 4): anothers_model,
    date(2026, 12, 15): acknowledges("eu-modifier", "notify"),
    date(2026, 12, 22): resolves("eu-modifier", "notify"),
    date(2026, 12, 28): resolves("us-ca-sb53", "risk-summary"),
    date(2027, 3, 10): acknowledges("eu-systemic-risk", "notify"),
    date(2027, 3, 20): resolves("eu-systemic-risk", "notify"),
    date(2027, 3, 26): resolves("us-il-aisma", "first-audit", "not-applicable"),
    date(2027, 3, 27): resolves("us-ca-sb53", "risk-summary"),
    date(2027, 4, 10): incidents,
    date(2027, 4, 12): reported,
}
#: On this day the EU's line falls from 600 u to 350 u, in its file alone.
NEW_LAW, NEW_EU_LINE = date(2027, 3, 1), 350


def play(folder: Path, of: Sequence[Agent], *, killed: bool = False) -> Lab:
    """The year, from the first commit to the last; the collector is stopped at its end."""
    lab = Lab(folder / "books.sqlite", write_laws(folder / "laws"), killed)
    changed = write_laws(folder / "changed", NEW_EU_LINE)
    for day in days(FIRST, LAST + timedelta(days=1)):
        lab.step(day, of)
        lab.now = ns(day, 12)
        if day == NEW_LAW:
            lab.change_laws(changed)
        if day in WORDS:
            WORDS[day](lab)
    lab.stop()
    return lab
