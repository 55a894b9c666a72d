"""The protobuf edge: every rule of the contract refuses what breaks it, by name, and nothing else."""

import contextlib
import dataclasses

import pytest
from builders import SM_COUNT, TRAINING, WINDOW_NS, batch, busy, gap, inventory
from hypothesis import given, settings
from hypothesis import strategies as st

from flopmeter.collector.books import SUM_FIELDS, add_rows
from flopmeter.collector.encode import decode_batch, decode_inventory
from flopmeter.collector.ingest import encode
from flopmeter.collector.ingest.decide import told_ns, usage_rows
from flopmeter.collector.ingest.encode import BatchView, Implausible, device_bounds
from flopmeter.contract.errors import ContractError
from flopmeter.contract.evidence_class import EvidenceClass
from flopmeter.contract.limits import MAX_SM_CLOCK_MHZ
from flopmeter.contract.usage import (
    ALL_MEASURED,
    GapReason,
    Measured,
    NoticeKind,
    Usage,
    Workload,
    WorkloadKind,
)
from flopmeter.wire.v1 import batch_pb2

DIGEST = bytes(range(32))
DEVICES = [device_bounds(d, 7 + i) for i, d in enumerate(decode_inventory(inventory("n", gpus=2)).devices)]


def groups(message: batch_pb2.Batch):
    return BatchView(message.SerializeToString()).groups(DEVICES)


def test_rows_that_share_a_group_are_added_and_others_kept_apart():
    rows = [busy(0), busy(0, percent=10), busy(1), gap(0)]
    result = groups(batch(DIGEST, rows))
    assert len(result) == 3
    both = result[(0, 7, 1, 1023, 0, 0)]
    assert both == [getattr(rows[0], f) + getattr(rows[1], f) for f in SUM_FIELDS]
    assert result[(0, 8, 1, 1023, 0, 0)] == [getattr(rows[2], f) for f in SUM_FIELDS]
    assert result[(0, 7, 8, 0, 0, 1)][:3] == [WINDOW_NS, rows[3].sm_elapsed_cycles, 0]


def row(message: batch_pb2.Batch, **values: int) -> None:
    for name, value in values.items():
        setattr(message.usage[0], name, value)


def add_workload(m, **values):
    m.workloads.add(**values)


MALFORMED = {
    "entity past the inventory": (lambda m: row(m, entity_index=2), "entity_index 2 points past"),
    "workload past the list": (lambda m: row(m, workload_index=1), "workload_index 1 points past"),
    "unknown evidence class": (lambda m: row(m, evidence_class=9), "evidence_class 9 is not known"),
    "evidence class zero": (lambda m: row(m, evidence_class=0), "evidence_class 0 is not known"),
    "unknown measured bit": (lambda m: row(m, measured=4096), "unknown bits"),
    "spread between steps": (lambda m: row(m, spread_ppm=1), "spread_ppm 1 is not one of"),
    "unknown gap reason": (lambda m: row(m, gap_reason=10, evidence_class=8), "gap_reason 10"),
    "gap reason on a reading": (lambda m: row(m, gap_reason=1), "a gap reason for gaps and only"),
    "gap without a reason": (
        lambda m: row(m, evidence_class=8, measured=0), "a gap reason for gaps and only"),
    "gap that measured": (lambda m: row(m, evidence_class=8, gap_reason=1), "a gap measures nothing"),
    "unread number is not 0": (
        lambda m: row(m, measured=1023 & ~Measured.HMMA), "hmma_cycles is .* says it was not read"),
    "unread energy is not 0": (lambda m: row(m, measured=511), "energy_mj is .* says it was not read"),
    "window backwards": (
        lambda m: setattr(m, "window_end_boot_ns", m.window_start_boot_ns - 1), "boot-time start <= end"),
    "window of years": (
        lambda m: setattr(m, "window_end_boot_ns", m.window_start_boot_ns + 401 * 86_400 * 10**9),
        "within 400 days"),
    "boot time past 2^63": (lambda m: setattr(m, "window_end_boot_ns", 1 << 63), "boot-time start <= end"),
    "no wall clock": (lambda m: setattr(m, "window_start_unix_ns", 0), "wall-clock times"),
    "wall clock past 2^63": (lambda m: setattr(m, "window_end_unix_ns", 1 << 63), "wall-clock times"),
    "digest too short": (lambda m: setattr(m, "inventory_digest", b"x"), "inventory_digest: expected 32"),
    "control character in version": (lambda m: setattr(m, "agent_version", "a\nb"), "agent_version"),
    "anchor past the inventory": (lambda m: m.anchors.add(entity_index=2), "anchor: entity_index 2"),
    "anchor ids without values": (lambda m: m.anchors.add(counter_ids=[248]), "as many values as ids"),
    "anchor counter twice": (
        lambda m: m.anchors.add(counter_ids=[248, 248], counter_values=[1, 2]), "each counter once"),
    "unknown notice": (lambda m: m.notices.add(kind=99), "notice: kind 99 is not known"),
    "notice past the inventory": (
        lambda m: m.notices.add(kind=1, entity_index_plus_one=3), "notice: entity 2 is past"),
    "notice too long": (lambda m: m.notices.add(kind=1, detail="x" * 1025), "1024 characters of detail"),
    "too many rows": (lambda m: m.usage.extend([m.usage[0]] * 8192), "at most 8192 rows"),
    "too many workloads": (lambda m: m.workloads.extend([m.workloads[0]] * 4096), "at most 4096"),
    "too many notices": (
        lambda m: m.notices.extend([batch_pb2.Notice(kind=1)] * 4097), "at most 4096 anchors and 4096"),
}  # fmt: skip


