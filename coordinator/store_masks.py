"""Masks and what they came to in a coordinator's database."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from coordinator.database import Database, marks, replacing
from wire.federation_messages import Evaluation, MaskUpdate

ASKED = 500  # devices at once: databases take so many values of a statement, and many more


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


class MaskStore(Database):
    """Of a `coordinator.store.Store`."""

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
        values = _row(device, update, payload_bytes, receipt_bytes, update.number if counted is None else counted)
        known = "ON CONFLICT (run, number, device) DO NOTHING"  # a second vote in one round is an error, not this
        with self._writing() as db:
            return db.execute(f"INSERT INTO mask VALUES ({marks(15)}) {known}", values).rowcount == 1

    def add_masks(self, masks: Iterable[tuple[str, MaskUpdate, int]], receipt_bytes: int) -> None:
        """Keep masks of which none is kept yet, as votes in their own rounds: of each device, mask, payload bytes."""
        rows = [_row(device, update, size, receipt_bytes, update.number) for device, update, size in masks]
        with self._writing() as db:
            db.executemany(f"INSERT INTO mask VALUES ({marks(15)})", rows)

    def has_mask(self, run: bytes, number: int, device: str) -> bool:
        """Whether a device's mask for a round is kept."""
        values = (run, number, device)
        found = self._db.execute("SELECT 1 FROM mask WHERE run = ? AND number = ? AND device = ?", values)
        return found.fetchone() is not None

    def have_masks(self, run: bytes, number: int, devices: Sequence[str]) -> set[str]:
        """Those of some devices whose mask for a round is kept."""
        kept: set[str] = set()
        for at in range(0, len(devices), ASKED):
            some = devices[at : at + ASKED]
            sql = f"SELECT device FROM mask WHERE run = ? AND number = ? AND device IN ({marks(len(some))})"
            kept.update(device for (device,) in self._db.execute(sql, (run, number, *some)))
        return kept

    def votes_in(self, run: bytes, number: int, *, later: bool = False) -> list[StoredMask]:
        """The masks that are votes in a round (or in it and later ones), in order of round and device id."""
        rows = self._db.execute(
            f"SELECT device, number, counted, signs FROM mask WHERE run = ? AND counted {'>=' if later else '='} ? "
            "ORDER BY counted, device",
            (run, number),
        )
        return [
            StoredMask(device=device, number=began, counted=counted, signs=signs)
            for device, began, counted, signs in rows
        ]

    def add_partial(self, run: bytes, number: int, worker: str, batch: bytes, votes: bytes, payload_bytes: int) -> None:
        """Keep what a worker's masks add up to; the masks themselves are kept by `add_mask`."""
        with self._writing() as db:
            values = (run, number, worker, batch, votes, payload_bytes)
            db.execute(f"INSERT INTO partial VALUES ({marks(6)})", values)

    def has_partial(self, run: bytes, worker: str, batch: bytes) -> bool:
        """Whether this was kept."""
        values = (run, worker, batch)
        found = self._db.execute("SELECT 1 FROM partial WHERE run = ? AND worker = ? AND batch = ?", values)
        return found.fetchone() is not None

    def partials(self, run: bytes, number: int) -> list[bytes]:
        """What workers have added up for a round: coded votes, in the context of those announced with it."""
        rows = self._db.execute(
            "SELECT votes FROM partial WHERE run = ? AND number = ? AND length(votes) > 0 ORDER BY worker, batch",
            (run, number),
        )
        return [row["votes"] for row in rows]

    def masks(self, run: bytes, number: int) -> dict[str, bytes]:
        """Coded signs of a round by device, in order of device id."""
        rows = self._db.execute(
            "SELECT device, signs FROM mask WHERE run = ? AND number = ? ORDER BY device", (run, number)
        )
        return {row["device"]: row["signs"] for row in rows}

    def add_late_bytes(self, run: bytes, number: int, device: str, payload_bytes: int) -> None:
        """Count what a device had to send for a mask that was counted without it."""
        with self._writing() as db:
            db.execute(
                "UPDATE mask SET payload_bytes = payload_bytes + ? WHERE run = ? AND number = ? AND device = ?",
                (payload_bytes, run, number, device),
            )

    def add_evaluation(self, device: str, evaluation: Evaluation, payload_bytes: int) -> None:
        """Keep a device's evaluation; a repeated one replaces the first."""
        values = (evaluation.run, evaluation.number, device, evaluation.correct, evaluation.test_samples, payload_bytes)
        with self._writing() as db:
            columns = ("correct", "test_samples", "payload_bytes")
            db.execute(replacing("evaluation", ("run", "number", "device"), columns), values)

    def add_held_out(self, run: bytes, number: int, correct: int, samples: int) -> None:
        """Keep the accuracy on the coordinator's own held-out samples."""
        with self._writing() as db:
            sql = replacing("held_out", ("run", "number"), ("correct", "samples"))
            db.execute(sql, (run, number, correct, samples))


def _row(device: str, update: MaskUpdate, payload_bytes: int, receipt_bytes: int, counted: int) -> tuple[object, ...]:
    """A mask as its table has it."""
    return (
        update.run,
        update.number,
        device,
        update.signs,
        update.train_samples,
        update.loss,
        update.correct,
        update.test_samples,
        update.train_s,
        update.step_ms,
        update.peak_memory_kb,
        payload_bytes,
        receipt_bytes,
        time.time(),
        counted,
    )
