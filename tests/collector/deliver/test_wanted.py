"""Which events a sink gets."""

import pytest

from flopmeter.collector.deliver.wanted import EVERYTHING, Wanted

EU = {"regime": "eu-gpai"}


@pytest.mark.parametrize(
    ("wanted", "gets"),
    [
        (EVERYTHING, True),
        (Wanted(types=("threshold.crossed",)), True),
        (Wanted(types=("threshold",)), True),
        (Wanted(types=("thresh",)), False),  # a word, not a beginning of letters
        (Wanted(types=("agent", "threshold")), True),
        (Wanted(severities=("critical",)), True),
        (Wanted(severities=("warning",)), False),
        (Wanted(regimes=("eu-gpai",)), True),
        (Wanted(regimes=("korea",)), False),
        (Wanted(types=("threshold",), severities=("critical",), regimes=("korea",)), False),
    ],
)
def test_every_list_must_agree(wanted, gets):
    assert wanted.wants("threshold.crossed", "critical", EU) is gets


def test_an_event_of_no_regime_is_not_wanted_by_whoever_names_some():
    assert not Wanted(regimes=("eu-gpai",)).wants("agent.silent", "warning", {})
    assert Wanted(types=("agent",)).wants("agent.silent", "warning", {})
