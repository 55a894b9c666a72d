"""The embedded certificate authority of a small site: signs agents' certificates, and the collector's own.

P-256 throughout: gRPC's TLS takes no Ed25519 leaf (reference/attestation.md 4.1). The authority may sign leaves only
(path length 0) and only agents of its own trust domain (name constraint), wherever its certificate is trusted.
"""

import hashlib
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from flopmeter.collector.errors import KeyFileError
from flopmeter.collector.keys import create_file, private_key, read_file
from flopmeter.contract.enrolment import MAX_CSR_BYTES, agent_uri

from .errors import AccessRefused

CA_KEY, CA_CERTIFICATE = "ca.key", "ca.pem"
CA_YEARS = 10
#: reference/attestation.md 4.2: certificates of 24 h.
AGENT_HOURS = 24
SERVER_DAYS = 7
#: Validity begins so much before now: nodes' clocks are not exact.
BACKDATED = timedelta(minutes=5)
_CSR_HINT = "the agent makes it: use the flopmeter agent of this version"


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate that was signed."""

    der: bytes
    pem: bytes
    not_after_unix_s: int


@dataclass(frozen=True, slots=True)
class CertificateAuthority:
    """The site's authority. Agents trust it by the pin in their join token."""

    certificate: x509.Certificate
    trust_domain: str
    _key: ec.EllipticCurvePrivateKey = field(repr=False)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def pin(self) -> bytes:
        """SHA-256 of the SubjectPublicKeyInfo: what join tokens carry."""
        return spki_sha256(self.certificate.public_key())

    def sign_agent(self, csr: x509.CertificateSigningRequest, agent_id: bytes, now: datetime) -> Issued:
        """A client certificate for a CSR that `check_csr` has let through."""
        names: list[x509.GeneralName] = [
            x509.UniformResourceIdentifier(agent_uri(self.trust_domain, agent_id))
        ]
        public = csr.public_key()
        assert isinstance(public, ec.EllipticCurvePublicKey)
        return self._sign(
            public,
            agent_id.hex(),
            names,
            purpose=ExtendedKeyUsageOID.CLIENT_AUTH,
            now=now,
            life=timedelta(hours=AGENT_HOURS),
        )

    def sign_server(self, names: Sequence[str], now: datetime) -> tuple[Issued, bytes]:
        """A certificate for the collector under `names` (DNS names and IP addresses), and its key in PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        issued = self._sign(
            key.public_key(),
            "flopmeter collector",
            [_name(n) for n in names],
            purpose=ExtendedKeyUsageOID.SERVER_AUTH,
            now=now,
            life=timedelta(days=SERVER_DAYS),
        )
        return issued, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def _sign(
        self,
        public: ec.EllipticCurvePublicKey,
        common_name: str,
        names: Sequence[x509.GeneralName],
        *,
        purpose: x509.ObjectIdentifier,
        now: datetime,
        life: timedelta,
    ) -> Issued:
        ca = self.certificate
        not_after = min(now + life, ca.not_valid_after_utc)
        built = (
            x509.CertificateBuilder()
            .subject_name(_subject(common_name))
            .issuer_name(ca.subject)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(max(now - BACKDATED, ca.not_valid_before_utc))
            .not_valid_after(not_after)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
            )
            .sign(self._key, hashes.SHA256())
        )
        return Issued(
            built.public_bytes(Encoding.DER),
            built.public_bytes(Encoding.PEM),
            int(built.not_valid_after_utc.timestamp()),
        )


def load_or_create(directory: Path, now: datetime) -> CertificateAuthority:
    """The authority in `directory`, made there at its first use. Raises KeyFileError."""
    key = private_key(directory / CA_KEY, lambda: ec.generate_private_key(ec.SECP256R1()))
    path = directory / CA_CERTIFICATE
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise KeyFileError(
            f"key {directory / CA_KEY}: expected an ECDSA P-256 key, got {type(key).__name__}",
            "restore the right file from a backup",
        )
    if not path.exists() and not path.is_symlink():
        create_file(path, _self_signed(key, now))
    try:
        certificate = x509.load_pem_x509_certificate(read_file(path))
        domain = _trust_domain(certificate)
    except (ValueError, UnsupportedAlgorithm, x509.ExtensionNotFound, IndexError) as e:
        raise KeyFileError(
            f"certificate {path}: damaged: expected the authority's own, in PEM",
            "restore it from a backup; or move it away, and the same key gets another one",
        ) from e
    if spki_sha256(certificate.public_key()) != spki_sha256(key.public_key()):
        raise KeyFileError(
            f"certificate {path}: expected one of the key in {CA_KEY}, got another's",
            "restore both from one backup",
        )
    return CertificateAuthority(certificate, domain, key)


def _self_signed(key: ec.EllipticCurvePrivateKey, now: datetime) -> bytes:
    public = key.public_key()
    domain = f"{spki_sha256(public).hex()[:16]}.flopmeter.internal"  # by its key: no two sites share one
    name = _subject(f"flopmeter {domain}")
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + timedelta(days=365 * CA_YEARS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(key_cert_sign=True), critical=True)
        .add_extension(
            x509.NameConstraints(
                permitted_subtrees=[x509.UniformResourceIdentifier(domain)], excluded_subtrees=None
            ),
            critical=True,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .sign(key, hashes.SHA256())
    )
    return built.public_bytes(Encoding.PEM)


def _trust_domain(certificate: x509.Certificate) -> str:
    constraints = certificate.extensions.get_extension_for_class(x509.NameConstraints).value
    return str((constraints.permitted_subtrees or [])[0].value)


def check_csr(pem_or_der: bytes, trust_domain: str, agent_id: bytes) -> x509.CertificateSigningRequest:
    """The request, if it asks for what this agent may have: P-256, self-signed, its own name and no other.

    Raises AccessRefused.
    """
    if len(pem_or_der) > MAX_CSR_BYTES:
        raise _bad_csr(f"at most {MAX_CSR_BYTES} bytes", f"{len(pem_or_der)}")
    try:
        load = x509.load_pem_x509_csr if pem_or_der.startswith(b"-----") else x509.load_der_x509_csr
        csr = load(pem_or_der)
        public = csr.public_key()
        signed = csr.is_signature_valid
        extensions = csr.extensions
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature, x509.DuplicateExtension) as e:
        raise _bad_csr("a certificate signing request (PKCS #10)", "none that can be read") from e
    if not isinstance(public, ec.EllipticCurvePublicKey) or not isinstance(public.curve, ec.SECP256R1):
        raise _bad_csr("a P-256 key: TLS libraries take no Ed25519 leaf", type(public).__name__)
    if not signed:
        raise _bad_csr("a signature by its own key", "another")
    wanted = agent_uri(trust_domain, agent_id)
    others = [e.oid.dotted_string for e in extensions if not isinstance(e.value, x509.SubjectAlternativeName)]
    if others:
        raise _bad_csr("the subject alternative name and no other extension", ", ".join(others)[:120])
    names = [n for e in extensions if isinstance(e.value, x509.SubjectAlternativeName) for n in e.value]
    if names != [x509.UniformResourceIdentifier(wanted)]:
        got = ", ".join(str(n.value) for n in names) or "none"
        raise _bad_csr(f"the one name {wanted}", repr(got[:200]))
    return csr


def csr_der(csr: x509.CertificateSigningRequest) -> bytes:
    """What the record key signs for, however the request was brought."""
    return csr.public_bytes(Encoding.DER)


def csr_sha256(csr: x509.CertificateSigningRequest) -> bytes:
    """What a repeated request is known by."""
    return hashlib.sha256(csr_der(csr)).digest()


def spki_sha256(public: object) -> bytes:
    """SHA-256 of a public key's SubjectPublicKeyInfo."""
    der: bytes = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined]
    return hashlib.sha256(der).digest()


def pem_of(der: bytes) -> bytes:
    """A stored certificate as it is handed out."""
    return x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM)


def at(unix_ns: int) -> datetime:
    return datetime.fromtimestamp(unix_ns // 1_000_000_000, UTC)


def _bad_csr(expected: str, got: str) -> AccessRefused:
    return AccessRefused(400, "bad-csr", f"CSR: expected {expected}, got {got}", _CSR_HINT)


def _name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _subject(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _usage(*, digital_signature: bool = False, key_cert_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
