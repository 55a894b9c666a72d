"""A window: rows that only grow, limits that hold whatever comes, one residual a row."""

from dataclasses import replace

from metering import JOB_A, JOB_B, SECOND

from flopmeter.agent.metering.interval import ENERGY, HMMA, IMMA, SM_ACTIVE, TENSOR, Interval
from flopmeter.agent.metering.shares import APPORTIONED
from flopmeter.agent.metering.window import (
    MAX_WINDOW_NAME_CHARS,
    MAX_WINDOW_NOTICES,
    MAX_WINDOW_PROGRESS,
    MAX_WINDOW_ROWS,
    OTHERS,
    Window,
)
from flopmeter.agent.shipping.encode import encode_batch
from flopmeter.contract.evidence_class import EvidenceClass
from flopmeter.contract.identity import Identity
from flopmeter.contract.limits import MAX_RECORD_BYTES, MAX_ROWS
from flopmeter.contract.usage import (
    UNATTRIBUTED,
    Anchor,
    Batch,
    GapReason,
    Measured,
    NoticeKind,
    Progress,
    Workload,
    WorkloadKind,
)


def interval(
    measured: int, *, elapsed: int = 1000, tensor: int = 0, hmma: int = 0, imma: int = 0, energy: int = 0
):  # type: ignore[no-untyped-def]
    return Interval(
        EvidenceClass.A1, measured, 0, (SECOND, elapsed, 0, hmma, imma, 0, tensor, 0, 0, 0, 0, energy)
    )


def test_equal_keys_add_up_and_others_do_not() -> None:
    window = Window()
    window.add("GPU-0", JOB_A, interval(SM_ACTIVE))
    window.add("GPU-0", JOB_A, interval(SM_ACTIVE))
    window.add("GPU-0", JOB_B, interval(SM_ACTIVE))
    window.add("GPU-1", JOB_A, interval(SM_ACTIVE))
    window.add("GPU-0", JOB_A, interval(SM_ACTIVE | HMMA))
    window.add_gap("GPU-0", JOB_A, GapReason.LOST, (5, 7, *(0,) * 10))
    workloads, usage = window.usage({"GPU-0": 0, "GPU-1": 1})
    assert workloads == (JOB_A, JOB_B)
    assert [u.duration_ns for u in usage] == [2 * SECOND, SECOND, 5, SECOND, SECOND]
    assert [u.sm_elapsed_cycles for u in usage] == [2000, 1000, 7, 1000, 1000]
    assert usage[2].gap_reason is GapReason.LOST
    assert [u.entity_index for u in usage] == [0, 0, 0, 0, 1]


def test_an_exporters_gauges_leave_no_float_work_over_of_integer_work() -> None:
    """INT8 work alone, the any-tensor gauge 8 % above it: within what B1 may be off by, and not within what A1 may."""
    for grade, wanted in ((EvidenceClass.B1, 0), (EvidenceClass.A1, 80)):
        window = Window()
        said = interval(HMMA | IMMA | TENSOR, elapsed=2_000, imma=1_000, tensor=1_080)
        window.add("GPU-0", JOB_A, said._replace(evidence_class=grade))
        [row] = window.usage({"GPU-0": 0})[1]
        assert row.tensor_other_cycles == wanted


def test_residual_once_a_row_noise_cut_only_where_hmma_is_measured() -> None:
    for measured, hmma, tensor, wanted in (
        (HMMA | TENSOR, 600, 600 + 4, 0),  # 0.4 % of elapsed: noise
        (HMMA | TENSOR, 600, 600 + 5, 5),
        (HMMA | TENSOR, 600, 500, 0),
        (TENSOR, 0, 4, 4),  # nothing else saw it: whole
        (HMMA, 600, 0, 0),
    ):
        window = Window()
        window.add("GPU-0", JOB_A, interval(measured, hmma=hmma, tensor=tensor))
        (row,) = window.usage({"GPU-0": 0})[1]
        assert row.tensor_other_cycles == wanted
        assert row.hmma_cycles == hmma


