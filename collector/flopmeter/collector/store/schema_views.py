"""Migration 0018: views for people who read the store with a tool of their own (docs/exports.md).

Nothing of flopmeter reads them. Times are ISO 8601 in UTC, numbers of classes, kinds and models are names, and sums
are exact: decimal text, because SQLite would add them up as floats. A later migration that makes a table anew drops
these views first and makes them again: SQLite refuses to rename a table under a view.
"""

_HOUR_S = 3_600
_LIMB = 10**12  # three of them hold 36 digits; a sum of 9 million rows of one stays within 63 bits

_SUMS = (
    "sm_elapsed_cycles",
    "sm_active_cycles",
    "hmma_cycles",
    "imma_cycles",
    "dmma_cycles",
    "tensor_other_cycles",
    "fp64_cycles",
    "fp32_cycles",
    "fp16_cycles",
    "int_cycles",
    "energy_mj",
)
_CLASS = (
    "CASE g.evidence_class WHEN 1 THEN 'A1' WHEN 2 THEN 'A2' WHEN 3 THEN 'A3' WHEN 4 THEN 'B1' WHEN 5 THEN 'B2' "
    "WHEN 6 THEN 'C' WHEN 7 THEN 'D' WHEN 8 THEN 'gap' ELSE g.evidence_class END"
)
_KIND = (
    "CASE w.kind WHEN 1 THEN 'idle' WHEN 2 THEN 'unattributed' WHEN 3 THEN 'slurm' WHEN 4 THEN 'pod' "
    "WHEN 5 THEN 'process' WHEN 6 THEN 'other' ELSE w.kind END"
)
_REASON = (
    "CASE g.gap_reason WHEN 0 THEN '' WHEN 1 THEN 'read-failed' WHEN 2 THEN 'read-hung' WHEN 3 THEN 'reset' "
    "WHEN 4 THEN 'agent-down' WHEN 5 THEN 'suspended' WHEN 6 THEN 'refused' WHEN 7 THEN 'spool-full' "
    "WHEN 8 THEN 'lost' WHEN 9 THEN 'record-lost' ELSE g.gap_reason END"
)
_APPORTIONED, _OTHERS = 1024, 2048  # contract.usage.Measured


def _time(unix_ns: str) -> str:
    """As every command prints times: to the millisecond."""
    return (
        f"strftime('%Y-%m-%dT%H:%M:%S', {unix_ns} / 1000000000, 'unixepoch') || "
        f"printf('.%03dZ', {unix_ns} / 1000000 % 1000)"
    )


def _limbs(name: str) -> str:
    """The sum of a column of decimal text, in three parts that cannot overflow."""
    text = f"g.{name}"
    return (
        f"sum(CAST(substr({text}, -12) AS INTEGER)) AS {name}_a, "
        f"sum(CAST(substr({text}, -24, 12) AS INTEGER)) AS {name}_b, "
        f"sum(CAST(substr({text}, 1, max(length({text}) - 24, 0)) AS INTEGER)) AS {name}_c"
    )


def _text(name: str) -> str:
    """Those parts as one decimal text."""
    a, b, c = (f"{name}_{part}" for part in "abc")
    carried = f"({b} + {a} / {_LIMB})"
    digits = f"printf('%d%012d%012d', {c} + {carried} / {_LIMB}, {carried} % {_LIMB}, {a} % {_LIMB})"
    return f"coalesce(nullif(ltrim({digits}, '0'), ''), '0') AS {name}"


_EXACT = ("duration_ns", *_SUMS)

