"""Traces for the trace source's tests: a header, lines, and a file of them."""

import json
from pathlib import Path

from flopmeter.agent.reading import (
    Happening,
    NodeFacts,
    Reading,
)
from flopmeter.agent.sources.trace import TraceFile
from flopmeter.contract.usage import Device

GPU = "GPU-8a2f0000-0000-0000-0000-000000000001"
MIG = "MIG-8a2f0000-0000-0000-0000-000000000002"
HEADER = {
    "format": "flopmeter-trace/1",
    "node": "node-a",
    "boot_id": "5f0c7d0e-1111-2222-3333-444455556666",
    "driver": "595.58.03",
    "nvml": "13.595.58",
    "devices": [
        {
            "entity": GPU,
            "name": "NVIDIA H100 80GB HBM3",
            "compute_capability": "9.0",
            "sm_count": 132,
            "serial": "165",
            "mig": False,
            "parent": None,
        }
    ],
}


FACTS = NodeFacts(
    node="node-a",
    boot_id=bytes.fromhex("5f0c7d0e111122223333444455556666"),
    driver="595.58.03",
    nvml="13.595.58",
    source="trace",
    devices=(Device(GPU, "NVIDIA H100 80GB HBM3", "9.0", 132, serial="165"),),
)


def line(t: int = 10, **keys: object) -> dict[str, object]:
    return {"t_boot_ns": t, "t_unix_ns": 1_790_000_000_000_000_000 + t, "entity": GPU, **keys}


def write(path: Path, *lines: object, header: object = HEADER, end: str = "\n") -> Path:
    texts = [x if isinstance(x, str) else json.dumps(x) for x in (header, *lines)]
    path.write_bytes(("\n".join(texts) + end).encode("utf-8", "surrogatepass"))
    return path


def read(path: Path) -> list[Reading | Happening]:
    with TraceFile(path) as trace:
        return list(trace.items())


def one(tmp_path: Path, **keys: object) -> Reading:
    (item,) = read(write(tmp_path / "t.jsonl", line(**keys)))
    assert isinstance(item, Reading)
    return item
