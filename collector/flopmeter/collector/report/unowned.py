"""Time that belongs to no run: idle, and busy without an owner. Totals with their FLOP bounds. Pure."""

from collections.abc import Iterable, Mapping
from typing import Any

from flopmeter.collector.books import GroupKey, Sums
from flopmeter.collector.figures import Model, Tally
from flopmeter.collector.spelling import figure_json
from flopmeter.contract.usage import WorkloadKind
from flopmeter.contract.w_table import WTable

_SECOND_NS = 1_000_000_000


def unowned_document(
    rows: Iterable[tuple[int, GroupKey, Sums]], models: Mapping[int, Model], table: WTable
) -> dict[str, Any]:
    """`{"idle": …, "unattributed": …}`; rows are (workload kind, key, sums) of all that no run owns.

    Idle time has FLOP bounds too: a GPU without a workload can have done what its counters say, and gaps in it what
    fits in them.
    """
    tallies = {"idle": Tally(), "unattributed": Tally()}
    times_ns = dict.fromkeys(tallies, 0)
    for kind, key, sums in rows:
        name = "idle" if kind == WorkloadKind.IDLE else "unattributed"
        tallies[name].add(key, "", sums)
        times_ns[name] += sums[0]
    found = {}
    for name, tally in tallies.items():
        flop, ops = tally.figures(models, table)
        found[name] = {
            "device_seconds": times_ns[name] / _SECOND_NS,
            "flop": figure_json(flop),
            "integer_ops": figure_json(ops),
        }
    return found
