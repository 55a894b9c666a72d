"""What the agent's metrics say of where they come from, when they are sent by OTLP (docs/metrics.md)."""

import os
from collections.abc import Mapping

from flopmeter.cli.otlp import Exporter, OtlpError, kubernetes, open_exporter

from .errors import SettingsError
from .metrics import AgentView
from .settings import AgentSettings


def otlp_exporter(
    settings: AgentSettings, view: AgentView, environ: Mapping[str, str] | None = None
) -> Exporter:
    """Ready to start. Raises SettingsError where it cannot be."""
    environ = os.environ if environ is None else environ
    facts = view.pipeline.facts
    resource = {
        "service.name": "flopmeter-agent",
        "service.version": view.version,
        "service.instance.id": view.pipeline.chain.key.agent_id.hex(),
        "host.name": facts.node,
        **kubernetes(environ, facts.node),
    }
    try:
        exporter = open_exporter(settings.otlp, view.collect, resource, environ)
    except OtlpError as e:
        raise SettingsError(str(e), e.hint) from e
    view.otlp = exporter.outcomes
    return exporter
