"""The worked example of docs/what-the-numbers-mean.md is what the contract works out, to the last FLOP."""

import re
from pathlib import Path

from flopmeter.contract.evidence_class import EvidenceClass
from flopmeter.contract.flop import Cycles, flop
from flopmeter.contract.usage import ALL_MEASURED
from flopmeter.contract.w_table import CURRENT, current
from flopmeter.contract.width import Cause, widths

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "what-the-numbers-mean.md").read_text()
EXAMPLE = PAGE.partition("<!-- worked example")[2].partition("<!-- end of worked example -->")[0]
ELAPSED = 132 * 1_755_000_000 * 60
CYCLES = Cycles(
    EvidenceClass.A1,
    ALL_MEASURED,
    0,
    elapsed=ELAPSED,
    active=ELAPSED * 9 // 10,
    hmma=ELAPSED * 4 // 10,
    fp32=ELAPSED // 20,
)
ARCH = current().arch("9.0", "NVIDIA H200")
assert ARCH is not None


def result(step: str) -> int:
    """The last cell of the row that begins with `step`."""
    (row,) = re.findall(rf"^\| {re.escape(step)} \|.*\| ([\d,]+) \|$", EXAMPLE, re.MULTILINE)
    return int(row.replace(",", ""))


def test_bounds_and_point() -> None:
    figure = flop(CYCLES, ARCH)
    assert result("elapsed SM-cycles") == CYCLES.elapsed
    assert result("HMMA-active") == CYCLES.hmma
    assert result("point, BF16") == figure.point
    assert result("lower") == figure.lower
    assert result("upper") == figure.upper


def test_parts_of_the_upper_bound() -> None:
    parts = [result(f"upper, {p}") for p in ("tensor", "vector", "residual dropped as noise")]
    assert sum(parts) * 103 == result("upper") * 100
    assert f"× {ARCH.legacy_mma_permille / 1000:.3f} (`mma.sync`)" in EXAMPLE


def test_what_the_text_says_of_it() -> None:
    figure, trusted = flop(CYCLES, ARCH, "bf16"), flop(CYCLES, ARCH, "bf16", trusted=True)
    shown = [f"{n / 10**15:.1f} PFLOP" for n in (figure.lower, figure.point, figure.upper)]
    assert " ≤ ".join(shown) in EXAMPLE
    assert f"{trusted.lower / 10**15:.1f} to {trusted.upper / 10**15:.1f} PFLOP" in EXAMPLE
    parts, whole = widths(CYCLES, ARCH), figure.upper - figure.lower
    share = {cause: 100 * part / whole for cause, part in parts.items()}
    assert f"{share[Cause.DTYPE]:.0f} % is the unknown precision" in EXAMPLE
    assert f"{share[Cause.LEGACY_MMA]:.0f} % the `mma.sync` allowance" in EXAMPLE
    assert f"{share[Cause.CLASS]:.0f} % the class" in EXAMPLE
    assert f"{share[Cause.NOISE]:.1f} % the dropped residual" in EXAMPLE
    assert f"{share[Cause.VECTOR]:.1f} % vector work" in EXAMPLE
    assert f"{100 * figure.point / (60 * 989.4e12):.1f} %" in EXAMPLE
    assert f"lower is {100 * figure.lower / figure.point:.0f} % of the point" in PAGE
    assert f"it is {100 * trusted.lower / trusted.point:.0f} %" in PAGE


def test_rates_of_the_page_are_the_tables() -> None:
    wanted = {
        "BF16, FP16 on": "bf16",
        "FP8 on": "fp8",
        "TF32 on": "tf32",
        "FP64 on": "fp64_tensor",
        "INT8 on": "int8",
    }
    wanted["FP32 on"] = "fp32"
    for start, name in wanted.items():
        (rate,) = re.findall(rf"^\| {start} the [^|]*\| ([\d,]+) \|", PAGE, re.MULTILINE)
        assert int(rate.replace(",", "")) == ARCH.rates[name], start


def test_pages_name_the_current_table() -> None:
    for page in ("what-the-numbers-mean.md", "support-matrix.md"):
        named = set(re.findall(r"w_\d{4}_\d{2}(?:_\d+)?\.toml", (DOCS / page).read_text()))
        assert named == {CURRENT}, page
