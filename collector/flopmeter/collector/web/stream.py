"""Server-sent events: one look at the books a second, whoever listens; they are told that something changed, not what."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable

from flopmeter.collector.access.tokens import VIEWER
from flopmeter.collector.api.question import Answer, Question

from .says import Refused

log = logging.getLogger(__name__)
MAX_CLIENTS, MAX_OF_TOKEN = 200, 20
LOOK_S = 1.0
#: A proxy cuts what is silent for a minute; and so long a revoked token may go on listening.
BEAT_S = 15.0
#: Then the page connects again, by itself.
LIFE_S = 3_600.0
RETRY_MS = 3_000


class Listening:
    """A client's place, and what it is sent there."""

    def __init__(self, parts: AsyncGenerator[bytes, None], leave: Callable[[], object]) -> None:
        self._parts, self._leave = parts, leave

    def __aiter__(self) -> "Listening":
        return self

    async def __anext__(self) -> bytes:
        return await anext(self._parts)

    async def aclose(self) -> None:
        self._leave()
        await self._parts.aclose()


class Stream:
    """On the HTTP port's event loop only."""

    def __init__(
        self,
        ask: Callable[[Question], Awaitable[Answer]],
        *,
        look_s: float = LOOK_S,
        beat_s: float = BEAT_S,
        life_s: float = LIFE_S,
    ) -> None:
        self._ask, self._look_s, self._beat_s, self._life_s = ask, look_s, beat_s, life_s
        self._clients: dict[asyncio.Event, tuple[str, str]] = {}  # … -> token, tenant
        self._looking: asyncio.Task[None] | None = None
        self._last: dict[str, bytes] = {}  # by tenant: one learns nothing of another's
        self._stopped = False

    @property
    def clients(self) -> int:
        return len(self._clients)

    def events(self, token_id: str, tenant: str, still: Callable[[], Awaitable[bool]]) -> "Listening":
        """What one client is sent; it is to be closed, also where nothing of it is read. Raises Refused (429, 503)."""
        if sum(of == token_id for of, _ in self._clients.values()) >= MAX_OF_TOKEN:
            raise Refused(429, f"expected at most {MAX_OF_TOKEN} live views of one token")
        if len(self._clients) >= MAX_CLIENTS:
            raise Refused(503, f"{MAX_CLIENTS} live views are open", headers={"Retry-After": "30"})
        changed = asyncio.Event()
        # at once: others are let in before the first of it is sent
        self._clients[changed] = (token_id, tenant)
        if self._looking is None or self._looking.done():
            self._looking = asyncio.get_running_loop().create_task(self._look())
        return Listening(self._events(changed, tenant, still), lambda: self._clients.pop(changed, None))

    async def _events(
        self, changed: asyncio.Event, tenant: str, still: Callable[[], Awaitable[bool]]
    ) -> AsyncGenerator[bytes, None]:
        loop = asyncio.get_running_loop()
        seen_good = loop.time()
        ends = seen_good + self._life_s
        if tenant in self._last:
            changed.set()
        try:
            yield b"retry: %d\n\n" % RETRY_MS
            while loop.time() < ends:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(changed.wait(), seen_good + self._beat_s - loop.time())
                if self._stopped:
                    return
                # never silent is no leave to stay
                if loop.time() - seen_good >= self._beat_s or not changed.is_set():
                    if not await still():
                        return
                    seen_good = loop.time()
                if changed.is_set():
                    changed.clear()
                    yield b"event: changed\ndata: %s\n\n" % self._last[tenant]
                else:
                    yield b": here\n\n"
        finally:
            self._clients.pop(changed, None)

    async def _look(self) -> None:
        """While somebody listens."""
        while self._clients:
            for tenant in {tenant for _, tenant in self._clients.values()}:
                await self._look_for(tenant)
            await asyncio.sleep(self._look_s)
        self._last.clear()

    async def _look_for(self, tenant: str) -> None:
        try:
            answer = await self._ask(Question("GET", ("state",), who="flopmeter", role=VIEWER, tenant=tenant))
        except Refused:
            return  # said to whoever asks for figures; here it is silence
        said = b" ".join(answer.body.split())
        if answer.status != 200 or said == self._last.get(tenant):
            return
        self._last[tenant] = said
        for changed, (_, of) in self._clients.items():
            if of == tenant:
                changed.set()

    async def stop(self) -> None:
        """Every answer ends, whole: who listened connects again, by itself."""
        self._stopped = True
        for changed in self._clients:
            changed.set()
        if self._looking is not None:
            self._looking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._looking
