"""Real processes for tests: the installed `flopmeter` command, run or started, always with a deadline."""

import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

COMMAND = Path(sys.executable).with_name("flopmeter")


def flopmeter(
    *args: str | Path, timeout: float = 120, environ: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run to its end and return what it printed. `environ` is added to this process's own."""
    return subprocess.run(
        [COMMAND, *map(str, args)],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env={**os.environ, **(environ or {})},
    )


def start(*args: str | Path, log: Path, environ: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Start and return at once; both outputs go to the end of `log`. `environ` is added to this process's own."""
    with log.open("ab") as f:
        whole = {**os.environ, **(environ or {})}
        return subprocess.Popen([COMMAND, *map(str, args)], stdout=f, stderr=f, env=whole)


def wait_for(what: str, condition: Callable[[], object], timeout: float = 90.0) -> None:
    """Poll until `condition` holds; fail with `what` at the deadline."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout} s: {what}"
        time.sleep(0.01)


def free_port() -> int:
    """A port for whoever cannot take one of the kernel's choice. It stays free: it lies below those that the kernel gives
    to others meanwhile, and each worker of pytest has a thousand of its own."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 10
    for port in random.sample(range(10_000 + 1_000 * worker, 11_000 + 1_000 * worker), 1_000):
        if port not in _given:
            with socket.socket() as s:
                try:
                    s.bind(("127.0.0.1", port))
                except OSError:
                    continue
            _given.add(port)
            return port
    raise AssertionError("expected a free port below 20000, got none")


_given: set[int] = set()


@contextmanager
def serving(tmp_path: Path, *args: str) -> Iterator[tuple[str, Path]]:
    """`flopmeter collector serve` as a process; gives its address and store."""
    store, log = tmp_path / "named.sqlite", tmp_path / "collector.log"
    process = start(
        "collector", "serve", "--store", store, "--listen", "127.0.0.1:0", "--http", "", *args, log=log
    )
    try:
        wait_for("collector listens", lambda: "listening on" in log.read_text(), 60)
        line = next(line for line in log.read_text().splitlines() if "listening on" in line)
        yield line.split("listening on ")[1].split(",")[0], store
    finally:
        process.terminate()
        assert process.wait(60) == 0


def gone(pid: int) -> bool:
    """Whether a process is no more, or dead and not yet buried by whoever has to."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:  # before it was opened, or before it was read
        return True
