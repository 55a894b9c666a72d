"""What a batch says of its node: names that may stand in the books, whatever a source or a driver called them. Pure."""

from dataclasses import astuple

from flopmeter.agent.reading import NodeFacts
from flopmeter.agent.workloads.labels import tidy_label
from flopmeter.contract.limits import MAX_ENTITIES
from flopmeter.contract.usage import Device, Inventory, Library, Uncovered


def inventory_of(facts: NodeFacts, driver: str, nvml: str, devices: tuple[Device, ...]) -> Inventory:
    """The node of `facts` with these devices, under the driver that the window was metered with."""
    return Inventory(
        node=tidy_label(facts.node),
        cluster=tidy_label(facts.cluster),
        driver=tidy_label(driver),
        nvml=tidy_label(nvml),
        source=tidy_label(facts.source),
        devices=devices,
        library=Library(*(tidy_label(text) for text in astuple(facts.library))),
        uncovered=tuple(Uncovered(*map(tidy_label, astuple(u))) for u in facts.uncovered[:MAX_ENTITIES]),
    )
