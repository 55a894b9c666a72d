"""Ingest: node batches per server CPU-second, saturated, beside Prometheus remote write and the floor.

Server on one core, load program on the other. Each round: ours, Prometheus, the floor, in turn, each from an empty
store on the same records or samples; a ratio is the median of the rounds' ratios.
"""

from pathlib import Path

import corpus
import ours
import remote_write
from harness import HERE, CannotRun, Figure, calibrate, cores, median, pinned, progress, run_json

NODES, RECORDS_EACH, DEPTH, ROUNDS, SECONDS = 500, 110, 16, 3, 6.0
#: Idle share of the server's core above which the load program was the limit, and the figures claim nothing.
#: What other programs take of that core makes ours dearer (cold caches, shorter bursts), never cheaper.
MAX_IDLE = 0.1


def run(folder: Path, *, tls: bool = False) -> list[Figure]:
    """`tls`: agents over mTLS, Prometheus and the floor as ever."""
    server, client = cores()
    progress(f"ingest: signing {NODES * RECORDS_EACH:,} records of {NODES} nodes")
    load = corpus.save(corpus.build(NODES, RECORDS_EACH), folder / "load.pickle")
    rounds = []
    for number in range(1, ROUNDS + 1):
        progress(f"ingest: round {number} of {ROUNDS}: flopmeter, Prometheus, floor")
        here = folder / f"round-{number}"
        here.mkdir()
        with pinned(server):
            calibration = calibrate()
        before = _floor(here / "floor-1", load, server)
        mine = _ours(here, load, server, client, tls=tls)
        after = _floor(here / "floor-2", load, server)
        peer = _prometheus(here, server, client)
        rounds.append(
            {"calibration_us": calibration, "ours": mine, "prometheus": peer, "floors": [before, after]}
        )
    return _figures(rounds, "ingest, mTLS" if tls else "ingest")


def _floor(folder: Path, load: Path, core: int) -> dict:
    return run_json(
        [HERE / "floor.py", "--corpus", load, "--folder", folder], core=core, timeout_s=60, what="floor"
    )


def _ours(folder: Path, load: Path, server: int, client: int, *, tls: bool) -> dict:
    more = ours.tls_arguments(load, folder / "ours", tls=tls)
    with ours.collector(folder / "ours", core=server, tls=tls) as (process, address):
        result = run_json(
            [HERE / "load.py", "saturate", "--address", address, "--corpus", load, "--server-pid", process.pid,
             "--depth", DEPTH, "--seconds", SECONDS, *more],
            core=client, timeout_s=90, what="load on flopmeter",
        )  # fmt: skip
        if result["troubles"]:
            raise CannotRun(
                f"ingest: the collector refused good records: {result['troubles'][0]}\n{process.tail()}"
            )
        return result


def _prometheus(folder: Path, server: int, client: int) -> dict | None:
    try:
        process, port = remote_write.start(folder / "prometheus", core=server)
    except CannotRun as e:
        progress(f"ingest: {e}")
        return None
    with process:
        result = run_json(
            [HERE / "remote_write.py", "--port", port, "--server-pid", process.pid, "--nodes", NODES,
             "--seconds", SECONDS],
            core=client, timeout_s=90, what="load on Prometheus",
        )  # fmt: skip
        if result["troubles"]:
            raise CannotRun(f"ingest: Prometheus refused the samples: {result['troubles'][0]}")
        return result


def _figures(rounds: list[dict], name: str) -> list[Figure]:
    us = median([r["ours"]["us_per_batch"] for r in rounds])
    calibration = median([r["calibration_us"] for r in rounds])
    idle = max(r["ours"]["server_core_idle"] for r in rounds)
    saturated = idle <= MAX_IDLE
    figures = []
    if all(r["prometheus"] for r in rounds):
        ratio = median([r["prometheus"]["us_per_batch"] / r["ours"]["us_per_batch"] for r in rounds])
        peer = median([r["prometheus"]["us_per_batch"] for r in rounds])
        rate = f"{1e6 / peer:,.0f} ({peer:.0f} us) Prometheus"
    else:
        ratio, rate = None, "not measured: apt-get install -y prometheus"
    figures.append(
        Figure(
            name, "node batches per server CPU-second", f"{1e6 / us:,.0f} ({us:.0f} us)", rate,
            f"{ratio:.2f}x" if ratio else "", ">= 2.5x",
            (ratio >= 2.5) if ratio and saturated else None, calibration, {"rounds": rounds},
        )
    )  # fmt: skip
    floors = [f for r in rounds for f in r["floors"]]
    over = median(
        [2 * r["ours"]["us_per_batch"] / sum(f["us_per_record"] for f in r["floors"]) for r in rounds]
    )  # each round against the floor just before and just after it
    parts = {p: median([f["parts_us"][p] for f in floors]) for p in floors[0]["parts_us"]}
    text = " + ".join(f"{name} {value:.1f}" for name, value in parts.items())
    figures.append(
        Figure(
            name, "CPU us per record against the floor", f"{us:.0f} us",
            f"{median([f['us_per_record'] for f in floors]):.0f} us = {text}",
            f"{over:.2f}x", "<= 2.2x", (over <= 2.2) if saturated else None, calibration, {"parts_us": parts},
        )
    )  # fmt: skip
    figures.append(
        Figure(
            name, "server's core idle, most of the rounds", f"{idle:.2f}",
            f"by the server {min(r['ours']['server_cores'] for r in rounds):.2f} or more",
            goal=f"<= {MAX_IDLE}", met=saturated, calibration_us=calibration,
            detail={"wall_batches_per_s": [r["ours"]["acks"] / r["ours"]["wall_s"] for r in rounds]},
        )
    )  # fmt: skip
    memory = [r["ours"]["rss_kib"] for r in rounds]
    peers = [r["prometheus"]["rss_kib"] for r in rounds if r["prometheus"]]
    figures.append(
        Figure(
            name, f"RSS at {NODES} streams", f"{median(memory) / 1024:.0f} MiB",
            f"{median(peers) / 1024:.0f} MiB Prometheus" if peers else "",
            f"{median(memory) / median(peers):.2f}x" if peers else "", calibration_us=calibration,
        )
    )  # fmt: skip
    return figures
