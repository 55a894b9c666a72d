"""A run's countable total under a profile, its ancestors' included: shares, lineage and external models together. Pure."""

from collections.abc import Callable, Collection, Iterable, Mapping

from flopmeter.collector.figures import Model
from flopmeter.collector.law.countable import Ancestor, Countable, Share, countable
from flopmeter.collector.law.profiles import Profile
from flopmeter.contract.w_table import WTable

from .entries import Relation
from .lineage import Lineage
from .shares import Row, shares, tallies
from .state import Registry

#: How a run stands on the external model whose name a label gave it.
NAMESAKE = ("bears the name of an external model",)


class Counting:
    """Everything that a countable total is made of, at one moment; each run's work is read and priced once."""

    def __init__(
        self,
        registry: Registry,
        rows: Callable[[str], Iterable[Row]],
        models: Mapping[int, Model],
        table: WTable,
        lineage: Lineage | None = None,
    ) -> None:
        """`rows` of a run: by hour where the registry tells it apart by spans (`has_spans`), else its totals.

        `lineage`: the registry's, if the caller has it.
        """
        self.registry = registry
        self.lineage = Lineage.of(registry) if lineage is None else lineage
        self._rows = rows
        self._models = models
        self._table = table
        self._shares: dict[str, list[Share]] = {}

    def work(self, run: str) -> list[Share]:
        """What the books hold of the run."""
        found = self._shares.get(run)
        if found is None:
            work = tallies(self.registry, run, self._rows(run))
            found = self._shares[run] = shares(work, self._models, self._table)
        return found

    def shares(self, run: str) -> list[Share]:
        """The run's own work; of an external model its declared figure. Of a run that a label called like one, both:
        nobody's word may hide what was metered, and no label what was declared.
        """
        return [*self.work(run), *self._declared(run)]

    def countable(self, run: str, profile: Profile, *, without: Collection[str] = ()) -> Countable:
        """What `profile` counts of the run and of what it stands on, `without` some of that."""
        above = [
            Ancestor(r.name, r.ruling, r.path, tuple(shares))
            for r in self.lineage.ancestors(run, profile, without=without)
            if (shares := self._declared(r.name) if r.declared else self.work(r.name))
        ]
        own, declared = self.work(run), self._declared(run)
        if own and declared:
            above.append(Ancestor(run, profile.relations[Relation.CONTINUES], NAMESAKE, tuple(declared)))
        return countable(profile, own or declared, above)

    def _declared(self, name: str) -> list[Share]:
        external = self.registry.externals.get(name)
        return [] if external is None else [Share(None, external.flop)]
