"""Every command line in the documentation exists: command, options, make targets, files that are linked."""

import re
import shlex
from pathlib import Path

import click
import pytest

from flopmeter.cli.main import flopmeter

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
#: Options that any group or command takes.
EVERYWHERE = {"--help", "-h", "--version"}


def command_lines(text: str) -> list[str]:
    """`flopmeter …` in code blocks (whole lines) and in back-ticks."""
    lines: list[str] = []
    for block in re.findall(r"^```[a-z]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            bare = line.strip().removeprefix("$ ").split("  #")[0]
            lines += re.findall(r"^(?:sudo (?:-u \S+ )?)?(flopmeter .*)", bare)
    without = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    lines += re.findall(r"`(flopmeter [^`\n]*)`", without)
    return [re.sub(r"\s*[;|>&].*", "", line) for line in lines]


def check(line: str) -> None:
    """Walk the command tree along `line`; fail on a word or an option that is not there."""
    words = shlex.split(line.replace("…", "").replace("[", "").replace("]", ""))[1:]
    command: click.Command = flopmeter
    context = click.Context(command)
    while words and isinstance(command, click.Group) and not words[0].startswith("-"):
        names = words[0].split("|")
        for name in names:
            assert command.get_command(context, name), f"{line!r}: no command {name!r}"
        found = command.get_command(context, names[0])
        assert found is not None
        command, words = found, words[1:]
    known = {o for p in command.params for o in (*p.opts, *p.secondary_opts)} | EVERYWHERE
    for word in words:
        if word.startswith("-") and word != "-":
            assert word.split("=")[0] in known, f"{line!r}: no option {word!r}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_commands_exist(page: Path) -> None:
    drawn = r"<!-- demo output -->.*?<!-- /demo output -->"  # what the demo draws is no command
    for line in command_lines(re.sub(drawn, "", page.read_text(), flags=re.DOTALL)):
        check(line)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_make_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    used = set(re.findall(r"(?:^|`)make ([a-z-]+)", page.read_text(), re.MULTILINE))
    assert used <= targets


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_paths_in_back_ticks_exist(page: Path) -> None:
    """`deploy/…`, `tests/…` and the like name files that are there."""
    for path in re.findall(
        r"`((?:deploy|tests|docs|requirements|agent|collector|protos)/[\w./-]*\w)`", page.read_text()
    ):
        assert (ROOT / path).exists(), f"{page.name}: {path}"


def test_readme_begins_with_what_it_is_and_how_to_see_it() -> None:
    """First screen: one line of what it is, a picture of it, the apt line and the two commands."""
    screen = "\n".join((ROOT / "README.md").read_text().splitlines()[:60])
    for part in ("odometer", "docs/images/page.png", "apt-get install -y ", "make demo", "make test"):
        assert part in screen


def test_makefile_names_the_same_packages_as_the_readme() -> None:
    line = re.compile(r"apt-get install -y ([a-z0-9 -]+)")
    readme, make = ((ROOT / name).read_text() for name in ("README.md", "Makefile"))
    assert line.search(readme)[1] == line.search(make)[1]  # type: ignore[index]


def test_a_wrong_line_is_caught() -> None:
    for line in ("flopmeter no-such", "flopmeter demo --no-such", "flopmeter runs nonsense"):
        with pytest.raises(AssertionError):
            check(line)


def test_every_page_is_reached_from_the_index() -> None:
    index = (ROOT / "docs/README.md").read_text()
    for page in (ROOT / "docs").rglob("*.md"):
        relative = str(page.relative_to(ROOT / "docs"))
        if relative != "README.md":
            assert f"({relative})" in index, f"docs/README.md does not name {relative}"
