"""Migration 0017: what witnesses of the evidence log answered (docs/witness.md)."""

WITNESSES = """
        -- How it stands with each witness that this collector asked: one row a key, written at each answer.
        CREATE TABLE witnesses (
            key_name TEXT NOT NULL, vkey TEXT PRIMARY KEY NOT NULL,
            known_size INTEGER NOT NULL,         -- of the head that it holds, as far as it said; 0: never asked
            cosigned_size INTEGER, cosigned_unix_s INTEGER,  -- of its last cosignature; the time is the witness's
            asked_unix_ns INTEGER NOT NULL,      -- the collector's clock
            error TEXT NOT NULL                  -- of the last answer; '' if it cosigned
        ) WITHOUT ROWID;
        -- Heads of ours that a witness refused because it had cosigned another log in our name: appended, never changed.
        CREATE TABLE refused_heads (
            refusal_no INTEGER PRIMARY KEY, unix_ns INTEGER NOT NULL, key_name TEXT NOT NULL, vkey TEXT NOT NULL,
            status INTEGER NOT NULL,             -- of its answer (C2SP tlog-witness): 409, 422
            size INTEGER NOT NULL, root BLOB NOT NULL CHECK (length(root) = 32),  -- of the head that was refused
            witness_size INTEGER NOT NULL);      -- of the head that it holds
        CREATE TRIGGER refused_heads_go_on BEFORE INSERT ON refused_heads
        WHEN NEW.refusal_no IS NOT (SELECT coalesce(max(refusal_no), 0) + 1 FROM refused_heads)
        BEGIN
            SELECT RAISE(ABORT, 'refusals are appended: expected the next number');
        END;
        CREATE TRIGGER refused_heads_stay BEFORE UPDATE ON refused_heads
        BEGIN
            SELECT RAISE(ABORT, 'what a witness refused is never changed');
        END;
        CREATE TRIGGER refused_heads_are_kept BEFORE DELETE ON refused_heads
        BEGIN
            SELECT RAISE(ABORT, 'what a witness refused is never deleted');
        END;
        """
