"""A sqlite3 connection that fails where it is told to: before or after the statement took effect."""

import sqlite3
from collections.abc import Callable
from typing import Any

BEGIN, COMMIT = "BEGIN IMMEDIATE", "COMMIT"


class Crash(BaseException):
    """The process dies here. Not an Exception, so that nothing catches it and carries on."""


class Faults:
    """The plan: the statement that begins with `at` fails once, `before` or after it took effect."""

    def __init__(self) -> None:
        self.at = ""
        self.before = True
        self.skip = 0
        self.error: BaseException | None = None
        self.seen: list[str] = []

    def plan(self, at: str, *, before: bool, error: BaseException | None = None, skip: int = 0) -> None:
        """`skip`: so many such statements work before one fails."""
        self.at, self.before, self.skip = at, before, skip
        self.error = error or sqlite3.OperationalError("database or disk is full")

    def around(self, sql: str, run: Callable[[], Any]) -> Any:
        self.seen.append(sql)
        hit = self.error is not None and sql.startswith(self.at)
        if hit and self.skip:
            self.skip, hit = self.skip - 1, False
        error = self.error
        if not hit:
            return run()
        assert error is not None
        self.error = None
        if not self.before:
            run()
        raise error

    def connect(self, *args: Any, **kwargs: Any) -> sqlite3.Connection:
        """In place of sqlite3.connect."""
        faults = self

        class Connection(sqlite3.Connection):
            def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
                found: sqlite3.Cursor = faults.around(
                    sql, lambda: sqlite3.Connection.execute(self, sql, *values)
                )
                return found

            def executemany(self, sql: str, *values: Any) -> sqlite3.Cursor:
                found: sqlite3.Cursor = faults.around(
                    sql, lambda: sqlite3.Connection.executemany(self, sql, *values)
                )
                return found

        return sqlite3.connect(*args, factory=Connection, **kwargs)
