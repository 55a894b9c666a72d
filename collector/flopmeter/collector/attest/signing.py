"""Who signs: a key file of the collector's, or a program that asks a KMS, an HSM or a card. ECDSA P-256, SHA-256, DER.

A program gets the bytes on its standard input and answers with the signature on its standard output; what it answers is
verified with the public key that it is said to have before anything is done with it.
"""

import hashlib
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from flopmeter.collector.keys import attest_key

from .errors import AttestError, SignerError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

#: Scheme of --signer.
COMMAND = "command:"
#: A KMS over a network, or a person who types a PIN.
TIMEOUT_S = 120.0
MAX_ANSWER_BYTES = 4_096
_MAX_KEY_BYTES = 65_536


class Signer(Protocol):
    """What an attestation is signed with."""

    def public(self) -> bytes:
        """SubjectPublicKeyInfo, DER."""
        ...

    def sign(self, message: bytes) -> bytes:
        """ECDSA P-256 over SHA-256 of the message, DER. Raises SignerError."""
        ...


def key_id(spki: bytes) -> str:
    """SHA-256 of the DER, hex: what bundles name a key by (reference/attestation.md 1.2)."""
    return hashlib.sha256(spki).hexdigest()


@dataclass(frozen=True, slots=True)
class FileSigner:
    """`attest.key` in the key directory; made there at its first use."""

    directory: Path

    def public(self) -> bytes:
        return attest_key(self.directory).spki_der

    def sign(self, message: bytes) -> bytes:
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec

        return attest_key(self.directory).private.sign(message, ec.ECDSA(hashes.SHA256()))


@dataclass(frozen=True, slots=True)
class CommandSigner:
    """A program, started without a shell and without arguments."""

    program: Path
    spki: bytes
    timeout_s: float = TIMEOUT_S

    def public(self) -> bytes:
        return self.spki

    def sign(self, message: bytes) -> bytes:
        hint = "run it by hand: the bytes on its standard input, the signature in DER on its output"
        try:
            # The operator's own program, by its path, without a shell.
            done = subprocess.run(  # noqa: S603
                [str(self.program)], input=message, capture_output=True, timeout=self.timeout_s, check=False
            )
        except subprocess.TimeoutExpired as e:
            raise SignerError(f"signer {self.program}: no answer within {self.timeout_s:g} s", hint) from e
        except OSError as e:
            raise SignerError(f"signer {self.program}: cannot start it: {e.strerror or e}", hint) from e
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip()[:300]
            raise SignerError(
                f"signer {self.program}: ended with {done.returncode}: {said or 'it said nothing'}", hint
            )
        if not 0 < len(done.stdout) <= MAX_ANSWER_BYTES:
            raise SignerError(
                f"signer {self.program}: expected a signature, got {len(done.stdout)} bytes", hint
            )
        return done.stdout


def signer_of(setting: str | None, public_key: Path | None, directory: Path) -> Signer:
    """What `--signer` and `--signer-key` name; neither: the key file. Raises AttestError, SignerError."""
    if setting is None:
        return FileSigner(directory)
    if not setting.startswith(COMMAND) or not setting.removeprefix(COMMAND):
        raise AttestError(
            f"--signer: expected {COMMAND}PROGRAM, got {setting[:80]!r}",
            "a program that reads the bytes and writes the signature: docs/attest.md shows some",
        )
    if public_key is None:
        raise AttestError(
            "--signer: expected the public half of its key as well, got none",
            "name it with --signer-key FILE (PEM): what the program answers is checked with it",
        )
    return CommandSigner(Path(setting.removeprefix(COMMAND)), spki_of(public_key))


def spki_of(path: Path) -> bytes:
    """The P-256 key of a PEM file, DER. Raises SignerError."""
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

    hint = "write it with `openssl pkey -pubout`, or as the KMS shows it"
    try:
        with path.open("rb") as f:
            key = load_pem_public_key(f.read(_MAX_KEY_BYTES))
    except OSError as e:
        raise SignerError(f"key {path}: cannot read: {e.strerror or e}", hint) from e
    except ValueError as e:
        raise SignerError(f"key {path}: expected a public key in PEM, got something else", hint) from e
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise SignerError(f"key {path}: expected an ECDSA P-256 key, got {type(key).__name__}", hint)
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def checked_signature(signer: Signer, message: bytes) -> bytes:
    """The signature, once it has been verified. Raises SignerError."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    signature = signer.sign(message)
    try:
        loaded(signer.public()).verify(signature, message, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature as e:
        raise SignerError(
            f"signer: expected a signature by the key {key_id(signer.public())}, got {len(signature)} bytes that are none",
            "it must sign SHA-256 of the bytes with ECDSA, answer in DER, and have the key that --signer-key names",
        ) from e
    return signature


def loaded(spki: bytes) -> "EllipticCurvePublicKey":
    """The key itself. `spki` was made or read here."""
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    key = load_der_public_key(spki)
    assert isinstance(key, ec.EllipticCurvePublicKey)
    return key
