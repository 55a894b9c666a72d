"""Random outages, reboots and words: no set of tags takes time out of a total of which it was not said.

The true time of every record is known here. Whatever is tagged, what a regime leaves out lies within the tagged hours, but
for less than a short window before each tag's first; sums over slots are the total; and writer, reports and fsck agree.
"""

import contextlib
from collections.abc import Iterable

from builders import UNIX_NS, WINDOW_NS, Chain, batch, busy, gap
from desk import Desk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flopmeter.collector.books import BRIDGE_S, HOUR_NS
from flopmeter.collector.check.fsck import check_store, result_text
from flopmeter.collector.errors import RegistryError
from flopmeter.collector.ingest.decide import TAKEN
from flopmeter.collector.law.regimes import shipped
from flopmeter.collector.registry.entries import JobKey, Purpose, Retract, Tag
from flopmeter.collector.registry.reporting import run_report
from flopmeter.collector.registry.say import say
from flopmeter.collector.report.queries import asked, reading
from flopmeter.contract.usage import WorkloadKind

BRIDGE_NS = BRIDGE_S * 1_000_000_000
FIRST = UNIX_NS // HOUR_NS
JOB = JobKey("c1", int(WorkloadKind.SLURM), "4711")
#: Purposes that the regime does not count.
LEFT_OUT = frozenset({Purpose.EVALUATION, Purpose.EXPERIMENT})
BROAD = next(r for r in shipped() if r.id == "eu-systemic-risk")

lengths = st.one_of(
    st.sampled_from([WINDOW_NS, HOUR_NS, -UNIX_NS % HOUR_NS, BRIDGE_NS]),
    st.integers(1, 2 * BRIDGE_NS),
    st.integers(HOUR_NS, 6 * HOUR_NS),
    st.integers(HOUR_NS, 6 * HOUR_NS),
)


@st.composite
def tags(draw: st.DrawFn) -> Tag:
    since = FIRST + draw(st.integers(-1, 10))
    until = since + draw(st.integers(1, 5))
    open_at = draw(st.sampled_from(["", "", "", "begin", "end"]))
    return Tag(
        "r1",
        draw(st.sampled_from([Purpose.EVALUATION, Purpose.EVALUATION, Purpose.EXPERIMENT, Purpose.RL])),
        None if open_at == "begin" else since,
        None if open_at == "end" else until,
        draw(st.sampled_from([None, None, None, JOB])),
        ("https://lab",),
    )


records = st.tuples(st.sampled_from(["window", "reboot", "hung"]), lengths)
steps = st.builds(
    lambda before, said, after, more: [*before, *said, *after, *more],
    st.lists(records, min_size=1, max_size=4),
    st.lists(st.tuples(st.just("say"), tags()), min_size=1, max_size=3),
    st.lists(records, max_size=3),
    st.lists(
        st.one_of(
            st.tuples(st.just("say"), tags() | st.builds(Retract, st.integers(1, 4))),
            st.tuples(st.just("reopen"), st.none()),
        ),
        max_size=2,
    ),
)


class Node:
    """One GPU, always busy; when each record's work was done is known here."""

    def __init__(self) -> None:
        self.chain = Chain("n", gpus=1)
        self.done: list[tuple[int, int]] = []  # [start, end) of each record's time, by the wall clock

    def record(self, kind: str, length_ns: int) -> bytes:
        """The next record: it tells of `length_ns` from where the last one ended, in a window that may be shorter."""
        chain = self.chain
        if kind == "reboot":
            chain.reboot()
        window_ns = length_ns if kind == "window" else min(length_ns, WINDOW_NS)
        before_ns = 0 if kind == "reboot" else length_ns - window_ns
        boot = (chain.boot_ns + before_ns, chain.boot_ns + before_ns + window_ns)
        end = chain.unix_ns + length_ns
        row = gap(0, duration_ns=length_ns) if kind == "reboot" else busy(0, duration_ns=length_ns)
        message = batch(chain.digest, [row], boot_ns=boot, unix_ns=(end - window_ns, end))
        self.done.append((chain.unix_ns, end))
        raw = chain.next(payload=message.SerializeToString())
        chain.boot_ns, chain.unix_ns = boot[1], end
        return raw


