"""The page's frame: signing in and out, addresses, keys, colours, and what it says when something is not there."""

import json
import re

from browser_rig import Desk, Site, make_token, serving, settled, shot
from playwright.sync_api import Page, expect

GONE = (401,)


def problem(status: int, detail: str, hint: str = "") -> dict[str, object]:
    said = {"type": "about:blank", "title": "x", "status": status, "detail": detail, "hint": hint}
    return {"status": status, "content_type": "application/problem+json", "body": json.dumps(said)}


def test_a_link_with_a_token_signs_in_and_leaves_no_trace_of_it(visit: Desk, site: Site) -> None:
    token = site.tokens["viewer"]
    asked: list[str] = []

    def listen(page: Page) -> None:
        page.on("request", lambda r: asked.append(r.url))

    page = visit(f"/events?severity=notice#token={token}", role=None, before=listen)
    settled(page)
    assert page.url == f"{site.base}/events?severity=notice"
    assert page.evaluate("document.cookie") == "", "scripts can read the session"
    assert page.evaluate("JSON.stringify(localStorage) + JSON.stringify(sessionStorage)") == "{}{}"
    secret = token.rpartition(".")[2]
    assert not [url for url in asked if secret in url]
    assert secret not in page.content()
    page.go_back()
    assert secret not in page.url


def test_nobody_is_asked_who_they_are_and_comes_to_where_they_wanted(visit: Desk, site: Site) -> None:
    page = visit("/fleet?q=node-0", role=None, expected=GONE)
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    field = page.get_by_label("API token")
    expect(field).to_be_focused()
    field.fill(f"FMA1.{'0' * 12}.{'0' * 64}")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("No such token")
    shot(page, "sign-in")
    field.fill(site.tokens["operator"])
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="Fleet", exact=True)).to_be_visible()
    assert page.url == f"{site.base}/fleet?q=node-0"
    expect(page.get_by_role("searchbox", name="Name")).to_have_value("node-0")


def test_signing_out_ends_the_session_and_shows_nothing_of_it(visit: Desk) -> None:
    page = visit("/runs", expected=GONE)
    settled(page)
    page.locator("summary", has_text="olga").click()
    expect(page.get_by_text("Role: operator")).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    assert page.locator(".glance").count() == 0
    assert "atlas" not in page.locator("body").inner_text()
    page.reload()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


def test_a_revoked_token_ends_at_the_sign_in_form_with_the_reason(visit: Desk, site: Site) -> None:
    token = make_token(site.store, "viewer", "soon-gone")
    page = visit(f"/events?state=all#token={token}", role=None, expected=GONE)
    settled(page)
    site.cli("collector", "token", "revoke", token.split(".")[1], "--why", "left")
    # The page finds out with its next question, which a person or the books may cause.
    page.wait_for_function(
        """() => { if (document.querySelector("#login-title")) return true;
             dispatchEvent(new PopStateEvent("popstate")); return false; }""",
        polling=300,
    )
    expect(page.get_by_text("Your session has ended")).to_be_visible()
    assert page.url == f"{site.base}/events?state=all"
    page.get_by_label("API token").fill(site.tokens["operator"])
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Events and deadlines")).to_be_visible()
    expect(page.get_by_label("State")).to_have_value("all")


def test_the_keyboard_reaches_everything(visit: Desk) -> None:
    page = visit("/runs")
    settled(page)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the figures")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    page.keyboard.press("Shift+Tab")
    for _ in range(40):
        if page.evaluate("document.activeElement.textContent") == "Fleet":
            break
        page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Fleet", exact=True)).to_be_visible()
    expect(page.locator("main")).to_be_focused()
    expect(page.get_by_role("link", name="Fleet", exact=True)).to_have_attribute("aria-current", "page")
    page.go_back()
    expect(page.get_by_role("heading", name=re.compile("^Runs"))).to_be_visible()


def test_what_has_the_focus_can_be_seen_to_have_it(visit: Desk) -> None:
    page = visit("/fleet")
    settled(page)
    for _ in range(30):
        page.keyboard.press("Tab")
        seen = page.evaluate(
            """() => { const e = document.activeElement, of = (x) => getComputedStyle(x);
              if (e === document.body) return true;
              return of(e).outlineStyle !== "none" && parseFloat(of(e).outlineWidth) >= 2 && e.matches(":focus-visible"); }"""
        )
        assert seen, page.evaluate("document.activeElement.outerHTML.slice(0, 200)")


def test_colours_follow_the_system_until_somebody_chooses(visit: Desk) -> None:
    def ground(page: Page) -> str:
        return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))

    page = visit("/runs", scheme="dark")
    assert ground(page) == "rgb(15, 20, 24)"
    page.get_by_role("button", name=re.compile("^Colours: like the system")).click()
    assert ground(page) == "rgb(255, 255, 255)"
    page.reload()
    page.wait_for_selector("main h1")
    assert ground(page) == "rgb(255, 255, 255)"
    page.get_by_role("button", name=re.compile("^Colours: light")).click()
    page.get_by_role("button", name=re.compile("^Colours: dark")).click()
    assert page.evaluate("localStorage.length") == 0


