"""SM clocks between readings: the driver's buffer first, polled where there is none; each sample in its interval."""

import threading
import time
from contextlib import ExitStack

import pytest
from fakenvml.driver import COMPILER, NO_COMPILER, SECOND, Machine

from flopmeter.agent.sources.nvml_clocks import MAX_SAMPLES, Kept

pytestmark = pytest.mark.skipif(COMPILER is None, reason=NO_COMPILER)

MS = 1_000_000
A2 = "gpu g0 cycles=0 hmma=0.5"
SWINGS = "gpu g0 clock=345:0.4,1980:0.6"


@pytest.fixture
def machine(tmp_path):
    with ExitStack() as stack:
        yield lambda *lines, **how: stack.enter_context(Machine(tmp_path, *lines, **how))


def mean(samples):
    return sum(samples) / len(samples)


def poll(m, source, seconds):
    """What the poller's thread does in `seconds`, ten times a second."""
    for _ in range(round(seconds * 10)):
        m.advance(SECOND // 10)
        source.poll()


def test_buffered_samples_are_those_since_the_reading_before(machine):
    m = machine(A2, SWINGS, "gpu g0 ring_ms=20 ring_len=120")
    m.advance(5 * SECOND)  # a full buffer from before the start belongs to no interval
    source = m.source()
    for _ in range(5):
        reading = m.tick(source)
        assert len(reading.sm_clock_mhz) == 50
        assert mean(reading.sm_clock_mhz) == pytest.approx(0.4 * 345 + 0.6 * 1980)
    assert m.calls("nvmlDeviceGetClockInfo") == 0


def test_samples_after_the_reading_stay_for_the_next(machine):
    m = machine(A2, "gpu g0 clock=345 ring_ms=10 ring_len=400")
    source = m.source()
    m.tick(source)
    taken = m.boot_ns()
    (entity,) = source._entities.values()
    m.advance(SECOND)
    m.say("gpu g0 clock=1980")
    m.advance(500 * MS)  # the driver's buffer runs on while the reading is under way
    early = entity.clocks.take(m.unix_ns() - 501 * MS, history=True)
    assert set(early) == {345.0}
    assert len(early) == 99
    late = m.tick(source)
    assert set(late.sm_clock_mhz) == {1980.0}
    assert len(late.sm_clock_mhz) == 151
    assert late.t_boot_ns == taken + 2500 * MS


def test_a_buffer_that_is_shorter_than_the_tick_is_drained_in_between(machine):
    m = machine(A2, "gpu g0 clock=345:4,1980:6 ring_ms=20 ring_len=100")
    source = m.source()
    assert mean(m.tick(source, ns=60 * SECOND).sm_clock_mhz) > 1900  # the last 2 s only
    (entity,) = source._entities.values()
    assert entity.clocks.short
    poll(m, source, 60)
    reading = source.read(m.uuid(0))
    assert mean(reading.sm_clock_mhz) == pytest.approx(0.4 * 345 + 0.6 * 1980, rel=0.005)
    assert len(reading.sm_clock_mhz) <= MAX_SAMPLES + 2


def test_without_a_buffer_clocks_are_polled(machine):
    m = machine(A2, SWINGS, "gpu g0 ring_ms=0")
    source = m.source()
    m.tick(source)
    poll(m, source, 5)
    reading = source.read(m.uuid(0))
    assert len(reading.sm_clock_mhz) == 51  # and the one of the reading itself
    assert mean(reading.sm_clock_mhz) == pytest.approx(0.4 * 345 + 0.6 * 1980, rel=0.03)
    assert (min(reading.sm_clock_mhz), max(reading.sm_clock_mhz)) == (345.0, 1980.0)


def test_what_has_cycles_or_a_long_buffer_is_not_polled(machine):
    m = machine("gpu g0 hmma=0.5 ring_ms=0", "gpu g1 cycles=0 hmma=0.5")
    source = m.source()
    for _ in range(20):
        m.advance(SECOND)
        source.read(m.uuid(0))
        source.read(m.uuid(1))
    asked = m.calls("nvmlDeviceGetClockInfo"), m.calls("nvmlDeviceGetSamples")
    poll(m, source, 1)  # the scale of the cycles is still to be found: they need clocks
    assert m.calls("nvmlDeviceGetClockInfo") == asked[0] + 10
    assert m.calls("nvmlDeviceGetSamples") == asked[1]
    for _ in range(120):
        m.advance(SECOND)
        source.read(m.uuid(0))
        source.read(m.uuid(1))
    asked = m.calls("nvmlDeviceGetClockInfo"), m.calls("nvmlDeviceGetSamples")
    poll(m, source, 1)
    assert (m.calls("nvmlDeviceGetClockInfo"), m.calls("nvmlDeviceGetSamples")) == asked


def test_with_cycles_the_buffer_is_read_while_the_scale_may_be_asked_for(machine):
    m = machine("gpu g0 hmma=0.5", SWINGS)
    source = m.source()
    assert len(m.tick(source).sm_clock_mhz) == 50
    for _ in range(10):
        m.tick(source, ns=12 * SECOND)
    asked = m.calls("nvmlDeviceGetSamples")
    assert len(m.tick(source).sm_clock_mhz) == 1
    assert m.calls("nvmlDeviceGetSamples") == asked
    # The counters go away: the buffer is the interval's again, and nothing from before.
    m.say("gpu g0 err.*=999")
    assert len(m.tick(source).sm_clock_mhz) == 50


@pytest.mark.parametrize("step", [-3600 * SECOND, 3600 * SECOND])
def test_a_step_of_the_wall_clock_costs_one_interval_its_samples(machine, step):
    m = machine(A2, "gpu g0 clock=1500")
    source = m.source()
    m.tick(source)
    m.step_wall_clock(step)
    assert set(m.tick(source).sm_clock_mhz) == {1500.0}
    assert len(m.tick(source).sm_clock_mhz) == 50


def test_polled_samples_of_before_a_step_back_do_not_come_again_later(machine):
    m = machine(A2, "gpu g0 clock=345 ring_ms=0")
    source = m.source()
    m.tick(source)
    poll(m, source, 1)
    m.step_wall_clock(-60 * SECOND)  # with ten samples of the open interval stamped ahead of it
    assert set(m.tick(source).sm_clock_mhz) == {345.0}
    m.say("gpu g0 clock=1980")
    assert {m.tick(source).sm_clock_mhz for _ in range(120)} == {(1980.0,)}


def test_a_buffer_that_fails_for_good_is_replaced_by_polling(machine):
    m = machine(A2, SWINGS)
    source = m.source()
    m.tick(source)
    m.say("gpu g0 fail.nvmlDeviceGetSamples=3")
    m.tick(source)
    poll(m, source, 1)
    assert len(source.read(m.uuid(0)).sm_clock_mhz) == 11


def test_a_buffer_that_stays_empty_is_replaced_by_polling(machine):
    m = machine(A2, SWINGS)
    source = m.source()
    m.tick(source)
    m.say("gpu g0 fail.nvmlDeviceGetSamples=6")  # NOT_FOUND: no sample newer than the last
    assert [len(m.tick(source).sm_clock_mhz) for _ in range(3)] == [1, 1, 1]
    poll(m, source, 5)
    reading = source.read(m.uuid(0))
    assert mean(reading.sm_clock_mhz) == pytest.approx(0.4 * 345 + 0.6 * 1980, rel=0.03)


def test_a_clock_that_no_gpu_runs_at_is_not_a_sample(machine):
    m = machine(A2, "gpu g0 clock=0 ring_ms=0")
    source = m.source()
    assert m.tick(source).sm_clock_mhz == ()
    m.say("gpu g0 clock=99999")
    assert m.tick(source).sm_clock_mhz == ()


def test_mig_instances_have_their_gpus_clock(machine):
    m = machine(
        "gpu g0 cycles=0 clock=345:0.4,1980:0.6", "gi g0 1 sms=16 hmma=0.5", "gi g0 2 sms=16 hmma=0.5"
    )
    source = m.source()
    for instance in (1, 2):
        reading = m.tick(source, m.mig_uuid(0, instance))
        assert mean(reading.sm_clock_mhz) == pytest.approx(0.4 * 345 + 0.6 * 1980, rel=0.01)


@pytest.mark.parametrize("together", [1, 7, 100, 100_000])
def test_thinning_is_even_and_keeps_both_extremes(together):
    # A slow swing: were the later half thinned less than the earlier, the mean would show it.
    samples = [(t, 345.0 if t % 10_000 < 4_000 else 1980.0) for t in range(30_000)]
    samples[12_345] = (12_345, 210.0)
    samples[777] = (777, 2100.0)
    kept = Kept()
    for i in range(0, len(samples), together):
        kept.add(samples[i : i + together])
    taken = [mhz for _, mhz in kept.take(None)]
    assert len(taken) <= MAX_SAMPLES + 2
    assert mean(taken) == pytest.approx(0.4 * 345 + 0.6 * 1980, rel=0.01)
    assert (min(taken), max(taken)) == (210.0, 2100.0)
    assert kept.take(None) == []


@pytest.mark.parametrize("together", [1, 60, 100_000])
def test_a_clock_that_swings_in_step_with_the_thinning_keeps_its_mean(together):
    # 0.7 s at 345 MHz, 1.1 s at 1980 MHz, polled ten times a second for a minute: every second sample says 1253.
    samples = [(t, 345.0 if t % 18 < 7 else 1980.0) for t in range(600)]
    kept = Kept()
    for i in range(0, len(samples), together):
        kept.add(samples[i : i + together])
    taken = [mhz for _, mhz in kept.take(None)]
    assert len(taken) <= MAX_SAMPLES + 2
    assert mean(taken) == pytest.approx(mean([mhz for _, mhz in samples]), rel=0.005)
    assert (min(taken), max(taken)) == (345.0, 1980.0)


@pytest.mark.parametrize("count", [MAX_SAMPLES, MAX_SAMPLES + 1, 2 * MAX_SAMPLES + 1, 5 * MAX_SAMPLES + 3])
def test_no_sample_is_lost_between_two_readings(count):
    kept = Kept()
    kept.add([(t, 1000.0) for t in range(count - 1)])
    kept.add([(count - 1, 2000.0)])
    assert max(kept.take(None))[1] == 2000.0
    assert kept.take(None) == []
    kept.add([(0, 5.0)])
    assert kept.take(None) == [(0, 5.0)]


# ---- the thread ------------------------------------------------------------------------------------------------


def wait_for(what, seconds=60):
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_the_poller_starts_where_it_is_needed_and_stops_with_the_source(machine):
    m = machine(A2, "gpu g0 ring_ms=0", "gpu g1 hmma=0.5")
    source = m.source(poll_s=0.002)
    m.tick(source, m.uuid(1))
    assert not source._poller.running
    m.tick(source)
    wait_for(lambda: m.calls("nvmlDeviceGetClockInfo") > 20)
    assert source._poller.running
    assert "clocks" in {t.name for t in threading.enumerate()}
    assert len(m.tick(source).sm_clock_mhz) > 10
    source.close()
    wait_for(lambda: not source._poller.running)
    asked = m.calls()
    assert m.calls() == asked


def test_a_poller_that_hangs_holds_up_neither_readings_nor_the_stop(machine, tmp_path):
    m = machine(A2, "gpu g0 ring_ms=0")
    source = m.source(poll_s=0.002)
    m.tick(source)
    wait_for(lambda: m.calls("nvmlDeviceGetClockInfo") > 3)
    hang = tmp_path / "hang"
    hang.touch()
    m.say(f"gpu g0 hang.nvmlDeviceGetClockInfo={hang}")
    asked = m.calls("nvmlDeviceGetClockInfo")
    # The lock alone is held in every call, also in one that ends.
    wait_for(lambda: m.calls("nvmlDeviceGetClockInfo") > asked)
    (entity,) = source._entities.values()
    assert entity.clocks._lock.locked()
    m.say("gpu g0 hang.nvmlDeviceGetClockInfo=")
    reading = m.tick(source)  # beside the call that hangs
    assert (reading.error, reading.percent[7]) == (None, 50.0)
    source.close()
    assert m.calls("nvmlShutdown") == 0  # not under the call that hangs
    hang.unlink()
    wait_for(lambda: not source._poller.running)


def test_a_gpu_that_hangs_while_clocks_are_polled_costs_the_others_none(machine, tmp_path):
    m = machine(*(f"gpu g{i} cycles=0 ring_ms=0 hmma=0.5" for i in range(3)))
    source = m.source(poll_s=0.002)
    first, *others = (m.uuid(i) for i in range(3))
    for entity in (first, *others):
        m.tick(source, entity)
    wait_for(lambda: m.calls("nvmlDeviceGetClockInfo") > 9)
    hang = tmp_path / "hang"
    hang.touch()
    m.say(f"gpu g0 hang.nvmlDeviceGetClockInfo={hang}")
    left, lock = source._poller._thread, source._entities[first].clocks._lock

    def hangs():
        if lock.acquire(timeout=0.3):  # held in every call, but not for so long
            lock.release()
            return False
        return True

    wait_for(hangs)
    wait_for(lambda: m.tick(source, others[0]) and source._poller._thread is not left)
    wait_for(lambda: min(len(m.tick(source, entity).sm_clock_mhz) for entity in others) > 5)
    source.close()
    assert m.calls("nvmlShutdown") == 0
    hang.unlink()
    left.join(60)
    assert not left.is_alive()  # it does not go on beside the other
