"""A run that several tenants work in: each sees its own part, and nothing of the others'."""

import json
from dataclasses import replace

import pytest
from api_books import LAB, RIVAL, api_store, asked, one_more
from attest_books import said
from builders import Chain, busy

from flopmeter.collector.api.shared_runs import shared_runs
from flopmeter.collector.api.tenancy import HIDDEN, owners
from flopmeter.collector.books import HOUR_NS
from flopmeter.collector.errors import StoreError
from flopmeter.collector.export.columns import USAGE
from flopmeter.collector.export.usage import usage_rows
from flopmeter.collector.export.wanted import Wanted
from flopmeter.collector.registry.entries import Assign, Declare, JobKey
from flopmeter.collector.report.queries import reading
from flopmeter.collector.report.tenants_view import tenants_of
from flopmeter.contract.usage import Workload, WorkloadKind

SLURM = WorkloadKind.SLURM
OURS = Workload(SLURM, job="601", run="common", user="ada", identities=(("slurm.account", "lab"),))
OURS_TOO = Workload(SLURM, job="602", run="common", user="ada", identities=(("slurm.account", "lab"),))
THEIRS = Workload(SLURM, job="701", run="common", user="mallory", identities=(("slurm.account", "rival"),))
ALONE = Workload(SLURM, job="603", run="quiet", user="ada", identities=(("slurm.account", "lab"),))


@pytest.fixture
def books(tmp_path):
    path = tmp_path / "books.sqlite"
    api_store(path)
    found = asked(path)
    found.chain = Chain("gpu-node-80", gpus=4)
    found.chain.unix_ns = found.clock.now
    work(found, (OURS, OURS_TOO, THEIRS), [busy(0, 0), busy(1, 1), busy(2, 2), busy(3, 2, percent=17)])
    return found


def work(books, workloads, rows):
    books.clock.now += HOUR_NS
    one_more(books.path, books.chain, workloads, rows, now=books.clock.now)


def part(books, tenant):
    found = [p for p in books.get("runs", tenant=tenant)["shared"] if p["run"] in {"common", None}]
    return found[0] if found else None


def test_each_sees_what_it_did_itself_as_the_fleets_report_adds_it_up(books):
    with reading(books.path) as reader:
        told = {t["tenant"]: t for t in tenants_of(reader, books.books.view().question, ())["tenants"]}
    for tenant, jobs in ((LAB, 2), (RIVAL, 1)):
        mine = part(books, tenant)
        (row,) = [r for r in told[tenant]["runs"] if r["run"] == "common"]
        assert {name: mine[name] for name in row} == row
        assert mine["jobs"] == jobs
    whole = books.get("runs", "common")["executed"]["flop"]
    parts = [part(books, tenant)["flop"] for tenant in (LAB, RIVAL)]
    assert sum(int(p["point"]) for p in parts) == int(whole["point"])
    assert books.get("runs")["shared"] == []
    assert books.get("runs", tenant="owner:nobody-here")["shared"] == []


def test_nothing_of_the_others_shows(books):
    whole = books.get("runs", "common")
    secrets = (
        "mallory",
        "rival",
        '"701"',
        whole["executed"]["flop"]["point"],
        part(books, RIVAL)["flop"]["point"],
    )
    text = ""
    for path in (("runs",), ("runs", "common"), ("runs", "common", "curve"), ("runs", "common", "report"), ("overview",),
                 ("runs", "common", "lineage"), ("events",), ("deadlines",), ("state",)):  # fmt: skip
        found = books.ask(*path, tenant=LAB, role="auditor")
        text += found.body.decode() + repr(dict(found.headers))
        if path[:2] == ("runs", "common"):
            assert found.status == 404
    for secret in secrets:
        assert secret not in text
    assert books.get("events")["total"] > sum(
        e["subject"] == "common" for e in books.get("events", tenant=LAB)["items"]
    ) == 0  # fmt: skip
    assert any(e["subject"] == "common" for e in books.get("events")["items"])


