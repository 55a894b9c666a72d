"""Residual, spread steps, enums of the wire, limits that must agree with each other."""

from enum import IntEnum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flopmeter.collector.books import SUM_FIELDS
from flopmeter.contract import evidence_class, limits, usage
from flopmeter.contract.evidence_class import CYCLE_ERROR_PPM, SPREAD_STEPS_PPM, UPPER_ONLY, EvidenceClass
from flopmeter.contract.pipes import PIPES, RESIDUAL_NOISE_PPM, residual
from flopmeter.contract.usage import ALL_MEASURED, GapReason, Measured, NoticeKind, Usage, WorkloadKind
from flopmeter.wire.v1 import batch_pb2

_COUNT = st.integers(0, 10**20)


@pytest.mark.parametrize(
    ("rest", "expected"),
    [(4_999, 0), (5_000, 5_000), (5_001, 5_001), (0, 0), (-1, 0), (-1_000_000, 0)],
)
def test_residual_below_half_a_percent_is_noise(rest: int, expected: int) -> None:
    seen = residual(tensor_any=100_000 + rest, hmma=100_000, imma=0, dmma=0, elapsed=1_000_000)
    assert seen == expected


@pytest.mark.parametrize("pipe", ["imma", "dmma"])
@pytest.mark.parametrize(("rest", "expected"), [(12_999, 0), (13_000, 13_000)])
def test_what_counters_that_differ_by_a_percent_leave_over_is_no_float_work(
    pipe: str, rest: int, expected: int
) -> None:
    """0.5 % of the elapsed and 2 % of integer and FP64 work: a difference is not surer than its parts."""
    work = {"imma": 0, "dmma": 0, pipe: 400_000}
    assert residual(tensor_any=400_000 + rest, hmma=0, elapsed=1_000_000, **work) == expected


@pytest.mark.parametrize("pipe", ["imma", "dmma"])
@pytest.mark.parametrize(
    ("rest", "expected"), [(90_000, 0), (94_999, 0), (95_000, 5_000), (190_000, 100_000)]
)
def test_of_an_exporters_gauges_the_residual_is_what_they_cannot_be_off_by(
    pipe: str, rest: int, expected: int
) -> None:
    """1.1 / 0.9 of 400,000 is 90,000 more (metering.md 7.1: up to 10 % each): taken off, and 0.5 % as everywhere."""
    work = {"imma": 0, "dmma": 0, pipe: 400_000}
    b1 = evidence_class.MISMATCH_PPM[EvidenceClass.B1]
    seen = residual(tensor_any=400_000 + rest, hmma=0, elapsed=1_000_000, mismatch_ppm=b1, **work)
    assert seen == expected


def test_residual_is_whole_where_nothing_else_was_read() -> None:
    assert residual(tensor_any=700, hmma=0, imma=0, dmma=0, elapsed=1_000) == 700
    assert residual(tensor_any=4, hmma=None, imma=0, dmma=0, elapsed=1_000) == 4
    assert residual(tensor_any=1_030, hmma=None, imma=1_000, dmma=0, elapsed=10_000) == 10


def test_residual_of_nothing_is_nothing() -> None:
    assert residual(tensor_any=0, hmma=0, imma=0, dmma=0, elapsed=0) == 0


@given(any_=_COUNT, hmma=_COUNT, imma=_COUNT, dmma=_COUNT, elapsed=_COUNT)
def test_residual_is_never_negative_and_never_more_than_was_seen(
    any_: int, hmma: int, imma: int, dmma: int, elapsed: int
) -> None:
    rest = residual(tensor_any=any_, hmma=hmma, imma=imma, dmma=dmma, elapsed=elapsed)
    assert rest in (0, any_ - hmma - imma - dmma)
    assert 0 <= rest <= any_
    if rest == 0 and any_ > hmma + imma + dmma:
        assert (any_ - hmma - imma - dmma) * 1_000_000 < elapsed * RESIDUAL_NOISE_PPM


@given(st.integers(0, 5_000_000))
def test_spread_step_never_narrows_and_is_the_nearest(ppm: int) -> None:
    step = evidence_class.spread_step(ppm)
    assert step is not None
    assert step in SPREAD_STEPS_PPM
    assert step >= ppm
    assert not [s for s in SPREAD_STEPS_PPM if ppm <= s < step]


def test_a_spread_past_every_step_is_none_and_no_narrower_one() -> None:
    assert evidence_class.spread_step(5_000_001) is None


def test_every_class_has_its_half_width() -> None:
    assert set(CYCLE_ERROR_PPM) == set(EvidenceClass) == set(evidence_class.MISMATCH_PPM)
    assert all(CYCLE_ERROR_PPM[c] == 0 for c in UPPER_ONLY)
    ranked = [CYCLE_ERROR_PPM[c] for c in (EvidenceClass.A1, EvidenceClass.A2, EvidenceClass.A3)]
    assert ranked == sorted(ranked)


