"""Lower, point, upper: hand-computed figures of reference/metering.md 4.2, then the laws they obey."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flopmeter.contract.errors import ContractError
from flopmeter.contract.evidence_class import SPREAD_STEPS_PPM, UPPER_ONLY, EvidenceClass
from flopmeter.contract.flop import (
    ZERO,
    Calibration,
    Cycles,
    Figure,
    flop,
    integer_ops,
    noise_ppm,
    nominal_sparse,
    point_rate,
    total,
)
from flopmeter.contract.pipes import residual
from flopmeter.contract.usage import ALL_MEASURED, Measured
from flopmeter.contract.w_table import DTYPE_RATE, Arch, current

TABLE = current()
ARCHS = [a for a in TABLE.archs if a.rates]


def arch(capability: str, model: str = "") -> Arch:
    found = TABLE.arch(capability, model)
    assert found is not None
    return found


HOPPER = arch("9.0")


def a1(**pipes: int) -> Cycles:
    return Cycles(EvidenceClass.A1, ALL_MEASURED, 0, **{"elapsed": 4_000_000, "active": 3_000_000, **pipes})


# ---- by hand ---------------------------------------------------------------------------------------------


#: Upper bound of a residual below 0.5 % of a1()'s 4,000,000 elapsed cycles, at FP8, plus 3 %.
NOISE = 20_000 * 8192 * 103 // 100
#: The same of 2 % of a million integer or FP64 tensor cycles: what the difference of two counters may leave over.
MISMATCH = 20_000 * 8192 * 103 // 100


def test_hopper_hmma_by_hand() -> None:
    """1,000,000 HMMA SM-cycles: TF32 2048 by mma.sync at 0.6, less 3 %; BF16 4096; FP8 8192 plus 3 %."""
    assert flop(a1(hmma=1_000_000), HOPPER) == Figure(1_191_936_000, 4_096_000_000, 8_437_760_000 + NOISE)


def test_hopper_span_is_half_to_double_around_bf16() -> None:
    """metering.md 4.2: if FP8 sits in HMMA, low and high are 0.5x and 2x; 4.3: mma.sync 0.6 of the low one."""
    figure = flop(a1(hmma=1_000_000), HOPPER)
    assert figure.lower * 1000 == figure.point * 500 * 6 // 10 * 97 // 100
    assert (figure.upper - NOISE) * 100 == figure.point * 200 * 103 // 100


def test_mma_sync_is_the_native_path_before_hopper() -> None:
    ampere = arch("8.0")
    assert flop(a1(hmma=1_000_000), ampere).lower == 1_000_000 * 1024 * 97 // 100
    assert flop(a1(hmma=1_000_000), arch("12.0")).lower == 1_000_000 * 512 * 97 // 100
    assert flop(a1(hmma=1_000_000), arch("10.0")).lower == 1_000_000 * 4096 * 97 // 100 * 3 // 10


def test_hopper_residual_is_fp8_at_the_point_and_its_span_at_the_bounds() -> None:
    figure = flop(a1(tensor_other=1_000_000), HOPPER)
    assert figure == Figure(1_191_936_000, 8_192_000_000, 8_437_760_000 + NOISE)


def test_what_sealing_dropped_as_noise_stays_in_the_upper_bound() -> None:
    """metering.md 4.2 treats a residual below 0.5 % as 0; that it was nothing is not known."""
    assert flop(a1(), HOPPER) == Figure(0, 0, NOISE)
    assert residual(tensor_any=19_999, hmma=0, imma=0, dmma=0, elapsed=4_000_000) == 0
    still = replace(a1(), active=5)  # the SMs hardly ran at all
    assert flop(still, HOPPER) == Figure(0, 0, -(-5 * 8192 * 103 // 100))
    whole = replace(a1(), measured=ALL_MEASURED & ~Measured.HMMA)  # nothing is dropped of an unsplit counter
    assert flop(whole, HOPPER) == ZERO


def test_vector_pipes_move_the_upper_bound_only_and_by_the_published_share() -> None:
    """metering.md 4.2: fp32_active 0.054 beside tensor_active 0.28 is at most 1.2 % of the tensor part."""
    tensor = flop(a1(hmma=280_000), HOPPER)
    both = flop(a1(hmma=280_000, fp32=54_000), HOPPER)
    assert (both.lower, both.point) == (tensor.lower, tensor.point)
    vector = both.upper - tensor.upper
    assert vector == 54_000 * 256 * 103 // 100 == 14_238_720
    assert 0.012 < vector / tensor.point < 0.0125


def test_fp64_tensor_counts_at_its_own_rate_everywhere() -> None:
    assert flop(a1(dmma=1_000_000), HOPPER) == Figure(
        248_320_000, 256_000_000, 263_680_000 + NOISE + MISMATCH
    )


def test_integer_tensor_work_is_not_flop() -> None:
    idle = flop(a1(), HOPPER)
    assert flop(a1(imma=1_000_000), HOPPER) == Figure(idle.lower, idle.point, idle.upper + MISMATCH)
    assert integer_ops(a1(imma=1_000_000), HOPPER) == Figure(4_767_744_000, 8_192_000_000, 8_437_760_000)


def test_integer_tensor_work_may_be_int4_where_there_is_any() -> None:
    assert integer_ops(a1(imma=1_000_000), arch("8.0")) == Figure(
        1_000_000 * 4096 * 97 // 100, 4_096_000_000, 1_000_000 * 8192 * 103 // 100
    )


def test_gap_is_priced_from_zero_to_everything_at_once() -> None:
    gap = Cycles(EvidenceClass.GAP, Measured(0), 0, elapsed=1_000)
    assert flop(gap, HOPPER) == Figure(0, 0, 1_000 * (8192 + 128 + 256 + 512))
    assert integer_ops(gap, HOPPER) == Figure(0, 0, 1_000 * (8192 + 64))


def test_utilisation_only_is_an_upper_bound_from_the_active_time() -> None:
    busy = Cycles(EvidenceClass.C, Measured.SM_ACTIVE, 0, elapsed=1_000, active=400)
    assert flop(busy, HOPPER) == Figure(0, 0, 400 * (8192 + 128 + 256 + 512))


def test_any_tensor_alone_takes_the_declared_dtype_and_may_hide_integer_work() -> None:
    """B2: with HMMA not measured, the any-tensor counter stands whole in tensor_other."""
    measured = Measured.SM_ACTIVE | Measured.TENSOR_OTHER | Measured.FP64 | Measured.FP32 | Measured.FP16
    c = Cycles(EvidenceClass.B2, measured, 0, elapsed=10_000, active=9_000, tensor_other=1_000)
    ampere = arch("8.0")
    assert flop(c, ampere) == Figure(0, 2_048_000, 2_252_800)
    assert flop(c, ampere, "tf32").point == 1_024_000
    assert integer_ops(c, ampere).lower == 0
    assert integer_ops(c, ampere).upper >= 1_000 * 4096
    volta = arch("7.0")  # no integer and no FP64 tensor unit: what the counter saw was FP16
    assert flop(c, volta) == Figure(921_600, 1_024_000, 1_126_400)
    assert integer_ops(c, volta).point == 0


def test_spread_widens_both_sides() -> None:
    c = replace(a1(hmma=1_000_000), evidence_class=EvidenceClass.A2, spread_ppm=20_000)
    assert flop(c, HOPPER) == Figure(
        1_000_000 * 2048 * 6 // 10 * 95 // 100, 4_096_000_000, 1_020_000 * 8192 * 105 // 100
    )


def test_rounding_never_narrows() -> None:
    figure = flop(replace(a1(dmma=1), elapsed=0, active=1), arch("10.3"))  # 4 FLOP, 3 % of it is 0.12
    assert figure == Figure(3, 4, 5)


@pytest.mark.parametrize(
    ("capability", "dtype", "rate"),
    [
        ("9.0", "", 4096),
        ("9.0", "bf16", 4096),
        ("9.0", "fp16", 4096),
        ("9.0", "tf32", 2048),
        ("9.0", "fp8", 8192),
        ("9.0", "mxfp8", 8192),
        ("9.0", "nvfp4", 4096),
        ("9.0", "no-such-dtype", 4096),
        ("8.0", "fp8", 2048),
        ("10.0", "nvfp4", 32768),
        ("10.3", "mxfp4", 49152),
        ("7.0", "tf32", 1024),
    ],
)
def test_declared_dtype_picks_the_point(capability: str, dtype: str, rate: int) -> None:
    """BF16 where nothing is declared, or nothing that the device has."""
    assert point_rate(arch(capability), dtype) == rate


def test_integer_work_may_have_been_dropped_as_noise_where_it_was_not_read() -> None:
    unread = replace(a1(), measured=ALL_MEASURED & ~Measured.IMMA)
    assert integer_ops(unread, HOPPER) == Figure(0, 0, NOISE)  # INT8 at FP8's rate
    assert integer_ops(a1(), HOPPER) == ZERO


def test_a_loose_claim_narrows_only_what_it_can() -> None:
    c = a1(hmma=1_000_000)
    plain = flop(c, HOPPER)
    above = flop(c, HOPPER, calibration=Calibration(4_096, 1, 900_000))  # 410 to 7782 per cycle
    assert (above.lower, above.upper < plain.upper) == (plain.lower, True)
    below = flop(c, HOPPER, calibration=Calibration(8_000, 1, 500_000))  # 4000 to 12000
    assert (below.lower > plain.lower, below.upper) == (True, plain.upper)


def test_once_measured_the_bounds_close() -> None:
    """As if E4 had found FP8 in the any-tensor counter alone, and E6 mma.sync on HMMA at 0.65: metering.md 4.2."""
    frozen = replace(
        HOPPER,
        hmma_holds=("tf32", "bf16"),
        residual_holds=("fp8",),
        legacy_mma_permille=650,
        legacy_mma_in=("hmma",),
    )
    assert flop(a1(hmma=1_000_000), frozen) == Figure(
        1_000_000 * 2048 * 65 // 100 * 97 // 100, 4_096_000_000, 1_000_000 * 4096 * 103 // 100 + NOISE
    )
    assert flop(a1(tensor_other=1_000_000), frozen) == Figure(
        1_000_000 * 8192 * 97 // 100, 8_192_000_000, 1_000_000 * 8192 * 103 // 100 + NOISE
    )
    assert flop(a1(hmma=1_000_000), frozen, "fp8").point == 4_096_000_000, "FP8 is no longer in HMMA"
    unsplit = replace(a1(tensor_other=1_000_000), measured=ALL_MEASURED & ~Measured.HMMA)
    assert flop(unsplit, frozen).lower == 1_000_000 * 2048 * 65 // 100 * 97 // 100, "it holds HMMA's work too"


def test_fp64_tensor_work_may_hide_where_it_was_not_read() -> None:
    c = replace(a1(tensor_other=1_000_000), measured=ALL_MEASURED & ~Measured.DMMA)
    assert flop(c, HOPPER).lower == 1_000_000 * 256 * 97 // 100


# ---- what was declared, claimed, sold --------------------------------------------------------------------


def test_a_declaration_taken_as_true_leaves_what_it_does_not_speak_of() -> None:
    """BF16 at mma.sync's 0.6 to full rate; what HMMA did not see keeps the span of its own."""
    trusted = flop(a1(hmma=1_000_000), HOPPER, "bf16", trusted=True)
    assert trusted == Figure(2_383_872_000, 4_096_000_000, 4_218_880_000 + NOISE)
    rest = a1(tensor_other=1_000_000)
    assert flop(rest, HOPPER, "bf16", trusted=True) == flop(rest, HOPPER, "bf16")


