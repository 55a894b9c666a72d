"""doctor: the class to expect of each GPU, why it is no better, what to change, and the exit code."""

import dataclasses
import json
import subprocess
import sys
from collections.abc import Mapping

import pytest

from fakes import FakeClock
from flopmeter.agent.doctor import examine, to_json, to_lines
from flopmeter.agent.live import LiveRounds, RecordedRounds
from flopmeter.agent.reading import CYCLE_IDS, NodeFacts, Reading
from flopmeter.agent.sources.trace import TraceFile, TraceWriter
from flopmeter.contract.usage import Device

H100 = Device("GPU-1", "NVIDIA H100 80GB HBM3", "9.0", 132, 1980)
S = 1_000_000_000
PERCENT = {5: 45.0, 7: 45.0}


class Node:
    """A Source whose GPUs give what each is set to give; counters run on with the clock."""

    def __init__(self, clock: FakeClock, facts: NodeFacts, given: Mapping[str, Mapping[str, object]]) -> None:
        self.clock, self._facts, self.given = clock, facts, given

    def facts(self) -> NodeFacts:
        return self._facts

    def read(self, entity: str) -> Reading:
        values = dict(self.given[entity])
        t = self.clock.boot_ns()
        if values.pop("cycles", False):
            values["cycles"] = {i: t * (132 * 18 if i == 248 else 132 * 9) // 10 for i in CYCLE_IDS}
        return Reading(entity, t, self.clock.unix_ns(), **values)

    def close(self) -> None:
        pass


def diagnose(
    *devices: Device, source: str = "nvml", driver: str = "595.58.03", **given: Mapping[str, object]
):
    clock = FakeClock()
    facts = NodeFacts("n", bytes(16), driver, "13", source, devices)
    by_entity = {d.entity: given[d.entity.replace("-", "_")] for d in devices}
    return examine(LiveRounds(Node(clock, facts, by_entity), clock, S))


CLOCK = {"sm_clock_mhz": (1800.0,)}
CASES = {
    "A1": (H100, "nvml", "595.58.03", {"cycles": True, **CLOCK}, "A1", True, "", ""),
    "A1 with percentages": (
        H100, "nvml", "595.58.03", {"cycles": True, "percent": PERCENT, **CLOCK}, "A1", True, "", "",
    ),
    "A2 for an old driver": (
        H100, "nvml", "570.86.15", {"percent": PERCENT, **CLOCK}, "A2", True, "no since-boot cycle counters", "R595",
    ),
    "A2 for an old binding": (
        H100, "nvml", "610.2", {"percent": PERCENT, **CLOCK}, "A2", True, "no since-boot", "nvidia-ml-py",
    ),
    "A3": (
        dataclasses.replace(H100, name="NVIDIA GB300", compute_capability="10.3", sm_count=148),
        "nvml", "595.1", {"cycles": True, **CLOCK}, "A3", True, "not confirmed", "",
    ),
    "B1": (
        dataclasses.replace(H100, name="NVIDIA A100-SXM4-40GB", compute_capability="8.0", sm_count=108),
        "dcgm", "580.1", {"percent": {5: 40.0, 7: 40.0, 9: 0.0}, **CLOCK}, "B1", True, "", "",
    ),
    "B2": (
        dataclasses.replace(H100, name="NVIDIA A100-SXM4-40GB", compute_capability="8.0", sm_count=108),
        "dcgm", "580.1", {"percent": {5: 40.0}, **CLOCK}, "B2", True, "as one", "TENSOR_HMMA_ACTIVE",
    ),
    "C before Hopper": (
        dataclasses.replace(H100, name="NVIDIA L4", compute_capability="8.9", sm_count=58),
        "nvml", "595.1", {"utilization_gpu_pct": 90.0, **CLOCK}, "C", False, "before Hopper", "dcgm-exporter",
    ),
    "C on Hopper": (
        H100, "nvml", "595.1", {"utilization_gpu_pct": 90.0, **CLOCK}, "C", False, "no GPM", "vGPU",
    ),
    "C from dcgm": (
        dataclasses.replace(H100, name="NVIDIA L4", compute_capability="8.9", sm_count=58),
        "dcgm", "580.1", {"utilization_gpu_pct": 90.0, **CLOCK}, "C", False, "no tensor pipe", "TENSOR_ACTIVE",
    ),
    "no W table": (
        dataclasses.replace(H100, name="NVIDIA X900", compute_capability="13.0"),
        "nvml", "595.1", {"cycles": True, **CLOCK}, "A3", True, "no W table", "",
    ),
    "no SM count": (
        dataclasses.replace(H100, sm_count=0), "dcgm", "580.1", {"percent": PERCENT, **CLOCK}, "gap", False,
        "SM count", "--source nvml",
    ),
    "counters that cannot be": (
        dataclasses.replace(H100, sm_count=1), "nvml", "595.1", {"cycles": True, **CLOCK}, "gap", False,
        "cannot be true: counter 248", "update the driver",
    ),
    "lost": (
        H100, "nvml", "595.1", {"error": "NVML_ERROR_GPU_IS_LOST"}, "gap", False, "GPU_IS_LOST", "reset or a reboot",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_what_is_said_of_a_gpu(case):
    device, source, driver, values, grade, metered, why, change = case
    diagnosis = diagnose(device, source=source, driver=driver, GPU_1=values)
    (found,) = to_json(diagnosis)["devices"]
    assert (found["evidence_class"], found["metered"]) == (grade, metered)
    assert why in found["why"]
    assert bool(why) == bool(found["why"])
    assert change in found["change"]
    assert bool(change) == bool(found["change"])
    assert any(device.entity in line for line in to_lines(diagnosis))


def test_exit_codes():
    good, bad = {"cycles": True, **CLOCK}, {"error": "NVML_ERROR_GPU_IS_LOST"}
    other = dataclasses.replace(H100, entity="GPU-2")
    assert diagnose(H100, other, GPU_1=good, GPU_2=good).exit_code == 0
    assert diagnose(H100, other, GPU_1=good, GPU_2=bad).exit_code == 1
    assert diagnose(H100, other, GPU_1=bad, GPU_2=bad).exit_code == 3
    assert diagnose().exit_code == 3


def test_a_gpu_cut_into_instances_is_not_counted_against_the_node():
    mig = dataclasses.replace(H100, entity="MIG-1", mig=True, parent="GPU-1", gpu_instance=1, sm_count=16)
    diagnosis = diagnose(H100, mig, GPU_1={"energy_mj": 5}, MIG_1={"percent": PERCENT, **CLOCK})
    assert diagnosis.exit_code == 0
    assert next(d["why"] for d in to_json(diagnosis)["devices"]).startswith("cut into MIG instances")


def test_the_same_advice_is_said_once_for_all_it_concerns():
    devices = [dataclasses.replace(H100, entity=f"GPU-{i}") for i in range(4)]
    lines = list(
        to_lines(
            diagnose(
                *devices, driver="570.1", **{f"GPU_{i}": {"percent": PERCENT, **CLOCK} for i in range(4)}
            )
        )
    )
    assert sum("no since-boot cycle counters" in line for line in lines) == 1
    assert any(line.startswith("  0-3: ") for line in lines)
    assert lines[-1] == "4 of 4 metered"


def test_a_trace_can_be_examined(tmp_path):
    facts = NodeFacts(
        "n", bytes(16), "595.1", "13", "nvml", (H100, dataclasses.replace(H100, entity="GPU-2"))
    )
    with TraceWriter(tmp_path / "t", facts) as writer:
        for t in (1, 2):
            writer.write(
                Reading("GPU-1", t * S, t, dict.fromkeys(CYCLE_IDS, t * 10**11), sm_clock_mhz=(1800.0,))
            )
    with TraceFile(tmp_path / "t") as trace:
        diagnosis = examine(RecordedRounds(trace, FakeClock()))
    first, second = to_json(diagnosis)["devices"]
    assert (first["evidence_class"], first["metered"]) == ("A1", True)
    assert (second["error"], second["metered"]) == ("no reading", False)
    assert diagnosis.exit_code == 1


def flopmeter(*args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from flopmeter.cli.main import main; main()", *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.mark.e2e
def test_the_command():
    done = flopmeter("agent", "doctor", "--source", "sim", "--json")
    assert done.returncode == 0, done.stderr
    got = json.loads(done.stdout)
    assert (got["metered"], got["entities"], got["source"]) == (8, 8, "sim")
    for args, message in (
        (("--source", "dcgm:http://127.0.0.1:1/metrics"), "refused"),
        (("--source", "trace:/nowhere"), "No such file"),
    ):
        done = flopmeter("agent", "doctor", *args)
        assert done.returncode == 3
        assert message in done.stderr
        assert "Hint: " in done.stderr
    assert flopmeter("agent", "doctor", "--source", "tarot").returncode == 2
