"""An agent that is throttled or preempted between the driver's sample and its clock: stamps are late, nothing is lost.

The cycles of an interval that begins with a late stamp are of a longer time than its two stamps are apart. That is
no fault of the device: neither a gap, nor a notice, nor another scale follows.
"""

from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from metering import BUSY, JOB_A, JOB_B, SECOND, SMS, Gpu, device, gaps, meter, notices, own, taken

from fakes import FakeClock
from flopmeter.agent.metering.calibrate import Evidence, Scale
from flopmeter.agent.metering.entity import describe
from flopmeter.agent.metering.interval import MAX_LATE_NS, Interval, NoInterval, Why, by_counters, point
from flopmeter.agent.reading import CYCLE_IDS
from flopmeter.agent.sources.nvml_gpm import LATE_FROM_NS, MIN_APART_NS, Gpm
from flopmeter.contract.limits import MIN_TICK_NS
from flopmeter.contract.w_table import current

MS = 1_000_000
ENTITY = describe(device(), current(), source="nvml")
HIGHEST = 1_980  # MHz, at which every SM runs all the time
#: ms from one sample to the next, ms from the sample to its stamp, whose process holds the GPU.
TICKS = st.lists(
    st.tuples(
        st.integers(MIN_TICK_NS // MS, 1_000),
        st.one_of(st.just(0), st.integers(0, MAX_LATE_NS // MS - 1)),
        st.sampled_from((JOB_A, JOB_B)),
    ),
    min_size=30,
    max_size=60,
)


@settings(max_examples=60)
@given(ticks=TICKS, average=st.booleans(), clocked=st.booleans(), restart=st.integers(0, 59))
def test_late_stamps_cost_no_cycle(
    ticks: list[tuple[int, int, object]], average: bool, clocked: bool, restart: int
) -> None:
    gpu, agent, sealed = Gpu(average=average, mhz=HIGHEST), meter(), []
    t, stamp, ran = 1_000 * SECOND, 0, -1
    for n, (tick_ms, late_ms, workload) in enumerate(ticks):
        wait = max(tick_ms * MS, stamp - t + MIN_APART_NS)  # after the stamp before
        t += wait
        gpu.run(wait, BUSY)
        ran = 0 if ran < 0 else ran + HIGHEST * wait // 1000 * SMS
        stamp = t + late_ms * MS
        clocks = (float(HIGHEST),) if clocked else ()
        sealed += agent.observe(
            gpu.reading(stamp, late_ns=late_ms * MS, sm_clock_mhz=clocks, workload=workload)
        )
        if (
            n == restart < len(ticks) - 1 and sealed
        ):  # what the journal does not hold is in the counters still
            agent = meter(journal=sealed[-1].journal)
    last = agent.flush(final=True)
    sealed += [last] if last else []
    decided = clocked or not average  # an average at the highest clock alone proves nothing
    assert "reading-refused" not in notices(sealed)
    taken(sealed)  # the collector takes every batch, and its anchors fit the usage
    if decided:
        assert not gaps(sealed)
        assert own(sealed, "sm_elapsed_cycles") == ran
    else:
        assert own(sealed, "sm_elapsed_cycles") == 0  # never a scale that is 132 times off


def test_by_how_much_a_late_stamp_excuses() -> None:
    gpu = Gpu(average=False, mhz=HIGHEST)
    before = point(gpu.reading(10 * SECOND, late_ns=59 * MS))
    most = SMS * HIGHEST * 1000 * (300 + 59) * 102 // 100  # 300 ms between the stamps
    for extra, wanted in ((0, Interval), (1, NoInterval)):
        counters = dict.fromkeys(CYCLE_IDS, 10**15) | {248: 10**15 + most + extra}
        now = point(gpu.reading(10 * SECOND + 300 * MS, cycles=counters))
        got = by_counters(before, now, ENTITY, 1)
        assert isinstance(got, wanted)
    assert got.why is Why.TOO_FAST  # type: ignore[union-attr]
    strict = by_counters(before._replace(late_ns=0), now, ENTITY, 1)
    assert isinstance(strict, NoInterval)


@pytest.mark.parametrize(("late_ns", "kept"), [(10**15, MAX_LATE_NS), (-1, 0)])
def test_a_source_cannot_excuse_everything(late_ns: int, kept: int) -> None:
    assert point(Gpu().reading(SECOND, late_ns=late_ns)).late_ns == kept


def test_a_late_stamp_makes_no_sum_of_an_average() -> None:
    """5 s at the highest clock, the first stamp 250 ms late, no clock samples."""
    found = Evidence()
    found.add(HIGHEST * 1000 * 5_250, 5 * SECOND, None, MAX_LATE_NS)
    assert found.verdict(ENTITY) is None
    found.late_ns = 0
    assert found.verdict(ENTITY) is Scale.SUM


def test_a_journal_holds_how_late_a_reading_was() -> None:
    gpu, agent = Gpu(average=False, mhz=HIGHEST), meter(window=SECOND)
    sealed, t = [], 1_000 * SECOND
    for late_ms in (0, 0, 0, 0, 0, 0, 0, 200):
        t += SECOND
        gpu.run(SECOND, BUSY)
        sealed += agent.observe(gpu.reading(t + late_ms * MS, late_ns=late_ms * MS))
    sealed += [agent.flush()]  # type: ignore[list-item]
    gpu.run(SECOND, BUSY)
    name, _, text = sealed[-1].journal.split(b" ", 2)
    assert text.count(b",200000000]") == 1
    for late, refused in (
        (b",200000000]", False),
        (b",0]", True),
        (b"]", True),  # of an agent that did not know
    ):
        said = text.replace(b",200000000]", late)
        again = meter(window=SECOND, journal=b"%b %08x %b" % (name, crc32(said), said))
        found = again.observe(gpu.reading(t + SECOND))
        found += [again.flush(final=True)]  # type: ignore[list-item]
        assert ("reading-refused" in notices(found)) is refused


class Pair:
    """Two samples; each takes as long as told."""

    ids = ()

    def __init__(self, clock: FakeClock) -> None:
        self.clock, self.takes_ns = clock, 0

    def take(self) -> None:
        self.clock.advance(self.takes_ns)

    def ask_for(self, ids: tuple[int, ...]) -> None:
        self.ids = ids

    def get(self) -> tuple[tuple[int, ...], tuple[float, ...]]:
        return (0,) * len(self.ids), (50.0,) * len(self.ids)


def test_how_long_a_sample_took_is_how_late_its_stamp_may_be() -> None:
    clock = FakeClock()
    pair = Pair(clock)
    gpm = Gpm(pair, clock)  # type: ignore[arg-type]
    pair.takes_ns = 80 * MS
    first = gpm.read()  # it waits until the two are far enough apart; the wait makes no reading late
    assert (first.late_ns, first.t_ns) == (80 * MS, clock.boot)
    clock.advance(SECOND)
    for takes_ns, late_ns in ((LATE_FROM_NS - 1, 0), (LATE_FROM_NS, LATE_FROM_NS), (0, 0)):
        pair.takes_ns = takes_ns
        assert gpm.read().late_ns == late_ns
        clock.advance(SECOND)
