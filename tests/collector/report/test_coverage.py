"""Coverage of the fleet: every second that is expected is observed or stands under a reason, every GPU missing is named."""

import hashlib
import tomllib

import pytest
from builders import UNIX_NS, WINDOW_NS, Chain, busy, gap
from desk import Desk

from flopmeter.collector.errors import CollectorError
from flopmeter.collector.law.regimes import shipped
from flopmeter.collector.report import queries
from flopmeter.collector.report.coverage import Booked, Missing, NotReporting, coverage_document
from flopmeter.collector.report.expected import ExpectedNode, read_expected
from flopmeter.collector.spelling import time_text
from flopmeter.contract.usage import GapReason, NoticeKind
from flopmeter.wire.v1 import batch_pb2

MINUTE_NS = 60_000_000_000
UNCOVERED = {"pci_address": "c1:00.0", "vendor": "AMD", "model": "MI300X", "reason": "nothing reads it"}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "books.sqlite"


def with_card(chain, **card):
    message = batch_pb2.Inventory.FromString(chain.inventory)
    message.uncovered.add(**(UNCOVERED | card))
    chain.inventory = message.SerializeToString()
    chain.digest = hashlib.sha256(chain.inventory).digest()
    return chain


def fleet_at(path, minute, expected=()):
    with queries.reading(path) as reader:
        return reader.fleet(queries.asked(UNIX_NS + minute * MINUTE_NS, shipped(), tuple(expected)))


def fill(path, *minutes_by_chain):
    with Desk(path, shipped()) as desk:
        for chain, minutes in minutes_by_chain:
            agent = desk.agent(chain)
            for _ in range(minutes):
                desk.offer(agent, chain.next())
        desk.commit()


def stopped(chain):
    batch = chain.batch()
    batch.notices.add(kind=NoticeKind.AGENT_STOPPED, t_boot_ns=1, t_unix_ns=1)
    return chain.next(payload=batch.SerializeToString())


def test_a_fleet_that_reports_is_covered(path):
    fill(path, (Chain("n1"), 20), (Chain("n2"), 20))
    fleet = fleet_at(path, 20)
    assert fleet["not_reporting"] == []
    assert fleet["coverage"] == {
        "expected_device_seconds": 4 * 20 * 60.0,
        "observed_device_seconds": 4 * 20 * 60.0,
        "gap_device_seconds": 0.0,
        "gaps": {},
    }


def test_all_that_is_missing_is_named_since_when_and_why(path):
    with Desk(path, shipped()) as desk:
        busy_chain, silent, card = Chain("n1"), Chain("n2"), with_card(Chain("n3", gpus=1))
        done = Chain("n4")
        for chain, minutes in ((busy_chain, 60), (silent, 10), (card, 60)):
            desk.now = UNIX_NS + 2 * MINUTE_NS
            agent = desk.agent(chain)
            desk.now = UNIX_NS + 60 * MINUTE_NS
            for _ in range(minutes):
                desk.offer(agent, chain.next())
        desk.offer(desk.agent(done), stopped(done))
        desk.now = UNIX_NS + 3 * MINUTE_NS
        desk.agent(Chain("n5"))
        desk.commit()
    expected = [
        ExpectedNode("n1", 2),
        ExpectedNode("n3", 4, since_unix_ns=UNIX_NS + 30 * MINUTE_NS),
        ExpectedNode("n6", 8, since_unix_ns=UNIX_NS),
        ExpectedNode("n7", 8),
        ExpectedNode("n8", 8, gone_unix_ns=UNIX_NS + MINUTE_NS, by="ops", why="returned"),
    ]
    fleet = fleet_at(path, 60, expected)
    found = [
        (m["node"], m["cause"], m["gpus"], m["since"], m["missing_device_seconds"])
        for m in fleet["not_reporting"]
    ]

    def at(minute):
        return time_text(UNIX_NS + minute * MINUTE_NS)

    assert found == [
        ("n2", "silent", 2, at(10), 2 * 50 * 60.0),
        ("n3", "fewer-than-expected", 2, at(30), 2 * 30 * 60.0),
        ("n3", "uncovered", 1, at(2), 58 * 60.0),
        ("n4", "stopped", 2, at(1), 2 * 59 * 60.0),
        ("n5", "never-reported", None, at(3), 0.0),
        ("n6", "expected", 8, at(0), 8 * 60 * 60.0),
        ("n7", "expected", 8, None, 0.0),
    ]
    c = fleet["coverage"]
    assert c["observed_device_seconds"] == (2 * 60 + 2 * 10 + 60 + 2) * 60.0
    assert c["gap_device_seconds"] == sum(m["missing_device_seconds"] for m in fleet["not_reporting"])
    assert c["gaps"] == {
        "expected": 8 * 60 * 60.0,
        "stopped": 2 * 59 * 60.0,
        "silent": 2 * 50 * 60.0,
        "fewer-than-expected": 2 * 30 * 60.0,
        "uncovered": 58 * 60.0,
    }
    assert c["expected_device_seconds"] == c["observed_device_seconds"] + c["gap_device_seconds"]


