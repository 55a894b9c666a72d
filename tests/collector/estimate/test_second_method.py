"""The second method: declared estimates beside the counters, raised in a commit, derived again by fsck."""

import json
import sqlite3
from dataclasses import replace

import pytest
from builders import UNIX_NS, WINDOW_NS, Chain, busy
from desk import DAY_NS, Desk
from relog import relog

from flopmeter.collector.check.fsck import check_store, result_text
from flopmeter.collector.errors import StoreError
from flopmeter.collector.estimate.compare import Agreement, compare, ratio
from flopmeter.collector.estimate.declared import GRACE_NS, declared
from flopmeter.collector.estimate.event import method_key
from flopmeter.collector.ingest.decide import TAKEN
from flopmeter.collector.law.events import event_id
from flopmeter.collector.law.second_method import MAX_PER_COMMIT
from flopmeter.collector.spelling import time_text
from flopmeter.contract.evidence_class import EvidenceClass
from flopmeter.contract.flop import Figure
from flopmeter.contract.usage import Measured
from flopmeter.contract.w_table import current

HOUR_NS = 3_600_000_000_000
#: One busy window: 40 % of 132 SMs x 1.7 GHz x 60 s in HMMA, 4096 FLOP each.
WINDOW_FLOP = 132 * 1_700_000_000 * 60 * 40 // 100 * 4096


def estimate(flop, *, run="r1", **more):
    """A declared estimate of about `flop` executed FLOP, made at the builders' epoch."""
    entry = {
        "run": run,
        "method": "architecture",
        "by": "A. Modeller",
        "at": time_text(UNIX_NS),
        "passes": "1",
        "flop_per_pass": str(flop),
    }
    entry |= more or {"complete": "true"}
    return declared(entry, lambda _: "", current())


@pytest.fixture
def path(tmp_path):
    return tmp_path / "books.sqlite"


def metered(desk, *, windows=1, chain=None):
    """One agent that tells of so many busy windows of run r1; what the commit raised."""
    chain = chain or Chain("n")
    agent = desk.agent(chain)
    for _ in range(windows):
        desk.offer(agent, chain.next([busy(0)]))
    return desk.commit().events


def good(path, regimes=()):
    result = check_store(path, regimes)
    assert result.difference is None, result_text(result)
    return result


# --- the comparison ---


