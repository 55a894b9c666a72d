"""docs/exports.md and the program name the same columns, with the same kinds, units and meanings; and the same views."""

import re
from pathlib import Path

import pytest

from flopmeter.collector.export.columns import SCHEMAS
from flopmeter.collector.store.schema_views import VIEWS

PAGE = (Path(__file__).parents[2] / "docs/exports.md").read_text()


def documented() -> dict[str, list[list[str]]]:
    """Schema -> its table's rows, as the page has them."""
    found = {}
    for name, body in re.findall(r"^### \w+: `([^`]+)`\n(.*?)(?=^##)", PAGE, re.MULTILINE | re.DOTALL):
        rows = [line for line in body.splitlines() if line.startswith("| `")]
        found[name] = [[cell.strip() for cell in row.strip("|").split(" |")] for row in rows]
    return found


def test_every_schema_is_documented_and_no_other() -> None:
    assert set(documented()) == {s.name for s in SCHEMAS.values()}


@pytest.mark.parametrize("what", SCHEMAS)
def test_columns_are_the_programs_in_their_order(what: str) -> None:
    schema = SCHEMAS[what]
    expected = [[f"`{c.name}`", c.kind.value, c.unit, c.text] for c in schema.columns]
    assert documented()[schema.name] == expected


def test_views_are_the_stores() -> None:
    made = re.findall(r"CREATE VIEW (\w+)", VIEWS)
    section = PAGE[PAGE.index("## The store itself") :]
    assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == made
