"""Keys, requests and certificates of an agent, by `cryptography`. Imported by short-lived processes only (step.py)."""

import hashlib
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from .state import IdentityError


@dataclass(frozen=True, slots=True)
class Facts:
    """What an agent must know of a certificate."""

    not_before_unix_s: int
    not_after_unix_s: int
    uris: tuple[str, ...]
    issuer: str


def new_request(uri: str) -> tuple[str, str]:
    """(key, CSR), PEM: a new P-256 key, for one name. gRPC's TLS takes no Ed25519 leaf (attestation.md 4.1)."""
    key = ec.generate_private_key(ec.SECP256R1())
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)])
    csr = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .add_extension(names, critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return pem.decode(), csr.public_bytes(Encoding.PEM).decode()


def csr_der(csr_pem: str) -> bytes:
    return x509.load_pem_x509_csr(csr_pem.encode()).public_bytes(Encoding.DER)


def pin_of(ca_pem: str) -> str:
    """SHA-256 of the SubjectPublicKeyInfo, hex: what a join token carries."""
    try:
        public = x509.load_pem_x509_certificate(ca_pem.encode()).public_key()
    except (ValueError, UnsupportedAlgorithm) as e:
        raise IdentityError(f"the collector's authority: not a certificate: {e}") from e
    return hashlib.sha256(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def facts_of(certificate_pem: str, key_pem: str, ca_pem: str) -> Facts:
    """Check that the three belong together. Raises IdentityError: the key is another's, the authority did not sign."""
    try:
        chain = x509.load_pem_x509_certificates(certificate_pem.encode())
        leaf = chain[0]
        key = load_pem_private_key(key_pem.encode(), None)
        authorities = x509.load_pem_x509_certificates(ca_pem.encode())
        spki = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        if leaf.public_key().public_bytes(*spki) != key.public_key().public_bytes(*spki):
            raise IdentityError("certificate and key do not belong together", "one of the two files is older")
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise IdentityError(
                f"expected a key on P-256, P-384 or P-521, got {type(key).__name__}",
                "gRPC's TLS takes no other here",
            )
        found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = tuple(found.get_values_for_type(x509.UniformResourceIdentifier))
    except x509.ExtensionNotFound:
        uris = ()
    except (ValueError, TypeError, UnsupportedAlgorithm) as e:
        raise IdentityError(f"not a certificate, its key and its authority in PEM: {e}") from e
    return Facts(
        int(leaf.not_valid_before_utc.timestamp()),
        int(leaf.not_valid_after_utc.timestamp()),
        uris,
        authorities[0].subject.rfc4514_string(),
    )


def check_issued(certificate_pem: str, key_pem: str, ca_pem: str, uri: str) -> Facts:
    """An answer of the authority: for our key, under our name, signed by it. Raises IdentityError."""
    facts = facts_of(certificate_pem, key_pem, ca_pem)
    if facts.uris != (uri,):
        raise IdentityError(f"the authority answered with a certificate for {facts.uris!r}, asked was {uri}")
    leaf = x509.load_pem_x509_certificate(certificate_pem.encode())
    for authority in x509.load_pem_x509_certificates(ca_pem.encode()):
        try:
            leaf.verify_directly_issued_by(authority)
        except (ValueError, TypeError, InvalidSignature):
            continue
        return facts
    raise IdentityError("the authority answered with a certificate that it did not sign")
