"""The tables, as numbered migrations. A migration and the note that it ran commit in one transaction.

Sums are decimal TEXT: an hour of 16,384 GPUs is 1.5e19 SM-cycles, past SQLite's 64-bit integers.
"""

from .schema_log import LOG
from .schema_views import VIEWS
from .schema_witness import WITNESSES

SUM_COLUMNS = """
    duration_ns TEXT NOT NULL, sm_elapsed_cycles TEXT NOT NULL, sm_active_cycles TEXT NOT NULL,
    hmma_cycles TEXT NOT NULL, imma_cycles TEXT NOT NULL, dmma_cycles TEXT NOT NULL,
    tensor_other_cycles TEXT NOT NULL, fp64_cycles TEXT NOT NULL, fp32_cycles TEXT NOT NULL,
    fp16_cycles TEXT NOT NULL, int_cycles TEXT NOT NULL, energy_mj TEXT NOT NULL"""

GROUP_COLUMNS = """
    workload_no INTEGER NOT NULL, model_no INTEGER NOT NULL, evidence_class INTEGER NOT NULL,
    measured INTEGER NOT NULL, spread_ppm INTEGER NOT NULL, gap_reason INTEGER NOT NULL"""

_SUMS = (
    "duration_ns, sm_elapsed_cycles, sm_active_cycles, hmma_cycles, imma_cycles, dmma_cycles, tensor_other_cycles, "
    "fp64_cycles, fp32_cycles, fp16_cycles, int_cycles, energy_mj"
)
_GROUP_KEY = "workload_no, model_no, evidence_class, measured, spread_ppm, gap_reason"

