"""What coordinator and device remember through a crash."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from coordinator.store import Store as CoordinatorStore
from edge_client.store import Store as DeviceStore
from tests.unit.test_agent import RUN, update
from tests.unit.test_fleet import hello
from wire.errors import StateError
from wire.messages import Evaluation

KILLED_AFTER_COMMIT = """
import os, sys
from pathlib import Path
from coordinator.store import Store
from tests.unit.test_agent import RUN, update
store = Store(Path(sys.argv[1]))
store.start_run(run=RUN, name="t", ticket=b"t", settings="{}", bundle_bytes=1)
assert store.add_mask("pi", update(1), 100, 20)
os.kill(os.getpid(), 9)
"""


def opened(path: Path) -> CoordinatorStore:
    """A database with one run."""
    store = CoordinatorStore(path / "db")
    store.start_run(run=RUN, name="t", ticket=b"ticket", settings="{}", bundle_bytes=7)
    return store


def test_mask_of_a_device_counts_once_a_round(tmp_path: Path) -> None:
    """The first mask stays, a second one for the same round is not stored."""
    store = opened(tmp_path)
    assert store.add_mask("pi", update(1), 100, 20)
    assert not store.add_mask("pi", update(1), 999, 20)
    assert store.add_mask("pi", update(2), 100, 20)
    assert list(store.masks(RUN, 1)) == ["pi"]
    assert [row["payload_bytes"] for row in store.query("SELECT payload_bytes FROM mask WHERE number = 1")] == [100]


def test_committed_mask_survives_kill_9(tmp_path: Path) -> None:
    """A process that dies right after add_mask has not lost the mask."""
    died = subprocess.run([sys.executable, "-c", KILLED_AFTER_COMMIT, str(tmp_path / "db")], check=False)
    assert died.returncode == -9
    assert list(CoordinatorStore(tmp_path / "db").masks(RUN, 1)) == ["pi"]


def test_rounds_keep_their_votes_and_grow_their_selection(tmp_path: Path) -> None:
    """Announcing again with more devices changes who is selected, nothing else."""
    store = opened(tmp_path)
    store.open_round(RUN, 1, ("a",), b"votes")
    store.add_announced_bytes(RUN, 1, 10)
    store.open_round(RUN, 1, ("a", "b"), b"other")
    store.add_announced_bytes(RUN, 1, 15)
    (only,) = store.rounds(RUN)
    assert (only.selected, only.votes, only.announced_bytes, only.closed_s) == (("a", "b"), b"votes", 25, None)
    store.close_round(RUN, 1)
    assert store.rounds(RUN)[0].closed_s is not None


def test_final_announcement_selects_nobody(tmp_path: Path) -> None:
    """An empty selection is read back empty."""
    store = opened(tmp_path)
    store.open_round(RUN, 3, (), b"votes")
    assert store.rounds(RUN)[0].selected == ()


def test_unfinished_run_is_found_until_it_is_finished(tmp_path: Path) -> None:
    """What serve takes up after a restart."""
    store = opened(tmp_path)
    found = store.unfinished_run()
    assert found is not None
    assert (found.id, found.ticket, found.bundle_bytes) == (RUN, b"ticket", 7)
    store.finish_run(RUN)
    assert store.unfinished_run() is None
    assert store.newest_run() is not None


def test_devices_are_remembered_with_their_newest_instance(tmp_path: Path) -> None:
    """A restarted coordinator knows which process spoke last for an id."""
    store = opened(tmp_path)
    store.save_device("pi", hello("old"))
    store.save_device("pi", hello("new"))
    assert store.devices() == {"pi": hello("new")}


def test_repeated_evaluation_replaces_the_first(tmp_path: Path) -> None:
    """At-least-once delivery does not count samples twice."""
    store = opened(tmp_path)
    for correct in (3, 4):
        store.add_evaluation("pi", Evaluation(run=RUN, number=1, correct=correct, test_samples=5), 30)
    assert [row["correct"] for row in store.query("SELECT correct FROM evaluation")] == [4]


def test_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    """The error names the file."""
    (tmp_path / "db").write_text("this is not SQLite, not at all, not even a little bit of it" * 20)
    with pytest.raises(StateError, match="no usable database") as caught:
        CoordinatorStore(tmp_path / "db")
    assert caught.value.where.endswith("db")


def test_device_store_keeps_bundle_pending_mask_and_scores(tmp_path: Path) -> None:
    """Everything is there for the next process; a newer bundle replaces the older."""
    store = DeviceStore(tmp_path)
    store.save_bundle(b"\x01" * 32, b"one")
    store.save_bundle(b"\x02" * 32, b"two")
    store.save_pending(update(1))
    store.save_scores(np.array([0.5, -0.5], np.float32))
    store.close()
    again = DeviceStore(tmp_path)
    assert again.load_bundle(b"\x01" * 32) is None
    assert again.load_bundle(b"\x02" * 32) == b"two"
    assert again.load_pending() == update(1)
    assert np.load(tmp_path / "scores.npy").tolist() == [0.5, -0.5]
    again.drop_pending()
    assert again.load_pending() is None
    again.close()


def test_device_store_ignores_a_half_written_mask(tmp_path: Path) -> None:
    """A damaged pending file is as good as none: the device trains again."""
    store = DeviceStore(tmp_path)
    store.save_pending(update(1))
    store.close()
    path = tmp_path / "pending.mask"
    path.write_bytes(path.read_bytes()[:-3])
    assert store.load_pending() is None


def test_state_folder_has_one_user(tmp_path: Path) -> None:
    """A second process on the same folder is told so."""
    first = DeviceStore(tmp_path)
    with pytest.raises(StateError, match="another hidenseek-edge"):
        DeviceStore(tmp_path)
    first.close()
    DeviceStore(tmp_path).close()
