"""The collector's settings: flag > FLOPMETER_COLLECTOR_* > TOML file > default. Unknown keys are refused."""

import logging
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from flopmeter.cli.addresses import is_loopback
from flopmeter.cli.environment import is_service_link
from flopmeter.cli.otlp import check_url

from .errors import SettingsError
from .forecast.settings import Outlook
from .log.checkpoint import ORIGIN
from .store_path import DEFAULT_STORE

log = logging.getLogger(__name__)

ENV_PREFIX = "FLOPMETER_COLLECTOR_"
MAX_LINGER_MS = 10_000
MAX_UNATTRIBUTED_MINUTES = 1_024 * 24 * 60  # a day of the largest node there is (limits.MAX_ENTITIES)
MAX_LEADS, MAX_LEAD_MINUTES = 8, 366 * 1_440
MAX_CHECKPOINT_S = 60  # within one interval data can be dated early (reference/attestation.md 5)
MAX_MARGIN_PERCENT = 99  # of 100 nothing would be left to disagree with


_NUMBERS = (
    "linger_ms",
    "checkpoint_s",
    "unattributed_minutes",
    "progress_margin_percent",
    "forecast_confidence_percent",
    "forecast_horizon_days",
)


_SWITCHES = ("admit_new", "http_tls", "http_proxied")


@dataclass(frozen=True, slots=True)
class CollectorSettings:
    """What `flopmeter collector serve` runs with. Defaults here are the documented ones."""

    store: Path = Path(DEFAULT_STORE)  # SQLite file, or the directory it lies in; made if absent
    listen: str = "127.0.0.1:9840"  # gRPC; loopback only without TLS
    http: str = "127.0.0.1:9841"  # page, API, /healthz /readyz /metrics; "" = none
    http_tls: bool = False  # … by the certificate that agents are served with
    http_proxied: bool = False  # a proxy in front of it ends TLS, and says so
    admit: Path | None = None  # file of public keys that may speak
    admit_new: bool = False  # trust any key on first use
    linger_ms: int = 100  # how long a group waits for more records before it is committed
    regimes: Path | None = None  # a site's own regime files, beside the shipped ones
    regime_key: Path | None = None  # public key that must have signed them
    estimates: Path | None = None  # a site's declared estimates, compared with the counters
    sites: Path | None = None  # where clusters and nodes stand, and their network's speed
    expect: Path | None = None  # the nodes that must exist: what the page says is missing
    identity_rules: Path | None = None  # a site's own rules for which run a job is
    unattributed_minutes: int = 60  # without an owner, of a node and day, that raise an event; 0 = none
    progress_margin_percent: int = 30  # that claims of training code may be off; 0 = never an event
    forecast_confidence_percent: int = 90  # of the interval whose lower edge makes a line known to be met
    forecast_horizon_days: int = 30  # how far ahead a run that declares no end is forecast
    deadline_leads: str = "7d,2d,1d"  # how long before it is due a deadline is told of
    event_log: Path | None = None  # JSON Lines file that every event is written to
    sinks: Path | None = None  # TOML file of where events go
    keys: Path | None = None  # directory of the collector's keys; None: keys/ beside the store
    log_origin: str = ""  # name of the evidence log, kept from its first start on; "": a random one
    checkpoint_s: int = 30  # how often the evidence log gets a signed head
    tls_name: str = ""  # names and addresses of this collector, with commas: turns on TLS by the embedded CA
    tls_cert: Path | None = None  # certificate chain, PEM: turns on TLS by files, all three of them
    tls_key: Path | None = None
    tls_client_ca: Path | None = None  # who signs agents' certificates
    peer_ids: str = ""  # pattern that a name of an agent's certificate must match; "": any that the CA signed
    enrol: str = ""  # HTTPS address where agents join by token; "": none
    witness_policy: Path | None = None  # C2SP tlog-policy: which witnesses cosign the log's heads
    tsa: tuple[str, ...] = ()  # URLs of RFC 3161 timestamp authorities
    tsa_ca: Path | None = None  # their root certificates (PEM)
    otlp: str = ""  # URL of an OTLP receiver that gets what /metrics shows; "" = none

    def __post_init__(self) -> None:
        """Raises SettingsError for a value out of range."""
        if not 0 <= self.linger_ms <= MAX_LINGER_MS:
            raise SettingsError(f"--linger-ms: expected 0 to {MAX_LINGER_MS}, got {self.linger_ms}")
        if not 0 <= self.unattributed_minutes <= MAX_UNATTRIBUTED_MINUTES:
            raise SettingsError(
                f"--unattributed-minutes: expected 0 (never) to {MAX_UNATTRIBUTED_MINUTES}, got {self.unattributed_minutes}"
            )
        if not 0 <= self.progress_margin_percent <= MAX_MARGIN_PERCENT:
            raise SettingsError(
                f"--progress-margin-percent: expected 0 (never) to {MAX_MARGIN_PERCENT}, got {self.progress_margin_percent}"
            )
        if not 1 <= self.checkpoint_s <= MAX_CHECKPOINT_S:
            raise SettingsError(
                f"--checkpoint-s: expected 1 to {MAX_CHECKPOINT_S}, got {self.checkpoint_s}",
                "what was taken since the last checkpoint could still be changed by whoever holds the store",
            )
        if self.log_origin and ORIGIN.fullmatch(self.log_origin) is None:
            raise SettingsError(
                f"--log-origin: expected up to 200 printable ASCII characters without space and plus, got "
                f"{self.log_origin[:200]!r}",
                "a host's name and a path, without https://, is usual: flopmeter.lab.example/cluster-1",
            )
        leads_ns("--deadline-leads", self.deadline_leads)
        fault = self.outlook.fault
        if fault is not None:
            raise SettingsError(f"--forecast-confidence-percent, --forecast-horizon-days: expected {fault}")
        host, _ = split_address("--listen", self.listen)
        check_identity(self)
        if not is_loopback(host) and not self.tls:
            raise SettingsError(
                f"--listen: expected a loopback address, got {self.listen}: without TLS it would be plain text",
                "name the collector with --tls-name (it makes its own certificates), or give it some with --tls-cert, "
                "--tls-key and --tls-client-ca: docs/identity.md",
            )
        check_http(self)
        try:
            check_url(self.otlp)
        except ValueError as e:
            raise SettingsError(f"--otlp: {e}", "docs/metrics.md") from e

    @property
    def tls(self) -> str:
        """Where certificates come from: "embedded", "files"; "" = plain text."""
        return "embedded" if self.tls_name else "files" if self.tls_cert else ""

    @property
    def tls_files(self) -> tuple[Path, Path, Path]:
        """Chain, key, and the authorities of clients, where `tls` is "files"."""
        assert self.tls_cert is not None
        assert self.tls_key is not None
        assert self.tls_client_ca is not None
        return self.tls_cert, self.tls_key, self.tls_client_ca

    @property
    def outlook(self) -> Outlook:
        """How forecasts are made."""
        return Outlook(self.forecast_confidence_percent, self.forecast_horizon_days)

    def shown(self) -> list[str]:
        """One `name = value` line per setting, for the log at start."""
        return [f"{f.name} = {getattr(self, f.name)}" for f in fields(self)]


