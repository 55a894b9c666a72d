"""The loop's clock: it is the kernel's, and a signal ends its wait."""

import os
import signal
import threading
from pathlib import Path

import pytest

from flopmeter.agent.loop import SystemClock, stop_on_signals

SECOND = 1_000_000_000
WAIT_S = 60.0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_a_wait_at_once(number: int) -> None:
    clock = SystemClock()
    before = signal.getsignal(number)
    with stop_on_signals(clock.stop):
        threading.Timer(0.05, os.kill, (os.getpid(), number)).start()
        assert clock.wait(WAIT_S)
        assert clock.stopping
        assert signal.getsignal(number) is signal.SIG_DFL  # a second one kills
    assert signal.getsignal(number) is before


def test_the_system_clock_is_the_kernels() -> None:
    clock = SystemClock()
    uptime_s = float(Path("/proc/uptime").read_text().split()[0])
    assert abs(clock.boot_ns() / 1e9 - uptime_s) < 5
    assert clock.unix_ns() > 1_700_000_000 * SECOND
    assert not clock.wait(0)
