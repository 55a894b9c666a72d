"""flopmeter's own processes, as a user starts them; and what the benches read from their stores."""

import contextlib
import inspect
import socket
import sqlite3
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import corpus
from harness import FLOPMETER, HERE, CannotRun, Running, free_port, listening, run_json

from flopmeter.collector.settings import CollectorSettings

PYTHON = sys.executable
STORE = "books.db"


def default_linger_ms() -> int:
    """The collector's shipped linger."""
    return int(inspect.signature(CollectorSettings).parameters["linger_ms"].default)


def collector_command(folder: Path, port: int, *, tls: bool = False) -> list[object]:
    """The collector with its shipped settings: SQLite FULL, verification, ack after commit; any key admitted.

    `tls`: agents must have a certificate of the authority beside the store.
    """
    return [
        FLOPMETER, "collector", "serve", "--store", folder / STORE, "--listen", f"127.0.0.1:{port}",
        "--http", f"127.0.0.1:{free_port()}", "--admit-new", *(["--tls-name", "127.0.0.1"] if tls else []),
    ]  # fmt: skip


@contextlib.contextmanager
def collector(folder: Path, core: int | None = None, *, tls: bool = False) -> Iterator[tuple[Running, str]]:
    """A collector with an empty store, listening: (process, address)."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    with Running(collector_command(folder, port, tls=tls), folder / "log", core=core) as process:
        process.until("flopmeter collector serve", lambda: listening(port))
        yield process, f"127.0.0.1:{port}"


def tls_arguments(load: Path, folder: Path, *, tls: bool) -> list[object]:
    """What the load program is told so that the collector in `folder` takes it: made before that starts."""
    if not tls:
        return []
    import certificates

    folder.mkdir(parents=True, exist_ok=True)
    return ["--tls", certificates.build(corpus.load(load), folder / "keys", folder / "certificates.pickle")]


def records_in(folder: Path) -> int:
    """How many records are durable in a collector's store."""
    db = sqlite3.connect(f"file:{folder / STORE}?mode=ro", uri=True)
    try:
        return int(db.execute("SELECT count(*) FROM records").fetchone()[0])
    finally:
        db.close()


def small_store(folder: Path) -> Path:
    """A store that a collector filled: 20 nodes, 5 windows."""
    folder.mkdir(parents=True)
    load = corpus.save(corpus.build(20, 5), folder / "load.pickle")
    with collector(folder) as (process, address):
        run_json(
            [HERE / "load.py", "saturate", "--address", address, "--corpus", load, "--server-pid", process.pid,
             "--warm", 0, "--seconds", 5],
            core=None, timeout_s=30, what="small store",
        )  # fmt: skip
    if not records_in(folder):
        raise CannotRun("small store: the collector stored nothing")
    return folder / STORE


def seconds_until(argv: list[object], log: Path, ready: str | int, limit_s: float = 10.0) -> float:
    """Wall time from starting a process until it listens on port `ready`, or its log says `ready`."""
    begin = time.perf_counter()
    with Running(argv, log) as process:

        def is_ready() -> bool:
            if isinstance(ready, int):
                return listening(ready)
            return ready in log.read_text(errors="replace")

        process.until(" ".join(str(a) for a in argv[1:4]), is_ready, limit_s, every_s=0.002)
        return time.perf_counter() - begin


def seconds_to_listen(folder: Path) -> float:
    """Start of `flopmeter collector serve` on a new store until agents can connect."""
    here = folder / f"serve-{time.monotonic_ns()}"
    here.mkdir()
    port = free_port()
    return seconds_until(collector_command(here, port), here / "log", port)


def agent_command(folder: Path, address: str | None, window_s: int) -> list[object]:
    """An agent of 8 simulated H100, ticking once a second (the defaults), shipping to `address`."""
    ship = ["--collector", address] if address else []
    return [
        FLOPMETER, "agent", "run", "--source", "sim", "--state", folder / "state", "--node", folder.name,
        "--cluster", "bench", "--window", f"{window_s}s", *ship,
    ]  # fmt: skip


def agent(folder: Path, address: str, window_s: int) -> Running:
    """A running agent; its folder's name is its node's."""
    folder.mkdir(parents=True)
    return Running(agent_command(folder, address, window_s), folder / "log")


def seconds_to_first_tick(folder: Path) -> float:
    """Start of `flopmeter agent run` until it tells systemd that it meters: the first tick follows at once."""
    here = folder / f"agent-{time.monotonic_ns()}"
    here.mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        name = f"\0flopmeter-bench-{time.monotonic_ns()}"
        systemd.bind(name)
        systemd.settimeout(10.0)
        begin = time.perf_counter()
        with Running(
            agent_command(here, None, 60), here / "log", env={"NOTIFY_SOCKET": "@" + name[1:]}
        ) as process:
            try:
                while b"READY=1" not in systemd.recv(4096):
                    pass
            except TimeoutError:
                raise CannotRun(f"agent run: did not meter within 10 s:\n{process.tail()}") from None
            return time.perf_counter() - begin


def books_arguments(store: Path) -> list[object]:
    """How a command that reads the books is told where they are."""
    return ["--store", store]
