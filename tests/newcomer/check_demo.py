"""What the newcomer's `make demo ARGS="--once --json"` must have printed. Standard library only.

python3 check_demo.py FILE     exit 1 and say what is missing
"""

import json
import sys
from pathlib import Path
from typing import Any


def lacking(result: dict[str, Any]) -> list[str]:
    """What a newcomer would miss; empty if the demo shows what the README promises."""
    wrong = [f"no {key!r} in the result" for key in ("runs", "events", "fleet") if key not in result]
    if wrong:
        return wrong
    types = {e["type"] for e in result["events"]}
    wrong += [
        f"no {t} among the events" for t in ("threshold.crossed", "threshold.undetermined") if t not in types
    ]
    silent = result["fleet"].get("nodes_by_status", {}).get("silent", 0)
    if (result["fleet"].get("nodes_total"), silent) != (24, 1):
        wrong.append(f"expected 24 nodes, one silent; got {result['fleet'].get('nodes_total')} and {silent}")
    for run in result["runs"]:
        name = run.get("run", "?")
        flop = run.get("executed", {}).get("flop", {})
        if not all(isinstance(flop.get(k), str) and flop[k].isdigit() for k in ("lower", "point", "upper")):
            wrong.append(f"{name}: executed.flop is not three decimal strings: {flop}")
        elif not int(flop["lower"]) <= int(flop["point"]) <= int(flop["upper"]):
            wrong.append(f"{name}: not lower <= point <= upper: {flop}")
        coverage = run.get("coverage", {})
        wrong += [f"{name}: no coverage.{k}" for k in _COVERAGE if k not in coverage]
    points = [int(r["executed"]["flop"]["point"]) for r in result["runs"] if not wrong]
    if not wrong and (len(points) < 2 or max(points) <= 10**23):
        wrong.append(f"expected several runs and one past 10^23 FLOP, got {sorted(points)}")
    return wrong


_COVERAGE = ("expected_device_seconds", "observed_device_seconds", "gap_device_seconds")


def last_object(text: str) -> dict[str, Any]:
    """The JSON object that the demo ends with (README, "outside interface")."""
    text = text.strip()
    value: dict[str, Any] = json.loads(text if text.startswith("{") else text.splitlines()[-1])
    return value


if __name__ == "__main__":
    problems = lacking(last_object(Path(sys.argv[1]).read_text()))
    for problem in problems:
        print(f"demo: {problem}", file=sys.stderr)
    sys.exit(1 if problems else 0)
