"""A plain matrix product in Triton with two warps a block: too few for wgmma, so mma.sync is what runs (E6)."""

from typing import Any

import triton
import triton.language as tl

BLOCK_M, BLOCK_N, BLOCK_K = 64, 64, 64
#: wgmma needs a warp group of four; with two the compiler falls back to the instructions before Hopper.
WARPS = 2


@triton.jit
def _gemm(a, b, c, m, n, k, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):  # type: ignore[no-untyped-def] # noqa: N803, PLR0917
    """C = A B, row major, sizes multiples of the blocks."""
    row = tl.program_id(0)
    column = tl.program_id(1)
    rows = row * BM + tl.arange(0, BM)
    columns = column * BN + tl.arange(0, BN)
    steps = tl.arange(0, BK)
    left = a + rows[:, None] * k + steps[None, :]
    right = b + steps[:, None] * n + columns[None, :]
    total = tl.zeros((BM, BN), dtype=tl.float32)
    for _ in range(0, k, BK):
        total = tl.dot(tl.load(left), tl.load(right), total)
        left += BK
        right += BK * n
    tl.store(c + rows[:, None] * n + columns[None, :], total.to(tl.bfloat16))


def launch(a: Any, b: Any, c: Any) -> Any:
    """Queue one product; returns the compiled kernel."""
    m, k = a.shape
    n = b.shape[1]
    grid = (m // BLOCK_M, n // BLOCK_N)
    return _gemm[grid](a, b, c, m, n, k, BM=BLOCK_M, BN=BLOCK_N, BK=BLOCK_K, num_warps=WARPS)


def instructions(kernel: Any) -> str:
    """Which tensor instruction the compiler chose, from the kernel's PTX: "mma.sync", "wgmma" or "?"."""
    ptx = kernel.asm.get("ptx", "") if hasattr(kernel, "asm") else ""
    return "wgmma" if "wgmma.mma_async" in ptx else "mma.sync" if "mma.sync" in ptx else "?"
