"""The meter over its own restarts: behind the books' head, over a reboot, from a good or a damaged journal."""

from dataclasses import replace

import pytest
from metering import (
    BOOT,
    BUSY,
    H100,
    JOB_A,
    ONE_SECOND,
    SECOND,
    UNIX0,
    Node,
    device,
    duration,
    facts,
    gaps,
    meter,
    notices,
    percent,
    rows,
    total,
)

from flopmeter.agent.reading import CYCLE_IDS, Happening, HappeningKind, Reading
from flopmeter.agent.shipping.encode import encode_batch, encode_inventory
from flopmeter.agent.shipping.journal import load_journal
from flopmeter.collector.encode import decode_inventory
from flopmeter.collector.ingest.encode import BatchView, device_bounds, divided
from flopmeter.contract.errors import ContractError
from flopmeter.contract.usage import GapReason, NoticeKind


def journal() -> bytes:
    node = Node(t=177 * SECOND)
    node.read()
    node.tick()
    node.read(cycles=dict.fromkeys(CYCLE_IDS, 1 << 62), t_boot_ns=node.t + 1)
    node.tick()
    node.tick()
    assert node.sealed or node.flush()
    return node.sealed[-1].journal


# ---- re-anchoring -------------------------------------------------------------------------------------


def test_usage_that_is_in_the_books_already_is_dropped_and_the_rest_is_a_gap() -> None:
    node = Node(t=125 * SECOND).calibrated()
    node.flush()
    for _ in range(20):
        node.tick()
    head = node.t - 5 * SECOND
    node.agent.note(NoticeKind.REANCHORED, "said before")
    node.agent.skip_to(BOOT, head, node.t)
    node.tick()
    node.tick()
    last = node.flush()[-1]
    assert last.batch.window_start_boot_ns == head
    assert gaps([last]) == [(GapReason.RECORD_LOST, 6, JOB_A)]
    assert total([last], "sm_elapsed_cycles") == ONE_SECOND
    assert notices([last]) == ["reanchored"]


def test_skipping_to_the_future_ignores_readings_until_then_in_a_replay() -> None:
    node = Node(agent=meter(facts(source="trace"))).calibrated()
    assert node.agent.skip_to(BOOT, node.t + 10 * SECOND, node.t)
    for _ in range(12):
        node.tick()
    assert duration(node.flush()) == 2 * SECOND


def test_live_nothing_lies_in_the_future() -> None:
    node = Node().calibrated()
    assert not node.agent.skip_to(BOOT, node.t + 10 * SECOND, node.t)
    for _ in range(12):
        node.tick()
    assert duration(node.flush()) == 18 * SECOND


def test_skipping_backwards_or_in_another_boot_changes_nothing() -> None:
    node = Node().calibrated()
    node.flush()
    node.tick()
    node.agent.skip_to(BOOT, node.t - 1 - SECOND, node.t)
    node.agent.skip_to(bytes(16), node.t + SECOND, node.t)
    assert duration(node.flush()) == 7 * SECOND


# ---- reboots ------------------------------------------------------------------------------------------

NEXT = bytes([77]) * 16


def test_a_reboot_seals_the_old_boot_and_owes_the_time_between_by_the_wall_clock() -> None:
    node = Node(t=1000 * SECOND).calibrated()
    node.tick()
    up = node.t - 5 * SECOND
    node.take(
        Happening(HappeningKind.REBOOT, node.t + 60 * SECOND - up, UNIX0 + node.t + 60 * SECOND, boot_id=NEXT)
    )
    assert node.sealed[0].boot_id == BOOT
    assert node.agent.boot_id == NEXT
    node.gpu.reset()
    for i in range(8):
        t = node.t + (70 + i) * SECOND
        node.gpu.run(SECOND, BUSY)
        node.take(node.gpu.reading(t - up, unix=UNIX0 + t))
    sealed = node.flush()
    assert sealed[-1].boot_id == NEXT
    assert gaps(sealed) == [(GapReason.RESET, 70, JOB_A)]
    assert total(sealed, "sm_elapsed_cycles") == (7 + 7) * ONE_SECOND
    assert "rebooted" in notices(sealed)
    assert sealed[-1].batch.window_end_boot_ns < sealed[0].batch.window_end_boot_ns


def test_a_reboot_while_the_agent_was_down() -> None:
    node = Node(t=1000 * SECOND).calibrated()
    node.flush()
    node.restart(boot=NEXT)
    node.gpu.reset()
    for i in range(8):
        t = node.t + (70 + i) * SECOND
        node.gpu.run(SECOND, BUSY)
        node.take(node.gpu.reading(t - 1050 * SECOND, unix=UNIX0 + t))
    sealed = node.flush()
    assert gaps(sealed) == [(GapReason.RESET, 70, JOB_A)]
    assert notices(sealed) == ["calibration", "rebooted"]


def test_the_journal_says_where_a_meter_began_without_one_in_this_boot() -> None:
    node = Node(t=1000 * SECOND)
    node.read()
    node.tick()
    assert load_journal(node.flush()[-1].journal).began_ns == 1000 * SECOND
    node.restart()
    node.tick()
    node.tick()
    assert load_journal(node.flush()[-1].journal).began_ns == 1000 * SECOND
    node.restart(boot=NEXT)
    node.take(node.gpu.reading(5 * SECOND, unix=UNIX0 + node.t))
    assert load_journal(node.flush()[-1].journal).began_ns == -1


