"""Where the work is now that was once booked under a name: what people said by that name must find it again. Pure.

A job is named by the weakest evidence first. When better evidence gives it another run, its rows go there, and the
store keeps that they once had the old name (`formerly`). A name that no work has any more, and whose work went to one
run, is that run under an old name: all that was said by it follows. Where it went to several, or some stayed, only
that follows which can take nothing out of a total: what stands on what.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from .entries import JobKey


class Once(NamedTuple):
    """Work that the rules once gave a name, and the run that they give it now."""

    job: JobKey
    step: str
    run: str


class Went(NamedTuple):
    """Of one name: where its work is."""

    runs: frozenset[str]  # the name itself among them where some has it still
    jobs: frozenset[JobKey]  # whose work went to another run


#: By name. Only of names that entries mention and that some work has lost.
Formerly = Mapping[str, tuple[Once, ...]]


def formerly(names: Iterable[str], rows: Callable[[str], Iterable[Once]]) -> dict[str, tuple[Once, ...]]:
    """`rows` of a name: all work that has it by the rules, or had it."""
    found = {name: tuple(sorted(set(rows(name)))) for name in names}
    return {name: once for name, once in found.items() if any(o.run != name for o in once)}


def went(name: str, once: Iterable[Once], assigned: Callable[[JobKey, str], str | None]) -> Went:
    """`assigned`: the run that people gave a job's step, "" the rules', None: they said nothing.

    What people moved themselves is no sign of where the rest of their words belongs, and left out.
    """
    runs: set[str] = set()
    jobs: set[JobKey] = set()
    for o in once:
        run = assigned(o.job, o.step) or o.run
        if run in {o.run, name}:
            runs.add(run)
            if run != name:
                jobs.add(o.job)
    return Went(frozenset(runs), frozenset(jobs))
