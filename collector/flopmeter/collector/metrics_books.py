"""Series of runs, laws and fleet, from the last answer of the process that reads the books. A scrape never waits for it.

That process is asked at most every ASK_EVERY_S, and only while somebody scrapes: what nobody looks at costs nothing.
"""

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from .api.question import Answer, Question
from .api.run_metrics import FAMILIES

log = logging.getLogger(__name__)

QUESTION = Question("GET", ("metrics-of-runs",), role="admin", who="metrics")
ASK_EVERY_S = 15.0
#: Figures older than this leave: they must not stand still and look like now.
STALE_S = 120.0
#: After the last scrape it goes on asking for so long: a scrape a minute, and one may be missed.
WANTED_S = 180.0
_LOOK_S = 1.0


class BooksMetrics:
    """What was answered last. `families` is called by scrapes, on any thread; `follow` runs on an event loop."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic, *, always: bool = False) -> None:
        """`always`: go on asking whoever scrapes, for exports may be an hour apart."""
        self._monotonic, self._always = monotonic, always
        self._samples: dict[str, list[list[Any]]] = {}
        self._as_of_s = 0.0
        self._taken_s = self._wanted_s = float("-inf")
        self.failures = 0

    def families(self) -> Iterator[Any]:
        now = self._wanted_s = self._monotonic()
        samples = self._samples if now - self._taken_s < STALE_S else {}
        for name, (text, labels) in FAMILIES.items():
            if name in samples:
                family = GaugeMetricFamily(name, text, labels=labels)
                for *values, number in samples[name]:
                    family.add_metric(values, number)
                yield family
        yield GaugeMetricFamily(
            "flopmeter_collector_books_answer_timestamp_seconds",
            "As of when the figures of runs and fleet are; 0: none yet.",
            self._as_of_s,
        )
        yield CounterMetricFamily(
            "flopmeter_collector_books_failures",
            "Times that the process that reads the books gave no answer for this page.",
            self.failures,
        )

    @property
    def wanted(self) -> bool:
        """Whether somebody scraped lately, or sends what there is in any case."""
        return self._always or self._monotonic() - self._wanted_s < WANTED_S

    def take(self, answer: Answer) -> None:
        """Keep an answer. Raises ValueError for what is none."""
        if answer.status != 200:
            raise ValueError(f"status {answer.status}")
        try:
            said = json.loads(answer.body)
            samples, as_of = said["samples"], float(said["as_of"])
            for name, rows in samples.items():
                width = len(FAMILIES[name][1]) + 1
                if any(len(row) != width for row in rows):
                    raise ValueError(f"{name}: expected {width} columns")
                for *_, number in rows:
                    float(number)  # else the whole page would fail for it, at each scrape
        except (KeyError, TypeError, AttributeError, OverflowError) as e:
            raise ValueError(f"an answer of another shape: {type(e).__name__}") from e
        self._samples, self._as_of_s, self._taken_s = samples, as_of, self._monotonic()

    async def follow(
        self,
        ask: Callable[[Question], Awaitable[Answer]],
        sleep: Callable[[float], Awaitable[Any]] = asyncio.sleep,
    ) -> None:
        """Ask again and again, until cancelled."""
        failed = False
        while True:
            if self.wanted:
                try:
                    self.take(await ask(QUESTION))
                    failed = False
                except Exception as e:  # noqa: BLE001 - whatever it is, it is the same for a scrape
                    self.failures += 1
                    if not failed:
                        log.warning("metrics: no figures of runs: %s: %s", type(e).__name__, e)
                    failed = True
                await sleep(ASK_EVERY_S)
            else:
                await sleep(_LOOK_S)
