"""`flopmeter estimate …` as people and scripts meet it; and the setting of the collector."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from builders import UNIX_NS, WINDOW_NS, Chain, busy
from desk import DAY_NS, Desk

from flopmeter.cli.main import main
from flopmeter.collector.errors import CollectorError, SettingsError
from flopmeter.collector.law.events import TYPES
from flopmeter.collector.running import run_collector
from flopmeter.collector.settings import CollectorSettings
from flopmeter.collector.spelling import time_text

Run = Callable[..., tuple[int, str, str]]
#: One busy window of the builders: 40 % of 132 SMs x 1.7 GHz x 60 s in HMMA, 4096 FLOP each.
WINDOW_FLOP = 132 * 1_700_000_000 * 60 * 40 // 100 * 4096


@pytest.fixture
def flopmeter(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command line in this process: (exit code, stdout, stderr)."""
    for name in ("STORE", "REGIMES", "ESTIMATES", "COLLECTOR_ESTIMATES"):
        monkeypatch.delenv(f"FLOPMETER_{name}", raising=False)

    def run(*words: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["flopmeter", "estimate", *map(str, words)])
        try:
            main()
            code = 0
        except SystemExit as e:
            code = int(e.code or 0)
        out = capsys.readouterr()
        return code, out.out, out.err

    return run


def result(flopmeter: Run, *words: str | Path) -> dict:  # type: ignore[type-arg]
    code, out, err = flopmeter(*words, "--json")
    assert (code, err) == (0, "")
    return json.loads(out)  # type: ignore[no-any-return]


H100_HOURS = ("hardware", "--device-hours", "370000", "--sku", "H100 SXM", "--utilisation", "50%")


def test_hardware_for_people(flopmeter: Run) -> None:
    code, out, err = flopmeter(*H100_HOURS)
    assert (code, err) == (0, "")
    flat = " ".join(out.split())
    assert "Estimate by hardware C = N x L x H x U class D: declared, not measured" in flat
    assert "370,000.0 device-hours at U = 50.0% 6.59e23 FLOP" in flat
    assert "H100 SXM 989.4 TFLOP/s bf16, dense 132 SMs x 4096 FLOP/cycle x 1830 MHz," in flat
    assert "estimate 6.6×10^23 FLOP unrounded 658,960,220,160,000,000,000,000" in flat
    assert "±30 % between 4.61e23 and 8.57e23" in flat
    assert "eu-gpai > 10^23 reached, even 30 % lower" in flat
    assert "eu-systemic-risk > 10^25 not reached, even 30 % higher" in flat
    assert "us-ny-raise > 10^26 not reached" in flat
    assert "not a measure of risk" in flat
    assert "\x1b" not in out


