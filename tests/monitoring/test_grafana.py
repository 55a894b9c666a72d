"""deploy/grafana held to Grafana's own word, without Grafana: its published types, units and ids (dashboards.ts).

`@grafana/schema` is generated from the schemas that Grafana itself is built with; the ids of units, of matchers and of
transformations are code, and stand in `@grafana/data`. Both of one release, by npm, below out/, pinned, no scripts run.
What that does not show: how a panel looks, and what a transformation makes of a query's answer.
"""

import copy
import json
import re
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from monitoring.test_dashboards import FILES, board
from npm_packages import compiler_says, installed

GRAFANA, TYPESCRIPT = "13.2.3", "5.9.3"  # TypeScript 7 wants a newer Node.js than Debian 12's
TYPES = Path(__file__).parent / "dashboards.ts"
#: Where the tarball of @grafana/data has them, and how.
IDS = {
    "UnitId": ("valueFormats/categories.mjs", r'\bid: "([^"]+)"', 250),
    "MatcherId": ("transformations/matchers/ids.mjs", r'\] = "([^"]+)"', 25),
    "TransformerId": ("transformations/transformers/ids.mjs", r'\] = "([^"]+)"', 35),
}


@pytest.fixture(scope="module")
def grafana() -> Path:
    """The folder with node_modules and the tarball of @grafana/data: 1 MB, and with all that it needs 130."""
    wanted = f"@grafana/schema@{GRAFANA}", f"typescript@{TYPESCRIPT}"
    return installed(f"grafana-{GRAFANA}", *wanted, packed=(f"@grafana/data@{GRAFANA}",))


def ids(tarball: Path) -> str:
    """The ids as types."""
    lines = []
    with tarfile.open(tarball) as packed:
        for name, (path, pattern, least) in IDS.items():
            file = packed.extractfile(f"package/dist/esm/{path}")
            assert file is not None
            found = sorted(set(re.findall(pattern, file.read().decode())))
            assert len(found) >= least, f"{path} is not written as it was"
            lines.append(f"export type {name} = {' | '.join(map(json.dumps, found))};\n")
    return "".join(lines)


def said(grafana: Path, folder: Path, boards: dict[str, dict[str, Any]]) -> dict[str, list[str]]:
    """What the compiler says of each."""
    head = "import type { Board } from './dashboards';\nexport const d: Board = "
    texts = {name: f"{head}{json.dumps(d, indent=1)};\n" for name, d in boards.items()}
    types = {"dashboards": TYPES.read_text(), "ids": ids(grafana / f"grafana-data-{GRAFANA}.tgz")}
    return compiler_says(grafana, folder, texts | types)


def a(kind: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda d: next(p for p in d["panels"] if p["type"] == kind)


def put(d: dict[str, Any], at: str, value: Any) -> None:
    """`panels.timeseries.options.legend`: by keys, by position, or the first panel of that type. None: taken away."""
    there: Any = d
    *way, last = at.split(".")
    for key in way:
        if isinstance(there, list):
            there = there[int(key)] if key.isdigit() else a(key)(d)
        else:
            there = there[key]
    if value is None:
        assert last in there, at
        del there[last]
    else:
        there[last] = value


FIELD = "panels.timeseries.fieldConfig.defaults"
#: Mistakes, each in an otherwise good dashboard: where, and what stands there instead.
MUTANTS: dict[str, tuple[str, Any]] = {
    "a panel that no plugin draws": ("panels.timeseries.type", "timeserie"),
    "a panel without a description": ("panels.stat.description", None),
    "a panel without a place": ("panels.stat.gridPos", None),
    "a place without a width": ("panels.stat.gridPos.w", None),
    "a place in words": ("panels.stat.gridPos.x", "0"),
    "an option of another panel": ("panels.table.options.graphMode", "area"),
    "an option that was given up": ("panels.table.options.footer", {"show": False}),
    "an option's word": ("panels.stat.options.graphMode", "lines"),
    "an option that is missing": ("panels.stat.options.wideLayout", None),
    "a unit": (f"{FIELD}.unit", "flop/s"),
    "no unit": (f"{FIELD}.unit", None),
    "decimals in words": (f"{FIELD}.decimals", "2"),
    "a colour mode": (f"{FIELD}.color", {"mode": "palette-clasic"}),
    "a field's option": (f"{FIELD}.custom.lineWith", 1),
    "a field's word": (f"{FIELD}.custom.drawStyle", "lines"),
    "a matcher": ("panels.table.fieldConfig.overrides", [{"matcher": {"id": "byname", "options": "x"}, "properties": []}]),
    "an override of nothing": (
        "panels.table.fieldConfig.overrides",
        [{"matcher": {"id": "byName", "options": "x"}, "properties": [{"id": "custom.widht", "value": 80}]}],
    ),
    "an override's unit": (
        "panels.table.fieldConfig.overrides",
        [{"matcher": {"id": "byName", "options": "x"}, "properties": [{"id": "unit", "value": "flop"}]}],
    ),
    "a transformation": ("panels.table.transformations", [{"id": "organise", "options": {}}]),
    "a threshold without a colour": (f"{FIELD}.thresholds.steps", [{"value": 1}]),
    "a query without a name": ("panels.stat.targets.0.refId", None),
    "a query's format": ("panels.table.targets.0.format", "tables"),
    "a query's switch in words": ("panels.stat.targets.0.instant", "true"),
    "another kind of data source": ("panels.stat.datasource.type", "promtheus"),
    "a version in words": ("schemaVersion", "41"),
    "a key of nothing": ("titel", "x"),
    "a variable of no kind": ("templating.list.0.type", "data-source"),
    "a variable's number": ("templating.list.0.refresh", 7),
    "a variable without a value": ("templating.list.0.current", {}),
    "an annotation without a colour": ("annotations.list.1.iconColor", None),
    "a link of no kind": ("links.0.type", "dashboard"),
}  # fmt: skip


def test_each_is_what_grafana_takes_for_a_dashboard_and_a_mistake_is_not(
    grafana: Path, tmp_path: Path
) -> None:
    boards = {file.stem: board(file) for file in FILES}
    fleet = boards["flopmeter-fleet"]
    good = fleet | {"panels": [a(kind)(fleet) for kind in ("stat", "table", "timeseries")]}
    for number, (at, value) in enumerate(MUTANTS.values()):
        put(boards.setdefault(f"mutant-{number}", copy.deepcopy(good)), at, value)
    found = said(grafana, tmp_path, boards)
    assert {name: what for name, what in found.items() if what and not name.startswith("mutant-")} == {}
    assert [name for number, name in enumerate(MUTANTS) if not found[f"mutant-{number}"]] == []
