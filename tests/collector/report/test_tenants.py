"""Totals per tenant: whose work it is, that every workload is in one sum, and what a regime on tenants says."""

import json
import sys

import pytest
from builders import UNIX_NS, WINDOW_NS, Chain, busy
from desk import Desk
from filing_ledger import MINUTE_FLOP, regime
from hypothesis import given, settings
from hypothesis import strategies as st

from flopmeter.cli.layout import Paint
from flopmeter.cli.main import main
from flopmeter.collector.law.laws import read_laws
from flopmeter.collector.registry.entries import Declare, External, JobKey, Link, Purpose, Relation, Tag
from flopmeter.collector.registry.say import say
from flopmeter.collector.report import queries
from flopmeter.collector.report.tenants import NOBODY, By, Tenant, tenant_of
from flopmeter.collector.report.tenants_view import tenants_of, tenants_view
from flopmeter.contract.flop import Figure
from flopmeter.contract.usage import IDLE, UNATTRIBUTED, Workload, WorkloadKind

NOW = UNIX_NS + 61 * WINDOW_NS  # nobody is silent yet
JOB = JobKey("c1", int(WorkloadKind.SLURM), "1")


def slurm(job, run, account="", **keys):
    seen = (("slurm.account", account),) if account else ()
    return Workload(WorkloadKind.SLURM, job=job, run=run, dtype="bf16", identities=seen, user="ada", **keys)


def pod(job, run, namespace):
    return Workload(
        WorkloadKind.POD, job=job, run=run, dtype="bf16", identities=(("k8s.namespace", namespace),)
    )


#: On one GPU each, an hour: (cluster, workload). The books' sums are MINUTE_FLOP x 60 of each.
PLACES = (
    ("c1", slurm("1", "atlas", "nlp")),
    ("c1", slurm("2", "atlas", "vision")),  # one run, two accounts
    ("c2", slurm("1", "boreas", "nlp")),  # the same account's name, another cluster
    ("c2", pod("p", "cygnus", "nlp")),  # a namespace of the same name
    ("c1", slurm("3", "draco")),  # nobody's
    ("c1", slurm("4", "eridanus", "nlp")),  # declared to be another's
)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "books.sqlite"
    with Desk(path) as desk:
        desk.now = NOW
        for i, (cluster, w) in enumerate(PLACES):
            chain = Chain(f"n{i}", gpus=2, cluster=cluster)
            agent = desk.agent(chain)
            for _ in range(60):
                desk.offer(agent, chain.next([busy(0), busy(1, 1)], (w, UNATTRIBUTED if i else IDLE)))
        desk.commit()
    say(path, lambda _: Declare("eridanus", owner="Umbrella"), "ada@lab", "contract 7", lambda: NOW)
    return path


def document(path, *lines):
    with queries.reading(path) as reader:
        return tenants_of(reader, queries.asked(NOW), lines)


def by_id(found):
    return {t["tenant"]: t for t in found["tenants"]}


HOUR = 60 * MINUTE_FLOP


def test_each_tenant_has_its_own_and_nobody_is_said(path):
    found = by_id(document(path))
    assert {t: (d["flop"]["point"], [r["run"] for r in d["runs"]]) for t, d in found.items()} == {
        "slurm-account:c1/nlp": (str(HOUR), ["atlas"]),
        "slurm-account:c1/vision": (str(HOUR), ["atlas"]),
        "slurm-account:c2/nlp": (str(HOUR), ["boreas"]),
        "k8s-namespace:c2/nlp": (str(HOUR), ["cygnus"]),
        "owner:Umbrella": (str(HOUR), ["eridanus"]),
        "nobody": (str(HOUR), ["draco"]),
    }
    assert document(path)["tenants"][-1]["tenant"] == "nobody", "last, and there"
    assert all(d["device_seconds"] == 3600.0 for d in found.values())
    assert all(d["largest_run"] == d["runs"][0]["run"] for d in found.values())


def test_sums_of_tenants_are_the_runs_to_the_last_operation(path):
    found = document(path)["tenants"]
    with queries.reading(path) as reader:
        runs = reader.runs(queries.asked(NOW))
    whole = {name: sum(int(t["flop"][name]) for t in found) for name in ("lower", "point", "upper")}
    assert whole["point"] == sum(int(r["executed"]["flop"]["point"]) for r in runs) == 6 * HOUR
    # Bounds are rounded outward once per sum: a run that is cut in two is rounded twice.
    for name in ("lower", "upper"):
        assert abs(whole[name] - sum(int(r["executed"]["flop"][name]) for r in runs)) <= 4


