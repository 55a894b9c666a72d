"""By what right the agent speaks: plain text on loopback, a certificate that it joined for, or files that somebody renews.

The uplink asks for credentials before each connection, and beside each open stream waits for newer ones: then it opens
a new channel and lets the old one drain, as gRPC cannot change a client's certificate (reference/attestation.md 4.1).
Everything here runs on the uplink's event loop; the steps with `cryptography` run in processes of their own.
"""

import asyncio
import contextlib
import json
import logging
import os
import stat
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Protocol

from flopmeter.contract.enrolment import parse_join_token
from flopmeter.contract.errors import ContractError

from .state import Identity, IdentityError, load_identity, load_request

log = logging.getLogger(__name__)

#: A step is some hundred milliseconds and at most three requests; a node under load may be slow to start Python.
STEP_S = 120.0
#: Files are looked at, and the clock, this often.
LOOK_S = 10.0
#: A renewal that failed is tried again so often; half a life of a certificate is 12 h.
RETRY_S = 60.0
#: Renewal at half of the life, give or take this part of it: a fleet that joined in one minute renews in two hours.
JITTER = 0.1
#: After so many connections that failed the certificate may be one that only our clock takes for good.
FAILED_CONNECTS = 3
_MAX_FILE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Credentials:
    """For one TLS channel, all PEM."""

    ca: bytes
    chain: bytes
    key: bytes = field(repr=False)
    not_before_unix_s: int
    not_after_unix_s: int


class Access(Protocol):
    """Where credentials come from."""

    #: The name in the collector's certificate, where it is another than the address'; "" = that.
    server_name: str
    #: What stands in the way of a certificate, or of the next one; "" = nothing.
    trouble: str

    async def credentials(self) -> Credentials | None:
        """For a new connection; None: plain text. Raises IdentityError."""
        ...

    async def superseded(self, call: Callable[[str, bytes], Any]) -> None:
        """Back when there are newer credentials than the last ones. `call(method, request)`: over the open channel."""
        ...

    def failed(self) -> None:
        """A connection with the last credentials did not come about."""
        ...


class Plain:
    """On loopback, to a collector that asks for nothing."""

    server_name = ""
    trouble = ""

    async def credentials(self) -> Credentials | None:
        return None

    async def superseded(self, call: Callable[[str, bytes], Any]) -> None:
        del call
        await asyncio.get_running_loop().create_future()

    def failed(self) -> None:
        pass


class Files:
    """Certificate, key and authorities that somebody else renews (cert-manager, SPIRE, step-ca)."""

    def __init__(
        self, certificate: Path, key: Path, ca: Path, server_name: str = "", *, look_s: float = LOOK_S
    ) -> None:
        self.server_name = server_name
        self.trouble = ""
        self._paths = certificate, key, ca
        self._look_s = look_s
        self._good: Credentials | None = None
        self._seen: object = None  # what the files were when they were read last

    async def credentials(self) -> Credentials | None:
        await self._look()
        if self._good is None:
            raise IdentityError(
                self.trouble, "see that --tls-cert, --tls-key and --tls-ca are there and whole"
            )
        return self._good

    async def superseded(self, call: Callable[[str, bytes], Any]) -> None:
        del call
        before = self._good
        while self._good is before:
            await asyncio.sleep(self._look_s)
            await self._look()
        log.info("the certificate files are new ones: opening a new channel")

    def failed(self) -> None:
        pass

    async def _look(self) -> None:
        """Read the files if they changed. A half-written pair changes nothing but `trouble`."""
        try:
            stamp = [(p.stat().st_mtime_ns, p.stat().st_size, p.stat().st_ino) for p in self._paths]
            if stamp == self._seen and not self.trouble:
                return
            chain, key, ca = (_read(path) for path in self._paths)
            facts = await run_step(
                "inspect", certificate_pem=chain.decode(), key_pem=key.decode(), ca_pem=ca.decode()
            )
        except (OSError, ValueError, IdentityError) as e:
            self._say(f"certificate files: {e}")
            return
        self.trouble, self._seen = "", stamp
        found = Credentials(ca, chain, key, facts["not_before_unix_s"], facts["not_after_unix_s"])
        if found != self._good:
            self._good = found

    def _say(self, trouble: str) -> None:
        if trouble != self.trouble:
            self.trouble = trouble
            log.warning("%s%s", trouble, "; the last good ones are used on" if self._good else "")


