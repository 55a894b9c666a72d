"""What the node is, as `agent run` puts it together."""

import logging
import threading
from dataclasses import replace
from types import SimpleNamespace

import pytest
from metering import BOOT

from flopmeter.agent import run
from flopmeter.agent.errors import SourceError
from flopmeter.agent.loop import SystemClock
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


def test_a_driver_that_hangs_at_the_start_is_said_and_a_stop_is_heard(monkeypatch, caplog) -> None:
    asked, hangs = threading.Event(), threading.Event()

    def open_source(spec: str, clock: SystemClock) -> object:
        asked.set()
        assert hangs.wait(60)
        return FACTS

    monkeypatch.setattr("flopmeter.agent.sources.open.open_source", open_source)
    monkeypatch.setattr(run, "NO_ANSWER_NS", 0)
    monkeypatch.setattr(run, "_STOP_SEEN_S", 0.01)
    clock = SystemClock()
    threading.Thread(target=lambda: asked.wait(60) and (_said(caplog) or clock.stop())).start()
    with caplog.at_level(logging.ERROR):
        assert run._opened("nvml", clock) is None
    assert "nvml: no answer for" in caplog.text
    hangs.set()
    assert run._opened("nvml", SystemClock()) is FACTS


def _said(caplog) -> None:
    for _ in range(6_000):
        if caplog.records:
            return
        threading.Event().wait(0.01)


@pytest.mark.parametrize("error", [SourceError("no", "h"), TimeoutError("its own")])
def test_what_opening_raises_is_raised_where_the_agent_starts(monkeypatch, error) -> None:
    def open_source(spec: str, clock: SystemClock) -> object:
        raise error

    monkeypatch.setattr("flopmeter.agent.sources.open.open_source", open_source)
    with pytest.raises(type(error)) as raised:
        run._opened("nvml", SystemClock())
    assert raised.value is error
