"""Any agents on any GPUs, in any order: what is booked of a GPU is never more than the time that was told of.

fsck goes the slow way for every record, ingest the fast one where it can; so fsck says whether they are the same.
"""

import hashlib
import tempfile
from pathlib import Path

import pytest
from builders import WINDOW_NS, Chain, busy, gap
from desk import Desk
from hypothesis import given, settings
from hypothesis import strategies as st

from flopmeter.collector.check.fsck import check_store
from flopmeter.collector.ingest.claims import CLOCK_ERROR_NS
from flopmeter.collector.ingest.decide import TAKEN
from flopmeter.contract.evidence_class import EvidenceClass
from flopmeter.wire.v1 import batch_pb2

SECOND_NS = 1_000_000_000
NAMES = ("a", "b", "c")  # a and b run in one boot
GPUS = 2


def steps(longest):
    """What happens; a row is `longest` windows at most: over a restart it reaches back behind its window."""
    name, some = st.sampled_from(NAMES), st.sampled_from([(0,), (1,), (0, 1)])
    return st.lists(
        st.one_of(
            st.tuples(st.just("record"), name, some, st.integers(1, longest)),
            st.tuples(st.just("record"), name, st.just((0, 1)), st.just(1)),
            st.tuples(st.just("gap"), name, st.just((0, 1)), st.just(1)),
            st.tuples(st.just("wait"), name, st.just(()), st.integers(1, 3)),
            st.tuples(st.just("reboot"), name, st.just(()), st.just(0)),
            st.tuples(st.just("devices"), name, some, st.just(0)),
            st.tuples(st.sampled_from(["commit", "restart"]), st.just(""), st.just(()), st.just(0)),
        ),
        min_size=4,
        max_size=40,
    )


class Node:
    """An agent, the GPUs that it has now, and what it told of each: spans on the wall clock."""

    def __init__(self, name: str, clock_error_ns: int) -> None:
        self.chain = Chain("n", gpus=GPUS, key_seed=name)
        self.whole = self.chain.inventory
        self.name, self.boots = name, 0
        if name == "c":
            self.reboot()
            self.chain.unix_ns += clock_error_ns
        self.has = tuple(range(GPUS))

    def reboot(self) -> None:
        """Into a boot of its own: no two have one id and another clock."""
        self.boots += 1
        self.chain.reboot()
        self.chain.boot_id = hashlib.sha256(f"{self.name} {self.boots}".encode()).digest()[:16]

    def devices(self, kept: tuple[int, ...]) -> None:
        message = batch_pb2.Inventory.FromString(self.whole)
        for index in reversed(range(GPUS)):
            if index not in kept:
                del message.devices[index]
        self.chain.inventory = message.SerializeToString()
        self.chain.digest = hashlib.sha256(self.chain.inventory).digest()
        self.has = kept


def union_ns(spans: list[tuple[int, int]]) -> int:
    total, reached = 0, 0
    for begin, end in sorted(spans):
        total += max(0, end - max(begin, reached))
        reached = max(reached, end)
    return total


@pytest.mark.parametrize("longest", [1, 4])
@settings(max_examples=50, deadline=None)
@given(st.data(), st.integers(-10, 10))
def test_a_gpus_time_is_booked_once(longest, data, error_s):
    doing = data.draw(steps(longest))
    nodes = {name: Node(name, error_s * SECOND_NS) for name in NAMES}
    told: dict[int, list[tuple[int, int]]] = {gpu: [] for gpu in range(GPUS)}
    with tempfile.TemporaryDirectory() as folder, Desk(Path(folder) / "b.db") as desk:
        agents = {name: desk.agent(node.chain) for name, node in nodes.items()}
        desk.commit()
        for what, name, gpus, number in doing:
            node = nodes.get(name)
            chain = node.chain if node else None
            if what == "commit":
                desk.commit()
            elif what == "restart":
                desk.commit()
                desk.recover()
            elif what == "wait":
                chain.boot_ns += number * WINDOW_NS
                chain.unix_ns += number * WINDOW_NS
            elif what == "reboot":
                node.reboot()
                chain.unix_ns += WINDOW_NS
            elif what == "devices":
                node.devices(gpus)
                assert desk.hello(chain) is agents[name]
            else:
                rows = []
                for gpu in set(gpus) & set(node.has):
                    index = node.has.index(gpu)
                    length_ns = WINDOW_NS * number
                    rows.append(busy(index, duration_ns=length_ns) if what == "record" else gap(index))
                    if what == "record":
                        end = chain.unix_ns + WINDOW_NS
                        told[gpu].append((end - length_ns, end))
                assert desk.offer(agents[name], chain.next(rows)) is TAKEN
        desk.commit()
        result = check_store(desk.store.path, ())
        assert result.difference is None, result.difference
        booked = sum(s[0] for k, s in desk.totals().items() if k.evidence_class != EvidenceClass.GAP)
        claims = desk.rows("SELECT count(*) FROM claims")[0][0]
        if longest == 1:  # else an agent may say its own time twice, which only its own chain can show
            assert booked <= sum(map(union_ns, told.values())) + claims * CLOCK_ERROR_NS
