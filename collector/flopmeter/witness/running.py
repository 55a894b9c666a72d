"""Putting a witness together and running it until it is told to stop."""

import logging
import signal
import threading
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from flopmeter.cli.addresses import is_loopback
from flopmeter.cli.environment import is_service_link
from flopmeter.cli.systemd import Notifier
from flopmeter.evidence.errors import EvidenceError
from flopmeter.evidence.note import COSIGNED, Key, parse_key

from .errors import UsageError, WitnessError
from .heads import Heads
from .keys import MAX_NAME_BYTES, load
from .server import Certificate, WitnessServer
from .witness import Witness

log = logging.getLogger(__name__)
_PREFIX = "FLOPMETER_WITNESS_"
_LABS_OWN = "FLOPMETER_WITNESS_POLICY"  # of `flopmeter attest create`


def log_keys(vkeys: Sequence[str]) -> tuple[Key, ...]:
    """The keys of the logs to watch. Raises UsageError."""
    found: list[Key] = []
    for vkey in vkeys:
        try:
            key = parse_key(vkey)
        except EvidenceError as e:
            raise UsageError(
                f"--log: {e}", "take the line that `flopmeter collector keys show` prints for the log"
            ) from e
        if key.kind == COSIGNED:
            raise UsageError("--log: expected the key of a log, got that of a witness")
        if len(key.name.encode()) > MAX_NAME_BYTES:
            raise UsageError(f"--log: expected a name of at most {MAX_NAME_BYTES} bytes, got {vkey[:80]!r}")
        if key in found:
            raise UsageError(f"--log: {vkey[:80]} stands there twice")
        found.append(key)
    if not found:
        raise UsageError("--log: expected the public key of one log at least")
    return tuple(found)


def check_environment(environ: Mapping[str, str], known: Collection[str]) -> None:
    """Raises UsageError for a FLOPMETER_WITNESS_* variable that names no setting: a misspelt one is not passed over."""
    for name in sorted(environ):
        if not name.startswith(_PREFIX) or name in known or name == _LABS_OWN:
            continue
        if not is_service_link(name.removeprefix(_PREFIX), environ[name]):
            raise UsageError(
                f"environment: unknown variable {name}", "known ones: " + ", ".join(sorted(known))
            )


def serve_forever(
    *,
    key_file: Path,
    state: Path,
    logs: Sequence[str],
    listen: str,
    tls_cert: Path | None = None,
    tls_key: Path | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, then stop gracefully. Raises WitnessError if it cannot start."""
    host, port = _address(listen)
    if (tls_cert is None) != (tls_key is None):
        raise UsageError("--tls-cert and --tls-key: expected both or neither")
    if tls_cert is None and not is_loopback(host):
        raise UsageError(
            f"--listen: expected a loopback address without TLS, got {listen}",
            "add --tls-cert and --tls-key, or listen on 127.0.0.1 behind a proxy that speaks TLS",
        )
    certificate = Certificate(tls_cert, tls_key) if tls_cert is not None and tls_key is not None else None
    keys, watched = load(key_file), log_keys(logs)
    if {k.public for k in keys} & {k.public for k in watched}:
        raise UsageError("--log: expected the log's key, got this witness's own")
    heads = Heads(state)
    witness = Witness(keys, watched, heads)
    try:
        try:
            server = WitnessServer(witness, host, port, tls=certificate)
        except OSError as e:
            raise WitnessError(
                f"--listen {listen}: cannot listen: {e.strerror or e}",
                "is another witness running on this address?",
            ) from e
        _serve(server, witness, [k.vkey for k in keys], watched, heads)
    finally:
        heads.close()


def _serve(
    server: WitnessServer, witness: Witness, vkeys: Sequence[str], watched: Sequence[Key], heads: Heads
) -> None:
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    known = {head.origin: head for head in heads.all()[0]}
    for key in watched:
        head = known.get(key.name)
        log.info(
            "watching %s: %s",
            ascii(key.name)[1:-1],
            f"cosigned size {head.size}" if head else "nothing cosigned yet",
        )
    for vkey in vkeys:
        log.info("cosigning as %s", vkey)
    server.start()
    log.info("listening on %s", server.url)
    notifier = Notifier()
    notifier.ready(f"listening on {server.url}")
    while not stop.wait(notifier.beat_s / 2 if notifier.beat_s else None):
        if witness.healthy():
            notifier.beat()
    log.info("stopping")
    notifier.stopping("stopping")
    server.stop()
    log.info("stopped")


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not host or not (port.isascii() and port.isdecimal()) or int(port) > 65_535:
        raise UsageError(f"--listen: expected HOST:PORT, got {text[:80]!r}", "port 0 picks a free one")
    return host.removeprefix("[").removesuffix("]"), int(port)
