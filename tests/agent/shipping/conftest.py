"""A chain, and uplinks that end with the test."""

from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from chains import BOOT, open_chain
from uplinks import FAST, Connect

from flopmeter.agent.shipping.chain import Chain
from flopmeter.agent.shipping.status import Identity, Timing
from flopmeter.agent.shipping.uplink import Uplink


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[Chain]:
    made = open_chain(tmp_path / "state")
    yield made
    made.spool.close()


@pytest.fixture
def connect(chain: Chain) -> Iterator[Connect]:
    made: list[Uplink] = []

    def connect(target: str, timing: Timing = FAST, chain: Chain = chain) -> Uplink:
        uplink = Uplink(target, chain, Identity("node-a", "0.1.0", BOOT), rng=Random(1), timing=timing)
        made.append(uplink)
        uplink.start()
        return uplink

    yield connect
    for uplink in made:
        uplink.stop()
