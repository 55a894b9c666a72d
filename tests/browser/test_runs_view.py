"""One run: its figures are the API's, its plot is for keyboards too, and its address shows a colleague the same."""

import json
import re
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from browser_rig import Desk, Site, settled, shot, violations
from playwright.sync_api import Page, Response, Route, expect

RUN = "atlas-70b"
ROOT = f"/runs/{RUN}"
SLASHED = "slurm:demo/88121"


def asked(page: Page, path: str) -> Any:
    answer = page.request.get(f"/api/v1{path}")
    assert answer.ok, answer.text()
    return answer.json()


def plotted(page: Page) -> Any:
    """The plot, once it is drawn."""
    page.wait_for_selector(".plot-frame .curve-point")
    settled(page)
    return page.locator(".plot-frame")


def at(page: Page) -> dict[str, str]:
    """What the crosshair says, to the last digit."""
    names = ("point", "lower", "upper")
    cells = page.locator(".readings data")
    return {name: str(cells.nth(i).get_attribute("value")) for i, name in enumerate(names)}


def shown(page: Page) -> tuple[str, str] | None:
    query = parse_qs(urlsplit(page.url).query)
    return (query["from"][0], query["to"][0]) if "from" in query else None


def point(curve: dict[str, Any], i: int) -> dict[str, str]:
    return {name: curve["cumulative"][name][i] for name in ("point", "lower", "upper")}


def test_its_figures_are_the_apis(visit: Desk, axe: str) -> None:
    answers: list[Response] = []

    def keep(answer: Response) -> None:  # playwright takes no builtin
        answers.append(answer)

    page = visit(ROOT, size=(1440, 1000), before=lambda page: page.on("response", keep))
    plotted(page)
    # What the page was answered: a silent agent's time costs more each second.
    told = [a for a in answers if urlsplit(a.url).path == f"/api/v1{ROOT}" and a.status == 200]
    run, curve = told[-1].json(), asked(page, f"{ROOT}/curve?points=600")
    assert at(page) == point(curve, -1)
    for threshold in run["thresholds"]:
        row = page.locator(f".law-table tr[data-key={threshold['regime']}]")
        counted = run["countable"][threshold["regime"]]["flop"]
        values = [row.locator(".band-figure data").nth(i).get_attribute("value") for i in range(3)]
        assert values == [counted[name] for name in ("point", "lower", "upper")]
        expect(row).to_contain_text(threshold["verdict"])
    for heading, parts in (
        ("By evidence class", run["by_evidence_class"]),
        ("By device model", run["by_model"]),
    ):
        card = page.locator(".card").filter(has=page.get_by_role("heading", name=heading, exact=True))
        points = [
            card.locator("tbody tr").nth(i).locator("data").first.get_attribute("value")
            for i in range(len(parts))
        ]
        assert sorted(map(str, points)) == sorted(part["flop"]["point"] for part in parts.values())
    pipes = page.locator(".card").filter(has=page.get_by_role("heading", name="By pipe", exact=True))
    busy = [p for p in run["by_pipe"].values() if p["sm_cycles"] != "0"]
    assert pipes.locator("tbody tr").count() == len(busy)
    made = page.locator(".card").filter(has=page.get_by_role("heading", name="How this figure was made"))
    expect(made).to_contain_text(run["w_table"])
    for reason in run["width"]:
        expect(made).to_contain_text(reason["text"])
    expect(made).to_contain_text("nothing here proves that they were made truthfully")
    expect(page.get_by_role("heading", name="Is the figure within the EU's ±30 %?")).to_be_visible()
    assert not violations(page, axe)
    shot(page, "run", whole=True)


def test_the_table_under_the_plot_has_the_same_figures(visit: Desk) -> None:
    page = visit(ROOT)
    plotted(page)
    curve = asked(page, f"{ROOT}/curve?points=600")
    page.get_by_text("Table of these figures").click()
    rows = page.locator(".figures-table").first.locator("tbody tr")
    assert rows.count() == len(curve["times"])
    digits = [re.sub(r"\D", "", text) for text in rows.nth(7).locator("td").all_inner_texts()[:3]]
    assert digits == [curve["cumulative"][name][7] for name in ("lower", "point", "upper")]
    gaps = page.get_by_text("Table of its gaps")
    gaps.click()
    assert page.locator(".figures-table").nth(1).locator("tbody tr").count() == len(curve["gaps"])


