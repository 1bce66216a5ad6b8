"""All a coordinator must not forget: one SQLite file (WAL). What is committed here may be acknowledged."""

from __future__ import annotations

import secrets
import sqlite3
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from coordinator.database import Database
from coordinator.schema import SCHEMA, SCHEMA_VERSION, UPGRADES
from wire.errors import StateError
from wire.messages import Evaluation, Hello, MaskUpdate

# Tables whose rows are a run's.
OF_RUN = ("round", "mask", "evaluation", "held_out", "telemetry", "exchange", "told", "partial")
OF_DEVICE = (  # tables and their columns with a device's id
    ("device", "name"),
    ("revoked", "device"),
    ("mask", "device"),
    ("evaluation", "device"),
    ("telemetry", "device"),
    ("told", "device"),
)


@dataclass(frozen=True, kw_only=True)
class StoredRun:
    """A run as it was started."""

    id: bytes
    name: str
    ticket: bytes
    settings: str
    started_s: float
    finished_s: float | None
    bundle_bytes: int


@dataclass(frozen=True, kw_only=True)
class StoredRound:
    """A round as it was last announced."""

    number: int
    selected: tuple[str, ...]
    votes: bytes
    announced_bytes: int
    opened_s: float
    closed_s: float | None


@dataclass(frozen=True, kw_only=True)
class StoredMask:
    """A device's mask.

    Attributes:
        device: whose.
        number: the round whose votes it was trained from.
        counted: the round it is a vote in; a later one only where masks may be late (`coordinator.steps`).
        signs: coded in the context of the votes announced with round `number`; empty if a worker has added it up.
    """

    device: str
    number: int
    counted: int
    signs: bytes


