"""Files of periods and of declared estimates: what is read, and where each fault is said to stand."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flopmeter.collector.errors import CollectorError, EstimateError
from flopmeter.collector.estimate.declared import Declared, declared, from_document
from flopmeter.collector.estimate.fields import OPTIONS, as_entry
from flopmeter.collector.estimate.files import read_estimates, read_periods
from flopmeter.collector.estimate.hardware import period, total
from flopmeter.contract.w_table import current

TABLE = current()

PERIODS = """
[[period]]
name = "ramp"
units = 512
start = 2026-11-01T00:00:00Z
end = 2026-11-08T00:00:00Z
sku = "H100 SXM"
utilisation = 0.31

[[period]]                       # two kinds at once
hours = 168
utilisation = 0.40
hardware = [{ units = 1024, sku = "H100 SXM" }, { units = 256, sku = "A100", peak = "312e12" }]
"""
CSV = """name,units,start,end,hours,sku,dtype,utilisation
ramp,512,2026-11-01T00:00:00Z,2026-11-08T00:00:00Z,,H100 SXM,,0.31
"main, part 1",1024,,,168,H100 SXM,bf16,40%
"""

ESTIMATES = """schema = "flopmeter-estimates/1"

[[estimate]]
run = "r1"
method = "architecture"
by = "team"
at = 2026-11-20T12:00:00Z
complete = true
params = 8_030_261_248
tokens = 1.5e12

[[estimate]]
run = "r2"
method = "hardware"
by = "team"
at = 2026-11-20T12:00:00+01:00
as_of = 2026-11-20T11:00:00Z
units = 8
hours = 10
sku = "H100 SXM"
utilisation = 0.4

