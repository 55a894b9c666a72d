"""Attestations and what lies around them: fsck, silence, forecasts of nothing, witnesses, stores of another day."""

import json
import shutil

import pytest
from attest_books import (
    BELOW,
    JOB,
    LAWS,
    NODE,
    OTHER,
    RUN,
    TRAINING,
    attest,
    evidence,
    full_store,
    keys,
    law,
    members,
    predicate,
    said,
    take,
)  # fmt: skip
from builders import WINDOW_NS, Chain, busy
from duty_books import opened

from flopmeter.collector.attest.errors import AttestRefused
from flopmeter.collector.attest.request import Means
from flopmeter.collector.attest.signing import FileSigner
from flopmeter.collector.attest.values import time_text
from flopmeter.collector.check.fsck import check_store
from flopmeter.collector.estimate.declared import from_document
from flopmeter.collector.log.evidence_log import EvidenceLog
from flopmeter.collector.registry.entries import Declare, External, JobKey, Link, Purpose, Relation, Tag
from flopmeter.collector.report.queries import asked
from flopmeter.contract.flop import Figure
from flopmeter.contract.usage import Workload, WorkloadKind
from flopmeter.contract.w_table import current


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    path = tmp_path_factory.mktemp("beside") / "books.sqlite"
    full_store(path)
    return path


@pytest.fixture
def path(made, tmp_path):
    shutil.copytree(made.parent, tmp_path / "store")
    return tmp_path / "store" / made.name


def test_fsck_finds_a_store_sound_that_was_attested_from(path, tmp_path):
    first = attest(path, "auditor", tmp_path / "a.zip")
    attest(path, "downstream", tmp_path / "b.zip", record=first.row.record_digest)
    assert check_store(path, LAWS).difference is None


def silent_store(path, laws):
    """Two nodes; one falls silent while the run goes on for half an hour."""
    with opened(path, *laws) as desk:
        one, two = Chain("gpu-1"), Chain("gpu-2")
        for chain in (one, two):
            chain.unix_ns = desk.now - 2 * WINDOW_NS
        agents = {c: desk.agent(c) for c in (one, two)}
        for chain in (one, two):
            take(desk, agents[chain], chain.next(workloads=(TRAINING,)))
        desk.commit()
        for _ in range(30):
            desk.now += WINDOW_NS
            take(desk, agents[one], one.next(workloads=(TRAINING,)))
            desk.intake.review(desk.now)
            desk.commit()


