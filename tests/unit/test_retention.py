"""What finished runs leave, and being rid of it."""

from __future__ import annotations

import io
from contextlib import closing, redirect_stderr, redirect_stdout
from dataclasses import replace

import pytest

from coordinator import cli, retention
from coordinator.place import Place, Server
from coordinator.store import Store
from coordinator.store_runs import OF_RUN
from tests.unit.test_agent import RUN, update
from tests.unit.test_fleet import hello
from wire.errors import StateError

RUNS = [bytes([number]) * len(RUN) for number in range(1, 5)]  # the oldest first


@pytest.fixture
def kept(place: Place) -> Place:
    """A coordinator's database with three finished runs and one that is not, of three masks each."""
    with closing(Store(place)) as store:
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
    return place


def option(kept: Place) -> list[str]:
    """Which database is meant."""
    return ["--store", kept.url] if isinstance(kept, Server) else ["--state", str(kept.parent)]


def ids(kept: Place) -> list[bytes]:
    """Runs that are there, the newest first."""
    with closing(Store(kept)) as store:
        return [run.id for run in store.runs()]


def test_finished_runs_but_the_newest_go_with_all_their_rows(kept: Place) -> None:
    """Devices and who was revoked stay, and so does every row of the runs that are kept."""
    said = io.StringIO()
    with redirect_stdout(said):
        assert cli.main(["runs", "drop", "--keep", "2", *option(kept)]) == 0
    assert "2 dropped" in said.getvalue()
    assert ids(kept) == [RUNS[3], RUNS[2]]
    with closing(Store(kept)) as store:
        for table in OF_RUN:
            assert not store.query(f"SELECT 1 FROM {table} WHERE run IN (?, ?)", RUNS[0], RUNS[1])
        assert [one.masks for one in retention.kept(store)] == [3, 3]
        assert store.knows("pi-1")
        assert store.is_revoked("pi-2")


def test_a_run_that_is_not_finished_stays_however_old(kept: Place) -> None:
    """Another one has begun since."""
    with closing(Store(kept)) as store:
        newest = bytes([9]) * len(RUN)
        store.start_run(run=newest, name="t", ticket=b"t", settings="{}", bundle_bytes=1)
        assert [run.id for run in retention.superfluous(store, 1)] == RUNS[:3]


def test_a_drop_that_was_stopped_goes_on(kept: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run is there until all its rows are gone; no transaction deletes more than it should."""
    monkeypatch.setattr(retention, "AT_ONCE", 2)
    with closing(Store(kept)) as store:
        oldest = retention.superfluous(store, 1)[0]
        dropping = retention.drop(store, oldest)
        assert next(dropping) <= 2
        dropping.close()
        assert retention.superfluous(store, 1)[0].id == oldest.id
        assert all(deleted <= 2 for deleted in retention.drop(store, oldest))
    assert oldest.id not in ids(kept)


def test_the_newest_run_cannot_be_dropped(kept: Place) -> None:
    """Devices that come back are told of it."""
    said = io.StringIO()
    with redirect_stderr(said):
        assert cli.main(["runs", "drop", "--keep", "0", *option(kept)]) != 0
    assert "--keep" in said.getvalue()
    assert len(ids(kept)) == 4


def test_the_list_says_what_each_run_keeps(kept: Place) -> None:
    """One line a run, the newest first, which is not finished."""
    said = io.StringIO()
    with redirect_stdout(said):
        assert cli.main(["runs", "list", *option(kept)]) == 0
    lines = said.getvalue().splitlines()[1:]
    assert [line.split()[0] for line in lines] == [run.hex() for run in reversed(RUNS)]
    assert "–" in lines[0]
    assert "–" not in lines[1]


def test_an_unfinished_run_goes_on_as_another(kept: Place) -> None:
    """After the database was put back by other means; not while a coordinator is at work on it."""
    said, wrong = io.StringIO(), io.StringIO()
    with closing(Store(kept)) as store:
        store.claim("t on hub, process 7")
        with redirect_stderr(wrong):
            assert cli.main(["runs", "renew", *option(kept)]) == StateError.exit_code
    assert "t on hub, process 7" in wrong.getvalue()
    assert ids(kept)[0] == RUNS[3]
    with redirect_stdout(said):
        assert cli.main(["runs", "renew", *option(kept)]) == 0
    assert ids(kept)[0] != RUNS[3]
    assert said.getvalue().startswith(f"run {RUNS[3].hex()} goes on as {ids(kept)[0].hex()}")
    with closing(Store(kept)) as store:
        assert len(store.masks(ids(kept)[0], 1)) == 3
        store.finish_run(ids(kept)[0])
    with redirect_stdout(said):
        assert cli.main(["runs", "renew", *option(kept)]) == 0
    assert "no run is unfinished" in said.getvalue()