def test_energy_that_no_gpu_draws_is_not_measured() -> None:
    window = Window()
    window.add("GPU-0", JOB_A, interval(SM_ACTIVE | ENERGY, energy=1_210_001_000))
    (row,) = window.usage({"GPU-0": 0})[1]
    assert row.energy_mj == 0
    assert not row.measured & ENERGY


def test_numbers_past_64_bits_become_several_rows_with_the_same_sum() -> None:
    window = Window()
    for _ in range(3):
        window.add("GPU-0", JOB_A, interval(SM_ACTIVE, elapsed=(1 << 63) - 1))
    usage = window.usage({"GPU-0": 0})[1]
    assert sum(u.sm_elapsed_cycles for u in usage) == 3 * ((1 << 63) - 1)
    assert sum(u.duration_ns for u in usage) == 3 * SECOND
    assert max(u.sm_elapsed_cycles for u in usage) < 1 << 63


def test_however_many_workloads_the_record_stays_below_its_limit_and_nothing_is_dropped() -> None:
    window = Window()
    count = 20_000
    for i in range(count):
        job = Workload(WorkloadKind.POD, job=f"{i:06}" + "é" * (i % 200), user="u" * 50)
        window.add(f"GPU-{i % 16}", job, interval(SM_ACTIVE))
    for i in range(1_000):
        window.say(NoticeKind.READING_REFUSED, 1, 1, f"GPU-{i}", "€" * 5_000)
    for i in range(512):
        for _ in range(2):
            window.anchor(
                f"GPU-{i}", Anchor(-1, 1, 1, 3, 132, tuple((k, 1 << 62) for k in range(248, 259)), 1 << 62)
            )
    index = {f"GPU-{i}": i for i in range(1_000)}
    workloads, usage = window.usage(index)
    assert sum(u.duration_ns for u in usage) == count * SECOND
    assert UNATTRIBUTED in workloads
    assert sum(len(w.job) + len(w.user) for w in workloads) <= MAX_WINDOW_NAME_CHARS
    assert len(usage) <= min(MAX_WINDOW_ROWS + 16, MAX_ROWS)
    window.say_left_out(3, 7, 8)
    notices = window.notices(index)
    assert len(notices) == MAX_WINDOW_NOTICES
    last = notices[-1]
    assert (last.kind, last.t_boot_ns, last.entity_index) == (NoticeKind.ATTRIBUTION, 7, -1)
    assert last.detail == (
        f"no room in this window for 3 workloads' claims of progress; {1_000 - MAX_WINDOW_NOTICES + 1} notices"
    )
    most = Progress(4_095, *[(1 << 63) - 1] * 5, (1 << 32) - 1)
    progress = (most,) * MAX_WINDOW_PROGRESS
    batch = Batch("0.1.0", bytes(32), 1, 2, 1, 2, workloads, usage, window.anchors(index), notices, progress)
    assert (
        len(encode_batch(replace(batch, usage=()))) - len(encode_batch(replace(batch, usage=(), progress=())))
        <= 64 * 256
    )
    assert len(encode_batch(batch)) < MAX_RECORD_BYTES


def test_too_many_rows_of_few_workloads_fall_together() -> None:
    window = Window()
    for i in range(MAX_WINDOW_ROWS + 100):
        window.add("GPU-0", JOB_A, Interval(EvidenceClass.A2, i, 0, (1, *(0,) * 11)))
    _, usage = window.usage({"GPU-0": 0})
    assert sum(u.duration_ns for u in usage) == MAX_WINDOW_ROWS + 100


def test_a_notice_is_told_once_per_entity_and_counted() -> None:
    window = Window()
    assert not window
    for i in range(3):
        window.say(NoticeKind.READING_REFUSED, i, i, "GPU-0", "first" if i == 0 else "later")
    window.say(NoticeKind.READING_REFUSED, 9, 9, "", "node")
    assert window
    notices = window.notices({"GPU-0": 4})
    assert [(n.entity_index, n.detail) for n in notices] == [(4, "first (3 times)"), (-1, "node")]
    assert window.entities() == {"GPU-0"}


