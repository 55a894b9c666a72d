"""The page's files: read once at the start and served from memory, so that no path of a request ever reaches a disk."""

import gzip
import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)
PAGES = Path(__file__).with_name("pages")
INDEX = "index.html"
#: First parts of paths that the page itself understands (pages/app.js): each is answered with the index.
VIEWS = frozenset({"", "runs", "events", "deadlines", "fleet", "evidence", "login"})
KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".txt": "text/plain; charset=utf-8",
    ".webmanifest": "application/manifest+json",
}
MAX_FILE_BYTES = 4 << 20
#: Below this a compressed file saves no packet.
_WORTH_BYTES = 1_000


@dataclass(frozen=True, slots=True)
class File:
    """One file, as it is sent. ETags are strong and differ by encoding (RFC 9110 section 8.8.3.3)."""

    kind: str
    body: bytes
    etag: str
    zipped: bytes | None
    zipped_etag: str


def read_pages(directory: Path = PAGES) -> dict[str, File]:
    """Path below the directory -> file. Links, hidden files and kinds that are not the page's are passed over."""
    found: dict[str, File] = {}
    if not directory.is_dir():
        return found
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory)
        hidden = any(part.startswith(".") for part in name.parts)
        linked = any(p.is_symlink() for p in (path, *path.parents) if p.is_relative_to(directory))
        if hidden or linked or path.suffix not in KINDS or not path.is_file():
            continue
        with path.open("rb") as f:
            body = f.read(MAX_FILE_BYTES + 1)
        if len(body) > MAX_FILE_BYTES:
            log.error("page: %s has more than %d bytes, and is not served", name, MAX_FILE_BYTES)
            continue
        found[name.as_posix()] = _file(KINDS[path.suffix], body)
    return found


def _file(kind: str, body: bytes) -> File:
    digest = hashlib.sha256(body).hexdigest()[:32]
    small = gzip.compress(body, 9, mtime=0) if len(body) >= _WORTH_BYTES else None
    if small is not None and len(small) >= len(body):
        small = None
    return File(kind, body, f'"{digest}"', small, f'"{digest}-gz"')


def matches(if_none_match: str, etag: str) -> bool:
    """Whether the client has that already (RFC 9110 section 13.1.2: weak comparison)."""
    if if_none_match.strip() == "*":
        return True
    return any(part.strip().removeprefix("W/") == etag for part in if_none_match.split(","))
