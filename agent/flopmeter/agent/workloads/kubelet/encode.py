"""The kubelet's messages, from their bytes. Protobuf is met here and nowhere else in this package."""

from collections.abc import Iterable

from google.protobuf.message import DecodeError

from flopmeter.agent.errors import KubernetesError
from flopmeter.agent.workloads.labels import tidy_label
from flopmeter.wire.podresources import podresources_pb2 as pb

from .listing import Claimed, Container, Listing

#: Containers with devices that are looked at. A node has at most 110 pods by default (kubelet --max-pods), some 256;
#: more than this is no node.
MAX_CONTAINERS = 8_192
#: Devices of one container, of a list: a time-sliced GPU has up to some hundred replicas.
MAX_DEVICES = 4_096
_MAX_CDI = 16  # of one device; one or two are seen
_HINT = "check that the setting kubelet names the kubelet's pod-resources socket"


def decode_listing(raw: bytes) -> Listing:
    """Containers that hold any device, in a fixed order. Raises KubernetesError."""
    try:
        message = pb.ListResponse.FromString(raw)
    except DecodeError as e:
        raise KubernetesError(f"expected a list of pods, got {len(raw)} bytes that are none", _HINT) from e
    found: list[Container] = []
    for pod in message.pods:
        for container in pod.containers:
            if not container.devices and not container.dynamic_resources:
                continue
            if len(found) == MAX_CONTAINERS:
                raise KubernetesError(
                    f"expected at most {MAX_CONTAINERS} containers with devices, got more", _HINT
                )
            found.append(_container(pod, container))
    return tuple(sorted(found, key=lambda c: (c.namespace, c.pod, c.name)))


def decode_allocatable(raw: bytes) -> tuple[tuple[str, str], ...]:
    """(resource, device id) of every device that the node could give out. Raises KubernetesError."""
    try:
        message = pb.AllocatableResponse.FromString(raw)
    except DecodeError as e:
        raise KubernetesError(
            f"expected the node's devices, got {len(raw)} bytes that are none", _HINT
        ) from e
    return _ids(message.devices)


def _container(pod: pb.PodResources, container: pb.ContainerResources) -> Container:
    claimed = [
        Claimed(
            tidy_label(claim.claim_name),
            tidy_label(device.driver_name),
            tidy_label(device.pool_name),
            tidy_label(device.device_name),
            tuple([cdi.name for cdi in device.cdi_devices][:_MAX_CDI]),
            tidy_label(device.share_id) if device.HasField("share_id") else "",
        )
        for claim in container.dynamic_resources
        for device in claim.claim_resources
    ]
    if len(claimed) > MAX_DEVICES:
        raise KubernetesError(
            f"expected at most {MAX_DEVICES} devices of a container, got {len(claimed)}", _HINT
        )
    return Container(
        tidy_label(pod.namespace),
        tidy_label(pod.name),
        tidy_label(container.name),
        _ids(container.devices),
        tuple(claimed),
    )


def _ids(devices: Iterable[pb.ContainerDevices]) -> tuple[tuple[str, str], ...]:
    # The kubelet repeats a resource per NUMA node; an id is one device wherever it stands.
    ids = [(tidy_label(some.resource_name), tidy_label(one)) for some in devices for one in some.device_ids]
    if len(ids) > MAX_DEVICES:
        raise KubernetesError(f"expected at most {MAX_DEVICES} devices, got {len(ids)}", _HINT)
    return tuple(dict.fromkeys(ids))
