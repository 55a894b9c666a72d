"""Stores with deadlines in them, for tests: regimes that are met at once, and a collector whose clock is moved by hand."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

from builders import UNIX_NS, Chain
from desk import DAY_NS, Desk

from flopmeter.collector.check.fsck import Result, check_store
from flopmeter.collector.law.deadline_rules import DeadlineRule
from flopmeter.collector.law.regimes import Regime, shipped

HOUR_NS = 3_600_000_000_000
START = UNIX_NS + DAY_NS  # a Desk's clock when it opens


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


def regime(*rules: DeadlineRule, flop: int = 10**14, **changed: Any) -> Regime:
    """In force since long, and met by the first busy minute."""
    whole = {
        "threshold_flop": flop,
        "status": "in-force",
        "effective": date(2020, 1, 1),
        "ends": None,
        "deadlines": rules or (rule(),),
    }
    return replace(shipped()[0], **(whole | changed))


def opened(path: Path, *regimes: Regime, now: int = START, **settings: Any) -> Desk:
    """A collector on the store, its clock at `now`."""
    desk = Desk(path, regimes or (regime(),), **settings)
    desk.now = now
    return desk


def busy_minute(desk: Desk, chain: Chain) -> None:
    """The next minute of the chain's node is in the books."""
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
