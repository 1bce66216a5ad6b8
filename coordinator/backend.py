"""What a database is asked for, whichever it is: SQL that both SQLite and PostgreSQL read, `?` where a value goes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol


class Row(Protocol):
    """Values by place and by name."""

    def __getitem__(self, key: Any) -> Any: ...
    def __iter__(self) -> Iterator[Any]: ...
    def keys(self) -> Iterable[str]:
        """Names of the columns, in order."""


class Cursor(Protocol):
    """What a statement has found or changed."""

    @property
    def rowcount(self) -> int:
        """Rows that were changed."""

    def __iter__(self) -> Iterator[Row]: ...

    def fetchone(self) -> Any:
        """The next row that was found; None after the last."""

    def fetchall(self) -> list[Any]:
        """All that are left."""


class Backend(Protocol):
    """One connection to a database. Of all that write, one does at a time; the others wait two seconds for it.

    Whatever it cannot do raises StateError, but for a row that breaks a rule of its table.

    Attributes:
        row_id: the column that every table has for where a row lies.
    """

    row_id: str

    @property
    def in_transaction(self) -> bool:
        """Whether something waits to be committed."""

    def version(self) -> int:
        """Of the tables; 0 if there are none."""

    def make(self, tables: str, version: int) -> None:
        """Make or change tables, in the transaction that is open, which makes them that version."""

    def execute(self, sql: str, values: Sequence[object] = ()) -> Cursor:
        """Run a statement."""

    def executemany(self, sql: str, rows: Iterable[Sequence[object]]) -> object:
        """Run it for each row of values."""

    def begin(self) -> None:
        """Open a transaction, as the only one that writes."""

    def begin_reading(self) -> None:
        """Open a transaction that sees one state of all, and hinders nobody."""

    def commit(self) -> None:
        """To disk."""

    def rollback(self) -> None:
        """As if it had not begun; of a transaction that has ended by itself, nothing."""

    def claim(self, who: str) -> None:
        """Be the only one to claim this database until it is closed, or this process ends, however it does.

        Args:
            who: told to the others.

        Raises:
            StateError: if another has claimed it; says who.
        """

    def close(self) -> None:
        """Give it back."""
