"""What is handed to a sink: an event, or what a person answered to it, as a CloudEvent without what is withheld. Pure."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from flopmeter.collector.law.events import SOURCE, event_id, to_cloudevent
from flopmeter.collector.spelling import time_text

from .redact import Redaction, redact

#: The word that a state adds to the event's type. Open as an answer is a resolution taken back.
CHANGES = {"acknowledged": "acknowledged", "resolved": "resolved", "open": "reopened"}
TEST = "sink.test"


@dataclass(frozen=True, slots=True)
class Message:
    """One delivery. Everything that leaves is made of `document` and `about`, which hold nothing that is withheld."""

    event_no: int
    answer_no: int  # 0: the event itself
    document: Mapping[str, Any]  # the CloudEvent that is delivered
    about: Mapping[str, Any]  # the event it is about: `document` itself, or the one that was answered
    state: str = "open"  # how the event stands now
    state_unix_ns: int = 0  # since when; 0: nobody answered
    answered: str = ""  # by whom and why, as far as the sink may know

    @property
    def id(self) -> str:
        """The same over every attempt: what the other side tells repeats by."""
        found: str = self.document["id"]
        return found

    @property
    def body(self) -> bytes:
        """One spelling, so that a repeat is the same bytes."""
        return json.dumps(self.document, ensure_ascii=False, separators=(",", ":")).encode()


def event_message(
    row: Mapping[str, Any], redaction: Redaction, answer: Mapping[str, Any] | None = None
) -> Message:
    """`row` of the events table; `answer`: the last one to it, if anybody has answered."""
    document = redact(to_cloudevent(row), redaction)
    return _standing(Message(row["event_no"], 0, document, document), row, answer, redaction)


def change_message(
    row: Mapping[str, Any], change: Mapping[str, Any], redaction: Redaction, answer: Mapping[str, Any]
) -> Message:
    """`change`: the row of answers that is told of; `answer`: the last one, which may be later."""
    event = to_cloudevent(row)
    word = CHANGES[change["state"]]
    document = {
        "specversion": "1.0",
        "id": f"{event['id']}-{change['answer_no']}",
        "source": SOURCE,
        "type": f"{event['type']}.{word}",
        "subject": event["subject"],
        "time": time_text(change["unix_ns"]),
        "datacontenttype": "application/json",
        "severity": event["severity"],
        "data": {
            "message": f"{event['type']} ({event['id']}) was {word} by {change['who']}: {change['why']}",
            "event": event["id"],
            "event_type": event["type"],
            "state": change["state"],
            "who": change["who"],
            "why": change["why"],
            **{name: event["data"][name] for name in ("run", "regime") if name in event["data"]},
        },
    }
    found = Message(
        row["event_no"], change["answer_no"], redact(document, redaction, event), redact(event, redaction)
    )
    return _standing(found, row, answer, redaction)


def _standing(
    message: Message, row: Mapping[str, Any], answer: Mapping[str, Any] | None, redaction: Redaction
) -> Message:
    """With how the event stands. By whom and why is said only as a document with the event in it might say it."""
    if answer is None:
        return message
    event = to_cloudevent(row)
    event["data"] |= {"who": answer["who"], "why": answer["why"]}
    said = redact(event, redaction)["data"]
    answered = f"{said.get('who', 'withheld')}: {said.get('why', 'withheld')}"
    return replace(message, state=answer["state"], state_unix_ns=answer["unix_ns"], answered=answered)


def test_message(sink: str, unix_ns: int, nonce: str) -> Message:
    """An event that says that it is a test. It is in no book; each has an id of its own."""
    document = {
        "specversion": "1.0",
        "id": event_id(f"test:{sink}:{unix_ns}:{nonce}"),
        "source": SOURCE,
        "type": TEST,
        "subject": f"sink/{sink}",
        "time": time_text(unix_ns),
        "datacontenttype": "application/json",
        "severity": "info",
        "data": {
            "message": f"A test of sink {sink}: nothing happened, and nobody has to act.",
            "test": True,
            "sink": sink,
        },
    }
    return Message(0, 0, document, document)