def test_an_unsplit_counter_is_the_declared_dtype_where_that_is_true() -> None:
    measured = ALL_MEASURED & ~(Measured.HMMA | Measured.IMMA)
    c = Cycles(EvidenceClass.B2, measured, 0, elapsed=10_000, active=9_000, tensor_other=1_000)
    ampere = arch("8.0")
    assert flop(c, ampere, "bf16").lower == 0  # INT8 work may hide in it
    assert flop(c, ampere, "bf16", trusted=True) == Figure(1_843_200, 2_048_000, 2_252_800)
    geforce = arch("8.9", "NVIDIA GeForce RTX 4090")  # at either accumulator's rate
    assert flop(c, geforce, "bf16", trusted=True) == Figure(460_800, 512_000, 1_126_400)


@pytest.mark.parametrize("dtype", ["", "no-such-dtype", "nvfp4"])
def test_trust_in_nothing_changes_nothing(dtype: str) -> None:
    c = a1(hmma=1_000_000, tensor_other=30_000)
    assert flop(c, HOPPER, dtype, trusted=True) == flop(c, HOPPER, dtype)


def test_a_calibration_narrows_and_moves_the_point() -> None:
    """3,900 FLOP per tensor cycle, 2 %: mostly BF16, some of it by mma.sync; 3 % for the cycles on top."""
    claim = Calibration(flop=3_900_000, cycles=1_000, error_ppm=20_000)
    c = a1(hmma=900_000, tensor_other=100_000)
    assert claim.fits(HOPPER)
    assert flop(c, HOPPER, calibration=claim) == Figure(
        1_000_000 * 3900 * 98 // 100 * 97 // 100,
        3_900_000_000,
        1_000_000 * 3900 * 102 // 100 * 103 // 100 + NOISE,
    )
    assert flop(c, HOPPER, "fp8", calibration=claim) == flop(c, HOPPER, calibration=claim)
    fp64 = a1(dmma=1_000_000)
    assert flop(fp64, HOPPER, calibration=claim) == flop(fp64, HOPPER), (
        "a claim about float tensor cycles only"
    )


