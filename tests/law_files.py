"""Law files of a site, for tests: a regime, one for modifiers, a counting profile."""

from pathlib import Path

REGIME = """\
schema = "flopmeter-regime/1"
version = "1"

id = "site-rule"
title = "A site's own rule"
citation = "House rules, 1"
status = "in-force"
status_as_of = 2026-11-21
effective = 2026-01-01
threshold_flop = { base = 10, exponent = 24 }
comparison = ">"
unit = "floating-point"
scope = "run"
counting = "executed"
counting_note = "all of it"
act = "documentation"
when_met = "tell the board"
recipient = "the board"
deadline = "a week"
conditions = []
open_questions = []
source = "the house"

"""

MODIFIER = REGIME.replace(
    'scope = "run"',
    'scope = "modification"\noriginal = "unknown"\nshare = { numerator = 1, denominator = 4 }',
)

_SHIPPED = Path(__file__).parents[1] / "collector/flopmeter/collector/profiles/korea.toml"
PROFILE = _SHIPPED.read_text().replace('id = "korea"', 'id = "house"')
