"""Stores with deadlines in them, for tests: regimes that are met at once, and a collector whose clock is moved by hand."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

from builders import UNIX_NS, WINDOW_NS, Chain
from desk import Desk

from flopmeter.collector.check.fsck import Result, check_store
from flopmeter.collector.law.deadline_rules import DeadlineRule
from flopmeter.collector.law.regimes import Regime, parse, shipped

HOUR_NS = 3_600_000_000_000
START = UNIX_NS + HOUR_NS // 2  # the clock when it opens: the first minutes of work were just done


def rule(name: str = "notify", trigger: str = "known", **changed: Any) -> DeadlineRule:
    """Two weeks, unless told otherwise."""
    whole = {
        "id": name,
        "trigger": trigger,
        "what": f"Do {name}",
        "recipient": "the authority",
        "after_hours": None,
        "after_days": 14,
        "calendar": (),
        "timezone": "Europe/Brussels",
        "source": "a test",
    }
    return DeadlineRule(**(whole | changed))


def quarters(name: str = "quarterly") -> DeadlineRule:
    return rule(name, "calendar", after_days=None, calendar=((1, 15), (4, 15), (7, 15), (10, 15)))


def regime(
    *rules: DeadlineRule,
    flop: int = 10**14,
    ends: date | None = None,
    act: str = "documentation",
    bare: bool = False,
    effective: date = date(2020, 1, 1),
) -> Regime:
    """A file of its own: in force since long, met by the first busy minute. `bare`: it sets no deadline."""
    head, _, _ = shipped()[0].text.partition("[[")
    lines = [
        line for line in head.splitlines() if not line.startswith(("threshold_flop", "act ", "effective"))
    ]
    lines += [f'threshold_flop = "{flop}"', f'act = "{act}"', f"effective = {effective}"]
    lines += [] if ends is None else [f"ends = {ends}"]
    for r in () if bare else rules or (rule(),):
        days = [f"{month:02}-{day:02}" for month, day in r.calendar]
        said = {name: value for name, value in asdict(r).items() if value is not None} | {"calendar": days}
        lines += [
            "[[deadlines]]",
            *(f"{name} = {json.dumps(value)}" for name, value in said.items() if value),
        ]
    return parse("a test", "\n".join(lines).encode())


def opened(path: Path, *regimes: Regime, now: int = START, **settings: Any) -> Desk:
    """A collector on the store, its clock at `now`."""
    desk = Desk(path, regimes or (regime(),), **settings)
    desk.now = now
    return desk


def busy_minute(desk: Desk, chain: Chain) -> None:
    """The next minute of the chain's node is in the books; its first one is that which has just ended."""
    if not chain.seq:
        ahead = desk.now - WINDOW_NS - chain.unix_ns
        chain.unix_ns += ahead
        chain.boot_ns += ahead
    agent = desk.agent(chain)
    desk.offer(agent, chain.next())
    desk.commit()


def commit_at(desk: Desk, unix_ns: int) -> list[Any]:
    """A commit of nothing, at that time: what it raises, less what silence raises."""
    desk.now = unix_ns
    return [e for e in desk.commit().events if e.type.startswith("deadline.")]


def deadlines(desk: Desk) -> list[Any]:
    """(key, due) of each, in order."""
    return desk.rows("SELECT key, due_unix_ns FROM deadlines ORDER BY deadline_no")


def fsck(path: Path, regimes: Iterable[Regime]) -> Result:
    return check_store(path, tuple(regimes))
