"""Law files of a site, for tests: a regime, one for modifiers, a counting profile."""

import json
import re
from datetime import date
from pathlib import Path

from flopmeter.collector.law.regimes import Regime, parse

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


def changed(regime: Regime, **values: int | str | date) -> Regime:
    """The regime by a file in which those keys have other values: its text and digest are of that file.

    dataclasses.replace leaves the text as it was, and fsck would derive by it.
    """
    text = regime.text
    for key, value in values.items():
        shown = value.isoformat() if isinstance(value, date) else json.dumps(str(value), ensure_ascii=False)
        text, count = re.subn(
            rf"^{key} = .*$",
            lambda _, key=key, shown=shown: f"{key} = {shown}",
            text,
            count=1,
            flags=re.MULTILINE,
        )
        assert count == 1, key
    return parse(f"{values.get('id', regime.id)}.toml", text.encode())