def test_it_is_said_where_the_part_is_and_to_nobody_else(books):
    mine = json.loads(books.ask("runs", "common", tenant=LAB).body)
    assert "`shared`" in mine["hint"]
    stranger = books.ask("runs", "common", tenant="slurm-account:c1/third")
    nobody = books.ask("runs", "nobodys-run", tenant="slurm-account:c1/third")
    assert stranger.body.replace(b"common", b"X") == nobody.body.replace(b"nobodys-run", b"X")


def test_a_watcher_is_told_of_its_own_part_alone(books):
    before = books.get("state", tenant=LAB)
    now = books.clock.now
    chain = Chain("gpu-node-81", gpus=1)
    chain.unix_ns = now - HOUR_NS
    one_more(books.path, chain, (THEIRS,), [busy(0, 0)], now=now)
    assert books.get("state", tenant=LAB) == before
    one_more(books.path, chain, (OURS,), [busy(0, 0)], now=now)
    assert books.get("state", tenant=LAB)["mark"] != before["mark"]


def test_declared_as_one_owners_it_is_that_owners_and_whole(books):
    whole = books.get("runs", "common")["executed"]
    said(books.path, Declare("common", owner="consortium"), books.clock.now)
    assert books.get("runs", "common", tenant="owner:consortium")["executed"] == whole
    for tenant in (LAB, RIVAL):
        assert part(books, tenant) is None
        assert books.ask("runs", "common", tenant=tenant).status == 404


def test_a_name_that_people_gave_is_not_told_to_whoever_did_not(books):
    """The rival's run "rivals-secret" is the rival's word; an operator puts a job of the lab's into it."""
    work(books, (ALONE,), [busy(0, 0)])
    said(books.path, Assign(JobKey("c1", int(SLURM), "603"), "rivals-secret", None), books.clock.now)
    found = books.ask("runs", tenant=LAB)
    shared = json.loads(found.body)["shared"]
    assert sorted(p["run"] or "" for p in shared) == ["", "common"]
    assert b"rivals-secret" not in found.body
    assert {p["run"] for p in books.get("runs", tenant=RIVAL)["shared"]} == {"common", "rivals-secret"}
    gone = books.ask("runs", "rivals-secret", tenant=LAB)
    assert "shared" not in json.loads(gone.body)["hint"]


def test_nor_does_a_file_of_its_usage_tell_that_name(books):
    work(books, (ALONE,), [busy(0, 0)])
    said(books.path, Assign(JobKey("c1", int(SLURM), "603"), "rivals-secret", None), books.clock.now)

    def exported(tenant, run=""):
        with reading(books.path) as reader:
            found = usage_rows(reader, books.books.view().question, Wanted(run, tenant))
            return [dict(zip((c.name for c in USAGE.columns), row, strict=True)) for row in found]

    mine = exported(LAB)
    assert {r["run"] for r in mine if r["job"] == "603"} == {HIDDEN}
    assert {r["run"] for r in mine if r["job"] != "603"} >= {"common", "mine", "second"}
    assert "rivals-secret" not in repr(mine)
    (whole,) = [r for r in exported("") if r["job"] == "603"]
    assert [r for r in mine if r["job"] == "603"] == [whole | {"run": HIDDEN}]
    for run in ("rivals-secret", "no-such-run"):
        with pytest.raises(StoreError, match="none of that name"):
            exported(LAB, run)
    assert {r["job"] for r in exported(RIVAL, "rivals-secret")} == {"99"}
    assert {r["job"] for r in exported("", "rivals-secret")} >= {"99", "603"}


def test_whose_it_is_cannot_be_read_and_the_others_parts_are_told(books):
    """Whatever is wrong with what one workload says of itself: it costs its run's parts, and no tenant's view."""
    view = books.books.view()
    side = view.side
    (common,) = [r for r in side.rows if r.run == "common"]
    torn = replace(common, run="torn", workloads=[w._replace(identities=7) for w in common.workloads])
    whose = owners([torn, *side.rows], view.registry)
    assert whose["torn"] == whose["common"] == ""
    found = shared_runs([torn, *side.rows], whose, view.registry, side.models, view.question.table)
    assert {p["run"] for parts in found.values() for p in parts} == {"common"}
