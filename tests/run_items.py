"""Runs, regimes and a fleet as the API has them (docs/api.md), for tests of what is made of its answers."""

from typing import Any

THRESHOLD = 10**25


def figure(point: int, spread: int = 2) -> dict[str, str]:
    return {"lower": str(point // spread), "point": str(point), "upper": str(point * spread)}


def lines(number: int) -> list[dict[str, Any]]:
    return [
        {
            "regime": f"law-{n}",
            "title": f"Law {n}: of compute",
            "threshold_flop": str(THRESHOLD * 10**n),
            "comparison": ">" if n % 2 else ">=",
            "unit": "floating-point",
            "counting": "eu-broad",
            "act": "notification",
        }
        for n in range(number)
    ]


def item(
    run: str, *, point: int = 3 * 10**24, last_seen: str = "2026-11-18T00:00:00.000Z", **changes: Any
) -> dict[str, Any]:
    found: dict[str, Any] = {
        "run": run,
        "status": "running",
        "last_seen": last_seen,
        "executed": figure(point),
        "countable": {},
        "forecast": {
            "regime": "law-0",
            "answer": "may-be-met",
            "crosses": {
                "earliest": "2026-12-01T00:00:00.000Z",
                "point": "2027-01-01T00:00:00.000Z",
                "latest": "2028-01-01T00:00:00.000Z",
            },
        },
        "coverage": {"expected_device_seconds": 1000.5, "observed_device_seconds": 900.0},
        "open_events": {"critical": 0, "warning": 1, "notice": 0, "info": 0},
        "fault": None,
    }
    return found | changes


def items(number: int, regimes: int = 1) -> list[dict[str, Any]]:
    counted = {line["regime"]: figure(3 * 10**24) for line in lines(regimes)}
    return [item(f"slurm:c1/{n}", point=10**20 * (n + 1), countable=counted) for n in range(number)]


def overview(runs: int) -> dict[str, Any]:
    return {
        "runs": {"total": runs, "by_status": {"running": runs, "silent": 0, "stopped": 0}},
        "events": {"open": 2, "by_severity": {"critical": 0, "warning": 2, "notice": 0, "info": 0}},
        "deadlines": {"open": 3, "overdue": 1},
        "next_deadline": {"due": "2026-12-06T18:55:46.431Z"},
    }


def fleet() -> dict[str, Any]:
    return {
        "nodes_by_status": {"live": 23, "silent": 1},
        "gpus": 192,
        "uncovered_devices": 2,
        "coverage": {
            "expected_device_seconds": 10.0,
            "observed_device_seconds": 9.0,
            "gap_device_seconds": 1.0,
        },
        "idle_device_seconds": 1.0,
        "unattributed_device_seconds": 2.0,
        "clocks": {
            "known": 23,
            "off": [{"over_seconds": s, "nodes": n} for s, n in ((1, 2), (10, 1), (120, 0))],
            "largest_seconds": 41.2,
            "furthest": [],
        },
    }
