"""Events and deadlines: found, read, answered with a reason; and a viewer, who is told why they cannot."""

import json

from browser_rig import Desk, Site, settled, shot
from playwright.sync_api import Page, expect

FIRST = "threshold.approaching"


def all_events(site: Site, kind: str) -> list[dict[str, object]]:
    return [e for e in site.json("events", "list", "--limit", "0")["events"] if e["type"] == kind]


def an_event(site: Site, kind: str) -> dict[str, object]:
    return all_events(site, kind)[0]


def test_what_is_due_stands_first_the_overdue_before_the_rest(visit: Desk, site: Site) -> None:
    page = visit("/events")
    settled(page)
    groups = page.locator(".due-group h3").all_inner_texts()
    assert groups == ["Overdue · 1", "Within 30 days · 2"]
    overdue = page.locator(".due-group.overdue")
    expect(overdue).to_contain_text("Cal OES")
    expect(overdue).to_contain_text("us-ca-sb53, incident")
    expect(overdue).to_contain_text("overdue by 5 d")
    expect(page.locator(".glance")).to_contain_text("1 deadline overdue")
    [first, *_] = site.json("deadlines", "list")["deadlines"]
    expect(overdue.locator("tbody tr").first).to_contain_text(first["run"])


def test_filters_are_the_address_and_the_address_is_the_filters(visit: Desk, site: Site) -> None:
    page = visit("/events")
    settled(page)
    page.get_by_label("At least").select_option("warning")
    page.wait_for_url("**/events?severity=warning")
    expect(page.locator(".event-line", has_text="notice")).to_have_count(0)
    assert page.locator(".event-line", has_text="warning").count() >= 1
    page.get_by_label("Type").select_option("threshold")
    page.wait_for_url("**type=threshold*")
    expect(page.locator(".event-type", has_text="agent.silent")).to_have_count(0)
    sent_on = page.url
    shown = page.locator(".event").count()
    other = visit(sent_on.removeprefix(site.base), role="viewer")
    settled(other)
    expect(other.locator(".event")).to_have_count(shown)
    expect(other.get_by_label("At least")).to_have_value("warning")
    page.get_by_role("link", name="Clear filters").click()
    expect(page.get_by_label("At least")).to_have_value("")
    expect(page.get_by_label("Type")).to_have_value("")


def test_the_same_thing_day_after_day_is_one_line(visit: Desk, site: Site) -> None:
    raised = all_events(site, "usage.unattributed")
    assert len(raised) > 2
    page = visit("/events?type=usage.unattributed&state=all")
    settled(page)
    expect(page.locator(".event")).to_have_count(1)
    summary = page.locator(".event summary")
    expect(summary).to_contain_text(f"{len(raised) - 1} earlier ones")
    summary.click()
    expect(page.locator(".event details li")).to_have_count(len(raised) - 1)


def test_an_operator_acknowledges_with_a_reason_and_takes_it_back(visit: Desk, site: Site) -> None:
    event = an_event(site, FIRST)
    page = visit(f"/events/{event['id']}")
    settled(page)
    expect(page.get_by_role("heading", name="The rule")).to_be_visible()
    expect(page).to_have_title(f"{event['type']} · Events and deadlines · flopmeter")
    page.get_by_role("button", name="Acknowledge").click()
    expect(page.locator("#why-said")).to_contain_text("Say why")
    expect(page.get_by_label("Why", exact=True)).to_be_focused()

    asked: list[str] = []
    page.on("request", lambda r: asked.append(r.method) if r.url.endswith("/answers") else None)
    page.route("**/answers", lambda r: slow(page, r))
    page.get_by_label("Why", exact=True).fill("counsel reads it")
    page.get_by_role("button", name="Acknowledge").click()
    expect(page.locator("#why-said")).to_contain_text("Writing it down")
    assert "acknowledged by" not in page.locator(".history").inner_text(), "shown before it was written down"
    expect(page.locator(".history")).to_contain_text("counsel reads it")
    expect(page.locator(".history")).to_contain_text("token:olga")
    page.unroute("**/answers")
    shot(page, "event-acknowledged")
    answers = site.json("events", "show", str(event["id"]))["answers"]
    assert [(a["state"], a["who"], a["why"]) for a in answers] == [
        ("acknowledged", "token:olga", "counsel reads it")
    ]
    assert asked == ["POST"]

    page.get_by_label("Why", exact=True).fill("it was another run's")
    page.get_by_role("button", name="Reopen").click()
    expect(page.get_by_role("button", name="Acknowledge")).to_be_visible()
    assert site.json("events", "show", str(event["id"]))["event"]["state"] == "open"


