"""True operations per call, against numbers worked out by hand or stated in reference/metering.md 8."""

import pytest
from gpu.cuda_source import KERNELS, LAUNCHER
from gpu.work import (
    DEPTH,
    Attention,
    Copy,
    Gemm,
    GptStack,
    Idle,
    IntMad,
    MmaSync,
    attention_forward,
    causal_blocks,
    matmul,
    padded,
    tiles_in,
)


def test_products() -> None:
    assert matmul(2, 3, 5) == 60
    assert Gemm("bf16").flop == 1_099_511_627_776  # 2 x 8192^3, section 8
    assert Gemm("fp64", 4096, 4096, 4096).flop == 137_438_953_472


def test_integers_are_no_flop() -> None:
    assert Gemm("int8").flop == 0
    assert Gemm("int8").int_ops == 1_099_511_627_776
    assert Gemm("bf16").int_ops == 0
    assert IntMad(blocks=2, threads=32, rounds=10, chains=8).int_ops == 2 * 2 * 32 * 10 * 8
    assert IntMad().flop == 0


def test_attention_is_two_products_of_every_head() -> None:
    # One head of one sequence: S x D times D x S, then S x S times S x D.
    assert attention_forward(1, 1, 64, 16) == matmul(64, 64, 16) + matmul(64, 16, 64)
    assert Attention("flash").flop == 4 * 4 * 32 * 4096 * 4096 * 128 == Gemm("bf16").flop


def test_mma_sync_counts_what_its_kernel_does() -> None:
    assert MmaSync(blocks=1, warps=1, rounds=1, chains=1).flop == 2 * 16 * 8 * 16
    assert f"type d[{MmaSync().chains}][4]" in KERNELS
    assert KERNELS.count("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32") == 1
    for dtype, depth in DEPTH.items():
        one = MmaSync(dtype, blocks=1, warps=1, rounds=1, chains=1)
        assert one.flop + one.int_ops == 2 * 16 * 8 * depth
        line = next(x for x in KERNELS.splitlines() if x.startswith(f"MMA_SYNC(mma_sync_{dtype},"))
        assert f"m16n8k{depth}." in line
        assert f"LAUNCH(mma_sync_{dtype})" in LAUNCHER
    assert f"int x[{IntMad().chains}]" in KERNELS


@pytest.mark.parametrize(
    ("size", "tile", "k_step", "expected"),
    [(8200, (128, 256), 1, 1.0453), (8200, (128, 256), 64, 1.0525), (8192, (128, 256), 64, 1.0)],
)
def test_padding(size: int, tile: tuple[int, int], k_step: int, expected: float) -> None:
    """Section 8, E7: 8320 x 8448 / 8200^2, and 1.052 if K pads to 8256."""
    done = padded(size, size, size, tile, k_step)
    assert done / matmul(size, size, size) == pytest.approx(expected, abs=1e-4)


def test_causal_tiles() -> None:
    assert causal_blocks(128, 128) == (1, 1)
    assert causal_blocks(256, 128) == (3, 4)
    assert causal_blocks(200, 128) == (3, 4)


def test_gpt_stack_by_hand() -> None:
    work = GptStack(layers=1, width=4, head_width=2, length=2, batch=1, tile=2)
    # Per token 12 d^2 weights, one multiply-add each: 2 x 12 x 16 = 384; two tokens.
    linear = 2 * 384
    # Two heads, S = 2, D = 2: 4 x 1 x 2 x 4 x 2 = 64; one tile, so that causal runs it whole.
    square = 64
    assert work.flop == linear + square + 2 * linear + square * 5 // 2
    again = GptStack(recompute=True, layers=1, width=4, head_width=2, length=2, batch=1, tile=2)
    assert again.flop - work.flop == linear + square
    assert again.model_flop == work.model_flop == 3 * (linear + square // 2)


def test_gpt_stack_as_it_is_run() -> None:
    plain, again = GptStack(), GptStack(recompute=True)
    assert 1.0 < plain.flop / plain.model_flop < 1.1  # section 8, E13
    assert 1.3 < again.flop / again.model_flop < 1.45
    assert 1.1e14 < plain.flop < 1.4e14


@pytest.mark.parametrize(
    ("kernel", "tiles"),
    [
        ("sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize128x256x64_warpgroupsize2", [(128, 256)]),
        ("nvjet_hsh_128x256_64x4_1x2_h_bz_coopA_NNT", [(128, 256)]),
        ("ampere_bf16_s16816gemm_bf16_256x128_ldg8_stages_64x3_nn", [(256, 128)]),
        ("elementwise_kernel", []),
    ],
)
def test_tiles_in_kernel_names(kernel: str, tiles: list[tuple[int, int]]) -> None:
    assert tiles_in(kernel) == tiles


def test_keys_tell_the_workloads_apart() -> None:
    works = [
        Gemm("bf16"),
        Gemm("fp8"),
        Gemm("fp8", fast_accumulate=True),
        Gemm("bf16", fill="zeros"),
        Gemm("bf16", sparse=True),
        Gemm("bf16", route="mma.sync"),
        Attention("flash"),
        Attention("cudnn"),
        GptStack(),
        GptStack(recompute=True),
        MmaSync(),
        MmaSync("tf32"),
        MmaSync("int8"),
        IntMad(),
        Copy(),
        Idle(),
    ]
    assert len({w.key for w in works}) == len(works)
    assert {w.declared for w in works} == {"bf16", "fp8", "tf32", ""}
