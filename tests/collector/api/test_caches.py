"""What is read again when the books move: counted, since how long that takes depends on the machine."""

import json
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from api_books import MINE, SECOND, api_store, asked, one_more, unpacked_names
from attest_books import LAWS, said, take
from builders import Chain, busy
from desk import Desk
from hypothesis import given, settings
from hypothesis import strategies as st

from flopmeter.collector.api.claims_book import ClaimsBook
from flopmeter.collector.api.curve_book import CurveBook, thinned
from flopmeter.collector.api.curve_gaps import gaps_json
from flopmeter.collector.api.curves import Curves
from flopmeter.collector.api.fleet_cells import front_coded
from flopmeter.collector.api.touched import Touched
from flopmeter.collector.books import HOUR_NS, SUM_FIELDS, GroupKey, HourKey, Slot
from flopmeter.collector.figures import PriceKey
from flopmeter.collector.law.progress import CLAIM_COLUMNS, ClaimHour, ClaimKey, Until, claim_of, compared
from flopmeter.collector.law.progress_measured import beside
from flopmeter.collector.registry.entries import Assign, JobKey
from flopmeter.collector.report.progress import progress_document
from flopmeter.collector.report.queries import reading
from flopmeter.collector.spelling import time_text
from flopmeter.contract.evidence_class import EvidenceClass
from flopmeter.contract.flop import Figure
from flopmeter.contract.usage import WorkloadKind


@pytest.fixture
def store(tmp_path):
    path = tmp_path / "books.sqlite"
    api_store(path)
    chain = Chain("gpu-node-60", gpus=2)
    books = asked(path)
    chain.unix_ns = books.clock.now
    books.clock.now += HOUR_NS
    more(books, chain)
    return books, chain


def more(books, chain, workloads=(MINE, SECOND), hours=0):
    """A record of an hour later."""
    chain.unix_ns += hours * HOUR_NS
    chain.boot_ns += hours * HOUR_NS
    books.clock.now = max(books.clock.now, chain.unix_ns + 120_000_000_000)
    one_more(books.path, chain, workloads, [busy(0, 0), busy(1, 1)], now=books.clock.now)


def test_nothing_is_made_again_while_nothing_moves(store):
    books, _ = store
    books.get("runs"), books.get("fleet"), books.get("runs", "mine", "curve")
    made, decoded, rows = books.books.refreshes, books.books.decoded, books.books.curves.rows
    for _ in range(3):
        books.get("runs"), books.get("fleet"), books.get("overview"), books.get("runs", "mine", "curve")
    assert (books.books.refreshes, books.books.decoded, books.books.curves.rows) == (made, decoded, rows)


def test_a_minute_makes_lines_again_and_decodes_no_record(store):
    books, _ = store
    books.get("runs")
    made, decoded = books.books.refreshes, books.books.decoded
    books.clock.now += 60_000_000_000
    books.get("runs")
    assert (books.books.refreshes, books.books.decoded) == (made + 1, decoded)
    books.clock.now += 20 * 60_000_000_000
    assert books.get("runs", q="mine")["items"][0]["status"] != "running"


def test_of_the_fleet_only_agents_whose_head_moved_are_decoded(store):
    books, chain = store
    first = books.get("fleet")
    decoded = books.books.decoded
    assert decoded == first["nodes_total"] > 3
    more(books, chain)
    books.get("fleet")
    assert books.books.decoded == decoded + 1


def test_of_a_curve_only_hours_that_new_records_touched_are_read_again(store):
    books, chain = store
    before = books.get("runs", "mine", "curve", points="600")
    whole = books.books.curves.rows
    more(books, chain, hours=1)
    after = books.get("runs", "mine", "curve", points="600")
    assert books.books.curves.rows == whole + 1
    assert after["times"][:-2] == before["times"][:-1]  # the last ended with the last record
    assert after["cumulative"]["point"][:-1] == before["cumulative"]["point"]
    assert after == asked(books.path, books.clock.now).get("runs", "mine", "curve", points="600")


def test_what_comes_late_is_read_from_its_hour_on(store):
    books, _ = store
    books.get("runs", "mine", "curve")
    late = Chain("gpu-node-61", gpus=2)
    late.unix_ns = books.clock.now - 6 * HOUR_NS
    more(books, late)
    found = books.get("runs", "mine", "curve", points="600")
    assert found == asked(books.path, books.clock.now).get("runs", "mine", "curve", points="600")


