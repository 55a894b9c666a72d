"""What a counting profile counts of a run and of what it stands on, and every part of the answer. Pure.

Executed work is cut into parts that share a purpose; each part is in the total or left out, with the ruling and the
registry entries that say so. Bounds are rounded outward where a fraction cuts: what is counted has its lower bound
rounded down, its point and upper bound up, so that an exclusion never takes more than the fraction that was shown.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor
from typing import Any, NamedTuple

from flopmeter.collector.registry.entries import Purpose
from flopmeter.collector.spelling import figure_json
from flopmeter.contract.flop import ZERO, Figure, total

from .profiles import Answer, Profile, Ruling

#: What a part without a purpose is called.
UNTAGGED = "untagged"
MAX_ANCESTORS_SHOWN = 50


class Share(NamedTuple):
    """Executed work of one run that has one purpose and one recomputation fraction, priced."""

    purpose: Purpose | None  # None: untagged
    flop: Figure
    integer_ops: Figure = ZERO
    recomputation: Fraction | None = None  # which part of it was activations computed again
    entries: tuple[int, ...] = ()  # registry entries that say so
    across: tuple[int, ...] = ()  # entries that say several things of its hours, which cannot be told apart


@dataclass(frozen=True, slots=True)
class Ancestor:
    """A run or an external model that the run stands on: once, however many paths lead there."""

    name: str
    ruling: Ruling  # of the best path there (registry/lineage.py)
    path: tuple[str, ...]  # how, for people: ("fine-tunes b", "merges c")
    shares: tuple[Share, ...]  # its own executed work; of an external model one share, its declared figure


@dataclass(frozen=True, slots=True)
class Part:
    """A slice of the work, all of it counted or all of it left out."""

    of: str  # "": the run itself; else an ancestor
    path: tuple[str, ...]
    activity: str  # a purpose, "untagged" or "recomputation"
    ruling: Ruling
    entries: tuple[int, ...]
    flop: Figure
    integer_ops: Figure

    @property
    def counted(self) -> bool:
        return self.ruling.counted


@dataclass(frozen=True, slots=True)
class Countable:
    """The total under one profile. Its parts hold all work exactly once: what is in the total, and what is not."""

    profile: Profile
    flop: Figure
    integer_ops: Figure
    parts: tuple[Part, ...]  # the run's own first, then each ancestor's

    @property
    def left_out(self) -> tuple[Part, ...]:
        return tuple(p for p in self.parts if not p.counted)

    @property
    def silent(self) -> tuple[Part, ...]:
        """What is in the total although the text says nothing of it: to be said wherever the total is."""
        return tuple(p for p in self.parts if p.ruling.answer is Answer.SILENT)


def countable(profile: Profile, shares: Iterable[Share], ancestors: Iterable[Ancestor] = ()) -> Countable:
    """The run's own `shares` and its `ancestors`, by `profile`. Raises ValueError for a fraction that is none."""
    parts = [*_parts(profile, shares)]
    for a in sorted(ancestors, key=lambda a: a.name):
        parts += _parts(profile, a.shares, a)
    counted = [p for p in parts if p.counted]
    return Countable(
        profile, total(p.flop for p in counted), total(p.integer_ops for p in counted), tuple(parts)
    )


def _parts(profile: Profile, shares: Iterable[Share], ancestor: Ancestor | None = None) -> Iterator[Part]:
    of, path = ("", ()) if ancestor is None else (ancestor.name, ancestor.path)
    for share in _merged(shares):
        ruling = profile.of(share.purpose)
        if ancestor is not None:
            ruling = _weaker(ancestor.ruling, ruling)
        activity = share.purpose.value if share.purpose is not None else UNTAGGED
        again = share.recomputation or Fraction(0)
        if not 0 <= again <= 1 or share.purpose is Purpose.RECOMPUTATION:
            raise ValueError(f"recomputation: expected a fraction of a share, from 0 to 1, got {share!r}")
        if not again or not ruling.counted:
            yield Part(of, path, activity, ruling, share.entries, share.flop, share.integer_ops)
            continue
        recomputed = _weaker(ruling, profile.of(Purpose.RECOMPUTATION))
        split = _told_apart if recomputed.counted else _cut
        flops, ops = split(share.flop, again), split(share.integer_ops, again)
        yield Part(of, path, activity, ruling, share.entries, flops[0], ops[0])
        yield Part(of, path, Purpose.RECOMPUTATION.value, recomputed, share.entries, flops[1], ops[1])


