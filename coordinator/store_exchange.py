"""What was said in secure aggregation, in a coordinator's database."""

from __future__ import annotations

from coordinator.database import Database, marks


class ExchangeStore(Database):
    """Of a `coordinator.store.Store`."""

    def add_to_exchange(
        self, run: bytes, number: int, attempt: int, device: str, identity: bytes, data: bytes, payload_bytes: int
    ) -> None:
        """Keep what a device said in secure aggregation, or (device "") what was decided."""
        with self._writing() as db:
            values = (run, number, attempt, device, identity, data, payload_bytes)
            newest = "SELECT coalesce(max(ordinal), 0) FROM exchange WHERE run = ? AND number = ? AND attempt = ?"
            db.execute(f"INSERT INTO exchange VALUES ({marks(7)}, ({newest}) + 1)", (*values, run, number, attempt))

    def exchange(self, run: bytes, number: int, attempt: int) -> list[tuple[str, bytes, bytes]]:
        """An attempt in the order in which it happened: device, its key and what it said; or "", b"", decision."""
        rows = self._db.execute(
            "SELECT device, identity, data FROM exchange WHERE run = ? AND number = ? AND attempt = ? ORDER BY ordinal",
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

    def add_told(self, run: bytes, number: int, device: str, payload_bytes: int) -> None:
        """Count what secure aggregation told a device."""
        with self._writing() as db:
            db.execute(
                "INSERT INTO told VALUES (?, ?, ?, ?) ON CONFLICT (run, number, device) "
                "DO UPDATE SET payload_bytes = told.payload_bytes + excluded.payload_bytes",
                (run, number, device, payload_bytes),
            )
