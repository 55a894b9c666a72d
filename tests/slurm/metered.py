"""A node of the real Slurm as flopmeter meters it: scripted GPUs, the real agent, jobs that wait to be told to end.

A job says who it is by a file, and then blocks on a FIFO. The test makes its process hold the GPUs that Slurm
gave it, lets them work for an exactly known time once the agent has seen the holder, and ends the job. Nothing works
while a holder changes, so that every cycle is one job's, whatever the machine's load.
"""

import os
import re
import signal
import subprocess
import time
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from fakenvml.driver import build
from processes import free_port, start, wait_for

SMS = 132
KHZ = 1_980_000
SECOND = 1_000_000_000
#: Written this long before it comes into force: the driver must not have counted past it.
LEAD_NS = SECOND


def boot_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def cycles(ns: int, khz: int = KHZ) -> int:
    """SM-cycles of a whole GPU in `ns`, a whole number of microseconds."""
    assert ns % 1_000 == 0
    return SMS * khz * ns // 1_000_000


def uuid_of(node: str, gpu: int) -> str:
    """The GPU that Slurm gives this number on that node."""
    return f"GPU-{os.getpid():08x}-0000-0000-0000-{node.encode().hex()[-8:]}{gpu:04d}"


@dataclass(frozen=True)
class Life:
    """One life of a job on one node: a batch script or a task of srun, waiting."""

    job: int
    node: str
    restart: int
    pid: int
    gpus: tuple[int, ...]  # as Slurm numbers them on the node
    gate: Path

    def end(self) -> None:
        """It exits with 0."""
        opened: list[int] = []

        def waits() -> bool:
            with suppress(OSError):  # nobody reads yet
                opened.append(os.open(self.gate, os.O_WRONLY | os.O_NONBLOCK))
            return opened != []

        wait_for(f"job {self.job} waits to be told to end", waits, 60)
        os.write(opened[0], b"go\n")
        os.close(opened[0])


#: What a job runs: $0 stands in the folder where jobs say who they are. In a het job the environment of every
#: component names the first one; the cgroup names its own.
_TRAIN = """#!/bin/sh
job=$(sed -n 's#.*:freezer:.*/job_\\([0-9]*\\)/.*#\\1#p' /proc/self/cgroup)
me=${0%/*}/${job:-$SLURM_JOB_ID}-$SLURMD_NODENAME-${SLURM_RESTART_COUNT:-0}
mkfifo "$me.gate"
echo "${job:-$SLURM_JOB_ID} $SLURMD_NODENAME ${SLURM_RESTART_COUNT:-0} $$ $CUDA_VISIBLE_DEVICES" >"$me.new"
mv "$me.new" "$me.here"
read -r go <"$me.gate"
"""


class Jobs:
    """What jobs run, and what they say of themselves."""

    def __init__(self, folder: Path) -> None:
        """`folder`: one that any user's jobs can reach."""
        folder.chmod(0o777)
        self.folder = folder
        self.train = folder / "train.sh"
        self.train.write_text(_TRAIN)
        self.train.chmod(0o755)

    def lives(self) -> list[Life]:
        found = []
        for said in self.folder.glob("*.here"):
            job, node, restart, pid, gpus = said.read_text().rstrip("\n").split(" ")
            numbers = tuple(int(n) for n in gpus.split(",") if n)
            found.append(Life(int(job), node, int(restart), int(pid), numbers, said.with_suffix(".gate")))
        return sorted(found, key=lambda life: (life.job, life.node, life.restart))

    def wait(self, count: int) -> list[Life]:
        """Until so many lives have begun, those before included; all of them."""
        wait_for(f"{count} lives of jobs", lambda: len(self.lives()) >= count, 60)
        found = self.lives()
        assert len(found) == count, found
        return found


