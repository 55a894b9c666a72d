"""docs/requirements.md: all 28 requirements of reference/regulations.md section 13, each with tests that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/requirements.md").read_text()
REQUIREMENTS = {
    int(n): text for n, text in re.findall(r"^## (\d+)\. (.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
}


def defined_in(path: Path) -> set[str]:
    return set(re.findall(r"^(?:async )?def (test_\w+)\(", path.read_text(), re.MULTILINE))


def named(text: str) -> list[tuple[str, str]]:
    """(file, test) of each test that a requirement names."""
    found = []
    for file, names in re.findall(r"^- `(tests/[\w/]+\.py)`: (.*)$", text, re.MULTILINE):
        found += [(file, name) for name in re.findall(r"`(\w+)`", names)]
    return found


def test_all_28_are_there_each_once_and_in_order() -> None:
    assert list(REQUIREMENTS) == list(range(1, 29))
    assert len(re.findall(r"^## ", PAGE, re.MULTILINE)) == 28


@pytest.mark.parametrize("number", range(1, 29))
def test_every_test_that_is_named_exists_and_one_is(number: int) -> None:
    tests = named(REQUIREMENTS[number])
    assert tests
    assert [(f, name) for f, name in tests if name not in defined_in(ROOT / f)] == []


@pytest.mark.parametrize("number", range(1, 29))
def test_what_is_missing_names_an_issue(number: int) -> None:
    said = REQUIREMENTS[number]
    assert said.count("not yet") == len(re.findall(r"not yet: issue \d+", said))


def test_tests_that_carry_a_number_are_of_that_requirement() -> None:
    """A test named after a requirement is of one of the 28, and the page names at least one of each that has some."""
    of: dict[int, set[str]] = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for name in defined_in(path):
            match = re.match(r"test_requirement_(\d+)_", name)
            if match:
                of.setdefault(int(match[1]), set()).add(name)
    assert of.keys() <= set(range(1, 29))
    for number, names in of.items():
        assert names & {name for _, name in named(REQUIREMENTS[number])}, number
