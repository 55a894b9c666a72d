"""Every run: the figures are the API's, the filters stand in the address, narrow screens get cards."""

from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from browser_rig import Desk, Site, settled, shot, violations
from playwright.sync_api import Page, Route, expect

RUN = "atlas-70b"
COUNT = 1_000


def asked(page: Page, path: str) -> Any:
    """What the API says, asked by the same person."""
    answer = page.request.get(f"/api/v1{path}")
    assert answer.ok, answer.text()
    return answer.json()


def row(page: Page, run: str) -> Any:
    return page.locator(".runs-table tbody tr").filter(has=page.get_by_role("link", name=run, exact=True))


def test_every_run_with_the_figures_of_the_api(visit: Desk, axe: str) -> None:
    page = visit("/runs", size=(1440, 900))
    settled(page)
    for item in asked(page, "/runs")["items"]:
        cells = row(page, item["run"])
        shown = [
            cells.locator(".band-figure").first.locator("data").nth(i).get_attribute("value")
            for i in range(3)
        ]
        assert shown == [item["executed"][name] for name in ("point", "lower", "upper")], item["run"]
        expect(cells).to_contain_text(item["status"])
        expect(cells).to_contain_text(item["nearest"]["verdict"])
        expect(cells).to_contain_text(max(item["classes"], key=item["classes"].__getitem__))
        opened = sum(item["open_events"].values())
        if opened:
            expect(cells.locator("a[href^='/events']")).to_contain_text(str(opened))
    letters = page.locator(".law-legend li")
    assert letters.count() == len({line["threshold_flop"] for line in asked(page, "/runs")["lines"]})
    assert not violations(page, axe)
    shot(page, "runs")


def test_a_figure_is_exact_when_it_is_focused_and_escape_puts_it_away(visit: Desk) -> None:
    page = visit("/runs")
    exact = asked(page, "/runs")["items"][0]["executed"]["upper"]
    figure = page.locator(".runs-table .band-figure").first
    figure.focus()
    tip = page.get_by_role("tooltip")
    expect(tip).to_be_visible()
    assert exact in "".join(c for c in tip.inner_text() if c.isdigit())
    assert figure.get_attribute("aria-describedby") == tip.get_attribute("id")
    page.keyboard.press("Escape")
    expect(tip).to_be_hidden()


def test_search_status_and_order_stand_in_the_address_and_keep_the_focus(visit: Desk) -> None:
    page = visit("/runs")
    field = page.get_by_role("searchbox", name="Name")
    field.fill("CHAT")
    page.wait_for_url("**/runs?q=CHAT")
    expect(page.locator(".runs-table tbody tr")).to_have_count(1)
    expect(row(page, "atlas-70b-chat")).to_be_visible()
    expect(field).to_be_focused()
    page.get_by_label("Order").select_option("run")
    page.wait_for_url("**/runs?q=CHAT&sort=run")
    page.reload()
    expect(page.get_by_role("searchbox", name="Name")).to_have_value("CHAT")
    expect(page.locator("th[aria-sort=ascending]")).to_contain_text("Run")
    page.get_by_role("searchbox", name="Name").fill("no such run")
    expect(page.get_by_role("heading", name="No run fits")).to_be_visible()
    page.get_by_role("link", name="Show all runs").click()
    page.wait_for_url("**/runs?sort=run")
    rows = page.locator(".runs-table .run-name")
    expect(rows).to_have_count(asked(page, "/runs")["total"])
    names = rows.all_inner_texts()
    assert names == sorted(names)
    assert len(names) >= 3


