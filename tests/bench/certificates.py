"""Certificates for the load program's agents, from the authority that the bench's collector then finds beside its store.

Each agent has a certificate of its own for its own name. They share one TLS key, which costs the load program less and
the collector the same: it sees a full handshake of TLS 1.3 with a client's certificate for each.
"""

import pickle
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import corpus
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from flopmeter.collector.access.ca import load_or_create
from flopmeter.contract.enrolment import agent_uri
from flopmeter.contract.ids import agent_id


@dataclass(slots=True)
class Certificates:
    """What a client needs; `chains` by public record key."""

    ca: bytes
    key: bytes
    chains: dict[bytes, bytes]


def build(nodes: list[corpus.Node], keys: Path, path: Path) -> Path:
    """Make the authority in `keys` and a certificate for each node; saved at `path`."""
    now = datetime.now(UTC)
    authority = load_or_create(keys, now)
    key = ec.generate_private_key(ec.SECP256R1())
    chains = {}
    for node in nodes:
        identity = agent_id(node.public_key)
        name = x509.UniformResourceIdentifier(agent_uri(authority.trust_domain, identity))
        builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
        csr = builder.add_extension(x509.SubjectAlternativeName([name]), critical=False).sign(
            key, hashes.SHA256()
        )
        chains[node.public_key] = authority.sign_agent(csr, identity, now).pem
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(pickle.dumps(Certificates(authority.pem, pem, chains)))
    return path


def load(path: Path | None) -> Certificates | None:
    """As `build` saved them."""
    return None if path is None else pickle.loads(path.read_bytes())
