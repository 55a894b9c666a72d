"""C = N x L x H x U: exact sums, dense peaks only, utilisation that is one."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flopmeter.collector.errors import EstimateError
from flopmeter.collector.estimate.fields import OPTIONS
from flopmeter.collector.estimate.hardware import Period, device_seconds, period, remarks, total
from flopmeter.collector.estimate.margin import lines, margin
from flopmeter.collector.estimate.numbers import figures, figures_value, instant, number, rate, share, whole
from flopmeter.collector.estimate.peaks import DTYPES, dense, find, names, peak
from flopmeter.collector.law.regimes import shipped
from flopmeter.collector.law.rules import Verdict
from flopmeter.contract.flop import Figure
from flopmeter.contract.w_table import current

TABLE = current()
H100 = 132 * 4096 * 1_830_000_000
GOOD = {"units": "8", "hours": "10", "sku": "H100 SXM", "utilisation": "0.4"}


def a_period(**changes: str | None) -> Period:
    entry = {k: v for k, v in {**GOOD, **changes}.items() if v is not None}
    return period(entry, lambda _: OPTIONS, TABLE)


def refused(**changes: str | None) -> EstimateError:
    with pytest.raises(EstimateError) as caught:
        a_period(**changes)
    return caught.value


# --- the sum ---


def test_one_period_to_the_operation() -> None:
    assert total([a_period()]) == 8 * 36_000 * H100 * 4 // 10
    assert a_period(utilisation="40%").flop == a_period().flop
    assert a_period(hours=None, seconds="36000").flop == a_period().flop
    assert a_period(hours=None, units=None, device_hours="80").flop == a_period().flop
    dates = {"start": "2026-11-01T00:00:00Z", "end": "2026-11-01T12:00:00+02:00"}
    assert a_period(hours=None, **dates).flop == a_period().flop


def test_pieces_are_the_sum_of_pieces() -> None:
    """Units join and leave, the clock's dtype changes: each span on its own, added up, rounded once."""
    spans = [
        a_period(units="8", hours="1"),
        a_period(units="7", hours="0.1", dtype="fp8"),
        a_period(sku="GB200"),
    ]
    assert total(spans) == 28_800 * H100 * 4 // 10 + 7 * 360 * 2 * H100 * 4 // 10 + (
        288_000 * 148 * 8192 * 2_062_000_000 * 4 // 10
    )
    assert device_seconds(spans) == 28_800 + 2_520 + 288_000


@given(
    hours=st.lists(st.fractions(min_value=Fraction(1, 1000), max_value=1000), min_size=1, max_size=6),
    units=st.integers(1, 100_000),
)
def test_a_period_cut_anywhere_is_the_same_period(hours: list[Fraction], units: int) -> None:
    def of(h: Fraction) -> Period:
        return Period("", h * 3600, Fraction(2, 5), a_period(units=str(units)).hardware)

    assert total(map(of, hours)) == total([of(sum(hours, Fraction(0)))])


@given(a=st.integers(1, 10**6), b=st.integers(1, 10**6))
def test_mixed_hardware_is_weighted_by_unit_count(a: int, b: int) -> None:
    mixed = {"hours": "7", "utilisation": "0.35", "hardware": [
        {"units": str(a), "sku": "H100 SXM"},
        {"units": str(b), "sku": "A100"},
    ]}  # fmt: skip
    found = period(mixed, lambda _: "", TABLE)
    a100 = 108 * 2048 * 1_410_000_000
    assert found.mean_peak == Fraction(a * H100 + b * a100, a + b)
    assert found.flop == (a + b) * 25_200 * found.mean_peak * Fraction(35, 100)
    each = [
        a_period(units=str(n), sku=s, hours="7", utilisation="0.35")
        for n, s in ((a, "H100 SXM"), (b, "A100"))
    ]
    assert total([found]) == total(each)


def test_the_sum_is_exact_where_a_double_is_not() -> None:
    big = a_period(units="100000", hours="100000", utilisation="1")
    tiny = a_period(units="1", hours=None, seconds="1e-6", utilisation="0.001")
    assert total([big, tiny]) - total([big]) == total([tiny]) > 0
    assert float(total([big, tiny])) == float(total([big])), "which is why they are integers"


# --- peaks ---