@pytest.mark.parametrize("name", MALFORMED)
def test_what_breaks_the_contract_is_named(name):
    breaks, said = MALFORMED[name]
    message = batch(DIGEST, [busy(0)])
    groups(message)  # good before
    breaks(message)
    with pytest.raises(ContractError, match=said) as e:
        groups(message)
    assert not isinstance(e.value, Implausible)


SHARE = ALL_MEASURED | Measured.APPORTIONED
THEIRS = ALL_MEASURED & ~Measured.ENERGY | Measured.OTHERS


def shared(percent: int = 40, theirs: int = 60) -> tuple[Usage, Usage]:
    """`percent` of a busy entity as one workload's share, and `theirs` percent of it as what others did."""
    whole = busy(0, percent=100)
    share = {f: getattr(whole, f) * percent // 100 for f in SUM_FIELDS}
    rest = {f: getattr(whole, f) * theirs // 100 for f in SUM_FIELDS[2:11]}
    rest["sm_active_cycles"] = whole.sm_elapsed_cycles * theirs // 100
    none = dict.fromkeys(("duration_ns", "sm_elapsed_cycles", "energy_mj"), 0)
    return (
        dataclasses.replace(whole, measured=SHARE, **share),
        dataclasses.replace(whole, measured=THEIRS, **rest, **none),
    )


def test_shares_and_others_are_kept_apart():
    mine, theirs = shared()
    yours = dataclasses.replace(shared(60, 40)[0], workload_index=1)
    result = groups(batch(DIGEST, [mine, theirs, yours], [TRAINING, TRAINING]))
    assert result[(0, 7, 1, int(SHARE), 0, 0)][3] == mine.hmma_cycles
    assert result[(0, 7, 1, int(THEIRS), 0, 0)] == [getattr(theirs, f) for f in SUM_FIELDS]


def test_others_cannot_have_done_more_than_the_entity_elapsed():
    """An OTHERS row has no elapsed cycles of its own: what it may hold is what all shares elapsed."""
    mine, theirs = shared()
    yours = dataclasses.replace(shared(60, 40)[0], workload_index=1)
    room = mine.sm_elapsed_cycles + yours.sm_elapsed_cycles
    most = room + room // 200 + 1_000
    for name in SUM_FIELDS[2:11]:
        full = dataclasses.replace(theirs, **{name: most})
        groups(batch(DIGEST, [mine, yours, full], [TRAINING, TRAINING]))
        for rows in (
            [mine, yours, dataclasses.replace(theirs, **{name: most + 1})],
            [mine, yours, full, dataclasses.replace(full, evidence_class=EvidenceClass.A2)],
            [mine, dataclasses.replace(yours, entity_index=1), full],
            [full],
        ):
            with pytest.raises(Implausible, match=r"others than workload 0 did: \w+_cycles"):
                groups(batch(DIGEST, rows, [TRAINING, TRAINING]))


@pytest.mark.parametrize(
    ("which", "values", "said"),
    [
        (1, {"measured": int(THEIRS | Measured.APPORTIONED)}, "not both"),
        (
            1,
            {"measured": int(THEIRS & ~Measured.SM_ACTIVE), "sm_active_cycles": 0},
            "must state sm_active_cycles",
        ),
        (1, {"duration_ns": 1}, "duration_ns is 1"),
        (1, {"sm_elapsed_cycles": 1}, "sm_elapsed_cycles is 1"),
        (1, {"measured": int(THEIRS | Measured.ENERGY), "energy_mj": 1}, "energy_mj is 1"),
        (1, {"evidence_class": 8, "gap_reason": 1}, "a gap measures nothing"),
        (0, {"evidence_class": 8, "gap_reason": 1}, "a gap measures nothing"),
    ],
)
def test_marks_that_do_not_fit_are_refused(which, values, said):
    yours = dataclasses.replace(shared(60, 40)[0], workload_index=1)
    message = batch(DIGEST, [*shared(), yours], [TRAINING, TRAINING])
    groups(message)  # good before
    for name, value in values.items():
        setattr(message.usage[which], name, value)
    with pytest.raises(ContractError, match=said) as e:
        groups(message)
    assert not isinstance(e.value, Implausible)


def test_a_shared_gap_is_a_share_and_what_others_may_have_done():
    whole = gap(0)
    half = {"duration_ns": WINDOW_NS // 2, "sm_elapsed_cycles": whole.sm_elapsed_cycles // 2}
    mine = dataclasses.replace(whole, measured=Measured.APPORTIONED, **half)
    theirs = dataclasses.replace(
        whole,
        measured=Measured.OTHERS | Measured.SM_ACTIVE,
        duration_ns=0,
        sm_elapsed_cycles=0,
        sm_active_cycles=half["sm_elapsed_cycles"],
    )
    assert len(groups(batch(DIGEST, [mine, theirs]))) == 2


def test_a_gap_is_never_priced_at_nothing():
    message = batch(DIGEST, [gap(0)])
    message.usage[0].sm_elapsed_cycles = 0
    with pytest.raises(ContractError, match="never priced at nothing"):
        groups(message)


MOST = SM_COUNT * MAX_SM_CLOCK_MHZ * WINDOW_NS // 1000 * 102 // 100 + SM_COUNT * MAX_SM_CLOCK_MHZ * 250_000
ELAPSED = busy(0).sm_elapsed_cycles
PIPE_MOST = ELAPSED + ELAPSED // 200 + 1_000
ENERGY_MOST = (WINDOW_NS + 120 * 10**9) * 10_000 // 1_000_000
LIMITS = [("sm_elapsed_cycles", MOST), ("energy_mj", ENERGY_MOST)] + [
    (name, PIPE_MOST) for name in SUM_FIELDS[2:11]
]


@pytest.mark.parametrize(("name", "most"), LIMITS)
def test_the_most_a_device_can_count_is_taken_and_one_more_is_refused(name, most):
    message = batch(DIGEST, [busy(0)])
    row(message, **{name: most})
    groups(message)
    row(message, **{name: most + 1})
    with pytest.raises(Implausible, match="SM-cycles" if name == "sm_elapsed_cycles" else name[:6] + "|W$"):
        groups(message)


def test_each_row_is_held_to_its_own_length_and_device():
    with pytest.raises(Implausible, match=f"entity 0 over {WINDOW_NS // 4} ns"):
        groups(batch(DIGEST, [busy(0), dataclasses.replace(busy(0), duration_ns=WINDOW_NS // 4)]))
    device = decode_inventory(inventory("n")).devices[0]
    bounds = [device_bounds(dataclasses.replace(device, sm_count=n), 7) for n in (SM_COUNT, SM_COUNT // 4)]
    with pytest.raises(Implausible, match="entity 1"):
        BatchView(batch(DIGEST, [busy(0), busy(1)]).SerializeToString()).groups(bounds)


def test_longer_than_any_outage_is_refused():
    message = batch(DIGEST, [busy(0)])
    row(message, duration_ns=encode.MAX_BRIDGE_NS + 1)
    with pytest.raises(Implausible, match="at most"):
        groups(message)


def test_a_row_may_bridge_an_outage_longer_than_its_window():
    long = busy(0, duration_ns=3 * 86_400 * 10**9)
    assert groups(batch(DIGEST, [long]))[(0, 7, 1, 1023, 0, 0)][0] == 3 * 86_400 * 10**9


row_lengths = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1), st.integers(1, 10**15)), max_size=12)


@given(row_lengths, st.integers(0, 10**14))
def test_the_most_time_of_an_entity_is_the_same_fast_and_slow(lengths, window_ns):
    """Rows of one entity stand one behind another, as an interval that several jobs shared is cut among them."""
    rows = [
        dataclasses.replace(gap(e, w, duration_ns=ns), measured=Measured.APPORTIONED) for e, w, ns in lengths
    ]
    boot = (10**15, 10**15 + window_ns)
    raw = batch(DIGEST, rows, [TRAINING, Workload(WorkloadKind.IDLE)], boot_ns=boot).SerializeToString()
    view = BatchView(raw)
    view.groups(DEVICES)
    assert view.told_ns == told_ns(decode_batch(raw))
    assert view.told_ns == max(window_ns, *(sum(ns for e, _, ns in lengths if e == n) for n in (0, 1)))
    assert view.entities == {e for e, _, _ in lengths}


def test_unknown_sm_count_means_no_cycles():
    device = dataclasses.replace(decode_inventory(inventory("n")).devices[0], sm_count=0)
    bounds = [device_bounds(device, 1)]
    message = batch(DIGEST, [busy(0)])
    with pytest.raises(Implausible):
        BatchView(message.SerializeToString()).groups(bounds)
    row(message, **dict.fromkeys(SUM_FIELDS[1:11], 0))
    BatchView(message.SerializeToString()).groups(bounds)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"kind": 0}, "kind 0"),
        ({"kind": 7}, "kind 7"),
        ({"kind": 3, "run": "x" * 257}, "run: expected at most 256"),
        ({"kind": 3, "job": " padded"}, "job: .*padding"),
        ({"kind": 3, "user": "a\x07"}, "user: .*printable"),
        ({"kind": 3, "dtype": "b\u202ef"}, "dtype: .*printable"),
    ],
)
def test_workload_names_are_checked(values, said):
    message = batch(DIGEST, [], [])
    message.workloads.add(**values)
    with pytest.raises(ContractError, match=said):
        BatchView(message.SerializeToString()).workload(0)


def test_unknown_fields_are_ignored_by_the_reader():
    message = batch(DIGEST, [busy(0)])
    known = groups(message)
    newer = message.SerializeToString() + bytes([0xFA, 0x07, 3]) + b"new"  # field 127
    assert BatchView(newer).groups(DEVICES) == known


def test_decode_batch_gives_back_what_was_put_in():
    rows = [busy(0), gap(1, reason=GapReason.AGENT_DOWN)]
    message = batch(DIGEST, rows, [TRAINING, Workload(WorkloadKind.IDLE)])
    message.anchors.add(
        entity_index=1,
        t_boot_ns=5,
        t_unix_ns=6,
        epoch=2,
        scale=1,
        counter_ids=[248, 249],
        counter_values=[9, 8],
    )
    message.notices.add(kind=4, t_boot_ns=1, t_unix_ns=2, detail="why", entity_index_plus_one=1)
    got = decode_batch(message.SerializeToString())
    assert list(got.usage) == rows
    assert got.workloads == (TRAINING, Workload(WorkloadKind.IDLE))
    assert got.anchors[0].counters == ((248, 9), (249, 8))
    assert got.anchors[0].energy_mj == -1
    assert (got.notices[0].kind, got.notices[0].entity_index) == (NoticeKind.DRIVER_RELOADED, 0)


def test_the_fast_and_the_slow_reader_agree():
    rows = [busy(0), busy(1, percent=3), busy(0, 1), gap(1)]
    message = batch(DIGEST, rows, [TRAINING, Workload(WorkloadKind.IDLE)])
    raw = message.SerializeToString()
    slow = {}
    add_rows(slow, usage_rows(decode_batch(raw), [0, 1], [7, 8]))
    assert slow == BatchView(raw).groups(DEVICES)


INVENTORY = {
    "not protobuf": (lambda _: b"\xff\xff", "expected a flopmeter.wire.v1.Inventory"),
    "not a UUID": (lambda m: setattr(m.devices[0], "entity", "gpu0"), "NVIDIA UUID"),
    "entity twice": (lambda m: setattr(m.devices[1], "entity", m.devices[0].entity), "each entity once"),
    "absurd SM count": (lambda m: setattr(m.devices[0], "sm_count", 1025), "at most 1024 SMs"),
    "label with newline": (lambda m: setattr(m, "node", "a\nb"), "node: expected printable"),
    "too many": (
        lambda m: m.devices.extend([batch_pb2.Device(entity=f"GPU-{i}") for i in range(1024)]),
        "at most 1024 devices",
    ),
}


@pytest.mark.parametrize("name", INVENTORY)
def test_bad_inventories_are_named(name):
    breaks, said = INVENTORY[name]
    message = batch_pb2.Inventory.FromString(inventory("n"))
    changed = breaks(message)
    raw = changed if isinstance(changed, bytes) else message.SerializeToString()
    with pytest.raises(ContractError, match=said):
        decode_inventory(raw)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=600))
