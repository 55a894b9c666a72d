"""What a mail says: RFC 5322 whatever stands in the event, one id over every repeat."""

import email
import email.policy
import json
import re

from hypothesis import example, given, settings
from hypothesis import strategies as st

from flopmeter.collector.deliver.mail import MAX_SUBJECT_CHARS, digest_mail, event_mail
from flopmeter.collector.deliver.message import change_message, event_message
from flopmeter.collector.deliver.redact import Redaction

NOW = 1_790_000_000_000_000_000
FROM, TO = "flopmeter@example.org", ("a@example.org", "b@example.org")
HEADERS = {
    "from", "to", "subject", "date", "message-id", "auto-submitted", "x-flopmeter-event", "mime-version", "content-type",
}  # fmt: skip


def row(number=1, kind="coverage.lost", subject="agent/ab12", message="Records are lost.", **data):
    return {
        "event_no": number,
        "id": f"{number:032x}",
        "type": kind,
        "subject": subject,
        "time_unix_ns": NOW,
        "since_position": 1,
        "position": 1,
        "data": json.dumps({"message": message, **data}),
    }


def parsed(mail):
    return email.message_from_bytes(mail.as_bytes(), policy=email.policy.default)


def text_of(mail):
    return parsed(mail).get_body().get_content()


def test_one_event():
    mail = parsed(event_mail(event_message(row(), Redaction()), FROM, TO, NOW))
    assert mail["From"] == FROM
    assert mail["To"] == "a@example.org, b@example.org"
    assert mail["Subject"] == "[flopmeter] warning: coverage.lost agent/ab12"
    assert mail["Message-ID"] == "<00000000000000000000000000000001@example.org>"
    assert mail["Date"] == "Mon, 21 Sep 2026 14:13:20 +0000"
    assert mail["Auto-Submitted"] == "auto-generated"
    assert "Records are lost." in mail.get_body().get_content()
    (attached,) = mail.iter_attachments()
    assert attached.get_filename() == f"{1:032x}.json"
    assert json.loads(attached.get_content())["type"] == "coverage.lost"


def test_a_repeat_is_the_same_mail_but_for_its_date():
    message = event_message(row(), Redaction())
    one, two = (event_mail(message, FROM, TO, NOW + n * 10**12) for n in (0, 1))
    assert one["Message-ID"] == two["Message-ID"]
    assert one["Date"] != two["Date"]


def test_an_answer_is_a_reply_to_what_it_answers():
    change = {"answer_no": 7, "unix_ns": NOW, "state": "resolved", "who": "alice", "why": "done"}
    mail = parsed(event_mail(change_message(row(), change, Redaction(), change), FROM, TO, NOW))
    assert mail["In-Reply-To"] == mail["References"] == "<00000000000000000000000000000001@example.org>"
    assert mail["Message-ID"] == "<00000000000000000000000000000001-7@example.org>"
    assert mail["Subject"] == "[flopmeter] warning: coverage.lost.resolved agent/ab12"


def test_a_digest_tells_the_gravest_first():
    rows = [row(n) for n in range(1, 9)] + [
        row(9, "deadline.overdue", "r1", "The EU notification is overdue.")
    ]
    mail = digest_mail([event_message(r, Redaction()) for r in rows], FROM, TO, NOW)
    assert parsed(mail)["Subject"] == "[flopmeter] 9 events: 1 critical, 8 warning"
    text = text_of(mail)
    assert text.index("The EU notification is overdue.") < text.index("Records are lost.")
    assert all(f"{n:032x}" in text for n in range(1, 10))
    (attached,) = parsed(mail).iter_attachments()
    assert len(json.loads(attached.get_content())) == 9


@settings(deadline=None)
@given(name=st.text(max_size=400))
@example(name="x\r\nBcc: everybody@example.org\r\n\r\nbody")
@example(name="x\n.\n\nMAIL FROM:<y@z>\n")
@example(name="=?utf-8?b?WA==?=")
@example(name="=?" * 100)
@example(name="\u2028\u2029\x85\x0b\x0c\x1c Bcc: z")
@example(name="\x1b[31mred\x07\x7f\u202e")
@example(name="é" * 300)
@example(name="ab," * 100 + "<x@y.z>")
def test_a_hostile_name_adds_no_header_and_ends_no_line(name):
    mail = event_mail(
        event_message(row(subject=name, run=name, message=f"Run {name}"), Redaction()), FROM, TO, NOW
    )
    raw = mail.as_bytes()
    head = raw.partition(b"\r\n\r\n")[0]
    names = {h.partition(b":")[0].lower().decode() for h in re.split(rb"\r\n(?![ \t])", head)}
    assert names == HEADERS
    found = parsed(mail)
    assert not found.defects
    assert found["To"] == "a@example.org, b@example.org"
    assert len(found["Subject"]) <= MAX_SUBJECT_CHARS
    assert all(len(line) <= 998 for line in raw.split(b"\r\n"))
    raw.decode("ascii")
    assert all(c.isprintable() or c in "\r\n" for c in text_of(mail))
    assert found["Subject"].isprintable()


def test_a_name_that_is_an_encoded_word_adds_no_header():
    """RFC 2047: the email package decodes it, and older ones write what comes out as it is (CVE-2024-6923)."""
    for name in (
        "=?utf-8?B?DQpCY2M6IGV2aWxAZXhhbXBsZS5vcmc=?=",  # CR LF Bcc: evil@example.org
        "=?utf-8?q?=0D=0A=0D=0Aanother_body?=",
        "==??utf-8?q?=0D=0ABcc:_a=40b?=",
    ):
        mail = event_mail(
            event_message(row(subject=name, message=name, run=name), Redaction()), FROM, TO, NOW
        )
        assert {k.lower() for k in parsed(mail)} == HEADERS, name
        assert "another body" not in mail.as_string()