def test_a_gap_is_hatched_and_no_line_goes_through_it(visit: Desk) -> None:
    page = visit(ROOT, size=(1440, 1000))
    plotted(page)
    boxes = """(of) => [...document.querySelector(".plot-panel").querySelectorAll(of)].map((e) => {
      const b = e.getBoundingClientRect(); return [b.left, b.right]; })"""
    holes = page.evaluate(boxes, ".gap-hatch:not(.part)")
    lines = page.evaluate(boxes, ".curve-point")
    broken = [gap for gap in asked(page, f"{ROOT}/curve?points=600")["gaps"] if gap["kind"] == "nothing"]
    assert len(holes) >= len(broken) >= 1
    assert len(lines) == len(holes) + 1
    for left, right in holes:
        assert right > left
        for begin, end in lines:
            assert end <= left + 0.5 or begin >= right - 0.5, "a line is drawn over a gap"


def test_of_a_gap_of_part_of_the_devices_the_hatching_is_as_high_as_their_share(visit: Desk) -> None:
    def halved(route: Route) -> None:
        answer = route.fetch().json()
        hours = answer["times"]
        answer["gaps"] = [
            {"from": hours[a], "to": hours[a + 20], "kind": "gap", "device_seconds": 9.0, "reasons": {"lost": 9.0}, "share": share}
            for a, share in ((40, 0.5), (80, 0.00001))
        ]  # fmt: skip
        route.fulfill(content_type="application/json", body=json.dumps(answer))

    page = visit(ROOT, size=(1440, 1000), before=lambda p: p.route("**/curve?*", halved))
    plotted(page)
    panel = page.locator(".plot-panel").first
    parts = [panel.locator(".gap-hatch.part").nth(i).bounding_box() for i in range(2)]
    heights = [part["height"] for part in parts if part is not None]
    inner = page.evaluate("Math.max(140, Math.round(Math.min(640, Math.max(280, innerHeight * 0.34))))")
    assert abs(heights[0] - inner / 2) < 2
    assert 2 < heights[1] < 5
    assert panel.locator(".gap-hatch").count() == panel.locator(".gap-hatch.part").count() == 2
    page.get_by_text("Table of its gaps").click()
    expect(page.locator(".figures-table").nth(1).locator("tbody tr").first).to_contain_text("50")
    shot(page, "run-part-gap")


def test_a_width_that_changes_while_one_looks_is_no_inline_style(visit: Desk) -> None:
    page = visit("/runs")
    settled(page)
    width = page.evaluate(
        """async () => {
            const { h, render } = await import("/dom.js");
            const root = document.body.appendChild(document.createElement("div"));
            for (const width of ["10%", "20%"]) render(root, h("span", { style: { width } }));
            return root.firstChild.style.width;
        }"""
    )
    assert width == "20%"  # and the policy of the page was kept: `visit` looks


def test_the_curve_is_drawn_in_the_unit_of_the_law_that_is_looked_at(visit: Desk, axe: str) -> None:
    page = visit(ROOT, size=(1440, 1000))
    plotted(page)
    usual = asked(page, f"{ROOT}/curve?points=600")
    both = asked(page, f"{ROOT}/curve?points=600&unit=integer-or-floating-point")
    assert usual["cumulative"]["upper"][-1] != both["cumulative"]["upper"][-1]
    of = {unit: [x for x in usual["lines"] if x["unit"] == unit] for unit in (usual["unit"], both["unit"])}
    assert all(of.values())

    def drawn() -> str:
        return " ".join(page.locator(".law-name").all_text_contents())

    page.get_by_role("button", name="Log", exact=True).click()
    expect(page.locator(".law-name").first).to_contain_text(of["floating-point"][0]["regime"])
    assert not any(x["regime"] in drawn() for x in of["integer-or-floating-point"])
    expect(page.get_by_text("of another unit: choose “with integer operations”")).to_be_visible()
    page.get_by_role("button", name="with integer operations").click()
    expect(page.locator(".law-name").first).to_contain_text(of["integer-or-floating-point"][0]["regime"])
    assert not any(x["regime"] in drawn() for x in of["floating-point"])
    assert "unit=integer-or-floating-point" in page.url
    settled(page)
    assert at(page) == point(both, -1)
    expect(page.locator(".readings")).to_contain_text("Point, operations")
    frame = page.locator(".plot-frame")
    frame.focus()
    page.keyboard.press("Home")
    assert " operations, between " in frame.get_attribute("aria-valuetext")
    page.evaluate("scrollTo(0, 0)")  # what lies half under the header has half its size
    assert violations(page, axe) == []
    shot(page, "run-unit-both")
    # The address says it to a colleague; one that was mistyped is the usual unit.
    other = visit(f"{ROOT}?unit=furlongs")
    plotted(other)
    assert at(other) == point(usual, -1)
    other.get_by_role("button", name="FLOP", exact=True).click()
    expect(other).not_to_have_url(re.compile("unit="))


