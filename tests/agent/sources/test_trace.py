"""The trace source: what it reads, what it drops, what it refuses."""

import json

import pytest
from trace_files import FACTS, GPU, HEADER, MIG, line, one, read, write

from flopmeter.agent.errors import SourceError, TraceError
from flopmeter.agent.reading import (
    Happening,
    HappeningKind,
    Process,
    Reading,
)
from flopmeter.agent.sources.trace import TraceFile
from flopmeter.contract.usage import IDLE, Workload, WorkloadKind


def test_every_key_of_the_format_arrives(tmp_path):
    path = write(
        tmp_path / "t.jsonl",
        line(
            gpm={"248": 5e12, "252": 7, "5": 41.5, "12": 0, "60": 17.0, "9999": 1},
            sm_clock_mhz=[1830, 1845.5],
            energy_mj=9_000_000_000_000,
            power_mw=690_000,
            utilization_gpu_pct=100,
            memory_used_bytes=70 << 30,
            clock_event_reasons=4,
            late_ns=59_000_000,
            processes=[{"pid": 12, "start_ticks": 99, "sm_util_pct": 40}, {"pid": 13}],
            workload={
                "kind": "slurm",
                "job": "4711",
                "step": "0",
                "run": "nanogpt",
                "user": "u",
                "dtype": "bf16",
            },
            something_new={"a": [1]},
        ),
        line(20, workload=None, processes=[], sm_clock_mhz=345),
        line(30, error="NVML_ERROR_GPU_IS_LOST", energy_mj=3),
        {"t_boot_ns": 31, "t_unix_ns": 5, "event": "gpu-reset", "entity": GPU},
        {"t_boot_ns": 32, "t_unix_ns": 5, "event": "agent-stop"},
    )
    with TraceFile(path) as trace:
        assert trace.facts() == FACTS
        full, idle, lost, reset, stop = trace.items()
        assert not trace.truncated
        assert not trace.refused
    assert full == Reading(
        entity=GPU,
        t_boot_ns=10,
        t_unix_ns=1_790_000_000_000_000_010,
        cycles={248: 5_000_000_000_000, 252: 7},
        percent={5: 41.5, 12: 0.0},
        sm_clock_mhz=(1830.0, 1845.5),
        energy_mj=9_000_000_000_000,
        power_mw=690_000,
        utilization_gpu_pct=100.0,
        memory_used_bytes=70 << 30,
        processes=(Process(12, 99, 40.0), Process(13)),
        workload=Workload(WorkloadKind.SLURM, "4711", "0", "nanogpt", "u", "bf16"),
        rates_mib_s={60: 17.0},
        clock_event_reasons=4,
        late_ns=59_000_000,
    )
    assert all(type(v) is int for v in full.cycles.values())
    assert (idle.workload, idle.processes, idle.sm_clock_mhz, idle.energy_mj) == (IDLE, (), (345.0,), None)
    assert lost == Reading(GPU, 30, 1_790_000_000_000_000_030, error="NVML_ERROR_GPU_IS_LOST")
    assert reset == Happening(HappeningKind.GPU_RESET, 31, 5, GPU)
    assert stop == Happening(HappeningKind.AGENT_STOP, 32, 5)


def test_absent_workload_is_unknown_and_null_is_idle(tmp_path):
    assert one(tmp_path).workload is None
    assert one(tmp_path, workload=None).workload == IDLE


@pytest.mark.parametrize(
    "value", ["NaN", "Infinity", "-1", "-0.5", "140737488355328.0", "9223372036854775792", "1e999"]
)
def test_a_counter_nvml_would_not_return_is_not_read(tmp_path, value):
    text = (
        json.dumps(line(gpm={"248": 77}, energy_mj=5))
        .replace("77", value)
        .replace('"energy_mj": 5', f'"energy_mj": {value}')
    )
    with TraceFile(write(tmp_path / "t.jsonl", text)) as trace:
        (item,) = trace.items()
        assert trace.refused == {"gpm.248": 1, "energy_mj": 1}
    assert item.cycles == {}
    assert item.energy_mj is None


@pytest.mark.parametrize("value", ["NaN", "100.6", "-0.1", "140737488355328.0", "Infinity"])
def test_a_percentage_nvml_would_not_return_is_not_read(tmp_path, value):
    text = json.dumps(line(gpm={"5": 77, "7": 3.5})).replace("77", value)
    (item,) = read(write(tmp_path / "t.jsonl", text))
    assert item.percent == {7: 3.5}