def test_each_contradiction_about_one_gpu_is_told_and_counted() -> None:
    window = Window()
    for i, text in enumerate(
        ("two jobs by the files", "a job that the cgroup does not know", "two jobs by the files")
    ):
        window.say(NoticeKind.ATTRIBUTION, i, i, "GPU-0", text)
    window.say_left_out(0, 9, 9)  # nothing was left out: nothing is said
    assert [n.detail for n in window.notices({"GPU-0": 0})] == [
        "two jobs by the files (2 times)",
        "a job that the cgroup does not know",
    ]


def test_shares_without_room_for_what_lay_beside_them_are_counted() -> None:
    """Their upper bounds are the devices' only with it."""
    window = Window()
    for i in range(MAX_WINDOW_ROWS):
        window.add("GPU-0", JOB_A, Interval(EvidenceClass.A2, i, 0, (1, *(0,) * 11)))
    for i in range(2):
        window.add("GPU-1", JOB_A, Interval(EvidenceClass.A1, SM_ACTIVE | OTHERS, i, (0, 0, 500, *(0,) * 9)))
    window.say_left_out(0, 9, 9)
    (notice,) = window.notices({})
    assert "1 shares of GPUs without what lay beside them: their upper bounds are too low" in notice.detail


def test_dropping_usage_keeps_what_was_said() -> None:
    window = Window()
    window.add("GPU-0", JOB_A, interval(SM_ACTIVE))
    window.say(NoticeKind.REANCHORED, 1, 1, "", "x")
    window.drop_usage()
    assert window.usage({}) == ((), ())
    assert len(window.notices({})) == 1


