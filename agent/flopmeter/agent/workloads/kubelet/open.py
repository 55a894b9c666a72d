"""The kubelet source as the settings ask for it. What it needs is imported only then: gRPC, protobuf, TLS."""

import logging
import os
from collections.abc import Callable
from random import SystemRandom
from typing import TYPE_CHECKING

from flopmeter.agent.errors import KubernetesError
from flopmeter.agent.reading import NodeFacts
from flopmeter.agent.settings import AgentSettings
from flopmeter.contract.clock import Clock

if TYPE_CHECKING:
    from .source import KubeletSource

log = logging.getLogger(__name__)


def kubelet_source(
    settings: AgentSettings, facts: Callable[[], NodeFacts], clock: Clock
) -> "KubeletSource | None":
    """The kubelet's list as allocations, its threads begun; None where the setting `kubelet` is empty.

    `facts`: the node as it is now, from memory; it is called from the source's own thread. A socket or an API server
    that cannot be reached is no error here: both are asked again, and `problems` says what is wrong.
    """
    if not settings.kubelet:
        return None
    from .client import DEADLINE_S, KubeletClient
    from .source import KubeletSource

    api = None
    if settings.kubernetes_labels:
        from .api import Api, Server

        try:
            api = Api(Server.of_pod(os.environ), settings.node or facts().node)
        except KubernetesError as e:
            log.warning("%s; goes on without labels; %s", e, e.hint)
    period_s = settings.tick / 1e9
    source = KubeletSource(
        KubeletClient(settings.kubelet), facts, clock, rng=SystemRandom(), period_s=period_s, api=api
    )
    source.start(wait_s=DEADLINE_S)
    return source