VIEWS = f"""
        -- A run, here and below, is what the rules chose: `flopmeter runs list` also follows what people assigned,
        -- which is in entries_now.
        CREATE VIEW runs_now AS
            SELECT run_by_rules, first_seen, last_seen, jobs, workloads, gpu_models, evidence_classes, dtypes,
                device_hours, gap_device_hours, energy_kwh, {", ".join(map(_text, _EXACT))}
            FROM (
                SELECT w.run AS run_by_rules, {_time("min(w.first_unix_ns)")} AS first_seen,
                    {_time("max(w.last_unix_ns)")} AS last_seen,
                    count(DISTINCT w.scope || char(10) || w.kind || char(10) || w.job) AS jobs,
                    count(DISTINCT w.workload_no) AS workloads,
                    group_concat(DISTINCT m.name) AS gpu_models,
                    group_concat(DISTINCT {_CLASS}) AS evidence_classes,
                    group_concat(DISTINCT nullif(w.dtype, '')) AS dtypes,
                    sum(g.duration_ns) / 3.6e12 AS device_hours,
                    sum(iif(g.evidence_class = 8, g.duration_ns, 0)) / 3.6e12 AS gap_device_hours,
                    sum(g.energy_mj) / 3.6e9 AS energy_kwh,
                    {", ".join(map(_limbs, _EXACT))}
                FROM workloads w JOIN totals g USING (workload_no) JOIN models m USING (model_no)
                WHERE w.run != '' AND g.measured & {_OTHERS} = 0
                GROUP BY w.run);
        -- The books by the hour, a row each as it is kept. `of_others` 1: what other holders of a shared GPU did in
        -- the same time, which is for the upper bound of this workload only and in no sum.
        CREATE VIEW usage_hourly AS
            SELECT strftime('%Y-%m-%dT%H:00:00Z', (g.hour - g.back) * {_HOUR_S}, 'unixepoch') AS hour_from,
                strftime('%Y-%m-%dT%H:00:00Z', (g.hour + 1) * {_HOUR_S}, 'unixepoch') AS hour_until,
                w.run AS run_by_rules, {_KIND} AS workload_kind, w.scope, w.job, w.step, w.user, w.dtype, w.restart,
                m.name AS gpu_model, m.compute_capability, {_CLASS} AS evidence_class, {_REASON} AS gap_reason,
                g.measured & {_APPORTIONED} != 0 AS apportioned, g.measured & {_OTHERS} != 0 AS of_others,
                g.spread_ppm, g.duration_ns / 3.6e12 AS device_hours, g.duration_ns,
                {", ".join(f"g.{name}" for name in _SUMS)}, g.workload_no
            FROM hourly g JOIN workloads w USING (workload_no) JOIN models m USING (model_no);
        CREATE VIEW events_now AS
            SELECT e.event_no, {_time("e.time_unix_ns")} AS raised, e.type, e.subject,
                iif(json_valid(e.data), json_extract(e.data, '$.regime'), NULL) AS regime,
                iif(json_valid(e.data), json_extract(e.data, '$.message'), NULL) AS message,
                coalesce(a.state, 'open') AS state, {_time("a.unix_ns")} AS answered, a.who AS answered_by, a.why,
                e.id, e.data
            FROM events e LEFT JOIN answers a ON a.answer_no = (
                SELECT max(answer_no) FROM answers WHERE about = 'event' AND number = e.event_no);
        CREATE VIEW deadlines_now AS
            SELECT d.deadline_no, {_time("d.due_unix_ns")} AS due, coalesce(a.state, 'open') AS state,
                iif(json_valid(a.detail), json_extract(a.detail, '$.outcome'), NULL) AS outcome,
                coalesce(a.state, 'open') != 'resolved' AND d.due_unix_ns / 1000000000 <= CAST(strftime('%s', 'now') AS INTEGER) AS overdue,
                d.regime, d.rule, d.subject AS run, d.act, d.what, d.recipient,
                {_time("d.trigger_unix_ns")} AS clock_since, {_time("d.opened_unix_ns")} AS opened, d.timezone,
                {_time("a.unix_ns")} AS answered, a.who AS answered_by, a.why, e.id AS event_id, d.id
            FROM deadlines d LEFT JOIN events e USING (event_no) LEFT JOIN answers a ON a.answer_no = (
                SELECT max(answer_no) FROM answers WHERE about IN ('deadline', 'incident') AND number = d.deadline_no);
        CREATE VIEW nodes_now AS
            SELECT a.node, a.version, {_time("r.window_end_unix_ns")} AS metered_until,
                {_time("r.received_unix_ns")} AS last_received, (CAST(strftime('%s', 'now') AS INTEGER) - r.received_unix_ns / 1000000000) / 60
                    AS minutes_since_heard,
                h.usual_window_ns / 1000000000 AS usual_window_s, coalesce(r.seq, 0) AS last_record,
                (SELECT coalesce(sum(to_seq - from_seq + 1), 0) FROM losses l WHERE l.agent_no = a.agent_no)
                    AS lost_records,
                (SELECT count(*) FROM conflicts c WHERE c.agent_no = a.agent_no) AS conflicts,
                {_time("a.admitted_unix_ns")} AS admitted, a.admitted_how, lower(hex(a.agent_id)) AS agent_id
            FROM agents a LEFT JOIN heads h USING (agent_no) LEFT JOIN records r USING (position);
        CREATE VIEW entries_now AS
            SELECT entry_no, {_time("unix_ns")} AS said, who, why,
                iif(json_valid(statement), json_extract(statement, '$.kind'), NULL) AS kind,
                iif(json_valid(statement), json_extract(statement, '$.run'), NULL) AS run, statement
            FROM entries;
        """  # noqa: S608 - numbers and names of this module only