def test_keys_read_exact_figures_and_zoom(visit: Desk) -> None:
    page = visit(ROOT)
    plot = plotted(page)
    curve = asked(page, f"{ROOT}/curve?points=600")
    plot.focus()
    page.keyboard.press("Home")
    assert at(page) == point(curve, 0)
    assert plot.get_attribute("aria-valuetext").startswith(curve["times"][0][:16].replace("T", " "))
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert at(page) == point(curve, 2)
    assert plot.get_attribute("aria-valuenow") == "2"
    page.keyboard.press("End")
    assert at(page) == point(curve, -1)
    page.keyboard.press("+")
    page.wait_for_url("**from=*")
    near = shown(page)
    assert near is not None
    expect(plot).to_be_focused()
    page.keyboard.press("-")
    page.wait_for_function("!location.search.includes('from=')")
    page.keyboard.press("+")
    page.keyboard.press("+")
    page.keyboard.press("0")
    page.wait_for_function("!location.search.includes('from=')")
    expect(plot).to_be_focused()


def test_a_selection_zooms_back_undoes_it_and_the_address_shows_a_colleague_the_same(visit: Desk) -> None:
    page = visit(ROOT)
    plot = plotted(page)
    box = plot.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 0.2, box["y"] + 80)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + 90, steps=3)
    page.mouse.up()
    page.wait_for_url("**from=*")
    settled(page)
    page.get_by_role("button", name="Log", exact=True).click()
    page.wait_for_url("**scale=log**")
    begin, end = shown(page) or ("", "")
    curve = asked(page, f"{ROOT}/curve?points=600&from={begin}&to={end}")
    expect(page.locator(".plot-controls .shown")).to_contain_text(begin[:16].replace("T", " "))
    # The crosshair stays at the instant where the mouse left it: which of the points is nearest is the window's matter.
    page.wait_for_function(
        "(points) => points.includes(document.querySelector('.readings data').value)",
        arg=[
            p for p, time in zip(curve["cumulative"]["point"], curve["times"], strict=True) if time >= begin
        ],
    )
    there = curve["cumulative"]["point"].index(at(page)["point"])
    assert at(page) == point(curve, there)
    expect(page.locator(".readings")).to_contain_text(curve["times"][there][:16].replace("T", " "))
    colleague = visit(page.url.removeprefix(visit.site.base), role="viewer")
    plotted(colleague)
    assert (
        colleague.locator(".plot-controls .shown").inner_text()
        == page.locator(".plot-controls .shown").inner_text()
    )
    expect(colleague.get_by_role("button", name="Log", exact=True)).to_have_attribute("aria-pressed", "true")
    assert at(colleague) == at(page)
    page.go_back()
    expect(page.get_by_role("button", name="Linear", exact=True)).to_have_attribute("aria-pressed", "true")
    page.go_back()
    page.wait_for_function("!location.search.includes('from=')")
    expect(page.get_by_role("button", name="Reset")).to_have_attribute("aria-disabled", "true")


def test_a_part_that_lies_within_a_gap_is_drawn_as_one(visit: Desk) -> None:
    page = visit(ROOT)
    plotted(page)
    gap = max(
        asked(page, f"{ROOT}/curve?points=600")["gaps"], key=lambda g: (g["kind"] == "nothing", g["to"])
    )
    begin = datetime.fromisoformat(gap["from"])
    middle = begin + (datetime.fromisoformat(gap["to"]) - begin) / 4
    inside = f"from={begin + timedelta(minutes=20):%Y-%m-%dT%H:%M:00Z}&to={middle:%Y-%m-%dT%H:%M:00Z}"
    other = visit(f"{ROOT}?{inside}", ready=".plot-panel .gap-hatch:not(.part)")
    expect(other.locator(".readout")).to_contain_text("No record lies in this time")
    wide = other.locator(".plot").bounding_box()
    hatch = other.locator(".plot-panel").first.locator(".gap-hatch:not(.part)").bounding_box()
    assert wide is not None
    assert hatch is not None
    assert hatch["width"] > wide["width"] * 0.8
    other.get_by_role("link", name="Show all of the run").click()
    expect(other.get_by_role("button", name="Reset")).to_have_attribute("aria-disabled", "true")


