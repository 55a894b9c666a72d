"""doctor: the class to expect of each GPU, why it is no better, what to change, and the exit code."""

import dataclasses
import json
import logging
import os
import re
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

import pytest

from fakes import FakeClock
from flopmeter.agent.errors import SourceError
from flopmeter.agent.reading import CYCLE_IDS, NodeFacts, Process, Reading
from flopmeter.agent.sources.trace import TraceFile, TraceWriter
from flopmeter.agent.tools.doctor import examine, to_json, to_lines
from flopmeter.agent.tools.heard import heard
from flopmeter.agent.tools.live import LiveRounds, RecordedRounds, open_rounds
from flopmeter.contract.usage import NO_LIBRARY, Device, Library, Uncovered

H100 = Device("GPU-1", "NVIDIA H100 80GB HBM3", "9.0", 132, 1980)
S = 1_000_000_000
PERCENT = {2: 60.0, 4: 1.0, 5: 45.0, 6: 0.0, 7: 45.0, 8: 0.0, 9: 0.0, 11: 0.0, 12: 5.0, 13: 0.0}


class Node:
    """A Source whose GPUs give what each is set to give; counters run on with the clock."""

    def __init__(self, clock: FakeClock, facts: NodeFacts, given: Mapping[str, Mapping[str, object]]) -> None:
        self.clock, self._facts, self.given = clock, facts, given

    def facts(self) -> NodeFacts:
        return self._facts

    def read(self, entity: str) -> Reading:
        values = {"energy_mj": 5, **self.given[entity]}
        t = self.clock.boot_ns()
        if ids := values.pop("cycles", ()):
            ids = CYCLE_IDS if ids is True else ids
            values["cycles"] = {i: t * (132 * 18 if i == 248 else 132 * 9) // 10 for i in ids}
        return Reading(entity, t, self.clock.unix_ns(), **values)

    def close(self) -> None:
        pass


def diagnose(
    *devices: Device,
    source: str = "nvml",
    driver: str = "595.58.03",
    here: bool = False,
    uncovered: tuple[Uncovered, ...] = (),
    library: Library = NO_LIBRARY,
    **given: Mapping[str, object],
):
    clock = FakeClock()
    facts = NodeFacts("n", bytes(16), driver, "13", source, devices, uncovered=uncovered, library=library)
    by_entity = {d.entity: given[d.entity.replace("-", "_")] for d in devices}
    return examine(LiveRounds(Node(clock, facts, by_entity), clock, S), here=here)


CLOCK = {"sm_clock_mhz": (1800.0, 1810.0)}
A100 = dataclasses.replace(H100, name="NVIDIA A100-SXM4-40GB", compute_capability="8.0", sm_count=108)
L4 = dataclasses.replace(H100, name="NVIDIA L4", compute_capability="8.9", sm_count=58)
A10 = dataclasses.replace(H100, name="NVIDIA A10", compute_capability="8.6", sm_count=72)
T4 = dataclasses.replace(H100, name="Tesla T4", compute_capability="7.5", sm_count=40)
V100 = dataclasses.replace(H100, name="Tesla V100-SXM2-16GB", compute_capability="7.0", sm_count=80)
PAGE = dict.fromkeys((1, 2, 5, 6, 7, 9, 10, 11, 12, 13), 40.0)  # all rows that an exporter can show
ENERGY = {"energy_mj": 5}
UTILISATION = {"utilization_gpu_pct": 90.0}


def without(*ids: int) -> dict[str, object]:
    return {"percent": {i: v for i, v in PAGE.items() if i not in ids}, **CLOCK, **ENERGY}


#: device, source, driver, what it gives -> class, metered, exit code, (why, change) of each advice
CASES = {
    "A1": (H100, "nvml", "595.58.03", {"cycles": True, **CLOCK}, "A1", True, 0, []),
    "A1 with percentages": (
        H100, "nvml", "595.58.03", {"cycles": True, "percent": PERCENT, **CLOCK}, "A1", True, 0, [],
    ),
    "A2 for an old driver": (
        H100, "nvml", "570.86.15", {"percent": PERCENT, **CLOCK}, "A2", True, 1,
        [("no since-boot cycle counters", "R595")],
    ),
    "A2 though the driver is new": (  # no binding's age hides ids: they are asked for by number
        H100, "nvml", "610.2", {"percent": PERCENT, **CLOCK}, "A2", True, 0,
        [("610.2 should have them", "")],
    ),
    "A2 with a clock that is polled": (
        H100, "nvml", "570.86.15", {"percent": PERCENT, "sm_clock_mhz": (1800.0,)}, "A2", True, 1,
        [("no since-boot cycle counters", "R595"), ("clock is polled", "")],
    ),
    "A3": (
        dataclasses.replace(H100, name="NVIDIA GB300", compute_capability="10.3", sm_count=148),
        "nvml", "595.1", {"cycles": True, **CLOCK}, "A3", True, 0, [("not confirmed", "")],
    ),
    "A1 without HMMA": (
        H100, "nvml", "595.1", {"cycles": set(CYCLE_IDS) - {252}, **CLOCK}, "A1", True, 0,
        [("does not answer for HMMA: bounds are wider", "")],
    ),
    "A1 without any tensor pipe": (
        H100, "nvml", "595.1", {"cycles": {248, 249, 257, 258, 259, 260}, **CLOCK}, "A1", False, 1,
        [("answers for no tensor pipe", "update the driver")],
    ),
    "A2 where the elapsed counter alone is missing": (
        H100, "nvml", "595.1", {"cycles": set(CYCLE_IDS) - {248}, "percent": PERCENT, **CLOCK}, "A2", True, 0,
        [("no since-boot cycle counters", "")],
    ),
    "no energy counter": (
        H100, "nvml", "595.1", {"cycles": True, "energy_mj": None, **CLOCK}, "A1", True, 0,
        [("no energy counter", "")],
    ),
    "B1 with every row": (A100, "dcgm", "580.1", without(), "B1", True, 0, []),
    "B1": (
        A100, "dcgm", "580.1", without(2, 11, 13), "B1", True, 1,
        [("vector pipes", "add DCGM_FI_PROF_SM_ACTIVE, DCGM_FI_PROF_PIPE_FP64_ACTIVE, DCGM_FI_PROF_PIPE_FP16_ACTIVE to")],
    ),
    "B2": (
        A100, "dcgm", "580.1", without(6, 7, 9), "B2", True, 1,
        [("tensor pipes as one", "DCGM_FI_PROF_PIPE_TENSOR_HMMA_ACTIVE, DCGM_FI_PROF_PIPE_TENSOR_IMMA_ACTIVE")],
    ),
    "B2 on Turing, where nobody has shown more": (
        T4, "dcgm", "550.1", without(6, 7, 9), "B2", True, 1, [("not verified", "try: add DCGM_FI_PROF_PIPE_TENSOR_HMMA")],
    ),
    "B2 as good as a V100 gets": (
        V100, "dcgm", "550.1", without(6, 7, 9), "B2", True, 0, [("shows this model's tensor pipes as one", "")],
    ),
    "rows that tell a dead counter and a stale page": (
        A100, "dcgm", "580.1",
        {"percent": {i: 40.0 for i in PAGE if i not in (1, 10)}, **CLOCK, "energy_mj": None}, "B1", True, 1,
        [("have died", "DCGM_FI_PROF_GR_ENGINE_ACTIVE"), ("stale", "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION")],
    ),
    "Hopper by an exporter": (H100, "dcgm", "580.1", without(), "B1", True, 1, [("NVML itself", "--source nvml")]),
    "counters that died": (
        A100, "dcgm", "580.1", {"percent": dict.fromkeys(PAGE, 0.0), **UTILISATION, **CLOCK}, "C", False, 1,
        [("silent-zero: expected profiling values above 0 with utilisation 90 %", "restart dcgm-exporter")],
    ),
    "C before Hopper": (
        L4, "nvml", "595.1", {**UTILISATION, **CLOCK}, "C", False, 1, [("before Hopper", "--source dcgm:")],
    ),
    "C on an A10, where profiling hangs": (
        A10, "nvml", "595.1", {**UTILISATION, **CLOCK}, "C", False, 1, [("Xid 119", "")],
    ),
    "C on Hopper": (H100, "nvml", "595.1", {**UTILISATION, **CLOCK}, "C", False, 1, [("no GPM", "vGPU")]),
    "C on Hopper by an old driver": (
        H100, "nvml", "525.1", {**UTILISATION, **CLOCK}, "C", False, 1, [("no GPM", "update the driver: R595")],
    ),
    "confidential-computing mode with counters": (
        dataclasses.replace(H100, confidential=True), "nvml", "595.1", {"cycles": True, **CLOCK}, "A1", True, 0,
        [("they answer", "")],
    ),
    "C in confidential-computing mode": (
        dataclasses.replace(H100, confidential=True), "nvml", "595.1", {**UTILISATION, **CLOCK}, "C", False, 1,
        [("confidential-computing mode is on", "turn it off")],
    ),
    "C from dcgm": (
        L4, "dcgm", "580.1", {**UTILISATION, **CLOCK}, "C", False, 1, [("no tensor pipe", "PIPE_TENSOR_ACTIVE")],
    ),
    "pipes without a clock": (
        A100, "dcgm", "580.1", {"percent": PAGE, **ENERGY}, "C", False, 1, [("SM clock is not", "DCGM_FI_DEV_SM_CLOCK")],
    ),
    "no W table": (
        dataclasses.replace(H100, name="NVIDIA X900", compute_capability="13.0"),
        "nvml", "595.1", {"cycles": True, **CLOCK}, "A3", True, 1, [("no W table", "a later flopmeter")],
    ),
    "persistence mode off": (
        dataclasses.replace(H100, persistence=False), "nvml", "595.1", {"cycles": True, **CLOCK}, "A1", True, 1,
        [("persistence mode is off", "nvidia-persistenced")],
    ),
    "no SM count": (
        dataclasses.replace(H100, sm_count=0), "dcgm", "580.1", {"percent": PERCENT, **CLOCK}, "gap", False, 2,
        [("SM count", "libnvidia-ml.so.1")],
    ),
    "counters that cannot be": (
        dataclasses.replace(H100, sm_count=1), "nvml", "595.1", {"cycles": True, **CLOCK}, "gap", False, 2,
        [("cannot be true: counter 248", "update the driver")],
    ),
    "lost": (
        H100, "nvml", "595.1", {"error": "NVML_ERROR_GPU_IS_LOST"}, "gap", False, 2,
        [("GPU_IS_LOST", "reset or a reboot")],
    ),
    "a stale page": (
        A100, "dcgm", "580.1", {"error": "DCGM_PAGE_STALE"}, "gap", False, 2, [("DCGM_PAGE_STALE", "restart it")],
    ),
}  # fmt: skip


def unfolded(diagnosis) -> str:
    """All that is printed, however its lines were broken."""
    return " ".join(" ".join(to_lines(diagnosis)).split())


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_what_is_said_of_a_gpu(case):
    device, source, driver, values, grade, metered, code, expected = case
    diagnosis = diagnose(device, source=source, driver=driver, GPU_1=values)
    (found,) = to_json(diagnosis)["devices"]
    assert (found["evidence_class"], found["metered"], diagnosis.exit_code) == (grade, metered, code)
    said = [(f["why"], f["change"]) for f in found["findings"]]
    assert len(said) == len(expected), said
    lines = unfolded(diagnosis)
    for (why, change), (in_why, in_change) in zip(said, expected, strict=True):
        assert in_why in why
        assert in_change in (change or "")
        assert bool(change) == bool(in_change)
        assert why in lines
        assert (change or "") in lines
    assert device.entity in lines
    assert max(map(len, to_lines(diagnosis))) <= 80


def test_exit_codes():
    """0 as well as it can be, 1 something is missing or could be better, 2 nothing can be metered."""
    good, bad = {"cycles": True, **CLOCK}, {"error": "NVML_ERROR_GPU_IS_LOST"}
    bounded = {**UTILISATION, **CLOCK}
    other = dataclasses.replace(H100, entity="GPU-2")
    assert diagnose(H100, other, GPU_1=good, GPU_2=good).exit_code == 0
    assert diagnose(H100, other, GPU_1=good, GPU_2=bad).exit_code == 1
    assert diagnose(H100, other, GPU_1=bounded, GPU_2=bad).exit_code == 1
    assert diagnose(H100, other, GPU_1=bad, GPU_2=bad).exit_code == 2
    assert diagnose().exit_code == 2


def test_what_the_node_holds_and_nothing_meters_is_said():
    card = Uncovered("00000000:41:00.0", "AMD", "1002:74a1", "NVML reads NVIDIA devices only")
    diagnosis = diagnose(H100, uncovered=(card,), GPU_1={"cycles": True, **CLOCK})
    assert diagnosis.exit_code == 1
    assert to_json(diagnosis)["uncovered"] == [
        {
            "pci_address": card.pci_address,
            "vendor": "AMD",
            "model": "1002:74a1",
            "reason": card.reason,
            "change": None,
        }
    ]
    *_, last = to_lines(diagnosis)
    assert "00000000:41:00.0: AMD 1002:74a1 is not metered: NVML reads NVIDIA devices only" in unfolded(
        diagnosis
    )
    assert last == "1 of 1 metered, 1 devices not covered"


@pytest.mark.parametrize(
    ("reason", "change"),
    [
        ("NVML_ERROR_NO_PERMISSION", "open /dev/nvidia*"),
        ("NVML_ERROR_GPU_IS_LOST", "reset or a reboot"),
        ("NVML does not list it; no driver holds it", "load the NVIDIA driver"),
        ("NVML does not list it; held by driver vfio-pci", ""),
    ],
)
def test_a_gpu_that_is_left_out_comes_with_what_to_change(reason, change):
    """One that was lost before the agent came has no address and no name: it is said all the same."""
    diagnosis = diagnose(uncovered=(Uncovered("", "NVIDIA", "", reason),))
    (card,) = to_json(diagnosis)["uncovered"]
    assert change in (card["change"] or "")
    assert bool(change) == bool(card["change"])
    assert f"NVIDIA is not metered: {reason}" in unfolded(diagnosis)
    assert change in unfolded(diagnosis)
    assert diagnosis.exit_code == 2
    named = diagnose(uncovered=(Uncovered("00000000:41:00.0", "NVIDIA", "NVIDIA H100 PCIe", reason),))
    assert "NVIDIA H100 PCIe is not metered" in unfolded(named)
    assert "NVIDIA NVIDIA" not in unfolded(named)


@pytest.mark.parametrize(
    ("source", "why", "change"),
    [("nvml", "lists no GPU", "NVIDIA_VISIBLE_DEVICES"), ("dcgm", "names no GPU", "nvidia-smi -L")],
)
def test_a_node_without_any_gpu_says_where_to_look(source, why, change):
    (said,) = to_json(diagnose(source=source))["findings"]
    assert why in said["why"]
    assert change in said["change"]


def test_a_library_from_elsewhere_is_said():
    library = Library(
        "/home/eve/libnvidia-ml.so.1", "ab" * 32, "NVRM version: NVIDIA UNIX x86_64 Kernel Module  595.1  x"
    )
    diagnosis = diagnose(H100, library=library, driver="595.1", GPU_1={"cycles": True, **CLOCK})
    (said,) = to_json(diagnosis)["findings"]
    assert "/home/eve/libnvidia-ml.so.1" in said["why"]
    assert "LD_PRELOAD" in said["change"]
    assert to_json(diagnosis)["library"]["sha256"] == "ab" * 32
    assert diagnosis.exit_code == 1


@pytest.mark.parametrize(
    ("link", "processes", "here", "expected"),
    [
        ("pid:[4026531836]", (Process(4711, 99),), True, []),
        ("pid:[4026532500]", (), True, ["a PID namespace of its own"]),
        ("pid:[4026531836]", (Process(4711, 0),), True, ["processes are not in /proc"]),
        ("pid:[4026532500]", (Process(4711, 0),), False, []),  # a trace: read elsewhere
        ("pid:[4026531836]", None, False, []),
    ],
)
def test_processes_of_other_pid_namespaces(monkeypatch, link, processes, here, expected):
    monkeypatch.setattr(os, "readlink", {"/proc/self/ns/pid": link}.__getitem__)
    values = {"cycles": True, "processes": processes, **CLOCK}
    diagnosis = diagnose(H100, here=here, GPU_1=values)
    said = to_json(diagnosis)["findings"]
    assert len(said) == len(expected)
    for one, why in zip(said, expected, strict=True):
        assert why in one["why"]
        assert "hostPID" in one["change"]
    assert diagnosis.exit_code == (1 if expected else 0)


@pytest.mark.parametrize(
    ("link", "here", "why", "change"),
    [
        ("pid:[4026531836]", True, "hidepid", "gid="),
        ("pid:[4026532500]", True, "a PID namespace of its own", "hostPID"),
        ("pid:[4026531836]", False, "", ""),
    ],
)
def test_processes_that_proc_hides(monkeypatch, link, here, why, change):
    """What /proc shows with hidepid=2 to a user without rights: not even process 1."""
    monkeypatch.setattr(os, "readlink", {"/proc/self/ns/pid": link}.__getitem__)
    monkeypatch.setattr(os.path, "isdir", lambda path: path != "/proc/1")
    values = {"cycles": True, "processes": (Process(4711, 0),), **CLOCK}
    said = to_json(diagnose(H100, here=here, GPU_1=values))["findings"]
    assert [(why in one["why"], change in one["change"]) for one in said] == [(True, True)] * bool(why)


def test_an_exporter_alone_tells_no_processes(monkeypatch):
    monkeypatch.setattr(os, "readlink", {"/proc/self/ns/pid": "pid:[4026531836]"}.__getitem__)
    (said,) = to_json(diagnose(A100, source="dcgm", here=True, GPU_1=without()))["findings"]
    assert "unattributed" in said["why"]
    assert "libnvidia-ml.so.1" in said["change"]


def test_a_gpu_cut_into_instances_is_not_counted_against_the_node():
    mig = dataclasses.replace(H100, entity="MIG-1", mig=True, parent="GPU-1", gpu_instance=1)
    diagnosis = diagnose(
        H100, mig, GPU_1={"energy_mj": 5}, MIG_1={"percent": PERCENT, "cycles": True, **CLOCK}
    )
    assert diagnosis.exit_code == 0
    (gpu, _) = to_json(diagnosis)["devices"]
    assert gpu["findings"][0]["why"].startswith("cut into MIG instances")


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


def test_a_gpus_line_fits_a_terminal_and_what_its_class_is_stands_below():
    uuid = "GPU-6b9b8174-dec3-4e0c-b1cd-adffbc58906e"
    values = {uuid.replace("-", "_"): {"percent": PERCENT, "cycles": True, **CLOCK}}
    lines = list(to_lines(diagnose(dataclasses.replace(H100, entity=uuid), **values)))
    assert [line for line in lines if len(line) > 80] == []
    assert "  A1: exact cycle counters" in lines


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


def test_the_page_names_every_key():
    page = (
        (Path(__file__).parents[3] / "docs/agent.md").read_text().partition("## Where readings come from")[0]
    )
    card = Uncovered("00000000:41:00.0", "AMD", "1002:74a1", "NVML reads NVIDIA devices only")
    given = diagnose(
        H100, uncovered=(card,), GPU_1={"cycles": True, "percent": PERCENT, **CLOCK}, driver="570.1"
    )
    found = to_json(given)
    several = ("devices", "uncovered", "findings", "library")
    keys = {*found, *found["devices"][0], *found["uncovered"][0], *found["library"], "why", "change"}
    said = set(re.findall(r"`([a-z_0-9]+)(?:\[\])?`", page))
    assert keys - said == set()
    assert {f"{key}[]" for key in several[:3]} <= set(re.findall(r"`([a-z_]+\[\])`", page))


def test_names_and_paths_stay_whole_however_narrow_the_page():
    mig = "MIG-7099682b-a20d-2bcc-74ab-b9060454d81e-9"
    device = dataclasses.replace(
        A100, entity=mig, name="NVIDIA A100-SXM4-40GB MIG 1g.5gb", mig=True, parent="GPU-1", gpu_instance=9
    )
    path = "/home/eve/" + "x" * 90 + "/libnvidia-ml.so.1"
    library = Library(path, "ab" * 32, "NVRM version: NVIDIA UNIX x86_64 Kernel Module  595.1  x")
    diagnosis = diagnose(
        device,
        source="dcgm",
        library=library,
        driver="595.1",
        **{mig.replace("-", "_"): without(2, 6, 7, 9, 11)},
    )
    lines = list(to_lines(diagnosis))
    assert [line for line in lines if len(line) > 80 and path not in line] == []
    for whole in (mig, path, "DCGM_FI_PROF_PIPE_TENSOR_IMMA_ACTIVE", "DCGM_FI_PROF_SM_ACTIVE,"):
        assert any(whole in line.split() or line.strip() == whole for line in lines), whole


def test_an_opening_that_hangs_is_an_answer_and_not_a_wait(monkeypatch):
    """Whoever asks what is wrong is not left waiting for the driver that is."""
    done = threading.Event()
    monkeypatch.setattr("flopmeter.agent.sources.open.open_source", lambda *_: done.wait(60))
    with pytest.raises(SourceError, match="no answer from the driver in") as caught:
        open_rounds("nvml", FakeClock(), S, deadline_s=0.01)
    done.set()
    assert "nvidia-smi" in caught.value.hint


def test_what_a_source_warns_of_stands_in_the_answer(caplog):
    with heard() as said:
        log = logging.getLogger("flopmeter.agent.sources.dcgm")
        for text in ("dcgm: rows refused, 3", "dcgm: rows refused, 3", "dcgm: scrape of http://x failed: no"):
            log.warning("%s", text)
        logging.getLogger("flopmeter.agent.sources.nvml").warning("nvml: told in the facts")
    assert said == ["dcgm: rows refused, 3"]
    assert caplog.text == ""
    log.warning("heard again")
    assert "heard again" in caplog.text


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
        assert done.returncode == 2
        assert message in done.stderr
        assert "Hint: " in done.stderr
        done = flopmeter("agent", "doctor", "--json", *args)
        found = json.loads(done.stdout)
        assert (done.returncode, found["exit_code"], found["metered"]) == (2, 2, 0)
        assert list(found) == list(got)  # the same keys as where a source opens
        assert message in found["findings"][0]["why"]
        assert found["findings"][0]["change"]
    assert flopmeter("agent", "doctor", "--source", "tarot").returncode == 2
