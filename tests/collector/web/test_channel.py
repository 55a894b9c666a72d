"""By what way a token may come: TLS, a proxy that ends it, or from this machine; and what is served all the same."""

import http.client
import json
import socket
import ssl
import urllib.request

import pytest
from access_rig import Clock
from edge_rig import edge, until_end
from processes import wait_for
from serving import settings_for

from flopmeter.collector.access.desk import Desk
from flopmeter.collector.errors import CollectorError, SettingsError
from flopmeter.collector.running import run_collector
from flopmeter.collector.settings import CollectorSettings
from flopmeter.collector.web.channel import channel_of, host_of
from flopmeter.collector.web.making import page_address, worker_command

WHOAMI = "/api/v1/whoami"
LOCAL = [(b"host", b"localhost:9841")]


def channel(peer="127.0.0.1", headers=LOCAL, *, tls=False, proxied=False):
    return channel_of(peer, headers, tls=tls, proxied=proxied)


@pytest.mark.parametrize("peer", ["192.0.2.7", "fe80::1%eth0", "::ffff:192.0.2.7", "nonsense", ""])
def test_no_token_travels_in_plain_text(peer):
    assert channel(peer).fault
    assert not channel(peer, tls=True).fault
    assert channel(peer, tls=True).secure


@pytest.mark.parametrize(
    "host", [b"localhost", b"LOCALHOST:1", b"127.0.0.1:9841", b"127.8.8.8", b"[::1]:9841"]
)
def test_this_machine_under_its_own_names(host):
    made = channel(headers=[(b"host", host)])
    assert (made.fault, made.secure) == ("", False)


@pytest.mark.parametrize(
    "headers",
    [
        [
            (b"host", b"collector.example.org")
        ],  # a proxy on this machine, or a name that was bound to 127.0.0.1
        [(b"host", b"localhost.evil.example")],
        [(b"host", b"localhost"), (b"host", b"localhost")],
        [],
        [*LOCAL, (b"x-forwarded-for", b"192.0.2.7")],
        [*LOCAL, (b"forwarded", b"for=192.0.2.7")],
        [*LOCAL, (b"via", b"1.1 proxy")],
    ],
)
def test_what_a_proxy_brings_unasked(headers):
    assert channel(headers=headers).fault


def test_a_name_that_was_bound_to_this_machine_reads_no_metrics(tmp_path):
    with edge(tmp_path) as rig:
        for host in ("rebound.example", "localhost.evil.example", "127.0.0.1.evil.example", ""):
            said = rig.get("/metrics", Host=host)
            assert said.status == 403, host
            assert b"flopmeter_" not in said.body
            assert rig.get("/healthz", Host=host).status == 200
        for host in ("localhost:9841", "127.0.0.1", "[::1]:9841", "192.0.2.7:9841", socket.gethostname()):
            assert rig.get("/metrics", Host=host).status == 200, host


def test_a_proxy_that_ends_tls():
    https = (b"x-forwarded-proto", b"https")
    good = channel(
        "10.0.0.9", [(b"host", b"x"), https, (b"x-forwarded-for", b"spoofed, 192.0.2.7")], proxied=True
    )
    assert (good.fault, good.secure, good.address) == ("", True, "192.0.2.7")  # what the proxy itself saw
    lie = channel("10.0.0.9", [https, (b"x-forwarded-for", b"admin signed in")], proxied=True)
    assert lie.address == "10.0.0.9"  # it goes into the log
    for said in ([], [(b"x-forwarded-proto", b"http")], [https, (b"x-forwarded-proto", b"http")]):
        assert channel("127.0.0.1", [*LOCAL, *said], proxied=True).fault


def test_names_in_host():
    for text, name in (
        (b"a.example:1", "a.example"),
        (b"[2001:db8::1]:2", "2001:db8::1"),
        (b"", ""),
        (b"[", ""),
    ):
        assert host_of([(b"host", text)]) == name