def test_hardware_as_json(flopmeter: Run) -> None:
    d = result(flopmeter, *H100_HOURS)
    exact = 370_000 * 3600 * 132 * 4096 * 1_830_000_000 // 2
    assert d["flop"] == {"lower": str(exact * 7 // 10), "point": str(exact), "upper": str(exact * 13 // 10)}
    assert (d["method"], d["evidence_class"], d["margin_percent"]) == ("hardware", "D", 30)
    assert d["two_figures"] == "6.6×10^23"
    assert d["ceiling_flop"] == str(2 * exact)
    assert d["device_hours"] == 370_000
    (period,) = d["periods"]
    assert (period["utilisation"], period["flop"]) == (0.5, str(exact))
    (kind,) = period["hardware"]
    assert (kind["units"], kind["dtype"], kind["peak_flop_per_s"]) == (
        1,
        "bf16",
        str(132 * 4096 * 1_830_000_000),
    )
    assert kind["peak_confirmed"] is True
    by_regime = {t["regime"]: t for t in d["thresholds"]}
    assert by_regime["eu-gpai"]["verdict"] == "crossed"
    assert by_regime["eu-gpai"]["reached"] is True
    assert by_regime["korea"]["comparison"] == ">="
    assert d["remarks"] == []


def test_periods_from_options_take_the_other_options_as_defaults(flopmeter: Run) -> None:
    d = result(
        flopmeter, "hardware", "--sku", "H100 SXM", "--utilisation", "0.4",
        "--period", "units=8,hours=10", "--period", "units=16, hours=5, dtype=fp8, utilization=0.2",
    )  # fmt: skip
    one, two = (int(p["flop"]) for p in d["periods"])
    assert one == two  # half the utilisation of twice the peak
    assert int(d["flop"]["point"]) == 2 * one
    assert d["device_hours"] == 160


def test_periods_from_a_file(flopmeter: Run, tmp_path: Path) -> None:
    path = tmp_path / "periods.csv"
    path.write_text("name,units,hours,sku,utilisation\nfirst,8,10,H100 SXM,0.4\nsecond,16,5,GB200,0.3\n")
    code, out, _ = flopmeter("hardware", "--periods", path)
    assert code == 0
    assert "first  10.0 h at U = 40.0%" in out
    assert "the peak of GB200 is not confirmed" in out
    code, _, err = flopmeter("hardware", "--periods", path, "--units", "3")
    assert code == 2
    assert "leave the other options out" in err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("hardware",), 2, "expected units, time, device and utilisation"),
        (("hardware", "--units", "8", "--hours", "1", "--peak", "1979e12", "--utilisation", "0.4"), 2, "the sparse one of"),
        (("hardware", "--units", "8", "--hours", "1", "--sku", "H100 SXM"), 2, "nvidia-smi"),
        (("hardware", "--units", "8", "--hours", "1", "--sku", "H100 SXM", "--utilisation", "98"), 2, "GPU-Util"),
        (("hardware", "--period", "units"), 2, "--period 1: expected key=value"),
        (("hardware", "--period", "units=1,units=2"), 2, "each key once"),
        (("hardware", "--period", "units=8,hours=1,sku=A100,utilisation=2"), 2, "--period 1: key utilisation"),
        (("hardware", "--periods", "no-such-file.toml"), 3, "cannot read"),
        (("hardware", *H100_HOURS[1:], "--regimes", "no-such-directory"), 1, "no-such-directory: expected a directory that can be read"),
        (("architecture",), 2, "expected --params and --tokens"),
        (("architecture", "--params", "1e9"), 2, "--tokens: expected"),
        (("architecture", "--params", "1e9", "--tokens", "1", "--gpus", "8"), 2, "MFU and HFU need"),
        (("architecture", "--params", "1e9", "--tokens", "1", "--sku", "A100"), 2, "for MFU and HFU"),
        (("architecture", "--passes", "1", "--flop-per-pass", "1", "--gpus", "1", "--tokens-per-second", "1"), 2, "MFU and"),
        (("architecture", "--params", "1e9", "--tokens-per-second", "1e9", "--gpus", "1", "--sku", "A100"), 2, "dense peak, got"),
        (("architecture", "--params", "1e9", "--tokens-per-second", "1", "--gpus", "1"), 2, "expected a device model or a peak"),
        (("compare", "--store", "no-such-store", "--estimates", "no-such-file"), 3, "no-such-file: cannot read"),
        (("compare",), 2, "--estimates"),
    ],
)  # fmt: skip
def test_what_is_refused_says_why_and_what_to_do(
    flopmeter: Run, words: tuple[str, ...], code: int, said: str
) -> None:
    got, out, err = flopmeter(*words)
    assert (got, out) == (code, "")
    assert said in err
    assert "Traceback" not in err


def test_architecture_for_people(flopmeter: Run) -> None:
    code, out, _ = flopmeter(
        "architecture", "--params", "64862437376", "--tokens", "1e12", "--layers", "80", "--hidden", "8192",
        "--context", "2048", "--attention", "full", "--recompute", "full",
        "--tokens-per-second", "515636", "--gpus", "512", "--sku", "H100 SXM",
    )  # fmt: skip
    assert code == 0
    flat = " ".join(out.split())
    assert "C = (6 P + 12 L d S) D" in flat
    assert "MFU 41.25% HFU 55.00%" in flat, "llm-foundry's first row"
    assert "model 4.05e23 FLOP, which learning needs" in flat
    assert "executed 5.40e23 FLOP, the whole forward pass computed once more" in flat
    assert "estimate 5.4×10^23 FLOP" in flat
    assert "the EU does not count them" in flat


