"""Capacity of a site against 10^20 op/s: exact lines, what is not known, and export control's figures apart."""

import pytest
from filing_ledger import regime
from hypothesis import given, settings
from hypothesis import strategies as st

from flopmeter.collector.law.laws import read_laws
from flopmeter.collector.law.rules import Verdict, in_force
from flopmeter.collector.report.capacity import Unseen, capacity_document
from flopmeter.collector.report.capacity import capacities as capacities_of
from flopmeter.collector.report.machines import Machine, counted
from flopmeter.collector.report.peak import PRECISIONS, best_op_s, peaks_op_s
from flopmeter.collector.report.sites import UNKNOWN, Place
from flopmeter.contract.w_table import current

H100, A100, STRANGE = "NVIDIA H100 80GB HBM3", "NVIDIA A100-SXM4-80GB", "NVIDIA X9000"
WEST, SLOW, DARK = Place("west", 400), Place("west", 100), Place("west", None)
EAST = Place("east", 400)
BF16 = 132 * 4096 * 1_830_000_000  # 989.4 TFLOP/s, by hand
TABLE = current()
SHIPPED = {r.id: r for r in read_laws(None).regimes}


def line(op_s=10**20, *, network=100, precision="any", one=True, comparison=">="):
    return regime(
        "1",
        regime_id="us-test-cluster",
        threshold_flop="",
        threshold_op_s=f'"{op_s}"',
        network_gbit_s=str(network),
        precision=f'"{precision}"',
        one_datacenter=str(one).lower(),
        comparison=f'"{comparison}"',
        unit='"operations-per-second"',
        scope='"fleet-capacity"',
        counting='"executed"',
    )


def gpus(n, place=WEST, model=H100, begin=0):
    return [Machine(f"{place.site}-{begin + i}", model, f"n{i // 8}", "c", place) for i in range(n)]


def capacities(law, found, unseen, table):
    return capacities_of(law, counted(found), unseen, table)


def at(found, site):
    (c,) = [c for c in found if c.site == site and not c.whole_fleet]
    return c


@pytest.mark.parametrize(("precision", "needed"), [("bf16", 101_069), ("fp8", 50_535)])
def test_requirement_23_ten_to_the_twenty_is_about_101_000_h100_at_bf16_and_half_as_many_at_fp8(
    precision, needed
):
    """regulations.md section 7: about 101,000 at dense BF16, 50,500 at dense FP8; "10,000" is wrong."""
    law = line(precision=precision)
    assert at(capacities(law, gpus(needed), [], TABLE), "west").verdict is Verdict.CROSSED
    assert at(capacities(law, gpus(needed - 1), [], TABLE), "west").verdict is Verdict.BELOW
    assert at(capacities(law, gpus(10_000), [], TABLE), "west").verdict is Verdict.BELOW


def test_requirement_23_exactly_at_the_line_and_one_operation_more():
    two = gpus(2)
    for comparison, met in ((">=", Verdict.CROSSED), (">", Verdict.BELOW)):
        law = line(2 * BF16, precision="bf16", comparison=comparison)
        assert at(capacities(law, two, [], TABLE), "west").verdict is met
    law = line(2 * BF16 + 1, precision="bf16")
    assert at(capacities(law, two, [], TABLE), "west").verdict is Verdict.BELOW


def test_requirement_23_the_network_decides_and_what_is_not_known_never_does():
    law = line(2 * BF16, precision="bf16", network=100)
    assert at(capacities(law, gpus(2, SLOW), [], TABLE), "west").verdict is Verdict.BELOW, (
        "100 is not over 100"
    )
    assert at(capacities(law, gpus(2, DARK), [], TABLE), "west").verdict is Verdict.UNDETERMINED
    mixed = [*gpus(1), *gpus(1, DARK, begin=1)]
    found = at(capacities(law, mixed, [], TABLE), "west")
    assert (found.op_s.lower, found.op_s.upper, found.verdict) == (BF16, 2 * BF16, Verdict.UNDETERMINED)
    assert (
        at(capacities(line(2 * BF16, precision="bf16", network=400), gpus(2), [], TABLE), "west").op_s.upper
        == 0
    )


def test_gpus_whose_site_nobody_named_may_stand_at_any():
    law = line(2 * BF16, precision="bf16")
    found = capacities(law, [*gpus(1), *gpus(1, UNKNOWN)], [], TABLE)
    assert at(found, "west").verdict is Verdict.UNDETERMINED
    assert at(found, "").op_s.lower == 0
    assert at(found, "").verdict is Verdict.BELOW, "one GPU alone is below wherever it stands"


