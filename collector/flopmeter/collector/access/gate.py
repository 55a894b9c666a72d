"""Whose connection it is on which an agent says Hello, and until when it may stay open."""

import logging
import time
from collections.abc import Callable
from typing import Protocol

from flopmeter.contract.ids import agent_id as id_of_key

from .peers import AuthContext, Peer, PeerRule, peer_of

log = logging.getLogger(__name__)


class Connection(Protocol):
    """What gRPC knows of a call."""

    def auth_context(self) -> AuthContext: ...


class Gate:
    """Holds a connection's certificate against the agent who speaks on it. Any thread."""

    def __init__(self, rule: PeerRule, unix_ns: Callable[[], int] = time.time_ns) -> None:
        self._rule, self._unix_ns = rule, unix_ns

    def judge(self, connection: Connection, public_key: bytes, node: str) -> tuple[str, int]:
        """(why the connection is not that agent's, or "", end of the certificate in Unix seconds)."""
        peer = self.peer(connection)
        if peer is None:
            return "certificate: expected one that is valid now, got none, or one that has expired", 0
        fault = self._rule.fault(peer, id_of_key(public_key), node)
        return (f"certificate: {fault}" if fault else ""), peer.not_after_unix_s

    def peer(self, connection: Connection) -> Peer | None:
        """What its certificate says; None: there is none that is valid now.

        TLS looked at the certificate when the connection began; a stream may begin on it much later.
        """
        peer = peer_of(connection.auth_context())
        if peer is None or peer.not_after_unix_s <= self._unix_ns() // 1_000_000_000:
            return None
        return peer
