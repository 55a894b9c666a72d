"""API tokens over HTTP: who asks, what a role may, and what nobody learns."""

import json
import urllib.error
import urllib.request

import pytest
from serving import settings_for

from flopmeter.collector.access.api import MAY, Api
from flopmeter.collector.access.desk import Desk
from flopmeter.collector.access.errors import AccessError
from flopmeter.collector.access.tokens import ROLES, api_token, join_token, parse_age, parse_api
from flopmeter.collector.running import run_collector


@pytest.fixture
def api(desk, store, clock):
    return Api(store, clock)


def token_for(desk, role="auditor", lasts_s=0):
    return desk.make_api_token(role=role, name="ann", lasts_s=lasts_s, who="tests")


def asked(api, path, text=None, address="127.0.0.1"):
    return api.answer(path, f"Bearer {text}" if text is not None else None, address)


def test_whoami_says_whose_token_it_is(api, desk):
    for role in ROLES:
        text, made = token_for(desk, role)
        said = asked(api, "/api/v1/whoami", text)
        assert said.status == 200
        assert json.loads(said.body) == {
            "name": "ann",
            "role": role,
            "token": made.token_id,
            "expires_unix_s": "0",
        }


@pytest.mark.parametrize("path", sorted(MAY))
@pytest.mark.parametrize("role", ROLES)
def test_each_role_may_what_the_table_says_and_nothing_else(api, desk, path, role):
    text, _ = token_for(desk, role)
    status = asked(api, path, text).status
    assert (status == 403) is (role not in MAY[path])


def test_a_viewer_may_not_read_the_log(api, desk):
    said = asked(api, "/api/v1/log/checkpoint", token_for(desk, "viewer")[0])
    assert said.status == 403
    assert "auditor" in json.loads(said.body)["message"]


def test_no_token_and_tokens_that_are_none_are_401_and_say_how(api, desk, clock):
    text, made = token_for(desk)
    join = desk.make_join_token(name="", nodes="*", uses=1, lasts_s=60, who="tests")[0]
    short, _ = token_for(desk, lasts_s=60)
    gone, revoked = token_for(desk)
    desk.revoke_token(revoked.token_id, who="ann", why="left")
    clock.move(seconds=61)
    none = asked(api, "/api/v1/whoami")
    assert none.status == 401
    assert none.headers == {"WWW-Authenticate": 'Bearer realm="flopmeter"'}
    head, _, secret = text.rpartition(".")
    for wrong in (
        "",
        text[:-1],
        text.upper(),
        f"{head}.{'0' * 64}",
        f"FMA1.{'0' * 12}.{secret}",
        f"FMA1.{join.token_id}.{join.secret.hex()}",
        join.text(),
        short,
        gone,
        text + "\n" + text,
        "x" * 10_000,
    ):
        said = asked(api, "/api/v1/whoami", wrong)
        assert said.status == 401, wrong
        assert said.headers["WWW-Authenticate"].endswith('error="invalid_token"')
        assert said.body == none.body  # not which
    assert api.answer("/api/v1/whoami", f"Basic {text}", "127.0.0.1").status == 401
    assert api.answer("/api/v1/whoami", f"bearer  {text}", "::1").status == 200
    assert made.role == "auditor"


def test_a_secret_is_compared_in_constant_time(api, desk, monkeypatch):
    import hmac

    seen, compare = [], hmac.compare_digest
    monkeypatch.setattr(
        "flopmeter.collector.access.tokens.hmac.compare_digest",
        lambda a, b: seen.append((a, b)) or compare(a, b),
    )
    text, _ = token_for(desk)
    asked(api, "/api/v1/whoami", text)
    asked(api, "/api/v1/whoami", f"FMA1.{'0' * 12}.{'0' * 64}")  # an unknown id, too
    assert len(seen) == 2


def test_paths_that_are_not_there_are_404_whoever_asks(api, desk):
    for path in ("/api/v1", "/api/v1/", "/api/v1/whoami/", "/api/v2/whoami"):
        assert asked(api, path).status == 404
        assert asked(api, path, token_for(desk, "admin")[0]).status == 404


def test_no_token_travels_in_plain_text(api, desk):
    for address in ("192.0.2.7", "fe80::1%eth0", "::ffff:192.0.2.7", "nonsense"):
        assert asked(api, "/api/v1/whoami", token_for(desk)[0], address).status == 403


def test_over_http(tmp_path, clock):
    with run_collector(settings_for(tmp_path), clock) as running:
        text, _ = token_for(Desk(running.store_path, None, clock))
        url = f"http://{running.http_address}/api/v1/"
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(url + "whoami")
        assert caught.value.code == 401
        assert caught.value.headers["WWW-Authenticate"].startswith("Bearer")
        caught.value.close()
        request = urllib.request.Request(url + "whoami", headers={"Authorization": f"Bearer {text}"})
        with urllib.request.urlopen(request) as answer:
            assert json.loads(answer.read())["role"] == "auditor"
        running.review()  # the token's row is in the log with that commit
        running.seal()
        request = urllib.request.Request(url + "log/checkpoint", headers={"Authorization": f"Bearer {text}"})
        with urllib.request.urlopen(request) as answer:
            note = answer.read().decode()
        assert len(note.split("\n\n")) == 2
        assert int(note.split("\n")[1]) >= 1


# --- what can be a token ---


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1_800), ("24h", 86_400), ("7d", 7 * 86_400)]
)
def test_ages(text, seconds):
    assert parse_age(text) == seconds


@pytest.mark.parametrize("text", ["", "0s", "1", "1w", "-1h", "1.5h", "99999d", "１h", "1h "])
def test_what_is_no_age(text):
    with pytest.raises(AccessError):
        parse_age(text)


@pytest.mark.parametrize("role", ["", "root", "Admin", "a" * 300])
def test_what_is_no_role(role):
    with pytest.raises(AccessError):
        api_token("x", b"", role=role, name="ann", expires_unix_s=0)


@pytest.mark.parametrize("name", ["", " ", "a\nb", "n" * 300])
def test_an_api_token_has_a_name(name):
    with pytest.raises(AccessError):
        api_token("x", b"", role="admin", name=name, expires_unix_s=0)


@pytest.mark.parametrize(("nodes", "uses"), [("", 1), ("a\nb", 1), ("n" * 300, 1), ("*", 0), ("*", -1)])
def test_what_is_no_join_token(nodes, uses):
    with pytest.raises(AccessError):
        join_token("x", b"", name="", nodes=nodes, uses=uses, expires_unix_s=1)


def test_a_token_is_read_whole_or_not():
    assert parse_api("FMA1.0123456789ab." + "0" * 64) == ("0123456789ab", bytes(32))
    for text in (
        "FMA1.0123456789ab." + "0" * 63,
        "FMA2.0123456789ab." + "0" * 64,
        "FMA1.0123456789AB." + "0" * 64,
    ):
        assert parse_api(text) is None
