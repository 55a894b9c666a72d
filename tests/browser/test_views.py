"""Every view as people see it: both colours, every width, read by a screen reader's rules; and with hostile names in it."""

import json
from typing import Any
from urllib.parse import quote

import pytest
from browser_rig import Desk, settled, shot, violations
from playwright.sync_api import Page, Route, expect

VIEWS = {
    "runs": "/runs",
    "run": "/runs/atlas-70b",
    "events": "/events",
    "event": "",  # the newest
    "deadline": "",  # the next
    "fleet": "/fleet",
    "node": "/fleet/node-03",
    "evidence": "/evidence",
}
#: Width, height, and the views that have something to lose there.
WIDTHS = {
    "narrow": (360, 780, tuple(VIEWS)),
    "tablet": (768, 1024, ("run", "events", "fleet", "evidence")),
    "wide": (3840, 2160, ("runs", "events", "fleet")),
}
#: Nothing of it may become an element, an attribute or another's text; and nothing of it may widen the page.
HOSTILE = {
    "markup": "<img src=x onerror=document.title='owned'>\"><script>document.title='owned'</script>{{constructor.constructor('document.title=1')()}}",
    "address": "javascript:document.title='owned'",
    "direction": "\u202egnp.exe \u2066safe\u2069/../../etc/passwd?x=1#y",
    "length": "x" * 10_000,
}


def address(page: Page, view: str) -> str:
    if view == "event":
        return "/events/" + page.request.get("/api/v1/events?type=threshold&limit=1").json()["items"][0]["id"]
    if view == "deadline":
        return "/deadlines/" + page.request.get("/api/v1/deadlines").json()["items"][0]["id"]
    return VIEWS[view]


def go(page: Page, view: str) -> None:
    follow(page, address(page, view))


def follow(page: Page, href: str) -> None:
    """As a link of the page does it."""
    page.evaluate("document.querySelector('main h1')?.remove()")
    page.evaluate(
        "href => { history.pushState(null, '', href); dispatchEvent(new PopStateEvent('popstate')); }", href
    )
    page.wait_for_selector("main h1")
    settled(page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nobody_is_shut_out(visit: Desk, axe: str, scheme: str) -> None:
    page = visit("/runs", scheme=scheme)
    found = []
    for view in VIEWS:
        go(page, view)
        found += [f"{view}, {scheme}: {v}" for v in violations(page, axe)]
        shot(page, f"{view}-{scheme}")
    assert not found, "\n".join(found)


def test_nobody_is_shut_out_before_they_are_in(visit: Desk, axe: str) -> None:
    page = visit("/runs", role=None, expected=(401,))
    assert violations(page, axe) == []


@pytest.mark.parametrize("width", WIDTHS)
def test_it_fits(visit: Desk, axe: str, width: str) -> None:
    across, down, views = WIDTHS[width]
    page = visit("/runs", size=(across, down), scheme="dark" if width == "tablet" else "light")
    wide = []
    for view in views:
        go(page, view)
        shot(page, f"{view}-{width}", whole=width == "narrow")
        over = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        if over > 0:
            wide.append(f"{view} is {over} px wider than {width}")
        if width == "narrow":
            wide += [f"{view}, {width}: {v}" for v in violations(page, axe)]
    assert not wide, "\n".join(wide)


def hostile(value: Any, name: str, key: str = "") -> Any:
    """The same answer, in which every name and every word of a person is `name`."""
    if isinstance(value, dict):
        return {k: hostile(v, name, k) for k, v in value.items()}
    if isinstance(value, list):
        return [hostile(v, name, key) for v in value]
    said = {"run", "node", "who", "why", "message", "subject", "recipient", "what", "cause", "title", "job", "user", "name",
            "note", "citation", "error", "fault", "cluster", "agent_version", "driver", "source", "detail", "because"}  # fmt: skip
    return name if isinstance(value, str) and key in said else value


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_names_are_shown_and_do_nothing(visit: Desk, kind: str) -> None:
    name = HOSTILE[kind]

    def poison(route: Route) -> None:
        answer = route.fetch()
        if "json" not in answer.headers.get("content-type", ""):
            route.fulfill(response=answer)
            return
        route.fulfill(
            status=answer.status,
            content_type="application/json",
            body=json.dumps(hostile(answer.json(), name)),
        )

    def begin(page: Page) -> None:
        page.route(lambda url: "/api/v1/" in url and "/stream" not in url and "/whoami" not in url, poison)

    page = visit("/runs", before=begin)
    places = [address(page, view) for view in VIEWS]
    for place in places:
        follow(page, place)
        assert "owned" not in page.title().replace(name, "").replace(name[:60], "")
        assert (
            page.evaluate(
                "document.querySelectorAll('main img, main script, main iframe, a[href^=\"javascript:\" i]').length"
            )
            == 0
        )
        over = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert over <= 0, f"{place} became {over} px wider"
        assert page.locator("main").evaluate(
            "(e, name) => e.textContent.includes(name.slice(0, 40))", name
        ), place


def test_an_address_of_markup_is_text(visit: Desk) -> None:
    name = "<b onclick=alert(1)>bold"
    page = visit(f"/runs/{quote(name, safe='')}", expected=(404,))
    expect(page.locator("main")).to_contain_text(name)
    assert page.locator("main b").count() == 0