def test_pipes_are_the_usage_fields_and_the_books_columns() -> None:
    fields = [f"{pipe}_cycles" for pipe in PIPES]
    assert fields == [f for f in Usage.__dataclass_fields__ if f.endswith("_cycles") and f[:3] != "sm_"]
    assert fields == [f for f in SUM_FIELDS if f.endswith("_cycles") and f[:3] != "sm_"]


def test_wire_fields_are_the_usage_fields() -> None:
    wire = [f.name for f in batch_pb2.Usage.DESCRIPTOR.fields]
    assert sorted(wire) == sorted(Usage.__dataclass_fields__)


#: Numbers that are in signed bytes already. Adding is allowed; changing one is a broken wire.
WIRE_NUMBERS: dict[type[IntEnum], dict[str, int]] = {
    EvidenceClass: {"A1": 1, "A2": 2, "A3": 3, "B1": 4, "B2": 5, "C": 6, "D": 7, "GAP": 8},
    WorkloadKind: {"IDLE": 1, "UNATTRIBUTED": 2, "SLURM": 3, "POD": 4, "PROCESS": 5, "OTHER": 6},
    GapReason: {
        "NONE": 0,
        "READ_FAILED": 1,
        "READ_HUNG": 2,
        "RESET": 3,
        "AGENT_DOWN": 4,
        "SUSPENDED": 5,
        "REFUSED": 6,
        "SPOOL_FULL": 7,
        "LOST": 8,
        "RECORD_LOST": 9,
    },
    NoticeKind: {
        "AGENT_STARTED": 1,
        "AGENT_STOPPED": 2,
        "GPU_RESET": 3,
        "DRIVER_RELOADED": 4,
        "REBOOTED": 5,
        "CLOCK_STEPPED": 6,
        "SPOOL_TORN": 7,
        "SPOOL_FULL": 8,
        "RECORD_REFUSED": 9,
        "REANCHORED": 10,
        "DEVICES_CHANGED": 11,
        "SHARED_DEVICE": 12,
        "CALIBRATION": 13,
        "READING_REFUSED": 14,
        "SPOOL_LOST": 15,
    },
}


@pytest.mark.parametrize("enum", WIRE_NUMBERS, ids=lambda e: e.__name__)
def test_numbers_on_the_wire_never_change(enum: type[IntEnum]) -> None:
    now = {member.name: member.value for member in enum}
    assert WIRE_NUMBERS[enum].items() <= now.items()


def test_measured_bits_on_the_wire_never_change() -> None:
    bits = {m.name: m.value for m in Measured}
    assert bits == {
        "SM_ACTIVE": 1,
        "HMMA": 2,
        "IMMA": 4,
        "DMMA": 8,
        "TENSOR_OTHER": 16,
        "FP64": 32,
        "FP32": 64,
        "FP16": 128,
        "INT": 256,
        "ENERGY": 512,
        "APPORTIONED": 1024,
        "OTHERS": 2048,
    }
    assert int(ALL_MEASURED) == sum(bits.values()) - 1024 - 2048


def test_labels_are_what_reports_print() -> None:
    assert EvidenceClass.GAP.label == "gap"
    assert EvidenceClass.A1.label == "A1"
    assert GapReason.AGENT_DOWN.label == "agent-down"
    assert usage.WorkloadKind.SLURM.label == "slurm"


def test_limits_agree_with_each_other() -> None:
    assert limits.MAX_RECORD_BYTES < limits.MAX_MESSAGE_BYTES
    assert limits.MAX_IN_FLIGHT_RECORDS <= limits.MAX_RECORDS_PER_MESSAGE
    assert limits.MIN_TICK_NS <= limits.DEFAULT_TICK_NS <= limits.MIN_WINDOW_NS
    assert limits.MIN_WINDOW_NS <= limits.DEFAULT_WINDOW_NS <= limits.MAX_WINDOW_NS
    assert limits.ANCHOR_PERIOD_NS % limits.DEFAULT_WINDOW_NS == 0
    assert limits.MAX_ENTITIES <= limits.MAX_ROWS


def test_the_largest_node_that_ships_fits_one_record() -> None:
    """16 GPUs x 7 MIG instances, two workloads each in one window, widest numbers."""
    batch = batch_pb2.Batch(agent_version="0.1.0", inventory_digest=bytes(32))
    for entity in range(16 * 7):
        for workload in range(2):
            row = batch.usage.add(
                entity_index=entity, workload_index=workload, evidence_class=1, measured=1023
            )
            for field in batch_pb2.Usage.DESCRIPTOR.fields:
                if field.name.endswith(("_cycles", "_mj")):
                    setattr(row, field.name, 132 * 2_000_000_000 * 60)
    assert batch.ByteSize() < limits.MAX_RECORD_BYTES // 10
    assert len(batch.usage) < limits.MAX_ROWS
