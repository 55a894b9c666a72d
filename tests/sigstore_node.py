"""`@sigstore/verify` of npm as an oracle: installed once below out/, which git ignores, versions pinned, no scripts run."""

import fcntl
import json
import shutil
import subprocess
from pathlib import Path

import pytest

#: 2.1.1 is the newest that runs on Debian 12's Node.js 18. All that it needs, pinned: no lock file is kept,
#: which would name a registry's host.
PACKAGES = (
    "@sigstore/verify@2.1.1",
    "@sigstore/bundle@3.1.0",
    "@sigstore/core@2.0.0",
    "@sigstore/protobuf-specs@0.4.3",
)
PLACE = Path(__file__).resolve().parents[1] / "out/sigstore-node-2.1.1"
SCRIPT = Path(__file__).parent / "evidence/sigstore_verify.cjs"
#: What .ci/allowed-skips would have to name, were a machine without Node.js or npm to be admitted.
NO_NODE = "Node.js and npm are not installed"
NO_REGISTRY = "npm could not install @sigstore/verify"


def modules() -> Path:
    """The folder with node_modules; skips the test, with the reason, where it cannot be had."""
    if not shutil.which("node") or not shutil.which("npm"):
        pytest.skip(NO_NODE)
    PLACE.mkdir(parents=True, exist_ok=True)
    with (PLACE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests of several processes at once
        if not (PLACE / "installed").exists():
            command = ["npm", "install", "--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund"]
            (PLACE / "package.json").write_text('{"private": true}\n')
            done = subprocess.run(
                [*command, "--loglevel=error", "--save-exact", *PACKAGES],
                cwd=PLACE, capture_output=True, text=True, timeout=120, check=False,
            )  # fmt: skip
            if done.returncode:
                pytest.skip(NO_REGISTRY)
            (PLACE / "installed").touch()
    for package in PACKAGES:
        name, version = package.rsplit("@", 1)
        found = json.loads((PLACE / "node_modules" / name / "package.json").read_text())["version"]
        assert found == version, f"expected {package} below {PLACE}, got {found}: remove that folder"
    return PLACE


def verify(bundle: Path, public_key: Path, artifact: Path | None = None) -> dict[str, object]:
    """`accepted`, `why` not, and the key `hints` that it asked for."""
    command = ["node", SCRIPT, modules(), bundle, public_key, *([artifact] if artifact else [])]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=60, check=True)
    answer: dict[str, object] = json.loads(done.stdout)
    return answer
