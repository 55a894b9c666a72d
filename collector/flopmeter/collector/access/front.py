"""Everything of one running collector that has to do with certificates, put together from its settings."""

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import grpc

from flopmeter.collector.errors import SettingsError
from flopmeter.collector.keys import keys_directory
from flopmeter.collector.settings import CollectorSettings, split_address, tls_names

from .ca import CertificateAuthority, at, load_or_create
from .desk import Desk
from .errors import TlsFileError
from .gate import Gate
from .peers import OwnPeers, PeerRule, other_peers
from .server import IdentityServer
from .tls import Embedded, Files, Served, ServerTls, Source


class Front:
    """ingest.guard.Guard, and the enrolment server beside it."""

    def __init__(
        self, settings: CollectorSettings, store: Path, unix_ns: Callable[[], int] = time.time_ns
    ) -> None:
        """Raises KeyFileError, and SettingsError for files that cannot be served with."""
        self._settings, self._unix_ns = settings, unix_ns
        ca: CertificateAuthority | None = None
        rule: PeerRule
        if settings.tls == "embedded":
            ca = load_or_create(keys_directory(settings.keys, store), at(unix_ns()))
            own: OwnPeers | None = OwnPeers(ca.trust_domain)
            rule = own or OwnPeers(ca.trust_domain)
            source: Source = Embedded(ca, tls_names(settings.tls_name), unix_ns)
        else:
            own = None
            rule = other_peers(settings.peer_ids)
            source = Files(settings.tls_files, unix_ns)
        try:
            self.tls = ServerTls(source, unix_ns)
        except TlsFileError as e:
            raise SettingsError(f"TLS: {e}", e.hint) from e
        self._gate = Gate(rule, unix_ns)
        self.desk = Desk(store, ca, unix_ns)
        self._identity = IdentityServer(self.desk, self._gate, own)
        self._enrolment: Any = None

    # --- ingest.guard.Guard ---

    def credentials(self) -> grpc.ServerCredentials:
        served = self.tls.now()
        last: list[Served] = [served]

        def newest() -> Any:
            """Asked for every new connection, on gRPC's threads. None: as before."""
            now = self.tls.now()
            if now is last[0]:
                return None
            last[0] = now
            return _configuration(now)

        return grpc.dynamic_ssl_server_credentials(
            _configuration(served), newest, require_client_authentication=True
        )

    def handler(self) -> Any:
        return self._identity.handler()

    def judge(self, connection: Any, public_key: bytes, node: str) -> tuple[str, int]:
        return self._gate.judge(connection, public_key, node)

    # --- enrolment ---

    def start_enrolment(self) -> str:
        """Serve where --enrol says; "host:port", or "" where it says nothing. Raises OSError."""
        if not self._settings.enrol:
            return ""
        from .enrol_server import EnrolServer

        host, port = split_address("--enrol", self._settings.enrol)
        try:
            self._enrolment = EnrolServer(host, port, desk=self.desk, tls=self.tls, unix_ns=self._unix_ns)
        except OSError as e:
            raise OSError(f"--enrol {self._settings.enrol}: cannot listen: {e.strerror or e}") from e
        return f"[{host}]:{self._enrolment.port}" if ":" in host else f"{host}:{self._enrolment.port}"

    def stop(self) -> None:
        if self._enrolment is not None:
            self._enrolment.stop()
        self._identity.stop()

    def gauges(self) -> Iterable[tuple[str, str, float]]:
        """(name, what it says, value) for /metrics."""
        yield (
            "tls_not_after_timestamp_seconds",
            "End of the certificate that new connections get.",
            float(self.tls.not_after_unix_s),
        )
        yield (
            "tls_good",
            "0: the newest certificate cannot be served, and the last good one is.",
            float(self.tls.fault is None),
        )

    @property
    def enrolment_refusals(self) -> int | None:
        """Requests to join that were refused since the start; None: nobody can join here."""
        return None if self._enrolment is None else self._enrolment.refused


def _configuration(served: Served) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(served.key, served.chain)], served.client_ca)
