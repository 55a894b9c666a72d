"""A real collector over the demo's data, looked at by a real Chromium: what the tests of the page stand on."""

import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from npm_packages import installed
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, expect

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = str(Path(sys.executable).with_name("flopmeter"))
SHOTS = ROOT / "out/browser"
NO_CHROMIUM = "Chromium is not installed"
#: No sandbox: CI runs as root in a container. The others keep the browser from calling anybody by itself.
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--force-color-profile=srgb", "--font-render-hinting=none",
)  # fmt: skip
ROLES = {"viewer": "vera", "auditor": "aud", "operator": "olga", "admin": "adam"}
AXE = "axe-core@4.10.3"
WAIT_MS = 60_000
expect.set_options(timeout=WAIT_MS)  # else five seconds, whatever the page is told
START_S = 90.0
#: Chromium says this of every answer past 399, by itself; a test names those that it provokes.
_STATUS = re.compile(r"Failed to load resource: the server responded with a status of (\d+)")
_LOST = "net::ERR_"
_WATCH = """
window.broken = [];
document.addEventListener("securitypolicyviolation", (e) =>
  window.broken.push(`${e.violatedDirective} ${e.blockedURI} ${e.sourceFile}:${e.lineNumber}`));
"""


def chromium() -> str | None:
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def flopmeter(*arguments: str | Path, ok: tuple[int, ...] = (0,)) -> str:
    """Run the CLI as a process of its own, as a person would beside the collector."""
    done = subprocess.run(
        [PROGRAM, *map(str, arguments)], capture_output=True, text=True, timeout=180, check=False
    )
    assert done.returncode in ok, (
        f"flopmeter {arguments[:3]}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    )
    return done.stdout


@dataclass
class Site:
    """The collector's page, and what a person at its machine has: the store, and the CLI."""

    base: str
    store: Path
    tokens: dict[str, str]

    def cli(self, *arguments: str | Path, ok: tuple[int, ...] = (0,)) -> str:
        return flopmeter(*arguments, "--store", self.store, ok=ok)

    def json(self, *arguments: str | Path) -> Any:
        return json.loads(self.cli(*arguments, "--json"))


def make_token(store: Path, role: str, name: str, *more: str) -> str:
    arguments = ["collector", "token", "create", "--role", role, "--name", name, "--json", *more]
    return str(json.loads(flopmeter(*arguments, "--store", store))["text"])


@contextmanager
def serving(store: Path, tokens: dict[str, str], *more: str) -> Iterator[Site]:
    """`flopmeter collector serve`, on ports of the kernel's choice, until the block ends."""
    command = [PROGRAM, "collector", "serve", "--store", str(store)]
    process = subprocess.Popen(
        [*command, "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", *more],
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    said: list[str] = []
    found = threading.Event()

    def read() -> None:  # to the end, or the collector would block on a full pipe
        assert process.stderr is not None
        for line in process.stderr:
            said.append(line)
            if "page on http://" in line:
                found.set()
        found.set()

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        found.wait(START_S)
        bases = [m[1] for line in said if (m := re.search(r"page on (http://[^/\s]+)", line))]
        assert bases, "the collector did not start:\n" + "".join(said[-20:])
        yield Site(bases[0], store, tokens)
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(60)
        reader.join(60)
        if process.stderr is not None:
            process.stderr.close()
    assert not [line for line in said if "Traceback" in line], "".join(said[-60:])


@dataclass
class Watched:
    """A page, and what went wrong on it by itself."""

    page: Page
    base: str
    #: Statuses past 399 that this test provokes.
    expected: set[int] = field(default_factory=set)
    #: Whether the test takes the collector away.
    cut: bool = False
    wrong: list[str] = field(default_factory=list)

    def begin(self) -> None:
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda e: self.wrong.append(f"error: {e}"))
        self.page.on("request", self._request)
        self.page.add_init_script(_WATCH)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type not in ("error", "warning"):
            return
        status = _STATUS.match(message.text)
        if status and int(status[1]) in self.expected:
            return
        if self.cut and _LOST in message.text:
            return
        self.wrong.append(f"{message.type}: {message.text} ({message.location.get('url', '')})")

    def _request(self, request: Request) -> None:
        if not request.url.startswith((self.base + "/", "data:", "blob:" + self.base)):
            self.wrong.append(f"request to somebody else: {request.url[:200]}")

    def check(self) -> None:
        """Raise AssertionError for anything that went wrong by itself."""
        if not self.page.is_closed():
            self.wrong += [f"policy: {v}" for v in self.page.evaluate("window.broken ?? []")]
        assert not self.wrong, "\n".join(self.wrong)


@dataclass
class Desk:
    """Opens pages as somebody, and looks at each when the test ends."""

    browser: Browser
    site: Site
    contexts: list[BrowserContext] = field(default_factory=list)
    watched: dict[Page, Watched] = field(default_factory=dict)

    def __call__(
        self,
        path: str,
        *,
        role: str | None = "operator",
        scheme: Literal["light", "dark"] = "light",
        size: tuple[int, int] = (1280, 800),
        expected: tuple[int, ...] = (),
        cut: bool = False,
        ready: str | None = "main h1",
        before: Callable[[Page], object] | None = None,
        **context: Any,
    ) -> Page:
        """A page of its own session, signed in as `role` (None: as nobody), once `ready` is there."""
        width, height = size
        made = self.browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, base_url=self.site.base,
            reduced_motion="reduce", **context,
        )  # fmt: skip
        made.set_default_timeout(WAIT_MS)
        self.contexts.append(made)
        if role is not None:
            answer = made.request.post(
                "/api/v1/session",
                data=json.dumps({"token": self.site.tokens[role]}),
                headers={"Content-Type": "application/json", "Origin": self.site.base},
            )
            assert answer.ok, answer.text()
        page = made.new_page()
        watched = Watched(page, self.site.base, set(expected), cut)
        watched.begin()
        self.watched[page] = watched
        if before is not None:
            before(page)
        page.goto(path)
        if ready is not None:
            page.wait_for_selector(ready)
        return page

    def of(self, page: Page) -> Watched:
        return self.watched[page]

    def close(self) -> None:
        try:
            for watched in self.watched.values():
                watched.check()
        finally:
            for page in self.watched:
                page.unroute_all(behavior="ignoreErrors")
            for context in self.contexts:
                context.close()


