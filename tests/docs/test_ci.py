"""The checks that CI leans on can fail: unknown skips, a demo that shows too little, scripts that parse."""

import copy
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def junit(path: Path, *reasons: str | None) -> Path:
    cases = "".join(
        f'<testcase classname="tests.x" name="t{i}"><skipped type="pytest.skip"'
        + (f' message="{reason}"' if reason is not None else "")
        + "/></testcase>"
        for i, reason in enumerate(reasons)
    )
    path.write_text(
        f"<testsuites><testsuite>{cases}<testcase classname='a' name='b'/></testsuite></testsuites>"
    )
    return path


def skips_checked(tmp_path: Path, allowed: str, *reasons: str | None) -> int:
    (tmp_path / "allowed").write_text(allowed)
    command = [
        sys.executable,
        ROOT / ".ci/check_skips.py",
        junit(tmp_path / "j.xml", *reasons),
        tmp_path / "allowed",
    ]
    return subprocess.run(command, capture_output=True).returncode


def test_skips_on_the_list_pass_and_others_fail(tmp_path: Path) -> None:
    allowed = "# comment\nno GPU on .*\n"
    assert skips_checked(tmp_path, allowed) == 0
    assert skips_checked(tmp_path, allowed, "no GPU on this machine") == 0
    assert skips_checked(tmp_path, allowed, "no GPU on this machine", "felt like it") == 1
    assert skips_checked(tmp_path, allowed, "because no GPU on it") == 1, "the whole reason must match"
    assert skips_checked(tmp_path, allowed, "") == 1
    assert skips_checked(tmp_path, allowed, None) == 1


def demo() -> dict[str, Any]:
    flop = {"lower": str(10**23), "point": str(2 * 10**23), "upper": str(4 * 10**23)}
    coverage = {f"{k}_device_seconds": 1.0 for k in ("expected", "observed", "gap")}
    run = {"run": "a", "executed": {"flop": flop}, "coverage": coverage}
    return {
        "runs": [run, copy.deepcopy(run)],
        "events": [{"type": "threshold.crossed"}, {"type": "threshold.undetermined"}],
        "fleet": {"nodes_total": 24, "nodes_by_status": {"silent": 1}},
    }


def test_the_newcomers_demo_is_judged() -> None:
    check = load(ROOT / "tests/newcomer/check_demo.py")
    assert check.lacking(demo()) == []
    assert check.last_object("noise\n" + json.dumps(demo())) == demo()
    for spoil in (
        lambda d: d.pop("runs"),
        lambda d: d["events"].clear(),
        lambda d: d["fleet"].clear(),
        lambda d: d["runs"].pop(),
        lambda d: d["runs"][0]["coverage"].clear(),
        lambda d: d["runs"][0]["executed"]["flop"].update(lower="9" * 30),
        lambda d: d["runs"][0]["executed"]["flop"].update(point=2e23),
        lambda d: [r["executed"]["flop"].update(point=str(10**23)) for r in d["runs"]],
    ):
        poor = demo()
        spoil(poor)
        assert check.lacking(poor), "a poor demo passed"


@pytest.mark.parametrize(
    "script",
    [
        ".ci/run",
        ".ci/manifests",
        ".ci/images",
        ".ci/images-live",
        "tests/newcomer/run.sh",
        "requirements/lock.sh",
    ],
)
def test_scripts_parse(script: str) -> None:
    assert subprocess.run(["bash", "-n", ROOT / script]).returncode == 0