@dataclass
class Node:
    """A node's GPUs and its agent."""

    folder: Path
    name: str
    gpus: int
    cluster: str
    collector: str
    options: Sequence[str] = ()
    environ: Mapping[str, str] = field(default_factory=dict)
    process: "subprocess.Popen[bytes] | None" = None
    holders: dict[int, list[int]] = field(default_factory=dict)
    began_ns: int = 0  # where the GPUs' clocks began
    ended_ns: int = 0

    def __post_init__(self) -> None:
        self.folder.mkdir()
        self.script = self.folder / "machine.nvml"
        self.log = self.folder / "agent.log"
        self.port = free_port()
        # Not clocked until the agent has read it, so that the driver's own count of elapsed cycles is known, too.
        lines = [f"gpu g{n} uuid={self.uuid(n)} clock=0" for n in range(self.gpus)]
        self.script.write_text("".join(f"{line}\n" for line in lines))

    def uuid(self, gpu: int) -> str:
        return uuid_of(self.name, gpu)

    # ---- the script ----

    def _say(self, at_ns: int, *lines: str) -> None:
        with self.script.open("ab", buffering=0) as f:
            f.write("".join(f"@{line}\n" for line in lines).encode())
        assert not at_ns or boot_ns() < at_ns, "this machine stood still for a second"

    def hold(self, life: Life) -> None:
        """The job's process opens the GPUs that it was given."""
        for gpu in life.gpus:
            self.holders.setdefault(gpu, []).append(life.pid)
            self._processes(gpu)

    def hold_by(self, pid: int, gpu: int) -> None:
        self.holders.setdefault(gpu, []).append(pid)
        self._processes(gpu)

    def let_go(self, pid: int) -> None:
        for gpu, pids in self.holders.items():
            if pid in pids:
                pids.remove(pid)
                self._processes(gpu)

    def _processes(self, gpu: int) -> None:
        self._say(0, f"{boot_ns()} gpu g{gpu} procs={','.join(map(str, self.holders[gpu]))}")

    def work(self, gpu: int, seconds: int, hmma_percent: int) -> int:
        """A spell of tensor work, starting in a second: its SM-cycles. `wait_read` says when it was metered."""
        at = (boot_ns() + LEAD_NS) // 1_000 * 1_000
        until = at + seconds * SECOND
        self._say(at, f"{at} gpu g{gpu} hmma={hmma_percent / 100}", f"{until} gpu g{gpu} hmma=0")
        self.ended_ns = max(self.ended_ns, until)
        return cycles(until - at) * hmma_percent // 100

    # ---- the agent ----

    def start(self) -> None:
        args = ["--source", "nvml", "--state", str(self.folder / "state"), "--collector", self.collector]
        args += ["--node", self.name, "--cluster", self.cluster, "--tick", "250ms", "--window", "5s"]
        args += ["--metrics-address", f"127.0.0.1:{self.port}", *self.options]
        driver = {"LD_LIBRARY_PATH": str(build().parent), "FAKENVML_SCRIPT": str(self.script)}
        self.process = start("agent", "run", *args, log=self.log, environ={**self.environ, **driver})
        self.wait_read()
        self.began_ns = at = (boot_ns() + LEAD_NS) // 1_000 * 1_000
        self._say(at, *(f"{at} gpu g{n} clock={KHZ // 1_000}" for n in range(self.gpus)))

    def stop(self) -> int:
        """Once nothing runs: clocks off, a last reading, all shipped. SM-cycles that each GPU ran in all."""
        assert self.process is not None
        until = (boot_ns() + LEAD_NS) // 1_000 * 1_000
        self._say(until, *(f"{until} gpu g{n} clock=0" for n in range(self.gpus)))
        self.wait_read(until)
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(60) == 0, self.log.read_text()[-3000:]
        self.process = None
        return cycles(until - self.began_ns)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(60)
            self.process = None

    def _page(self) -> str:
        """What the agent's own /metrics says; "" while there is none."""
        assert self.process is None or self.process.poll() is None, self.log.read_text()[-3000:]
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=20) as got:
                return str(got.read().decode())
        except OSError:
            return ""

    def _read_until(self, unix_ns: int) -> bool:
        """Whether the last good reading of every GPU is later."""
        name = r"^flopmeter_gpu_last_reading_timestamp_seconds\{.*\} (\S+)$"
        times = [float(t) for t in re.findall(name, self._page(), re.MULTILINE)]
        return len(times) == self.gpus and min(times) * 1e9 > unix_ns + 1_000_000

    def wait_read(self, at_boot_ns: int = 0) -> None:
        """Until every GPU was read after that instant (now unless given), and again, so that the first is metered."""
        for instant in (at_boot_ns or boot_ns(), 0):
            when = (instant or boot_ns()) + time.time_ns() - boot_ns()
            wait_for(f"every GPU of {self.name} was read", partial(self._read_until, when), 60)

    def wait_held(self, gpu: int, kind: str, job: str = "") -> None:
        """Until the agent says so of a GPU, and has metered it so."""

        def info() -> str:
            info = [
                line for line in self._page().splitlines() if line.startswith("flopmeter_gpu_workload_info")
            ]
            return next((line for line in info if f'hw_id="{self.uuid(gpu)}"' in line), "")

        wait_for(
            f"{self.name}: GPU {gpu} is held by {kind} {job}",
            lambda: (said := info()) and f'kind="{kind}"' in said and (not job or f'job_id="{job}"' in said),
            60,
        )
        self.wait_read()