def test_what_silent_agents_may_have_done_is_in_the_upper_bound_and_named(tmp_path):
    path = tmp_path / "books.sqlite"
    # A line between what was booked and what may have been done.
    line = law("eu-between", 3 * 10**18)
    silent_store(path, (line,))
    attest(path, "auditor", tmp_path / "x.zip", (line,))
    p = predicate(tmp_path / "x.zip")
    assert p["coverage"]["agents"] == {"expected": "2", "reporting": "0"}  # by now, nobody is
    gap_s = 30 * 60 * 2  # both GPUs, from the silent node's last window to the run's end
    assert p["coverage"]["gaps"]["count"] == "2"
    assert p["coverage"]["gaps"]["longestSeconds"] == str(gap_s // 2)
    assert p["coverage"]["gaps"]["seconds"] == str(gap_s)
    assert int(p["coverage"]["gaps"]["flopUpperAdded"]) > 10**18
    (threshold,) = p["thresholds"]
    assert threshold["status"] == "undetermined"
    (event,) = [e for e in evidence(tmp_path / "x.zip")["proofs"] if e["role"] == "event"]
    assert json.loads(event["body"])["type"] == "agent.silent"
    assert not p["period"]["closed"]


def test_a_law_that_the_collector_never_judged_by_is_not_attested(path, tmp_path):
    other = law("eu-other", 10**15)
    with pytest.raises(AttestRefused, match="eu-other is crossed, found none") as e:
        attest(path, "auditor", tmp_path / "x.zip", (*LAWS, other))
    assert "--regimes" in e.value.hint


def test_a_line_that_nothing_comes_near_needs_no_event(path, tmp_path):
    attest(path, "nationalAuthority", tmp_path / "x.zip", (BELOW,))
    assert predicate(tmp_path / "x.zip")["thresholds"][0]["status"] == "below"


def test_a_start_that_was_declared_afterwards_commits_to_nothing(tmp_path):
    path = tmp_path / "books.sqlite"
    with opened(path, *LAWS) as desk:
        chain = Chain("gpu-1")
        chain.unix_ns = desk.now - 2 * WINDOW_NS
        take(desk, desk.agent(chain), chain.next(workloads=(TRAINING,)))
        desk.commit()
        said(path, Declare(RUN, owner="late"), desk.now)
        desk.commit()
    attest(path, "auditor", tmp_path / "x.zip")
    assert predicate(tmp_path / "x.zip")["scope"]["precommittedBy"] is None
    assert not [p for p in evidence(tmp_path / "x.zip")["proofs"] if p["role"] == "start"]


def test_an_entry_that_no_collector_has_seen_yet_gets_its_place_in_the_log(path, tmp_path):
    """A person's word, said while no collector runs, is logged before it is referred to."""
    job = JobKey("c1", int(WorkloadKind.SLURM), JOB)
    said(path, Tag(RUN, Purpose.EXPERIMENT, job=job, evidence=("x",)), 1_800_000_000_000_000_000)
    attest(path, "auditor", tmp_path / "x.zip", (BELOW,))
    (mine,) = predicate(tmp_path / "x.zip")["totals"]["countable"]
    assert len({e["evidenceLogIndex"] for e in mine["excluded"] if e["tag"] == "experiment"}) == 2


def test_a_model_without_a_figure_is_said_to_be_none(path, tmp_path):
    said(path, External("mystery", Figure(0, 0, 0), "nobody says"), 1_800_000_000_000_000_000)
    said(path, Declare("empty-run", owner="x"), 1_800_000_000_000_000_000)
    said(path, Link(RUN, Relation.MERGES, "empty-run"), 1_800_000_000_000_000_000)
    attest(path, "auditor", tmp_path / "x.zip", (BELOW,))
    p = predicate(tmp_path / "x.zip")
    (unknown,) = [a for a in p["run"]["lineage"] if "not known" in a["relation"]]
    assert unknown["flopCarried"] == {"lower": "0", "point": "0", "upper": str(10**38)}
    assert any("1 of the models" in s for s in p["scope"]["limits"])


def test_a_second_method_stands_beside_the_counters(path, tmp_path):
    entry = {
        "run": RUN, "method": "architecture", "by": "ada", "at": "2026-11-01T00:00:00Z", "complete": "true",
        "params": "1000000000", "tokens": "1000000",
    }  # fmt: skip
    declared = from_document(entry, current())
    means = Means(FileSigner(keys(path)), lambda now: asked(now, LAWS), (declared,))
    attest(path, "auditor", tmp_path / "x.zip", means=means)
    second = predicate(tmp_path / "x.zip")["method"]["secondMethod"]
    assert second["id"] == "architecture"
    assert second["flop"]["point"] == str(declared.flop)
    assert second["agrees"] is False


def test_a_later_view_of_a_record_says_what_the_record_said(path, tmp_path):
    """What was said and metered since changes nothing: the digest is one."""
    first = attest(path, "auditor", tmp_path / "a.zip")
    with opened(path, *LAWS) as desk:
        chain = Chain("new-node")
        chain.unix_ns = desk.now - 5 * WINDOW_NS
        take(desk, desk.agent(chain), chain.next([busy(0)], (TRAINING,)))
        desk.commit()
    attest(path, "auditor", tmp_path / "b.zip", record=first.attestation_id)
    one, two = predicate(tmp_path / "a.zip"), predicate(tmp_path / "b.zip")
    assert one["record"] == two["record"]
    assert one["totals"] == two["totals"]
    assert int(two["evidence"]["treeSize"]) > int(one["evidence"]["treeSize"])
    attest(path, "auditor", tmp_path / "c.zip")
    assert predicate(tmp_path / "c.zip")["totals"] != one["totals"]


def test_numbers_that_no_double_holds_are_exact(path, tmp_path):
    attest(path, "auditor", tmp_path / "x.zip")
    point = predicate(tmp_path / "x.zip")["totals"]["executedFlop"]["point"]
    assert int(point) > 2**53
    assert isinstance(point, str)
    vectors = [leaf["sums"] for leaf in evidence(tmp_path / "x.zip")["sumTree"]]
    assert sum(int(v[1]) for v in vectors) == int(point)


def test_two_workloads_that_are_called_alike_on_two_nodes_are_told_apart(tmp_path):
    """A process group's number means one thing on one node: the other node's is another run."""
    path = tmp_path / "books.sqlite"
    group = Workload(WorkloadKind.PROCESS, job="1234")
    with opened(path, *LAWS) as desk:
        for node in ("gpu-1", "gpu-2"):
            chain = Chain(node)
            chain.unix_ns = desk.now - 2 * WINDOW_NS
            take(desk, desk.agent(chain), chain.next(workloads=(group,)))
        desk.commit()
        runs = [r for (r,) in desk.rows("SELECT DISTINCT run FROM workloads WHERE run != ''")]
    assert len(runs) == 2
    attest(path, "auditor", tmp_path / "x.zip", (BELOW,), run=runs[0])
    assert predicate(tmp_path / "x.zip")["coverage"]["agents"]["expected"] == "1"
    (workload,) = json.loads(members(tmp_path / "x.zip")["pack/manifest.json"])["workloads"]
    assert workload["scope"] in {"c1/gpu-1", "c1/gpu-2"}


def test_a_store_whose_records_are_not_in_the_log_yet_is_told_what_to_do(path, tmp_path, monkeypatch):
    """As one of an older flopmeter, before a collector of this one has served it."""
    real = EvidenceLog.index_of
    monkeypatch.setattr(
        EvidenceLog, "index_of", lambda self, kind, n: None if kind != "entry" else real(self, kind, n)
    )
    with pytest.raises(AttestRefused, match="expected it in the evidence log") as e:
        attest(path, "auditor", tmp_path / "x.zip")
    assert "collector serve" in e.value.hint


def test_the_period_is_of_the_work_and_not_of_its_name(tmp_path):
    """Batches that name a workload before and after it did anything: neither begins nor ends the period."""
    path = tmp_path / "books" / "books.sqlite"
    path.parent.mkdir()
    opened(path, *LAWS).close()
    with opened(path, *LAWS) as desk:
        node = Chain(NODE, gpus=1)
        node.unix_ns = desk.now - 20 * WINDOW_NS
        agent = desk.agent(node)
        begins = []
        for workload in (1, 0, 1):
            begins.append(node.unix_ns)
            take(desk, agent, node.next([busy(0, workload)], (TRAINING, OTHER)))
            desk.commit()
    attest(path, "auditor", tmp_path / "x.zip")
    period = predicate(tmp_path / "x.zip")["period"]
    assert (period["start"], period["end"]) == (time_text(begins[1]), time_text(begins[2]))