def _merged(shares: Iterable[Share]) -> list[Share]:
    """Shares that differ in nothing but their figures as one, so that a fraction is rounded once."""
    shares = [*shares]
    if len(shares) <= 1:
        return shares
    found: dict[tuple[Purpose | None, Fraction | None, tuple[int, ...]], Share] = {}
    for s in shares:
        key = (s.purpose, s.recomputation, s.entries)
        old = found.get(key)
        found[key] = (
            s
            if old is None
            else s._replace(flop=old.flop + s.flop, integer_ops=old.integer_ops + s.integer_ops)
        )
    return [found[key] for key in sorted(found, key=_order)]


def _order(
    key: tuple[Purpose | None, Fraction | None, tuple[int, ...]],
) -> tuple[bool, str, bool, Fraction, tuple[int, ...]]:
    purpose, recomputation, entries = key
    return purpose is None, purpose or "", recomputation is None, recomputation or Fraction(0), entries


def _weaker(reached: Ruling, own: Ruling) -> Ruling:
    """Of how something is reached and what it was, the one that says less; the first if they say the same."""
    return own if own.strength < reached.strength else reached


def _cut(figure: Figure, part: Fraction) -> tuple[Figure, Figure]:
    """(what stays, what is left out) if `part` of it is left out: the bounds of both rounded outward."""
    lower, point, upper = (n * part for n in (figure.lower, figure.point, figure.upper))
    stays = Figure(floor(figure.lower - lower), ceil(figure.point - point), ceil(figure.upper - upper))
    return stays, Figure(floor(lower), floor(point), ceil(upper))


def _told_apart(figure: Figure, part: Fraction) -> tuple[Figure, Figure]:
    """(the rest, `part` of it), both counted: together the figure, to the operation."""
    again = Figure(floor(figure.lower * part), floor(figure.point * part), floor(figure.upper * part))
    rest = Figure(figure.lower - again.lower, figure.point - again.point, figure.upper - again.upper)
    return rest, again


def parts_json(parts: Iterable[Part]) -> list[dict[str, Any]]:
    """Parts as reports print them: whose, what, which answer of the text and in which words, how much."""
    return [
        {
            "of": p.of or None,
            "path": list(p.path),
            "activity": p.activity,
            "answer": p.ruling.answer.value,
            "counted": p.counted,
            "words": p.ruling.words,
            "source": p.ruling.source,
            "inferred": p.ruling.inferred,
            "entries": list(p.entries),
            "flop": _json(p.flop),
            "integer_ops": _json(p.integer_ops),
        }
        for p in parts
    ]


def _json(figure: Figure) -> dict[str, str]:
    return {"lower": str(figure.lower), "point": str(figure.point), "upper": str(figure.upper)}


def countable_json(found: Countable) -> dict[str, Any]:
    """A total by a counting profile, and where it comes from: what stood in it, and what the text leaves open."""
    ancestors: dict[str, dict[str, Any]] = {}
    for p in found.parts:
        if p.of:
            flop = figure_json(p.flop)
            known = ancestors.setdefault(
                p.of, {"run": p.of, "path": list(p.path), "counted": False, "flop": figure_json(ZERO)}
            )
            if p.counted:
                known["counted"] = True
                known["flop"] = {name: str(int(known["flop"][name]) + int(flop[name])) for name in flop}
    return {
        "profile": found.profile.id,
        "profile_version": found.profile.version,
        "profile_digest": found.profile.digest,
        "flop": figure_json(found.flop),
        "integer_ops": figure_json(found.integer_ops),
        "ancestors": list(ancestors.values())[:MAX_ANCESTORS_SHOWN],
        "ancestors_counted": sum(1 for a in ancestors.values() if a["counted"]),
        "excluded": sorted({p.activity for p in found.left_out}),
        "silent": sorted({p.activity for p in found.silent}),
        "entries": sorted({number for p in found.parts for number in p.entries}),
    }
