"""The demo's largest run before any other test has said something about it: the README's picture, and no part is empty."""

import re

from browser_rig import Desk, settled, shot
from playwright.sync_api import Page, expect

RUN = "/runs/atlas-70b"


def opened(visit: Desk, path: str, **how: object) -> Page:
    page = visit(path, **how)  # type: ignore[arg-type]
    page.wait_for_selector(".plot-frame .curve-point")
    settled(page)
    page.mouse.move(0, 0)
    return page


def cut(page: Page) -> list[list[object]]:
    """Tables of which a part stands outside: their class, their width, the room that they have."""
    found: list[list[object]] = page.evaluate(
        """[...document.querySelectorAll(".scroll")].filter((e) => e.clientWidth && e.scrollWidth > e.clientWidth)
             .map((e) => [e.querySelector("table")?.className, e.scrollWidth, e.clientWidth])"""
    )
    return found


def test_the_readmes_picture(visit: Desk) -> None:
    page = opened(visit, RUN, size=(1280, 1150))
    expect(page.get_by_role("heading", name="atlas-70b")).to_be_visible()
    assert shot(page, "page").stat().st_size > 20_000
    assert cut(page) == []


def test_the_first_view_stands_whole_and_its_gpus_are_those_of_the_fleet(visit: Desk) -> None:
    page = visit("/runs", size=(1280, 800))
    page.wait_for_selector(".runs-table tbody .spark")
    settled(page)
    assert cut(page) == []
    planned = page.locator("section", has=page.get_by_role("heading", name="Planned"))
    expect(planned.locator("tbody tr")).to_contain_text(["atlas-400b"])
    expect(planned).to_contain_text("1.60e25")
    said = re.fullmatch(
        r"\D*(\d+ of \d+) GPUs metered", page.locator('.glance [data-key="gpus"]').inner_text()
    )
    assert said, page.locator('.glance [data-key="gpus"]').inner_text()
    page.get_by_role("link", name="Fleet", exact=True).click()
    expect(page.get_by_label("Summary").locator("div", has_text=re.compile("^GPUs metered"))).to_contain_text(
        said[1]
    )


def test_every_part_of_the_run_page_has_something_to_show(visit: Desk) -> None:
    page = opened(visit, RUN, size=(1440, 1000))
    for purpose in ("pretraining", "rolled-back", "evaluation", "finetuning"):
        assert page.locator(f".plot-frame .purpose-{purpose}").count() >= 1, purpose
    assert page.locator(".gap-hatch").count() >= 1
    assert page.locator("svg.lineage a").count() >= 1
    for name, rows in (
        ("By evidence class", 2), ("By device model", 2), ("By pipe", 3),
    ):  # fmt: skip
        card = page.locator(".card").filter(has=page.get_by_role("heading", name=name, exact=True))
        assert card.locator("tbody tr").count() >= rows, name
    mfu = page.locator(".card").filter(has=page.get_by_role("heading", name="MFU and HFU"))
    expect(mfu).to_contain_text(re.compile(r"MFU 6\d\.\d %, HFU 8\d\.\d % of the dense bf16 peak"))
    main = page.locator("main")
    for job in ("88001", "88202", "88213", "88377"):
        expect(main).to_contain_text(job)
    expect(main).to_contain_text("thrown away: the job crashed")
    expect(page.locator(".run-facts")).to_contain_text("Its budget, by forecast")
    guesses = page.locator(".card", has=page.get_by_role("heading", name="What it was for")).locator("tbody")
    expect(guesses).to_contain_text("cannot be told")
    expect(guesses).not_to_contain_text("–")
    shot(page, "demo-run", whole=True)


def test_its_other_runs_and_what_is_due(visit: Desk) -> None:
    page = opened(visit, "/runs/scribe-1b", size=(1440, 1000))
    expect(page.locator("svg.lineage .external")).to_contain_text("open-1b")
    assert page.locator("svg.lineage a").count() >= 2
    due = visit("/events", size=(1440, 1000))
    settled(due)
    expect(due.locator("main")).to_contain_text("atlas-400b")
    expect(due.locator("main")).to_contain_text("Notify the Commission")
    shot(due, "demo-events", whole=True)
    due.get_by_role("link", name="Evidence", exact=True).click()
    expect(due.locator("main")).to_contain_text(re.compile(r"leaves.*batch [\d,]+, "))
