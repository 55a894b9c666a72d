"""The socket that training code declares to: datagrams of this node, each with its sender's number from the kernel."""

import logging
import socket
import struct
from pathlib import Path

from flopmeter.agent.declare import SOCKET
from flopmeter.agent.errors import AgentError

from .claims import MAX_DATAGRAM_BYTES

log = logging.getLogger(__name__)

_CREDENTIALS = struct.Struct("=3i")  # pid, uid, gid
#: Room for the credentials, and none for anything that a sender may attach: the kernel throws that away.
_ASIDE = socket.CMSG_SPACE(_CREDENTIALS.size)


class DeclareSocket:
    """A socket at `path` that everybody on the node may send to, and nobody can make wait or grow."""

    def __init__(self, path: Path) -> None:
        """Raises OSError where it cannot be made, FileExistsError where another agent listens there."""
        self._path = path
        self._socket = socket.socket(
            socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        )
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            _make_way(path)
            self._socket.bind(str(path))
            self._inode = path.stat().st_ino
            path.chmod(0o666)
        except OSError:
            self._socket.close()
            raise

    def take(self, most: int) -> list[tuple[int, bytes]]:
        """See claims.Datagrams. One that was cut for its length is given whole enough to be refused."""
        found: list[tuple[int, bytes]] = []
        try:
            while len(found) < most:
                datagram, aside, _, _ = self._socket.recvmsg(MAX_DATAGRAM_BYTES + 1, _ASIDE)
                found.append((_sender(aside), datagram))
        except BlockingIOError:
            pass
        except OSError as e:
            log.warning("declare socket %s: %s", self._path, e)
        return found

    def close(self) -> None:
        self._socket.close()
        try:
            if self._path.stat().st_ino == self._inode:
                self._path.unlink()
        except OSError:
            pass


def open_declare_socket(setting: str) -> DeclareSocket | None:
    """What the setting `declare-socket` asks for: `auto` (at its usual place, if that can be had), `off`, or a path.

    Raises AgentError where a path was named and nothing can listen there.
    """
    if setting == "off":
        return None
    path = Path(SOCKET if setting == "auto" else setting)
    try:
        return DeclareSocket(path)
    except OSError as e:
        why = f"declare socket {path}: {e.strerror or e}"
        if setting == "auto":
            log.info("%s: training code cannot declare here; its environment still can", why)
            return None
        raise AgentError(why, "name a folder that the agent may write to, or use --declare-socket off") from e


def _make_way(path: Path) -> None:
    """Remove what an agent that was killed has left behind. Nothing but a socket, and none that is listened to."""
    try:
        if not path.is_socket():
            return  # bind says what is wrong
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
            other.connect(str(path))
    except FileNotFoundError:
        return
    except ConnectionRefusedError:
        path.unlink(missing_ok=True)
        return
    raise FileExistsError(17, "another agent listens there")


def _sender(aside: list[tuple[int, int, bytes]]) -> int:
    """The process id that the kernel says; 0 = none, or of a PID namespace that is not ours."""
    for level, kind, data in aside:
        if level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS and len(data) == _CREDENTIALS.size:
            pid: int = _CREDENTIALS.unpack(data)[0]
            return pid
    return 0
