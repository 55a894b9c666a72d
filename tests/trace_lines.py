"""Small traces for tests, written by hand after docs/trace-format.md: one node, busy H100, a job throughout."""

import json
from pathlib import Path
from typing import Any

SMS = 132
CLOCK_MHZ = 1755
BOOT_NS = 7_200_000_000_000
UNIX_NS = 1_790_000_000_000_000_000
SECOND = 1_000_000_000
#: HMMA-active share of the SM-cycles, as a fraction that keeps every second's counter whole.
HMMA_PERCENT = 40


def entity(gpu: int, node: str = "t") -> str:
    return f"GPU-00000000-0000-4000-8000-{sum(node.encode()):06d}{gpu:06d}"


def header(
    gpus: int = 2, node: str = "t", boot: str = "11111111-2222-4333-8444-555555555555"
) -> dict[str, Any]:
    return {
        "format": "flopmeter-trace/1",
        "node": node,
        "boot_id": boot,
        "driver": "595.58.03",
        "nvml": "13.595.58",
        "devices": [
            {
                "entity": entity(gpu, node),
                "name": "NVIDIA H100 80GB HBM3",
                "compute_capability": "9.0",
                "sm_count": SMS,
                "serial": f"1{gpu:03d}",
                "mig": False,
                "parent": None,
            }
            for gpu in range(gpus)
        ],
    }


def hmma_cycles(seconds: int) -> int:
    """Of one GPU."""
    return seconds * CLOCK_MHZ * 1_000_000 * SMS * HMMA_PERCENT // 100


def reading(gpu: int, second: int, node: str = "t", **more: Any) -> dict[str, Any]:
    elapsed = (second + 1000) * CLOCK_MHZ * 1_000_000 * SMS
    busy = hmma_cycles(second + 1000)
    line: dict[str, Any] = {
        "t_boot_ns": BOOT_NS + second * SECOND,
        "t_unix_ns": UNIX_NS + second * SECOND,
        "entity": entity(gpu, node),
        "gpm": {"248": elapsed, "249": busy, "250": busy, "252": busy}
        | dict.fromkeys(("251", "253", "254", "257", "258", "259", "260"), 0),
        "sm_clock_mhz": [CLOCK_MHZ],
        "energy_mj": second * 600_000,
        "workload": {"kind": "slurm", "job": "7", "run": "small", "dtype": "bf16"},
    }
    return line | more


def steady(seconds: int, gpus: int = 2, node: str = "t") -> list[dict[str, Any]]:
    """A reading of every GPU each second, from 0 to `seconds`."""
    return [reading(gpu, second, node) for second in range(seconds + 1) for gpu in range(gpus)]


def write(
    path: Path, lines: list[dict[str, Any]], *, first: dict[str, Any] | None = None, tail: str = ""
) -> Path:
    text = "".join(json.dumps(line) + "\n" for line in [first or header(), *lines])
    path.write_text(text + tail)
    return path
