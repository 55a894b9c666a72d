"""The report as an HTML file, opened from the disk as somebody does who was sent it."""

from pathlib import Path

import pytest
from browser_rig import flopmeter, shot, violations
from playwright.sync_api import Browser


@pytest.fixture(scope="module")
def report(demo_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report") / "atlas-70b.html"
    flopmeter("runs", "report", "atlas-70b", "--store", demo_store, "-o", out)
    return out


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("report", {"viewport": {"width": 1000, "height": 1200}}),
        ("report-dark", {"viewport": {"width": 1000, "height": 1200}, "color_scheme": "dark"}),
        ("report-narrow", {"viewport": {"width": 360, "height": 800}}),
    ],
)
def test_it_loads_nothing_errs_nowhere_and_is_accessible(
    browser: Browser, report: Path, axe: str, name: str, options: dict
) -> None:
    context = browser.new_context(**options)
    try:
        page = context.new_page()
        said: list[str] = []
        asked: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(report.as_uri())
        assert page.locator("h1").inner_text() == "Run atlas-70b"
        assert page.locator("svg[role=img]").count() == 3
        for plot in page.locator("svg[role=img]").all():
            box = plot.bounding_box()
            assert box is not None
            assert box["height"] > 60
        assert page.evaluate(
            "document.documentElement.scrollWidth <= innerWidth"
        )  # wide tables scroll by themselves
        shot(page, name)
        assert asked == [report.as_uri()]
        assert said == []
        assert not violations(page, axe)
    finally:
        context.close()


@pytest.mark.parametrize("paper", ["A4", "Letter"])
def test_it_prints(browser: Browser, report: Path, paper: str) -> None:
    page = browser.new_page(color_scheme="dark")
    try:
        page.goto(report.as_uri())
        pdf = page.pdf(format=paper)
        assert pdf.startswith(b"%PDF-")
        assert 2 <= pdf.count(b"/Type /Page\n") <= 12
        page.emulate_media(media="print")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    finally:
        page.close()
