"""Cross-checks through the real binding, on the stand-in driver: silent on a sound GPU, and not on an odd one."""

import dataclasses
from contextlib import ExitStack

import pytest
from fakenvml.driver import COMPILER, NO_COMPILER, SECOND, Machine

from flopmeter.agent.metering.meter import Meter, MeterSettings
from flopmeter.contract.usage import NoticeKind

pytestmark = pytest.mark.skipif(COMPILER is None, reason=NO_COMPILER)

SOUND = "gpu g0 clock=1980:3,1400:2 hmma=0.6:7,0.1:3 dram=0.4 power=650000:7,200000:3 nvlink_rx=9000 nvlink_tx=9000"


@pytest.fixture
def machine(tmp_path):
    with ExitStack() as stack:
        yield lambda *lines, **how: stack.enter_context(Machine(tmp_path, *lines, **how))


def checks(m, seconds: int = 150, *, later: tuple[str, ...] = ()) -> list[str]:
    """Names of the checks that a meter told of in that time; `later` is said half way."""
    source = m.source()
    facts = dataclasses.replace(
        source.facts(), library=type(source.facts().library)()
    )  # the stand-in's own is odd
    meter = Meter(facts, MeterSettings(), agent_version="0")
    sealed = []
    for second in range(seconds):
        if second == seconds // 2:
            for line in later:
                m.say(line)
        for device in facts.devices:
            sealed += meter.observe(source.read(device.entity))
        m.advance(SECOND)
    sealed.append(meter.flush(final=True))
    source.close()
    notices = [n for one in sealed if one for n in one.batch.notices]
    return sorted(n.detail.partition(":")[0] for n in notices if n.kind is NoticeKind.CROSS_CHECK)


@pytest.mark.parametrize("more", ["", "cycles=0", "scale=average"])
def test_a_sound_gpu_whose_power_swings_is_not_flagged(machine, more):
    assert checks(machine(f"{SOUND} {more}")) == []


def test_odd_ones_are(machine):
    assert checks(machine(SOUND.replace("dram=0.4", "dram=0"))) == ["dram-per-flop"]


def test_an_energy_counter_that_leaps_is_flagged(machine):
    assert checks(machine(SOUND), later=("gpu g0 add.energy=9000000",)) == ["energy-power"]


def test_work_that_costs_no_energy_is_flagged(machine):
    assert checks(machine("gpu g0 clock=1980 hmma=0.9 dram=0.4 power=70000")) == ["cycles-per-joule"]


def test_a_gpu_busy_by_utilisation_whose_counters_stand_still_is_flagged(machine):
    assert checks(machine("gpu g0 clock=1980 util=98 power=500000")) == ["silent-zero"]