class Joined:
    """A certificate of the collector's own authority: got by a token, renewed at half of its life."""

    def __init__(
        self,
        state: Path,
        node: str,
        enrol: tuple[str, int],
        token: Callable[[], str],
        *,
        rng: Random,
        server_name: str = "",
        look_s: float = LOOK_S,
        retry_s: float = RETRY_S,
        unix_s: Callable[[], float] = time.time,
        other_authority: Callable[[], None] = lambda: None,
    ) -> None:
        """`token()`: the join token as it is now, "" = none. `other_authority` is called when a token led to another one."""
        self.server_name = server_name
        self.trouble = ""
        self._state, self._node, self._enrol, self._token = state, node, enrol, token
        self._rng, self._look_s, self._retry_s, self._unix_s = rng, look_s, retry_s, unix_s
        self._other_authority = other_authority
        self._got_s = time.monotonic()  # when the identity was first seen here
        self._known: Identity | None = None
        self._due_unix_s = 0.0
        self._failures = 0

    async def credentials(self) -> Credentials | None:
        identity = load_identity(self._state)
        token, token_id = self._asked(identity)
        if token and (identity is None or identity.token_id != token_id):
            identity = await self._join(identity, token)
        elif identity is None:
            raise IdentityError(
                "this agent has no certificate and no token", "give it one: --join-file FILE", final=True
            )
        elif self._expired(identity) or self._failures >= FAILED_CONNECTS:
            identity = await self._renew_by_key(identity)
        self._note(identity)
        self._failures = 0 if self._failures >= FAILED_CONNECTS else self._failures
        return Credentials(
            identity.ca_pem.encode(),
            identity.certificate_pem.encode(),
            identity.key_pem.encode(),
            identity.not_before_unix_s,
            identity.not_after_unix_s,
        )

    async def superseded(self, call: Callable[[str, bytes], Any]) -> None:
        self._failures = 0  # a stream is open
        used = self._known
        while True:
            identity = load_identity(self._state)
            if identity is not None and identity != used:
                return
            if used is not None and self._due(used):
                try:
                    await self._renew(call)
                except IdentityError as e:
                    self._say(f"renewal: {e}")
                    await asyncio.sleep(self._retry_s * (10 if e.final else 1))
                else:
                    self.trouble = ""
                    log.info("the certificate was renewed: opening a new channel")
                    return
            await asyncio.sleep(self._look_s)

    def failed(self) -> None:
        self._failures += 1

    def _asked(self, identity: Identity | None) -> tuple[str, str]:
        """The token and its id. Where there is a certificate, a token that is gone or damaged is no matter."""
        try:
            token = self._token()
            return token, parse_join_token(token).token_id if token else ""
        except (OSError, ContractError) as e:
            if identity is None:
                text = f"join token: {e}"
                raise IdentityError(
                    text, "see --join-file; make one: flopmeter collector token create"
                ) from e
            return "", ""

    def _expired(self, identity: Identity) -> bool:
        return self._unix_s() >= identity.not_after_unix_s - 1

    def _note(self, identity: Identity) -> None:
        if identity != self._known:
            life_s = identity.not_after_unix_s - identity.not_before_unix_s
            self._known, self._got_s = identity, time.monotonic()
            self._due_unix_s = identity.half_life_unix_s + life_s * self._rng.uniform(-JITTER, JITTER)

    def _due(self, identity: Identity) -> bool:
        """By the wall clock; and by the time that went by here, should that clock be set back."""
        half_s = (identity.not_after_unix_s - identity.not_before_unix_s) / 2
        aged = time.monotonic() - self._got_s >= half_s
        return aged or self._unix_s() >= self._due_unix_s or load_request(self._state) is not None

    async def _join(self, before: Identity | None, token: str) -> Identity:
        host, port = self._enrol
        values = {"state": str(self._state), "token": token, "node": self._node, "host": host, "port": port}
        try:
            await run_step("join", **values, server_name=self.server_name)
        except IdentityError as e:
            if before is None or self._expired(before):
                self.trouble = str(e)
                raise
            self._say(f"joining anew: {e}; the certificate that there is is used on")
            return before
        identity = _must(load_identity(self._state))
        log.info(
            "joined: agent %s of %s, certificate until %s",
            identity.agent_id,
            identity.trust_domain,
            time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(identity.not_after_unix_s)),
        )
        self.trouble = ""
        if before is not None and before.ca_pin != identity.ca_pin:
            self._other_authority()
        return identity

    async def _renew_by_key(self, identity: Identity) -> Identity:
        host, port = self._enrol
        try:
            await run_step(
                "renew-by-key", state=str(self._state), host=host, port=port, server_name=self.server_name
            )
        except IdentityError as e:
            if not self._expired(identity):
                self._say(f"renewal: {e}")
                return identity
            until = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(identity.not_after_unix_s))
            self.trouble = f"the certificate expired at {until} and is not renewed: {e}"
            raise IdentityError(
                self.trouble, "" if e.hint else "join again with a new token: --join-file", final=e.final
            ) from e
        log.info("the certificate was renewed by the record key")
        self.trouble = ""
        return _must(load_identity(self._state))

    async def _renew(self, call: Callable[[str, bytes], Any]) -> None:
        from .encode import RENEW_METHOD, renew_answer, renew_request

        asked = await run_step("prepare", state=str(self._state))  # durable before it is sent
        raw = await call(RENEW_METHOD, renew_request(bytes.fromhex(asked["csr"]), asked["sequence"]))
        try:
            answer = renew_answer(raw)
        except ValueError as e:
            raise IdentityError(f"the collector's answer is {e}") from e
        await run_step("take", state=str(self._state), answer=answer)

    def _say(self, trouble: str) -> None:
        if trouble != self.trouble:
            self.trouble = trouble
            log.error("%s", trouble)


