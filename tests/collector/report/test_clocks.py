"""Clock offsets as the fleet tells them: node by node, counted, and never of a time that is long over."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from builders import UNIX_NS, Chain
from desk import Desk

from flopmeter.collector.api.fleet_rows import FleetRows, row_of
from flopmeter.collector.clock_offset import FRESH_NS, Offset
from flopmeter.collector.report.queries import asked, reading

S = 1_000_000_000
NOW = UNIX_NS + 180 * S
CLOCKS = {
    "n1": Offset(-S // 100, S // 100, NOW - S),
    "n2": Offset(2 * S, 3 * S, NOW - S),
    "n3": Offset(-42 * S, -41 * S, NOW - FRESH_NS + 1),
    "n4": Offset(500 * S, 501 * S, NOW - FRESH_NS),  # long ago
    "n5": None,
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "books.sqlite"
    with Desk(path, ()) as desk:
        for name, clock in CLOCKS.items():
            chain = Chain(name)
            agent = desk.agent(chain)
            desk.intake.clock(agent, clock)
            desk.offer(agent, chain.next())
        desk.commit()
    return path


def fleet(path: Path, now: int = NOW) -> Any:
    with reading(path) as reader:
        found = reader.fleet(asked(now))
    assert json.loads(json.dumps(found)) == found
    return found


def test_each_node_has_its_interval_and_the_fleet_counts_those_that_are_surely_off(path: Path) -> None:
    found = fleet(path)
    told = {n["node"]: n["clock_offset"] for n in found["nodes"]}
    assert told["n5"] is None
    assert (told["n2"]["lower_seconds"], told["n2"]["point_seconds"], told["n2"]["upper_seconds"]) == (
        2,
        2.5,
        3,
    )
    assert [n for n, o in told.items() if o is not None and o["surely_off"]] == ["n3"]
    assert found["clocks"] == {
        "known": 3,
        "off": [
            {"over_seconds": 1, "nodes": 2},
            {"over_seconds": 10, "nodes": 1},
            {"over_seconds": 120, "nodes": 0},
        ],
        "largest_seconds": 41,
        "furthest": [{"node": "n3", "offset": told["n3"]}],
    }


def test_of_a_time_that_is_long_over_nothing_is_counted(path: Path) -> None:
    found = fleet(path, NOW + FRESH_NS)["clocks"]
    assert (found["known"], found["largest_seconds"], found["furthest"]) == (0, None, [])


def test_what_was_measured_before_our_own_clock_was_set_back_is_not_of_now(path: Path) -> None:
    """A collector that came up years ahead: nodes that left before NTP mended that are not off for years."""
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE clocks SET measured_unix_ns = ?", (NOW + 3 * 365 * 86_400 * S,))
    found = fleet(path)
    assert (found["clocks"]["known"], found["clocks"]["furthest"]) == (0, [])
    assert not any(o["surely_off"] for n in found["nodes"] if (o := n["clock_offset"]) is not None)


def test_the_map_tells_the_same_and_sees_a_clock_that_moves_without_a_record(path: Path) -> None:
    rows = FleetRows()

    def told() -> dict[str, tuple[str, Offset | None]]:
        with reading(path) as reader:
            made = [row_of(c, set(), NOW) for c in rows.refresh(reader)]
        return {r.node: (r.marks, r.clock) for r in made}

    now = {name: ("", clock) for name, clock in CLOCKS.items()}
    assert told() == now | {"n3": ("k", CLOCKS["n3"]), "n4": ("", None)}
    decoded = rows.decoded
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE clocks SET lower_ns = ?, upper_ns = ? WHERE agent_no = 2", (60 * S, 61 * S))
        db.execute("DELETE FROM clocks WHERE agent_no = 3")
    moved = told()
    assert moved["n2"] == ("k", Offset(60 * S, 61 * S, NOW - S))
    assert moved["n3"] == ("", None)
    assert rows.decoded == decoded, "no record was decoded for it"


def test_a_row_that_is_damaged_is_not_known_and_spoils_no_other(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE clocks SET upper_ns = 'far' WHERE agent_no = 2")
    told = {n["node"]: n["clock_offset"] for n in fleet(path)["nodes"]}
    assert told["n2"] is None
    assert told["n3"] is not None