def test_gpus_times_and_the_hour_of_most(path):
    vision = by_id(document(path))["slurm-account:c1/vision"]
    assert vision["most_gpus"]["mean_of_an_hour"] < 1
    assert vision["device_seconds_by_model"] == {"NVIDIA H100 80GB HBM3": 3600.0}
    assert vision["first_seen"] < vision["last_seen"]
    assert vision["most_gpus"]["hour"][:13] in {vision["first_seen"][:13], vision["last_seen"][:13]}


def test_no_users_name_is_in_it(path):
    assert "ada" not in json.dumps(document(path))


def test_a_regime_on_tenants_gets_the_sum_of_its_runs_and_no_ancestor(path):
    line = regime(str(HOUR - 1), regime_id="us-test", scope='"tenant"', counting='"executed"')
    say(
        path, lambda _: External("base", Figure(10**24, 10**24, 10**24), "its card"), "a@b", "so", lambda: NOW
    )
    say(path, lambda _: Link("boreas", Relation.CONTINUES, "base"), "a@b", "so", lambda: NOW)
    found = by_id(document(path, line))
    (said,) = found["slurm-account:c2/nlp"]["regimes"]
    assert (said["counted"]["point"], said["verdict"], said["in_force"]) == (str(HOUR), "undetermined", True)
    low = regime("1", regime_id="us-test", scope='"tenant"', counting='"executed"')
    assert by_id(document(path, low))["nobody"]["regimes"][0]["verdict"] == "crossed"


def test_a_regime_with_a_profile_leaves_out_what_is_tagged(path):
    line = regime(str(HOUR), regime_id="us-test", scope='"tenant"', counting='"eu-broad"')
    tag = Tag("atlas", Purpose.EVALUATION, job=JOB, evidence=("ticket",))
    say(path, lambda _: tag, "a@b", "so", lambda: NOW)
    found = by_id(document(path, line))
    assert found["slurm-account:c1/nlp"]["regimes"][0]["counted"]["point"] == "0"
    assert found["slurm-account:c1/vision"]["regimes"][0]["counted"]["point"] == str(HOUR)
    assert found["slurm-account:c1/nlp"]["flop"]["point"] == str(HOUR), "executed is executed"


def test_the_shipped_regime_on_tenants_has_no_number_and_no_answer(path):
    lines = [r for r in read_laws(None).regimes if r.scope == "tenant"]
    assert [r.id for r in lines] == ["us-iaas-kyc"]
    for t in document(path, *lines)["tenants"]:
        (said,) = t["regimes"]
        assert (said["verdict"], said["threshold_flop"], said["in_force"]) == (None, None, False)


names = st.text(max_size=6)


@settings(deadline=None)
@given(st.none() | names, names, names)
def test_whose_it_is_goes_by_owner_then_account_then_namespace(owner, account, namespace):
    seen = {"slurm.account": account, "k8s.namespace": namespace}
    found = tenant_of(owner, JOB, seen)
    if owner:
        assert found == Tenant(By.OWNER, "", owner)
    elif account:
        assert found == Tenant(By.ACCOUNT, "c1", account)
    elif namespace:
        assert found == Tenant(By.NAMESPACE, "c1", namespace)
    else:
        assert found == NOBODY


def flopmeter(monkeypatch, capsys, *words):
    monkeypatch.setattr(sys, "argv", ["flopmeter", "fleet", "tenants", *words])
    with pytest.raises(SystemExit) as e:
        main()
        sys.exit(0)
    return e.value.code or 0, capsys.readouterr().out


def test_the_command(monkeypatch, capsys, path):
    monkeypatch.setenv("FLOPMETER_STORE", str(path))
    code, out = flopmeter(monkeypatch, capsys)
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    for part in ("c1/vision", "c2/nlp", "Umbrella", "(nobody's)", "draco", "largest run"):
        assert part in out
    code, out = flopmeter(monkeypatch, capsys, "--json")
    assert code == 0
    assert len(json.loads(out)["tenants"]) == 6


def test_a_page_with_answers_and_one_without_runs(path, tmp_path):
    page = Paint(colour=False, width=80)
    line = regime("1", regime_id="us-test", scope='"tenant"', counting='"executed"')
    assert "c2/nlp: us-test crossed" in tenants_view(document(path, line), page)
    with Desk(tmp_path / "empty.sqlite"):
        pass
    assert tenants_view(document(tmp_path / "empty.sqlite"), page).startswith("no runs yet")
