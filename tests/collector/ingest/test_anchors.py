"""Usage against quoted raw counters, where an entity is shared and where a counter's k is not 1."""

from flopmeter.collector.ingest.anchors import AnchorCheck
from flopmeter.contract.evidence_class import EvidenceClass
from flopmeter.contract.usage import ALL_MEASURED, Anchor, Batch, Device, Inventory, Measured, Usage

GPU = Device("GPU-0", "NVIDIA H100 80GB HBM3", "9.0", 132)
INVENTORY = Inventory("n", "c", "595.1", "13.1", "nvml", (GPU,))
SHARE = ALL_MEASURED | Measured.APPORTIONED
OTHERS = ALL_MEASURED & ~Measured.ENERGY | Measured.OTHERS


def anchor(t: int, counters: dict[int, int], *, scale: int = 1, k: tuple[int, ...] = ()) -> Anchor:
    return Anchor(0, t, t, 1, scale, tuple(counters.items()), k_ppm=k)


def row(measured: Measured = ALL_MEASURED, **numbers: int) -> Usage:
    return Usage(0, 0, EvidenceClass.A1, measured, 0, **{"duration_ns": 0, "sm_elapsed_cycles": 0, **numbers})


def batch(start: int, end: int, usage: tuple[Usage, ...], *anchors: Anchor) -> Batch:
    return Batch("0.1.0", b"", start, end, start, end, (), usage, anchors)


def check(usage: tuple[Usage, ...], before: Anchor, after: Anchor):
    """The fault of a window between two anchors, and how many pairs were compared."""
    checked = AnchorCheck()
    assert checked.take(1, b"boot", batch(0, 10, (), before), INVENTORY) is None
    fault = checked.take(1, b"boot", batch(10, 20, usage, after), INVENTORY)
    return fault, checked.compared


def test_shares_add_up_to_the_counters_and_what_others_did_is_not_added_again():
    before, after = anchor(10, {248: 0, 252: 0}), anchor(20, {248: 10, 252: 4})
    shares = (
        row(SHARE, sm_elapsed_cycles=500, hmma_cycles=200),
        row(OTHERS, hmma_cycles=328, sm_active_cycles=820),
        row(SHARE, sm_elapsed_cycles=820, hmma_cycles=328),
        row(OTHERS, hmma_cycles=200, sm_active_cycles=500),
    )
    assert check(shares, before, after) == (None, 1)
    fault, _ = check(shares[:2], before, after)
    assert fault is not None, "a share alone is not the entity"
    assert "sm_elapsed_cycles" in fault[0]


def test_a_counter_is_worth_k_cycles():
    """k 0.5: 8 counts over 132 SMs are 528 cycles; the agent may carry a fraction of one."""
    k = (1_000_000, 500_000)
    before, after = anchor(10, {248: 0, 252: 0}, k=k), anchor(20, {248: 10, 252: 8}, k=k)
    for hmma, good in ((528, True), (527, True), (529, True), (526, False), (530, False), (1056, False)):
        fault, compared = check((row(sm_elapsed_cycles=1320, hmma_cycles=hmma),), before, after)
        assert compared == 1
        assert (fault is None) is good, hmma


def test_a_counter_without_k_is_exact():
    before, after = anchor(10, {248: 0, 252: 0}), anchor(20, {248: 10, 252: 8})
    for hmma, good in ((1056, True), (1055, False), (1057, False)):
        fault, _ = check((row(sm_elapsed_cycles=1320, hmma_cycles=hmma),), before, after)
        assert (fault is None) is good, hmma


def test_anchors_of_different_k_say_nothing_of_each_other():
    before, after = anchor(10, {252: 0}), anchor(20, {252: 8}, k=(500_000,))
    assert check((row(hmma_cycles=7),), before, after) == (None, 0)


def test_an_anchor_at_the_start_of_its_window_may_stand_behind_the_usage_in_it():
    """A reading at 10 is in the window from 10 on, and so is the interval that ends with it."""
    checked = AnchorCheck()
    early = row(sm_elapsed_cycles=1320)
    assert checked.take(1, b"boot", batch(10, 11, (early,), anchor(10, {248: 10})), INVENTORY) is None
    late = row(sm_elapsed_cycles=660)
    assert checked.take(1, b"boot", batch(11, 20, (late,), anchor(20, {248: 15})), INVENTORY) is None
    assert checked.compared == 1


def test_over_time_that_is_in_no_window_the_books_may_hold_less_but_never_more():
    """A record that was refused for good, and what stood in its place, too: its window is missing by name."""
    for start, elapsed, good in ((10, 1320, True), (10, 660, False), (15, 660, True), (15, 1321, False)):
        checked = AnchorCheck()
        assert checked.take(1, b"boot", batch(0, 10, (), anchor(10, {248: 0})), INVENTORY) is None
        usage = (row(sm_elapsed_cycles=elapsed),)
        fault = checked.take(1, b"boot", batch(start, 20, usage, anchor(20, {248: 10})), INVENTORY)
        assert checked.compared == 1
        assert (fault is None) is good, (start, elapsed)


def test_behind_the_next_anchor_a_hole_is_forgotten():
    checked = AnchorCheck()
    checked.take(1, b"boot", batch(0, 10, (), anchor(10, {248: 0})), INVENTORY)
    checked.take(1, b"boot", batch(15, 20, (), anchor(20, {248: 10})), INVENTORY)
    assert checked.take(1, b"boot", batch(20, 30, (), anchor(30, {248: 15})), INVENTORY) is not None
