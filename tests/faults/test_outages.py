"""An agent is away for hours, and a person tags the hour of its return: the tag takes that hour and nothing before it.

A real meter over its own restart, the real intake, writer and store; the GPU follows a script, so that what was done in
which hour is known here, although nobody could see it.
"""

import sqlite3
from collections.abc import Iterable
from contextlib import closing

import pytest
from builders import Chain
from desk import Desk
from metering import SECOND, UNIX0, Node, device, facts, meter

from flopmeter.agent.metering.meter import Sealed
from flopmeter.agent.shipping.encode import encode_batch, encode_inventory
from flopmeter.cli.layout import Paint
from flopmeter.collector.books import BRIDGE_S, HOUR_NS
from flopmeter.collector.check.fsck import check_store, result_text
from flopmeter.collector.ingest.decide import TAKEN
from flopmeter.collector.law.regimes import shipped
from flopmeter.collector.registry.entries import JobKey, Purpose, Retract, Tag
from flopmeter.collector.registry.report_view import report_view
from flopmeter.collector.registry.reporting import run_report
from flopmeter.collector.registry.say import say
from flopmeter.collector.registry.when import hour_text
from flopmeter.collector.report.queries import asked, reading
from flopmeter.collector.report.runs_view import run_view
from flopmeter.contract.usage import WorkloadKind

NEXT = bytes([77]) * 16
HOURS_AWAY = 20
BROAD = next(r for r in shipped() if r.id == "eu-systemic-risk")
RUN = "a"  # of metering.JOB_A


class Books:
    """A collector that is sent what a node seals."""

    def __init__(self, path):
        self.path, self.desk, self.chain = path, Desk(path, [BROAD]), Chain("node-a")

    def book(self, sealed: Iterable[Sealed]) -> None:
        for window in sealed:
            inventory = encode_inventory(window.inventory)
            if inventory != self.chain.inventory or window.boot_id != self.chain.boot_id:
                self.chain.inventory, self.chain.boot_id = inventory, window.boot_id
            self.desk.now = max(self.desk.now, window.batch.window_end_unix_ns)
            agent = self.desk.agent(self.chain)
            raw = self.chain.next(payload=encode_batch(window.batch))
            assert self.desk.offer(agent, raw) == TAKEN
        self.desk.commit()

    def say(self, statement) -> None:
        self.desk.now += 1
        say(self.path, lambda _: statement, "ada@lab", "as it was", lambda: self.desk.now)
        assert self.desk.intake.review(self.desk.now + HOUR_NS)
        self.desk.commit()

    def run(self):
        with reading(self.path) as reader:
            (document,) = reader.runs(asked(self.desk.now, (BROAD,)), RUN, series=True)
            return document

    def left_out(self) -> dict[str, int]:
        """What the tags take out of the total, by bound."""
        document = self.run()
        executed, counted = document["executed"]["flop"], document["countable"][BROAD.id]["flop"]
        return {name: int(executed[name]) - int(counted[name]) for name in ("lower", "point", "upper")}

    def slots(self):
        with closing(sqlite3.connect(self.path)) as db:
            return db.execute("SELECT DISTINCT hour, back FROM hourly ORDER BY hour, back").fetchall()

    def _judged(self):
        return self.desk.writer._judge.shares(RUN)

    def good(self) -> None:
        judged = [(s.purpose or "untagged", list(s.across), str(s.flop.point)) for s in self._judged()]
        told = [(p["purpose"], p["across"], p["flop"]["point"]) for p in self.run()["purposes"]]
        assert sorted(judged) == sorted(told), "the writer keeps in memory what the reports read"
        result = check_store(self.path, [BROAD])
        assert result.difference is None, result_text(result)
        assert not any("older flopmeter" in note for note in result.notes)


@pytest.fixture
def books(tmp_path):
    made = Books(tmp_path / "books.sqlite")
    yield made
    made.desk.close()


def node_at(hour_ns: int, *devices) -> Node:
    """Up since long, five minutes before a full hour of the wall clock, and its first minutes metered."""
    t = 100 * HOUR_NS - (UNIX0 % HOUR_NS) + hour_ns
    node = Node(agent=meter(facts(*devices)) if devices else None, t=t - 300 * SECOND).calibrated()
    for _ in range(20):
        node.tick(10)
    return node


def unix(node: Node) -> int:
    return UNIX0 + node.t


