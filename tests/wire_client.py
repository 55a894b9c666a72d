"""An agent's end of the stream, by hand: what is sent and what comes back, each with a deadline."""

import queue
import threading
from collections.abc import Iterator
from typing import Self

import grpc
from builders import Chain, inventory_message, records_message

from flopmeter.wire.v1 import ingest_pb2

METHOD = "/flopmeter.wire.v1.IngestService/Stream"
TIMEOUT_S = 60.0


class Ended(Exception):  # noqa: N818 - what happened to the stream
    """The collector ended the stream; `code` is gRPC's."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(f"{code}: {details}")
        self.code = code


class WireClient:
    """One stream of one agent."""

    def __init__(self, address: str, chain: Chain, channel: grpc.Channel | None = None) -> None:
        """`channel`: one with TLS; None: plain text."""
        self.chain = chain
        self.channel = channel or grpc.insecure_channel(
            address, options=(("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0))
        )
        self._out: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._in: queue.SimpleQueue[bytes | Ended] = queue.SimpleQueue()
        self.call = self.channel.stream_stream(METHOD)(iter(self._out.get, None))
        threading.Thread(target=self._read, args=(self.call,), daemon=True).start()

    def _read(self, call: Iterator[bytes]) -> None:
        try:
            for reply in call:
                self._in.put(reply)
        except grpc.RpcError:
            pass
        self._in.put(Ended(self.call.code(), self.call.details()))

    def send(self, message: bytes) -> None:
        self._out.put(message)

    def records(self, *records: bytes) -> None:
        self.send(records_message(*records))

    def read(self, kind: str = "") -> ingest_pb2.StreamResponse:
        """The next reply, which must be of `kind` if one is named. Raises Ended at the stream's end.

        Heads of the log come when they are made, between whatever else: passed over, unless it is one that is asked for.
        """
        while True:
            got = self._in.get(timeout=TIMEOUT_S)
            if isinstance(got, Ended):
                raise got
            reply = ingest_pb2.StreamResponse.FromString(got)
            if kind == "checkpoint" or not reply.HasField("checkpoint"):
                break
        if kind:
            assert reply.WhichOneof("kind") == kind, reply
        return reply

    def hello(self, **changes) -> ingest_pb2.Welcome:
        """Challenge, Hello, Welcome, inventory."""
        nonce = self.read("challenge").challenge.nonce
        self.send(self.chain.hello(nonce, **changes))
        welcome = self.read("welcome").welcome
        self.send(inventory_message(self.chain.inventory))
        return welcome

    def ack(self, seq: int) -> None:
        """Read acks until `seq`; acks never go back."""
        last = 0
        while last < seq:
            got = self.read("ack").ack.seq
            assert got >= last
            last = got
        assert last == seq

    def half_close(self) -> None:
        self._out.put(None)

    def close(self) -> None:
        self._out.put(None)
        self.call.cancel()
        self.channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
