"""Whatever bytes come, the parsers of the sources give values or an error of the family; never more, never less."""

import gzip
import json
import math

import pytest
import zstandard
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from flopmeter.agent.errors import SourceError
from flopmeter.agent.reading import (
    CYCLE_IDS,
    DRAM_BW_UTIL,
    GRAPHICS_UTIL,
    MAX_PERCENT,
    PERCENT_IDS,
    Happening,
    Reading,
)
from flopmeter.agent.sources.dcgm_fields import CYCLES, QUANTITIES, RATIOS, stated_unit
from flopmeter.agent.sources.dcgm_page import understand
from flopmeter.agent.sources.prom_text import parse_page
from flopmeter.agent.sources.trace import TraceFile
from flopmeter.agent.sources.values import INT64_BLANK
from flopmeter.contract.errors import ContractError
from flopmeter.contract.ids import check_entity, check_label
from flopmeter.contract.limits import MAX_SM_CLOCK_MHZ

GPU = "GPU-8a2f0000-0000-0000-0000-000000000001"
HEADER = {
    "format": "flopmeter-trace/1",
    "node": "n",
    "boot_id": "0" * 32,
    "devices": [{"entity": GPU, "name": "H100", "compute_capability": "9.0", "sm_count": 132}],
}
more = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def check_reading(r: Reading) -> None:
    """What every reading promises, whatever it was made of."""
    assert set(r.cycles) <= set(CYCLE_IDS)
    assert set(r.percent) <= {*PERCENT_IDS, GRAPHICS_UTIL, DRAM_BW_UTIL}
    assert all(type(v) is int and 0 <= v < INT64_BLANK for v in r.cycles.values())
    assert all(0 <= v <= MAX_PERCENT for v in r.percent.values())
    assert all(0 < v <= MAX_SM_CLOCK_MHZ for v in r.sm_clock_mhz)
    for count in (r.energy_mj, r.power_mw, r.memory_used_bytes):
        assert count is None or (type(count) is int and 0 <= count < INT64_BLANK)
    assert r.utilization_gpu_pct is None or 0 <= r.utilization_gpu_pct <= MAX_PERCENT
    assert r.error is None or (r.error and not r.cycles and not r.percent and r.energy_mj is None)
    if r.workload is not None:
        for text in (r.workload.job, r.workload.step, r.workload.run, r.workload.user):
            check_label("text", text)


def read_all(path) -> None:
    try:
        with TraceFile(path) as trace:
            for item in trace.items():
                if isinstance(item, Reading):
                    check_reading(item)
                else:
                    assert isinstance(item, Happening)
    except SourceError as e:
        assert e.hint
        assert len(str(e)) < 1000


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz") / "t"


# ---- traces -----------------------------------------------------------------------------------------------

