"""What can be set on the agent. Precedence: flag > FLOPMETER_AGENT_* variable > TOML file > default.

A key that is not known is refused, with the nearest that is: a misspelt setting must not be a silent default.
"""

import dataclasses
import difflib
import logging
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flopmeter.cli.addresses import is_loopback
from flopmeter.cli.environment import is_service_link
from flopmeter.cli.otlp import check_url
from flopmeter.contract.enrolment import parse_join_token
from flopmeter.contract.errors import ContractError
from flopmeter.contract.ids import check_label
from flopmeter.contract.limits import (
    DEFAULT_TICK_NS,
    DEFAULT_WINDOW_NS,
    MAX_WINDOW_NS,
    MIN_TICK_NS,
    MIN_WINDOW_NS,
)

from .access.state import IDENTITY_FILE
from .errors import SettingsError
from .workloads.environ import more_variables

log = logging.getLogger(__name__)

ENV_PREFIX = "FLOPMETER_AGENT_"
CONFIG_VARIABLE = ENV_PREFIX + "CONFIG"
DEFAULT_STATE = Path("/var/lib/flopmeter/agent")
_MIB = 1 << 20
MAX_STOP_TIMEOUT_S = 3600.0
MAX_READ_DEADLINE_S = 60.0
_MAX_SOCKET_BYTES = 107  # sun_path of unix(7), with its ending zero
_MAX_HOST_CHARS = 253  # RFC 1035: a name in dots
LOG_LEVELS = ("debug", "info", "warning", "error")

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|min|h|d)?\Z", re.ASCII)
_DURATION_NS = {
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "min": 60_000_000_000,
    "h": 3_600_000_000_000,
    "d": 86_400_000_000_000,
}
_SIZE = re.compile(r"(\d+)\s*(B|KiB|MiB|GiB|TiB)?\Z", re.ASCII)
_SIZE_BYTES = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """The effective settings of `flopmeter agent run`. Field names are the TOML keys and flags."""

    source: str = "nvml"
    state: Path = DEFAULT_STATE
    collector: str = ""  # HOST:PORT; "" = keep records in the spool
    join: str = field(default="", repr=False)  # a join token; "" = none, or in join_file
    join_file: str = ""  # a file that holds one
    enrol: str = ""  # HOST:PORT of the collector's enrolment; "" = its host, port 9843
    tls_cert: str = ""  # certificate, key and authorities that somebody else renews, PEM
    tls_key: str = ""
    tls_ca: str = ""
    server_name: str = ""  # in the collector's certificate, where it is another than collector's
    node: str = ""  # "" = the node's own name
    cluster: str = ""
    window: int = DEFAULT_WINDOW_NS  # ns
    tick: int = DEFAULT_TICK_NS  # ns
    read_deadline: int = 2_000_000_000  # ns
    stop_timeout: int = 20_000_000_000  # ns
    spool_limit: int = 256 * _MIB  # bytes
    keep_acked: int = 32 * _MIB  # bytes
    kubelet: str = ""  # the kubelet's pod-resources socket; "" = not asked
    kubernetes_labels: bool = False  # ask the API server for labels of pods that hold GPUs
    slurm_job_mapping_dir: str = ""  # where a prolog writes whose each GPU is; "" = not read
    slurm_squeue: str = ""  # the squeue program, asked for names and arrays; "" = not asked
    slurm_squeue_period: int = 60_000_000_000  # ns; it is never asked more often
    job_variables: str = ""  # more variables of jobs to read, A,B: the values are shipped
    declare_socket: str = "auto"  # where training code declares to: auto, off, or a path
    metrics_address: str = ""  # HOST:PORT; "" = no metrics
    otlp: str = ""  # URL of an OTLP receiver that gets the same; "" = none
    log_level: str = "info"

    def shown(self) -> str:
        """All of it on one line, for the log."""
        return " ".join(f"{f.name}={text(f.name, getattr(self, f.name))}" for f in dataclasses.fields(self))


def text(name: str, value: object) -> str:
    """A value as one would write it."""
    if name in _NANOSECONDS and isinstance(value, int):
        return f"{value / 1e9:g}s"
    if name in ("spool_limit", "keep_acked") and isinstance(value, int):
        return f"{value // _MIB}MiB" if value % _MIB == 0 else str(value)
    if isinstance(value, bool):
        return str(value).lower()
    if name == "join" and value:
        return "(given)"
    return str(value) or "-"


