"""Values and rows of PostgreSQL as SQLite has them.

Source: https://www.psycopg.org/psycopg3/docs/advanced/adapt.html
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, ClassVar

import psycopg
from psycopg.types.numeric import NumericBinaryLoader
from psycopg.types.string import StrDumper


class PostgresRow(tuple[Any, ...]):
    """Values by place and by name, as `sqlite3.Row`."""

    names: ClassVar[Mapping[str, int]]

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(self.names[key] if isinstance(key, str) else key)

    def keys(self) -> Iterable[str]:
        """Names of the columns, in order."""
        return self.names.keys()


class Number(NumericBinaryLoader):
    """Sums of whole numbers are whole, and all else is a float, as SQLite says it."""

    def load(self, data: Any) -> Any:
        """See psycopg's."""
        value = super().load(data)
        return int(value) if value.as_tuple().exponent == 0 else float(value)


class Text(StrDumper):
    """A device may call itself anything; PostgreSQL takes all characters but one."""

    def dump(self, obj: str) -> Any:
        """See psycopg's."""
        return super().dump(obj.replace("\0", "\N{REPLACEMENT CHARACTER}"))


def rows(cursor: psycopg.Cursor[Any]) -> Callable[[Sequence[Any]], PostgresRow]:
    """What makes rows of values, for psycopg."""
    return _row_type(tuple(column.name for column in cursor.description or ()))


@lru_cache(maxsize=256)
def _row_type(names: tuple[str, ...]) -> type[PostgresRow]:
    return type("PostgresRow", (PostgresRow,), {"names": {name: place for place, name in enumerate(names)}})
