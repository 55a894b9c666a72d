"""The webhook sink against a real HTTP server: what arrives, and what each kind of answer does."""

import base64
import hashlib
import hmac
import json
import re
import shutil
import socket
import struct
import time
from pathlib import Path

import pytest
from receivers import Receiver, Reply, authority, raw_server, server_context
from sinks import FakeClock, outbox_rows, store_with_events

from flopmeter.collector.deliver.answer import MAX_REFUSALS, MAX_SAID_CHARS, Kind
from flopmeter.collector.deliver.message import test_message as a_test_message
from flopmeter.collector.deliver.settings import Endpoint, Secret, SinkSettings, Webhook
from flopmeter.collector.deliver.webhook import WebhookSender
from flopmeter.collector.deliver.worker import Worker

KEYS = [b"k" * 32, b"old" * 12]
NOW = FakeClock()
MESSAGE = a_test_message("hook", NOW(), "0")

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")


@pytest.fixture
def secret(tmp_path):
    path = tmp_path / "hook.secret"
    path.write_text("\n".join("whsec_" + base64.b64encode(k).decode() for k in KEYS) + "\n")
    return Secret(file=path)


def sender(url, secret, *, timeout_s=20, clock=NOW, **endpoint):
    target = Webhook(Endpoint(url, **endpoint), secret)
    return WebhookSender(SinkSettings("hook", target, timeout_s=timeout_s), target, clock)


def send(url, secret, **settings):
    (answer,) = sender(url, secret, **settings).send([MESSAGE])
    return answer


def test_a_signed_cloudevent_arrives(secret):
    with Receiver() as receiver:
        answer = send(receiver.url + "?tenant=1", secret)
    assert answer.kind is Kind.DELIVERED
    (request,) = receiver.requests
    assert request.path == "/hook?tenant=1"
    assert request.headers["content-type"] == "application/cloudevents+json; charset=utf-8"
    event = json.loads(request.body)
    assert event["specversion"] == "1.0"
    assert {"id", "source", "type", "time", "data"} <= event.keys()
    assert request.headers["webhook-id"] == event["id"]
    assert request.headers["webhook-timestamp"] == str(NOW() // 10**9)
    signed = f"{event['id']}.{NOW() // 10**9}.".encode() + request.body
    expected = ["v1," + base64.b64encode(hmac.digest(k, signed, hashlib.sha256)).decode() for k in KEYS]
    assert request.headers["webhook-signature"].split(" ") == expected
    assert request.headers["host"] == f"127.0.0.1:{receiver.port}"


def test_a_secret_that_is_replaced_signs_the_next_one(secret):
    with Receiver() as receiver:
        hook = sender(receiver.url, secret)
        hook.send([MESSAGE])
        secret.file.write_text("whsec_" + base64.b64encode(b"n" * 32).decode())
        hook.send([MESSAGE])
    first, second = (r.headers["webhook-signature"] for r in receiver.requests)
    assert len(first.split()) == 2
    assert len(second.split()) == 1


def test_a_secret_that_vanished_is_tried_again_and_nothing_is_sent_unsigned(secret):
    with Receiver() as receiver:
        secret.file.unlink()
        assert send(receiver.url, secret).kind is Kind.FAILED
    assert receiver.requests == []


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (200, Kind.DELIVERED),
        (202, Kind.DELIVERED),
        (301, Kind.REFUSED),
        (308, Kind.REFUSED),
        (400, Kind.REFUSED),
        (401, Kind.REFUSED),
        (404, Kind.REFUSED),
        (408, Kind.FAILED),
        (410, Kind.GONE),
        (413, Kind.REFUSED),
        (425, Kind.FAILED),
        (429, Kind.FAILED),
        (500, Kind.FAILED),
        (503, Kind.FAILED),
        (599, Kind.FAILED),
    ],
)
def test_what_each_status_means(secret, status, kind):
    with Receiver(Reply(status, b"why")) as receiver:
        answer = send(receiver.url, secret)
    assert answer.kind is kind
    assert str(status) in answer.said
    assert len(receiver.requests) == 1


def test_a_redirect_is_not_followed(secret):
    with Receiver() as inside, Receiver(Reply(307, headers={"Location": inside.url})) as receiver:
        answer = send(receiver.url, secret)
    assert answer.kind is Kind.REFUSED
    assert "redirect" in answer.said
    assert inside.requests == []