def test_it_says_when_live_updates_stop_and_when_they_come_back(visit: Desk) -> None:
    page = visit("/runs", cut=True, before=lambda page: page.route("**/api/v1/stream", lambda r: r.abort()))
    expect(page.locator("#notice")).to_contain_text("Live updates stopped")
    shot(page, "not-live")
    page.unroute("**/api/v1/stream")
    expect(page.locator(".live")).to_contain_text("live")
    expect(page.locator("#notice")).to_be_empty()


def test_while_the_books_are_being_read_it_says_so_and_asks_again(visit: Desk) -> None:
    def busy(page: Page) -> None:
        once = problem(503, "the process that answers ended; another is started", "ask again in 1 s")
        page.route("**/api/v1/events?*", lambda r: r.fulfill(**once), times=1)

    page = visit("/events", before=busy, expected=(503,))
    expect(page.get_by_role("heading", name="The books are being read")).to_be_visible()
    shot(page, "books-being-read")
    expect(page.get_by_role("heading", name="Events and deadlines")).to_be_visible()


def test_without_a_collector_it_says_so_and_goes_on_when_there_is_one(visit: Desk) -> None:
    page = visit("/fleet")
    settled(page)
    visit.of(page).cut = True
    page.route("**/api/v1/**", lambda r: r.abort())
    page.get_by_role("link", name="Events").first.click()
    expect(page.get_by_role("heading", name="The collector does not answer")).to_be_visible()
    expect(page.get_by_text("/readyz")).to_be_visible()
    shot(page, "no-collector")
    page.unroute("**/api/v1/**")
    # The page may have gone on by itself meanwhile: the button is pressed if it is there still.
    page.evaluate(
        """[...document.querySelectorAll("main button")].find((b) => b.textContent === "Try again")?.click()"""
    )
    expect(page.get_by_role("heading", name="Events and deadlines")).to_be_visible()


def test_what_is_not_there_is_said_with_a_way_on(visit: Desk) -> None:
    page = visit("/events/ffffffffffffffff", expected=(404,))
    expect(page.get_by_role("heading", name="There is no such thing here")).to_be_visible()
    page.get_by_role("link", name="All runs").click()
    expect(page.get_by_role("heading", name=re.compile("^Runs"))).to_be_visible()


def test_a_role_that_may_not_see_it_is_told_which_may(visit: Desk) -> None:
    page = visit("/evidence", role="viewer", expected=(403,))
    fault = page.get_by_role("alert")
    expect(fault).to_contain_text("Your token may not see this")
    expect(fault).to_contain_text("auditor")
    expect(fault).to_contain_text("signed in as vera, with the role viewer")
    shot(page, "not-allowed")
    assert "root" not in page.locator("main").inner_text().lower()


def test_a_tenant_sees_their_runs_and_nothing_of_the_site(visit: Desk, site: Site) -> None:
    tenant = "owner:somebody"  # of whom the demo has no run
    token = make_token(site.store, "viewer", "tina", "--tenant", tenant)
    page = visit(f"/runs#token={token}", role=None, expected=(403,))
    settled(page)
    told = page.locator(".glance").inner_text()
    assert "node" not in told
    assert "GPU" not in told
    page.get_by_role("navigation").get_by_role("link", name="Fleet").click()
    expect(page.get_by_role("alert")).to_contain_text("Your token may not see this")
    expect(page.get_by_role("alert")).to_contain_text("tenant")
    assert "node-0" not in page.locator("body").inner_text()


def test_views_keep_their_place_in_the_history(visit: Desk, site: Site) -> None:
    page = visit("/events")
    settled(page)
    page.get_by_role("link", name="threshold.approaching").first.click()
    expect(page.get_by_role("heading", name="threshold.approaching")).to_be_visible()
    whole = page.url
    page.go_back()
    expect(page.get_by_role("heading", name="Events and deadlines")).to_be_visible()
    page.goto(whole)
    expect(page.get_by_role("heading", name="threshold.approaching")).to_be_visible()
    assert whole.startswith(f"{site.base}/events/")


def test_empty_books_say_what_to_do_next(visit: Desk, tmp_path) -> None:
    store = tmp_path / "store"
    with serving(store, {}) as site:
        site.tokens["operator"] = make_token(store, "operator", "olga")
        fresh = Desk(visit.browser, site)
        try:
            page = fresh("/fleet")
            expect(page.get_by_text("No agent has reported yet")).to_be_visible()
            expect(page.get_by_text("flopmeter agent run --collector")).to_be_visible()
            expect(page.locator(".glance")).to_contain_text("no agents yet")
            shot(page, "empty-fleet")
            page.goto("/events")
            expect(page.get_by_text("Nothing is due.")).to_be_visible()
            expect(page.get_by_text("No open event.")).to_be_visible()
            shot(page, "empty-events")
            page.goto("/evidence")
            expect(page.get_by_text("No attestation was issued yet")).to_be_visible()
            shot(page, "empty-evidence")
            page.goto("/runs")
            expect(page.locator("main .empty")).to_be_visible()
            shot(page, "empty-runs")
        finally:
            fresh.close()
