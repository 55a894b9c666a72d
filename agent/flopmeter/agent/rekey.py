"""`flopmeter agent rekey`: another record key for an agent that is stopped. Each step is durable before the next.

    STATE/rekey/record.key          the new key, until it is the agent's
    STATE/rekey/tls-request.json    the request for its certificate: from here on the collector may have taken it
    STATE/rekey/tls.json            the collector's answer: from here on it has

All of it under the spool's lock. As long as there is neither request nor answer, nothing was told to anybody, and the
agent is the old one. With the answer the rest is local: the spool begins anew at number 1, certificate and key take
the places of the old ones, and what was aside is removed. Between the two nobody here knows who the agent is to the
collector, so neither key signs a record: the same request is sent again, and the collector answers the same.
"""

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path

from flopmeter.contract.enrolment import agent_uri, key_change_message
from flopmeter.contract.record import ZERO_HASH, record_hash

from .access.state import (
    IDENTITY_FILE,
    REQUEST_FILE,
    Identity,
    IdentityError,
    load_identity,
    load_request,
    save_identity,
)
from .errors import SpoolError
from .files import make_directory, sync_directory
from .keys import KEY_FILE, REKEY_DIR, RecordKey, load_or_create_key
from .shipping.spool import Spool

#: Waiting for a connection, and for the answer: a collector that is there answers in some milliseconds.
CONNECT_S = 10.0
ANSWER_S = 30.0
_GO_ON = "run it again, or start the agent: it goes on where this ended"
_START_ONCE = "start the agent once, with its collector, stop it, and try again"
#: First words of the collector's refusals of the change itself (docs/identity.md): it has not taken the new key.
_REFUSALS = ("malformed", "bad-csr", "bad-proof", "unknown-agent", "revoked", "cloned")


class RekeyError(IdentityError):
    """The key is not changed, or not yet. `exit_code` 1: not like this; 3: the collector cannot be asked."""

    def __init__(self, message: str, hint: str = "", *, exit_code: int = 1) -> None:
        super().__init__(message, hint, final=exit_code == 1)
        self.exit_code = exit_code

    def __str__(self) -> str:
        return str(self.args[0])  # the command line shows the hint by itself


@dataclass(frozen=True, slots=True)
class Changed:
    """Who the agent was, and who it is. `resumed`: a change that had been begun before is done."""

    old_agent_id: str
    new_agent_id: str
    new_public_key: str
    not_after_unix_s: int
    resumed: bool


def rekey(
    state: Path,
    collector: str,
    server_name: str = "",
    *,
    only_finish: bool = False,
) -> Changed | None:
    """Change the record key, or go on with the change that was begun. Raises RekeyError, SpoolError, KeyFileError.

    `only_finish`, for a start: begin none; None = there was none to go on with, and the agent is the old one.
    """
    if not (state / KEY_FILE).exists():
        raise RekeyError(f"state {state}: there is no agent", "name its directory: --state")
    spool = _opened(state)
    try:
        return _rekey(state, spool, collector, server_name, only_finish=only_finish)
    except OSError as e:
        raise RekeyError(
            f"state {state}: the change of the key cannot be written: {e.strerror or e}",
            f"run as the owner of the state directory, and see that its disk has room; then {_GO_ON}",
            exit_code=3,
        ) from e
    finally:
        spool.close()


def _opened(state: Path) -> Spool:
    try:
        return Spool.open(state / "spool")
    except SpoolError as e:
        if "is in use" in str(e):
            raise RekeyError(f"the agent is running: {e}", "stop it first") from e
        raise


def _rekey(
    state: Path, spool: Spool, collector: str, server_name: str, *, only_finish: bool
) -> Changed | None:
    aside = state / REKEY_DIR
    answer, request = load_identity(aside), load_request(aside)
    if answer is not None:
        return _finish(state, spool, answer, resumed=True)
    if request is None and only_finish:
        _forget(state)
        return None
    identity, old = load_identity(state), load_or_create_key(state)
    if identity is None or identity.agent_id != old.agent_id.hex():
        raise RekeyError(
            "this agent has no certificate of its collector's authority, which is how a collector knows who asks",
            "without one: stop the agent, move its state directory away, start it, and admit the new key by hand "
            "(docs/identity.md)",
        )
    if not collector:
        raise RekeyError("no collector is named, and it must be told", "--collector HOST:PORT", exit_code=2)
    if request is None:
        _check(state, spool, identity)
    answer = asyncio.run(_ask(state, identity, old, collector, server_name))
    return _finish(state, spool, answer, resumed=request is not None)


def _check(state: Path, spool: Spool, identity: Identity) -> None:
    """What must be so before anything is begun. Raises RekeyError."""
    if spool.pending:
        raise RekeyError(
            f"{spool.pending} records wait for the collector, and none under the old key is taken behind the change",
            _START_ONCE,
        )
    if load_request(state) is not None:  # with an outdated sequence the agent would pass for a clone
        raise RekeyError("a renewal of the certificate has no answer yet", _START_ONCE)
    if time.time() >= identity.not_after_unix_s:
        raise RekeyError("the certificate has expired", _START_ONCE)


