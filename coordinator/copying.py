"""A coordinator's database copied into another, whatever kind each is: backups, and moving to a server or from it."""

from __future__ import annotations

from collections.abc import Iterator

from coordinator.backend import Row
from coordinator.database import marks
from coordinator.store import Store
from coordinator.store_runs import OF_RUN
from wire.errors import StateError

WHOLE = ("run", "amended", "device", "revoked", "paused", "next_run")  # at once
BY_ROUND = tuple(table for table in OF_RUN if table not in WHOLE)


def copy(source: Store, target: Store) -> None:
    """Copy all of one database, as it is at one moment, into an empty one; all or nothing.

    A round's rows are in memory at a time. Others may write to the source meanwhile.

    Raises:
        StateError: if something is in the target already, or either cannot be used.
    """
    check_empty(target)
    with source.unchanging(), target.together():
        for table, rows in _read(source):
            if rows:
                columns = list(rows[0].keys())
                sql = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks(len(columns))})"
                target.write_rows(sql, [tuple(row) for row in rows])


def check_empty(target: Store) -> None:
    """See that there is nothing to mix with; raises StateError."""
    if any(target.query(f"SELECT 1 FROM {table} LIMIT 1") for table in WHOLE):
        raise StateError("there is another coordinator's already", where=str(target.place), hint="Name an empty one")


def _read(source: Store) -> Iterator[tuple[str, list[Row]]]:
    for table in WHOLE:
        yield table, source.query(f"SELECT * FROM {table}")
    for table in BY_ROUND:
        for run, number in source.query(f"SELECT DISTINCT run, number FROM {table} ORDER BY run, number"):
            yield table, source.query(f"SELECT * FROM {table} WHERE run = ? AND number = ?", run, number)
