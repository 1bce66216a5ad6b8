"""The audit itself: a run that nothing happened to is in order, and every tampering with its records is found."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.chaos.fleet import copy_database
from tests.chaos.trial import judge, records, trial
from tests.recount import Recount
from wire import mask
from wire.ticket import decode_ticket

pytestmark = pytest.mark.chaos

DEVICES = [f"pi-{number}" for number in range(1, 5)]
NUMBER, DEVICE, OTHER = 3, "pi-2", "pi-3"


def _lose(db: sqlite3.Connection) -> None:
    db.execute("DELETE FROM mask WHERE number = ? AND device = ?", (NUMBER, DEVICE))


def _alter(db: sqlite3.Connection) -> None:
    swapped = "UPDATE mask SET signs = (SELECT signs FROM mask WHERE number = ? AND device = ?) "
    db.execute(swapped + "WHERE number = ? AND device = ?", (NUMBER, OTHER, NUMBER, DEVICE))


def _not_asked(db: sqlite3.Connection) -> None:
    asked = ",".join(set(DEVICES) - {DEVICE})
    db.execute("UPDATE round SET selected = ? WHERE number = ?", (asked, NUMBER))


def _count_twice(db: sqlite3.Connection) -> None:
    _announce(db, [*DEVICES, DEVICE])


def _skip(db: sqlite3.Connection) -> None:
    _announce(db, [device for device in DEVICES if device != DEVICE])


def _announce(db: sqlite3.Connection, voters: list[str]) -> None:
    """Put the votes of these devices' masks in the place of those announced after the round."""
    encoded, settings = db.execute("SELECT ticket, settings FROM run").fetchone()
    recount = Recount.of(decode_ticket(encoded), settings)
    scores = recount.start()
    for number in range(1, NUMBER + 1):
        coded = dict(db.execute("SELECT device, signs FROM mask WHERE number = ?", (number,)).fetchall())
        names = voters if number == NUMBER else sorted(coded)
        scores = recount.close(number, scores, [(name, coded[name]) for name in names])
    votes = mask.encode_votes(scores.votes, recount.ticket.ends)
    db.execute("UPDATE round SET votes = ? WHERE number = ?", (votes, NUMBER + 1))


TAMPERINGS: dict[Callable[[sqlite3.Connection], None], str] = {
    _lose: "the device has a receipt, and the mask is not in the database",
    _alter: "stored is mask",
    _not_asked: "its mask is counted, and it was not asked",
    _count_twice: "its mask is counted twice",
    _skip: "its mask is stored and not counted",
}


def test_every_tampering_is_found_with_round_and_device(seed: int, tmp_path: Path) -> None:
    """Otherwise a storm that passes would say nothing."""
    with trial("nothing happens", "mosquitto", seed, DEVICES, rounds=5, per_round=len(DEVICES)) as fleet:
        fleet.wait(lambda: fleet.over, 120, "the run is over")
        judge(fleet)
        for tamper, found in TAMPERINGS.items():
            folder = tmp_path / tamper.__name__
            folder.mkdir()
            copy = copy_database(fleet.database, folder)
            with closing(sqlite3.connect(copy)) as db, db:
                tamper(db)
            broken = records(fleet, copy).broken
            assert any(f"round {NUMBER}, {DEVICE}: " in line and found in line for line in broken), (tamper, broken)