def stretches(found_tags: Iterable[Tag], blur_ns: int) -> list[tuple[int, int]]:
    """The time that tags say to be of what the regime leaves out, each begun `blur_ns` earlier; joined where they meet."""
    found: list[tuple[int, int]] = []
    for since, until in sorted(
        (
            -1 if t.from_hour is None else t.from_hour * HOUR_NS - blur_ns,
            1 << 63 if t.until_hour is None else t.until_hour * HOUR_NS,
        )
        for t in found_tags
        if t.purpose in LEFT_OUT
    ):
        if found and found[-1][1] >= since:
            found[-1] = found[-1][0], max(found[-1][1], until)
        else:
            found.append((since, until))
    return found


def within(done: Iterable[tuple[int, int]], allowed: list[tuple[int, int]]) -> int:
    """Of what was done, in ns, all that lies whole in one of the stretches."""
    return sum(end - start for start, end in done if any(a <= start and end <= b for a, b in allowed))


@given(steps)
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_set_of_tags_takes_time_of_which_it_was_not_said(tmp_path_factory, given_steps):
    path = tmp_path_factory.mktemp("slots") / "books.db"
    node, desk = Node(), Desk(path, [BROAD])
    try:
        for what, more in [("window", WINDOW_NS), *given_steps]:
            if what == "say":
                desk.now += 1
                with contextlib.suppress(RegistryError):  # refused, as it should be: it is in no books
                    say(path, lambda _, s=more: s, "ada", "why", lambda now=desk.now: now)
            elif what == "reopen":
                desk.close()
                desk = Desk(path, [BROAD])
                desk.now = node.chain.unix_ns + HOUR_NS
            else:
                agent, raw = desk.agent(node.chain), node.record(what, more)
                desk.now = max(desk.now, node.chain.unix_ns + HOUR_NS)
                assert desk.offer(agent, raw) is TAKEN
            desk.commit()
        assert desk.intake.review(desk.now)
        desk.commit()

        with reading(path) as reader:
            report = run_report(reader, "r1", asked(desk.now, (BROAD,)))
            (run,) = reader.runs(asked(desk.now, (BROAD,)), "r1")
            said_of, slots = reader.registry().tags("r1"), reader.hourly("r1")
        whole_ns = sum(end - start for start, end in node.done)
        assert sum(sums[0] for _, _, _, sums in slots) == whole_ns, "sums over slots are the total"
        assert sum(round(p["device_seconds"] * 10**9) for p in report["purposes"]) == whole_ns

        taken_ns = sum(
            round(p["device_seconds"] * 10**9) for p in report["purposes"] if p["purpose"] in LEFT_OUT
        )
        assert taken_ns <= within(node.done, stretches(said_of, BRIDGE_NS - 1))
        if len({t.purpose for t in said_of}) == 1:  # nothing else was said: then no less is taken, either
            assert taken_ns >= within(node.done, stretches(said_of, 0))
        said = sum(int(p["flop"]["upper"]) for p in report["purposes"] if p["purpose"] in LEFT_OUT)
        executed, counted = run["executed"]["flop"], run["countable"][BROAD.id]["flop"]
        assert int(counted["upper"]) >= int(executed["upper"]) - said

        judged = desk.writer._judge.shares("r1")
        assert sorted((s.purpose or "untagged", s.across, str(s.flop.upper)) for s in judged) == sorted(
            (p["purpose"], tuple(p["across"]), p["flop"]["upper"]) for p in run["purposes"]
        )
    finally:
        desk.close()
    result = check_store(path, [BROAD])
    assert result.difference is None, result_text(result)