def load_settings(
    flags: Mapping[str, object], environ: Mapping[str, str], config: Path | None
) -> AgentSettings:
    """Put the layers together. Raises SettingsError that names the layer, the key, and what was expected.

    `flags` holds what was given on the command line; a value None means that it was not.
    """
    values: dict[str, Any] = {}
    for layer, given in (
        (f"file {config}", read_toml(config) if config is not None else {}),
        ("environment", from_environ(environ)),
        ("command line", {k: v for k, v in flags.items() if v is not None}),
    ):
        for key, raw in given.items():
            parse = _PARSERS.get(key)
            if parse is None:
                raise SettingsError(f"{layer}: unknown setting {key!r}", nearest(key))
            try:
                values[key] = parse(raw)
            except (ValueError, ContractError, SettingsError) as e:
                name = ENV_PREFIX + key.upper() if layer == "environment" else key
                raise SettingsError(f"{layer}: {name}: {e}", getattr(e, "hint", "")) from e
    settings = AgentSettings(**values)
    _check_access(settings)
    if settings.window < settings.tick:
        raise SettingsError(
            f"window: expected at least one tick ({settings.tick / 1e9:g} s), got {settings.window / 1e9:g} s",
            "raise --window or lower --tick",
        )
    if settings.kubernetes_labels and not settings.kubelet:
        raise SettingsError(
            "kubernetes-labels: expected kubelet to be set too, which says whose labels to ask for",
            "set kubelet, as a rule to /var/lib/kubelet/pod-resources/kubelet.sock",
        )
    return settings


def _check_access(settings: AgentSettings) -> None:
    """One way to speak to the collector, whole; plain text to this machine only."""
    files = [settings.tls_cert, settings.tls_key, settings.tls_ca]
    if any(files) and not all(files):
        raise SettingsError(
            "tls-cert, tls-key, tls-ca: expected all three or none",
            "name the certificate, its key, and the authorities that signed the collector's",
        )
    if sum((any(files), bool(settings.join), bool(settings.join_file))) > 1:
        raise SettingsError(
            "join, join-file, tls-cert: expected one of them", "a token, or certificates of another authority"
        )
    host = parse_address(settings.collector)[0] if settings.collector else "localhost"
    if not (
        any(files) or settings.join or settings.join_file or is_loopback(host) or _joined(settings.state)
    ):
        raise SettingsError(
            f"collector: expected an address of this machine (127.0.0.1, ::1, localhost), got {host!r}: "
            "this agent has no certificate, and records must not cross a network in plain text",
            "join with a token (--join-file FILE; at the collector: flopmeter collector token create), or name "
            "--tls-cert, --tls-key and --tls-ca",
        )


def _joined(state: Path) -> bool:
    try:
        return (state / IDENTITY_FILE).exists()
    except OSError:
        return False


def nearest(key: str) -> str:
    """A hint that names the known key which looks most like `key`."""
    close = difflib.get_close_matches(key, _PARSERS, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known are: {', '.join(_PARSERS)}"


def read_toml(path: Path) -> dict[str, Any]:
    """The `[agent]` table of a TOML file. Keys may be written with dashes or underscores."""
    try:
        with path.open("rb") as f:
            data = tomllib.load(f)
    except OSError as e:
        raise SettingsError(f"file {path}: cannot be read: {e.strerror}", "check --config") from e
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise SettingsError(f"file {path}: not TOML: {e}", "see docs/settings.md for an example") from e
    unknown = [key for key in data if key not in ("agent", "collector")]
    if unknown:
        hint = "write the agent's settings below [agent]"
        raise SettingsError(f"file {path}: unknown table or key {unknown[0]!r}", hint)
    table = data.get("agent", {})
    if not isinstance(table, dict):
        raise SettingsError(
            f"file {path}: expected a table [agent], got {table!r}", "write [agent] on a line"
        )
    return {key.replace("-", "_"): value for key, value in table.items()}


def from_environ(environ: Mapping[str, str]) -> dict[str, str]:
    """Settings in variables; one that names no setting is refused where it is read, but for Kubernetes' own."""
    found = {}
    for name, value in environ.items():
        if not name.startswith(ENV_PREFIX) or name == CONFIG_VARIABLE:
            continue
        bare = name.removeprefix(ENV_PREFIX)
        if is_service_link(bare, value):
            log.debug("environment: %s is Kubernetes' for a Service of our name, and passed over", name)
        else:
            found[bare.lower()] = value
    return found


def parse_address(value: str) -> tuple[str, int]:
    """HOST:PORT or [V6]:PORT into its parts."""
    host, colon, port = value.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"expected HOST:PORT or [IPV6]:PORT, got {value!r}")
    if not colon or not host or not (port.isascii() and port.isdigit()) or not 0 <= int(port) <= 65535:
        raise ValueError(f"expected HOST:PORT, got {value!r}")
    return host, int(port)


def _collector(value: object) -> str:
    raw = _str(value)
    if not raw:
        return raw
    host, port = parse_address(raw)
    if port == 0:
        raise ValueError(f"expected a port from 1 to 65535, got {raw[:80]!r}")
    if not host.isprintable() or len(host) > _MAX_HOST_CHARS:
        raise ValueError(f"expected a host name or address, got {host[:80]!r}")
    return raw


