"""Backups: all that is needed, private, put back where nothing is; and an unfinished run goes on as another."""

from __future__ import annotations

import io
import json
import tarfile
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from coordinator import cli
from coordinator.store import Store
from coordinator.store_runs import OF_RUN
from tests.unit.test_agent import update
from wire.errors import DataError, StateError

RUN = bytes(range(8))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A coordinator's folder in the middle of a run, which is also the working directory."""
    home = tmp_path / "home"
    (home / "deploy/secrets").mkdir(parents=True)
    (home / "devices.yaml").write_text("federation: {name: t}\n")
    (home / "deploy/secrets/ca.key").write_text("secret")
    monkeypatch.chdir(home)
    monkeypatch.setenv("HIDENSEEK_KEY", str(home / "key"))
    assert cli.main(["key"]) == 0
    with closing(Store(home / "hidenseek-t/coordinator.db")) as store:
        store.start_run(run=RUN, name="t", ticket=b"t", settings="{}", bundle_bytes=0)
        store.open_round(RUN, 1, ("pi-1",), b"votes")
        assert store.add_mask("pi-1", replace(update(1), run=RUN), 806, 78)
    assert cli.main(["backup", "-o", "../b.tar"]) == 0
    return home


def elsewhere(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Another machine."""
    other = home.parent / "other"
    other.mkdir()
    monkeypatch.chdir(other)
    monkeypatch.setenv("HIDENSEEK_KEY", str(other / "key"))
    return other


def test_another_machine_has_all_of_it(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same key, settings, secrets and masks, for the owner only; the run is another and newer one."""
    archive = home.parent / "b.tar"
    assert archive.stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in home.parent.iterdir()) == ["b.tar", "home"], "nothing else is left over"
    other = elsewhere(home, monkeypatch)
    assert cli.main(["restore", "../b.tar"]) == 0
    for name in ("key", "devices.yaml", "deploy/secrets/ca.key"):
        assert (other / name).read_bytes() == (home / name).read_bytes()
        assert (other / name).stat().st_mode & 0o77 == 0
    with (
        closing(Store(home / "hidenseek-t/coordinator.db")) as old,
        closing(Store(other / "hidenseek-t/coordinator.db")) as new,
    ):
        before, after = old.unfinished_run(), new.unfinished_run()
        assert before is not None
        assert after is not None
        assert after.id != before.id == RUN
        assert after.started_s > before.started_s
        assert new.masks(after.id, 1) == old.masks(RUN, 1) != {}
        assert new.rounds(after.id) == old.rounds(RUN)
        tables = [row["name"] for row in new.query("SELECT name FROM sqlite_master WHERE type = 'table'")]
        ours = {name for name in tables if new.query("SELECT 1 FROM pragma_table_info(?) WHERE name = 'run'", name)}
        assert ours == set(OF_RUN), "no table is forgotten when a run gets another identity"


def test_what_is_there_stays(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A database is never overwritten, nor another key; and then nothing is written at all."""
    assert cli.main(["restore", "../b.tar"]) == StateError.exit_code
    assert "coordinator.db: there is another one already" in capsys.readouterr().err
    other = elsewhere(home, monkeypatch)
    (other / "key").write_text("mine")
    assert cli.main(["restore", "../b.tar"]) == StateError.exit_code
    assert [path.name for path in other.iterdir()] == ["key"]


@pytest.mark.parametrize("ticket", ["../../x", "/x"])
def test_no_archive_chooses_where_it_is_written(home: Path, ticket: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Not by the ticket that it names, nor by names of its own, links or another format."""
    about = {"format": 1, "federation": "t", "ticket": ticket, "made_s": 1}
    for content, text in (
        (about, "its ticket belongs at"),
        (about | {"ticket": None, "format": 2}, "a backup of format 2"),
        (about | {"ticket": None, "federation": "../t"}, "no backup of a coordinator"),
        ([], "no backup of a coordinator"),
    ):
        path = home / "bad.tar"
        with tarfile.open(path, "w") as tar:
            for name, data in (("hidenseek-backup.json", json.dumps(content).encode()), ("state/coordinator.db", b"")):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
        assert cli.main(["restore", "bad.tar"]) == DataError.exit_code
        assert text in capsys.readouterr().err
    (home / "none.tar").write_bytes(b"no tar")
    assert cli.main(["restore", "none.tar"]) == DataError.exit_code


def test_no_coordinator_is_said(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the folder that was looked in."""
    assert cli.main(["backup", "-o", "c.tar", "--state", "nowhere"]) == DataError.exit_code
    assert "nowhere: no coordinator.db in this folder" in capsys.readouterr().err
    assert not (home / "c.tar").exists()
