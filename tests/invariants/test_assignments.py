"""Conservation over what people say: runs, idle and unattributed time are the books, to the cycle, after every word.

Random windows of jobs whose labels come late or never, random entries between them, commits and starts in between.
The reports, the judge's memory and fsck each have their own way to the sums; all must come to the same.
"""

from fractions import Fraction

from builders import WINDOW_NS, Chain, busy
from desk import Desk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flopmeter.collector.books import HOUR_NS, SUM_FIELDS
from flopmeter.collector.check.fsck import check_store, result_text
from flopmeter.collector.errors import RegistryError
from flopmeter.collector.ingest.decide import TAKEN
from flopmeter.collector.law.regimes import shipped
from flopmeter.collector.registry.entries import (
    Assign,
    Declare,
    External,
    JobKey,
    Link,
    Purpose,
    Relation,
    Retract,
    Tag,
)
from flopmeter.collector.registry.say import say
from flopmeter.collector.report.queries import asked, reading
from flopmeter.contract.flop import Figure, total
from flopmeter.contract.identity import identities
from flopmeter.contract.usage import IDLE, UNATTRIBUTED, Workload, WorkloadKind

RUNS = ("a", "b", "slurm:c1/1", "slurm:c1/2")
JOBS = ("1", "2", "3")
REGIMES = shipped()
HOURS = range(Chain().unix_ns // HOUR_NS, Chain().unix_ns // HOUR_NS + 3)

workloads = st.builds(
    lambda job, run, step, submit, restart, dtype: Workload(
        WorkloadKind.SLURM,
        job=job,
        step=step,
        run=run,
        dtype=dtype,
        restart=restart,
        identities=identities([("slurm.submit_unix_s", submit)]),
    ),
    st.sampled_from(JOBS),
    st.sampled_from(["", "", "a", "b"]),
    st.sampled_from(["", "0"]),
    st.sampled_from(["", "100", "200"]),
    st.integers(0, 1),
    st.sampled_from(["", "bf16"]),
) | st.sampled_from([IDLE, UNATTRIBUTED])
_jobs = st.sampled_from(JOBS).map(lambda name: JobKey("c1", int(WorkloadKind.SLURM), name))
_runs = st.sampled_from(RUNS)
_hours = st.none() | st.sampled_from(HOURS)
statements = st.one_of(
    st.builds(Declare, _runs, owner=st.just("ada"), purpose=st.none() | st.just(Purpose.PRETRAINING)),
    st.builds(Assign, _jobs, st.just("") | _runs, st.none() | st.just("0")),
    st.builds(
        Tag,
        _runs,
        st.sampled_from([Purpose.EVALUATION, Purpose.SYNTHETIC_DATA, Purpose.FINETUNING]),
        _hours,
        _hours,
        st.none() | _jobs,
        st.just(("e",)),
    ),
    st.builds(
        Tag,
        _runs,
        st.just(Purpose.RECOMPUTATION),
        evidence=st.just(("e",)),
        fraction=st.sampled_from([Fraction(1, 4), Fraction(1, 3)]),
    ),
    st.builds(Link, _runs, st.sampled_from(Relation), _runs),
    st.just(External("base", Figure(10**17, 2 * 10**17, 3 * 10**17), "card")),
    st.builds(Link, _runs, st.just(Relation.FINE_TUNES), st.just("base")),
    st.builds(Retract, st.integers(1, 6)),
)
steps = st.lists(
    st.tuples(st.just("window"), st.lists(workloads, min_size=1, max_size=3))
    | st.tuples(st.just("say"), statements)
    | st.tuples(st.sampled_from(["commit", "look", "reopen"]), st.none()),
    max_size=14,
)
#: Lines among what a few windows are worth, so that some are crossed by usage and some by words.
LINES = tuple(
    r.__class__(**{**{f: getattr(r, f) for f in r.__slots__}, "threshold_flop": flop})
    for r, flop in zip(
        REGIMES, (2 * 10**16, 5 * 10**16, 10**17, 2 * 10**17, 10**18, 10**18, 10**18), strict=False
    )
)


@given(steps)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_runs_idle_and_unattributed_time_are_the_books_whatever_is_said(tmp_path_factory, given_steps):
    path = tmp_path_factory.mktemp("said") / "books.db"
    chain = Chain(gpus=1)
    desk = Desk(path, LINES)
    try:
        desk.intake.review(desk.now)
        desk.commit()
        for what, more in given_steps:
            if what == "window":
                share = WINDOW_NS // len(more)
                rows = [busy(0, i, duration_ns=share, percent=20 * i + 10) for i in range(len(more))]
                # Half an hour a window, so that tags of hours cut runs.
                chain.unix_ns += HOUR_NS // 2
                assert desk.offer(desk.agent(chain), chain.next(rows, more)) is TAKEN
            elif what == "say":
                desk.now += 1
                try:
                    say(path, lambda _, s=more: s, "ada", "why", lambda now=desk.now: now)
                except RegistryError:
                    continue  # refused, as it should be: it is in no books
            elif what == "reopen":
                desk.commit()
                desk.close()
                desk = Desk(path, LINES)
            elif what == "commit" or desk.intake.review(desk.now):
                desk.commit()
            conserved(path)
        desk.commit()
        if desk.intake.review(desk.now):
            desk.commit()
        judged_as_reported(desk)
    finally:
        desk.close()
    conserved(path)
    result = check_store(path, LINES)
    assert result.difference is None, result_text(result)


def conserved(path):
    """Every cycle and millisecond of the books is in one run, or nobody's; and every run's in one purpose."""
    with reading(path) as reader:
        (whole,) = [
            [sum(int(row[i]) for row in rows) for i in range(len(SUM_FIELDS))]
            for rows in [list(reader.rows(f"SELECT {', '.join(SUM_FIELDS)} FROM totals"))]
        ]
        nobodys = [sums for _, _, sums in reader.unowned_totals()]
        runs = reader.runs(asked(0, LINES))
        by_hours = [sum(row[3][1] for row in reader.hourly(r["run"])) for r in runs]
    elapsed = SUM_FIELDS.index("sm_elapsed_cycles")
    of_runs = [int(r["executed"]["sm_elapsed_cycles"]) for r in runs]
    assert by_hours == of_runs
    assert sum(of_runs) + sum(s[elapsed] for s in nobodys) == whole[elapsed]
    observed = sum(round(r["coverage"]["observed_device_seconds"] * 10**9) for r in runs)
    assert observed + sum(s[0] for s in nobodys) == whole[0]
    for r in runs:
        points = [int(p["flop"]["point"]) for p in r["purposes"]]
        assert sum(points) == int(r["executed"]["flop"]["point"])
        for counted in r["countable"].values():
            left_out = sum(int(p["flop"]["point"]) for p in counted["excluded"] if p["of"] is None)
            assert left_out <= sum(points)


def judged_as_reported(desk):
    """What the writer keeps in memory is what the store says, to the operation."""
    judge = desk.writer._judge
    with reading(desk.store.path) as reader:
        for r in reader.runs(asked(0, LINES)):
            mine = total(s.flop for s in judge.shares(r["run"]))
            assert str(mine.point) == r["executed"]["flop"]["point"]