def test_a_name_that_is_bound_to_this_machine_gets_no_answer_by_a_token(tmp_path):
    """DNS rebinding, and a proxy in front that nobody told of."""
    with edge(tmp_path) as rig:
        for host in ("evil.example", "collector.example.org:443"):
            said = rig.get(WHOAMI, role="admin", Host=host)
            assert (said.status, "TLS" in said.json["hint"]) == (403, True)
            assert rig.post("/api/v1/session", {"token": rig.token()}, Host=host).status == 403
            assert rig.get("/healthz", Host=host).status == rig.get("/", Host=host).status == 200


def test_behind_a_proxy(tmp_path):
    with edge(tmp_path, proxied=True) as rig:
        assert rig.get(WHOAMI, role="admin").status == 403
        assert rig.get("/healthz").status == 200
        by = {"Host": "flops.example", "X_Forwarded_Proto": "https", "X_Forwarded_For": "192.0.2.7"}
        assert rig.get("/metrics").status == 200  # Prometheus, which reaches the port itself
        assert rig.get("/metrics", **by).status == 401  # anybody
        assert rig.get("/metrics", X_Forwarded_For="192.0.2.7").status == 403
        assert rig.get("/metrics", role="viewer", **by).status == 200
        assert rig.get("/metrics", role="viewer", tenant="owner:lab", **by).status == 403
        assert rig.get(WHOAMI, role="admin", **by).status == 200
        assert "strict-transport-security" in rig.get("/", **by).headers
        said = rig.post("/api/v1/session", {"token": rig.token()}, **by)
        assert said.headers["set-cookie"].startswith("__Host-flopmeter-")
        assert said.headers["set-cookie"].endswith("; Secure")
        cookie = said.headers["set-cookie"].partition(";")[0]
        assert rig.get(WHOAMI, Cookie=cookie, **by).status == 200
        assert (
            rig.ask("DELETE", "/api/v1/session", Cookie=cookie, Origin="https://flops.example", **by).status
            == 204
        )
        wrong = f"Bearer FMA1.{'0' * 12}.{'0' * 64}"
        assert {rig.get(WHOAMI, Authorization=wrong, **by).status for _ in range(11)} == {401, 429}
        other = {**by, "X_Forwarded_For": "192.0.2.8"}  # somebody else comes by the same proxy
        assert rig.get(WHOAMI, Authorization=wrong, **other).status == 401


@pytest.fixture(scope="module")
def over_tls(tmp_path_factory):
    """A collector whose HTTP port has the certificate of its own authority, and a context that knows that."""
    folder, clock = tmp_path_factory.mktemp("tls"), Clock()
    settings = settings_for(folder, admit_new=False, tls_name="localhost,127.0.0.1", http_tls=True)
    with run_collector(settings, clock) as running:
        known = ssl.create_default_context(cadata=running._collector._front.desk.ca.pem.decode())
        yield running, known


def test_the_whole_port_is_served_by_tls(over_tls):
    running, known = over_tls
    for path in ("/healthz", "/readyz", "/metrics", "/"):
        with urllib.request.urlopen(
            f"https://{running.http_address}{path}", context=known, timeout=60
        ) as said:
            assert said.status == 200
            assert said.headers["Strict-Transport-Security"]
    text, _ = Desk(running.store_path, None).make_api_token(role="viewer", name="ann", lasts_s=0, who="tests")
    connection = http.client.HTTPSConnection(running.http_address, timeout=60, context=known)
    connection.request("GET", WHOAMI, headers={"Authorization": f"Bearer {text}"})
    assert json.loads(connection.getresponse().read())["role"] == "viewer"
    body = json.dumps({"token": text})
    connection.request("POST", "/api/v1/session", body, {"Content-Type": "application/json"})
    said = connection.getresponse()
    said.read()
    assert said.headers["Set-Cookie"].startswith("__Host-flopmeter-")
    assert "; Secure" in said.headers["Set-Cookie"]
    connection.close()


