"""One browser and one collector over the demo's data for every test of the page (tests/browser_rig.py)."""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from browser_rig import (
    FLAGS,
    NO_CHROMIUM,
    ROLES,
    Desk,
    Site,
    axe_source,
    chromium,
    flopmeter,
    make_token,
    serving,
)
from playwright.sync_api import Browser, sync_playwright

#: Enough for every kind of event, fault and run that the demo has, in a quarter of the time.
NODES = "6"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """None where there is no browser."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.timeout(180))
            item.add_marker(pytest.mark.skipif(chromium() is None, reason=NO_CHROMIUM))


@pytest.fixture(scope="session")
def demo_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's books, with two clocks that a person has started, and a node whose own is off."""
    store = tmp_path_factory.mktemp("demo") / "store"
    flopmeter("demo", "--once", "--nodes", NODES, "--dir", store)
    now = datetime.now(UTC)
    for run, days in (
        ("atlas-70b", 20),
        ("atlas-70b-chat", 1),
    ):  # of the 15 that the rule gives: one is overdue
        flopmeter(
            "deadlines", "open", "us-ca-sb53", "incident", "--at", f"{now - timedelta(days):%Y-%m-%dT%H:%MZ}",
            "--run", run, "--why", f"weights of {run} were copied: ticket 12", "--who", "olga", "--store", store,
        )  # fmt: skip
    with closing(sqlite3.connect(store / "books.sqlite")) as db, db:
        lower, upper, at = (int(x * 1e9) for x in (-41.204, -41.2, now.timestamp()))
        sql = "INSERT OR REPLACE INTO clocks SELECT agent_no, ?, ?, ? FROM agents WHERE node = 'node-02'"
        db.execute(sql, (lower, upper, at))
        db.execute("DELETE FROM clocks WHERE agent_no = (SELECT agent_no FROM agents WHERE node = 'node-04')")
    return store


@pytest.fixture(scope="session")
def site(demo_store: Path) -> Iterator[Site]:
    tokens = {role: make_token(demo_store, role, name) for role, name in ROLES.items()}
    with serving(demo_store, tokens) as site:
        yield site
    shutil.rmtree(demo_store / "agents", ignore_errors=True)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Of one file of tests: while playwright is there its event loop runs, and no other test here could have one."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Browser, site: Site) -> Iterator[Desk]:
    """`visit("/runs", role="viewer")`: a page. The test fails for errors, broken policy and foreign requests on it."""
    desk = Desk(browser, site)
    yield desk
    desk.close()


@pytest.fixture(scope="session")
def axe() -> str:
    return axe_source()