def test_architecture_as_json(flopmeter: Run) -> None:
    d = result(flopmeter, "architecture", "--params", "1.54e9", "--tokens", "18e12")
    assert d["flop"]["point"] == d["model_flop"] == d["executed_flop"] == str(6 * 1_540_000_000 * 18 * 10**12)
    assert d["per_token"]["attention_forward_flop"] == "0"
    assert "speed" not in d
    rates = result(
        flopmeter,
        "architecture",
        "--params",
        "1e9",
        "--tokens-per-second",
        "1e4",
        "--gpus",
        "8",
        "--sku",
        "A100",
    )
    assert rates["flop"] is rates["model_flop"] is None
    assert rates["speed"]["mfu"] == rates["speed"]["hfu"] == pytest.approx(6e13 / (8 * 311.87e12), rel=1e-4)
    passes = result(flopmeter, "architecture", "--passes", "1e6", "--flop-per-pass", "2.5e17")
    assert passes["flop"]["point"] == str(25 * 10**22)


def test_without_tokens_there_is_no_total_and_no_line(flopmeter: Run) -> None:
    words = ("architecture", "--params", "1e9", "--tokens-per-second", "1e4", "--gpus", "8", "--sku", "A100")
    code, out, _ = flopmeter(*words)
    assert code == 0
    assert "MFU" in out
    assert "eu-gpai" not in out


def test_peaks_are_listed(flopmeter: Run) -> None:
    code, out, _ = flopmeter("peaks")
    assert code == 0
    assert re.search(r"^H100 SXM +494\.7 +989\.4 +1,978\.9 +-$", out, re.MULTILINE)
    assert re.search(r"^GB300 .* not confirmed$", out, re.MULTILINE)
    by_name = {r["sku"]: r for r in result(flopmeter, "peaks")["peaks"]}
    assert by_name["A100"]["peaks_flop_per_s"] == {
        "tf32": str(108 * 1024 * 1_410_000_000),
        "bf16": str(108 * 2048 * 1_410_000_000),
    }
    assert by_name["H20"]["peaks_flop_per_s"] == {}


# --- compare ---


def estimates_file(path: Path, *flops: int, run: str = "r1") -> Path:
    blocks = [
        f'[[estimate]]\nrun = "{run}"\nmethod = "architecture"\nby = "team"\nat = 2026-09-01T00:00:00Z\n'
        f'complete = true\npasses = {i}\nflop_per_pass = "{flop / i:.0f}"\n'
        for i, flop in enumerate(flops, 1)
    ]
    path.write_text("\n".join(['schema = "flopmeter-estimates/1"', *blocks]))
    return path


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "books.sqlite"
    with Desk(path) as desk:
        chain = Chain("n")
        agent = desk.agent(chain)
        desk.offer(agent, chain.next([busy(0)]))
        desk.commit()
    return path


def test_compare_exits_1_where_any_disagrees(flopmeter: Run, store: Path, tmp_path: Path) -> None:
    fine = estimates_file(tmp_path / "fine.toml", WINDOW_FLOP)
    code, out, _ = flopmeter("compare", "--store", store, "--estimates", fine)
    assert code == 0
    assert "cannot tell" in out
    assert "counters' point is 1.00 x the estimate" in out
    assert "if the declared dtypes are true: " in out
    wrong = estimates_file(tmp_path / "wrong.toml", WINDOW_FLOP, 100 * WINDOW_FLOP)
    code, out, _ = flopmeter("compare", "r1", "--store", store, "--estimates", wrong, "--json")
    assert code == 1
    one, two = json.loads(out)["estimates"]
    assert (one["agreement"], two["agreement"]) == ("cannot tell", "disagrees")
    assert one["measured"]["point"] == str(WINDOW_FLOP)
    assert two["measured_to_estimate"] == 0.01
    assert int(one["measured"]["lower"]) < int(one["if_declared"]["measured"]["lower"])
    assert two["if_declared"]["agreement"] == "disagrees"
    far = estimates_file(tmp_path / "far.toml", 3777 * WINDOW_FLOP)
    code, out, _ = flopmeter("compare", "r1", "--store", store, "--estimates", far)
    assert "counters' point is 0.00026 x the estimate" in out
    code, out, _ = flopmeter("compare", "r1", "--store", store, "--estimates", far, "--json")
    assert json.loads(out)["estimates"][0]["measured_to_estimate"] == 0.0002648


