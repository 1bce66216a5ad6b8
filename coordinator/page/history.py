"""What a run and its devices came to so far, read from the database: for charts and tables."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from coordinator.backend import Row
from coordinator.page.snapshot import Source
from coordinator.report.summary import RoundSummary, round_summaries
from coordinator.store import Store
from wire.ticket import Ticket, decode_ticket

UNSETTLED = 2  # rounds at the end whose evaluations may still come
COLUMNS = (  # of a mask, and what the device said of the round in telemetry, if it did
    "m.number, m.arrived_s, m.loss, m.train_s, m.step_ms, m.peak_memory_kb, m.payload_bytes, m.train_samples, "
    "1.0 * m.correct / nullif(m.test_samples, 0) AS own, "
    "1.0 * e.correct / nullif(e.test_samples, 0) AS seen, t.step_p95_us, t.temperature_c, t.rss_kib"
)


@dataclass(frozen=True, kw_only=True)
class DeviceHistory:
    """One device.

    Attributes:
        introduced: its row of the table `device`; None if it was never seen.
        rounds: those it sent a mask in, in order, with `COLUMNS`.
    """

    introduced: Row | None
    rounds: Sequence[Row]


@dataclass
class History:
    """Reads rounds once, when they are over: a long run has many.

    Args:
        source: of the database.
    """

    source: Source
    _rounds: list[RoundSummary] = field(default_factory=list)
    _ticket: Ticket | None = None
    _settings: str = ""
    _lock: threading.Lock = field(default_factory=threading.Lock)  # requests come in several threads

    def rounds(self) -> list[RoundSummary]:
        """Every round that has closed.

        Raises:
            StateError: if the database cannot be read.
        """
        with self._lock, self.source.reading() as store:
            settled = self._rounds[:-UNSETTLED]
            self._rounds = settled + round_summaries(store, self.source.run, len(settled) + 1)
            return list(self._rounds)

    def ticket(self) -> Ticket:
        """The run's network; raises StateError as `rounds`."""
        self._read_run()
        assert self._ticket is not None
        return self._ticket

    def settings(self) -> str:
        """What the run was started with, JSON; raises StateError as `rounds`."""
        self._read_run()
        return self._settings

    def _read_run(self) -> None:
        with self._lock:
            if self._ticket is not None:
                return
            with self.source.reading() as store:
                (row,) = store.query("SELECT ticket, settings FROM run WHERE id = ?", self.source.run)
            self._ticket, self._settings = decode_ticket(row["ticket"], where="ticket of the run"), row["settings"]

    def device(self, name: str) -> DeviceHistory:
        """What a device did; raises StateError as `rounds`."""
        with self.source.reading() as store:
            introduced = store.query("SELECT * FROM device WHERE name = ?", name)
            return DeviceHistory(
                introduced=introduced[0] if introduced else None,
                rounds=_rounds_of(store, self.source.run, name),
            )


def _rounds_of(store: Store, run: bytes, name: str) -> list[Row]:
    # No index begins with the device: the numbers are asked for first, of which the index of the key knows all.
    return store.query(
        f"SELECT {COLUMNS} FROM (SELECT number AS took FROM mask WHERE run = ? AND device = ?) AS took_part "
        "JOIN mask m ON m.run = ? AND m.number = took AND m.device = ? "
        "LEFT JOIN evaluation e ON e.run = m.run AND e.number = m.number AND e.device = m.device "
        "LEFT JOIN telemetry t ON t.run = m.run AND t.number = m.number AND t.device = m.device ORDER BY m.number",
        run,
        name,
        run,
        name,
    )