def test_dark_and_narrow(visit: Desk, axe: str) -> None:
    page = visit("/runs", scheme="dark", size=(360, 800))
    settled(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    card = row(page, RUN)
    label = card.locator("td").first.evaluate("(td) => getComputedStyle(td, '::before').content")
    assert label == '"Executed"'
    assert not violations(page, axe)
    shot(page, "runs-360-dark", whole=True)


def altered(change: Callable[[dict[str, Any]], object]) -> Callable[[Page], None]:
    """The API's list as `change` leaves it: what these books do not have."""

    def before(page: Page) -> None:
        found = asked(page, "/runs")
        change(found)
        page.route("**/api/v1/runs?**", lambda route: route.fulfill(json=found))

    return before


def many(page: Page) -> None:
    """A thousand runs of one kind, a page at a time: what a large site has."""
    found = asked(page, "/runs")

    def answer(route: Route) -> None:
        begin = int(parse_qs(urlsplit(route.request.url).query).get("after", ["0"])[0])
        items = [{**found["items"][0], "run": f"team/{n:04d}"} for n in range(begin, begin + 100)]
        more = str(begin + 100) if begin + 100 < COUNT else None
        route.fulfill(json={**found, "items": items, "total": COUNT, "next": more})

    page.route("**/api/v1/runs?**", answer)


def test_a_thousand_runs_come_a_page_at_a_time(visit: Desk) -> None:
    page = visit("/runs?sort=run", before=many)
    expect(page.locator(".head")).to_contain_text("1,000 runs")
    expect(page.locator(".runs-table tbody tr")).to_have_count(100)
    page.get_by_role("link", name="Next 100").click()
    expect(page.get_by_role("link", name="team/0100", exact=True)).to_be_visible()
    expect(page.locator(".runs-table tbody tr")).to_have_count(100)
    page.go_back()
    expect(page.get_by_role("link", name="team/0000", exact=True)).to_be_visible()


@pytest.mark.parametrize(
    "name",
    ["<img src=x onerror=alert(1)>", "a\u202eb\u202dc", "x" * 10_000, "'; DROP TABLE runs; --"],
    ids=["script", "rtl", "long", "sql"],
)
def test_a_hostile_name_is_text_and_breaks_nothing(visit: Desk, name: str) -> None:
    page = visit("/runs", before=altered(lambda found: found["items"][0].update(run=name)))
    link = page.locator(".runs-table .run-name").first
    assert link.text_content() == name
    assert page.locator("main img").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    box = link.bounding_box()
    assert box is not None
    assert box["height"] < 60, "a long name pushes the others away"


def test_a_run_that_cannot_be_read_does_not_hide_the_others(visit: Desk) -> None:
    torn = {"run": "torn", "fault": "its hours contradict its total"}
    nothing = altered(lambda found: found["items"][0].update({**dict.fromkeys(found["items"][0]), **torn}))
    page = visit("/runs", before=nothing)
    expect(row(page, "torn")).to_contain_text("its hours contradict its total")
    expect(page.locator(".runs-table tbody tr .band-figure").first).to_be_visible()


@pytest.mark.parametrize(
    ("why", "status", "words"),
    [
        ("no-line", "running", "no line applies"),
        ("far", "running", "far from every line"),
        ("not-running", "stopped", "the run is stopped"),
        ("too-young", "running", "too young to tell"),
        ("not-yet", "running", "no rate yet"),
    ],
)
def test_without_a_forecast_it_says_why(visit: Desk, why: str, status: str, words: str) -> None:
    changed = {"run": "bare", "forecast": None, "no_forecast": why, "status": status}
    page = visit("/runs", before=altered(lambda found: found["items"][0].update(changed)))
    expect(row(page, "bare").locator("td[data-label=Forecast]")).to_contain_text(words)
    for item in asked(page, "/runs")["items"][1:]:
        expect(row(page, item["run"]).locator("td[data-label=Forecast]")).not_to_have_text("–")


def test_a_tenants_part_of_a_run_that_others_work_in_too(visit: Desk, axe: str) -> None:
    part = {
        "run": "everybodys-run", "jobs": 2, "flop": {"lower": "1000", "point": "2000", "upper": "3000"},
        "integer_ops": {"lower": "0", "point": "0", "upper": "0"}, "device_seconds": 7200.0,
        "first_seen": "2026-11-01T00:00:00.000Z", "last_seen": "2026-11-02T00:00:00.000Z",
    }  # fmt: skip
    shared = [part, part | {"run": None}]
    page = visit("/runs", before=altered(lambda found: found.update(shared=shared)))
    card = page.locator("section[data-key=shared]")
    expect(card.get_by_role("heading")).to_contain_text("that others work in too")
    assert card.locator("tbody tr").first.locator("data").first.get_attribute("value") == "2000"
    expect(card.locator("tbody tr").nth(1)).to_contain_text("a run that somebody put it into")
    assert not violations(page, axe)
    card.scroll_into_view_if_needed()
    shot(page, "runs-shared")
    # With no run of their own it stands there all the same.
    alone = visit("/runs", before=altered(lambda found: found.update(items=[], total=0, shared=shared)))
    expect(alone.locator("section[data-key=shared] tbody tr")).to_have_count(2)
    expect(alone.get_by_role("heading", name="No run yet")).to_have_count(0)


def test_without_any_run_it_says_what_to_do_next(visit: Desk, axe: str) -> None:
    page = visit("/runs", before=altered(lambda found: found.update(items=[], total=0)))
    expect(page.get_by_role("heading", name="No run yet")).to_be_visible()
    expect(page.locator("main")).to_contain_text("flopmeter agent doctor")
    assert not violations(page, axe)
    shot(page, "runs-empty")


def test_the_list_follows_the_books(visit: Desk, site: Site) -> None:
    page = visit("/runs?q=chat")
    settled(page)
    page.get_by_role("searchbox", name="Name").focus()
    before = row(page, "atlas-70b-chat").inner_text()
    site.cli(
        "runs",
        "link",
        "atlas-70b-chat",
        "continues",
        "slurm:demo/88121",
        "--why",
        "told while somebody looks",
    )
    page.wait_for_function(
        "(before) => document.querySelector('.runs-table tbody tr').innerText !== before", arg=before
    )
    expect(row(page, "atlas-70b-chat")).to_contain_text("countable")
    expect(page.get_by_role("searchbox", name="Name")).to_be_focused()
