"""A token that is bound to a tenant: nothing that it is answered tells of anybody else."""

import json

import pytest
from api_books import LAB, RIVAL, api_store, asked, one_more
from attest_books import said
from builders import Chain, busy

from flopmeter.collector.api.routes import ROUTES
from flopmeter.collector.api.tenancy import Sight, owners
from flopmeter.collector.books import HOUR_NS
from flopmeter.collector.registry.entries import Purpose, Retract, Tag
from flopmeter.collector.registry.say import say
from flopmeter.collector.registry.state import Registry
from flopmeter.collector.report.queries import reading
from flopmeter.contract.usage import Workload, WorkloadKind

#: Whatever of the others' must never show: names of runs, jobs, users, accounts, nodes that only they use.
ELSEWHERE = Workload(WorkloadKind.SLURM, job="100", run="elsewhere", identities=(("slurm.account", "rival"),))
SECRETS = (
    "rivals-secret",
    "mallory",
    "rival",
    "=HYPERLINK",
    "+sum",
    "@eve",
    "assigned-run",
    "chem-lab",
    "physics",
    "3f0c",
)


@pytest.fixture(scope="module")
def books(tmp_path_factory):
    path = tmp_path_factory.mktemp("tenants") / "books.sqlite"
    api_store(path)
    return asked(path)


def all_paths(run="mine", event="0" * 32):
    return [
        tuple(r.path.format(run=run, node="gpu-node-41", id=event).split("/"))
        for r in ROUTES
        if r.method == "GET"
    ]


def test_a_tenant_sees_its_runs_and_no_others(books):
    found = books.get("runs", tenant=LAB)
    assert {i["run"] for i in found["items"]} == {"mine", "second"}
    assert found["total"] == 2
    assert {i["run"] for i in books.get("runs", tenant=RIVAL)["items"]} == {"rivals-secret"}
    assert books.get("runs", tenant="owner:nobody-here")["total"] == 0
    overview = books.get("overview", tenant=LAB)
    assert overview["runs"]["total"] == 2
    assert [overview[k] for k in ("nodes", "gpus", "coverage", "unattributed", "log")] == [None] * 5


def test_nothing_of_others_is_in_any_answer(books):
    for path in all_paths():
        found = books.ask(*path, tenant=LAB)
        text = found.body.decode() + repr(dict(found.headers))
        for secret in SECRETS:
            assert secret not in text, (path, secret)


def test_the_same_words_stand_in_answers_to_somebody_who_may_see_all(books):
    """Else the test above would find nothing because there is nothing."""
    text = "".join(books.ask(*path).body.decode() for path in all_paths(run="rivals-secret"))
    assert all(secret in text for secret in SECRETS if secret not in {"3f0c", "@eve"})


def test_anothers_run_is_what_is_not_there(books):
    for path in all_paths(run="rivals-secret"):
        if path[0] != "runs" or len(path) == 1:
            continue
        theirs = books.ask(*path, tenant=LAB)
        nobody = books.ask(*("nobodys-run" if p == "rivals-secret" else p for p in path), tenant=LAB)
        assert theirs.status == nobody.status == 404
        assert theirs.body.replace(b"rivals-secret", b"X") == nobody.body.replace(b"nobodys-run", b"X")
        assert theirs.etag == ""


def test_the_site_is_not_a_tenants(books):
    for path in (("fleet",), ("fleet", "nodes", "gpu-node-41"), ("fleet", "inventory"), ("fleet", "tenants"),
                 ("evidence",), ("log", "checkpoint")):  # fmt: skip
        assert books.ask(*path, tenant=LAB).status == 403


def test_what_a_run_stands_on_of_anothers_counts_and_is_not_named(books):
    whole, mine = books.get("runs", "mine"), books.get("runs", "mine", tenant=LAB)
    assert mine["countable"].keys() == whole["countable"].keys()
    for regime, countable in whole["countable"].items():
        assert mine["countable"][regime]["flop"] == countable["flop"]
    hidden = [link for link in mine["lineage"] if link["name"].startswith("another tenant")]
    assert len(hidden) == 1
    assert hidden[0]["flop"] is None
    assert {n["name"]: n["kind"] for n in books.get("runs", "mine", "lineage", tenant=LAB)["nodes"]} == {
        "mine": "run",
        "another tenant's run 1": "hidden",
        "llama": "external",
        "ancient": "external",
        "second": "run",
    }
    below = books.get("runs", "rivals-secret", "lineage", tenant=RIVAL)
    assert (
        sorted(n["kind"] for n in below["nodes"]) == ["external", "hidden", "hidden", "run"] or below["nodes"]
    )
    assert "mine" not in json.dumps(below)


