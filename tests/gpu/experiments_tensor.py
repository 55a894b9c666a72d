"""E3-E8, E13: products, attention and a GPT block stack, counted against 2MNK."""

from typing import Any

from . import rules
from .agent_path import rate, tensor_rates
from .experiment import Context, Experiment, Outcome, point
from .measure import implied_rate, primary
from .work import Attention, Gemm, GptStack, MmaSync, padded, tiles_in

TENSOR = ("hmma", "imma", "dmma", "tensor_other")


def e3(ctx: Context) -> Outcome:
    out = Outcome()
    for dtype in ("bf16", "fp16"):
        result = out.take(dtype, ctx.bench.measure(Gemm(dtype), 20, name=f"E3-{dtype}"))
        found = primary(result)
        out.checks.append(rules.within(f"{dtype}: F/T", found["ratio"], 1.0, 3))
        out.checks.append(_truth_inside(dtype, result))
        cycles = found["cycles"]
        whole = sum(cycles[p] for p in TENSOR)
        out.raw[f"implied {dtype}"] = implied_rate(result, *TENSOR)
        out.checks.append(
            rules.within(f"{dtype}: HMMA against ANY", rules.ratio(cycles["hmma"], whole), 1.0, 1)
        )
    return out


def _truth_inside(name: str, result: dict[str, Any]) -> rules.Check:
    figure = primary(result)["flop"]
    return rules.bounds_hold(
        f"{name}: truth within bounds", figure["lower"], result["true_flop"], figure["upper"]
    )


def e4(ctx: Context) -> Outcome:
    """Which pipe each dtype runs in, and at which rate: the class map and the W table."""
    out = ctx.outcome()
    rates = tensor_rates(ctx.bench.device)
    wanted = {
        "tf32": (Gemm("tf32"), "tf32"),
        "fp8 fast": (Gemm("fp8", fast_accumulate=True), "fp8"),
        "fp8": (Gemm("fp8"), "fp8"),
        "int8": (Gemm("int8"), "int8"),
        "fp64": (Gemm("fp64", 4096, 4096, 4096), "fp64_tensor"),
    }
    class_map: dict[str, dict[str, float]] = {}
    for key, (work, name) in wanted.items():
        result = out.attempt(
            key, lambda work=work, key=key: ctx.bench.measure(work, 10, name=f"E4-{key}", ask_kernels=True)
        )
        if result is None:
            continue
        cycles = primary(result)["cycles"]
        whole = sum(cycles[p] for p in TENSOR)
        class_map[key] = {
            p: round(cycles[p] / whole, 4) for p in TENSOR if whole and cycles[p] / whole > 0.01
        }
        implied = implied_rate(result, *TENSOR)
        found = rules.nearest_rate(implied, rates)
        out.checks.append(
            rules.Check(
                f"{key}: operations per active SM-cycle",
                implied,
                f"{name} = {rates.get(name)} within 3 %",
                found != "" and rates[found] == rates.get(name),
            )
        )
        if result["true_flop"]:
            out.checks.append(_truth_inside(key, result))
        out.raw[f"implied {key}"] = implied
    out.raw["class_map"] = class_map
    if (fp8 := out.raw.get("fp8 fast") or out.raw.get("fp8")) is not None:
        cycles = primary(fp8)["cycles"]
        place = rules.fp8_place(cycles["hmma"], cycles["tensor_other"])
        out.raw["fp8_place"] = place
        out.checks.append(rules.noted("FP8 is counted in", place or "nothing", "hmma, any or both"))
    return out


def _sparse(ctx: Context) -> dict[str, Any]:
    return ctx.bench.measure(Gemm("bf16", sparse=True), 10, name="E5-sparse", ask_kernels=True)


def e5(ctx: Context) -> Outcome:
    out = ctx.outcome()
    result = out.attempt("2:4", lambda: _sparse(ctx))
    if result is not None:
        implied = implied_rate(result, *TENSOR)
        bf16 = rate(ctx.bench.device, "bf16")
        counts = "executed" if abs(implied / bf16 - 2) > abs(implied / bf16 - 1) else "nominal"
        out.raw |= {"implied": implied, "active_cycles_stand_for": counts}
        out.checks.append(
            rules.noted(
                "2:4 BF16: nominal operations per active SM-cycle",
                implied,
                f"{2 * bf16} = the pipe runs half of the products; {bf16} = all of them",
            )
        )
    return out


