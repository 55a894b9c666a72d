"""A network that misbehaves, between a real agent and a real collector: gRPC in, gRPC out, seeded.

It passes messages on as raw bytes, and at random sends a records message twice, holds one back behind the
next, waits, or cuts the stream on either side of a message. It never changes a byte.
"""

import asyncio
import contextlib
import random
import threading
from collections import Counter
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self

import grpc
import grpc.aio

PATH = "/flopmeter.wire.v1.IngestService/Stream"
_RECORDS_TAG = 0x12  # StreamRequest.records = 2, length-delimited


class ChaosProxy:
    """`with ChaosProxy(target, seed) as proxy:` then ship to `proxy.address`; `proxy.done` counts mischief."""

    def __init__(self, target: str, seed: int, *, cut: float = 0.05, mangle: float = 0.3) -> None:
        self.target = target
        self.done: Counter[str] = Counter()
        self.address = ""
        self.calm = False  # set: pass everything on as it is
        self._random = random.Random(seed)
        self._cut = cut
        self._mangle = mangle
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(60), "the proxy did not start"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._loop is not None
        assert self._stop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(60)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        server = grpc.aio.server()
        method = grpc.stream_stream_rpc_method_handler(self._stream)
        service, name = PATH.strip("/").split("/")
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {name: method}),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        self.address = f"127.0.0.1:{port}"
        self._ready.set()
        await self._stop.wait()
        await server.stop(0)

    async def _stream(self, requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext) -> None:
        async with grpc.aio.insecure_channel(self.target) as channel:
            call = channel.stream_stream(PATH)()
            up = asyncio.create_task(self._up(requests, call))
            down = asyncio.create_task(self._down(call, context))
            await asyncio.wait((up, down), return_when=asyncio.FIRST_COMPLETED)
            call.cancel()
            for task in (up, down):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, grpc.RpcError, _CutError):
                    await task
        await context.abort(grpc.StatusCode.UNAVAILABLE, "chaos: the stream was cut")

    async def _up(self, requests: AsyncIterator[bytes], call: grpc.aio.StreamStreamCall) -> None:
        held: bytes | None = None
        async for message in requests:
            if self.calm or message[:1] != bytes([_RECORDS_TAG]):
                await call.write(message)
                continue
            self._maybe_cut("cut before")
            act = "passed"
            if self._chance(self._mangle) or self._owed("late"):
                # Each kind in turn: a run of any length sees them all.
                act = min(("twice", "held", "late"), key=lambda kind: self.done[kind])
            self.done[act] += 1
            if act == "held" and held is None:
                held = message
                continue
            if act == "late":
                await asyncio.sleep(self._random.uniform(0, 0.05))
            await call.write(message)
            if act == "twice":
                await call.write(message)
            if held is not None:
                await call.write(held)
                held = None
            self._maybe_cut("cut behind")
        await call.done_writing()
        await asyncio.Event().wait()  # the collector ends the stream

    async def _down(self, call: grpc.aio.StreamStreamCall, context: grpc.aio.ServicerContext) -> None:
        async for message in call:
            if not self.calm and self._chance(self._cut / 2):
                self.done["ack lost"] += 1
                raise _CutError
            await context.write(message)

    def _owed(self, kind: str) -> bool:
        """Chance has left it out for long enough."""
        return self.done["passed"] > 10 and not self.done[kind]

    def _maybe_cut(self, where: str) -> None:
        if not self.calm and (self._chance(self._cut) or self._owed(where)):
            self.done[where] += 1
            raise _CutError

    def _chance(self, share: float) -> bool:
        return self._random.random() < share


class _CutError(Exception):
    pass