def test_metrics_that_name_runs_ask_who_comes_from_elsewhere_for_a_token(over_tls, monkeypatch):
    running, known = over_tls
    desk = Desk(running.store_path, None)
    whole, _ = desk.make_api_token(role="viewer", name="prometheus", lasts_s=0, who="tests")
    lab, _ = desk.make_api_token(role="viewer", name="lab", lasts_s=0, who="tests", tenant="owner:lab")

    def scraped(path, text=""):
        headers = {"Authorization": f"Bearer {text}"} if text else {}
        connection = http.client.HTTPSConnection(running.http_address, timeout=60, context=known)
        connection.request("GET", path, headers=headers)
        status = connection.getresponse().status
        connection.close()
        return status

    assert scraped("/metrics") == 200  # this machine's own
    monkeypatch.setattr("flopmeter.collector.web.app.is_loopback", lambda _: False)
    assert [scraped("/metrics", text) for text in ("", whole, lab)] == [401, 200, 403]
    assert scraped("/healthz") == scraped("/readyz") == 200


def test_plain_text_and_strangers_authorities_get_nothing_from_it(over_tls):
    running, _ = over_tls
    with pytest.raises((ConnectionError, http.client.BadStatusLine)):
        urllib.request.urlopen(f"http://{running.http_address}/healthz", timeout=60)
    with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
        urllib.request.urlopen(f"https://{running.http_address}/healthz", timeout=60)


def test_a_handshake_that_does_not_come_is_hung_up_on(over_tls, monkeypatch):
    monkeypatch.setattr("flopmeter.collector.web.connections.HANDSHAKE_S", 0.3)
    running, known = over_tls
    host, port = running.http_address.split(":")
    places = running._collector._http._edge.places
    for data in (b"", b"\x16\x03\x01"):
        with socket.create_connection((host, int(port)), timeout=60) as raw:
            raw.sendall(data)
            assert until_end(raw) == b""
    wait_for("their places are free", lambda: places.taken == 0)
    with urllib.request.urlopen(f"https://{running.http_address}/healthz", context=known, timeout=60) as said:
        assert said.status == 200


def test_a_renewed_certificate_is_taken_while_it_runs(over_tls):
    running, known = over_tls
    host, port = running.http_address.split(":")

    def shown():
        return ssl.get_server_certificate((host, int(port)), timeout=60)

    before = shown()
    tls = running._collector._front.tls
    tls._source._due_unix_s = 0  # as if half of its life were over
    wait_for("another is shown", lambda: shown() != before)
    with urllib.request.urlopen(f"https://{running.http_address}/healthz", context=known, timeout=60) as said:
        assert said.status == 200


def test_settings_of_the_port():
    for wrong in (
        {"http_tls": True},
        {"http_tls": True, "http_proxied": True, "tls_name": "x"},
        {"http": "nonsense"},
    ):
        with pytest.raises(SettingsError):
            CollectorSettings(**wrong)
    assert page_address(CollectorSettings(), 5) == "http://127.0.0.1:5"
    assert page_address(CollectorSettings(http="0.0.0.0:0"), 5) == "http://localhost:5"
    assert (
        page_address(CollectorSettings(http="[::1]:0", tls_name="x", http_tls=True), 5) == "https://[::1]:5"
    )


def test_the_worker_is_told_of_the_same_books(tmp_path):
    command = worker_command(
        CollectorSettings(keys=tmp_path / "k", regimes=tmp_path / "r"), tmp_path / "b.db"
    )
    assert command[1:4] == ("-P", "-m", "flopmeter.collector.api.worker")
    assert command[4:] == (
        f"--store={tmp_path / 'b.db'}",
        f"--regimes={tmp_path / 'r'}",
        f"--keys={tmp_path / 'k'}",
    )


def test_a_port_that_is_taken_is_said(tmp_path):
    with edge(tmp_path) as rig, pytest.raises(CollectorError, match="--http"):
        run_collector(
            settings_for(tmp_path, store=tmp_path / "other.db", http=f"127.0.0.1:{rig.server.port}")
        )
