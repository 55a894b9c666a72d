"""The collector's own keys, in a directory that only it can read: `log.key` signs checkpoints, `attest.key` attestations.

Each is made once, at its first use, as PKCS 8 PEM. Whoever has a copy can sign in the collector's name, so a file that
others can read is refused; and a damaged one is never replaced without being asked, because what was signed with it
can then be checked by nobody.
"""

import contextlib
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import KeyFileError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

LOG_KEY, ATTEST_KEY = "log.key", "attest.key"
MAX_FILE_BYTES = 65_536
_DIRECTORY = "keys"


def keys_directory(setting: Path | None, store: Path) -> Path:
    """Where the keys lie: `setting`, else `keys/` beside the store's file."""
    return store.absolute().parent / _DIRECTORY if setting is None else setting


@dataclass(frozen=True, slots=True)
class LogKey:
    """The Ed25519 key that signs checkpoints. What it is called is the log's origin (log/checkpoint.py)."""

    private: "Ed25519PrivateKey"

    @property
    def public(self) -> bytes:
        """32 bytes."""
        return self.private.public_key().public_bytes_raw()

    def sign(self, message: bytes) -> bytes:
        """64 bytes, the same for the same message (RFC 8032)."""
        return self.private.sign(message)


@dataclass(frozen=True, slots=True)
class AttestKey:
    """The ECDSA P-256 key that signs attestations."""

    private: "EllipticCurvePrivateKey"

    @property
    def spki_der(self) -> bytes:
        """The public half, as SubjectPublicKeyInfo."""
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        return self.private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    @property
    def spki_pem(self) -> str:
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        public = self.private.public_key()
        return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    @property
    def key_id(self) -> str:
        """SHA-256 of the DER, hex: what a bundle names the key by (reference/attestation.md 1.2)."""
        import hashlib

        return hashlib.sha256(self.spki_der).hexdigest()


def log_key(directory: Path, *, make: bool = True) -> LogKey:
    """The log's key in `directory`; made there if there is none and `make`. Raises KeyFileError."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = private_key(directory / LOG_KEY, Ed25519PrivateKey.generate if make else None)
    if not isinstance(key, Ed25519PrivateKey):
        raise _other_kind(directory / LOG_KEY, "an Ed25519 key", key)
    return LogKey(key)


def attest_key(directory: Path, *, make: bool = True) -> AttestKey:
    """The attestation key in `directory`; made there if there is none and `make`. Raises KeyFileError."""
    from cryptography.hazmat.primitives.asymmetric import ec

    key = private_key(
        directory / ATTEST_KEY, (lambda: ec.generate_private_key(ec.SECP256R1())) if make else None
    )
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise _other_kind(directory / ATTEST_KEY, "an ECDSA P-256 key", key)
    return AttestKey(key)


def private_key(path: Path, make: "Callable[[], PrivateKeyTypes] | None") -> "PrivateKeyTypes":
    """The key in the file `path`, of whatever kind. Made by `make` if there is no file; None: never. Raises KeyFileError."""
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        load_pem_private_key,
    )

    if make is not None and not os.path.lexists(path):
        pem = make().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        create_file(path, pem)
    text = read_file(path)
    try:
        return load_pem_private_key(text, password=None)
    except Exception as e:
        raise KeyFileError(
            f"key {path}: damaged ({len(text)} bytes): expected a private key in PEM, without a password",
            "restore it from a backup; what it has signed can be continued with no other key",
        ) from e


def create_file(path: Path, data: bytes) -> None:
    """Make a private file (0600, its directory 0700), durable on return; one that is there already stays as it is.

    Raises KeyFileError.
    """
    tmp = path.with_name(f"{path.name}.{os.urandom(8).hex()}.tmp")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(tmp, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(fd, "wb") as f:
                f.write(data)
                f.flush()
                os.fsync(f.fileno())
            # link, not rename: of two that start at the same moment both use what the first one made.
            with contextlib.suppress(FileExistsError):
                os.link(tmp, path)
        finally:
            tmp.unlink(missing_ok=True)
        for directory in (path.parent, path.parent.parent):
            fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
    except OSError as e:
        raise KeyFileError(
            f"key {path}: cannot make it: {e.strerror or e}",
            "name a directory that the collector may write to with --keys",
        ) from e


def read_file(path: Path) -> bytes:
    """A private file that only its owner can read, of a sane size. Raises KeyFileError."""
    try:
        directory = path.parent.stat()
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError as e:
        raise KeyFileError(
            f"key {path}: expected a key, found no such file",
            "`flopmeter collector serve` makes it at its first start; later, name the right directory with --keys, or "
            "restore it",
        ) from e
    except OSError as e:
        raise KeyFileError(
            f"key {path}: expected a readable file, got {e.strerror or e}",
            "keys are plain files of the user that the collector runs as: no links",
        ) from e
    try:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            raise KeyFileError(f"key {path}: expected a regular file", "move it away")
        _private(path, info, "chmod 600")
        if directory.st_mode & 0o022:
            raise KeyFileError(
                f"key {path}: expected a directory that only its owner can write to, got mode "
                f"{stat.S_IMODE(directory.st_mode):04o}: others may have put their key here",
                f"if nobody has, chmod 700 {path.parent}",
            )
        with os.fdopen(fd, "rb", closefd=False) as f:
            text = f.read(MAX_FILE_BYTES + 1)
    except OSError as e:
        raise KeyFileError(f"key {path}: cannot read: {e.strerror or e}", "check the file system") from e
    finally:
        os.close(fd)
    if len(text) > MAX_FILE_BYTES:
        raise KeyFileError(f"key {path}: expected at most {MAX_FILE_BYTES} bytes, got more", "move it away")
    return text


def _private(path: Path, info: os.stat_result, todo: str) -> None:
    if info.st_mode & 0o077:
        raise KeyFileError(
            f"key {path}: expected mode 0600, got {stat.S_IMODE(info.st_mode):04o}: others may have copied it",
            f"if nobody has, {todo} {path}; else tell those who trust it, and move it away",
        )


def _other_kind(path: Path, expected: str, key: object) -> KeyFileError:
    return KeyFileError(
        f"key {path}: expected {expected}, got {type(key).__name__}", "restore the right file from a backup"
    )
