"""A whole system to break: one agent's state, one collector process that can be killed, one trace."""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Any, Self

import trace_lines
from books_dump import dump, rows
from processes import flopmeter, free_port, start, wait_for

from flopmeter.agent.metering.meter import Meter, MeterSettings
from flopmeter.agent.pipeline import Pipeline, PipelineSettings
from flopmeter.agent.reading import Happening, NodeFacts, Reading
from flopmeter.agent.shipping.status import Timing
from flopmeter.contract.limits import DEFAULT_TICK_NS

WINDOW = "1s"
SECONDS = 600
GPUS = 8
#: The recording runs over a full hour, so that the hourly series has several.
FIVE_TO_SIX_NS = 1_728_885_300_000_000_000


def make_trace(path: Path, seconds: int = SECONDS) -> Path:
    """The published training run cut to `seconds` where its log is at hand, else a steady job on as many GPUs.

    Its run becomes known halfway, so that the collector moves what it had booked of the job.
    """
    import nanogpt_trace

    if nanogpt_trace.STEPS_CSV.exists():
        nanogpt_trace.write(path, "sum", seconds, FIVE_TO_SIX_NS)
    else:
        lines = trace_lines.steady(seconds, GPUS)
        trace_lines.write(path, lines, first=trace_lines.header(GPUS))
    first, *lines = path.read_text().splitlines()
    readings = [json.loads(line) for line in lines]
    for reading in readings[: len(readings) // 2]:
        (reading.get("workload") or {}).pop("run", None)
    path.write_text("".join(f"{line}\n" for line in (first, *map(json.dumps, readings))))
    return path


class Calm:
    """The trace replayed with nothing in its way: what every other way must come to. Its key is everybody's."""

    def __init__(self, trace: Path, state: Path, window: str = WINDOW) -> None:
        done = flopmeter("replay", trace, "--state", state, "--window", window, "--json")
        assert done.returncode == 0, done.stderr
        self.trace = trace
        self.state = state
        self.store = state / "collector/books.sqlite"
        self.dump = dump(self.store)
        assert len(rows(self.store, "SELECT DISTINCT hour FROM hourly")) == 2
        assert rows(self.store, "SELECT run FROM formerly"), "the job was to move to its run"

    def state_with_its_key(self, state: Path) -> Path:
        state.mkdir(mode=0o700)
        shutil.copy2(self.state / "record.key", state / "record.key")
        return state


class CollectorProcess:
    """`flopmeter collector serve` on a port that stays the same over kills."""

    def __init__(self, store: Path, *, linger_ms: int = 20, checkpoint_s: int = 60) -> None:
        """`checkpoint_s`: heads in between, of which agents are told, come that often; none in a test of less."""
        self.store = store
        self.checkpoint_s = checkpoint_s
        self.log = store.with_suffix(".log")
        self.linger_ms = linger_ms
        self.kills = 0
        self.process: subprocess.Popen[bytes] | None = None
        self.port = free_port()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        assert self.process is None
        before = self.log.read_text().count("listening on") if self.log.exists() else 0
        args = ("--listen", self.address, "--http", "", "--linger-ms", str(self.linger_ms), "--admit-new")
        heads = ("--checkpoint-s", str(self.checkpoint_s))
        process = start("collector", "serve", "--store", self.store, *args, *heads, log=self.log)
        self.process = process
        wait_for(
            "the collector listens",
            lambda: self.log.read_text().count("listening on") > before or process.poll() is not None,
            60,
        )
        assert process.poll() is None, self.log.read_text()[-2000:]

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        assert self.process.wait(60) == -signal.SIGKILL, "it was gone before it was killed"
        self.process = None
        self.kills += 1

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            assert self.process.wait(60) == 0, self.log.read_text()[-2000:]
            self.process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and self.process is not None:
            self.process.kill()
            self.process.wait()
        else:
            self.stop()


class FedAgent:
    """`flopmeter agent run` whose trace comes through a pipe, so that the test decides how far it gets."""

    def __init__(self, lines: list[bytes], state: Path, collector: str, fifo: Path, *more: str) -> None:
        self.lines = lines
        self.state = state
        self.fifo = fifo
        self.log = state / "agent.log"
        self.kills = 0
        self._args = ("--collector", collector, "--window", WINDOW, "--log-level", "warning", *more)
        if not fifo.exists():
            os.mkfifo(fifo)

    def start(self) -> "subprocess.Popen[bytes]":
        source = f"trace:{self.fifo}"
        return start("agent", "run", "--source", source, "--state", self.state, *self._args, log=self.log)

    def live(self, upto: int, linger_s: float, until: Callable[[], bool] = lambda: True) -> None:
        """One life: fed `upto` lines from the first, then killed `linger_s` after `until` has come."""
        process = self.start()
        self._feed(process, upto)
        wait_for("the agent came so far", until, 60)
        self._kill(process, linger_s)

    def die_at_start(self, after_s: float) -> None:
        """One life that may not even reach its trace."""
        self._kill(self.start(), after_s)

    def finish(self) -> None:
        """The last life: the whole trace, to the end."""
        process = self.start()
        self._feed(process, len(self.lines))
        assert process.wait(120) == 0, self.log.read_text()[-2000:]

    def _feed(self, process: "subprocess.Popen[bytes]", upto: int) -> None:
        fds: list[int] = []

        def opened() -> bool:
            try:
                fds.append(os.open(self.fifo, os.O_WRONLY | os.O_NONBLOCK))
            except OSError:  # nobody reads yet
                assert process.poll() is None, self.log.read_text()[-2000:]
                return False
            return True

        wait_for("the agent opens its trace", opened, 60)
        os.set_blocking(fds[0], True)
        whole = upto == len(self.lines)
        with open(fds[0], "wb") as pipe:  # noqa: PTH123 - a descriptor
            pipe.write(b"".join(self.lines[:upto]))
            pipe.flush()
            if not whole:
                self._held = os.dup(fds[0])  # still open: the recording has not ended

    def _kill(self, process: "subprocess.Popen[bytes]", after_s: float) -> None:
        try:
            process.wait(after_s)
        except subprocess.TimeoutExpired:
            process.kill()
        assert process.wait(60) == -signal.SIGKILL, self.log.read_text()[-2000:]
        held = self.__dict__.pop("_held", -1)
        if held >= 0:
            os.close(held)
        self.kills += 1


def positions(rng: Random, kills: int, total: int) -> list[int]:
    """How far each life gets: on the whole forwards, in uneven steps."""
    return sorted(rng.randrange(1, total) for _ in range(kills))


#: A laboratory has no thundering herd to fear.
QUICK = Timing(connect_s=5, ack_s=10, backoff_base_s=0.02, backoff_cap_s=0.2)


def open_pipeline(facts: NodeFacts, state: Path, collector: str, **settings: Any) -> Pipeline:
    """A real agent in this process, with windows as everybody's here, that tries again at once."""
    window_ns = 1_000_000_000

    def make_meter(facts: NodeFacts, journal: bytes | None) -> Meter:
        meter_settings = MeterSettings(window_ns, DEFAULT_TICK_NS)
        return Meter(facts, meter_settings, agent_version=version("flopmeter"), journal=journal)

    given = PipelineSettings(state=state, collector=collector, timing=QUICK, **settings)
    return Pipeline.open(facts, make_meter, given, agent_version=version("flopmeter"), rng=Random(7))


class Items:
    """A recording from memory."""

    def __init__(self, facts: NodeFacts, items: Sequence[Reading | Happening]) -> None:
        self._facts = facts
        self._items = items

    def facts(self) -> NodeFacts:
        return self._facts

    def items(self) -> Iterator[Reading | Happening]:
        return iter(self._items)

    def close(self) -> None: ...
