"""Rules and what follows from them in the books: which run, by which rule, moves in one transaction, fsck finds the same."""

import sqlite3
from contextlib import closing
from dataclasses import replace

import pytest
from builders import WINDOW_NS, Chain, busy
from desk import Desk

from flopmeter.collector.check.fsck import check_store, result_text
from flopmeter.collector.ingest.decide import TAKEN, RefusalCode, Refused
from flopmeter.collector.ingest.identity_rules import of_text, shipped
from flopmeter.collector.law.regimes import shipped as shipped_regimes
from flopmeter.collector.report.queries import asked, reading
from flopmeter.contract.identity import identities
from flopmeter.contract.usage import IDLE, Workload, WorkloadKind

SUBMIT, REQUEUED = "1795338795", "1795338802"


def slurm(job="7", *, restart=0, run="", step="", **seen):
    found = identities((f"slurm.{name}", value) for name, value in seen.items())
    return Workload(WorkloadKind.SLURM, job=job, step=step, restart=restart, run=run, identities=found)


def book(desk, chain, *workloads, commit=True):
    """One window, divided between the workloads, on both GPUs."""
    part = WINDOW_NS // len(workloads)
    rows = [busy(gpu, i, duration_ns=part) for gpu in range(2) for i in range(len(workloads))]
    assert desk.offer(desk.agent(chain), chain.next(rows, workloads)) is TAKEN
    return desk.commit() if commit else None


def chosen(desk):
    return [tuple(row) for row in desk.rows("SELECT run, run_rule FROM workloads ORDER BY workload_no")]


def good(path, regimes=()):
    result = check_store(path, regimes)
    assert result.difference is None, result_text(result)
    return result


def cycles(path):
    with reading(path) as reader:
        return {r["run"]: r["executed"]["sm_elapsed_cycles"] for r in reader.runs(asked(0))}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "books.sqlite"


def test_the_rule_that_chose_is_kept_and_shown(path):
    with Desk(path) as desk:
        book(desk, Chain(), slurm(submit_unix_s=SUBMIT, array_job="5"), IDLE)
        assert chosen(desk) == [(f"slurm-array:c1/5@{SUBMIT}", "slurm-array"), ("", "none")]
        assert desk.rows("SELECT from_position, digest, text FROM identity_rules") == [
            (1, shipped().digest, shipped().text)
        ]
    with reading(path) as reader:
        (run,) = reader.runs(asked(0))
    assert (run["run"], run["rule"]) == (f"slurm-array:c1/5@{SUBMIT}", "slurm-array")
    good(path)


@pytest.mark.parametrize("committed", [True, False], ids=["in a later commit", "in one group"])
def test_weak_rows_move_in_the_transaction_that_brings_the_label(path, committed):
    chain, weak, labelled = Chain(), slurm(), slurm(submit_unix_s=SUBMIT, run="llama")
    with Desk(path) as desk:
        book(desk, chain, weak, commit=committed)
        book(desk, chain, labelled)
        book(desk, chain, replace(weak, step="1"))
        assert chosen(desk) == [
            ("llama", "label (inherited)"),
            ("llama", "label"),
            ("llama", "label (inherited)"),
        ]
    assert cycles(path).keys() == {"llama"}
    good(path)


def test_attempts_of_a_run_and_all_that_was_seen_of_it_are_shown(path):
    def pod(uid, attempt):
        key = "label:jobset.sigs.k8s.io/"
        seen = [("k8s.namespace", "ml"), (f"{key}jobset-name", "llama"), (f"{key}jobset-uid", "b1")]
        seen += [("k8s.pod_uid", uid), (f"{key}restart-attempt", attempt), ("env:WANDB_RUN_ID", "3kq9")]
        return Workload(WorkloadKind.POD, job=uid, identities=identities(seen))

    with Desk(path) as desk:
        book(desk, Chain(), pod("u1", "2"), pod("u2", "10"))
    with reading(path) as reader:
        (run,) = reader.runs(asked(0))
    assert (run["run"], run["rule"], run["attempts"]) == ("jobset:c1/ml/llama@b1", "jobset", ["2", "10"])
    assert run["identities"]["k8s.pod_uid"] == ["u1", "u2"]
    assert run["identities"]["env:WANDB_RUN_ID"] == ["3kq9"]
    good(path)


