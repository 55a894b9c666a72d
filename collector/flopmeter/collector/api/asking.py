"""A question's route and parameters, read strictly: what is unknown or absurd is refused. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from flopmeter.collector.errors import RegistryError
from flopmeter.collector.registry.when import instant

from .problems import Problem, bad, missing, quoted
from .question import Question
from .routes import AT_LEAST, MAX_TEXT, ROUTES, Parameter, Route

_DIGITS = re.compile(r"[0-9]{1,9}\Z")


@dataclass(frozen=True, slots=True)
class Wish:
    """A question that may be answered: its route, the names in its path, its parameters as they are meant."""

    route: Route
    names: Mapping[str, str]
    texts: Mapping[str, str]  # choices and texts
    numbers: Mapping[str, int]  # counts, with their defaults; times in unix ns, if given; flags as 0 or 1
    question: Question

    @property
    def tenant(self) -> str:
        return self.question.tenant


def wish_of(question: Question) -> Wish:
    """Raises Problem: 404, 405, 403 or 400."""
    route, names = _route_for(question)
    if not route.public:
        _check_role(question, route)
    known = {p.name: p for p in route.parameters}
    texts: dict[str, str] = {}
    numbers = {p.name: p.default for p in route.parameters if p.kind == "count"}
    for name, value in question.parameters.items():
        parameter = known.get(name)
        if parameter is None:
            takes = ", ".join(known) or "none"
            raise bad(
                f"parameter {quoted(name)}: expected one of: {takes}",
                "docs/api.md lists what each path takes",
            )
        _read(parameter, value, texts, numbers)
    for name, value in names.items():
        if len(value) > MAX_TEXT:
            raise missing(f"{name}: expected at most {MAX_TEXT} characters, got {len(value)}")
    if question.body and not route.takes:
        raise bad(f"{question.method} {route.path}: expected no body, got {len(question.body)} bytes")
    return Wish(route, names, texts, numbers, question)


def _route_for(question: Question) -> tuple[Route, dict[str, str]]:
    there = [(r, found) for r in ROUTES if (found := _fits(r.parts, question.segments)) is not None]
    for route, names in there:
        if route.method == question.method:
            return route, names
    if there:
        allow = ", ".join(sorted({r.method for r, _ in there}))
        said = f"method: expected {allow}, got {quoted(question.method)}"
        raise Problem(405, said, Allow=allow)
    raise missing(
        f"path: expected one of the API, got {quoted('/'.join(question.segments))}", "docs/api.md lists them"
    )


def _fits(parts: tuple[str, ...], segments: tuple[str, ...]) -> dict[str, str] | None:
    if len(parts) != len(segments):
        return None
    names = {}
    for part, segment in zip(parts, segments, strict=True):
        if part.startswith("{"):
            if not segment:
                return None
            names[part[1:-1]] = segment
        elif part != segment:
            return None
    return names


def _check_role(question: Question, route: Route) -> None:
    if question.role not in AT_LEAST[route.role]:
        raise Problem(
            403,
            f"expected the role {' or '.join(sorted(AT_LEAST[route.role]))}, got {quoted(question.role)}",
            "ask with another token, or have one made: flopmeter collector token create --role",
        )
    if question.tenant and not route.tenants:
        raise Problem(
            403,
            "expected a token that is not bound to a tenant, got one that is",
            "what concerns the whole site is not shown to one of its tenants",
        )


def _read(p: Parameter, value: str, texts: dict[str, str], numbers: dict[str, int]) -> None:
    if len(value) > MAX_TEXT:
        raise bad(f"{p.name}: expected at most {MAX_TEXT} characters, got {len(value)}")
    if p.kind == "count":
        if not _DIGITS.match(value) or not p.low <= int(value) <= p.high:
            raise bad(f"{p.name}: expected a number from {p.low} to {p.high}, got {quoted(value)}")
        numbers[p.name] = int(value)
    elif p.kind == "time":
        try:
            numbers[p.name] = instant(p.name, value)
        except RegistryError as e:
            raise bad(str(e), e.hint or "as in 2026-11-22T10:00Z") from e
    elif p.kind == "flag":
        if value not in ("true", "false"):
            raise bad(f"{p.name}: expected true or false, got {quoted(value)}")
        numbers[p.name] = int(value == "true")
    elif p.kind == "choice":
        if value not in p.choices:
            raise bad(f"{p.name}: expected one of {', '.join(p.choices)}, got {quoted(value)}")
        texts[p.name] = value
    else:
        texts[p.name] = value
