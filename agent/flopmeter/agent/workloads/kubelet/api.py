"""The API server, where the operator grants it: metadata of pods that hold GPUs, of RayClusters, GPU UUIDs of DRA.

Standard library only. Asked for metadata alone (PartialObjectMetadata), so that specs, and what environments they
hold, never come here; and for one pod at a time, those that the kubelet lists with a GPU. So a node costs the API
server some ten small requests in five minutes, the role needs `get` and no `list`, and a pod whose annotations are huge
costs no other pod its labels. Token and CA are read for every request, as both are rotated.
"""

import http.client
import json
import os
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from flopmeter.agent.errors import KubernetesError, NotGrantedError

from .holders import DRA_DRIVER, PodName, SliceDevice
from .metadata import Found, Owner, PodMeta, cluster_found, pod_meta

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
#: Annotations of an object are limited to 256 KiB, objects by etcd to 1.5 MiB. A node's ResourceSlices are smaller.
MAX_BODY_BYTES = 2 << 20
_SILENCE_S = 5.0  # of one connect or read
_REQUEST_S = 20.0  # of one request in all
_MAX_TOKEN_BYTES = 64 << 10
#: Tried in this order; a version that the server does not have is 404.
_SLICE_VERSIONS = ("v1", "v1beta2", "v1beta1")
_META = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json"


@dataclass(frozen=True, slots=True)
class Server:
    """Where the API server is, and as whom to speak."""

    host: str
    port: int
    token: Path
    ca: Path

    @classmethod
    def of_pod(cls, environ: Mapping[str, str], account: Path = ACCOUNT) -> "Server":
        """As Kubernetes tells every pod. Raises KubernetesError where this is none, or one without a token."""
        host, port = environ.get("KUBERNETES_SERVICE_HOST", ""), environ.get("KUBERNETES_SERVICE_PORT", "443")
        if not host or not (port.isascii() and port.isdigit() and len(port) < 6):
            raise KubernetesError(
                "kubernetes-labels: expected to run in a pod (KUBERNETES_SERVICE_HOST)",
                "switch the setting off here",
            )
        server = cls(host, int(port), account / "token", account / "ca.crt")
        if not server.token.exists():
            raise KubernetesError(
                f"kubernetes-labels: no token at {server.token}",
                "set automountServiceAccountToken: true in the pod, and apply the role (docs/kubernetes.md)",
            )
        return server


