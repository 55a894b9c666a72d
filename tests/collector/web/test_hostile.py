"""What strangers, other sites and names of runs try on the HTTP port: one test for each way, and each is refused."""

import logging
import re
import socket
from pathlib import Path

import pytest
from edge_rig import edge, until_end
from processes import wait_for

from flopmeter.collector.web.edge_protocol import MAX_HEAD_BYTES, Limits
from flopmeter.collector.web.files import read_pages
from flopmeter.collector.web.places import MAX_CONNECTIONS, MAX_OF_ONE, RESERVED, Places
from flopmeter.collector.web.says import CSP

WHOAMI = "/api/v1/whoami"
SAFE = {
    "content-security-policy": CSP,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


@pytest.fixture(scope="module")
def rig(tmp_path_factory):
    with edge(tmp_path_factory.mktemp("edge")) as rig:
        yield rig


@pytest.fixture
def hasty(tmp_path):
    """One that gives a client a second for everything."""
    with edge(tmp_path, limits=Limits(head_s=1.0, body_s=1.0, idle_s=1, unread_s=1.0)) as rig:
        yield rig


def first(answer):
    return answer.split(b"\r\n")[0]


def request(method, path, *headers, body=b""):
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", *headers, "", ""]).encode() + body


# --- what stands on every answer: clickjacking, sniffing, leaks by Referer ---


@pytest.mark.parametrize(
    "path", ["/", "/app.js", "/runs/x", "/healthz", "/metrics", WHOAMI, "/api/v1/openapi.json", "/none", "/%"]
)
def test_security_headers_stand_on_every_answer(rig, path):
    said = rig.get(path)
    assert {name: said.headers[name] for name in SAFE} == SAFE
    assert "server" not in said.headers
    assert "access-control-allow-origin" not in said.headers
    assert "cache-control" in said.headers


def test_clickjacking(rig):
    assert "frame-ancestors 'none'" in rig.get("/").headers["content-security-policy"]
    assert rig.get("/").headers["x-frame-options"] == "DENY"


def test_the_policy_takes_nothing_inline_and_nothing_from_elsewhere():
    assert "unsafe" not in CSP
    assert "http" not in CSP
    assert "*" not in CSP
    assert CSP.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert "require-trusted-types-for 'script'" in CSP


def test_the_page_has_no_script_or_style_within_its_markup(rig):
    page = rig.get("/").body.decode()
    assert re.search(r"<script(?![^>]*\bsrc=)[^>]*>", page) is None
    assert re.search(r"<style|\son\w+=|\sstyle=|javascript:", page) is None
    assert re.search(r"(?:src|href)=\"(?!/[^/]|#)", page) is None


# --- XSS: what comes in a request comes back as JSON or not at all ---

SCRIPT = "<script>alert(1)</script>"


@pytest.mark.parametrize(
    "path",
    [
        "/%3Cscript%3Ealert(1)%3C%2Fscript%3E",
        "/api/v1/%3Cscript%3Ealert(1)%3C%2Fscript%3E",
        "/api/v1/exports/usage?%3Cscript%3Ealert(1)%3C%2Fscript%3E=1",
        "/runs/%3Cscript%3Ealert(1)%3C%2Fscript%3E?q=%3Cscript%3Ealert(1)%3C%2Fscript%3E",
    ],
)
def test_reflected_xss(rig, path):
    said = rig.get(path, role="admin", Accept="text/html")
    if said.headers["content-type"].startswith("text/html"):
        assert SCRIPT.encode() not in said.body  # the index, the same for everybody
        assert said.body == rig.get("/").body
    else:
        assert said.headers["content-type"] == "application/problem+json"


def test_stored_xss(rig):
    """A run's name is data to the page: it comes as JSON, which no browser renders."""
    said = rig.get("/api/v1/runs/%3Cscript%3Ealert(1)%3C%2Fscript%3E", role="viewer")
    assert (said.headers["content-type"], said.headers["x-content-type-options"]) == (
        "application/json",
        "nosniff",
    )
    assert said.json["segments"][1] == SCRIPT


def test_names_with_marks_that_turn_the_text_round(rig):
    name = "\u202egnp.exe\u2066\u0645\u200f"
    quoted = "".join(f"%{byte:02X}" for byte in name.encode())
    assert rig.get(f"/api/v1/runs/{quoted}", role="viewer").json["segments"] == ["runs", name]
    assert rig.get(f"/runs/{quoted}").status == 200
    said = rig.get(f"/api/v1/exports/runs?run={quoted}", role="auditor")
    assert said.headers["content-disposition"] == 'attachment; filename="flopmeter-runs-gnp.exe.csv"'


def test_names_of_ten_thousand_characters(rig):
    assert rig.get(f"/api/v1/runs/{'a' * 10_000}", role="viewer").json["segments"][1] == "a" * 10_000
    assert rig.get(f"/runs/{'a' * 10_000}").status == 200
    assert rig.get(f"/api/v1/runs/{'%D9%85' * 10_000}", role="viewer").status in (414, 431)
    said = rig.get(f"/api/v1/exports/usage?run={'a' * 10_000}", role="auditor")
    assert len(said.headers["content-disposition"]) < 200


@pytest.mark.parametrize(
    "path", ["/api/v1/runs/a%00b", "/api/v1/runs/a%0d%0aSet-Cookie:%20x=y", "/a%7f", "/%ff", "/a%2", "/a%zz"]
)
def test_control_characters_and_what_is_no_utf8_are_refused(rig, path):
    said = rig.get(path, role="viewer")
    assert said.status == 400
    assert "set-cookie" not in said.headers


# --- CSRF: another site's page has the browser's cookie sent, and is refused ---


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},  # another port of this machine is the same site
        {"Sec_Fetch_Site": "none"},
        {"Sec_Fetch_Site": "same-origin, cross-site"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {},
    ],
)
def test_csrf(rig, headers):
    cookie = rig.login("operator")
    answer = {"state": "acknowledged", "why": "x"}
    assert rig.post("/api/v1/events/e/answers", answer, Cookie=cookie, **headers).status == 403
    assert rig.ask("DELETE", "/api/v1/session", Cookie=cookie, **headers).status == 403
    own = rig.post("/api/v1/events/e/answers", answer, Cookie=cookie, Sec_Fetch_Site="same-origin")
    assert own.status == 200
    old = rig.post(
        "/api/v1/events/e/answers", answer, Cookie=cookie, Origin=f"http://127.0.0.1:{rig.server.port}"
    )
    assert old.status == 200  # a browser that knows no Fetch Metadata


