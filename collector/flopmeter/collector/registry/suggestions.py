"""Runs that may be one, and stops just under a line: suggestions for a person, with reasons. Pure.

A suggestion is never evidence and never counts: what counts is the link that a person makes (`flopmeter runs link`).
Its id depends only on what it is about, so that an answer to it holds when more reasons come up. Sources: compute
structuring, linked runs (reference/regulations.md sections 12 and 13, item 21).
"""

import hashlib
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from fractions import Fraction
from itertools import pairwise
from typing import NamedTuple

from flopmeter.collector.law.regimes import RUN, Regime
from flopmeter.collector.law.rules import meets

from .lineage import Lineage

#: A run that begins this soon after another ended, on the same hardware, may have taken over from it.
HAND_OVER_NS = 6 * 3_600_000_000_000
#: A total within this part under a line is just under it: a 30 % error could hide that it crossed.
JUST_UNDER = Fraction(3, 13)  # from 10/13 of the line on (regulations.md section 13, item 10)
#: Stops just under one line, by one owner, before anybody is asked.
REPEATED_STOPS = 2
#: Two runs that together are under this part of every line are not worth a person's time.
NOTABLE = Fraction(1, 100)
#: Weights of signals that add up to a confidence; below the lowest nobody is asked. Same owner and same hardware (1
#: each) are any two jobs of a team, even where the first stopped under a line: something must tie the two together.
LOW, MEDIUM, HIGH = 4, 6, 8
MAX_SUGGESTIONS = 100


class Confidence(StrEnum):
    """How much the signals say together. Never proof."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What is known of a run without looking at what it computed."""

    run: str
    owner: str  # as declared, else the scheduler's user; "" = not known
    first_unix_ns: int
    last_unix_ns: int
    running: bool
    models: frozenset[str]  # of its GPUs
    sites: frozenset[str]  # the clusters or hosts that its jobs name
    checkpoints: frozenset[str] = frozenset()  # hashes of checkpoint paths, where declared
    counted: Mapping[str, int] = field(default_factory=dict)  # regime -> its point as that regime counts it


class Reason(NamedTuple):
    """One signal: what was seen, and what it does not prove."""

    signal: str
    seen: str
    not_proof: str
    weight: int


@dataclass(frozen=True, slots=True)
class Suggestion:
    """What a person is asked about `runs`. `command` is what would make it count."""

    id: str
    kind: str  # "linked" or "stops-under-a-line"
    runs: tuple[str, ...]  # the earlier first
    confidence: Confidence
    reasons: tuple[Reason, ...]
    command: str

    @property
    def not_proof(self) -> str:
        """Said with every suggestion."""
        return (
            "A suggestion is no finding: it adds nothing to any total. Whether these runs trained one model is for a "
            "person to say; both answers are recorded."
        )


LINKED = "linked"
STOPS = "stops-under-a-line"
_RISING = re.compile(r"(.*?[^0-9])([0-9]{1,6})([^0-9]*)\Z")


def suggestions(
    facts: Iterable[RunFacts], regimes: Iterable[Regime], lineage: Lineage
) -> tuple[Suggestion, ...]:
    """What to ask about these runs, the surest first. Where one stands on the other already nothing is left to ask."""
    runs = sorted(facts, key=lambda f: (f.first_unix_ns, f.run))
    lines = tuple(r for r in regimes if r.scope == RUN)
    above = {f.run: lineage.above(f.run) for f in runs}
    found: list[Suggestion] = []
    for a, b in _candidates(runs):
        if _linked(a, b, above) or not _notable(a, b, lines):
            continue
        reasons = tuple(_reasons(a, b, lines))
        confidence = _confidence(reasons)
        if confidence is not None:
            command = _link(b.run, a.run)
            found.append(
                Suggestion(_id(LINKED, a.run, b.run), LINKED, (a.run, b.run), confidence, reasons, command)
            )
    found += _stops(runs, lines, above)
    order = list(Confidence)
    found.sort(key=lambda s: (-order.index(s.confidence), s.kind, s.runs))
    return tuple(found[:MAX_SUGGESTIONS])


def _id(*about: str) -> str:
    """16 hex digits of SHA-256 of what it is about."""
    return hashlib.sha256("\0".join(about).encode()).hexdigest()[:16]


def _link(run: str, parent: str) -> str:
    return f"flopmeter runs link {shlex.quote(run)} continues {shlex.quote(parent)} --why TEXT"


def _linked(a: RunFacts, b: RunFacts, above: Mapping[str, frozenset[str]]) -> bool:
    return a.run in above[b.run] or b.run in above[a.run]


