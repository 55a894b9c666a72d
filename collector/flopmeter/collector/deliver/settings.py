"""What one sink is told: frozen, checked, and without a secret in it. Pure.

A secret is the name of a file or of an environment variable; it is read when it is used (secret.py), so that it can
be replaced without a restart and never stands in a settings file, an error or the log.
"""

from dataclasses import dataclass
from pathlib import Path

from .answer import GIVE_UP_HOURS
from .redact import NOTHING, Redaction
from .wanted import EVERYTHING, Wanted

WEBHOOK, ALERTMANAGER, SMTP, JSONL, COMMAND = "webhook", "alertmanager", "smtp", "jsonl", "command"
TYPES = (WEBHOOK, ALERTMANAGER, SMTP, JSONL, COMMAND)
#: The sink of --event-log.
EVENT_LOG = "event-log"
#: Standard Webhooks asks for 15 to 30 s: the other side needs the time to make it durable.
TIMEOUT_S = 20
#: How often Alertmanager is told again that an alert still fires; Prometheus does it as often.
REPOST_S = 60
STARTTLS, TLS, NONE = "starttls", "tls", "none"
SECURITY = (STARTTLS, TLS, NONE)


@dataclass(frozen=True, slots=True)
class Secret:
    """Where a secret is read from: exactly one of the two."""

    file: Path | None = None
    env: str = ""

    def __str__(self) -> str:
        return f"file {self.file}" if self.file is not None else f"environment variable {self.env}"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An HTTP address and how it is trusted. `url` may be a secret too: many receivers put theirs in the path."""

    url: str | Secret
    ca_file: Path | None = None  # instead of the system's authorities
    allow_http: bool = False  # plain http:// to other machines


@dataclass(frozen=True, slots=True)
class Webhook:
    endpoint: Endpoint
    secret: Secret  # keys that sign, whsec_…

    type = WEBHOOK


@dataclass(frozen=True, slots=True)
class Alertmanager:
    endpoint: Endpoint  # without /api/v2/alerts
    repost_s: int = REPOST_S
    user: str = ""  # HTTP basic authentication, with `password`
    password: Secret | None = None
    bearer: Secret | None = None

    type = ALERTMANAGER


@dataclass(frozen=True, slots=True)
class Smtp:
    host: str
    port: int
    sender: str
    to: tuple[str, ...]
    security: str = STARTTLS
    user: str = ""
    password: Secret | None = None
    ca_file: Path | None = None
    allow_plain: bool = False  # `none` to other machines

    type = SMTP


@dataclass(frozen=True, slots=True)
class Jsonl:
    path: Path

    type = JSONL


@dataclass(frozen=True, slots=True)
class Command:
    argv: tuple[str, ...]  # argv[0] is an absolute path
    environment: tuple[str, ...] = ()  # names of variables that it gets beside PATH and LANG

    type = COMMAND


Target = Webhook | Alertmanager | Smtp | Jsonl | Command


@dataclass(frozen=True, slots=True)
class SinkSettings:
    """One sink: what it gets, and where that goes."""

    name: str
    target: Target
    wanted: Wanted = EVERYTHING
    states: bool = False  # it also gets what people answered to its events
    redaction: Redaction = NOTHING
    timeout_s: int = TIMEOUT_S
    give_up_hours: int = GIVE_UP_HOURS

    @property
    def follows_states(self) -> bool:
        """Whether answers become deliveries. Alertmanager's alerts stand until somebody resolved the event."""
        return self.states or isinstance(self.target, Alertmanager)
