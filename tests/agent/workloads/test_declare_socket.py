"""The socket itself: real processes send, the kernel says who."""

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from processes import wait_for

from flopmeter.agent.errors import AgentError
from flopmeter.agent.workloads import declare_socket as module
from flopmeter.agent.workloads.claims import MAX_A_TICK, MAX_DATAGRAM_BYTES, Claims
from flopmeter.agent.workloads.declare_socket import DeclareSocket, open_declare_socket
from flopmeter.agent.workloads.processes import ProcFinder


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "declare.sock"


def send(path: Path, *datagrams: bytes, aside: list | None = None) -> None:  # type: ignore[type-arg]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as s:
        s.connect(str(path))
        for datagram in datagrams:
            s.sendmsg([datagram], aside or [])


def test_each_datagram_comes_with_its_senders_number(path: Path) -> None:
    there = DeclareSocket(path)
    send(path, b"mine")
    code = f"import socket; socket.socket(1, 2).sendto(b'theirs', {str(path)!r})"
    with subprocess.Popen([sys.executable, "-c", code]) as other:
        assert other.wait(60) == 0
    assert there.take(9) == [(os.getpid(), b"mine"), (other.pid, b"theirs")]
    assert there.take(9) == []
    there.close()
    assert not path.exists()


def test_no_more_than_asked_for_and_the_sender_hears_that_it_is_full(path: Path) -> None:
    there = DeclareSocket(path)
    with pytest.raises(BlockingIOError):
        send(path, *[b"x"] * 10_000)
    assert len(there.take(2)) == 2
    taken = 2
    while some := there.take(MAX_A_TICK):
        assert len(some) <= MAX_A_TICK
        taken += len(some)
    assert taken < 10_000
    there.close()


def test_what_is_too_long_or_empty_or_brings_files_along(path: Path) -> None:
    there = DeclareSocket(path)
    before = set(os.listdir("/proc/self/fd"))  # noqa: PTH208
    send(path, b"", b"x" * (MAX_DATAGRAM_BYTES + 50))
    with Path(os.devnull).open("rb") as f:
        fds = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, f.fileno().to_bytes(4, sys.byteorder) * 9)]
        send(path, b'{"v":1}', aside=fds)
    found = there.take(9)
    assert [len(datagram) for _, datagram in found] == [0, MAX_DATAGRAM_BYTES + 1, 7]
    assert {pid for pid, _ in found} == {os.getpid()}
    wait_for("no file is left open", lambda: set(os.listdir("/proc/self/fd")) <= before, 60)  # noqa: PTH208
    claims = Claims(ProcFinder())
    for pid, datagram in found:
        claims.hear(pid, datagram, 1, 1)
    assert (claims.taken, claims.refused) == (1, 2)
    there.close()


def test_processes_that_are_gone_before_they_are_looked_at(path: Path) -> None:
    """A storm of short lives: each says something and ends."""
    there = DeclareSocket(path)
    claims = Claims(ProcFinder(), there)
    children = []
    for n in range(40):
        child = os.fork()
        if not child:
            try:
                send(path, b'{"v":1,"tokens":%d}' % n)
            finally:
                os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    for tick in range(3):
        claims.listen(tick, tick)
        assert claims.unknown <= MAX_A_TICK * (tick + 1)
    assert claims.taken == claims.refused == 0
    assert (
        0 < claims.unknown <= 40
    )  # what the kernel kept of them: the others were dropped where they were sent
    claims.close()


def test_everybody_may_send_and_the_mode_says_so(path: Path) -> None:
    before = os.umask(0o077)
    try:
        there = DeclareSocket(path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666
    there.close()


def test_what_a_killed_agent_left_gives_way_and_a_living_one_does_not(path: Path) -> None:
    left = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    left.bind(str(path))
    with pytest.raises(FileExistsError):
        DeclareSocket(path)
    assert path.is_socket()
    left.close()
    there = DeclareSocket(path)
    path.unlink()
    second = DeclareSocket(path)  # somebody removed it under us
    there.close()
    assert path.is_socket()  # and it is not ours to remove
    second.close()


def test_a_file_that_is_no_socket_is_left_alone(path: Path) -> None:
    path.write_text("precious")
    with pytest.raises(AgentError, match="declare socket"):
        open_declare_socket(str(path))
    assert path.read_text() == "precious"
    path.unlink()
    path.symlink_to("/dev/null")
    with pytest.raises(AgentError, match="declare socket"):
        open_declare_socket(str(path))


def test_settings(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert open_declare_socket("off") is None
    monkeypatch.setattr(module, "SOCKET", str(path.parent / "nowhere" / "declare.sock"))
    assert open_declare_socket("auto") is None  # a folder that nobody made is not made
    assert not (path.parent / "nowhere").exists()
    monkeypatch.setattr(module, "SOCKET", str(path))
    for setting in ("auto", str(path)):
        there = open_declare_socket(setting)
        assert there is not None
        there.close()
    with pytest.raises(AgentError, match=r"nowhere.*No such file"):
        open_declare_socket(str(path.parent / "nowhere" / "s"))