def test_gaps_in_the_books_stand_beside_what_never_came(path):
    chain = Chain("n1")
    with Desk(path, shipped()) as desk:
        agent = desk.agent(chain)
        desk.offer(agent, chain.next([busy(0), gap(1, reason=GapReason.READ_HUNG)]))
        desk.commit()
    c = fleet_at(path, 11)["coverage"]
    assert c["gaps"] == {"silent": 2 * 10 * 60.0, "read-hung": 60.0}
    assert c["observed_device_seconds"] == 60.0


def test_a_card_is_missing_since_it_was_first_listed_and_not_since_the_last_inventory(path):
    chain = with_card(Chain("n1"))
    with Desk(path, shipped()) as desk:
        for minute in (0, 5):
            desk.now = UNIX_NS + minute * MINUTE_NS
            agent = desk.agent(chain)
            desk.now = UNIX_NS + 6 * MINUTE_NS
            desk.offer(agent, chain.next())
            with_card(chain, pci_address=f"d{minute}:00.0")  # another inventory of the same node
        desk.commit()
    cards = [m for m in fleet_at(path, 6)["not_reporting"] if m["cause"] == "uncovered"]
    assert sorted(m["since"] for m in cards) == [time_text(UNIX_NS), time_text(UNIX_NS + 5 * MINUTE_NS)]


def test_a_node_out_of_service_is_not_missed_from_then_on(path):
    fill(path, (Chain("n1"), 20))
    gone = ExpectedNode("n1", 2, gone_unix_ns=UNIX_NS + 40 * MINUTE_NS, by="ops", why="returned")
    (silent,) = fleet_at(path, 60)["not_reporting"]
    (until,) = fleet_at(path, 60, [gone])["not_reporting"]
    assert (silent["missing_device_seconds"], until["missing_device_seconds"]) == (
        2 * 40 * 60.0,
        2 * 20 * 60.0,
    )


def test_slow_windows_are_not_silence(path):
    chain = Chain("n1")
    with Desk(path, shipped()) as desk:
        agent = desk.agent(chain)
        for _ in range(3):
            batch = chain.batch([busy(i, duration_ns=10 * WINDOW_NS) for i in (0, 1)])
            batch.window_end_boot_ns, batch.window_end_unix_ns = (
                chain.boot_ns + 10 * WINDOW_NS,
                chain.unix_ns + 10 * WINDOW_NS,
            )
            desk.offer(agent, chain.next(payload=batch.SerializeToString()))
            chain.boot_ns, chain.unix_ns = batch.window_end_boot_ns, batch.window_end_unix_ns
        desk.commit()
    assert fleet_at(path, 49)["nodes_by_status"] == {"live": 1}
    assert fleet_at(path, 61)["nodes_by_status"] == {"silent": 1}


