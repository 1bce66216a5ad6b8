"""Telemetry in the coordinator: what comes is kept, read again, and put into databases that had no place for it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from coordinator import telemetry
from coordinator.schema import SCHEMA_VERSION
from coordinator.store import Store
from coordinator.telemetry import Inbox
from tests.golden import make
from wire.federation_messages import Telemetry
from wire.telemetry import RoundTelemetry

RUN = make.RUN


@pytest.fixture
def store(store: Store) -> Store:
    """A database with one run."""
    store.start_run(run=RUN, name="t", ticket=b"", settings="", bundle_bytes=0)
    return store


def test_what_a_device_said_is_read_again(store: Store) -> None:
    """Every field comes back as it came, unknown ones as None; bytes are shared among the rounds of a message."""
    message = make.MESSAGES["telemetry"]
    assert isinstance(message, Telemetry)
    inbox = Inbox(store)
    inbox.add("pi-2", message, 301)
    inbox.add("pi-1", message, 300)
    inbox.flush(100.0)
    found = list(telemetry.rounds(store, RUN))
    assert [(one.spent.number, one.device, one.payload_bytes) for one in found] == [
        (2, "pi-1", 150),
        (2, "pi-2", 150),
        (3, "pi-1", 150),
        (3, "pi-2", 151),
    ]
    assert [one.spent for one in found[::2]] == list(message.rounds)
    assert telemetry.payload_bytes(store, RUN) == (4, 601)
    assert telemetry.payload_bytes(store, bytes(8)) == (0, 0)


def test_writing_waits_for_a_second_and_for_no_more_than_it_may(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages within a second are one transaction; with too many waiting, further ones are lost."""
    monkeypatch.setattr(telemetry, "MOST_WAITING", 3)
    inbox = Inbox(store)
    for number, now_s in ((1, 10.0), (2, 10.5), (3, 10.9)):
        inbox.add("pi-1", Telemetry(run=RUN, rounds=(RoundTelemetry(number=number, steps=1),)), 100)
        inbox.flush(now_s)
    assert [one.spent.number for one in telemetry.rounds(store, RUN)] == [1]
    for number in (4, 5):
        inbox.add("pi-1", Telemetry(run=RUN, rounds=(RoundTelemetry(number=number, steps=1),)), 100)
    inbox.flush(11.0)
    assert [one.spent.number for one in telemetry.rounds(store, RUN)] == [1, 2, 3, 4]


def test_a_database_of_the_version_before_gets_the_table(tmp_path: Path) -> None:
    """Masks of runs before telemetry stay readable, and the next run's telemetry has a place."""
    path = tmp_path / "c.db"
    with closing(Store(path)) as store:
        store.start_run(run=RUN, name="t", ticket=b"", settings="", bundle_bytes=0)
    with sqlite3.connect(path) as old:
        for table in ("telemetry", "exchange", "told", "paused", "partial", "amended", "next_run", "remainder"):
            old.execute(f"DROP TABLE {table}")
        for table, column in (("device", "connection"), ("device", "draws"), ("run", "ordinal")):
            old.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
        old.execute("PRAGMA user_version = 2")
    old.close()
    again = Store(path)
    assert again.query("PRAGMA user_version")[0][0] == SCHEMA_VERSION
    assert list(telemetry.rounds(again, RUN)) == []
    found = again.newest_run()
    assert found is not None
    assert found.id == RUN
    again.close()
