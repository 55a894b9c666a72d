"""The evidence log of a store: what it holds, its heads, and proofs out of it. One connection, one thread at a time."""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

from .checkpoint import Checkpoint


class Identity(NamedTuple):
    """Whose log it is: fixed with its first checkpoint."""

    origin: str
    vkey: str


class Signer(Protocol):
    """keys.LogKey is one."""

    @property
    def public(self) -> bytes: ...

    def sign(self, message: bytes) -> bytes: ...


class EvidenceLog:
    """On a connection to a store. Reading needs no more than a read-only one; every read sees what is committed.

    Raises StoreError when the store cannot be read, LogError for what is not in the log, LogForkedError when what is
    stored contradicts itself: a proof that does not verify is never returned.
    """

    def __init__(self, connection: sqlite3.Connection) -> None: ...

    @property
    def size(self) -> int:
        """Leaves in the log now; `latest().size` of them are under a signed head."""
        raise NotImplementedError

    @property
    def identity(self) -> Identity | None:
        """None before the first checkpoint."""
        raise NotImplementedError

    def fix_identity(self, origin: str, signer: Signer) -> Identity:
        """Give the log its name and key, once; later calls return what it has. `origin` "": a random one."""
        raise NotImplementedError

    def latest(self) -> Checkpoint | None:
        """The newest head, with all cosignatures that came for it."""
        raise NotImplementedError

    def checkpoints(self, newest_first: bool = True) -> Iterator[Checkpoint]:
        """Every head that was signed."""
        raise NotImplementedError

    def index_of(self, kind: str, number: int) -> int | None:
        """Index of the leaf of that row; None: it is not in the log yet."""
        raise NotImplementedError

    def leaf(self, index: int) -> bytes:
        """The leaf's bytes, made again from its row and held against the stored hash."""
        raise NotImplementedError

    def leaf_hash(self, index: int) -> bytes:
        raise NotImplementedError

    def root(self, size: int) -> bytes:
        raise NotImplementedError

    def inclusion(self, index: int, size: int) -> list[bytes]:
        raise NotImplementedError

    def consistency(self, old: int, new: int) -> list[bytes]:
        raise NotImplementedError

    def many(self, indexes: Sequence[int], size: int) -> list[bytes]:
        """Siblings for evidence.merkle.root_from_many."""
        raise NotImplementedError

    def append_waiting(self) -> int:
        """Give what people said (entries, answers, words on keeping, changes of the law, attestations) its indexes.

        Within the caller's transaction (BEGIN IMMEDIATE). Returns how many leaves it appended.
        """
        raise NotImplementedError

    def seal(self, signer: Signer, unix_ns: int | Callable[[], int]) -> Checkpoint:
        """Sign a head over all that is in the log now. Outside of any transaction; several processes may call it.

        On return the head is durable. Nothing new in the log: the latest head again. Raises LogForkedError and signs
        nothing where the root that storage gives does not continue the last signed head.
        """
        raise NotImplementedError
