"""From the driver to usage: the stand-in for NVML, the real binding, the source, the meter, sealed windows.

Virtual time; the truth is computed here from what the script says, millisecond by millisecond, in integers.
"""

from contextlib import ExitStack

import pytest
from fakenvml.driver import COMPILER, NO_COMPILER, SECOND, Machine

from flopmeter.agent.loop import Loop, LoopSettings
from flopmeter.agent.metering.meter import Meter, MeterSettings
from flopmeter.agent.pipeline import Pipeline, PipelineSettings, meter_factory
from flopmeter.agent.reader import Reader
from flopmeter.agent.shipping.spool import Spool
from flopmeter.collector.encode import decode_batch
from flopmeter.contract.evidence_class import EvidenceClass
from flopmeter.contract.flop import ZERO, Cycles, flop
from flopmeter.contract.record import parse_record
from flopmeter.contract.usage import GapReason, NoticeKind, Usage
from flopmeter.contract.w_table import current

pytestmark = pytest.mark.skipif(COMPILER is None, reason=NO_COMPILER)

MS = 1_000_000
BF16 = 4096  # FLOP of one SM in one cycle (reference/metering.md 3.2)
FAST = "345:0.4,1980:0.6"  # MHz: seconds
SLOW = "345:7,1980:11,1200:5"
WORK = "0.9:0.35,0.05:0.3,0.6:0.25"  # HMMA, share of the elapsed cycles


class Steps:
    """A script's steps, as the truth sees them: the value in each millisecond from `start_ns` on."""

    def __init__(self, text: str, start_ns: int, scale: int = 1) -> None:
        self.start_ms = start_ns // MS
        self.values: list[int] = []
        for part in text.split(","):
            value, _, seconds = part.partition(":")
            self.values += [round(float(value) * scale)] * (round(float(seconds) * 1000) if seconds else 1)

    def at(self, ms: int) -> int:
        return self.values[(ms - self.start_ms) % len(self.values)]


