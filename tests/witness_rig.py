"""A log that signs, a witness that cosigns, and slow reference trees (RFC 6962 section 2.1), for tests."""

import base64
import contextlib
import hashlib
import http.client
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from flopmeter.evidence.note import Key, parse_key
from flopmeter.witness.heads import Heads
from flopmeter.witness.keys import ED25519, ML_DSA_44
from flopmeter.witness.keys import Key as WitnessKey
from flopmeter.witness.keys import _key as witness_key
from flopmeter.witness.request import AddCheckpoint
from flopmeter.witness.request import body as request_body
from flopmeter.witness.server import WitnessServer
from flopmeter.witness.witness import Answer, Witness

START_S = 1_790_000_000


def split(n: int) -> int:
    """The largest power of two below n."""
    return 1 << (n - 1).bit_length() - 1


def root(leaves: Sequence[bytes]) -> bytes:
    """RFC 6962 section 2.1, word for word."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\0" + leaves[0]).digest()
    k = split(len(leaves))
    return hashlib.sha256(b"\1" + root(leaves[:k]) + root(leaves[k:])).digest()


def consistency(old: int, leaves: Sequence[bytes]) -> list[bytes]:
    """RFC 6962 section 2.1.2, word for word."""

    def sub(m: int, part: Sequence[bytes], whole: bool) -> list[bytes]:
        if m == len(part):
            return [] if whole else [root(part)]
        k = split(len(part))
        if m <= k:
            return [*sub(m, part[:k], whole), root(part[k:])]
        return [*sub(m - k, part[k:], False), root(part[:k])]

    return sub(old, leaves, True) if 0 < old <= len(leaves) else []


@dataclass
class Log:
    """A log in memory: leaves, a name, a key that signs whatever it is told to."""

    origin: str = "log.example/1"
    seed: bytes = b"\1" * 32
    leaves: list[bytes] = field(default_factory=list)

    @property
    def key(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(self.seed)

    @property
    def vkey(self) -> str:
        material = b"\1" + self.key.public_key().public_bytes_raw()
        key_id = hashlib.sha256(self.origin.encode() + b"\n" + material).digest()[:4]
        return f"{self.origin}+{key_id.hex()}+{base64.b64encode(material).decode()}"

    @property
    def verifier(self) -> Key:
        return parse_key(self.vkey)

    def grow(self, count: int, what: bytes = b"leaf") -> "Log":
        for _ in range(count):
            self.leaves.append(b"%s %d" % (what, len(self.leaves)))
        return self

    def fork(self, size: int, what: bytes) -> "Log":
        """The same log and key, which went on otherwise after `size` leaves."""
        return Log(self.origin, self.seed, self.leaves[:size]).grow(len(self.leaves) - size, what)

    def text(self, size: int | None = None, *, other_root: bytes | None = None) -> bytes:
        size = len(self.leaves) if size is None else size
        head = other_root or root(self.leaves[:size])
        return f"{self.origin}\n{size}\n{base64.b64encode(head).decode()}\n".encode()

    def sign(self, text: bytes) -> bytes:
        """The note."""
        line = base64.b64encode(self.verifier.id + self.key.sign(text)).decode()
        return text + f"\n— {self.origin} {line}\n".encode()

    def ask(self, old: int, size: int | None = None) -> bytes:
        """The body of an honest add-checkpoint."""
        size = len(self.leaves) if size is None else size
        proof = tuple(consistency(old, self.leaves[:size]))
        return request_body(AddCheckpoint(old, proof, self.sign(self.text(size))))


class Clock:
    """Unix seconds that move only when told."""

    def __init__(self) -> None:
        self.now_s = START_S

    def __call__(self) -> int:
        return self.now_s


def keys(
    name: str = "witness.example/1", *, ml_dsa: bool = False, seed: bytes = b"\7" * 32
) -> list[WitnessKey]:
    return [witness_key(name, kind, seed) for kind in ([ED25519, ML_DSA_44] if ml_dsa else [ED25519])]


def a_witness(
    state: Path, *logs: Log, clock: Clock | None = None, ours: Sequence[WitnessKey] = ()
) -> tuple[Witness, Heads]:
    heads = Heads(state)
    return Witness(ours or keys(), [log.verifier for log in logs], heads, clock or Clock()), heads


@contextlib.contextmanager
def served(witness: Witness, **limits: object) -> Iterator[WitnessServer]:
    server = WitnessServer(witness, "127.0.0.1", 0, **limits)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def post(port: int, body: bytes, path: str = "/add-checkpoint") -> Answer:
    call = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    with contextlib.closing(call):
        call.request("POST", path, body)
        answer = call.getresponse()
        return Answer(answer.status, answer.read(), answer.headers["Content-Type"])
