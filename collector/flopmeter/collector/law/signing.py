"""Signed directories of law files: one manifest of all files, and one Ed25519 signature of it (docs/regimes.md).

The manifest is what `sha256sum` writes, behind a line that says what it is; the signature is 64 raw bytes. Both can be
made and checked with coreutils and openssl alone. One manifest of the whole directory, and not a signature a file, so
that a file cannot be taken away, added, or put back in its older edition unseen.
"""

import base64
import binascii
import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from flopmeter.collector.errors import Fault, RegimeError

MANIFEST = "manifest.sha256"
SIGNATURE = "manifest.sha256.sig"
#: Says what is signed, so that a signature under something else by the same key is none under this.
FIRST_LINE = "# flopmeter law files, version 1"
#: DER of a public and of a private Ed25519 key before its 32 bytes (RFC 8410, sections 4 and 7).
_PUBLIC_DER = bytes.fromhex("302a300506032b6570032100")
_PRIVATE_DER = bytes.fromhex("302e020100300506032b657004220420")
_LINE = re.compile(r"([0-9a-f]{64})  ([^/\n\\]+)\Z")
_MAX_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class PublicKey:
    """An Ed25519 public key, and where it was read from."""

    raw: bytes
    name: str


def check_signed(directory: Path, files: Mapping[str, bytes], key: PublicKey) -> None:
    """Raises RegimeError for every one of `files` that `key` did not sign, and every one it signed that is gone."""
    manifest, signature = _read(directory, MANIFEST), _read(directory, SIGNATURE)
    if manifest is None or signature is None:
        missing = MANIFEST if manifest is None else SIGNATURE
        raise _error(directory / missing, f"a manifest signed by {key.name}", "no such file")
    if not _verified(manifest, signature, key.raw):
        raise _error(
            directory / SIGNATURE, f"the signature of {MANIFEST} by {key.name}", "one that does not verify"
        )
    signed = _signed(directory, manifest)
    faults = []
    for name in sorted(files.keys() | signed.keys()):
        raw, digest = files.get(name), signed.get(name)
        if digest is None:
            faults.append(
                _fault(directory / name, f"a file that {MANIFEST} names", "one that it does not name")
            )
        elif raw is None:
            faults.append(_fault(directory / name, f"a file, since {MANIFEST} names it", "no such file"))
        elif hashlib.sha256(raw).hexdigest() != digest:
            faults.append(_fault(directory / name, f"SHA-256 {digest}", hashlib.sha256(raw).hexdigest()))
    if faults:
        raise RegimeError.of(faults)


def manifest_of(files: Mapping[str, bytes]) -> bytes:
    """The manifest of `files`, by name."""
    lines = [f"{hashlib.sha256(raw).hexdigest()}  {name}" for name, raw in sorted(files.items())]
    return "\n".join([FIRST_LINE, *lines, ""]).encode()


def sign(directory: Path, files: Mapping[str, bytes], seed: bytes) -> bytes:
    """Write the manifest of `files` and its signature into `directory`; the public key. Raises RegimeError.

    The manifest is written last: between the two writes the signature is of a manifest that is not there yet, and a
    collector that looks then refuses the directory and keeps what it has.
    """
    from nacl.bindings import crypto_sign, crypto_sign_seed_keypair

    public, secret = crypto_sign_seed_keypair(seed)
    manifest = manifest_of(files)
    for name, raw in ((SIGNATURE, crypto_sign(manifest, secret)[:64]), (MANIFEST, manifest)):
        path = directory / name
        try:
            new = path.with_name(f".{name}.{os.getpid()}")
            new.write_bytes(raw)
            new.replace(path)
        except OSError as e:
            raise _error(path, "a file that can be written", str(e.strerror or e)) from e
    return bytes(public)


def read_public_key(path: Path) -> PublicKey:
    """A public key: PEM as openssl writes it, or 64 hex digits. Raises RegimeError."""
    raw = _key(path, "PUBLIC KEY", _PUBLIC_DER)
    return PublicKey(raw, str(path))


def read_private_key(path: Path) -> bytes:
    """The seed of a private key in PEM as openssl writes it. Raises RegimeError."""
    return _key(path, "PRIVATE KEY", _PRIVATE_DER)


def _key(path: Path, label: str, prefix: bytes) -> bytes:
    expected = f"an Ed25519 {label.lower()} in PEM" + (" or 64 hex digits" if label == "PUBLIC KEY" else "")
    todo = "`openssl genpkey -algorithm ed25519 -out law.key`, then `openssl pkey -in law.key -pubout -out law.pub`"
    try:
        with path.open("rb") as f:
            text = f.read(_MAX_BYTES).decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as e:
        said = e.strerror or str(e) if isinstance(e, OSError) else "other text than ASCII"
        raise _error(path, expected, said, todo) from e
    if label == "PUBLIC KEY" and re.fullmatch(r"[0-9a-fA-F]{64}", text):
        return bytes.fromhex(text)
    lines = text.splitlines()
    body = ""
    if len(lines) >= 3 and lines[0] == f"-----BEGIN {label}-----" and lines[-1] == f"-----END {label}-----":
        body = "".join(lines[1:-1])
    try:
        der = base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError):
        der = b""
    if len(der) != len(prefix) + 32 or not der.startswith(prefix):
        raise _error(path, expected, "something else", todo)
    return der[len(prefix) :]


def _signed(directory: Path, manifest: bytes) -> dict[str, str]:
    """Name -> digest. Signed it is; that it is well formed is checked all the same."""
    found: dict[str, str] = {}
    try:
        first, *lines = manifest.decode().splitlines()
    except (UnicodeDecodeError, ValueError):
        first, lines = "", []
    matches = [_LINE.match(line) for line in lines]
    if first != FIRST_LINE or None in matches:
        raise _error(directory / MANIFEST, f"{FIRST_LINE!r} and lines of sha256sum", "something else")
    for match in matches:
        assert match is not None
        found[match[2]] = match[1]
    if len(found) != len(lines):
        raise _error(directory / MANIFEST, "each file once", "a file that stands there twice")
    return found


def _verified(message: bytes, signature: bytes, public_key: bytes) -> bool:
    from nacl.bindings import crypto_sign_open
    from nacl.exceptions import CryptoError

    if len(signature) != 64:
        return False
    try:
        crypto_sign_open(signature + message, public_key)
    except (CryptoError, ValueError):
        return False
    return True


def _read(directory: Path, name: str) -> bytes | None:
    try:
        with (directory / name).open("rb") as f:
            return f.read(_MAX_BYTES)
    except OSError:
        return None


_SIGN = "sign the directory with `flopmeter regimes sign`, or take away what does not belong there"


def _fault(path: Path, expected: str, got: str, todo: str = _SIGN) -> Fault:
    return Fault(str(path), None, None, "", expected, got, todo)


def _error(path: Path, expected: str, got: str, todo: str = _SIGN) -> RegimeError:
    return RegimeError.of([_fault(path, expected, got, todo)])
