"""What the experiments run, and how many operations each call of it truly executes. Pure arithmetic.

A multiply-add counts as two operations. "Executed" is what the hardware does, so that a causal attention counts
the tiles on its diagonal whole. Sources: reference/metering.md section 8 (sizes), 4.4 (Megatron's formula).
"""

import re
from dataclasses import dataclass

G = 8192  # reference/metering.md 8: G = 8192^3 GEMM = 1.0995e12 FLOP

#: What a job that runs this may declare (contract.w_table.DTYPE_RATE); the rest declares nothing.
_DECLARED = {"bf16": "bf16", "fp16": "fp16", "tf32": "tf32", "fp8": "fp8"}


#: k of mma.sync.m16n8k, by dtype: the largest that PTX has. FP8 has none of its own on 9.0: nvcc 13 makes two
#: FP16 instructions of it (HMMA.16816.F32 after F2FP.F16.E4M3 in the machine code).
DEPTH = {"bf16": 16, "tf32": 8, "int8": 32}


def matmul(m: int, n: int, k: int) -> int:
    """Operations of an M x K by K x N product: 2MNK."""
    return 2 * m * n * k


def attention_forward(batch: int, heads: int, length: int, width: int) -> int:
    """Both products of a non-causal attention: 4 B H S^2 D."""
    return 4 * batch * heads * length * length * width


