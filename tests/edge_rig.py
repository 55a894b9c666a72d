"""An HTTP port without a collector: a store with tokens, a process that answers as the tests want it, and raw connections."""

import http.client
import json
import socket
import sys
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from access_rig import Clock, desk_at

from flopmeter.collector.metrics import Counters
from flopmeter.collector.metrics_page import CollectorMetrics
from flopmeter.collector.web.commands import Commands
from flopmeter.collector.web.server import Edge, EdgeServer

WORKER = Path(__file__).with_name("fake_worker.py")
COMMAND = Path(__file__).with_name("fake_command.py")


@dataclass
class Reply:
    status: int
    headers: dict
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)


@dataclass
class Rig:
    """A port that is served, and how to ask it."""

    server: EdgeServer
    desk: object
    folder: Path
    clock: Clock
    tokens: dict = field(default_factory=dict)

    def token(self, role="auditor", tenant="", lasts_s=0):
        """A token's text; the same one for the same role and tenant."""
        if (role, tenant, lasts_s) not in self.tokens:
            made = self.desk.make_api_token(
                role=role, name=f"ann-{role}", lasts_s=lasts_s, who="tests", tenant=tenant
            )
            self.tokens[role, tenant, lasts_s] = made[0]
        return self.tokens[role, tenant, lasts_s]

    def ask(self, method, path, body=None, *, role="", tenant="", **headers):
        """One request on a connection of its own."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if role:
            named["Authorization"] = f"Bearer {self.token(role, tenant)}"
        with closing(http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=60)) as connection:
            connection.request(method, path, body, named)
            answer = connection.getresponse()
            return Reply(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())

    def get(self, path, **more):
        return self.ask("GET", path, **more)

    def post(self, path, document, **more):
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        return self.ask("POST", path, body, **{"Content_Type": "application/json", **more})

    def login(self, role="auditor", **more):
        """The Cookie header of a new session."""
        said = self.post("/api/v1/session", {"token": self.token(role)}, **more)
        assert said.status == 201, said.body
        return said.headers["set-cookie"].partition(";")[0]

    def raw(self, data, *, wait_s=60.0):
        """What comes back to these bytes, until the port hangs up."""
        with socket.create_connection(("127.0.0.1", self.server.port), timeout=wait_s) as connection:
            connection.sendall(data)
            return until_end(connection)

    def starts(self):
        """Process ids of the processes that answered, in order."""
        path = self.folder / "starts"
        return [int(line) for line in path.read_text().split()] if path.exists() else []


def until_end(connection):
    parts = []
    try:
        while part := connection.recv(65_536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


@contextmanager
def edge(folder, *, alive=lambda: True, ready=lambda: True, counters=None, clock=None, worker=None, **more):
    clock = clock or Clock()
    desk = desk_at(folder, clock)
    desk.make_join_token(name="", nodes="*", uses=1, lasts_s=60, who="tests")  # so that there is a store
    metrics = CollectorMetrics(counters or Counters(), lambda: 3, ready)
    served = EdgeServer(
        "127.0.0.1",
        0,
        Edge(
            metrics=metrics,
            alive=alive,
            ready=ready,
            store=folder / "b.db",
            unix_ns=clock,
            worker=worker or (sys.executable, str(WORKER), str(folder)),
            commands=Commands(folder / "b.db"),
            program=(sys.executable, str(COMMAND), str(folder)),
            **more,
        ),
    )
    try:
        yield Rig(served, desk, folder, clock)
    finally:
        served.stop()


def first(answer):
    """The status line."""
    return answer.split(b"\r\n")[0]


def request(method, path, *headers, body=b""):
    """The bytes of a request."""
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", *headers, "", ""]).encode() + body
