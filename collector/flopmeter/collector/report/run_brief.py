"""A line of `runs list`: the part of a run's document that it shows, without all that it does not. Pure.

A fleet has runs by the ten thousand, and of each the whole document is forty times what a line needs. Every key here
has the value that `documents.run_document` gives it (a test compares them); `thresholds` holds the nearest alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flopmeter.collector.figures import Model, is_others, tally
from flopmeter.collector.law.profiles import EXECUTED
from flopmeter.collector.law.regimes import Regime
from flopmeter.collector.law.rules import Verdict, counted, verdict
from flopmeter.collector.law.standing import Standing, standing
from flopmeter.collector.registry.counting import Counting
from flopmeter.collector.spelling import figure_json, time_text
from flopmeter.contract.evidence_class import EvidenceClass
from flopmeter.contract.w_table import WTable

from .documents import RunRows, status_of, threshold_row
from .silence import Silence

_SECOND_NS = 1_000_000_000
_GAP = int(EvidenceClass.GAP)


@dataclass(frozen=True, slots=True)
class Briefs:
    """What every line is made from."""

    models: Mapping[int, Model]
    table: WTable
    binding: Sequence[Regime]  # regimes of runs that are in force now
    counting: Counting
    silence: Silence
    now_unix_ns: int

    def of(self, rows: RunRows) -> dict[str, Any]:
        """One run's line."""
        return self.found(rows)[0]

    def found(self, rows: RunRows) -> tuple[dict[str, Any], Standing]:
        """One run's line, and where the run stands by it."""
        missing, owed = self.silence.of(rows.run), self.silence.behind(self.counting, rows.run, EXECUTED)
        shares = self.counting.work(rows.run)
        if len(shares) == 1:
            executed = shares[0].flop, shares[0].integer_ops
        else:  # priced whole: what tags cut apart is rounded apart
            dtypes = {w.workload_no: w.dtype for w in rows.workloads}
            executed = tally(rows.groups, dtypes).figures(self.models, self.table)
        stands = standing(self.counting, rows.run, executed, self.binding)
        gap_ns = sum(
            sums[0]
            for key, sums in rows.groups.items()
            if key.evidence_class == _GAP and not is_others(key.measured)
        )
        whole_ns = sum(sums[0] for sums in rows.groups.values())
        line = {
            "run": rows.run,
            "status": status_of(rows, missing, self.now_unix_ns),
            "last_seen": time_text(rows.last_unix_ns),
            "executed": {"flop": figure_json(executed[0] + owed.flop)},
            "thresholds": self._nearest(rows.run, stands),
            "coverage": {
                "expected_device_seconds": (whole_ns + missing.duration_ns) / _SECOND_NS,
                "observed_device_seconds": (whole_ns - gap_ns) / _SECOND_NS,
            },
        }
        return line, stands

    def _nearest(self, run: str, stands: Standing) -> list[dict[str, Any]]:
        """The highest line that was crossed or may have been; else the next one."""
        if not self.binding:
            return []
        behind = {name: self.silence.behind(self.counting, run, name) for name in stands.by_counting}

        whole = {
            name: (
                stands.by_counting[name].flop + b.flop,
                stands.by_counting[name].integer_ops + b.integer_ops,
            )
            for name, b in behind.items()
        }

        def below(r: Regime) -> bool:
            return verdict(counted(r, *whole[r.counting]), r) is Verdict.BELOW

        near = next((r for r in reversed(self.binding) if not below(r)), self.binding[0])
        row = threshold_row(run, near, stands.of(near), behind[near.counting], now_unix_ns=self.now_unix_ns)
        del row["event_raised"]  # nobody looked
        return [row]
