"""What finished runs leave, and being rid of it."""

from __future__ import annotations

import io
from contextlib import closing, redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path

import pytest

from coordinator import cli, retention
from coordinator.federation import DATABASE
from coordinator.store import Store
from coordinator.store_runs import OF_RUN
from tests.unit.test_agent import RUN, update
from tests.unit.test_fleet import hello

RUNS = [bytes([number]) * len(RUN) for number in range(1, 5)]  # the oldest first


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A coordinator's folder with three finished runs and one that is not, of three masks each."""
    with closing(Store(tmp_path / DATABASE)) as store:
        store.save_device("pi-1", hello("a"))
        store.revoke("pi-2")
        for run in RUNS:
            store.start_run(run=run, name="t", ticket=b"t", settings="{}", bundle_bytes=1)
            store.open_round(run, 1, ("pi-1", "pi-2", "pi-3"), b"votes")
            store.add_told(run, 1, "pi-1", 7)
            for device in ("pi-1", "pi-2", "pi-3"):
                assert store.add_mask(device, replace(update(1), run=run), 100, 20)
            if run != RUNS[-1]:
                store.finish_run(run)
    return tmp_path


def ids(state: Path) -> list[bytes]:
    """Runs that are there, the newest first."""
    with closing(Store(state / DATABASE)) as store:
        return [run.id for run in store.runs()]


def test_finished_runs_but_the_newest_go_with_all_their_rows(state: Path) -> None:
    """Devices and who was revoked stay, and so does every row of the runs that are kept."""
    said = io.StringIO()
    with redirect_stdout(said):
        assert cli.main(["runs", "drop", "--keep", "2", "--state", str(state)]) == 0
    assert "2 dropped" in said.getvalue()
    assert ids(state) == [RUNS[3], RUNS[2]]
    with closing(Store(state / DATABASE)) as store:
        for table in OF_RUN:
            assert not store.query(f"SELECT 1 FROM {table} WHERE run IN (?, ?)", RUNS[0], RUNS[1])
        assert [one.masks for one in retention.kept(store)] == [3, 3]
        assert store.knows("pi-1")
        assert store.is_revoked("pi-2")


def test_a_run_that_is_not_finished_stays_however_old(state: Path) -> None:
    """Another one has begun since."""
    with closing(Store(state / DATABASE)) as store:
        newest = bytes([9]) * len(RUN)
        store.start_run(run=newest, name="t", ticket=b"t", settings="{}", bundle_bytes=1)
        assert [run.id for run in retention.superfluous(store, 1)] == RUNS[:3]


def test_a_drop_that_was_stopped_goes_on(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run is there until all its rows are gone; no transaction deletes more than it should."""
    monkeypatch.setattr(retention, "AT_ONCE", 2)
    with closing(Store(state / DATABASE)) as store:
        oldest = retention.superfluous(store, 1)[0]
        dropping = retention.drop(store, oldest)
        assert next(dropping) <= 2
        dropping.close()
        assert retention.superfluous(store, 1)[0].id == oldest.id
        assert all(deleted <= 2 for deleted in retention.drop(store, oldest))
    assert oldest.id not in ids(state)


def test_the_newest_run_cannot_be_dropped(state: Path) -> None:
    """Devices that come back are told of it."""
    said = io.StringIO()
    with redirect_stderr(said):
        assert cli.main(["runs", "drop", "--keep", "0", "--state", str(state)]) != 0
    assert "--keep" in said.getvalue()
    assert len(ids(state)) == 4


def test_the_list_says_what_each_run_keeps(state: Path) -> None:
    """One line a run, the newest first, which is not finished."""
    said = io.StringIO()
    with redirect_stdout(said):
        assert cli.main(["runs", "list", "--state", str(state)]) == 0
    lines = said.getvalue().splitlines()[1:]
    assert [line.split()[0] for line in lines] == [run.hex() for run in reversed(RUNS)]
    assert "–" in lines[0]
    assert "–" not in lines[1]
