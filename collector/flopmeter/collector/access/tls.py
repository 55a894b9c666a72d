"""The collector's own certificate on its ports: read again, or made again, while it runs.

New connections get the newest good one; open ones keep theirs, and end within a day. A bad new file changes nothing but
the log and /metrics: the last good one is served until it expires, which is why its end is in /metrics, too.
"""

import logging
import os
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ed448, ed25519
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from .ca import CertificateAuthority, at, spki_sha256
from .errors import TlsFileError

#: Files are looked at at most so often, however many connect.
LOOK_S = 1.0
MAX_FILE_BYTES = 1 << 20
#: From so long before its end on an expiring certificate is named in the log, once an hour.
EXPIRES_SOON_S = 3 * 86_400
_SAY_AGAIN_S = 3_600.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Served:
    """What a new connection is served with, all PEM."""

    chain: bytes
    key: bytes = field(repr=False)
    client_ca: bytes
    not_after_unix_s: int


class Source(Protocol):
    """Where certificates come from."""

    def newer(self, than: Served | None) -> Served | None:
        """Another one than `than`; None: that one is still the newest. Raises TlsFileError."""
        ...


class Embedded:
    """Certificates of our own authority, each replaced at half of its life."""

    def __init__(
        self, ca: CertificateAuthority, names: Sequence[str], unix_ns: Callable[[], int] = time.time_ns
    ) -> None:
        self._ca, self._names, self._unix_ns = ca, tuple(names), unix_ns
        self._due_unix_s = 0

    def newer(self, than: Served | None) -> Served | None:
        now_s = self._unix_ns() // 1_000_000_000
        if than is not None and now_s < self._due_unix_s:
            return None
        issued, key = self._ca.sign_server(self._names, at(self._unix_ns()))
        self._due_unix_s = (now_s + issued.not_after_unix_s) // 2
        return Served(issued.pem + self._ca.pem, key, self._ca.pem, issued.not_after_unix_s)


class Files:
    """Certificates that cert-manager, SPIRE, step-ca or a person puts in files, and replaces there."""

    def __init__(
        self,
        paths: tuple[Path, Path, Path],  # chain, key, authorities of clients
        unix_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._paths = paths
        self._unix_ns = unix_ns
        self._seen: tuple[object, ...] = ()

    def newer(self, than: Served | None) -> Served | None:
        seen = tuple(_stat(path) for path in self._paths)
        if seen == self._seen:
            return None
        self._seen = seen  # one that is bad is not read again until it changes
        return self._read()

    def _read(self) -> Served:
        chain_path, key_path, ca_path = self._paths
        chain, key, client_ca = (_text(path) for path in self._paths)
        certificates = _certificates(chain_path, chain)
        _certificates(ca_path, client_ca)
        leaf = certificates[0]
        try:
            private = load_pem_private_key(key, password=None)
            public = leaf.public_key()
        except (ValueError, TypeError, UnsupportedAlgorithm) as e:
            raise TlsFileError(
                f"{key_path}: expected a private key in PEM without a password, got none that can be read",
                "name the key that belongs to --tls-cert",
            ) from e
        if isinstance(public, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
            raise TlsFileError(
                f"{chain_path}: expected a P-256 (or RSA) certificate, got an Edwards-curve one, which gRPC's TLS serves to "
                "nobody (NO_COMMON_SIGNATURE_ALGORITHMS)",
                "have it issued for a P-256 key",
            )
        if spki_sha256(private.public_key()) != spki_sha256(public):
            raise TlsFileError(
                f"{key_path}: expected the key of the certificate in {chain_path}, got another's",
                "both files must come from one renewal; a half-written pair mends itself",
            )
        end = int(leaf.not_valid_after_utc.timestamp())
        if end <= self._unix_ns() // 1_000_000_000:
            raise TlsFileError(
                f"{chain_path}: expected a certificate that is valid, got one that ended {leaf.not_valid_after_utc:%Y-%m-%d %H:%M} UTC",
                "have it renewed",
            )
        if (
            key_path.stat().st_mode & 0o007
        ):  # not refused: a Secret of Kubernetes is 0644 unless it is told otherwise
            log.warning(
                "TLS: %s can be read by every user of this machine: chmod 600, or defaultMode", key_path
            )
        return Served(chain, key, client_ca, end)


class ServerTls:
    """What is served now. Any thread; asked for every new connection."""

    def __init__(
        self,
        source: Source,
        unix_ns: Callable[[], int] = time.time_ns,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Raises TlsFileError: a start without a good certificate is none."""
        self._source, self._unix_ns, self._monotonic = source, unix_ns, monotonic
        self._one = threading.Lock()
        served = source.newer(None)
        assert served is not None
        self._served = served
        self._looked = monotonic()
        self._said = -_SAY_AGAIN_S
        self.fault: str | None = None
        self.reloads = 0

    def now(self) -> Served:
        """The newest good one. Looks for another, at most once a second."""
        with self._one:
            now = self._monotonic()
            if now - self._looked >= LOOK_S:
                self._looked = now
                self._look()
            return self._served

    def _look(self) -> None:
        try:
            newer = self._source.newer(self._served)
        except Exception as e:  # noqa: BLE001 - whatever it is: the last good one goes on, and it is said
            self.fault = str(e)
            log.error(  # noqa: TRY400
                "TLS: the last good certificate goes on being served: %s (%s)", e, getattr(e, "hint", "")
            )
            newer = None
        else:
            if newer is not None:
                self._served, self.fault = newer, None
                self.reloads += 1
                log.info(
                    "TLS: new connections get a new certificate, valid until %s",
                    at(newer.not_after_unix_s * 10**9),
                )
        left_s = self._served.not_after_unix_s - self._unix_ns() // 1_000_000_000
        if left_s < EXPIRES_SOON_S and self.fault is not None and self._looked - self._said >= _SAY_AGAIN_S:
            self._said = self._looked
            log.error(
                "TLS: the certificate that is served ends in %d hours, and no newer one is good",
                left_s // 3_600,
            )

    @property
    def not_after_unix_s(self) -> int:
        return self._served.not_after_unix_s


def context(served: Served) -> ssl.SSLContext:
    """For the standard library's servers, without a client's certificate."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    # It takes files only; this one is in memory and never on a disk.
    fd = os.memfd_create("flopmeter-tls", os.MFD_CLOEXEC)
    try:
        with open(fd, "wb", closefd=False) as f:
            f.write(served.key + b"\n" + served.chain)
        made.load_cert_chain(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)
    return made


def _stat(path: Path) -> object:
    try:
        info = path.stat()
    except OSError as e:
        return str(e)
    return (info.st_dev, info.st_ino, info.st_mtime_ns, info.st_size)


def _text(path: Path) -> bytes:
    try:
        with path.open("rb") as f:
            data = f.read(MAX_FILE_BYTES + 1)
    except OSError as e:
        raise TlsFileError(
            f"{path}: cannot read: {e.strerror or e}", "check the file and its permissions"
        ) from e
    if len(data) > MAX_FILE_BYTES:
        raise TlsFileError(f"{path}: expected at most {MAX_FILE_BYTES} bytes, got more")
    return data


def _certificates(path: Path, pem: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as e:
        raise TlsFileError(
            f"{path}: expected certificates in PEM, got none that can be read", "name a PEM file"
        ) from e
