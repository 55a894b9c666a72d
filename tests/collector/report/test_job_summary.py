"""`runs summary`: a job in one line. What it says is what the books say, and the line is safe wherever it is kept."""

import json
import re
import sys
from dataclasses import replace
from fractions import Fraction

import pytest
from builders import CLOCK_MHZ, SM_COUNT, UNIX_NS, WINDOW_NS, Chain, busy, gap
from desk import Desk
from hypothesis import given
from hypothesis import strategies as st

from flopmeter.cli.main import main
from flopmeter.collector.law.regimes import shipped
from flopmeter.collector.registry.entries import Assign, JobKey
from flopmeter.collector.registry.say import say
from flopmeter.collector.report import queries
from flopmeter.collector.report.job_books import JobBooks
from flopmeter.collector.report.job_summary import MAX_CHARS, MAX_NAME_CHARS, plain_name
from flopmeter.contract.usage import ALL_MEASURED, IDLE, Measured, Workload, WorkloadKind

#: All that may stand in a line: nothing that a shell, sacctmgr, sacct -P or awk takes for anything else.
SAFE = re.compile(r"flopmeter/1( [a-z_]+=[A-Za-z0-9._:/@+~,%\-]+)+")
HMMA = SM_COUNT * CLOCK_MHZ * WINDOW_NS // 1_000 * 40 // 100


def job(number="4711", *, run="", step="0", restart=0, **identities):
    seen = tuple(sorted((f"slurm.{name}", value) for name, value in identities.items()))
    return Workload(WorkloadKind.SLURM, job=number, step=step, run=run, restart=restart, identities=seen)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "books.sqlite"


def book(path, *minutes, chain=None):
    """Each minute: (usage, workloads) of one agent's next window."""
    chain = chain or Chain()
    with Desk(path, shipped()) as desk:
        agent = desk.agent(chain)
        for usage, workloads in minutes:
            desk.offer(agent, chain.next(usage, workloads))
        desk.commit()
    return chain


def summary(path, name="4711", *, cluster=None, minute=2):
    now = UNIX_NS + int(minute * WINDOW_NS)
    with queries.reading(path) as reader:
        books = JobBooks(reader, queries.asked(now, ()))
        return books.summary(books.find(name, cluster))


def fields(line):
    assert SAFE.fullmatch(line), line
    return dict(part.split("=", 1) for part in line.split(" ")[1:])


def test_a_line_says_what_the_books_say_of_the_job_and_of_nobody_else(path):
    mine, other = job(run="atlas"), job("12", run="others")
    book(path, ([busy(0), gap(1), busy(1, 1)], (mine, other)), ([busy(0, 1)], (mine, other)))
    d = summary(path)
    assert d["flop"]["point"] == str(HMMA * 4096)
    said = fields(d["line"])
    assert said["job"] == "4711"
    assert Fraction(said["lower"]) <= int(d["flop"]["lower"]) <= int(d["flop"]["point"])
    assert Fraction(said["upper"]) >= int(d["flop"]["upper"])
    assert said["class"] == "A1:50.0%,gap:50.0%"
    assert said["coverage"] == "50.0%"
    assert said["gpu_h"] == "0.03"  # two GPUs for a minute, rounded down
    assert said["energy_kwh"] == "0.01"  # 600 W for a minute; the gap read none
    assert said["run"] == "atlas"
    assert "others" not in d["line"]
    assert "12" not in d["line"].split("job=")[0]


def test_what_is_bad_is_rounded_up_and_what_is_good_is_not(path):
    unread = replace(busy(1), measured=ALL_MEASURED & ~Measured.ENERGY, energy_mj=0)
    book(path, ([busy(0), unread, gap(1, duration_ns=1_000_000)], (job(run="r"),)))
    said = fields(summary(path)["line"])
    assert said["class"] == "A1:99.9%,gap:0.1%"
    assert said["coverage"] == "99.9%"
    assert said["energy_kwh"] == "0.01+"  # of one GPU nobody read it
    assert "shared" not in said