@pytest.mark.parametrize(
    ("lower", "upper", "said"),
    [
        (70, 130, Agreement.AGREES),
        (69, 130, Agreement.CANNOT_TELL),
        (70, 131, Agreement.CANNOT_TELL),
        (50, 200, Agreement.CANNOT_TELL),
        (0, 70, Agreement.CANNOT_TELL),
        (0, 69, Agreement.DISAGREES),
        (130, 999, Agreement.CANNOT_TELL),
        (131, 999, Agreement.DISAGREES),
        (0, 10**30, Agreement.CANNOT_TELL),
    ],
)
def test_three_answers_of_an_estimate_of_a_hundred(lower, upper, said):
    assert compare(Figure(lower, (lower + upper) // 2, upper), 100) is said


def test_margins_are_rounded_outwards():
    assert compare(Figure(0, 0, 0), 1) is Agreement.AGREES  # 0.7 is rounded down to 0
    assert compare(Figure(2, 2, 2), 1) is Agreement.AGREES  # 1.3 up to 2
    assert compare(Figure(3, 3, 3), 1) is Agreement.DISAGREES


def test_without_a_point_there_is_no_ratio():
    assert ratio(Figure(0, 0, 10), 5) is None
    assert ratio(Figure(5, 10, 20), 5) == 2


# --- in the collector ---


@pytest.mark.parametrize("factor", [10, 1], ids=["too high", "too low"])
def test_disagreement_is_an_event_once(path, factor):
    d = estimate(WINDOW_FLOP * 100 if factor == 10 else WINDOW_FLOP // 100)
    with Desk(path, estimates=(d,)) as desk:
        (event,) = metered(desk)
        assert (event.type, event.subject) == ("method.disagrees", "r1")
        assert event.data["measured"]["point"] == str(WINDOW_FLOP)
        assert event.data["estimate_flop"]["point"] == str(d.flop)
        assert event.data["estimate"]["by"] == "A. Modeller"
        assert (event.since_position, event.position) == (1, 1)
        desk.now += 2 * HOUR_NS
        chain = Chain("other")
        assert metered(desk, chain=chain) == ()
        assert good(path).events == 1
    with Desk(path, estimates=(d,)) as desk:  # and not again after a start
        desk.now += DAY_NS
        assert metered(desk, chain=Chain("third")) == ()
    good(path)


def test_agreement_and_what_cannot_be_told_raise_nothing(path):
    with Desk(path, estimates=(estimate(WINDOW_FLOP), estimate(2 * WINDOW_FLOP))) as desk:
        assert metered(desk) == ()
        good(path)


def test_another_text_of_the_estimate_is_another_estimate(path):
    first, second = estimate(WINDOW_FLOP * 100), estimate(WINDOW_FLOP * 200)
    assert method_key(first) != method_key(second)
    with Desk(path, estimates=(first,)) as desk:
        assert len(metered(desk)) == 1
    with Desk(path, estimates=(first, second)) as desk:
        (event,) = metered(desk, chain=Chain("m"))
        assert event.key == method_key(second)
        assert good(path).events == 2


def test_an_estimate_is_compared_from_an_hour_after_it_was_made(path):
    d = estimate(WINDOW_FLOP * 100)
    assert d.due_unix_ns == UNIX_NS + GRACE_NS
    with Desk(path, estimates=(d,)) as desk:
        desk.now = d.due_unix_ns - 1
        chain = Chain("n")
        assert metered(desk, chain=chain) == ()
        desk.now += 1
        assert [e.type for e in metered(desk, chain=Chain("m"))] == ["method.disagrees"]
        good(path)


def test_a_run_that_stopped_is_compared_by_the_daily_review(path):
    with Desk(path) as desk:
        metered(desk)
    with Desk(path, estimates=(estimate(WINDOW_FLOP * 100),)) as desk:
        assert desk.intake.review(desk.now)
        (event,) = desk.commit().events
        assert event.data["measured"]["point"] == str(WINDOW_FLOP)
        good(path)


def test_compared_again_an_hour_later_when_the_run_has_grown_on(path):
    d = estimate(WINDOW_FLOP)
    with Desk(path, estimates=(d,)) as desk:
        assert metered(desk) == ()
        assert metered(desk, windows=9, chain=Chain("m")) == (), "not twice within an hour"
        desk.now += HOUR_NS
        (event,) = metered(desk, chain=Chain("k"))
        assert event.data["measured"]["point"] == str(11 * WINDOW_FLOP)
        good(path)


def test_a_running_run_is_compared_with_what_it_had_done_by_then(path):
    """Ten windows over a full hour: only those before it count for an estimate as of that hour."""
    hour = -(-UNIX_NS // HOUR_NS) * HOUR_NS
    chain = Chain("n")
    chain.unix_ns = hour - 4 * WINDOW_NS - 1
    at = {"at": time_text(hour + DAY_NS), "as_of": time_text(hour)}
    before = estimate(WINDOW_FLOP * 100, **at)
    with Desk(path, estimates=(before, estimate(4 * WINDOW_FLOP, **at))) as desk:
        desk.now = hour + 2 * DAY_NS
        (event,) = metered(desk, windows=10, chain=chain)
        assert event.key == method_key(before)
        assert event.data["measured"]["point"] == str(4 * WINDOW_FLOP)
        assert event.data["as_of"] == time_text(hour)
        good(path)
        # From the store alone, and with a group on top: the same cut.
    late = estimate(WINDOW_FLOP * 200, **at)
    with Desk(path, estimates=(late,)) as desk:
        desk.now = hour + 3 * DAY_NS
        other = Chain("m")
        other.unix_ns = hour - 2 * WINDOW_NS - 1
        (event,) = metered(desk, windows=5, chain=other)
        assert event.data["measured"]["point"] == str(6 * WINDOW_FLOP)
        good(path)


def test_a_run_that_nobody_metered_is_not_compared(path):
    with Desk(path, estimates=(estimate(10**25, run="elsewhere"),)) as desk:
        assert metered(desk) == ()


def test_a_commit_compares_so_many_and_the_next_ones_the_rest(path):
    many = tuple(estimate(WINDOW_FLOP * (100 + i)) for i in range(MAX_PER_COMMIT + 3))
    with Desk(path, estimates=many) as desk:
        assert len(metered(desk)) == MAX_PER_COMMIT
        assert len(metered(desk, chain=Chain("m"))) == 3
        assert metered(desk, chain=Chain("k")) == ()
        assert good(path).events == len(many)


def test_utilisation_alone_can_still_say_that_an_estimate_is_too_high(path):
    """Class C bounds from above and has no point: no ratio is said, and nothing can be called too low."""
    only_upper = replace(
        busy(0),
        evidence_class=EvidenceClass.C,
        measured=Measured.SM_ACTIVE | Measured.ENERGY,
        hmma_cycles=0,
        fp32_cycles=0,
    )
    low, high = estimate(WINDOW_FLOP // 1000), estimate(WINDOW_FLOP * 1000)
    with Desk(path, estimates=(low, high)) as desk:
        chain = Chain("n")
        agent = desk.agent(chain)
        assert desk.offer(agent, chain.next([only_upper])) is TAKEN
        (event,) = desk.commit().events
        assert event.key == method_key(high)
        assert "the counters say at most " in event.data["message"]
        assert event.data["measured"]["lower"] == event.data["measured"]["point"] == "0"
        good(path)


def test_a_failed_commit_raises_it_again(path):
    broken = {"on": False}

    class Flaky(sqlite3.Connection):
        def execute(self, sql, *args):
            if broken["on"] and sql == "COMMIT":
                raise sqlite3.OperationalError("disk I/O error")
            return super().execute(sql, *args)

    def connect(*args, **kwargs):
        return sqlite3.connect(*args, **kwargs, factory=Flaky)

    d = estimate(WINDOW_FLOP * 100)
    with Desk(path, estimates=(d,), connect=connect) as desk:
        chain = Chain("n")
        agent = desk.agent(chain)
        desk.commit()
        raw = chain.next([busy(0)])
        desk.offer(agent, raw)
        broken["on"] = True
        with pytest.raises(StoreError):
            desk.commit()
        broken["on"] = False
        desk.recover()
        desk.offer(desk.agent(chain), raw)
        assert [e.key for e in desk.commit().events] == [method_key(d)]
        good(path)


# --- fsck ---


@pytest.fixture
def raised(path):
    """A store with one such event, closed; the estimate."""
    d = estimate(WINDOW_FLOP * 100)
    with Desk(path, estimates=(d,)) as desk:
        metered(desk)
    return d


def tamper(path, **columns):
    with sqlite3.connect(path) as db:
        sets = ", ".join(f"{name} = ?" for name in columns)
        db.execute(f"UPDATE events SET {sets}", tuple(columns.values()))
    db.close()
    found = check_store(path, ()).difference
    assert found is not None
    return found


def stored(path):
    with sqlite3.connect(path) as db:
        text = db.execute("SELECT data FROM events").fetchone()[0]
    db.close()
    return json.loads(text)


def spelt(data):
    return json.dumps(data, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def test_fsck_names_a_changed_input(path, raised):
    data = stored(path)
    data["estimate"]["flop_per_pass"] = str(WINDOW_FLOP * 300)
    found = tamper(path, data=spelt(data))
    assert (found.table, found.column) == ("events", "key")


def test_fsck_names_a_changed_figure(path, raised):
    data = stored(path)
    data["measured"]["point"] = str(WINDOW_FLOP + 1)
    assert tamper(path, data=spelt(data)).column == "data"


def test_fsck_names_an_estimate_that_is_none(path, raised):
    data = stored(path)
    data["estimate"] = {"run": "r1"}
    assert tamper(path, data=spelt(data)).column == "data.estimate"
    for wrong in ([], "text", None, {"run": ["r1"]}, {"run": {"a": 1}}):
        data["estimate"] = wrong
        assert tamper(path, data=spelt(data)).column == "data.estimate"


def test_fsck_names_an_event_of_methods_that_do_not_disagree(path, raised):
    """Forged whole, consistent in itself: only the books say that it is not so."""
    from flopmeter.collector.estimate.event import method_event

    d = estimate(WINDOW_FLOP)
    measured = Figure(*(int(stored(path)["measured"][k]) for k in ("lower", "point", "upper")))
    forged = method_event(d, measured, current().id, at_unix_ns=UNIX_NS + DAY_NS, position=1)
    found = tamper(path, key=forged.key, id=event_id(forged.key), data=forged.data_json)
    assert (found.column, found.expected, found.got) == (
        "data.measured, agreement",
        "disagrees",
        "cannot tell",
    )


def test_fsck_names_an_event_before_its_time(path, raised):
    assert tamper(path, time_unix_ns=UNIX_NS).column == "time_unix_ns"


def test_fsck_names_an_event_at_another_position(path, raised):
    assert tamper(path, position=2).column in {"since_position", "position"}
    assert tamper(path, position=0, since_position=0).column == "position"


def test_fsck_notes_an_event_priced_with_another_table(path, raised):
    data = stored(path)
    data["w_table"] = "w-1999-01"
    with sqlite3.connect(path) as db:
        db.execute("UPDATE events SET data = ?", (spelt(data),))
    db.close()
    relog(path)
    (note,) = [n for n in good(path).notes if "methods" in n]
    assert "w-1999-01" in note
