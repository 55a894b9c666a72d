"""The part of `runs show` that says how counted differs from executed: what was added, left out, or is silent. Pure."""

from collections.abc import Iterable, Mapping
from typing import Any

from flopmeter.cli.layout import Paint, wrapped
from flopmeter.cli.output import flop_text

#: What is said of work that bridges hours of which people said several things.
ACROSS = "stand in windows across the edge of a tag"
MAX_LINES = 8  # of each kind; `runs report` has all


def counting_view(document: Mapping[str, Any], paint: Paint) -> list[str]:
    """Empty where every regime counts just what was executed."""
    lines = _named("stands on", (_ancestor(a) for a in document["lineage"]), paint)
    lines += _named("left out", _parts(document, "excluded"), paint)
    lines += _named("not split", _across(document["purposes"]), paint)
    lines += _named("silent", _parts(document, "silent"), paint)
    lines += _named("modifies", (_modification(m) for m in document["modifications"]), paint)
    return lines


def compared(document: Mapping[str, Any]) -> str:
    """One sentence on what is held against the lines."""
    if all(c["profile"] is None for c in document["countable"].values()):
        return "Compared is the executed total: every operation the hardware did, recomputation included."
    return (
        "Compared is what each regime counts, not what was executed: untagged time and what a text is silent on are "
        "in it (flopmeter regimes show ID, flopmeter runs report RUN)."
    )


def _ancestor(a: Mapping[str, Any]) -> str:
    by = a["counted_by"]
    counted = f"counted by {_few(by)}" if by else "counted by no regime"
    outside = f", declared by {a['source']}" if a["external"] else ""
    took = "what it took is not known" if a["flop"] is None else f"{flop_text(int(a['flop']['point']))} FLOP"
    return f"{', '.join(a['path'])}: {took}{outside}, {counted}"


def _across(purposes: Iterable[Mapping[str, Any]]) -> Iterable[str]:
    """What stands across the edge of a tag."""
    for p in purposes:
        if p["across"]:
            yield (
                f"{flop_text(int(p['flop']['point']))} FLOP {ACROSS} ({_said_by(p['across'])}): {p['purpose']}, as "
                "nobody can tell which part was of which hour"
            )


def _said_by(entries: Iterable[int]) -> str:
    found = [str(n) for n in entries]
    return f"entry {found[0]}" if len(found) == 1 else f"entries {_few(found)}"


def _parts(document: Mapping[str, Any], kind: str) -> Iterable[str]:
    """Parts that several regimes have alike, once."""
    found: dict[tuple[str, str, tuple[int, ...], str], list[str]] = {}
    for regime, total in document["countable"].items():
        for p in total.get(kind, ()):
            of = f" of {p['of']}" if p["of"] else ""
            key = (p["activity"], of, tuple(p["entries"]), p["flop"]["point"])
            found.setdefault(key, []).append(regime)
    for (activity, of, entries, point), regimes in found.items():
        said = f" (entry {_few(map(str, entries))})" if entries else ""
        verb = "by" if kind == "excluded" else "yet counted by"
        yield f"{activity}{of}{said}: {flop_text(int(point))} FLOP, {verb} {_few(dict.fromkeys(regimes))}"


def _modification(m: Mapping[str, Any]) -> str:
    took, line = flop_text(int(m["counted"]["point"])), flop_text(_floor(m["line"]["point"]))
    known = m["original_flop"] is not None and int(m["original_flop"]["point"]) > 0
    of = f"{m['share']} of what that took" if known else "what that took is not known"
    return (
        f"{m['original']} by {took} FLOP; line {m['comparison']} {line}, {of}: {m['verdict']} ({m['regime']})"
    )


def _floor(fraction: str) -> int:
    numerator, _, denominator = fraction.partition("/")
    return int(numerator) // int(denominator or 1)


def _named(name: str, texts: Iterable[str], paint: Paint) -> list[str]:
    found = list(texts)
    lines: list[str] = []
    for i, text in enumerate(found[:MAX_LINES]):
        lines += _entry("" if i else name, text, paint)
    if len(found) > MAX_LINES:
        lines.append(f"{'':13}and {len(found) - MAX_LINES} more (flopmeter runs report)")
    return lines


def _entry(name: str, text: str, paint: Paint) -> list[str]:
    first, *rest = wrapped(text, paint.width, " " * 13, "")
    return [f"  {name:11}{first.strip()}", *rest]


def _few(names: Iterable[str]) -> str:
    found = list(names)
    return ", ".join(found[:4]) + (f" and {len(found) - 4} more" if len(found) > 4 else "")
