"""The Alertmanager sink: API v2. An alert is told of again and again until a person has resolved the event.

Alertmanager forgets an alert that is not told again before its `endsAt`; so each telling names one a few intervals
ahead, as Prometheus does. A delivery is: "tell it how the event stands now"; telling it twice changes nothing.
"""

import base64
import json
from collections.abc import Callable, Sequence
from typing import Any

from flopmeter.collector.errors import SinkError
from flopmeter.collector.spelling import time_text

from .answer import SECOND_NS, Answer, Kind, failed
from .http_call import Address, address_of, judge, post, trust
from .message import TEST, Message
from .secret import read_line, url_of
from .settings import Alertmanager, SinkSettings

PATH = "/api/v2/alerts"
#: Alerts in one request; one that Alertmanager does not take is found by sending them one by one.
ALERTS_A_REQUEST = 64
#: An alert outlives so many tellings that did not come through.
TELLINGS = 4
#: Fields of `data` that become labels, where the event has them: what an operator routes and silences by.
LABELS = ("run", "regime", "node", "agent", "entity")
MAX_LABEL_CHARS = 200
MAX_ANNOTATION_CHARS = 4_000


class AlertmanagerSender:
    """Posts alerts; `send` tells of events as they stand, and is also what the reposts use."""

    limit = ALERTS_A_REQUEST

    def __init__(self, settings: SinkSettings, target: Alertmanager, unix_ns: Callable[[], int]) -> None:
        self._name, self._timeout_s = settings.name, settings.timeout_s
        self._target = target
        self._unix_ns = unix_ns

    def check(self) -> None:
        """Raises SinkError."""
        self._address()
        self._headers()
        trust(self._target.endpoint.ca_file)

    def send(self, messages: Sequence[Message]) -> list[Answer]:
        answer = self._post(messages)
        if answer.kind is not Kind.REFUSED or len(messages) == 1:
            return [answer] * len(messages)
        return [self._post([message]) for message in messages]

    def _post(self, messages: Sequence[Message]) -> Answer:
        now = self._unix_ns()
        # Of an event that is told of twice at once (raised, and answered) both say how it stands now.
        alerts = {m.event_no or m.id: alert(m, now, self._target.repost_s) for m in messages}
        try:
            address, headers = self._address(), self._headers()
        except SinkError as e:
            return failed(str(e))
        body = json.dumps(list(alerts.values()), ensure_ascii=False, separators=(",", ":")).encode()
        reply = post(address, body, headers, timeout_s=self._timeout_s, ca_file=self._target.endpoint.ca_file)
        sent = headers.get("Authorization", "").split()
        return reply if isinstance(reply, Answer) else judge(address, reply, now, sent[1:])

    def _address(self) -> Address:
        endpoint = self._target.endpoint
        base = url_of(endpoint).rstrip("/").removesuffix(PATH)
        return address_of(f"sink {self._name}: url", base + PATH, allow_http=endpoint.allow_http)

    def _headers(self) -> dict[str, str]:
        headers = {"Content-Type": "application/json"}
        if self._target.bearer is not None:
            headers["Authorization"] = f"Bearer {read_line(self._target.bearer)}"
        elif self._target.password is not None:
            pair = f"{self._target.user}:{read_line(self._target.password)}".encode()
            headers["Authorization"] = f"Basic {base64.b64encode(pair).decode()}"
        return headers


def alert(message: Message, now_unix_ns: int, repost_s: int) -> dict[str, Any]:
    """The postable alert of the event that `message` is about, as it stands. Pure."""
    event = message.about
    data = event["data"]
    labels = {
        "alertname": alert_name(event["type"]),
        "event": event["id"],  # each event is an alert of its own
        "severity": event["severity"],
        **{
            name: _cut(data[name], MAX_LABEL_CHARS)
            for name in LABELS
            if isinstance(data.get(name), str) and data[name]
        },
    }
    annotations = {
        "summary": _cut(data["message"], MAX_ANNOTATION_CHARS),
        "subject": event.get("subject", ""),
    }
    for name in ("act", "recipient", "due"):
        if isinstance(data.get(name), str):
            annotations[name] = _cut(data[name], MAX_ANNOTATION_CHARS)
    if message.answered:
        annotations[message.state] = _cut(message.answered, MAX_ANNOTATION_CHARS)
    ends = now_unix_ns + TELLINGS * repost_s * SECOND_NS
    if message.state == "resolved":
        ends = min(now_unix_ns, message.state_unix_ns)
    elif event["type"] == TEST:
        ends = now_unix_ns + repost_s * SECOND_NS
    # Alertmanager refuses an alert that ends before it starts: a person's clock may be behind the collector's.
    return {
        "labels": {k: v for k, v in labels.items() if v},
        "annotations": {k: v for k, v in annotations.items() if v},
        "startsAt": min(event["time"], time_text(ends)),
        "endsAt": time_text(ends),
    }


def alert_name(kind: str) -> str:
    """threshold.crossed -> FlopmeterThresholdCrossed."""
    return "Flopmeter" + "".join(word.capitalize() for word in kind.replace("-", ".").split("."))


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
