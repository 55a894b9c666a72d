"""What other sites and names of runs try on the HTTP port: one test for each way, and each is refused."""

import logging
import re
from pathlib import Path

import pytest
from edge_rig import edge, first, request

from flopmeter.collector.web.files import read_pages
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


# --- what stands on every answer: clickjacking, sniffing, leaks by Referer ---


@pytest.mark.parametrize(
    "path", ["/", "/app.js", "/runs/x", "/healthz", "/metrics", WHOAMI, "/api/v1/openapi.json", "/none", "/%"]
)
def test_security_headers_stand_on_every_answer(shared, path):
    said = shared.get(path)
    assert {name: said.headers[name] for name in SAFE} == SAFE
    assert "server" not in said.headers
    assert "access-control-allow-origin" not in said.headers
    assert "cache-control" in said.headers


def test_clickjacking(shared):
    assert "frame-ancestors 'none'" in shared.get("/").headers["content-security-policy"]
    assert shared.get("/").headers["x-frame-options"] == "DENY"


def test_the_policy_takes_nothing_inline_and_nothing_from_elsewhere():
    assert "unsafe" not in CSP
    assert "http" not in CSP
    assert "*" not in CSP
    assert CSP.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert "require-trusted-types-for 'script'" in CSP


def test_the_page_has_no_script_or_style_within_its_markup(shared):
    page = shared.get("/").body.decode()
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
def test_reflected_xss(shared, path):
    said = shared.get(path, role="admin", Accept="text/html")
    if said.headers["content-type"].startswith("text/html"):
        assert SCRIPT.encode() not in said.body  # the index, the same for everybody
        assert said.body == shared.get("/").body
    else:
        assert said.headers["content-type"] == "application/problem+json"


def test_stored_xss(shared):
    """A run's name is data to the page: it comes as JSON, which no browser renders."""
    said = shared.get("/api/v1/runs/%3Cscript%3Ealert(1)%3C%2Fscript%3E", role="viewer")
    assert (said.headers["content-type"], said.headers["x-content-type-options"]) == (
        "application/json",
        "nosniff",
    )
    assert said.json["segments"][1] == SCRIPT


def test_names_with_marks_that_turn_the_text_round(shared):
    name = "\u202egnp.exe\u2066\u0645\u200f"
    quoted = "".join(f"%{byte:02X}" for byte in name.encode())
    assert shared.get(f"/api/v1/runs/{quoted}", role="viewer").json["segments"] == ["runs", name]
    assert shared.get(f"/runs/{quoted}").status == 200
    said = shared.get(f"/api/v1/exports/runs?run={quoted}", role="auditor")
    assert said.headers["content-disposition"] == 'attachment; filename="flopmeter-runs-gnp.exe.csv"'


def test_names_of_ten_thousand_characters(shared):
    assert shared.get(f"/api/v1/runs/{'a' * 10_000}", role="viewer").json["segments"][1] == "a" * 10_000
    assert shared.get(f"/runs/{'a' * 10_000}").status == 200
    assert shared.get(f"/api/v1/runs/{'%D9%85' * 10_000}", role="viewer").status in (414, 431)
    said = shared.get(f"/api/v1/exports/usage?run={'a' * 10_000}", role="auditor")
    assert len(said.headers["content-disposition"]) < 200


@pytest.mark.parametrize(
    "path", ["/api/v1/runs/a%00b", "/api/v1/runs/a%0d%0aSet-Cookie:%20x=y", "/a%7f", "/%ff", "/a%2", "/a%zz"]
)
def test_control_characters_and_what_is_no_utf8_are_refused(shared, path):
    said = shared.get(path, role="viewer")
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
def test_csrf(shared, headers):
    cookie = shared.login("operator")
    answer = {"state": "acknowledged", "why": "x"}
    assert shared.post("/api/v1/events/e/answers", answer, Cookie=cookie, **headers).status == 403
    assert shared.ask("DELETE", "/api/v1/session", Cookie=cookie, **headers).status == 403
    own = shared.post("/api/v1/events/e/answers", answer, Cookie=cookie, Sec_Fetch_Site="same-origin")
    assert own.status == 200
    old = shared.post(
        "/api/v1/events/e/answers", answer, Cookie=cookie, Origin=f"http://127.0.0.1:{shared.server.port}"
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
def test_csrf_by_a_form_that_needs_no_preflight(shared, kind):
    body = b'{"state": "acknowledged", "why": "x"}'
    said = shared.post("/api/v1/events/e/answers", body, role="operator", Content_Type=kind)
    assert said.status == 415
    assert shared.post("/api/v1/session", b'{"token": "x"}', Content_Type=kind).status == 415


def test_login_csrf(shared):
    body = {"token": shared.token("viewer")}
    assert shared.post("/api/v1/session", body, Sec_Fetch_Site="cross-site").status == 403
    assert shared.post("/api/v1/session", body, Origin="https://evil.example").status == 403


def test_another_site_reads_nothing_by_the_cookie(shared):
    cookie = shared.login()
    assert shared.get(WHOAMI, Cookie=cookie, Sec_Fetch_Site="cross-site").status == 403
    assert shared.get(WHOAMI, Cookie=cookie, Sec_Fetch_Site="same-site").status == 403
    assert shared.get(WHOAMI, Cookie=cookie, Sec_Fetch_Site="none").status == 200
    assert (
        shared.ask("OPTIONS", WHOAMI, Cookie=cookie, Origin="https://evil.example").status == 405
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
def test_path_traversal(shared, path):
    said = shared.raw(request("GET", path, "Connection: close"))
    assert first(said).split(b" ")[1] in (b"400", b"404"), first(said)
    assert b"root:" not in said
    assert b"import " not in said


def test_path_traversal_by_the_api(shared):
    for path in ("/api/v1/../../etc/passwd", "/api/v1/runs/../../../etc/passwd", "/api/v1/%2e%2e/whoami"):
        assert shared.get(path, role="admin").status == 404, path
    # One part is one name, whatever is in it, and it is a name in the books and nothing else.
    said = shared.get("/api/v1/runs/..%2F..%2Fetc%2Fpasswd", role="viewer")
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


def test_sql_in_filters_travels_as_text(shared):
    said = shared.get("/api/v1/runs?q=%27%20OR%201%3D1%3B%20DROP%20TABLE%20records%3B--", role="viewer")
    assert said.json["parameters"] == {"q": "' OR 1=1; DROP TABLE records;--"}


@pytest.mark.parametrize(
    "query", ["a=1&a=2", "=1", "&", "a=%", "a=%00", "&".join(f"p{n}=1" for n in range(40))]
)
def test_a_query_that_could_be_read_in_two_ways(shared, query):
    assert shared.get(f"/api/v1/runs?{query}", role="viewer").status == 400


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


def test_what_fails_inside_is_logged_and_not_told(shared, monkeypatch, caplog):
    monkeypatch.setattr("flopmeter.collector.web.api.whoami", lambda caller: 1 / 0)
    said = shared.get(WHOAMI, role="viewer")
    assert said.status == 500
    assert b"ZeroDivision" not in said.body
    assert "ZeroDivisionError" in caplog.text
    assert {name: said.headers[name] for name in SAFE} == SAFE
