"""Streams: 100,000 GPUs' worth of paced batches over 2,500 streams; 5,000 streams opened at once; memory of each."""

import resource
from pathlib import Path

import corpus
import ours
from harness import HERE, CannotRun, Figure, calibrate, cores, pinned, progress, run_json

RATE, STREAMS, SECONDS = 417, 2_500, 15.0
STORM, OPENING_LIMIT_S = 5_000, 90.0
GOAL_CORES, GOAL_P99_OVER_LINGER_MS = 0.4, 100
GOAL_KIB, GOAL_KIB_TLS = 50, 90


def run(folder: Path, *, tls: bool = False) -> list[Figure]:
    """`tls`: over mTLS, each agent with a certificate of its own; then only the storm and the memory have goals."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < STORM + 100:
        raise CannotRun(
            f"streams: expected a descriptor limit of {STORM + 100} or more, got {hard}; raise it (ulimit -n)"
        )
    return [*([] if tls else _paced(folder)), *_storm(folder, tls=tls)]


def _paced(folder: Path) -> list[Figure]:
    server, client = cores()
    progress(f"streams: {RATE} batches/s over {STREAMS:,} streams for {SECONDS:.0f} s")
    records_each = int((SECONDS + 3) * RATE / STREAMS) + 2
    load = corpus.save(corpus.build(STREAMS, records_each), folder / "paced.pickle")
    with pinned(server):
        calibration = calibrate()
    with ours.collector(folder / "paced", core=server) as (process, address):
        result = run_json(
            [HERE / "load.py", "paced", "--address", address, "--corpus", load, "--server-pid", process.pid,
             "--rate", RATE, "--seconds", SECONDS],
            core=client, timeout_s=120, what="paced load",
        )  # fmt: skip
        tail = process.tail()
    if result["troubles"]:
        raise CannotRun(f"streams: the collector refused good records: {result['troubles'][0]}\n{tail}")
    linger = ours.default_linger_ms()
    rate = result["acks"] / result["wall_s"]
    kept_up = rate >= 0.97 * RATE
    return [
        Figure(
            "streams", f"server cores at {RATE} batches/s, {STREAMS:,} streams", f"{result['server_cores']:.2f}",
            f"{rate:.0f}/s acked", "", f"<= {GOAL_CORES}", kept_up and result["server_cores"] <= GOAL_CORES,
            calibration, result,
        ),
        Figure(
            "streams", f"durable ack p50 / p99 at linger {linger} ms",
            f"{result['p50_ms']:.0f} / {result['p99_ms']:.0f} ms", "", "",
            f"p99 <= {linger + GOAL_P99_OVER_LINGER_MS} ms",
            kept_up and result["p99_ms"] <= linger + GOAL_P99_OVER_LINGER_MS, calibration,
        ),
    ]  # fmt: skip


def _storm(folder: Path, *, tls: bool) -> list[Figure]:
    name, goal = ("streams, mTLS", GOAL_KIB_TLS) if tls else ("streams", GOAL_KIB)
    server, client = cores()
    progress(f"streams: {STORM:,} streams opened at once")
    load = corpus.save(corpus.build(STORM, 0), folder / "storm.pickle")
    with pinned(server):
        calibration = calibrate()
    more = ours.tls_arguments(load, folder / "storm", tls=tls)
    with ours.collector(folder / "storm", core=server, tls=tls) as (process, address):
        result = run_json(
            [HERE / "load.py", "storm", "--address", address, "--corpus", load, "--server-pid", process.pid,
             "--seconds", OPENING_LIMIT_S, *more],
            core=client, timeout_s=OPENING_LIMIT_S + 60, what="storm of streams",
        )  # fmt: skip
    refused = result["streams"] - result["welcomed"]
    return [
        Figure(
            name, f"refused of {STORM:,} streams opened at once", str(refused),
            f"opened in {result['opening_s']:.1f} s, {result['server_cpu_ms_per_stream']:.2f} CPU ms each", "",
            "0", refused == 0, calibration, result,
        ),
        Figure(
            name, "RSS per idle stream", f"{result['kib_per_stream']:.1f} KiB",
            f"{result['rss_kib'] / 1024:.0f} MiB in all, idle {result['idle_cores']:.3f} core", "",
            f"<= {goal} KiB", refused == 0 and result["kib_per_stream"] <= goal, calibration,
        ),
    ]  # fmt: skip