@pytest.mark.parametrize(
    ("said", "pattern"),
    [
        ("H100 SXM", "H100 80GB"),
        ("h100-sxm", "H100 80GB"),
        ("NVIDIA H100-SXM5-80GB", "H100 80GB"),
        ("NVIDIA H100 80GB HBM3", "H100 80GB"),
        ("NVIDIA H200-SXM5-141GB", "H100 80GB"),
        ("H100_PCIe", "H100 PCIe"),
        ("NVIDIA Blackwell GPU (B200-SXM-180GB)", "(?<!G)B200"),
        ("NVIDIA Blackwell GPU (GB200)", "GB200"),
        ("a100-sxm4-40gb", "A100"),
        ("V100", "V100-SXM2"),
        ("A10", "A10$"),
    ],
)
def test_a_model_is_known_by_the_names_people_use(said: str, pattern: str) -> None:
    found = find(said, TABLE)
    assert found is not None
    assert found.name.startswith(pattern)


def test_every_name_of_every_model_means_that_model() -> None:
    for sku in TABLE.skus:
        for name in names(sku):
            assert find(name, TABLE) is sku, name


@pytest.mark.parametrize("said", ["H100", "H100 80GB", "h100 nvl"])
def test_a_name_of_several_models_is_refused_and_lists_them(said: str) -> None:
    error = refused(sku=said)
    assert "--sku" in str(error)
    assert "H100 SXM (989.4 TFLOP/s bf16) or H100 PCIe (756.4 TFLOP/s bf16)" in error.hint


@pytest.mark.parametrize("said", ["MI300X", "TPU v5p", "H1000", "", "   "])
def test_an_unknown_model_is_refused_and_never_guessed(said: str) -> None:
    error = refused(sku=said)
    assert "expected" in str(error)


def test_a_model_without_rates_is_refused_until_its_peak_is_given() -> None:
    assert "H20" in str(refused(sku="H20"))
    assert total([a_period(sku="H20", peak="148e12")]) == 8 * 36_000 * 148 * 10**12 * 4 // 10
    assert "sparse" in str(refused(sku="H20", peak="296e12"))


@pytest.mark.parametrize("sku", [s for s in TABLE.skus if dense(s, "bf16", TABLE)], ids=lambda s: names(s)[0])
def test_twice_the_dense_peak_of_any_model_and_dtype_is_refused(sku) -> None:  # type: ignore[no-untyped-def]
    name = names(sku)[0]
    for dtype in DTYPES:
        own = dense(sku, dtype, TABLE)
        if own is None:
            continue
        assert peak(name, dtype, str(int(own)), TABLE).flop_per_s == own
        assert "sparse" in str(refused(sku=name, dtype=dtype, peak=str(2 * int(own))))


@pytest.mark.parametrize("given", ["1979e12", "1979T", "1979 TFLOP/s", "1.979P", "1978.9TFLOPS"])
def test_the_sparse_h100_figure_is_refused_however_it_is_written(given: str) -> None:
    error = refused(peak=given)
    assert "expected at most the dense bf16 peak of H100 SXM, 989.4 TFLOP/s" in str(error)
    assert "1,97" in str(error)
    assert "sparse" in error.hint
    assert "sparse" in str(refused(peak=given, sku=None)), "also where no model is named"


def test_the_dense_fp8_figure_is_the_same_number_and_good() -> None:
    assert a_period(peak="1979e12", dtype="fp8").flop == 8 * 36_000 * Fraction(1979 * 10**12 * 4, 10)
    assert a_period(peak="1979e12", dtype="fp8", sku=None).flop > 0
    assert "sparse" in str(refused(peak="3958e12", dtype="fp8"))
    assert "sparse" in str(refused(peak="3958e12", dtype="fp8", sku=None))


def test_more_than_dense_is_refused_even_where_it_is_not_twice() -> None:
    assert "more than that" in str(refused(peak="1500e12"))
    assert a_period(peak="1000e12").flop > 0  # datasheets round


@pytest.mark.parametrize(
    ("sku", "dtype", "given"), [("H100 SXM", "fp4", "3958e12"), ("A100", "fp8", "1248e12")]
)
def test_a_peak_of_a_dtype_that_the_model_lacks_is_refused(sku: str, dtype: str, given: str) -> None:
    """Else the sparse figure of another dtype would come in by that name."""
    assert f"known rate, got {dtype}: it has tf32, bf16" in str(refused(sku=sku, dtype=dtype, peak=given))


