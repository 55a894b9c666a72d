"""The attestations table, and what records were made of: appended by `flopmeter attest` while a collector runs."""

import sqlite3
from collections.abc import Callable, Iterable
from typing import Any

from flopmeter.collector.attest.said import AttestationRow
from flopmeter.collector.errors import StoreError

from .appending import Appender, blob
from .told import told

_COLUMNS = ", ".join(AttestationRow._fields)
#: All of it, in order.
SELECT = f"SELECT {_COLUMNS} FROM attestations ORDER BY attestation_no"  # noqa: S608
LAST = f"SELECT {_COLUMNS} FROM attestations ORDER BY attestation_no DESC LIMIT 1"  # noqa: S608
INSERT = f"INSERT INTO attestations ({_COLUMNS}) VALUES ({', '.join('?' * len(AttestationRow._fields))})"  # noqa: S608
MATERIAL = "SELECT material FROM attested WHERE attestation_no = ?"
INSERT_MATERIAL = "INSERT INTO attested (attestation_no, material) VALUES (?, ?)"


def attestation_rows(rows: Iterable[Any]) -> list[AttestationRow]:
    """What SELECT or LAST found."""
    return [AttestationRow._make((*r[:15], blob(r[15]), blob(r[16]), blob(r[17]))) for r in rows]


class SqliteAttestations(Appender):
    """The connection of whoever attests. Use as a context manager."""

    @property
    def connection(self) -> sqlite3.Connection:
        """For the evidence log, which appends to the same file."""
        return self._connection

    def attestations(self) -> list[AttestationRow]:
        with told(self._path, "read"):
            return attestation_rows(self._connection.execute(SELECT).fetchall())

    def material(self, attestation_no: int) -> str:
        """What that record was made of. Raises StoreError where there is none."""
        with told(self._path, "read"):
            row = self._connection.execute(MATERIAL, (attestation_no,)).fetchone()
        if row is None:
            raise StoreError(
                f"{self._path}: expected what attestation {attestation_no} was made of, found nothing",
                "see what is wrong with `flopmeter collector fsck`",
            )
        return str(row[0])

    def in_transaction(self, call: Callable[[sqlite3.Connection], object]) -> None:
        """Run `call` with the write lock; durable on return, or nothing of it. Raises StoreError."""
        with self._writing():
            call(self._connection)

    def append_attestation(
        self,
        make: Callable[[AttestationRow | None], tuple[AttestationRow, str]],
        logged: Callable[[sqlite3.Connection], object],
    ) -> AttestationRow:
        """Append the row that `make` returns, and what it was made of ("": nothing); on return both are durable.

        `logged` gives it its place in the evidence log, in the same transaction. Raises StoreError, and whatever the two
        raise: then nothing was appended.
        """
        appended: list[AttestationRow] = []

        def append(connection: sqlite3.Connection) -> None:
            before = attestation_rows(connection.execute(LAST).fetchall())
            row, material = make(before[0] if before else None)
            connection.execute(INSERT, row)
            if material:
                connection.execute(INSERT_MATERIAL, (row.attestation_no, material))
            logged(connection)
            appended.append(row)

        self.in_transaction(append)
        # Nothing was handed out before this line; a crash after it leaves the row of an attestation, and perhaps no file.
        return appended[0]
