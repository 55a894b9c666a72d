"""One state of the books, made into what lists are answered from. Built in the background, read by whoever asks."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from flopmeter.collector.forecast.live import kept_document
from flopmeter.collector.ingest.identity import RuleList
from flopmeter.collector.registry.state import Registry
from flopmeter.collector.report.coverage import coverage_document, not_reporting
from flopmeter.collector.report.coverage_queries import booked, known_since, not_heard, taken_over
from flopmeter.collector.report.documents import RunRows
from flopmeter.collector.report.fleet import fleet_summary, odd_nodes
from flopmeter.collector.report.progress_queries import claimers
from flopmeter.collector.report.queries import Asked, Reader, RunSide

from .event_index import EventIndex
from .fleet_cells import NodeRow
from .fleet_rows import Cached, row_of
from .numbers import Numbers
from .recent import Sparks, rates
from .run_lines import binding_lines, faulty, nearest_forecast, no_forecast, run_line
from .tenancy import Sight, owners

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FleetView:
    """The fleet at that moment."""

    agents: list[Cached]
    summary: dict[str, Any]  # `fleet list --json` without its nodes
    odd: set[str]


@dataclass(frozen=True, slots=True)
class View:
    """What was read together. Nothing of it is changed any more, but `kept`."""

    numbers: Numbers
    question: Asked
    side: RunSide
    rows: Mapping[str, RunRows]
    rules: RuleList
    claimed: set[int]
    lines: Mapping[str, dict[str, Any]]  # by run, the largest first
    binding: list[dict[str, Any]]
    owners: Mapping[str, str]
    fleet: FleetView | None  # None: it cannot be made
    fleet_fault: str
    #: Whole answers that were made from it, by what was asked.
    kept: dict[Any, bytes] = field(default_factory=dict)
    made: dict[str, Any] = field(default_factory=dict)

    @property
    def as_of_unix_ns(self) -> int:
        return self.question.now_unix_ns

    @property
    def registry(self) -> Registry:
        return self.side.counting.registry

    def sight(self, tenant: str) -> Sight:
        return Sight(tenant, self.owners, self.registry)


def node_rows(view: View, fleet: FleetView) -> list[NodeRow]:
    """A row an agent, by node's name, as it stands at the view's moment."""
    rows: list[NodeRow] | None = view.made.get("rows")
    if rows is None:
        rows = view.made["rows"] = [row_of(c, fleet.odd, view.as_of_unix_ns) for c in fleet.agents]
    return rows


def fleet_view(reader: Reader, agents: list[Cached], question: Asked) -> FleetView:
    """As `fleet list` says it, from the same functions."""
    now = question.now_unix_ns
    states = [c.state for c in agents]
    over = taken_over(reader.rows, not_heard(states, now))
    missing = not_reporting(
        states, question.expected, known_since(reader.rows, states), over, now_unix_ns=now
    )
    in_books = booked(reader.rows)
    summary = fleet_summary(states, reader.unowned(question), in_books.whole_ns, now_unix_ns=now)
    summary |= {
        "coverage": coverage_document(in_books, missing),
        "not_reporting": [m.document() for m in missing],
    }
    return FleetView(agents, summary, odd_nodes(summary["library_disagreements"]))


class Beside(NamedTuple):
    """What stands in lines beside the books' sums."""

    events: EventIndex
    forecasts: Mapping[
        str, tuple[int, str, dict[str, Any]]
    ]  # the last one kept, by run: unix ns, method, document
    sparks: Sparks | None  # None: not yet


def run_lines(reader: Reader, side: RunSide, question: Asked, beside: Beside) -> dict[str, dict[str, Any]]:
    """By run, the largest first. What is wrong with one run is said in its line, and the others stand."""
    lines: dict[str, dict[str, Any]] = {}
    for rows in side.rows:
        try:
            lines[rows.run] = run_line(side, question, rows)
        except Exception as e:  # noqa: BLE001 - whatever is wrong with it, it is said in its place
            log.warning("run %r: its line cannot be made: %s: %s", rows.run, type(e).__name__, e)
            lines[rows.run] = faulty(rows.run, _said(e))
    for run, said in side.faults.items():
        lines[run] = faulty(run, said)
    sound = [r for r in side.rows if lines[r.run]["fault"] is None]
    rate = rates(
        reader, [r for r in sound if lines[r.run]["status"] == "running"], side.models, question.table
    )
    today = question.now_unix_ns // (24 * 3_600_000_000_000)
    binding = binding_lines(question.regimes, question.now_unix_ns)
    for rows in sound:
        kept = beside.forecasts.get(rows.run)
        lines[rows.run] |= {
            "rate": rate.get(rows.run),
            "forecast": None if kept is None else nearest_forecast(kept_document(*kept)),
            "no_forecast": no_forecast(lines[rows.run], binding, question.now_unix_ns)
            if kept is None
            else None,
            "open_events": beside.events.unresolved(rows.run),
            "spark": None if beside.sparks is None else beside.sparks.of(rows, today),
        }
    return dict(sorted(lines.items(), key=lambda item: (-size_of(item[1]), item[0])))


def size_of(line: Mapping[str, Any]) -> int:
    """A line that could not be made comes first: somebody is to look at it."""
    return 1 << 200 if line["fault"] is not None else int(line["executed"]["point"])


def _said(e: Exception) -> str:
    return f"{type(e).__name__}: {e}"[:300] + "; see `flopmeter collector fsck`"


def view_of(  # noqa: PLR0917 - a view is of all of them
    reader: Reader,
    question: Asked,
    numbers: Numbers,
    side: RunSide,
    agents: list[Cached],
    beside: Beside,
) -> View:
    lines = run_lines(reader, side, question, beside)
    return View(
        numbers,
        question,
        side,
        {r.run: r for r in side.rows},
        reader.identity_rules(),
        claimers(reader.rows),
        lines,
        binding_lines(question.regimes, question.now_unix_ns),
        owners(side.rows, side.counting.registry),
        *_fleet(reader, agents, question),
    )


def _fleet(reader: Reader, agents: list[Cached], question: Asked) -> tuple[FleetView | None, str]:
    """What is wrong with the fleet's totals takes no run's line down."""
    try:
        return fleet_view(reader, agents, question), ""
    except Exception as e:  # noqa: BLE001 - whatever is wrong with it, it is said in its place
        log.warning("the fleet's totals cannot be made: %s: %s", type(e).__name__, e)
        return None, _said(e)
