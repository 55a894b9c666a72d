"""What the workloads of one scheduler's job share: the strongest evidence, over requeues, and not over another job."""

from hypothesis import example, given
from hypothesis import strategies as st

from flopmeter.collector.ingest.identity import INHERITED
from flopmeter.collector.ingest.identity_jobs import ONE_JOB_WITHIN_NS, JobRows, Row, Seen, instance_of
from flopmeter.collector.ingest.identity_rules import shipped
from flopmeter.contract.identity import identities

DAY_NS = 86_400_000_000_000
RANKS = {"label": 0, "array": 1, "slurm": 2, "job": 3}


def rank(rule):
    return RANKS.get(rule.removesuffix(INHERITED))


class Job:
    """Adds rows by their numbers and keeps how each stands."""

    def __init__(self):
        self.rows = JobRows(rank)
        self.standing = {}
        self.seen = {}

    def add(self, run, rule, *, submit="", restart=0, day=0):
        number = len(self.standing) + 1
        self.seen[number] = Seen((submit,), restart, day * DAY_NS)
        row, moved = self.rows.add(Row(number, run, rule), self.seen[number])
        assert moved == sorted(moved)
        self.standing[number] = row
        for m in moved:
            now = Row(m.workload_no, m.run, m.rule)
            assert self.standing[m.workload_no] != now, "a row that does not change does not move"
            assert self.standing[m.workload_no].run == m.was
            self.standing[m.workload_no] = now
        return row.run

    def runs(self):
        return [row.run for row in self.standing.values()]

    def reopen(self):
        """As after a restart of the collector: known from the books."""
        self.rows = JobRows(rank)
        for number in sorted(self.standing):
            self.rows.know(self.standing[number], self.seen[number])


def test_weak_rows_follow_the_first_stronger_one_and_later_weak_ones_too():
    job = Job()
    job.add("slurm:c/1", "job")
    job.add("slurm:c/1@5", "slurm", submit="5")
    assert job.runs() == ["slurm:c/1@5"] * 2
    job.add("llama", "label", submit="5")
    job.add("slurm:c/1", "job")
    assert job.runs() == ["llama"] * 4
    assert [r.rule for r in job.standing.values()] == [
        "label (inherited)",
        "label (inherited)",
        "label",
        "label (inherited)",
    ]


def test_a_row_with_a_choice_as_strong_keeps_it():
    """A job whose steps state two runs: each has its own, what states none has the first."""
    job = Job()
    for run, rule in (("a", "label"), ("b", "label"), ("slurm:c/1", "job"), ("b", "label")):
        job.add(run, rule)
    assert job.runs() == ["a", "b", "a", "b"]


def test_a_requeued_job_is_the_run_that_it_was():
    """Slurm 22.05: after a requeue, SubmitTime is that of the requeue (tests/slurm/captures)."""
    job = Job()
    job.add("slurm:c/1@1795338795", "slurm", submit="1795338795")
    job.add("slurm:c/1@1795338802", "slurm", submit="1795338802", restart=1)
    job.add("slurm:c/1@1795338802", "slurm", submit="1795338802", restart=1)  # another node of it
    job.add("slurm:c/1@1795340000", "slurm", submit="1795340000", restart=2)
    assert set(job.runs()) == {"slurm:c/1@1795338795"}
    assert {r.rule for r in job.standing.values()} == {"slurm"}


def test_lives_that_are_told_of_in_the_wrong_order_are_one_run():
    job = Job()
    job.add("slurm:c/1@7", "slurm", submit="7", restart=1)
    job.add("slurm:c/1@5", "slurm", submit="5")
    job.add("slurm:c/1@9", "slurm", submit="9", restart=2)
    assert set(job.runs()) == {"slurm:c/1@7"}


def test_a_label_that_comes_after_a_requeue_moves_the_earlier_life_too():
    job = Job()
    job.add("slurm:c/1@5", "slurm", submit="5")
    job.add("llama", "label", submit="7", restart=1)
    assert job.runs() == ["llama", "llama"]


