"""Statements and entries as canonical JSON: what is stored, hashed and printed. Pure.

Canonical: keys sorted, no spaces, UTF-8, integers as decimal strings, no floats, nothing that was not said. What was
read must be what would be written, byte for byte, so that a statement has one hash.
"""

import hashlib
import json
import re
from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple

from flopmeter.collector.errors import RegistryError
from flopmeter.contract.errors import ContractError
from flopmeter.contract.flop import Calibration, Figure
from flopmeter.contract.usage import WorkloadKind

from .entries import (
    Assign,
    Calibrated,
    Decision,
    Declare,
    Entry,
    External,
    JobKey,
    Link,
    Purpose,
    Relation,
    Retract,
    Statement,
    Tag,
)

#: First in the hash of every entry, so that it is the hash of nothing else.
ENTRY_DOMAIN = b"flopmeter-entry/1\0"
_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,59})\Z")
_FRACTION = re.compile(r"(0|[1-9][0-9]{0,59})/([1-9][0-9]{0,59})\Z")
_SUGGESTION = (
    "this is not an entry that flopmeter wrote; `flopmeter collector fsck` says where the chain breaks"
)


class EntryRow(NamedTuple):
    """An entry as it is stored, in the order of the table's columns."""

    entry_no: int
    unix_ns: int
    position: int
    who: str
    why: str
    statement: str
    prev_hash: bytes
    hash: bytes


def canonical(value: Any) -> str:
    """The one JSON text of `value`."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


# ---- statements -----------------------------------------------------------------------------------------


def statement_json(s: Statement) -> dict[str, Any]:
    """A statement as a JSON object; what was not said is left out."""
    said: dict[str, Any]
    match s:
        case Declare():
            said = {
                "run": s.run,
                "owner": s.owner,
                "budget_flop": _text(s.budget_flop),
                "hardware": s.hardware,
                "expected_end_unix_ns": _text(s.expected_end_unix_ns),
                "dtype": s.dtype,
                "purpose": s.purpose and s.purpose.value,
                "base_models": list(s.base_models) or None,
                "calibration": None if s.calibration is None else calibration_json(s.calibration),
            }
        case Assign():
            said = {"job": job_json(s.job), "run": s.run, "step": s.step}
        case Tag():
            said = {
                "run": s.run,
                "purpose": s.purpose.value,
                "from_hour": _text(s.from_hour),
                "until_hour": _text(s.until_hour),
                "job": None if s.job is None else job_json(s.job),
                "evidence": list(s.evidence) or None,
                "fraction": None
                if s.fraction is None
                else f"{s.fraction.numerator}/{s.fraction.denominator}",
            }
        case Link():
            said = {"run": s.run, "relation": s.relation.value, "parent": s.parent}
        case External():
            flop = {name: str(getattr(s.flop, name)) for name in ("lower", "point", "upper")}
            said = {"name": s.name, "flop": flop, "source": s.source}
        case Retract():
            said = {"number": str(s.number)}
        case Decision():
            said = {"suggestion": s.suggestion, "accepted": s.accepted}
    return {"kind": type(s).__name__.lower(), **{k: v for k, v in said.items() if v is not None}}


def calibration_json(c: Calibrated) -> dict[str, str]:
    """As statements and reports have it."""
    return {
        "model": c.model,
        "flop": str(c.counts.flop),
        "cycles": str(c.counts.cycles),
        "error_ppm": str(c.counts.error_ppm),
    }


def encode(statement: Statement) -> str:
    """The canonical text of a statement."""
    return canonical(statement_json(statement))


def decode(text: str) -> Statement:
    """The statement that `encode` wrote. Raises RegistryError: expected, got."""
    try:
        value = json.loads(text, parse_float=_no_float, parse_constant=_no_float, object_pairs_hook=_once)
    except (ValueError, RecursionError) as e:
        raise RegistryError(f"statement: expected a JSON object, got {_shown(text)}: {e}", _SUGGESTION) from e
    if not isinstance(value, dict):
        raise RegistryError(f"statement: expected a JSON object, got {_shown(text)}", _SUGGESTION)
    kind = value.pop("kind", None)
    read = _READERS.get(kind) if isinstance(kind, str) else None
    if read is None:
        raise RegistryError(
            f"statement: expected a kind of {', '.join(_READERS)}, got {_shown(kind)}", _SUGGESTION
        )
    fields = _Fields(f"statement {kind}", value)
    statement = read(fields)
    fields.done()
    again = encode(statement)
    if again != text:
        raise RegistryError(
            f"statement {kind}: expected its canonical text {_shown(again)}, got {_shown(text)}", _SUGGESTION
        )
    return statement


def job_json(job: JobKey) -> dict[str, str]:
    return {"scope": job.scope, "kind": WorkloadKind(job.kind).label, "job": job.job}


class _Fields:
    """An object's fields, each taken once and of the type that is asked for."""

    def __init__(self, what: str, value: dict[str, Any]) -> None:
        self._what, self._left = what, dict(value)

    def _take(self, name: str, kind: type, said: str) -> Any:
        value = self._left.pop(name, None)
        if value is not None and type(value) is not kind:
            raise self.refused(name, said, value)
        return value

    def refused(self, name: str, expected: str, got: object) -> RegistryError:
        return RegistryError(f"{self._what}: {name}: expected {expected}, got {_shown(got)}", _SUGGESTION)

    def need(self, name: str, value: Any, said: str) -> Any:
        if value is None:
            raise self.refused(name, said, None)
        return value

    def text(self, name: str) -> str | None:
        found: str | None = self._take(name, str, "a text")
        return found

    def must(self, name: str) -> str:
        text: str = self.need(name, self.text(name), "a text")
        return text

    def texts(self, name: str) -> tuple[str, ...]:
        found = self._take(name, list, "a list of texts") or []
        if not all(type(t) is str for t in found):
            raise self.refused(name, "a list of texts", found)
        return tuple(found)

    def number(self, name: str) -> int | None:
        text = self.text(name)
        if text is None:
            return None
        if not _INTEGER.match(text):
            raise self.refused(name, "an integer as a decimal string", text)
        return int(text)

    def fraction(self, name: str) -> Fraction | None:
        text = self.text(name)
        if text is None:
            return None
        match = _FRACTION.match(text)
        if match is None:
            raise self.refused(name, "a fraction such as 1/4", text)
        return Fraction(int(match[1]), int(match[2]))

    def flag(self, name: str) -> bool:
        found: bool = self.need(name, self._take(name, bool, "true or false"), "true or false")
        return found

    def purpose(self, name: str) -> Purpose | None:
        text = self.text(name)
        if text is None:
            return None
        try:
            return Purpose(text)
        except ValueError:
            raise self.refused(name, f"one of {', '.join(Purpose)}", text) from None

    def relation(self, name: str) -> Relation:
        text = self.must(name)
        try:
            return Relation(text)
        except ValueError:
            raise self.refused(name, f"one of {', '.join(Relation)}", text) from None

    def within(self, name: str) -> "_Fields":
        value = self.need(name, self._take(name, dict, "an object"), "an object")
        return _Fields(f"{self._what}: {name}", value)

    def job(self, name: str) -> JobKey | None:
        if name not in self._left:
            return None
        f = self.within(name)
        label = f.must("kind")
        if label not in _KINDS:
            raise f.refused("kind", f"one of {', '.join(_KINDS)}", label)
        job = JobKey(f.must("scope"), _KINDS[label], f.must("job"))
        f.done()
        return job

    def calibration(self, name: str) -> Calibrated | None:
        if name not in self._left:
            return None
        f = self.within(name)
        numbers = [
            f.need(n, f.number(n), "an integer as a decimal string") for n in ("flop", "cycles", "error_ppm")
        ]
        model = f.must("model")
        f.done()
        try:
            return Calibrated(model, Calibration(*numbers))
        except ContractError as e:
            raise RegistryError(f"{self._what}: {e}", _SUGGESTION) from e

    def figure(self, name: str) -> Figure:
        f = self.within(name)
        found = [
            f.need(n, f.number(n), "an integer as a decimal string") for n in ("lower", "point", "upper")
        ]
        f.done()
        return Figure(*found)

    def done(self) -> None:
        if self._left:
            names = ", ".join(sorted(self._left))
            raise RegistryError(
                f"{self._what}: unknown {_shown(names)}",
                "a newer flopmeter may have written it: use that one",
            )