@pytest.mark.parametrize("given", ["3958e12", "2.63P"])
def test_more_than_any_device_can_do_is_refused_where_none_is_named(given: str) -> None:
    error = refused(peak=given, sku=None)
    assert "none of the W table has more than 2,500" in str(error)
    assert "sparse" in error.hint
    assert a_period(peak=given, sku="R200").flop > 0


def test_the_sparse_figure_of_another_model_is_said_of_one_that_nobody_knows() -> None:
    (said,) = remarks([a_period(peak="1979e12", sku="my cluster")])
    assert "it is the sparse peak of H100 80GB HBM3" in said


def test_a_given_peak_of_a_model_that_nobody_knows_is_taken_and_said() -> None:
    found = a_period(sku="MI355X", peak="2500e12")
    assert not found.hardware[0].peak.confirmed
    assert any("MI355X" in r for r in remarks([found]))
    # 300 TFLOP/s is what the EU's example has for an A100; the sparse figure of an A40 is 299.3.
    assert a_period(sku=None, peak="300e12").flop > 0


@pytest.mark.parametrize("given", ["989", "0", "-1e15", "1e15x", "", "1e999", "NaN", "inf", "9" * 99])
def test_what_is_no_peak_is_refused(given: str) -> None:
    assert "peak" in str(refused(peak=given))


# --- utilisation ---


def test_utilisation_must_be_said_and_the_hint_says_what_it_is_not() -> None:
    error = refused(utilisation=None)
    assert "--utilisation" in str(error)
    assert "nvidia-smi" in error.hint


@pytest.mark.parametrize("u", ["1.0001", "40", "97", "101%", "100.1 %"])
def test_utilisation_above_one_is_refused(u: str) -> None:
    error = refused(utilisation=u)
    assert "at most 1" in str(error)
    assert "GPU-Util" in error.hint


@pytest.mark.parametrize("u", ["0", "-0.4", "0%", "", "nan", "0.4.1", "forty"])
def test_what_is_no_share_is_refused(u: str) -> None:
    assert "utilisation" in str(refused(utilisation=u))


def test_a_high_utilisation_is_warned_of() -> None:
    assert remarks([a_period(utilisation="0.8")]) == []
    (said,) = remarks([a_period(utilisation="0.801")])
    assert said.startswith("warning: U of 80.1% is above")
    assert "nvidia-smi" in said
    assert a_period(utilisation="1").flop == a_period(utilisation="1").ceiling


# --- what else must be said, once ---


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"units": None}, "units"),
        ({"units": "0"}, "units"),
        ({"units": "8.5"}, "units"),
        ({"units": "many"}, "units"),
        ({"hours": None}, "hours"),
        ({"hours": "0"}, "hours"),
        ({"hours": "-1"}, "hours"),
        ({"hours": "1e-30"}, "hours"),
        ({"hours": None, "start": "0001-01-01T00:00:00+23:59", "end": "2026-11-01T00:00:00Z"}, "start"),
        ({"seconds": "5"}, "hours"),
        ({"device_hours": "80"}, "hours"),
        ({"hours": None, "device_hours": "80"}, "units"),
        ({"hours": None, "start": "2026-11-01T00:00:00Z"}, "end"),
        ({"hours": None, "start": "2026-11-01T00:00:00Z", "end": "2026-11-01T00:00:00Z"}, "end"),
        ({"hours": None, "start": "2026-11-01", "end": "2026-11-02T00:00:00Z"}, "start"),
        ({"hours": None, "start": "2026-11-01T00:00:00", "end": "2026-11-02T00:00:00Z"}, "start"),
        ({"sku": None}, "sku"),
        ({"dtype": "int8"}, "dtype"),
        ({"dtype": "fp4"}, "sku"),
        ({"speed": "9"}, "speed"),
    ],
)  # fmt: skip
def test_each_fault_names_its_key(changes: dict[str, str | None], key: str) -> None:
    error = refused(**changes)
    assert str(error).startswith(f"--{key}: "), error
    assert error.hint


def test_overlapping_periods_are_told() -> None:
    first = {"hours": None, "start": "2026-11-01T00:00:00Z", "end": "2026-11-02T00:00:00Z"}
    later = {**first, "start": "2026-11-01T23:59:59Z", "end": "2026-11-03T00:00:00Z"}
    assert any("overlap" in r for r in remarks([a_period(**later), a_period(**first)]))
    behind = {**first, "start": "2026-11-02T00:00:00Z", "end": "2026-11-03T00:00:00Z"}
    assert remarks([a_period(**first), a_period(**behind)]) == []