def test_energy_that_nobody_read_is_no_zero(path):
    unread = replace(busy(0), measured=ALL_MEASURED & ~Measured.ENERGY, energy_mj=0)
    book(path, ([unread], (job(run="r"),)))
    assert fields(summary(path)["line"])["energy_kwh"] == "none"


def test_a_share_of_a_gpu_is_told(path):
    half = replace(busy(0, duration_ns=WINDOW_NS // 2), measured=ALL_MEASURED | Measured.APPORTIONED)
    book(path, ([half, busy(1)], (job(run="r"),)))
    assert fields(summary(path)["line"])["shared"] == "33.4%"


def test_the_steps_of_a_job_are_one_job_and_restarts_are_told(path):
    first, second = job(run="r", step="0", submit_unix_s="100"), job(run="r", step="1", submit_unix_s="100")
    again = job(run="r", restart=1, submit_unix_s="200")
    book(path, ([busy(0), busy(1, 1)], (first, second)), ([busy(0)], (again,)))
    d = summary(path)
    assert d["flop"]["point"] == str(3 * HMMA * 4096)
    assert fields(d["line"])["restarts"] == "1"


def test_an_id_that_is_used_again_is_another_job(path):
    before, after = job(submit_unix_s="100"), job(submit_unix_s="9000")
    book(path, ([busy(0), busy(1)], (before,)), ([busy(0)], (after,)))
    d = summary(path)
    assert d["flop"]["point"] == str(HMMA * 4096)
    assert d["restarts"] == 0


@pytest.mark.parametrize(
    ("asked", "found"), [("4700_3", "4703"), ("4700+1", "4701"), ("slurm:c1/4703", "4703")]
)
def test_a_task_and_a_component_are_found_by_slurms_own_name(path, asked, found):
    task = job("4703", array_job="4700", array_task="3")
    part = job("4701", het_job="4700", het_offset="1")
    book(path, ([busy(0), busy(1, 1)], (task, part)))
    assert summary(path, asked)["job"] == found


def test_a_job_that_a_person_assigned_bears_that_runs_name(path):
    book(path, ([busy(0), busy(1, 1)], (job(), job("12", run="atlas"))))
    say(path, lambda _: Assign(JobKey("c1", 3, "4711"), "atlas"), "eve", "forgot the label", lambda: UNIX_NS)
    assert fields(summary(path)["line"])["run"] == "atlas"


def test_two_clusters_number_their_jobs_alike(path):
    book(path, ([busy(0)], (job(run="a"),)))
    book(path, ([busy(0)], (job(run="b"),)), chain=Chain("other", cluster="c2"))
    with pytest.raises(Exception, match=r"expected one job, found 2: slurm:c1/4711, slurm:c2/4711"):
        summary(path)
    assert fields(summary(path, cluster="c2")["line"])["run"] == "b"


class TestState:
    def test_it_is_open_while_an_agent_has_not_told_of_the_time_behind_it(self, path):
        mine = job()
        busy_node = book(path, ([busy(0)], (mine,)))
        book(path, ([busy(0)], (IDLE,)), ([busy(0)], (IDLE,)), chain=Chain("n2"))
        assert summary(path)["state"] == "open"
        book(path, ([busy(0)], (IDLE,)), chain=busy_node)
        assert summary(path)["state"] == "complete"

    def test_an_agent_that_is_silent_and_held_it_makes_it_late_and_the_band_wider(self, path):
        mine = job(run="atlas")
        book(path, ([busy(0)], (mine,)))
        # the other node of the job goes on for eight minutes and then tells of a window without it
        book(
            path,
            *[([busy(0)], (mine,))] * 8,
            ([busy(0)], (IDLE,)),
            chain=Chain("n2", gpus=1),
        )
        d = summary(path, minute=9.5)
        assert d["state"] == "late"
        assert d["silent_nodes"] == ["gpu-001"]
        assert fields(d["line"])["silent_nodes"] == "1"
        assert d["coverage"]["gap_device_seconds"] > 0
        assert int(d["flop"]["upper"]) > 9 * HMMA * 4096


class TestName:
    @given(st.text(max_size=200), st.integers(16, 100))
    def test_it_is_safe_and_short_and_tells_names_apart(self, name, limit):
        shown = plain_name(name, limit)
        assert re.fullmatch(r"[A-Za-z0-9._:/@+~\-]*", shown)
        assert len(shown) <= limit
        if shown == name:
            assert plain_name(name + "!", limit) != shown

    @pytest.mark.parametrize(
        "name",
        [
            *(
                "a b",
                'x"; rm -rf /',
                "`id`",
                "$(id)",
                "a|b",
                "a=b",
                "a,b",
                "\u202egnp",
                "x" * 10_000,
                "\x1b[31m",
            ),
            *("é", "\ud800", "a\nb", "a\tb"),
        ],
    )
    def test_what_is_hostile_stands_as_something_harmless(self, name):
        shown = plain_name(name)
        assert re.fullmatch(r"[A-Za-z0-9._:/@+\-]*~[0-9a-f]{6}", shown)
        assert len(shown) <= MAX_NAME_CHARS

    def test_in_a_line_that_stays_short(self, path):
        label = "$(id); " + "x" * 150
        book(path, ([busy(0)], (job(run=label),)))
        line = summary(path)["line"]
        assert len(line) <= MAX_CHARS
        assert fields(line)["run"] == plain_name(label)


class TestCommand:
    @pytest.fixture
    def flopmeter(self, monkeypatch, capsys, path):
        monkeypatch.setenv("FLOPMETER_STORE", str(path))

        def run(*words):
            monkeypatch.setattr(sys, "argv", ["flopmeter", "runs", "summary", *words])
            try:
                main()
                code = 0
            except SystemExit as e:
                code = e.code or 0
            said = capsys.readouterr()
            return code, said.out, said.err

        return run

    def test_one_line_and_the_same_in_json(self, flopmeter, path):
        book(path, ([busy(0)], (job(run="atlas"),)))
        code, out, _ = flopmeter("4711", "--cluster", "c1")
        assert code == 0
        (line,) = out.splitlines()
        code, out, _ = flopmeter("4711", "--json")
        assert json.loads(out)["line"] == line

    def test_the_recent_ones(self, flopmeter, path, monkeypatch):
        book(path, ([busy(0)], (job(run="old"),)), ([busy(0)], (job("4712", run="new"),)))
        monkeypatch.setattr("time.time_ns", lambda: UNIX_NS + 3 * WINDOW_NS)
        code, out, _ = flopmeter("--recent", "1m")
        assert code == 0
        assert [line.split("\t")[:2] for line in out.splitlines()] == [["4712", "open"]]
        _, out, _ = flopmeter("--recent", "1h", "--json")
        assert [d["job"] for d in json.loads(out)["jobs"]] == ["4711", "4712"]

    def test_numbers_of_two_clusters_are_not_mixed(self, flopmeter, path, monkeypatch):
        book(path, ([busy(0)], (job(),)))
        book(path, ([busy(0)], (job(),)), chain=Chain("other", cluster="c2"))
        monkeypatch.setattr("time.time_ns", lambda: UNIX_NS + 3 * WINDOW_NS)
        code, out, err = flopmeter("--recent", "1h")
        assert (code, out) == (2, "")
        assert "c1, c2" in err
        assert flopmeter("--recent", "1h", "--cluster", "c2")[0] == 0

    @pytest.mark.parametrize(
        ("words", "code", "said"),
        [
            ((), 2, "expected a JOB, or --recent"),
            (("1", "--recent", "1d"), 2, "expected a JOB, or --recent"),
            (("--recent", "1 day"), 2, "expected a duration such as 30m"),
            (("--recent", "0d"), 2, "expected a duration"),
            (("99",), 3, "expected a job that the books hold"),
            (("x" * 10_000,), 3, "..."),
        ],
    )
    def test_what_it_cannot_answer(self, flopmeter, path, words, code, said):
        book(path, ([busy(0)], (job(),)))
        got, out, err = flopmeter(*words)
        assert (got, out) == (code, "")
        assert said in err
        assert len(err) < 1_000