class Api:
    """Requests of one node's agent. Not thread-safe."""

    def __init__(self, server: Server, node: str, now_s: Callable[[], float] = time.monotonic) -> None:
        self._server = server
        self._node = node
        self._now_s = now_s
        self._slices: tuple[str, ...] = _SLICE_VERSIONS

    def pod(self, name: PodName) -> PodMeta | None:
        """Metadata of one pod; None where there is none of that name. Raises KubernetesError."""
        # resourceVersion=0: from the server's cache, without asking etcd.
        path = (
            f"/api/v1/namespaces/{quote(name[0], safe='')}/pods/{quote(name[1], safe='')}?resourceVersion=0"
        )
        found = self._get(path, _META)
        if found is None:
            return None
        meta = pod_meta(found)
        if meta is None or meta.name != name:
            raise KubernetesError(
                f"API server: expected the metadata of pod {'/'.join(name)}, got something else"
            )
        return meta

    def cluster(self, pod: PodName, owner: Owner) -> Found:
        """Where the RayCluster that owns a pod came from. Raises KubernetesError."""
        version = quote(owner.api.partition("/")[2] or "v1", safe="")
        path = f"/apis/ray.io/{version}/namespaces/{quote(pod[0], safe='')}/rayclusters/{quote(owner.name, safe='')}"
        return cluster_found(self._get(path, _META) or {})

    def resource_slices(self) -> dict[SliceDevice, str]:
        """UUIDs of this node's GPUs by what the DRA driver calls them. Raises KubernetesError."""
        selector = quote(f"spec.nodeName={self._node}", safe="")
        for version in self._slices:
            found = self._get(f"/apis/resource.k8s.io/{version}/resourceslices?fieldSelector={selector}")
            if found is not None:
                self._slices = (version,)
                return slice_uuids(found.get("items"))
        raise NotGrantedError("API server: it has no version of resource.k8s.io that is known here")

    def _get(self, path: str, accept: str = "application/json") -> dict[str, Any] | None:
        """The object; None if there is none."""
        body = self._ask(path, accept)
        if body is None:
            return None
        try:
            found = json.loads(body)
        except (ValueError, RecursionError) as e:
            raise KubernetesError("API server: expected JSON, got something else") from e
        if not isinstance(found, dict):
            raise KubernetesError("API server: expected a JSON object, got something else")
        return found

    def _ask(self, path: str, accept: str) -> bytes | None:
        server = self._server
        where = f"API server {server.host}:{server.port}"
        until_s = self._now_s() + _REQUEST_S
        connection: http.client.HTTPSConnection | None = None
        try:
            context = ssl.create_default_context(cafile=str(server.ca))
            # Python 3.13 asks for key identifiers in the chain, which the CAs of many clusters do not write.
            context.verify_flags &= ~ssl.VERIFY_X509_STRICT
            headers = {"Authorization": f"Bearer {_token(server.token)}", "Accept": accept}
            connection = http.client.HTTPSConnection(
                server.host, server.port, timeout=_SILENCE_S, context=context
            )
            connection.request("GET", path, headers={**headers, "User-Agent": "flopmeter-agent"})
            with connection.getresponse() as response:  # read1 leaves it open at the end of a known length
                body = self._body(response, until_s)
        except (OSError, http.client.HTTPException, ValueError) as e:
            raise KubernetesError(
                f"{where}: {e or type(e).__name__}", "see the network policy, and the CA"
            ) from e
        finally:
            if connection is not None:
                connection.close()
        if response.status == 404:
            return None
        if response.status in (401, 403):
            what = path.partition("?")[0]
            raise NotGrantedError(
                f"{where}: {what}: {response.status} {response.reason}",
                "grant it by deploy/k8s/agent-labels.yaml, or switch kubernetes-labels off",
            )
        if response.status != 200:
            raise KubernetesError(f"{where}: {response.status} {response.reason}")
        return body

    def _body(self, response: http.client.HTTPResponse, until_s: float) -> bytes:
        parts: list[bytes] = []
        size = 0
        while part := response.read1(1 << 16):
            size += len(part)
            parts.append(part)
            if size > MAX_BODY_BYTES:
                raise ValueError(f"expected at most {MAX_BODY_BYTES} bytes, got more")
            if self._now_s() > until_s:
                raise TimeoutError(f"expected an answer within {_REQUEST_S:g} s, got a part of it")
        return b"".join(parts)


def slice_uuids(items: object) -> dict[SliceDevice, str]:
    """From ResourceSlices: of each pool only the newest generation counts. Pure."""
    slices: list[tuple[str, int, list[Any]]] = []
    for item in items if isinstance(items, list) else ():
        spec = item.get("spec") if isinstance(item, dict) else None
        pool = spec.get("pool") if isinstance(spec, dict) else None
        if not isinstance(spec, dict) or not isinstance(pool, dict) or spec.get("driver") != DRA_DRIVER:
            continue
        name, generation, devices = pool.get("name"), pool.get("generation"), spec.get("devices")
        if isinstance(name, str) and isinstance(generation, int) and isinstance(devices, list):
            slices.append((name, generation, devices))
    newest: dict[str, int] = {}
    for name, generation, _ in slices:
        newest[name] = max(newest.get(name, generation), generation)
    found: dict[SliceDevice, str] = {}
    for name, generation, devices in slices:
        for device in devices if generation == newest[name] else ():
            uuid = _uuid(device)
            if uuid:
                found[DRA_DRIVER, name, str(device["name"])] = uuid
    return found


def _uuid(device: object) -> str:
    """v1beta1 has the attributes below `basic`."""
    if not isinstance(device, dict) or not isinstance(device.get("name"), str):
        return ""
    basic = device.get("basic")
    attributes = (basic if isinstance(basic, dict) else device).get("attributes")
    if not isinstance(attributes, dict):
        return ""
    told = attributes.get("uuid") or attributes.get(f"{DRA_DRIVER}/uuid")
    uuid = told.get("string") if isinstance(told, dict) else None
    return uuid if isinstance(uuid, str) else ""


def _token(path: Path) -> str:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    with open(fd, "rb") as f:  # noqa: PTH123
        token = f.read(_MAX_TOKEN_BYTES).decode("ascii").strip()
    if not token or not token.isprintable():
        raise ValueError(f"expected a token in {path}, got none")
    return token