def test_what_people_say_moves_work_and_curves_follow(store):
    books, _ = store
    before = books.get("runs", "mine", "curve")
    said(books.path, Assign(JobKey("c1", int(WorkloadKind.SLURM), "78"), "mine", None), books.clock.now)
    after = books.get("runs", "mine", "curve", points="600")
    assert int(after["cumulative"]["point"][-1]) > int(before["cumulative"]["point"][-1])
    assert after["jobs_total"] == 2
    assert books.ask("runs", "second").status == 404
    said(books.path, Assign(JobKey("c1", int(WorkloadKind.SLURM), "78"), "", None), books.clock.now + 1)
    assert books.get("runs", "mine", "curve")["cumulative"] == before["cumulative"]


def test_work_that_people_move_is_drawn_where_it_stands_whatever_the_nodes_clock_did(store):
    """Its clock was set back within the window: that begins hours behind the hour under which the work stands."""
    books, _ = store
    books.clock.now += 4 * HOUR_NS
    chain = Chain("gpu-node-62", gpus=1)
    chain.unix_ns = books.clock.now - 6 * HOUR_NS
    batch = chain.batch([busy(0)], (replace(SECOND, job="500", run="other"),))
    batch.window_start_unix_ns = books.clock.now - HOUR_NS // 2
    with Desk(books.path, LAWS) as desk:
        desk.now = books.clock.now
        take(desk, desk.agent(chain), chain.next(payload=batch.SerializeToString()))
        desk.commit()
    before = books.get("runs", "mine", "curve", points="600")
    said(books.path, Assign(JobKey("c1", int(WorkloadKind.SLURM), "500"), "mine", None), books.clock.now)
    after = books.get("runs", "mine", "curve", points="600")
    assert after["cumulative"] != before["cumulative"]
    assert after == asked(books.path, books.clock.now).get("runs", "mine", "curve", points="600")


def test_sparks_read_days_that_moved(store):
    books, chain = store
    books.get("runs")
    rows = books.books._sparks.rows
    more(books, chain, hours=1)
    books.get("runs")
    again = books.books._sparks.rows - rows
    assert 0 < again < rows  # the day, not the month


def days_of_work(books, chain, days):
    for _ in range(days):
        more(books, chain, hours=17)


def day_of(end):
    """Of the hour that ends then."""
    return (datetime.fromisoformat(end) - timedelta(hours=1)).date()


def test_a_long_stretch_is_answered_by_days_to_the_same_figures(store):
    books, chain = store
    days_of_work(books, chain, 6)
    fine = books.get("runs", "mine", "curve", points="600")
    other = asked(books.path, books.clock.now)
    other.books.curves = Curves(fine_rows=3)
    coarse = other.get("runs", "mine", "curve", points="600")
    assert (fine["step"], coarse["step"]) == ("hour", "day")
    by_time = dict(zip(fine["times"], fine["cumulative"]["point"], strict=True))
    found = dict(zip(coarse["times"], coarse["cumulative"]["point"], strict=True))
    last_of = {day_of(t): t for t in sorted(by_time)}
    assert found == {t: by_time[t] for t in last_of.values()}
    assert coarse["gaps"] == fine["gaps"]
    assert (coarse["from"], coarse["to"]) == (fine["from"], fine["to"])
    # Within a day nothing is known by days: the stretch is that of whole days.
    begin, end = fine["times"][2], fine["times"][-3]
    part = other.get("runs", "mine", "curve", **{"from": begin, "to": end})
    assert part["step"] == "day"
    assert part["from"] <= begin < end <= part["to"]
    assert part["times"] == [t for t in coarse["times"] if begin[:10] <= str(day_of(t)) <= str(day_of(end))]


def test_a_long_run_is_read_before_anybody_asks(store):
    books, chain = store
    days_of_work(books, chain, 6)
    other = asked(books.path, books.clock.now, fresh=False)
    assert not other.books.read_ahead()  # no view yet
    other.books.refresh()
    other.books.curves = Curves(fine_rows=5, ahead_rows=5)
    assert sum(iter(other.books.read_ahead, False)) > 1
    curves = other.books.curves
    long = [name for name, rows in other.books.view().rows.items() if curves.is_long(rows)]
    assert "mine" in long
    assert [name for name in other.books.view().rows if curves.has(name)] == long
    rows = other.books.curves.rows
    assert rows > 6
    expected = books.get("runs", "mine", "curve", points="600")["cumulative"]["point"]
    assert other.get("runs", "mine", "curve")["cumulative"]["point"][-1] == expected[-1]
    assert other.books.curves.rows == rows
    more(books, chain)
    other.books.clock.now = books.clock.now
    other.books.refresh()
    other.books.read_ahead()
    again = other.get("runs", "mine", "curve")["cumulative"]["point"]
    assert again[-1] == books.get("runs", "mine", "curve", points="600")["cumulative"]["point"][-1]
    assert other.books.curves.rows <= rows + 24