def test_an_address_that_was_mistyped_shows_all_of_the_run(visit: Desk) -> None:
    page = visit(f"{ROOT}?from=yesterday&to=later&scale=square", expected=(400,))
    plotted(page)
    assert at(page) == point(asked(page, f"{ROOT}/curve?points=600"), -1)
    expect(page.get_by_role("button", name="Linear", exact=True)).to_have_attribute("aria-pressed", "true")


def test_it_follows_the_books_and_takes_neither_crosshair_nor_focus(visit: Desk, site: Site) -> None:
    page = visit("/runs/atlas-70b-chat")
    plot = plotted(page)
    plot.focus()
    page.keyboard.press("Home")
    figures = page.get_by_text("Table of these figures")
    figures.click()
    plot.focus()
    page.keyboard.press("ArrowRight")
    told = plot.get_attribute("aria-valuenow")
    site.cli(
        "runs",
        "tag",
        "atlas-70b-chat",
        "--purpose",
        "rl",
        "--from",
        "2000-01-01",
        "--why",
        "told while somebody looks",
    )
    expect(page.locator(".plot-frame .purpose-rl")).to_have_count(1)
    expect(page.locator(".said-list")).to_contain_text("told while somebody looks")
    expect(plot).to_be_focused()
    assert plot.get_attribute("aria-valuenow") == told
    assert "rl" in str(plot.get_attribute("aria-valuetext"))
    assert page.locator("details").filter(has=figures).get_attribute("open") is not None


def test_a_viewer_is_offered_nothing_that_is_not_theirs(visit: Desk) -> None:
    page = visit(ROOT, role="viewer")
    plotted(page)
    expect(page.locator("summary", has_text="Report")).to_be_visible()
    assert page.get_by_text("Attestation", exact=True).count() == 0
    assert page.get_by_role("link", name="CSV", exact=True).count() == 0
    expect(page.locator("main")).to_contain_text("Entries of the run registry are shown to auditors")
    refused = page.request.post(
        f"/api/v1{ROOT}/attestations", data=json.dumps({"profile": "auditor"}),
        headers={"Content-Type": "application/json", "Origin": visit.site.base},
    )  # fmt: skip
    assert refused.status == 403


def test_report_and_csv_are_files_and_an_attestation_is_made_for_a_recipient(visit: Desk, site: Site) -> None:
    page = visit(ROOT)
    plotted(page)
    page.locator("summary", has_text="Report").click()
    expect(page.locator(".offer[open] .command")).to_have_text(
        f"flopmeter runs report {RUN} --html -o report.html"
    )
    with page.expect_download() as report:
        page.get_by_role("link", name="As JSON").click()
    assert json.loads(report.value.path().read_text())["run"] == RUN
    with page.expect_download() as report:
        page.get_by_role("link", name="As HTML").click()
    assert report.value.suggested_filename == f"{RUN}-report.html"
    assert f"<title>Report on run {RUN}</title>" in report.value.path().read_text()
    with page.expect_download() as csv:
        page.get_by_role("link", name="CSV", exact=True).click()
    assert RUN in csv.value.path().read_text()
    page.locator("summary", has_text="Attestation").click()
    page.get_by_role("combobox", name="For").select_option("auditor")
    with page.expect_download() as file:
        page.get_by_role("button", name="Make it").click()
    expect(page.locator(".attest [role=status]")).to_contain_text("stands in the evidence log")
    checked = page.request.post(
        "/api/v1/verify", data=file.value.path().read_bytes(),
        headers={"Content-Type": "application/octet-stream", "Origin": visit.site.base},
    )  # fmt: skip
    assert checked.ok, checked.text()
    assert checked.json()["verified"] is True, checked.text()
    issued = asked(page, "/evidence")["attestations"]
    assert next(one["profile"] for one in issued if one["run"] == RUN) == "auditor"