def test_unconfirmed_peaks_are_told_once() -> None:
    said = remarks([a_period(sku="GB200"), a_period(sku="GB200")])
    assert len(said) == 1
    assert "GB200" in said[0]


# --- numbers ---


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("8e9", 8 * 10**9),
        ("8_030_261_248", 8_030_261_248),
        ("8,030", 8030),
        ("64,862,437,376", 64_862_437_376),
        ("1.54E+9", 1_540_000_000),
        (".5e1", 5),
    ],
)
def test_numbers_are_exact(text: str, value: int) -> None:
    assert whole("x", text) == number("x", text) == value


@pytest.mark.parametrize(
    "text",
    [
        "0",
        "0.0",
        "-1",
        "1e-41",
        "1e41",
        "1e",
        "e9",
        "1 000",
        "0x10",
        "1e9e9",
        "_1",
        "१",
        "1,5",
        "1,0,0",
        "0,400",
        "1_",
        "1__0",
        "1,00",
        "1,0000",
        "1,000_000",
        ",",
    ],
)
def test_what_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(EstimateError, match=r"^x: expected a number above 0"):
        number("x", text)


@given(st.text(max_size=80))
def test_any_text_is_a_number_or_refused(text: str) -> None:
    for read in (number, whole, rate, share, instant):
        try:
            read("x", text)
        except EstimateError as e:
            assert str(e).startswith("x: expected")


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (2_345, 2, "2.3×10^3"),
        (2_350, 2, "2.4×10^3"),
        (9_950, 2, "1.0×10^4"),
        (9_949, 2, "9.9×10^3"),
        (7, 2, "7.0×10^0"),
        (10**25, 2, "1.0×10^25"),
        (10**25 + 1, 2, "1.0×10^25"),
        (95, 1, "1×10^2"),
        (0, 2, "0"),
    ],
)
def test_significant_figures(value: int, digits: int, text: str) -> None:
    assert figures(value, digits) == text


@given(st.integers(1, 10**30), st.integers(1, 4))
def test_what_is_printed_is_within_half_of_its_last_figure(value: int, digits: int) -> None:
    shown = figures_value(value, digits)
    assert abs(shown - value) * 2 <= 10 ** max(0, len(str(value)) - digits)
    lead, exponent = figures(value, digits).split("×10^")
    assert Fraction(lead) * 10 ** int(exponent) == shown


# --- margin and lines ---


def test_the_margin_is_thirty_percent_rounded_outwards() -> None:
    assert margin(100) == Figure(70, 100, 130)
    assert margin(1) == Figure(0, 1, 2)
    assert margin(10**25) == Figure(7 * 10**24, 10**25, 13 * 10**24)


def of_systemic_risk(flop: int):  # type: ignore[no-untyped-def]
    return next(
        line for line in lines(flop, shipped(), 1_780_000_000 * 10**9) if line.regime.id == "eu-systemic-risk"
    )


@pytest.mark.parametrize(
    ("flop", "said", "reached"),
    [
        (10**25 * 10 // 13 - 1, Verdict.BELOW, False),  # 7.7e24: from here 30 % could hide a crossing
        (10**25 * 10 // 13 + 1, Verdict.UNDETERMINED, False),
        (10**25, Verdict.UNDETERMINED, False),
        (10**25 + 1, Verdict.UNDETERMINED, True),
        (10**26 // 7 + 2, Verdict.CROSSED, True),
    ],
)
def test_a_line_is_compared_exactly(flop: int, said: Verdict, reached: bool) -> None:
    line = of_systemic_risk(flop)
    assert (line.verdict, line.reached) == (said, reached)


def test_rounding_never_hides_a_line_unsaid() -> None:
    """10^25 + 1 is notified as 1.0×10^25, which is not above 10^25."""
    assert of_systemic_risk(10**25 + 1).rounding_hides
    assert "state the unrounded comparison" in of_systemic_risk(10**25 + 1).answer
    assert not of_systemic_risk(2 * 10**25).rounding_hides
    assert not of_systemic_risk(10**25).rounding_hides


def test_a_regime_that_does_not_count_recomputation_gets_the_model_figure() -> None:
    from dataclasses import replace

    own = [
        replace(shipped()[0], id=counting, counting=counting)
        for counting in ("executed", "eu-broad", "eu-narrow", "us-state", "korea")
    ]
    found = lines(2 * 10**23, own, 0, model_flop=10**22)
    assert [line.reached for line in found] == [True, False, False, True, True]  # silent counts
