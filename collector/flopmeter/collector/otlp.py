"""What the collector's metrics say of where they come from, when they are sent by OTLP (docs/metrics.md)."""

import os
import socket
from collections.abc import Mapping
from importlib.metadata import version

from flopmeter.cli.otlp import Exporter, OtlpError, kubernetes, open_exporter

from .errors import SettingsError
from .metrics_page import CollectorMetrics


def otlp_exporter(
    url: str, metrics: CollectorMetrics, instance: str, environ: Mapping[str, str] | None = None
) -> Exporter:
    """Ready to start. `instance`: what tells this collector from another. Raises SettingsError."""
    environ = os.environ if environ is None else environ
    resource = {
        "service.name": "flopmeter-collector",
        "service.version": version("flopmeter"),
        "service.instance.id": instance,
        "host.name": socket.gethostname(),
        **kubernetes(environ),
    }
    try:
        exporter = open_exporter(url, metrics.collect, resource, environ)
    except OtlpError as e:
        raise SettingsError(str(e), e.hint) from e
    metrics.otlp = exporter.outcomes
    return exporter
