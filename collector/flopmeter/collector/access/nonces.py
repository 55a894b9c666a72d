"""Nonces without a table: each carries its end and a MAC, so that whoever asks for many fills nothing."""

import hashlib
import hmac
import os

from .errors import AccessRefused

LIFE_S = 60
_RANDOM, _END, _MAC = 8, 8, 16
#: Used ones are kept until they end; more than this within their life are refused: an enrolment is an fsync each.
MAX_USED = 100_000


class Nonces:
    """Of one server: its key is forgotten with it, and with that every nonce. One thread at a time."""

    def __init__(self) -> None:
        self._key = os.urandom(32)
        self._used: dict[bytes, int] = {}

    def new(self, now_s: int) -> bytes:
        """32 bytes, good for 60 s and one use."""
        begun = os.urandom(_RANDOM) + (now_s + LIFE_S).to_bytes(_END, "big")
        return begun + self._mac(begun)

    def use(self, nonce: bytes, now_s: int) -> None:
        """Raises AccessRefused for one that was used, has ended, or is not ours."""
        begun, mac = nonce[: _RANDOM + _END], nonce[_RANDOM + _END :]
        end = int.from_bytes(begun[_RANDOM:], "big")
        if not hmac.compare_digest(mac, self._mac(begun)):
            raise _refused("one that this collector gave", "another's")
        if now_s >= end:
            raise _refused(f"one that is not older than {LIFE_S} s", "an old one")
        if nonce in self._used:
            raise _refused("one that was not used yet", "a used one: a request is not taken twice")
        if len(self._used) >= MAX_USED:
            self._used = {n: e for n, e in self._used.items() if e > now_s}
            if len(self._used) >= MAX_USED:
                raise AccessRefused(503, "not-now", "too many requests within a minute", "try again")
        self._used[nonce] = end

    def _mac(self, begun: bytes) -> bytes:
        return hmac.digest(self._key, begun, hashlib.sha256)[:_MAC]


def _refused(expected: str, got: str) -> AccessRefused:
    return AccessRefused(
        409, "nonce", f"nonce: expected {expected}, got {got}", "ask for another: GET /nonce"
    )
