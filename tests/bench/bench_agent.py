"""The agent: CPU and memory at 1 Hz with 8 simulated GPUs, beside what else watches a node, all in one span.

All at once, unpinned, for a minute, each doing its usual work: our agent with 60 s windows (the default) and with
10 s windows, both shipping to our collector; the OpenTelemetry Python SDK exporting the same 96 series each second;
node_exporter with its default collectors, scraped once a second.
"""

import contextlib
import http.client
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import ours
from harness import (
    HERE,
    CannotRun,
    Figure,
    Running,
    calibrate,
    cpu_ns,
    debian_program,
    free_port,
    listening,
    memory_kib,
    progress,
)

SETTLE_S, SECONDS = 6.0, 60.0  # 60 s hold exactly one end of a 60 s window
GOAL_PERCENT, GOAL_MIB, GOAL_OTEL, GOAL_NODE_EXPORTER = 0.25, 64.0, 0.5, 0.2


@dataclass
class Watched:
    name: str
    process: Running
    percent: float = 0.0
    rss_mib: float = 0.0


def run(folder: Path) -> list[Figure]:
    progress(f"agent: {SECONDS:.0f} s beside the OpenTelemetry SDK and node_exporter")
    with contextlib.ExitStack() as stack:
        watched = _start(folder, stack)
        time.sleep(SETTLE_S)
        calibration = calibrate()
        _measure(watched)
        for w in watched.values():
            if w.process.process.poll() is not None:
                raise CannotRun(
                    f"agent: {w.name} ended with {w.process.process.returncode}:\n{w.process.tail()}"
                )
        shipped = ours.records_in(folder / "collector")
    if shipped < 5:  # 10 s windows alone seal six in the span
        raise CannotRun(f"agent: expected the agents to ship at least 5 records, the collector has {shipped}")
    return _figures(watched, calibration, shipped)


def _start(folder: Path, stack: contextlib.ExitStack) -> dict[str, Watched]:
    watched: dict[str, Watched] = {}
    _, address = stack.enter_context(ours.collector(folder / "collector"))
    for key, window in (("agent-60", 60), ("agent-10", 10)):
        process = stack.enter_context(ours.agent(folder / key, address, window_s=window))
        watched[key] = Watched(f"flopmeter agent, {window} s windows", process)
    port = free_port()
    receiver = stack.enter_context(
        Running([ours.PYTHON, HERE / "otel_peer.py", "receive", "--port", port], folder / "otel-receiver.log")
    )
    receiver.until("OTLP receiver", lambda: listening(port))
    sdk = Running([ours.PYTHON, HERE / "otel_peer.py", "export", "--port", port], folder / "otel-sdk.log")
    watched["otel"] = Watched("OpenTelemetry SDK", stack.enter_context(sdk))
    try:
        program = debian_program("prometheus-node-exporter", "prometheus-node-exporter")
    except CannotRun as e:
        progress(f"agent: {e}")
        return watched
    web = free_port()
    exporter = stack.enter_context(
        Running(
            [program, f"--web.listen-address=127.0.0.1:{web}", "--log.level=error"],
            folder / "node-exporter.log",
        )
    )
    exporter.until("node_exporter", lambda: listening(web))
    watched["node"] = Watched("node_exporter", exporter)
    stop = threading.Event()
    scraper = threading.Thread(target=_scrape, args=(web, stop), daemon=True)
    scraper.start()
    stack.callback(scraper.join, 3)
    stack.callback(stop.set)
    return watched


def _scrape(port: int, stop: threading.Event) -> None:
    """Fetch /metrics once a second over one kept connection, as Prometheus does."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    while not stop.is_set():
        connection.request("GET", "/metrics", headers={"Accept-Encoding": "gzip"})
        connection.getresponse().read()
        stop.wait(1.0)
    connection.close()


def _measure(watched: dict[str, Watched]) -> None:
    before = {k: cpu_ns(w.process.pid) for k, w in watched.items()}
    start = time.perf_counter_ns()
    time.sleep(SECONDS)
    wall = time.perf_counter_ns() - start
    for key, w in watched.items():
        w.percent = 100 * (cpu_ns(w.process.pid) - before[key]) / wall
        w.rss_mib = memory_kib(w.process.pid, "VmHWM") / 1024


def _figures(watched: dict[str, Watched], calibration: float, shipped: int) -> list[Figure]:
    detail = {k: {"percent": w.percent, "rss_peak_mib": w.rss_mib} for k, w in watched.items()}
    detail["records_shipped"] = shipped
    figures = []
    for key in ("agent-60", "agent-10"):
        mine = watched[key]
        figures.append(
            Figure(
                "agent", f"CPU, {mine.name.split(', ')[1]}", f"{mine.percent:.3f} % of a core", "", "",
                f"<= {GOAL_PERCENT} %", mine.percent <= GOAL_PERCENT, calibration, detail,
            )
        )  # fmt: skip
        for peer, goal in (("otel", GOAL_OTEL), ("node", GOAL_NODE_EXPORTER)):
            if peer not in watched:
                figures.append(
                    Figure(
                        "agent",
                        "  against node_exporter",
                        "",
                        "not measured: apt-get install -y prometheus-node-exporter",
                    )
                )
                continue
            ratio = mine.percent / watched[peer].percent
            figures.append(
                Figure(
                    "agent", f"  against {watched[peer].name}", f"{mine.percent:.3f} %",
                    f"{watched[peer].percent:.3f} %", f"{ratio:.2f}x", f"<= {goal}x", ratio <= goal, calibration,
                )
            )  # fmt: skip
        figures.append(
            Figure(
                "agent", f"  RSS at its highest, {mine.name.split(', ')[1]}", f"{mine.rss_mib:.1f} MiB",
                f"{watched['otel'].rss_mib:.1f} MiB OpenTelemetry SDK", f"{mine.rss_mib / watched['otel'].rss_mib:.2f}x",
                f"<= {GOAL_MIB:.0f} MiB", mine.rss_mib <= GOAL_MIB, calibration,
            )
        )  # fmt: skip
    return figures
