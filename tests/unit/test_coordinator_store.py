"""What a coordinator remembers through a crash, in a file and in PostgreSQL."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from coordinator.place import Place
from coordinator.schema import SCHEMA_VERSION
from coordinator.store import Store
from tests.unit.test_agent import RUN, update
from tests.unit.test_fleet import hello
from wire.errors import StateError
from wire.federation_messages import Evaluation

KILLED_AFTER_COMMIT = """
import os, sys
from coordinator.place import read_place
from coordinator.store import Store
from tests.unit.test_agent import RUN, update
store = Store(read_place(sys.argv[1]))
store.start_run(run=RUN, name="t", ticket=b"t", settings="{}", bundle_bytes=1)
assert store.add_mask("pi", update(1), 100, 20)
os.kill(os.getpid(), 9)
"""


@pytest.fixture
def store(store: Store) -> Store:
    """A database of each kind, with one run."""
    store.start_run(run=RUN, name="t", ticket=b"ticket", settings="{}", bundle_bytes=7)
    return store


def test_mask_of_a_device_counts_once_a_round(store: Store) -> None:
    """The first mask stays, a second one for the same round is not stored."""
    assert store.add_mask("pi", update(1), 100, 20)
    assert not store.add_mask("pi", update(1), 999, 20)
    assert store.add_mask("pi", update(2), 100, 20)
    assert list(store.masks(RUN, 1)) == ["pi"]
    assert [row["payload_bytes"] for row in store.query("SELECT payload_bytes FROM mask WHERE number = 1")] == [100]


def test_masks_together_are_those_one_by_one(store: Store) -> None:
    """All of a worker's tally at once, and who of many has one."""
    names = [f"pi-{number}" for number in range(1200)]
    store.add_masks([(name, update(1), 100 + i) for i, name in enumerate(names[::2])], 20)
    assert store.have_masks(RUN, 1, names) == set(names[::2])
    assert store.have_masks(RUN, 2, names) == store.have_masks(RUN, 1, []) == set()
    assert not store.add_mask("pi-2", update(1), 100, 20)
    assert store.add_mask("pi-1", update(1), 100, 20)
    few = store.query("SELECT * FROM mask WHERE device IN ('pi-0', 'pi-1') ORDER BY device")
    one, other = (dict(row) for row in few)
    assert {key for key in one if one[key] != other[key]} == {"device", "arrived_s"}


def test_committed_mask_survives_kill_9(place: Place) -> None:
    """A process that dies right after add_mask has not lost the mask."""
    address = str(place) if isinstance(place, Path) else place.url
    died = subprocess.run([sys.executable, "-c", KILLED_AFTER_COMMIT, address], check=False)
    assert died.returncode == -9
    with closing(Store(place)) as store:
        assert list(store.masks(RUN, 1)) == ["pi"]


def test_rounds_keep_their_votes_and_grow_their_selection(store: Store) -> None:
    """Announcing again with more devices changes who is selected, nothing else."""
    store.open_round(RUN, 1, ("a",), b"votes")
    store.add_announced_bytes(RUN, 1, 10)
    store.open_round(RUN, 1, ("a", "b"), b"other")
    store.add_announced_bytes(RUN, 1, 15)
    (only,) = store.rounds(RUN)
    assert (only.selected, only.votes, only.announced_bytes, only.closed_s) == (("a", "b"), b"votes", 25, None)
    store.close_round(RUN, 1)
    assert store.rounds(RUN)[0].closed_s is not None


def test_final_announcement_selects_nobody(store: Store) -> None:
    """An empty selection is read back empty."""
    store.open_round(RUN, 3, (), b"votes")
    assert store.rounds(RUN)[0].selected == ()


def test_unfinished_run_is_found_until_it_is_finished(store: Store) -> None:
    """What serve takes up after a restart."""
    found = store.unfinished_run()
    assert found is not None
    assert (found.id, found.ticket, found.bundle_bytes) == (RUN, b"ticket", 7)
    store.finish_run(RUN)
    assert store.unfinished_run() is None
    assert store.newest_run() is not None


def test_devices_are_remembered_with_their_newest_instance(store: Store) -> None:
    """A restarted coordinator knows which process spoke last for an id."""
    store.save_device("pi", hello("old"))
    store.save_device("pi", hello("new", connection=4, draws=True))
    assert store.devices() == {"pi": hello("new", connection=4, draws=True)}