def test_events_are_those_of_its_runs(books):
    every, mine = books.get("events"), books.get("events", tenant=LAB)
    assert mine["total"] == sum(e["subject"] in {"mine", "second"} for e in every["items"])
    assert 0 < mine["total"] < every["total"]
    assert all("position" not in e for e in mine["items"])
    other = next(e["id"] for e in every["items"] if e["subject"] not in {"mine", "second"})
    assert books.ask("events", other, tenant=LAB).status == 404
    body = {"state": "acknowledged", "why": "not mine"}
    assert books.post("events", other, "answers", document=body, tenant=LAB, role="operator").status == 404


def test_a_deadline_of_somebody_else_cannot_be_answered(books):
    for d in books.get("deadlines")["items"]:
        seen = d["run"] in {"mine", "second"}
        assert (books.ask("deadlines", d["id"], tenant=LAB).status == 200) is seen


def test_what_was_said_of_anothers_run_is_not_told_where_it_ended_an_event(tmp_path):
    path = tmp_path / "books.sqlite"
    api_store(path)
    books = asked(path)
    now = books.clock.now + HOUR_NS
    entries = books.get("runs", "mine", "entries")["items"]
    public = next(e["number"] for e in entries if "llama" in json.dumps(e))
    for run in ("second", "mine"):
        said(path, Tag(run, Purpose.EVALUATION, None, None, None, ("t",)), now)
    said(path, Retract(public), now)
    whole = Tag("rivals-secret", Purpose.EVALUATION, None, None, None, ("t",))
    say(path, lambda _: whole, "mallory", "a secret of theirs", lambda: now)
    books.clock.now = now
    event = next(e["id"] for e in books.get("events", run="mine", type="threshold.crossed")["items"])
    assert "by mallory: a secret of theirs" in books.get("events", event)["event"]["over"]["because"]
    found = books.ask("events", event, tenant=LAB)
    assert json.loads(found.body)["event"]["over"]["since"] is not None
    for word in (b"secret", b"mallory", b"entry"):
        assert word not in found.body


def without_times(found):
    """A collector that is started anew, as here, forecasts anew: to the same end, at another time."""
    for line in found["items"]:
        if line["forecast"] is not None:
            line["forecast"] |= {"time": None, "until": None}
    return found


def test_a_watcher_is_not_told_when_others_work(tmp_path):
    path = tmp_path / "books.sqlite"
    api_store(path)
    books = asked(path)
    before, all_before = books.get("state", tenant=LAB), books.get("state")
    lines = without_times(books.get("runs", tenant=LAB))
    assert [before[k] for k in ("position", "event", "answer", "entry")] == [None] * 4
    one_more(path, Chain("gpu-node-50", gpus=1), (ELSEWHERE,), [busy(0, 0)], now=books.clock.now)
    assert books.get("state") != all_before
    # The lines were made again, at the same moment by this clock, and say the same to this tenant.
    assert books.get("state", tenant=LAB) == before
    assert without_times(books.get("runs", tenant=LAB)) == lines


def test_a_run_of_two_tenants_is_neithers(books):
    with reading(books.path) as reader:
        side = reader.run_side(books.books.view().question)
    (mine,) = [r for r in side.rows if r.run == "mine"]
    (theirs,) = [r for r in side.rows if r.run == "rivals-secret"]
    both = mine.__class__("both", [*mine.workloads, *theirs.workloads], {})
    found = owners([mine, both], Registry())
    assert found == {"mine": LAB, "both": ""}
    assert not Sight(LAB, found, Registry()).run("both")


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("fine-tunes b", "fine-tunes another tenant's run 1"),
        ("run b fine-tunes bb", "run another tenant's run 1 fine-tunes bb"),
        ("b.", "another tenant's run 1."),
        ("'b'", "'another tenant's run 1'"),
        ("ab b/c x:b 2026-11-22T10:00:00Z", "ab b/c x:b 2026-11-22T10:00:00Z"),
    ],
)
def test_a_name_is_masked_where_it_stands_by_itself(text, clean):
    assert Sight("owner:x", {"b": "owner:y"}, Registry()).cleaned({"says": text}, ["b"]) == {"says": clean}


def test_a_name_of_digits_masks_no_figure():
    sight = Sight("owner:x", {"7": "owner:y"}, Registry())
    row = {"name": "7", "flop": {"lower": "7", "point": "7", "upper": "7"}, "size": "7"}
    assert sight.cleaned([row], ["7"]) == [{"name": "another tenant's run 1", "flop": None, "size": "7"}]
    total = {"flop": {"lower": "7", "point": "7", "upper": "7"}}
    assert sight.cleaned(total, ["7"]) == total
