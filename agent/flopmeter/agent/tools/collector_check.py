"""How the agent of this node stands with its collector: its certificate, and the log's memory. Reads files, and connects
only where an address is given.
"""

import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from flopmeter.agent.access.heads import kept_contradictions, known_head
from flopmeter.agent.access.state import Identity, IdentityError, load_identity

from .advice import Advice

#: A certificate that has less than this part of its life left should have been renewed long ago (at half).
_LATE = 4
_JOIN = "join with a new token (--join-file; at the collector: flopmeter collector token create)"


def of_log(state: Path) -> list[Advice]:
    """What was seen of the collector's evidence log, and whether something contradicts it."""
    found = []
    try:
        head, contradictions = known_head(state), kept_contradictions(state)
    except OSError:
        return []
    if head is not None:
        origin, size, heard_ns = head
        found.append(
            Advice(f"log {_plain(origin)[:40]}: {size} leaves seen, last {_when(heard_ns // 10**9)}")
        )
    for one in contradictions:
        standing = head is None or one.unix_ns > head[2]
        said = f"{_when(one.unix_ns // 10**9)}: the collector's log contradicts what was seen: {_plain(one.said)}"
        change = "ask who set the collector back; a new store made on purpose: move log-head.json away"
        found.append(
            Advice(
                said if standing else f"{said}; it has gone on from there since", change if standing else ""
            )
        )
    return found


def of_certificate(state: Path, now_unix_s: float) -> list[Advice]:
    """What the agent joined for, if it did."""
    try:
        identity = load_identity(state)
    except IdentityError as e:
        return [Advice(str(e.args[0]), e.hint)]
    except OSError:
        return []
    if identity is None:
        return []
    until = _when(identity.not_after_unix_s)
    said = (
        f"agent {identity.agent_id[:16]}… of {identity.trust_domain}, authority {identity.ca_pin[:16]}…: certificate "
        f"until {until}"
    )
    if now_unix_s >= identity.not_after_unix_s:
        return [Advice(f"{said}, expired", f"see that the collector's --enrol can be reached, or {_JOIN}")]
    if now_unix_s < identity.not_before_unix_s:
        return [Advice(f"{said}, not valid yet by this node's clock", "set this node's clock")]
    if (
        identity.not_after_unix_s - now_unix_s
        < (identity.not_after_unix_s - identity.not_before_unix_s) / _LATE
    ):
        return [
            Advice(
                f"{said}, not renewed at half of its life", "see the agent's log for what stands in the way"
            )
        ]
    return [Advice(said)]


def of_files(paths: Sequence[Path], now_unix_s: float) -> list[Advice]:
    """Certificate, key and authorities that somebody else renews."""
    from flopmeter.agent.access.certificates import facts_of  # cryptography: doctor's alone

    try:
        certificate, key, ca = (path.read_text() for path in paths)
        facts = facts_of(certificate, key, ca)
    except (OSError, ValueError, IdentityError) as e:
        return [
            Advice(f"certificate files: {e}", "see --tls-cert, --tls-key and --tls-ca, and who renews them")
        ]
    names = ", ".join(facts.uris) or "no URI"
    said = f"certificate of {_plain(names)[:120]} until {_when(facts.not_after_unix_s)}"
    expired = now_unix_s >= facts.not_after_unix_s
    return [Advice(said + ", expired" * expired, "renew it: the agent picks it up" if expired else "")]


def of_collector(
    address: str, identity: Identity | None, server_name: str, handshake: Callable[..., str] | None = None
) -> list[Advice]:
    """Whether the collector shows a certificate for the name that is dialled, and takes ours."""
    from flopmeter.agent.access import channel
    from flopmeter.agent.access.credentials import Credentials

    if identity is None:
        return []
    credentials = Credentials(
        identity.ca_pem.encode(),
        identity.certificate_pem.encode(),
        identity.key_pem.encode(),
        identity.not_before_unix_s,
        identity.not_after_unix_s,
    )
    try:
        why = (handshake or channel.handshake)(address, credentials, server_name)
    except (OSError, ValueError) as e:
        why = str(e)
    if why:
        return [
            Advice(f"collector {address}: {why}", "see --collector, --server-name, and the collector's log")
        ]
    return [Advice(f"collector {address}: its certificate and ours are taken")]


def of_access(
    state: Path,
    *,
    files: Sequence[str] = (),
    collector: str = "",
    server_name: str = "",
    now_unix_s: float | None = None,
) -> list[Advice]:
    """All of it. An agent that never joined and saw no log is nothing to speak of."""
    logging.getLogger("flopmeter.agent.access").setLevel(logging.CRITICAL)  # it is told here, in other words
    now = time.time() if now_unix_s is None else now_unix_s
    found = of_files([Path(f) for f in files], now) if any(files) else of_certificate(state, now)
    if collector and not any(files):
        with contextlib.suppress(IdentityError, OSError):  # said already
            found += of_collector(collector, load_identity(state), server_name)
    return found + of_log(state)


def _when(unix_s: int) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(unix_s))
    except (ValueError, OverflowError, OSError):
        return f"{unix_s} s after 1970"


def _plain(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)
