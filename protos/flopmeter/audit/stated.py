"""What a statement says beside FLOP and SM-cycles, held against what an auditor's pack comes to."""

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from flopmeter.audit.price import GAP
from flopmeter.audit.statement import seconds
from flopmeter.evidence.errors import require

STEP = "pack"
_CLASSES = ("A1", "A2", "A3", "B1", "B2", "C", "D", "gap")  # by Usage.evidence_class, from 1
Window = tuple[int, int]  # where some batches begin and end


def extent(windows: list[Window]) -> list[Window]:
    """As one window, from the first begin to the last end."""
    return [(min(w[0] for w in windows), max(w[1] for w in windows))]


def check_shares(predicate: Mapping[str, Any], flop: list[tuple[int, ...]]) -> None:
    """The point by evidence class, and what gaps add to the upper bound; `flop`: class, lower, point, upper."""
    point, told = sum(f[2] for f in flop), dict[str, Fraction]()
    for c in predicate["method"]["evidenceClasses"]:
        told[c["class"]] = told.get(c["class"], Fraction(0)) + Fraction(c["flopShare"])
    levels = {f[0] for f in flop if f[2]}
    shares = {_CLASSES[n - 1]: Fraction(sum(f[2] for f in flop if f[0] == n), point) for n in levels}
    require(
        told == shares, STEP, f"evidenceClasses: the batches come to {_texts(shares)}, told is {_texts(told)}"
    )
    gaps, added = sum(f[3] for f in flop if f[0] == GAP), predicate["coverage"]["gaps"]["flopUpperAdded"]
    require(gaps == int(added), STEP, f"gaps add {gaps} FLOP to the upper bound, flopUpperAdded is {added}")


def _texts(shares: Mapping[str, Fraction]) -> dict[str, str]:
    return {name: str(share) for name, share in sorted(shares.items())}


def check_extent(predicate: Mapping[str, Any], windows: list[Window], agents: int) -> None:
    """Period and agents are those of the batches."""
    told = int(predicate["coverage"]["agents"]["expected"])
    require(told == agents, STEP, f"the batches are of {agents} agents, coverage.agents.expected is {told}")
    for name, found in zip(("start", "end"), extent(windows)[0], strict=True):
        at = predicate["period"][name]
        near = seconds(at) * 10**9 == found
        require(near, STEP, f"the batches {name} at {found} (Unix ns), period.{name} is {at}")