def settled(page: Page) -> None:
    """Wait until the header has its figures and nothing is being asked: so that a picture is not of half a page."""
    page.wait_for_selector(".glance li")
    page.wait_for_function("!document.querySelector('main').hasAttribute('aria-busy')")
    page.evaluate("document.fonts.ready")


def shot(page: Page, name: str, *, whole: bool = False) -> Path:
    """A picture below out/browser, which CI keeps."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    path = SHOTS / f"{name}.png"
    page.screenshot(path=path, full_page=whole, animations="disabled", caret="hide")
    return path


def axe_source() -> str:
    """axe-core of npm."""
    return (installed(AXE.replace("@", "-"), AXE) / "node_modules/axe-core/axe.min.js").read_text()


def violations(page: Page, source: str, *, leave: str = "") -> list[str]:
    """What axe-core finds on the page as it stands: WCAG 2.2 A and AA, and its own best practices."""
    if not page.evaluate("typeof window.axe === 'object'"):
        page.evaluate(source)
    found = page.evaluate(
        """(leave) => axe.run(leave ? {exclude: [leave]} : document, {
             runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
             preload: false, resultTypes: ["violations"],
           }).then((r) => r.violations.map((v) => [v.id, v.help, v.nodes.map((n) => n.html.slice(0, 160) + " " + (n.failureSummary ?? ""))]))""",
        leave,
    )
    return [f"{name}: {help_}\n    " + "\n    ".join(nodes[:3]) for name, help_, nodes in found]
