"""Regimes: legal rule sets as dated, versioned data files (docs/regimes.md has the schema).

Exact numbers only: a threshold is a decimal string or `{ base, exponent }`, a share two whole numbers; a float is
refused, because 1e25 is not 10^25 in binary and 0.33 is not a third. Every fault names the file and the key.
"""

import functools
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from fractions import Fraction
from importlib import resources
from types import MappingProxyType

from flopmeter.contract.w_table import DTYPE_RATE

from . import profiles
from .deadline_rules import KNOWN as KNOWN_OR_MET
from .deadline_rules import MET, deadline_rules
from .deadline_rules import DeadlineRule as DeadlineRule  # noqa: PLC0414
from .retention_rules import RetentionRule, retention_rules
from .toml_keys import Keys, whole

SCHEMA = "flopmeter-regime/1"
STATUSES = ("in-force", "enacted", "proposed", "revoked", "vetoed", "not-enforced")
MANDATORY = frozenset({"in-force", "enacted"})  # bind from their effective date; the others never do
HISTORICAL = frozenset({"revoked", "vetoed", "not-enforced"})  # shipped to be looked up, and off
COMPARISONS = (">", ">=")
FLOAT_ONLY = "floating-point"
INTEGER_OR_FLOAT = "integer-or-floating-point"
UNITS = (FLOAT_ONLY, INTEGER_OR_FLOAT)
RUN = "run"  # a run with what it stands on
MODIFICATION = "modification"  # a run that fine-tunes another model: compared with a share of the original
TENANT = "tenant"  # the sum of all runs of one tenant
FLEET_CAPACITY = "fleet-capacity"  # what one site's machines could do in a second, at the very most
SCOPES = (RUN, MODIFICATION, TENANT, FLEET_CAPACITY)
OPERATIONS_PER_SECOND = "operations-per-second"  # unit of fleet capacity
ANY_PRECISION = "any"  # of a capacity: the best of all precisions that a machine has
#: In the place of a threshold: the text sets a duty without a number. Such a regime has no verdict.
NONE_IN_TEXT = "none-in-text"
KNOWN = "known"
UNKNOWN = "unknown"
UNKNOWN_SYSTEMIC_RISK = "unknown-systemic-risk"
ANY = "any"
ORIGINALS = (KNOWN, UNKNOWN, UNKNOWN_SYSTEMIC_RISK, ANY)  # of which originals a modification regime speaks
ACTS = (
    "notification",
    "submission",
    "documentation",
    "coverage",
    "licence",
)  # what meeting the threshold does
#: Where a regime's file does not say: the figure that a method 30 % too low would show at the line
#: (reference/regulations.md 13.10: 10^25/1.3, about 7.7x10^24).
EARLY = (Fraction(10, 13),)
_CAPACITY = ("threshold_op_s", "network_gbit_s", "precision", "one_datacenter")
_NO_PROFILES: Mapping[str, profiles.Profile] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Capacity:
    """The line of scope FLEET_CAPACITY: dense peak operations in a second, of machines that are one cluster."""

    op_s: int  # compared by the regime's `comparison`
    network_gbit_s: int  # joined by more than so much
    precision: str  # a dtype, or ANY_PRECISION
    one_datacenter: bool  # whether only machines of one site are added


@dataclass(frozen=True, slots=True)
class Regime:
    """One legal rule set. `threshold_flop` is exact; `version` and `digest` say which text of the file."""

    id: str
    title: str
    citation: str
    status: str  # one of STATUSES, as of status_as_of
    status_as_of: date
    effective: date | None  # first day on which it binds; None: it never did, or the day was not found
    ends: date | None  # first day on which it no longer binds
    threshold_flop: (
        int  # of a modification: what its original is taken to have; 0: what it has, or see `has_line`
    )
    share: Fraction  # of threshold_flop, or of the original, that is the line; 1 with other scopes
    comparison: str  # ">" or ">="
    unit: str  # what one operation is: FLOAT_ONLY, or INTEGER_OR_FLOAT
    scope: str  # one of SCOPES
    original: str  # one of ORIGINALS; "" with other scopes
    counting: str  # a counting profile's id, or "executed"
    counting_note: str  # in words: what the law counts, and what flopmeter cannot see of it
    act: str  # one of ACTS
    when_met: str  # in words: what follows, for the operator
    recipient: str
    deadline: str  # in words
    deadlines: tuple[DeadlineRule, ...]
    conditions: tuple[str, ...]  # what else must hold that no counter can see
    open_questions: tuple[str, ...]
    source: str
    version: str
    digest: str  # SHA-256 of the file's bytes, hex
    capacity: Capacity | None = None  # with scope FLEET_CAPACITY only
    retention: tuple[RetentionRule, ...] = ()  # what must be kept, and how long
    early: tuple[Fraction, ...] = EARLY  # parts of the line at which to warn, ascending
    replaces: str = ""  # id of the shipped regime that a site's own stands in the place of
    profile: profiles.Profile | None = None  # where it is not the shipped one that `counting` names
    text: str = field(default="", repr=False, compare=False)  # the file

    @property
    def has_line(self) -> bool:
        """Whether the text has a number to compare with; without one no verdict is ever given."""
        return self.threshold_flop > 0 or self.capacity is not None or self.original == KNOWN

    @property
    def may_bind(self) -> bool:
        """Whether it binds anybody, now or some day: what else is shipped is to be looked up, and judges nothing."""
        return self.status in MANDATORY and self.has_line

    @property
    def counted_by(self) -> profiles.Profile | None:
        """The counting profile; None: every operation of the one run (`executed`)."""
        return self.profile or profiles.profile_of(self.counting)


