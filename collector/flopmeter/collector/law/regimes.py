"""Regimes: legal rule sets as dated, versioned data files (docs/regimes.md has the schema).

Exact numbers only: a threshold is a decimal string or `{ base, exponent }`, a share two whole numbers; a float is
refused, because 1e25 is not 10^25 in binary and 0.33 is not a third. Every fault names the file and the key.
"""

import functools
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from fractions import Fraction
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from flopmeter.collector.errors import RegimeError

from . import profiles
from .toml_keys import Keys, read

SCHEMA = "flopmeter-regime/1"
STATUSES = ("in-force", "enacted", "proposed", "revoked", "vetoed")
MANDATORY = frozenset({"in-force", "enacted"})  # bind from their effective date; the others never do
COMPARISONS = (">", ">=")
FLOAT_ONLY = "floating-point"
INTEGER_OR_FLOAT = "integer-or-floating-point"
UNITS = (FLOAT_ONLY, INTEGER_OR_FLOAT)
RUN = "run"  # a run with what it stands on
MODIFICATION = "modification"  # a run that fine-tunes another model: compared with a share of the original
SCOPES = (RUN, MODIFICATION)  # tenant and fleet capacity are not built
KNOWN = "known"
UNKNOWN = "unknown"
UNKNOWN_SYSTEMIC_RISK = "unknown-systemic-risk"
ORIGINALS = (KNOWN, UNKNOWN, UNKNOWN_SYSTEMIC_RISK)  # of which originals a modification regime speaks
ACTS = ("notification", "submission", "documentation", "coverage")  # what meeting the threshold does


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
    threshold_flop: int  # of a modification: what its original is taken to have; 0: what it has
    share: Fraction  # of threshold_flop, or of the original, that is the line; 1 with scope "run"
    comparison: str  # ">" or ">="
    unit: str  # what one operation is: FLOAT_ONLY, or INTEGER_OR_FLOAT
    scope: str  # RUN or MODIFICATION
    original: str  # one of ORIGINALS; "" with scope "run"
    counting: str  # a counting profile's id, or "executed"
    counting_note: str  # in words: what the law counts, and what flopmeter cannot see of it
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
def shipped(scope: str = RUN) -> tuple[Regime, ...]:
    """The regimes of one scope that come with this version."""
    return tuple(r for r in _shipped() if r.scope == scope)


@functools.cache
def _shipped() -> tuple[Regime, ...]:
    return load(resources.files("flopmeter.collector").joinpath("regimes"))


def with_site(directory: Path | None, scope: str = RUN) -> tuple[Regime, ...]:
    """The shipped regimes of one scope and a site's own. A site adds; it cannot replace a shipped one unseen."""
    if directory is None:
        return shipped(scope)
    own = load(directory)
    every = _distinct((f"{r.id}.toml", r) for r in (*_shipped(), *own))
    return tuple(r for r in every if r.scope == scope)


def parse(name: str, raw: bytes) -> Regime:
    """One regime file. `name` is what messages call it. Raises RegimeError."""
    keys = read(name, raw)
    keys.one_of("schema", (SCHEMA,))
    scope = keys.one_of("scope", SCOPES)
    original, threshold_flop, share = _line(keys, scope)
    regime = Regime(
        id=keys.id(),
        title=keys.text("title"),
        citation=keys.text("citation"),
        status=keys.one_of("status", STATUSES),
        status_as_of=keys.day("status_as_of"),
        effective=keys.day("effective"),
        ends=keys.day("ends") if "ends" in keys.data else None,
        threshold_flop=threshold_flop,
        share=share,
        comparison=keys.one_of("comparison", COMPARISONS),
        unit=keys.one_of("unit", UNITS),
        scope=scope,
        original=original,
        counting=keys.one_of("counting", (profiles.EXECUTED, *profiles.shipped())),
        counting_note=keys.text("counting_note"),
        act=keys.one_of("act", ACTS),
        when_met=keys.text("when_met"),
        recipient=keys.text("recipient"),
        deadline=keys.text("deadline"),
        deadline_days=keys.days("deadline_days") if "deadline_days" in keys.data else None,
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


def _line(keys: Keys, scope: str) -> tuple[str, int, Fraction]:
    """(original, threshold, share). With another scope, or a known original, the keys of the rest are unknown ones."""
    if scope == RUN:
        return "", keys.threshold("threshold_flop"), Fraction(1)
    original = keys.one_of("original", ORIGINALS)
    return original, 0 if original == KNOWN else keys.threshold("threshold_flop"), keys.share("share")


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