@pytest.mark.parametrize(
    ("per_cycle", "fits"), [(1_000, False), (1_228, True), (8_192, True), (9_000, False)]
)
def test_a_calibration_that_no_hardware_can_do_says_nothing(per_cycle: int, fits: bool) -> None:
    claim = Calibration(per_cycle, 1, 10_000)
    c = a1(hmma=1_000_000)
    assert claim.fits(HOPPER) is fits
    assert (flop(c, HOPPER, calibration=claim) != flop(c, HOPPER)) is fits


@pytest.mark.parametrize("wrong", [(0, 1, 0), (1, 0, 0), (1, 1, -1), (1, 1, 1_000_001), (-5, 1, 0)])
def test_what_is_no_calibration_is_refused(wrong: tuple[int, int, int]) -> None:
    with pytest.raises(ContractError, match="calibration"):
        Calibration(*wrong)


def test_sparsity_is_a_number_apart() -> None:
    """2:4 doubles what a datasheet would call the tensor work; FP4 on 10.3 goes from 15 to 20 PFLOP/s."""
    c = replace(
        a1(hmma=1_000_000),
        active=1_000_000,
        elapsed=1_000_000,
        measured=ALL_MEASURED & ~Measured.TENSOR_OTHER,
    )
    assert nominal_sparse(c, HOPPER) == 2 * flop(c, HOPPER).upper == 1_000_000 * 16384 * 103 // 100
    assert nominal_sparse(c, arch("10.3")) == 1_000_000 * 65536 * 103 // 100
    assert nominal_sparse(c, arch("7.0")) == flop(c, arch("7.0")).upper, "Volta has no 2:4 sparsity"
    assert (
        nominal_sparse(a1(fp64=9, fp32=7), HOPPER) - 2 * NOISE
        == flop(a1(fp64=9, fp32=7), HOPPER).upper - NOISE
    )