@pytest.mark.parametrize("unseen", [Unseen("west", 8), Unseen("west", None), Unseen("", 1)])
def test_gpus_that_exist_and_are_in_no_inventory_leave_it_open(unseen):
    law = line(2 * BF16, precision="bf16")
    found = at(capacities(law, gpus(1), [unseen], TABLE), "west")
    assert found.verdict is Verdict.UNDETERMINED
    assert found.open_above == ("GPUs that exist are in no inventory",)
    assert at(capacities(law, gpus(1), [Unseen("east", 8)], TABLE), "west").verdict is Verdict.BELOW
    assert at(capacities(law, gpus(2), [unseen], TABLE), "west").verdict is Verdict.CROSSED, (
        "more does not undo it"
    )


def test_a_model_without_a_peak_leaves_it_open_and_is_named():
    law = line(2 * BF16, precision="bf16")
    found = at(capacities(law, [*gpus(1), *gpus(1, model=STRANGE, begin=1)], [], TABLE), "west")
    assert found.verdict is Verdict.UNDETERMINED
    assert found.open_above == (f"no peak is known of {STRANGE}",)


def test_a_line_that_is_not_of_one_datacenter_asks_for_the_fleet_too():
    law = line(3 * BF16, precision="bf16", one=False)
    *sites, fleet = capacities(law, [*gpus(2), *gpus(1, EAST)], [], TABLE)
    assert [c.site for c in sites] == ["east", "west"]
    assert fleet.whole_fleet
    assert (fleet.op_s.lower, fleet.op_s.upper) == (2 * BF16, 3 * BF16), "whether they are joined nobody said"
    assert fleet.verdict is Verdict.UNDETERMINED
    assert capacity_document(law, [fleet], 0)["sites"][0]["site"] is None


machine = st.builds(
    Machine,
    st.uuids().map(str),
    st.sampled_from([H100, A100, STRANGE]),
    st.just("n"),
    st.just("c"),
    st.sampled_from([WEST, SLOW, DARK, EAST, UNKNOWN]),
)


@settings(deadline=None)
@given(st.lists(machine, max_size=12), machine, st.sampled_from([100, 300]), st.booleans())
def test_one_more_gpu_never_makes_a_site_smaller_and_a_named_network_never_widens(found, more, network, one):
    """Monotony, and naming what was not known narrows: the old verdict, if it was one, stays."""
    law = line(4 * BF16, precision="bf16", network=network, one=one)
    before = {(c.site, c.whole_fleet): c for c in capacities(law, found, [], TABLE)}
    after = {(c.site, c.whole_fleet): c for c in capacities(law, [*found, more], [], TABLE)}
    for key, c in before.items():
        assert after[key].op_s.lower >= c.op_s.lower
        assert after[key].op_s.upper >= c.op_s.upper
        assert c.op_s.lower <= c.op_s.upper
        if c.verdict is Verdict.CROSSED:
            assert after[key].verdict is Verdict.CROSSED
    for speed in (50, 400):
        named = [
            m if m.place != DARK else Machine(m.entity, m.model, "n", "c", Place("west", speed))
            for m in found
        ]
        for key, c in {(c.site, c.whole_fleet): c for c in capacities(law, named, [], TABLE)}.items():
            if key in before and before[key].verdict is not Verdict.UNDETERMINED:
                assert c.verdict is before[key].verdict


def test_the_shipped_lines_are_100_and_300_gbit_and_bind_nobody():
    eo, bis = SHIPPED["us-eo-14110-cluster"], SHIPPED["us-bis-702-7-cluster"]
    assert (eo.capacity.op_s, eo.capacity.network_gbit_s, eo.capacity.one_datacenter) == (10**20, 100, True)
    assert (bis.capacity.op_s, bis.capacity.network_gbit_s) == (10**20, 300)
    now = 1_795_132_800_000_000_000
    assert not in_force(eo, now)
    assert not in_force(bis, now)
    assert [capacity_document(r, [], now)["in_force"] for r in (eo, bis)] == [False, False]


def test_best_is_the_most_of_one_precision_integers_included():
    a100 = peaks_op_s(A100, TABLE)
    assert a100["int8"] == 2 * a100["bf16"] == best_op_s(a100)
    assert list(a100)[:-1] == [p for p in PRECISIONS if p in a100]
    assert peaks_op_s(STRANGE, TABLE) == {}
    assert peaks_op_s("NVIDIA H20", TABLE)["fp8"] == 296 * 10**12, "no rates: as the datasheet prints it"


def test_the_ledgers_keys_of_a_run_are_left_out():
    """The helper drops an empty key; else the regime would not be read."""
    assert line().threshold_flop == 0
