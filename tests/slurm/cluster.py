"""A real Slurm on this machine: munged, slurmctld and one slurmd for each node, in a folder of its own.

    with Cluster(tmp_path, {"a": ["GPU-…", "GPU-…"], "b": ["GPU-…"]}) as slurm:
        job = slurm.sbatch("sleep 1", "--gres=gpu:1")
        slurm.wait_until(job, "COMPLETED")

Nodes and cluster bear names that no other Slurm here has, every port is free, and nothing outside the folder is
written but the nodes' own cgroups, which go when the cluster goes. reference/deploy.md 2.4 is where it comes from.
"""

import itertools
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from processes import free_port, wait_for

DAEMONS = ("munged", "slurmctld", "slurmd")
CLIENTS = ("sbatch", "squeue", "scontrol", "scancel", "srun", "sinfo")
PACKAGES = "slurmctld slurmd slurm-client slurm-wlm-basic-plugins munge"
FREEZER = Path("/sys/fs/cgroup/freezer")
#: A requeued job waits until the credential of its last life has run out (slurm.conf(5), AuthInfo: cred_expire;
#: 120 s unless set, under 5 refused), so this is what one requeue costs a test.
CREDENTIAL_S = 5
_NUMBERS = itertools.count()  # of this process's clusters: a node's name is its cgroup's
NVIDIA_MAJOR = 195  # of the kernel's character devices; without the driver nobody answers there


def missing() -> str:
    """Why there can be no Slurm here that follows its jobs; empty if there can."""
    if os.geteuid() != 0:
        return "a real Slurm needs root: slurmd starts jobs as their users"
    absent = [name for name in (*DAEMONS, *CLIENTS) if _tool(name) is None]
    if absent:
        return f"a real Slurm needs {', '.join(absent)}: apt-get install {PACKAGES}"
    if not os.access(FREEZER, os.W_OK):
        return f"proctrack/cgroup needs the v1 freezer, and {FREEZER} is not there to write to"
    return ""


