"""What people of the demo's lab say of their runs, and answer to events: when, and by the product's own ways.

Each word is what `flopmeter runs declare | tag | link | external`, `events ack | resolve` and `deadlines ack` say, with
the demo's clock for theirs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from flopmeter.collector.duty.answers import DEADLINE, EVENT, State
from flopmeter.collector.duty.reading import duties
from flopmeter.collector.duty.saying import Person, answer
from flopmeter.collector.law.events import AGENT_SILENT, USAGE_UNATTRIBUTED
from flopmeter.collector.registry.checks import Known
from flopmeter.collector.registry.entries import Declare, External, Link, Purpose, Relation, Statement, Tag
from flopmeter.collector.registry.known import find_job
from flopmeter.collector.registry.say import say
from flopmeter.collector.report.queries import Reader, reading
from flopmeter.contract.flop import Figure

from . import story
from .scenario import FLOP_PER_HMMA_CYCLE, HOUR_NS, Scenario

#: The plan is for so much more than what the history comes to, and so much longer.
_PLAN_PERCENT = 112
DAY_NS = 24 * HOUR_NS
_NEXT_BUDGET_FLOP = 16 * 10**24
#: 1.1e9 parameters, 1.2e12 tokens, 6 each.
_BASE_FLOP = 79 * 10**20


@dataclass(frozen=True, slots=True)
class Word:
    """An entry of the run registry: said at an hour of the history."""

    hour: int
    who: str
    why: str
    make: Callable[[Known], Statement]


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer to all events of a type that speak of a node, or to all deadlines of a run."""

    hour: int
    who: str
    why: str
    about: str  # EVENT or DEADLINE
    of: str  # the node, or the run
    type: str = ""  # of events
    state: State = State.ACKNOWLEDGED

    def ids(self, reader: Reader) -> list[str]:
        """Of those that there are."""
        if self.about == DEADLINE:
            return [d.deadline.id for d in duties(reader) if d.deadline.subject == self.of]
        found = (e for e in reader.events() if e["type"] == self.type)
        return [e["id"] for e in found if e["data"].get("node", "").endswith(self.of)]


class People:
    """Says each word when its hour has come. `first_hour`: hours since 1970 at the history's beginning."""

    def __init__(self, script: Scenario, store: Path, first_hour: int) -> None:
        self._store = store
        self._words = sorted(words(script, first_hour), key=lambda w: w.hour)
        self._replies = replies(script)

    def speak(self, hour: int, unix_ns: int) -> None:
        """All that is to be said by then. A reply waits for what it answers, and is said once."""
        while self._words and self._words[0].hour <= hour:
            word = self._words.pop(0)
            say(self._store, word.make, word.who, word.why, lambda: unix_ns)
        self._replies = [r for r in self._replies if r.hour > hour or not self._reply(r, unix_ns)]

    def _reply(self, reply: Reply, unix_ns: int) -> bool:
        with reading(self._store) as reader:
            ids = reply.ids(reader)
        for each in ids:
            answer(self._store, reply.about, each, reply.state, Person(reply.who, reply.why, unix_ns))
        return bool(ids)


def words(script: Scenario, first_hour: int) -> list[Word]:
    """What is said of runs."""

    def at(share: float) -> int:
        return round(script.hours * share)

    def tag(job: str, purpose: Purpose, evidence: str) -> Callable[[Known], Statement]:
        return lambda books: Tag(story.PRETRAIN, purpose, job=find_job(job, books), evidence=(evidence,))

    lead, ops = "amara@login-1", "jonas@login-1"
    budget = _two_digits(script.hmma_cycles(story.PRETRAIN) * FLOP_PER_HMMA_CYCLE * _PLAN_PERCENT // 100)
    end_hour = first_hour + script.hours * _PLAN_PERCENT // 100
    crash = at(0.21)
    return [
        Word(0, lead, "plan of the spring run, approved by the compute board", lambda _: Declare(
            story.PRETRAIN, "foundation", budget, f"{script.gpus - 16} x H100 and H200", end_hour * HOUR_NS, "bf16",
            Purpose.PRETRAINING,
        )),
        Word(at(0.30), lead, "from the checkpoint of step 60000", lambda _: Link(
            story.FINETUNE, Relation.FINE_TUNES, story.PRETRAIN
        )),
        Word(at(0.30), lead, "assistant of the spring run", lambda _: Declare(
            story.FINETUNE, "assistants", purpose=Purpose.FINETUNING
        )),
        Word(crash + 2, ops, "thrown away: the job crashed, and went on from the checkpoint before", lambda _: Tag(
            story.PRETRAIN, Purpose.ROLLED_BACK, first_hour + crash - 3, first_hour + crash,
            evidence=("https://wiki.lab.example/incidents/311",),
        )),
        Word(at(0.43), ops, "held-out tasks, no updates", tag(
            story.EVALUATION_JOB, Purpose.EVALUATION, "https://wiki.lab.example/evals/7"
        )),
        Word(at(0.70), "ines@login-2", "the weights that scribe starts from", lambda _: External(
            story.BASE, Figure(_BASE_FLOP, _BASE_FLOP, _BASE_FLOP), "its model card"
        )),
        Word(at(0.70) + 1, "ines@login-2", "starts from its weights", lambda _: Link(
            story.MODIFIED, Relation.FINE_TUNES, story.BASE
        )),
        Word(at(0.72), "ines@login-2", "its answers are learned from", lambda _: Link(
            story.MODIFIED, Relation.DISTILS, story.FINETUNE
        )),
        Word(at(0.76), lead, "plan for the cluster that is being built", lambda _: Declare(
            story.NEXT, "foundation", _NEXT_BUDGET_FLOP, "4096 x B200", end_hour * HOUR_NS + 200 * DAY_NS, "fp8",
            Purpose.PRETRAINING,
        )),
        Word(at(story.TUNED) + 1, lead, "instruction data from here on", lambda _: Tag(
            story.PRETRAIN, Purpose.FINETUNING, first_hour + at(story.TUNED)
        )),
    ]  # fmt: skip


def replies(script: Scenario) -> list[Reply]:
    """What is answered to events and deadlines."""

    def at(share: float) -> int:
        return round(script.hours * share)

    ops = "jonas@login-1"
    dead = next(n.name for n in script.nodes if n.dies >= 0)
    odd = script.nodes[-1].name
    return [
        Reply(at(0.90), ops, "a notebook beside Slurm; its owner has a partition now", EVENT, odd, USAGE_UNATTRIBUTED,
              State.RESOLVED),
        Reply(at(0.92), ops, "main board is being replaced: ticket 4471", EVENT, dead, AGENT_SILENT),
        Reply(at(0.93), "legal@lab.example", "the draft is with counsel", DEADLINE, story.NEXT),
    ]  # fmt: skip


def _two_digits(number: int) -> int:
    """Rounded up, as plans are."""
    unit: int = 10 ** max(0, len(str(number)) - 2)
    return -(-number // unit) * unit