def test_100_5_percent_is_still_a_reading(tmp_path):
    assert one(tmp_path, gpm={"5": 100.5}).percent == {5: 100.5}


def test_real_cycle_totals_pass_the_float_blank(tmp_path):
    # metering.md 2.2: a threshold of 1.4e14 would drop what a busy GPU counts in nine minutes.
    cycles = one(tmp_path, gpm={"248": 140_737_488_355_332, "249": 2.5e17}).cycles
    assert cycles == {248: 140_737_488_355_332, 249: 250_000_000_000_000_000}


def test_a_clock_of_zero_is_not_a_clock(tmp_path):
    assert one(tmp_path, sm_clock_mhz=[0, 1800, 9e9]).sm_clock_mhz == (1800.0,)


def test_a_dtype_without_a_rate_is_undeclared(tmp_path):
    with TraceFile(
        write(tmp_path / "t.jsonl", line(workload={"kind": "pod", "job": "a", "dtype": "fp7"}))
    ) as trace:
        (item,) = trace.items()
        assert (item.workload.dtype, trace.refused) == ("", {"workload.dtype": 1})


BAD_LINES = {
    "not json": "{nonsense}",
    "a list": "[1,2]",
    "a number": "7",
    "nested too deep": '{"a":' + "[" * 100_000 + "]" * 100_000 + "}",
    "an integer of 5000 digits": '{"t_boot_ns":' + "9" * 5000 + "}",
    "no time": {"t_unix_ns": 1, "entity": GPU},
    "time as text": line() | {"t_boot_ns": "10"},
    "time as a fraction": line() | {"t_boot_ns": 10.5},
    "time NaN": line() | {"t_boot_ns": float("nan")},
    "negative time": line(-1),
    "time true": line() | {"t_boot_ns": True},
    "time beyond 63 bits": line() | {"t_boot_ns": 1 << 63},
    "no wall clock": {"t_boot_ns": 1, "entity": GPU},
    "neither entity nor event": {"t_boot_ns": 1, "t_unix_ns": 1},
    "entity of no device": line() | {"entity": "GPU-other"},
    "entity a list": line() | {"entity": [GPU]},
    "gpm a list": line(gpm=[1]),
    "counter as text": line(gpm={"248": "12"}),
    "counter as a list": line(gpm={"248": [12]}),
    "counter true": line(energy_mj=True),
    "processes an object": line(processes={}),
    "process a number": line(processes=[3]),
    "process without pid": line(processes=[{}]),
    "pid negative": line(processes=[{"pid": -1}]),
    "workload as text": line(workload="idle"),
    "workload without kind": line(workload={"job": "3"}),
    "workload of unknown kind": line(workload={"kind": "lsf"}),
    "workload job a list": line(workload={"kind": "slurm", "job": ["3"]}),
    "workload job an object": line(workload={"kind": "slurm", "job": {}}),
    "workload with control characters": line(workload={"kind": "slurm", "job": "a\nb"}),
    "workload too long": line(workload={"kind": "slurm", "job": "a" * 257}),
    "workload with half a surrogate": line(workload={"kind": "slurm", "job": "\ud800"}),
    "error a number too long": line(error="x" * 300),
    "error an object": line(error={}),
    "unknown event": {"t_boot_ns": 1, "t_unix_ns": 1, "event": "explosion"},
    "event a list": {"t_boot_ns": 1, "t_unix_ns": 1, "event": ["reboot"]},
    "reboot without boot_id": {"t_boot_ns": 1, "t_unix_ns": 1, "event": "reboot"},
    "mig-change without devices": {"t_boot_ns": 1, "t_unix_ns": 1, "event": "mig-change"},
    "invalid utf-8": '{"a":"\udcff"}',
}


@pytest.mark.parametrize("bad", BAD_LINES.values(), ids=BAD_LINES)
def test_a_bad_line_is_refused_with_its_number(tmp_path, bad):
    path = write(tmp_path / "t.jsonl", line(5), "PLACE", line(30))
    text = bad if isinstance(bad, str) else json.dumps(bad)
    path.write_bytes(path.read_bytes().replace(b"PLACE", text.encode("utf-8", "surrogateescape")))
    with TraceFile(path) as trace:
        items = trace.items()
        assert next(items).t_boot_ns == 5
        with pytest.raises(TraceError, match="line 3: ") as caught:
            next(items)
    assert "docs/trace-format.md" in caught.value.hint
    assert len(str(caught.value)) < 500


