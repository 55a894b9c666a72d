"""A kubelet's pod-resources server: real gRPC on a unix socket, answering what a test tells it to."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc

from flopmeter.wire.podresources import podresources_pb2 as pb

SERVICE = "v1.PodResourcesLister"


def container(
    name: str, devices: dict[str, Iterable[str]] | None = None, claims: Iterable[pb.DynamicResource] = ()
) -> pb.ContainerResources:
    """`devices`: ids by resource, as a device plugin names both."""
    held = [pb.ContainerDevices(resource_name=r, device_ids=list(ids)) for r, ids in (devices or {}).items()]
    return pb.ContainerResources(name=name, devices=held, dynamic_resources=list(claims))


def pod(namespace: str, name: str, *containers: pb.ContainerResources) -> pb.PodResources:
    return pb.PodResources(name=name, namespace=namespace, containers=containers)


def gpu_pod(namespace: str, name: str, *ids: str, container_name: str = "main") -> pb.PodResources:
    """The common case: one container with whole GPUs of NVIDIA's plugin."""
    return pod(namespace, name, container(container_name, {"nvidia.com/gpu": ids}))


def claim(
    name: str,
    device: str,
    *,
    cdi: str = "",
    driver: str = "gpu.nvidia.com",
    pool: str = "n1",
    share: str = "",
) -> pb.DynamicResource:
    resource = pb.ClaimResource(driver_name=driver, pool_name=pool, device_name=device)
    if cdi:
        resource.cdi_devices.add(name=cdi)
    if share:
        resource.share_id = share
    return pb.DynamicResource(claim_name=name, claim_namespace="ml", claim_resources=[resource])


def listing(*pods: pb.PodResources) -> bytes:
    return pb.ListResponse(pods=pods).SerializeToString()


class FakeKubelet:
    """Attributes without an underscore are orders, and what was seen. `start` after `stop` makes the socket anew."""

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "kubelet.sock"
        self.answer: bytes | Callable[[], bytes] = listing()
        self.allocatable: bytes | None = None  # None: not implemented, as Kubernetes 1.20
        self.refuse: grpc.StatusCode | None = None
        self.authorities: list[str] = []
        self.lists = 0
        self._server: grpc.Server | None = None
        self.start()

    def say(self, *pods: pb.PodResources) -> None:
        self.answer = listing(*pods)

    def start(self) -> None:
        handlers = {"List": grpc.unary_unary_rpc_method_handler(self._list)}
        if self.allocatable is not None:
            handlers["GetAllocatableResources"] = grpc.unary_unary_rpc_method_handler(self._allocatable)
        self._server = grpc.server(ThreadPoolExecutor(2), options=[("grpc.max_send_message_length", -1)])
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        self._server.add_insecure_port(f"unix:{self.socket}")
        self._server.start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop(0).wait()
            self._server = None
        self.socket.unlink(missing_ok=True)

    def _list(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        assert request == b""
        self.lists += 1
        self.authorities.append(dict(context.invocation_metadata()).get("x-authority", ""))
        if self.refuse is not None:
            context.abort(self.refuse, "told to")
        return self.answer() if callable(self.answer) else self.answer

    def _allocatable(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        assert self.allocatable is not None
        return self.allocatable
