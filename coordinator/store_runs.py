"""Runs and their rounds in a coordinator's database; and whether any round is to open."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass

from coordinator.database import Database, marks

# Tables whose rows are a run's.
OF_RUN = ("round", "mask", "evaluation", "held_out", "telemetry", "exchange", "told", "partial", "amended", "remainder")
RUN = "id, name, ticket, settings, started_s, finished_s, bundle_bytes"


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


class RunStore(Database):
    """Of a `coordinator.store.Store`."""

    def start_run(self, *, run: bytes, name: str, ticket: bytes, settings: str, bundle_bytes: int) -> None:
        """Write down a new run; it begins after all others, even if the clock was set back."""
        with self._writing() as db:
            (newest,) = db.execute("SELECT coalesce(max(started_s), 0) FROM run").fetchone()
            db.execute(
                f"INSERT INTO run ({RUN}, ordinal) SELECT {marks(7)}, coalesce(max(ordinal), 0) + 1 FROM run",
                (run, name, ticket, settings, max(time.time(), newest + 1), None, bundle_bytes),
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
        return [StoredRun(**dict(row)) for row in self._db.execute(f"SELECT {RUN} FROM run ORDER BY ordinal DESC")]

    def _run(self, condition: str) -> StoredRun | None:
        row = self._db.execute(f"SELECT {RUN} FROM run WHERE {condition} ORDER BY ordinal DESC LIMIT 1").fetchone()
        return StoredRun(**dict(row)) if row else None

    def finish_run(self, run: bytes) -> None:
        """The run is over."""
        with self._writing() as db:
            db.execute("UPDATE run SET finished_s = ? WHERE id = ?", (time.time(), run))

    def delete_rows(self, table: str, run: bytes, most: int) -> int:
        """Delete so many rows of a run from one of the tables `OF_RUN`, at most; how many there were."""
        with self._writing() as db:
            chosen = f"SELECT {db.row_id} FROM {table} WHERE run = ? LIMIT ?"
            return db.execute(f"DELETE FROM {table} WHERE {db.row_id} IN ({chosen})", (run, most)).rowcount

    def delete_run(self, run: bytes) -> None:
        """Delete a finished run, all of whose rows are gone."""
        with self._writing() as db:
            db.execute("DELETE FROM run WHERE id = ? AND finished_s IS NOT NULL", (run,))

    def open_round(
        self, run: bytes, number: int, selected: tuple[str, ...], votes: bytes, remainder: bytes | None = None
    ) -> None:
        """Write down a round before it is announced, or more devices for one that is open.

        Args:
            run: which run.
            number: of the round.
            selected: devices.
            votes: as announced.
            remainder: what these votes leave of mean scores (`coordinator.dithered`), instead of earlier rounds'.
        """
        with self._writing() as db:
            db.execute(
                "INSERT INTO round VALUES (?, ?, ?, ?, 0, ?, NULL) "
                "ON CONFLICT (run, number) DO UPDATE SET selected = excluded.selected",
                (run, number, ",".join(selected), votes, time.time()),
            )
            if remainder is not None:
                db.execute(
                    "INSERT INTO remainder VALUES (?, ?, ?) "
                    "ON CONFLICT (run) DO UPDATE SET number = excluded.number, data = excluded.data",
                    (run, number, remainder),
                )

    def remainder(self, run: bytes, number: int) -> bytes | None:
        """As it was written down with a round; None if it was not, or a later round has been announced."""
        row = self._db.execute("SELECT data FROM remainder WHERE run = ? AND number = ?", (run, number)).fetchone()
        return row["data"] if row else None

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
