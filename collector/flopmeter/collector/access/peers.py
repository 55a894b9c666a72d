"""Whether a connection's certificate is that of the agent who speaks on it. Pure but for the parsing of a certificate."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from flopmeter.collector.errors import SettingsError
from flopmeter.contract.enrolment import agent_uri
from flopmeter.contract.ids import AGENT_ID_BYTES

#: What gRPC says of a connection: property -> values.
AuthContext = Mapping[str, Sequence[bytes]]
_FIELDS = {"{node}", "{agent}"}


class Peer(NamedTuple):
    """What a verified certificate says."""

    uris: tuple[str, ...]
    names: tuple[str, ...]  # all subject alternative names, URIs among them
    not_after_unix_s: int


def peer_of(auth: AuthContext) -> Peer | None:
    """None: there is no certificate that can be read."""
    from cryptography import x509

    pem = next(iter(auth.get("x509_pem_cert", ())), b"")
    try:
        end = x509.load_pem_x509_certificate(pem).not_valid_after_utc
    except ValueError:
        return None
    uris = _texts(auth, "peer_uri")
    return Peer(uris, (*_texts(auth, "x509_subject_alternative_name"), *uris), int(end.timestamp()))


class PeerRule(Protocol):
    def fault(self, peer: Peer, agent_id: bytes, node: str) -> str:
        """Why this certificate is not that agent's; "" = it is."""
        ...


class OwnPeers(NamedTuple):
    """Certificates of the embedded authority: the URI names the agent."""

    trust_domain: str

    def fault(self, peer: Peer, agent_id: bytes, node: str) -> str:
        wanted = agent_uri(self.trust_domain, agent_id)
        return "" if peer.uris == (wanted,) else f"expected {wanted}, got {_few(peer.uris)}"

    def agent_of(self, peer: Peer) -> bytes | None:
        """Whose it is; None: no agent's."""
        text = peer.uris[0].rpartition("/")[2] if len(peer.uris) == 1 else ""
        try:
            agent_id = bytes.fromhex(text)
        except ValueError:
            return None
        good = len(agent_id) == AGENT_ID_BYTES and peer.uris == (agent_uri(self.trust_domain, agent_id),)
        return agent_id if good else None


class OtherPeers(NamedTuple):
    """Certificates of another authority: one of their names matches the pattern; "": any certificate of it."""

    pattern: str

    def fault(self, peer: Peer, agent_id: bytes, node: str) -> str:
        if not self.pattern:
            return ""
        wanted = self.pattern.replace("{agent}", agent_id.hex())
        regex = "".join(
            "[^/]+" if part == "*" else re.escape(node if part == "{node}" else part)
            for part in re.split(r"(\*|\{node\})", wanted)
        )
        if node or "{node}" not in wanted:
            for name in peer.names:
                if re.fullmatch(regex, name):
                    return ""
        return f"expected a name like {self.pattern} (--peer-ids) for node {node!r}, got {_few(peer.names)}"


def other_peers(pattern: str) -> OtherPeers:
    """Raises SettingsError for what is no pattern. Every field in braces must be one that is known."""
    if len(pattern) > 512 or (pattern and not pattern.isprintable()):
        raise SettingsError(
            f"--peer-ids: expected a pattern of at most 512 printable characters, got {pattern[:40]!r}"
        )
    unknown = set(re.findall(r"\{[^}]*\}?", pattern)) - _FIELDS
    if unknown:
        raise SettingsError(
            f"--peer-ids: expected {{node}} and {{agent}} only, got {min(unknown)!r}",
            "e.g. spiffe://example.org/ns/flopmeter/node/{node}; * stands for one part of a path",
        )
    return OtherPeers(pattern)


def _texts(auth: AuthContext, name: str) -> tuple[str, ...]:
    return tuple(value.decode("utf-8", "replace") for value in auth.get(name, ()))


def _few(names: Sequence[str]) -> str:
    return ", ".join(repr(n[:200]) for n in names[:4]) or "no name"
