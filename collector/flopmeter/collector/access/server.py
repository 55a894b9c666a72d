"""The gRPC edge of renewal: IdentityService, beside the streams, over mTLS."""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from flopmeter.collector.errors import StoreError
from flopmeter.collector.ingest.refusal_log import RefusalLog
from flopmeter.wire.v1 import identity_pb2

from .desk import Certificate, Desk
from .enrol import KeyChange
from .errors import AccessRefused
from .gate import Gate
from .peers import OwnPeers

SERVICE = "flopmeter.wire.v1.IdentityService"
#: A request is a CSR and some numbers.
MAX_REQUEST_BYTES = 8_192
#: Renewals that wait for the store; a fleet's are spread over hours. Past it agents are told to come again.
MAX_WAITING = 1_024

_STATUS = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    403: grpc.StatusCode.PERMISSION_DENIED,
    409: grpc.StatusCode.PERMISSION_DENIED,
    401: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.UNIMPLEMENTED,
}
log = logging.getLogger(__name__)
_M = TypeVar("_M", identity_pb2.RenewRequest, identity_pb2.ChangeKeyRequest)


class IdentityServer:
    """Answers on the event loop, decides on a thread of its own: each renewal is an fsync."""

    def __init__(self, desk: Desk, gate: Gate, own: OwnPeers | None) -> None:
        """`own` None: certificates come from elsewhere, and so do renewals."""
        self._desk, self._gate, self._own = desk, gate, own
        self._executor = ThreadPoolExecutor(1, "flopmeter-renewal")
        self._waiting = 0
        self._refusals = RefusalLog()

    def handler(self) -> Any:
        """For grpc.aio.Server.add_generic_rpc_handlers."""
        methods: dict[str, Any] = {
            "Renew": grpc.unary_unary_rpc_method_handler(self._renew),
            "ChangeKey": grpc.unary_unary_rpc_method_handler(self._change_key),
        }
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    def stop(self) -> None:
        self._executor.shutdown(wait=True)

    async def _renew(self, data: bytes, context: Any) -> bytes:
        agent_id = await self._agent(context)
        asked = await _parsed(identity_pb2.RenewRequest, data, context)
        return await self._answer(
            context, agent_id, lambda: self._desk.renew(agent_id, asked.csr, asked.sequence)
        )

    async def _change_key(self, data: bytes, context: Any) -> bytes:
        agent_id = await self._agent(context)
        asked = await _parsed(identity_pb2.ChangeKeyRequest, data, context)
        change = KeyChange(
            agent_id,
            asked.public_key,
            asked.csr,
            asked.sequence,
            asked.signature_by_old,
            asked.signature_by_new,
        )
        return await self._answer(context, agent_id, lambda: self._desk.change_key(change))

    async def _agent(self, context: Any) -> bytes:
        """Whose certificate the caller has."""
        if self._own is None:
            await context.abort(
                grpc.StatusCode.UNIMPLEMENTED,
                "this collector issues no certificates; renew this one where it was issued",
            )
        peer = self._gate.peer(context)
        agent_id = self._own.agent_of(peer) if self._own is not None and peer is not None else None
        if agent_id is None:
            log.warning(
                "refused a renewal from %s: its certificate is no agent's, or has expired", context.peer()
            )
            await context.abort(
                grpc.StatusCode.PERMISSION_DENIED, "expected the certificate of an agent that is valid now"
            )
        assert agent_id is not None
        return agent_id

    async def _answer(self, context: Any, agent_id: bytes, act: Callable[[], Certificate]) -> bytes:
        if self._waiting >= MAX_WAITING:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "too many renewals wait; come again")
        self._waiting += 1
        try:
            given = await asyncio.get_running_loop().run_in_executor(self._executor, act)
        except AccessRefused as e:
            who = f"a renewal of agent {agent_id.hex()} from {context.peer()}"
            now_s = asyncio.get_running_loop().time()
            self._refusals.say(b"", who, e.code, str(e), now_s, address=agent_id.hex())
            await context.abort(_STATUS[e.status], f"{e.code}: {e}; {e.hint}")
            raise
        except StoreError as e:
            log.error("a renewal of agent %s failed: %s (%s)", agent_id.hex(), e, e.hint)  # noqa: TRY400
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the store cannot commit now; come again")
            raise
        finally:
            self._waiting -= 1
        log.info(
            "agent %s: certificate %d, until Unix time %d",
            agent_id.hex(),
            given.sequence,
            given.not_after_unix_s,
        )
        return identity_pb2.RenewResponse(
            certificate_pem=given.pem,
            ca_pem=given.ca_pem,
            sequence=given.sequence,
            not_after_unix_s=given.not_after_unix_s,
        ).SerializeToString()


async def _parsed(kind: type[_M], data: bytes, context: Any) -> _M:
    try:
        if len(data) > MAX_REQUEST_BYTES:
            raise DecodeError(f"expected at most {MAX_REQUEST_BYTES} bytes, got {len(data)}")
        message = kind.FromString(data)
        if message.sequence >= 1 << 63:
            raise DecodeError("expected a sequence below 2^63")
    except DecodeError as e:
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"expected a {kind.__name__}: {e}")
        raise
    return message
