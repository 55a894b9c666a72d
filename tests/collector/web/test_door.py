"""Who asks: tokens and sessions, what a role may, and what nobody learns."""

import json
from datetime import UTC, datetime

import pytest
from edge_rig import edge

from flopmeter.collector.access.rates import PER_S, REFUSALS
from flopmeter.collector.access.tokens import ROLES
from flopmeter.collector.web import door as doors
from flopmeter.collector.web.may import TABLE
from flopmeter.collector.web.sessions import LIFE_S, MAX_OF_TOKEN, Sessions

WHOAMI = "/api/v1/whoami"


class Monotonic:
    now = 1_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def monotonic():
    return Monotonic()


@pytest.fixture
def rig(tmp_path, monotonic):
    with edge(tmp_path, monotonic=monotonic) as rig:
        yield rig


def test_whoami_says_whose_token_it_is(rig):
    for role in ROLES:
        said = rig.get(WHOAMI, role=role)
        assert said.status == 200
        token = rig.token(role).split(".")[1]
        assert said.json == {
            "who": f"ann-{role}",
            "role": role,
            "tenant": None,
            "token": token,
            "expires": None,
        }
    short = rig.token("viewer", lasts_s=3_600)
    said = rig.get(WHOAMI, Authorization=f"Bearer {short}").json
    ends = datetime.fromisoformat(said["expires"])
    assert 3_500 < (ends - datetime.fromtimestamp(rig.clock() / 1e9, UTC)).total_seconds() <= 3_600


def concrete(row):
    return "/api/v1/" + "/".join("x" if part == "*" else part for part in row.pattern)


@pytest.mark.parametrize("role", ROLES)
def test_each_role_may_what_the_table_says_and_nothing_else(rig, role):
    for row in TABLE:
        if row.pattern in (("stream",), ("exports", "usage"), ("exports", "events")):
            continue  # these go on; asked below, by who may not
        said = rig.ask(row.method, concrete(row), b"{}" if row.method == "POST" else None, role=role)
        assert (said.status == 403) is (role not in row.roles), (row, said.body)
    if role == "viewer":
        assert rig.get("/api/v1/exports/usage", role=role).status == 403
        assert "auditor" in rig.get("/api/v1/evidence", role=role).json["detail"]


def test_a_tenants_token_is_kept_from_what_concerns_the_site(rig):
    tenant = "slurm-account:tres/physics"
    for row in TABLE:
        if row.method == "GET" and not row.tenants:
            assert rig.get(concrete(row), role="auditor", tenant=tenant).status == 403, row
    asked = rig.get("/api/v1/runs/x", role="auditor", tenant=tenant).json
    assert (asked["tenant"], asked["role"]) == (tenant, "auditor")
    assert rig.get(WHOAMI, role="viewer", tenant=tenant).json["tenant"] == tenant


def test_no_token_and_tokens_that_are_none_are_401_and_say_how(rig, monotonic):
    text = rig.token()
    join = rig.desk.make_join_token(name="", nodes="*", uses=1, lasts_s=60, who="tests")[0]
    short = rig.token("viewer", lasts_s=60)
    gone, revoked = rig.desk.make_api_token(role="admin", name="bob", lasts_s=0, who="tests")
    rig.desk.revoke_token(revoked.token_id, who="ann", why="left")
    rig.clock.move(seconds=61)
    none = rig.get(WHOAMI)
    assert (none.status, none.headers["www-authenticate"]) == (401, 'Bearer realm="flopmeter"')
    head, _, secret = text.rpartition(".")
    for number, wrong in enumerate(
        (
            text[:-1],
            text.upper(),
            f"{head}.{'0' * 64}",
            f"FMA1.{'0' * 12}.{secret}",
            f"FMA1.{join.token_id}.{join.secret.hex()}",
            join.text(),
            short,
            gone,
            f"{text} {text}",
            "x" * 10_000,
            "",
        )
    ):
        if number % 5 == 0:
            monotonic.now += PER_S  # a machine that guesses is not heard at all; see below
        said = rig.get(WHOAMI, Authorization=f"Bearer {wrong}")
        assert said.status == 401, wrong
        assert said.headers["www-authenticate"].endswith('error="invalid_token"')
        assert said.body == none.body  # not which
    monotonic.now += PER_S
    assert rig.get(WHOAMI, Authorization=f"Basic {text}").status == 401
    assert rig.get(WHOAMI, Authorization=f"bearer  {text}").status == 200


def test_two_tokens_in_one_request_are_none(rig):
    head = f"GET {WHOAMI} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    twice = f"Authorization: Bearer {rig.token()}\r\n" * 2
    assert b" 400 " in rig.raw(f"{head}{twice}\r\n".encode()).split(b"\r\n")[0]


def test_a_secret_is_compared_in_constant_time(rig, monkeypatch):
    import hmac

    seen, compare = [], hmac.compare_digest
    monkeypatch.setattr(
        "flopmeter.collector.access.tokens.hmac.compare_digest",
        lambda a, b: seen.append((a, b)) or compare(a, b),
    )
    rig.get(WHOAMI, role="auditor")
    rig.get(WHOAMI, Authorization=f"Bearer FMA1.{'0' * 12}.{'0' * 64}")  # an unknown id, too
    assert len(seen) == 2


def test_a_session_is_a_cookie_that_no_script_reads(rig):
    said = rig.post("/api/v1/session", {"token": rig.token()})
    assert (said.status, said.json["role"]) == (201, "auditor")
    name, *attributes = said.headers["set-cookie"].split("; ")
    assert attributes == ["Path=/", f"Max-Age={LIFE_S}", "HttpOnly", "SameSite=Strict"]
    assert name.startswith(f"flopmeter-{rig.server.port}=")
    assert len(name.partition("=")[2]) == 43
    assert rig.token() not in str(said)
    cookie = said.headers["set-cookie"].partition(";")[0]
    assert rig.get(WHOAMI, Cookie=cookie).json["who"] == "ann-auditor"
    assert rig.get(WHOAMI, Cookie=cookie[:-1] + ("A" if cookie[-1] != "A" else "B")).status == 401
    assert rig.get(WHOAMI, Cookie=f"{cookie}; {cookie}").status == 400