[[estimate]]
run = "r3"
method = "hardware"
by = "team"
at = 2026-11-20T12:00:00Z
complete = true
[[estimate.period]]
units = 8
hours = 10
sku = "H100 SXM"
utilisation = 0.4
[[estimate.period]]
units = 16
hours = 5
sku = "H100 SXM"
utilisation = 0.4
"""


def written(tmp_path: Path, text: str, name: str = "f.toml") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


def periods_fault(tmp_path: Path, text: str, name: str = "f.toml") -> str:
    with pytest.raises(EstimateError) as caught:
        read_periods(written(tmp_path, text, name), TABLE)
    assert caught.value.hint
    return str(caught.value).removeprefix(str(tmp_path / name))


def estimates_fault(tmp_path: Path, text: str) -> str:
    with pytest.raises(EstimateError) as caught:
        read_estimates(written(tmp_path, text), TABLE)
    assert caught.value.hint
    return str(caught.value).removeprefix(str(tmp_path / "f.toml"))


# --- periods ---


def test_toml_and_csv_hold_the_same(tmp_path: Path) -> None:
    by_toml = read_periods(written(tmp_path, PERIODS), TABLE)
    by_csv = read_periods(written(tmp_path, CSV, "f.csv"), TABLE)
    assert by_toml[0] == by_csv[0]
    h100 = 132 * 4096 * 1_830_000_000
    assert total(by_toml[:1]) == 512 * 604_800 * h100 * 31 // 100
    assert total(by_toml[1:]) == 604_800 * (1024 * h100 + 256 * 312 * 10**12) * 4 // 10
    assert by_csv[1].name == "main, part 1"
    assert by_csv[1].flop == 1024 * 604_800 * h100 * 4 // 10


def test_a_file_from_a_spreadsheet_on_windows_is_read(tmp_path: Path) -> None:
    path = tmp_path / "f.CSV"
    path.write_bytes(b"\xef\xbb\xbf" + CSV.replace("\n", "\r\n").encode() + b"\r\n,,,,,,,\r\n")
    assert total(read_periods(path, TABLE)) == total(read_periods(written(tmp_path, CSV, "g.csv"), TABLE))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("units = 512", "units = 0", ", line 4: key units: expected a number above 0"),
        ("units = 512", "unit = 512", ", line 2: key units: expected a whole number above 0, got nothing"),
        ("utilisation = 0.31", "utilisation = 31", ", line 8: key utilisation: expected at most 1, got '31'"),
        ("utilisation = 0.31", "", ", line 2: key utilisation: expected a share of the dense peak"),
        (
            "utilisation = 0.31",
            "utilisation = 0.31\ncolour = 1",
            ", line 9: key colour: expected no such key",
        ),
        ("2026-11-08T00:00:00Z", "2026-10-08T00:00:00Z", ", line 6: key end: expected a time after start"),
        ("2026-11-08T00:00:00Z", "2026-11-08T00:00:00", ", line 6: key end: expected a time with its offset"),
        (
            "2026-11-08T00:00:00Z",
            "2026-11-08",
            ", line 6: key end: expected text, a number, a time with its offset",
        ),
        (
            'peak = "312e12"',
            'peak = "624e12"',
            ", line 13: hardware: key peak: expected at most the dense bf16 peak",
        ),
        ("hours = 168", "hours = [1]", ", line 11: key hours: expected text"),
        (
            "hours = 168",
            "hours = 168\nunits = 3",
            ", line 12: key units: expected no such key beside hardware",
        ),
        ("[[period]]\nname", "[period]\nname", ": expected TOML, got"),
        ("hours = 168", "hours = ", ": expected TOML, got Invalid value (at line 11, column 9)"),
        ("\n[[period]]\nname", "kind = 1\n[[period]]\nname", ": key kind: expected only [[period]] tables"),
    ],
)
def test_each_fault_of_toml_names_line_and_key(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in PERIODS
    assert periods_fault(tmp_path, PERIODS.replace(old, new, 1)).startswith(said)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("ramp,512", "ramp,5.5", ", line 2: key units: expected a whole number"),
        (",H100 SXM,,0.31", ",H100 SXM,,0.31,7", ", line 2: expected 8 cells, got 9"),
        ("units", "name", ", line 1: expected the columns' names, each once"),
        ("dtype", "precision", ", line 3: key precision: expected no such key"),
        ('"main, part 1"', '"main, part 1', ", line 3: expected CSV, got"),
        ("H100 SXM,bf16", "H100,bf16", ", line 3: key sku: device 'H100': expected one model"),
    ],
)
def test_each_fault_of_csv_names_line_and_key(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in CSV
    assert periods_fault(tmp_path, CSV.replace(old, new, 1), "f.csv").startswith(said)


@pytest.mark.parametrize(
    ("name", "text"), [("f.toml", ""), ("f.toml", "period = []"), ("f.csv", ""), ("f.csv", "units\n")]
)
def test_an_empty_file_is_no_zero(tmp_path: Path, name: str, text: str) -> None:
    assert "expected" in periods_fault(tmp_path, text, name)


def test_what_cannot_be_read_is_another_kind_of_error(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.toml", tmp_path):
        with pytest.raises(CollectorError) as caught:
            read_periods(path, TABLE)
        assert caught.value.exit_code == 3
    (tmp_path / "f.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(EstimateError, match="expected UTF-8"):
        read_periods(tmp_path / "f.toml", TABLE)
    (tmp_path / "f.toml").write_bytes(b"#" * (9 << 20))
    with pytest.raises(EstimateError, match="at most 8 MiB"):
        read_periods(tmp_path / "f.toml", TABLE)
    with pytest.raises(EstimateError, match="expected TOML"):
        read_periods(written(tmp_path, "x = " + "[" * 10_000), TABLE)
    with pytest.raises(EstimateError, match="expected TOML"):
        read_periods(written(tmp_path, "x = " + "1" * 10_000), TABLE)


# --- declared estimates ---


def test_declared_estimates(tmp_path: Path) -> None:
    one, two, three = read_estimates(written(tmp_path, ESTIMATES), TABLE)
    assert (one.run, one.flop, one.before_hour) == ("r1", 6 * 8_030_261_248 * 15 * 10**11, None)
    assert two.flop == three.flop // 2 == 8 * 36_000 * 132 * 4096 * 1_830_000_000 * 4 // 10
    assert two.at_unix_ns == two.as_of_unix_ns == 1_763_636_400 * 10**9 + 365 * 86_400 * 10**9
    assert two.before_hour == two.as_of_unix_ns // (3600 * 10**9)
    assert two.due_unix_ns == two.at_unix_ns + 3600 * 10**9
    assert len({d.digest for d in (one, two, three)}) == 3


def test_an_estimate_is_read_back_from_what_its_event_holds(tmp_path: Path) -> None:
    for d in read_estimates(written(tmp_path, ESTIMATES), TABLE):
        again = from_document(json.loads(d.canonical), TABLE)
        assert (again, again.digest) == (d, d.digest)


def test_comments_order_and_layout_do_not_make_it_another_estimate(tmp_path: Path) -> None:
    before = read_estimates(written(tmp_path, ESTIMATES), TABLE)
    moved = ESTIMATES.replace('by = "team"\n', "").replace('method = "', 'by = "team"   # us\nmethod = "')
    after = read_estimates(written(tmp_path, moved), TABLE)
    assert [d.digest for d in before] == [d.digest for d in after]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('schema = "flopmeter-estimates/1"', "", ": key schema: expected 'flopmeter-estimates/1', got None"),
        ('run = "r1"', "", ", line 3: key run: expected text, got nothing"),
        ('run = "r1"', 'run = ""', ", line 4: key run: expected text, got ''"),
        (
            '"architecture"',
            '"guess"',
            ", line 5: key method: expected one of hardware, architecture, got 'guess'",
        ),
        ('by = "team"', "", ", line 3: key by: expected who declares it, got nothing"),
        ("12:00:00Z", "12:00:00", ", line 7: key at: expected a time with its offset"),
        (
            "complete = true",
            "",
            ", line 3: expected complete = true (the run is over) or as_of = a time, got neither",
        ),
        ("complete = true", "complete = false", ", line 8: expected complete = true"),
        ("complete = true", "complete = 1", ", line 8: key complete: expected one of true, false, got '1'"),
        (
            "as_of = 2026-11-20T11:00:00Z",
            "as_of = 2026-11-20T12:00:00Z",
            ", line 17: key as_of: expected a time not after",
        ),
        (
            "as_of = 2026-11-20T11:00:00Z",
            "as_of = 2026-11-20T10:30:00Z",
            ", line 17: key as_of: expected a full hour",
        ),
        (
            "as_of = ",
            "complete = true\nas_of = ",
            ", line 17: expected complete = true (the run is over) or as_of",
        ),
        ("tokens = 1.5e12", "tokens = 0", ", line 10: key tokens: expected a number above 0"),
        ("tokens = 1.5e12", "tokens = 1e12\nunits = 3", ", line 11: key units: expected no such key"),
        ("units = 16", "units = 1.5", ", line 34: period 2: key units: expected a whole number"),
        (
            "complete = true\n[[",
            "complete = true\nunits = 8\n[[",
            ", line 29: key units: expected no such key",
        ),
    ],
)
def test_each_fault_of_an_estimate_names_line_and_key(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in ESTIMATES
    assert estimates_fault(tmp_path, ESTIMATES.replace(old, new, 1)).startswith(said)


def test_the_same_estimate_twice_is_refused(tmp_path: Path) -> None:
    twice = ESTIMATES + ESTIMATES.split("\n\n", 1)[1]
    assert ", line 40: expected each estimate once, got one of run 'r1' twice" in estimates_fault(
        tmp_path, twice
    )


@pytest.mark.parametrize("text", ["a" * 257, "a\x1b[2Jb", "a\nb", "\u202e"])
def test_names_that_would_spoil_a_terminal_are_refused(tmp_path: Path, text: str) -> None:
    wrong = ESTIMATES.replace('by = "team"', f"by = {json.dumps(text)}", 1)
    assert estimates_fault(tmp_path, wrong).startswith(", line 6: key by: expected at most 256 printable")
    assert "\x1b" not in estimates_fault(tmp_path, wrong)


def test_a_key_that_would_spoil_a_terminal_is_shown_escaped(tmp_path: Path) -> None:
    said = estimates_fault(tmp_path, ESTIMATES.replace("tokens =", '"a\\u001b[2J" = 1\ntokens =', 1))
    assert said.endswith("key 'a\\x1b[2J': expected no such key")


def test_an_estimate_of_endless_periods_is_refused(tmp_path: Path) -> None:
    one = '[[estimate.period]]\nunits = 1\nhours = 1\nsku = "A100"\nutilisation = 0.4\n'
    assert "key period: expected at most 1000 tables" in estimates_fault(tmp_path, ESTIMATES + one * 1000)


def test_toml_written_in_one_line_still_says_which(tmp_path: Path) -> None:
    text = 'schema = "flopmeter-estimates/1"\nestimate = [{ run = "r", method = "architecture" }]\n'
    assert estimates_fault(tmp_path, text).startswith(", estimate 1: key by: expected")


def test_the_examples_of_the_documentation_are_good(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs/estimate.md").read_text()
    blocks = re.findall(r"^```(toml)?\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    (toml,) = [text for kind, text in blocks if kind == "toml"]
    (table,) = [text for _, text in blocks if text.startswith("name,units,")]
    shape, spreadsheet = read_estimates(written(tmp_path, toml), TABLE)
    assert f"{shape.flop / 1e18:.3f}" == "2.285"
    assert spreadsheet.flop > 6 * shape.flop
    assert [p.name for p in read_periods(written(tmp_path, table, "f.csv"), TABLE)] == [
        "ramp",
        "main",
        "long context",
    ]


# --- anything at all ---

_VALUES = st.one_of(
    st.text(max_size=12),
    st.integers(),
    st.booleans(),
    st.sampled_from(["0.4", "1e9", "H100 SXM", "2026-11-20T12:00:00Z"]),
)
_KEYS = st.sampled_from(
    [
        "run",
        "method",
        "by",
        "at",
        "complete",
        "as_of",
        "units",
        "hours",
        "seconds",
        "start",
        "end",
        "sku",
        "dtype",
        "peak",
        "utilisation",
        "device_hours",
        "params",
        "tokens",
        "layers",
        "hidden",
        "context",
        "attention",
        "recompute",
        "passes",
        "flop_per_pass",
        "name",
        "speed",
    ]
)
_TABLES = st.dictionaries(
    _KEYS, st.one_of(_VALUES, st.lists(st.dictionaries(_KEYS, _VALUES), max_size=2)), max_size=9
)


@settings(max_examples=300)
@given(_TABLES)
def test_any_table_is_an_entry_or_refused(table: dict[str, object]) -> None:
    for read in (period, declared):
        try:
            found = read(as_entry(table, lambda _: OPTIONS), lambda _: OPTIONS, TABLE)
        except EstimateError:
            continue
        if isinstance(found, Declared):
            assert from_document(json.loads(found.canonical), TABLE) == found
        else:
            assert found.flop > 0
