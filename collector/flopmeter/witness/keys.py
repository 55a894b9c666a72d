"""The witness's keys: one file, made once, and the cosignatures of C2SP tlog-cosignature that they make.

One line a key: `PRIVATE+KEY+<name>+<key id>+<base64 of type byte and 32 bytes of seed>`. The Ed25519 key is always there; the
ML-DSA-44 one beside it if it was asked for: both sign, and a verifier counts the witness once.
"""

import base64
import hashlib
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from .errors import KeyFileError, UsageError

#: Signature types (C2SP signed-note 1.0, "Signature types").
ED25519, ML_DSA_44 = 0x04, 0x06
TYPE_NAMES = {ED25519: "Ed25519", ML_DSA_44: "ML-DSA-44"}
SEED_BYTES = 32
#: A name is one byte's length in what ML-DSA signs (C2SP tlog-cosignature, `cosigner_name<1..2^8-1>`).
MAX_NAME_BYTES = 255
_PREFIX = "PRIVATE+KEY"
_MAX_FILE_BYTES = 4_096


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a witness. `seed` is never printed."""

    name: str
    kind: int
    public: bytes
    seed: bytes = field(repr=False)
    _sign: Callable[[bytes], bytes] = field(repr=False, compare=False)

    @property
    def key_id(self) -> bytes:
        """Four bytes (C2SP tlog-cosignature, "Format")."""
        return hashlib.sha256(self.name.encode() + b"\n" + bytes([self.kind]) + self.public).digest()[:4]

    @property
    def vkey(self) -> str:
        """The public half, as verifiers and policy files have it (C2SP signed-note 1.0, "Verifier keys")."""
        material = base64.b64encode(bytes([self.kind]) + self.public).decode()
        return f"{self.name}+{self.key_id.hex()}+{material}"

    def cosign(self, text: bytes, origin: str, size: int, root: bytes, unix_s: int) -> bytes:
        """A signature line over the checkpoint whose note text is `text`: whole, and as of `unix_s`."""
        if self.kind == ED25519:
            message = b"cosignature/v1\ntime %d\n" % unix_s + text
        else:
            message = _cosigned_message(self.name, unix_s, origin, size, root)
        signature = self.key_id + unix_s.to_bytes(8, "big") + self._sign(message)
        return f"— {self.name} {base64.b64encode(signature).decode()}\n".encode()


def _cosigned_message(name: str, unix_s: int, origin: str, size: int, root: bytes) -> bytes:
    """`cosigned_message` of C2SP tlog-cosignature 1.1.0-rc.1, "ML-DSA-44 signed message"; start is 0: the whole tree."""
    name_bytes, origin_bytes = name.encode(), origin.encode()
    return b"".join(
        (
            b"subtree/v1\n\0",
            bytes([len(name_bytes)]) + name_bytes,
            unix_s.to_bytes(8, "big"),
            bytes([len(origin_bytes)]) + origin_bytes,
            (0).to_bytes(8, "big"),
            size.to_bytes(8, "big"),
            root,
        )
    )


def create(path: Path, name: str, *, ml_dsa: bool = False) -> tuple[Key, ...]:
    """New keys in a new file, for its owner alone. Raises WitnessError; nothing that is there is overwritten."""
    check_name(name)
    keys = tuple(
        _key(name, kind, os.urandom(SEED_BYTES)) for kind in ((ED25519, ML_DSA_44) if ml_dsa else (ED25519,))
    )
    text = "".join(
        f"{_PREFIX}+{k.name}+{k.key_id.hex()}+{base64.b64encode(bytes([k.kind]) + k.seed).decode()}\n"
        for k in keys
    )
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileExistsError as e:
        raise KeyFileError(
            f"key file {path}: expected none yet, got one",
            "a witness keeps its key; show it with `flopmeter witness key show`",
        ) from e
    except OSError as e:
        raise KeyFileError(
            f"key file {path}: cannot be made: {e.strerror}", "name a file in a directory of yours"
        ) from e
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as f:
            f.write(text)
            f.flush()
            os.fsync(f.fileno())
        _sync_directory(path)
    except OSError as e:
        path.unlink(missing_ok=True)
        raise KeyFileError(
            f"key file {path}: cannot be written: {e.strerror}", "make room, and do it again"
        ) from e
    return keys


def load(path: Path) -> tuple[Key, ...]:
    """The keys in `path`, Ed25519 first. Raises KeyFileError if it is damaged or others can read it."""
    text = _read(path)
    try:
        keys = tuple(_parse(line) for line in text.decode().splitlines())
        if [k.kind for k in keys] not in ([ED25519], [ED25519, ML_DSA_44]) or len(
            {k.name for k in keys}
        ) != 1:
            raise ValueError(
                "expected an Ed25519 key, and after it at most one ML-DSA-44 key of the same name"
            )
    except (ValueError, UsageError) as e:  # UnicodeDecodeError and binascii.Error are ValueErrors
        raise KeyFileError(
            f"key file {path}: damaged ({len(text)} bytes): expected lines '{_PREFIX}+<name>+<id>+<key>'",
            "restore it from a backup; with a new key it is another witness, which others must be told of",
        ) from e
    return keys


def check_name(name: str) -> None:
    """Raises UsageError unless `name` can stand in a signature line (C2SP signed-note 1.0, "Format")."""
    good = 0 < len(name.encode(errors="replace")) <= MAX_NAME_BYTES and name.isprintable()
    if not good or "+" in name or any(c.isspace() for c in name):
        raise UsageError(
            f"--name: expected 1 to {MAX_NAME_BYTES} bytes without blanks, plus signs or control characters, got {name[:40]!r}",
            "write it like a URL without https://, for example witness.example.org/1",
        )


def _read(path: Path) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as e:
        raise KeyFileError(
            f"key file {path}: cannot be read: {e.strerror}", "make one with `flopmeter witness key new`"
        ) from e
    try:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            raise KeyFileError(f"key file {path}: expected a regular file", "name another")
        if info.st_mode & 0o077:
            raise KeyFileError(
                f"key file {path}: expected mode 0600, got {stat.S_IMODE(info.st_mode):04o}: others may have copied it",
                f"if nobody has, chmod 600 {path}; else make a new key, and tell those who trust the old one",
            )
        return os.read(fd, _MAX_FILE_BYTES)
    finally:
        os.close(fd)


def _parse(line: str) -> Key:
    if not line.startswith(_PREFIX + "+"):
        raise ValueError("no private key")
    name, key_id, material = line.removeprefix(_PREFIX + "+").split("+", 2)
    check_name(name)
    blob = base64.b64decode(material, validate=True)
    if len(blob) != 1 + SEED_BYTES or blob[0] not in TYPE_NAMES:
        raise ValueError("not a key of 32 bytes and a known type")
    key = _key(name, blob[0], blob[1:])
    if key.key_id.hex() != key_id:
        raise ValueError("key id and key do not belong together")
    return key


def _key(name: str, kind: int, seed: bytes) -> Key:
    if kind == ED25519:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        ed25519 = Ed25519PrivateKey.from_private_bytes(seed)
        return Key(name, kind, ed25519.public_key().public_bytes_raw(), seed, ed25519.sign)
    from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

    ml_dsa = MLDSA44PrivateKey.from_seed_bytes(seed)
    return Key(name, kind, ml_dsa.public_key().public_bytes_raw(), seed, ml_dsa.sign)


def _sync_directory(path: Path) -> None:
    fd = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
