"""The workloads on a real GPU, by PyTorch. Imported only where there is one."""

import collections
import time
from collections.abc import Callable
from typing import Any

import torch

from .cuda_source import Kernels
from .lab import UnavailableError
from .work import Attention, Copy, Gemm, GptStack, Idle, IntMad, MmaSync, Work

DEVICE = "cuda"
#: What CUDA says when the context is of no more use.
_LOST = ("illegal memory", "illegal instruction", "device-side assert", "unspecified launch", "ECC error")
_DTYPES = {
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "tf32": torch.float32,
    "fp32": torch.float32,
    "fp64": torch.float64,
}


class TorchRunning:
    """Keeps two chunks of calls queued, so that the GPU never waits for us and we never run far ahead."""

    def __init__(self, call: Callable[[], object], chunk_s: float, idle: bool = False) -> None:
        self._call = call
        self._idle = idle
        self._pending: collections.deque[Any] = collections.deque()
        self._calls = 1 if idle else self._calibrate(chunk_s)

    def _calibrate(self, chunk_s: float) -> int:
        """Calls that last about `chunk_s`, after the first ones, which compile and choose algorithms."""
        for _ in range(3):
            self._call()
        torch.cuda.synchronize()
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        for _ in range(3):
            self._call()
        end.record()
        end.synchronize()
        return max(1, round(chunk_s * 1000 * 3 / max(begin.elapsed_time(end), 1e-3)))

    def pump(self) -> int:
        if self._idle:
            time.sleep(0.05)  # a context is there, and nothing runs
            return 1
        for _ in range(self._calls):
            self._call()
        event = torch.cuda.Event()
        event.record()
        self._pending.append(event)
        if len(self._pending) > 2:
            self._pending.popleft().synchronize()
        return self._calls

    def call_once(self) -> None:
        self._call()

    def drain(self) -> int:
        torch.cuda.synchronize()
        self._pending.clear()
        return 0

    def kernels(self) -> list[str]:
        """By PyTorch's own profiler, best effort: it can be refused."""
        if self._idle:
            return []
        try:
            from torch.profiler import ProfilerActivity, profile

            with profile(activities=[ProfilerActivity.CUDA]) as seen:
                self._call()
                torch.cuda.synchronize()
            # Calls of the runtime are listed as well; they ran on the CPU.
            return sorted(
                {e.key for e in seen.key_averages() if "CUDA" in str(getattr(e, "device_type", "CUDA"))}
            )
        except Exception as e:  # noqa: BLE001 - a name is not worth an experiment
            return [f"not told: {e!s:.100}"]

    def close(self) -> None:
        self._call = lambda: None
        self.drain()
        torch.cuda.empty_cache()


def build(work: Work, chunk_s: float, kernels: Callable[[], Kernels]) -> TorchRunning:
    """Ready to run. Raises UnavailableError where this PyTorch, its compilers or this machine cannot.

    Whatever the libraries raise: one workload may not cost the others of its experiment. A lost CUDA context does.
    """
    try:
        return TorchRunning(_call(work, kernels), chunk_s, idle=isinstance(work, Idle))
    except UnavailableError:
        raise
    except Exception as e:
        if any(word in str(e) for word in _LOST):
            raise  # the process must begin anew
        raise UnavailableError(f"{work.key}: {type(e).__name__}: {e!s:.300}") from e


def _call(work: Work, kernels: Callable[[], Kernels]) -> Callable[[], object]:
    match work:
        case Gemm():
            return _gemm(work)
        case Attention():
            return _attention(work)
        case GptStack():
            return _gpt(work)
        case MmaSync():
            return _kernel(kernels(), f"mma_sync_{work.dtype}", (work.blocks, 32 * work.warps), work.rounds)
        case IntMad():
            return _kernel(kernels(), "int_mad", (work.blocks, work.threads), work.rounds)
        case Copy():
            source = torch.empty(work.size, dtype=torch.uint8, device=DEVICE).random_(0, 255)
            target = torch.empty_like(source)
            return lambda: target.copy_(source)
        case Idle():
            return lambda: None


def _kernel(kernels: Kernels, name: str, grid: tuple[int, int], rounds: int) -> Callable[[], object]:
    out = torch.zeros(16, device=DEVICE)

    def call() -> None:
        stream = torch.cuda.current_stream().cuda_stream
        kernels.launch(name, out.data_ptr(), grid, rounds, stream)

    return call


def _filled(rows: int, columns: int, dtype: Any, fill: str) -> Any:
    if fill == "zeros":
        return torch.zeros(rows, columns, device=DEVICE, dtype=dtype)
    return torch.randn(rows, columns, device=DEVICE, dtype=torch.float32).to(dtype)


