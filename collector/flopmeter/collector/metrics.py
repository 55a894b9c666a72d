"""What the collector counts of itself: plain integers, so that the hot path pays nothing for them."""

from collections import Counter
from dataclasses import dataclass, field

from .ingest.decide import PushbackReason, RefusalCode
from .ingest.writer import Committed

#: Upper ends of the commit-time buckets, seconds.
COMMIT_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


@dataclass(slots=True)
class Counters:
    """Counts since start. Written by the event loop only; read by a scrape at any time."""

    records: int = 0
    duplicates: int = 0
    groups: int = 0
    commit_failures: int = 0
    commit_seconds: float = 0.0
    commit_buckets: list[int] = field(default_factory=lambda: [0] * len(COMMIT_BUCKETS))
    events: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    pushbacks: Counter[str] = field(default_factory=Counter)

    def refused(self, code: RefusalCode) -> None:
        self.refusals[code.name.lower().replace("_", "-")] += 1

    def pushed_back(self, reason: PushbackReason) -> None:
        self.pushbacks[reason.name.lower().replace("_", "-")] += 1

    def committed(self, done: Committed) -> None:
        self.records += done.records
        self.groups += 1
        self.commit_seconds += done.seconds
        for i, limit in enumerate(COMMIT_BUCKETS):
            if done.seconds <= limit:
                self.commit_buckets[i] += 1
                break
        for event in done.events:
            self.events[event.type] += 1
