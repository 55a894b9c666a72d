"""The evidence log of a store made anew over what is in it now: what somebody does who may write the file, and has no key."""

import sqlite3
from pathlib import Path

from flopmeter.collector.log.append import Appender


def relog(path: Path) -> None:
    """Give every row its leaf again, from index 0 on. Heads that were signed stay as they are."""
    db = sqlite3.connect(path, isolation_level=None)
    stay = db.execute("SELECT sql FROM sqlite_master WHERE name = 'log_is_kept'").fetchone()[0]
    db.execute("BEGIN IMMEDIATE")
    db.execute("DROP TRIGGER log_is_kept")
    db.execute("DELETE FROM log")
    db.execute(stay)
    Appender(db).append()
    db.execute("COMMIT")
    db.close()