def test_a_short_run_is_read_ahead_by_hours(store):
    books, chain = store
    days_of_work(books, chain, 3)
    other = asked(books.path, books.clock.now, fresh=False)
    other.books.refresh()
    other.books.curves = Curves(ahead_rows=0)
    assert sum(iter(other.books.read_ahead, False)) == len(other.books.view().rows)
    rows = other.books.curves.rows
    for run in other.books.view().rows:
        assert other.get("runs", run, "curve")["step"] == "hour"
    assert other.books.curves.rows == rows


def test_of_many_books_those_asked_for_longest_ago_are_given_up(store):
    books, chain = store
    days_of_work(books, chain, 3)
    books.books.curves = Curves(most_sums=1)
    for run in ("mine", "second", "mine", "rivals-secret"):
        fresh = asked(books.path, books.clock.now).get("runs", run, "curve")
        assert books.get("runs", run, "curve") == fresh
    assert [books.books.curves.has(r) for r in ("mine", "second", "rivals-secret")] == [False, False, True]


def test_what_is_drawn_says_when_it_is_newer_than_the_rest(store):
    there, chain = store
    books = asked(there.path, there.clock.now, fresh=False)
    books.books.refresh()
    before = books.ask("runs", "mine", "curve")
    found = json.loads(before.body)
    assert found["drawn_as_of"] == found["as_of"]
    assert books.ask("runs", "mine", "curve").etag == before.etag
    more(there, chain, hours=1)
    books.clock.now = there.clock.now
    ahead = books.get("runs", "mine", "curve")
    assert ahead["as_of"] == found["as_of"] < ahead["drawn_as_of"]
    assert ahead["last"] == ahead["to"] == ahead["times"][-1] > found["last"]
    books.books.refresh()
    after = books.get("runs", "mine", "curve")
    assert after["as_of"] == after["drawn_as_of"]
    assert after["cumulative"] == ahead["cumulative"]
    assert after["last"] == ahead["last"]


def slow_progress(reader, run, question):
    """All hours of the run beside all of its claims, as the judge has it."""
    side = reader.run_side(question, run)
    claims, hours = {}, []
    for w in side.rows[0].workloads:
        sql = f"SELECT {CLAIM_COLUMNS} FROM progress WHERE workload_no = ?"
        claims.update(map(claim_of, reader.rows(sql, (w.workload_no,))))
        for hour, back, *rest in reader.rows("SELECT * FROM hourly WHERE workload_no = ?", (w.workload_no,)):
            key = HourKey(Slot(hour, back), GroupKey._make(rest[:6]))
            hours.append((key, w.dtype, [int(n) for n in rest[6:]]))
    found = beside(claims, hours, side.models, question.table)
    return progress_document(found, side.models, question.table, ["bf16"])


@pytest.mark.parametrize("opening", [0, 10**15])
def test_what_is_claimed_is_held_against_the_kept_hours(tmp_path, opening):
    path = tmp_path / "books.sqlite"
    chain = Chain("n1", gpus=1)
    chain.unix_ns += -chain.unix_ns % HOUR_NS
    silent = {0, 1, 4, 30, 31, 55}  # hours without a claim: at the beginning, within days, at the end
    with Desk(path) as desk:
        agent = desk.agent(chain)
        for i in range(56):
            workload = MINE if i < 40 else replace(MINE, job="79")  # a job behind the first claims anew
            batch = chain.batch([busy(0)], (workload,))
            if i not in silent:
                tokens = opening + (i + 1) * 10**6
                batch.progress.add(
                    workload_index=0,
                    t_boot_ns=chain.boot_ns,
                    t_unix_ns=chain.unix_ns,
                    tokens=tokens,
                    parameters=10**9,
                )
            take(desk, agent, chain.next(payload=batch.SerializeToString()))
            chain.unix_ns += HOUR_NS - 60_000_000_000
            chain.boot_ns += HOUR_NS - 60_000_000_000
            desk.now = chain.unix_ns
        desk.commit()
    books = asked(path)
    books.books.curves = Curves(fine_rows=1)
    found = books.get("runs", "mine")["progress"]
    with reading(path) as reader:
        question = books.books.view().question
        (told,) = reader.runs(question, "mine")
        assert found == told["progress"] == slow_progress(reader, "mine", question)
    # An hour more, with a claim of it: of the kept ones nothing but that hour is looked at again.
    with Desk(path) as desk:
        desk.now = chain.unix_ns + HOUR_NS
        batch = chain.batch([busy(0)], (replace(MINE, job="79"),))
        batch.progress.add(
            workload_index=0,
            t_boot_ns=chain.boot_ns,
            t_unix_ns=chain.unix_ns,
            tokens=opening + 10**9,
            parameters=10**9,
        )
        take(desk, desk.agent(chain), chain.next(payload=batch.SerializeToString()))
        desk.commit()
    books.clock.now = chain.unix_ns + HOUR_NS
    again = books.get("runs", "mine")["progress"]
    with reading(path) as reader:
        assert again == slow_progress(reader, "mine", books.books.view().question)
    assert again["hours"] == found["hours"] + 1
    # Claims that the counters bear out reach back over the hours before them: of the first job, of the second never.
    assert (found["hours"], found["opening_left_out"]) == (50 if opening else 52, True)