@pytest.mark.parametrize(
    "kind",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "",
        "application/jsonx",
    ],
)
def test_csrf_by_a_form_that_needs_no_preflight(rig, kind):
    body = b'{"state": "acknowledged", "why": "x"}'
    said = rig.post("/api/v1/events/e/answers", body, role="operator", Content_Type=kind)
    assert said.status == 415
    assert rig.post("/api/v1/session", b'{"token": "x"}', Content_Type=kind).status == 415


def test_login_csrf(rig):
    body = {"token": rig.token("viewer")}
    assert rig.post("/api/v1/session", body, Sec_Fetch_Site="cross-site").status == 403
    assert rig.post("/api/v1/session", body, Origin="https://evil.example").status == 403


def test_another_site_reads_nothing_by_the_cookie(rig):
    cookie = rig.login()
    assert rig.get(WHOAMI, Cookie=cookie, Sec_Fetch_Site="cross-site").status == 403
    assert rig.get(WHOAMI, Cookie=cookie, Sec_Fetch_Site="same-site").status == 403
    assert rig.get(WHOAMI, Cookie=cookie, Sec_Fetch_Site="none").status == 200
    assert (
        rig.ask("OPTIONS", WHOAMI, Cookie=cookie, Origin="https://evil.example").status == 405
    )  # no CORS at all


# --- path traversal: files are in memory, by name ---


@pytest.mark.parametrize(
    "path",
    [
        "/../../../../etc/passwd",
        "/..%2f..%2f..%2fetc%2fpasswd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/%252e%252e%252fetc%252fpasswd",
        "/..\\..\\etc\\passwd",
        "/..%5c..%5cetc%5cpasswd",
        "/....//....//etc/passwd",
        "//etc/passwd",
        "/%2fetc%2fpasswd",
        "/pages/../server.py",
        "/app.js%2f..%2f..%2fserver.py",
        "/app.js/../index.html",
        "/.%00./etc/passwd",
        "/app.js%00.html",
        "/file:///etc/passwd",
        "/con",
    ],
)
def test_path_traversal(rig, path):
    said = rig.raw(request("GET", path, "Connection: close"))
    assert first(said).split(b" ")[1] in (b"400", b"404"), first(said)
    assert b"root:" not in said
    assert b"import " not in said