def _gemm(w: Gemm) -> Callable[[], object]:
    if w.dtype == "fp8":
        if not hasattr(torch, "_scaled_mm"):
            raise UnavailableError("this PyTorch has no torch._scaled_mm")
        a = _filled(w.m, w.k, torch.float8_e4m3fn, w.fill)
        b = _filled(w.n, w.k, torch.float8_e4m3fn, w.fill).t()  # the second operand goes in by columns
        one = torch.ones((), device=DEVICE)
        return lambda: torch._scaled_mm(
            a, b, scale_a=one, scale_b=one, out_dtype=torch.bfloat16, use_fast_accum=w.fast_accumulate
        )
    if w.dtype == "int8":
        if not hasattr(torch, "_int_mm"):
            raise UnavailableError("this PyTorch has no torch._int_mm")
        left = torch.randint(-128, 127, (w.m, w.k), device=DEVICE, dtype=torch.int8)
        right = torch.randint(-128, 127, (w.n, w.k), device=DEVICE, dtype=torch.int8).t()
        return lambda: torch._int_mm(left, right)
    dtype = _DTYPES[w.dtype]
    a, b = _filled(w.m, w.k, dtype, w.fill), _filled(w.k, w.n, dtype, w.fill)
    c = torch.empty(w.m, w.n, device=DEVICE, dtype=dtype)
    if w.route == "mma.sync":
        from . import triton_gemm

        chosen = triton_gemm.instructions(triton_gemm.launch(a, b, c))
        if chosen != "mma.sync":
            raise UnavailableError(f"Triton compiled it to {chosen!r}, not to mma.sync")
        return lambda: triton_gemm.launch(a, b, c)
    if w.sparse:
        from torch.sparse import to_sparse_semi_structured

        mask = torch.tensor([0, 0, 1, 1], device=DEVICE, dtype=torch.bool).tile((w.m, w.k // 4))
        sparse = to_sparse_semi_structured(a * mask)
        return lambda: torch.mm(sparse, b)
    if dtype is torch.float32:
        precision = "high" if w.dtype == "tf32" else "highest"

        def product() -> None:
            torch.set_float32_matmul_precision(precision)
            torch.mm(a, b, out=c)

        return product
    return lambda: torch.mm(a, b, out=c)


def _attention(w: Attention) -> Callable[[], object]:
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.nn.functional import scaled_dot_product_attention

    backend = SDPBackend.FLASH_ATTENTION if w.backend == "flash" else SDPBackend.CUDNN_ATTENTION
    shape = (w.batch, w.heads, w.length, w.width)
    q, k, v = (torch.randn(shape, device=DEVICE, dtype=torch.bfloat16) for _ in range(3))

    def call() -> None:
        with sdpa_kernel(backend), torch.no_grad():
            scaled_dot_product_attention(q, k, v)

    return call


def _gpt(w: GptStack) -> Callable[[], object]:
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.nn.functional import gelu, layer_norm, linear, scaled_dot_product_attention
    from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop

    d, heads = w.width, w.width // w.head_width
    shapes = ((3 * d, d), (d, d), (4 * d, d), (d, 4 * d))
    layers = [
        [(torch.randn(s, device=DEVICE, dtype=torch.bfloat16) * 0.02).requires_grad_() for s in shapes]
        for _ in range(w.layers)
    ]
    x = torch.randn(w.batch, w.length, d, device=DEVICE, dtype=torch.bfloat16, requires_grad=True)

    def block(h: Any, qkv: Any, out: Any, up: Any, down: Any) -> Any:
        parts = linear(layer_norm(h, (d,)), qkv).view(w.batch, w.length, 3, heads, w.head_width)
        q, k, v = parts.permute(2, 0, 3, 1, 4).unbind(0)
        # FlashAttention-2 by name, whose tiles `GptStack.flop` counts: on Hopper PyTorch prefers cuDNN by now.
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            mixed = scaled_dot_product_attention(q, k, v, is_causal=True)
        h = h + linear(mixed.transpose(1, 2).reshape(w.batch, w.length, d), out)
        return h + linear(gelu(linear(layer_norm(h, (d,)), up)), down)

    def step() -> None:
        h = x
        # Without early stop the whole block is run again, its last product too, as Megatron's full recomputation does.
        with set_checkpoint_early_stop(False):
            for weights in layers:
                h = checkpoint(block, h, *weights, use_reentrant=False) if w.recompute else block(h, *weights)
        h.float().mean().backward()
        x.grad = None
        for weights in layers:
            for weight in weights:
                weight.grad = None

    return step


def uuid() -> str:
    """Of the GPU that the workloads run on, without "GPU-"; "" where this PyTorch does not tell."""
    return str(getattr(torch.cuda.get_device_properties(0), "uuid", ""))


def sm_clocks(kernels: Kernels) -> dict[int, tuple[int, int]]:
    """SM number -> (globaltimer ns, clock64 cycles), one block each; SMs that no block came to are absent."""
    count = torch.cuda.get_device_properties(0).multi_processor_count
    blocks = 4 * count
    out = torch.zeros(3 * blocks, dtype=torch.int64, device=DEVICE)
    kernels.launch("sm_clock", out.data_ptr(), (blocks, 1024), 0, torch.cuda.current_stream().cuda_stream)
    torch.cuda.synchronize()
    rows = out.view(blocks, 3).cpu().tolist()
    return {sm: (ns, cycles) for sm, ns, cycles in rows}
