"""The kubelet source and everything around it, polled by hand."""

from pathlib import Path
from random import Random
from typing import Any

from fake_kubelet import FakeKubelet

from fakes import FakeClock
from flopmeter.agent.reading import NodeFacts
from flopmeter.agent.workloads.kubelet.api import Api
from flopmeter.agent.workloads.kubelet.client import KubeletClient
from flopmeter.agent.workloads.kubelet.source import KubeletSource
from flopmeter.contract.usage import Device

G0, G1 = (f"GPU-0000000{n}-aaaa-4bbb-8ccc-00000000000{n}" for n in range(2))
U1, U2 = (f"{n}f0c3a52-5b3e-4a57-9b4e-0c9c1d2e3f40" for n in (1, 2))
S = 1_000_000_000
FACTS = NodeFacts(
    "n1",
    b"\1" * 16,
    "590",
    "13",
    "nvml",
    tuple(
        Device(g, "NVIDIA H100", "9.0", 132, pci_address=f"00000000:1{n}:00.0")
        for n, g in enumerate((G0, G1))
    ),
)


class Rig:
    """A source that is polled by hand, and everything around it."""

    def __init__(self, folder: Path, api: Api | None = None) -> None:
        self.clock = FakeClock()
        self.kubelet = FakeKubelet(folder)
        self.facts = FACTS
        self.minors: dict[str, int] = {}
        self.source = KubeletSource(
            KubeletClient(str(self.kubelet.socket), deadline_s=10.0),
            lambda: self.facts,
            self.clock,
            rng=Random(1),
            api=api,
            minors=lambda: self.minors,
        )

    def poll(self, *pods: Any) -> float:
        if pods:
            self.kubelet.say(*pods)
        self.clock.advance(S)
        return self.source.poll()

    def jobs(self) -> dict[str, list[str]]:
        latest = self.source.latest()
        assert latest is not None
        named = self.source.describe
        return {entity: [named(w).job for w in several] for entity, several in latest.by_entity.items()}

    def close(self) -> None:
        self.source.close()
        self.kubelet.stop()
