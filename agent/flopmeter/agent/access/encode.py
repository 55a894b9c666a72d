"""The identity service's messages as bytes and plain values."""

from typing import Any

from flopmeter.wire.v1 import identity_pb2

RENEW_METHOD = "/flopmeter.wire.v1.IdentityService/Renew"
CHANGE_KEY_METHOD = "/flopmeter.wire.v1.IdentityService/ChangeKey"


def renew_request(csr: bytes, sequence: int) -> bytes:
    return identity_pb2.RenewRequest(csr=csr, sequence=sequence).SerializeToString()


def change_key_request(public_key: bytes, csr: bytes, sequence: int, by_old: bytes, by_new: bytes) -> bytes:
    """`csr` in DER; both signatures over key_change_message. It is answered as a renewal is."""
    return identity_pb2.ChangeKeyRequest(
        public_key=public_key, csr=csr, sequence=sequence, signature_by_old=by_old, signature_by_new=by_new
    ).SerializeToString()


def renew_answer(raw: bytes) -> dict[str, Any]:
    """As the HTTPS answer has it. Raises ValueError for what is none."""
    try:
        answer = identity_pb2.RenewResponse.FromString(raw)
        return {
            "certificate_pem": answer.certificate_pem.decode("ascii"),
            "ca_pem": answer.ca_pem.decode("ascii"),
            "sequence": answer.sequence,
        }
    except Exception as e:
        raise ValueError(f"not a RenewResponse ({len(raw)} bytes)") from e