# ---- arithmetic --------------------------------------------------------------------------------------------

_KEYS = (
    PriceKey(1, int(EvidenceClass.A1), 0, 0, ""),
    PriceKey(1, int(EvidenceClass.A1), 0, 2_000, ""),
    PriceKey(1, int(EvidenceClass.GAP), 0, 0, ""),
)


def price(_: PriceKey, sums: tuple[int, ...]) -> tuple[Figure, Figure]:
    return Figure(sums[0], sums[0], sums[0]), Figure(0, 0, sums[1])


def rows_of(told):
    return [(hour, back, 1, _KEYS[k], [n] * len(SUM_FIELDS)) for hour, back, k, n in told]


_HOURS = 24 * 5
_told = st.lists(
    st.tuples(st.integers(0, _HOURS - 1), st.integers(0, 3), st.integers(0, 2), st.integers(0, 10**30)),
    max_size=30,
)


def slow_gaps(told, since, until):
    """As every hour by itself has it: (from, to, kind, device time, share of all), joined where one gap goes on in the next."""
    by_hour = {}
    for hour, back, k, n in told:
        whole, least, gap = by_hour.get(hour, (0, 0, None))
        gap = (gap or 0) + n if k == 2 else gap
        by_hour[hour] = whole + n, max(least, back), gap
    hours = sorted(by_hour)
    found = []
    for i, hour in enumerate(hours):
        whole, back, gap = by_hour[hour]
        if not since <= hour <= until:
            continue
        if i and hour - back > hours[i - 1] + 1:
            found.append([hours[i - 1] + 1, hour - back - 1, "nothing", 0, 0])
        if back >= 2:
            found.append([hour - back, hour, "bridge", 0, 0])
        if gap is not None:
            last = found[-1] if found else None
            if last and last[2] == "gap" and hour - back <= last[1] + 1:
                last[1], last[3], last[4] = hour, last[3] + gap, last[4] + whole
            else:
                found.append([hour - back, hour, "gap", gap, whole])
    return [
        (
            time_text(f * HOUR_NS),
            time_text((t + 1) * HOUR_NS),
            k,
            ns / 1e9,
            ns * 10**6 // of / 10**6 if of else None,
        )
        for f, t, k, ns, of in sorted(found, key=lambda g: g[:3])
    ]