def test_compare_as_of_an_hour(flopmeter: Run, tmp_path: Path) -> None:
    """Two windows before the hour, three behind it; and an hour before any of them."""
    path, hour_ns = tmp_path / "books.sqlite", 3_600_000_000_000
    hour = -(-UNIX_NS // hour_ns) * hour_ns
    with Desk(path) as desk:
        desk.now = hour + DAY_NS
        chain = Chain("n")
        chain.unix_ns = hour - 2 * WINDOW_NS - 1
        agent = desk.agent(chain)
        for _ in range(5):
            desk.offer(agent, chain.next([busy(0)]))
        desk.commit()
    text = estimates_file(tmp_path / "e.toml", 2 * WINDOW_FLOP).read_text()
    seen = []
    for as_of in (hour, hour + hour_ns, hour - hour_ns):
        file = tmp_path / "as_of.toml"
        declared = text.replace("complete = true", f"as_of = {time_text(as_of)}")
        file.write_text(declared.replace("2026-09-01T00:00:00Z", time_text(hour + DAY_NS)))
        code, out, _ = flopmeter("compare", "--store", path, "--estimates", file, "--json")
        assert code == 0
        (row,) = json.loads(out)["estimates"]
        assert row["as_of"] == time_text(as_of)
        assert row["if_declared"] is None
        seen.append(row["measured"] and int(row["measured"]["point"]))
    assert seen == [2 * WINDOW_FLOP, 5 * WINDOW_FLOP, None]


def test_compare_and_a_run_that_is_not_metered(flopmeter: Run, store: Path, tmp_path: Path) -> None:
    path = estimates_file(tmp_path / "e.toml", 10**20, run="elsewhere")
    code, out, _ = flopmeter("compare", "--store", store, "--estimates", path)
    assert code == 0
    assert "elsewhere  not metered" in out
    code, _, err = flopmeter("compare", "elsewhere", "--store", store, "--estimates", path)
    assert code == 3
    assert "found none of that name" in err
    code, _, err = flopmeter("compare", "r1", "--store", store, "--estimates", path)
    assert code == 3
    assert "expected an estimate of it" in err
    code, _, err = flopmeter("compare", "--store", tmp_path / "none.sqlite", "--estimates", path)
    assert code == 3


# --- the collector's setting ---


def settings(tmp_path: Path, estimates: Path) -> CollectorSettings:
    return CollectorSettings(
        store=tmp_path / "books.sqlite", listen="127.0.0.1:0", http="", estimates=estimates
    )


def test_a_collector_does_not_start_with_estimates_it_cannot_use(tmp_path: Path) -> None:
    path = tmp_path / "e.toml"
    path.write_text('schema = "flopmeter-estimates/1"\n[[estimate]]\nrun = "r"\n')
    with pytest.raises(SettingsError, match=r"--estimates: .*e\.toml, line 2: key method: expected one of"):
        run_collector(settings(tmp_path, path))
    with pytest.raises(CollectorError, match="cannot read"):
        run_collector(settings(tmp_path, tmp_path / "none.toml"))


def test_a_started_collector_compares_what_is_in_its_books(
    tmp_path: Path, store: Path, flopmeter: Run
) -> None:
    """A run that has long stopped, an estimate that came later: the first look tells."""
    path = estimates_file(tmp_path / "e.toml", 100 * WINDOW_FLOP)
    with run_collector(
        settings(tmp_path, path), unix_ns=lambda: UNIX_NS + 2 * DAY_NS, review_s=None
    ) as collector:
        collector.review()
    from flopmeter.collector.report import queries

    with queries.reading(store) as reader:
        (event,) = [e for e in reader.events() if e["type"] == "method.disagrees"]
    assert event["subject"] == "r1"
    assert event["type"] in TYPES, "`events list --type` takes it"
    assert "(0.01 times the estimate), in all" in event["data"]["message"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("hardware", "--units", "8", "--hours", "long", "--sku", "A100"), "--hours: expected a number above 0, such as 300, got 'long'"),
        (("hardware", "--units", "few", "--hours", "3", "--sku", "A100", "--utilisation", "0.4"), "--units: expected a number above 0, such as 512, got 'few'"),
        (("architecture", "--params", "big", "--tokens", "1e9"), "--params: expected a number above 0, such as 8e9, got 'big'"),
        (("architecture", "--params", "1e9", "--tokens-per-second", "3e6", "--gpus", "x", "--sku", "A100"), "--gpus: expected a number above 0, such as 384, got 'x'"),
    ],
)  # fmt: skip
def test_an_example_is_of_what_is_asked_for(flopmeter: Run, words: tuple[str, ...], said: str) -> None:
    code, _, err = flopmeter(*words)
    assert code == 2  # a usage error
    assert said in err
