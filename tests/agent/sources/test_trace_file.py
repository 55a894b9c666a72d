"""A trace as a file: torn ends, compression, bombs, pipes, and the writer."""

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
from trace_files import FACTS, GPU, MIG, line, read, write

from flopmeter.agent.errors import SourceError, TraceError
from flopmeter.agent.reading import (
    CYCLE_IDS,
    PERCENT_IDS,
    RATE_IDS,
    Happening,
    HappeningKind,
    Process,
    Reading,
)
from flopmeter.agent.sources import compressed
from flopmeter.agent.sources.trace import TraceFile, TraceWriter
from flopmeter.contract.limits import MAX_TRACE_LINE_BYTES
from flopmeter.contract.usage import IDLE, Device, Workload, WorkloadKind

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


@pytest.mark.parametrize("filler", [b" ", b" " * 65_535 + b"\n"], ids=["one long line", "blank lines"])
@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_decompression_bomb_is_refused_in_bounded_memory(tmp_path, suffix, filler):
    head = write(tmp_path / "t").read_bytes()
    size = 512 << 20
    block = filler * ((1 << 20) // len(filler))
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
        "late_ns": st.integers(0, 2**40),
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