def away_in_one_boot() -> tuple[Node, int, int]:
    """Killed, and started again: the counters went on, so that the cycles are known, and not when they were."""
    node = node_at(0)
    node.flush()
    before = unix(node)
    node.sleep(HOURS_AWAY * 3600)
    node.restart()
    return node, before, unix(node)


def away_over_a_reboot() -> tuple[Node, int, int]:
    """Off, or dead before a reboot: a gap by the wall clock, in the first minute of the new boot."""
    node = node_at(0)
    node.flush()
    before, up = unix(node), node.t + HOURS_AWAY * HOUR_NS - 300 * SECOND
    node.restart(boot=NEXT)
    node.gpu.reset()
    taken = node.take
    node.sleep(HOURS_AWAY * 3600)
    node.take = lambda item: taken(item._replace(t_boot_ns=item.t_boot_ns - up))  # type: ignore[method-assign]
    return node, before, unix(node)


def hung_beside_another() -> tuple[Node, int, int]:
    """One GPU of two cannot be read; the windows of the other go on, a minute each."""
    node = node_at(0, device(0), device(1))
    before = unix(node)
    for _ in range(HOURS_AWAY * 60):
        node.sleep(60)
        node.take(node.gpu.reading(node.t, entity="GPU-1", workload=None))
    return node, before, unix(node)


def back_for_ten_minutes(node: Node) -> None:
    for _ in range(60):
        node.tick(10)