# ---- shared entities -------------------------------------------------------------------------------------


def test_an_apportioned_share_has_no_lower_bound_and_others_only_an_upper() -> None:
    c = a1(hmma=1_000_000, imma=500_000)
    share = replace(c, measured=ALL_MEASURED | Measured.APPORTIONED)
    others = replace(c, measured=ALL_MEASURED | Measured.OTHERS, elapsed=0)
    for figure in (flop, integer_ops):
        whole = figure(c, HOPPER)
        assert figure(share, HOPPER) == Figure(0, whole.point, whole.upper)
        assert figure(others, HOPPER).lower == figure(others, HOPPER).point == 0
    assert flop(others, HOPPER).upper == flop(c, HOPPER).upper - NOISE  # nothing of it was dropped
    assert integer_ops(others, HOPPER).upper == integer_ops(c, HOPPER).upper


def test_pipes_that_nobody_read_stay_in_the_upper_bound_of_every_sharer() -> None:
    """An OTHERS row states as sm_active the most that the SMs can have been active for others."""
    measured = Measured.HMMA | Measured.APPORTIONED
    share = Cycles(EvidenceClass.A1, measured, 0, elapsed=300, hmma=100)
    others = Cycles(
        EvidenceClass.A1,
        Measured.HMMA | Measured.SM_ACTIVE | Measured.OTHERS,
        0,
        elapsed=0,
        active=700,
        hmma=50,
    )
    device = Cycles(EvidenceClass.A1, Measured.HMMA, 0, elapsed=1_000, hmma=150)
    assert flop(share, HOPPER).upper + flop(others, HOPPER).upper >= flop(device, HOPPER).upper


# ---- exact near the thresholds ---------------------------------------------------------------------------