def check_http(s: CollectorSettings) -> None:
    """Raises SettingsError unless the settings of the HTTP port go together."""
    if s.http:
        split_address("--http", s.http)
    if s.http_tls and not s.tls:
        raise SettingsError(
            "--http-tls: expected it with --tls-name, or with --tls-cert, --tls-key and --tls-client-ca",
            "browsers take a certificate of an authority that they know: name one by --tls-cert (docs/web.md)",
        )
    if s.http_tls and s.http_proxied:
        raise SettingsError(
            "--http-tls, --http-proxied: expected one of them, got both",
            "with --http-proxied a proxy in front ends TLS, and the way from it to here is yours to guard",
        )


def check_identity(s: CollectorSettings) -> None:
    """Raises SettingsError unless the settings of TLS and enrolment go together."""
    files = {"--tls-cert": s.tls_cert, "--tls-key": s.tls_key, "--tls-client-ca": s.tls_client_ca}
    given = [name for name, path in files.items() if path is not None]
    if given and len(given) < len(files):
        missing = ", ".join(name for name in files if name not in given)
        raise SettingsError(
            f"{', '.join(given)}: expected {missing} with it, got none", "name all three files"
        )
    if given and s.tls_name:
        raise SettingsError(
            "--tls-name: expected it without --tls-cert, got both",
            "--tls-name makes certificates here; --tls-cert takes those of another authority",
        )
    if s.peer_ids and not given:
        raise SettingsError(
            "--peer-ids: expected it with --tls-cert, --tls-key and --tls-client-ca",
            "certificates of the embedded authority name their agent themselves",
        )
    if s.enrol:
        split_address("--enrol", s.enrol)
        if not s.tls_name:
            raise SettingsError(
                "--enrol: expected it with --tls-name",
                "only the embedded authority gives certificates by token",
            )
    for name in tls_names(s.tls_name):
        if not re.fullmatch(r"[0-9A-Za-z*_.:-]{1,253}", name, re.ASCII):
            raise SettingsError(
                f"--tls-name: expected host names and addresses, got {name[:80]!r}",
                "those that agents dial, with commas between: collector.example.org,10.0.0.5",
            )


