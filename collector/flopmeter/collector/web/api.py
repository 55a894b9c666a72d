"""/api/v1 at the HTTP port: what is asked of the books goes to the process that answers; the rest is answered here."""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from flopmeter.collector.api.question import Answer, Question

from .api_words import FORMATS, PROFILES, REPORTS
from .channel import Channel, check_taken
from .commands import Commands
from .described import described
from .door import Caller, Door
from .downloads import Downloads, safe_name
from .exchange import Exchange, Flowing, Said
from .files import matches
from .may import check, row_for
from .office import Office
from .paths import parameters_of
from .says import JSON, Refused
from .stream import Stream

ROOT = ("api", "v1")
#: Of a login and of a person's answer; and of a file to verify (docs/api.md).
MAX_JSON_BYTES, JSON_S = 64 << 10, 15.0
MAX_FILE_BYTES, FILE_S = 32 << 20, 120.0
#: Files that are held in memory at once.
MAX_FILES = 2
_FRESH = ("cache-control", "no-store")
_HEADER = re.compile(r"[A-Za-z-]{1,40}\Z")


class Api:
    """On the HTTP port's event loop only."""

    def __init__(
        self,
        door: Door,
        office: Office,
        *,
        apart: Office,
        stream: Stream,
        downloads: Downloads,
        commands: Commands,
    ) -> None:
        """`apart`: for what strangers made, which may take long and must not hold up who asks of the books."""
        self.door, self.office, self.stream, self.downloads = door, office, stream, downloads
        self._apart, self._commands = apart, commands
        self._files = 0
        self._described: Answer | None = None

    async def answer(self, exchange: Exchange, channel: Channel, segments: tuple[str, ...]) -> None:
        """Answer a request for what is below /api/v1. Raises Refused."""
        method = "GET" if exchange.method == "HEAD" else exchange.method
        if segments == ("session",):
            await exchange.say(await self._session(exchange, channel, method))
            return
        if segments == ("openapi.json",) and method == "GET":
            await exchange.say(_said(await self._description(), exchange))
            return
        check_taken(channel)  # before anything is told of what is there
        row = row_for(method, segments)
        caller = await self.door.caller(exchange.headers, channel, changes=method != "GET")
        check(row, caller.role, caller.tenant)
        parameters = parameters_of(exchange.query)
        if segments == ("whoami",):
            _none_of(parameters)
            await exchange.say(_document(200, whoami(caller)))
        elif segments == ("stream",):
            _none_of(parameters)
            await exchange.flow(self._stream(caller))
        elif segments[0] == "exports":
            made = await self._export(exchange, caller, segments[1], parameters)
            await (exchange.say(made) if isinstance(made, Said) else exchange.flow(made))
        elif segments[0] == "runs" and len(segments) == 3 and segments[2] in REPORTS:
            _none_of(parameters)
            made = await self._report(exchange, caller, segments)
            await (exchange.say(made) if isinstance(made, Said) else exchange.flow(made))
        elif method == "POST" and segments[-1] == "attestations":
            _none_of(parameters)
            made = await self._attestation(exchange, caller, segments)
            await (exchange.say(made) if isinstance(made, Said) else exchange.flow(made))
        else:
            question = Question(
                method,
                segments,
                parameters,
                who=caller.token.name,
                role=caller.role,
                tenant=caller.tenant,
            )
            await exchange.say(await self._books(exchange, question))

    async def check_reader(self, exchange: Exchange, channel: Channel) -> None:
        """Raise Refused unless somebody asks who may see every run."""
        caller = await self.door.caller(exchange.headers, channel, changes=False)
        check(row_for("GET", ("fleet",)), caller.role, caller.tenant)

    async def _books(self, exchange: Exchange, question: Question) -> Said:
        if question.method != "POST":
            return _said(await self.office.ask(question), exchange)
        if question.segments != ("verify",):
            _check_kind(exchange, JSON)
            body = await exchange.body(MAX_JSON_BYTES, JSON_S)
            return _said(await self.office.ask(replace(question, body=body)), exchange)
        _check_kind(exchange, "application/octet-stream")
        if self._files >= MAX_FILES:
            raise Refused(503, f"{MAX_FILES} files are being verified already", "", {"Retry-After": "5"})
        self._files += 1
        try:
            body = await exchange.body(MAX_FILE_BYTES, FILE_S)
            return _said(await self._apart.ask(replace(question, body=body)), exchange)
        finally:
            self._files -= 1

    async def _session(self, exchange: Exchange, channel: Channel, method: str) -> Said:
        if method == "POST":
            check_taken(channel)
            _check_kind(exchange, JSON)
            caller, opened = await self.door.login(
                exchange.headers, channel, await exchange.body(MAX_JSON_BYTES, JSON_S)
            )
            said = _document(201, whoami(caller))
            cookie = self.door.set_cookie(opened.text, opened.lasts_s, channel)
        elif method == "DELETE":
            self.door.logout(exchange.headers, channel)
            said, cookie = Said(204, "", b"", (_FRESH,)), self.door.set_cookie("", 0, channel)
        else:
            raise Refused(
                405, f"expected POST or DELETE, got {method[:20]}", headers={"Allow": "DELETE, POST"}
            )
        return replace(said, headers=(*said.headers, ("set-cookie", cookie)))

    async def _description(self) -> Answer:
        if self._described is None:
            answer = await self.office.ask(Question("GET", ("openapi.json",)))
            if answer.status != 200:
                return answer
            self._described = described(answer)
        return self._described

    def _stream(self, caller: Caller) -> Flowing:
        async def still() -> bool:
            return await self.door.still(caller)

        parts = self.stream.events(caller.token.token_id, caller.tenant, still)
        headers = (_FRESH, ("x-accel-buffering", "no"))
        return Flowing("text/event-stream", parts, parts.aclose, headers)

    async def _export(
        self, exchange: Exchange, caller: Caller, what: str, parameters: Mapping[str, str]
    ) -> Said | Flowing:
        unknown = set(parameters) - {"format", "run", "since", "until"}
        chosen = parameters.get("format", "csv")
        if unknown or chosen not in FORMATS:
            raise Refused(
                400,
                "query: expected format (csv, jsonl or parquet), run, since, until, got "
                + (f"{min(unknown)[:40]!r}" if unknown else f"format={chosen[:40]!r}"),
                "docs/exports.md",
            )
        if "run" in parameters:
            hidden = await self._hidden(exchange, caller, parameters["run"])
            if hidden is not None:
                return hidden
        arguments = [
            "export",
            what,
            f"--store={self._commands.store}",
            f"--format={chosen}",
            *self._commands.export,
        ]
        arguments += [
            f"--{name}={parameters[name]}" for name in ("run", "since", "until") if name in parameters
        ]
        if caller.tenant:
            arguments.append(f"--tenant={caller.tenant}")
        name = f"flopmeter-{what}" + (f"-{safe_name(parameters['run'])}" if "run" in parameters else "")
        return await self.downloads.stream(
            arguments, FORMATS[chosen], f"{name}.{chosen}", tells=not caller.tenant
        )

    async def _report(self, exchange: Exchange, caller: Caller, segments: tuple[str, ...]) -> Said | Flowing:
        hidden = await self._hidden(exchange, caller, segments[1])
        if hidden is not None:
            return hidden
        flag, kind = REPORTS[segments[2]]
        flags = [flag, f"--store={self._commands.store}", *self._commands.export]
        return await self.downloads.stream(
            ["runs", "report", *flags, "--", segments[1]],
            kind,
            f"{safe_name(segments[1])}-{segments[2]}",
            tells=caller.role != "viewer",
        )

    async def _hidden(self, exchange: Exchange, caller: Caller, run: str) -> Said | None:
        """Whether there is such a run, and they may see it, is the books' to say. None: yes."""
        question = Question(
            "GET", ("runs", run), who=caller.token.name, role=caller.role, tenant=caller.tenant
        )
        found = await self.office.ask(question)
        return None if found.status == 200 else _said(found, exchange)

    async def _attestation(
        self, exchange: Exchange, caller: Caller, segments: tuple[str, ...]
    ) -> Said | Flowing:
        _check_kind(exchange, JSON)
        asked = attestation_asked(await exchange.body(MAX_JSON_BYTES, JSON_S))
        hidden = await self._hidden(exchange, caller, segments[1])
        if hidden is not None:
            return hidden
        options = [f"--{name}={text}" for name, text in asked.items()]
        flags = [
            f"--store={self._commands.store}",
            *self._commands.attest,
            f"--who=token:{caller.token.name}",
        ]
        name = f"{safe_name(segments[1])}-{asked['profile']}.zip"
        told = ["attest", "create", *flags, *options, "--", segments[1]]
        return await self.downloads.file(told, self._commands.store, "application/zip", name)


