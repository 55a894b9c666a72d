"""The W table against what NVIDIA publishes: SMs x W x clock must give each official dense peak."""

import re
from importlib import resources
from pathlib import Path

import pytest

from flopmeter.contract.errors import ContractError
from flopmeter.contract.w_table import (
    CURRENT,
    DTYPE_RATE,
    FLOAT_TENSOR_RATES,
    Arch,
    Sku,
    current,
    parse_w_table,
)

METERING = Path(__file__).parents[2] / "../shared/reference/metering.md"
TABLE = current()

#: What NVML calls the models, by the SKU pattern that must catch them, and no other SKU's.
NVML_NAMES = {
    "V100-SXM2": ["Tesla V100-SXM2-16GB", "Tesla V100-SXM2-32GB"],
    "(Tesla )?T4$": ["Tesla T4"],
    "A100(?!-SXM-64GB)": [
        "NVIDIA A100-SXM4-80GB",
        "NVIDIA A100-SXM4-40GB",
        "NVIDIA A100-SXM4-40GB MIG 1g.5gb",
        "NVIDIA A100-PCIE-40GB",
        "NVIDIA A100 80GB PCIe",
    ],
    "A10$": ["NVIDIA A10"],
    "A40$": ["NVIDIA A40"],
    "L4$": ["NVIDIA L4"],
    "L40S": ["NVIDIA L40S"],
    "GeForce RTX 4090$": ["NVIDIA GeForce RTX 4090"],
    "RTX 6000 Ada": ["NVIDIA RTX 6000 Ada Generation"],
    "H100 80GB HBM3|H100 SXM|H200(?! NVL)|GH200": [
        "NVIDIA H100 80GB HBM3",
        "NVIDIA H100 80GB HBM3 MIG 1g.10gb",
        "NVIDIA H200",
        "NVIDIA GH200 480GB",
    ],
    "H100 PCIe": ["NVIDIA H100 PCIe"],
    r"H20\b": ["NVIDIA H20"],
    "B100": ["NVIDIA B100"],
    "(?<!G)B200": ["NVIDIA B200"],
    "GB200": ["NVIDIA GB200"],
    "(?<!G)B300": ["NVIDIA B300 SXM6 AC"],
    "GB300": ["NVIDIA GB300"],
    "RTX PRO 6000 Blackwell": ["NVIDIA RTX PRO 6000 Blackwell Workstation Edition"],
}

#: Official dense peaks in TFLOP/s (INT8: TOP/s), typed from reference/metering.md 3.3, not from the table.
OFFICIAL = {
    "NVIDIA H100 80GB HBM3": {"bf16": 989.4, "tf32": 494.7, "fp8": 1978.9, "fp32": 67, "fp64_tensor": 67},
    "NVIDIA A100-SXM4-80GB": {"bf16": 312, "tf32": 156, "int8": 624, "fp64_tensor": 19.5, "fp64": 9.7},
    "NVIDIA B200": {"bf16": 2250, "fp8": 4500, "fp4": 9000, "fp32": 75, "fp64": 37},
    "NVIDIA GB300": {"bf16": 2500, "fp8": 5000, "fp4": 15000, "int8": 165, "fp64": 1.3},
    "Tesla V100-SXM2-16GB": {"bf16": 125, "fp32": 15.7, "fp64": 7.8},
}


def arch_of(sku: Sku) -> Arch:
    found = TABLE.arch(sku.compute_capability, NVML_NAMES[sku.name][0])
    assert found is not None, f"{sku.name}: no rates"
    return found


def deviation_percent(sku: Sku, rate: str) -> float:
    """How far SMs x W x clock is from the official peak, signed, in percent."""
    mhz = sku.vector_mhz if rate in sku.vector_clocked else sku.tensor_mhz
    computed = sku.sms * arch_of(sku).rates[rate] * mhz / 1e6
    return 100 * (computed / sku.peaks[rate] - 1)


PEAKS = [(sku, rate) for sku in TABLE.skus if sku.name != "H20\\b" for rate in sku.peaks]