def tls_names(text: str) -> tuple[str, ...]:
    """The parts of --tls-name."""
    return tuple(part.strip() for part in text.split(",") if text)


def leads_ns(what: str, text: str) -> tuple[int, ...]:
    """Lead times in ns, longest first, of "7d,36h,10m". Raises SettingsError; `what` names the setting."""
    hint = (
        "write days, hours or minutes: 7d,2d,1d; for something due in less than two weeks they shrink with it"
    )
    found = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*([1-9][0-9]{0,5})([dhm])\s*", part, re.ASCII)
        lead = int(match[1]) * {"d": 1_440, "h": 60, "m": 1}[match[2]] if match is not None else 0
        if not 0 < lead <= MAX_LEAD_MINUTES:
            raise SettingsError(
                f"{what}: expected lead times of up to 366 days, got {part.strip()[:40]!r}", hint
            )
        found.add(lead * 60_000_000_000)
    if len(found) > MAX_LEADS:
        raise SettingsError(f"{what}: expected at most {MAX_LEADS} lead times, got {len(found)}", hint)
    return tuple(sorted(found, reverse=True))


def split_address(what: str, address: str) -> tuple[str, int]:
    """("host", port) of "host:port" or "[v6]:port". Raises SettingsError; `what` names the setting."""
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65_535:
        raise SettingsError(f"{what}: expected HOST:PORT, got {address!r}", "port 0 picks a free one")
    return host.removeprefix("[").removesuffix("]"), int(port)


def read_config(path: Path) -> dict[str, Any]:
    """The `[collector]` table of a TOML file (keys as the flags, `-` or `_`). Raises SettingsError.

    The file may hold the agent's settings too, in a table of their own: one file for a node that runs both.
    """
    try:
        with path.open("rb") as f:
            data = tomllib.load(f)
    except OSError as e:
        raise SettingsError(f"--config {path}: cannot read: {e.strerror}") from e
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise SettingsError(f"--config {path}: expected TOML, got {e}") from e
    unknown = [key for key in data if key not in ("agent", "collector")]
    if unknown:
        raise SettingsError(
            f"--config {path}: unknown table or key {unknown[0]!r}",
            "write the collector's settings below [collector]",
        )
    table = data.get("collector", {})
    if not isinstance(table, dict):
        raise SettingsError(
            f"--config {path}: expected a table [collector], got {table!r}", "write [collector] on a line"
        )
    known = {f.name: f.type for f in fields(CollectorSettings)}
    found: dict[str, Any] = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        if name not in known:
            raise SettingsError(
                f"--config {path}: unknown key {key!r}", "known keys: " + ", ".join(sorted(known))
            )
        expected: type = {**dict.fromkeys(_SWITCHES, bool), "tsa": list, **dict.fromkeys(_NUMBERS, int)}.get(
            name, str
        )
        texts = not isinstance(value, list) or all(type(v) is str for v in value)
        if type(value) is not expected or not texts:
            raise SettingsError(f"--config {path}: {key}: expected {expected.__name__}, got {value!r}")
        found[name] = value
    return found


def check_environment(environ: Mapping[str, str], known: Iterable[str]) -> None:
    """Raises SettingsError for a FLOPMETER_COLLECTOR_* variable that names no setting."""
    allowed = set(known)
    for name in sorted(environ):
        if name.startswith(ENV_PREFIX) and name not in allowed:
            if is_service_link(name.removeprefix(ENV_PREFIX), environ[name]):
                log.debug("environment: %s is Kubernetes' for a Service of our name, and passed over", name)
                continue
            raise SettingsError(
                f"environment: unknown variable {name}", "known ones: " + ", ".join(sorted(allowed))
            )
