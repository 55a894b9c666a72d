"""What docs/metrics.md names, and what a page of metrics names, in the same words."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.core import Metric

PAGE = Path(__file__).parents[1] / "docs/metrics.md"
#: Of the Prometheus client itself: the page names them by their beginnings.
PAGE_PREFIXES = ("process_", "python_")


@dataclass(frozen=True)
class Named:
    """A row of the page."""

    kind: str
    labels: frozenset[str]


def documented() -> dict[str, Named]:
    found = {}
    for row in re.findall(r"^\| `(flopmeter_\w+)` \|(.*)\|$", PAGE.read_text(), re.MULTILINE):
        kind, _unit, labels, *rest = (cell.strip() for cell in row[1].split("|"))
        assert rest[-1].endswith("."), f"{row[0]}: say what it means"
        assert row[0] not in found, f"{row[0]} stands twice"
        found[row[0]] = Named(kind, frozenset(filter(None, labels.split(", "))))
    return found


def exposed(families: Iterable[Metric]) -> dict[str, Named]:
    """As the page names them: a counter with _total, an info is a gauge whose name ends so."""
    found = {}
    for family in families:
        for sample in family.samples[:1]:
            name = sample.name if family.type != "histogram" else family.name
            kind = "info" if name.endswith("_info") and not name.startswith(PAGE_PREFIXES) else family.type
            found[name] = Named(kind, frozenset(sample.labels) - {"le"})
    return found
