"""What the server asks about connections: TLS, and whose certificate it is (flopmeter.collector.access)."""

from typing import Any, Protocol

import grpc


class Guard(Protocol):
    def credentials(self) -> grpc.ServerCredentials:
        """For the port."""
        ...

    def handler(self) -> Any:
        """The service that stands beside the streams: renewal."""
        ...

    def judge(self, connection: Any, public_key: bytes, node: str) -> tuple[str, int]:
        """(why the connection is not that agent's, or "", end of its certificate in Unix seconds)."""
        ...
