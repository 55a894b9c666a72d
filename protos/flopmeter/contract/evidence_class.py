"""How good an interval is (reference/metering.md section 7.1). The numbers are the wire's; never reuse one."""

from enum import IntEnum


class EvidenceClass(IntEnum):
    """A1 best … D weakest; GAP is time without a usable reading."""

    A1 = 1  # GPM cumulative cycles 248-260, SKU whose rates reconcile
    A2 = 2  # GPM percentages x elapsed cycles from sampled clocks
    A3 = 3  # A1 or A2 on an SKU whose rates are not confirmed
    B1 = 4  # DCGM before Hopper with HMMA and IMMA
    B2 = 5  # DCGM with PIPE_TENSOR_ACTIVE only
    C = 6  # NVML utilisation and energy: an upper bound only
    D = 7  # declared: scheduler hours x peak x assumed utilisation
    GAP = 8  # nothing usable: priced from 0 to the upper bound

    @property
    def label(self) -> str:
        """As reports and JSON print it: `A1` … `D`, `gap`."""
        return "gap" if self is EvidenceClass.GAP else self.name


#: Half-width of the counter-to-cycles step, in parts per million of the cycles, before the clock term.
#: A1 calibration accepted up to 3 % (metering.md 4.5, 7.1); A3 +10 %; B 5-10 %, the wider taken.
#: GAP and C have no point, so no half-width.
CYCLE_ERROR_PPM: dict[EvidenceClass, int] = {
    EvidenceClass.A1: 30_000,
    EvidenceClass.A2: 30_000,
    EvidenceClass.A3: 130_000,
    EvidenceClass.B1: 100_000,
    EvidenceClass.B2: 100_000,
    EvidenceClass.C: 0,
    EvidenceClass.D: 0,
    EvidenceClass.GAP: 0,
}

#: By how much two counters of one entity may disagree about the same work, in parts per million of the lower: each is
#: known to 1 % against its percentage (metering.md 7.2, item 2); an exporter's gauges before Hopper are each of times
#: of their own, multiplexed (7.1: up to 10 %, and 1.1 / 0.9 is 1.222).
MISMATCH_PPM: dict[EvidenceClass, int] = {
    EvidenceClass.A1: 20_000,
    EvidenceClass.A2: 20_000,
    EvidenceClass.A3: 20_000,
    EvidenceClass.B1: 225_000,
    EvidenceClass.B2: 225_000,
    EvidenceClass.C: 0,
    EvidenceClass.D: 0,
    EvidenceClass.GAP: 0,
}

#: Classes that bound work from above only; they add nothing to lower or point.
UPPER_ONLY = frozenset({EvidenceClass.C, EvidenceClass.D, EvidenceClass.GAP})

#: A row's clock spread is rounded up to one of these, so that totals fall into few groups. A clock that idles at 345
#: MHz between bursts of 1,980 has samples half of whose range is up to 2.4 times their mean; at 210 MHz, 4.2 times.
SPREAD_STEPS_PPM = (
    0, 2_000, 5_000, 10_000, 20_000, 30_000, 50_000, 100_000, 200_000, 500_000, 1_000_000, 2_000_000, 5_000_000,
)  # fmt: skip


def spread_step(spread_ppm: int) -> int | None:
    """The smallest step that is not below `spread_ppm`: a bound is never narrowed. None past the highest."""
    for step in SPREAD_STEPS_PPM:
        if spread_ppm <= step:
            return step
    return None