def slow(page: Page, route) -> None:
    page.wait_for_timeout(400)
    route.continue_()


def test_what_the_collector_refuses_is_said_and_not_shown_as_done(visit: Desk, site: Site) -> None:
    event = an_event(site, "agent.silent")
    page = visit(f"/events/{event['id']}", expected=(409, 503))
    settled(page)
    said = {"title": "Conflict", "status": 409, "detail": "expected another state", "hint": "read it again"}
    page.route(
        "**/answers",
        lambda r: r.fulfill(status=409, content_type="application/problem+json", body=json.dumps(said)),
    )
    page.get_by_label("Why", exact=True).fill("node is being mended")
    page.get_by_role("button", name="Resolve").click()
    expect(page.locator("#why-said")).to_contain_text("It was not written down. expected another state")
    expect(page.get_by_label("Why", exact=True)).to_have_value("node is being mended")
    assert site.json("events", "show", str(event["id"]))["answers"] == []


def test_a_deadline_is_done_with_its_outcome(visit: Desk, site: Site) -> None:
    page = visit("/events")
    settled(page)
    page.locator(".due-group.overdue tbody a").first.click()
    expect(page.get_by_role("heading", name="Report a critical safety incident")).to_be_visible()
    identity = page.url.rpartition("/")[2]
    due = str(site.json("deadlines", "show", identity)["deadline"]["due"])
    expect(page.get_by_text(due[:16].replace("T", " ")).first).to_be_visible()
    shot(page, "deadline")
    page.get_by_label("Why", exact=True).fill("filed, receipt 7")
    page.get_by_role("button", name="Done").click()
    expect(page.locator(".history")).to_contain_text("resolved: done")
    kept = site.json("deadlines", "show", identity)
    assert (kept["deadline"]["state"], kept["deadline"]["outcome"]) == ("resolved", "done")
    page.get_by_label("Why", exact=True).fill("the receipt was another's")
    page.get_by_role("button", name="Reopen").click()
    expect(page.get_by_role("button", name="Does not apply")).to_be_visible()


def test_a_viewer_is_told_why_there_is_no_button(visit: Desk, site: Site) -> None:
    event = an_event(site, FIRST)
    page = visit(f"/events/{event['id']}", role="viewer")
    settled(page)
    expect(
        page.get_by_text("You read as viewer: answering takes the role operator or admin.")
    ).to_be_visible()
    expect(page.get_by_text(f"flopmeter events ack {str(event['id'])[:12]}")).to_be_visible()
    assert page.get_by_role("button", name="Acknowledge").count() == 0


def test_what_somebody_says_elsewhere_is_seen_at_once_and_disturbs_nobody(visit: Desk, site: Site) -> None:
    three = [str(e["id"]) for e in all_events(site, "usage.unattributed")[:3]]
    for event in three:  # the demo's people have resolved them
        site.cli("events", "reopen", event, "--why", "it is there again", "--who", "tess")
    page = visit("/events?type=usage.unattributed")
    settled(page)
    field = page.get_by_label("Run", exact=True)
    field.fill("half-typ")
    field.evaluate("e => e.setSelectionRange(2, 4)")
    page.evaluate("scrollTo(0, 120)")
    top = page.evaluate("scrollY")
    page.locator(".event summary").evaluate("e => { e.parentElement.open = true }")
    before = page.locator(".event details li").count()
    assert before == 2
    site.cli("events", "ack", three[0], "--why", "seen in the terminal", "--who", "tess")
    expect(page.locator(".event details li")).to_have_count(before - 1)  # it is not open any more
    expect(field).to_be_focused()
    expect(field).to_have_value("half-typ")
    assert page.evaluate("[document.activeElement.selectionStart, document.activeElement.selectionEnd]") == [
        2,
        4,
    ]
    assert page.evaluate("scrollY") == top
    assert page.evaluate("document.querySelector('.event details').open")
    for event in three:
        site.cli("events", "resolve", event, "--why", "as the other tests find it", "--who", "tess")
