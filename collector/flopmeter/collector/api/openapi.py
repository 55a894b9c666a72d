"""The API in OpenAPI 3.1, made from the table of routes and the schemas. Pure."""

import functools
import json
from typing import Any

from .routes import AT_LEAST, JSON, MAX_TEXT, ROUTES, Parameter, Route
from .schemas import SCHEMAS
from .shapes import Schema, ref

_PROBLEM = "application/problem+json"
_FILE = "application/octet-stream"
#: What each may answer beside what it is for. What is said to everybody is the HTTP port's: 401, 403, 429, 503.
_EVERYWHERE = {
    "400": "A parameter that is unknown, stands twice, or cannot be meant.",
    "401": "No token, or one that is not good.",
    "403": "A token that may not ask this.",
    "429": "Too many questions.",
    "500": "Something in the store cannot be read.",
    "503": "Nobody answers now, or not yet.",
}
_MORE = {
    "{": {"404": "No such thing, or not for this token."},
    "checkpoint": {"404": "No head was signed yet."},
    "answer": {
        "409": "That state cannot follow.",
        "413": "Too large.",
        "415": "Another content type.",
        "408": "Sent too slowly.",
    },
    "verify": {
        "408": "Sent too slowly.",
        "409": "This collector has no attestation key yet.",
        "413": "Too large.",
        "415": "Another content type.",
        "422": "Not a file that can be read as one.",
    },
}
#: The HTTP port takes no control characters in paths and queries.
_PLAIN = "^[^\u0000-\u001f\u007f]*$"
#: Of names in paths.
_NAMES: dict[str, Schema] = {
    "run": {"type": "string", "minLength": 1, "maxLength": MAX_TEXT, "pattern": _PLAIN},
    "node": {"type": "string", "minLength": 1, "maxLength": MAX_TEXT, "pattern": _PLAIN},
    "id": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
}


@functools.cache
def document_bytes() -> bytes:
    return json.dumps(document(), ensure_ascii=False, separators=(",", ":")).encode()


def document() -> dict[str, Any]:
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(f"/{route.path}", {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "flopmeter collector",
            "version": "1",
            "description": "Runs, events, deadlines, fleet and evidence of one collector. docs/api.md says it in words.",
        },
        "servers": [{"url": "/api/v1"}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "flopmeter collector token create",
                }
            },
            "schemas": SCHEMAS,
        },
    }


def _operation(route: Route) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.summary,
        "description": "Nobody is asked who they are."
        if route.public
        else f"Roles: {', '.join(sorted(AT_LEAST[route.role]))}."
        + ("" if route.tenants else " Not for a token that is bound to a tenant."),
        "parameters": [_name(part) for part in route.parts if part.startswith("{")]
        + [_parameter(p) for p in route.parameters],
        "responses": _responses(route),
    }
    if route.takes:
        kind = _FILE if route.takes == "File" else JSON
        operation["requestBody"] = {"required": True, "content": {kind: {"schema": ref(route.takes)}}}
    if route.public:
        operation["security"] = []
    return operation


def _name(part: str) -> dict[str, Any]:
    name = part[1:-1]
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": "Percent-encoded, slashes too.",
        "schema": _NAMES[name],
    }


def _parameter(p: Parameter) -> dict[str, Any]:
    schemas: dict[str, Schema] = {
        "text": {"type": "string", "maxLength": MAX_TEXT, "pattern": _PLAIN},
        "cursor": {"type": "string", "maxLength": MAX_TEXT, "pattern": "^[A-Za-z0-9_-]+$"},
        "choice": {"type": "string", "enum": list(p.choices)},
        "count": {"type": "integer", "minimum": p.low, "maximum": p.high, "default": p.default},
        "time": {"type": "string", "examples": ["2026-11-22T10:00Z", "2026-11-22"]},
        "flag": {"type": "boolean"},
    }
    return {"name": p.name, "in": "query", "description": p.about, "schema": schemas[p.kind]}


def _responses(route: Route) -> dict[str, Any]:
    schema = ref(route.schema) if route.schema else {"type": "string"}
    headers = {"ETag": {"description": "Of this body, strong.", "schema": {"type": "string"}}}
    good: dict[str, Any] = {"description": route.summary, "content": {route.kind: {"schema": schema}}}
    found: dict[str, Any] = {str(route.status): good}
    if route.method == "GET":
        good["headers"] = headers
        found["304"] = {"description": "The body has the ETag that was named."}
    said = dict(_EVERYWHERE)
    for word, more in _MORE.items():
        if word in route.path or route.name.startswith(word):
            said |= more
    for status, about in said.items():
        found[status] = {"description": about, "content": {_PROBLEM: {"schema": ref("Problem")}}}
    return found