def test_nothing_is_lost_near_ten_to_the_26() -> None:
    """10^26 FLOP at 8192 per cycle is not a float's business: one SM-cycle more is 8192 FLOP more."""
    cycles, rest = divmod(10**26, 8192)
    at = flop(a1(hmma=cycles), HOPPER, "fp8").point
    assert at == 10**26 - rest
    assert flop(a1(hmma=cycles + 1), HOPPER, "fp8").point == at + 8192
    assert float(at) == float(at + 8192), "a double could not have told these two apart"


def test_sum_of_a_million_groups_is_exact() -> None:
    one = flop(a1(hmma=24_414_062_500_000_001), HOPPER)
    assert total([one] * 1_000).point == 1_000 * 24_414_062_500_000_001 * 4096
    assert total([]) == ZERO


# ---- laws ------------------------------------------------------------------------------------------------

_CYCLES = st.integers(0, 10**22)
_PIPES = ("hmma", "imma", "dmma", "tensor_other", "fp64", "fp32", "fp16", "int")
_BITS = {
    "hmma": Measured.HMMA,
    "imma": Measured.IMMA,
    "dmma": Measured.DMMA,
    "tensor_other": Measured.TENSOR_OTHER,
    "fp64": Measured.FP64,
    "fp32": Measured.FP32,
    "fp16": Measured.FP16,
    "int": Measured.INT,
}
_DTYPES = st.sampled_from(["", "unknown", *DTYPE_RATE])


@st.composite
def groups(draw: st.DrawFn) -> Cycles:
    """Any group that a correct agent can send: pipes within active, unread pipes 0, tensor pipes exclusive."""
    evidence = draw(st.sampled_from(EvidenceClass))
    measured = Measured(draw(st.integers(0, int(ALL_MEASURED))))
    elapsed = draw(_CYCLES)
    active = draw(st.integers(0, elapsed))
    room = active
    pipes: dict[str, int] = {}
    for pipe in _PIPES:
        tensor = pipe in ("hmma", "imma", "dmma", "tensor_other")
        pipes[pipe] = draw(st.integers(0, room if tensor else active)) if _BITS[pipe] in measured else 0
        room -= pipes[pipe] if tensor else 0
    if evidence in UPPER_ONLY:
        pipes = dict.fromkeys(_PIPES, 0)
    if Measured.SM_ACTIVE not in measured:
        active = 0
    spread = draw(st.sampled_from(SPREAD_STEPS_PPM))
    return Cycles(evidence, measured, spread, elapsed=elapsed, active=active, **pipes)


@given(c=groups(), which=st.sampled_from(ARCHS), dtype=_DTYPES)
def test_lower_point_upper_are_in_order(c: Cycles, which: Arch, dtype: str) -> None:
    for figure in (flop(c, which, dtype), integer_ops(c, which)):
        assert 0 <= figure.lower <= figure.point <= figure.upper