@pytest.mark.parametrize(("sku", "rate"), PEAKS, ids=[f"{s.name}-{r}" for s, r in PEAKS])
def test_peak_reconciles_or_is_a_documented_outlier(sku: Sku, rate: str) -> None:
    deviation = deviation_percent(sku, rate)
    if rate in sku.outliers:
        assert abs(deviation) > sku.tolerance_percent, f"{rate} is no outlier: {deviation:+.2f} %"
        stated = re.search(r"([+-][\d.]+) %", sku.outliers[rate])
        assert stated, "an outlier states its deviation"
        assert deviation == pytest.approx(float(stated[1]), abs=0.6)
    else:
        assert abs(deviation) <= sku.tolerance_percent, f"{deviation:+.2f} %"


@pytest.mark.parametrize(
    "sku", [s for s in TABLE.skus if s.peaks and s.tolerance_percent], ids=lambda s: s.name
)
def test_tolerance_is_no_wider_than_the_worst_peak_needs(sku: Sku) -> None:
    worst = max(abs(deviation_percent(sku, r)) for r in sku.peaks if r not in sku.outliers)
    assert sku.tolerance_percent <= worst + 0.2, f"worst is {worst:.2f} %"


@pytest.mark.parametrize(("model", "peaks"), OFFICIAL.items(), ids=list(OFFICIAL))
def test_peaks_are_the_official_ones(model: str, peaks: dict[str, float]) -> None:
    sku = next(s for s in TABLE.skus if model in NVML_NAMES[s.name])
    for rate, tflops in peaks.items():
        assert sku.peaks[rate] == tflops


def test_a_confirmed_sku_has_no_fitted_number() -> None:
    fitted = {s.name for s in TABLE.skus if not s.confirmed}
    assert fitted == {r"H20\b", "B100", "(?<!G)B200", "GB200", "(?<!G)B300", "GB300"}


def test_every_sku_is_caught_by_its_own_pattern_only() -> None:
    assert set(NVML_NAMES) == {s.name for s in TABLE.skus}
    for sku in TABLE.skus:
        for model in NVML_NAMES[sku.name]:
            assert TABLE.sku(sku.compute_capability, model) is sku
            others = [
                s.name
                for s in TABLE.skus
                if s is not sku
                and s.compute_capability == sku.compute_capability
                and re.search(s.name, model)
            ]
            assert not others, f"{model} is also {others}"


def test_h20_has_no_rates_and_its_siblings_have() -> None:
    assert TABLE.arch("9.0", "NVIDIA H20") is None
    assert not TABLE.confirmed("9.0", "NVIDIA H20")
    h200 = TABLE.arch("9.0", "NVIDIA H200")
    assert h200 is not None
    assert h200.rates["bf16"] == 4096


def test_h20_does_not_reconcile_with_the_rates_of_its_capability() -> None:
    sku = TABLE.sku("9.0", "NVIDIA H20")
    assert sku is not None
    hopper = TABLE.arch("9.0", "")
    assert hopper is not None
    for rate in ("bf16", "fp32"):
        computed = sku.sms * hopper.rates[rate] * sku.tensor_mhz / 1e6
        assert not 0.95 < computed / sku.peaks[rate] < 1.05


@pytest.mark.parametrize("capability", ["", "6.1", "9.1", "10.1", "11.0", "13.0", "9", "9.0.0", "abc"])
def test_unknown_capability_has_no_rates(capability: str) -> None:
    assert TABLE.arch(capability, "NVIDIA H100 80GB HBM3") is None
    assert not TABLE.confirmed(capability, "NVIDIA H100 80GB HBM3")


def test_unlisted_model_of_a_known_capability_is_priced_but_not_confirmed() -> None:
    assert TABLE.arch("9.0", "NVIDIA H100 NVL") is not None
    assert not TABLE.confirmed("9.0", "NVIDIA H100 NVL")


def test_geforce_ada_has_the_halved_rates() -> None:
    geforce, pro = TABLE.arch("8.9", "NVIDIA GeForce RTX 4090"), TABLE.arch("8.9", "NVIDIA L40S")
    assert geforce is not None
    assert pro is not None
    assert geforce.rates["bf16"] * 2 == pro.rates["bf16"] == geforce.rates["bf16_fp16acc"]
    assert geforce.tensor_span() == (256, 2048)


