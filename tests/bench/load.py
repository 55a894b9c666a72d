"""The load program: one process, many agents, each with its own connection and stream. Prints one JSON object.

    load.py saturate --address A --corpus F --server-pid P [--depth 4] [--warm 1.5] [--seconds 6]
    load.py paced    --address A --corpus F --server-pid P --rate 417 --seconds 12
    load.py storm    --address A --corpus F --server-pid P [--hold 3]

Server CPU is read here, at the very ends of the measured span. Everything sent was signed and serialised before.
"""

import argparse
import asyncio
import json
import os
import resource
import time
from pathlib import Path

import certificates
import corpus
import grpc
import grpc.aio
import harness

from flopmeter.wire.v1 import ingest_pb2 as pb

METHOD = "/flopmeter.wire.v1.IngestService/Stream"
OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),  # each agent a connection of its own, as in a cluster
    ("grpc.enable_http_proxy", 0),
    # A client of gRPC gives a connection 20 s to come about, and tries again later. Here nobody tries again: of 5,000 at
    # once the last waits its turn for the whole time that the bench allows, so that a refusal is the collector's.
    ("grpc.min_reconnect_backoff_ms", 90_000),
)


class Broken(Exception):  # noqa: N818 - what happened to the stream
    """The collector said something that a good agent's stream never hears."""


class Counts:
    """What the streams of this process did."""

    def __init__(self) -> None:
        self.welcomed = self.acked = self.acks_read = self.exhausted = 0
        self.latency_ms: list[float] = []
        self.troubles: list[str] = []
        self.stop = asyncio.Event()


class Stream:
    """One agent's connection, from channel to acks."""

    def __init__(
        self, address: str, node: corpus.Node, counts: Counts, tls: certificates.Certificates | None = None
    ) -> None:
        if tls is None:
            self.channel = grpc.aio.insecure_channel(address, options=OPTIONS)
        else:
            mine = grpc.ssl_channel_credentials(tls.ca, tls.key, tls.chains[node.public_key])
            self.channel = grpc.aio.secure_channel(address, mine, options=OPTIONS)
        self.node, self.counts = node, counts
        self.call: grpc.aio.StreamStreamCall = None
        self.acked = 0

    async def open(self) -> None:
        self.call = self.channel.stream_stream(METHOD, request_serializer=None, response_deserializer=None)()
        nonce = (await self._read("challenge")).challenge.nonce
        await self.call.write(self.node.hello(nonce))
        resume = (await self._read("welcome")).welcome.resume_seq
        if resume != 1:
            raise Broken(f"expected a new agent to resume at 1, got {resume}")
        await self.call.write(self.node.inventory_message)
        self.counts.welcomed += 1

    async def _read(self, expected: str) -> pb.StreamResponse:
        while True:
            raw = await self.call.read()
            if raw is grpc.aio.EOF:
                raise Broken(
                    f"expected {expected}, got the end: {await self.call.code()} {await self.call.details()}"
                )
            message = pb.StreamResponse.FromString(raw)
            if message.WhichOneof("kind") != "checkpoint":  # heads of the log come when they are made
                break
        if message.WhichOneof("kind") != expected:
            raise Broken(f"expected {expected}, got {message}")
        return message

    async def ack(self) -> int:
        """Read the next ack; returns how many records it newly made durable."""
        seq = (await self._read("ack")).ack.seq
        new, self.acked = seq - self.acked, seq
        self.counts.acked += new
        self.counts.acks_read += 1
        return new

    async def closed_loop(self, depth: int) -> None:
        """Keep `depth` records in flight until told to stop or out of records."""
        messages, sent = self.node.messages, 0
        while not self.counts.stop.is_set():
            while sent - self.acked < depth and sent < len(messages):
                await self.call.write(messages[sent])
                sent += 1
            if self.acked == len(messages):
                self.counts.exhausted += 1
                self.counts.stop.set()
                return
            await self.ack()

    async def paced(self, start: float, every_s: float) -> None:
        """One record every `every_s`, the first at `start`; latency from the write to the ack."""
        for k, message in enumerate(self.node.messages):
            await asyncio.sleep(start + k * every_s - time.monotonic())
            if self.counts.stop.is_set():
                return
            written = time.perf_counter()
            await self.call.write(message)
            while self.acked < k + 1:
                await self.ack()
            self.counts.latency_ms.append((time.perf_counter() - written) * 1e3)

    async def close(self) -> None:
        if self.call is not None:
            self.call.cancel()
        await self.channel.close()


async def guarded(counts: Counts, work: object) -> None:
    try:
        await work
    except (Broken, grpc.aio.AioRpcError, asyncio.CancelledError) as e:
        if not counts.stop.is_set():
            counts.troubles.append(str(e)[:300] or type(e).__name__)
            counts.stop.set()