def test_a_threshold_that_only_both_together_cross_is_raised_with_the_move(path):
    """Job 7 and job 8 are each of one window; the line lies between what the one is and what both are."""
    chain = Chain()
    one, two = slurm(), slurm("8", run="llama")
    with Desk(path) as desk:
        book(desk, chain, one)
    with reading(path) as reader:
        (run,) = reader.runs(asked(0))
    upper = int(run["executed"]["flop"]["upper"])
    line = replace(
        shipped_regimes()[0], id="line", threshold_flop=upper + upper // 10, counting="executed", early=()
    )
    path.unlink()
    chain = Chain()
    with Desk(path, [line]) as desk:
        assert book(desk, chain, one).events == ()
        assert book(desk, chain, two).events == ()
        found = book(desk, chain, IDLE, replace(one, run="llama")).events
        assert [e.subject for e in found] == ["llama"]
        assert int(found[0].data["flop"]["upper"]) > upper * 2
        assert found[0].position == 3
    good(path, [line])


def test_a_requeued_job_is_one_run_and_another_job_of_its_id_is_not(path):
    chain = Chain()
    with Desk(path) as desk:
        book(desk, chain, slurm(submit_unix_s=SUBMIT))
        book(desk, chain, slurm(submit_unix_s=REQUEUED, restart=1))
        book(desk, chain, slurm(submit_unix_s="1795339999"))
        assert [run for run, _ in chosen(desk)] == [
            f"slurm:c1/7@{SUBMIT}",
            f"slurm:c1/7@{SUBMIT}",
            "slurm:c1/7@1795339999",
        ]
    good(path)


@pytest.mark.parametrize("again", ["reopened", "after a failed commit"])
def test_what_is_known_of_a_job_is_in_the_store(path, again):
    chain = Chain()
    desk = Desk(path)
    book(desk, chain, slurm(submit_unix_s=SUBMIT, run="llama"))
    if again == "reopened":
        desk.close()
        desk = Desk(path)
    else:
        book(desk, Chain("other"), slurm("9"), commit=False)
        desk.intake.take_group()  # and lost
        desk.recover()
    book(desk, chain, slurm())
    assert chosen(desk) == [("llama", "label"), ("llama", "label (inherited)")]
    desk.close()
    good(path)


def test_names_that_are_forgotten_are_looked_up_again(path, monkeypatch):
    monkeypatch.setattr("flopmeter.collector.ingest.names.MAX_CACHED_WORKLOADS", 0)
    chain = Chain()
    with Desk(path) as desk:
        book(desk, chain, slurm())
        assert desk.intake.names._jobs == {}
        book(desk, chain, slurm(run="llama"))
        assert {run for run, _ in chosen(desk)} == {"llama"}
    good(path)


def test_what_the_open_group_knows_of_a_job_outlives_the_commit_of_the_group_before(path, monkeypatch):
    monkeypatch.setattr("flopmeter.collector.ingest.names.MAX_CACHED_WORKLOADS", 0)
    chain = Chain()
    with Desk(path) as desk:
        book(desk, Chain("other"), slurm("9"), commit=False)
        before = desk.intake.take_group()
        book(desk, chain, slurm(), commit=False)  # into the group that is open while the other is committed
        desk.writer.commit(before)
        desk.intake.committed(before)
        book(desk, chain, slurm(run="llama"))
        assert chosen(desk)[1:] == [("llama", "label (inherited)"), ("llama", "label")]
    good(path)