def _declare(f: _Fields) -> Declare:
    return Declare(
        f.must("run"),
        f.text("owner"),
        f.number("budget_flop"),
        f.text("hardware"),
        f.number("expected_end_unix_ns"),
        f.text("dtype"),
        f.purpose("purpose"),
        f.texts("base_models"),
        f.calibration("calibration"),
    )


def _tag(f: _Fields) -> Tag:
    return Tag(
        f.must("run"),
        f.need("purpose", f.purpose("purpose"), f"one of {', '.join(Purpose)}"),
        f.number("from_hour"),
        f.number("until_hour"),
        f.job("job"),
        f.texts("evidence"),
        f.fraction("fraction"),
    )


def _assign(f: _Fields) -> Assign:
    return Assign(f.need("job", f.job("job"), "a job"), f.must("run"), f.text("step"))


_READERS: dict[str, Callable[[_Fields], Statement]] = {
    "declare": _declare,
    "assign": _assign,
    "tag": _tag,
    "link": lambda f: Link(f.must("run"), f.relation("relation"), f.must("parent")),
    "external": lambda f: External(f.must("name"), f.figure("flop"), f.must("source")),
    "retract": lambda f: Retract(f.need("number", f.number("number"), "an entry's number")),
    "decision": lambda f: Decision(f.must("suggestion"), f.flag("accepted")),
}
_KINDS = {kind.label: int(kind) for kind in WorkloadKind}


# ---- entries --------------------------------------------------------------------------------------------


def entry_hash(prev_hash: bytes, entry: Entry) -> bytes:
    """SHA-256 over the domain, the hash of the entry before, and this one's canonical text."""
    said = {
        "entry_no": str(entry.number),
        "position": str(entry.position),
        "statement": statement_json(entry.statement),
        "unix_ns": str(entry.unix_ns),
        "who": entry.who,
        "why": entry.why,
    }
    return hashlib.sha256(ENTRY_DOMAIN + prev_hash + canonical(said).encode()).digest()


def to_row(entry: Entry, prev_hash: bytes) -> EntryRow:
    """The entry as it is stored behind the one whose hash is `prev_hash`."""
    return EntryRow(
        entry.number,
        entry.unix_ns,
        entry.position,
        entry.who,
        entry.why,
        encode(entry.statement),
        prev_hash,
        entry_hash(prev_hash, entry),
    )


def to_entry(row: EntryRow) -> Entry:
    """The entry in a stored row. Its hashes are not looked at (`chain.check_chain` does). Raises RegistryError."""
    try:
        statement = decode(row.statement)
    except RegistryError as e:
        raise RegistryError(f"entry {row.entry_no}: {e}", e.hint) from e
    return Entry(row.entry_no, row.unix_ns, row.position, row.who, row.why, statement)


def _text(value: int | None) -> str | None:
    return None if value is None else str(value)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found


def _no_float(text: str) -> Any:
    raise ValueError(f"{text[:40]}: numbers are decimal strings here")


def _shown(value: object) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 120 else text[:117] + "..."
