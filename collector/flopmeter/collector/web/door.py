"""Who asks: a token in the Authorization header, or a session's cookie; and how often they may."""

import hashlib
import json
import logging
import re
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from flopmeter.collector.access.rates import Rates
from flopmeter.collector.access.tokens import Token

from .buckets import Buckets
from .channel import Channel, Headers, check_same_origin, check_taken
from .keyring import Keyring
from .says import Refused
from .sessions import Opened, Sessions

log = logging.getLogger(__name__)
#: A page that is looked at asks some ten things a change; a script may ask as fast as it is answered, for a while.
TOKEN_PER_S, TOKEN_BURST = 50, 1_000
#: … and of all that come from one address, known or not. Many may share one: a proxy, a tunnel, this machine.
ADDRESS_PER_S, ADDRESS_BURST = 200, 2_000
#: Tokens that were good lately stay heard while somebody guesses from the same address.
MAX_KNOWN = 1_000
_COOKIE = re.compile(r"[0-9A-Za-z_-]{43}\Z")


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody whose token is good."""

    token: Token
    by_cookie: bool

    @property
    def role(self) -> str:
        return self.token.role

    @property
    def tenant(self) -> str:
        return self.token.tenant


class Door:
    """On the HTTP port's event loop only."""

    def __init__(
        self,
        keyring: Keyring,
        port: int,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._keyring, self._monotonic = keyring, monotonic
        # Cookies know no ports: two collectors behind one host name must not overwrite each other's.
        self._cookie = f"flopmeter-{port}"
        self.sessions = Sessions()
        self._failures = Rates()
        self._of_token = Buckets(TOKEN_PER_S, TOKEN_BURST)
        self._of_address = Buckets(ADDRESS_PER_S, ADDRESS_BURST)
        self._known: OrderedDict[bytes, None] = OrderedDict()
        self._loud = Buckets(1 / 60, 1)

    def check_address(self, address: str) -> None:
        """Raise Refused (429) for an address that asks too much."""
        self._check(self._of_address, address, "this address")

    async def caller(self, headers: Headers, channel: Channel, *, changes: bool) -> Caller:
        """Who asks. `changes`: what they ask for changes something. Raises Refused: 400, 401, 403, 429, 503."""
        check_taken(channel)
        shown = [value.decode("latin-1") for name, value in headers if name == b"authorization"]
        if len(shown) > 1:
            raise Refused(400, "expected one Authorization header, got several")
        if shown:
            scheme, _, text = shown[0].partition(" ")
            token = await self._by_text(text.strip() if scheme.lower() == "bearer" else "", channel.address)
            found = Caller(token, by_cookie=False)
        else:
            found = Caller(await self._by_cookie(headers, channel, changes=changes), by_cookie=True)
        self._check(self._of_token, found.token.token_id, "this token")
        return found

    async def login(self, headers: Headers, channel: Channel, body: bytes) -> tuple[Caller, Opened]:
        """A new session, for the token in {"token": …}. Raises Refused."""
        check_taken(channel)
        check_same_origin(headers, scheme=_scheme(channel), needed=False)
        try:
            said = json.loads(body)
            text = said["token"]
            good = isinstance(text, str) and len(said) == 1
        except (ValueError, TypeError, KeyError, RecursionError):
            good = False
        if not good:
            raise Refused(400, 'expected a JSON object {"token": "FMA1…"}, got something else')
        token = await self._by_text(text.strip(), channel.address)
        return Caller(token, by_cookie=True), self.sessions.open(token.token_id, self._monotonic())

    def logout(self, headers: Headers, channel: Channel) -> None:
        """End the session whose cookie it is; without one there is nothing to end."""
        check_same_origin(headers, scheme=_scheme(channel), needed=True)
        for text in self._cookies(headers, channel):
            self.sessions.close(text)

    async def still(self, caller: Caller) -> bool:
        """Whether the token is good still, of somebody who stays connected."""
        return await self._keyring.by_id(caller.token.token_id) is not None

    def set_cookie(self, text: str, lasts_s: int, channel: Channel) -> str:
        """The Set-Cookie header; text "" ends it."""
        secure = "; Secure" if channel.secure else ""
        return f"{self._name(channel)}={text}; Path=/; Max-Age={lasts_s}; HttpOnly; SameSite=Strict{secure}"

    async def _by_text(self, text: str, address: str) -> Token:
        digest, now = hashlib.sha256(text.encode()).digest(), self._monotonic()
        if digest not in self._known:
            wait = self._failures.wait_s(address, now)
            if wait:
                raise Refused(
                    429,
                    "expected a good token within ten attempts, and this address showed ten that are none",
                    f"wait {wait} s; tokens that were good before go on being taken",
                    {"Retry-After": str(wait)},
                )
        state = await self._keyring.by_text(text)
        if state is None:
            self._known.pop(digest, None)
            self._failures.refused(address, now)
            if not self._loud.wait_s(address, now):
                log.warning("a token that is none, or is not good any more, was shown from %s", address)
            raise unauthorized('error="invalid_token"')
        self._known[digest] = None
        self._known.move_to_end(digest)
        while len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)
        return state.token

    async def _by_cookie(self, headers: Headers, channel: Channel, *, changes: bool) -> Token:
        texts = self._cookies(headers, channel)
        if not texts:
            raise unauthorized()
        if len(texts) > 1:
            raise Refused(400, "expected one session cookie, got several", "sign in again")
        check_same_origin(headers, scheme=_scheme(channel), needed=changes)
        token_id = self.sessions.token_of(texts[0], self._monotonic())
        if token_id is None:
            raise unauthorized()
        state = await self._keyring.by_id(token_id)
        if state is None:
            self.sessions.close_token(token_id)
            raise unauthorized()
        return state.token

    def _cookies(self, headers: Headers, channel: Channel) -> list[str]:
        wanted, found = self._name(channel), []
        for key, value in headers:
            if key == b"cookie":
                for part in value.decode("latin-1").split(";"):
                    name, _, text = part.strip().partition("=")
                    if name == wanted and _COOKIE.match(text):
                        found.append(text)
        return found

    def _name(self, channel: Channel) -> str:
        # The prefix makes browsers hold it to this host and to TLS (RFC 6265bis section 4.1.3.2).
        return f"__Host-{self._cookie}" if channel.secure else self._cookie

    def _check(self, buckets: Buckets, key: str, what: str) -> None:
        wait = buckets.wait_s(key, self._monotonic())
        if wait:
            raise Refused(
                429,
                f"expected fewer requests of {what}",
                f"wait {wait} s, then ask less often",
                {"Retry-After": str(wait)},
            )


def unauthorized(more: str = "") -> Refused:
    """The same words for every token that is none: not which is wrong of what."""
    return Refused(
        401,
        "expected a token that is good, or a session of one",
        "Authorization: Bearer FMA1…, or sign in; flopmeter collector token create --role viewer --name YOU makes one",
        {"WWW-Authenticate": 'Bearer realm="flopmeter"' + (f", {more}" if more else "")},
    )


def _scheme(channel: Channel) -> str:
    return "https" if channel.secure else "http"
