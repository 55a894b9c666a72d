"""The kubelet's pod-resources socket: two calls, their bytes, a deadline on each. grpc is imported on use."""

import os
import stat
from typing import Any

from flopmeter.agent.errors import KubernetesError

LIST = "/v1.PodResourcesLister/List"
ALLOCATABLE = "/v1.PodResourcesLister/GetAllocatableResources"
#: A list of 250 pods is some 100 KB.
MAX_MESSAGE_BYTES = 16 << 20
#: The real kubelet answers in 0.4 ms (reference/deploy.md 1.3).
DEADLINE_S = 2.0


class KubeletClient:
    """One channel, thrown away at each failure: the kubelet makes its socket anew when it restarts."""

    def __init__(self, socket: str, deadline_s: float = DEADLINE_S) -> None:
        self._socket = socket
        self._deadline_s = deadline_s
        self._channel: Any = None
        self._calls: dict[str, Any] = {}

    def list_pods(self) -> bytes:
        """The answer to List, undecoded. Raises KubernetesError."""
        answer = self._call(LIST)
        if answer is None:
            raise KubernetesError(
                f"kubelet at {self._socket} does not know {LIST}", "Kubernetes 1.20 or later has it"
            )
        return answer

    def allocatable(self) -> bytes | None:
        """The answer to GetAllocatableResources; None where this kubelet does not implement it."""
        return self._call(ALLOCATABLE)

    def close(self) -> None:
        """From any thread: a call under way ends."""
        channel, self._channel, self._calls = self._channel, None, {}
        if channel is not None:
            channel.close()

    def _call(self, method: str) -> bytes | None:
        import grpc

        check_socket(self._socket)
        if self._channel is None:
            self._channel = grpc.insecure_channel(
                f"unix:{self._socket}",
                options=[
                    # Go's servers refuse the path that grpc would send as :authority.
                    ("grpc.default_authority", "localhost"),
                    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
                    ("grpc.enable_retries", 0),
                    ("grpc.enable_http_proxy", 0),
                    # A ping with each answer, to size windows: an eighth of the cost.
                    ("grpc.http2.bdp_probe", 0),
                ],
            )
        try:
            call = self._calls.get(method)
            if call is None:
                call = self._calls[method] = self._channel.unary_unary(method)
            answer: bytes = call(b"", timeout=self._deadline_s)
            return answer
        except grpc.RpcError as e:
            code = e.code() if hasattr(e, "code") else None
            if code is grpc.StatusCode.UNIMPLEMENTED:
                return None
            self.close()
            said = e.details() if hasattr(e, "details") else ""
            name = code.name if code is not None else "failed"
            raise KubernetesError(
                f"kubelet at {self._socket}: {method.rpartition('/')[2]}: {name}: {str(said)[:200]}",
                "it may be restarting: see the kubelet's log on this node",
            ) from e
        except ValueError as e:  # the channel was closed under the call
            raise KubernetesError(f"kubelet at {self._socket}: closed", "") from e


def check_socket(path: str) -> None:
    """Say plainly what grpc would call UNAVAILABLE. Raises KubernetesError."""
    try:
        found = os.stat(path)  # noqa: PTH116
    except FileNotFoundError as e:
        raise KubernetesError(
            f"kubelet: no socket at {path}",
            "mount the directory of the kubelet's pod-resources socket (k0s, microk8s: another one), read-only",
        ) from e
    except OSError as e:
        raise KubernetesError(
            f"kubelet: {path}: {e.strerror}",
            "the directory belongs to root, 0750: the agent has to be uid 0 there, without any capability",
        ) from e
    if not stat.S_ISSOCK(found.st_mode):
        raise KubernetesError(
            f"kubelet: expected a socket at {path}, got something else",
            "name the socket itself, as a rule /var/lib/kubelet/pod-resources/kubelet.sock",
        )