@given(c=groups(), which=st.sampled_from(ARCHS), cut=st.integers(0, 10**6), dtype=_DTYPES)
def test_splitting_a_group_adds_up(c: Cycles, which: Arch, cut: int, dtype: str) -> None:
    """Points are additive exactly; bounds within one unit of rounding, and never the narrower way."""
    names = ("elapsed", "active", *_PIPES)
    first = replace(c, **{n: getattr(c, n) * cut // 10**6 for n in names})
    rest = replace(c, **{n: getattr(c, n) - getattr(first, n) for n in names})
    whole, parts = flop(c, which, dtype), flop(first, which, dtype) + flop(rest, which, dtype)
    assert parts.point == whole.point
    assert parts.lower <= whole.lower <= parts.lower + 1
    if Measured.TENSOR_OTHER not in c.measured:
        assert whole.upper <= parts.upper  # a part may have had room for work that the whole had not
    elif Measured.HMMA in c.measured or c.imma or c.dmma:
        # Noise has room in cycles of no known tensor pipe: a whole is no narrower, but that cuts are rounded down.
        assert parts.upper <= whole.upper + 1 + 10 * max(which.rates.values())
    else:
        assert whole.upper <= parts.upper <= whole.upper + 1


@given(c=groups(), which=st.sampled_from(ARCHS), pipe=st.sampled_from(_PIPES), more=st.integers(1, 10**20))
def test_more_work_never_counts_less(c: Cycles, which: Arch, pipe: str, more: int) -> None:
    if c.evidence_class in UPPER_ONLY or _BITS[pipe] not in c.measured:
        return
    grown = replace(c, elapsed=c.elapsed + more, active=c.active + (more if c.active else 0))
    grown = replace(grown, **{pipe: getattr(c, pipe) + more})
    for figure in (flop, integer_ops):
        before, after = figure(c, which), figure(grown, which)
        assert after.lower >= before.lower
        assert after.point >= before.point
        assert after.upper >= before.upper


@given(c=groups(), which=st.sampled_from(ARCHS), pipe=st.sampled_from(_PIPES))
def test_not_measuring_never_narrows(c: Cycles, which: Arch, pipe: str) -> None:
    """What a pipe was seen to do lies within the bounds of a reading that did not see the pipe."""
    if c.evidence_class in UPPER_ONLY or Measured.SM_ACTIVE not in c.measured:
        return
    if (c.dmma and "fp64_tensor" not in which.rates) or (c.imma and "int8" not in which.rates):
        return  # work of a unit that the device does not have
    bit = _BITS[pipe]
    if pipe in ("hmma", "imma", "dmma") and Measured.TENSOR_OTHER in c.measured:
        # The any-tensor counter still sees it: it moves into the residual.
        blind = replace(c, tensor_other=c.tensor_other + getattr(c, pipe))
    else:
        blind = c
    blind = replace(blind, measured=c.measured & ~bit, **({pipe: 0} if pipe != "tensor_other" else {}))
    if pipe == "tensor_other":
        blind = replace(blind, tensor_other=0)
    noisy = blind
    if pipe == "hmma" and Measured.TENSOR_OTHER in c.measured:
        # What sealing may have dropped of a residual, it keeps of an unsplit counter.
        noisy = replace(blind, tensor_other=blind.tensor_other + -(-noise_ppm(c) // 10**6))
    for figure in (flop, integer_ops):
        assert figure(blind, which).lower <= figure(c, which).lower
        assert figure(noisy, which).upper >= figure(c, which).upper


@given(c=groups(), which=st.sampled_from(ARCHS), wider=st.sampled_from(SPREAD_STEPS_PPM))
def test_a_wider_spread_never_narrows(c: Cycles, which: Arch, wider: int) -> None:
    if wider < c.spread_ppm:
        return
    narrow, wide = flop(c, which), flop(replace(c, spread_ppm=wider), which)
    assert wide.lower <= narrow.lower
    assert wide.upper >= narrow.upper
    assert wide.point == narrow.point


@given(c=groups(), which=st.sampled_from(ARCHS))
def test_a_gap_of_the_same_time_is_never_cheaper_at_the_top(c: Cycles, which: Arch) -> None:
    """Nobody gains by being unreadable: a gap's upper bound covers all that could have run."""
    if c.evidence_class not in (EvidenceClass.C, EvidenceClass.D) or c.spread_ppm:
        return
    gap = Cycles(EvidenceClass.GAP, Measured(0), 0, elapsed=c.elapsed)
    assert flop(gap, which).upper >= flop(c, which).upper
    assert flop(gap, which).lower == flop(gap, which).point == 0


@given(c=groups(), which=st.sampled_from(ARCHS), dtype=_DTYPES)
def test_a_declared_dtype_moves_the_point_and_never_the_bounds(c: Cycles, which: Arch, dtype: str) -> None:
    said, unsaid = flop(c, which, dtype), flop(c, which)
    assert (said.lower, said.upper) == (unsaid.lower, unsaid.upper)


#: FLOP and float tensor cycles of a claim, as drawn: any ratio from far too low to far too high.
claims = st.builds(Calibration, st.integers(1, 10**6), st.integers(1, 10**3), st.integers(0, 10**6))


@given(
    c=groups(), which=st.sampled_from(ARCHS), dtype=_DTYPES, claim=st.none() | claims, trusted=st.booleans()
)
def test_claims_narrow_and_never_widen(
    c: Cycles, which: Arch, dtype: str, claim: Calibration | None, trusted: bool
) -> None:
    plain, said = flop(c, which, dtype), flop(c, which, dtype, calibration=claim, trusted=trusted)
    assert plain.lower <= said.lower <= said.point <= said.upper <= plain.upper


@given(c=groups(), which=st.sampled_from(ARCHS))
def test_sparsity_lies_between_the_upper_bound_and_twice_it(c: Cycles, which: Arch) -> None:
    upper = flop(c, which).upper
    assert upper <= nominal_sparse(c, which) <= 2 * upper
