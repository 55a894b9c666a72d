"""Sessions of the page: a random id in a cookie stands for a token. In memory only, and only its hash. The clock is given.

A session is no right of its own: each request asks whether the token behind it is still good.
"""

import hashlib
import secrets
from collections import OrderedDict
from dataclasses import dataclass
from typing import NamedTuple

ID_BYTES = 32
LIFE_S = 12 * 3_600
MAX_SESSIONS, MAX_OF_TOKEN = 10_000, 50


@dataclass(frozen=True, slots=True)
class Session:
    token_id: str
    ends_s: float


class Opened(NamedTuple):
    """What goes into the cookie, once."""

    text: str
    lasts_s: int


class Sessions:
    """One thread at a time."""

    def __init__(self) -> None:
        self._open: OrderedDict[bytes, Session] = OrderedDict()

    def open(self, token_id: str, now_s: float) -> Opened:
        """A new one. The oldest makes room, of this token first."""
        own = [key for key, s in self._open.items() if s.token_id == token_id]
        for key in own[: max(0, len(own) - MAX_OF_TOKEN + 1)]:
            del self._open[key]
        while len(self._open) >= MAX_SESSIONS:
            self._open.popitem(last=False)
        text = secrets.token_urlsafe(ID_BYTES)
        self._open[_key(text)] = Session(token_id, now_s + LIFE_S)
        return Opened(text, LIFE_S)

    def token_of(self, text: str, now_s: float) -> str | None:
        """The id of the token behind it; None: it is no session, or not any more."""
        key = _key(text)
        session = self._open.get(key)
        if session is None:
            return None
        if now_s >= session.ends_s:
            del self._open[key]
            return None
        return session.token_id

    def close(self, text: str) -> None:
        self._open.pop(_key(text), None)

    def close_token(self, token_id: str) -> None:
        """All of a token that is good for nothing any more."""
        for key in [key for key, s in self._open.items() if s.token_id == token_id]:
            del self._open[key]

    def __len__(self) -> int:
        return len(self._open)


def _key(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "replace")).digest()
