"""What an experiment is, and what it gives back."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .lab import Lab, UnavailableError
from .measure import Bench, primary
from .rules import Check

PASS, FAIL, NOTED, NOT_RUN, ERROR = "pass", "fail", "noted", "not run", "error"


@dataclass(slots=True)
class Outcome:
    """Checks with their verdicts, table lines (measured against true), and every raw number."""

    checks: list[Check] = field(default_factory=list)
    lines: list[dict[str, Any]] = field(default_factory=list)
    raw: dict[str, Any] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)  # parts that this machine cannot run, and why
    begin: Callable[[str], bool] = lambda part: True

    @property
    def status(self) -> str:
        verdicts = [c.ok for c in self.checks]
        if False in verdicts:
            return FAIL
        if True in verdicts:
            return PASS
        return NOTED if self.checks or self.lines else NOT_RUN

    def take(self, key: str, result: dict[str, Any]) -> dict[str, Any]:
        """Keep a measurement, with its line for the table."""
        self.raw[key] = result
        for path in ("counters", "percentages"):
            if path in result:
                found = result[path]
                self.lines.append(
                    {
                        "what": result["work"],
                        "by": path,
                        "classes": "+".join(sorted(found["classes"])),
                        "measured": found["flop"]["point"],
                        "true": result["true_flop"],
                        "ratio": found["ratio"] if result["true_flop"] else None,
                    }
                )
        return result

    def attempt(self, key: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any] | None:
        """A part that the machine may not be able to run, or that ended the process the time before."""
        if not self.begin(key):
            self.skipped.append(f"{key}: the attempt before ended in it (an error, a hang or a crash)")
            return None
        try:
            return self.take(key, measure())
        except UnavailableError as e:
            self.skipped.append(f"{key}: {e}")
            return None

    def _reasons(self) -> dict[str, list[str]]:
        """What was skipped, by reason: one that several parts share is said once."""
        reasons: dict[str, list[str]] = {}
        for text in self.skipped:
            part, colon, why = text.partition(": ")
            reasons.setdefault(colon + why if colon else text, []).extend([part] if colon else [])
        return reasons

    def data(self) -> dict[str, Any]:
        return {
            "status": self.status,
            "why": "; ".join(f"{', '.join(parts)}{why}" for why, parts in self._reasons().items()),
            "checks": [c.data() for c in self.checks],
            "lines": self.lines,
            "raw": self.raw,
        }


@dataclass(slots=True)
class Context:
    """What an experiment gets."""

    bench: Bench
    results: dict[str, dict[str, Any]]  # of the experiments before
    folder: Path
    begin_part: Callable[[str], bool] = lambda part: True

    def outcome(self) -> Outcome:
        """For an experiment of several parts: one that ends the process is left out of the second attempt."""
        return Outcome(begin=self.begin_part)

    @property
    def lab(self) -> Lab:
        return self.bench.lab


@dataclass(frozen=True, slots=True)
class Experiment:
    """`seconds`: about how long it takes on an H200, with its setting up. `without_gpm`: it tells something even
    where the driver gives no GPM value.
    """

    key: str
    title: str
    seconds: int
    run: Callable[[Context], Outcome]
    without_gpm: bool = False


def point(result: dict[str, Any]) -> int:
    """FLOP that flopmeter booked, point."""
    value: int = primary(result)["flop"]["point"]
    return value
