"""Hand-written fakes, shared. A mock only where nothing else will do."""


class FakeClock:
    """Both clocks of a node under the test's control; `wait` moves time forward at once."""

    def __init__(self, boot_ns: int = 1_000_000_000_000, unix_ns: int = 1_790_000_000_000_000_000) -> None:
        self.boot = boot_ns
        self.unix = unix_ns
        self.stopped = False

    def boot_ns(self) -> int:
        return self.boot

    def unix_ns(self) -> int:
        return self.unix

    def wait(self, seconds: float) -> bool:
        self.advance(round(seconds * 1e9))
        return self.stopped

    def advance(self, ns: int) -> None:
        self.boot += ns
        self.unix += ns


class FakeCollector:
    """The far side of the uplink: a real gRPC server that keeps the collector's rules, and misbehaves on order.

    Raw bytes in and out. It checks signatures, numbers and chain as the collector does and holds the books
    (`records`, by number) of one agent. Attributes without an underscore are orders and what was seen.
    """

    def __init__(self, port: int = 0, credentials=None, handlers=()) -> None:
        """`credentials`: of gRPC, for TLS; `handlers`: of more services."""
        from concurrent.futures import ThreadPoolExecutor

        import grpc

        self.records: dict[int, bytes] = {}
        self.inventories: set[bytes] = set()
        self.hellos: list[object] = []
        self.heartbeats = 0
        self.beats: list[object] = []  # the heartbeats themselves
        self.half_closed = 0  # streams whose agent said that it has said all
        self.messages: list[int] = []  # records in each message
        self.received: list[bytes] = []  # every record, taken or not, in order
        self.mute = False  # take, but never acknowledge
        self.silent_handshake = False  # never say the challenge
        self.silenced: list[int] = []  # streams that were not answered
        self.garbage = False  # answer with bytes that are no message
        self.drop_after: int | None = None  # end the stream after this many more records
        self.pushbacks: list[tuple[int, int, int]] = []  # (at number, reason, retry_after_ms)
        self.refusals: dict[int, int] = {}  # number -> code; each taken once
        self.refuse_payloads = lambda payload: 0  # a code (or True = implausible) for what it likes not
        self.welcome_seq: int | None = None  # said in the Welcome, whatever is true
        self.say_more: list[object] = []  # responses before the next ack
        self.refuse_stream = 0  # refusal code for the whole stream, standing
        self.ask_inventory = False
        self.max_in_flight = 0
        self.log = None  # a signed_log.SignedLog whose head the Welcome and each ack's message show
        self.losses: list[tuple[int, int]] = []
        self.head_boot_id = b""
        self.head_window_end = 0
        handler = grpc.stream_stream_rpc_method_handler(self._stream)
        service = grpc.method_handlers_generic_handler("flopmeter.wire.v1.IngestService", {"Stream": handler})
        self._server = grpc.server(ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)])
        self._server.add_generic_rpc_handlers((service, *handlers))
        if credentials is None:
            self.port = self._server.add_insecure_port(f"127.0.0.1:{port}")
        else:
            self.port = self._server.add_secure_port(f"127.0.0.1:{port}", credentials)
        self._server.start()

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def head(self) -> int:
        return max(self.records, default=0)

    def forget(self, behind: int) -> None:
        """As if restored from an older copy: every record above `behind` is gone."""
        for seq in [s for s in self.records if s > behind]:
            del self.records[seq]

    def stop(self) -> None:
        self._server.stop(0).wait(5)

    def _checkpoint(self, pb, known: int, covered: int):
        proof = self.log.consistency(known)
        return pb.Checkpoint(
            note=self.log.note(),
            consistency=proof,
            covered_seq=covered,
            vkey="" if covered else self.log.vkey,
        )

    def _stream(self, requests, context):
        import hashlib

        from nacl.signing import VerifyKey

        from flopmeter.contract.record import HELLO_DOMAIN, ZERO_HASH, parse_record, record_hash
        from flopmeter.wire.v1 import batch_pb2
        from flopmeter.wire.v1 import ingest_pb2 as pb

        def say(**kind):
            return pb.StreamResponse(**kind).SerializeToString()

        if self.silent_handshake:
            self.silenced.append(1)
            next(requests, None)
            return
        if self.garbage:
            yield b"\xff\xff\xff not a message"
            return
        if self.refuse_stream:
            yield say(refusal=pb.Refusal(code=self.refuse_stream, message="go away"))
            return
        nonce = hashlib.sha256(str(len(self.hellos)).encode()).digest()
        yield say(challenge=pb.Challenge(nonce=nonce))
        first = next(requests, None)
        if first is None:
            return
        hello = pb.StreamRequest.FromString(first).hello
        body = pb.HelloBody.FromString(hello.body)
        VerifyKey(body.public_key).verify(HELLO_DOMAIN + nonce + hello.body, hello.signature)
        self.hellos.append(body)
        key = VerifyKey(body.public_key)
        expected = self.head + 1
        if body.oldest_seq > expected:
            self.losses.append((expected, body.oldest_seq - 1))
            expected = body.oldest_seq
        head = self.records.get(self.head, b"")
        yield say(
            welcome=pb.Welcome(
                resume_seq=expected if self.welcome_seq is None else self.welcome_seq,
                head_hash=record_hash(head) if head else b"",
                head_boot_id=self.head_boot_id,
                head_window_end_boot_ns=self.head_window_end,
                max_in_flight_records=self.max_in_flight,
                checkpoint=self._checkpoint(pb, body.known_log_size, 0) if self.log is not None else None,
            )
        )
        jumped = expected != self.head + 1
        for data in requests:
            request = pb.StreamRequest.FromString(data)
            kind = request.WhichOneof("kind")
            if kind == "heartbeat":
                self.heartbeats += 1
                self.beats.append(request.heartbeat)
            elif kind == "inventory":
                self.inventories.add(hashlib.sha256(request.inventory).digest())
            elif kind == "records":
                self.messages.append(len(request.records.records))
                acked = 0
                for raw in request.records.records:
                    self.received.append(raw)
                    record = parse_record(raw)
                    key.verify(record.message, record.signature)
                    if self.drop_after is not None:
                        self.drop_after -= 1
                        if self.drop_after < 0:
                            self.drop_after = None
                            return
                    expected = expected if jumped else self.head + 1
                    order = next((p for p in self.pushbacks if p[0] == record.seq), None)
                    if order is not None:
                        self.pushbacks.remove(order)
                        back = pb.Pushback(
                            reason=order[1], retry_after_ms=order[2], resume_seq=expected, message="ordered"
                        )
                        yield say(pushback=back)
                        if order[1] == pb.Pushback.REASON_SHUTTING_DOWN:
                            return
                        continue
                    if record.seq < expected:
                        if self.records.get(record.seq) == raw:
                            acked = max(acked, record.seq)
                        else:
                            yield say(
                                refusal=pb.Refusal(
                                    code=pb.Refusal.CODE_CONFLICT, seq=record.seq, resume_seq=expected
                                )
                            )
                        continue
                    if record.seq > expected:
                        yield say(
                            pushback=pb.Pushback(
                                reason=pb.Pushback.REASON_OUT_OF_SEQUENCE,
                                resume_seq=expected,
                                message=f"expected {expected}, got {record.seq}",
                            )
                        )
                        continue
                    batch = batch_pb2.Batch.FromString(record.payload)
                    if self.ask_inventory or batch.inventory_digest not in self.inventories:
                        self.ask_inventory = False
                        self.inventories.clear()
                        yield say(
                            pushback=pb.Pushback(
                                reason=pb.Pushback.REASON_INVENTORY_UNKNOWN, resume_seq=expected
                            )
                        )
                        continue
                    code = self.refusals.pop(record.seq, 0) or self.refuse_payloads(record.payload)
                    if code is True:
                        code = pb.Refusal.CODE_IMPLAUSIBLE
                    before = record_hash(self.records[self.head]) if self.head else ZERO_HASH
                    if not code and not jumped and record.prev_hash != before:
                        code = pb.Refusal.CODE_BROKEN_CHAIN
                    same_boot = record.boot_id == self.head_boot_id
                    if not code and same_boot and batch.window_start_boot_ns < self.head_window_end:
                        code = pb.Refusal.CODE_OVERLAP
                    if code:
                        yield say(
                            refusal=pb.Refusal(
                                code=code, seq=record.seq, resume_seq=expected, message="ordered"
                            )
                        )
                        continue
                    self.records[record.seq] = raw
                    self.head_boot_id = record.boot_id
                    self.head_window_end = batch.window_end_boot_ns
                    jumped = False
                    acked = record.seq
                while self.say_more:
                    yield self.say_more.pop(0).SerializeToString()
                if acked and not self.mute:
                    yield say(ack=pb.Ack(seq=acked))
        self.half_closed += 1
