"""The fleet: what is metered and what is missing, on a map, in a list, node by node; and 12,500 nodes of it."""

import json
import re
from typing import Any

from browser_rig import Desk, Site, settled, shot
from playwright.sync_api import Page, Route, expect

NODES = 12_500
#: Whether the map has anything but its ground on it, and how many colours.
COLOURS = """() => {
  const c = document.querySelector(".fleet-map"), data = c.getContext("2d").getImageData(0, 0, c.width, c.height).data;
  const seen = new Set();
  for (let i = 0; i < data.length; i += 4) if (data[i + 3] > 200) seen.add(`${data[i]},${data[i + 1]},${data[i + 2]}`);
  return [...seen];
}"""


def test_the_figures_are_the_terminals(visit: Desk, site: Site) -> None:
    told = site.json("fleet", "list")
    page = visit("/fleet", role="viewer")
    settled(page)
    live = told["nodes_by_status"]["live"]
    expect(page.locator(".facts")).to_contain_text(f"{live} of {told['nodes_total']}")
    expect(page.locator(".glance")).to_contain_text(f"{live} of {told['nodes_total']} nodes live")
    names = page.locator("section[aria-labelledby=list-title] tbody th").all_inner_texts()
    assert names == [n["node"] for n in told["nodes"]]
    section = page.locator("section[aria-labelledby=missing-title]")
    assert "silent" in {missing["cause"] for missing in told["not_reporting"]}
    for missing in told["not_reporting"]:
        row = section.locator("tbody tr", has_text=missing["node"]).filter(has_text=missing["cause"])
        expect(row).to_have_count(1)
    counts = {t.split("\n")[0].strip(): t for t in page.locator(".legend button").all_inner_texts()}
    assert len(counts) >= 3, counts
    assert len(page.evaluate(COLOURS)) > 3


def test_the_legend_chooses_and_says_so_in_the_address(visit: Desk, site: Site) -> None:
    page = visit("/fleet")
    settled(page)
    rows = page.locator("section[aria-labelledby=list-title] tbody tr")
    all_of_them = rows.count()
    page.get_by_role("button", name="silent").click()
    page.wait_for_url("**/fleet?show=s")
    expect(rows).to_have_count(1)
    expect(page.get_by_role("button", name="silent")).to_have_attribute("aria-pressed", "true")
    expect(page.get_by_text(f"1 of {all_of_them} nodes match")).to_be_visible()
    other = visit("/fleet?show=s", role="viewer")
    expect(other.locator("section[aria-labelledby=list-title] tbody tr")).to_have_count(1)
    page.get_by_role("button", name="Clear filters").click()
    expect(rows).to_have_count(all_of_them)
    assert page.url == f"{site.base}/fleet"


def test_a_node_is_found_by_key_and_shown_beside_the_map(visit: Desk, site: Site) -> None:
    page = visit("/fleet")
    settled(page)
    search = page.get_by_role("searchbox", name="Name")
    search.focus()
    page.keyboard.type("node-03")
    page.wait_for_url("**/fleet?q=node-03")
    expect(page.locator("section[aria-labelledby=list-title] tbody tr")).to_have_count(1)
    expect(search).to_be_focused()
    page.locator("section[aria-labelledby=list-title]").get_by_role("link", name="node-03").focus()
    page.keyboard.press("Enter")
    panel = page.get_by_role("region", name="node-03")
    expect(panel).to_be_visible()
    assert page.url == f"{site.base}/fleet/node-03?q=node-03"
    expect(panel).to_contain_text("NVIDIA H100")
    expect(panel.locator("tbody tr")).to_have_count(8)
    expect(panel.get_by_role("link", name="atlas-70b").first).to_have_attribute("href", "/runs/atlas-70b")
    page.get_by_role("link", name="Close the node's panel").click()
    expect(panel).to_have_count(0)
    # The same by the mouse, on the map itself.
    page.locator(".fleet-map").click(position={"x": 10, "y": 32})
    expect(page.locator("#node-title")).to_be_visible()


def test_a_node_that_is_not_there_is_said_to_be_unmetered(visit: Desk) -> None:
    page = visit("/fleet/nowhere-1", expected=(404,))
    expect(page.get_by_text("No agent of a node of this name has ever reported.")).to_be_visible()


