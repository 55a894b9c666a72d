"""The envelope: a statement signed by DSSE, in a Sigstore bundle v0.3 (docs/attestation-format.md 3). Pure but for the signer."""

import base64
from typing import Any

from .signing import Signer, checked_signature, key_id
from .values import canonical

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://flopmeter.dev/compute-attestation/v1"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"


def statement(predicate: dict[str, Any], subjects: list[tuple[str, str]]) -> bytes:
    """The payload. `subjects`: (member, SHA-256 in hex) in the container's order."""
    return canonical(
        {
            "_type": STATEMENT_TYPE,
            "predicateType": PREDICATE_TYPE,
            "predicate": predicate,
            "subject": [{"name": name, "digest": {"sha256": digest}} for name, digest in subjects],
        }
    )


def bundle(payload: bytes, signer: Signer) -> bytes:
    """The payload signed. Raises SignerError."""
    keyid = key_id(signer.public())
    signature = checked_signature(signer, pae(payload))
    return canonical(
        {
            "mediaType": MEDIA_TYPE,
            "verificationMaterial": {"publicKey": {"hint": keyid}},
            "dsseEnvelope": {
                "payload": base64.b64encode(payload).decode(),
                "payloadType": PAYLOAD_TYPE,
                "signatures": [{"keyid": keyid, "sig": base64.b64encode(signature).decode()}],
            },
        }
    )


def pae(payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding: what is signed (DSSE 1.0.2, protocol.md)."""
    kind = PAYLOAD_TYPE.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)
