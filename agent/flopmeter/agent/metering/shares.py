"""Several workloads on one entity: its numbers divided among them (reference/metering.md 5.2). Pure integers.

The driver counts per device; which process a cycle belongs to nobody can say. So the device's numbers are divided
in proportion to the SM utilisation of the processes, to the last cycle, and every part says that it is a division
(Measured.APPORTIONED). SM utilisation is time, not work: beside each part stands what the others were given
(Measured.OTHERS), so that the workload's upper bound is the whole device and its lower bound nothing.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from flopmeter.agent.reading import MAX_PERCENT
from flopmeter.contract.identity import Identities
from flopmeter.contract.usage import Measured, Workload

if TYPE_CHECKING:
    from .interval import Interval

Part = tuple[Workload, int]  # weight, in any unit

APPORTIONED = int(Measured.APPORTIONED)
OTHERS = int(Measured.OTHERS)
_SM_ACTIVE = int(Measured.SM_ACTIVE)
_ENERGY = int(Measured.ENERGY)
_PERCENT_UNITS = 1_000_000


def weigh(holders: Iterable[tuple[Workload, float | None]]) -> tuple[Part, ...]:
    """Each process's workload and SM utilisation in percent (None = no sample) -> weights, in a fixed order.

    The driver samples processes that used the SMs: none beside others that did is 0. Where nobody has one,
    or all are 0, the workloads count alike.
    """
    weights: dict[Workload, int] = {}
    for workload, percent in holders:
        used = percent is not None and 0 <= percent <= MAX_PERCENT  # false for NaN
        units = round(percent * _PERCENT_UNITS) if used and percent is not None else 0
        weights[workload] = weights.get(workload, 0) + units
    alike = not any(weights.values())
    return tuple(sorted(((w, 1 if alike else units) for w, units in weights.items()), key=_order))


def handed_over(
    old: Sequence[Workload], new: Sequence[Part], since_ns: int, at_ns: int, until_ns: int
) -> tuple[Part, ...]:
    """An interval in which `old` gave way to `new`, by time (metering.md 6.1): where nobody knows when, half each."""
    at = at_ns if since_ns < at_ns < until_ns else (since_ns + until_ns) // 2
    whole = sum(weight for _, weight in new)
    weights = dict.fromkeys(old, (at - since_ns) * whole)
    for workload, weight in new:
        weights[workload] = weights.get(workload, 0) + (until_ns - at) * weight * len(old)
    return tuple(sorted(weights.items(), key=_order))


def divide(number: int, weights: Sequence[int]) -> list[int]:
    """`number` in proportion to `weights`, in whole units, by largest remainder; the first of equals wins."""
    whole = sum(weights)
    parts = [number * w // whole for w in weights]
    left = number - sum(parts)
    if left:
        order = sorted(range(len(weights)), key=lambda i: -(number * weights[i] % whole))
        for i in order[:left]:
            parts[i] += 1
    return parts


def split(got: "Interval", parts: Sequence[Part]) -> list[tuple[Workload, "Interval"]]:
    """For each workload its part, then what the others have; parts alone add up to the interval.

    Time and energy are divided like cycles. Where active time was not measured, all of the others' time may
    have been active.
    """
    weights = [weight for _, weight in parts]
    columns = [divide(number, weights) for number in got.numbers]
    own, others = got.measured | APPORTIONED, (got.measured & ~_ENERGY) | OTHERS | _SM_ACTIVE
    active_read = got.measured & _SM_ACTIVE
    rows = []
    for i, (workload, _) in enumerate(parts):
        mine = tuple([column[i] for column in columns])
        rest = [number - part for number, part in zip(got.numbers, mine, strict=True)]
        active = rest[2] if active_read else rest[1]
        beside = (0, 0, active, *rest[3:-1], 0)
        rows.append((workload, got._replace(measured=own, numbers=mine)))
        rows.append((workload, got._replace(measured=others, numbers=beside)))
    return rows


def _order(part: Part) -> tuple[int, str, str, str, str, str, int, Identities]:
    w = part[0]
    return (int(w.kind), w.job, w.step, w.run, w.user, w.dtype, w.restart, w.identities)
