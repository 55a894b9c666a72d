"""Names of runs that begin so, for a shell that completes a word: quick, and never a reason to fail.

Past the readers of report/queries.py, whose import alone takes longer than a person waits for a key. Names that people
declared are of the entries; what people assigned elsewhere is listed by the name that the rules gave it, too.
"""

import sqlite3
import time
from contextlib import closing
from pathlib import Path

from flopmeter.collector.store_path import store_file

MAX_NAMES = 200
DEADLINE_S = 0.5
_STEPS = 10_000  # of SQLite's machine, between two looks at the clock
_LAST = "\U0010ffff"
# The next name behind the last one: one step down the index for each name, however many workloads it has.
_WORKLOADS = """
    WITH RECURSIVE names (run) AS (
        SELECT min(run) FROM workloads WHERE run >= :low AND run > ''
        UNION ALL
        SELECT (SELECT min(run) FROM workloads WHERE run > names.run) FROM names WHERE names.run < :high
    )
    SELECT run FROM names WHERE run IS NOT NULL AND run <= :high LIMIT :most"""
_DECLARED = """
    SELECT DISTINCT json_extract(statement, '$.run') AS run FROM entries
    WHERE run >= :low AND run <= :high ORDER BY run LIMIT :most"""


def names_beginning(store: Path, prefix: str) -> list[str]:
    """At most MAX_NAMES, sorted; none where the store is not there, is busy, or is not one."""
    try:
        file = store_file(store)
        still = not file.with_name(file.name + "-wal").exists()
        uri = f"{file.absolute().as_uri()}?mode=ro{'&immutable=1' if still else ''}"
        end = time.monotonic() + DEADLINE_S
        values = {"low": prefix, "high": prefix + _LAST, "most": MAX_NAMES}
        found: set[str] = set()
        with closing(sqlite3.connect(uri, uri=True, timeout=0.1)) as db:
            db.set_progress_handler(lambda: time.monotonic() > end, _STEPS)
            for sql in (_WORKLOADS, _DECLARED):
                found.update(run for (run,) in db.execute(sql, values) if isinstance(run, str))
        return sorted(found)[:MAX_NAMES]
    except (OSError, sqlite3.Error, ValueError):
        return []
