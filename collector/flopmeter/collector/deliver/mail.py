"""What a mail about events says: RFC 5322, one event a mail, or a digest of many. Pure.

Whatever stands in an event may have been written by a stranger (a job's name): it is data in the body, and a header
gets one printable line of it.
"""

import email.policy
import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.message import EmailMessage
from typing import Any

from .answer import SECOND_NS
from .message import Message

MAX_SUBJECT_CHARS = 120
#: Lines of the body about one event in a digest.
MAX_MESSAGE_CHARS = 4_000
#: Folds headers, writes CRLF; nothing but ASCII on the wire.
_POLICY = email.policy.SMTP.clone(cte_type="7bit")
_SHOWN = ("run", "regime", "node", "verdict", "recipient", "due", "state")


def event_mail(message: Message, sender: str, to: Sequence[str], now_unix_ns: int) -> EmailMessage:
    """One event. Its Message-ID follows from the event's id: a repeat is the same mail."""
    document = message.document
    about = document.get("subject", "")
    mail = _mail(
        f"[flopmeter] {document['severity']}: {document['type']}{' ' if about else ''}{about}",
        message_id(message.id, sender),
        sender,
        to,
        now_unix_ns,
    )
    mail["X-Flopmeter-Event"] = message.id
    if message.answer_no:  # an answer stands below what was answered
        mail["In-Reply-To"] = mail["References"] = message_id(message.about["id"], sender)
    mail.set_content(event_text(document) + _FOOT, charset="utf-8", cte="base64")
    _attach(mail, document, f"{message.id}.json")
    return mail


def digest_mail(
    messages: Sequence[Message], sender: str, to: Sequence[str], now_unix_ns: int
) -> EmailMessage:
    """Many events. The Message-ID follows from theirs."""
    documents = [m.document for m in messages]
    worst = [
        s for s in ("critical", "warning", "notice", "info") if any(d["severity"] == s for d in documents)
    ]
    counted = ", ".join(f"{sum(d['severity'] == s for d in documents)} {s}" for s in worst)
    name = hashlib.sha256("".join(m.id for m in messages).encode()).hexdigest()[:32]
    mail = _mail(
        f"[flopmeter] {len(messages)} events: {counted}", message_id(name, sender), sender, to, now_unix_ns
    )
    ordered = sorted(documents, key=lambda d: worst.index(d["severity"]))
    text = f"{len(messages)} events: {counted}. The gravest first.\n\n"
    mail.set_content(text + "\n".join(event_text(d) for d in ordered) + _FOOT, charset="utf-8", cte="base64")
    _attach(mail, documents, f"{name}.json")
    return mail


def event_text(document: Mapping[str, Any]) -> str:
    """What a person reads of one event."""
    data = document["data"]
    lines = [
        f"{document['severity'].upper()}  {document['type']}  {document['time']}",
        _clean(str(data["message"]), MAX_MESSAGE_CHARS),
    ]
    lines += [f"  {name}: {_clean(data[name], 300)}" for name in _SHOWN if isinstance(data.get(name), str)]
    if data.get("withheld"):
        lines.append(f"  withheld: {len(data['withheld'])} fields")
    lines.append(f"  id: {document['id']}")
    return "\n".join(lines) + "\n"


_FOOT = "\nWho takes care of it answers with `flopmeter events ack ID` where the books are kept.\n"


def message_id(name: str, sender: str) -> str:
    """`name` is hexadecimal, of ours."""
    return f"<{name}@{sender.rpartition('@')[2]}>"


def _mail(subject: str, identity: str, sender: str, to: Sequence[str], now_unix_ns: int) -> EmailMessage:
    mail = EmailMessage(policy=_POLICY)
    mail["From"] = sender
    mail["To"] = ", ".join(to)
    # The email package decodes an encoded word (RFC 2047) before it writes it, and Python before 3.11.10 writes the line
    # breaks in one as they are (CVE-2024-6923): a job's name could begin headers of its own.
    mail["Subject"] = _clean(subject.replace("=?", "= ?"), MAX_SUBJECT_CHARS)
    mail["Date"] = datetime.fromtimestamp(now_unix_ns // SECOND_NS, UTC)
    mail["Message-ID"] = identity
    mail["Auto-Submitted"] = "auto-generated"  # RFC 3834: nobody's out-of-office answers it
    return mail


def _attach(mail: EmailMessage, content: object, name: str) -> None:
    raw = json.dumps(content, ensure_ascii=False, indent=1).encode()
    mail.add_attachment(raw, maintype="application", subtype="json", filename=name)


def _clean(text: str, most: int) -> str:
    """One printable line of bounded length."""
    shown = " ".join("".join(c if c.isprintable() else " " for c in text[: 2 * most]).split())
    return shown if len(shown) <= most else shown[: most - 1] + "…"
