"""The trace source: what it reads, what it drops, what it refuses, and what the writer gives back."""

import gzip
import json
import os
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from flopmeter.agent.errors import SourceError, TraceError
from flopmeter.agent.reading import (
    CYCLE_IDS,
    PERCENT_IDS,
    RATE_IDS,
    Happening,
    HappeningKind,
    NodeFacts,
    Process,
    Reading,
)
from flopmeter.agent.sources import compressed
from flopmeter.agent.sources.trace import TraceFile, TraceWriter
from flopmeter.contract.limits import MAX_TRACE_LINE_BYTES
from flopmeter.contract.usage import IDLE, Device, Workload, WorkloadKind

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


# ---- ends and compression ---------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [1, 5, 30, 60])
def test_a_half_written_last_line_is_reported_and_dropped(tmp_path, cut):
    path = write(tmp_path / "t.jsonl", line(10), line(20))
    path.write_bytes(path.read_bytes()[: -1 - cut])
    with TraceFile(path) as trace:
        assert [i.t_boot_ns for i in trace.items()] == [10]
        assert trace.truncated


def test_a_whole_last_line_without_a_newline_counts(tmp_path):
    with TraceFile(write(tmp_path / "t.jsonl", line(10), end="")) as trace:
        assert [i.t_boot_ns for i in trace.items()] == [10]
        assert not trace.truncated


def test_a_wrong_last_line_is_not_taken_for_a_half_written_one(tmp_path):
    with pytest.raises(TraceError, match="line 2"):
        read(write(tmp_path / "t.jsonl", {"t_boot_ns": "x"}, end=""))
    with pytest.raises(TraceError, match="line 2"):
        read(write(tmp_path / "t.jsonl", '{"t_boot_ns": 1'))


