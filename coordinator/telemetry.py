"""What devices say training costs them: kept in the database, and read from it for reports."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, get_type_hints

from coordinator.database import replacing
from wire.federation_messages import Telemetry
from wire.fields import kind_of
from wire.telemetry import RoundTelemetry

if TYPE_CHECKING:
    from coordinator.store import Store

FLUSH_S = 1.0
MOST_WAITING = 10_000
_HINTS = {name: kind_of(hint) for name, hint in get_type_hints(RoundTelemetry).items() if name != "number"}
_TYPES = {int: "INTEGER", float: "REAL"}  # lists are JSON text
_KEY = ("run", "number", "device")
_COLUMNS = (*_KEY, "arrived_s", "payload_bytes", *_HINTS)
TABLE = (
    "CREATE TABLE telemetry (  -- one row for a round on a device; NULL: not known there\n"
    "    run BLOB NOT NULL REFERENCES run, number INTEGER NOT NULL, device TEXT NOT NULL, arrived_s REAL NOT NULL,\n"
    "    payload_bytes INTEGER NOT NULL, "
    + ", ".join(f"{name} {_TYPES.get(kind, 'TEXT')}" for name, kind in _HINTS.items())
    + ",\n    PRIMARY KEY (run, number, device)\n) STRICT;"
)


@dataclass(frozen=True, kw_only=True)
class StoredTelemetry:
    """A round on a device.

    Attributes:
        device: its id.
        arrived_s: when its message came, seconds since 1970.
        payload_bytes: of that message, this round's share.
        spent: what the device measured; None, or an empty tuple, where it does not know.
    """

    device: str
    arrived_s: float
    payload_bytes: int
    spent: RoundTelemetry


@dataclass
class Inbox:
    """Telemetry on its way to the database, which masks need more: written together, once a second.

    What waits when the process is killed is lost, as are messages beyond 10,000 rows that wait.
    """

    store: Store
    _waiting: list[tuple[object, ...]] = field(default_factory=list)
    _flushed_s: float = 0.0

    def add(self, device: str, telemetry: Telemetry, payload_bytes: int) -> None:
        """Take a message, of which every round gets an equal share of bytes."""
        if len(self._waiting) >= MOST_WAITING:
            return
        count = len(telemetry.rounds)
        for i, spent in enumerate(telemetry.rounds):
            share = payload_bytes * (i + 1) // count - payload_bytes * i // count
            values = (_stored(getattr(spent, name)) for name in _HINTS)
            self._waiting.append((telemetry.run, spent.number, device, time.time(), share, *values))

    def flush(self, now_s: float) -> None:
        """Write what waits, if the last time was a second ago (any monotonic clock, seconds)."""
        if self._waiting and now_s - self._flushed_s >= FLUSH_S:
            rows, self._waiting, self._flushed_s = self._waiting, [], now_s
            self.store.write_rows(replacing("telemetry", _KEY, _COLUMNS[len(_KEY) :]), rows)


def rounds(store: Store, run: bytes) -> Iterator[StoredTelemetry]:
    """Every round of a run on every device that spoke of it, in order of round and device id."""
    order = f"SELECT {', '.join(_COLUMNS)} FROM telemetry WHERE run = ? ORDER BY number, device"
    for row in store.query(order, run):
        found = dict(row)
        yield StoredTelemetry(
            device=found["device"],
            arrived_s=found["arrived_s"],
            payload_bytes=found["payload_bytes"],
            spent=RoundTelemetry(
                number=found["number"], **{name: _read(found[name], kind) for name, kind in _HINTS.items()}
            ),
        )


def payload_bytes(store: Store, run: bytes) -> tuple[int, int]:
    """How many rounds of devices are told of, and in how many payload bytes."""
    (row,) = store.query("SELECT count(*), coalesce(sum(payload_bytes), 0) FROM telemetry WHERE run = ?", run)
    return row[0], row[1]


def _stored(value: object) -> object:
    return json.dumps(value) if isinstance(value, tuple) else value


def _read(value: Any, kind: object) -> Any:
    return value if kind in _TYPES else tuple(json.loads(value))
