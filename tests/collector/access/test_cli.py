"""`flopmeter collector token | agents`, as a person types them, beside a store."""

import json

import pytest
from access_rig import Node, kinds, rows
from builders import Chain

from flopmeter.cli.main import main
from flopmeter.contract.enrolment import parse_join_token


@pytest.fixture
def typed(monkeypatch, capsys):
    """Runs a command as the shell does; gives (exit code, stdout, stderr)."""

    def typed(*args):
        monkeypatch.setattr("sys.argv", ["flopmeter", "collector", *args])
        with pytest.raises(SystemExit) as done:
            main()
        said = capsys.readouterr()
        return done.value.code, said.out, said.err

    return typed


@pytest.fixture
def run(typed, desk, store):
    """… beside the desk's store."""
    return lambda *args: typed(*args, "--store", str(store))


def test_a_join_token_is_printed_once_with_what_to_do(run, desk, store):
    code, out, err = run("token", "create", "--nodes", "gpu-*", "--uses", "3", "--expires", "30m")
    assert code == 0
    token = parse_join_token(out)
    assert token.ca_spki_sha256 == desk.ca.pin
    assert "flopmeter agent run --collector" in err
    assert token.secret.hex() not in err
    node = Node(Chain("gpu-001"))
    desk.enrol(node.asks(token, node.csr(desk.ca.trust_domain)))
    code, out, _ = run("token", "list")
    assert "1 of 3" in out
    assert token.secret.hex() not in out
    assert max(len(line) for line in out.splitlines()) <= 80


def test_an_api_token(run, store):
    code, out, _ = run("token", "create", "--role", "auditor", "--name", "ann", "--json")
    assert code == 0
    made = json.loads(out)
    assert made["text"].startswith(f"FMA1.{made['token']}.")
    assert run("token", "revoke", made["token"], "--why", "left")[0] == 0
    code, out, _ = run("token", "list", "--json")
    assert [t["state"] for t in json.loads(out)["tokens"]] == ["revoked"]
    assert "text" not in json.loads(out)["tokens"][0]
    code, _, _err = run("token", "revoke", made["token"], "--why", "again")
    assert code == 1
    assert json.loads(rows(store)[-1].detail)["why"] == "left"


@pytest.mark.parametrize(
    "args",
    [
        ("--role", "root", "--name", "x"),
        ("--role", "admin"),
        ("--expires", "soon"),
        ("--uses", "0"),
        ("--nodes", ""),
    ],
)
def test_what_is_no_token(run, store, args):
    assert run("token", "create", *args)[0] == 2
    assert kinds(store) == []


def test_agents_are_listed_and_revoked(run, desk, store):
    one, two = (Node(Chain(name)).joined(desk) for name in ("gpu-001", "gpu-002"))
    code, out, _ = run("agents", "list")
    assert code == 0
    assert one.agent_id.hex() in out
    assert run("agents", "revoke", "gpu-001", "--why", "stolen")[0] == 0
    assert run("agents", "revoke", two.agent_id.hex()[:8], "--why", "sold", "--json")[0] == 0
    code, out, _ = run("agents", "list", "--json")
    assert [a["state"] for a in json.loads(out)["agents"]] == ["revoked", "revoked"]
    assert kinds(store)[-2:] == ["revoked", "revoked"]
    for who, why in (("gpu-001", "again"), ("gpu-009", "nobody"), (one.agent_id.hex()[:4], "short")):
        assert run("agents", "revoke", who, "--why", why)[0] == 1
    assert run("agents", "revoke", "gpu-002")[0] == 2
    assert run("agents", "revoke", "gpu-002", "--why", "a\nb")[0] in (1, 2)


def test_a_name_that_two_agents_have_is_not_guessed(run, desk):
    one, two = (Node(Chain("gpu-001", key_seed=seed)).joined(desk) for seed in ("a", "b"))
    code, _, _err = run("agents", "revoke", "gpu-001", "--why", "which?")
    assert code == 1
    assert run("agents", "revoke", one.agent_id.hex(), "--why", "this one")[0] == 0
    assert run("agents", "revoke", "gpu-001", "--why", "the one that stands")[0] == 0
    assert two.agent_id != one.agent_id


def test_without_a_store(typed, tmp_path):
    for args in (
        ("token", "list"),
        ("agents", "list"),
        ("token", "create", "--role", "admin", "--name", "a"),
    ):
        code, _, err = typed(*args, "--store", str(tmp_path / "none.db"))
        assert code == 3
        assert "expected a store" in err
