"""The books as text that two stores must share to be called equal: totals, hourly rows, chain heads.

Numbers that a store gives out in order of arrival (workload_no, model_no, agent_no) are replaced by what
they stand for. Hashes are left out of the heads on request: an agent that was killed tells in a notice
that it started again, so its chain differs while its usage does not.
"""

import sqlite3
from pathlib import Path

GROUP = (
    "w.scope, w.kind, w.job, w.step, w.run_label, w.user, w.dtype, w.restart, w.run, m.name, "
    "m.compute_capability, t.evidence_class, t.measured, t.spread_ppm, t.gap_reason"
)
SUMS = (
    "t.duration_ns, t.sm_elapsed_cycles, t.sm_active_cycles, t.hmma_cycles, t.imma_cycles, t.dmma_cycles, "
    "t.tensor_other_cycles, t.fp64_cycles, t.fp32_cycles, t.fp16_cycles, t.int_cycles, t.energy_mj"
)
JOIN = "JOIN workloads w USING (workload_no) JOIN models m USING (model_no)"


def rows(store: Path, query: str) -> list[str]:
    db = sqlite3.connect(f"file:{store}?mode=ro", uri=True)
    try:
        return sorted("|".join(str(v) for v in row) for row in db.execute(query))
    finally:
        db.close()


def dump(store: Path) -> str:
    """Totals, hourly series and heads of `store`, one line each, sorted."""
    parts = {
        "totals": f"SELECT {GROUP}, {SUMS} FROM totals t {JOIN}",
        "hourly": f"SELECT t.hour, {GROUP}, {SUMS} FROM hourly t {JOIN}",
        "heads": "SELECT hex(agent_id), node, hex(boot_id), window_end_boot_ns, window_end_unix_ns FROM agents",
        "losses": "SELECT hex(agent_id), from_seq, to_seq FROM losses JOIN agents USING (agent_no)",
        "events": "SELECT key FROM events",
    }
    return "\n".join(f"[{name}]\n" + "\n".join(rows(store, query)) for name, query in parts.items())


def record_hashes(store: Path) -> list[str]:
    """Every record by number: equal only if the very bytes are."""
    return rows(store, "SELECT seq, hex(hash) FROM records")
