"""The evidence log of a store made anew over what is in it now: what somebody does who may write the file, and has no key."""

import sqlite3
from pathlib import Path

from flopmeter.collector.log.append import Appender
from flopmeter.collector.log.entry import BY_NAME


def relog(path: Path, first: str = "") -> None:
    """Give every row its leaf again, from index 0 on, those of the kind `first` before all. Signed heads stay as they are."""
    db = sqlite3.connect(path, isolation_level=None)
    stay = db.execute("SELECT sql FROM sqlite_master WHERE name = 'log_is_kept'").fetchone()[0]
    db.execute("BEGIN IMMEDIATE")
    db.execute("DROP TRIGGER log_is_kept")
    db.execute("DELETE FROM log")
    db.execute(stay)
    if first:
        Appender(db).append(kinds=(BY_NAME[first],))
    Appender(db).append()
    db.execute("COMMIT")
    db.close()