def test_path_traversal_by_the_api(rig):
    for path in ("/api/v1/../../etc/passwd", "/api/v1/runs/../../../etc/passwd", "/api/v1/%2e%2e/whoami"):
        assert rig.get(path, role="admin").status == 404, path
    # One part is one name, whatever is in it, and it is a name in the books and nothing else.
    said = rig.get("/api/v1/runs/..%2F..%2Fetc%2Fpasswd", role="viewer")
    assert said.json["segments"] == ["runs", "../../etc/passwd"]


def test_links_and_hidden_files_are_not_the_pages(tmp_path):
    pages = tmp_path / "pages"
    (pages / "real").mkdir(parents=True)
    (tmp_path / "secret.html").write_text("secret")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "secret.html").write_text("secret")
    (pages / "index.html").write_text("<!doctype html>")
    (pages / "real" / "a.js").write_text("a")
    (pages / ".hidden.html").write_text("secret")
    (pages / "key.pem").write_text("secret")
    (pages / "link.html").symlink_to(tmp_path / "secret.html")
    (pages / "folder").symlink_to(tmp_path / "elsewhere")
    assert set(read_pages(pages)) == {"index.html", "real/a.js"}
    assert read_pages(tmp_path / "nothing") == {}


# --- filters: what is asked for is a value, never a part of a question to the database ---


def test_sql_in_filters_travels_as_text(rig):
    said = rig.get("/api/v1/runs?q=%27%20OR%201%3D1%3B%20DROP%20TABLE%20records%3B--", role="viewer")
    assert said.json["parameters"] == {"q": "' OR 1=1; DROP TABLE records;--"}


@pytest.mark.parametrize(
    "query", ["a=1&a=2", "=1", "&", "a=%", "a=%00", "&".join(f"p{n}=1" for n in range(40))]
)
def test_a_query_that_could_be_read_in_two_ways(rig, query):
    assert rig.get(f"/api/v1/runs?{query}", role="viewer").status == 400


# --- requests that a proxy in front might read otherwise ---

ANSWER = re.compile(rb"HTTP/1\.1 ([0-9]{3}) ")
SMUGGLED = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.mark.parametrize(
    "headers",
    [
        ("Content-Length: 3", "Transfer-Encoding: chunked"),
        ("Transfer-Encoding: chunked", "Content-Length: 3"),
        ("Content-Length: 3", "Content-Length: 5"),
        ("Content-Length: +3",),
        ("Content-Length: -1",),
        ("Content-Length: 0x3",),
        ("Content-Length: 3 3",),
        ("Transfer-Encoding: xchunked",),
        ("Transfer-Encoding: chunked, identity",),
        ("Transfer-Encoding: identity, chunked",),
        ("Transfer-Encoding: chunked", "Transfer-Encoding: identity"),
        ("Transfer-Encoding : chunked",),
        ("Transfer-Encoding:\x0bchunked",),
        (" Transfer-Encoding: chunked",),
        ("Content-Length\r: 3",),
        ("X: a\x00b",),
        ("Host: other.example",),
        ("X: a\n\tb",),
        ("X: a\nTransfer-Encoding: chunked",),
    ],
)
def test_request_smuggling(rig, headers):
    said = rig.raw(
        request(
            "POST",
            "/api/v1/session",
            "Content-Type: application/json",
            *headers,
            body=b"0\r\n\r\n" + SMUGGLED,
        )
    )
    assert first(said).split(b" ")[1] in (b"400", b"501"), first(said)
    assert len(ANSWER.findall(said)) == 1  # nothing behind it is answered
    assert b"connection: close" in said.lower()


def test_a_body_where_none_belongs(rig):
    for headers in (("Content-Length: 5",), ("Transfer-Encoding: chunked",)):
        said = rig.raw(request("GET", "/healthz", *headers, body=SMUGGLED))
        assert first(said).split(b" ")[1] == b"400"
        assert len(ANSWER.findall(said)) == 1


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01" + bytes(200),
        b"GET /healthz\r\n\r\n",
        b"GET  /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /healthz HTTP/2.0\r\nHost: localhost\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n\r\n",
        b"GET http://evil.example/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        b"CONNECT evil.example:443 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        b"GET /h\xe9 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
)
def test_what_is_no_request_is_refused_and_hung_up_on(rig, data):
    said = rig.raw(data)
    assert first(said).split(b" ")[1] in (b"400", b"404", b"405", b"505"), first(said)
    assert b"nosniff" in said


def test_an_upgrade_is_passed_over(rig):
    said = rig.raw(request("GET", "/healthz", "Connection: upgrade, close", "Upgrade: websocket"))
    assert first(said) == b"HTTP/1.1 200 OK"