def test_the_same_workload_with_more_seen_of_it_is_another_row_and_the_same_again_is_not(path):
    chain = Chain()
    with Desk(path) as desk:
        for seen in ({}, {"name": "a"}, {"name": "a"}, {}):
            book(desk, chain, slurm(**seen))
        assert [r[0] for r in desk.rows("SELECT identities FROM workloads")] == ["", '{"slurm.name":"a"}']


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ([("slurm.name", "x" * 10_000)], "at most 256 characters"),
        ([("slurm.name", "a\x1b[2J")], "printable text"),
        ([("slurm.name", "")], "expected a value"),
        ([("b", "1"), ("a", "1")], "ordered by name"),
        ([("a", "1"), ("a", "2")], "each name once"),
        ([("NAME", "1")], "expected a name such as"),
        ([(f"n{i:02}", "1") for i in range(33)], "at most 32"),
    ],
)
def test_identities_that_are_none_are_refused_and_leave_no_trace(path, found, said):
    chain = Chain()
    with Desk(path) as desk:
        agent = desk.agent(chain)
        message = chain.batch([busy(0), busy(1)], [slurm()])
        for name, value in found:
            message.workloads[0].identities.add(name=name, value=value)
        refused = desk.offer(agent, chain.seal(message.SerializeToString()))
        assert isinstance(refused, Refused)
        assert refused.code == RefusalCode.MALFORMED
        assert said in refused.message
        assert desk.offer(agent, chain.next(workloads=(slurm(name="good"),))) is TAKEN
        desk.commit()
        assert desk.rows("SELECT workload_no, identities FROM workloads") == [(1, '{"slurm.name":"good"}')]
    good(path)


RULES = of_text(
    '{"schema":"flopmeter-identity-rules/1","rule":[{"name":"by-name","needs":["slurm.name"],"run":"{slurm.name}"}]}'
)


def test_a_changed_list_is_for_what_is_new_and_fsck_knows_from_where_on(path):
    chain = Chain()
    named = slurm(name="gpt", submit_unix_s=SUBMIT)
    with Desk(path) as desk:
        book(desk, chain, named)
    with Desk(path, rules=RULES) as desk:
        book(desk, chain, named)  # known: stays
        book(desk, chain, slurm("8", name="gpt"))
        assert chosen(desk) == [(f"slurm:c1/7@{SUBMIT}", "slurm"), ("gpt", "by-name")]
        assert desk.rows("SELECT from_position, digest FROM identity_rules") == [
            (1, shipped().digest),
            (2, RULES.digest),
        ]
    with Desk(path) as desk:
        book(desk, chain, slurm("8", name="gpt", submit_unix_s=SUBMIT))
        assert chosen(desk)[2] == (f"slurm:c1/8@{SUBMIT}", "slurm")
    good(path)


def test_a_list_that_no_record_came_under_is_replaced(path):
    chain = Chain()
    with Desk(path, rules=RULES) as desk:
        desk.agent(chain)
        desk.commit()
    with Desk(path) as desk:
        book(desk, chain, slurm(name="gpt"))
        assert desk.rows("SELECT from_position, digest FROM identity_rules") == [(1, shipped().digest)]
    good(path)


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("UPDATE workloads SET run = 'other' WHERE workload_no = 1", "workload_no 1: run"),
        ("UPDATE workloads SET run_rule = 'label' WHERE workload_no = 1", "workload_no 1: run_rule"),
        ("UPDATE workloads SET begun_unix_ns = 1 WHERE workload_no = 1", "workload_no 1: begun_unix_ns"),
        ("UPDATE workloads SET identities = '{}' WHERE workload_no = 2", "workload_no"),
        ("UPDATE identity_rules SET digest = 'x'", "from_position 1: digest"),
        ("UPDATE identity_rules SET text = '{}'", "from_position 1: text"),
        ("UPDATE identity_rules SET text = replace(text, 'wandb', 'other')", "from_position 1: digest"),
        ("DELETE FROM identity_rules", "from_position 1: digest"),
        ("UPDATE identity_rules SET from_position = 3", "from_position 1: digest"),
    ],
)
def test_fsck_names_what_was_tampered_with(path, sql, said):
    chain = Chain()
    with Desk(path) as desk:
        book(desk, chain, slurm())
        book(desk, chain, slurm(submit_unix_s=SUBMIT, run="llama"))
    good(path)
    with closing(sqlite3.connect(path)) as db:
        assert db.execute(sql).rowcount
        db.commit()
    difference = check_store(path, ()).difference
    assert difference is not None
    assert said in f"{difference.table}, {difference.key}: {difference.column}"
