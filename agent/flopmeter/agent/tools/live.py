"""Rounds of readings for the tools that look at a node (top, doctor, read, record), live or from a trace."""

from collections.abc import Iterator
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import replace
from typing import Protocol, cast

from flopmeter.agent.errors import SourceError
from flopmeter.agent.reader import Reader
from flopmeter.agent.reading import Happening, NodeFacts, Reading
from flopmeter.agent.sources.base import Recording, Source, gone
from flopmeter.contract.clock import Clock

#: A driver call that takes longer than this costs its GPU a gap, not the tool.
READ_DEADLINE_S = 2.0
#: Starting NVML wakes every GPU where persistence mode is off, which takes seconds each.
OPEN_DEADLINE_S = 20.0


class Rounds(Protocol):
    """One list of items per tick: readings of all entities, and what happened in between."""

    def facts(self) -> NodeFacts: ...
    def __iter__(self) -> Iterator[list[Reading | Happening]]: ...
    def close(self) -> None: ...


class LiveRounds:
    """Reads every entity each `tick_ns`, at once the first time; ends when the clock's wait says stop."""

    def __init__(self, source: Source, clock: Clock, tick_ns: int) -> None:
        self._clock = clock
        self._tick_ns = tick_ns
        self._reader = Reader(source, clock, deadline_s=READ_DEADLINE_S)
        self._facts = source.facts()

    def facts(self) -> NodeFacts:
        return self._facts

    def __iter__(self) -> Iterator[list[Reading | Happening]]:
        due_ns = self._clock.boot_ns()
        while True:
            readings = self._reader.read([d.entity for d in self._facts.devices])
            yield list(readings)
            if any(r.error and gone(r.error) for r in readings):
                self._ask_again()
            now_ns = self._clock.boot_ns()
            due_ns += self._tick_ns
            if due_ns <= now_ns:  # late: the ticks that were missed are not made up for
                due_ns += (now_ns - due_ns) // self._tick_ns * self._tick_ns + self._tick_ns
            if self._clock.wait((due_ns - now_ns) / 1e9):
                return

    def _ask_again(self) -> None:
        try:
            facts = self._reader.facts()
        except SourceError:
            return  # the readings say what is wrong
        # A device that is gone keeps its row: it is lost, not forgotten.
        known = {d.entity for d in facts.devices}
        gone_devices = tuple(d for d in self._facts.devices if d.entity not in known)
        self._facts = replace(facts, devices=facts.devices + gone_devices)

    def close(self) -> None:
        self._reader.close()


class RecordedRounds:
    """A trace, cut into rounds where an entity comes again. `pace_s` > 0: at most that long per round."""

    def __init__(self, recording: Recording, clock: Clock, pace_s: float = 0.0) -> None:
        self._recording = recording
        self._clock = clock
        self._pace_s = pace_s

    def facts(self) -> NodeFacts:
        return self._recording.facts()

    def __iter__(self) -> Iterator[list[Reading | Happening]]:
        items: list[Reading | Happening] = []
        seen: set[str] = set()
        start_ns = -1
        for item in self._recording.items():
            if isinstance(item, Reading) and item.entity in seen:
                yield items
                passed_s = (item.t_boot_ns - start_ns) / 1e9
                if self._pace_s and self._clock.wait(max(0.0, min(passed_s, self._pace_s))):
                    return
                items, seen = [], set()
            if not seen:
                start_ns = item.t_boot_ns
            items.append(item)
            if isinstance(item, Reading):
                seen.add(item.entity)
        if items:
            yield items

    def close(self) -> None:
        self._recording.close()


def open_rounds(
    spec: str, clock: Clock, tick_ns: int, pace_s: float = 0.0, *, deadline_s: float | None = None
) -> Rounds:
    """Rounds over whatever `spec` names (sources.open.open_source). SourceError after `deadline_s` of no answer."""
    from flopmeter.agent.sources import open as sources

    opened = sources.open_source(spec, clock) if deadline_s is None else _within(spec, clock, deadline_s)
    if hasattr(opened, "items"):
        return RecordedRounds(cast("Recording", opened), clock, pace_s)
    return LiveRounds(opened, clock, tick_ns)


def _within(spec: str, clock: Clock, deadline_s: float) -> Source | Recording:
    """One that hangs in the driver is left there."""
    from flopmeter.agent.sources import open as sources

    answer = sources.opening(spec, clock)
    try:
        return answer.result(deadline_s)
    except FutureTimeout as e:
        if answer.done():
            raise
        raise SourceError(
            f"no answer from the driver in {deadline_s:g} s: one of its calls hangs",
            "see the kernel's log for Xid errors, and whether nvidia-smi answers; a GPU that hangs needs a reset or a reboot",
        ) from e
