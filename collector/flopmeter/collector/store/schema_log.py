"""Migration 0014: the evidence log (docs/evidence-log.md). In a file of its own for its length."""

LOG = """
        -- What runs are judged by, each time that it changed: the row of `judged` as it then became.
        CREATE TABLE law_changes (
            change_no INTEGER PRIMARY KEY, regime TEXT NOT NULL, digest TEXT NOT NULL, w_table TEXT NOT NULL,
            from_position INTEGER NOT NULL, from_unix_ns INTEGER NOT NULL, until_position INTEGER);
        INSERT INTO law_changes (regime, digest, w_table, from_position, from_unix_ns)
            SELECT regime, digest, w_table, from_position, from_unix_ns FROM judged
            ORDER BY from_position, from_unix_ns, regime, digest, w_table;
        INSERT INTO law_changes (regime, digest, w_table, from_position, from_unix_ns, until_position)
            SELECT regime, digest, w_table, from_position, from_unix_ns, until_position FROM judged
            WHERE until_position IS NOT NULL
            ORDER BY until_position, from_position, from_unix_ns, regime, digest, w_table;
        CREATE TRIGGER judged_begins AFTER INSERT ON judged
        BEGIN
            INSERT INTO law_changes (regime, digest, w_table, from_position, from_unix_ns, until_position) VALUES
                (NEW.regime, NEW.digest, NEW.w_table, NEW.from_position, NEW.from_unix_ns, NEW.until_position);
        END;
        CREATE TRIGGER judged_ends AFTER UPDATE ON judged
        BEGIN
            INSERT INTO law_changes (regime, digest, w_table, from_position, from_unix_ns, until_position) VALUES
                (NEW.regime, NEW.digest, NEW.w_table, NEW.from_position, NEW.from_unix_ns, NEW.until_position);
        END;
        CREATE TRIGGER law_changes_stay BEFORE UPDATE ON law_changes
        BEGIN
            SELECT RAISE(ABORT, 'changes of the law are never changed');
        END;
        CREATE TRIGGER law_changes_are_kept BEFORE DELETE ON law_changes
        BEGIN
            SELECT RAISE(ABORT, 'changes of the law are never deleted');
        END;
        -- The leaves of the evidence log (log/entry.py): one row for all of a kind that a transaction appended, with
        -- consecutive numbers of their table. Their indexes count from first_index, without holes over all rows.
        CREATE TABLE log (
            first_index INTEGER PRIMARY KEY, kind TEXT NOT NULL, first_number INTEGER NOT NULL,
            count INTEGER NOT NULL CHECK (count > 0),
            hashes BLOB NOT NULL CHECK (length(hashes) = 32 * count));  -- of the leaves (RFC 6962), 32 bytes each
        CREATE UNIQUE INDEX log_by_number ON log (kind, first_number, count);
        CREATE TRIGGER log_goes_on BEFORE INSERT ON log
        WHEN NEW.first_index IS NOT
                coalesce((SELECT first_index + count FROM log ORDER BY first_index DESC LIMIT 1), 0)
            OR NEW.first_number IS NOT coalesce(
                (SELECT first_number + count FROM log WHERE kind = NEW.kind ORDER BY first_number DESC LIMIT 1), 1)
        BEGIN
            SELECT RAISE(ABORT, 'the log is appended: expected the next index, and the next number of its kind');
        END;
        CREATE TRIGGER log_stays BEFORE UPDATE ON log
        BEGIN
            SELECT RAISE(ABORT, 'the log is never changed');
        END;
        CREATE TRIGGER log_is_kept BEFORE DELETE ON log
        BEGIN
            SELECT RAISE(ABORT, 'the log is never deleted');
        END;
        -- Hashes of whole subtrees, 256 to a full tile (C2SP tlog-tiles): hash i of tile n of level l is the root over
        -- 256^l leaves from (256 n + i) 256^l on. Level 0 is `log`. Only what a signed checkpoint covers.
        CREATE TABLE tiles (
            level INTEGER NOT NULL CHECK (level > 0), number INTEGER NOT NULL,
            hashes BLOB NOT NULL CHECK (length(hashes) % 32 = 0 AND length(hashes) BETWEEN 32 AND 8192),
            PRIMARY KEY (level, number)) WITHOUT ROWID;
        CREATE TRIGGER tiles_go_on BEFORE UPDATE ON tiles
        WHEN NEW.level IS NOT OLD.level OR NEW.number IS NOT OLD.number
            OR substr(NEW.hashes, 1, length(OLD.hashes)) IS NOT OLD.hashes
        BEGIN
            SELECT RAISE(ABORT, 'a tile only grows');
        END;
        CREATE TRIGGER tiles_are_kept BEFORE DELETE ON tiles
        BEGIN
            SELECT RAISE(ABORT, 'tiles are never deleted');
        END;
        -- The log's signed heads, each persisted before anybody saw it (log/checkpoint.py).
        CREATE TABLE checkpoints (
            checkpoint_no INTEGER PRIMARY KEY, size INTEGER NOT NULL, root BLOB NOT NULL CHECK (length(root) = 32),
            unix_ns INTEGER NOT NULL,  -- the collector's clock when it was signed
            note TEXT NOT NULL);       -- the signed note, without cosignatures
        CREATE UNIQUE INDEX checkpoints_by_size ON checkpoints (size);
        CREATE TRIGGER checkpoints_go_on BEFORE INSERT ON checkpoints
        WHEN NEW.checkpoint_no IS NOT (SELECT coalesce(max(checkpoint_no), 0) + 1 FROM checkpoints)
            OR NEW.size <= (SELECT size FROM checkpoints ORDER BY checkpoint_no DESC LIMIT 1)
        BEGIN
            SELECT RAISE(ABORT, 'checkpoints go on: expected the next number and a larger size');
        END;
        CREATE TRIGGER checkpoints_stay BEFORE UPDATE ON checkpoints
        BEGIN
            SELECT RAISE(ABORT, 'checkpoints are never changed');
        END;
        CREATE TRIGGER checkpoints_are_kept BEFORE DELETE ON checkpoints
        BEGIN
            SELECT RAISE(ABORT, 'checkpoints are never deleted');
        END;
        -- What witnesses put under a checkpoint: a signature line of the note each.
        CREATE TABLE cosignatures (
            checkpoint_no INTEGER NOT NULL, key_name TEXT NOT NULL,
            line TEXT NOT NULL,  -- with its key's id, without the end of line
            unix_ns INTEGER NOT NULL,  -- the collector's clock when it came
            PRIMARY KEY (checkpoint_no, key_name, line)) WITHOUT ROWID;
        -- What timestamp authorities (RFC 3161) said of a checkpoint's note.
        CREATE TABLE timestamps (
            checkpoint_no INTEGER NOT NULL, tsa TEXT NOT NULL, token BLOB NOT NULL,
            unix_ns INTEGER NOT NULL, PRIMARY KEY (checkpoint_no, tsa)) WITHOUT ROWID;
        -- Contradictions that were found when a head was to be signed, and was not: each is an event.
        CREATE TABLE log_faults (
            fault_no INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE,  -- of its event
            unix_ns INTEGER NOT NULL, said TEXT NOT NULL);
        CREATE TRIGGER log_faults_stay BEFORE UPDATE ON log_faults
        BEGIN
            SELECT RAISE(ABORT, 'what was found is never changed');
        END;
        CREATE TRIGGER log_faults_are_kept BEFORE DELETE ON log_faults
        BEGIN
            SELECT RAISE(ABORT, 'what was found is never deleted');
        END;
        -- Whose log it is. The salt is made with the first leaf; the name and key with the first checkpoint.
        CREATE TABLE log_identity (
            one INTEGER PRIMARY KEY CHECK (one = 1), salt BLOB NOT NULL CHECK (length(salt) = 32),
            origin TEXT, vkey TEXT);
        CREATE TRIGGER log_identity_stays BEFORE UPDATE ON log_identity
        WHEN NEW.salt IS NOT OLD.salt OR OLD.origin IS NOT NULL
        BEGIN
            SELECT RAISE(ABORT, 'a log keeps its name, its key and its salt');
        END;
        CREATE TRIGGER log_identity_is_kept BEFORE DELETE ON log_identity
        BEGIN
            SELECT RAISE(ABORT, 'a log keeps its name, its key and its salt');
        END;
        """
