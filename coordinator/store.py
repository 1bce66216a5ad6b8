"""All a coordinator must not forget, in one database. What is committed here may be acknowledged."""

from __future__ import annotations

from collections.abc import Iterable

from coordinator.backend import Row
from coordinator.place import Place
from coordinator.schema import SCHEMA, SCHEMA_VERSION, UPGRADES
from coordinator.store_devices import DeviceStore
from coordinator.store_masks import MaskStore


class Store(DeviceStore, MaskStore):
    """The database of one coordinator.

    Args:
        place: its file, or a server.
        make, read_only: as of `Database`.

    Raises:
        DataError, StateError, RuntimeMissing: as `Database`.
    """

    def __init__(self, place: Place, *, make: bool = True, read_only: bool = False) -> None:
        super().__init__(place, SCHEMA, SCHEMA_VERSION, UPGRADES, make=make, read_only=read_only)

    def write_rows(self, sql: str, rows: Iterable[tuple[object, ...]]) -> None:
        """Write all rows, or none; `sql` is a constant of this program."""
        with self._writing() as db:
            db.executemany(sql, rows)

    def query(self, sql: str, *values: object) -> list[Row]:
        """Rows for a report; `sql` is a constant of this program."""
        return self._db.execute(sql, values).fetchall()