class Store(Database):
    """The database of one coordinator.

    Args:
        path: its file.
        read_only: as of `Database`.

    Raises:
        StateError: as `Database`.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        super().__init__(path, SCHEMA, SCHEMA_VERSION, UPGRADES, read_only=read_only)

    def start_run(self, *, run: bytes, name: str, ticket: bytes, settings: str, bundle_bytes: int) -> None:
        """Write down a new run; it begins after all others, even if the clock was set back."""
        with self._writing() as db:
            (newest,) = db.execute("SELECT coalesce(max(started_s), 0) FROM run").fetchone()
            db.execute(
                "INSERT INTO run VALUES (?, ?, ?, ?, ?, NULL, ?)",
                (run, name, ticket, settings, max(time.time(), newest + 1), bundle_bytes),
            )

    def renew_run(self) -> None:
        """Let an unfinished run go on as another, which devices take for a new one: they know more of it than this.

        What was said in the secure aggregation of the round that is open is dropped: its keys were for the old run.
        """
        known = self.unfinished_run()
        if known is None:
            return
        run, newest = secrets.token_bytes(len(known.id)), self.newest_round(known.id)
        with self._writing() as db:
            for table in ("exchange", "told"):
                db.execute(
                    f"DELETE FROM {table} WHERE run = ? AND number = ?", (known.id, newest.number if newest else 0)
                )
            for table in OF_RUN:
                db.execute(f"UPDATE {table} SET run = ? WHERE run = ?", (run, known.id))
            later_s = max(time.time(), known.started_s + 1)
            db.execute("UPDATE run SET id = ?, started_s = ? WHERE id = ?", (run, later_s, known.id))

    def unfinished_run(self) -> StoredRun | None:
        """The newest run that is not over, whatever the clock said when it began."""
        return self._run("finished_s IS NULL")

    def newest_run(self) -> StoredRun | None:
        """The newest run of all."""
        return self._run("TRUE")

    def runs(self) -> list[StoredRun]:
        """Every run, the newest first."""
        return [StoredRun(**dict(row)) for row in self._db.execute("SELECT * FROM run ORDER BY rowid DESC")]

    def _run(self, condition: str) -> StoredRun | None:
        row = self._db.execute(f"SELECT * FROM run WHERE {condition} ORDER BY rowid DESC LIMIT 1").fetchone()
        return StoredRun(**dict(row)) if row else None

    def finish_run(self, run: bytes) -> None:
        """The run is over."""
        with self._writing() as db:
            db.execute("UPDATE run SET finished_s = ? WHERE id = ?", (time.time(), run))

    def delete_rows(self, table: str, run: bytes, most: int) -> int:
        """Delete so many rows of a run from one of the tables `OF_RUN`, at most; how many there were."""
        with self._writing() as db:
            chosen = f"SELECT rowid FROM {table} WHERE run = ? LIMIT ?"
            return db.execute(f"DELETE FROM {table} WHERE rowid IN ({chosen})", (run, most)).rowcount

    def delete_run(self, run: bytes) -> None:
        """Delete a finished run, all of whose rows are gone."""
        with self._writing() as db:
            db.execute("DELETE FROM run WHERE id = ? AND finished_s IS NOT NULL", (run,))

    def open_round(self, run: bytes, number: int, selected: tuple[str, ...], votes: bytes) -> None:
        """Write down a round before it is announced, or more devices for one that is open."""
        with self._writing() as db:
            db.execute(
                "INSERT INTO round VALUES (?, ?, ?, ?, 0, ?, NULL) "
                "ON CONFLICT (run, number) DO UPDATE SET selected = excluded.selected",
                (run, number, ",".join(selected), votes, time.time()),
            )

    def add_announced_bytes(self, run: bytes, number: int, payload_bytes: int) -> None:
        """Count what one device received for a round's announcements."""
        with self._writing() as db:
            db.execute(
                "UPDATE round SET announced_bytes = announced_bytes + ? WHERE run = ? AND number = ?",
                (payload_bytes, run, number),
            )

    def close_round(self, run: bytes, number: int) -> None:
        """The round takes no more masks."""
        with self._writing() as db:
            db.execute("UPDATE round SET closed_s = ? WHERE run = ? AND number = ?", (time.time(), run, number))

    def rounds(self, run: bytes) -> list[StoredRound]:
        """Every round of a run, in order; the final announcement is the last one after all rounds."""
        return self._rounds("run = ? ORDER BY number", run)

    def round(self, run: bytes, number: int) -> StoredRound | None:
        """One of them; None if it was not announced."""
        found = self._rounds("run = ? AND number = ?", run, number)
        return found[0] if found else None

    def newest_round(self, run: bytes) -> StoredRound | None:
        """The one announced last; None before the first."""
        found = self._rounds("run = ? ORDER BY number DESC LIMIT 1", run)
        return found[0] if found else None

    def _rounds(self, condition: str, *values: object) -> list[StoredRound]:
        columns = "number, selected, votes, announced_bytes, opened_s, closed_s"
        rows = self._db.execute(f"SELECT {columns} FROM round WHERE {condition}", values)
        return [
            StoredRound(**{**dict(row), "selected": tuple(filter(None, row["selected"].split(",")))}) for row in rows
        ]

    def add_mask(
        self, device: str, update: MaskUpdate, payload_bytes: int, receipt_bytes: int, counted: int | None = None
    ) -> bool:
        """Keep a mask; False if this device's mask for the round is there already (the first one counts).

        Args:
            device: whose.
            update: the mask.
            payload_bytes: of it.
            receipt_bytes: of what confirms it.
            counted: the round it is a vote in, of which a device has one; the mask's own if not given.
        """
        values: tuple[object, ...] = (
            update.run,
            update.number,
            device,
            update.signs,
            update.train_samples,
            update.loss,
            update.correct,
        )
        values += (
            update.test_samples,
            update.train_s,
            update.step_ms,
            update.peak_memory_kb,
            payload_bytes,
            receipt_bytes,
            time.time(),
            update.number if counted is None else counted,
        )
        known = "ON CONFLICT (run, number, device) DO NOTHING"  # a second vote in one round is an error, not this
        with self._writing() as db:
            return db.execute(f"INSERT INTO mask VALUES ({_marks(15)}) {known}", values).rowcount == 1

    def has_mask(self, run: bytes, number: int, device: str) -> bool:
        """Whether a device's mask for a round is kept."""
        values = (run, number, device)
        found = self._db.execute("SELECT 1 FROM mask WHERE run = ? AND number = ? AND device = ?", values)
        return found.fetchone() is not None

    def votes_in(self, run: bytes, number: int, *, later: bool = False) -> list[StoredMask]:
        """The masks that are votes in a round (or in it and later ones), in order of round and device id."""
        rows = self._db.execute(
            f"SELECT device, number, counted, signs FROM mask WHERE run = ? AND counted {'>=' if later else '='} ? "
            "ORDER BY counted, device",
            (run, number),
        )
        return [StoredMask(**dict(row)) for row in rows]

    def add_partial(self, run: bytes, number: int, worker: str, batch: bytes, votes: bytes, payload_bytes: int) -> None:
        """Keep what a worker's masks add up to; the masks themselves are kept by `add_mask`."""
        with self._writing() as db:
            values = (run, number, worker, batch, votes, payload_bytes)
            db.execute(f"INSERT INTO partial VALUES ({_marks(6)})", values)

    def has_partial(self, run: bytes, worker: str, batch: bytes) -> bool:
        """Whether this was kept."""
        values = (run, worker, batch)
        found = self._db.execute("SELECT 1 FROM partial WHERE run = ? AND worker = ? AND batch = ?", values)
        return found.fetchone() is not None

    def partials(self, run: bytes, number: int) -> list[bytes]:
        """What workers have added up for a round: coded votes, in the context of those announced with it."""
        rows = self._db.execute(
            "SELECT votes FROM partial WHERE run = ? AND number = ? AND votes != x'' ORDER BY worker, batch",
            (run, number),
        )
        return [row["votes"] for row in rows]

    def masks(self, run: bytes, number: int) -> dict[str, bytes]:
        """Coded signs of a round by device, in order of device id."""
        rows = self._db.execute(
            "SELECT device, signs FROM mask WHERE run = ? AND number = ? ORDER BY device", (run, number)
        )
        return {row["device"]: row["signs"] for row in rows}

    def add_to_exchange(
        self, run: bytes, number: int, attempt: int, device: str, identity: bytes, data: bytes, payload_bytes: int
    ) -> None:
        """Keep what a device said in secure aggregation, or (device "") what was decided."""
        with self._writing() as db:
            values = (run, number, attempt, device, identity, data, payload_bytes)
            db.execute(f"INSERT INTO exchange VALUES ({_marks(7)})", values)

    def exchange(self, run: bytes, number: int, attempt: int) -> list[tuple[str, bytes, bytes]]:
        """An attempt in the order in which it happened: device, its key and what it said; or "", b"", decision."""
        rows = self._db.execute(
            "SELECT device, identity, data FROM exchange WHERE run = ? AND number = ? AND attempt = ? ORDER BY rowid",
            (run, number, attempt),
        )
        return [(row["device"], row["identity"], row["data"]) for row in rows]

    def newest_attempt(self, run: bytes, number: int) -> int:
        """The last one of a round of which anything is kept; 1 if nothing is."""
        (attempt,) = self._db.execute(
            "SELECT coalesce(max(attempt), 1) FROM exchange WHERE run = ? AND number = ?", (run, number)
        ).fetchone()
        return int(attempt)

    def exchange_bytes(self, run: bytes, number: int) -> dict[str, tuple[int, int]]:
        """Payload bytes that every device sent and received in a round's secure aggregation, so far."""
        sql = "SELECT device, sum(payload_bytes) AS size FROM {} WHERE run = ? AND number = ? GROUP BY device"
        up, down = (
            {row["device"]: row["size"] for row in self._db.execute(sql.format(table), (run, number))}
            for table in ("exchange", "told")
        )
        return {device: (up.get(device, 0), down.get(device, 0)) for device in up | down if device}

    def add_late_bytes(self, run: bytes, number: int, device: str, payload_bytes: int) -> None:
        """Count what a device had to send for a mask that was counted without it."""
        with self._writing() as db:
            db.execute(
                "UPDATE mask SET payload_bytes = payload_bytes + ? WHERE run = ? AND number = ? AND device = ?",
                (payload_bytes, run, number, device),
            )

    def add_told(self, run: bytes, number: int, device: str, payload_bytes: int) -> None:
        """Count what secure aggregation told a device."""
        with self._writing() as db:
            db.execute(
                "INSERT INTO told VALUES (?, ?, ?, ?) ON CONFLICT (run, number, device) "
                "DO UPDATE SET payload_bytes = payload_bytes + excluded.payload_bytes",
                (run, number, device, payload_bytes),
            )

    def add_evaluation(self, device: str, evaluation: Evaluation, payload_bytes: int) -> None:
        """Keep a device's evaluation; a repeated one replaces the first."""
        values = (evaluation.run, evaluation.number, device, evaluation.correct, evaluation.test_samples, payload_bytes)
        with self._writing() as db:
            db.execute(f"INSERT OR REPLACE INTO evaluation VALUES ({_marks(6)})", values)

    def add_held_out(self, run: bytes, number: int, correct: int, samples: int) -> None:
        """Keep the accuracy on the coordinator's own held-out samples."""
        with self._writing() as db:
            db.execute(f"INSERT OR REPLACE INTO held_out VALUES ({_marks(4)})", (run, number, correct, samples))

    def save_device(self, device: str, hello: Hello) -> None:
        """Remember a device and the instance that speaks for it."""
        values: tuple[object, ...] = (device, hello.instance, hello.software, hello.runtime, hello.profile)
        values += (hello.train_samples, hello.test_samples, hello.key, hello.started, hello.greetings, time.time())
        values += (hello.connection, int(hello.draws))
        with self._writing() as db:
            db.execute(f"INSERT OR REPLACE INTO device VALUES ({_marks(13)})", values)

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
                    where=str(self.path),
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
            return db.execute("INSERT OR IGNORE INTO revoked VALUES (?, ?)", (device, time.time())).rowcount == 1

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

    def pause(self) -> bool:
        """No round opens until `resume`; False if that was so already."""
        with self._writing() as db:
            sql = "INSERT INTO paused SELECT ? WHERE NOT EXISTS (SELECT 1 FROM paused)"
            return db.execute(sql, (time.time(),)).rowcount == 1

    def resume(self) -> bool:
        """Rounds open again; False if they were not paused."""
        with self._writing() as db:
            return db.execute("DELETE FROM paused").rowcount > 0

    def paused(self) -> bool:
        """Whether no round is to open."""
        return self._db.execute("SELECT 1 FROM paused").fetchone() is not None

    def write_rows(self, sql: str, rows: Iterable[tuple[object, ...]]) -> None:
        """Write all rows, or none; `sql` is a constant of this program."""
        with self._writing() as db:
            db.executemany(sql, rows)

    def query(self, sql: str, *values: object) -> list[sqlite3.Row]:
        """Rows for a report; `sql` is a constant of this program."""
        return self._db.execute(sql, values).fetchall()


def _marks(count: int) -> str:
    return ", ".join("?" * count)
