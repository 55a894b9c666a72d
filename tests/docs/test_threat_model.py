"""docs/threat-model.md: every attack of reference/attestation.md section 5, each with tests that exist, and the limits
in the words of every attestation.
"""

import re
from pathlib import Path

import pytest

from flopmeter.collector.attest.limits import LIMITS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/threat-model.md").read_text()
ATTACKS = {
    int(n): (name, text)
    for n, name, text in re.findall(r"^## (\d+)\. ([^\n]*)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
}
#: The rows of the table, in its order.
OF_THE_TABLE = (
    "fake or replayed stream",
    "edit stored rows",
    "delete rows or leaves",
    "rollback or restore of an old database",
    "split view",
    "back-dating",
    "post-dating, waiting for a good moment",
    "clock skew",
    "agent key theft",
    "log key theft",
    "stop, starve or never start an agent",
    "spoofed NVML, LD_PRELOAD, patched driver",
    "relabel a job, split a run, hide lineage",
    "exclude work by tag",
    "threshold rule edited",
    "event suppressed",
    "omitted run",
    "leak by proofs",
)


def defined_in(path: Path) -> set[str]:
    return set(re.findall(r"^(?:async )?def (test_\w+)\(", path.read_text(), re.MULTILINE))


def named(text: str) -> list[tuple[str, str]]:
    """(file, test) of each test that an attack names."""
    found = []
    for file, names in re.findall(r"^- `(tests/[\w/]+\.py)`: (.*)$", text, re.MULTILINE):
        found += [(file, name) for name in re.findall(r"`(\w+)`", names)]
    return found


def test_every_row_of_the_table_is_there_once_and_in_its_order() -> None:
    assert [name for name, _ in ATTACKS.values()] == list(OF_THE_TABLE)
    assert list(ATTACKS) == list(range(1, len(OF_THE_TABLE) + 1))


@pytest.mark.parametrize("number", range(1, len(OF_THE_TABLE) + 1))
def test_every_attack_is_played_by_tests_that_exist_and_says_what_is_left_over(number: int) -> None:
    _, text = ATTACKS[number]
    tests = named(text)
    assert tests
    assert [(f, name) for f, name in tests if name not in defined_in(ROOT / f)] == []
    assert "Left over: " in text
    assert re.search(r"^\*\*(?:[TNCLX](?:, )?)+\.\*\* |^\*\*any reader\.\*\* ", text, re.MULTILINE)


def test_the_limits_are_those_that_every_attestation_states_word_for_word() -> None:
    _, _, out_of_reach = PAGE.partition("## Out of reach\n")
    section, _, _ = out_of_reach.partition("\n## ")
    assert re.findall(r"^- (.*)$", section, re.MULTILINE) == list(LIMITS)
