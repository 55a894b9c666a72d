"""What systemd is told: ready, that we live, that we stop."""

import os
import socket
from pathlib import Path

import pytest

from flopmeter.cli.systemd import Notifier

WAIT_S = 60.0


def test_systemd_is_told_ready_watchdog_and_stopping(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(path)
        server.settimeout(WAIT_S)
        notifier = Notifier(
            {"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}
        )
        notifier.ready("metering 8 devices")
        notifier.beat()
        notifier.beat()  # too soon: not sent
        notifier.stopping("sealing")
        got = [server.recv(4096).decode() for _ in range(3)]
        assert got[0] == "READY=1\nSTATUS=metering 8 devices"
        assert got[1] == "WATCHDOG=1"
        assert got[2] == "STOPPING=1\nSTATUS=sealing"


def test_an_abstract_socket_of_systemd_is_understood() -> None:
    name = f"flopmeter-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind("\0" + name)
        server.settimeout(WAIT_S)
        Notifier({"NOTIFY_SOCKET": "@" + name}).ready("x")
        assert server.recv(100) == b"READY=1\nSTATUS=x"


def test_without_systemd_nothing_is_sent_and_a_dead_socket_is_no_harm(tmp_path: Path) -> None:
    Notifier({}).ready("x")
    notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "absent"), "WATCHDOG_USEC": "junk"})
    notifier.ready("x")
    notifier.beat()


def test_the_watchdog_of_another_process_is_not_ours(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as server:
        server.bind(path)
        Notifier({"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1"}).beat()
        with pytest.raises(BlockingIOError):
            server.recv(100)