MIGRATIONS: tuple[tuple[str, str], ...] = (
    (
        "0001-books",
        f"""
        CREATE TABLE agents (
            agent_no INTEGER PRIMARY KEY, agent_id BLOB NOT NULL UNIQUE, public_key BLOB NOT NULL,
            node TEXT NOT NULL, version TEXT NOT NULL, admitted_how TEXT NOT NULL,
            admitted_unix_ns INTEGER NOT NULL);
        CREATE TABLE inventories (
            digest BLOB PRIMARY KEY, agent_no INTEGER NOT NULL, bytes BLOB NOT NULL,
            received_unix_ns INTEGER NOT NULL) WITHOUT ROWID;
        -- Received bytes, as they came. The unique index starts with the window, not the agent, so that
        -- inserts stay at its right edge (reference/performance.md section 4).
        CREATE TABLE records (
            position INTEGER PRIMARY KEY, window_start_s INTEGER NOT NULL, agent_no INTEGER NOT NULL,
            seq INTEGER NOT NULL, window_end_unix_ns INTEGER NOT NULL,
            received_unix_ns INTEGER NOT NULL,  -- the collector's clock
            hash BLOB NOT NULL, record BLOB NOT NULL);
        CREATE UNIQUE INDEX records_once ON records (window_start_s, agent_no, seq);
        -- Where each agent's chain stands: its last record, which says the rest. Hundreds of these rows
        -- share a page, so that a group of a hundred agents writes a few pages here and not a hundred.
        CREATE TABLE heads (agent_no INTEGER PRIMARY KEY, position INTEGER NOT NULL,
            usual_window_ns INTEGER NOT NULL);  -- what its silence is measured in (ingest.Head)
        -- Boots of a node that are over, and where their usage ends: a boot never comes back.
        CREATE TABLE boots (
            agent_no INTEGER NOT NULL, boot_id BLOB NOT NULL, window_end_boot_ns INTEGER NOT NULL,
            PRIMARY KEY (agent_no, boot_id)) WITHOUT ROWID;
        CREATE TABLE models (
            model_no INTEGER PRIMARY KEY, name TEXT NOT NULL, compute_capability TEXT NOT NULL,
            UNIQUE (name, compute_capability));
        CREATE TABLE workloads (
            workload_no INTEGER PRIMARY KEY, scope TEXT NOT NULL, kind INTEGER NOT NULL, job TEXT NOT NULL,
            step TEXT NOT NULL, run_label TEXT NOT NULL, user TEXT NOT NULL, dtype TEXT NOT NULL,
            restart INTEGER NOT NULL,
            run TEXT NOT NULL,        -- the run it belongs to; '' for idle and unattributed
            run_rule TEXT NOT NULL,   -- which rule chose: label, job, none
            first_unix_ns INTEGER NOT NULL, last_unix_ns INTEGER NOT NULL,
            UNIQUE (scope, kind, job, step, run_label, user, dtype, restart));
        CREATE INDEX workloads_by_run ON workloads (run);
        CREATE TABLE totals ({GROUP_COLUMNS}, {SUM_COLUMNS}, PRIMARY KEY ({_GROUP_KEY})) WITHOUT ROWID;
        CREATE TABLE hourly (hour INTEGER NOT NULL, {GROUP_COLUMNS}, {SUM_COLUMNS},
            PRIMARY KEY (hour, {_GROUP_KEY})) WITHOUT ROWID;
        CREATE INDEX hourly_by_workload ON hourly (workload_no, hour);
        -- Raised once: `key` says what must not be raised twice.
        CREATE TABLE events (
            event_no INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, key TEXT NOT NULL UNIQUE,
            type TEXT NOT NULL, subject TEXT NOT NULL, time_unix_ns INTEGER NOT NULL,
            -- the totals it rests on: false at position since_position - 1, true at position
            since_position INTEGER NOT NULL, position INTEGER NOT NULL, data TEXT NOT NULL);
        CREATE INDEX events_by_subject ON events (subject);
        -- By which regime texts and W table runs were judged, and over which positions: an event may rest on
        -- older records only where its regime was new.
        CREATE TABLE judged (
            regime TEXT NOT NULL, digest TEXT NOT NULL, w_table TEXT NOT NULL, from_position INTEGER NOT NULL,
            from_unix_ns INTEGER NOT NULL, until_position INTEGER,  -- NULL: still
            PRIMARY KEY (regime, digest, w_table, from_position)) WITHOUT ROWID;
        CREATE TABLE outbox (
            event_no INTEGER NOT NULL, sink TEXT NOT NULL, attempts INTEGER NOT NULL DEFAULT 0,
            delivered_unix_ns INTEGER, PRIMARY KEY (event_no, sink)) WITHOUT ROWID;
        -- Numbers that an agent no longer had when the collector needed them: named, never skipped.
        CREATE TABLE losses (
            loss_no INTEGER PRIMARY KEY, agent_no INTEGER NOT NULL, from_seq INTEGER NOT NULL,
            to_seq INTEGER NOT NULL, noticed_unix_ns INTEGER NOT NULL, reason TEXT NOT NULL);
        -- Refused records that prove a clone or a fork: same number, other bytes.
        CREATE TABLE conflicts (
            agent_no INTEGER NOT NULL, seq INTEGER NOT NULL, hash BLOB NOT NULL, record BLOB NOT NULL,
            received_unix_ns INTEGER NOT NULL, PRIMARY KEY (agent_no, seq, hash)) WITHOUT ROWID;
        """,
    ),
    (
        "0002-claims",
        """
        -- Which agent metered which entity, from when, up to when; until … NULL: up to its last record.
        CREATE TABLE claims (
            claim_no INTEGER PRIMARY KEY, entity TEXT NOT NULL, agent_no INTEGER NOT NULL,
            boot_id BLOB NOT NULL, since_boot_ns INTEGER NOT NULL, since_unix_ns INTEGER NOT NULL,
            until_boot_id BLOB, until_boot_ns INTEGER, until_unix_ns INTEGER);
        -- The first position whose record was looked at for claims: records of an older flopmeter were not.
        CREATE TABLE claimed (from_position INTEGER PRIMARY KEY);
        INSERT INTO claimed SELECT coalesce(max(position), 0) + 1 FROM records;
        """,
    ),
    (
        "0003-identities",
        """
        CREATE TABLE workloads_now (
            workload_no INTEGER PRIMARY KEY, scope TEXT NOT NULL, kind INTEGER NOT NULL, job TEXT NOT NULL,
            step TEXT NOT NULL, run_label TEXT NOT NULL, user TEXT NOT NULL, dtype TEXT NOT NULL,
            restart INTEGER NOT NULL,
            run TEXT NOT NULL,        -- the run that the rules give it; '' for idle and unattributed
            run_rule TEXT NOT NULL,   -- which rule chose (identity_rules)
            first_unix_ns INTEGER NOT NULL, last_unix_ns INTEGER NOT NULL,
            identities TEXT NOT NULL,  -- all that was seen of who it is: a JSON object, '' for none
            begun_unix_ns INTEGER NOT NULL,  -- start of the window that named it first in the books
            UNIQUE (scope, kind, job, step, run_label, user, dtype, restart, identities));
        INSERT INTO workloads_now SELECT *, '', first_unix_ns FROM workloads;
        DROP TABLE workloads;
        ALTER TABLE workloads_now RENAME TO workloads;
        CREATE INDEX workloads_by_run ON workloads (run);
        -- The rules by which workloads first named from that position on were given their runs; before the first
        -- of them: the stated label, else the job.
        CREATE TABLE identity_rules (
            from_position INTEGER PRIMARY KEY, from_unix_ns INTEGER NOT NULL, digest TEXT NOT NULL,
            text TEXT NOT NULL);
        """,
    ),
    (
        "0004-entries",
        """
        -- What people said of runs: appended, never changed (registry/codec.py says what stands in a row).
        CREATE TABLE entries (
            entry_no INTEGER PRIMARY KEY, unix_ns INTEGER NOT NULL,
            position INTEGER NOT NULL,  -- of the last record in the books when it was said
            who TEXT NOT NULL, why TEXT NOT NULL, statement TEXT NOT NULL,
            prev_hash BLOB NOT NULL, hash BLOB NOT NULL);
        CREATE TRIGGER entries_go_on BEFORE INSERT ON entries
        WHEN NEW.entry_no IS NOT (SELECT coalesce(max(entry_no), 0) + 1 FROM entries)
            OR NEW.prev_hash IS NOT coalesce((SELECT hash FROM entries ORDER BY entry_no DESC LIMIT 1), zeroblob(32))
        BEGIN
            SELECT RAISE(ABORT, 'entries are appended: expected the next number behind the last hash');
        END;
        CREATE TRIGGER entries_stay BEFORE UPDATE ON entries
        BEGIN
            SELECT RAISE(ABORT, 'entries are never changed: append a correction');
        END;
        CREATE TRIGGER entries_are_kept BEFORE DELETE ON entries
        BEGIN
            SELECT RAISE(ABORT, 'entries are never deleted: append a retraction');
        END;
        """,
    ),
    (
        "0005-applied",
        """
        -- Up to which entry runs were judged by what was said, from which position on; entry_no 0: by none.
        CREATE TABLE applied (
            entry_no INTEGER PRIMARY KEY, from_position INTEGER NOT NULL, from_unix_ns INTEGER NOT NULL);
        """,
    ),
    (
        "0006-progress",
        """
        -- What training code claims (law/progress.py): per claimer and hour its latest claim, and what the hour's
        -- tokens are worth. Held against the counters; in no total. Numbers that may pass 63 bits are text.
        CREATE TABLE progress (
            workload_no INTEGER NOT NULL, agent_no INTEGER NOT NULL, hour INTEGER NOT NULL, ranks INTEGER NOT NULL,
            tokens TEXT NOT NULL, parameters TEXT NOT NULL, flop_per_token TEXT NOT NULL, flop TEXT NOT NULL,
            opening_flop TEXT NOT NULL, falls INTEGER NOT NULL, first_unix_ns INTEGER NOT NULL,
            last_unix_ns INTEGER NOT NULL, PRIMARY KEY (workload_no, agent_no, hour)) WITHOUT ROWID;
        -- Settings that events rest on, as they were from a position on.
        CREATE TABLE noted (
            name TEXT NOT NULL, value INTEGER NOT NULL, from_position INTEGER NOT NULL, from_unix_ns INTEGER NOT NULL,
            PRIMARY KEY (name, from_position)) WITHOUT ROWID;
        """,
    ),
    (
        "0007-texts",
        """
        -- Every regime file and counting profile that anything was judged by, as it was: an old verdict is derived
        -- again with the old file.
        CREATE TABLE texts (
            digest TEXT PRIMARY KEY,  -- SHA-256 of the text, hex
            text TEXT NOT NULL, from_unix_ns INTEGER NOT NULL) WITHOUT ROWID;
        CREATE TRIGGER texts_stay BEFORE UPDATE ON texts
        BEGIN
            SELECT RAISE(ABORT, 'texts are never changed: another text has another digest');
        END;
        CREATE TRIGGER texts_are_kept BEFORE DELETE ON texts
        BEGIN
            SELECT RAISE(ABORT, 'texts are never deleted: events were judged by them');
        END;
        -- The site's own files as they were applied: what a start falls back on that finds none that are good.
        CREATE TABLE site_laws (
            law_no INTEGER PRIMARY KEY, from_position INTEGER NOT NULL, from_unix_ns INTEGER NOT NULL,
            files TEXT NOT NULL);  -- JSON: [[name, digest], ...], in order; none: the shipped ones alone
        """,
    ),
    (
        "0008-answers",
        """
        -- What people answered to events and deadlines: appended, never changed (duty/answers.py).
        CREATE TABLE answers (
            answer_no INTEGER PRIMARY KEY, about TEXT NOT NULL, number INTEGER NOT NULL, unix_ns INTEGER NOT NULL,
            position INTEGER NOT NULL,  -- of the last record in the books when it was said
            state TEXT NOT NULL, who TEXT NOT NULL, why TEXT NOT NULL, detail TEXT NOT NULL,
            prev_hash BLOB NOT NULL, hash BLOB NOT NULL);
        CREATE INDEX answers_by_what ON answers (about, number);
        CREATE TRIGGER answers_go_on BEFORE INSERT ON answers
        WHEN NEW.answer_no IS NOT (SELECT coalesce(max(answer_no), 0) + 1 FROM answers)
            OR NEW.prev_hash IS NOT coalesce((SELECT hash FROM answers ORDER BY answer_no DESC LIMIT 1), zeroblob(32))
        BEGIN
            SELECT RAISE(ABORT, 'answers are appended: expected the next number behind the last hash');
        END;
        CREATE TRIGGER answers_stay BEFORE UPDATE ON answers
        BEGIN
            SELECT RAISE(ABORT, 'answers are never changed: append another');
        END;
        CREATE TRIGGER answers_are_kept BEFORE DELETE ON answers
        BEGIN
            SELECT RAISE(ABORT, 'answers are never deleted: append another');
        END;
        -- Each duty with a time: which rule of which text, what set it going, when it is due. What became of it is in
        -- answers. `key` says what is not opened twice; id follows from it.
        CREATE TABLE deadlines (
            deadline_no INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, key TEXT NOT NULL UNIQUE,
            regime TEXT NOT NULL, rule TEXT NOT NULL,
            rule_digest TEXT NOT NULL,  -- of the rule alone (duty/deadlines.py)
            text_digest TEXT NOT NULL,  -- of the regime file it stands in
            subject TEXT NOT NULL,      -- the run; '' for the organisation as a whole
            event_no INTEGER,           -- that set it going; NULL: a person did (answers, about 'incident')
            trigger_unix_ns INTEGER NOT NULL, due_unix_ns INTEGER NOT NULL, timezone TEXT NOT NULL,
            recipient TEXT NOT NULL, act TEXT NOT NULL, what TEXT NOT NULL, opened_unix_ns INTEGER NOT NULL,
            position INTEGER NOT NULL);  -- the collector's clock then, and the last record in the books
        CREATE TRIGGER deadlines_stay BEFORE UPDATE ON deadlines
        BEGIN
            SELECT RAISE(ABORT, 'deadlines are never changed: answer them');
        END;
        CREATE TRIGGER deadlines_are_kept BEFORE DELETE ON deadlines
        BEGIN
            SELECT RAISE(ABORT, 'deadlines are never deleted: answer them');
        END;
        """,
    ),
    (
        "0009-forecasts",
        """
        -- What runs were foreseen to come to: each with the inputs it follows from (forecast/document.py), never changed.
        CREATE TABLE forecasts (
            forecast_no INTEGER PRIMARY KEY, run TEXT NOT NULL, unix_ns INTEGER NOT NULL,
            position INTEGER NOT NULL,  -- of the last record in the books that it rests on
            method TEXT NOT NULL, data TEXT NOT NULL);
        CREATE INDEX forecasts_by_run ON forecasts (run, forecast_no);
        CREATE INDEX forecasts_by_time ON forecasts (unix_ns, run);
        CREATE TRIGGER forecasts_stay BEFORE UPDATE ON forecasts
        BEGIN
            SELECT RAISE(ABORT, 'forecasts are never changed: a new one is made');
        END;
        CREATE TRIGGER forecasts_are_kept BEFORE DELETE ON forecasts
        BEGIN
            SELECT RAISE(ABORT, 'forecasts are never deleted');
        END;
        """,
    ),
    (
        "0010-delivery",
        """
        -- What is handed to which sink: an event (answer_no 0), or what a person answered to it.
        CREATE TABLE outbox_now (
            event_no INTEGER NOT NULL, sink TEXT NOT NULL, answer_no INTEGER NOT NULL DEFAULT 0,
            attempts INTEGER NOT NULL DEFAULT 0,
            refusals INTEGER NOT NULL DEFAULT 0,        -- of the attempts, those that were answered with a no
            first_unix_ns INTEGER,                      -- of the first attempt: from then on it ages
            due_unix_ns INTEGER NOT NULL DEFAULT 0,     -- of the next attempt
            delivered_unix_ns INTEGER,                  -- noted when it was delivered …
            dead_unix_ns INTEGER,                       -- … or when it was put aside
            said TEXT NOT NULL DEFAULT '',              -- what the last failed attempt was answered
            PRIMARY KEY (event_no, sink, answer_no)) WITHOUT ROWID;
        INSERT INTO outbox_now (event_no, sink, attempts, first_unix_ns, delivered_unix_ns)
            SELECT event_no, sink, iif(delivered_unix_ns IS NULL, 0, max(attempts, 1)), delivered_unix_ns,
                delivered_unix_ns FROM outbox;
        DROP TABLE outbox;
        ALTER TABLE outbox_now RENAME TO outbox;
        -- What is still to be delivered, in the order in which it is tried; nothing that was.
        CREATE INDEX outbox_due ON outbox (sink, due_unix_ns, event_no, answer_no)
            WHERE delivered_unix_ns IS NULL AND dead_unix_ns IS NULL;
        CREATE INDEX outbox_dead ON outbox (sink) WHERE dead_unix_ns IS NOT NULL;
        -- Every sink that a collector has served, and up to which answer rows were made for it: those from before
        -- its first start are not its.
        CREATE TABLE sinks (
            sink TEXT PRIMARY KEY, type TEXT NOT NULL, since_unix_ns INTEGER NOT NULL,
            answer_no INTEGER NOT NULL) WITHOUT ROWID;
        """,
    ),
    (
        "0011-holds",
        """
        -- What people said of keeping: legal holds and their release, market dates, the site's own term. Appended,
        -- never changed (retention/words.py).
        CREATE TABLE retention (
            said_no INTEGER PRIMARY KEY, unix_ns INTEGER NOT NULL,
            position INTEGER NOT NULL,  -- of the last record in the books when it was said
            kind TEXT NOT NULL, run TEXT NOT NULL, value TEXT NOT NULL, who TEXT NOT NULL, why TEXT NOT NULL,
            prev_hash BLOB NOT NULL, hash BLOB NOT NULL);
        CREATE TRIGGER retention_goes_on BEFORE INSERT ON retention
        WHEN NEW.said_no IS NOT (SELECT coalesce(max(said_no), 0) + 1 FROM retention)
            OR NEW.prev_hash IS NOT coalesce((SELECT hash FROM retention ORDER BY said_no DESC LIMIT 1), zeroblob(32))
        BEGIN
            SELECT RAISE(ABORT, 'words on keeping are appended: expected the next number behind the last hash');
        END;
        CREATE TRIGGER retention_stays BEFORE UPDATE ON retention
        BEGIN
            SELECT RAISE(ABORT, 'words on keeping are never changed: say another');
        END;
        CREATE TRIGGER retention_is_kept BEFORE DELETE ON retention
        BEGIN
            SELECT RAISE(ABORT, 'words on keeping are never deleted: a hold is released');
        END;
        """,
    ),
    (
        "0012-formerly",
        """
        -- Names that a workload was booked under before better evidence moved it: what people said by them follows
        -- (registry/formerly.py).
        CREATE TABLE formerly (
            workload_no INTEGER NOT NULL, run TEXT NOT NULL, PRIMARY KEY (workload_no, run)) WITHOUT ROWID;
        CREATE INDEX formerly_by_run ON formerly (run);
        -- The first position whose record was looked at for that: an older flopmeter kept no names.
        CREATE TABLE formerly_kept (from_position INTEGER PRIMARY KEY);
        INSERT INTO formerly_kept SELECT coalesce(max(position), 0) + 1 FROM records;
        """,
    ),
    (
        "0013-slots",
        f"""
        -- What a record tells of more than some minutes cannot be divided among the hours that it spans: it stands
        -- under the last of them, with how many it began before (books.Slot). `noted` says from which position on.
        CREATE TABLE hourly_now (hour INTEGER NOT NULL, back INTEGER NOT NULL, {GROUP_COLUMNS}, {SUM_COLUMNS},
            PRIMARY KEY (hour, back, {_GROUP_KEY})) WITHOUT ROWID;
        INSERT INTO hourly_now SELECT hour, 0, {_GROUP_KEY}, {_SUMS} FROM hourly;
        DROP TABLE hourly;
        ALTER TABLE hourly_now RENAME TO hourly;
        CREATE INDEX hourly_by_workload ON hourly (workload_no, hour);
        """,  # noqa: S608
    ),
    ("0014-log", LOG),
    (
        "0015-access",
        """
        -- Who may speak, from when until when, by whose word: appended, never changed (access/rows.py says what
        -- stands in a row).
        CREATE TABLE access (
            access_no INTEGER PRIMARY KEY, unix_ns INTEGER NOT NULL,
            position INTEGER NOT NULL,  -- of the last record in the books then; 0 of what an older store had
            kind TEXT NOT NULL, agent_id BLOB NOT NULL, subject TEXT NOT NULL, detail TEXT NOT NULL,
            prev_hash BLOB NOT NULL, hash BLOB NOT NULL);
        CREATE INDEX access_by_agent ON access (agent_id, access_no);
        CREATE INDEX access_by_subject ON access (subject, access_no);
        -- What a start reads: not the renewals, of which there are two a day and agent.
        CREATE INDEX access_standing ON access (access_no)
            WHERE kind IN ('admitted', 'enrolled', 'revoked', 'key-changed', 'clone-seen');
        CREATE TRIGGER access_goes_on BEFORE INSERT ON access
        WHEN NEW.access_no IS NOT (SELECT coalesce(max(access_no), 0) + 1 FROM access)
            OR NEW.prev_hash IS NOT coalesce((SELECT hash FROM access ORDER BY access_no DESC LIMIT 1), zeroblob(32))
        BEGIN
            SELECT RAISE(ABORT, 'access rows are appended: expected the next number behind the last hash');
        END;
        CREATE TRIGGER access_stays BEFORE UPDATE ON access
        BEGIN
            SELECT RAISE(ABORT, 'access rows are never changed: append another');
        END;
        CREATE TRIGGER access_is_kept BEFORE DELETE ON access
        BEGIN
            SELECT RAISE(ABORT, 'access rows are never deleted: revoke');
        END;
        -- The certificate that each agent was given last, and its place in the sequence: an agent whose answer was
        -- lost gets the same one again. What it is held against is in access.
        CREATE TABLE certificates (
            agent_id BLOB PRIMARY KEY, sequence INTEGER NOT NULL,
            csr_sha256 BLOB NOT NULL, certificate BLOB NOT NULL,  -- DER
            not_after_unix_s INTEGER NOT NULL) WITHOUT ROWID;
        """,
    ),
    (
        "0016-attestations",
        """
        -- What was attested: appended, never changed (attest/said.py). A `record` is what was gathered of a run, logged
        -- before anything is signed; an `issued` is one signed statement about it, logged after. A correction is
        -- another attestation that names the one it supersedes.
        CREATE TABLE attestations (
            attestation_no INTEGER PRIMARY KEY, unix_ns INTEGER NOT NULL,
            position INTEGER NOT NULL,      -- of the last record in the books that it rests on
            kind TEXT NOT NULL,             -- record, issued
            attestation_id TEXT NOT NULL,   -- UUIDv7 of the statement; '' of a record
            commitment TEXT NOT NULL,       -- to the run's names, salted, hex: how the log's leaf calls it
            run TEXT NOT NULL, profile TEXT NOT NULL, recipient TEXT NOT NULL,
            record_digest TEXT NOT NULL,    -- SHA-256 over the salted digests of all fields, hex
            statement_sha256 TEXT NOT NULL, -- of the signed bytes, hex; '' of a record
            supersedes TEXT NOT NULL,       -- the attestation_id that it takes the place of; '' for none
            who TEXT NOT NULL, why TEXT NOT NULL, detail TEXT NOT NULL,
            salt BLOB NOT NULL,             -- in the hash, which leaves the house: names cannot be guessed from it
            prev_hash BLOB NOT NULL, hash BLOB NOT NULL);
        CREATE INDEX attestations_by_id ON attestations (attestation_id);
        CREATE TRIGGER attestations_go_on BEFORE INSERT ON attestations
        WHEN NEW.attestation_no IS NOT (SELECT coalesce(max(attestation_no), 0) + 1 FROM attestations)
            OR NEW.prev_hash IS NOT
                coalesce((SELECT hash FROM attestations ORDER BY attestation_no DESC LIMIT 1), zeroblob(32))
        BEGIN
            SELECT RAISE(ABORT, 'attestations are appended: expected the next number behind the last hash');
        END;
        CREATE TRIGGER attestations_stay BEFORE UPDATE ON attestations
        BEGIN
            SELECT RAISE(ABORT, 'attestations are never changed: issue one that supersedes it');
        END;
        CREATE TRIGGER attestations_are_kept BEFORE DELETE ON attestations
        BEGIN
            SELECT RAISE(ABORT, 'attestations are never deleted: issue one that supersedes it');
        END;
        -- The fields of a record with their salts, so that another view of it can be issued. As secret as the books.
        CREATE TABLE attested (
            attestation_no INTEGER PRIMARY KEY, material TEXT NOT NULL);
        CREATE TRIGGER attested_stay BEFORE UPDATE ON attested
        BEGIN
            SELECT RAISE(ABORT, 'what was attested is never changed');
        END;
        CREATE TRIGGER attested_are_kept BEFORE DELETE ON attested
        BEGIN
            SELECT RAISE(ABORT, 'what was attested is never deleted');
        END;
        """,
    ),
    ("0017-witnesses", WITNESSES),
    ("0018-views", VIEWS),
    (
        "0019-clocks",
        """
        -- How far each agent's wall clock was off when that was last worth keeping (clock_offset.py): the agent's minus
        -- the collector's lies between the two. A diagnosis, on which nothing in the books rests; agents that do not tell
        -- their clock have no row.
        CREATE TABLE clocks (
            agent_no INTEGER PRIMARY KEY, lower_ns INTEGER NOT NULL, upper_ns INTEGER NOT NULL,
            measured_unix_ns INTEGER NOT NULL);  -- by the collector's clock
        """,
    ),
)
