"""What stands on what: links between runs and external models, and what a profile counts of a run's ancestors. Pure.

An ancestor counts once, however many paths lead to it, and it counts if any path does: of a path the weakest step
holds, of the paths the strongest. What is excluded is named and not followed.

Synthetic data has two computes behind it: the run that generated, which is what the link names, and what trained the
model that generated. The second is that of a teacher: behind such a link every step is at most as strong as `distils`,
and so is the declared figure of an external model, which is its training. A run that bears an external model's name has
both behind it: what the books hold of it is what was generated, what is declared is the training.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from flopmeter.collector.errors import EntryRefused
from flopmeter.collector.law.profiles import Answer, Profile, Ruling

from .entries import Link, Relation
from .state import Registry

#: Links in a row. Each is a stage that somebody declared; a model of a hundred stages is none.
MAX_DEPTH = 100
#: Ancestors of one run. A total is added up from all of them whenever one is reported or judged.
MAX_ANCESTORS = 1_000


class Reached(NamedTuple):
    """An ancestor, and by what right it is in the total or out of it."""

    name: str
    ruling: Ruling
    path: tuple[str, ...]  # ("fine-tunes b", "merges c")
    declared: bool = False  # the declared figure of an external model; else what the books hold of that name


class Lineage:
    """The graph of all links in force. Order of the links does not matter."""

    def __init__(self, links: Iterable[Link], externals: Collection[str] = ()) -> None:
        self._parents: dict[str, list[Link]] = {}
        for link in sorted(set(links), key=lambda k: (k.run, k.parent, k.relation)):
            self._parents.setdefault(link.run, []).append(link)
        self._externals = frozenset(externals)

    @classmethod
    def of(cls, registry: Registry) -> "Lineage":
        """Links as they hold now, declared base models among them."""
        return cls(registry.stands_on, registry.externals)

    def parents(self, run: str) -> tuple[Link, ...]:
        """What the run stands on directly, by name."""
        return tuple(self._parents.get(run, ()))

    def ancestors(self, run: str, profile: Profile, *, without: Collection[str] = ()) -> tuple[Reached, ...]:
        """Every run and model that `run` stands on, each once, by name: counted ones, and those just left out.

        An external model's name comes twice, for its declared figure and for what a run of that name did.
        `without`: as if these were not there, nor what only they lead to.
        """
        if run not in self._parents:
            return ()
        certain = self._walk(run, profile, Answer.COUNTS, without)
        every = certain  # where no step is weaker, there is nothing more to find
        if any(reached.ruling.answer is not Answer.COUNTS for reached in certain):
            every = self._walk(run, profile, Answer.SILENT, without)
        found: dict[tuple[str, bool], Reached] = {}
        for answer, walked in ((Answer.COUNTS, certain), (Answer.SILENT, every), (Answer.EXCLUDED, every)):
            for reached in walked:
                if reached.ruling.answer is answer:
                    found.setdefault((reached.name, reached.declared), reached)
        return tuple(found[key] for key in sorted(found))

    def above(self, run: str) -> frozenset[str]:
        """Every run and model that `run` stands on, over whatever relations, counted or not."""
        return _closure([run], {name: [k.parent for k in links] for name, links in self._parents.items()})

    def descendants(self, names: Collection[str]) -> frozenset[str]:
        """Every run that stands on one of `names`, over whatever relations: whose totals may change with theirs."""
        children: dict[str, set[str]] = {}
        for run, links in self._parents.items():
            for link in links:
                children.setdefault(link.parent, set()).add(run)
        return _closure(names, children)

    def originals(self, run: str) -> tuple[str, ...]:
        """What the run modifies: what it fine-tunes, or a run that it continues does; by name. () : nothing."""
        stage, seen = [run], {run}
        found: set[str] = set()
        for name in stage:
            for link in self._parents.get(name, ()):
                if link.relation is Relation.FINE_TUNES:
                    found.add(link.parent)
                elif link.relation is Relation.CONTINUES and link.parent not in seen:
                    seen.add(link.parent)
                    stage.append(link.parent)
        return tuple(sorted(found))

    def _walk(self, run: str, profile: Profile, least: Answer, without: Collection[str]) -> list[Reached]:
        """Nearest first, over steps of at least that strength; where a weaker one leads is named, and not followed."""
        teacher = profile.relations[Relation.DISTILS]
        found: list[Reached] = []
        # `behind`: beyond a synthetic-data-from link, so that training is a teacher's.
        queue: list[tuple[str, bool, Reached | None]] = [(run, False, None)]
        seen = {(run, False), (run, True)}
        for name, behind, here in queue:
            for link in self._parents.get(name, ()):
                if link.parent in without:
                    continue
                data = link.relation is Relation.SYNTHETIC_DATA_FROM
                rulings = [profile.relations[link.relation]]
                if behind:
                    rulings.append(teacher)
                if here is not None:
                    rulings.append(here.ruling)
                steps = (*(() if here is None else here.path), f"{link.relation.value} {link.parent}")
                place = (link.parent, behind or data)
                if place in seen:
                    continue
                reached = Reached(link.parent, _weakest(rulings), steps)
                found.append(reached)
                if link.parent in self._externals:
                    training = _weakest([*rulings[:1], teacher, *rulings[1:]] if data else rulings)
                    found.append(Reached(link.parent, training, steps, declared=True))
                if reached.ruling.strength >= least.strength:
                    seen.add(place)
                    queue.append((*place, reached))
        return found


def _weakest(rulings: list[Ruling]) -> Ruling:
    return min(rulings, key=lambda r: r.strength)  # of equal ones the first, which is the last step's


def _closure(names: Iterable[str], to: Mapping[str, Collection[str]]) -> frozenset[str]:
    queue, seen = list(names), set[str]()
    for name in queue:
        for other in to.get(name, ()):
            if other not in seen:
                seen.add(other)
                queue.append(other)
    return frozenset(seen)


# ---- before a link is accepted ---------------------------------------------------------------------------


def check_link(stands_on: Mapping[str, Collection[str]], run: str, parent: str) -> None:
    """Raise EntryRefused if `run` may not stand on `parent`, where `stands_on` holds already what stands on what.

    No circle, no endless chain, no crowd: the one would be counted for ever, the others for too long.
    """
    circle = path(stands_on, parent, run)
    if circle is not None:
        raise EntryRefused(
            f"lineage: expected no circle, got {_chain([run, *circle])}",
            "a run cannot stand on what stands on it; retract the entry that is wrong",
        )
    grown = {name: {*others} for name, others in stands_on.items()}
    grown.setdefault(run, set()).add(parent)
    above = _closure([run], grown)
    if len(above) > MAX_ANCESTORS:
        raise EntryRefused(
            f"lineage: expected at most {MAX_ANCESTORS} ancestors of {run}, got {len(above)}",
            "link it to the model that they became, not to each of them",
        )
    below: dict[str, set[str]] = {}
    for name, others in stands_on.items():
        for other in others:
            below.setdefault(other, set()).add(name)
    depth = _height(parent, stands_on) + 1 + _height(run, below)
    if depth > MAX_DEPTH:
        raise EntryRefused(
            f"lineage: expected at most {MAX_DEPTH} links in a row, got {depth} through {run} and {parent}",
            "assign restarts of one training run to one run (flopmeter runs assign) instead of linking them",
        )


def path(stands_on: Mapping[str, Collection[str]], start: str, goal: str) -> list[str] | None:
    """The shortest way from `start` to `goal`, both named, by what stands on what; None: there is none."""
    came: dict[str, str | None] = {start: None}
    queue = [start]
    for name in queue:
        if name == goal:
            found: list[str] = []
            at: str | None = name
            while at is not None:
                found.append(at)
                at = came[at]
            return found[::-1]
        for other in sorted(stands_on.get(name, ())):
            if other not in came:
                came[other] = name
                queue.append(other)
    return None


def _chain(names: list[str]) -> str:
    shown = names if len(names) <= 12 else [*names[:6], f"… {len(names) - 11} more …", *names[-5:]]
    return " on ".join(shown)


def _height(name: str, to: Mapping[str, Collection[str]]) -> int:
    """Links in the longest chain from `name`. A circle, which names that came later may have closed, is cut somewhere."""
    heights: dict[str, int] = {}
    begun: set[str] = set()
    stack = [name]
    while stack:
        at = stack[-1]
        begun.add(at)
        todo = [o for o in to.get(at, ()) if o not in heights and o not in begun]
        if todo:
            stack += todo
        else:
            heights[at] = max((heights[o] + 1 for o in to.get(at, ()) if o in heights), default=0)
            stack.pop()
    return heights[name]
