"""Exports and attestations: made by the command itself in a child, streamed, and ended when nobody wants them."""

import http.client
import json
import os
from pathlib import Path

import pytest
from edge_rig import edge
from processes import wait_for

from flopmeter.collector.attest.cli import PROFILES as ATTEST_PROFILES
from flopmeter.collector.export.cli import FORMATS as EXPORT_FORMATS
from flopmeter.collector.export.cli import export
from flopmeter.collector.web.api import attestation_asked
from flopmeter.collector.web.api_words import EXPORTS, FORMATS, PROFILES
from flopmeter.collector.web.downloads import AT_ONCE, safe_name
from flopmeter.collector.web.says import Refused

EXPORT = "/api/v1/exports/usage"


@pytest.fixture
def rig(tmp_path):
    with edge(tmp_path) as rig:
        yield rig


def commands(rig):
    path = rig.folder / "commands"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def ended(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_an_export_is_what_the_command_writes(rig):
    said = rig.get(f"{EXPORT}?format=jsonl&run=slurm%3Ademo%2F1&since=2026-11-01", role="auditor")
    assert (said.status, said.headers["content-type"]) == (200, "application/jsonl")
    assert said.headers["content-disposition"] == 'attachment; filename="flopmeter-usage-slurm-demo-1.jsonl"'
    assert said.json == [
        "export",
        "usage",
        f"--store={rig.folder / 'b.db'}",
        "--format=jsonl",
        "--run=slurm:demo/1",
        "--since=2026-11-01",
    ]


@pytest.mark.parametrize(
    ("name", "flag", "kind"),
    [("report.html", "--html", "text/html; charset=utf-8"), ("report.md", "--markdown", "text/markdown; charset=utf-8")],
)  # fmt: skip
def test_a_report_is_what_the_command_writes(rig, name, flag, kind):
    said = rig.get(f"/api/v1/runs/--help/{name}", role="viewer")
    assert (said.status, said.headers["content-type"]) == (200, kind)
    ending = name.partition(".")[2]
    assert said.headers["content-disposition"] == f'attachment; filename="help-report.{ending}"'
    assert json.loads(said.body) == ["runs", "report", flag, f"--store={rig.folder / 'b.db'}", "--", "--help"]
    assert rig.get(f"/api/v1/runs/x/{name}?as_of=1", role="viewer").status == 400
    # It names other runs, which may be another tenant's.
    assert rig.get(f"/api/v1/runs/x/{name}", role="viewer", tenant="owner:lab").status == 403


def test_a_tenants_export_is_the_tenants(rig):
    said = rig.get("/api/v1/exports/events?run=x", role="auditor", tenant="owner:lab")
    assert "--tenant=owner:lab" in said.json
    assert said.headers["content-type"] == "text/csv; charset=utf-8"


@pytest.mark.parametrize(
    "query", ["format=xlsx", "tenant=owner%3Aother", "store=%2Fetc", "run=a&run=b", "format="]
)
def test_a_parameter_that_is_none(rig, query):
    assert rig.get(f"{EXPORT}?{query}", role="auditor").status == 400
    assert commands(rig) == []


def test_options_cannot_be_smuggled_in_by_values(rig):
    said = rig.get(f"{EXPORT}?run=--store%3D%2Fetc%2Fpasswd%20-o%20x", role="auditor")
    assert said.json[-1] == "--run=--store=/etc/passwd -o x"  # one argument, of the option
    said = rig.post("/api/v1/runs/--help/attestations", {"profile": "auditor"}, role="operator")
    assert said.json[-2:] == ["--", "--help"]


def test_what_the_command_refuses_is_refused_in_its_words(rig):
    said = rig.get(f"{EXPORT}?run=refused", role="auditor")
    assert (said.status, said.headers["content-type"]) == (400, "application/problem+json")
    assert said.json["detail"] == "run: expected one that is there, got none [31mlook"
    assert "hint" not in said.json
    gone = rig.get(f"{EXPORT}?run=unreadable", role="auditor").json
    assert (gone["status"], gone["detail"]) == (503, "/secret/b.db: expected a store, found no such file")
    assert gone["hint"] == "name it with --store"
    broken = rig.get(f"{EXPORT}?run=broken", role="auditor")
    assert broken.status == 500
    assert b"secret" not in broken.body


def test_half_a_file_does_not_look_like_a_whole_one(rig):
    with pytest.raises(http.client.IncompleteRead):
        rig.get(f"{EXPORT}?run=half", role="auditor")
    assert rig.get("/healthz").status == 200


def endless(rig):
    connection = http.client.HTTPConnection("127.0.0.1", rig.server.port, timeout=60)
    connection.request("GET", f"{EXPORT}?run=endless", headers={"Authorization": f"Bearer {rig.token()}"})
    answer = connection.getresponse()
    assert answer.read(8) == b"row\nrow\n"
    return connection, answer


def test_a_client_that_goes_ends_the_command_and_two_are_made_at_once(rig):
    open_ = [endless(rig) for _ in range(AT_ONCE)]
    beyond = rig.get(EXPORT, role="auditor")
    assert (beyond.status, beyond.headers["retry-after"]) == (503, "30")
    for connection, answer in open_:
        answer.close()
        connection.close()
    for pid in commands(rig):
        wait_for("the command is ended", lambda pid=pid: ended(pid))
    wait_for("there is a place again", lambda: rig.get(EXPORT, role="auditor").status == 200)


def test_the_command_ends_with_the_port(tmp_path):
    with edge(tmp_path) as rig:
        connection, answer = endless(rig)
        pids = commands(rig)
    assert all(ended(pid) for pid in pids)
    with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
        answer.read()
    answer.close()
    connection.close()


def test_an_attestation_is_a_file(rig):
    said = rig.post(
        "/api/v1/runs/slurm%3Ademo%2F1/attestations",
        {"profile": "aiOffice", "why": "asked for"},
        role="operator",
    )
    assert said.status == 201
    assert said.headers["content-disposition"] == 'attachment; filename="slurm-demo-1-aiOffice.zip"'
    told = said.json
    assert told[:3] == ["attest", "create", "-o"]
    assert told[4:] == [
        f"--store={rig.folder / 'b.db'}",
        "--who=token:ann-operator",
        "--profile=aiOffice",
        "--why=asked for",
        "--",
        "slurm:demo/1",
    ]
    assert not Path(told[3]).parent.exists()  # nothing stays


def test_a_tenant_is_not_told_where_the_books_lie(rig):
    said = rig.get(f"{EXPORT}?run=unreadable", role="auditor", tenant="owner:lab")
    assert said.status == 503
    assert b"secret" not in said.body


def test_an_attestation_of_a_run_that_is_not_there(rig):
    assert rig.post("/api/v1/runs/gone/attestations", {"profile": "auditor"}, role="operator").status == 404
    assert commands(rig) == []


@pytest.mark.parametrize("profile", PROFILES)
def test_no_attestation_for_a_tenant_whatever_run_it_is_of(rig, profile):
    """Its file holds whole records of nodes that several share: names of the others' runs, users and accounts."""
    said = rig.post(
        "/api/v1/runs/slurm%3Ademo%2F1/attestations",
        {"profile": profile},
        role="operator",
        tenant="owner:lab",
    )
    assert said.status == 403
    assert commands(rig) == []


def test_an_attestation_that_is_refused(rig):
    said = rig.post("/api/v1/runs/refused/attestations", {"profile": "auditor"}, role="operator")
    assert said.status == 400
    assert said.json["detail"].startswith("run: expected")


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{}", b'{"profile": "x"}', b'{"profile": 1}', b'{"profile": "auditor", "signer": "command:/bin/sh"}',
     b'{"profile": "auditor", "why": "a\\nb"}', json.dumps({"profile": "auditor", "why": "x" * 2_001}).encode()],
)  # fmt: skip
def test_what_asks_for_no_attestation(body):
    with pytest.raises(Refused) as e:
        attestation_asked(body)
    assert e.value.status == 400


def test_profiles_are_those_of_the_command():
    assert PROFILES == ATTEST_PROFILES
    assert tuple(FORMATS) == EXPORT_FORMATS
    assert set(EXPORTS) == set(export.commands)


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("llm-7", "llm-7"),
        ('a"; filename="b', "a-filename-b"),
        ("../../etc", "etc"),
        ("مرحبا\u202e", "run"),
        ("x" * 500, "x" * 80),
    ],
)
def test_names_of_files(name, safe):
    assert safe_name(name) == safe


def test_what_a_killed_collector_left_half_made_goes(tmp_path):
    (tmp_path / ".flopmeter-file-abc").mkdir()
    (tmp_path / ".flopmeter-file-abc" / "file").write_text("half")
    with edge(tmp_path) as rig:
        assert rig.get("/healthz").status == 200
        assert not (tmp_path / ".flopmeter-file-abc").exists()
        assert (tmp_path / "b.db").exists()


def test_an_export_of_a_run_that_one_may_not_see(rig):
    said = rig.get(f"{EXPORT}?run=gone", role="auditor", tenant="owner:lab")
    assert said.status == 404
    assert commands(rig) == []