def _candidates(runs: list[RunFacts]) -> Iterator[tuple[RunFacts, RunFacts]]:
    """Pairs, the earlier first, that share something: neighbours in time within what they share. Each once."""
    groups: dict[tuple[str, ...], list[RunFacts]] = {}
    for f in runs:
        for checkpoint in f.checkpoints:
            groups.setdefault(("checkpoint", checkpoint), []).append(f)
        stem = _stem(f.run)
        if stem is not None:
            groups.setdefault(("name", f.owner, stem[0]), []).append(f)
        if f.owner:
            groups.setdefault(("owner", f.owner), []).append(f)
            for model in f.models:
                groups.setdefault(("hardware", f.owner, model), []).append(f)
    seen: set[tuple[str, str]] = set()
    for group in groups.values():
        for a, b in pairwise(group):
            if (a.run, b.run) not in seen:
                seen.add((a.run, b.run))
                yield a, b


def _stem(name: str) -> tuple[str, int] | None:
    """A name with a number at its end, as (the rest, the number)."""
    found = _RISING.match(name)
    return (found[1] + "#" + found[3], int(found[2])) if found else None


def _notable(a: RunFacts, b: RunFacts, regimes: Iterable[Regime]) -> bool:
    return any(a.counted.get(r.id, 0) + b.counted.get(r.id, 0) >= NOTABLE * r.threshold_flop for r in regimes)


def _reasons(a: RunFacts, b: RunFacts, regimes: Iterable[Regime]) -> Iterator[Reason]:
    if a.checkpoints & b.checkpoints:
        yield Reason(
            "checkpoint",
            "both declare the same checkpoint path (its hash)",
            "a path can be used again for another model",
            weight=4,
        )
    if _rising(a.run, b.run):
        yield Reason(
            "names",
            f"their names count on: {a.run}, then {b.run}",
            "attempts, seeds and sweeps are numbered too",
            weight=2,
        )
    if a.owner and a.owner == b.owner:
        yield Reason("owner", f"both belong to {a.owner}", "one team trains many models", weight=1)
    pause = b.first_unix_ns - a.last_unix_ns
    if 0 <= pause <= HAND_OVER_NS and not a.running:
        yield Reason(
            "hand-over",
            f"{b.run} began {_time(pause)} after {a.run} ended",
            "a queue hands GPUs from any job to any other",
            weight=2,
        )
    if a.models and a.models == b.models:
        yield Reason(
            "hardware",
            f"both ran on {', '.join(sorted(a.models))}",
            "a cluster has few kinds of GPU",
            weight=1,
        )
    for r in regimes:
        if not a.running and _just_under(a.counted.get(r.id, 0), r):
            yield Reason(
                "stop-under-a-line",
                f"{a.run} stopped just under the line of {r.id}, which the two together "
                + ("pass" if meets(a.counted[r.id] + b.counted.get(r.id, 0), r) else "do not pass yet"),
                "a budget may have been planned to stay under a line, which is lawful",
                weight=1,
            )
            break
    if a.sites and b.sites and not a.sites & b.sites:
        yield Reason(
            "another-site",
            f"they ran on different sites: {', '.join(sorted(a.sites | b.sites))}",
            "on its own it says nothing; with the rest it is where a sum over one site would miss half",
            weight=0,
        )


def _rising(a: str, b: str) -> bool:
    one, two = _stem(a), _stem(b)
    return one is not None and two is not None and one[0] == two[0] and one[1] < two[1]


def _just_under(point: int, regime: Regime) -> bool:
    return point >= (1 - JUST_UNDER) * regime.threshold_flop and not meets(point, regime)


def _confidence(reasons: Iterable[Reason]) -> Confidence | None:
    """None: too little to ask."""
    weight = sum(r.weight for r in reasons)
    if weight < LOW:
        return None
    if weight >= HIGH:
        return Confidence.HIGH
    return Confidence.MEDIUM if weight >= MEDIUM else Confidence.LOW


def _stops(
    runs: list[RunFacts], regimes: Iterable[Regime], above: Mapping[str, frozenset[str]]
) -> Iterator[Suggestion]:
    """Per owner and line: runs that stopped just under it, none of which stands on another already."""
    for regime in regimes:
        by_owner: dict[str, list[RunFacts]] = {}
        for f in runs:
            if f.owner and not f.running and _just_under(f.counted.get(regime.id, 0), regime):
                by_owner.setdefault(f.owner, []).append(f)
        for owner, found in sorted(by_owner.items()):
            stopped = [f for i, f in enumerate(found) if not any(_linked(f, o, above) for o in found[:i])]
            if len(stopped) < REPEATED_STOPS:
                continue
            names = tuple(f.run for f in stopped)
            reason = Reason(
                "stop-under-a-line",
                f"{len(names)} runs of {owner} stopped within {JUST_UNDER.numerator}/{JUST_UNDER.denominator} "
                f"under the line of {regime.id}",
                "a budget may have been planned to stay under a line, which is lawful, and of different models each "
                "line is met by none",
                weight=2 * len(names),
            )
            confidence = Confidence.MEDIUM if len(names) > REPEATED_STOPS else Confidence.LOW
            yield Suggestion(
                _id(STOPS, regime.id, owner, *sorted(names)),
                STOPS,
                names,
                confidence,
                (reason,),
                _link(names[-1], names[0]),
            )


def _time(ns: int) -> str:
    minutes = ns // 60_000_000_000
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
