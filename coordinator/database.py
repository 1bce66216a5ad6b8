"""A database: opened, brought up to date, written to in transactions. What is in it, its user says."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from coordinator import sqlite_file
from coordinator.backend import Backend
from coordinator.place import Place, Server
from wire.errors import DataError, RuntimeMissing, StateError

NONE = "Name the folder of hidenseek serve, or the address of its --store"


class Database:
    """A connection to a database, of one thread.

    Every writing method has committed, to disk, when it returns; inside of `together`, when `together` is left.

    Args:
        place: where it is.
        schema: SQL that makes the tables, as `coordinator.schema` writes it.
        schema_version: of that.
        upgrades: SQL that leads from a version to the next.
        make: make one if there is none.
        read_only: nothing can be written, and nothing is made of one that is missing or of an earlier version.

    Attributes:
        place: where it is.
        committed: told of every commit how many seconds it took.

    Raises:
        DataError: if there is none, and none is to be made.
        StateError: if it is no such database, cannot be reached, or is in use; and by every method if it is gone, or
            its disk is full.
        RuntimeMissing: if it is a server's, and what talks to it is not installed.
    """

    def __init__(
        self,
        place: Place,
        schema: str,
        schema_version: int,
        upgrades: Mapping[int, str],
        *,
        make: bool = True,
        read_only: bool = False,
    ) -> None:
        self.place = place
        self._together = False
        self.committed: Callable[[float], None] = lambda seconds: None
        if not make and isinstance(place, Path) and not place.exists():
            raise DataError(f"no {place.name} in this folder", where=str(place.parent), hint=NONE)
        self._db = _connected(place, read_only)
        try:
            if not make and self._db.version() == 0:
                raise DataError("no coordinator has used this database yet", where=str(place), hint=NONE)
            if not read_only:
                self._bring_up_to_date(schema, schema_version, upgrades)
            version = self._db.version()
            if version != schema_version:
                raise StateError(
                    f"database version {version}, this program writes version {schema_version}",
                    where=str(place),
                    hint="Name another database, or use the program that wrote it",
                )
        except BaseException:
            self._db.close()
            raise

    def _bring_up_to_date(self, schema: str, schema_version: int, upgrades: Mapping[int, str]) -> None:
        version = self._db.version()
        while version == 0 or version in upgrades:
            with self._writing() as db:
                if db.version() == version:  # nobody else has done it meanwhile
                    if version == 0:
                        db.make(schema, schema_version)
                    else:
                        db.make(upgrades[version], version + 1)
            version = self._db.version()

    def claim(self, who: str) -> None:
        """Be the only coordinator at work on it, until it is closed; others that ask are told `who` it is.

        Raises:
            StateError: if there is another; says who.
        """
        self._db.claim(who)

    def close(self) -> None:
        """Give it back."""
        self._db.close()

    @contextmanager
    def together(self) -> Iterator[None]:
        """Commit all that is written inside at once, or nothing of it; what is read inside is what was written.

        A commit waits for the disk, some milliseconds, whatever it holds.
        """
        self._together = True
        try:
            with self._undoing():
                yield
                self._commit()
        finally:
            self._together = False

    @contextmanager
    def unchanging(self) -> Iterator[None]:
        """What is read inside is as it was at one moment, whatever others write meanwhile."""
        with self._undoing():
            self._db.begin_reading()
            yield
            self._db.commit()

    @contextmanager
    def _writing(self) -> Iterator[Backend]:
        with self._undoing():
            if not self._db.in_transaction:
                self._db.begin()
            yield self._db
            if not self._together:
                self._commit()

    def _commit(self) -> None:
        if self._db.in_transaction:
            began_s = time.perf_counter()
            self._db.commit()
            self.committed(time.perf_counter() - began_s)

    @contextmanager
    def _undoing(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._db.rollback()
            raise


def measure(place: Place) -> tuple[int | None, int | None]:
    """Bytes that a database takes, and that are free where it lies; None where nobody can say. From any thread."""
    return sqlite_file.measure(place) if isinstance(place, Path) else _postgres(place).measure(place)


def _connected(place: Place, read_only: bool) -> Backend:
    if isinstance(place, Path):
        return sqlite_file.SqliteFile(place, read_only=read_only)
    backend: Backend = _postgres(place).PostgresServer(place, read_only=read_only)
    return backend


def _postgres(server: Server) -> ModuleType:
    try:
        from coordinator import postgres
    except ImportError as error:
        raise RuntimeMissing(
            f"what talks to PostgreSQL is not installed ({error})",
            where=str(server),
            hint="pip install 'hidenseek[postgres]'",
        ) from error
    return postgres


def marks(count: int) -> str:
    """Places for so many values."""
    return ", ".join("?" * count)


def replacing(table: str, key: Sequence[str], others: Sequence[str]) -> str:
    """SQL that writes a row, in place of the one that has the same key if there is one."""
    changed = ", ".join(f"{column} = excluded.{column}" for column in others)
    return (
        f"INSERT INTO {table} ({', '.join((*key, *others))}) VALUES ({marks(len(key) + len(others))}) "
        f"ON CONFLICT ({', '.join(key)}) DO UPDATE SET {changed}"
    )
