"""Utilisation is never dressed up as FLOP: a bound from above and no more (reference/metering.md 2.3, 7.1)."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flopmeter.agent.metering.entity import describe
from flopmeter.agent.metering.interval import UTILISATION_WINDOW_NS, by_percent, point
from flopmeter.agent.metering.meter import Meter, MeterSettings
from flopmeter.agent.reading import NodeFacts, Reading
from flopmeter.contract.evidence_class import EvidenceClass
from flopmeter.contract.flop import Cycles, flop, integer_ops
from flopmeter.contract.usage import Device, Usage
from flopmeter.contract.w_table import current

S = 1_000_000_000
A10 = Device("GPU-1", "NVIDIA A10", "8.6", 72, 1695)
CARDS = (
    A10,
    Device("GPU-1", "Tesla V100-SXM2-16GB", "7.0", 80, 1530),
    Device("GPU-1", "NVIDIA H100 80GB HBM3", "9.0", 132, 1980),
    Device("GPU-1", "NVIDIA GB300", "10.3", 148, 2070),
)


def priced(u: Usage, device: Device) -> list[Any]:
    arch = current().arch(device.compute_capability, device.name)
    assert arch is not None
    cycles = Cycles(
        evidence_class=u.evidence_class,
        measured=u.measured,
        spread_ppm=u.spread_ppm,
        elapsed=u.sm_elapsed_cycles,
        active=u.sm_active_cycles,
        hmma=u.hmma_cycles,
        imma=u.imma_cycles,
        dmma=u.dmma_cycles,
        tensor_other=u.tensor_other_cycles,
        fp64=u.fp64_cycles,
        fp32=u.fp32_cycles,
        fp16=u.fp16_cycles,
        int=u.int_cycles,
    )
    return [flop(cycles, arch, dtype) for dtype in ("", "tf32", "fp8")] + [integer_ops(cycles, arch)]


shares = st.floats(0, 100)
activity = st.fixed_dictionaries(
    {},
    optional={
        "utilization_gpu_pct": shares,
        # What says that the GPU works and not at what: graphics, SM and DRAM activity.
        "percent": st.dictionaries(st.sampled_from([1, 2, 10]), shares),
        "rates_mib_s": st.dictionaries(st.sampled_from([20, 21, 60, 61]), st.floats(0, 1e6)),
        "sm_clock_mhz": st.lists(st.floats(300, 1980), min_size=1, max_size=3).map(tuple),
        "power_mw": st.integers(0, 1_400_000),
        "memory_used_bytes": st.integers(0, 1 << 40),
        "active": st.floats(0, 1),  # counters 248 and 249 alone
    },
)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(activity, min_size=2, max_size=6),
    st.sampled_from(CARDS),
    st.sampled_from(["nvml", "dcgm", "trace"]),
    st.sampled_from([S, 7 * S]),
)
def test_no_path_gives_a_point_without_a_pipe_counter(values, card, source, step):
    meter = Meter(
        NodeFacts("n", bytes(16), "595.1", "13", source, (card,)), MeterSettings(), agent_version="0"
    )
    sealed, elapsed, busy = [], 10**12, 10**11
    for i, given_ in enumerate(values * 3):
        row = dict(given_)
        passed = card.sm_count * 1_200 * step // 1000
        elapsed, busy = elapsed + passed, busy + int(passed * row.get("active", 0))
        cycles = {248: elapsed, 249: busy} if row.pop("active", None) is not None else {}
        t = (i + 1) * step
        sealed += meter.observe(
            Reading("GPU-1", t, 10**18 + t, cycles, energy_mj=10**6 + i * 300_000, processes=(), **row)
        )
    if (last := meter.flush(final=True)) is not None:
        sealed.append(last)
    for u in (u for one in sealed for u in one.batch.usage):
        for figure in priced(u, card):
            assert (figure.lower, figure.point) == (0, 0)
            assert figure.upper >= 0


def class_c(utilisation: float, seconds: float, *, source: str = "nvml", **more: Any) -> Any:
    duration = round(seconds * S)
    reading = Reading("GPU-1", 10 * S + duration, 1, utilization_gpu_pct=utilisation, **more)
    entity = describe(A10, current(), source=source)
    got, refused = by_percent(10 * S, None, reading, point(reading), entity)
    assert (got.evidence_class, refused) == (EvidenceClass.C, "")
    return got


@pytest.mark.parametrize("seconds", [0.25, 1.0])
def test_the_upper_bound_is_utilisation_times_the_most_that_can_have_run(seconds):
    got = class_c(40.0, seconds, sm_clock_mhz=(900.0,))
    assert got.numbers[1] == 72 * 1_695_000 * round(seconds * 1000)
    assert got.numbers[2] == got.numbers[1] * 4 // 10


def test_utilisation_says_nothing_of_more_than_the_second_before_it():
    """At a tick of 10 s, 40 % of the last second leaves nine that nobody saw: the bound must hold them."""
    got = class_c(40.0, 10.0)
    assert got.numbers[2] == 72 * 1_695_000_000 * (UTILISATION_WINDOW_NS * 4 // 10 + 9 * S) // S
    assert class_c(0.0, 1.0).numbers[2] == 0
    page = class_c(0.0, 1.0, source="dcgm")  # as old as the exporter's collect interval
    assert page.numbers[2] == page.numbers[1]