numbers = (
    st.integers(-(2**70), 2**70)
    | st.floats()
    | st.sampled_from([0, 100.5, 140737488355328.0, 9223372036854775792, 1e308, -0.0, math.nan, math.inf])
)
anything = st.recursive(
    st.none() | st.booleans() | numbers | st.text(max_size=8) | st.sampled_from([GPU, "slurm", "bf16"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
gpm = st.dictionaries(
    st.sampled_from([str(i) for i in (*CYCLE_IDS, *PERCENT_IDS, 60, 9999)]), numbers | anything
)
workload = st.fixed_dictionaries(
    {},
    optional={
        k: anything | st.text(max_size=5) for k in ("kind", "job", "step", "run", "user", "dtype", "restart")
    },
) | st.fixed_dictionaries({"kind": st.sampled_from(["slurm", "pod", "idle"]), "job": st.text(max_size=9)})
line = st.fixed_dictionaries(
    {
        "t_boot_ns": st.integers(0, 10**6) | anything,
        "t_unix_ns": st.just(1) | anything,
        "entity": st.just(GPU) | anything,
    },
    optional={
        "gpm": gpm | anything,
        "sm_clock_mhz": numbers | st.lists(numbers, max_size=3) | anything,
        "energy_mj": numbers | anything,
        "power_mw": numbers | anything,
        "utilization_gpu_pct": numbers | anything,
        "memory_used_bytes": numbers | anything,
        "processes": st.lists(
            st.fixed_dictionaries({"pid": numbers}, optional={"sm_util_pct": numbers}), max_size=2
        )
        | anything,
        "workload": workload | anything,
        "error": st.text(max_size=5) | anything,
        "event": st.sampled_from(["reboot", "mig-change", "gpu-reset"]) | anything,
        "boot_id": anything,
        "devices": st.just(HEADER["devices"]) | anything,
    },
)
good_line = st.builds(
    lambda t, g: {"t_boot_ns": t, "t_unix_ns": t, "entity": GPU, "gpm": g}, st.integers(0, 10**6), gpm
)


@more
@given(st.lists(line | good_line, max_size=5))
def test_trace_lines_of_every_shape(path, lines):
    path.write_text("\n".join(json.dumps(x) for x in (HEADER, *lines)) + "\n", "utf-8", "surrogatepass")
    read_all(path)


@more
@given(anything, st.dictionaries(st.sampled_from([*HEADER, "driver", "source", "cluster"]), anything))
def test_trace_headers_of_every_shape(path, whole, parts):
    for header in (whole, HEADER | parts, HEADER | {"devices": [HEADER["devices"][0] | parts]}):
        path.write_text(json.dumps(header) + "\n", "utf-8", "surrogatepass")
        read_all(path)


VALID = "".join(
    json.dumps(x) + "\n"
    for x in (
        HEADER,
        {
            "t_boot_ns": 1,
            "t_unix_ns": 1,
            "entity": GPU,
            "gpm": {"248": 5e12, "5": 41.5},
            "sm_clock_mhz": [1800],
        },
        {
            "t_boot_ns": 2,
            "t_unix_ns": 2,
            "entity": GPU,
            "workload": {"kind": "slurm", "job": "1"},
            "energy_mj": 3,
        },
        {"t_boot_ns": 3, "t_unix_ns": 3, "event": "reboot", "boot_id": "1" * 32},
        {"t_boot_ns": 1, "t_unix_ns": 4, "entity": GPU, "error": "NVML_ERROR_TIMEOUT"},
    )
).encode()
PACKED = (VALID, gzip.compress(VALID), zstandard.ZstdCompressor().compress(VALID))


@st.composite
def mutated(draw: st.DrawFn, originals: tuple[bytes, ...]) -> bytes:
    """A valid input with bytes changed, taken out, put in, doubled or cut off."""
    data = bytearray(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(data)))
        kind = draw(st.sampled_from(["change", "insert", "remove", "double", "cut"]))
        if kind == "change" and at < len(data):
            data[at] = draw(st.integers(0, 255))
        elif kind == "insert":
            data[at:at] = draw(
                st.binary(max_size=8) | st.sampled_from([b"\n", b'"', b"{", b"NaN", b"1e999", b"\xff"])
            )
        elif kind == "remove":
            del data[at : at + draw(st.integers(0, 20))]
        elif kind == "double":
            data[at:at] = data[at : at + draw(st.integers(0, 200))]
        elif kind == "cut":
            del data[at:]
    return bytes(data)


@more
@given(st.binary(max_size=300) | mutated(PACKED))
@example(b"\x1f\x8b")
@example(b"\x28\xb5\x2f\xfd")
@example(b"\x1f\x8b\x08\x00" + bytes(20))
def test_files_of_any_bytes(path, data):
    path.write_bytes(data)
    read_all(path)


# ---- scrapes ----------------------------------------------------------------------------------------------

names = st.sampled_from([f"DCGM_FI_{n}" for n in (*RATIOS, *CYCLES, *QUANTITIES)]) | st.text(max_size=10)
label_values = st.text(max_size=10) | st.sampled_from([GPU, "0", "7", "1g.5gb", "NVIDIA A100-SXM4-40GB"])
labels = st.dictionaries(
    st.sampled_from(["UUID", "uuid", "GPU_I_ID", "GPU_I_PROFILE", "modelName", "Hostname", "pod"])
    | st.text(max_size=4),
    label_values,
    max_size=6,
).map(lambda given_labels: {"UUID": GPU} | given_labels)
row_values = numbers.map(str) | st.sampled_from(["NaN", "+Inf", "1e400", "0x10", "1_000", "", "1 2 3"])
row = st.builds(
    lambda name, ls, value: name + "{" + ",".join(f'{k}="{v}"' for k, v in ls.items()) + "} " + value,
    names, labels, row_values,
)  # fmt: skip
helps = st.builds(
    lambda name, text: f"# HELP {name} {text}", names, st.text(max_size=20) | st.just("(in MHz)")
)


def check_page(data: bytes) -> None:
    scrape = understand(parse_page(data, "DCGM_FI_"))
    for entity, rows in scrape.rows.items():
        check_entity(entity)
        assert rows.device.entity == entity
        check_reading(scrape.reading(entity, 1, 2))


@more
@given(st.lists(row | helps | st.text(max_size=30), max_size=12))
def test_pages_of_every_shape(lines):
    check_page("\n".join(lines).encode("utf-8", "surrogatepass"))


PAGE = (
    "# HELP DCGM_FI_DEV_SM_CLOCK SM clock frequency (in MHz).\n# TYPE DCGM_FI_DEV_SM_CLOCK gauge\n"
    f'DCGM_FI_DEV_SM_CLOCK{{gpu="0",UUID="{GPU}",modelName="NVIDIA A100-SXM4-40GB",GPU_I_ID="9"}} 1410\n'
    f'DCGM_FI_PROF_PIPE_TENSOR_ACTIVE{{gpu="0",UUID="{GPU}",pod="a\\"b\\\\c"}} 0.25 1700000000000\n'
    f'DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION{{gpu="0",UUID="{GPU}"}} 27151028\n'
).encode()


@more
@given(st.binary(max_size=300) | mutated((PAGE,)))
def test_pages_of_any_bytes(data):
    check_page(data)


@given(st.text(max_size=60))
def test_help_texts_of_any_kind(text):
    unit = stated_unit(text)
    assert unit == unit.lower()


@pytest.mark.parametrize(
    "evil",
    [
        "{" * 100_000,
        "}" * 100_000,
        " " * 100_000,
        '="' * 50_000,
        'a="b",' * 20_000,
        "\\" * 100_000,
        "1" * 100_000,
    ],
    ids=["open", "close", "blank", "quotes", "labels", "backslashes", "digits"],
)
def test_pages_made_to_be_slow_end(evil):
    # Quadratic behaviour would take minutes here; the suite's time limit is the judge.
    base = f'DCGM_FI_DEV_SM_CLOCK{{UUID="{GPU}"'
    for text in (evil, f"{base}{evil}", f"{base}}} {evil}", f"# HELP DCGM_FI_DEV_SM_CLOCK {evil}"):
        check_page(("\n".join([text] * 20)).encode())


def test_a_label_may_hold_anything_but_only_once():
    page = parse_page(b'a{x="\\n\\"\\\\}",y="}"} 1\na{x="1",x="2"} 1\na{x="\\q"} 1\na{} 2\na 3\n')
    assert [(s.labels, s.value) for s in page.samples] == [({"x": '\n"\\}', "y": "}"}, 1), ({}, 2), ({}, 3)]
    assert page.refused == 2


def test_entities_that_pages_name_are_checked():
    with pytest.raises(ContractError):
        check_entity("GPU-")
    assert understand(parse_page(b'DCGM_FI_DEV_SM_CLOCK{UUID="GPU-"} 1\n')).rows == {}
