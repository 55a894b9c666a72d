"""Signatures of Standard Webhooks 1.0.0: HMAC-SHA256 over id.timestamp.body, one per key. Pure."""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence

from flopmeter.collector.errors import SinkError

PREFIX = "whsec_"
#: Of the specification: 192 to 512 bits.
LEAST_KEY_BYTES, MOST_KEY_BYTES = 24, 64
#: Keys that sign at once: the current one and those it replaces.
MAX_KEYS = 4


def read_keys(what: str, text: str) -> tuple[bytes, ...]:
    """The keys of a secret: one whsec_… a word, the current one first. Raises SinkError, which never shows any."""
    words = text.split()
    if not 1 <= len(words) <= MAX_KEYS:
        raise SinkError(
            f"{what}: expected 1 to {MAX_KEYS} keys, one a line, got {len(words)}",
            'make one: echo "whsec_$(openssl rand -base64 32)"',
        )
    return tuple(_key(what, number, word) for number, word in enumerate(words, 1))


def _key(what: str, number: int, word: str) -> bytes:
    if not word.startswith(PREFIX):
        raise SinkError(
            f"{what}: key {number}: expected {PREFIX} and base64 (Standard Webhooks), got something else",
            'make one: echo "whsec_$(openssl rand -base64 32)"',
        )
    try:
        key = base64.b64decode(word.removeprefix(PREFIX), validate=True)
    except binascii.Error as e:
        raise SinkError(
            f"{what}: key {number}: expected base64 behind {PREFIX}", "copy it again, whole"
        ) from e
    if not LEAST_KEY_BYTES <= len(key) <= MOST_KEY_BYTES:
        raise SinkError(
            f"{what}: key {number}: expected {LEAST_KEY_BYTES} to {MOST_KEY_BYTES} bytes, got {len(key)}",
            'make one: echo "whsec_$(openssl rand -base64 32)"',
        )
    return key


def headers(keys: Sequence[bytes], message_id: str, unix_s: int, body: bytes) -> dict[str, str]:
    """The three headers of one attempt. The id stays over retries, the time of the attempt does not."""
    signed = f"{message_id}.{unix_s}.".encode() + body
    signatures = (base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode() for key in keys)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(unix_s),
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }
