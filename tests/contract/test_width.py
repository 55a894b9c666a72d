"""Why bounds are wide: the causes' parts add up to the width, to the last FLOP, and each is what it says."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from flopmeter.contract.evidence_class import SPREAD_STEPS_PPM, UPPER_ONLY, EvidenceClass
from flopmeter.contract.flop import MARKS, Cycles, flop
from flopmeter.contract.usage import ALL_MEASURED, Measured
from flopmeter.contract.w_table import Arch, current
from flopmeter.contract.width import Cause, widths

ARCHS = [a for a in current().archs if a.rates]
HOPPER = next(a for a in ARCHS if a.compute_capability == "9.0")
A100 = next(a for a in ARCHS if a.compute_capability == "8.0")
MILLION = 1_000_000


def a1(**pipes: int) -> Cycles:
    return Cycles(EvidenceClass.A1, ALL_MEASURED, 0, **{"elapsed": 4_000_000, "active": 3_000_000, **pipes})


def test_each_cause_by_hand() -> None:
    """1,000,000 HMMA SM-cycles on Hopper: 2048 to 8192, by mma.sync from 0.6; 20,000 cycles of noise at 8192."""
    lower, upper = MILLION * 2048 * 6 // 10, MILLION * 8192
    noise = 20_000 * 8192
    assert widths(a1(hmma=MILLION), HOPPER) == {
        Cause.DTYPE: MILLION * (8192 - 2048),
        Cause.LEGACY_MMA: MILLION * 2048 * 4 // 10,
        Cause.NOISE: noise,
        Cause.CLASS: (lower + upper + noise) * 3 // 100,
    }
    vector = widths(a1(fp32=MILLION, fp64=MILLION, fp16=MILLION), HOPPER)
    assert vector[Cause.VECTOR] == MILLION * (256 + 128 + 512)


def test_the_clock_and_the_class_share_what_both_widen() -> None:
    c = replace(a1(hmma=MILLION), evidence_class=EvidenceClass.A2, spread_ppm=30_000)
    found = widths(c, HOPPER)
    assert found[Cause.CLOCK] == found[Cause.CLASS] > 0
    wild = replace(c, spread_ppm=MILLION)  # the lower bound has come to 0 and falls no further
    assert flop(wild, HOPPER).lower == 0
    assert sum(widths(wild, HOPPER).values()) == flop(wild, HOPPER).upper


def test_integer_work_may_hide_in_an_unsplit_counter() -> None:
    """B2 on a device with INT8 units: all of the lower bound goes to that."""
    measured = ALL_MEASURED & ~(Measured.HMMA | Measured.IMMA | Measured.DMMA)
    c = Cycles(EvidenceClass.B2, measured, 0, elapsed=MILLION, active=MILLION, tensor_other=100_000)
    assert flop(c, A100).lower == 0
    assert widths(c, A100)[Cause.HIDDEN] == 100_000 * 1024
    split = replace(c, measured=ALL_MEASURED & ~Measured.HMMA)
    assert Cause.HIDDEN not in widths(split, A100)


def test_marks_classes_and_gaps_are_their_own_reason() -> None:
    c = a1(hmma=MILLION)
    share = widths(replace(c, measured=ALL_MEASURED | Measured.APPORTIONED), HOPPER)
    assert share[Cause.APPORTIONED] == flop(c, HOPPER).lower
    others = replace(c, measured=ALL_MEASURED | Measured.OTHERS, elapsed=0)
    assert widths(others, HOPPER) == {Cause.APPORTIONED: flop(others, HOPPER).upper}
    for kind, cause in ((EvidenceClass.GAP, Cause.GAP), (EvidenceClass.C, Cause.UPPER_ONLY)):
        none = Cycles(kind, Measured(0), 0, elapsed=1_000)
        assert widths(none, HOPPER) == {cause: flop(none, HOPPER).upper}
    unread = widths(replace(a1(), measured=Measured.SM_ACTIVE), HOPPER)
    assert set(unread) == {Cause.UNREAD, Cause.CLASS}


cycles = st.integers(0, 10**22)
groups = st.builds(
    Cycles,
    st.sampled_from(EvidenceClass),
    st.integers(0, int(ALL_MEASURED | MARKS)).map(Measured),
    st.sampled_from(SPREAD_STEPS_PPM),
    elapsed=cycles,
    active=cycles,
    hmma=cycles,
    imma=cycles,
    dmma=cycles,
    tensor_other=cycles,
    fp64=cycles,
    fp32=cycles,
    fp16=cycles,
    int=cycles,
)


@given(c=groups, which=st.sampled_from(ARCHS))
def test_the_parts_add_up_to_the_width_and_none_is_negative(c: Cycles, which: Arch) -> None:
    if c.evidence_class in UPPER_ONLY:
        c = replace(c, hmma=0, imma=0, dmma=0, tensor_other=0, fp64=0, fp32=0, fp16=0, int=0)
    figure, found = flop(c, which), widths(c, which)
    assert sum(found.values()) == figure.upper - figure.lower
    assert min(found.values(), default=0) >= 0
