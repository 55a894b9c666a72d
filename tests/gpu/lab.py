"""What the experiments need of the machine under test. `real_lab` has a GPU; `fake_lab` counts exactly."""

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from flopmeter.agent.sources.base import Source
from flopmeter.contract.clock import Clock

from .work import Work

SECOND = 1_000_000_000


class UnavailableError(Exception):
    """This machine cannot do that; the text says why. The experiment is then "not run", which is no failure."""


class Running(Protocol):
    """A workload, ready to be put on the GPU."""

    def pump(self) -> int:
        """Queue a little more work, waiting while enough is queued; the number of calls queued."""
        ...

    def drain(self) -> int:
        """Wait until all that was queued is done; calls that `pump` has not told of."""
        ...

    def kernels(self) -> list[str]:
        """Names of the kernels of one call; [] where that cannot be told."""
        ...

    def close(self) -> None:
        """Give the memory back."""
        ...


class RawGpm(Protocol):
    """GPM without any of flopmeter's rules, for what an agent would never do (ticks below 250 ms)."""

    def sample(self) -> Any:
        """A sample of now, to be passed to `metrics`; raises UnavailableError where there is no GPM."""
        ...

    def metrics(self, older: Any, newer: Any, ids: tuple[int, ...]) -> dict[int, tuple[int, float]]:
        """metric id -> (NVML's return code for it, value)."""
        ...

    def clock_mhz(self) -> float:
        """The SM clock of now."""
        ...

    def clock_samples(self, since_us: int) -> list[tuple[int, float]]:
        """(time in microseconds, MHz) of the driver's buffer of clock samples."""
        ...

    def fields(self, ids: tuple[int, ...]) -> dict[int, tuple[int, float]]:
        """Field values: id -> (return code, value)."""
        ...

    def close(self) -> None: ...


class AgentProcess(Protocol):
    """An agent that can be killed (E18)."""

    def poll(self) -> None:
        """It may have something to do."""
        ...

    def kill(self) -> None: ...
    def stop(self) -> None:
        """Take a last reading, seal, end."""
        ...


class Helper(Protocol):
    """Another process that holds the GPU (E14), ready to work."""

    pid: int

    def go(self) -> None:
        """Begin, and go on until `stop`."""
        ...

    def stop(self) -> int:
        """End it; the number of calls it made."""
        ...


class Lab(Protocol):
    """One GPU, its driver, and what is installed around it."""

    simulated: bool

    @property
    def clock(self) -> Clock: ...
    def describe(self) -> dict[str, Any]:
        """Driver, versions, user, tools: what a reader needs to repeat it."""
        ...

    def source(self) -> Source:
        """flopmeter's own NVML source, opened."""
        ...

    def raw(self) -> RawGpm: ...
    def build(self, work: Work, chunk_s: float) -> Running:
        """Raises UnavailableError where this machine cannot run it. A chunk lasts about `chunk_s`."""
        ...

    def sm_clocks(self) -> Mapping[int, tuple[int, int]]:
        """SM number -> (time ns, cycles), read on the GPU itself; raises UnavailableError."""
        ...

    def agent(self, folder: Path, job: str) -> AgentProcess:
        """Start an agent that keeps its books in `folder`, going on from what is there."""
        ...

    def helper(self, work: Work) -> Helper: ...
    def mps(self) -> AbstractContextManager[None]:
        """While it lasts, helpers start as clients of an MPS daemon of our own; raises UnavailableError."""
        ...

    def probe_as_user(self) -> dict[str, Any]:
        """E0's probe in a process without privileges."""
        ...

    def profiled_flop(self, work: Work) -> dict[str, float]:
        """Operations of one call as a profiler counted them, by metric; raises UnavailableError."""
        ...

    def close(self) -> None: ...


class SystemClock:
    """The node's clocks, as flopmeter.agent.loop has them (whose module needs grpc, which is not here)."""

    def boot_ns(self) -> int:
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    def unix_ns(self) -> int:
        return time.time_ns()

    def wait(self, seconds: float) -> bool:
        if seconds > 0:
            time.sleep(seconds)
        return False
