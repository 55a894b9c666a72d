"""All that a draft is made of, read once: the run's report, its events, the regimes, and which state of the books. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Any

from flopmeter.collector.errors import FilingError
from flopmeter.collector.law.regimes import Regime
from flopmeter.collector.report.documents import figure_of
from flopmeter.contract.flop import Figure

DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class BooksState:
    """Which books a draft was made from, and by which programs: what somebody needs to make it again."""

    position: int  # of the last record; 0: there is none
    record_hash: str  # of that record, hex; "" without one
    entries: int  # of the run registry
    entries_hash: str  # of its last one, hex; "" without one
    agent_versions: Mapping[str, int]  # version -> admitted agents that told of it last
    collector_version: str  # of the program that made the draft
    w_table: str
    w_table_digest: str


@dataclass(frozen=True, slots=True)
class Material:
    """One run at one moment."""

    run: str
    report: Mapping[str, Any]  # `runs report --json`
    metered: Mapping[str, Any] | None  # `runs show --json`; None: declared, and nothing metered yet
    events: tuple[Mapping[str, Any], ...]  # CloudEvents about the run, oldest first
    deadlines: tuple[Mapping[str, Any], ...]  # `deadlines list --json`, of the run
    forecast: Mapping[str, Any] | None  # the last one that was kept of the run
    evidence: Mapping[int, tuple[str, ...]]  # registry entry -> what it refers to
    regimes: tuple[Regime, ...]  # of every scope
    books: BooksState
    now_unix_ns: int

    def regime(self, regime_id: str) -> Regime:
        """Raises FilingError where it is not known here."""
        for regime in self.regimes:
            if regime.id == regime_id:
                return regime
        raise FilingError(
            f"regime {regime_id!r}: expected one that binds, or will, and is known here; found none of that id",
            "`flopmeter regimes list` shows them; of what is proposed or historical there is no draft; a site's own need "
            "--regimes DIR",
        )

    def counted(self, regime: Regime) -> Figure | None:
        """What the regime counts of the run, unreported time in its upper bound; None: nothing was metered."""
        if self.metered is None:
            return None
        return figure_of(self.metered["countable"][regime.id]["flop"])

    def of_regime(self, regime: Regime) -> list[Mapping[str, Any]]:
        """The run's events about that regime."""
        return [e for e in self.events if e["data"].get("regime") == regime.id]

    @property
    def span_unix_ns(self) -> tuple[int, int] | None:
        """From the run's first record to its last."""
        if self.metered is None:
            return None
        return _unix_ns(self.metered["first_seen"]), _unix_ns(self.metered["last_seen"])

    @property
    def device_days(self) -> Fraction | None:
        """Device time of the run, gaps in it included."""
        if self.metered is None:
            return None
        return Fraction(self.metered["coverage"]["expected_device_seconds"]) / DAY_S


def _unix_ns(text: str) -> int:
    epoch = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
    return (datetime.fromisoformat(text) - epoch) // timedelta(microseconds=1) * 1000
