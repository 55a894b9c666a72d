"""The mail sink against a real mail server (Exim), and against ones that do not behave."""

import json
import os
import re
import shutil
import socket
from dataclasses import replace

import pytest
from exim import BINARY, PASSWORD, USER, exim
from receivers import raw_server
from sinks import FakeClock, outbox_rows, store_with_events

from flopmeter.collector.deliver.answer import Kind
from flopmeter.collector.deliver.message import test_message as a_test_message
from flopmeter.collector.deliver.settings import NONE, STARTTLS, TLS, Secret, SinkSettings, Smtp
from flopmeter.collector.deliver.smtp import SINGLE_MAILS, SmtpSender
from flopmeter.collector.deliver.worker import Worker

needs_exim = pytest.mark.skipif(
    BINARY is None or os.geteuid() != 0 or shutil.which("openssl") is None,
    reason="Exim or openssl is not installed, or this is not root",
)
CLOCK = FakeClock()


@pytest.fixture(scope="module")
def server():
    with exim() as found:
        yield found


@pytest.fixture
def target(server, tmp_path):
    password = tmp_path / "password"
    password.write_text(PASSWORD + "\n")
    return Smtp(
        "127.0.0.1",
        server.port,
        "flopmeter@example.org",
        ("members@mail.test",),
        STARTTLS,
        USER,
        Secret(file=password),
        server.ca,
    )


def sender(target, timeout_s=20):
    return SmtpSender(SinkSettings("mail", target, timeout_s=timeout_s), target, CLOCK)


def message(nonce, sink="mail"):
    return a_test_message(sink, CLOCK(), str(nonce))


@needs_exim
@pytest.mark.parametrize("security", [STARTTLS, TLS])
def test_a_mail_arrives_over_tls_by_a_login(server, target, security):
    sent = message(security)
    port = server.port if security == STARTTLS else server.tls_port
    (answer,) = sender(replace(target, security=security, port=port)).send([sent])
    assert answer.kind is Kind.DELIVERED, answer
    mail = server.mail(lambda m: m["X-Flopmeter-Event"] == sent.id)
    assert mail["Message-ID"] == f"<{sent.id}@example.org>"
    assert "esmtpsa" in mail["Received"]
    (attached,) = mail.iter_attachments()
    assert json.loads(attached.get_content()) == sent.document


@needs_exim
def test_without_a_login_over_a_plain_connection_to_this_machine(server, target):
    plain = replace(target, security=NONE, user="", password=None, to=("you@mail.test",))
    (answer,) = sender(plain).send([message("plain")])
    assert answer.kind is Kind.DELIVERED, answer


@needs_exim
@pytest.mark.parametrize(
    ("change", "kind", "said"),
    [
        ({"to": ("nobody@mail.test",)}, Kind.REFUSED, "550.*no such mailbox"),
        ({"to": ("later@mail.test",)}, Kind.FAILED, "451.*come again"),
        ({"to": ("nobody@mail.test", "later@mail.test")}, Kind.FAILED, "550|451"),
        ({"to": ("you@mail.test", "nobody@mail.test")}, Kind.DELIVERED, "not for nobody@mail.test"),
        ({"user": "", "password": None}, Kind.REFUSED, "550.*log in first"),
        ({"user": "someone-else"}, Kind.FAILED, "535"),
        ({"ca_file": None}, Kind.FAILED, "not trusted"),
        ({"host": "localhost"}, Kind.DELIVERED, "took it"),
    ],
)
def test_what_the_server_says_decides(target, change, kind, said):
    (answer,) = sender(replace(target, **change)).send([message(str(change))])
    assert answer.kind is kind, answer
    assert re.search(said, answer.said), answer
    assert PASSWORD not in answer.said


@needs_exim
def test_a_mail_that_the_server_will_not_take_keeps_back_no_other(target):
    """Refused after DATA; the next goes over the same connection."""
    answers = sender(target).send([message(1), message(2, "agent/bad"), message(3)])
    assert [a.kind for a in answers] == [Kind.DELIVERED, Kind.REFUSED, Kind.DELIVERED]
    assert "not this one" in answers[1].said


