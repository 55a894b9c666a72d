"""Checkpoints: C2SP tlog-checkpoint 1.0 bodies, signed as notes (C2SP signed-note 1.0) with Ed25519. Pure."""

import base64
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

#: Signature type of Ed25519 in a note (C2SP signed-note 1.0): the first byte of the key in a vkey.
ED25519 = 1
#: A key's name has no space and no plus (C2SP signed-note 1.0); ours are printable ASCII, and short enough for a line.
ORIGIN = re.compile(r"[!-*,-~]{1,200}")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A signed head of the log."""

    number: int  # counts from 1
    origin: str
    size: int  # leaves
    root: bytes  # 32 bytes
    unix_ns: int  # the collector's clock when it was signed; not part of the note
    note: bytes  # the signed note, with the cosignatures that came for it


class Signer(Protocol):
    """The log's key: keys.LogKey is one."""

    @property
    def public(self) -> bytes:
        """The Ed25519 public key, 32 bytes."""
        ...

    def sign(self, message: bytes) -> bytes:
        """The Ed25519 signature, 64 bytes."""
        ...


def key_id(name: str, public: bytes) -> bytes:
    """Which key a signature line is of: four bytes."""
    return hashlib.sha256(f"{name}\n".encode() + bytes([ED25519]) + public).digest()[:4]


def vkey(name: str, public: bytes) -> str:
    """The verifier key, as C2SP signed-note 1.0 writes it: name+id+base64(type ‖ public key)."""
    key = base64.b64encode(bytes([ED25519]) + public).decode()
    return f"{name}+{key_id(name, public).hex()}+{key}"


def body(origin: str, size: int, root: bytes) -> bytes:
    """What is signed: origin, size in decimal, root in base64, a line each."""
    return f"{origin}\n{size}\n{base64.b64encode(root).decode()}\n".encode()


def signed(text: bytes, name: str, public: bytes, signature: bytes) -> bytes:
    """The note: the text, a blank line, a signature line."""
    line = base64.b64encode(key_id(name, public) + signature).decode()
    return text + f"\n\N{EM DASH} {name} {line}\n".encode()


def with_lines(note: bytes, lines: Iterable[str]) -> bytes:
    """The note with further signature lines, of witnesses."""
    return note + "".join(f"{line}\n" for line in lines).encode()