def test_a_session_ends_when_it_is_closed_when_its_token_is_revoked_and_after_its_time(rig, monotonic):
    cookies = [rig.login() for _ in range(3)]
    out = rig.ask("DELETE", "/api/v1/session", Cookie=cookies[0], Sec_Fetch_Site="same-origin")
    assert (out.status, "Max-Age=0" in out.headers["set-cookie"]) == (204, True)
    assert [rig.get(WHOAMI, Cookie=c).status for c in cookies] == [401, 200, 200]
    monotonic.now += LIFE_S
    assert rig.get(WHOAMI, Cookie=cookies[1]).status == 401
    cookie = rig.login()
    rig.desk.revoke_token(rig.token().split(".")[1], who="ann", why="left")
    assert rig.get(WHOAMI, Cookie=cookie).status == 401
    cookie = rig.login("viewer")
    rig.clock.move(hours=1)
    assert rig.get(WHOAMI, Cookie=cookie).status == 200


def test_a_login_that_is_none(rig):
    for body in (b"", b"[]", b"{", b'{"token": 1}', b'{"token": "x", "more": 1}', b"[" * 10_000):
        assert rig.post("/api/v1/session", body).status == 400, body[:20]
    assert rig.post("/api/v1/session", {"token": "FMA1.x.y"}).status == 401
    assert rig.post("/api/v1/session", {"token": "é" * 100}).status == 401
    assert rig.get("/api/v1/session").status == 405


def test_a_guesser_is_stopped_and_who_was_known_is_not(rig, monotonic):
    known = rig.get(WHOAMI, role="admin")
    wrong = f"Bearer FMA1.{'0' * 12}.{'0' * 64}"
    seen = [rig.get(WHOAMI, Authorization=wrong).status for _ in range(REFUSALS + 1)]
    assert seen == [401] * REFUSALS + [429]
    guess = rig.get(WHOAMI, Authorization=wrong)
    assert 0 < int(guess.headers["retry-after"]) <= PER_S
    fresh = rig.token("viewer")  # right, and not heard: a guess that is right would be, too
    assert rig.post("/api/v1/session", {"token": fresh}).status == 429
    assert rig.get(WHOAMI, role="admin").body == known.body
    monotonic.now += PER_S
    assert rig.get(WHOAMI, Authorization=f"Bearer {fresh}").status == 200


def test_one_token_and_one_address_ask_so_much(rig, monkeypatch, monotonic):
    door = doors.Buckets(1, 2)
    monkeypatch.setattr(doors.Door, "check_address", lambda self, address: self._check(door, address, "x"))
    assert [rig.get(WHOAMI, role="viewer").status for _ in range(3)] == [200, 200, 429]
    assert rig.get("/healthz").status == 200  # a probe is never told to wait
    monotonic.now += 1
    said = rig.get(WHOAMI, role="viewer")
    assert said.status == 200
    assert rig.get(WHOAMI).headers["retry-after"] == "1"


def test_one_token_asks_so_much_and_another_is_not_held_up(tmp_path, monkeypatch, monotonic):
    monkeypatch.setattr(doors, "TOKEN_BURST", 3)
    with edge(tmp_path, monotonic=monotonic) as rig:
        assert [rig.get(WHOAMI, role="viewer").status for _ in range(4)] == [200, 200, 200, 429]
        assert rig.get(WHOAMI, role="auditor").status == 200
        monotonic.now += 1
        assert rig.get(WHOAMI, role="viewer").status == 200


def test_buckets_fill_again_and_forget():
    buckets = doors.Buckets(10, 20)
    assert [buckets.wait_s("a", 0.0) for _ in range(21)] == [0] * 20 + [1]
    assert buckets.wait_s("b", 0.0) == 0
    assert buckets.wait_s("a", 0.1) == 0
    assert buckets.wait_s("a", 0.1, cost=20) == 2
    assert buckets.wait_s("a", -5.0) == 1  # a clock that steps back takes nothing away
    for number in range(20_000):
        buckets.wait_s(str(number), 1.0)
    assert len(buckets._left) == 10_000


def test_sessions_are_bounded_and_kept_as_hashes():
    sessions = Sessions()
    texts = [sessions.open("a", 0.0).text for _ in range(MAX_OF_TOKEN + 1)]
    assert sessions.token_of(texts[0], 0.0) is None
    assert sessions.token_of(texts[-1], 0.0) == "a"
    assert not any(t.encode() in key or t in str(s) for t in texts for key, s in sessions._open.items())
    sessions.close_token("a")
    assert len(sessions) == 0


def test_paths_that_are_not_there_are_404_whoever_asks(rig):
    for path in (
        "/api/v1",
        "/api/v1/",
        f"{WHOAMI}/",
        "/api/v2/whoami",
        "/api/v1/runs//curve",
        "/api/v1/nothing",
    ):
        assert rig.get(path).status == 404, path
        assert rig.get(path, role="admin").status == 404, path
    wrong = rig.ask("DELETE", "/api/v1/runs", role="admin")
    assert (wrong.status, wrong.headers["allow"]) == (405, "GET, HEAD")


def test_problems_are_problems(rig):
    said = rig.get("/api/v1/nothing")
    assert said.headers["content-type"] == "application/problem+json"
    assert {"type", "title", "status", "detail"} <= set(json.loads(said.body))
