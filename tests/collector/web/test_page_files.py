"""The page's files by their text: no way from data to markup, nothing from elsewhere, nothing inline, nothing missing."""

import re
from pathlib import Path

import pytest

from flopmeter.collector.web.files import KINDS

PAGES = Path(__file__).resolve().parents[3] / "collector/flopmeter/collector/web/pages"
FILES = sorted(p for p in PAGES.iterdir() if p.is_file())
SCRIPTS = [p for p in FILES if p.suffix == ".js"]
#: What turns text into elements or code.
PARSERS = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|createContextualFragment|srcdoc|setHTML"
    r"|\beval\(|new Function|setTimeout\(\s*[\"'`]|javascript:"
)
#: The name of SVG, which nobody fetches.
NAMES = {"http://www.w3.org/2000/svg"}
ADDRESS = re.compile(r"\b(?:https?|wss?)://[A-Za-z0-9][^\s\"'`)]*")
LINES = 500


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_a_file_is_served_and_names_nobody_elsewhere(path: Path) -> None:
    assert path.suffix in KINDS, "the HTTP port would not serve it"
    text = path.read_text("utf-8")
    assert set(ADDRESS.findall(text)) <= NAMES
    assert len(text.splitlines()) < LINES


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda p: p.name)
def test_a_script_has_no_way_from_text_to_markup(path: Path) -> None:
    assert not PARSERS.findall(path.read_text("utf-8"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda p: p.name)
def test_what_a_script_imports_is_there(path: Path) -> None:
    text = path.read_text("utf-8")
    for name, wanted in re.findall(r"import\s+(\{[^}]*\}|\* as \w+)\s+from\s+\"\./([^\"]+)\"", text):
        assert (PAGES / wanted).is_file(), wanted
        if not name.startswith("{"):
            continue
        exported = (PAGES / wanted).read_text("utf-8")
        for one in (n.split(" as ")[0].strip() for n in name.strip("{} \n").split(",")):
            assert not one or re.search(
                rf"export (?:async )?(?:function\*?|const|class|let) {one}\b", exported
            ), f"{wanted} exports no {one}"
    for wanted in re.findall(
        r"import\(\"\./([^\"]+)\"\)|\?\s*\"\./([^\"]+\.js)\"|:\s*\"\./([^\"]+\.js)\"", text
    ):
        assert all((PAGES / w).is_file() for w in wanted if w), wanted


def test_the_index_has_nothing_inline_and_names_what_is_there() -> None:
    text = (PAGES / "index.html").read_text("utf-8")
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=", text)
    assert not re.search(r"<script(?![^>]*\ssrc=)", text)
    named = re.findall(r"(?:src|href)=\"/([^\"]+)\"", text)
    assert len(named) >= 4
    assert all((PAGES / name).is_file() for name in named), named


def test_there_are_such_files() -> None:
    assert {"app.js", "runs.js", "run.js", "events.js", "fleet.js", "evidence.js"} <= {
        p.name for p in SCRIPTS
    }
