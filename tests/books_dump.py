"""The books as text that two stores must share to be called equal: what was counted, of whom, and what follows.

Totals, hourly rows, workloads with their runs, rules and identities, the names that they lost, claims of progress, what
people said and up to where it was applied, losses, events, and each chain's head. Numbers that a store gives out in
order of arrival (workload_no, model_no, agent_no) are replaced by what they stand for.

Left out is what two ways to the same books do not share: times and positions of commits; when a workload was first
named (a window that bridges a kill begins earlier); hashes, since an agent that was killed says so in a notice.
"""

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from flopmeter.collector.encode import decode_batch
from flopmeter.contract.record import parse_record
from flopmeter.contract.usage import Batch, NoticeKind

GROUP = (
    "w.scope, w.kind, w.job, w.step, w.run_label, w.user, w.dtype, w.restart, w.identities, w.run, w.run_rule, m.name, "
    "m.compute_capability, t.evidence_class, t.measured, t.spread_ppm, t.gap_reason"
)
SUMS = (
    "t.duration_ns, t.sm_elapsed_cycles, t.sm_active_cycles, t.hmma_cycles, t.imma_cycles, t.dmma_cycles, "
    "t.tensor_other_cycles, t.fp64_cycles, t.fp32_cycles, t.fp16_cycles, t.int_cycles, t.energy_mj"
)
#: A workload by what it is.
WHO = "w.scope, w.kind, w.job, w.step, w.run_label, w.user, w.dtype, w.restart, w.identities"
CLAIM = "p.ranks, p.tokens, p.parameters, p.flop_per_token, p.flop, p.opening_flop, p.falls, p.first_unix_ns, p.last_unix_ns"
JOIN = "JOIN workloads w USING (workload_no) JOIN models m USING (model_no)"


def rows(store: Path, query: str) -> list[str]:
    db = sqlite3.connect(f"file:{store}?mode=ro", uri=True)
    try:
        return sorted("|".join(str(v) for v in row) for row in db.execute(query))
    finally:
        db.close()


def dump(store: Path) -> str:
    """All of that of `store`, one line each, sorted."""
    parts = {
        "totals": f"SELECT {GROUP}, {SUMS} FROM totals t {JOIN}",
        "hourly": f"SELECT t.hour, t.back, {GROUP}, {SUMS} FROM hourly t {JOIN}",
        "workloads": f"SELECT {WHO}, w.run, w.run_rule FROM workloads w",
        "formerly": f"SELECT {WHO}, f.run FROM formerly f JOIN workloads w USING (workload_no)",
        "progress": (
            f"SELECT {WHO}, hex(agent_id), p.hour, {CLAIM} FROM progress p JOIN workloads w USING (workload_no) "
            "JOIN agents USING (agent_no)"
        ),
        "entries": "SELECT entry_no, who, why, statement FROM entries",
        "applied": "SELECT max(entry_no) FROM applied",
        "identity_rules": "SELECT digest FROM identity_rules ORDER BY from_position DESC LIMIT 1",
        "judged": "SELECT regime, digest, w_table FROM judged WHERE until_position IS NULL",
        "losses": "SELECT hex(agent_id), from_seq, to_seq FROM losses JOIN agents USING (agent_no)",
        "events": "SELECT key FROM events",
    }
    found = {name: rows(store, query) for name, query in parts.items()}
    found["heads"] = heads(store)
    return "\n".join(f"[{name}]\n" + "\n".join(lines) for name, lines in found.items())


def heads(store: Path) -> list[str]:
    """Agent, node, boot and window end of each agent's last record, from the record itself."""
    last = (
        "SELECT a.agent_id, a.node, r.record FROM agents a JOIN records r USING (agent_no) "
        "WHERE r.seq = (SELECT max(seq) FROM records WHERE agent_no = a.agent_no)"
    )
    db = sqlite3.connect(f"file:{store}?mode=ro", uri=True)
    try:
        found = db.execute(last).fetchall()
    finally:
        db.close()
    lines: list[str] = []
    for agent_id, node, raw in found:
        record = parse_record(raw)
        batch = decode_batch(record.payload)
        ends = f"{batch.window_end_boot_ns}|{batch.window_end_unix_ns}"
        lines.append(f"{agent_id.hex()}|{node}|{record.boot_id.hex()}|{ends}")
    return sorted(lines)


def record_hashes(store: Path) -> list[str]:
    """Every record by number: equal only if the very bytes are."""
    return rows(store, "SELECT seq, hex(hash) FROM records")


def batches(store: Path) -> list[tuple[int, Batch]]:
    """What every record says, by number, but for torn tails: a kill in the middle of a write leaves one."""
    with closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True)) as db:
        found = db.execute("SELECT seq, record FROM records ORDER BY seq").fetchall()
    told = []
    for seq, raw in found:
        batch = decode_batch(parse_record(raw).payload)
        kept = tuple(n for n in batch.notices if n.kind is not NoticeKind.SPOOL_TORN)
        told.append((seq, replace(batch, notices=kept)))
    return told