def e6(ctx: Context) -> Outcome:
    """Legacy mma.sync against wgmma: does an active cycle stand for the table's rate on both?"""
    out = ctx.outcome()
    wanted: dict[str, Attention | MmaSync | Gemm] = {
        "flash": Attention("flash"),
        "cudnn": Attention("cudnn"),
        "mma.sync": MmaSync(),
        "mma.sync gemm": Gemm("bf16", route="mma.sync"),
        "mma.sync tf32": MmaSync("tf32"),
        "mma.sync int8": MmaSync("int8"),
    }
    for key, work in wanted.items():
        result = out.attempt(
            key, lambda work=work, key=key: ctx.bench.measure(work, 10, name=f"E6-{key}", ask_kernels=True)
        )
        if result is None:
            continue
        implied = implied_rate(result, *TENSOR)
        out.raw[f"implied {key}"] = implied
        full = rate(ctx.bench.device, "bf16" if isinstance(work, Attention) else work.dtype)
        out.raw[f"share {key}"] = rules.ratio(implied, full)
        out.checks.append(rules.at_least(f"{key}: operations per active SM-cycle", implied, 0.95 * full))
        if result["true_flop"]:
            out.checks.append(_truth_inside(key, result))
    return out


def e7(ctx: Context) -> Outcome:
    """Tile padding is executed and counted: 8200 is no multiple of a tile, 8192 is."""
    out = Outcome()
    odd = out.take(
        "8200", ctx.bench.measure(Gemm("bf16", 8200, 8200, 8200), 10, name="E7-8200", ask_kernels=True)
    )
    even = out.take("8192", ctx.bench.measure(Gemm("bf16"), 10, name="E7-8192", ask_kernels=True))
    got = rules.ratio(primary(odd)["ratio"], primary(even)["ratio"])
    named = sorted({t for kernel in odd["kernels"] for t in tiles_in(kernel)})
    tiles = named or [(128, 256), (256, 128), (128, 128)]
    expected = {}
    for tile in tiles:
        for k_step in (1, 64):
            work = padded(8200, 8200, 8200, tile, k_step)
            expected[f"{tile[0]}x{tile[1]} K{k_step}"] = work / Gemm("bf16", 8200, 8200, 8200).flop
    out.raw |= {"ratio": got, "expected": expected, "tiles_in_the_name": [list(t) for t in named]}
    near = min(expected.values(), key=lambda e: abs(e - got))
    out.checks.append(
        rules.Check(
            "executed against 2MNK at 8200, relative to 8192",
            got,
            f"above 1 and within 0.02 of one of {', '.join(f'{k}: {v:.4f}' for k, v in expected.items())}",
            got > 1 and abs(near - got) <= 0.02,
        )
    )
    return out


def e8(ctx: Context) -> Outcome:
    out = Outcome()
    for fill in ("zeros", "normal"):
        result = out.take(fill, ctx.bench.measure(Gemm("bf16", fill=fill), 20, name=f"E8-{fill}"))
        out.checks.append(rules.within(f"{fill}: F/T", primary(result)["ratio"], 1.0, 3))
        power = [p for _, p in result["power_mw"][1:-1]]
        mean = sum(power) / len(power) / 1000 if power else None
        out.checks.append(rules.noted(f"{fill}: mean power, W", mean))
    return out


def e13(ctx: Context) -> Outcome:
    out = ctx.outcome()
    for recompute, (low, high) in ((False, (1.0, 1.1)), (True, (1.3, 1.45))):
        work = GptStack(recompute=recompute)
        key = "recomputation" if recompute else "plain"
        result = out.attempt(
            key,
            lambda w=work, key=key: ctx.bench.measure(
                w, 20, name=f"E13-{key}", chunk_s=0.3, ask_kernels=True
            ),
        )
        if result is None:
            continue
        out.checks.append(rules.within(f"{key}: F/T executed", primary(result)["ratio"], 1.0, 5))
        out.checks.append(_truth_inside(key, result))
        model = rules.ratio(point(result), result["calls"] * work.model_flop)
        out.raw[f"against_model {key}"] = model
        out.checks.append(rules.between(f"{key}: F/T model (Megatron)", model, low, high))
    return out


EXPERIMENTS = (
    Experiment("E3", "BF16 and FP16 products against 2MNK", 50, e3),
    Experiment("E4", "class map and rates: TF32, FP8, INT8, FP64", 75, e4),
    Experiment("E5", "2:4 sparse BF16", 20, e5),
    Experiment("E6", "mma.sync against wgmma", 105, e6),
    Experiment("E7", "tile padding", 30, e7),
    Experiment("E8", "zeros against random numbers", 50, e8),
    Experiment("E13", "GPT block stack, without and with full recomputation", 70, e13),
)
