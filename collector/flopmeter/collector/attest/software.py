"""Which program made an attestation: its version, and one digest over its files."""

import hashlib
import importlib.metadata
from importlib import resources

#: What takes part: the contract, the auditor's kit, the collector.
PACKAGES = ("flopmeter.contract", "flopmeter.evidence", "flopmeter.collector")
_SUFFIXES = (".py", ".toml", ".json")


def software() -> tuple[str, str]:
    """(version, SHA-256 in hex over the sorted lines `digest  path` of its files, as `sha256sum` prints them)."""
    lines = []
    for package in PACKAGES:
        root = resources.files(package)
        queue = [(root, package.replace(".", "/"))]
        for directory, name in queue:
            for entry in directory.iterdir():
                path = f"{name}/{entry.name}"
                if entry.is_dir() and entry.name != "__pycache__":
                    queue.append((entry, path))
                elif entry.is_file() and entry.name.endswith(_SUFFIXES):
                    lines.append(f"{hashlib.sha256(entry.read_bytes()).hexdigest()}  {path}\n")
    lines.sort()
    return importlib.metadata.version("flopmeter"), hashlib.sha256("".join(lines).encode()).hexdigest()
