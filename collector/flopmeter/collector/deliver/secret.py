"""Reading secrets where a sink's settings say that they are. Nothing here ever shows one."""

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from flopmeter.collector.errors import SinkError

from .settings import Endpoint, Secret

#: Far past any key, password or token; a file that is larger is another file.
MAX_BYTES = 16_384


def read(secret: Secret, environ: Mapping[str, str] = os.environ) -> str:
    """The secret, without blanks around it. Raises SinkError."""
    if secret.file is None:
        text = environ.get(secret.env, "")
    else:
        text = _file(secret.file)
    if not text.strip():
        raise SinkError(
            f"{secret}: expected a secret, found nothing", "write it there, or name another place"
        )
    return text.strip()


def read_line(secret: Secret, environ: Mapping[str, str] = os.environ) -> str:
    """A secret that goes into a header or a command: one printable line."""
    text = read(secret, environ)
    if not text.isprintable():
        raise SinkError(f"{secret}: expected one printable line, got something else", "write it as one line")
    return text


def url_of(endpoint: Endpoint, environ: Mapping[str, str] = os.environ) -> str:
    return endpoint.url if isinstance(endpoint.url, str) else read_line(endpoint.url, environ)


def _file(path: Path) -> str:
    try:
        # Not blocking: a pipe in the file's place would hang us.
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise SinkError(
                    f"file {path}: expected a regular file", "name the file that holds the secret"
                )
            raw = os.read(handle, MAX_BYTES + 1)
        finally:
            os.close(handle)
    except OSError as e:
        raise SinkError(
            f"file {path}: cannot read: {e.strerror or e}", "make it readable for the collector's user"
        ) from e
    if len(raw) > MAX_BYTES:
        raise SinkError(
            f"file {path}: expected at most {MAX_BYTES} bytes", "name the file that holds the secret"
        )
    try:
        return raw.decode()
    except UnicodeDecodeError as e:
        raise SinkError(f"file {path}: expected text", "name the file that holds the secret") from e
