"""What the node is, as `agent run` puts it together."""

from dataclasses import replace
from types import SimpleNamespace

from metering import BOOT

from flopmeter.agent.reading import NodeFacts
from flopmeter.agent.run import NamedSource
from flopmeter.agent.settings import AgentSettings
from flopmeter.contract.usage import Uncovered

FACTS = NodeFacts(
    "host", BOOT, "590", "13", "nvml", (), uncovered=(Uncovered("0000:01:00.0", "AMD", "x", "y"),)
)


def test_what_the_scheduler_could_give_out_and_nobody_meters_is_of_the_node(tmp_path) -> None:
    other = Uncovered("", "NVIDIA", "GPU-9", "the kubelet could give it out")
    settings = replace(AgentSettings(), state=tmp_path, node="n1", cluster="c1")
    source = NamedSource(SimpleNamespace(facts=lambda: FACTS), settings)
    assert (source.facts().node, source.facts().cluster) == ("n1", "c1")
    assert source.facts().uncovered == FACTS.uncovered
    source.allocations = [SimpleNamespace(unmetered=lambda: (other,)), SimpleNamespace(unmetered=tuple)]
    assert source.facts().uncovered == (*FACTS.uncovered, other)
    assert source.facts() == source.facts()  # no change of devices where none is