def test_repeated_evaluation_replaces_the_first(store: Store) -> None:
    """At-least-once delivery does not count samples twice."""
    for correct in (3, 4):
        store.add_evaluation("pi", Evaluation(run=RUN, number=1, correct=correct, test_samples=5), 30)
    assert [row["correct"] for row in store.query("SELECT correct FROM evaluation")] == [4]


def test_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    """The error names the file."""
    (tmp_path / "db").write_text("this is not SQLite, not at all, not even a little bit of it" * 20)
    with pytest.raises(StateError, match="no usable database") as caught:
        Store(tmp_path / "db")
    assert caught.value.where.endswith("db")


def test_a_late_mask_is_a_vote_in_a_later_round_and_nobody_has_two_there(store: Store) -> None:
    """It is found by the round in which it counts; a second vote there would be a bug, and is not taken silently."""
    assert store.add_mask("pi", update(1), 100, 20, counted=3)
    assert store.add_mask("pi", update(2), 100, 20, counted=4)
    assert store.add_mask("other", update(3), 100, 20)
    assert [(one.device, one.number, one.counted) for one in store.votes_in(RUN, 3)] == [("other", 3, 3), ("pi", 1, 3)]
    assert [one.counted for one in store.votes_in(RUN, 3, later=True)] == [3, 3, 4]
    assert [store.has_mask(RUN, number, "pi") for number in (1, 2, 3)] == [True, True, False]
    assert not store.add_mask("pi", update(1), 100, 20, counted=5), "the first one counts, where it did"
    with pytest.raises(Exception, match=r"(?i)unique constraint"):
        store.add_mask("other", update(2), 100, 20, counted=3)


def test_rounds_are_read_one_by_one(store: Store) -> None:
    """The newest, and any other."""
    assert store.newest_round(RUN) is None
    for number in (1, 2):
        store.open_round(RUN, number, ("*",), b"votes")
    newest, first = store.newest_round(RUN), store.round(RUN, 1)
    assert newest is not None
    assert first is not None
    assert (newest.number, newest.selected, first.number, store.round(RUN, 3)) == (2, ("*",), 1, None)


def test_runs_and_what_was_said_are_in_the_order_in_which_they_came(store: Store) -> None:
    """Also where a run was renewed since, and across rows that are gone."""
    second, third = b"2" * 8, b"3" * 8
    for run in (second, third):
        store.start_run(run=run, name="t", ticket=b"t", settings="{}", bundle_bytes=0)
    store.finish_run(third)
    store.renew_run()  # the second one
    assert [run.id for run in store.runs()][::2] == [third, RUN]
    for number, (attempt, device) in enumerate([(1, "b"), (1, ""), (2, "a"), (1, "a"), (2, "")]):
        store.add_to_exchange(RUN, 1, attempt, device, b"", bytes([number]), 10)
    assert store.exchange(RUN, 1, 1) == [("b", b"", b"\0"), ("", b"", b"\1"), ("a", b"", b"\3")]
    assert store.newest_attempt(RUN, 1) == 2
    assert store.delete_rows("exchange", RUN, 2) == 2
    assert store.delete_rows("exchange", RUN, 9) == 3


def test_bytes_of_secure_aggregation_add_up(store: Store) -> None:
    """Whole numbers, up and down, for every device that spoke or was spoken to."""
    for device, payload_bytes in (("a", 5), ("a", 6), ("", 9)):
        store.add_to_exchange(RUN, 1, 1, device, b"k", b"d", payload_bytes)
    for payload_bytes in (1, 2):
        store.add_told(RUN, 1, "b", payload_bytes)
    found = store.exchange_bytes(RUN, 1)
    assert found == {"a": (11, 0), "b": (0, 3)}
    assert all(type(size) is int for pair in found.values() for size in pair)


def test_devices_are_ordered_by_the_bytes_of_their_names(store: Store) -> None:
    """As Python orders them, whatever language the database speaks: votes are added up in this order."""
    names = ["pi-10", "Pi-2", "pi-2", "pi1", "pi_1", "zz", "a.b", "A"]
    for name in names:
        assert store.add_mask(name, update(1), 100, 20)
        store.save_device(name, hello("a"))
    assert list(store.masks(RUN, 1)) == sorted(names)
    assert [one.device for one in store.votes_in(RUN, 1)] == sorted(names)
    assert list(store.devices()) == sorted(names)


