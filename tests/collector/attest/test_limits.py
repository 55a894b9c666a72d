"""What no attestation proves: the sentences that each one carries are those of the threat model, and the assurance level."""

from pathlib import Path

import pytest

from flopmeter.collector.attest.limits import LIMITS, assurance

PAGE = Path(__file__).parents[3] / "docs" / "threat-model.md"


@pytest.mark.parametrize("sentence", LIMITS)
def test_the_threat_model_says_the_same(sentence):
    assert f"- {sentence}\n" in PAGE.read_text()


def test_the_threat_model_says_no_other():
    said = PAGE.read_text().split("## Out of reach")[1].split("\n\n")[2]
    assert said.splitlines() == [f"- {s}" for s in LIMITS]


@pytest.mark.parametrize(
    ("given", "level"),
    [
        (((), (), 0), "unwitnessed"),
        (((), ("a", "b"), 0), "unwitnessed"),
        (((), ("a", "b"), 1), "timestamped"),
        ((("a",), ("a", "b", "c"), 0), "witnessed (1 of 3 that the operator names: a)"),
        ((("a", "b"), ("a", "b"), 2), "witnessed (2 of 2 that the operator names: a, b); 2 RFC 3161"),
    ],
)
def test_the_level_is_never_said_better_than_it_is(given, level):
    assert assurance(*given).startswith(f"Assurance: {level}")