def test_fuzz_bytes_that_are_not_batches(raw):
    for parse in (
        lambda: BatchView(raw).groups(DEVICES),
        lambda: decode_batch(raw),
        lambda: decode_inventory(raw),
    ):
        with contextlib.suppress(ContractError):
            parse()


SEED = batch(DIGEST, [busy(0), gap(1)], [TRAINING, Workload(WorkloadKind.IDLE)])
SEED.anchors.add(entity_index=1, counter_ids=[248], counter_values=[9])
SEED.notices.add(kind=4, detail="why")
SEED_BYTES = SEED.SerializeToString()


@settings(max_examples=500, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, len(SEED_BYTES) - 1), st.integers(0, 255)), min_size=1, max_size=6),
    st.integers(0, len(SEED_BYTES)),
)
def test_fuzz_a_good_batch_with_bytes_changed_and_the_end_cut(changes, cut):
    raw = bytearray(SEED_BYTES)
    for at, value in changes:
        raw[at] = value
    mutated = bytes(raw[:cut]) if cut % 3 == 0 else bytes(raw)
    try:
        found = BatchView(mutated).groups(DEVICES)
    except ContractError:
        return
    # What is taken keeps the promises that the books rest on, and the slow reader reads it the same.
    for key, sums in found.items():
        assert all(0 <= n < 1 << 63 for n in sums)
        assert key.evidence_class in set(EvidenceClass)
        assert sums[1] > 0 or key.evidence_class != EvidenceClass.GAP or sums[0] == 0
    try:
        decoded = decode_batch(mutated)
    except ContractError:
        return  # a workload name broke; intake checks those before it takes anything
    slow = {}
    indexes = range(len(decoded.workloads))
    add_rows(slow, usage_rows(decoded, indexes, [7, 8]))
    assert slow == found