@needs_exim
def test_a_storm_is_one_digest_and_each_event_is_delivered_once(server, target, tmp_path):
    count = SINGLE_MAILS + 7
    store = store_with_events(tmp_path / "b.sqlite", [f"n{i}" for i in range(count)], ("mail",))
    settings = SinkSettings("mail", target)
    worker = Worker(store, settings, SmtpSender(settings, target, CLOCK), unix_ns=CLOCK)
    assert worker.deliver() == count
    assert worker.deliver() == 0
    digest = server.mail(lambda m: f"{count} events" in m["Subject"])
    (attached,) = digest.iter_attachments()
    assert len({e["id"] for e in json.loads(attached.get_content())}) == count


@needs_exim
def test_a_digest_that_is_refused_is_sent_as_single_mails(target):
    """Whatever it refused in it keeps back no other event."""
    messages = [message(f"digest {n}", "agent/bad" if n == 3 else "mail") for n in range(7)]
    kinds = [a.kind for a in sender(target).send(messages)]
    assert kinds == [Kind.REFUSED if n == 3 else Kind.DELIVERED for n in range(7)]


@needs_exim
def test_a_server_that_refuses_everything_is_not_asked_for_each(target):
    answers = sender(replace(target, to=("nobody@mail.test",))).send([message(n) for n in range(9)])
    assert [a.kind for a in answers] == [Kind.REFUSED] * 9


@needs_exim
def test_a_refused_mail_becomes_a_dead_letter_with_the_reason(target, tmp_path):
    store = store_with_events(tmp_path / "b.sqlite", ["n1"], ("mail",))
    target = replace(target, to=("nobody@mail.test",))
    settings = SinkSettings("mail", target)
    clock = FakeClock()
    worker = Worker(store, settings, SmtpSender(settings, target, clock), unix_ns=clock)
    worker.deliver()
    while worker.counters.standing.waiting:
        clock.pass_s(1_000)
        worker.deliver()
    ((said,),) = outbox_rows(store, "said")
    assert "no such mailbox" in said


# --- servers that do not behave ---


def hang(connection, over):
    over.wait(30)


def drip(connection, over):
    connection.sendall(b"220-")
    while not over.wait(0.05):
        connection.sendall(b"x")


def no_starttls(connection, over):
    connection.sendall(b"220 here\r\n")
    while line := connection.recv(1_000):
        connection.sendall(b"250 here\r\n" if line[:4].upper() in {b"EHLO", b"HELO"} else b"221 bye\r\n")


def no_smtp(connection, over):
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def too_busy(connection, over):
    connection.sendall(b"421 too many connections\r\n")


def endless(connection, over):
    connection.sendall(b"220 here\r\n")
    connection.recv(100)
    while not over.is_set():
        connection.sendall(b"250-x\r\n" * 100)


@pytest.mark.parametrize(
    ("talk", "said"),
    [
        (hang, "no answer within"),
        (drip, "no answer within"),
        (no_starttls, "STARTTLS"),
        (no_smtp, "answered|closed"),
        (too_busy, "421"),
        (endless, "said more than"),
    ],
)
def test_a_server_that_does_not_behave_is_tried_again(talk, said):
    with raw_server(talk) as port:
        target = Smtp("127.0.0.1", port, "f@example.org", ("t@example.org",))
        # Only what is to be too slow is given little time: a busy machine must not make the others so.
        (answer,) = sender(target, timeout_s=0.5 if said == "no answer within" else 60).send([message(0)])
    assert answer.kind is Kind.FAILED
    assert re.search(said, answer.said), answer


def test_nobody_listens():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    target = Smtp("127.0.0.1", port, "f@example.org", ("t@example.org",), NONE)
    answers = sender(target).send([message(0), message(1)])
    assert [a.kind for a in answers] == [Kind.FAILED] * 2
