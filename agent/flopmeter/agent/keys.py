"""Who the agent is: its Ed25519 record key in the state directory."""

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from flopmeter.contract.ids import agent_id
from flopmeter.contract.record import SIGNATURE_BYTES

from .errors import AgentError
from .files import make_directory, sync_directory

KEY_FILE = "record.key"
#: Under the state directory, while the key is changed (rekey.py).
REKEY_DIR = "rekey"
_MAGIC = "flopmeter-record-key-1"
_MAX_KEY_FILE_BYTES = 4096


class KeyFileError(AgentError):
    """The record key cannot be read, or must not be used as it lies there."""


@dataclass(frozen=True, slots=True)
class RecordKey:
    """The key that signs records. `secret` is libsodium's 64 bytes (seed, public key); never printed."""

    public: bytes
    secret: bytes = field(repr=False)

    @property
    def agent_id(self) -> bytes:
        return agent_id(self.public)

    def sign(self, message: bytes) -> bytes:
        """Detached Ed25519 signature (64 bytes); the same message always gives the same bytes (RFC 8032)."""
        from nacl.bindings import crypto_sign

        return crypto_sign(message, self.secret)[:SIGNATURE_BYTES]


def load_or_create_key(state: Path) -> RecordKey:
    """The key in `state`, made on the first start. Raises KeyFileError if it is damaged or others can read it.

    An agent is its key: with a new one it is a new agent to the collector, so a damaged file is never
    replaced without being asked.
    """
    path = state / KEY_FILE
    try:
        make_directory(state)
        if not path.is_symlink() and not path.exists():
            _create(path)
        return _load(path)
    except OSError as e:
        raise KeyFileError(
            f"record key {path}: expected a readable file in a writable directory, got {e.strerror or e}",
            "run the agent as the user who owns the state directory, or name another with --state",
        ) from e


def under_way(state: Path) -> bool:
    """Whether a change of the record key was begun and is not done: the key must not be used until it is."""
    return (state / REKEY_DIR).exists()


def _create(path: Path) -> None:
    from nacl.bindings import crypto_sign_seed_keypair

    seed = os.urandom(32)
    public, _ = crypto_sign_seed_keypair(seed)
    # Not by process number: in a container that is 1 each time, also for one that died right here.
    tmp = path.with_name(f"{path.name}.{os.urandom(8).hex()}.tmp")
    fd = os.open(tmp, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        os.write(fd, f"{_MAGIC} {seed.hex()} {public.hex()}\n".encode())
        os.fsync(fd)
        # link, not rename: an agent that starts at the same moment keeps the key it has made.
        os.link(tmp, path)
    except FileExistsError:
        pass
    finally:
        os.close(fd)
        tmp.unlink(missing_ok=True)
    sync_directory(path.parent)  # the key is durable from here


def _load(path: Path) -> RecordKey:
    from nacl.bindings import crypto_sign_seed_keypair

    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            raise KeyFileError(f"record key {path}: expected a regular file", "move it away")
        if info.st_mode & 0o077:
            raise KeyFileError(
                f"record key {path}: expected mode 0600, got {stat.S_IMODE(info.st_mode):04o}: "
                "others may have copied it",
                f"if nobody has, chmod 600 {path}; else remove it and admit the new key at the collector",
            )
        text = os.read(fd, _MAX_KEY_FILE_BYTES)
    finally:
        os.close(fd)
    words = text.decode("ascii", "replace").split()
    try:
        if len(words) != 3 or words[0] != _MAGIC:
            raise ValueError("not a key file")
        public, secret = crypto_sign_seed_keypair(bytes.fromhex(words[1]))
        if public.hex() != words[2]:
            raise ValueError("seed and public key do not belong together")
    except Exception as e:  # nacl raises its own families for a seed of the wrong length
        raise KeyFileError(
            f"record key {path}: damaged ({len(text)} bytes): expected '{_MAGIC} <seed> <public key>'",
            "restore it from a backup; or move it away together with the spool to start as a new agent, "
            "which the collector must admit again",
        ) from e
    return RecordKey(public=public, secret=secret)
