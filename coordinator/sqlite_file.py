"""SQLite as a `Backend`: one file (WAL), for processes of one machine."""

from __future__ import annotations

import fcntl
import shutil
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from wire.errors import StateError

WAIT_S = 2.0  # for another process that writes


class SqliteFile:
    """A database in a file.

    Args:
        path: made if there is none.
        read_only: nothing can be written, and no file is made.

    Raises:
        StateError: if it is no database, or cannot be opened.
    """

    row_id = "rowid"

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self._path = path
        self._claimed: IO[str] | None = None
        try:
            if read_only:
                address = f"{path.resolve().as_uri()}?mode=ro"
                self._db = sqlite3.connect(address, uri=True, isolation_level=None, timeout=WAIT_S)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._db = sqlite3.connect(path, isolation_level=None, timeout=WAIT_S)
                self._db.execute("PRAGMA journal_mode = WAL")
                self._db.execute("PRAGMA synchronous = FULL")
            self._db.row_factory = sqlite3.Row
            self.version()
        except sqlite3.Error as error:
            raise StateError(f"no usable database ({error})", where=str(path)) from error

    @property
    def in_transaction(self) -> bool:
        """See `Backend`; a full disk ends one."""
        return self._db.in_transaction

    def version(self) -> int:
        """See `Backend`."""
        return int(self._db.execute("PRAGMA user_version").fetchone()[0])

    def make(self, tables: str, version: int) -> None:
        """See `Backend`."""
        for statement in _statements(tables):
            self.execute(statement)
        self.execute(f"PRAGMA user_version = {version}")

    def execute(self, sql: str, values: Sequence[object] = ()) -> sqlite3.Cursor:
        """See `Backend`."""
        with self._telling("read" if sql.startswith("SELECT") else "written"):
            return self._db.execute(sql, values)

    def executemany(self, sql: str, rows: Iterable[Sequence[object]]) -> object:
        """See `Backend`."""
        with self._telling():
            return self._db.executemany(sql, rows)

    def begin(self) -> None:
        """See `Backend`."""
        self.execute("BEGIN IMMEDIATE")

    def begin_reading(self) -> None:
        """See `Backend`."""
        self.execute("BEGIN")

    def commit(self) -> None:
        """See `Backend`."""
        self.execute("COMMIT")

    def rollback(self) -> None:
        """See `Backend`."""
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")

    def claim(self, who: str) -> None:
        """See `Backend`: a lock on a file beside it, which the kernel lifts when the process is gone."""
        path = self._path.with_name(f"{self._path.name}.lock")
        try:
            file = path.open("a+")
        except OSError as error:
            raise StateError(f"cannot be used ({error.strerror})", where=str(path)) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            with file:
                file.seek(0)
                holder = file.read(200)
            raise StateError(
                f"another coordinator is at work on it: {holder or 'it does not say who'}",
                where=str(self._path),
                hint="Stop it first, or give this one a folder of its own with --state DIR",
            ) from error
        self._claimed = file
        file.truncate(0)
        file.write(who)
        file.flush()

    def close(self) -> None:
        """See `Backend`."""
        self._db.close()
        if self._claimed is not None:
            self._claimed.close()

    @contextmanager
    def _telling(self, cannot_be: str = "written") -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            hint = "Make room on that disk, then start again: a run goes on where it stopped"
            raise StateError(f"cannot be {cannot_be} ({error})", where=str(self._path), hint=hint) from error


def _statements(script: str) -> Iterator[str]:
    """One by one: `executescript` would commit what is open."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
    assert not statement.strip(), "a schema ends with a semicolon"


def measure(path: Path) -> tuple[int, int | None]:
    """Bytes of the file and its log, and how many are free on its disk; None if nobody can say."""
    files = (path, path.with_name(f"{path.name}-wal"))
    try:
        free = shutil.disk_usage(path.parent).free
    except OSError:  # somebody has removed the folder
        free = None
    return sum(file.stat().st_size for file in files if file.exists()), free