@pytest.mark.parametrize("away", [away_in_one_boot, away_over_a_reboot, hung_beside_another])
def test_a_tag_of_the_hour_of_return_takes_nothing_of_the_hours_away(books, away):
    node, before, after = away()
    back_for_ten_minutes(node)
    books.book(node.flush())
    executed = books.run()["executed"]["flop"]
    hour = after // HOUR_NS
    assert hour - before // HOUR_NS in (HOURS_AWAY, HOURS_AWAY + 1)
    assert any(h == hour and back >= HOURS_AWAY - 1 for h, back in books.slots())

    books.say(Tag(RUN, Purpose.EVALUATION, hour, hour + 1, evidence=("https://lab/eval",)))
    most_s = (
        600 + BRIDGE_S
    )  # of what was done: the ten minutes since, and a short window over the hour's edge
    gpus = 2 if away is hung_beside_another else 1
    seconds = HOURS_AWAY * 3600
    done = int(executed["point"]) or int(executed["upper"])
    assert done > 0
    for name, flop in books.left_out().items():
        assert flop * seconds <= int(executed[name]) * most_s * gpus * 2, (name, flop)
    # And it is said: which work, how much, by which entry it could not be told.
    (across,) = [p for p in books.run()["purposes"] if p["across"]]
    assert (across["purpose"], across["across"]) == ("untagged", [1])
    assert int(across["flop"]["upper"]) * 10 > int(executed["upper"]) * 9
    with reading(books.path) as reader:
        whole = run_report(reader, RUN, asked(books.desk.now, (BROAD,)))
    (told,) = [p for p in whole["purposes"] if p["across"]]
    assert any(begin <= hour_text(before // HOUR_NS + 1) for begin, _ in told["spans"]), "from when it began"
    report = report_view(whole, Paint(colour=False, width=80))
    shown = run_view(books.run(), Paint(colour=False, width=80))
    for text in (shown, report):
        assert "stand in windows across the edge of a tag (entry 1)" in " ".join(text.split())
        assert all(len(line) <= 80 for line in text.splitlines())
    assert "drawn evenly: in which hour it was is not known" in " ".join(shown.split())
    books.good()

    # A tag of all the days takes it whole, as it should; and taken back, all of it counts again.
    books.say(Retract(1))
    assert books.left_out() == {"lower": 0, "point": 0, "upper": 0}
    books.say(Tag(RUN, Purpose.EVALUATION, hour - 48, hour + 24, evidence=("https://lab/eval",)))
    taken = books.left_out()
    assert taken == {name: int(executed[name]) for name in taken}
    assert not any(p["across"] for p in books.run()["purposes"])
    books.good()


def test_two_tags_that_meet_take_a_bridge_and_two_that_differ_do_not(books):
    node, _, after = away_in_one_boot()
    back_for_ten_minutes(node)
    books.book(node.flush())
    hour = after // HOUR_NS
    one = Tag(RUN, Purpose.EVALUATION, hour - 48, hour - 3, evidence=("https://lab/1",))
    books.say(one)
    books.say(Tag(RUN, Purpose.EXPERIMENT, hour - 3, hour + 2, evidence=("https://lab/2",)))
    executed = int(books.run()["executed"]["flop"]["point"])
    assert books.left_out()["point"] * 10 < executed
    books.good()
    books.say(Retract(2))
    books.say(Tag(RUN, Purpose.EVALUATION, hour - 3, hour + 2, evidence=("https://lab/2",)))
    assert books.left_out()["point"] == executed
    books.good()


def test_an_hour_that_was_said_to_count_is_not_lost_in_a_wider_tag(books):
    """All days are tagged as what does not count; of the job, one hour as training: that of its return."""
    node, _, after = away_in_one_boot()
    back_for_ten_minutes(node)
    books.book(node.flush())
    hour = after // HOUR_NS
    books.say(Tag(RUN, Purpose.EVALUATION, hour - 48, hour + 24, evidence=("https://lab/eval",)))
    executed = int(books.run()["executed"]["flop"]["point"])
    assert books.left_out()["point"] == executed
    job = JobKey("c1", int(WorkloadKind.SLURM), "1")
    books.say(Tag(RUN, Purpose.PRETRAINING, hour, hour + 1, job))
    assert books.left_out()["point"] * 10 < executed
    books.good()


def test_it_is_the_same_as_of_then(books):
    from flopmeter.collector.registry.as_of import reading_as_of

    node, _, after = away_in_one_boot()
    back_for_ten_minutes(node)
    books.book(node.flush())
    hour = after // HOUR_NS
    books.say(Tag(RUN, Purpose.EVALUATION, hour, hour + 1, evidence=("https://lab/eval",)))
    then, was = books.desk.now, books.run()
    books.say(Retract(1))
    with reading_as_of(books.path, then) as found:
        (document,) = found.reader.runs(asked(then, (BROAD,)), RUN, series=True)
    for part in ("executed", "countable", "purposes", "hourly"):
        assert document[part] == was[part]


def tampered(path, sql: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        assert db.execute(sql).rowcount > 0


@pytest.mark.parametrize(
    ("sql", "table"),
    [
        ("UPDATE hourly SET back = 0 WHERE back > 0", "hourly"),
        ("UPDATE hourly SET back = back - 1 WHERE back > 0", "hourly"),
        ("UPDATE hourly SET back = 1 WHERE back = 0", "hourly"),
        ("UPDATE hourly SET hour = hour + 1, back = back + 1 WHERE back > 0", "hourly"),
        ("DELETE FROM hourly WHERE back > 0", "hourly"),
        ("DELETE FROM noted WHERE name = 'bridge-seconds'", "noted"),
        ("UPDATE noted SET from_position = 99 WHERE name = 'bridge-seconds'", "noted"),
        ("UPDATE noted SET value = 10000000 WHERE name = 'bridge-seconds'", "noted"),
    ],
)
def test_fsck_finds_a_row_that_was_moved_between_a_slot_and_an_hour(books, sql, table):
    node, _, _ = away_in_one_boot()
    back_for_ten_minutes(node)
    books.book(node.flush())
    books.good()
    tampered(books.path, sql)
    found = check_store(books.path, [BROAD]).difference
    assert found is not None
    assert found.table == table, found


def test_a_store_that_was_made_to_look_old_is_found_by_what_is_as_young_or_told_of(books):
    """Rows and the note of since when, both changed. Who changes the second rows too is only told of: see an older copy."""
    node, _, _ = away_in_one_boot()
    back_for_ten_minutes(node)
    books.book(node.flush())
    tampered(books.path, "UPDATE hourly SET back = 0 WHERE back > 0")
    tampered(books.path, "UPDATE noted SET from_position = 99 WHERE name = 'bridge-seconds'")
    found = check_store(books.path, [BROAD]).difference
    assert found is not None
    assert (found.table, found.column, found.expected, found.got) == (
        "noted",
        "from_position",
        "at most 1",
        "99",
    )
    tampered(books.path, "DELETE FROM noted WHERE name IN ('entries', 'identity-rules', 'judged-by')")
    result = check_store(books.path, [BROAD])
    assert result.difference is None
    (note,) = [note for note in result.notes if "older flopmeter" in note]
    assert note.startswith(
        "records before position 99 that tell of more than 5 minutes over several hours: 1. "
    )
