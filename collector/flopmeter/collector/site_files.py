"""Files that a site writes for us, in TOML: read whole or refused, never more than a limit."""

import tomllib
from pathlib import Path
from typing import Any

from .errors import CollectorError


def read_file(
    error: type[CollectorError], name: str, path: Path, most: int, *, write: str, hint: str
) -> bytes:
    """`name` is what messages call it, `write` what to name instead of one that cannot be read. Raises `error`."""
    try:
        with path.open("rb") as f:
            raw = f.read(most + 1)
    except OSError as e:
        raise error(f"{name}: cannot read: {e.strerror}", write) from e
    if len(raw) > most:
        raise error(f"{name}: expected at most {most:,} bytes, got more", hint)
    return raw


def toml(error: type[CollectorError], name: str, raw: bytes, *, hint: str) -> dict[str, Any]:
    """Raises `error`, with the line that the parser names."""
    try:
        return tomllib.loads(raw.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as e:
        raise error(f"{name}: expected TOML, got {e}", hint) from e
