"""Regimes: legal rule sets as dated, versioned data files (docs/regimes.md has the schema).

Exact integers only: a threshold is a decimal string or `{ base, exponent }`; a float is refused, because
1e25 is not 10^25 in binary. Every fault names the file and the key.
"""

import functools
import hashlib
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Self

from flopmeter.collector.errors import RegimeError

SCHEMA = "flopmeter-regime/1"
STATUSES = ("in-force", "enacted", "proposed", "revoked", "vetoed")
MANDATORY = frozenset({"in-force", "enacted"})  # bind from their effective date; the others never do
COMPARISONS = (">", ">=")
FLOAT_ONLY = "floating-point"
INTEGER_OR_FLOAT = "integer-or-floating-point"
UNITS = (FLOAT_ONLY, INTEGER_OR_FLOAT)
SCOPES = ("run",)  # modification, tenant and fleet capacity come with lineage
COUNTINGS = ("executed",)  # counting profiles come with purposes
ACTS = ("notification", "submission", "documentation", "coverage")  # what meeting the threshold does
#: Longest threshold accepted: 10^40 FLOP is far past anything that could be trained.
MAX_THRESHOLD_DIGITS = 40
_ID = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*\Z")


@dataclass(frozen=True, slots=True)
class Regime:
    """One legal rule set. `threshold_flop` is exact; `version` and `digest` say which text of the file."""

    id: str
    title: str
    citation: str
    status: str  # one of STATUSES, as of status_as_of
    status_as_of: date
    effective: date  # first day on which it binds
    ends: date | None  # first day on which it no longer binds
    threshold_flop: int
    comparison: str  # ">" or ">="
    unit: str  # what one operation is: FLOAT_ONLY, or INTEGER_OR_FLOAT
    scope: str
    counting: str
    counting_note: str  # what the law counts, where `counting` is not yet that
    act: str  # one of ACTS
    when_met: str  # in words: what follows, for the operator
    recipient: str
    deadline: str  # in words
    deadline_days: int | None  # days after the threshold is met or known to be met
    conditions: tuple[str, ...]  # what else must hold that no counter can see
    open_questions: tuple[str, ...]
    source: str
    version: str
    digest: str  # SHA-256 of the file's bytes, hex


def load(directory: Traversable | Path) -> tuple[Regime, ...]:
    """Every `*.toml` of a directory, by id. Raises RegimeError naming file and key."""
    try:
        files = sorted((f for f in directory.iterdir() if f.name.endswith(".toml")), key=lambda f: f.name)
        texts = [(f.name, f.read_bytes()) for f in files]
    except OSError as e:
        raise RegimeError(
            f"regimes: cannot read {directory}: {e}", "name a directory that holds regime files (*.toml)"
        ) from e
    return _distinct((name, parse(name, raw)) for name, raw in texts)


@functools.cache
def shipped() -> tuple[Regime, ...]:
    """The regimes that come with this version."""
    return load(resources.files("flopmeter.collector").joinpath("regimes"))


def with_site(directory: Path | None) -> tuple[Regime, ...]:
    """The shipped regimes and a site's own. A site adds; it cannot replace a shipped one unseen."""
    if directory is None:
        return shipped()
    own = load(directory)
    return _distinct((f"{r.id}.toml", r) for r in (*shipped(), *own))


def parse(name: str, raw: bytes) -> Regime:
    """One regime file. `name` is what messages call it. Raises RegimeError."""
    try:
        data = tomllib.loads(raw.decode(), parse_float=_Float)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as e:
        raise RegimeError(f"{name}: expected a TOML file, got {e}", "see docs/regimes.md") from e
    keys = _Keys(name, data)
    keys.one_of("schema", (SCHEMA,))
    regime_id = keys.text("id")
    if not _ID.match(regime_id):
        raise keys.fault("id", "lower-case words joined by '-'", regime_id)
    regime = Regime(
        id=regime_id,
        title=keys.text("title"),
        citation=keys.text("citation"),
        status=keys.one_of("status", STATUSES),
        status_as_of=keys.day("status_as_of"),
        effective=keys.day("effective"),
        ends=keys.day("ends") if "ends" in data else None,
        threshold_flop=keys.threshold("threshold_flop"),
        comparison=keys.one_of("comparison", COMPARISONS),
        unit=keys.one_of("unit", UNITS),
        scope=keys.one_of("scope", SCOPES),
        counting=keys.one_of("counting", COUNTINGS),
        counting_note=keys.text("counting_note"),
        act=keys.one_of("act", ACTS),
        when_met=keys.text("when_met"),
        recipient=keys.text("recipient"),
        deadline=keys.text("deadline"),
        deadline_days=keys.days("deadline_days") if "deadline_days" in data else None,
        conditions=keys.texts("conditions"),
        open_questions=keys.texts("open_questions"),
        source=keys.text("source"),
        version=keys.text("version"),
        digest=hashlib.sha256(raw).hexdigest(),
    )
    keys.none_left()
    if regime.ends is not None and regime.ends <= regime.effective:
        raise keys.fault("ends", f"a day after effective ({regime.effective})", regime.ends)
    if regime.status == "in-force" and regime.effective > regime.status_as_of:
        raise keys.fault("status", f"'enacted', since it binds from {regime.effective} only", regime.status)
    return regime


