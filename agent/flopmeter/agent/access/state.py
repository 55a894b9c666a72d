"""What an agent has of its certificate authority, on disk: the certificate with its key, and a request on its way.

    STATE/tls.json              key, certificate, authorities, sequence: one file, so that they belong together
    STATE/tls-request.json      a request that has no answer yet: it is repeated as it was, whatever happened

Each is written whole, 0600, fsynced, renamed. The request is on disk before it is sent, the answer before the request
is forgotten: killed between any two steps, the next start asks the same again, and the collector answers the same.
No cryptography here.
"""

import json
import os
import stat
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from flopmeter.agent.errors import AgentError
from flopmeter.agent.files import os_error, sync_directory

IDENTITY_FILE = "tls.json"
REQUEST_FILE = "tls-request.json"
_MAX_BYTES = 1 << 20
_T = TypeVar("_T")


class IdentityError(AgentError):
    """The certificate cannot be had, used or renewed. Metering goes on; what it seals stays in the spool."""

    def __init__(self, message: str, hint: str = "", *, final: bool = False) -> None:
        """`final`: asking again cannot help before somebody did something."""
        super().__init__(message, hint)
        self.final = final

    def __str__(self) -> str:
        text = super().__str__()
        return f"{text} ({self.hint})" if self.hint else text


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate that the collector's authority gave this agent."""

    agent_id: str  # hex
    trust_domain: str
    ca_pin: str  # SHA-256 of the authority's SubjectPublicKeyInfo, hex: as in the join token
    token_id: str  # of the join token that it came by
    sequence: int  # to be named in the next renewal
    not_before_unix_s: int
    not_after_unix_s: int
    certificate_pem: str
    ca_pem: str
    key_pem: str = field(repr=False)

    @property
    def half_life_unix_s(self) -> int:
        return (self.not_before_unix_s + self.not_after_unix_s) // 2


@dataclass(frozen=True, slots=True)
class Request:
    """A key and a CSR that were asked a certificate for. `sequence` -1: a first one, by the token."""

    token_id: str
    sequence: int
    uri: str  # whom it is for
    csr_pem: str
    key_pem: str = field(repr=False)


def load_identity(state: Path) -> Identity | None:
    """None: this agent never joined. Raises IdentityError for a file that is damaged, or that others can read."""
    return _load(state / IDENTITY_FILE, Identity)


def save_identity(state: Path, identity: Identity) -> None:
    """Durable on return, and what was asked for it is forgotten."""
    _write(state / IDENTITY_FILE, asdict(identity))
    forget_request(state)


def load_request(state: Path) -> Request | None:
    """The request that has no answer yet; one that the identity has outrun (a crash behind its answer) is none."""
    request = _load(state / REQUEST_FILE, Request)
    identity = load_identity(state) if request is not None else None
    if request is not None and identity is not None and identity.key_pem == request.key_pem:
        forget_request(state)
        return None
    return request


def save_request(state: Path, request: Request) -> None:
    """Durable on return: only now may it be sent."""
    _write(state / REQUEST_FILE, asdict(request))


def forget_request(state: Path) -> None:
    (state / REQUEST_FILE).unlink(missing_ok=True)
    sync_directory(state)


def _load(path: Path, kind: type[_T]) -> _T | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as e:
        raise IdentityError(
            f"{path}: expected a readable file, got {e.strerror or e}",
            "run the agent as the owner of the state directory",
            final=True,
        ) from e
    try:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode) or info.st_mode & 0o077:
            raise IdentityError(
                f"{path}: expected a regular file of mode 0600, got {stat.filemode(info.st_mode)}: others may have "
                "copied the key",
                f"if nobody has, chmod 600 {path}; else remove it, revoke the agent and join again",
                final=True,
            )
        data = json.loads(os.read(fd, _MAX_BYTES))
        return kind(**_checked(data, kind))
    except (OSError, ValueError, TypeError, RecursionError) as e:
        raise IdentityError(
            f"{path}: damaged: {e}",
            f"move it away and join again with a new token (`--join`): {path}",
            final=True,
        ) from e
    finally:
        os.close(fd)


def _checked(data: Any, kind: type[Any]) -> Mapping[str, Any]:
    wanted = {f.name: f.type for f in fields(kind)}
    if not isinstance(data, dict) or set(data) != set(wanted):
        raise ValueError(f"expected {', '.join(wanted)}")
    for name, type_ in wanted.items():
        value = data[name]
        if not isinstance(value, int if type_ is int else str) or isinstance(value, bool):
            raise TypeError(f"{name}: expected {type_}, got {type(value).__name__}")
    return data


def _write(path: Path, data: Mapping[str, Any]) -> None:
    """Whole, private and durable on return. Raises SpoolError (full disk: SpoolFullError)."""
    tmp = path.with_name(f"{path.name}.{os.urandom(8).hex()}.tmp")
    try:
        for left in path.parent.glob(
            f"{path.name}.*.tmp"
        ):  # of a start that was killed: there is a key in it
            left.unlink(missing_ok=True)
        fd = os.open(tmp, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            raw = json.dumps(data, indent=1).encode() + b"\n"
            while raw:
                raw = raw[os.write(fd, raw) :]
            os.fsync(fd)
        finally:
            os.close(fd)
        tmp.replace(path)
        sync_directory(path.parent)
    except OSError as e:
        tmp.unlink(missing_ok=True)
        raise os_error(f"cannot write {path}", e) from e
