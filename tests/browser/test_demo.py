"""The README's picture: the demo's largest run, before any other test has said something about it."""

from browser_rig import Desk, settled, shot
from playwright.sync_api import expect


def test_the_readmes_picture(visit: Desk) -> None:
    page = visit("/runs", size=(1280, 800))
    settled(page)
    page.get_by_role("link", name="atlas-70b", exact=True).first.click()
    expect(page.get_by_role("heading", name="atlas-70b")).to_be_visible()
    page.wait_for_selector("main svg")
    settled(page)
    page.mouse.move(0, 0)
    assert shot(page, "page").stat().st_size > 20_000
