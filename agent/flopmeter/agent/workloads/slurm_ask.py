"""Asks `squeue --json` for what the prolog does not know: names, accounts, arrays. Off unless set.

Every question is a load on the cluster's one controller. So it is asked only while a job runs here of which is not
known what could be, never twice in a period, later and later after failures; and what it answers is bounded.
"""

import logging
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress

from flopmeter.contract.clock import Clock

from .slurm_facts import JobFacts
from .slurm_queue import parse_queue

log = logging.getLogger(__name__)

#: An answer on every job of the queue is about 3 KiB a job under 22.05 (tests/slurm/captures): some 6,000 jobs.
MAX_ANSWER_BYTES = 16 << 20
DEADLINE_S = 20.0  # Slurm's own MessageTimeout is 10 s unless set
MAX_BACKOFF_PERIODS = 60
MAX_WANTED = 256  # jobs of one node
#: What is known is asked again after so many periods: a job may have been requeued without our prolog's seeing it.
REFRESH_PERIODS = 30
#: Answers are forgotten after as long: the longest window (contract.limits), by then the job is long gone.
KEPT_NS = 86_400_000_000_000
_MAX_STDERR = 4_096

Run = Callable[[list[str]], bytes]


class AskError(Exception):
    """squeue gave no usable answer; str() says why."""


class Asker:
    """Remembers which jobs are wanted and what was answered. `turn` is one turn of its thread; `facts` is any's."""

    def __init__(self, program: str, period_ns: int, clock: Clock, run: Run | None = None) -> None:
        self._program = program
        self._period_ns = period_ns
        self._clock = clock
        self._run = run or run_bounded
        self._wanted: dict[str, int] = {}  # job -> when somebody last wanted to know
        self._known: dict[
            str, tuple[JobFacts | None, int]
        ] = {}  # job -> the answer, None = no such job; when
        self._outdated: set[str] = set()
        self._due_ns = 0
        self._failures = 0
        self._turned_away = ""  # the last job that there was no room for

    def facts(self, job: str) -> JobFacts | None:
        """What is known of a job by now; and that somebody wants to know."""
        if job in self._wanted or len(self._wanted) < MAX_WANTED:
            self._wanted[job] = self._clock.boot_ns()
        elif not self._turned_away:
            self._turned_away = job
            log.warning(
                "%s: not asked of job %s and perhaps others: %d jobs of this node were wanted in the last %d periods; "
                "their names and arrays stay unknown",
                *(self._program, job, MAX_WANTED, REFRESH_PERIODS),
            )
        known = self._known.get(job)
        return known[0] if known else None

    def ask_again(self, job: str) -> None:
        """What is known of it is of another life: it is asked for in the next period, and stands until then."""
        self._outdated.add(job)

    def turn(self) -> None:
        """Ask if there is something to ask for, and it is time."""
        now = self._clock.boot_ns()
        refresh_ns = REFRESH_PERIODS * self._period_ns
        wanted = set()
        for job, when in self._wanted.copy().items():  # copied in one step: `facts` adds to it meanwhile
            if now - when < refresh_ns:
                wanted.add(job)
            else:
                self._wanted.pop(job, None)
                self._turned_away = ""  # there is room again; whoever is turned away later is told of anew
        for job, (_, when) in self._known.copy().items():
            if now - when > KEPT_NS:
                self._known.pop(job, None)
                self._outdated.discard(job)
        due = {j for j in wanted if j not in self._known or now - self._known[j][1] >= refresh_ns}
        due |= wanted & self._outdated.copy()
        if not due or now < self._due_ns:
            return
        try:
            answer = self._ask(due, wanted)
        except (AskError, ValueError) as e:
            self._failures += 1
            self._due_ns = now + self._period_ns * min(1 << min(self._failures, 30), MAX_BACKOFF_PERIODS)
            (log.warning if self._failures == 1 else log.debug)("%s: %s", self._program, e)
            return
        if self._failures:
            log.warning("%s answers again", self._program)
        self._failures = 0
        self._due_ns = now + self._period_ns
        for job in due | answer.keys():
            self._known[job] = answer.get(job), now
            self._outdated.discard(job)

    def _ask(self, due: set[str], wanted: set[str]) -> dict[str, JobFacts]:
        """One job by its id costs the controller little; of several the client asks for the whole queue.

        22.05 prints the whole queue in any case, so that all that is wanted is taken from the answer.
        """
        try:
            return parse_queue(
                self._run([self._program, "--json", f"--jobs={','.join(sorted(due))}"]), wanted
            )
        except AskError as e:
            if "Invalid job id" in str(e):  # asked for one that has ended: an answer, too
                return {}
            raise


def run_bounded(argv: list[str], *, deadline_s: float = DEADLINE_S, limit: int = MAX_ANSWER_BYTES) -> bytes:
    """What a program prints. Raises AskError where it does not start, end well, end in time, or end at all.

    It gets nothing of this process's environment but what Slurm's commands need, and is killed with its children.
    """
    keep = ("SLURM_CONF", "PATH", "LANG")
    try:
        child = subprocess.Popen(  # noqa: S603 - the program is the admin's setting, its arguments are ours
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={name: os.environ[name] for name in keep if name in os.environ},
            start_new_session=True,
        )
    except (OSError, ValueError) as e:
        raise AskError(f"cannot be started: {getattr(e, 'strerror', None) or e}") from e
    try:
        out, err = _collect(child, time.monotonic() + deadline_s, limit)
        code = child.wait(timeout=1)
    except subprocess.TimeoutExpired as e:
        raise AskError("closed its output and did not end") from e
    except _TooLateError as e:
        raise AskError(f"no answer within {deadline_s:g} s") from e
    except _TooMuchError as e:
        raise AskError(
            f"printed more than {limit} bytes: the queue is too long to ask every node's agent"
        ) from e
    finally:
        _end(child)
    if code:
        said = err.decode(errors="replace").strip().splitlines()
        raise AskError(f"ended with {code}: {said[0][:200] if said else 'no reason given'}")
    return out


class _TooLateError(Exception):
    """The deadline passed."""


class _TooMuchError(Exception):
    """The limit was reached."""


def _collect(child: "subprocess.Popen[bytes]", until: float, limit: int) -> tuple[bytes, bytes]:
    """Both outputs to their ends."""
    assert child.stdout is not None
    assert child.stderr is not None
    parts: dict[int, list[bytes]] = {child.stdout.fileno(): [], child.stderr.fileno(): []}
    size = 0
    with selectors.DefaultSelector() as waiting:
        for fd in parts:
            waiting.register(fd, selectors.EVENT_READ)
        while waiting.get_map():
            left = until - time.monotonic()
            ready = waiting.select(left) if left > 0 else []
            if not ready:
                raise _TooLateError
            for key, _ in ready:
                part = os.read(key.fd, 65_536)
                if not part:
                    waiting.unregister(key.fd)
                elif key.fd == child.stdout.fileno():
                    size += len(part)
                    if size > limit:
                        raise _TooMuchError
                    parts[key.fd].append(part)
                elif sum(map(len, parts[key.fd])) < _MAX_STDERR:
                    parts[key.fd].append(part)
    out, err = parts.values()
    return b"".join(out), b"".join(err)


def _end(child: "subprocess.Popen[bytes]") -> None:
    """Kill what is left of it, and close the pipes."""
    if child.poll() is None:
        with suppress(OSError):
            os.killpg(child.pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            child.wait(timeout=1)  # one that cannot even be killed is left to the kernel
    for pipe in (child.stdout, child.stderr):
        if pipe is not None:
            pipe.close()
