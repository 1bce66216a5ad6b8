"""All a worker must not forget: masks that it has confirmed, until the coordinator has them, and whose it takes."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path

from coordinator.database import Database
from wire import messages
from wire.federation_messages import MaskUpdate
from wire.worker_messages import BATCH_BYTES, Shift

DATABASE = "worker.db"
SHIFT = "CREATE TABLE shift (told BLOB NOT NULL) STRICT;  -- one row: the newest, encoded, with the ticket"
SCHEMA = f"""
CREATE TABLE held (  -- batch: the tally that names it, if any; settled: the coordinator has answered that
    run BLOB NOT NULL, number INTEGER NOT NULL, device TEXT NOT NULL, body BLOB NOT NULL, signs BLOB NOT NULL,
    payload_bytes INTEGER NOT NULL, receipt_bytes INTEGER NOT NULL, batch BLOB, settled INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (run, number, device)
) STRICT;
CREATE INDEX held_in_batch ON held (settled, batch);
{SHIFT}
"""
SCHEMA_VERSION, UPGRADES = 2, {1: SHIFT}


@dataclass(frozen=True, kw_only=True)
class Held:
    """A mask that is confirmed to its device.

    Attributes:
        run: which run.
        number: which round.
        device: whose.
        body: its `MaskUpdate`, encoded, without signs.
        signs: coded.
        payload_bytes: of its message.
        receipt_bytes: of what confirmed it.
    """

    run: bytes
    number: int
    device: str
    body: bytes
    signs: bytes
    payload_bytes: int
    receipt_bytes: int

    @property
    def whole(self) -> bytes:
        """The `MaskUpdate` with its signs, encoded."""
        update = messages.decode(self.body)
        assert isinstance(update, MaskUpdate)
        return messages.encode(replace(update, signs=self.signs))


class WorkerStore(Database):
    """The database of one worker.

    Raises:
        StateError: as `Database`.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, SCHEMA, SCHEMA_VERSION, UPGRADES)

    def add(self, device: str, update: MaskUpdate, payload_bytes: int, receipt_bytes: int) -> None:
        """Keep a mask that is not kept yet."""
        held = Held(
            run=update.run,
            number=update.number,
            device=device,
            body=messages.encode(replace(update, signs=b"")),
            signs=update.signs,
            payload_bytes=payload_bytes,
            receipt_bytes=receipt_bytes,
        )
        self.add_all([held])

    def add_all(self, masks: Sequence[Held], batch: bytes | None = None) -> None:
        """Keep masks that are not kept yet; those of a tally with its name, others are for one that is made later."""
        rows = [
            (one.run, one.number, one.device, one.body, one.signs, one.payload_bytes, one.receipt_bytes, batch)
            for one in masks
        ]
        with self._writing() as db:
            db.executemany("INSERT INTO held VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0)", rows)

    def devices(self, run: bytes, number: int) -> set[str]:
        """Whose masks for a round were kept."""
        found = self._db.execute("SELECT device FROM held WHERE run = ? AND number = ?", (run, number))
        return {row["device"] for row in found}

    def has(self, run: bytes, number: int, device: str) -> bool:
        """Whether a device's mask for a round was kept."""
        values = (run, number, device)
        found = self._db.execute("SELECT 1 FROM held WHERE run = ? AND number = ? AND device = ?", values)
        return found.fetchone() is not None

    def unsettled(self) -> int:
        """How many masks the coordinator has not answered for."""
        (count,) = self._db.execute("SELECT count(*) FROM held WHERE settled = 0").fetchone()
        return int(count)

    def told(self) -> list[bytes]:
        """The tallies that the coordinator has not answered."""
        rows = self._db.execute(
            "SELECT DISTINCT batch FROM held WHERE settled = 0 AND batch IS NOT NULL ORDER BY batch"
        )
        return [row["batch"] for row in rows]

    def masks_of(self, batch: bytes) -> list[Held]:
        """Those of a tally that the coordinator has not answered, by device."""
        return self._held("settled = 0 AND batch = ? ORDER BY device", batch)

    def batch(self, fewest: int, most: int, most_bytes: int) -> tuple[bytes, list[Held]] | None:
        """A new tally, of masks of one round; None if there are too few.

        Args:
            fewest: masks to wait for.
            most: masks in it.
            most_bytes: of their messages together; one is taken in any case.
        """
        free = "settled = 0 AND batch IS NULL"
        first = self._held(f"{free} ORDER BY rowid LIMIT 1")
        if not first:
            return None
        run, number = first[0].run, first[0].number
        found = self._held(f"{free} AND run = ? AND number = ? ORDER BY rowid LIMIT ?", run, number, most)
        if len(found) < fewest:
            return None
        chosen = found[: fitting(found, most, most_bytes)]
        batch = new_batch()
        with self._writing() as db:
            sql = "UPDATE held SET batch = ? WHERE run = ? AND number = ? AND device = ?"
            db.executemany(sql, [(batch, run, number, one.device) for one in chosen])
        return batch, sorted(chosen, key=lambda one: one.device)

    def settle(self, batch: bytes, refused: Iterable[str]) -> int:
        """The coordinator has answered a tally; how many masks it has taken, 0 if that was known.

        Of one with refused devices none is counted: those are done with, the others are for another tally.
        """
        with self._writing() as db:
            away = [(batch, device) for device in refused]
            if away:
                db.executemany("UPDATE held SET settled = 1 WHERE batch = ? AND device = ?", away)
                db.execute("UPDATE held SET batch = NULL WHERE batch = ? AND settled = 0", (batch,))
                return 0
            return db.execute("UPDATE held SET settled = 1 WHERE batch = ? AND settled = 0", (batch,)).rowcount

    def forget(self, run: bytes, number: int) -> None:
        """Drop what is settled, but for one round's, whose devices may ask again whether their masks came."""
        with self._writing() as db:
            db.execute("DELETE FROM held WHERE settled = 1 AND NOT (run = ? AND number = ?)", (run, number))

    def keep_shift(self, shift: Shift) -> None:
        """Keep the newest shift, with its ticket, in place of the one before."""
        with self._writing() as db:
            db.execute("DELETE FROM shift")
            db.execute("INSERT INTO shift VALUES (?)", (messages.encode(shift),))

    def last_shift(self) -> Shift | None:
        """The shift that was kept last, if any.

        Raises:
            WireError: if another version of this program has kept it.
        """
        row = self._db.execute("SELECT told FROM shift").fetchone()
        shift = messages.decode(row["told"]) if row else None
        return shift if isinstance(shift, Shift) else None

    def _held(self, condition: str, *values: object) -> list[Held]:
        columns = "run, number, device, body, signs, payload_bytes, receipt_bytes"
        rows = self._db.execute(f"SELECT {columns} FROM held WHERE {condition}", values)
        return [
            Held(
                run=run, number=number, device=device, body=body, signs=signs, payload_bytes=size, receipt_bytes=receipt
            )
            for run, number, device, body, signs, size, receipt in rows
        ]


def new_batch() -> bytes:
    """A name for a tally."""
    return secrets.token_bytes(BATCH_BYTES)


def fitting(masks: Sequence[Held], most: int, most_bytes: int) -> int:
    """How many of these, from the first on, go into one tally; the first does in any case. Limits as of `batch`."""
    taken = accumulate(one.payload_bytes for one in masks[:most])
    return max(sum(total <= most_bytes for total in taken), min(len(masks), 1))
