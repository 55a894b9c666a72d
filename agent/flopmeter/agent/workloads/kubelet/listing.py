"""What the kubelet's list says, as frozen types. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Claimed:
    """A device of a DRA claim."""

    claim: str  # name, in the namespace of the pod
    driver: str  # "gpu.nvidia.com"
    pool: str
    device: str  # within the pool
    cdi: tuple[str, ...] = ()  # VENDOR/CLASS=NAME
    share: str = ""  # set: a part of the device; others may hold other parts

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.driver}/{self.pool}/{self.device}"


@dataclass(frozen=True, slots=True)
class Container:
    """One container of a pod and the devices that it was given."""

    namespace: str
    pod: str
    name: str
    devices: tuple[tuple[str, str], ...] = ()  # (resource, device id), as the device plugin names them
    claimed: tuple[Claimed, ...] = ()


Listing = tuple[Container, ...]