def test_header_injection(rig):
    """Nothing that somebody sends comes back in a header, but for a file's name, of which only letters are left."""
    said = rig.get("/api/v1/exports/usage?run=a%22%3B%20b%3D%22c", role="auditor")
    assert said.headers["content-disposition"] == 'attachment; filename="flopmeter-usage-a-b-c.csv"'
    assert rig.get("/api/v1/exports/usage?run=a%0d%0ab", role="auditor").status == 400


# --- too large ---


def test_a_head_that_is_too_large(rig):
    said = rig.raw(request("GET", "/healthz", f"X: {'a' * (MAX_HEAD_BYTES + 70_000)}"))
    assert first(said).split(b" ")[1] == b"431"
    many = rig.raw(request("GET", "/healthz", *(f"X-{n}: 1" for n in range(20_000))))
    assert first(many).split(b" ")[1] == b"431"


def test_a_body_that_is_too_large_is_refused_before_it_is_read(rig):
    for path, size in (("/api/v1/session", 1 << 20), ("/api/v1/events/e/answers", 1 << 30)):
        headers = (
            f"Content-Length: {size}",
            "Content-Type: application/json",
            f"Authorization: Bearer {rig.token('operator')}",
        )
        said = rig.raw(request("POST", path, *headers, "Expect: 100-continue"))
        assert first(said).split(b" ")[1] == b"413", path
        assert b"connection: close" in said.lower()
    verify = (
        f"Content-Length: {33 << 20}",
        "Content-Type: application/octet-stream",
        f"Authorization: Bearer {rig.token()}",
    )
    assert (
        first(rig.raw(request("POST", "/api/v1/verify", *verify, "Expect: 100-continue"))).split(b" ")[1]
        == b"413"
    )


def test_a_body_that_grows_too_large_while_it_is_read(rig):
    chunks = b"10000\r\n" + b"x" * 65_536 + b"\r\n" + b"10000\r\n" + b"x" * 65_536 + b"\r\n0\r\n\r\n"
    headers = ("Transfer-Encoding: chunked", "Content-Type: application/json")
    said = rig.raw(request("POST", "/api/v1/session", *headers, body=chunks))
    assert first(said).split(b" ")[1] == b"413"


def test_a_file_to_verify_arrives_whole(rig):
    said = rig.post(
        "/api/v1/verify", b"x" * (8 << 20), role="auditor", Content_Type="application/octet-stream"
    )
    assert said.json["body"] == 8 << 20


def test_half_a_body_is_no_question(rig):
    with socket.create_connection(("127.0.0.1", rig.server.port), timeout=20) as raw:
        raw.sendall(
            request(
                "POST",
                "/api/v1/session",
                "Content-Length: 100",
                "Content-Type: application/json",
                body=b'{"tok',
            )
        )
        raw.shutdown(socket.SHUT_WR)
        until_end(raw)
    assert rig.get("/healthz").status == 200


# --- too slow ---


def test_a_client_that_says_nothing_is_hung_up_on(hasty):
    assert hasty.raw(b"") == b""


def test_a_head_that_drips_is_cut_off(hasty):
    with socket.create_connection(("127.0.0.1", hasty.server.port), timeout=20) as raw:
        raw.settimeout(0.1)
        wait_for("cut off", lambda: not dripped(raw, b"G"))


def test_a_second_head_that_drips_is_cut_off_too(hasty):
    with socket.create_connection(("127.0.0.1", hasty.server.port), timeout=20) as raw:
        raw.sendall(request("GET", "/healthz"))
        assert raw.recv(65_536).startswith(b"HTTP/1.1 200 ")
        raw.settimeout(0.1)
        wait_for("cut off", lambda: not dripped(raw, b"G"))


def test_a_body_that_drips_is_cut_off(hasty):
    with socket.create_connection(("127.0.0.1", hasty.server.port), timeout=20) as raw:
        raw.sendall(
            request("POST", "/api/v1/session", "Content-Type: application/json", "Content-Length: 60000")
        )
        raw.settimeout(0.1)
        wait_for("cut off", lambda: not dripped(raw, b"x"))


def dripped(raw, letter):
    """Send a letter; whether the connection still stands."""
    try:
        raw.sendall(letter)
        return raw.recv(65_536) != b""
    except TimeoutError:
        return True
    except OSError:
        return False


