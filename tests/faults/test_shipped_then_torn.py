"""A spool's tail is damaged after it was shipped: the agent meters that time again, the books count it once."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from books_dump import rows
from rig import open_pipeline
from sim_node import SimRecording

from flopmeter.collector.check.fsck import check_store
from flopmeter.collector.running import run_collector
from flopmeter.collector.settings import CollectorSettings

pytestmark = pytest.mark.faults
HOUR_NS = 3_600_000_000_000
START_NS = 1_000_000_000_000  # where SimRecording's boot clock starts


def life(state: Path, address: str, boot: bytes, *, after_s: int, until_s: int) -> None:
    """Meter the simulated node from `after_s` to `until_s` of a boot, ship all of it, and be killed."""
    facts = replace(SimRecording(1).facts(), source="sim", boot_id=boot * 16)
    pipeline = open_pipeline(facts, state, address)
    try:
        for item in SimRecording(until_s).items():
            if item.t_boot_ns > START_NS + after_s * 1_000_000_000:
                pipeline.observe(item._replace(t_unix_ns=item.t_unix_ns + (ord(boot) - ord("A")) * HOUR_NS))
        assert pipeline.uplink is not None
        assert pipeline.uplink.wait_for(lambda: pipeline.chain.spool.pending == 0, 90), pipeline.status
        copy = state.with_name("as-it-lay")
        shutil.copytree(state, copy)  # what a SIGKILL leaves: nothing was closed
    finally:
        pipeline.close()
    shutil.rmtree(state)
    copy.rename(state)


def booked(directory: Path, *, torn: bool) -> tuple[int, int]:
    """(observed ns, hmma cycles) after two boots, a kill, perhaps damage, and a last life."""
    state, store = directory / "state", directory / "books.sqlite"
    directory.mkdir()
    settings = CollectorSettings(store=store, listen="127.0.0.1:0", http="", admit_new=True, linger_ms=5)
    with run_collector(settings) as collector:
        life(state, collector.address, b"A", after_s=-1, until_s=40)
        life(state, collector.address, b"B", after_s=-1, until_s=40)
        if torn:
            segment = max((state / "spool").glob("*.seg"))
            os.truncate(segment, segment.stat().st_size - 300)
        life(state, collector.address, b"B", after_s=42, until_s=60)
    assert check_store(store, ()).difference is None
    query = "SELECT duration_ns, hmma_cycles FROM totals WHERE evidence_class != 8"
    found = [tuple(map(int, row.split("|"))) for row in rows(store, query)]
    return sum(ns for ns, _ in found), sum(cycles for _, cycles in found)


def test_time_that_was_shipped_is_counted_once(tmp_path: Path) -> None:
    whole = booked(tmp_path / "whole", torn=False)
    torn = booked(tmp_path / "torn", torn=True)
    assert torn[0] <= whole[0]
    assert torn[1] <= whole[1]
    # What the damage cost is the time around it, as a gap; never more than a few windows of 1 s.
    devices = len(SimRecording(1).facts().devices)
    assert whole[0] - torn[0] <= 6_000_000_000 * devices
