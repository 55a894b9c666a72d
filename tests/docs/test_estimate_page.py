"""docs/estimate.md prints what the program prints: its commands are run, line for line."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs/estimate.md").read_text()
#: (command, what the page says it prints), of those that need no store.
EXAMPLES = [
    (command.replace("\\\n", " "), shown)
    for command, shown in re.findall(
        r"^```\n\$ (flopmeter (?:[^\n\\]|\\\n)+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL
    )
    if "--store" not in command
]


@pytest.mark.parametrize(("command", "shown"), EXAMPLES, ids=lambda text: text[:40])
def test_an_example_is_what_is_printed(command: str, shown: str) -> None:
    run = [sys.executable, "-c", "from flopmeter.cli.main import main; main()", *shlex.split(command)[1:]]
    done = subprocess.run(run, capture_output=True, text=True, timeout=60)
    said = [line.rstrip() for line in (done.stdout + done.stderr).splitlines()]
    # Which law is in force depends on the day.
    wanted = [line for line in shown.splitlines() if line and not re.search(r"  >=? 10\^", line)]
    assert wanted
    assert [line for line in wanted if line not in said] == [], said


def test_the_page_has_its_examples() -> None:
    assert [c.split()[2] for c, _ in EXAMPLES] == ["hardware", "hardware", "architecture"]