def test_another_job_of_the_same_id_is_another_run():
    job = Job()
    job.add("slurm:c/1@5", "slurm", submit="5")
    job.add("slurm:c/1@900", "slurm", submit="900")
    assert job.runs() == ["slurm:c/1@5", "slurm:c/1@900"]
    job.add("llama", "label", submit="900")
    assert job.runs() == ["slurm:c/1@5", "llama", "llama"]
    job.add("slurm:c/1@1000", "slurm", submit="1000", restart=1)  # requeued: of the second
    assert job.runs() == ["slurm:c/1@5", "llama", "llama", "llama"]


def test_a_restart_count_that_does_not_rise_is_another_jobs():
    """docs/slurm.md: another submit time, and a restart count that did not rise."""
    job = Job()
    job.add("slurm:c/1@5", "slurm", submit="5", restart=3)
    job.add("slurm:c/1@9", "slurm", submit="9", restart=1)
    job.add("slurm:c/1@12", "slurm", submit="12", restart=2)
    assert job.runs() == ["slurm:c/1@5", "slurm:c/1@9", "slurm:c/1@9"]


def test_submissions_are_ordered_as_numbers():
    job = Job()
    job.add("slurm:c/1@999", "slurm", submit="999")
    job.add("slurm:c/1@1000", "slurm", submit="1000")
    job.add("slurm:c/1@1001", "slurm", submit="1001", restart=1)
    assert job.runs()[2] == "slurm:c/1@1000"


def test_months_apart_is_another_job_even_where_nothing_else_tells():
    days = ONE_JOB_WITHIN_NS // DAY_NS + 1
    job = Job()
    job.add("llama", "label")
    job.add("slurm:c/1", "job", day=days - 1)
    job.add("slurm:c/1", "job", day=days)
    assert job.runs() == ["llama", "llama", "llama"]  # carried on by the second, which is near to both
    job.add("slurm:c/1", "job", day=3 * days)
    job.add("other", "label", day=3 * days)
    assert job.runs() == ["llama", "llama", "llama", "other", "other"]


def test_what_a_rule_of_another_list_chose_neither_moves_nor_is_followed():
    job = Job()
    job.rows.know(Row(1, "old", "a-rule-taken-out"), Seen(("",), 0, 0))
    job.standing[1], job.seen[1] = Row(1, "old", "a-rule-taken-out"), Seen(("",), 0, 0)
    job.add("slurm:c/1", "job")
    job.add("llama", "label")
    assert job.runs() == ["old", "llama", "llama"]


def test_the_instance_is_what_the_list_says():
    seen = identities([("slurm.submit_unix_s", "5"), ("env:X", "y")])
    assert instance_of(seen, shipped()) == instance_of(dict(seen), shipped()) == ("5",)
    assert instance_of((), shipped()) == ("",)


rows = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c"]),
        st.sampled_from(["label", "array", "slurm", "job"]),
        st.sampled_from(["", "5", "7", "9"]),
        st.integers(0, 2),
        st.sampled_from([0, 1, 50, 100]),
        st.booleans(),
    ),
    max_size=12,
)


@given(rows)
@example([("a", "job", "", 0, 0, True), ("b", "label", "5", 0, 100, True), ("c", "slurm", "", 0, 50, True)])
def test_a_restart_between_any_two_rows_changes_nothing(given_rows):
    one, other = Job(), Job()
    for run, rule, submit, restart, day, reopen in given_rows:
        for job in (one, other):
            job.add(f"{rule}-{run}", rule, submit=submit, restart=restart, day=day)
        if reopen:
            other.reopen()
    assert one.standing == other.standing


@given(
    st.lists(st.tuples(st.sampled_from(["a", "b"]), st.sampled_from(list(RANKS))), min_size=1, max_size=12)
)
def test_of_one_job_each_row_stands_under_the_strongest_rule(given_rows):
    """The definition, plainly: its own choice if no row has a stronger, else that of the first of the strongest."""
    job = Job()
    for i, (run, rule) in enumerate(given_rows, 1):
        job.add(run, rule)
        best = min(rank(r) for _, r in given_rows[:i])
        first = next(run for run, r in given_rows if rank(r) == best)
        expected = [run if rank(r) == best else first for run, r in given_rows[:i]]
        assert job.runs() == expected
