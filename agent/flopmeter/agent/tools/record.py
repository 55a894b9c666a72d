"""`flopmeter agent record` and `read`: what the driver said, as a trace holds it."""

import os
from collections.abc import Iterator
from dataclasses import dataclass

from flopmeter.agent.errors import SettingsError
from flopmeter.agent.reading import Happening, HappeningKind, Reading
from flopmeter.agent.sources.trace import TraceWriter
from flopmeter.agent.sources.trace_text import item_line
from flopmeter.contract.clock import Clock

from .live import LiveRounds, Rounds


@dataclass(frozen=True, slots=True)
class Recorded:
    readings: int
    failed: int
    seconds: float
    size: int  # bytes of the file


def record(
    rounds: Rounds,
    clock: Clock,
    path: str | os.PathLike[str],
    *,
    seconds: float = 0.0,
    overwrite: bool = False,
) -> Recorded:
    """Write rounds to `path` until they end or `seconds` (> 0) have passed. Every round is flushed whole."""
    if not isinstance(rounds, LiveRounds):
        raise SettingsError("record: expected a live source, got a trace", "copy the file instead")
    start_ns = clock.boot_ns()
    readings = failed = 0
    with TraceWriter(path, rounds.facts(), overwrite=overwrite) as writer:
        writer.write(Happening(HappeningKind.AGENT_START, start_ns, clock.unix_ns()))
        known = rounds.facts().devices
        for items in rounds:
            devices = rounds.facts().devices
            if devices != known:  # the readings of a new device need it listed before them
                known = devices
                writer.write(
                    Happening(HappeningKind.MIG_CHANGE, clock.boot_ns(), clock.unix_ns(), devices=devices)
                )
            for item in items:
                writer.write(item)
                readings += 1
                failed += isinstance(item, Reading) and item.error is not None
            writer.flush()
            if seconds > 0 and clock.boot_ns() - start_ns >= seconds * 1e9:
                break
        writer.write(Happening(HappeningKind.AGENT_STOP, clock.boot_ns(), clock.unix_ns()))
    passed = (clock.boot_ns() - start_ns) / 1e9
    return Recorded(readings, failed, passed, writer.path.stat().st_size)


def first_readings(rounds: Rounds) -> Iterator[tuple[bytes, bool]]:
    """(line as in a trace, whether it was read) of the first round."""
    for items in rounds:
        for item in items:
            if isinstance(item, Reading):
                yield item_line(item), item.error is None
        return