@pytest.mark.parametrize(
    ("capability", "model", "full"),
    [
        ("7.5", "NVIDIA GeForce RTX 2080 Ti", "NVIDIA T4"),
        ("8.6", "NVIDIA GeForce RTX 3090", "NVIDIA A40"),
        ("12.0", "NVIDIA GeForce RTX 5090", "NVIDIA RTX PRO 6000 Blackwell Workstation Edition"),
    ],
)
def test_geforce_halves_the_float_accumulators(capability: str, model: str, full: str) -> None:
    geforce, pro = TABLE.arch(capability, model), TABLE.arch(capability, full)
    assert geforce is not None
    assert pro is not None
    assert geforce.rates["bf16"] * 2 == pro.rates["bf16"] == geforce.rates["bf16_fp16acc"]
    assert geforce.tensor_span() == (pro.tensor_span()[0] // 2, pro.tensor_span()[1])
    assert not TABLE.confirmed(capability, model)


RATED = [a for a in TABLE.archs if a.rates]
#: metering.md 4.3 says 60-65 % of Hopper; of data-centre Blackwell nobody has said: as fast per SM as Hopper.
LEGACY_SHARE = {"9.0": 600, "10.0": 300, "10.3": 300}


@pytest.mark.parametrize("arch", RATED, ids=lambda a: f"{a.compute_capability} {a.name}")
def test_what_a_tensor_cycle_may_stand_for_is_every_float_dtype_until_it_is_measured(arch: Arch) -> None:
    """Only an experiment may narrow it: E4 (FP8 in HMMA or not), E6 (mma.sync)."""
    floats = tuple(name for name in FLOAT_TENSOR_RATES if name in arch.rates)
    for key in ("hmma_holds", "residual_holds"):
        if arch.known[key] != "measured":
            assert getattr(arch, key) == floats
    wgmma = arch.compute_capability in ("9.0", "10.0", "10.3")
    if arch.known["legacy_mma_permille"] != "measured":
        assert arch.legacy_mma_permille == LEGACY_SHARE.get(arch.compute_capability, 1000)
        assert arch.legacy_mma_in == (("hmma", "imma", "residual") if wgmma else ())
    assert arch.legacy_permille("dmma") == 1000, "FP64 tensor work has no faster path"


@pytest.mark.parametrize("arch", RATED, ids=lambda a: f"{a.compute_capability} {a.name}")
def test_sparse_rates_are_twice_the_dense_ones_but_for_one(arch: Arch) -> None:
    tensor = {n for n in (*FLOAT_TENSOR_RATES, "int8") if n in arch.rates}
    assert set(arch.sparse) == (set() if arch.compute_capability.startswith("7.") else tensor)
    for name, nominal in arch.sparse.items():
        if (arch.compute_capability, name) == ("10.3", "fp4"):
            assert nominal * 3 == arch.rates[name] * 4  # 15 dense to 20 sparse PFLOP/s (metering.md 3.2)
        else:
            assert nominal == 2 * arch.rates[name]


def test_int4_is_twice_int8_from_turing_to_ada() -> None:
    for arch in RATED:
        twice = arch.compute_capability in ("7.5", "8.0", "8.6", "8.9")
        assert arch.rates.get("int4") == (2 * arch.rates["int8"] if twice else None)


def test_every_declared_dtype_names_a_rate_that_some_arch_has() -> None:
    known = {rate for arch in TABLE.archs for rate in arch.rates}
    assert set(DTYPE_RATE.values()) <= known


def test_rates_that_nvidia_states_exist() -> None:
    for arch in TABLE.archs:
        assert set(arch.stated) <= set(arch.rates)


def reference_rows(section: str) -> list[list[str]]:
    """Cells of the markdown table in one section of reference/metering.md."""
    if not METERING.exists():
        pytest.skip("shared/reference/metering.md is not beside the repository")
    text = METERING.read_text().split(f"### {section}", 1)[1].split("\n### ", 1)[0].split("\n## ", 1)[0]
    rows = [line.strip("| \n").split("|") for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip(" *") for cell in row] for row in rows[2:]]


