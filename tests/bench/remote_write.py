"""The ingest peer: Debian's Prometheus taking remote write. Also its load program, which prints one JSON object.

    remote_write.py --port P --server-pid P --nodes N --steps K [--connections 8] [--warm-steps 2] [--seconds 6]

One request is one node batch: the same 96 samples as one of our records, 96 series with the labels a GPU exporter
gives, encoded (remote write 1.0: protobuf, snappy) before any clock runs, sent over keep-alive connections.
"""

import argparse
import json
import random
import socket
import struct
import threading
import time
from pathlib import Path

import corpus
import harness
import snappy

METRICS = (
    "duration_seconds_total", "sm_elapsed_cycles_total", "sm_active_cycles_total", "hmma_cycles_total",
    "imma_cycles_total", "dmma_cycles_total", "tensor_other_cycles_total", "fp64_cycles_total", "fp32_cycles_total",
    "fp16_cycles_total", "int_cycles_total", "energy_joules_total",
)  # fmt: skip
STEP_MS = 60_000


def start(folder: Path, core: int) -> tuple[harness.Running, int]:
    """A Prometheus with an empty database on loopback, scraping nothing."""
    program = harness.debian_program("prometheus", "prometheus")
    folder.mkdir(parents=True)
    config = folder / "prometheus.yml"
    config.write_text("global: {scrape_interval: 1h}\n")
    port = harness.free_port()
    running = harness.Running(
        [
            program,
            f"--config.file={config}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--web.enable-remote-write-receiver",
            "--log.level=error",
        ],
        folder / "log",
        core=core,
    )
    try:
        running.until("prometheus", lambda: harness.listening(port))
    except BaseException:
        running.stop()
        raise
    return running, port


# Encoding: remote write 1.0, prometheus/prompb/remote.proto ------------------------------------------------


def _varint(n: int) -> bytes:
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    out.append(n)
    return bytes(out)


def _bytes_field(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def series_labels(node: int, gpu: int, metric: str) -> bytes:
    """TimeSeries.labels of one series, sorted by name as remote write demands."""
    labels = {
        "__name__": f"flopmeter_gpu_{metric}",
        "cluster": "bench",
        "gpu": str(gpu),
        "hw_id": corpus.gpu_uuid(node, gpu),
        "instance": f"gpu-{node:05d}:9464",
        "job": "flopmeter",
        "run": f"pretrain-{node // corpus.NODES_PER_RUN}",
    }
    return b"".join(
        _bytes_field(1, _bytes_field(1, k.encode()) + _bytes_field(2, v.encode()))
        for k, v in sorted(labels.items())
    )


def write_request(labels: list[bytes], values: list[float], t_ms: int) -> bytes:
    """A serialised WriteRequest: one sample for each series."""
    stamp = b"\x10" + _varint(t_ms)
    out = bytearray()
    for head, value in zip(labels, values, strict=True):
        sample = b"\x09" + struct.pack("<d", value) + stamp
        out += _bytes_field(1, head + _bytes_field(2, sample))
    return bytes(out)


def http_request(body: bytes) -> bytes:
    return (
        b"POST /api/v1/write HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/x-protobuf\r\n"
        b"Content-Encoding: snappy\r\nX-Prometheus-Remote-Write-Version: 0.1.0\r\nUser-Agent: bench\r\n"
        b"Content-Length: %d\r\n\r\n" % len(body)
    ) + body


def requests(nodes: int, steps: int) -> list[list[bytes]]:
    """requests[step][node]: whole HTTP requests; counters that grow, one step = 60 s, all before now."""
    begin_ms = int(time.time() * 1000) - steps * STEP_MS
    rng = random.Random(1)
    heads = [[series_labels(n, g, m) for g in range(corpus.GPUS) for m in METRICS] for n in range(nodes)]
    values = [[rng.uniform(1e9, 1e15) for _ in range(corpus.SAMPLES)] for _ in range(nodes)]
    out = []
    for step in range(steps):
        t_ms, row = begin_ms + step * STEP_MS, []
        for n in range(nodes):
            mine = values[n]
            grow = rng.random()
            for i in range(corpus.SAMPLES):
                mine[i] += float(int(1e13 * (grow + i * 0.013)))
            row.append(http_request(snappy.compress(write_request(heads[n], mine, t_ms))))
        out.append(row)
    return out


# Load program ---------------------------------------------------------------------------------------------


class Connection(threading.Thread):
    """One keep-alive connection that posts its share of the nodes, step by step, until told to stop."""

    def __init__(self, port: int, work: list[list[bytes]], stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.work, self.stop_event = work, stop
        self.done, self.step, self.trouble = 0, 0, ""

    def run(self) -> None:
        for step, row in enumerate(self.work):
            self.step = step
            for request in row:
                if self.stop_event.is_set():
                    return
                self.socket.sendall(request)
                answer = self.socket.recv(4096)
                if not answer.startswith(b"HTTP/1.1 204"):
                    self.trouble = answer[:300].decode(errors="replace")
                    self.stop_event.set()
                    return
                self.done += 1
        self.stop_event.set()


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, default in (
        ("port", None),
        ("server-pid", None),
        ("nodes", 500),
        ("steps", 40),
        ("connections", 8),
        ("warm-steps", 2),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, required=default is None)
    parser.add_argument("--seconds", type=float, default=6.0)
    args = parser.parse_args()
    rows = requests(args.nodes, args.steps)
    stop = threading.Event()
    threads = [
        Connection(args.port, [row[c :: args.connections] for row in rows], stop)
        for c in range(args.connections)
    ]
    for t in threads:
        t.start()
    while (
        min(t.step for t in threads) < args.warm_steps and not stop.is_set()
    ):  # series are made in the first step
        stop.wait(0.01)
    before = (harness.cpu_ns(args.server_pid), time.perf_counter_ns(), sum(t.done for t in threads))
    stop.wait(args.seconds)
    after = (harness.cpu_ns(args.server_pid), time.perf_counter_ns(), sum(t.done for t in threads))
    stop.set()
    server, wall, batches = (b - a for a, b in zip(before, after, strict=True))
    for t in threads:
        t.join(5)
    print(
        json.dumps(
            {
                "acks": batches,
                "wall_s": wall / 1e9,
                "server_cpu_s": server / 1e9,
                "server_cores": server / wall,
                "us_per_batch": server / 1e3 / batches if batches else None,
                "rss_kib": harness.memory_kib(args.server_pid),
                "bytes_per_batch": len(rows[-1][0].split(b"\r\n\r\n", 1)[1]),
                "exhausted": all(t.step == args.steps - 1 for t in threads),
                "troubles": [t.trouble for t in threads if t.trouble],
            }
        )
    )


if __name__ == "__main__":
    main()
