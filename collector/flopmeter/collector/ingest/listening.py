"""The port that agents come to: gRPC's options, plain text or TLS on it, and what it says of itself."""

import functools
from typing import Any

import grpc
import grpc.aio

from flopmeter.contract.limits import MAX_MESSAGE_BYTES

MAX_STREAMS = 65_536
#: A connection under TLS ends after half a day (gRPC moves each by up to a tenth), so that a certificate lives on in
#: none; agents come again, and lose nothing. What is being said gets some seconds to end.
MAX_CONNECTION_AGE_MS, AGE_GRACE_MS = 43_200_000, 30_000

OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.so_reuseport", 0),  # a second collector on the address must fail, not share it
    # gRPC drops new calls at random beyond these (reference/performance.md 3, the trap); a restart storm
    # of every agent at once must be let in, and jitter is the agents' part.
    ("grpc.server.max_pending_requests", MAX_STREAMS),
    ("grpc.server.max_pending_requests_hard_limit", MAX_STREAMS),
    # Each probe is a ping for nearly every read, to learn windows that records of a few kB never fill.
    ("grpc.http2.bdp_probe", 0),
    # Half-open connections (a node that lost power) are found by pings.
    ("grpc.keepalive_time_ms", 300_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
)
TLS_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_connection_age_ms", MAX_CONNECTION_AGE_MS),
    ("grpc.max_connection_age_grace_ms", AGE_GRACE_MS),
    # gRPC keeps a buffer of this size for what each connection sends, and what is sent here is acks. The default of
    # 16 KiB costs 8 KiB of resident memory a stream (measured at 1,000 and 5,000 streams: 107 and 105 KiB, 99 with this).
    ("grpc.tsi.max_frame_size", 1_024),
)


def make_server(credentials: grpc.ServerCredentials | None) -> Any:
    """A server, to be bound; `credentials` None: plain text."""
    options = OPTIONS if credentials is None else (*OPTIONS, *TLS_OPTIONS)
    return grpc.aio.server(options=options, maximum_concurrent_rpcs=None)


def bind(server: Any, address: str, credentials: grpc.ServerCredentials | None) -> int:
    """The port. Raises OSError."""
    try:
        if credentials is None:
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, credentials)
    except RuntimeError as e:
        raise OSError(f"cannot listen on {address}: {e}") from e
    if port == 0:
        raise OSError(f"cannot listen on {address}")
    return int(port)


@functools.cache
def collector_version() -> str:
    # Looked up for the first Welcome: a start listens some 10 ms sooner.
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("flopmeter")
    except PackageNotFoundError:
        return "unknown"
