"""The counters up to an hour, to hold an estimate of that part of a run against. Pure."""

from collections.abc import Iterable, Mapping

from flopmeter.collector.books import GroupKey, Slot, Sums
from flopmeter.collector.figures import Model, Tally
from flopmeter.contract.flop import Figure
from flopmeter.contract.w_table import WTable


def figure_before(
    hour: int | None,
    rows: Iterable[tuple[Slot, str, GroupKey, Sums]],
    models: Mapping[int, Model],
    table: WTable,
) -> Figure | None:
    """FLOP of what `rows` (slot, declared dtype, key, sums) hold of the time before `hour` (None: of all time); None: nothing.

    A bridge over that hour cannot be divided: anything from none of it to all may have been before.
    """
    surely, perhaps = Tally(), Tally()
    metered = False
    for slot, dtype, key, sums in rows:
        if hour is None or slot.first < hour:
            metered = True
            (surely if hour is None or slot.hour < hour else perhaps).add(key, dtype, sums)
    sure, most = surely.figures(models, table)[0], perhaps.figures(models, table)[0].upper
    return Figure(sure.lower, sure.point, sure.upper + most) if metered else None
