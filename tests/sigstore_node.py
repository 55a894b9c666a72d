"""`@sigstore/verify` of npm as an oracle."""

import json
import subprocess
from pathlib import Path

from npm_packages import installed

#: 2.1.1 is the newest that runs on Debian 12's Node.js 18. All that it needs, pinned: no lock file is kept,
#: which would name a registry's host.
PACKAGES = (
    "@sigstore/verify@2.1.1",
    "@sigstore/bundle@3.1.0",
    "@sigstore/core@2.0.0",
    "@sigstore/protobuf-specs@0.4.3",
)
SCRIPT = Path(__file__).parent / "evidence/sigstore_verify.cjs"


def modules() -> Path:
    """The folder with node_modules; skips the test, with the reason, where it cannot be had."""
    return installed("sigstore-node-2.1.1", *PACKAGES)


def verify(bundle: Path, public_key: Path, artifact: Path | None = None) -> dict[str, object]:
    """`accepted`, `why` not, and the key `hints` that it asked for."""
    command = ["node", SCRIPT, modules(), bundle, public_key, *([artifact] if artifact else [])]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=60, check=True)
    answer: dict[str, object] = json.loads(done.stdout)
    return answer
