"""Items 4 to 8 of reference/regulations.md section 13 through collector, registry and books, in exact integers.

The rules alone are tested beside them (tests/collector/law, tests/collector/registry); here a lab runs jobs, people say
what they were, and what is read back is compared with sums that are made here from nothing but minutes.
"""

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from builders import UNIX_NS, Chain, busy
from desk import DAY_NS, Desk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flopmeter.collector.check.fsck import check_store
from flopmeter.collector.law.profiles import shipped as profiles
from flopmeter.collector.law.regimes import MODIFICATION, Regime, parse, shipped
from flopmeter.collector.registry.entries import (
    External,
    JobKey,
    Link,
    Purpose,
    Relation,
    Statement,
    Tag,
)
from flopmeter.collector.registry.say import say
from flopmeter.collector.report.queries import asked, reading
from flopmeter.contract.flop import Figure
from flopmeter.contract.usage import Workload, WorkloadKind

UNIT = busy().hmma_cycles * 4_096  # FLOP of one GPU-minute, as the point has it
JUDGED = ("threshold.undetermined", "threshold.crossed")
EVERY = (*shipped(), *shipped(MODIFICATION))
EU_BROAD, EU_NARROW, STATE, KOREA = "eu-systemic-risk", "eu-gpai", "us-ca-sb53", "korea"
SITE = """
schema = "flopmeter-regime/1"
version = "1"
id = "house-{counting}"
title = "House rule"
citation = "House rules"
status = "in-force"
status_as_of = 2026-11-21
effective = 2025-01-01
threshold_flop = "{line}"
comparison = ">"
unit = "floating-point"
scope = "run"
counting = "{counting}"
counting_note = "as the profile says"
act = "documentation"
when_met = "tell the board"
recipient = "the board"
deadline = "a week"
conditions = []
open_questions = []
source = "the house"
"""


