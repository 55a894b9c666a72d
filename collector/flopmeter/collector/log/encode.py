"""The one thing that a leaf says of a record's payload: when its window began. Protobuf is met here only."""

from flopmeter.contract.record import HEADER_BYTES, SIGNATURE_BYTES
from flopmeter.wire.v1 import batch_pb2


def window_start_unix_ns(record: bytes) -> int:
    """Of a record as it was received, by the wall clock of its node. Raises ValueError for what is no record."""
    from google.protobuf.message import DecodeError

    try:
        batch = batch_pb2.Batch.FromString(record[HEADER_BYTES:-SIGNATURE_BYTES])
    except DecodeError as e:
        raise ValueError(f"no batch: {e}") from e
    return int(batch.window_start_unix_ns)