class Span:
    """CPU of the server, CPU of this client, wall time and acks between two instants."""

    def __init__(self, pid: int, counts: Counts) -> None:
        self.pid, self.counts = pid, counts
        self.start = self._now()

    def _now(self) -> tuple[int, ...]:
        clocks = (harness.cpu_ns(self.pid), time.process_time_ns(), time.perf_counter_ns())
        return *clocks, harness.idle_ns(min(os.sched_getaffinity(self.pid))), self.counts.acked

    def end(self) -> dict:
        server, client, wall, idle, acks = (b - a for a, b in zip(self.start, self._now(), strict=True))
        return {
            "acks": acks,
            "wall_s": wall / 1e9,
            "server_cpu_s": server / 1e9,
            "server_cores": server / wall,
            "server_core_idle": idle / wall,  # where the server is pinned to one core
            "client_cores": client / wall,
            "us_per_batch": server / 1e3 / acks if acks else None,
            "rss_kib": harness.memory_kib(self.pid),
        }


async def open_all(args: argparse.Namespace, counts: Counts, at_once: int) -> list[Stream]:
    """Open every node's stream, at most `at_once` handshakes at a time."""
    tls = certificates.load(args.tls)
    streams = [Stream(args.address, node, counts, tls) for node in corpus.load(args.corpus)]
    gate = asyncio.Semaphore(at_once)

    async def one(stream: Stream) -> None:
        async with gate:
            await stream.open()

    await asyncio.gather(*(guarded(counts, one(s)) for s in streams))
    if counts.troubles:
        raise SystemExit(
            f"opening {len(streams)} streams: {len(counts.troubles)} failed, first: {counts.troubles[0]}"
        )
    return streams


async def saturate(args: argparse.Namespace) -> dict:
    counts = Counts()
    streams = await open_all(args, counts, 64)
    tasks = [asyncio.create_task(guarded(counts, s.closed_loop(args.depth))) for s in streams]
    await stop_or(counts, args.warm)
    span = Span(args.server_pid, counts)
    await stop_or(counts, args.seconds)
    result = span.end()
    counts.stop.set()
    return await finish(streams, tasks, counts, result)


async def paced(args: argparse.Namespace) -> dict:
    counts = Counts()
    before = harness.memory_kib(args.server_pid)
    streams = await open_all(args, counts, 64)
    await asyncio.sleep(1.0)
    every_s = len(streams) / args.rate
    begin = time.monotonic() + 0.5
    tasks = [
        asyncio.create_task(guarded(counts, s.paced(begin + i / args.rate, every_s)))
        for i, s in enumerate(streams)
    ]
    await stop_or(counts, 1.0 + 0.5)
    span = Span(args.server_pid, counts)
    counts.latency_ms.clear()
    await stop_or(counts, args.seconds)
    result = span.end()
    latency = sorted(counts.latency_ms)
    counts.stop.set()
    result["kib_per_stream"] = (result["rss_kib"] - before) / len(streams)
    for name, part in (("p50_ms", 0.5), ("p99_ms", 0.99), ("worst_ms", 1.0)):
        result[name] = latency[min(len(latency) - 1, int(len(latency) * part))] if latency else None
    return await finish(streams, tasks, counts, result)


async def storm(args: argparse.Namespace) -> dict:
    counts = Counts()
    tls = certificates.load(args.tls)
    streams = [Stream(args.address, node, counts, tls) for node in corpus.load(args.corpus)]
    before = harness.memory_kib(args.server_pid)
    span = Span(args.server_pid, counts)

    async def one(stream: Stream) -> None:
        try:
            await stream.open()
        except (Broken, grpc.aio.AioRpcError) as e:
            counts.troubles.append(str(e)[:300])

    await asyncio.wait_for(asyncio.gather(*(one(s) for s in streams)), args.seconds)
    opening = span.end()
    await asyncio.sleep(args.hold)
    idle = Span(args.server_pid, counts)
    await asyncio.sleep(2.0)
    result = {
        "streams": len(streams),
        "welcomed": counts.welcomed,
        "refused": len(counts.troubles),
        "opening_s": opening["wall_s"],
        "server_cpu_ms_per_stream": opening["server_cpu_s"] * 1e3 / len(streams),
        "idle_cores": idle.end()["server_cores"],
        "rss_before_kib": before,
        "rss_kib": harness.memory_kib(args.server_pid),
    }
    result["kib_per_stream"] = (result["rss_kib"] - before) / max(1, counts.welcomed)
    counts.stop.set()
    return await finish(streams, [], counts, result)


async def stop_or(counts: Counts, seconds: float) -> None:
    try:
        await asyncio.wait_for(counts.stop.wait(), seconds)
    except TimeoutError:
        return


async def finish(streams: list[Stream], tasks: list[asyncio.Task], counts: Counts, result: dict) -> dict:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.gather(*(s.close() for s in streams), return_exceptions=True)
    return {
        **result,
        "streams": len(streams),
        "exhausted": counts.exhausted,
        "acks_read": counts.acks_read,
        "records_acked": counts.acked,
        "troubles": counts.troubles[:5],
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("mode", choices=("saturate", "paced", "storm"))
    parser.add_argument("--address", required=True)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--tls", type=Path, help="certificates (certificates.py); without: plain text")
    parser.add_argument("--server-pid", type=int, required=True)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--warm", type=float, default=1.5)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--rate", type=float, default=417.0)
    parser.add_argument("--hold", type=float, default=3.0)
    args = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    work = {"saturate": saturate, "paced": paced, "storm": storm}[args.mode]
    print(json.dumps(asyncio.run(work(args))))


if __name__ == "__main__":
    main()
