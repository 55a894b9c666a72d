"""Fails a run in which a test was skipped for a reason that nobody has written down.

    python .ci/check_skips.py JUNIT.XML ALLOWED     ALLOWED: one regular expression a line, # comments

A skip without a reason fails too. An allowed reason that no test used is no fault: it depends on the machine.
"""

import re
import sys
import xml.etree.ElementTree as ET
from pathlib import Path


def allowed_reasons(text: str) -> list[re.Pattern[str]]:
    lines = (line.strip() for line in text.splitlines())
    return [re.compile(line) for line in lines if line and not line.startswith("#")]


def skips(junit: Path) -> list[tuple[str, str]]:
    """(test, reason) of every skipped test; expected failures are not skips."""
    return [
        (f"{case.get('classname')}::{case.get('name')}", skip.get("message") or "")
        for case in ET.parse(junit).getroot().iter("testcase")
        for skip in case.iter("skipped")
        if skip.get("type") != "pytest.xfail"
    ]


def main(junit: str, allowed: str) -> int:
    patterns = allowed_reasons(Path(allowed).read_text())
    unknown = [(t, r) for t, r in skips(Path(junit)) if not r or not any(p.fullmatch(r) for p in patterns)]
    for test, reason in unknown:
        print(f"skipped, and not on {allowed}: {test}: {reason or 'no reason given'}", file=sys.stderr)
    return 1 if unknown else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