def test_a_clock_that_is_off_is_found_marked_and_explained(visit: Desk, site: Site) -> None:
    told = {n["node"]: n["clock_offset"] for n in site.json("fleet", "list")["nodes"]}
    assert told["node-02"]["surely_off"], told
    assert told["node-04"] is None
    page = visit("/fleet?sort=clock", size=(1500, 900))
    settled(page)
    rows = page.locator("section[aria-labelledby=list-title] tbody tr")
    first, cell = rows.first, "td[data-label=Clock]"
    expect(first.locator("th")).to_have_text("node-02")
    expect(first.locator(cell)).to_have_text("−41.202 s ± 2 ms")
    expect(first).to_contain_text("clock off by more than 10 s")
    for node, offset in told.items():
        row = rows.filter(has=page.get_by_role("rowheader", name=node, exact=True))
        if offset is None:
            expect(row.locator(cell)).to_have_text("not known")
        elif node != "node-02":
            expect(row.locator(cell)).to_have_text(re.compile(r"^± \d+ ms$"))
    known = sum(offset is not None for offset in told.values())
    expect(page.locator(".facts")).to_contain_text(f"1 of {known}")
    expect(page.get_by_text("from which deadlines run")).to_be_visible()
    shot(page, "fleet-clocks", whole=True)
    page.get_by_role("link", name="clock off by more than 10 s: 1 node").click()
    page.wait_for_url("**/fleet?mark=k*")
    expect(rows).to_have_count(1)
    rows.get_by_role("link", name="node-02").click()
    panel = page.get_by_role("region", name="node-02")
    expect(panel).to_contain_text("−41.202 s ± 2 ms from the collector's, measured")
    expect(panel).to_contain_text("chronyc tracking")
    shot(page, "node-clock")
    unknown = visit("/fleet/node-04").get_by_role("region", name="node-04")
    expect(unknown).to_contain_text("Clock offset")
    expect(unknown).to_contain_text("not known")


def big(route: Route) -> dict[str, Any]:
    """The real answer, with 12,500 rows in the place of its own."""
    answer = route.fetch().json()
    status, gpus = (
        "",
        {"values": ["AAAAAAAA", "ssssssss", "AAAAAAAg", "iiiiiiii", "uuuuuuuu", "xxxxxxxx"], "of": []},
    )
    names: list[int | str] = []
    last = ""
    for i in range(NODES):
        name = f"rack-{i // 18:03d}-n{i % 18:02d}"
        same = next((k for k, (a, b) in enumerate(zip(last, name, strict=False)) if a != b), len(last))
        names += [same, name[same:]]
        last = name
        kind = (
            1
            if i % 997 == 3
            else 2
            if i % 401 == 7
            else 3
            if i % 31 == 2
            else 4
            if i % 113 == 9
            else 5
            if i == 77
            else 0
        )
        gpus["of"].append(kind)
        status += "S" if kind == 1 else "L"

    def column(value: str) -> dict[str, Any]:
        return {"values": [value], "of": [0] * NODES}

    answer["rows"] = {
        "count": NODES, "names": names, "status": status, "gpus": gpus, "cluster": column("hall-1"),
        "version": column("0.1.0"), "model": column("NVIDIA H100 80GB HBM3"), "marks": column(""),
        "newest": answer["rows"]["newest"], "behind": [0] * NODES, "delay": [0] * NODES,
        "clock": "abc" * (NODES // 3) + "-" * (NODES % 3), "offset": [],
    }  # fmt: skip
    answer |= {
        "nodes_total": NODES,
        "gpus": NODES * 8,
        "nodes_by_status": {"live": status.count("L"), "silent": status.count("S")},
    }
    return answer


def fleet_of_many(page: Page) -> None:
    made: list[str] = []

    def answer(route: Route) -> None:
        made[:] = made or [json.dumps(big(route))]
        route.fulfill(content_type="application/json", body=made[0])

    page.route("**/api/v1/fleet", answer)


def test_12_500_nodes_stay_usable(visit: Desk) -> None:
    page = visit("/fleet", before=fleet_of_many)
    settled(page)
    expect(page.locator(".facts")).to_contain_text("of 12,500")
    shot(page, "fleet-12500", whole=True)
    assert len(page.evaluate(COLOURS)) > 5
    silent = sum(i % 997 == 3 for i in range(NODES))
    page.get_by_role("button", name="silent").click()
    expect(page.get_by_text(f"{silent} of 12,500 nodes match")).to_be_visible()
    page.get_by_role("button", name="silent").click()
    page.get_by_role("searchbox", name="Name").fill("rack-694-n07")
    rows = page.locator("section[aria-labelledby=list-title] tbody tr")
    expect(rows).to_have_count(1)
    expect(rows).to_contain_text("8 A1, A2")
    # Every node has its place: nothing is drawn over another, nothing is left out.
    page.get_by_role("searchbox", name="Name").fill("rack-004-n05")  # the 78th, which has no meter
    expect(rows).to_contain_text("8 no meter")
