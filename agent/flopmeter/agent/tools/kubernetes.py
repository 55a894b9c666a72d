"""What `flopmeter agent doctor` says of Kubernetes: whether pods can be told, by name, and by what labels they carry."""

from collections.abc import Mapping
from random import SystemRandom

from flopmeter.agent.errors import KubernetesError
from flopmeter.agent.reading import NodeFacts
from flopmeter.contract.clock import Clock

from .advice import Advice

_NOT_ASKED = Advice(
    "the kubelet is not asked whose GPUs are: pods have a UID and no name, a GPU that waits for its pod is idle",
    "mount the kubelet's pod-resources directory and set --kubelet (docs/kubernetes.md)",
)
_NO_LABELS = Advice(
    "labels are not granted: a pod is a run of its own, unless its environment names one (docs/kubernetes.md)"
)


def kubernetes_advice(
    kubelet: str, labels: bool, facts: NodeFacts, clock: Clock, environ: Mapping[str, str]
) -> list[Advice]:
    """One list, and one question to the API server where that is asked for. Nothing on a node without Kubernetes."""
    if not kubelet:
        return [_NOT_ASKED] if environ.get("KUBERNETES_SERVICE_HOST") else []
    from flopmeter.agent.workloads.kubelet.client import KubeletClient
    from flopmeter.agent.workloads.kubelet.source import KubeletSource

    found: list[Advice] = []
    api = None
    if labels:
        from flopmeter.agent.workloads.kubelet.api import Api, Server

        try:
            api = Api(Server.of_pod(environ), facts.node)
        except KubernetesError as e:
            found.append(Advice(str(e), e.hint))
    source = KubeletSource(KubeletClient(kubelet), lambda: facts, clock, rng=SystemRandom(), api=api)
    try:
        source.poll()
        if api is not None:
            source.ask()
        found += [Advice(problem.why, problem.change) for problem in source.problems]
        latest = source.latest()
        if latest is not None:
            pods = {w.job for several in latest.by_entity.values() for w in several}
            found.append(Advice(f"the kubelet gives {len(latest.by_entity)} GPUs here to {len(pods)} pods"))
            found += [] if labels else [_NO_LABELS]
    finally:
        source.close()
    return found
