"""Names that work loses, in whatever order labels and people's words come: writer, reports, fsck and as-of agree."""

import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from builders import WINDOW_NS, Chain, busy
from desk import Desk
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flopmeter.collector.check.fsck import check_store, result_text
from flopmeter.collector.errors import RegistryError
from flopmeter.collector.ingest.decide import TAKEN
from flopmeter.collector.law.profiles import shipped as profiles
from flopmeter.collector.law.regimes import shipped
from flopmeter.collector.registry.as_of import reading_as_of
from flopmeter.collector.registry.counting import Counting
from flopmeter.collector.registry.entries import (
    Assign,
    Declare,
    JobKey,
    Link,
    Purpose,
    Relation,
    Retract,
    Tag,
)
from flopmeter.collector.registry.run_books import RunBooks
from flopmeter.collector.registry.say import say
from flopmeter.collector.report.queries import Reader, reading
from flopmeter.contract.usage import Workload, WorkloadKind
from flopmeter.contract.w_table import current

BROAD = profiles()["eu-broad"]
ARRAY = (("slurm.array_job", "7"),)
SUBMITTED = (("slurm.submit_unix_s", "100"),)  # known later than the id, and earlier than a label
JOBS = ("71", "72", "73", "8")
#: Names that jobs have before any label comes, by ever better evidence, and labels.
OLD = ("slurm-array:c1/7", "slurm-array:c1/7@100", "slurm:c1/8", "slurm:c1/8@100")
LABELS = ("a", "b")
NAMES = (*OLD, *LABELS)
#: Lines so low that every window meets some.
LOW = tuple(replace(r, threshold_flop=10**15 * 3**i) for i, r in enumerate(shipped()) if r.scope == "run")


def job(name, label, submitted):
    identities = (ARRAY if name.startswith("7") else ()) + (SUBMITTED if submitted else ())
    return Workload(WorkloadKind.SLURM, job=name, run=label, dtype="bf16", identities=identities)


def key(name):
    return JobKey("c1", int(WorkloadKind.SLURM), name)


names, jobs = st.sampled_from(NAMES), st.sampled_from(JOBS)
works = st.lists(
    st.tuples(jobs, st.sampled_from(("", *LABELS)), st.booleans()), min_size=1, max_size=3, unique=True
)
words = st.one_of(
    st.builds(Link, names, st.sampled_from((Relation.CONTINUES, Relation.DISTILS)), names),
    st.builds(lambda run, base: Declare(run, owner="x", base_models=(base,)), names, names),
    st.builds(
        lambda run, job, purpose: Tag(run, purpose, job=job and key(job), evidence=("https://e.example/1",)),
        names,
        st.none() | jobs,
        st.sampled_from((Purpose.EVALUATION, Purpose.PRETRAINING)),
    ),
    st.builds(lambda job, run: Assign(key(job), run), jobs, st.just("") | names),
    st.builds(Retract, st.integers(1, 4)),
)
steps = st.lists(
    works.map(lambda w: ("book", w)) | words.map(lambda s: ("say", s)) | st.just(("restart", None)),
    max_size=9,
)


def countable(reader: Reader) -> dict[str, int]:
    registry = reader.registry()
    books = RunBooks(reader, registry)
    counting = Counting(registry, books.rows, reader.models(), current())
    return {run: counting.countable(run, BROAD).flop.point for run in reader.run_names()}


#: Better evidence twice, each with a name of its own; and a name that new work gets again.
TWICE = [
    ("say", Link("slurm:c1/8", Relation.CONTINUES, "b")),
    ("book", [("8", "", True)]),
    ("book", [("8", "a", True)]),
]
AGAIN = [
    ("say", Link("slurm-array:c1/7", Relation.CONTINUES, "b")),
    ("book", [("71", "a", False)]),
    ("book", [("72", "", False)]),
]


@settings(max_examples=60, deadline=None)
@example(first=[("8", "", False), ("72", "b", False)], drawn=TWICE)
@example(first=[("71", "", False), ("8", "b", False)], drawn=AGAIN)
@given(first=works, drawn=steps)
def test_whoever_is_asked_says_the_same_of_runs_that_got_their_names_late(first, drawn):
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "books.db"
        desk, chain, then = Desk(path, LOW), Chain("n", gpus=1), []
        for what, drew in [("book", first), *drawn]:
            desk.now += 1_000
            if what == "book":
                workloads = [job(*w) for w in drew]
                share = WINDOW_NS // len(workloads)
                rows = [busy(0, i, duration_ns=share, percent=90) for i in range(len(workloads))]
                assert desk.offer(desk.agent(chain), chain.next(rows, workloads)) is TAKEN
            elif what == "say":
                with suppress(RegistryError):
                    say(path, lambda _, s=drew: s, "ada@lab", "as it is", lambda at=desk.now: at)
            else:
                desk.close()
                desk = Desk(path, LOW)
                desk.now += 10**9
            desk.now = max(desk.now, then[-1][0] + 1_000 if then else 0)
            desk.commit()
            with reading(path) as reader:
                now, registry = countable(reader), reader.registry()
                # The writer's, grown piece by piece, is the one that is read whole.
                assert desk.writer._whose.registry.formerly == registry.formerly
                assert desk.writer._whose.registry.stands_on == registry.stands_on
                judged = desk.writer._judge._live()
                assert {run: judged.countable(run, BROAD).flop.point for run in now} == now
            then.append((desk.now, now))
        result = check_store(path, LOW)
        assert result.difference is None, result_text(result)
        for at, said in then:
            with reading_as_of(path, at) as books:
                assert countable(books.reader) == said
        desk.close()
