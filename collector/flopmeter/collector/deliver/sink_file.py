"""The sinks file (docs/delivery.md): TOML, one [[sinks]] table a sink. Unknown keys are refused, with their line.

No message shows a value of a key that is not known: a secret written into the file by mistake stays there.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from flopmeter.cli.addresses import is_loopback
from flopmeter.collector.errors import SettingsError, SinkError
from flopmeter.collector.law.events import TYPES as EVENT_TYPES
from flopmeter.collector.law.severity import Severity
from flopmeter.collector.law.toml_lines import places
from flopmeter.collector.site_files import read_file, toml

from . import settings as s
from .answer import GIVE_UP_HOURS
from .http_call import address_of
from .redact import GROUPS, Redaction
from .wanted import Wanted, is_of

MAX_SINKS = 32  # a thread each
MAX_BYTES = 1 << 20
MAX_TIMEOUT_S = 300
MAX_GIVE_UP_HOURS = 24 * 365
MAX_REPOST_S = 3_600
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*\Z")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_MAILBOX = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_{|}~-]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*\Z")
_POINTER = re.compile(r"/(subject|data(/([^~/]|~[01])+)+)\Z")
#: Keys that people write a secret itself into.
_SECRET_KEYS = ("secret", "password", "bearer", "token", "key", "signing_key")
_SEE = "see docs/delivery.md"


def read_sinks(path: Path, regimes: Collection[str] | None = None) -> tuple[s.SinkSettings, ...]:
    """Every sink of the file. `regimes`: the ids there are, to hold filters against. Raises SettingsError."""
    where = f"--sinks {path}"
    raw = read_file(
        SettingsError, where, path, MAX_BYTES, write="name a TOML file of sinks; " + _SEE, hint=_SEE
    )
    data, text = toml(SettingsError, where, raw, hint=_SEE), raw.decode()
    top = _Table(where, text, (), data)
    tables = top.take("sinks", list, "[[sinks]] tables")
    top.none_left()
    if not all(isinstance(t, dict) for t in tables) or not 1 <= len(tables) <= MAX_SINKS:
        raise top.fault("sinks", f"1 to {MAX_SINKS} tables [[sinks]]", len(tables))
    found: list[s.SinkSettings] = []
    for number, table in enumerate(tables):
        keys = _Table(where, text, ("sinks", number), table)
        sink = _sink(keys, regimes)
        if sink.name in {other.name for other in found}:
            raise keys.fault("name", "a name that no other sink has", sink.name)
        found.append(sink)
    return tuple(found)


def _sink(keys: "_Table", regimes: Collection[str] | None) -> s.SinkSettings:
    name = keys.text("name")
    if not _NAME.match(name) or len(name) > 64 or name == s.EVENT_LOG:
        raise keys.fault("name", f"lower-case words joined by '-', other than {s.EVENT_LOG}", name)
    kind = keys.text("type")
    if kind not in s.TYPES:
        raise keys.fault("type", f"one of {', '.join(s.TYPES)}", kind)
    target = _TARGETS[kind](keys)
    sink = s.SinkSettings(
        name,
        target,
        wanted=_wanted(keys, regimes),
        states=keys.yes("states"),
        redaction=_redaction(keys),
        timeout_s=keys.number("timeout_s", s.TIMEOUT_S, 1, MAX_TIMEOUT_S),
        give_up_hours=keys.number("give_up_after_hours", GIVE_UP_HOURS, 1, MAX_GIVE_UP_HOURS),
    )
    keys.none_left()
    return sink


def _wanted(keys: "_Table", regimes: Collection[str] | None) -> Wanted:
    types = keys.texts("types")
    for t in types:
        if not any(is_of(known, t) for known in EVENT_TYPES):
            raise keys.fault(
                "types", f"types of events, or the words they begin with, of {', '.join(EVENT_TYPES)}", t
            )
    severities = keys.texts("severities")
    for severity in severities:
        if severity not in list(Severity):
            raise keys.fault("severities", f"some of {', '.join(Severity)}", severity)
    ids = keys.texts("regimes")
    for regime in ids:
        if regimes is not None and regime not in regimes:
            raise keys.fault("regimes", f"ids of regimes, of {', '.join(sorted(regimes))}", regime)
    return Wanted(types, severities, ids)


def _redaction(keys: "_Table") -> Redaction:
    words = keys.texts("redact")
    for word in words:
        if word not in GROUPS and not _POINTER.match(word):
            raise keys.fault(
                "redact", f"some of {', '.join(GROUPS)}, /subject, or /data/… (JSON pointers)", word
            )
    return Redaction(tuple(w for w in words if w in GROUPS), tuple(w for w in words if w not in GROUPS))


def _endpoint(keys: "_Table") -> s.Endpoint:
    allow_http = keys.yes("allow_http")
    url: str | s.Secret
    if "url" in keys.data:
        url = keys.text("url")
        try:
            address_of("url", url, allow_http=allow_http)
        except SinkError as e:
            raise keys.error("url", f"{e}".removeprefix("url: "), e.hint) from e
    else:
        secret = keys.secret("url")
        if secret is None:
            raise keys.error("url", "expected url, or url_file or url_env where it is a secret", _SEE)
        url = secret
    return s.Endpoint(url, keys.file("ca_file"), allow_http)


def _webhook(keys: "_Table") -> s.Target:
    endpoint, secret = _endpoint(keys), keys.secret("secret")
    if secret is None:
        raise keys.error(
            "secret_file", "expected secret_file or secret_env: where the signing keys are", _SEE
        )
    return s.Webhook(endpoint, secret)


def _alertmanager(keys: "_Table") -> s.Target:
    endpoint = _endpoint(keys)
    bearer = keys.secret("bearer")
    user, password = _login(keys)
    if user and (bearer is not None or ":" in user):
        raise keys.error("user", "expected a user without ':', and no bearer beside it", _SEE)
    return s.Alertmanager(
        endpoint,
        repost_s=keys.number("repost_s", s.REPOST_S, 1, MAX_REPOST_S),
        user=user,
        password=password,
        bearer=bearer,
    )


def _login(keys: "_Table") -> tuple[str, s.Secret | None]:
    user = keys.text("user") if "user" in keys.data else ""
    password = keys.secret("password")
    if (password is None) != (not user):
        raise keys.error("user", "expected user together with password_file or password_env", _SEE)
    return user, password


def _smtp(keys: "_Table") -> s.Target:
    host = keys.text("host")
    security = keys.text("security") if "security" in keys.data else s.STARTTLS
    if security not in s.SECURITY:
        raise keys.fault("security", f"one of {', '.join(s.SECURITY)}", security)
    port = keys.number("port", {s.STARTTLS: 587, s.TLS: 465, s.NONE: 25}[security], 1, 65_535)
    allow_plain = keys.yes("allow_plain")
    if security == s.NONE and not (allow_plain or is_loopback(host)):
        raise keys.error(
            "security",
            "expected starttls or tls: mail goes without encryption to this machine alone",
            "allow_plain = true allows it to others",
        )
    user, password = _login(keys)
    if user and security == s.NONE and not is_loopback(host):
        raise keys.error("user", "expected no password over a connection that is not encrypted", _SEE)
    sender, to = keys.text("from"), keys.texts("to")
    for key, mailboxes in (("from", (sender,)), ("to", to)):
        for mailbox in mailboxes:
            if not _MAILBOX.match(mailbox) or len(mailbox) > 254:
                raise keys.fault(key, "mailboxes as name@example.org", mailbox)
    if not 1 <= len(to) <= 50:
        raise keys.fault("to", "1 to 50 mailboxes", len(to))
    return s.Smtp(host, port, sender, to, security, user, password, keys.file("ca_file"), allow_plain)


def _jsonl(keys: "_Table") -> s.Target:
    path = keys.file("path")
    if path is None:
        raise keys.error("path", "expected path: the file that events are added to", _SEE)
    return s.Jsonl(path)


def _command(keys: "_Table") -> s.Target:
    argv, environment = keys.texts("command"), keys.texts("environment")
    if not argv or not argv[0].startswith("/") or any("\0" in word for word in argv):
        raise keys.error("command", 'expected ["/path/of/program", "argument", …], without a shell', _SEE)
    for name in environment:
        if not _VARIABLE.match(name):
            raise keys.fault("environment", "names of environment variables", name)
    return s.Command(argv, environment)


_TARGETS = {
    s.WEBHOOK: _webhook,
    s.ALERTMANAGER: _alertmanager,
    s.SMTP: _smtp,
    s.JSONL: _jsonl,
    s.COMMAND: _command,
}


@dataclass
class _Table:
    """Takes keys out of one table, so that what is left over is unknown."""

    where: str
    source: str
    path: tuple[str | int, ...]
    data: Mapping[str, Any]
    left: set[str] = field(init=False)

    def __post_init__(self) -> None:
        self.left = set(self.data)

    def error(self, key: str, said: str, hint: str) -> SettingsError:
        place = places(self.source)
        at = place.get((*self.path, key)) or place.get(self.path)
        line = f"line {at.line}: " if at else ""
        return SettingsError(f"{self.where}: {line}{self._named(key)}: {said}", hint)

    def fault(self, key: str, expected: str, got: object) -> SettingsError:
        """For keys whose values are no secrets."""
        shown = repr(got)
        return self.error(
            key, f"expected {expected}, got {shown if len(shown) <= 80 else shown[:77] + '...'}", _SEE
        )

    def _named(self, key: str) -> str:
        name = self.data.get("name")
        return (
            f"sink {name}: key {key}"
            if self.path and isinstance(name, str) and _NAME.match(name)
            else f"key {key}"
        )

    def take(self, key: str, kind: type, expected: str) -> Any:
        self.left.discard(key)
        value = self.data.get(key)
        if type(value) is not kind:
            got = "nothing" if key not in self.data else f"a {type(value).__name__}"
            raise self.error(key, f"expected {expected}, got {got}", _SEE)
        return value

    def text(self, key: str) -> str:
        value: str = self.take(key, str, "text")
        if not value.strip() or not value.isprintable():
            raise self.error(key, "expected one printable line of text", _SEE)
        return value.strip()

    def texts(self, key: str) -> tuple[str, ...]:
        """Empty where it is not there; a list that is there names something."""
        if key not in self.data:
            return ()
        values = self.take(key, list, "a list of texts")
        if not values or not all(isinstance(v, str) and v.strip() for v in values):
            raise self.error(
                key, "expected a list of texts, of at least one", "leave the key out for all; " + _SEE
            )
        return tuple(values)

    def yes(self, key: str) -> bool:
        found: bool = self.take(key, bool, "true or false") if key in self.data else False
        return found

    def number(self, key: str, default: int, least: int, most: int) -> int:
        if key not in self.data:
            return default
        found: int = self.take(key, int, "a whole number")
        if not least <= found <= most:
            raise self.fault(key, f"a whole number of {least} to {most}", found)
        return found

    def file(self, key: str) -> Path | None:
        return Path(self.text(key)) if key in self.data else None

    def secret(self, key: str) -> s.Secret | None:
        """`key`_file or `key`_env; None where neither is there."""
        by_file, by_env = f"{key}_file", f"{key}_env"
        if by_file in self.data and by_env in self.data:
            raise self.error(by_file, f"expected {by_file} or {by_env}, got both", _SEE)
        if by_file in self.data:
            return s.Secret(file=Path(self.text(by_file)))
        if by_env in self.data:
            name = self.text(by_env)
            if not _VARIABLE.match(name):
                raise self.error(by_env, "expected the name of an environment variable", _SEE)
            return s.Secret(env=name)
        return None

    def none_left(self) -> None:
        for key in self.data:
            if key in self.left:
                self._unknown(key)

    def _unknown(self, key: str) -> NoReturn:
        if key in _SECRET_KEYS:
            raise self.error(
                key,
                "expected no secret in this file",
                f'write it into a file of its own and name that: {key}_file = "/etc/flopmeter/{key}"',
            )
        raise self.error(
            key, "expected no such key", "unknown keys are refused, so that none is misspelt; " + _SEE
        )
