"""The machine with the GPU: NVML through flopmeter's source, workloads by PyTorch, helpers as processes."""

import contextlib
import csv
import importlib.metadata
import importlib.util
import io
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pynvml

from flopmeter.agent.sources.base import Source
from flopmeter.agent.sources.nvml import NvmlSource

from .cuda_source import Kernels, compiled
from .lab import AgentProcess, Helper, RawGpm, Running, SystemClock, UnavailableError
from .raw_gpm import NvmlRaw
from .work import Copy, Gemm, Work

VALIDATE = Path(__file__).with_name("validate.py")
NOBODY = 65534
READY_S = 60.0
QUERY_S, PROFILE_S = 30.0, 90.0  # ncu's list of metrics; one product under it, with PyTorch's start


class RealLab:
    """Settings of the GPU (clocks, power limit, MIG, persistence) are read, never changed."""

    simulated = False

    def __init__(self, *, allow_mps: bool = False) -> None:
        self.clock = SystemClock()
        self._allow_mps = allow_mps
        self._mps: dict[str, str] = {}
        self._kernels: Kernels | None = None
        self._folder = Path(tempfile.mkdtemp(prefix="flopmeter-validation-"))
        pynvml.nvmlInit()
        self._handle = pynvml.nvmlDeviceGetHandleByIndex(0)

    def describe(self) -> dict[str, Any]:
        def ask(call: Any, *args: Any) -> Any:
            try:
                return call(*args)
            except pynvml.NVMLError as e:
                return str(e)

        found = {
            "gpu": ask(pynvml.nvmlDeviceGetName, self._handle),
            "driver": ask(pynvml.nvmlSystemGetDriverVersion),
            "nvml": ask(pynvml.nvmlSystemGetNVMLVersion),
            "gpm_ids_of_binding": pynvml.NVML_GPM_METRIC_MAX - 1,
            "vbios": ask(pynvml.nvmlDeviceGetVbiosVersion, self._handle),
            "power_limit_mw": ask(pynvml.nvmlDeviceGetEnforcedPowerLimit, self._handle),
            "max_sm_mhz": ask(pynvml.nvmlDeviceGetMaxClockInfo, self._handle, pynvml.NVML_CLOCK_SM),
            "mig": ask(pynvml.nvmlDeviceGetMigMode, self._handle),
            "persistence": ask(pynvml.nvmlDeviceGetPersistenceMode, self._handle),
            "ecc": ask(pynvml.nvmlDeviceGetEccMode, self._handle),
            "compute_mode": ask(pynvml.nvmlDeviceGetComputeMode, self._handle),
            "processes_before": self._processes(),
            "simulated": False,
            "user": os.geteuid(),
            "kernel": platform.release(),
            "python": platform.python_version(),
            "ncu": shutil.which("ncu") or "",
            "nvcc": shutil.which("nvcc") or "",
        }
        for module in ("nvidia-ml-py", "torch", "triton", "cupy"):
            try:
                found[module] = importlib.metadata.version(module)
            except importlib.metadata.PackageNotFoundError:  # cupy's name holds the version of CUDA
                found[module] = "yes" if importlib.util.find_spec(module) else ""
        return found

    def _processes(self) -> int | str:
        """Processes of others on the GPU: more than none, and no figure of this run can be relied on."""
        try:
            return len(
                {p.pid for p in pynvml.nvmlDeviceGetComputeRunningProcesses(self._handle)} - {os.getpid()}
            )
        except pynvml.NVMLError as e:
            return str(e)

    def source(self) -> Source:
        return NvmlSource(
            self.clock, node="gpu-validation"
        )  # traces become fixtures: no name of somebody's machine

    def raw(self) -> RawGpm:
        return NvmlRaw()

    def _compiled(self) -> Kernels:
        if self._kernels is None:
            import torch

            self._kernels = compiled(self._folder, torch.cuda.get_device_capability(0))
        return self._kernels

    def build(self, work: Work, chunk_s: float) -> Running:
        module = _torch_work()
        mine, read = module.uuid(), pynvml.nvmlDeviceGetUUID(self._handle)
        if mine and mine not in read and pynvml.nvmlDeviceGetCount() > 1:
            raise UnavailableError(
                f"CUDA's first GPU is {mine}, NVML's is {read}: set CUDA_VISIBLE_DEVICES={read}"
            )
        return module.build(work, chunk_s, self._compiled)

    def sm_clocks(self) -> Mapping[int, tuple[int, int]]:
        return _torch_work().sm_clocks(self._compiled())

    def agent(self, folder: Path, job: str) -> AgentProcess:
        return _AgentProcess(folder, job)

    def helper(self, work: Work) -> Helper:
        return _HelperProcess(work, self._mps)

    @contextlib.contextmanager
    def mps(self) -> Iterator[None]:
        """A daemon in a folder of its own, which ends with it; nothing of the GPU is set."""
        control = shutil.which("nvidia-cuda-mps-control")
        if not self._allow_mps:
            raise UnavailableError("a daemon is started only with --allow-mps")
        if control is None:
            raise UnavailableError("no nvidia-cuda-mps-control")
        folder = self._folder / "mps"
        folder.mkdir(exist_ok=True)
        settings = {"CUDA_MPS_PIPE_DIRECTORY": str(folder), "CUDA_MPS_LOG_DIRECTORY": str(folder)}
        environment = {**os.environ, **settings}
        try:
            started = subprocess.run(
                [control, "-d"], env=environment, capture_output=True, text=True, timeout=30
            )
        except subprocess.SubprocessError as e:
            raise UnavailableError(f"MPS: {e!s:.200}") from e
        if started.returncode != 0:
            raise UnavailableError(f"MPS: {(started.stdout + started.stderr).strip()[-200:]}")
        self._mps = settings
        try:
            yield
        finally:
            self._mps = {}
            with contextlib.suppress(subprocess.SubprocessError):
                subprocess.run([control], env=environment, input="quit\n", text=True, timeout=30, check=False)

    def probe_as_user(self) -> dict[str, Any]:
        if os.geteuid() != 0:
            raise UnavailableError("not root: what was probed is what an ordinary user gets")
        command = [sys.executable, str(VALIDATE), "_probe", str(NOBODY)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd="/")
        except (OSError, subprocess.SubprocessError) as e:
            raise UnavailableError(f"no process as user {NOBODY}: {e}") from e
        try:
            result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
        except (ValueError, IndexError):
            raise UnavailableError(
                f"as user {NOBODY}: {(done.stderr or 'no output').strip()[-300:]}"
            ) from None
        return result

    def profiled_flop(self, work: Work) -> dict[str, float]:
        ncu = shutil.which("ncu")
        if ncu is None:
            raise UnavailableError("ncu is not installed")
        if not isinstance(work, Gemm):
            raise UnavailableError(f"no profile of {work.key}")
        names = self._tensor_metrics(ncu)
        command = [ncu, "--clock-control", "none", "--csv", "--page", "raw", "--metrics", ",".join(names)]
        command += [
            "--profile-from-start",
            "off",
            sys.executable,
            str(VALIDATE),
            "_product",
            work.dtype,
            str(work.m),
        ]
        said = _run_whole(command, PROFILE_S)
        found = ncu_sums(said, names)
        if not found:
            raise UnavailableError(f"ncu: {said.strip()[-300:]}")
        return found

    def _tensor_metrics(self, ncu: str) -> list[str]:
        """Names that this ncu knows: they change from version to version."""
        command = [ncu, "--query-metrics", "--chip", "gh100"]
        listed = _run_whole(command, QUERY_S)
        names = [
            w for line in listed.splitlines() for w in line.split()[:1] if w.startswith("sm__ops_path_tensor")
        ]
        chosen = [f"{n}.sum" for n in names if "bf16" in n and "sparsity" not in n]
        if not chosen:
            raise UnavailableError("this ncu lists no sm__ops_path_tensor metric for BF16")
        return chosen[:6]

    def close(self) -> None:
        pynvml.nvmlShutdown()
        shutil.rmtree(self._folder, ignore_errors=True)


