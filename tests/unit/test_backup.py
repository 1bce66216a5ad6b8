"""Backups: all that is needed, private, put back where nothing is; and an unfinished run goes on as another."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from coordinator import cli, copying, orders
from coordinator.place import Server
from coordinator.store import Store
from coordinator.store_runs import OF_RUN
from coordinator.telemetry import Inbox
from tests.postgres import Cluster
from tests.unit.test_agent import update
from tests.unit.test_fleet import hello
from wire.errors import DataError, StateError
from wire.federation_messages import Evaluation, Telemetry
from wire.telemetry import RoundTelemetry

RUN, OVER = bytes(range(8)), bytes([9] * 8)


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
        assert set(tables) == {*copying.WHOLE, *copying.BY_ROUND}, "nor when a database is copied"


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


def _all(store: Store) -> dict[str, list[tuple[object, ...]]]:
    """Every row, but for runs' identities and when they began, which a backup changes."""
    changed = ("run", "id", "started_s")
    found = {}
    for table in (*copying.WHOLE, *copying.BY_ROUND):
        rows = [dict(row) for row in store.query(f"SELECT * FROM {table}")]
        found[table] = sorted((tuple(row[key] for key in row if key not in changed) for row in rows), key=repr)
    return found


def _fill(store: Store) -> None:
    """Something in every table, in the unfinished run and in one that is over."""
    store.start_run(run=OVER, name="t", ticket=b"u", settings="{}", bundle_bytes=9)
    for number in (1, 2):
        store.open_round(OVER, number, ("pi-1", "pi-2"), bytes([number]), b"remainder")
        assert store.add_mask("pi-2", replace(update(number), run=OVER), 700, 70)
    store.finish_run(OVER)
    inbox = Inbox(store)
    inbox.add("pi-1", Telemetry(run=RUN, rounds=(RoundTelemetry(number=1, steps=3, temperature_c=51.5),)), 100)
    inbox.flush(100.0)
    store.save_device("pi-1", hello("a", connection=2))
    store.revoke("pi-2")
    store.pause()
    orders.begin(store, RUN, {"rounds": 7})
    store.write_rows("INSERT INTO next_run VALUES (?, ?)", [("{}", 5.0)])
    for number in (1, 2):
        store.add_to_exchange(RUN, number, 1, "pi-1", b"key", b"\0\xff", 30)
        store.add_told(RUN, number, "pi-1", 40)
    store.add_partial(RUN, 1, "w", b"batch", b"", 50)
    store.add_evaluation("pi-1", Evaluation(run=RUN, number=1, correct=1, test_samples=2), 60)
    store.add_held_out(RUN, 1, 3, 4)


@pytest.mark.broker
def test_a_file_moves_to_a_server_and_back(
    home: Path, postgres: Cluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By a backup, whatever it was made of; every row of every table, in the order in which it came."""
    with closing(Store(home / "hidenseek-t/coordinator.db")) as store:
        _fill(store)
        before, runs = _all(store), [run.id for run in store.runs()]
    assert all(before.values()), "every table has rows"
    assert cli.main(["backup", "-o", "../file.tar"]) == 0
    server = postgres.place()
    elsewhere(home, monkeypatch)
    assert cli.main(["restore", "../file.tar", "--store", server.url]) == 0
    assert f"restored: {server}" in capsys.readouterr().out
    assert not Path("hidenseek-t/coordinator.db").exists()
    with closing(Store(server)) as store:
        middle = _all(store)
        assert (store.runs()[0].id, runs) == (OVER, [OVER, RUN])
        assert store.runs()[1].id != RUN, "what devices know of the run may be more than this"
    assert cli.main(["restore", "../file.tar", "--store", server.url]) == StateError.exit_code
    assert "another coordinator's already" in capsys.readouterr().err

    monkeypatch.setenv("HIDENSEEK_STORE", server.url)
    assert cli.main(["backup", "-o", "../server.tar"]) == 0
    assert sorted(path.name for path in home.parent.iterdir()) == ["b.tar", "file.tar", "home", "other", "server.tar"]
    monkeypatch.delenv("HIDENSEEK_STORE")
    assert cli.main(["restore", "../server.tar"]) == 0
    with closing(Store(Path("hidenseek-t/coordinator.db"))) as store:
        after = _all(store)
    assert after == middle
    for table in before:
        if table in ("exchange", "told"):  # of the open round they are gone: its keys were the old run's
            assert len(middle[table]) == len(before[table]) - 1, table
        else:
            assert middle[table] == before[table], table


@pytest.mark.broker
def test_what_pg_dump_wrote_goes_on(home: Path, postgres: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    """Postgres's own programs do, too; then the run has to be told that it is an older one."""
    old, new = (postgres.database() for _ in range(2))
    assert cli.main(["restore", "../b.tar", "--store", postgres.url(old), "--state", "elsewhere"]) == 0
    with closing(Store(Server(postgres.url(old)))) as store:
        before = _all(store)
    for program, *arguments in (
        ("pg_dump", "--format=custom", "--file=dump", postgres.url(old)),
        ("pg_restore", "--no-owner", "--exit-on-error", f"--dbname={postgres.url(new)}", "dump"),
    ):
        subprocess.run([postgres.programs / program, *arguments], cwd=home, check=True)
    assert cli.main(["runs", "renew", "--store", postgres.url(new)]) == 0
    assert " goes on as " in capsys.readouterr().out
    with closing(Store(Server(postgres.url(new)))) as store, closing(Store(Server(postgres.url(old)))) as there:
        assert _all(store) == before
        assert store.runs()[0].id != there.runs()[0].id