def whoami(caller: Caller) -> dict[str, Any]:
    """What is told of themselves to who asks."""
    token = caller.token
    expires = datetime.fromtimestamp(token.expires_unix_s, UTC) if token.expires_unix_s else None
    return {
        "who": token.name,
        "role": token.role,
        "tenant": token.tenant or None,
        "token": token.token_id,
        "expires": f"{expires:%Y-%m-%dT%H:%M:%SZ}" if expires else None,
    }


def attestation_asked(body: bytes) -> dict[str, str]:
    """The options of `flopmeter attest create` that a body may hold. Raises Refused."""
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        said = None
    known = ("profile", "recipient", "why")
    if (
        not isinstance(said, dict)
        or set(said) - set(known)
        or said.get("profile") not in PROFILES
        or not all(isinstance(v, str) and v.isprintable() and len(v) <= 2_000 for v in said.values())
    ):
        raise Refused(
            400,
            f'expected a JSON object with "profile" ({", ".join(PROFILES)}) and, if you like, "recipient" and "why"',
            "docs/attest.md",
        )
    return said


def _said(answer: Answer, exchange: Exchange) -> Said:
    headers = [_FRESH, *((k, v) for k, v in answer.headers.items() if _HEADER.match(k) and v.isprintable())]
    if answer.etag:
        headers.append(("etag", f'"{answer.etag}"'))
        asked = exchange.header(b"if-none-match")
        if answer.status == 200 and asked and matches(asked, f'"{answer.etag}"'):
            return Said(304, "", b"", tuple(headers))
    return Said(answer.status, answer.kind, answer.body, tuple(headers))


def _document(status: int, document: Mapping[str, Any]) -> Said:
    return Said(status, JSON, json.dumps(document, ensure_ascii=False).encode(), (_FRESH,))


def _none_of(parameters: Mapping[str, str]) -> None:
    if parameters:
        raise Refused(400, f"query: expected no parameter here, got {next(iter(parameters))[:40]!r}")


def _check_kind(exchange: Exchange, kind: str) -> None:
    """A form of another site can send none of these without asking first (Fetch, CORS-safelisted request headers)."""
    got = exchange.header(b"content-type").partition(";")[0].strip().lower()
    if got != kind:
        raise Refused(415, f"expected Content-Type: {kind}, got {got[:80]!r}")
