"""Asks the store whether a token is good, at each request: from the moment that one is revoked, nothing is answered by it.

On a thread and a connection of its own: a disk that hangs holds up who asks for figures, never /healthz or the agents.
"""

import asyncio
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from flopmeter.collector.access.tokens import TokenState, has_secret, parse_api, tokens_of
from flopmeter.collector.errors import CollectorError
from flopmeter.collector.store.access import of_subject
from flopmeter.collector.store.reading import open_for_reading

from .says import Refused

#: A look-up takes a tenth of a millisecond.
TIMEOUT_S = 10.0


class Keyring:
    """Asked from the HTTP port's event loop only."""

    def __init__(self, store: Path, unix_ns: Callable[[], int] = time.time_ns) -> None:
        self._store, self._unix_ns = store, unix_ns
        self._thread = ThreadPoolExecutor(1, "flopmeter-http-tokens")
        self._connection: sqlite3.Connection | None = None

    async def by_text(self, text: str) -> TokenState | None:
        """The API token that somebody shows, if it is good. Raises Refused (503) where the store cannot be asked."""
        parsed = parse_api(text)
        if parsed is None:
            return None
        token_id, secret = parsed
        return await self._ask(lambda: self._look(token_id, secret))

    async def by_id(self, token_id: str) -> TokenState | None:
        """The API token of that id, if it is good still. Raises Refused (503)."""
        return await self._ask(lambda: self._look(token_id, None))

    async def _ask(self, look: Callable[[], TokenState | None]) -> TokenState | None:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                return await asyncio.get_running_loop().run_in_executor(self._thread, look)
        except (CollectorError, sqlite3.Error, TimeoutError) as e:
            raise Refused(
                503,
                "the store cannot be asked whether this token is good",
                "the collector's log says why",
                {"Retry-After": "5"},
            ) from e

    def _look(self, token_id: str, secret: bytes | None) -> TokenState | None:
        try:
            if self._connection is None:
                self._connection = open_for_reading(self._store)
            state = tokens_of(of_subject(self._connection.execute, token_id)).get(token_id)
        except (CollectorError, sqlite3.Error):
            self._forget()
            raise
        if secret is not None and not has_secret(state, secret, join=False):
            return None
        if state is None:
            return None
        return None if state.fault(self._unix_ns() // 1_000_000_000) else state

    def _forget(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def close(self) -> None:
        self._thread.submit(self._forget)
        self._thread.shutdown(wait=True)
