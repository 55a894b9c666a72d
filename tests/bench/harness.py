"""What every bench shares: processes that surely end, CPU clocks, pinning, the calibration op, the table.

Method (docs/performance.md): ratios of CPU time taken side by side, systems in turn, medians of rounds. Absolute
figures of a shared machine are good to +-40 % only, so each stands beside the calibration op of its moment.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

import nacl.bindings

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
FLOPMETER = Path(sys.executable).parent / "flopmeter"
CALIBRATION_BYTES = 609  # a node batch of 8 GPUs x 13 fields (reference/performance.md section 1)


class CannotRun(Exception):  # noqa: N818 - named as a reader sees it
    """A bench cannot be run here: what is missing, and how to get it."""


# Processors -----------------------------------------------------------------------------------------------


def cores() -> tuple[int, int]:
    """(server core, client core): two that this process may use; the same one twice if it has only one."""
    allowed = sorted(ALL_CORES)
    return allowed[0], allowed[1 % len(allowed)]


ALL_CORES = os.sched_getaffinity(0)


@contextlib.contextmanager
def pinned(core: int) -> Iterator[None]:
    """This process, and what it starts meanwhile, on one core only."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def cpu_ns(pid: int) -> int:
    """CPU time of a whole process (user + system, ended threads included), in ns.

    The same sum as utime + stime of /proc/PID/stat, from the process's POSIX CPU clock: 1 ns instead of 10 ms steps.
    """
    return time.clock_gettime_ns((~pid << 3) | 2)  # MAKE_PROCESS_CPUCLOCK(pid, CPUCLOCK_SCHED)


def idle_ns(core: int) -> int:
    """Time that a processor core had nothing to run since boot, in ns (steps of 10 ms)."""
    for line in Path("/proc/stat").read_text().splitlines():
        name, *ticks = line.split()
        if name == f"cpu{core}":
            return (int(ticks[3]) + int(ticks[4])) * 1_000_000_000 // os.sysconf("SC_CLK_TCK")
    return 0


def memory_kib(pid: int, what: str = "VmRSS") -> int:
    """A memory figure of /proc/PID/status in KiB: VmRSS now, VmHWM at its highest."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(what + ":"):
            return int(line.split()[1])
    return 0


def calibrate(seconds: float = 0.1) -> float:
    """CPU us of one libsodium verify of 609 B, now: the yardstick printed beside each figure."""
    public, secret = nacl.bindings.crypto_sign_seed_keypair(bytes(32))
    signed = nacl.bindings.crypto_sign(bytes(CALIBRATION_BYTES), secret)
    verify = nacl.bindings.crypto_sign_open
    samples = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.thread_time_ns()
        for _ in range(50):
            verify(signed, public)
        samples.append((time.thread_time_ns() - start) / 50_000)
    return statistics.median(samples)


# Processes ------------------------------------------------------------------------------------------------


class Running:
    """A process in a session of its own, its output in a file; ended with all its children on leaving."""

    def __init__(
        self, argv: Sequence[object], log: Path, *, core: int | None = None, env: dict[str, str] | None = None
    ) -> None:
        self.log = log
        self._file = log.open("ab")
        with pinned(core) if core is not None else contextlib.nullcontext():
            self.process = subprocess.Popen(
                [str(a) for a in argv],
                stdin=subprocess.DEVNULL,
                stdout=self._file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, **(env or {})},
            )
        self.pid = self.process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self, grace_s: float = 5.0) -> None:
        """SIGTERM, a bounded wait, then SIGKILL to the whole session."""
        if self.process.poll() is None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(grace_s)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self.process.wait()
        self._file.close()

    def tail(self, lines: int = 12) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def until(
        self, what: str, ready: Callable[[], bool], seconds: float = 20.0, every_s: float = 0.02
    ) -> None:
        """Wait for `ready()`; raises CannotRun with the process's last words if it ends or takes too long."""
        end = time.monotonic() + seconds
        while not ready():
            if self.process.poll() is not None:
                raise CannotRun(f"{what}: process ended with {self.process.returncode}:\n{self.tail()}")
            if time.monotonic() > end:
                raise CannotRun(f"{what}: not ready within {seconds:.0f} s:\n{self.tail()}")
            time.sleep(every_s)


def run_json(argv: Sequence[object], *, core: int | None, timeout_s: float, what: str) -> dict:
    """Run a helper process of this folder to its end; its last line of output is one JSON object."""
    with pinned(core) if core is not None else contextlib.nullcontext():
        child = subprocess.Popen(
            [sys.executable, *(str(a) for a in argv)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            text=True,
        )
    try:
        out, err = child.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        raise CannotRun(f"{what}: not done within {timeout_s:.0f} s") from None
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    if child.returncode != 0 or not out.strip():
        raise CannotRun(f"{what}: ended with {child.returncode}:\n{err[-2000:]}")
    return json.loads(out.strip().splitlines()[-1])


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def listening(port: int) -> bool:
    with socket.socket() as s:
        s.settimeout(1.0)
        return s.connect_ex(("127.0.0.1", port)) == 0


def debian_program(name: str, package: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise CannotRun(f"{name} is not installed; the peer is Debian's: apt-get install -y {package}")
    return path


def progress(text: str) -> None:
    print(f"  … {text}", file=sys.stderr, flush=True)


# Figures --------------------------------------------------------------------------------------------------


@dataclass
class Figure:
    """One line of the table. `met` is None where there is no goal or it could not be measured."""

    bench: str
    name: str
    ours: str
    peer: str = ""
    ratio: str = ""
    goal: str = ""
    met: bool | None = None
    calibration_us: float = 0.0
    detail: dict = field(default_factory=dict)


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def table(figures: Sequence[Figure]) -> str:
    """The figures as aligned text."""
    head = ("bench", "figure", "ours", "peer / floor", "ratio", "goal", "met", "cal us")
    says = {True: "yes", False: "NO", None: "-"}
    rows = [
        (
            f.bench,
            f.name,
            f.ours,
            f.peer,
            f.ratio,
            f.goal,
            says[f.met],
            f"{f.calibration_us:.0f}" if f.calibration_us else "",
        )
        for f in figures
    ]
    widths = [max(len(r[i]) for r in [head, *rows]) for i in range(len(head))]
    lines = [
        "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip()
        for row in [head, *rows]
    ]
    lines.insert(1, "  ".join("-" * w for w in widths))
    return "\n".join(lines)


def as_json(figures: Sequence[Figure], machine: dict) -> str:
    return json.dumps({"machine": machine, "figures": [asdict(f) for f in figures]}, indent=1) + "\n"
