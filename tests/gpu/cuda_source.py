"""Kernels that no library has: nothing but mma.sync of a dtype, nothing but integer multiply-adds, and the SMs' own clock.

Compiled on the machine by nvcc (loaded by ctypes) or, without a host compiler, by CuPy through NVRTC.
"""

import ctypes
import shutil
import subprocess
from pathlib import Path
from typing import Any, Protocol

from .lab import UnavailableError
from .work import IntMad, MmaSync

_CHAINS = MmaSync().chains  # the sources below are unrolled for it
_UNROLLED = IntMad().chains

KERNELS = r"""
#define MMA_SYNC(name, type, bound, instruction) \
extern "C" __global__ void name(float *out, int rounds) { \
  type d[8][4]; \
  for (int c = 0; c < 8; c++) for (int i = 0; i < 4; i++) d[c][i] = 0; \
  unsigned a0 = threadIdx.x, a1 = 1, a2 = 2, a3 = 3, b0 = blockIdx.x, b1 = 5; \
  for (int r = 0; r < rounds; r++) { \
    _Pragma("unroll") for (int c = 0; c < 8; c++) \
      asm volatile(instruction " {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};" \
        : "+" bound(d[c][0]), "+" bound(d[c][1]), "+" bound(d[c][2]), "+" bound(d[c][3]) \
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1)); \
  } \
  type sum = 0; \
  for (int c = 0; c < 8; c++) for (int i = 0; i < 4; i++) sum += d[c][i]; \
  if (sum == (type)12345678) out[0] = (float)sum;  /* never, but the compiler cannot know */ \
}
MMA_SYNC(mma_sync_bf16, float, "f", "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32")
MMA_SYNC(mma_sync_tf32, float, "f", "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32")
MMA_SYNC(mma_sync_int8, int, "r", "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32")

extern "C" __global__ void int_mad(float *out, int rounds) {
  int x[8];
  for (int c = 0; c < 8; c++) x[c] = threadIdx.x + c;
  int m = blockIdx.x | 1, n = threadIdx.x | 3;
  for (int r = 0; r < rounds; r++) {
#pragma unroll
    for (int c = 0; c < 8; c++) asm volatile("mad.lo.s32 %0, %0, %1, %2;" : "+r"(x[c]) : "r"(m), "r"(n));
  }
  int sum = 0;
  for (int c = 0; c < 8; c++) sum ^= x[c];
  if (sum == 123456789) out[0] = (float)sum;
}

extern "C" __global__ void sm_clock(float *out, int unused) {
  if (threadIdx.x == 0) {
    unsigned sm;
    unsigned long long cycles, ns;
    asm volatile("mov.u32 %0, %%smid;" : "=r"(sm));
    asm volatile("mov.u64 %0, %%clock64;" : "=l"(cycles));
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(ns));
    unsigned long long *row = (unsigned long long *)out + 3 * blockIdx.x;
    row[0] = sm; row[1] = ns; row[2] = cycles;
  }
}
"""

LAUNCHER = r"""
#include <cuda_runtime.h>
#define LAUNCH(name) \
extern "C" int launch_##name(void *out, int blocks, int threads, int rounds, void *stream) { \
  name<<<blocks, threads, 0, (cudaStream_t)stream>>>((float *)out, rounds); \
  return (int)cudaGetLastError(); }
LAUNCH(mma_sync_bf16)
LAUNCH(mma_sync_tf32)
LAUNCH(mma_sync_int8)
LAUNCH(int_mad)
LAUNCH(sm_clock)
"""


class Kernels(Protocol):
    """Compiled; `out` and `stream` are addresses, `grid` blocks and threads of a block."""

    def launch(self, name: str, out: int, grid: tuple[int, int], rounds: int, stream: int) -> None: ...


class _Nvcc:
    def __init__(self, folder: Path, capability: tuple[int, int]) -> None:
        nvcc = shutil.which("nvcc") or next(
            (str(p) for p in (Path("/usr/local/cuda/bin/nvcc"),) if p.exists()), ""
        )
        if not nvcc:
            raise UnavailableError("no nvcc")
        source, library = folder / "kernels.cu", folder / "libkernels.so"
        source.write_text(KERNELS + LAUNCHER)
        arch = f"{capability[0]}{capability[1]}"
        command = [nvcc, "-O3", "-shared", "-Xcompiler", "-fPIC"]
        command += [f"-gencode=arch=compute_{arch},code=sm_{arch}", "-o", str(library), str(source)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        if done.returncode != 0:
            raise UnavailableError(f"nvcc: {done.stderr.strip()[-300:]}")
        self._library = ctypes.CDLL(str(library))

    def launch(self, name: str, out: int, grid: tuple[int, int], rounds: int, stream: int) -> None:
        function = getattr(self._library, f"launch_{name}")
        function.restype = ctypes.c_int
        function.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_void_p]
        code = function(out, *grid, rounds, stream)
        if code != 0:
            raise UnavailableError(f"kernel {name}: CUDA error {code}")


class _Cupy:
    def __init__(self) -> None:
        try:
            import cupy
        except ImportError as e:
            raise UnavailableError("no cupy") from e
        self._cupy: Any = cupy
        try:
            self._module = cupy.RawModule(code=KERNELS)
            self._module.compile()
        except Exception as e:
            raise UnavailableError(f"NVRTC: {e!s:.300}") from e

    def launch(self, name: str, out: int, grid: tuple[int, int], rounds: int, stream: int) -> None:
        import numpy as np

        kernel = self._module.get_function(name)
        with self._cupy.cuda.ExternalStream(stream):
            kernel((grid[0],), (grid[1],), (np.uint64(out), np.int32(rounds)))


def compiled(folder: Path, capability: tuple[int, int]) -> Kernels:
    """The kernels for this GPU. Raises UnavailableError with what was tried."""
    folder.mkdir(parents=True, exist_ok=True)
    tried: list[str] = []
    for attempt in (lambda: _Nvcc(folder, capability), _Cupy):
        try:
            kernels: Kernels = attempt()
            return kernels
        except (UnavailableError, OSError, subprocess.SubprocessError) as e:
            tried.append(str(e))
    raise UnavailableError("no way to compile a kernel: " + "; ".join(tried))
