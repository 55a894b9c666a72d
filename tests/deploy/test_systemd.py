"""The systemd units: known to systemd, exposure held low, and true to what the programs do."""

import configparser
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UNITS = sorted((ROOT / "deploy/systemd").glob("*.service"))
PROGRAM = Path(sys.executable).with_name("flopmeter")


def directives(unit: Path, section: str = "Service") -> dict[str, list[str]]:
    """Directive -> all its values in order (systemd repeats keys)."""
    found: dict[str, list[str]] = {}
    current = ""
    for line in unit.read_text().splitlines():
        if line.startswith("["):
            current = line.strip("[]")
        elif "=" in line and not line.startswith("#") and current == section:
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


@pytest.fixture(params=UNITS, ids=lambda u: u.stem)
def unit(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The unit with the program where it is on this machine, so that systemd can check that it is there."""
    source: Path = request.param
    copy = tmp_path / source.name
    copy.write_text(source.read_text().replace("/opt/flopmeter/bin/flopmeter", str(PROGRAM)))
    return copy


def analyze(*words: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    return subprocess.run(["systemd-analyze", *words], capture_output=True, text=True, timeout=60)


def test_each_program_has_a_unit() -> None:
    assert [u.stem.removeprefix("flopmeter-") for u in UNITS] == ["agent", "collector", "witness"]


def test_systemd_understands_every_line(unit: Path) -> None:
    """It exits 0 on unknown keys and bad values, and says so on stderr only."""
    result = analyze("verify", "--man=no", str(unit))
    assert result.returncode == 0
    assert result.stderr == ""


def test_a_misspelt_line_is_caught(unit: Path) -> None:
    unit.write_text(unit.read_text().replace("NoNewPrivileges=", "NoNewPrivilege="))
    assert "NoNewPrivilege" in analyze("verify", "--man=no", str(unit)).stderr


def test_exposure_is_low(unit: Path) -> None:
    result = analyze("security", "--offline=true", "--threshold=20", "--no-pager", str(unit))
    assert result.returncode == 0, result.stdout[-300:]


@pytest.mark.parametrize("unit_file", UNITS, ids=lambda u: u.stem)
def test_no_privilege_at_all(unit_file: Path) -> None:
    service = directives(unit_file)
    assert service["CapabilityBoundingSet"] == [""]
    assert service["AmbientCapabilities"] == [""]
    assert service["NoNewPrivileges"] == ["yes"]
    assert service["ProtectSystem"] == ["strict"]
    assert service["User"] == [unit_file.stem]
    assert service["UMask"] == ["0077"]
    assert not {k for k in service if k.startswith(("ReadWritePaths", "BindPaths", "ExecStartPre"))}


@pytest.mark.parametrize("unit_file", UNITS, ids=lambda u: u.stem)
def test_the_command_and_its_options_exist(unit_file: Path) -> None:
    (line,) = directives(unit_file)["ExecStart"]
    program, *words = line.split()
    assert program == "/opt/flopmeter/bin/flopmeter"
    options = [w for w in words if w.startswith("--")]
    command = [w for w in words if not w.startswith(("-", "/"))]
    shown = subprocess.run([PROGRAM, *command, "--help"], capture_output=True, text=True, timeout=60)
    assert shown.returncode == 0, shown.stderr
    for option in options:
        assert f"{option} " in shown.stdout


@pytest.mark.parametrize("unit_file", UNITS, ids=lambda u: u.stem)
def test_what_the_unit_expects_of_the_program_is_there(unit_file: Path) -> None:
    """Type=notify needs READY=1, WatchdogSec needs WATCHDOG=1: without them systemd kills a healthy program."""
    side = unit_file.stem.removeprefix("flopmeter-")
    (room,) = ROOT.glob(f"*/flopmeter/{side}")
    source = "".join(p.read_text() for p in room.rglob("*.py"))
    service = directives(unit_file)
    assert service["Type"] == ["notify"]
    assert "otifier.ready(" in source
    assert "WatchdogSec" in service
    assert "otifier.beat" in source


def test_the_state_directory_is_what_the_command_uses() -> None:
    for unit_file in UNITS:
        service = directives(unit_file)
        assert f"/var/lib/{service['StateDirectory'][0]}" in service["ExecStart"][0]


def test_the_agent_has_time_to_ship_before_it_is_killed() -> None:
    from flopmeter.agent.settings import AgentSettings

    (seconds,) = directives(UNITS[0])["TimeoutStopSec"]
    assert AgentSettings().stop_timeout / 1e9 < int(seconds)


def test_the_agent_sees_gpus_and_other_peoples_cgroups_and_no_other_device() -> None:
    service = directives(UNITS[0])
    assert service["DevicePolicy"] == ["closed"]
    assert all("nvidia" in d for d in service["DeviceAllow"])
    assert not {"ProtectProc", "ProcSubset", "MemoryDenyWriteExecute"} & set(service)


def test_a_join_token_is_a_credential_and_may_be_gone() -> None:
    """A credential whose file is missing fails the start, unless there is another value for it."""
    (agent,) = [u for u in UNITS if u.stem == "flopmeter-agent"]
    service = directives(agent)
    assert service["LoadCredential"] == ["join:/etc/flopmeter/join"]
    assert service["SetCredential"] == ["join:\\n"]
    path = f"/run/credentials/{agent.name}/join"
    assert f"FLOPMETER_AGENT_JOIN_FILE={path}" in agent.read_text()
    assert f"FLOPMETER_AGENT_JOIN_FILE={path}" in (ROOT / "docs/deploy.md").read_text()
    assert "--join" not in service["ExecStart"][0]


def test_sysusers_makes_the_users_that_the_units_name() -> None:
    lines = (ROOT / "deploy/systemd/flopmeter.sysusers.conf").read_text()
    made = set(re.findall(r"^u (\S+)", lines, re.MULTILINE))
    assert made == {directives(u)["User"][0] for u in UNITS}


def test_units_parse_as_ini() -> None:
    for unit_file in UNITS:
        configparser.RawConfigParser(strict=False).read_string(unit_file.read_text())
