"""One SQLite file (WAL): opened, brought up to date, written to in transactions. What is in it, its user says."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from wire.errors import StateError


class Database:
    """A database of one process.

    Every writing method has committed, to disk, when it returns; inside of `together`, when `together` is left.

    Args:
        path: its file; made if there is none.
        schema: SQL that makes the tables.
        schema_version: of that.
        upgrades: SQL that leads from a version to the next.
        read_only: nothing can be written, and nothing is made of a file that is missing or of an earlier version.

    Attributes:
        path: its file.
        committed: told of every commit how many seconds it took.

    Raises:
        StateError: if the file is no such database, or is in use; and by every writing method if the disk is full.
    """

    def __init__(
        self, path: Path, schema: str, schema_version: int, upgrades: Mapping[int, str], *, read_only: bool = False
    ) -> None:
        self.path = path
        self._together = False
        self.committed: Callable[[float], None] = lambda seconds: None
        try:
            if read_only:
                self._db = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=2.0)
                self._db.row_factory = sqlite3.Row
                (version,) = self._db.execute("PRAGMA user_version").fetchone()
            else:
                version = self._open_for_writing(schema, schema_version, upgrades)
        except sqlite3.Error as error:
            raise StateError(f"no usable database ({error})", where=str(path)) from error
        if version != schema_version:
            self._db.close()
            raise StateError(
                f"database version {version}, this program writes version {schema_version}",
                where=str(path),
                hint="Name another folder with --state, or use the program that wrote it",
            )

    def _open_for_writing(self, schema: str, schema_version: int, upgrades: Mapping[int, str]) -> int:
        """Open the file, made or brought up to date if need be; its version."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(self.path, isolation_level=None, timeout=2.0)
        self._db.row_factory = sqlite3.Row
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        version: int = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            self._db.executescript(f"BEGIN; {schema} PRAGMA user_version = {schema_version}; COMMIT;")
            version = schema_version
        while version in upgrades:
            self._db.executescript(f"BEGIN; {upgrades[version]} PRAGMA user_version = {version + 1}; COMMIT;")
            version += 1
        return version

    def close(self) -> None:
        """Give the file back."""
        self._db.close()

    @contextmanager
    def together(self) -> Iterator[None]:
        """Commit all that is written inside at once, or nothing of it; what is read inside is what was written.

        A commit waits for the disk, some milliseconds, whatever it holds.
        """
        self._together = True
        try:
            with self._failing():
                yield
                self._commit()
        finally:
            self._together = False

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._failing():
            if not self._db.in_transaction:
                self._db.execute("BEGIN IMMEDIATE")
            yield self._db
            if not self._together:
                self._commit()

    def _commit(self) -> None:
        if self._db.in_transaction:
            began_s = time.perf_counter()
            self._db.execute("COMMIT")
            self.committed(time.perf_counter() - began_s)

    @contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            self._undo()
            hint = "Make room on that disk, then start again: a run goes on where it stopped"
            raise StateError(f"cannot be written ({error})", where=str(self.path), hint=hint) from error
        except BaseException:
            self._undo()
            raise

    def _undo(self) -> None:
        if self._db.in_transaction:  # a full disk has ended it already
            self._db.execute("ROLLBACK")
