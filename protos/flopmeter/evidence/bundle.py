"""The envelope: a statement in DSSE, in a Sigstore bundle v0.3, signed with ECDSA P-256 (docs/attestation-format.md 3)."""

from base64 import b64decode, b64encode
from typing import TYPE_CHECKING

from flopmeter.evidence.disclosure import parse_canonical
from flopmeter.evidence.errors import EvidenceError, require

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey


STEP = "signature"
_MOST = 64  # brackets and commas: a bundle has 14, and none in its texts


def signed_payload(raw: bytes, key: "EllipticCurvePublicKey", key_id: str) -> bytes:
    """The very bytes of the statement that `key` signed; nothing of the envelope is read again after that."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    match parse_canonical(raw, STEP, _MOST):
        case {
            "dsseEnvelope": {
                "payload": str(text),
                "payloadType": "application/vnd.in-toto+json" as kind,
                "signatures": [{"keyid": str(key_hint), "sig": str(sig), **in_signature}],
                **in_envelope,
            },
            "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
            "verificationMaterial": {"publicKey": {"hint": str(hint), **in_key}, **in_material},
            **in_bundle,
        } if not (in_signature or in_envelope or in_key or in_material or in_bundle):
            require(
                hint == key_hint == key_id,
                STEP,
                f"signed by the key {hint:.70}, not by the one given, {key_id}",
            )
        case _:
            raise EvidenceError(
                STEP, "expected a Sigstore bundle v0.3 with one DSSE signature, got something else"
            )
    payload, signature = strict_base64(text), strict_base64(sig)
    try:
        key.verify(
            signature,
            b"DSSEv1 %d %b %d %b" % (len(kind), kind.encode(), len(payload), payload),
            ec.ECDSA(hashes.SHA256()),
        )
    except InvalidSignature:
        raise EvidenceError(STEP, "the signature is not that of this statement by this key") from None
    return payload


def strict_base64(text: str) -> bytes:
    try:
        raw = b64decode(text, validate=True)
    except ValueError:
        raw = b""
    require(
        b64encode(raw).decode() == text, STEP, f"expected the one base64 of some bytes, got {text[:40]!r}"
    )
    return raw