def _must(identity: Identity | None) -> Identity:
    if identity is None:
        raise IdentityError("the certificate is gone from the state directory", "see who removes files there")
    return identity


def _read(path: Path) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # nothing that is opened here may hold up the stream
    with open(fd, "rb") as f:  # noqa: PTH123 - a descriptor
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise ValueError(f"{path}: expected a regular file")
        data = f.read(_MAX_FILE_BYTES + 1)
    if len(data) > _MAX_FILE_BYTES:
        raise ValueError(f"{path}: more than {_MAX_FILE_BYTES} bytes")
    return data


async def run_step(name: str, **values: Any) -> dict[str, Any]:
    """One step of step.py in a process of its own. Raises IdentityError as it does, or if it does not come back."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",  # nothing of the working directory is imported
        "-m",
        "flopmeter.agent.access.step",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        request = json.dumps({"step": name, "values": values}).encode()
        out, err = await asyncio.wait_for(process.communicate(request), STEP_S)
    except TimeoutError:
        raise IdentityError(f"{name}: not done within {STEP_S:.0f} s", "is this node overloaded?") from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    try:
        said: dict[str, Any] = json.loads(out)
    except ValueError:
        text = err.decode(errors="replace").strip().splitlines()
        raise IdentityError(
            f"{name}: ended with {process.returncode}: {text[-1][:300] if text else 'no word'}", "report it"
        ) from None
    if "error" in said:
        raise IdentityError(said["error"], said["hint"], final=said["final"])
    return said