def test_rates_are_those_of_the_reference_cell_by_cell() -> None:
    columns = (
        "fp64_tensor",
        "tf32",
        "bf16",
        "fp8",
        "fp6",
        "fp4",
        "int8",
        "fp64",
        "fp32",
        "fp16_vector",
    )
    seen = 0
    for row in reference_rows("3.2"):
        model = "NVIDIA GeForce RTX 4090" if "4090" in row[1] else ""
        arch = TABLE.arch(row[0], model)
        assert arch is not None, row
        for rate, cell in zip(columns, row[2:], strict=True):
            number = re.match(r"~?(\d+)", cell)
            assert arch.rates.get(rate) == (int(number[1]) if number else None), (row[1], rate, cell)
            seen += 1
    assert seen == 10 * 10


def test_sm_counts_are_those_of_the_reference() -> None:
    counts = {row[0].split(" (")[0]: row[1].rstrip("?").split(" or ")[0] for row in reference_rows("3.3")}
    assert len(counts) == len(TABLE.skus)
    listed = sorted(int(n) for n in counts.values())
    assert listed == sorted(s.sms for s in TABLE.skus)


def test_table_is_versioned_by_its_bytes() -> None:
    raw = resources.files("flopmeter.contract").joinpath(CURRENT).read_bytes()
    assert parse_w_table(raw) == TABLE
    assert parse_w_table(raw + b"\n").digest != TABLE.digest
    assert TABLE.id == "w-2026-11.3"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('hmma_holds = ["tf32", "bf16", "fp8"]', 'hmma_holds = ["tf32", "bf16", "fp4"]'),
        ('hmma_holds = ["tf32", "bf16", "fp8"]', 'hmma_holds = ["tf32", "int8"]'),
        ('hmma_holds = ["tf32", "bf16", "fp8"]', 'hmma_holds = ["tf32", "fp8"]'),
        ('residual_holds = ["tf32", "bf16", "fp8"]', "residual_holds = []"),
        ("legacy_mma_permille = 600", "legacy_mma_permille = 1001"),
        ("legacy_mma_permille = 600", "legacy_mma_permille = 0"),
        ("legacy_mma_permille = 600", "legacy_mma_permille = 0.6"),
        ('["hmma", "imma", "residual"]', '["hmma", "dmma"]'),
        ("fp8 = 16384, int8 = 16384 }\nknown", "fp8 = 16384, int8 = 4096 }\nknown"),
        ("fp8 = 16384, int8 = 16384 }\nknown", "fp8 = 16384, fp4 = 16384 }\nknown"),
        ('legacy_mma_permille = "inferred"', 'legacy_mma_permille = "hearsay"'),
        ('legacy_mma_permille = "inferred", ', ""),
    ],
)
def test_what_the_bounds_rest_on_is_checked(old: str, new: str) -> None:
    raw = resources.files("flopmeter.contract").joinpath(CURRENT).read_text()
    assert old in raw
    with pytest.raises(ContractError, match="W table"):
        parse_w_table(raw.replace(old, new).encode())


@pytest.mark.parametrize(
    "raw",
    [
        b"\xff\xfe",
        b"id = ",
        b"id = 'x'",
        b"id = 'x'\n[[arch]]\nname = 'y'",
        b"id = 'x'\n[[arch]]\ncompute_capability = '9.0'\nrates = { bf16 = 0 }\nstated = []",
        b"id = 'x'\n[[arch]]\ncompute_capability = '9.0'\nrates = { bf16 = -1 }\nstated = []",
        b"id = 'x'\n[[arch]]\ncompute_capability = '9.0'\nrates = { bf16 = 1.5 }\nstated = []",
        b"id = 'x'\n[[arch]]\ncompute_capability = '9.0'\nrates = { bf16 = true }\nstated = []",
        b"id = 'x'\n[[arch]]\ncompute_capability = '9.0'\nrates = 4\nstated = []",
        b"id = 'x'\narch = []\n[[sku]]\nname = 'only'",
        b"id = 'x'\narch = 7",
    ],
    ids=[
        "not-text",
        "not-toml",
        "no-archs",
        "no-capability",
        "rate-zero",
        "rate-negative",
        "rate-fraction",
        "rate-bool",
        "rates-not-a-table",
        "sku-half",
        "archs-not-a-list",
    ],
)
def test_what_is_not_a_table_is_refused(raw: bytes) -> None:
    with pytest.raises(ContractError, match="W table"):
        parse_w_table(raw)
