"""gRPC channels with and without TLS, and why one did not come about."""

import asyncio
import contextlib
import socket
import ssl
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from flopmeter.contract.limits import MAX_MESSAGE_BYTES

from .credentials import Credentials
from .state import IdentityError

_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.enable_retries", 0),  # our own backoff decides
    ("grpc.use_local_subchannel_pool", 1),  # a new session means a new connection
)
_NOT_TAKEN = "the collector does not take this agent's certificate (another authority, expired, revoked), or speaks no TLS"
#: A look at a connection that failed already: no longer than a person would wait.
_LOOK_S = 3.0


def open_channel(target: str, credentials: Credentials | None, server_name: str) -> Any:
    """`server_name`: the name in the collector's certificate, if it is another than the address'."""
    import grpc

    if credentials is None:
        return grpc.aio.insecure_channel(target, _OPTIONS)
    options = (*_OPTIONS, ("grpc.ssl_target_name_override", server_name)) if server_name else _OPTIONS
    return grpc.aio.secure_channel(
        target, grpc.ssl_channel_credentials(credentials.ca, credentials.key, credentials.chain), options
    )


def caller(channel: Any, timeout_s: float) -> Callable[[str, bytes], Awaitable[bytes]]:
    """Unary calls of bytes over `channel`. They raise IdentityError."""
    import grpc

    async def call(method: str, request: bytes) -> bytes:
        try:
            answer: bytes = await channel.unary_unary(method)(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as e:
            final = e.code() in (
                grpc.StatusCode.PERMISSION_DENIED,
                grpc.StatusCode.INVALID_ARGUMENT,
                grpc.StatusCode.UNIMPLEMENTED,
                grpc.StatusCode.UNAUTHENTICATED,
            )
            hint = (
                "ask the collector's operator; to join again: --join-file with a new token" if final else ""
            )
            raise IdentityError(f"{e.code().name}: {e.details()}", hint, final=final) from e
        return answer

    return call


async def refused_because(target: str, credentials: Credentials | None, server_name: str) -> str:
    """`: reason` as the TLS handshake gives it, which gRPC keeps to itself; "" where it gives none."""
    if credentials is None:
        return ""
    found = ""
    with contextlib.suppress(Exception):  # only a word more in a message
        found = await asyncio.to_thread(handshake, target, credentials, server_name)
    return f": {found}" if found else ""


def handshake(target: str, credentials: Credentials, server_name: str) -> str:
    """What a TLS connection with these ends in, in words; "" = it is taken by both sides. Blocks for seconds at most."""
    host, _, port = target.rpartition(":")
    host = host.strip("[]")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=credentials.ca.decode())
    context.set_alpn_protocols(["h2"])
    with tempfile.TemporaryDirectory() as directory:  # 0700; ssl reads a key from files only
        pair = Path(directory) / "pair.pem"
        pair.write_bytes(credentials.key + b"\n" + credentials.chain)
        context.load_cert_chain(pair)
    try:
        with (
            socket.create_connection((host, int(port)), _LOOK_S) as raw,
            context.wrap_socket(raw, server_hostname=server_name or host) as tls,
        ):
            tls.settimeout(_LOOK_S)
            # With TLS 1.3 the other side's verdict on our certificate comes only now: an alert, or the end. A server
            # that takes it sends its HTTP/2 settings.
            if not tls.recv(1):
                return f"TLS: closed right after the handshake; {_NOT_TAKEN}"
    except ssl.SSLCertVerificationError as e:
        return (
            f"the collector's certificate is not good for {server_name or host} by --tls-ca or the token's authority: "
            f"{e.verify_message} (look at this node's clock, too)"
        )
    except ssl.SSLError as e:
        reason = (e.reason or str(e)).lower().replace("_", " ")
        return f"TLS: {reason}; {_NOT_TAKEN}"
    except OSError as e:
        return "" if isinstance(e, TimeoutError) else (e.strerror or str(e))
    return ""
