"""Devices in a coordinator's database: who was seen, who may take part, and under which name."""

from __future__ import annotations

import time

from coordinator.database import replacing
from coordinator.store_exchange import ExchangeStore
from coordinator.store_runs import RunStore
from wire.errors import StateError
from wire.federation_messages import Hello

OF_DEVICE = (  # tables and their columns with a device's id
    ("device", "name"),
    ("revoked", "device"),
    ("mask", "device"),
    ("evaluation", "device"),
    ("telemetry", "device"),
    ("told", "device"),
)


OF_HELLO = (  # columns of a device that its hello replaces
    "instance",
    "software",
    "runtime",
    "profile",
    "train_samples",
    "test_samples",
    "key",
    "started",
    "greetings",
    "seen_s",
    "connection",
    "draws",
)


class DeviceStore(RunStore, ExchangeStore):
    """Of a `coordinator.store.Store`."""

    def save_device(self, device: str, hello: Hello) -> None:
        """Remember a device and the instance that speaks for it."""
        values: tuple[object, ...] = (device, hello.instance, hello.software, hello.runtime, hello.profile)
        values += (hello.train_samples, hello.test_samples, hello.key, hello.started, hello.greetings, time.time())
        values += (hello.connection, int(hello.draws))
        with self._writing() as db:
            db.execute(replacing("device", ("name",), OF_HELLO), values)

    def devices(self) -> dict[str, Hello]:
        """Every device ever seen, as it last introduced itself."""
        rows = self._db.execute(
            "SELECT name, instance, software, runtime, profile, train_samples, test_samples, key, started, greetings, "
            "connection, draws FROM device ORDER BY name"
        )
        found = {}
        for row in rows:
            fields = dict(row)
            name, draws = fields.pop("name"), bool(fields.pop("draws"))
            found[name] = Hello(**fields, draws=draws)
        return found

    def mentions(self, device: str) -> bool:
        """Whether anything here is about a device, of whichever run."""
        found = [
            self._db.execute(f"SELECT 1 FROM {table} WHERE {column} = ?", (device,)) for table, column in OF_DEVICE
        ]
        return any(rows.fetchone() is not None for rows in found) or any(
            device in selected for _, _, selected in self._selected()
        )

    def rename_device(self, old: str, new: str) -> None:
        """Call a device otherwise, in every run; what was said in secure aggregation has the old name in it, and stays.

        Raises:
            StateError: if it takes part in secure aggregation of a round that is open, or cannot be written.
        """
        run = self.unfinished_run()
        newest = self.newest_round(run.id) if run else None
        if run and newest and newest.closed_s is None:
            said = self.exchange(run.id, newest.number, self.newest_attempt(run.id, newest.number))
            if any(device == old for device, _, _ in said):
                raise StateError(
                    f"'{old}' takes part in the secure aggregation of round {newest.number}, which is open",
                    where=str(self.place),
                    hint="Try again when the round is closed",
                )
        with self._writing() as db:
            for table, column in OF_DEVICE:
                db.execute(f"UPDATE {table} SET {column} = ? WHERE {column} = ?", (new, old))
            for of, number, selected in self._selected():
                if old in selected:
                    names = ",".join(new if name == old else name for name in selected)
                    db.execute("UPDATE round SET selected = ? WHERE run = ? AND number = ?", (names, of, number))

    def _selected(self) -> list[tuple[bytes, int, list[str]]]:
        """Who was asked, in rounds without secure aggregation, of all runs."""
        rows = self._db.execute(
            "SELECT run, number, selected FROM round WHERE NOT EXISTS "
            "(SELECT 1 FROM exchange WHERE exchange.run = round.run AND exchange.number = round.number)"
        )
        return [(row["run"], row["number"], row["selected"].split(",")) for row in rows]

    def forget_device(self, device: str) -> bool:
        """Let whoever comes next under this id be it, with any key; False if it was not known."""
        with self._writing() as db:
            return db.execute("DELETE FROM device WHERE name = ?", (device,)).rowcount == 1

    def knows(self, device: str) -> bool:
        """Whether a device was ever seen, and not forgotten since."""
        return self._db.execute("SELECT 1 FROM device WHERE name = ?", (device,)).fetchone() is not None

    def revoke(self, device: str) -> bool:
        """The device takes part no more, from the next round on; False if that was so already."""
        with self._writing() as db:
            return (
                db.execute(
                    "INSERT INTO revoked VALUES (?, ?) ON CONFLICT (device) DO NOTHING", (device, time.time())
                ).rowcount
                == 1
            )

    def restore(self, device: str) -> bool:
        """The device may take part again; False if it was not revoked."""
        with self._writing() as db:
            return db.execute("DELETE FROM revoked WHERE device = ?", (device,)).rowcount == 1

    def revoked(self) -> frozenset[str]:
        """Devices that take part no more."""
        return frozenset(row["device"] for row in self._db.execute("SELECT device FROM revoked"))

    def is_revoked(self, device: str) -> bool:
        """Whether a device takes part no more."""
        return self._db.execute("SELECT 1 FROM revoked WHERE device = ?", (device,)).fetchone() is not None
