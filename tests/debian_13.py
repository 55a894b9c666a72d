"""Programs of Debian 13 that 12 has not, or only an older one of: once below out/, nothing installed.

They come from the machine's own mirror by apt's ordinary client and under its signatures, and run on 12 as well (libc6
2.34); lists and cache are their own, and the machine's sources stay what they are.
"""

import fcntl
import re
import shutil
import subprocess
from pathlib import Path

import pytest

OUT = Path(__file__).resolve().parents[1] / "out"
KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"
NO_DEBIAN = "could not be fetched from Debian 13 by apt"


def program(package: str) -> Path:
    """/usr/bin/PACKAGE of it; skips the test, with the reason, where it cannot be had."""
    place = OUT / f"debian-13-{package}"
    found = place / package
    if not shutil.which("apt-get") or not Path(KEYS).exists():
        pytest.skip(f"{package} {NO_DEBIAN}")
    place.mkdir(parents=True, exist_ok=True)
    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests of several processes at once
        if not found.exists():
            try:
                _fetch(package, place, found)
            except (OSError, ValueError, subprocess.SubprocessError) as e:
                pytest.skip(f"{package} {NO_DEBIAN}: {type(e).__name__}")
    return found


def _fetch(package: str, place: Path, found: Path) -> None:
    asked = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]
    said = subprocess.run(asked, capture_output=True, text=True, timeout=30, check=True).stdout.split()
    mirror = min(uri for uri in said if re.search(r"/debian/?$", uri))
    for folder in ("lists/partial", "cache/archives/partial"):
        (place / folder).mkdir(parents=True, exist_ok=True)
    (place / "debian.sources").write_text(
        f"Types: deb\nURIs: {mirror}\nSuites: trixie\nComponents: main\nSigned-By: {KEYS}\n"
    )
    own = {
        "Dir::Etc::sourcelist": place / "debian.sources", "Dir::Etc::sourceparts": "/dev/null",
        "Dir::State::lists": place / "lists", "Dir::Cache": place / "cache", "APT::Sandbox::User": "root",
        "Acquire::Languages": "none",
    }  # fmt: skip
    options = [f"-o{name}={value}" for name, value in own.items()]
    for words in (["update"], ["download", f"{package}/trixie"]):
        run = ["apt-get", "-q", *options, *words]
        subprocess.run(run, cwd=place, capture_output=True, timeout=120, check=True)
    (deb,) = place.glob(f"{package}_*.deb")
    subprocess.run(["dpkg-deb", "-x", deb, place / "all"], capture_output=True, timeout=60, check=True)
    (place / "all/usr/bin" / package).rename(found)
    deb.unlink()
    for folder in ("all", "lists", "cache"):
        shutil.rmtree(place / folder)