def device(**keys: object) -> dict[str, object]:
    return HEADER | {"devices": [HEADER["devices"][0] | keys]}


BAD_HEADERS = {
    "another format": HEADER | {"format": "flopmeter-trace/2"},
    "a reading": line(),
    "no node": {k: v for k, v in HEADER.items() if k != "node"},
    "no boot_id": {k: v for k, v in HEADER.items() if k != "boot_id"},
    "no devices": {k: v for k, v in HEADER.items() if k != "devices"},
    "devices an object": HEADER | {"devices": {}},
    "a device twice": HEADER | {"devices": HEADER["devices"] * 2},
    "too many devices": HEADER
    | {"devices": [HEADER["devices"][0] | {"entity": f"GPU-{i}"} for i in range(1025)]},
    "device a text": HEADER | {"devices": [GPU]},
    "entity not a UUID": device(entity="0"),
    "entity absent": device(entity=None),
    "compute capability a number": device(compute_capability=9.0),
    "compute capability odd": device(compute_capability="9.0.1"),
    "sm_count negative": device(sm_count=-1),
    "sm_count a text": device(sm_count="132"),
    "sm_count beyond any GPU": device(sm_count=1 << 40),
    "half-written": '{"format":"flopmeter-trace/1","node":"no',
}


@pytest.mark.parametrize("bad", BAD_HEADERS.values(), ids=BAD_HEADERS)
def test_a_bad_first_line_is_refused(tmp_path, bad):
    with pytest.raises(TraceError, match="line 1: "):
        TraceFile(write(tmp_path / "t.jsonl", header=bad))


def test_an_empty_file_and_no_file_are_refused(tmp_path):
    (tmp_path / "empty").write_bytes(b"")
    with pytest.raises(TraceError, match="empty"):
        TraceFile(tmp_path / "empty")
    with pytest.raises(SourceError, match="No such file"):
        TraceFile(tmp_path / "absent")
    with pytest.raises(SourceError):
        TraceFile(tmp_path)


@pytest.mark.parametrize("second", [10, 9])
def test_lines_out_of_order_are_refused_per_entity(tmp_path, second):
    other = "GPU-other"
    header = HEADER | {"devices": [*HEADER["devices"], HEADER["devices"][0] | {"entity": other}]}
    path = write(tmp_path / "t.jsonl", line(10), line(5) | {"entity": other}, line(second), header=header)
    with TraceFile(path) as trace:
        items = trace.items()
        assert [next(items).t_boot_ns, next(items).t_boot_ns] == [10, 5]
        with pytest.raises(TraceError, match=f"line 4: {GPU}: expected t_boot_ns after 10, got {second}"):
            next(items)


def test_a_reboot_starts_the_boot_clock_again_and_names_the_new_boot(tmp_path):
    boot = "00000000-0000-0000-0000-00000000000b"
    reboot = {"t_boot_ns": 1, "t_unix_ns": 1, "event": "reboot", "boot_id": boot}
    with TraceFile(write(tmp_path / "t.jsonl", line(10), reboot, line(2))) as trace:
        _, happening, after = trace.items()
        assert happening.boot_id == trace.facts().boot_id == bytes(15) + b"\x0b"
        assert after.t_boot_ns == 2


def test_a_mig_change_replaces_the_devices(tmp_path):
    instance = HEADER["devices"][0] | {
        "entity": MIG,
        "mig": True,
        "parent": GPU,
        "gpu_instance": 1,
        "sm_count": 16,
    }
    change = {"t_boot_ns": 11, "t_unix_ns": 1, "event": "mig-change", "devices": [instance]}
    with TraceFile(
        write(tmp_path / "t.jsonl", line(10), change, line(12) | {"entity": MIG}, line(13))
    ) as trace:
        items = trace.items()
        next(items)
        (now,) = next(items).devices
        assert (now.entity, now.mig, now.parent, now.gpu_instance, now.sm_count) == (MIG, True, GPU, 1, 16)
        assert next(items).entity == MIG
        assert trace.facts().devices == (now,)
        with pytest.raises(TraceError, match="among the node's devices"):
            next(items)


def test_a_boot_id_that_is_no_uuid_still_names_one_boot(tmp_path):
    found = []
    for text in ("5f0c", "5f0c", "5f0d"):
        with TraceFile(write(tmp_path / "t.jsonl", header=HEADER | {"boot_id": text})) as trace:
            found.append(trace.facts().boot_id)
    a, b, c = found
    assert a == b != c
    assert len(a) == 16
