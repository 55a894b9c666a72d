"""RFC 3161 timestamps over checkpoints, by authorities outside of the house (extra `timestamps`, rfc3161-client).

What is stamped is the checkpoint's text: what the log signed, without any signature. A token says that the text was there
at its time, and nothing else. It is verified against the authorities that the operator named before it is stored.
"""

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from flopmeter.collector.deliver.http_call import Address
from flopmeter.collector.errors import LogError, SettingsError

from .call import Reply, address, post
from .checkpoint import Checkpoint

if TYPE_CHECKING:
    from cryptography.x509 import Certificate
    from rfc3161_client import TimeStampResponse

#: reference/attestation.md 5: on each attestation, and on a checkpoint each hour.
EVERY_NS = 3_600_000_000_000
TIMEOUT_S = 15.0
MAX_CA_BYTES = 1 << 20
_QUERY, _REPLY = "application/timestamp-query", "application/timestamp-reply"  # RFC 3161 3.4
_INSERT = "INSERT OR IGNORE INTO timestamps (checkpoint_no, tsa, token, unix_ns) VALUES (?, ?, ?, ?)"

Post = Callable[[Address, bytes], Reply]


@dataclass(slots=True)
class Authority:
    """A timestamp authority, and how it stands with it. Written by the thread that asks; read by a scrape at any time."""

    url: str
    address: Address
    stamped_unix_s: int = 0  # the time in its last token
    error: str = field(default="")


class Authorities:
    """Those of one collector. One thread at a time asks."""

    def __init__(self, urls: Sequence[str], ca_file: Path | None, call: Post | None = None) -> None:
        """Raises SettingsError: the extra is not installed, a URL is none, or `ca_file` holds no certificate."""
        _require()
        if ca_file is None:
            raise SettingsError(
                "--tsa: expected --tsa-ca with it",
                "name a PEM file of the authorities' root certificates: who may say what time it is, you decide",
            )
        if len(set(urls)) != len(urls):
            raise SettingsError("--tsa: expected each URL once")
        self.authorities = [Authority(url, address("--tsa", url)) for url in urls]
        self._certificates = _certificates(ca_file)
        self._call = call or (lambda to, body: post(to, body, _QUERY, timeout_s=TIMEOUT_S))

    def stamp(self, connection: sqlite3.Connection, checkpoint: Checkpoint, now_ns: int) -> int:
        """Have `checkpoint` stamped by all that have not; how many tokens it then has. Raises sqlite3.Error.

        Who fails is noted (`error`), not raised.
        """
        had = {tsa for (tsa,) in connection.execute(
            "SELECT tsa FROM timestamps WHERE checkpoint_no = ?", (checkpoint.number,)
        )}  # fmt: skip
        for authority in self.authorities:
            if authority.url in had:
                continue
            try:
                token, time = self._ask(authority, text_of(checkpoint.note))
            except LogError as e:
                authority.error = str(e)
                continue
            authority.error, authority.stamped_unix_s = "", int(time.timestamp())
            connection.execute(
                _INSERT, (checkpoint.number, authority.url, token, now_ns)
            )  # D2, in autocommit
            had.add(authority.url)
        return len(had)

    def _ask(self, authority: Authority, text: bytes) -> tuple[bytes, datetime]:
        from rfc3161_client import HashAlgorithm, TimestampRequestBuilder

        request = (
            TimestampRequestBuilder()
            .data(text)
            .hash_algorithm(HashAlgorithm.SHA256)
            .nonce(nonce=True)
            .cert_request(cert_request=True)
            .build()
        )
        reply = self._call(authority.address, request.as_bytes())
        if reply.status != 200 or reply.content_type != _REPLY:
            raise LogError(
                f"{authority.address.shown}: expected 200 and {_REPLY}, got {reply.status} and {reply.content_type[:80]!r}"
            )
        try:
            return reply.body, verified(reply.body, text, self._certificates, nonce=request.nonce)
        except LogError as e:
            raise LogError(f"{authority.address.shown}: {e}") from e


def verified(
    token: bytes, text: bytes, certificates: "Iterable[Certificate]", nonce: int | None = None
) -> datetime:
    """The time that `token` (a DER TimeStampResp) gives `text`, by an authority that `certificates` lead to.

    Raises LogError: not granted, not of this text or this request, not signed, not by one that may stamp.
    """
    from rfc3161_client import VerifierBuilder, decode_timestamp_response

    try:
        answer: TimeStampResponse = decode_timestamp_response(token)
        if answer.as_bytes() != token:
            raise LogError("the token has more bytes than a timestamp response")
        builder = VerifierBuilder()
        for certificate in certificates:
            own = certificate.issuer == certificate.subject
            builder = (builder.add_root_certificate if own else builder.add_intermediate_certificate)(
                certificate
            )
        if nonce is not None:
            builder = builder.nonce(nonce)
        builder.build().verify_message(answer, text)
        return answer.tst_info.gen_time
    except LogError:
        raise
    except (
        Exception
    ) as e:  # a foreign parser on foreign bytes: ValueError, VerificationError, x509's own, and more
        raise LogError(f"the timestamp is not good: {str(e)[:200]}") from e


def text_of(note: bytes) -> bytes:
    """What of a checkpoint is stamped: its text, as the log signed it."""
    return note.partition(b"\n\n")[0] + b"\n"


def tokens_of(connection: sqlite3.Connection, checkpoint_no: int) -> list[tuple[str, bytes]]:
    """(authority, token) over a checkpoint's text."""
    return list(
        connection.execute(
            "SELECT tsa, token FROM timestamps WHERE checkpoint_no = ? ORDER BY tsa", (checkpoint_no,)
        )
    )


def due(connection: sqlite3.Connection, now_ns: int) -> bool:
    """Whether an hour has passed since a checkpoint was stamped last, or the clock went back past that."""
    (last,) = connection.execute("SELECT max(unix_ns) FROM timestamps").fetchone()
    return last is None or not last <= now_ns < last + EVERY_NS


def _require() -> None:
    try:
        import rfc3161_client  # noqa: F401
    except ModuleNotFoundError as e:
        raise SettingsError(
            "--tsa: needs the package 'rfc3161-client', which is not installed here",
            "install flopmeter[timestamps]",
        ) from e


def _certificates(path: Path) -> "list[Certificate]":
    from cryptography.x509 import load_pem_x509_certificates

    try:
        with path.open("rb") as f:
            found = load_pem_x509_certificates(f.read(MAX_CA_BYTES))
    except OSError as e:
        raise SettingsError(f"--tsa-ca {path}: cannot read: {e.strerror}", "name a readable PEM file") from e
    except ValueError as e:
        raise SettingsError(f"--tsa-ca {path}: expected certificates (PEM): {e}", "name a PEM file") from e
    if not any(c.issuer == c.subject for c in found):
        raise SettingsError(f"--tsa-ca {path}: expected a root certificate among them, got none")
    return list(dict.fromkeys(found))