@settings(max_examples=150)
@given(_told, _told, st.integers(0, _HOURS), st.booleans(), st.data())
def test_a_book_comes_to_what_its_rows_do_however_it_was_told(told, later, cut, coarse, data):
    book = CurveBook()
    assert book.extend(rows_of(told)) == len(told)
    for h in book.hours(0, _HOURS):  # prices are kept, and must not outlive what they are of
        book.at(h, price)
    if coarse:
        book.coarsen(data.draw(st.integers(0, 20)))
    begin = book.cut(cut)
    assert begin in (cut, cut // 24 * 24)
    rows = [t for t in told if t[0] < cut] + [t for t in later if t[0] >= cut]
    new = [t for t in rows if t[0] >= begin]
    assert book.extend(rows_of(new)) == len(new)
    hours = sorted({t[0] for t in rows})
    assert book.ends == ((hours[0], hours[-1]) if hours else None)
    for day in book.days(0, _HOURS):  # at a day's end any book knows
        expected = sum(n for hour, _, _, n in rows if hour <= day.last)
        assert book.at(day.last, price)[0].point == book.at(day.last, price)[1].upper == expected
    lacking = [d.day for d in book.days(0, _HOURS) if not book.is_fine(d.day)]
    book.refine(rows_of([t for t in rows if t[0] // 24 in lacking]))
    for h in range(-1, _HOURS + 1):
        assert book.at(h, price)[0].point == sum(n for hour, _, _, n in rows if hour <= h)
    assert book.hours(0, _HOURS) == hours
    assert book.fine_size == sum(len(f.upto[i]) for f in book._fine.values() for i in range(len(f.upto)))
    since, until = sorted((data.draw(st.integers(0, _HOURS)), data.draw(st.integers(0, _HOURS))))
    assert book.hours(since, until) == [h for h in hours if since <= h <= until]
    found = gaps_json(book.missing(since, until))
    said = [(g["from"], g["to"], g["kind"], g["device_seconds"], g["share"]) for g in found]
    assert said == slow_gaps(rows, since, until)
    some = data.draw(st.sets(st.integers(0, _HOURS), max_size=60))
    if coarse:  # most of them, so that whole days are among them, and days behind one another
        some = set(range(_HOURS)) - some
    by_key = book.sums_of(book.split(some))
    for n, key in enumerate(_KEYS):
        expected = sum(amount for hour, _, k, amount in rows if k == n and hour in some)
        assert by_key.get(key, [0])[0] == expected


_claims = st.dictionaries(
    st.builds(ClaimKey, st.integers(1, 3), st.integers(1, 2), st.integers(0, 12)),
    st.builds(
        ClaimHour,
        ranks=st.integers(0, 2),
        tokens=st.integers(0, 99),
        parameters=st.integers(0, 2),
        flop_per_token=st.integers(0, 1),
        flop=st.integers(0, 10**20),
        opening_flop=st.sampled_from([0, 0, 5, 10**6]),
        falls=st.integers(0, 2),
        first_unix_ns=st.integers(0, 5),
        last_unix_ns=st.integers(5, 9),
    ),
    max_size=20,
)


@settings(max_examples=100)
@given(_claims, _claims, st.integers(0, 13), st.dictionaries(st.integers(0, 12), st.integers(0, 10**6)))
def test_claims_that_were_cut_and_told_again_come_to_what_all_of_them_do(told, later, cut, upper):
    book = ClaimsBook()
    book.extend(told.items())
    book.cut(cut)
    lacks = book.lacks
    assert lacks == max(
        [k.hour for k in told if k.hour < cut], default=cut
    )  # the last one before is told again
    rows = {k: r for k, r in told.items() if k.hour < cut} | {k: r for k, r in later.items() if k.hour >= cut}
    book.extend((k, r) for k, r in rows.items() if k.hour >= lacks)
    assert set(book.openings) == {k for k, r in rows.items() if r.opening_flop}
    until = {
        (no, hour): Until(max(0, hour - 3), upper[hour]) for no, _, hour in book.openings if hour in upper
    }
    assert book.compared(until) == (compared(rows, until) if rows else None)


def test_prices_by_another_table_are_made_again():
    book = CurveBook()
    book.extend(rows_of([(5, 0, 0, 7)]))
    assert book.at(5, price, "one")[0].point == 7
    assert book.at(5, lambda *_: (Figure(1, 1, 1), Figure(0, 0, 0)), "one")[0].point == 7
    assert book.at(5, lambda *_: (Figure(1, 1, 1), Figure(0, 0, 0)), "another")[0].point == 1


@settings(max_examples=60)
@given(st.lists(st.integers(0, 1_000), unique=True).map(sorted), st.integers(2, 40))
def test_thinned_hours_are_few_and_hold_both_ends(hours, most):
    found = thinned(hours, most)
    assert len(found) == len(set(found)) == min(most, len(hours))
    assert set(found) <= set(hours)
    if hours:
        assert (found[0], found[-1]) == (hours[0], hours[-1])


@settings(max_examples=100)
@given(st.lists(st.tuples(st.integers(1, 5), st.none() | st.integers(0, 9)), max_size=15), st.integers(0, 80))
def test_touched_says_the_earliest_hour_behind_any_position(stretches, asked_for):
    touched, position, told = Touched(10), 10, []
    for step, hour in stretches:
        position += step
        touched.note(position, hour)
        told.append((position, hour))
    expected = min((h for p, h in told if p > asked_for and h is not None), default=None)
    assert touched.since(asked_for) == (0 if asked_for < 10 else expected)
    assert touched.position == position


@settings(max_examples=60)
@given(st.lists(st.text(max_size=6), max_size=12))
def test_front_coded_names_are_read_back(names):
    assert unpacked_names(front_coded(names)) == names
