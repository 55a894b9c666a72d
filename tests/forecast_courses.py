"""Time courses of real runs, from the records in ../shared/data, as a forecast would have seen them.

A course is what was done by when: points (time, units), straight lines between them. Units are what the record counts
(tokens, samples, GPU minutes); a forecast is blind to the unit. Records last minutes to weeks, so each course is
stretched to a length in hours: what a method sees of a run of two months is then cut as a real one's would be.
"""

import bisect
import csv
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from flopmeter.collector.forecast.project import HOUR_NS, History, block_hours
from flopmeter.contract.flop import Figure

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
#: FLOP per unit: only so that numbers are of the size that laws speak of, and rounding cannot show.
UNIT_FLOP = 10**18
#: A series of benchmark runs with less work than that between its begin and its end is no training run.
LEAST_BUSY = 0.25


@dataclass(frozen=True)
class Course:
    kind: str
    name: str
    times: tuple[int, ...]  # ascending, from 0, any unit of time
    done: tuple[int, ...]  # by then

    def at(self, time: float) -> int:
        """Units done by then, in FLOP."""
        if time <= self.times[0]:
            return self.done[0] * UNIT_FLOP
        i = bisect.bisect_right(self.times, time)
        if i == len(self.times):
            return self.done[-1] * UNIT_FLOP
        before, after = self.times[i - 1], self.times[i]
        share = (time - before) / (after - before)
        return (
            self.done[i - 1] * UNIT_FLOP
            + int(share * 10**12) * (self.done[i] - self.done[i - 1]) * UNIT_FLOP // 10**12
        )


class Stretched:
    """A course that lasts that many hours."""

    def __init__(self, course: Course, hours: int) -> None:
        self.hours = hours
        self._by_hour = [course.at(course.times[-1] * h / hours) for h in range(hours + 1)]
        self.whole = self._by_hour[-1]

    def when(self, flop: int) -> int:
        """The first hour by whose end that much was done."""
        return bisect.bisect_left(self._by_hour, flop)

    def history(self, hour: int) -> History:
        """What a forecast at the end of that hour is made from."""
        length, n = block_hours(hour)
        ends = [hour - i * length for i in range(n, -1, -1)]
        blocks = tuple(
            Figure(*(self._by_hour[b] - self._by_hour[a],) * 3) for a, b in itertools.pairwise(ends)
        )
        now = Figure(*(self._by_hour[hour],) * 3)
        return History(now, now, hour * HOUR_NS, length * HOUR_NS, blocks)


def courses(data: Path = DATA) -> Iterator[Course]:
    yield from _nanogpt(data)
    yield from _helios(data)
    yield from _mlperf(data)


def _nanogpt(data: Path) -> Iterator[Course]:
    """One run, step by step; the log's clock, which restarts after step 10, is put end to end."""
    times, done, offset, last = [0], [0], 0, 0
    with (data / "runs" / "nanogpt_124m_8xH100_steps.csv").open() as f:
        for row in csv.DictReader(f):
            if row["kind"] != "train":
                continue
            ms = int(row["train_time_ms"])
            if ms < last:
                offset += last - ms
            last = ms
            if ms + offset > times[-1]:
                times.append(ms + offset)
                done.append(int(row["step"]))
    yield Course("one run by steps", "nanogpt 124M, 8 H100", tuple(times), tuple(done))


def _helios(data: Path) -> Iterator[Course]:
    """GPUs that jobs held in one cluster, by minute: whole, and week by week from every second day."""
    with (data / "traces" / "helios_vc6YE_minute_20160rows.csv").open() as f:
        gpus = [int(row["running_gpu_num"]) for row in csv.DictReader(f)]
    day = 24 * 60
    for first, length in [(0, 14), *((d, 7) for d in range(0, 8, 2)), *((d, 3) for d in range(0, 12, 3))]:
        part = gpus[first * day : (first + length) * day]
        done = [0]
        for n in part:
            done.append(done[-1] + n)
        name = f"helios vc6YE, days {first + 1} to {first + length}"
        yield Course("a cluster's load", name, tuple(range(len(done))), tuple(done))


def _mlperf(data: Path) -> Iterator[Course]:
    """Runs of one benchmark on one system, one after the other, pauses and failed starts between them: as restarts."""
    systems: dict[tuple[str, str], list[tuple[int, int, int]]] = {}
    for size in ("8b", "405b"):
        with (data / f"mlperf_v5.1_llama31_{size}.csv").open() as f:
            for r in csv.DictReader(f):
                if r["run_start_ms"] and r["run_stop_ms"] and r["samples_at_stop"]:
                    key = (size, f"{r['submitter']} {r['system']}")
                    systems.setdefault(key, []).append(
                        (int(r["run_start_ms"]), int(r["run_stop_ms"]), int(r["samples_at_stop"]))
                    )
    for (size, name), runs in sorted(systems.items()):
        times, done = [], []
        for start, stop, samples in sorted(runs):
            if times and start < times[-1]:
                break  # two at once: no single run
            if not times:
                times, done = [start], [0]
            elif start > times[-1]:
                times.append(start)
                done.append(done[-1])
            times.append(stop)
            done.append(done[-1] + samples)
        busy = sum(stop - start for start, stop, _ in runs)
        if len(times) > 3 and busy >= LEAST_BUSY * (times[-1] - times[0]):
            yield Course("runs in a row", f"{size} {name}", tuple(t - times[0] for t in times), tuple(done))
