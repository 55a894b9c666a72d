"""What no file of the repository may say, and what every lock file must."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCKS = sorted((ROOT / "requirements").glob("*.lock"))

#: Split so that this file does not say them either.
REGISTRY_HOSTS = [
    "pypi" + ".org",
    "pythonhosted" + ".org",
    "registry." + "npmjs" + ".org",
    "deb." + "debian" + ".org",
]
REGISTRY_HOSTS += ["docker" + ".io", "quay" + ".io", "ghcr" + ".io", "nvcr" + ".io"]
STUDIO_PATHS = ["/work" + "/", "/tmp" + "/fm"]


def repository_files() -> list[Path]:
    import subprocess

    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    return [p for line in listed.stdout.splitlines() if (p := ROOT / line).is_file()]


def test_no_file_names_a_package_registry_or_a_path_of_the_makers() -> None:
    wrong = []
    for path in repository_files():
        text = path.read_bytes().decode(errors="replace")
        wrong += [f"{path.relative_to(ROOT)}: {w}" for w in REGISTRY_HOSTS + STUDIO_PATHS if w in text]
    assert not wrong


def test_nothing_is_left_to_do() -> None:
    marks = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b")
    wrong = [
        str(p.relative_to(ROOT))
        for p in repository_files()
        if p.suffix in (".py", ".md", ".sh", ".toml", ".proto", ".yaml", ".service")
        and marks.search(p.read_text())
    ]
    assert not wrong


@pytest.mark.parametrize("lock", LOCKS, ids=lambda p: p.name)
def test_locks_pin_by_hash_and_hold_no_address(lock: Path) -> None:
    text = lock.read_text()
    assert "://" not in text
    assert "index" not in re.sub(r"^[a-z0-9-]+==.*", "", text, flags=re.MULTILINE)
    pins = re.findall(r"^([a-z0-9._-]+)==(\S+)", text, re.MULTILINE)
    assert pins
    for requirement in re.split(r"\n(?=\S)", text.strip()):
        assert "--hash=sha256:" in requirement, requirement.splitlines()[0]


def pins(name: str) -> dict[str, str]:
    text = (ROOT / "requirements" / name).read_text()
    return dict(re.findall(r"^([a-z0-9._-]+)==(\S+)", text, re.MULTILINE))


@pytest.mark.parametrize(
    "smaller",
    [
        "agent.lock",
        "collector.lock",
        "otlp.lock",
        "timestamps.lock",
        "parquet.lock",
        "run.lock",
        "dev.lock",
        "build.lock",
    ],
)
def test_locks_agree_with_each_other(smaller: str) -> None:
    whole = pins("bench.lock")
    assert {n: v for n, v in pins(smaller).items() if whole.get(n) != v} == {}


def test_lowest_lock_holds_the_floors_of_pyproject() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    floors = project["dependencies"] + project["optional-dependencies"]["agent"]
    floors += project["optional-dependencies"]["collector"]
    lowest = pins("lowest.lock")
    for requirement in floors:
        name, floor = re.match(r"([a-z0-9-]+)>=([\d.]+)", requirement).groups()  # type: ignore[union-attr]
        held = tuple(int(n) for n in lowest[name].split("."))
        asked = tuple(int(n) for n in floor.split("."))
        assert held[: len(asked)] == asked, f"{requirement}: lowest.lock has {lowest[name]}; make lock"


def test_agent_lock_does_not_carry_the_collector() -> None:
    assert not {"sqlite-utils", "pip", "click-default-group"} & set(pins("agent.lock"))
    assert "nvidia-ml-py" not in pins("collector.lock")


def test_version_is_said_once() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text()