def _distinct(named: Iterable[tuple[str, Regime]]) -> tuple[Regime, ...]:
    found: dict[str, Regime] = {}
    for name, regime in named:
        if regime.id in found:
            raise RegimeError(
                f"{name}: key id: expected an id of its own, got {regime.id!r}, which another file has",
                "give the site's regime another id; it adds to the shipped ones and replaces none",
            )
        found[regime.id] = regime
    return tuple(sorted(found.values(), key=lambda r: (r.threshold_flop, r.effective, r.id)))


class _Float(float):
    """A TOML float that still knows how it was written, for the message that refuses it."""

    def __new__(cls, text: str) -> Self:
        self = super().__new__(cls, text)
        self.text = text
        return self

    text: str

    def __repr__(self) -> str:
        return self.text


class _Keys:
    """Takes keys out of one parsed file, checking each, so that what is left over is unknown."""

    def __init__(self, name: str, data: Mapping[str, object]) -> None:
        self.name = name
        self.data = data
        self.left = set(data)

    def fault(self, key: str, expected: str, got: object) -> RegimeError:
        return RegimeError(
            f"{self.name}: key {key}: expected {expected}, got {_shown(got)}", "see docs/regimes.md"
        )

    def _take(self, key: str, expected: str) -> object:
        if key not in self.data:
            raise RegimeError(
                f"{self.name}: key {key}: expected {expected}, got nothing", "see docs/regimes.md"
            )
        self.left.discard(key)
        return self.data[key]

    def text(self, key: str) -> str:
        value = self._take(key, "text")
        if not isinstance(value, str) or not value.strip():
            raise self.fault(key, "text", value)
        return " ".join(value.split())

    def texts(self, key: str) -> tuple[str, ...]:
        value = self._take(key, "a list of texts (may be empty)")
        if not isinstance(value, list) or not all(isinstance(v, str) and v.strip() for v in value):
            raise self.fault(key, "a list of texts (may be empty)", value)
        return tuple(" ".join(v.split()) for v in value)

    def one_of(self, key: str, allowed: tuple[str, ...]) -> str:
        expected = "one of " + ", ".join(map(repr, allowed))
        value = self._take(key, expected)
        if not isinstance(value, str) or value not in allowed:
            raise self.fault(key, expected, value)
        return value

    def day(self, key: str) -> date:
        value = self._take(key, "a date (2027-01-01)")
        if not isinstance(value, date) or isinstance(value, datetime):
            raise self.fault(key, "a date (2027-01-01)", value)
        return value

    def days(self, key: str) -> int:
        value = self._take(key, "a whole number of days above 0")
        if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
            raise self.fault(key, "a whole number of days above 0", value)
        return value

    def threshold(self, key: str) -> int:
        expected = 'a decimal string ("10000000000000000000000000") or { base = 10, exponent = 25 }'
        value = self._take(key, expected)
        if isinstance(value, str) and re.fullmatch(r"[1-9][0-9]*", value):
            if len(value) <= MAX_THRESHOLD_DIGITS:
                return int(value)
        elif isinstance(value, dict) and value.keys() == {"base", "exponent"}:
            base, exponent = value["base"], value["exponent"]
            whole = all(isinstance(v, int) and not isinstance(v, bool) for v in (base, exponent))
            if whole and 2 <= base <= 10 and 0 <= exponent <= 4 * MAX_THRESHOLD_DIGITS:
                power: int = base**exponent
                if len(str(power)) <= MAX_THRESHOLD_DIGITS:
                    return power
        raise self.fault(key, expected + f", of at most {MAX_THRESHOLD_DIGITS} digits", value)

    def none_left(self) -> None:
        if self.left:
            key = min(self.left)
            raise RegimeError(
                f"{self.name}: key {key}: expected no such key, got {_shown(self.data[key])}",
                "unknown keys are refused, so that a misspelt one is not ignored; see docs/regimes.md",
            )


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