class Node:
    """A machine, its source and its meter: reads, meters, and keeps what is sealed."""

    def __init__(self, m: Machine, *, tick_ns: int = SECOND) -> None:
        self.m, self.tick_ns = m, tick_ns
        self.sealed = []
        self.journal = b""
        self.polls = False
        self.start()

    def start(self) -> None:
        self.source = self.m.source()
        settings = MeterSettings(tick_ns=self.tick_ns)
        facts = self.source.facts()
        self.meter = Meter(facts, settings, agent_version="t", journal=self.journal or None)
        self.devices = {d.entity: d for d in facts.devices}

    def stop(self) -> None:
        """As an agent stops: what is open stays open in the journal."""
        self.take([self.meter.flush()])
        self.source.close()

    def take(self, sealed) -> None:
        for each in filter(None, sealed):
            self.sealed.append(each)
            self.journal = each.journal

    def observe(self, readings) -> None:
        for reading in readings:
            self.take(self.meter.observe(reading))
        self.take(self.meter.advance(self.m.boot_ns(), self.m.unix_ns()))

    def refacts(self) -> None:
        facts = self.source.facts()
        self.devices = {d.entity: d for d in facts.devices}
        self.take(self.meter.refacts(facts))

    def round(self) -> None:
        self.observe([self.source.read(entity) for entity in self.devices])

    def tick(self, ns: int) -> None:
        left = ns
        while self.polls and left > SECOND // 10:  # the poller's thread, in virtual time
            self.m.advance(SECOND // 10)
            self.source.poll()
            left -= SECOND // 10
        self.m.advance(left)
        self.round()

    def run(self, seconds: float, tick_ns: int = 0) -> None:
        end = self.m.boot_ns() + round(seconds * SECOND)
        while self.m.boot_ns() < end:
            self.tick(min(tick_ns or self.tick_ns, end - self.m.boot_ns()))

    def rows(self, entity: str = "") -> list[Usage]:
        """All usage of an entity, the open window sealed for good."""
        if self.meter is not None:
            self.take([self.meter.flush(final=True)])
            self.meter = None
        found = []
        for s in self.sealed:
            names = [d.entity for d in s.inventory.devices]
            found += [u for u in s.batch.usage if names[u.entity_index] == (entity or self.m.uuid(0))]
        return found

    def notices(self, kind: NoticeKind) -> list[str]:
        return [n.detail for s in self.sealed for n in s.batch.notices if n.kind is kind]


def truth(clock: str, hmma: str, script_ns: int, since_ns: int, until_ns: int, sms: int = 132) -> int:  # noqa: PLR0917
    """FLOP that ran between two times, by the script, BF16."""
    mhz, share = Steps(clock, script_ns), Steps(hmma, script_ns, 1_000_000)
    # MHz x millionths x 1 ms = 10^-3 cycles
    total = sum(mhz.at(ms) * share.at(ms) for ms in range(since_ns // MS, until_ns // MS))
    return total * sms * BF16 // 1000


def figure(rows: list[Usage], sms: int = 132):
    arch = current().arch("9.0", "NVIDIA H100 80GB HBM3")
    total = ZERO
    for u in rows:
        cycles = Cycles(
            u.evidence_class, u.measured, u.spread_ppm, u.sm_elapsed_cycles, u.sm_active_cycles, u.hmma_cycles,
            u.imma_cycles, u.dmma_cycles, u.tensor_other_cycles, u.fp64_cycles, u.fp32_cycles, u.fp16_cycles,
            u.int_cycles,
        )  # fmt: skip
        total += flop(cycles, arch, "bf16")
    return total


def off(measured: int, true: int) -> float:
    return abs(measured - true) / true


@pytest.fixture
def machine(tmp_path):
    with ExitStack() as stack:
        yield lambda *lines, **how: stack.enter_context(Machine(tmp_path, *lines, **how))


def classes(rows):
    return {u.evidence_class for u in rows}


ANEW = ["sms=60 ci=1 start=4 size=4", "sms=16 ci=1 start=4 size=1", "sms=60 start=0 size=4"]
TICKS = [SECOND // 4, SECOND, 7 * SECOND, 60 * SECOND]


@pytest.mark.parametrize("tick_ns", TICKS, ids=lambda t: f"{t / SECOND:g}s")
@pytest.mark.parametrize("clock", [FAST, SLOW], ids=["fast", "slow"])
@pytest.mark.parametrize("scale", ["sum", "average"])
def test_a1_is_exact_in_either_scale_at_every_tick(machine, scale, clock, tick_ns):
    m = machine(f"gpu g0 scale={scale} clock={clock} hmma={WORK} power=655000")
    script = m.boot_ns()
    node = Node(m, tick_ns=tick_ns)
    node.polls = True
    node.tick(tick_ns)
    began = m.boot_ns()
    node.run(max(100, 4 * tick_ns / SECOND))
    rows = node.rows()
    assert {c for c in classes(rows) if c is not EvidenceClass.GAP} == {EvidenceClass.A1}
    got, true = figure(rows), truth(clock, WORK, script, began, m.boot_ns())
    assert off(got.point, true) < 0.00001  # asked: 0.1 %
    assert got.lower <= true <= got.upper
    assert sum(u.duration_ns for u in rows) == m.boot_ns() - began
    seconds = (m.boot_ns() - began) // SECOND
    assert sum(u.energy_mj for u in rows) == pytest.approx(655_000 * seconds, abs=2)
    assert len(node.notices(NoticeKind.CALIBRATION)) == 1


@pytest.mark.parametrize("tick_ns", TICKS, ids=lambda t: f"{t / SECOND:g}s")
@pytest.mark.parametrize("clock", [FAST, SLOW], ids=["fast", "slow"])
def test_a2_is_within_1_percent_with_buffered_clocks_at_every_tick(machine, clock, tick_ns):
    # The work follows a beat of its own, so that percentages weighted by cycles differ from those of time.
    m = machine(f"gpu g0 cycles=0 clock={clock} hmma={WORK} ring_ms=20 ring_len=120")
    script = m.boot_ns()
    node = Node(m, tick_ns=tick_ns)
    node.tick(tick_ns)
    node.polls = True
    began = m.boot_ns()
    node.run(max(230, 5 * tick_ns / SECOND))
    rows = node.rows()
    assert classes(rows) == {EvidenceClass.A2}
    got, true = figure(rows), truth(clock, WORK, script, began, m.boot_ns())
    assert off(got.point, true) < 0.01
    assert got.lower <= true <= got.upper
    assert sum(u.duration_ns for u in rows) == m.boot_ns() - began


@pytest.mark.parametrize("without", ["err.248=3", "err.248=999", "value.248=nan"])
def test_counters_without_the_elapsed_ones_are_metered_by_percentages_and_clocks(machine, without):
    m = machine(f"gpu g0 {without} clock={FAST} hmma={WORK}")
    script = m.boot_ns()
    node = Node(m)
    node.tick(SECOND)
    node.polls = True
    began = m.boot_ns()
    node.run(300)  # longer than the clocks of a GPU with all counters are asked for
    rows = node.rows()
    assert classes(rows) == {EvidenceClass.A2}
    assert off(figure(rows).point, truth(FAST, WORK, script, began, m.boot_ns())) < 0.01


@pytest.mark.parametrize("tick_ns", [SECOND // 4, SECOND, 10 * SECOND], ids=lambda t: f"{t / SECOND:g}s")
@pytest.mark.parametrize("clock", [FAST, SLOW], ids=["fast", "slow"])
def test_a2_with_polled_clocks_holds_the_truth_within_its_bounds(machine, clock, tick_ns):
    m = machine(f"gpu g0 cycles=0 clock={clock} hmma={WORK} ring_ms=0")
    script = m.boot_ns()
    node = Node(m, tick_ns=tick_ns)
    node.tick(tick_ns)
    node.polls = True
    began = m.boot_ns()
    node.run(115)
    rows = node.rows()
    assert classes(rows) == {EvidenceClass.A2}
    got, true = figure(rows), truth(clock, WORK, script, began, m.boot_ns())
    assert off(got.point, true) < (0.01 if tick_ns >= SECOND else 0.03)  # two or three clocks in 0.25 s
    assert got.lower <= true <= got.upper
    if clock == FAST and tick_ns >= SECOND:  # half of 345 to 1980, over the mean: said, not hidden
        assert min(u.spread_ppm for u in rows) >= 500_000


def test_a2_with_one_clock_per_reading_says_how_little_it_knows(machine):
    m = machine(f"gpu g0 cycles=0 clock=345:0.5,1980:0.5 hmma={WORK} ring_ms=0")
    script = m.boot_ns()
    node = Node(m)
    node.tick(SECOND)
    began = m.boot_ns()
    node.run(60)  # never polled: every reading falls on the same phase of the swing
    got = figure(node.rows())
    true = truth("345:0.5,1980:0.5", WORK, script, began, m.boot_ns())
    assert got.point < true / 2  # what percentages x the clock of the moment would have told
    assert got.lower <= got.point


def test_a1_across_an_agent_restart_loses_nothing(machine):
    m = machine(f"gpu g0 clock={SLOW} hmma={WORK}")
    script = m.boot_ns()
    node = Node(m)
    node.tick(SECOND)
    began = m.boot_ns()
    node.run(90.7)
    node.stop()
    m.advance(47 * SECOND)
    node.start()
    node.round()
    node.run(63)
    rows = node.rows()
    got, true = figure(rows), truth(SLOW, WORK, script, began, m.boot_ns())
    assert off(got.point, true) < 0.00001
    assert sum(u.duration_ns for u in rows) == m.boot_ns() - began
    assert not [u for u in rows if u.evidence_class is EvidenceClass.GAP]


def test_a2_across_an_agent_restart_is_a_gap_whose_price_holds_the_truth(machine):
    m = machine(f"gpu g0 cycles=0 clock={SLOW} hmma={WORK}")
    script = m.boot_ns()
    node = Node(m)
    node.tick(SECOND)
    began = m.boot_ns()
    node.run(90)
    node.stop()
    m.advance(47 * SECOND)
    node.start()
    node.round()
    node.run(63)
    rows = node.rows()
    got, true = figure(rows), truth(SLOW, WORK, script, began, m.boot_ns())
    (gap,) = {u.gap_reason for u in rows if u.evidence_class is EvidenceClass.GAP}
    assert gap is GapReason.AGENT_DOWN
    assert got.lower <= true <= got.upper
    assert sum(u.duration_ns for u in rows) == m.boot_ns() - began


@pytest.mark.parametrize(
    "seen",
    ["as errors", "by its counters alone", "by one counter alone", "by counters that passed the old ones"],
)
def test_a_gpu_reset_gives_nothing_negative_and_nothing_twice(machine, seen):
    m = machine(f"gpu g0 clock={SLOW} hmma={WORK}", "gpu g1 clock=1500 hmma=0.5")
    script = m.boot_ns()
    node = Node(m)
    node.tick(SECOND)
    began = m.boot_ns()
    node.run(70)
    last = m.tick(node.source, ns=SECOND // 2)
    node.observe([last])
    if seen == "by its counters alone":
        m.say("gpu g0 reset")
    elif seen == "by one counter alone":
        m.say("gpu g0 add.252=-1e12")
    else:
        m.say("gpu g0 state=reset reset")
        node.run(3)
        m.say("gpu g0 state=ok")
        if seen == "by counters that passed the old ones":
            # A difference across the reset would look like an interval in which little was done.
            m.say(
                "gpu g0 " + " ".join(f"add.{i}={count + 1000}" for i, count in last.cycles.items() if count)
            )
        node.refacts()
    node.run(60)
    rows = node.rows()
    assert all(v >= 0 for u in rows for v in (u.hmma_cycles, u.sm_elapsed_cycles, u.energy_mj))
    got, true = figure(rows), truth(SLOW, WORK, script, began, m.boot_ns())
    lost = sum(u.duration_ns for u in rows if u.evidence_class is EvidenceClass.GAP)
    assert SECOND <= lost <= 6 * SECOND
    assert true * 0.9 < got.point < true
    assert got.upper >= true
    assert sum(u.duration_ns for u in rows) == m.boot_ns() - began
    assert {u.gap_reason for u in rows} >= {GapReason.RESET}
    assert len(node.notices(NoticeKind.GPU_RESET)) >= 1
    # The other GPU never stopped counting.
    other = node.rows(m.uuid(1))
    assert EvidenceClass.GAP not in classes(other)
    true = truth("1500", "0.5", script, began, m.boot_ns())
    assert off(figure(other).point, true) < 0.00001


@pytest.mark.parametrize("again", ANEW)
@pytest.mark.parametrize("scale", ["sum", "average"])
def test_a_mig_instance_made_anew_is_counted_once_with_its_own_sms(machine, scale, again):
    clock, share = "1500", "0.5"
    m = machine(
        f"gpu g0 clock={clock} scale={scale}",
        f"gi g0 1 sms=32 hmma={share} ci=2",
        f"gi g0 5 sms=60 ci=1 start=4 size=4 hmma={share}",
    )
    script = m.boot_ns()
    node = Node(m)
    one, five = m.mig_uuid(0, 1), m.mig_uuid(0, 5)
    node.tick(SECOND)
    began = m.boot_ns()
    node.run(70)
    changed = m.boot_ns()
    m.say("gi g0 5 remove")
    m.say(f"gi g0 5 {again} hmma={share}")
    node.run(15)
    node.refacts()
    node.run(60)
    rows = node.rows(five)
    now_sms = 16 if "sms=16" in again else 60
    before = truth(clock, share, script, began, changed, sms=60)
    after = truth(clock, share, script, changed, m.boot_ns(), sms=now_sms)
    got = figure(rows)
    assert before < got.point < before + after
    assert got.lower <= before + after <= got.upper
    assert sum(u.duration_ns for u in rows) == m.boot_ns() - began
    gap_s = sum(u.duration_ns for u in rows if u.evidence_class is EvidenceClass.GAP) / SECOND
    assert 1 <= gap_s <= 20
    # What is no gap was counted at the right size.
    assert got.point == pytest.approx(before + after * (1 - gap_s / 75), rel=0.001)
    true = truth(clock, share, script, began, m.boot_ns(), sms=32)
    assert off(figure(node.rows(one)).point, true) < 0.00001
    whole = node.rows(m.uuid(0))
    assert sum(u.sm_elapsed_cycles for u in whole) == 0  # nothing of it twice
    assert sum(u.energy_mj for u in whole) > 0


def test_a_hang_is_one_gpus_gap_only(machine, tmp_path):
    m = machine(*(f"gpu g{i} cycles=0 clock=1500 hmma=0.5" for i in range(4)))
    script = m.boot_ns()
    node = Node(m)
    reader = Reader(node.source, m, deadline_s=0.5)
    node.round = lambda: node.observe(reader.read(list(node.devices)))
    node.tick(SECOND)
    began = m.boot_ns()
    node.run(30)
    hang = tmp_path / "hang"
    hang.touch()
    m.say(f"gpu g2 hang.nvmlGpmSampleGet={hang}")
    node.run(20)
    assert reader.stuck == {m.uuid(2)}
    m.say("gpu g2 hang.nvmlGpmSampleGet=")
    hang.unlink()
    while reader.stuck:
        node.tick(SECOND)
    node.run(30)
    for i in range(4):
        rows = node.rows(m.uuid(i))
        got, true = figure(rows), truth("1500", "0.5", script, began, m.boot_ns())
        assert sum(u.duration_ns for u in rows) == m.boot_ns() - began
        gaps = {u.gap_reason for u in rows if u.evidence_class is EvidenceClass.GAP}
        assert got.lower <= true <= got.upper
        if i == 2:
            assert GapReason.READ_HUNG in gaps
        else:
            assert not gaps
            assert off(got.point, true) < 0.001
    reader.close()


@pytest.mark.parametrize("mig", [False, True], ids=["72-gpus", "63-instances-on-9"])
def test_a_node_of_72_entities_is_metered_to_the_cycle(machine, mig):
    # Scripted work differs by entity, so that none can stand for another.
    if mig:
        lines = [f"gpu g{g} clock={FAST}" for g in range(9)]
        lines += [f"gi g{g} {i} sms=16 hmma=0.{g}{i}" for g in range(9) for i in range(1, 8)]
        shares = {Machine.mig_uuid(g, i): (f"0.{g}{i}", 16) for g in range(9) for i in range(1, 8)}
    else:
        lines = [f"gpu g{i} clock={FAST} hmma=0.{i:02d}1" for i in range(72)]
        shares = {Machine.uuid(i): (f"0.{i:02d}1", 132) for i in range(72)}
    m = machine(*lines)
    script = m.boot_ns()
    node = Node(m)
    assert len(node.devices) == 72
    node.tick(SECOND)
    began = m.boot_ns()
    node.run(62)
    for entity, (share, sms) in shares.items():
        rows = node.rows(entity)
        true = truth(FAST, share, script, began, m.boot_ns(), sms=sms)
        assert off(figure(rows).point, true) < 0.0001, entity
        assert sum(u.duration_ns for u in rows) == m.boot_ns() - began


def test_a_whole_agent_goes_on_through_a_lost_gpu_and_seals_what_it_saw(machine, tmp_path):
    m = machine(f"gpu g0 clock={FAST} hmma={WORK}", "gpu g1 clock=1500 hmma=0.5")
    script = m.boot_ns()
    source = m.source()
    reader = Reader(source, m, deadline_s=20)
    pipeline = Pipeline.open(
        reader.facts(),
        meter_factory(MeterSettings(), agent_version="0.1.0"),
        PipelineSettings(state=tmp_path / "state"),
        agent_version="0.1.0",
    )
    loop = Loop(reader, pipeline, m, LoopSettings(stop_timeout_s=0))
    waited = []

    def wait(seconds: float) -> bool:
        m.advance(round(seconds * SECOND))
        waited.append(seconds)
        if len(waited) == 30:
            m.say("gpu g1 state=lost")
        if len(waited) == 33:
            m.say("gpu g1 state=ok reset")
        return len(waited) == 130

    m.wait = wait
    began = m.boot_ns() + 120 * MS  # the first reading waits for its second sample
    loop.run()
    spool = Spool.open(tmp_path / "state" / "spool")
    batches = [decode_batch(parse_record(e.record).payload) for e in spool.entries(1)]
    spool.close()
    names = [d.entity for d in pipeline.facts.devices]
    by_gpu = {name: [u for b in batches for u in b.usage if names[u.entity_index] == name] for name in names}
    true = truth(FAST, WORK, script, began, m.boot_ns())
    assert off(figure(by_gpu[m.uuid(0)]).point, true) < 0.0005
    lost = [u for u in by_gpu[m.uuid(1)] if u.evidence_class is EvidenceClass.GAP]
    assert {u.gap_reason for u in lost} <= {GapReason.LOST, GapReason.RESET}
    assert 5 * SECOND <= sum(u.duration_ns for u in lost) <= 9 * SECOND  # found again within seconds
    assert all(u.hmma_cycles >= 0 for u in by_gpu[m.uuid(1)])


def test_confidential_computing_without_counters_falls_to_a_lower_class(machine):
    m = machine("node cc=1", "gpu g0 gpm=0 hmma=0.5 clock=1500")
    script = m.boot_ns()
    node = Node(m)
    node.tick(SECOND)
    began = m.boot_ns()
    node.run(30)
    rows = node.rows()
    assert classes(rows) == {EvidenceClass.C}
    assert node.sealed[0].inventory.devices[0].confidential is True
    got, true = figure(rows), truth("1500", "0.5", script, began, m.boot_ns())
    assert (got.lower, got.point) == (0, 0)
    assert got.upper >= true


def test_an_unknown_model_is_metered_in_cycles(machine):
    m = machine("gpu g0 name=NVIDIA_X9000 cc=9.0 sms=77 hmma=0.5 clock=1500")
    script = m.boot_ns()
    node = Node(m)
    node.tick(SECOND)
    began = m.boot_ns()
    node.run(30)
    rows = node.rows()
    cycles = truth("1500", "0.5", script, began, m.boot_ns(), sms=77) // BF16
    assert sum(u.hmma_cycles for u in rows) == cycles
    assert classes(rows) <= {EvidenceClass.A1, EvidenceClass.A3}


def test_what_cannot_be_metered_is_in_the_sealed_inventory(machine):
    m = machine("gpu g0 hmma=0.5", "gpu g1 virt=2 name=NVIDIA_H100-20C")
    node = Node(m)
    node.run(10)
    node.rows()
    inventory = node.sealed[-1].inventory
    (left,) = inventory.uncovered
    assert (left.pci_address, left.vendor) == ("00000000:11:00.0", "NVIDIA")
    assert "vGPU guest" in left.reason
    assert inventory.library.path == str(m.library)
    assert len(inventory.library.sha256) == 64
