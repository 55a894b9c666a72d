"""A node that wants to join: its two keys, requests made well or badly, and the clients it talks with."""

import http.client
import ipaddress
import json
import ssl
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
from builders import Chain
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from nacl.bindings import crypto_sign

from flopmeter.collector.access.ca import at, csr_der, load_or_create
from flopmeter.collector.access.desk import Desk
from flopmeter.collector.access.enrol import Enrolment
from flopmeter.collector.store.access import SELECT, access_rows
from flopmeter.collector.store.reading import open_for_reading
from flopmeter.collector.store.sqlite import SqliteStore
from flopmeter.contract.enrolment import JoinToken, agent_uri, enrol_message, renew_message
from flopmeter.wire.v1 import identity_pb2

NONCE = bytes(range(32))
CHANNEL = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0))


class Clock:
    """Real time, moved by hand."""

    def __init__(self) -> None:
        self.moved_ns = 0

    def __call__(self) -> int:
        return time.time_ns() + self.moved_ns

    def move(self, *, hours: float = 0, seconds: float = 0) -> None:
        self.moved_ns += int((hours * 3_600 + seconds) * 1e9)


def desk_at(tmp_path: Path, clock: Clock) -> Desk:
    """A new store's desk, with an authority."""
    path = tmp_path / "b.db"
    if not path.exists():
        SqliteStore(path).close()
    return Desk(path, load_or_create(tmp_path / "keys", at(clock())), clock)


def rows(store: Path):
    connection = open_for_reading(store)
    try:
        return access_rows(connection.execute(SELECT).fetchall())
    finally:
        connection.close()


def kinds(store: Path) -> list[str]:
    return [row.kind for row in rows(store)]


def join_token(desk: Desk, *, nodes: str = "*", uses: int = 1, lasts_s: int = 3_600) -> JoinToken:
    return desk.make_join_token(name="tests", nodes=nodes, uses=uses, lasts_s=lasts_s, who="tests")[0]


def a_csr(names: list[x509.GeneralName], key: Any = None, *, extensions: tuple[Any, ...] = ()) -> bytes:
    """PEM."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    algorithm = hashes.SHA256() if hasattr(key, "curve") or hasattr(key, "key_size") else None
    return builder.sign(key, algorithm).public_bytes(Encoding.PEM)


@dataclass
class Node:
    """A node's agent."""

    chain: Chain
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    certificate: bytes = b""
    ca: bytes = b""
    sequence: int = 0

    @property
    def agent_id(self) -> bytes:
        return self.chain.agent_id

    def sign(self, message: bytes) -> bytes:
        return crypto_sign(message, self.chain.secret_key)[:64]

    def csr(self, trust_domain: str, *, agent_id: bytes | None = None) -> bytes:
        uri = agent_uri(trust_domain, agent_id or self.agent_id)
        return a_csr([x509.UniformResourceIdentifier(uri)], self.key)

    def asks(
        self, token: JoinToken, csr: bytes, *, nonce: bytes = NONCE, node: str | None = None, **other: Any
    ) -> Enrolment:
        """A good request to enrol; `other` replaces fields after it was signed."""
        node = node or self.chain.node
        message = enrol_message(nonce, der_of(csr), token.token_id, node)
        asked = Enrolment(
            token.token_id, token.secret, node, self.chain.public_key, csr, nonce, self.sign(message)
        )
        return asked._replace(**other)

    def joined(self, desk: Desk) -> "Node":
        """Enrolled by a token of its own."""
        given = desk.enrol(self.asks(join_token(desk), self.csr(desk.ca.trust_domain)))
        self.certificate, self.ca, self.sequence = given.pem, given.ca_pem, given.sequence
        return self

    def proof(self, csr: bytes, *, nonce: bytes = NONCE) -> bytes:
        """To renew what has expired."""
        return self.sign(renew_message(nonce, der_of(csr), self.agent_id, self.sequence))

    def new_key(self) -> "Node":
        """The same agent, with another TLS key."""
        self.key = ec.generate_private_key(ec.SECP256R1())
        return self

    # --- clients ---

    def channel(self, address: str, *, ca: bytes | None = None) -> grpc.Channel:
        """mTLS, as this node."""
        credentials = grpc.ssl_channel_credentials(ca or self.ca, pem_of(self.key), self.certificate)
        return grpc.secure_channel(address, credentials, options=CHANNEL)

    def renew(self, address: str, csr: bytes, sequence: int) -> identity_pb2.RenewResponse:
        """By IdentityService. Raises grpc.RpcError."""
        with self.channel(address) as channel:
            call = channel.unary_unary("/flopmeter.wire.v1.IdentityService/Renew")
            asked = identity_pb2.RenewRequest(csr=csr, sequence=sequence).SerializeToString()
            return identity_pb2.RenewResponse.FromString(call(asked, timeout=60))


def der_of(csr: bytes) -> bytes:
    return csr_der(x509.load_pem_x509_csr(csr))


def pem_of(key: Any) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


class Enrolment443:
    """HTTPS to the enrolment port; `ca` None: unverified."""

    def __init__(self, address: str, ca: bytes | None) -> None:
        self.address = address
        self.context = ssl.create_default_context(cadata=ca.decode() if ca else None)
        if ca is None:
            self.context.check_hostname = False
            self.context.verify_mode = ssl.CERT_NONE

    def __call__(self, method: str, path: str, body: Any = None) -> tuple[int, dict[str, str], Any]:
        """(status, headers, JSON)."""
        host, _, port = self.address.rpartition(":")
        connection = http.client.HTTPSConnection(host, int(port), timeout=60, context=self.context)
        try:
            data = body if isinstance(body, bytes) or body is None else json.dumps(body)
            connection.request(method, path, data)
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), json.loads(answer.read())
        finally:
            connection.close()

    def nonce(self) -> bytes:
        return bytes.fromhex(self("GET", "/nonce")[2]["nonce"])


def said(asked: Enrolment) -> dict[str, str]:
    """A request to enrol as JSON."""
    return {
        "token_id": asked.token_id,
        "secret": asked.secret.hex(),
        "node": asked.node,
        "public_key": asked.public_key.hex(),
        "csr": asked.csr.decode(),
        "nonce": asked.nonce.hex(),
        "signature": asked.signature.hex(),
    }


@dataclass
class Authority:
    """Somebody else's CA: cert-manager's, SPIRE's, an attacker's."""

    key: Any = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    name: x509.Name = field(
        default_factory=lambda: x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "another authority")])
    )

    @property
    def pem(self) -> bytes:
        return self._signed(self.name, self.key, [], ca=True)

    def issue(
        self, *names: str, key: Any = None, ends: timedelta = timedelta(hours=1)
    ) -> tuple[bytes, bytes]:
        """(certificate, key), PEM, for URIs, addresses and host names."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a leaf")])
        return self._signed(subject, key, [general(n) for n in names], ends=ends), pem_of(key)

    def _signed(self, subject, key, names, *, ca=False, ends=timedelta(days=1)) -> bytes:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=2))
            .not_valid_after(now + ends)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(Encoding.PEM)


def general(name: str) -> x509.GeneralName:
    if "://" in name:
        return x509.UniformResourceIdentifier(name)
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