def due_after_ns(regime: Regime) -> int | None:
    """From meeting the threshold to the first thing that is due for it: of its first rule that begins then."""
    rules = (r for r in regime.deadlines if r.trigger in (KNOWN_OR_MET, MET))
    return next((r.after_ns for r in rules), None)


@functools.cache
def shipped(scope: str = RUN) -> tuple[Regime, ...]:
    """The regimes of one scope that come with this version and bind, now or some day."""
    return tuple(r for r in every_shipped() if r.scope == scope and r.may_bind)


@functools.cache
def every_shipped() -> tuple[Regime, ...]:
    """All that come with this version, in order."""
    directory = resources.files("flopmeter.collector").joinpath("regimes")
    return in_order(parse(f.name, f.read_bytes()) for f in directory.iterdir() if f.name.endswith(".toml"))


def in_order(regimes: Iterable[Regime]) -> tuple[Regime, ...]:
    """As they are shown: by line, by date, by id."""
    return tuple(sorted(regimes, key=lambda r: (r.threshold_flop, r.effective or date.max, r.id)))


def parse(name: str, raw: bytes, own: Mapping[str, profiles.Profile] = _NO_PROFILES) -> Regime:
    """One regime file. `name` is what messages call it, `own` a site's profiles. Raises RegimeError with every fault."""
    return whole(name, raw, lambda keys: _regime(keys, raw, own))


def _regime(keys: Keys, raw: bytes, own: Mapping[str, profiles.Profile]) -> Regime:
    keys.one_of("schema", (SCHEMA,))
    scope = keys.one_of("scope", SCOPES)
    status = keys.one_of("status", STATUSES)
    binds = status in MANDATORY or not keys.good("status")
    if keys.good("scope"):
        original, threshold_flop, share = _line(keys, scope)
    else:  # which keys say where the line is cannot be known
        keys.ignore("threshold_flop", "original", "share", *_CAPACITY)
        original, threshold_flop, share = "", 1, Fraction(1)
    units = (OPERATIONS_PER_SECOND,) if scope == FLEET_CAPACITY else UNITS
    counting = keys.one_of("counting", (profiles.EXECUTED, *profiles.shipped(), *own))
    regime = Regime(
        id=keys.id(),
        title=keys.text("title"),
        citation=keys.text("citation"),
        status=status,
        status_as_of=keys.day("status_as_of"),
        effective=keys.day("effective") if keys.has("effective") or binds else None,
        ends=keys.day("ends") if keys.has("ends") else None,
        threshold_flop=threshold_flop,
        share=share,
        comparison=keys.one_of("comparison", COMPARISONS),
        unit=keys.one_of("unit", units if keys.good("scope") else (*UNITS, OPERATIONS_PER_SECOND)),
        scope=scope,
        original=original,
        counting=counting,
        counting_note=keys.text("counting_note"),
        act=keys.one_of("act", ACTS),
        when_met=keys.text("when_met"),
        recipient=keys.text("recipient"),
        deadline=keys.text("deadline"),
        deadlines=deadline_rules(keys),
        conditions=keys.texts("conditions"),
        open_questions=keys.texts("open_questions"),
        source=keys.text("source"),
        version=keys.text("version"),
        digest=hashlib.sha256(raw).hexdigest(),
        capacity=_capacity(keys) if scope == FLEET_CAPACITY else None,
        retention=retention_rules(keys),
        early=keys.shares("early") if keys.has("early") else EARLY,
        replaces=keys.id("replaces") if keys.has("replaces") else "",
        profile=own.get(counting),
        text=raw.decode(),
    )
    keys.none_left()
    if regime.effective is not None and keys.good("effective", "ends", "status", "status_as_of"):
        if regime.ends is not None and regime.ends <= regime.effective:
            keys.fault("ends", f"a day after effective ({regime.effective})", regime.ends)
        if regime.status == "in-force" and regime.effective > regime.status_as_of:
            keys.fault("status", f"'enacted', since it binds from {regime.effective} only", regime.status)
    return regime


def _line(keys: Keys, scope: str) -> tuple[str, int, Fraction]:
    """(original, threshold, share). With another scope, or a known original, the keys of the rest are unknown ones."""
    if scope == FLEET_CAPACITY:
        return "", 0, Fraction(1)
    if scope == MODIFICATION:
        original = keys.one_of("original", ORIGINALS)
        if not keys.good("original"):
            keys.ignore("threshold_flop")
            return original, 1, keys.share("share")
        return original, 0 if original == KNOWN else keys.threshold("threshold_flop"), keys.share("share")
    if keys.data.get("threshold_flop") == NONE_IN_TEXT:
        keys.text("threshold_flop")
        return "", 0, Fraction(1)
    return "", keys.threshold("threshold_flop"), Fraction(1)


def _capacity(keys: Keys) -> Capacity:
    return Capacity(
        op_s=keys.threshold("threshold_op_s"),
        network_gbit_s=keys.count("network_gbit_s", 1_000_000),
        precision=keys.one_of("precision", (ANY_PRECISION, *DTYPE_RATE)),
        one_datacenter=keys.yes("one_datacenter"),
    )