def test_a_client_that_does_not_read_its_answer_is_cut_off(hasty):
    """… and the places, and the command that makes the file, are free again."""
    for path in ("/api/v1/runs/large", "/api/v1/exports/usage?run=endless"):
        with socket.socket() as raw:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            raw.settimeout(20)
            raw.connect(("127.0.0.1", hasty.server.port))
            raw.sendall(request("GET", path, f"Authorization: Bearer {hasty.token()}"))
            assert raw.recv(1) == b"H"
            wait_for("its place is free", lambda: hasty.server._edge.places.taken == 0)
    assert hasty.get("/healthz").status == 200


def test_an_idle_connection_is_hung_up_on(hasty):
    with socket.create_connection(("127.0.0.1", hasty.server.port), timeout=20) as raw:
        raw.sendall(request("GET", "/healthz"))
        assert until_end(raw).startswith(b"HTTP/1.1 200 ")  # to the end, which comes by itself


# --- too many ---


def test_one_address_has_so_many_connections_and_a_probe_finds_a_place(tmp_path):
    places = Places(total=8, of_one=6)
    with edge(tmp_path, places=places) as rig:
        held = [socket.create_connection(("127.0.0.1", rig.server.port), timeout=20) for _ in range(6)]
        try:
            wait_for("they are taken", lambda: places.taken >= 4)
            assert until_end(held[-1]) == b""  # hung up on at once
        finally:
            for connection in held:
                connection.close()
        wait_for("they are free again", lambda: places.taken == 0)
        assert rig.get("/healthz").status == 200


def test_places():
    places = Places()
    assert sum(places.take("a") for _ in range(MAX_CONNECTIONS)) == MAX_OF_ONE
    for address in "bcde":
        while places.take(address):
            pass
    assert places.taken <= MAX_CONNECTIONS - RESERVED + 5 * 4
    assert places.take("probe")
    for address, held in list(places._open.items()):
        for _ in range(held):
            places.leave(address)
    assert (places.taken, places._open) == (0, {})


def test_pipelined_requests_are_answered_in_order(rig):
    said = rig.raw(
        request("GET", "/healthz") + request("GET", "/readyz") + request("GET", "/none", "Connection: close")
    )
    assert ANSWER.findall(said) == [b"200", b"200", b"404"]


# --- secrets ---


def test_no_secret_stands_in_any_log_or_answer(tmp_path, caplog):
    with caplog.at_level(logging.DEBUG), edge(tmp_path) as rig:
        text = rig.token("operator")
        wrong = f"FMA1.{'1' * 12}.{'2' * 64}"
        cookie = rig.login("operator")
        answers = [
            rig.get(WHOAMI, role="operator"),
            rig.get(WHOAMI, Cookie=cookie),
            rig.get(WHOAMI, Authorization=f"Bearer {wrong}"),
            rig.get(f"{WHOAMI}?token={text}", role="operator"),
            rig.post("/api/v1/session", {"token": wrong}),
            rig.post("/api/v1/session", {"token": text, "x": 1}),
            rig.get("/api/v1/overview", role="operator"),
            rig.get("/api/v1/runs/die", role="operator"),
            rig.get("/api/v1/overview", role="operator"),
            rig.get("/metrics"),
            rig.get("/api/v1/exports/usage", role="operator"),
        ]
        rig.raw(request("GET", WHOAMI, f"Authorization: Bearer {text}", "Content-Length: x"))
        process = Path(f"/proc/{rig.starts()[-1]}")
        command = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        logged = "\n".join(
            logging.Formatter("%(asctime)s %(name)s %(message)s %(args)s").format(r) for r in caplog.records
        )
        for secret in (text.rpartition(".")[2], wrong.rpartition(".")[2], cookie.partition("=")[2]):
            assert secret not in logged
            assert secret.encode() not in command
            assert all(secret.encode() not in a.body and secret not in str(a.headers) for a in answers)
            for path in Path(rig.folder).rglob("*"):
                if path.is_file():
                    assert secret.encode() not in path.read_bytes(), path
    assert "127.0.0.1" in logged  # that somebody tried is said


def test_what_fails_inside_is_logged_and_not_told(rig, monkeypatch, caplog):
    monkeypatch.setattr("flopmeter.collector.web.api.whoami", lambda caller: 1 / 0)
    said = rig.get(WHOAMI, role="viewer")
    assert said.status == 500
    assert b"ZeroDivision" not in said.body
    assert "ZeroDivisionError" in caplog.text
    assert {name: said.headers[name] for name in SAFE} == SAFE