def _join(value: object) -> str:
    """A join token. What is wrong with one is said without repeating it: it may be most of a secret."""
    raw = _str(value).strip()
    if raw:
        parse_join_token(raw)
    return raw


def _server_name(value: object) -> str:
    raw = _str(value)
    if len(raw) > _MAX_HOST_CHARS or not all(c.isalnum() or c in ".-_:" for c in raw):
        raise ValueError(f"expected a host name, got {raw[:80]!r}")
    return raw


def _metrics(value: object) -> str:
    raw = _str(value)
    if raw:
        parse_address(raw)
    return raw


def _str(value: object) -> str:
    if not isinstance(value, (str, Path)):
        raise ValueError(f"expected text, got {value!r}")  # noqa: TRY004 - a bad setting, not a defect
    return str(value)


def _label(what: str) -> Callable[[object], str]:
    return lambda value: check_label(what, _str(value))


def _path(value: object) -> Path:
    raw = _str(value)
    if not raw:
        raise ValueError("expected a directory, got nothing")
    return Path(raw)


def _socket(value: object) -> str:
    raw = _str(value)
    if raw and (not raw.startswith("/") or len(raw.encode()) > _MAX_SOCKET_BYTES):
        raise ValueError(
            f"expected the whole path of a socket, at most {_MAX_SOCKET_BYTES} bytes, got {raw[:80]!r}"
        )
    return raw


def _variables(value: object) -> str:
    names = value if isinstance(value, list) else [name.strip() for name in _str(value).split(",")]
    return ",".join(sorted(more_variables(_str(name) for name in names if name != "")))


def _declare_socket(value: object) -> str:
    raw = _socket(value) if value not in ("auto", "off") else _str(value)
    if not raw:
        raise ValueError("expected auto, off or the whole path of a socket, got nothing")
    return raw


def _flag(value: object) -> bool:
    if isinstance(value, bool):
        return value
    if value in ("true", "false"):
        return value == "true"
    raise ValueError(f"expected true or false, got {value!r}")


def _absolute(value: object) -> str:
    raw = _str(value)
    if raw and not raw.startswith("/"):
        raise ValueError(f"expected a path from / on, got {raw!r}")
    return raw


def _duration(low_ns: int, high_ns: int) -> Callable[[object], int]:
    def parse(value: object) -> int:
        match = _DURATION.match(str(value).strip()) if isinstance(value, (str, int, float)) else None
        if isinstance(value, bool) or match is None:
            raise ValueError(f"expected a duration such as 500ms, 60s or 5m, got {value!r}")
        ns = round(float(match[1]) * _DURATION_NS[match[2] or "s"])
        if not low_ns <= ns <= high_ns:
            raise ValueError(f"expected {low_ns / 1e9:g} s to {high_ns / 1e9:g} s, got {ns / 1e9:g} s")
        return ns

    return parse


def _size(low: int, high: int) -> Callable[[object], int]:
    def parse(value: object) -> int:
        match = _SIZE.match(str(value).strip()) if isinstance(value, (str, int)) else None
        if isinstance(value, bool) or match is None:
            raise ValueError(f"expected a size such as 256MiB, got {value!r}")
        size = int(match[1]) * _SIZE_BYTES[match[2] or "B"]
        if not low <= size <= high:
            raise ValueError(f"expected {low} to {high} bytes, got {size}")
        return size

    return parse


def _level(value: object) -> str:
    if value not in LOG_LEVELS:
        raise ValueError(f"expected one of {', '.join(LOG_LEVELS)}, got {value!r}")
    return str(value)


_NANOSECONDS = ("window", "tick", "read_deadline", "stop_timeout", "slurm_squeue_period")
_PARSERS: dict[str, Callable[[object], Any]] = {
    "source": _str,
    "state": _path,
    "collector": _collector,
    "join": _join,
    "join_file": _str,
    "enrol": _collector,
    "tls_cert": _str,
    "tls_key": _str,
    "tls_ca": _str,
    "server_name": _server_name,
    "node": _label("node"),
    "cluster": _label("cluster"),
    "window": _duration(MIN_WINDOW_NS, MAX_WINDOW_NS),
    "tick": _duration(MIN_TICK_NS, 3_600_000_000_000),
    "read_deadline": _duration(10_000_000, int(MAX_READ_DEADLINE_S * 1e9)),
    "stop_timeout": _duration(0, int(MAX_STOP_TIMEOUT_S * 1e9)),
    "spool_limit": _size(1 << 16, 1 << 40),
    "keep_acked": _size(0, 1 << 40),
    "kubelet": _socket,
    "kubernetes_labels": _flag,
    "slurm_job_mapping_dir": _absolute,
    "slurm_squeue": _absolute,
    "slurm_squeue_period": _duration(10_000_000_000, 86_400_000_000_000),
    "job_variables": _variables,
    "declare_socket": _declare_socket,
    "metrics_address": _metrics,
    "otlp": lambda value: check_url(_str(value)),
    "log_level": _level,
}
