"""FLOP of rows that add up to the run's, to the last one. Pure.

A run's figures are rounded once per merged group (figures.py), down below and up above; rows rounded one by one would
add up to something else. So each row is given what its group's figure grew by with it. The rows of a group then add up
to the group's figure, whatever their order, and so those of a run to the run's.
"""

from collections.abc import Mapping, Sequence
from operator import add

from flopmeter.collector.books import GroupKey
from flopmeter.collector.figures import Model, PriceKey, price
from flopmeter.contract.flop import ZERO, Figure
from flopmeter.contract.w_table import WTable

#: What a row adds: FLOP, integer operations.
Grown = tuple[Figure, Figure]


class Growing:
    """The groups of all owners so far: as many as prices depend on, however many rows there are."""

    __slots__ = ("_groups", "_models", "_table")

    def __init__(self, models: Mapping[int, Model], table: WTable) -> None:
        self._models, self._table = models, table
        self._groups: dict[tuple[str, PriceKey], tuple[list[int], Figure, Figure]] = {}

    def add(self, owner: str, key: GroupKey, dtype: str, numbers: Sequence[int]) -> Grown:
        """What the owner's figures grow by with a row (books.SUM_FIELDS order)."""
        group = PriceKey(key.model_no, key.evidence_class, key.measured, key.spread_ppm, dtype)
        old = self._groups.get((owner, group))
        sums, flop, ops = (
            (list(numbers), ZERO, ZERO) if old is None else (list(map(add, old[0], numbers)), *old[1:])
        )
        now = price(group, sums, self._models[key.model_no], self._table)
        self._groups[owner, group] = sums, now.flop, now.integer_ops
        return _less(now.flop, flop), _less(now.integer_ops, ops)


def _less(one: Figure, other: Figure) -> Figure:
    return Figure(one.lower - other.lower, one.point - other.point, one.upper - other.upper)