def _torch_work() -> types.ModuleType:
    try:
        import torch

        from . import torch_work
    except ImportError as e:
        raise UnavailableError(f"no PyTorch: {e}") from e
    if not torch.cuda.is_available():
        raise UnavailableError(f"PyTorch {torch.__version__} sees no GPU")
    return torch_work


def ncu_sums(text: str, names: list[str]) -> dict[str, float]:
    """Sum over kernels of each metric in ncu's raw CSV page: a header line, a line of units, one line a kernel."""
    lines = [line for line in text.splitlines() if line.startswith('"')]
    rows = list(csv.DictReader(io.StringIO("\n".join(lines)))) if lines else []
    found: dict[str, float] = {}
    for name in names:
        for row in rows:
            with contextlib.suppress(ValueError):  # the line of units; a metric that was not collected
                found[name] = found.get(name, 0.0) + float((row.get(name) or "").replace(",", ""))
    return found


def _run_whole(command: list[str], seconds: float) -> str:
    """What it prints. It ends with all that it started: a product left under a profiler would go on working."""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as process:
        try:
            return process.communicate(timeout=seconds)[0]
        except subprocess.TimeoutExpired as e:
            raise UnavailableError(f"{Path(command[0]).name} did not end within {seconds:.0f} s") from e
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


class _AgentProcess:
    def __init__(self, folder: Path, job: str) -> None:
        starts = _starts(folder)
        self._process = subprocess.Popen([sys.executable, str(VALIDATE), "_agent", str(folder), job])
        deadline = time.monotonic() + READY_S
        while _starts(folder) == starts:  # its first reading is durable
            if self._process.poll() is not None or time.monotonic() > deadline:
                self._process.kill()
                raise UnavailableError("the agent's process did not start")
            time.sleep(0.05)

    def poll(self) -> None:
        pass

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()


def _starts(folder: Path) -> int:
    try:
        return int(json.loads((folder / "agent.json").read_text())["starts"])
    except (OSError, ValueError, KeyError):
        return 0


class _HelperProcess:
    def __init__(self, work: Work, settings: Mapping[str, str]) -> None:
        if isinstance(work, Copy):
            what = ["copy", str(work.size)]
        elif isinstance(work, Gemm):
            what = [work.dtype, str(work.m)]
        else:
            raise UnavailableError(f"no helper for {work.key}")
        self._process = subprocess.Popen(
            [sys.executable, str(VALIDATE), "_load", *what],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **settings},
        )
        self.pid = self._process.pid
        said = self._process.stdout.readline().strip() if self._process.stdout is not None else ""
        if said != "ready":
            self._process.kill()
            self._process.communicate()
            raise UnavailableError(f"the second process could not use the GPU: {said or 'it ended'}")

    def go(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.write("go\n")
            self._process.stdin.flush()

    def stop(self) -> int:
        if self._process.poll() is not None:
            return 0
        try:
            out, _ = self._process.communicate("stop\n", timeout=20)
            return int(out.strip().splitlines()[-1])
        except (subprocess.TimeoutExpired, BrokenPipeError, ValueError, IndexError):
            self._process.kill()
            self._process.wait()
            return 0