def packed(suffix: str, data: bytes) -> bytes:
    if suffix == ".gz":
        return gzip.compress(data)
    return zstandard.ZstdCompressor().compress(data) if suffix == ".zst" else data


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_compressed_is_told_by_content_not_by_name(tmp_path, suffix):
    plain = write(tmp_path / "t.jsonl", line(10), line(20)).read_bytes()
    (tmp_path / "named-otherwise").write_bytes(packed(suffix, plain))
    assert [i.t_boot_ns for i in read(tmp_path / "named-otherwise")] == [10, 20]


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_members_appended_by_a_second_recorder_are_read_on(tmp_path, suffix):
    plain = write(tmp_path / "t.jsonl", line(10)).read_bytes()
    more = json.dumps(line(20)).encode() + b"\n"
    (tmp_path / "t").write_bytes(packed(suffix, plain) + packed(suffix, more))
    assert [i.t_boot_ns for i in read(tmp_path / "t")] == [10, 20]


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_cut_compressed_file_gives_its_whole_lines_and_says_so(tmp_path, suffix):
    path = tmp_path / f"t.jsonl{suffix}"
    writer = TraceWriter(path, FACTS)
    for t in (10, 20, 30):
        writer.write(Reading(GPU, t, t, {248: t}))
        writer.flush()
    data = path.read_bytes()  # no close: as after a kill
    path.write_bytes(data[:-12])
    with TraceFile(path) as trace:
        assert [i.t_boot_ns for i in trace.items()] == [10, 20]
        assert trace.truncated
    path.write_bytes(data)
    with TraceFile(path) as trace:
        assert [i.t_boot_ns for i in trace.items()] == [10, 20, 30]
        assert trace.truncated
    writer.close()
    with TraceFile(path) as trace:
        assert len(list(trace.items())) == 3
        assert not trace.truncated


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_damaged_compressed_file_is_refused(tmp_path, suffix):
    lines = [line(t, gpm={"248": t * 7919**3}) for t in range(1, 3000)]
    data = bytearray(packed(suffix, write(tmp_path / "t", *lines).read_bytes()))
    for i in range(len(data) // 2, len(data) // 2 + 40):
        data[i] ^= 0x5A
    (tmp_path / "t").write_bytes(data)
    with pytest.raises(TraceError, match=r"line \d+: "):
        read(tmp_path / "t")


def test_a_line_beyond_the_limit_is_refused_without_being_held(tmp_path):
    with pytest.raises(TraceError, match=f"at most {MAX_TRACE_LINE_BYTES} bytes"):
        read(write(tmp_path / "t", line(note="x" * MAX_TRACE_LINE_BYTES)))


BOMB_SCRIPT = """
import resource, sys, zlib
import zstandard
from flopmeter.agent.errors import TraceError
from flopmeter.agent.sources.trace import TraceFile
resource.setrlimit(resource.RLIMIT_AS, (400 << 20, 400 << 20))
try:
    with TraceFile(sys.argv[1]) as trace:
        print(sum(1 for _ in trace.items()))
except TraceError as e:
    print(e)
"""


@pytest.mark.parametrize("filler", [b" ", b"\n"], ids=["one long line", "blank lines"])
@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_decompression_bomb_is_refused_in_bounded_memory(tmp_path, suffix, filler):
    head = write(tmp_path / "t").read_bytes()
    size = 512 << 20
    block = filler * (1 << 20)
    deflater = (
        zlib.compressobj(9, zlib.DEFLATED, 31)
        if suffix == ".gz"
        else zstandard.ZstdCompressor().compressobj()
    )
    with (tmp_path / "bomb").open("wb") as f:
        f.write(deflater.compress(head))
        for _ in range(size >> 20):
            f.write(deflater.compress(block))
        f.write(deflater.flush())
    assert (tmp_path / "bomb").stat().st_size < size // 900
    done = subprocess.run(
        [sys.executable, "-c", BOMB_SCRIPT, tmp_path / "bomb"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert f"more than {compressed.MAX_EXPANSION} times" in done.stdout or "a longer one" in done.stdout


def test_a_trace_can_come_through_a_pipe(tmp_path):
    source = write(tmp_path / "t", line(10))
    read_end, write_end = os.pipe()
    os.write(write_end, source.read_bytes())
    os.close(write_end)
    try:
        assert [i.t_boot_ns for i in read(Path(f"/dev/fd/{read_end}"))] == [10]
    finally:
        os.close(read_end)


def test_a_trace_is_read_once(tmp_path):
    with TraceFile(write(tmp_path / "t", line(10))) as trace:
        assert len(list(trace.items())) == 1
        with pytest.raises(TraceError, match="once"):
            next(trace.items())


# ---- the writer -------------------------------------------------------------------------------------------

counters = st.integers(0, 2**62).filter(lambda v: v not in range(140_737_488_355_328, 140_737_488_355_332))
shares = st.floats(0, 100.5)
labels = st.text("abcXYZ019-_./é中 ", max_size=20).map(str.strip)
workloads = st.builds(
    Workload,
    kind=st.sampled_from([k for k in WorkloadKind if k is not WorkloadKind.IDLE]),
    job=labels,
    step=labels,
    run=labels,
    user=labels,
    dtype=st.sampled_from(["", "bf16", "fp8"]),
    restart=st.integers(0, 9),
)
values = st.fixed_dictionaries(
    {
        "cycles": st.dictionaries(st.sampled_from(CYCLE_IDS), counters),
        "percent": st.dictionaries(st.sampled_from((*PERCENT_IDS, 1, 10)), shares),
        "rates_mib_s": st.dictionaries(st.sampled_from(RATE_IDS), st.floats(0, 1e9)),
        "clock_event_reasons": st.none() | st.integers(0, 2**40),
        "sm_clock_mhz": st.lists(st.floats(1, 3000), max_size=3).map(tuple),
        "energy_mj": st.none() | counters,
        "power_mw": st.none() | st.integers(0, 10_000_000),
        "utilization_gpu_pct": st.none() | shares,
        "memory_used_bytes": st.none() | counters,
        "processes": st.none()
        | st.lists(st.builds(Process, st.integers(0, 2**31), st.integers(0, 2**60), st.none() | shares)).map(
            tuple
        ),
        "workload": st.none() | st.just(IDLE) | workloads,
    }
) | st.fixed_dictionaries({"error": st.just("NVML_ERROR_GPU_IS_LOST"), "workload": st.none() | workloads})


@given(st.lists(values, max_size=8), st.sampled_from(["", ".gz", ".zst"]))
def test_what_is_written_is_read_back_equal(tmp_path_factory, rows, suffix):
    path = tmp_path_factory.mktemp("trace") / f"t.jsonl{suffix}"
    items: list[Reading | Happening] = [Reading(GPU, 10 * i, i, **row) for i, row in enumerate(rows)]
    boot = Happening(HappeningKind.REBOOT, 1000, 5, boot_id=bytes(range(16)))
    change = Happening(
        HappeningKind.MIG_CHANGE, 1001, 5, devices=(Device(MIG, "x", "9.0", 16, 1980, "", True, GPU, 2),)
    )
    with TraceWriter(path, FACTS) as writer:
        for item in (*items, boot, change):
            writer.write(item)
    with TraceFile(path) as trace:
        assert trace.facts() == FACTS
        assert list(trace.items()) == [*items, boot, change]
        assert not trace.truncated
        assert not trace.refused


def test_a_trace_of_dcgm_stays_one_so_that_its_evidence_class_does(tmp_path):
    import dataclasses

    for source, read_back in (("dcgm", "dcgm"), ("nvml", "trace"), ("sim", "trace")):
        TraceWriter(tmp_path / source, dataclasses.replace(FACTS, source=source, cluster="c1")).close()
        with TraceFile(tmp_path / source) as trace:
            assert (trace.facts().source, trace.facts().cluster) == (read_back, "c1")


def test_an_existing_file_is_not_overwritten_unless_asked(tmp_path):
    (tmp_path / "t").write_text("precious")
    with pytest.raises(SourceError, match="exists already"):
        TraceWriter(tmp_path / "t", FACTS)
    assert (tmp_path / "t").read_text() == "precious"
    TraceWriter(tmp_path / "t", FACTS, overwrite=True).close()
    with TraceFile(tmp_path / "t") as trace:
        assert trace.facts() == FACTS


def test_a_full_disk_is_an_error_with_a_hint():
    with pytest.raises(SourceError, match="No space left") as caught:
        TraceWriter("/dev/full", FACTS, overwrite=True)
    assert "space" in caught.value.hint
