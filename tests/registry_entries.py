"""Entries of the run registry for tests: one by one, and as hypothesis draws them."""

from fractions import Fraction

from hypothesis import strategies as st

from flopmeter.collector.registry.entries import (
    Assign,
    Calibrated,
    Decision,
    Declare,
    Entry,
    External,
    JobKey,
    Link,
    Purpose,
    Relation,
    Retract,
    Statement,
    Tag,
)
from flopmeter.contract.flop import Calibration, Figure
from flopmeter.contract.usage import WorkloadKind

RUNS = ("r1", "r2", "r3")
JOBS = tuple(JobKey("c1", int(WorkloadKind.SLURM), job) for job in ("4711", "4712"))
STEPS = ("", "0", "batch")
HOURS = range(6)


def entry(
    number: int, statement: Statement, *, unix_ns: int | None = None, who: str = "ada@lab", why: str = "said"
) -> Entry:
    """Entry `number`, made at second `number` unless told otherwise."""
    return Entry(number, number * 10**9 if unix_ns is None else unix_ns, number, who, why, statement)


def entries(*statements: Statement) -> list[Entry]:
    """The statements as entries, numbered from 1."""
    return [entry(number, s) for number, s in enumerate(statements, 1)]


words = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S")), min_size=1, max_size=20)
_runs = st.sampled_from(RUNS)
_hours = st.none() | st.sampled_from(HOURS)
_plain = st.sampled_from([p for p in Purpose if p is not Purpose.RECOMPUTATION])
_fractions = st.builds(
    lambda a, b: Fraction(min(a, b), max(a, b) + 1), st.integers(1, 10**12), st.integers(1, 10**12)
)
_evidence = st.lists(words, min_size=1, max_size=3).map(tuple)
_jobs = st.sampled_from(JOBS)
tags = st.builds(
    Tag, _runs, _plain, _hours, _hours, st.none() | _jobs, _evidence
) | st.builds(
    lambda run, a, b, job, fraction: Tag(run, Purpose.RECOMPUTATION, a, b, job, ("sha256:0",), fraction),
    _runs, _hours, _hours, st.none() | _jobs, _fractions,
)  # fmt: skip
_counts = st.builds(Calibration, st.integers(1, 10**40), st.integers(1, 10**40), st.integers(0, 10**6))
statements: st.SearchStrategy[Statement] = st.one_of(
    st.builds(
        Declare,
        _runs,
        owner=st.none() | words,
        budget_flop=st.none() | st.integers(1, 10**40),
        hardware=st.none() | words,
        expected_end_unix_ns=st.none() | st.integers(1, (1 << 63) - 1),
        dtype=st.none() | st.sampled_from(["bf16", "fp8"]),
        purpose=st.none() | _plain,
        base_models=st.lists(words, max_size=3, unique=True).map(tuple),
        calibration=st.none() | st.builds(Calibrated, words, _counts),
    ),
    st.builds(Assign, _jobs, st.just("") | _runs, st.none() | st.sampled_from(STEPS)),
    tags,
    st.builds(Link, _runs, st.sampled_from(Relation), _runs | words),
    st.builds(
        External,
        words,
        st.lists(st.integers(0, 10**40), min_size=3, max_size=3).map(lambda n: Figure(*sorted(n))),
        words,
    ),
    st.builds(Decision, words, st.booleans()),
)


@st.composite
def histories(draw: st.DrawFn, max_size: int = 12) -> list[Entry]:
    """Entries as they might have been made: numbered, in time, some retracted, several in the same instant."""
    made: list[Entry] = []
    now = 0
    for _ in range(draw(st.integers(0, max_size))):
        now += draw(st.integers(0, 3))
        open_ = [
            e.number
            for e in made
            if not isinstance(e.statement, Retract)
            and all(not isinstance(r.statement, Retract) or r.statement.number != e.number for r in made)
        ]
        retract = open_ and draw(st.integers(0, 3)) == 0
        said = Retract(draw(st.sampled_from(open_))) if retract else draw(statements)
        made.append(Entry(len(made) + 1, now, now, "ada@lab", "said", said))
    return made