class Cluster:
    """Entered: all daemons answer, and each node is idle. Left: nothing of it is there any more."""

    def __init__(
        self,
        folder: Path,
        gpus: Mapping[str, int],
        *,
        prolog: Path | None = None,
        epilog: Path | None = None,
        cgroups: bool = True,
    ) -> None:
        """`gpus`: how many each node has, by a short name; `prolog`, `epilog`: programs for slurm.conf.

        Without `cgroups` it follows its jobs by their parents (proctrack/linuxproc), so that no path names one.
        """
        self.folder = folder
        self.cgroups = cgroups
        self.name = f"fm{os.getpid()}c{next(_NUMBERS)}"
        self.nodes = {short: f"{self.name}{short}" for short in gpus}
        self.gpus = dict(gpus)
        self._programs = {"Prolog": prolog, "Epilog": epilog}
        self._ports = {short: free_port() for short in gpus}
        others = {k: v for k, v in os.environ.items() if not k.startswith("SLURM")}
        self.environ = {**others, "SLURM_CONF": str(folder / "slurm.conf")}
        self._up: list[subprocess.Popen[bytes]] = []
        self._sruns: list[subprocess.Popen[bytes]] = []

    # ---- life ----

    def __enter__(self) -> Self:
        try:
            self._write_files()
            key = self.folder / "munge.key"
            at = [f"--{what}={self.folder}/munge.{end}" for what, end in _MUNGE.items()]
            self._start("munged", "--foreground", "--force", f"--key-file={key}", *at)
            wait_for(
                "munged listens",
                lambda: self._answers("munge", "-S", f"{self.folder}/munge.socket", "-n"),
                20,
            )
            self._start("slurmctld", "-D", "-c")
            for name in self.nodes.values():
                self._start("slurmd", "-D", "-N", name)
            wait_for("every node is idle", self._all_idle, 60)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End every job and daemon and remove the nodes' cgroups. May be called twice."""
        with ExitStack() as undo:  # from below; what fails hinders nothing above it
            undo.callback(self._remove_cgroups)
            undo.callback(self._end_steps)
            undo.callback(self._end_daemons)
            undo.callback(self._end_steps)  # slurmd waits for them
            if self._up:
                undo.callback(
                    self._command, "scancel", "--signal=KILL", "--full", "--partition=ci", check=False
                )

    def _end_daemons(self) -> None:
        ending = [*self._sruns, *reversed(self._up)]
        for process in ending:
            process.terminate()
        for process in ending:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(60)
        self._up.clear()
        self._sruns.clear()

    def _end_steps(self) -> None:
        """slurmstepd and what it started outlive slurmd: they are found by our own folder and our own cgroups."""

        def none_left() -> bool:
            left = self._left()
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return not left

        wait_for("what the jobs started is gone", none_left, 60)

    def _remove_cgroups(self) -> None:
        def removed(folder: Path) -> bool:
            with suppress(OSError):  # busy while the kernel still buries a process
                folder.rmdir()
            return not folder.exists()

        for controller in Path("/sys/fs/cgroup").glob("*"):
            for name in self.nodes.values():
                top = controller / f"slurm_{name}"
                for folder in sorted((Path(p) for p, _, _ in os.walk(top)), key=lambda p: -len(p.parts)):
                    wait_for(f"cgroup {folder} is removed", partial(removed, folder), 60)

    def _left(self) -> list[int]:
        """Processes of jobs. "slurmstepd: [12.batch]" bears no name of ours; its environment does."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(FileNotFoundError, ProcessLookupError, PermissionError):
                cgroup = (entry / "cgroup").read_text()
                ours = any(f"/slurm_{name}/" in cgroup for name in self.nodes.values())
                if not ours and (entry / "cmdline").read_bytes().startswith(b"slurmstepd"):
                    ours = os.fsencode(self.folder / "slurm.conf") in (entry / "environ").read_bytes()
                if ours and (entry / "stat").read_text().rpartition(")")[2].split()[0] != "Z":
                    found.append(int(entry.name))
        return found

    def _start(self, program: str, *args: str) -> None:
        log = self.folder / f"{program}{args[-1] if '-N' in args else ''}.out"
        with log.open("ab") as f:
            process = subprocess.Popen(
                [str(_tool(program)), *args],
                env=self.environ, stdin=subprocess.DEVNULL, stdout=f, stderr=f, cwd=self.folder,
            )  # fmt: skip
        self._up.append(process)

    def _answers(self, *command: str) -> bool:
        done = subprocess.run(command, env=self.environ, capture_output=True, timeout=20, check=False)
        return done.returncode == 0

    def _all_idle(self) -> bool:
        down = [p.args for p in self._up if p.poll() is not None]
        assert not down, f"{down} ended:\n{self.logs()}"
        done = self._command("sinfo", "-h", "-N", "-o", "%N %t", check=False)
        return sorted(done.split("\n")) == sorted(f"{name} idle" for name in self.nodes.values())

    def logs(self) -> str:
        files = sorted([*self.folder.glob("*.log"), *self.folder.glob("*.out")])
        return "\n".join(f"--- {f.name}\n{f.read_text(errors='replace')[-3000:]}" for f in files)

    # ---- what it is told ----

    def _write_files(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o755)
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        gres, nodes, first = [], [], 0
        for short, count in self.gpus.items():
            for n in range(first, first + count):
                device = self.folder / f"nvidia{n}"
                if not device.exists():
                    os.mknod(device, 0o666 | stat.S_IFCHR, os.makedev(NVIDIA_MAJOR, n))
            name, last = self.nodes[short], first + count - 1
            gres.append(f"NodeName={name} Name=gpu File={self.folder}/nvidia[{first}-{last}]")
            nodes.append(
                f"NodeName={name} NodeHostname={socket.gethostname()} NodeAddr=127.0.0.1 Port={self._ports[short]} "
                f"CPUs=16 RealMemory=1000 Gres=gpu:{count}"
            )
            first += count
        (self.folder / "gres.conf").write_text("\n".join(gres) + "\n")
        (self.folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\nCgroupMountpoint=/sys/fs/cgroup\n")
        lines = [
            f"ClusterName={self.name}",
            f"SlurmctldHost={socket.gethostname()}(127.0.0.1)",
            f"SlurmctldPort={free_port()}",
            f"AuthInfo=socket={self.folder}/munge.socket,cred_expire={CREDENTIAL_S}",
            f"StateSaveLocation={self.folder}/state",
            f"SlurmdSpoolDir={self.folder}/spool.%n",
            f"SlurmctldPidFile={self.folder}/slurmctld.pid",
            f"SlurmdPidFile={self.folder}/slurmd.%n.pid",
            f"SlurmctldLogFile={self.folder}/slurmctld.log",
            f"SlurmdLogFile={self.folder}/slurmd.%n.log",
            *(_WITH_CGROUPS if self.cgroups else _WITHOUT_CGROUPS),
            *_CONF,
            *(f"{key}={program}" for key, program in self._programs.items() if program is not None),
            *nodes,
            f"PartitionName=ci Nodes={','.join(self.nodes.values())} Default=YES State=UP OverSubscribe=NO",
        ]
        (self.folder / "slurm.conf").write_text("\n".join(lines) + "\n")

    # ---- what a user does ----

    def _command(self, *command: str, check: bool = True) -> str:
        done = subprocess.run(
            command,
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            cwd=self.folder,
        )
        assert not check or done.returncode == 0, f"{command}: {done.stderr}\n{self.logs()}"
        return done.stdout.strip()

    def sbatch(self, script: str, *options: str) -> int:
        """Submit; the job's id. Its output goes to the folder, as job-ID.out."""
        out = f"--output={self.folder}/job-%A_%a.out" if any(o.startswith("--array") for o in options) else ""
        out = out or f"--output={self.folder}/job-%j.out"
        return int(self._command("sbatch", "--parsable", out, *options, f"--wrap={script}").split(";")[0])

    def srun(self, *args: str) -> subprocess.Popen[bytes]:
        """Start `srun ARGS`; ended with the cluster if not before."""
        with (self.folder / "srun.out").open("ab") as f:
            process = subprocess.Popen(
                ["srun", *args],
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=f,
                stderr=f,
                cwd=self.folder,
            )
        self._sruns.append(process)
        return process

    def requeue(self, job: int) -> None:
        self._command("scontrol", "requeue", str(job))

    def cancel(self, job: int) -> None:
        self._command("scancel", str(job))

    def clear(self) -> None:
        """No job of a test that failed is in the next one's way."""
        if any(job["job_state"] not in ("COMPLETED", "CANCELLED", "FAILED") for job in self.queue()):
            self._command("scancel", "--signal=KILL", "--full", "--partition=ci")
            self._command("scancel", "--partition=ci")
            wait_for("every node is idle", self._all_idle, 60)

    def node_states(self) -> dict[str, str]:
        """Node -> state in one word, e.g. idle, mixed, drained."""
        listed = self._command("sinfo", "-h", "-N", "-o", "%N %T")
        return dict(line.split() for line in listed.splitlines())

    def queue(self) -> list[dict[str, Any]]:
        """All jobs of `squeue --json`, which ignores --jobs and other filters (22.05)."""
        jobs = json.loads(self._command("squeue", "--json"))["jobs"]
        assert isinstance(jobs, list)
        return jobs

    def job(self, number: int) -> dict[str, Any]:
        return next(job for job in self.queue() if job["job_id"] == number)

    def states(self, job: int) -> list[str]:
        """State of a job, or of each task of an array."""
        return [j["job_state"] for j in self.queue() if job in (j["job_id"], j["array_job_id"])]

    def wait_until(self, job: int, state: str, timeout: float = 60) -> None:
        """Until the job, or every task of the array, is in `state`."""
        seen: list[str] = []

        def there() -> bool:
            seen[:] = self.states(job)
            return bool(seen) and set(seen) == {state}

        try:
            wait_for(f"job {job} is {state}", there, timeout)
        except AssertionError as e:
            raise AssertionError(f"{e}; it is {seen}\n{self.logs()}") from e


_MUNGE = {"socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
_CONF = (
    "SlurmUser=root",
    "SlurmdUser=root",
    "AuthType=auth/munge",
    "SelectType=select/cons_tres",
    "SelectTypeParameters=CR_Core",
    "SlurmdParameters=config_overrides",  # more CPUs than this machine has: jobs here only sleep
    "ReturnToService=2",
    "MpiDefault=none",
    "GresTypes=gpu",
    "JobCompType=jobcomp/none",
    "KillWait=2",
    "MinJobAge=600",  # squeue shows ended jobs, too
    "SchedulerParameters=bf_interval=1,sched_interval=1,batch_sched_delay=0",
)
_WITH_CGROUPS = ("ProctrackType=proctrack/cgroup", "TaskPlugin=task/cgroup", "PrologFlags=Alloc,Contain")
_WITHOUT_CGROUPS = ("ProctrackType=proctrack/linuxproc", "TaskPlugin=task/none", "PrologFlags=Alloc")


def _tool(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
