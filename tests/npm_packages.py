"""Packages of npm as oracles: installed once below out/, which git ignores, versions pinned, no scripts run, no lock
file kept, which would name a registry's host."""

import fcntl
import json
import shutil
import subprocess
from pathlib import Path

import pytest

OUT = Path(__file__).resolve().parents[1] / "out"
#: What .ci/allowed-skips would have to name, were a machine without Node.js or npm to be admitted.
NO_NODE = "Node.js and npm are not installed"
NO_REGISTRY = "npm could not install"


def installed(folder: str, *packages: str, packed: tuple[str, ...] = ()) -> Path:
    """out/FOLDER with `packages` (name@version) in its node_modules; skips the test, with the reason, where they cannot be
    had. `packed`: their tarballs alone, beside it, without what they need."""
    if not shutil.which("node") or not shutil.which("npm"):
        pytest.skip(NO_NODE)
    place = OUT / folder
    place.mkdir(parents=True, exist_ok=True)
    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests of several processes at once
        if not (place / "installed").exists():
            (place / "package.json").write_text('{"private": true}\n')
            flags = "--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund", "--save-exact"
            _npm(place, "install", *flags, *packages)
            for package in packed:
                _npm(place, "pack", "--ignore-scripts", package)
            (place / "installed").touch()
    for package in packages:
        name, version = package.rsplit("@", 1)
        found = json.loads((place / "node_modules" / name / "package.json").read_text())["version"]
        assert found == version, f"expected {package} below {place}, got {found}: remove that folder"
    return place


def _npm(place: Path, *words: str) -> None:
    done = subprocess.run(
        ["npm", *words, "--loglevel=error"],
        cwd=place,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"{NO_REGISTRY} {words[-1]}")


def compiler_says(place: Path, folder: Path, texts: dict[str, str]) -> dict[str, list[str]]:
    """What TypeScript says of each text, one run for all, strictly; `place` has it and the types in its node_modules."""
    options = {
        "noEmit": True, "strict": True, "skipLibCheck": True, "module": "esnext", "moduleResolution": "bundler",
        "target": "es2022", "types": [], "typeRoots": [],
    }  # fmt: skip
    (folder / "node_modules").symlink_to(place / "node_modules")
    (folder / "tsconfig.json").write_text(json.dumps({"compilerOptions": options, "include": ["*.ts"]}))
    for name, text in texts.items():
        (folder / f"{name}.ts").write_text(text)
    done = subprocess.run(
        ["node", "node_modules/typescript/bin/tsc", "-p", "."],
        cwd=folder, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    found: dict[str, list[str]] = {name: [] for name in texts}
    for line in done.stdout.splitlines():
        if not line.startswith(" "):  # else it goes on with the line before
            where, _, what = line.partition(": ")
            found[where.partition(".ts(")[0]].append(what[:400])
    return found