def test_a_wall_clock_gone_mad_over_a_reboot_is_bounded() -> None:
    for shift, days in ((-(10**18), None), (10**18, 31)):
        node = Node(t=1000 * SECOND).calibrated()
        node.flush()
        node.restart(boot=NEXT)
        node.take(node.gpu.reading(5 * SECOND, unix=UNIX0 + shift))
        sealed = node.flush()
        assert [d // 86_400 for _, d, _ in gaps(sealed)] == ([] if days is None else [days])
        (said,) = [n.detail for n in sealed[-1].batch.notices if n.entity_index == 0]
        booked = 0 if days is None else days * 86_400 * SECOND
        assert said.endswith(f"ns passed over a reboot; {booked} ns are booked as a gap")


def test_a_reboot_without_a_boot_id_is_refused() -> None:
    node = Node().calibrated()
    node.take(Happening(HappeningKind.REBOOT, 5, UNIX0, boot_id=b"short"))
    assert node.agent.boot_id == BOOT
    assert "reading-refused" in notices(node.flush())


@pytest.mark.parametrize(
    "damage",
    [
        lambda j: j[:-1],
        lambda j: j[: len(j) // 2],
        lambda j: j.replace(b"journal/1", b"journal/2"),
        lambda j: j.replace(b"GPU-0", b"GPU-1"),
        lambda j: b"\0" * 100,
        lambda j: b"{}",
        lambda j: b"flopmeter-journal/1 00000000 ",
    ],
)
def test_a_damaged_journal_starts_anew_and_says_so(damage) -> None:  # type: ignore[no-untyped-def]
    node = Node(agent=meter(journal=damage(journal()))).calibrated()
    sealed = node.flush()
    assert notices(sealed) == ["spool-torn", "calibration"]
    assert total(sealed, "sm_elapsed_cycles") == 6 * ONE_SECOND


def test_an_empty_journal_is_none() -> None:
    assert notices(Node(agent=meter(journal=b"")).calibrated().flush()) == ["calibration"]


def test_a_journal_of_fewer_devices_than_there_are_now() -> None:
    node = Node().calibrated()
    node.flush()
    node.agent = meter(facts(device(0), device(1)), journal=node.sealed[-1].journal)
    node.tick()
    assert "devices-changed" in notices(node.flush())
    assert duration(node.sealed, "GPU-0") == 7 * SECOND


def test_facts_that_changed_over_a_restart_are_in_the_inventory() -> None:
    node = Node().calibrated()
    node.flush()
    node.agent = meter(replace(facts(), nvml="14.1"), journal=node.sealed[-1].journal)
    node.tick()
    assert node.flush()[-1].inventory.nvml == "14.1"
    assert node.sealed[-1].inventory.devices[0].name == H100


def test_a_gap_of_a_gpu_cut_into_instances_has_no_price_and_the_collector_takes_it() -> None:
    """Its SMs are metered in the instances; refusing it would lose the instances' usage with it."""
    instance = device(1, entity="MIG-1", mig=True, parent="GPU-0", gpu_instance=1, sm_count=16)
    node = Node(agent=meter(facts(device(0), instance)))
    for _ in range(70):
        node.fail(entity="GPU-0")
        node.take(Reading("MIG-1", node.t, UNIX0 + node.t, error="NVML_ERROR_UNKNOWN"))
    (sealed,) = node.sealed
    parent, part = sealed.batch.usage
    assert (parent.duration_ns > 0, parent.sm_elapsed_cycles) == (True, 0)
    assert part.sm_elapsed_cycles > 0
    inventory = decode_inventory(encode_inventory(sealed.inventory))
    bounds = [device_bounds(d, 0, divided(inventory)) for d in inventory.devices]
    BatchView(encode_batch(sealed.batch)).groups(bounds)
    with pytest.raises(ContractError, match="never priced at nothing"):
        BatchView(encode_batch(sealed.batch)).groups([device_bounds(d, 0) for d in inventory.devices])


@pytest.mark.parametrize("counters", [True, False])
def test_a_device_of_which_no_reading_was_kept_is_a_gap_since_it_was_there(counters: bool) -> None:
    """It came just before a window closed, and the agent died in the next."""
    node = Node().calibrated()
    node.agent.refacts(facts(device(0), device(1)))
    node.advance()
    node.tick(60)
    (sealed,) = node.sealed
    came = 126 * SECOND  # at the last reading before it was listed
    node = Node(
        agent=meter(facts(device(0), device(1)), journal=sealed.journal), t=190 * SECOND, entity="GPU-1"
    )
    for _ in range(3):
        node.tick() if counters else node.take(percent(node.t, entity="GPU-1"))
        node.t += 0 if counters else SECOND
    last = node.agent.flush(final=True)
    assert last is not None
    (gap,) = gaps([last], "GPU-1")
    assert gap[0] is GapReason.AGENT_DOWN
    first = 191 * SECOND if counters else 190 * SECOND
    assert sum(u.duration_ns for _, u in rows([last], "GPU-1") if u.gap_reason) == first - came
