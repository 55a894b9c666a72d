"""What the HTTP port answers itself, in OpenAPI 3.1: put beside what the process that answers says of its own. Pure."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from flopmeter.collector.api.question import Answer

from .api_words import EXPORTS, FORMATS, PROFILES, REPORTS
from .says import PROBLEM

_JSON = "application/json"
_TEXT = {"type": "string"}
_NAME = {"type": "string", "minLength": 1, "pattern": "^[^\\x00-\\x1f\\x7f]+$"}
_TIME = {
    "type": "string",
    "format": "date-time",
    "description": "Or a date: 2026-11-20. Without an offset UTC is meant.",
}
_WHO = {
    "type": "object",
    "required": ["who", "role", "tenant", "token", "expires"],
    "additionalProperties": False,
    "properties": {
        "who": {"type": "string", "description": "The token's name."},
        "role": {"type": "string", "enum": ["admin", "operator", "auditor", "viewer"]},
        "tenant": {"type": ["string", "null"], "description": "Whose runs it sees; null: every run."},
        "token": {"type": "string", "pattern": "^[0-9a-f]{12}$"},
        "expires": {"type": ["string", "null"], "format": "date-time"},
    },
}
_SAID = {
    400: "What was sent cannot be meant.",
    401: "No token, or one that is not good.",
    403: "A token that may not ask this, another site's page, or a way on which tokens do not travel.",
    404: "No such run, or not for this token.",
    408: "Sent too slowly.",
    409: "The command's answer is no.",
    413: "Too large.",
    415: "Another content type.",
    429: "Too many requests, or attempts.",
    500: "It failed; the collector's log says how.",
    503: "Not now; Retry-After says when.",
}
_USUAL = (400, 401, 403, 429, 500, 503)


def described(answer: Answer) -> Answer:
    """The document whole. Raises ValueError for an answer that holds none."""
    document = json.loads(answer.body)
    document["paths"] |= paths()
    document["components"]["securitySchemes"]["session"] = {
        "type": "apiKey",
        "in": "cookie",
        "name": "flopmeter-PORT",
        "description": "What POST /session gives a page; under TLS with the prefix __Host-.",
    }
    body = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    return replace(answer, body=body, etag=hashlib.sha256(body).hexdigest()[:32])


def paths() -> dict[str, Any]:
    """By path and method."""
    run = {"name": "run", "in": "path", "required": True, "schema": _NAME}
    shape = {"name": "format", "in": "query", "schema": {"enum": list(FORMATS), "default": "csv"}}
    files = {kind: {"schema": _TEXT} for kind in FORMATS.values()}
    asked = {
        "type": "object",
        "required": ["profile"],
        "additionalProperties": False,
        "properties": {"profile": {"enum": list(PROFILES)}, "recipient": _TEXT, "why": _TEXT},
    }
    token = {
        "type": "object",
        "required": ["token"],
        "additionalProperties": False,
        "properties": {"token": _TEXT},
    }
    found: dict[str, Any] = {
        "/whoami": {"get": _operation("whoami", "Whose token it is.", {200: (_JSON, _WHO)})},
        "/session": {
            "post": _operation(
                "login",
                "A session for a token, in a cookie.",
                {201: (_JSON, _WHO)},
                more=(408, 413, 415),
                body=token,
                public=True,
            ),
            "delete": _operation("logout", "End the session of the cookie.", {204: None}, public=True),
        },
        "/stream": {
            "get": _operation(
                "stream",
                "Server-sent events: `changed`, with the numbers of /state, whenever answers may have changed.",
                {200: ("text/event-stream", _TEXT)},
            )
        },
        "/runs/{run}/attestations": {
            "post": _operation(
                "attest",
                "Make an attestation of a run as it stands; the file. Roles: admin, operator.",
                {201: ("application/zip", _TEXT)},
                more=(404, 408, 409, 413, 415),
                body=asked,
                parameters=[run],
            )
        },
    }
    for name, (flag, kind) in REPORTS.items():
        operation = _operation(
            name.replace(".", "_"),
            f"What `flopmeter runs report {flag}` writes. For tokens that are bound to no tenant.",
            {200: (kind, _TEXT)},
            more=(404, 409),
            parameters=[run],
        )
        found[f"/runs/{{run}}/{name}"] = {"get": operation}
    for name in EXPORTS:
        parameters: list[dict[str, Any]] = [shape, {"name": "run", "in": "query", "schema": _NAME}]
        parameters += [{"name": n, "in": "query", "schema": _TIME} for n in ("since", "until")]
        operation = _operation(
            f"export_{name}",
            f"What `flopmeter export {name}` writes. Roles: admin, auditor, operator.",
            {},
            more=(404, 409),
            parameters=parameters,
        )
        operation["responses"]["200"] = {"description": "The file, as it is made.", "content": files}
        found[f"/exports/{name}"] = {"get": operation}
    return found


def _operation(
    name: str,
    summary: str,
    good: Mapping[int, tuple[str, Any] | None],
    *,
    more: tuple[int, ...] = (),
    body: Any = None,
    parameters: list[Any] | None = None,
    public: bool = False,
) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for status, content in good.items():
        responses[str(status)] = {"description": summary}
        if content is not None:
            responses[str(status)]["content"] = {content[0]: {"schema": content[1]}}
    problem = {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    for status in sorted({*_USUAL, *more}):
        responses[str(status)] = {"description": _SAID[status], "content": problem}
    operation: dict[str, Any] = {"operationId": name, "summary": summary, "responses": responses}
    if parameters:
        operation["parameters"] = parameters
    if body is not None:
        operation["requestBody"] = {"required": True, "content": {_JSON: {"schema": body}}}
    operation["security"] = [] if public else [{"token": []}, {"session": []}]
    return operation