@pytest.mark.parametrize(
    ("value", "asked_s"),
    [("120", 120), ("Thu, 01 Jan 1970 00:00:00 GMT", 0), ("soon", None), ("-5", None), ("9" * 400, None)],
)
def test_retry_after_is_read(secret, value, asked_s):
    with Receiver(Reply(429, headers={"Retry-After": value})) as receiver:
        answer = send(receiver.url, secret)
    assert answer.retry_after_ns == (None if asked_s is None else asked_s * 10**9)


def test_retry_after_as_a_date_counts_from_our_clock(secret):
    at = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(NOW() // 10**9 + 90))
    with Receiver(Reply(503, headers={"Retry-After": at})) as receiver:
        assert send(receiver.url, secret).retry_after_ns == 90 * 10**9


def test_a_long_answer_is_cut_and_its_control_characters_are_gone(secret):
    with Receiver(Reply(400, b"\x1b[31m" + b"a\n" * 10**6)) as receiver:
        answer = send(receiver.url, secret)
    assert answer.kind is Kind.REFUSED
    assert len(answer.said) <= MAX_SAID_CHARS
    assert answer.said.isprintable()


@pytest.mark.parametrize(
    "said",
    [
        b"Cannot POST /services/T0PS3CRET?key=m%2FyKEY99",
        b"<pre>no /services/T0PS3CRET</pre>",
        b'{"url": "\\/services\\/T0PS3CRET", "key": "m/yKEY99"}',
    ],
)
def test_a_server_that_repeats_the_address_tells_nobody_of_it(secret, said):
    """As many do in their page for what they do not have; and then it is logged, and kept."""
    with Receiver(Reply(404, said)) as receiver:
        answer = send(f"http://127.0.0.1:{receiver.port}/services/T0PS3CRET?key=m%2FyKEY99", secret)
    assert answer.kind is Kind.REFUSED
    assert "404" in answer.said
    assert "…" in answer.said
    assert "T0PS3CRET" not in answer.said
    assert "KEY99" not in answer.said


def test_the_path_and_the_query_of_a_url_are_never_told(secret, tmp_path):
    (tmp_path / "url").write_text("http://127.0.0.1:1/services/T0K3N?key=s3cret\n")
    answer = send(Secret(file=tmp_path / "url"), secret)
    assert answer.kind is Kind.FAILED
    assert not re.search("T0K3N|s3cret", answer.said)


# --- servers that do not behave ---


def hang(connection, over):
    over.wait(30)


def hang_after_the_status(connection, over):
    connection.recv(65_536)
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    over.wait(30)


def drip(connection, over):
    """A byte now and then: no single read takes long, and the header never ends."""
    connection.recv(65_536)
    connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
    while not over.wait(0.05):
        connection.sendall(b"x")


def endless_continues(connection, over):
    connection.recv(65_536)
    while not over.is_set():
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")


def garbage(connection, over):
    connection.recv(65_536)
    connection.sendall(b"\x16\x03\x01 this is not HTTP\r\n\r\n")


def close_at_once(connection, over):
    pass


def reset(connection, over):
    connection.recv(10)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def huge_header(connection, over):
    connection.recv(65_536)
    connection.sendall(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000 + b"\r\n\r\n")


@pytest.mark.parametrize(
    ("talk", "said"),
    [
        (hang, "no answer within"),
        (hang_after_the_status, "no answer within"),
        (drip, "no answer within"),
        (endless_continues, "said more than"),
        (garbage, "not HTTP"),
        (close_at_once, "closed the connection|reset|Broken pipe"),
        (reset, "reset|closed the connection|Broken pipe"),
        (huge_header, "not HTTP"),
    ],
)
def test_a_server_that_does_not_behave_is_tried_again(secret, talk, said):
    with raw_server(talk) as port:
        # Only what is to be too slow is given little time: a busy machine must not make the others so.
        answer = send(
            f"http://127.0.0.1:{port}/", secret, timeout_s=0.4 if said == "no answer within" else 60
        )
    assert answer.kind is Kind.FAILED
    assert re.search(said, answer.said), answer.said


def test_a_refusal_whose_reason_breaks_off_is_a_refusal(secret):
    def talk(connection, over):
        connection.recv(65_536)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 1000\r\n\r\nbecause")

    with raw_server(talk) as port:
        assert send(f"http://127.0.0.1:{port}/", secret).kind is Kind.REFUSED


def test_nobody_listens(secret):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    answer = send(f"http://127.0.0.1:{port}/", secret)
    assert answer.kind is Kind.FAILED
    assert "cannot connect" in answer.said


# --- TLS ---


@needs_openssl
def test_a_private_authority_is_trusted_when_it_is_named(secret, tmp_path):
    ca, cert, key = authority(tmp_path)
    with Receiver(context=server_context(cert, key)) as receiver:
        assert send(receiver.url, secret, ca_file=ca).kind is Kind.DELIVERED
        unknown = send(receiver.url, secret)
    assert unknown.kind is Kind.FAILED
    assert "not trusted" in unknown.said
    assert len(receiver.requests) == 1


@needs_openssl
def test_a_certificate_of_another_name_is_not_trusted(secret, tmp_path):
    ca, cert, key = authority(tmp_path, "DNS:another.example")
    with Receiver(context=server_context(cert, key)) as receiver:
        answer = send(receiver.url, secret, ca_file=ca)
    assert answer.kind is Kind.FAILED
    assert "not trusted" in answer.said
    assert receiver.requests == []


def test_a_server_that_hangs_in_the_handshake_is_left_in_time(secret):
    with raw_server(hang) as port:
        answer = send(f"https://127.0.0.1:{port}/", secret, timeout_s=0.4)
    assert "no answer within" in answer.said


def test_a_proxy_of_the_environment_is_not_used(secret, monkeypatch):
    """Whoever sets the environment must not choose where events go."""
    with Receiver() as proxy, Receiver() as receiver:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        assert send(receiver.url, secret).kind is Kind.DELIVERED
    assert proxy.requests == []


# --- with the outbox ---


@pytest.fixture
def store(tmp_path):
    return store_with_events(tmp_path / "books.sqlite", ["n1"], ("hook",))


def worker(store, url, secret, clock):
    hook = sender(url, secret, clock=clock)
    settings = SinkSettings("hook", Webhook(Endpoint(url), secret))
    return Worker(store, settings, hook, unix_ns=clock, pick=lambda n: n - 1)


def test_the_id_stays_over_retries_and_the_time_does_not(store, secret):
    clock = FakeClock()
    with Receiver(Reply(500), Reply(503), Reply(429)) as receiver:
        pager = worker(store, receiver.url, secret, clock)
        while pager.deliver() == 0:
            clock.pass_s(1_000)
    assert len(receiver.requests) == 4
    assert len({r.headers["webhook-id"] for r in receiver.requests}) == 1
    assert len({r.body for r in receiver.requests}) == 1
    assert len({r.headers["webhook-timestamp"] for r in receiver.requests}) == 4


def test_what_is_always_refused_is_put_aside_with_the_reason(store, secret):
    clock = FakeClock()
    with Receiver(otherwise=Reply(422, b"no such field: severity")) as receiver:
        pager = worker(store, receiver.url, secret, clock)
        pager.deliver()
        while pager.counters.standing.waiting:
            clock.pass_s(1_000)
            pager.deliver()
    assert len(receiver.requests) == MAX_REFUSALS
    ((attempts, dead, said),) = outbox_rows(store, "attempts, dead_unix_ns IS NOT NULL, said")
    assert (attempts, dead) == (MAX_REFUSALS, 1)
    assert "no such field: severity" in said


def test_the_page_verifies_a_delivery_in_ten_lines(secret, tmp_path):
    """docs/delivery.md holds a receiver's check; it is run as it stands there."""
    page = (Path(__file__).parents[3] / "docs" / "delivery.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip()]) <= 12
    found: dict = {}
    exec(compile(code, "docs/delivery.md", "exec"), found)
    key = secret.file.read_text().split()[0]
    with Receiver() as receiver:
        send(receiver.url, secret, clock=FakeClock(time.time_ns()))
        send(receiver.url, secret, clock=FakeClock(time.time_ns() - 3_600 * 10**9))
    good, old = receiver.requests
    assert found["verified"](good.headers, good.body, key)
    assert not found["verified"](good.headers, good.body + b" ", key)
    assert not found["verified"]({**good.headers, "webhook-id": "another"}, good.body, key)
    assert not found["verified"](good.headers, good.body, "whsec_" + base64.b64encode(b"x" * 32).decode())
    assert not found["verified"](old.headers, old.body, key)
