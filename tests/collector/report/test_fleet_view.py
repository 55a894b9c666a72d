"""`fleet list` of a large fleet: what is missing and who needs somebody stay on the page; the rest is counted."""

import pytest

from flopmeter.cli.layout import Paint
from flopmeter.collector.report.clock_text import offset_text
from flopmeter.collector.report.fleet_view import MAX_NEEDING_SHOWN, fleet_view

PLAIN = Paint(colour=False, width=80)


def node(name, status="live", gap=0.0, unattributed=0.0, **changed):
    return {
        "node": name, "status": status, "gpus": 8, "entities": 8, "models": ["NVIDIA H100 80GB HBM3"],
        "lag_seconds": 60.0, "conflicts": 0, "lost_records": 0, "refused_records": 0, "uncovered": [],
        "library_differs": False, "fault": "", "persistence_off": 0, "confidential": 0, "clock_offset": None,
        "last_window": {
            "device_seconds": 480.0, "classes": ["A1"], "gap_seconds": gap, "unattributed_seconds": unattributed
        },
    } | changed  # fmt: skip


def fleet(nodes, missing=()):
    by_status: dict[str, int] = {}
    for n in nodes:
        by_status[n["status"]] = by_status.get(n["status"], 0) + 1
    return {
        "nodes": nodes, "nodes_total": len(nodes), "nodes_by_status": by_status, "gpus": 8 * len(nodes),
        "device_seconds": 1e9, "idle_device_seconds": 1e6, "unattributed_share": 0.01, "library_disagreements": [],
        "coverage": {"expected_device_seconds": 0, "gap_device_seconds": 0, "gaps": {}},
        "unattributed": {"device_seconds": 0}, "not_reporting": list(missing),
        "clocks": {"known": 0, "off": [], "largest_seconds": None, "furthest": []},
    }  # fmt: skip


def test_twelve_thousand_nodes_leave_what_is_wrong_on_the_page():
    nodes = [node(f"n{i:05}") for i in range(12_500)]
    nodes[7_000] = node("n07000", "silent")
    nodes[11] = node("n00011", lost_records=3)
    nodes[12] = node("n00012", gap=48.0)
    nodes[13] = node("n00013", unattributed=480.0)
    nodes[14] = node("n00014", unattributed=48.0)  # a tenth: nobody has to come
    missing = {
        "node": "n07000",
        "gpus": 8,
        "cause": "silent",
        "since": "2026-11-20T10:00:00Z",
        "what": "H100",
    }
    page = fleet_view(fleet(nodes, [missing]), PLAIN)
    lines = page.splitlines()
    assert len(lines) < 24  # one screen
    assert max(map(len, lines)) <= 80
    assert "4 of 12500 nodes need somebody" in page
    assert page.index("not reporting") < page.index("need somebody") < page.index("In order")
    rows = [line.split()[0] for line in lines if line.startswith("n0")]
    assert rows == ["n07000", "n00011", "n00012", "n00013"]  # the gravest first
    assert "12496 nodes, 99968 GPUs: live, NVIDIA H100 80GB HBM3, class A1" in page


def test_all_has_a_line_for_each():
    page = fleet_view(fleet([node(f"n{i:05}") for i in range(2_000)]), PLAIN, every=True)
    assert sum(line.startswith("n0") for line in page.splitlines()) == 2_000


def test_a_small_fleet_is_shown_whole_and_a_sound_one_says_so():
    small = fleet_view(fleet([node(f"n{i:05}") for i in range(30)]), PLAIN)
    assert sum(line.startswith("n0") for line in small.splitlines()) == 30
    sound = fleet_view(fleet([node(f"n{i:05}") for i in range(31)]), PLAIN)
    assert "All in order" in sound
    assert "31 nodes, 248 GPUs" in sound


def test_too_many_in_need_are_cut_and_it_says_so():
    page = fleet_view(fleet([node(f"n{i:05}", "silent") for i in range(5_000)]), PLAIN)
    assert f"and {5_000 - MAX_NEEDING_SHOWN} more; --all has each of them" in page
    assert len(page.splitlines()) < 60


@pytest.mark.parametrize(
    "changed", [{"conflicts": 1}, {"refused_records": 1}, {"library_differs": True}, {"fault": "x"}]
)
def test_each_kind_of_trouble_is_named(changed):
    page = fleet_view(fleet([node(f"n{i:05}") for i in range(40)] + [node("odd", **changed)]), PLAIN)
    assert "1 of 41 nodes need somebody" in page
    assert any(line.startswith("odd") for line in page.splitlines())


def offset(middle: float, half: float = 0.003, off: bool = True) -> dict:
    return {
        "lower_seconds": middle - half, "point_seconds": middle, "upper_seconds": middle + half, "surely_off": off,
        "measured": "2026-11-22T18:55:46.000Z",
    }  # fmt: skip


def clocks(known, *off):
    furthest = [{"node": f"n{i}", "offset": offset(s)} for i, s in enumerate(off)]
    return {
        "known": known, "off": [{"over_seconds": 10, "nodes": len(off)}], "largest_seconds": max(off, default=0),
        "furthest": furthest,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("middle", "half", "said"),
    [
        (0, 0.000_2, "+0 ms ± 1 ms"),
        (-0.012, 0.004_1, "-12 ms ± 5 ms"),
        (1.2, 0.003, "+1.200 s ± 3 ms"),
        (-41.2034, 1.5, "-41.203 s ± 1.500 s"),
        (3_600, 0.2, "+60.0 min ± 200 ms"),
        (-1e9, 0.000_9, "-11574.1 d ± 1 ms"),
    ],
)
def test_an_offset_is_said_with_its_width(middle, half, said):
    assert offset_text(offset(middle, half)) == said


def test_a_clock_that_is_surely_off_needs_somebody_and_says_why_it_matters():
    nodes = [node(f"n{i:05}", clock_offset=offset(0.001, off=False)) for i in range(200)]
    nodes[7] = node("n00007", clock_offset=offset(41.2))
    page = fleet_view(fleet(nodes) | {"clocks": clocks(200, 41.2)}, PLAIN)
    assert "1 of 200 nodes need somebody" in page
    assert "clock off" in page
    flat = " ".join(page.split())
    assert "off by more than 10 s from the collector's: n0 +41.200 s ± 3 ms." in flat
    assert "deadlines" in flat
    assert "chronyc" in flat
    assert max(map(len, page.splitlines())) <= 80
    wide = fleet_view(fleet(nodes[:9]) | {"clocks": clocks(9, 41.2)}, Paint(colour=False, width=160))
    assert "+41.200 s ± 3 ms" in next(line for line in wide.splitlines() if line.startswith("n00007"))


def test_where_all_clocks_are_off_it_is_the_collectors():
    nodes = [node(f"n{i:05}", clock_offset=offset(-30.0)) for i in range(6)]
    flat = " ".join(fleet_view(fleet(nodes) | {"clocks": clocks(6, *[30.0] * 6)}, PLAIN).split())
    assert "and 2 more" in flat
    assert "the collector's own clock first" in flat