async def _ask(state: Path, identity: Identity, old: RecordKey, collector: str, server_name: str) -> Identity:
    """Have the collector take the new key. The answer is durable on return."""
    from .access.certificates import csr_der
    from .access.channel import caller, open_channel, refused_because
    from .access.credentials import Credentials
    from .access.encode import CHANGE_KEY_METHOD, change_key_request, renew_answer
    from .access.step import keep_answer, new_certificate_request

    credentials = Credentials(
        identity.ca_pem.encode(),
        identity.certificate_pem.encode(),
        identity.key_pem.encode(),
        identity.not_before_unix_s,
        identity.not_after_unix_s,
    )
    aside = state / REKEY_DIR
    request = load_request(aside)
    fresh = request is None
    channel = open_channel(collector, credentials, server_name)
    try:
        try:
            await asyncio.wait_for(channel.channel_ready(), CONNECT_S)
        except TimeoutError:
            why = await refused_because(collector, credentials, server_name)
            unknown = (
                "" if fresh else "; whether it took the new key before is not known, and neither key is used"
            )
            raise RekeyError(
                f"collector {collector}: no connection within {CONNECT_S:.0f} s{why}{unknown}",
                "nothing was changed" if fresh else _GO_ON,
                exit_code=3,
            ) from None
        make_directory(aside)
        new = load_or_create_key(aside)
        uri = agent_uri(identity.trust_domain, new.agent_id)
        if request is None or request.uri != uri:
            request = new_certificate_request(aside, identity.token_id, identity.sequence, uri)
        csr = csr_der(request.csr_pem)
        message = key_change_message(old.agent_id, new.public, csr, request.sequence)
        asked = change_key_request(new.public, csr, request.sequence, old.sign(message), new.sign(message))
        try:
            raw = await caller(channel, ANSWER_S)(CHANGE_KEY_METHOD, asked)
        except IdentityError as e:
            text = str(e.args[0])
            # A refusal of the only request that was ever sent, or one of the change itself.
            if e.final and (fresh or text.partition(": ")[2].startswith(_REFUSALS)):
                _forget(state)
                raise RekeyError(
                    f"collector {collector}: {text}", "the record key is the old one, as before"
                ) from e
            raise RekeyError(
                f"collector {collector}: {text}; whether it took the new key is not known, and neither key is used",
                _GO_ON,
                exit_code=3,
            ) from e
        try:
            answer = renew_answer(raw)
            keep_answer(
                aside, request, answer, trust_domain=identity.trust_domain, pin=identity.ca_pin, uri=uri
            )
        except (ValueError, IdentityError) as e:
            raise RekeyError(f"collector {collector}: its answer: {e}", _GO_ON, exit_code=3) from e
    finally:
        await channel.close()
    kept = load_identity(aside)
    assert kept is not None
    return kept


def _finish(state: Path, spool: Spool, answer: Identity, *, resumed: bool) -> Changed:
    """The collector knows the agent by its new key: so does this directory from now on. Each step may be done twice."""
    aside = state / REKEY_DIR
    before = load_or_create_key(state)
    new = load_or_create_key(aside) if (aside / KEY_FILE).exists() else before
    if new.agent_id.hex() != answer.agent_id:
        raise RekeyError(
            f"state {state}: its key was changed to agent {answer.agent_id}'s, and the key that lies there is "
            f"{new.agent_id.hex()}'s",
            "restore the state directory as it was; do not start the agent on it",
        )
    old_id = _begin_anew(spool)
    save_identity(state, answer)
    if new is not before:
        old_id = before.agent_id.hex()
        (aside / KEY_FILE).replace(
            state / KEY_FILE
        )  # the old key is gone, the collector has taken the new one
        sync_directory(state)
        sync_directory(aside)
    _forget(state)
    return Changed(old_id, new.agent_id.hex(), new.public.hex(), answer.not_after_unix_s, resumed)


def _begin_anew(spool: Spool) -> str:
    """Number 1 is next, behind the meter's state as it is. Returns whose records there were, "" = none.

    Records that no head of the collector's log covers yet stay for a person; all of them are in its books.
    """
    if spool.tip[:2] == (1, ZERO_HASH):
        return ""
    newest = spool.newest_seq
    old_id = spool.entry(newest).record[:16].hex() if newest else ""
    for entry in spool.entries(spool.covered_seq + 1):
        name = f"record-{entry.seq}-{record_hash(entry.record).hex()[:16]}"
        spool.quarantine(
            name, entry.record, "acknowledged; the record key was changed before a head of the log covered it"
        )
    spool.rebase(1, 1, ZERO_HASH, ())  # D1: no record under the old key can follow from here on
    return old_id


def _forget(state: Path) -> None:
    """What lies aside. A request goes first and the answer last: either says that there is something to go on with."""
    aside = state / REKEY_DIR
    if not aside.exists():
        return
    order = {REQUEST_FILE: 0, IDENTITY_FILE: 2}
    for path in sorted(aside.iterdir(), key=lambda p: order.get(p.name, 1)):
        path.unlink()
        sync_directory(aside)
    aside.rmdir()
    sync_directory(state)
