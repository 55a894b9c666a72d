"""The identity service's messages as bytes and plain values."""

from typing import Any

from flopmeter.wire.v1 import identity_pb2

RENEW_METHOD = "/flopmeter.wire.v1.IdentityService/Renew"


def renew_request(csr: bytes, sequence: int) -> bytes:
    return identity_pb2.RenewRequest(csr=csr, sequence=sequence).SerializeToString()


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