def test_what_is_added_up_is_exact():
    booked = Booked(10**20, {GapReason.RESET: 3, GapReason.LOST: 0})
    missing = [NotReporting("n", Missing.SILENT, 1, 0, "", 4), NotReporting("m", Missing.SILENT, 1, 0, "", 5)]
    document = coverage_document(booked, missing)
    assert document["gaps"] == {"silent": 9e-9, "reset": 3e-9}
    assert document["gap_device_seconds"] == 12e-9


# --- the operator's list ---

GOOD = """
[[node]]
names = ["gpu-001", "gpu-002"]
gpus = 8
since = 2026-11-01T00:00:00Z

[[node]]
names = ["gpu-003"]
gpus = 4
gone = 2026-11-20T10:00:00+01:00
by = "R. Ops"
why = "returned to the vendor"
"""


def test_the_list_is_read(tmp_path):
    file = tmp_path / "nodes.toml"
    file.write_text(GOOD)
    one, two, three = read_expected(file)
    since = 1_793_491_200_000_000_000
    assert tomllib.loads(GOOD)["node"][0]["since"].timestamp() * 10**9 == since
    assert (one, two) == (ExpectedNode("gpu-001", 8, since), ExpectedNode("gpu-002", 8, since))
    assert time_text(three.gone_unix_ns)[:16] == "2026-11-20T09:00"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "expected [[node]] entries"),
        ("node = 3", "expected [[node]] entries"),
        ("nodes = []\n[[node]]\nnames = ['a']\ngpus = 1", "key 'nodes'"),
        ("[[node]]\nnames = 'a'\ngpus = 1", "names: expected a list"),
        ("[[node]]\nnames = []\ngpus = 1", "names: expected a list"),
        ("[[node]]\nnames = ['']\ngpus = 1", "names: expected a list"),
        ("[[node]]\nnames = ['a']", "gpus: expected 1 to"),
        ("[[node]]\nnames = ['a']\ngpus = 0", "gpus: expected 1 to"),
        ("[[node]]\nnames = ['a']\ngpus = true", "gpus: expected 1 to"),
        ("[[node]]\nnames = ['a']\ngpus = 99999", "gpus: expected 1 to"),
        ("[[node]]\nnames = ['a', 'a']\ngpus = 1", "each node once, got 'a'"),
        ("[[node]]\nnames = ['a']\ngpus = 1\nsite = 'x'", "unknown key 'site'"),
        ("[[node]]\nnames = ['a']\ngpus = 1\nsince = 2026-11-01", "since: expected a time with its offset"),
        ("[[node]]\nnames = ['a']\ngpus = 1\nsince = 2026-11-01T00:00:00", "since: expected a time with"),
        ("[[node]]\nnames = ['a']\ngpus = 1\ngone = 2026-11-01T00:00:00Z", "expected `by` and `why`"),
        (
            "[[node]]\nnames = ['a']\ngpus = 1\ngone = 2026-11-01T00:00:00Z\nby = 'x'\nwhy = ''",
            "expected `by` and `why`",
        ),
        (
            "[[node]]\nnames=['a']\ngpus=1\nsince=2026-11-02T00:00:00Z\ngone=2026-11-01T00:00:00Z\nby='x'\nwhy='y'",
            "gone: expected a time after",
        ),
        ("[[node]]\nnames = ['a']\ngpus = 1\nwhy = \"a\\u0007b\"", "why: expected a line"),
        ("[[node]]\nnames = ['a']\ngpus = 1\nwhy = 3", "why: expected a line"),
        ("[[node", "expected TOML"),
        ("\udcff", "expected TOML"),
    ],
)
def test_a_list_that_is_not_one_is_refused_with_what_to_do(tmp_path, text, said):
    file = tmp_path / "nodes.toml"
    file.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(CollectorError) as e:
        read_expected(file)
    assert said in str(e.value)
    assert e.value.hint


def test_a_list_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(CollectorError, match="cannot read"):
        read_expected(tmp_path / "none.toml")
    with pytest.raises(CollectorError, match="cannot read"):
        read_expected(tmp_path)
    huge = tmp_path / "huge.toml"
    huge.write_bytes(b"#" * (8 * 2**20 + 1))
    with pytest.raises(CollectorError, match="at most"):
        read_expected(huge)