def test_what_others_did_does_not_pile_up_where_workloads_fall_together() -> None:
    """Beside one entity's parts there is at most the entity: the collector refuses a batch that says more."""
    window = Window()
    others = Interval(EvidenceClass.A1, SM_ACTIVE | OTHERS, 0, (0, 0, 900, *(0,) * 9))
    part = Interval(EvidenceClass.A1, SM_ACTIVE | APPORTIONED, 0, (SECOND, 1000, 100, *(0,) * 9))
    for i in range(1_000):  # far more names than a record has room for
        job = Workload(WorkloadKind.POD, job=f"{i:04}" + "x" * 100)
        window.add("GPU-0", job, part)
        window.add("GPU-0", job, others)
    workloads, usage = window.usage({"GPU-0": 0})
    beside = [u for u in usage if Measured.OTHERS in u.measured]
    nobody = workloads.index(UNATTRIBUTED)
    assert len(beside) > 100
    assert {u.sm_active_cycles for u in beside} == {900}
    assert nobody not in {u.workload_index for u in beside}
    assert sum(u.duration_ns for u in usage) == 1_000 * SECOND
    full = Window()
    for i in range(MAX_WINDOW_ROWS):
        full.add("GPU-0", JOB_A, Interval(EvidenceClass.A2, i % 512, i // 512, (1, *(0,) * 11)))
    full.add("GPU-0", JOB_B, part)
    full.add("GPU-0", JOB_B, others)
    assert not [u for u in full.usage({"GPU-0": 0})[1] if Measured.OTHERS in u.measured]


def test_calibrations_are_told_by_subject() -> None:
    window = Window()
    for detail in ("H100: sum", "H100: again", "k of counter 252 of H100: 0.25"):
        window.say(NoticeKind.CALIBRATION, 1, 1, "", detail)
    assert [n.detail for n in window.notices({})] == ["H100: sum (2 times)", "k of counter 252 of H100: 0.25"]


def test_workloads_that_turn_out_to_be_one_are_added_together() -> None:
    window = Window()
    late, early = replace(JOB_A, run=""), JOB_A
    for workload in (late, JOB_B, early, late):
        window.add("GPU-0", workload, interval(SM_ACTIVE))
    window.add("GPU-1", early, interval(SM_ACTIVE))
    window.add_gap("GPU-1", late, GapReason.LOST, (5, 7, *(0,) * 10))
    describe = {late: JOB_A}.get
    workloads, usage = window.usage({"GPU-0": 0, "GPU-1": 1}, lambda w: describe(w, w))
    assert workloads == (JOB_A, JOB_B)
    assert [(u.entity_index, u.workload_index, u.sm_elapsed_cycles) for u in usage] == [
        (0, 0, 3000), (0, 1, 1000), (1, 0, 1000), (1, 0, 7),
    ]  # fmt: skip
    assert window.usage({"GPU-0": 0, "GPU-1": 1})[0] == (
        late,
        JOB_B,
        early,
    )  # asked again, nothing has changed


def test_two_that_shared_an_entity_stay_apart_even_so() -> None:
    """What lies beside each holds the other's part: together they would say more than the entity did."""
    window = Window()
    late = replace(JOB_A, run="")
    part = Interval(EvidenceClass.A1, SM_ACTIVE | APPORTIONED, 0, (SECOND, 500, 500, *(0,) * 9))
    beside = Interval(EvidenceClass.A1, SM_ACTIVE | OTHERS, 0, (0, 0, 500, *(0,) * 9))
    window.add("GPU-0", replace(JOB_A, dtype=""), interval(SM_ACTIVE))
    for workload in (late, JOB_A):
        window.add("GPU-0", workload, part)
        window.add("GPU-0", workload, beside)
    workloads, usage = window.usage({"GPU-0": 0}, lambda w: JOB_A)
    assert workloads == (JOB_A, JOB_A, JOB_A)
    assert [u.sm_active_cycles for u in usage] == [0] + [500] * 4


def test_what_is_known_of_workloads_fits_a_record_names_first() -> None:
    window = Window()
    seen = tuple(Identity(f"env:V{i:02}", "é" * 256) for i in range(32))
    for i in range(64):
        window.add("GPU-0", Workload(WorkloadKind.SLURM, job=str(i)), interval(SM_ACTIVE))
    workloads, usage = window.usage({"GPU-0": 0}, lambda w: replace(w, run="r" * 100, identities=seen))
    assert [w.run for w in workloads] == ["r" * 100] * 64
    described = [bool(w.identities) for w in workloads]
    assert described == [True] * 3 + [False] * 61
    assert window.left_out == 61
    batch = Batch("0.1.0", bytes(32), 1, 2, 1, 2, workloads, usage)
    assert len(encode_batch(batch)) < 4 * MAX_WINDOW_NAME_CHARS + 64 * 130 + 4_096


def test_a_record_stays_below_its_limit_with_every_workload_fully_described() -> None:
    window = Window()
    seen = tuple(Identity(f"env:V{i:02}", "v") for i in range(32))
    rows = Interval(EvidenceClass.A1, (1 << 10) - 1, 100_000, (1 << 62,) * 12)
    for i in range(MAX_WINDOW_ROWS):
        window.add(f"GPU-{i % 512}", Workload(WorkloadKind.SLURM, job=str(i)), rows)
    index = {f"GPU-{i}": i for i in range(512)}
    workloads, usage = window.usage(index, lambda w: replace(w, identities=seen))
    assert len(workloads) > 1_000
    assert window.left_out > 0
    spent = sum(len(encode_batch(Batch("", b"", 1, 2, 1, 2, (w,)))) for w in workloads)
    bare = sum(len(encode_batch(Batch("", b"", 1, 2, 1, 2, (Workload(w.kind),)))) for w in workloads)
    assert spent - bare <= 4 * MAX_WINDOW_NAME_CHARS + 3 * len(workloads)
    assert len(usage) == MAX_WINDOW_ROWS
    assert len(encode_batch(Batch("0.1.0", bytes(32), 1, 2, 1, 2, workloads, usage))) < MAX_RECORD_BYTES
