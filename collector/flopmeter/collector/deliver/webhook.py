"""The webhook sink: Standard Webhooks 1.0.0 around a CloudEvent in structured mode, one event a request."""

from collections.abc import Callable, Sequence

from flopmeter.collector.errors import SinkError

from . import signature
from .answer import SECOND_NS, Answer, failed
from .http_call import Address, address_of, judge, post, trust
from .message import Message
from .secret import read, url_of
from .settings import SinkSettings, Webhook

CONTENT_TYPE = "application/cloudevents+json; charset=utf-8"


class WebhookSender:
    """Secrets are read anew for each request, so that they can be replaced without a restart."""

    limit = 1

    def __init__(self, settings: SinkSettings, target: Webhook, unix_ns: Callable[[], int]) -> None:
        self._name, self._timeout_s = settings.name, settings.timeout_s
        self._target = target
        self._unix_ns = unix_ns

    def check(self) -> None:
        """Raises SinkError."""
        self._keys()
        self._address()
        trust(self._target.endpoint.ca_file)

    def send(self, messages: Sequence[Message]) -> list[Answer]:
        return [self._one(message) for message in messages]

    def _one(self, message: Message) -> Answer:
        try:
            keys, address = self._keys(), self._address()
        except SinkError as e:
            return failed(str(e))
        now = self._unix_ns()
        body = message.body
        headers = {
            "Content-Type": CONTENT_TYPE,
            **signature.headers(keys, message.id, now // SECOND_NS, body),
        }
        reply = post(address, body, headers, timeout_s=self._timeout_s, ca_file=self._target.endpoint.ca_file)
        return reply if isinstance(reply, Answer) else judge(address, reply, now)

    def _keys(self) -> tuple[bytes, ...]:
        return signature.read_keys(str(self._target.secret), read(self._target.secret))

    def _address(self) -> Address:
        endpoint = self._target.endpoint
        return address_of(f"sink {self._name}: url", url_of(endpoint), allow_http=endpoint.allow_http)
