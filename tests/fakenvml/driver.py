"""Building and driving the stand-in for libnvidia-ml.so.1. README.md says what a script may hold.

with Machine(tmp_path) as machine:           # its own script, its own clock, in this process
    machine.say("gpu g0 hmma=0.45 clock=345:0.4,1980:0.6")
    source = machine.source()                # an NvmlSource; the Machine is its clock
    machine.advance(SECOND)
    source.read(machine.uuid(0))

Only one Machine at a time: the real nvidia-ml-py holds one library in a process.
"""

import atexit
import ctypes
import functools
import mmap
import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Self

HERE = Path(__file__).resolve().parent
SOURCES = ("model.c", "nvml.c")
COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
NO_COMPILER = "no C compiler here (cc, gcc or clang) to build the stand-in for libnvidia-ml.so.1"
SECOND = 1_000_000_000
BOOT_NS = 1_000_000_000_000  # of the virtual clock, where a Machine begins
UNIX_NS = 1_790_000_000_000_000_000

#: What drivers of that age lack, each beside what R595 has.
OLD_DRIVER = (  # R470: no GPM, no v3 call, no event reasons, no confidential computing
    "nvmlDeviceGetComputeRunningProcesses_v3",
    "nvmlDeviceGetCurrentClocksEventReasons",
    "nvmlSystemGetConfComputeState",
    "nvmlGpmQueryDeviceSupport",
    "nvmlGpmSampleAlloc",
    "nvmlGpmSampleFree",
    "nvmlGpmSampleGet",
    "nvmlGpmMigSampleGet",
    "nvmlGpmMetricsGet",
)
ANCIENT_DRIVER = (*OLD_DRIVER, "nvmlDeviceGetTotalEnergyConsumption", "nvmlDeviceGetSamples")


@functools.cache
def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="fakenvml-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@functools.cache
def _objects() -> tuple[Path, ...]:
    if COMPILER is None:
        raise FileNotFoundError(NO_COMPILER)
    objects = []
    for name in SOURCES:
        objects.append(_folder() / f"{name}.o")
        command = [COMPILER, "-c", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(objects[-1])]
        subprocess.run([*command, str(HERE / name)], check=True)
    return tuple(objects)


@functools.cache
def build(without: tuple[str, ...] = (), copy: int = 0) -> Path:
    """The library, linked once in a process; `without` are functions that it does not export."""
    objects = _objects()
    folder = Path(tempfile.mkdtemp(dir=_folder()))
    library = folder / "libnvidia-ml.so.1"
    hidden = "".join(f" {name};" for name in without)
    script = folder / "exports.map"
    script.write_text(f"{{ global: nvml*; fakenvml_*; local:{hidden} *; }};\n")
    command = [str(COMPILER), "-shared", "-Wl,-soname,libnvidia-ml.so.1", f"-Wl,--version-script={script}"]
    subprocess.run([*command, "-o", str(library), *map(str, objects), "-lm", "-lpthread"], check=True)
    return library


class Machine:
    """A node with the stand-in's driver: its script, and its clock (flopmeter.contract.clock.Clock)."""

    def __init__(
        self,
        folder: Path,
        *lines: str,
        without: Iterable[str] = (),
        boot_ns: int = BOOT_NS,
        unix_ns: int = UNIX_NS,
    ) -> None:
        self.library = build(tuple(without))
        self.sysfs = folder / "sys"  # empty unless a test fills it
        self._sources: list = []
        self.script = folder / "machine.nvml"
        self.clock_file = folder / "machine.clock"
        self.stopped = False
        self._script = self.script.open("wb", buffering=0)
        self._length = 0
        self.clock_file.write_bytes(bytes(4096))
        with self.clock_file.open("r+b") as f:
            self._clock = mmap.mmap(f.fileno(), 4096)
        self._offset = unix_ns - boot_ns
        self._boot = boot_ns
        self._set_clock()
        for line in lines:
            self.say(line)

    # ---- the script ----

    def say(self, line: str, at_ns: int | None = None) -> None:
        """Append a line: in force from now, or from `at_ns` on."""
        data = f"@{self._boot if at_ns is None else at_ns} {line}\n".encode()
        self._script.write(data)
        self._length += len(data)
        self._set_clock()

    @staticmethod
    def uuid(index: int) -> str:
        """UUID of the GPU that the script named as the index-th."""
        return f"GPU-fa4e0000-0000-0000-0000-{index:012d}"

    @staticmethod
    def mig_uuid(gpu: int, instance: int, compute: int = 0) -> str:
        return f"MIG-fa4e{gpu:04d}-0000-0000-0000-{instance:06d}{compute:06d}"

    # ---- the clock: virtual, shared with the driver, also with one in another process ----

    def _set_clock(self) -> None:
        struct.pack_into("=QQQ", self._clock, 0, self._boot, self._length, self._offset)

    def boot_ns(self) -> int:
        return self._boot

    def unix_ns(self) -> int:
        return self._boot + self._offset

    def wait(self, seconds: float) -> bool:
        self.advance(round(seconds * 1e9))
        return self.stopped

    def advance(self, ns: int) -> None:
        self._boot += ns
        self._set_clock()

    def step_wall_clock(self, ns: int) -> None:
        self._offset += ns
        self._set_clock()

    # ---- this process: nvidia-ml-py with the stand-in as its library ----

    def __enter__(self) -> Self:
        import pynvml

        self.lib = ctypes.CDLL(str(self.library))
        self.lib.fakenvml_open.argtypes = (ctypes.c_char_p, ctypes.c_char_p)
        self.lib.fakenvml_open(os.fsencode(self.script), os.fsencode(self.clock_file))
        self.lib.fakenvml_forget()
        self.lib.fakenvml_calls.restype = ctypes.c_ulong
        self.lib.fakenvml_hangs.argtypes = (ctypes.c_long,)
        self.lib.fakenvml_ns.restype = ctypes.c_uint64
        self._before = pynvml.nvmlLib
        pynvml.nvmlLib = self.lib  # as `CDLL("libnvidia-ml.so.1")` would have found it
        pynvml._nvmlGetFunctionPointer_cache.clear()
        return self

    def source(self, *, poll_s: float = 0):
        """An NvmlSource over this machine; closed with it."""
        from flopmeter.agent.sources.nvml import NvmlSource

        self._sources.append(NvmlSource(self, node="n", sysfs=self.sysfs, poll_s=poll_s))
        return self._sources[-1]

    def tick(self, source, entity: str = "", ns: int = SECOND):
        """Time passes, then a reading."""
        self.advance(ns)
        return source.read(entity or self.uuid(0))

    def __exit__(self, *_: object) -> None:
        import pynvml

        for source in self._sources:
            source.close()
        pynvml.nvmlLib = self._before
        pynvml._nvmlGetFunctionPointer_cache.clear()
        self._script.close()

    def calls(self, function: str = "") -> int:
        """How often the driver was asked since this Machine was entered: one function, or all."""
        return self.lib.fakenvml_calls(function.encode())

    def hangs(self, thread: int | None) -> bool:
        """Whether that thread (`threading.Thread.native_id`) waits in a call that was told to hang."""
        return bool(self.lib.fakenvml_hangs(thread or -1))

    # ---- another process: where it finds library, script and clock ----

    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "LD_LIBRARY_PATH": str(self.library.parent),
            "FAKENVML_SCRIPT": str(self.script),
            "FAKENVML_CLOCK": str(self.clock_file),
        }
