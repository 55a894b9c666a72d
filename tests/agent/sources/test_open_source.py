"""open_source: what a user may type, and what is said to everything else."""

import pytest

from fakes import FakeClock
from flopmeter.agent.errors import SettingsError, SourceError
from flopmeter.agent.reading import NodeFacts
from flopmeter.agent.sources.open import open_source
from flopmeter.agent.sources.sim import SimSource
from flopmeter.agent.sources.trace import TraceFile, TraceWriter


def test_sim_and_trace_are_opened(tmp_path):
    assert isinstance(open_source("sim", FakeClock()), SimSource)
    TraceWriter(tmp_path / "a:b.jsonl", NodeFacts("n", bytes(16), "", "", "sim", ())).close()
    opened = open_source(f"trace:{tmp_path}/a:b.jsonl", FakeClock())
    assert isinstance(opened, TraceFile)
    opened.close()


@pytest.mark.parametrize("spec", ["", "tarot", "nvml:0", "trace", "trace:", "sim:x", "NVML", "dcgmx"])
def test_everything_else_is_refused_with_the_forms_that_exist(spec):
    with pytest.raises(SettingsError, match="nvml, dcgm:URL, sim, trace:FILE"):
        open_source(spec, FakeClock())


def test_a_dcgm_url_with_colons_arrives_whole():
    with pytest.raises(SourceError, match=r"http://127\.0\.0\.1:1/metrics"):
        open_source("dcgm:http://127.0.0.1:1/metrics", FakeClock())
