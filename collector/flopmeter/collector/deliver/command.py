"""The command sink: a program of the operator's with the event on its standard input; exit code 0 is delivered.

What it does is the operator's own switch, never ours (docs/delivery.md). It gets a bounded time, an environment of
its own, no shell and no argument from an event; what it leaves running in its process group is ended with it.
"""

import contextlib
import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from flopmeter.collector.errors import SinkError

from .answer import Answer, delivered, failed
from .message import Message
from .settings import Command, SinkSettings

#: Of what it says on standard error, the end that is kept.
MAX_STDERR_BYTES = 2_000
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_CHUNK = 65_536


class CommandSender:
    """Runs the command once for each event, one after the other."""

    limit = 1

    def __init__(
        self, settings: SinkSettings, target: Command, environ: Mapping[str, str] | None = None
    ) -> None:
        self._timeout_s, self._target = settings.timeout_s, target
        self._environ = os.environ if environ is None else environ
        self._running: subprocess.Popen[bytes] | None = None  # until it is about to be reaped
        self._over = False
        self._lock = threading.Lock()

    def check(self) -> None:
        """Raises SinkError."""
        program = Path(self._target.argv[0])
        if not (program.is_file() and os.access(program, os.X_OK)):
            raise SinkError(f"{program}: expected a program that can be run", "name it by its absolute path")
        try:
            os.close(os.pidfd_open(os.getpid()))
        except OSError as e:
            raise SinkError(
                f"{program}: cannot be watched: {e.strerror}",
                "a command needs Linux 5.3 or newer (pidfd_open)",
            ) from e

    def send(self, messages: Sequence[Message]) -> list[Answer]:
        return [self._one(message) for message in messages]

    def _one(self, message: Message) -> Answer:
        program = self._target.argv[0]
        env = {"PATH": PATH, "LANG": "C.UTF-8", "FLOPMETER_EVENT_ID": message.id}
        env |= {name: self._environ[name] for name in self._target.environment if name in self._environ}
        try:
            child = subprocess.Popen(  # noqa: S603 - no shell, and no argument from outside the settings
                self._target.argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=env,
                cwd="/",
                start_new_session=True,
                bufsize=0,
            )
        except (OSError, ValueError) as e:
            return failed(f"{program}: cannot be run: {getattr(e, 'strerror', None) or e}")
        with child:
            self._running = child
            if self._over:  # meanwhile
                self._end()
            ended, said = _talk(child, message.body + b"\n", self._timeout_s)
            self._end()
            status = child.wait()
        tail = said.decode(errors="replace").strip()
        tail = f": {tail}" if tail else ""
        if not ended:
            return failed(f"{program}: did not end within {self._timeout_s} s and was killed{tail}")
        if status == 0:
            return delivered(f"{program}: exit code 0{tail}")
        how = f"exit code {status}" if status > 0 else f"ended by signal {-status}"
        return failed(f"{program}: {how}{tail}")

    def abandon(self) -> None:
        """The process ends, and nobody waits any more: what runs is ended, and what comes fails. Any thread."""
        self._over = True
        self._end()

    def _end(self) -> None:
        """End what runs, with all of its group."""
        with self._lock:  # before it is reaped, so that its number is still its own
            child, self._running = self._running, None
            if child is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)


def _talk(child: "subprocess.Popen[bytes]", event: bytes, timeout_s: float) -> tuple[bool, bytes]:
    """Write the event, keep the end of what it says, until it ends or its time is over. (whether it ended, said)"""
    assert child.stdin is not None
    assert child.stderr is not None
    until = time.monotonic() + timeout_s
    said, rest = b"", memoryview(event)
    exited = os.pidfd_open(child.pid)
    try:
        with selectors.DefaultSelector() as selector:
            for stream in (child.stdin, child.stderr):
                os.set_blocking(stream.fileno(), False)
            selector.register(exited, selectors.EVENT_READ)
            selector.register(child.stderr, selectors.EVENT_READ)
            selector.register(child.stdin, selectors.EVENT_WRITE)
            while (left := until - time.monotonic()) > 0:
                ready = {key.fileobj for key, _ in selector.select(left)}
                if child.stdin in ready:
                    try:
                        rest = rest[os.write(child.stdin.fileno(), rest[:_CHUNK]) :]
                    except BlockingIOError:
                        pass
                    except OSError:  # it has closed its input: it need not read what it does not want
                        rest = rest[:0]
                    if not rest:
                        selector.unregister(child.stdin)
                        child.stdin.close()
                if child.stderr in ready or exited in ready:
                    with contextlib.suppress(BlockingIOError):
                        more = os.read(child.stderr.fileno(), _CHUNK)
                        said = (said + more)[-MAX_STDERR_BYTES:]
                        if not more and child.stderr in ready:
                            selector.unregister(child.stderr)
                if exited in ready:
                    return True, said
            return False, said
    finally:
        os.close(exited)