def test_dark_narrow_and_wide(visit: Desk, axe: str) -> None:
    narrow = visit(ROOT, scheme="dark", size=(360, 800))
    plotted(narrow)
    assert narrow.evaluate("document.documentElement.scrollWidth") <= 360
    assert not violations(narrow, axe)
    shot(narrow, "run-360-dark", whole=True)
    wide = visit(f"{ROOT}?scale=log", scheme="dark", size=(3840, 2160))
    plotted(wide)
    box = wide.locator(".plot").bounding_box()
    assert box is not None
    assert box["width"] > 3000, "the plot does not use the room"


def test_a_name_with_a_slash_and_links_of_its_lineage(visit: Desk, site: Site) -> None:
    site.cli("runs", "external", "open-8b", "--flop", "7.2e23", "--source", "its model card")
    site.cli("runs", "link", SLASHED, "initialised-from", RUN, "--why", "probe")
    site.cli("runs", "link", SLASHED, "distils", "open-8b", "--why", "probe")
    page = visit(f"/runs/{quote(SLASHED, safe='')}")
    plotted(page)
    expect(page.get_by_role("heading", level=1)).to_have_text(SLASHED)
    lineage = page.locator("svg.lineage")
    expect(lineage.locator(".external")).to_contain_text("open-8b")
    lineage.locator("a", has_text=RUN).first.focus()
    page.keyboard.press("Enter")
    page.wait_for_url(f"**{ROOT}")
    expect(page.get_by_role("heading", level=1)).to_have_text(RUN)
    page.go_back()
    expect(page.get_by_role("heading", level=1)).to_have_text(SLASHED)


def test_a_run_that_is_not_there_says_what_to_try(visit: Desk, axe: str) -> None:
    name = "<b>nobody</b>/" + "z" * 300
    page = visit(f"/runs/{quote(name, safe='')}", expected=(404,))
    expect(page.get_by_role("heading", name="No run of that name")).to_be_visible()
    expect(page.locator("main")).to_contain_text("<b>nobody</b>/zzz")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert not violations(page, axe)
    page.get_by_role("link", name="Runs that are named like it").click()
    expect(page.get_by_role("heading", name="No run fits")).to_be_visible()


def test_a_run_that_was_declared_and_has_not_begun(visit: Desk, site: Site) -> None:
    site.cli("runs", "declare", "next-year", "--owner", "nlp", "--budget", "3e25", "--end", "2030-01-01")
    page = visit("/runs/next-year", expected=(404,))
    expect(page.get_by_role("heading", name="Nothing metered yet")).to_be_visible()
    expect(page.locator("main")).to_contain_text("FLOPMETER_RUN=next-year")
    expect(page.locator("main")).to_contain_text("3.00e25")


def test_mfu_and_hfu_where_they_are_declared_else_what_to_declare(visit: Desk) -> None:
    page = visit(f"/runs/{quote(SLASHED, safe='')}")
    plotted(page)
    card = page.locator(".card").filter(has=page.get_by_role("heading", name="MFU and HFU"))
    expect(card).to_contain_text("from flopmeter.agent.declare import declare")
    run = asked(page, ROOT)
    figure = {"lower": "1" * 22, "point": "2" * 22, "upper": "3" * 22}
    run["progress"] = {
        "declared_flop": "2" * 22, "tokens": "9" * 12, "ranks": None, "measured": figure, "hours": 12, "device_seconds": 7200.0,
        "agreement": "agrees", "margin_percent": 30, "dtype": "bf16", "peak_flop": "4" * 22, "mfu": 0.412,
        "hfu": {"lower": 0.3, "point": 0.433, "upper": 0.6}, "restarts_at_a_checkpoint": 2,
        "opening_left_out": False, "hours_without_formula": 0,
    }  # fmt: skip

    def declared(route: Route) -> None:
        route.fulfill(json=run)

    other = visit(ROOT, before=lambda page: page.route(f"**/api/v1{ROOT}", declared))
    card = other.locator(".card").filter(has=other.get_by_role("heading", name="MFU and HFU"))
    expect(card).to_contain_text("MFU 41.2 %, HFU 43.3 % of the dense bf16 peak")
    expect(card).to_contain_text("agrees within 30 %")