def causal_blocks(length: int, tile: int) -> tuple[int, int]:
    """(tiles executed, tiles of the whole square) of causal attention in square tiles, the diagonal whole."""
    rows = -(-length // tile)
    return rows * (rows + 1) // 2, rows * rows


def padded(m: int, n: int, k: int, tile: tuple[int, int], k_step: int = 1) -> int:
    """Operations executed when M and N are cut into `tile` and K into steps, the last ones filled up."""
    tile_m, tile_n = tile
    return matmul(-(-m // tile_m) * tile_m, -(-n // tile_n) * tile_n, -(-k // k_step) * k_step)


def tiles_in(kernel: str) -> list[tuple[int, int]]:
    """Tile sizes that a kernel's name may state ("…_tilesize128x256x64_…", "nvjet_hsh_128x256_64x4_…")."""
    found = [(int(a), int(b)) for a, b in re.findall(r"(?<!\d)(\d{2,3})x(\d{2,3})(?!\d)", kernel)]
    return [t for t in found if min(t) >= 64]


@dataclass(frozen=True, slots=True)
class Gemm:
    """A dense matrix product, C = A B, with inputs of `dtype`."""

    dtype: str
    m: int = G
    n: int = G
    k: int = G
    fill: str = "normal"  # or "zeros"
    fast_accumulate: bool = False
    sparse: bool = False  # A in 2:4 structure: half of the products are not executed
    route: str = "library"  # or "mma.sync": a Triton kernel of the instructions before Hopper

    @property
    def key(self) -> str:
        marks = [self.dtype, f"{self.m}x{self.n}x{self.k}"]
        marks += [self.fill] * (self.fill != "normal") + ["fast-accumulate"] * self.fast_accumulate
        marks += ["2:4"] * self.sparse + [self.route] * (self.route != "library")
        return "gemm " + " ".join(marks)

    @property
    def declared(self) -> str:
        return _DECLARED.get(self.dtype, "")

    @property
    def flop(self) -> int:
        """Nominal: of a 2:4 product half of it is executed."""
        return 0 if self.dtype == "int8" else matmul(self.m, self.n, self.k)

    @property
    def int_ops(self) -> int:
        return matmul(self.m, self.n, self.k) if self.dtype == "int8" else 0


@dataclass(frozen=True, slots=True)
class Attention:
    """Scaled dot product attention, forward, not causal, BF16."""

    backend: str  # "flash" (FlashAttention-2: mma.sync) or "cudnn" (wgmma on Hopper)
    batch: int = 4
    heads: int = 32
    length: int = 4096
    width: int = 128

    @property
    def key(self) -> str:
        return f"attention {self.backend} B{self.batch} H{self.heads} S{self.length} D{self.width}"

    declared = "bf16"
    int_ops = 0

    @property
    def flop(self) -> int:
        return attention_forward(self.batch, self.heads, self.length, self.width)


@dataclass(frozen=True, slots=True)
class MmaSync:
    """Nothing but mma.sync in registers, sums in FP32 or INT32: the legacy path at its own full rate."""

    dtype: str = "bf16"  # a key of DEPTH
    blocks: int = 132 * 4
    warps: int = 8
    rounds: int = 20_000
    chains: int = 8  # independent accumulators of a warp

    @property
    def key(self) -> str:
        return f"mma.sync m16n8k{DEPTH[self.dtype]} {self.dtype} in registers"

    @property
    def declared(self) -> str:
        return _DECLARED.get(self.dtype, "")

    @property
    def _operations(self) -> int:
        return self.blocks * self.warps * self.rounds * self.chains * matmul(16, 8, DEPTH[self.dtype])

    @property
    def flop(self) -> int:
        return 0 if self.dtype == "int8" else self._operations

    @property
    def int_ops(self) -> int:
        return self._operations if self.dtype == "int8" else 0


@dataclass(frozen=True, slots=True)
class IntMad:
    """Nothing but 32-bit integer multiply-adds in registers. No FLOP at all."""

    blocks: int = 132 * 8
    threads: int = 256
    rounds: int = 20_000
    chains: int = 8

    key = "int32 multiply-add in registers"
    declared = ""
    flop = 0

    @property
    def int_ops(self) -> int:
        return 2 * self.blocks * self.threads * self.rounds * self.chains


@dataclass(frozen=True, slots=True)
class Copy:
    """A copy within device memory: `size` bytes read and written."""

    size: int = 4 << 30

    key = "copy within the device"
    declared = ""
    flop = 0
    int_ops = 0


@dataclass(frozen=True, slots=True)
class Idle:
    """Nothing."""

    key = "idle"
    declared = ""
    flop = 0
    int_ops = 0


@dataclass(frozen=True, slots=True)
class GptStack:
    """Forward and backward pass of GPT blocks (d to 4d MLP, causal attention), no embedding, no optimizer."""

    recompute: bool = False  # every block's forward pass again in the backward pass
    layers: int = 24
    width: int = 2048
    head_width: int = 128
    length: int = 2048
    batch: int = 8
    #: FlashAttention-2 at head width 128 runs 128 x 64 tiles forward, 64 x 128 backward: both cover the causal
    #: square as tiles of 128 do, the diagonal whole.
    tile: int = 128

    declared = "bf16"
    int_ops = 0

    @property
    def key(self) -> str:
        how = "full recomputation" if self.recompute else "no recomputation"
        return f"gpt {self.layers}x{self.width} S{self.length} B{self.batch} {how}"

    def _linear(self) -> int:
        """Forward, all layers: QKV (d x 3d), projection (d x d), MLP (d x 4d and back)."""
        d = self.width
        per_token = matmul(1, 3 * d, d) + matmul(1, d, d) + matmul(1, 4 * d, d) + matmul(1, d, 4 * d)
        return self.layers * self.batch * self.length * per_token

    def _square(self) -> int:
        """Attention forward, all layers, as if it were not causal."""
        heads = self.width // self.head_width
        return self.layers * attention_forward(self.batch, heads, self.length, self.head_width)

    @property
    def flop(self) -> int:
        """Executed: backward is two products per linear product and five per two in attention (4.4)."""
        done, whole = causal_blocks(self.length, self.tile)
        attention = self._square() * done // whole
        forward = self._linear() + attention
        backward = 2 * self._linear() + attention * 5 // 2
        return forward * (2 if self.recompute else 1) + backward

    @property
    def model_flop(self) -> int:
        """Megatron-LM's count: three times forward, causal attention halved, recomputation left out (4.4)."""
        return 3 * (self._linear() + self._square() // 2)


Work = Gemm | Attention | MmaSync | IntMad | Copy | Idle | GptStack