def test_whatever_a_device_calls_itself_can_be_kept(store: Store) -> None:
    """A NUL, which PostgreSQL takes in no text, and any other character; quotes and per cent are values like others."""
    strange = replace(hello("a"), software="100 % 'a' \"b\" ? \N{PILE OF POO}", profile="nul \0 here")
    store.save_device("pi", strange)
    found = store.devices()["pi"]
    assert found.software == strange.software
    assert found.profile in (strange.profile, "nul \N{REPLACEMENT CHARACTER} here")


def test_of_two_that_write_one_waits(place: Place, store: Store) -> None:
    """Not for ever: then it says so, and nothing of it is there."""
    began, over = threading.Event(), threading.Event()

    def write_long() -> None:
        with closing(Store(place)) as other, other.together():
            other.revoke("pi-1")
            began.set()
            over.wait(30)

    thread = threading.Thread(target=write_long)
    thread.start()
    try:
        assert began.wait(10)
        began_s = time.monotonic()
        with pytest.raises(StateError, match="cannot be written"):
            store.revoke("pi-2")
        assert 1 < time.monotonic() - began_s < 10
        assert store.revoked() == set(), "nobody sees what is not committed"
    finally:
        over.set()
        thread.join()
    assert store.revoke("pi-2")
    assert store.revoked() == {"pi-1", "pi-2"}


def test_one_coordinator_is_at_work_at_a_time(place: Place, store: Store) -> None:
    """A second one is told who is; when that one is gone, it may."""
    store.claim("farm on hub.example.org, process 7")
    with closing(Store(place)) as other:
        assert other.revoke("pi-1"), "whoever is no coordinator may write"
        with pytest.raises(StateError, match=r"at work on it: farm on hub\.example\.org, process 7"):
            other.claim("another")
        store.close()
        other.claim("another")


def test_a_batch_of_rows_is_written_whole_or_not_at_all(store: Store) -> None:
    """Also where the third of four rows breaks a rule."""
    rows = [("a", 1.0), ("b", 2.0), ("a", 3.0), ("c", 4.0)]
    with pytest.raises(Exception, match=r"(?i)unique constraint"):
        store.write_rows("INSERT INTO revoked VALUES (?, ?)", rows)
    assert store.revoked() == set()
    store.write_rows("INSERT INTO revoked VALUES (?, ?)", rows[:2])
    assert store.revoked() == {"a", "b"}


@pytest.fixture
def version_8(tmp_path: Path) -> Path:
    """A file of the version before `ordinal`, with three runs, of which the clock was set back before the second."""
    path = tmp_path / "old.db"
    Store(path).close()
    with closing(sqlite3.connect(path)) as old, old:
        old.execute("DROP INDEX exchange_of_round")
        for table in ("amended", "next_run", "remainder"):
            old.execute(f"DROP TABLE {table}")
        for table in ("run", "exchange"):
            old.execute(f"ALTER TABLE {table} DROP COLUMN ordinal")
        old.execute("CREATE INDEX exchange_of_round ON exchange (run, number)")
        old.execute("PRAGMA user_version = 8")
        for run, started_s in ((b"1", 100.0), (b"2", 50.0), (b"3", 75.0)):
            old.execute("INSERT INTO run VALUES (?, 't', x'', '', ?, NULL, 0)", (run * 8, started_s))
        for device in ("c", "a", "b"):
            old.execute("INSERT INTO exchange VALUES (?, 1, 1, ?, x'', x'', 1)", (b"1" * 8, device))
        old.execute("DELETE FROM exchange WHERE device = 'a'")
    return path


def test_a_file_of_the_version_before_keeps_its_order(version_8: Path) -> None:
    """What was ordered by where rows lie is numbered so; what comes next comes after."""
    with pytest.raises(StateError, match="database version 8, this program writes"):
        Store(version_8, read_only=True)
    with closing(Store(version_8)) as store:
        assert store.query("PRAGMA user_version")[0][0] == SCHEMA_VERSION
        assert [run.id for run in store.runs()] == [b"3" * 8, b"2" * 8, b"1" * 8]
        store.start_run(run=RUN, name="t", ticket=b"", settings="", bundle_bytes=0)
        newest = store.newest_run()
        assert newest is not None
        assert newest.id == RUN
        store.add_to_exchange(b"1" * 8, 1, 1, "d", b"", b"", 1)
        assert [device for device, _, _ in store.exchange(b"1" * 8, 1, 1)] == ["c", "b", "d"]