class Lab:
    """A collector, one agent of one GPU, and people."""

    def __init__(self, path: Path, regimes: Iterable[Regime] = EVERY) -> None:
        self.path = path
        self.regimes = tuple(regimes)
        self.desk = Desk(path, self.regimes)
        self.desk.now = UNIX_NS + DAY_NS
        self.chain = Chain("n1", gpus=1)
        self.agent = self.desk.agent(self.chain)

    def work(self, run: str, minutes: int, job: str = "") -> None:
        workload = Workload(WorkloadKind.SLURM, job=job or f"job of {run}", run=run, dtype="bf16")
        for _ in range(minutes):
            assert (
                type(self.desk.offer(self.agent, self.chain.next([busy()], (workload,)))).__name__ == "Taken"
            )
        self.desk.commit()

    def say(self, *statements: Statement) -> None:
        for statement in statements:
            say(self.path, lambda _, s=statement: s, "ada", "because", lambda: self.desk.now)
        self.desk.commit()  # a running collector takes it up with its next commit

    def runs(self) -> dict[str, dict[str, Any]]:
        with reading(self.path) as reader:
            return {d["run"]: d for d in reader.runs(asked(self.desk.now, self.regimes))}

    def counted(self, run: str) -> dict[str, int]:
        """In GPU-minutes, exactly: regime -> what it counts."""
        found = {name: int(c["flop"]["point"]) for name, c in self.runs()[run]["countable"].items()}
        assert all(flop % UNIT == 0 for flop in found.values()), found
        return {name: flop // UNIT for name, flop in found.items()}

    def executed(self, run: str) -> int:
        return int(self.runs()[run]["executed"]["flop"]["point"])

    def events(self) -> list[tuple[str, str, str]]:
        """(regime, run, estimate) of events of totals, in the order in which they were raised."""
        with reading(self.path) as reader:
            found = [e["data"] for e in reader.events() if e["type"] in JUDGED]
        return [(d["regime"], d["run"], d["estimate"]) for d in found]

    def close(self) -> None:
        self.desk.close()
        result = check_store(self.path, self.regimes)
        assert result.difference is None, result.difference


@pytest.fixture
def lab(tmp_path):
    lab = Lab(tmp_path / "books.sqlite")
    yield lab
    lab.close()


def four(broad: int, narrow: int, state: int, korea: int) -> dict[str, int]:
    return {EU_BROAD: broad, EU_NARROW: narrow, STATE: state, KOREA: korea}


def of_four(found: dict[str, int]) -> dict[str, int]:
    return {name: found[name] for name in (EU_BROAD, EU_NARROW, STATE, KOREA)}


def test_requirement_4_recomputation_lowers_the_eus_totals_by_exactly_its_fraction(lab):
    lab.work("r", 8)
    assert of_four(lab.counted("r")) == four(8, 8, 8, 8)
    lab.say(Tag("r", Purpose.RECOMPUTATION, fraction=Fraction(1, 4), evidence=("https://wiki/config",)))
    assert of_four(lab.counted("r")) == four(6, 6, 8, 8)
    assert lab.executed("r") == 8 * UNIT


def test_requirement_6_private_synthetic_data_raises_the_broad_total_and_not_the_narrow_one(lab):
    lab.work("r", 5)
    lab.work("r", 3, job="samples")
    lab.say(
        Tag("r", Purpose.SYNTHETIC_DATA, job=JobKey("c1", 3, "samples"), evidence=("sha256:" + "0" * 64,))
    )
    assert of_four(lab.counted("r")) == four(8, 5, 8, 8)
    lab.work("r", 2, job="samples")  # what comes later is tagged, too
    assert of_four(lab.counted("r")) == four(10, 5, 10, 10)
    assert lab.executed("r") == 10 * UNIT


@pytest.mark.parametrize(
    ("links", "wanted"),
    [
        ([("run", "merges", "a"), ("run", "merges", "b")], (7, 7, 7, 7)),
        ([("run", "distils", "a"), ("run", "continues", "b")], (5, 5, 7, 7)),
        (
            [
                ("run", "merges", "a"),
                ("run", "merges", "b"),
                ("a", "continues", "c"),
                ("b", "continues", "c"),
            ],
            (15,) * 4,
        ),
        ([("run", "distils", "c"), ("run", "continues", "a"), ("a", "fine-tunes", "c")], (11, 11, 11, 11)),
        ([("run", "synthetic-data-from", "a"), ("a", "initialised-from", "c")], (3, 1, 11, 11)),
        ([("run", "fine-tunes", "x")], (101, 101, 101, 101)),
        ([("run", "synthetic-data-from", "x")], (1, 1, 101, 101)),  # its figure is its training: a teacher's
    ],
)
def test_requirement_7_ancestors_are_added_once_where_the_text_says_so(lab, links, wanted):
    for run, minutes in (("run", 1), ("a", 2), ("b", 4), ("c", 8)):
        lab.work(run, minutes)
    lab.say(External("x", Figure(100 * UNIT, 100 * UNIT, 100 * UNIT), "model card"))
    lab.say(*(Link(run, Relation(relation), parent) for run, relation, parent in links))
    assert of_four(lab.counted("run")) == four(*wanted)
    assert lab.executed("run") == UNIT


@pytest.mark.parametrize(
    ("base", "tuned", "raised"),
    [
        (10, 3, None),  # 30 %
        (9, 3, None),  # a third exactly
        (8, 3, "crossed"),
        (10, 4, "crossed"),
    ],
)
def test_requirement_8_more_than_a_third_of_the_original(lab, base, tuned, raised):
    """The estimate decides here: the bounds of metered figures are wider than any third."""
    lab.work("base", base)
    lab.say(External("unrelated", Figure(1, 1, 1), "model card"))
    lab.work("tuned", tuned)
    lab.say(Link("tuned", Relation.FINE_TUNES, "base"))
    found = {estimate for regime, run, estimate in lab.events() if (regime, run) == ("eu-modifier", "tuned")}
    assert ("crossed" in found) is (raised == "crossed")
    (shown,) = lab.runs()["tuned"]["modifications"]
    assert shown["regime"] == "eu-modifier"


def test_requirement_8_to_the_operation_against_a_declared_original(lab):
    """An external model's figure has no width of its own: the line is a third of it, to the operation."""
    lab.work("tuned", 4)
    lab.say(External("exact", Figure(*(12 * UNIT,) * 3), "card"), Link("tuned", Relation.FINE_TUNES, "exact"))
    assert ("eu-modifier", "tuned", "crossed") not in lab.events()  # 4 is a third of 12
    lab.say(External("exact", Figure(*(12 * UNIT - 1,) * 3), "corrected card"))
    assert ("eu-modifier", "tuned", "crossed") in lab.events()


def test_what_an_ancestor_does_raises_what_stands_on_it(tmp_path):
    """A line of ten minutes: the base's eleventh puts the tuned run past it, which did one itself."""
    rules = [
        parse("house.toml", SITE.format(counting=c, line=10 * UNIT).encode())
        for c in ("eu-broad", "executed")
    ]
    lab = Lab(tmp_path / "books.sqlite", rules)
    lab.work("tuned", 1)
    lab.work("base", 9)
    lab.say(Link("tuned", Relation.FINE_TUNES, "base"))
    assert ("house-eu-broad", "tuned", "crossed") not in lab.events()  # 10 is not above 10
    lab.work("base", 1)
    assert ("house-eu-broad", "tuned", "crossed") in lab.events()
    assert ("house-eu-broad", "base", "crossed") not in lab.events()
    assert ("house-executed", "tuned", "crossed") not in lab.events()
    lab.close()


# ---- any graph, any purposes ------------------------------------------------------------------------------

NAMES = "rabcd"
PURPOSES = [None, *(p for p in Purpose if p is not Purpose.RECOMPUTATION)]


@st.composite
def labs(draw):
    """(minutes, purpose) of each run, and links from earlier names to later ones."""
    runs = {name: (draw(st.integers(1, 3)), draw(st.sampled_from(PURPOSES))) for name in NAMES}
    pairs = [(a, b) for i, a in enumerate(NAMES) for b in NAMES[i + 1 :]]
    links = draw(
        st.lists(st.tuples(st.sampled_from(pairs), st.sampled_from(list(Relation))), max_size=6, unique=True)
    )
    return runs, [Link(run, relation, parent) for (run, parent), relation in links]


def plainly(runs, links, profile) -> int:
    """The rule again, in the plainest words: every path, its weakest step; each run once, by its best path."""
    data, distils = Relation.SYNTHETIC_DATA_FROM, profile.relations[Relation.DISTILS]
    reached: dict[str, int] = {"r": 2}

    def walk(at: str, strength: int, behind: bool) -> None:
        for link in (k for k in links if k.run == at):
            s = min(strength, profile.relations[link.relation].strength)
            if behind:
                s = min(s, distils.strength)
            reached[link.parent] = max(reached.get(link.parent, 0), s)
            if s:
                walk(link.parent, s, behind or link.relation is data)

    walk("r", 2, behind=False)
    return sum(runs[name][0] for name, s in reached.items() if s and profile.of(runs[name][1]).counted)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(found=labs())
def test_any_graph_of_runs_with_any_purposes_adds_up(tmp_path_factory, found):
    runs, links = found
    lab = Lab(tmp_path_factory.mktemp("lab") / "books.sqlite")
    for name, (minutes, purpose) in runs.items():
        lab.work(name, minutes)
        if purpose is not None:
            lab.say(Tag(name, purpose, evidence=("https://wiki/why",)))
    lab.say(*links)
    counted = lab.counted("r")
    for regime in shipped():
        assert counted[regime.id] == plainly(runs, links, profiles()[regime.counting]), regime.id
    assert lab.executed("r") == runs["r"][0] * UNIT
    lab.close()
