"""record and read: what the driver said, as a trace that reads back equal."""

import dataclasses
import json
import subprocess
import sys

import pytest

from fakes import FakeClock
from flopmeter.agent.errors import SettingsError, SourceError
from flopmeter.agent.reading import Happening, HappeningKind, NodeFacts, Reading
from flopmeter.agent.sources.sim import SimDead, SimDevice, SimScript, SimSource
from flopmeter.agent.sources.trace import TraceFile
from flopmeter.agent.tools.live import LiveRounds, RecordedRounds
from flopmeter.agent.tools.record import first_readings, record
from flopmeter.contract.usage import Device

S = 1_000_000_000
SCRIPT = SimScript(devices=(SimDevice(),) * 2)


def items_of(path) -> list[Reading | Happening]:
    with TraceFile(path) as trace:
        items = list(trace.items())
        assert not trace.truncated
    return items


@pytest.mark.parametrize("name", ["t.jsonl", "t.jsonl.gz", "t.jsonl.zst"])
def test_a_recording_reads_back_as_the_source_gave_it(tmp_path, name):
    clock = FakeClock()
    done = record(LiveRounds(SimSource(SCRIPT, clock), clock, S), clock, tmp_path / name, seconds=5)
    assert (done.readings, done.failed, done.seconds) == (12, 0, 5.0)
    assert done.size == (tmp_path / name).stat().st_size
    start, *readings, stop = items_of(tmp_path / name)
    assert (start.kind, stop.kind) == (HappeningKind.AGENT_START, HappeningKind.AGENT_STOP)
    again = SimSource(SCRIPT, FakeClock())
    assert readings == [again.reading_at(r.entity, r.t_boot_ns, r.t_unix_ns) for r in readings]
    assert [r.t_boot_ns - start.t_boot_ns for r in readings[::2]] == [i * S for i in range(6)]


def test_failed_reads_are_recorded_as_such(tmp_path):
    clock = FakeClock()
    start = clock.boot_ns()
    script = dataclasses.replace(SCRIPT, faults=(SimDead(1, start + S, start + 3 * S),))
    done = record(LiveRounds(SimSource(script, clock), clock, S), clock, tmp_path / "t", seconds=4)
    assert (done.readings, done.failed) == (10, 2)
    assert sum(getattr(i, "error", None) == "NVML_ERROR_GPU_IS_LOST" for i in items_of(tmp_path / "t")) == 2


class Growing:
    """A node whose second GPU comes back after the first has been lost and NVML was asked again."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.asked = 0

    def facts(self) -> NodeFacts:
        self.asked += 1
        devices = tuple(Device(f"GPU-{i}", "x", "9.0", 1) for i in range(self.asked))
        return NodeFacts("n", bytes(16), "", "", "nvml", devices)

    def read(self, entity: str) -> Reading:
        error = "NVML_ERROR_GPU_IS_LOST" if self.asked == 1 else None
        return Reading(entity, self.clock.boot_ns(), self.clock.unix_ns(), error=error)

    def close(self) -> None:
        pass


def test_a_device_that_comes_is_listed_before_its_readings(tmp_path):
    clock = FakeClock()
    record(LiveRounds(Growing(clock), clock, S), clock, tmp_path / "t", seconds=2)
    kinds = [i.kind if isinstance(i, Happening) else i.entity for i in items_of(tmp_path / "t")]
    assert kinds == ["agent-start", "GPU-0", "mig-change", "GPU-0", "GPU-1", "GPU-0", "GPU-1", "agent-stop"]


def test_a_late_round_is_not_made_up_for(tmp_path):
    class Slow(SimSource):
        def read(self, entity: str) -> Reading:
            if len(seen) == 2:
                clock.advance(3_500_000_000)
            seen.append(entity)
            return super().read(entity)

    clock, seen = FakeClock(), []
    start = clock.boot_ns()
    one = dataclasses.replace(SCRIPT, devices=(SimDevice(),))
    record(LiveRounds(Slow(one, clock), clock, S), clock, tmp_path / "t", seconds=7)
    times = [(i.t_boot_ns - start) / S for i in items_of(tmp_path / "t") if isinstance(i, Reading)]
    assert times == [0, 1, 5.5, 6, 7]


def test_a_trace_is_not_recorded_again_and_a_file_not_overwritten(tmp_path):
    clock = FakeClock()
    record(LiveRounds(SimSource(SCRIPT, clock), clock, S), clock, tmp_path / "t", seconds=1)
    with TraceFile(tmp_path / "t") as trace, pytest.raises(SettingsError, match="live source"):
        record(RecordedRounds(trace, clock), clock, tmp_path / "other")
    with pytest.raises(SourceError, match="exists already"):
        record(LiveRounds(SimSource(SCRIPT, clock), clock, S), clock, tmp_path / "t", seconds=1)


def test_read_prints_one_round():
    clock = FakeClock()
    entity = SCRIPT.entity(1)
    script = dataclasses.replace(SCRIPT, faults=(SimDead(0, 0, 10**18),))
    (bad, was_read), (good, also) = first_readings(LiveRounds(SimSource(script, clock), clock, S))
    assert (was_read, json.loads(bad)["error"]) == (False, "NVML_ERROR_GPU_IS_LOST")
    assert (also, json.loads(good)["entity"]) == (True, entity)
    assert json.loads(good)["gpm"]["248"] > 0


FLOPMETER = [sys.executable, "-c", "from flopmeter.cli.main import main; main()"]


@pytest.mark.e2e
def test_the_commands(tmp_path):
    path = tmp_path / "t.jsonl.zst"
    command = [*FLOPMETER, "agent", "record", str(path), "--source", "sim", "--tick", "0.25", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as live:
        while not path.exists() or not _rounds(path):  # bounded by pytest's own timeout
            assert live.poll() is None
        live.terminate()
        out, err = live.communicate(timeout=60)
        assert live.returncode == 0, err
    got = json.loads(out)
    items = items_of(path)
    assert got["readings"] == len(items) - 2 >= 8
    assert items[-1].kind is HappeningKind.AGENT_STOP
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, "--overwrite" in done.stderr or "overwrite" in done.stderr) == (3, True)
    done = subprocess.run(
        [*FLOPMETER, "agent", "read", "--source", f"trace:{path}"], capture_output=True, timeout=60
    )
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 8


def _rounds(path) -> int:
    """Whole readings that a reader finds in the file while it is being written."""
    try:
        with TraceFile(path) as trace:
            return sum(isinstance(i, Reading) for i in trace.items())
    except SourceError:
        return 0  # the first line is not there yet


def test_cross_checks_and_device_facts_survive_a_recording(tmp_path):
    device = Device(
        "GPU-1", "x", "9.0", 1, pci_address="00000000:18:00.0", persistence=False, confidential=True
    )
    clock = FakeClock()
    given = {"percent": {1: 99.0, 10: 31.5}, "rates_mib_s": {20: 1.5, 60: 900.25}, "clock_event_reasons": 4}

    class One(Growing):
        def facts(self) -> NodeFacts:
            return NodeFacts("n", bytes(16), "", "", "nvml", (device,))

        def read(self, entity: str) -> Reading:
            return Reading(entity, self.clock.boot_ns(), self.clock.unix_ns(), **given)

    record(LiveRounds(One(clock), clock, S), clock, tmp_path / "t", seconds=1)
    with TraceFile(tmp_path / "t") as trace:
        assert trace.facts().devices == (device,)
        readings = [i for i in trace.items() if isinstance(i, Reading)]
    assert len(readings) == 2
    for reading in readings:
        assert {name: getattr(reading, name) for name in given} == given
