"""PostgreSQL as a coordinator's database: what its users meet who name it wrongly, and what a second program sees."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest

from coordinator import cli, retention, telemetry
from coordinator.database import measure
from coordinator.page.history import History
from coordinator.place import Server, read_place
from coordinator.postgres import PostgresServer
from coordinator.report.summary import summarise
from coordinator.schema import SCHEMA_VERSION
from coordinator.store import Store
from tests.page import Made
from tests.postgres import ACCOUNT, PASSWORD, Cluster, started_postgres
from tests.unit.test_agent import RUN, update
from wire.errors import ConfigError, DataError, StateError
from wire.federation_messages import Evaluation

SECRET = quote(PASSWORD, safe="")
here = pytest.mark.broker


def test_no_address_is_shown_with_its_password() -> None:
    """Nor a key's; what is no secret stays, so that a person knows it again."""
    for url, shown in (
        (f"postgresql://u:{SECRET}@h:5432/db?sslmode=require", "postgresql://u@h:5432/db?sslmode=require"),
        (f"postgres://u@h/db?password={SECRET}&sslpassword=x&host=/run/pg", "postgres://u@h/db?host=/run/pg"),
        (f"postgresql://u:{SECRET}@a:1,b:2/db", "postgresql://u@a:1,b:2/db"),
        (
            "postgresql://u:p/w:of@tests@h/db",
            "postgresql://u@h/db",
        ),  # not quoted: it is of no use, and a secret all the same
        ("postgresql://[u/db", "postgresql://[u/db"),
    ):
        place = read_place(url)
        assert isinstance(place, Server)
        assert str(place) == shown
        assert "password" not in f"{place} {place!r}"
    assert read_place("postgresql/db") == Path("postgresql/db")


@here
def test_whatever_is_wrong_is_said_without_the_password(postgres: Cluster, tmp_path: Path) -> None:
    """One line that says what to do: no server, no such user, no database, not let in, and no address at all."""
    at = f"127.0.0.1:{postgres.port}"
    for url, error, text in (
        (f"postgresql://{ACCOUNT}:{SECRET}x@{at}/db", StateError, "password authentication failed"),
        (f"postgresql://{ACCOUNT}:{SECRET}@{at}/none", StateError, 'database "none" does not exist'),
        (f"postgresql://{ACCOUNT}:{SECRET}@127.0.0.1:1/db", StateError, "Is the server up"),
        (f"postgresql://{ACCOUNT}:{PASSWORD}@{at}/db", ConfigError, "no address that PostgreSQL reads"),
        (f"postgresql://{ACCOUNT}:{SECRET}@{at}/db?colour=red", ConfigError, "no address that PostgreSQL reads"),
        (postgres.url(options="-csearch_path%3Dnowhere"), StateError, "CREATE SCHEMA makes one"),
    ):
        with pytest.raises(error, match=text) as caught:
            Store(Server(url))
        assert PASSWORD not in str(caught.value)
        assert "w:of" not in str(caught.value)
        assert SECRET not in str(caught.value)
    with closing(Store(Server(f"postgresql://{ACCOUNT}:{SECRET}@{at}/{postgres.database()}"))) as store:
        assert not store.paused(), "and with the right one it works"


@here
def test_a_coordinator_needs_no_more_than_a_database_of_its_own(postgres: Cluster) -> None:
    """Of another's it says so, with the command that makes one; and one that knows no UTF-8 is refused."""
    name = postgres.database()
    postgres.psql("CREATE ROLE plain LOGIN")
    plain = postgres.url(name).replace(f"{ACCOUNT}@", "plain@")
    with pytest.raises(StateError, match=r"permission denied for schema public.*createdb --owner"):
        Store(Server(plain))
    postgres.psql(f"ALTER DATABASE {name} OWNER TO plain")
    with closing(Store(Server(plain))) as store:
        assert store.pause()
    other = postgres.database()
    postgres.psql("CREATE TABLE device (id INT)", other)
    with pytest.raises(StateError, match=r'relation "device" already exists.*of its own'):
        Store(Server(postgres.url(other)))
    assert postgres.psql("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'", other) == "1", "nothing is made"
    postgres.psql(
        "CREATE DATABASE old ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' LOCALE_PROVIDER libc TEMPLATE template0"
    )
    with pytest.raises(StateError, match=r"SQL_ASCII.*--encoding UTF8"):
        Store(Server(postgres.url("old")))


@here
def test_a_database_that_nobody_has_used_is_not_touched(postgres: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    """A report of a mistyped database does not make tables there."""
    name = postgres.database()
    url = postgres.url(name)
    assert cli.main(["report", url]) == DataError.exit_code
    assert "no coordinator has used this database yet" in capsys.readouterr().err
    assert cli.main(["fleet", "list", "--store", url]) == DataError.exit_code
    with pytest.raises(StateError, match="database version 0"):
        Store(Server(url), read_only=True)
    assert postgres.psql("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'", name) == "0"


@here
def test_one_of_another_version_is_left_alone(postgres: Cluster) -> None:
    """With both versions named."""
    place = Server(postgres.url(postgres.database()))
    Store(place).close()
    postgres.psql("UPDATE hidenseek SET version = 99", place.url.split("/")[3].split("?")[0])
    with pytest.raises(StateError, match=f"version 99, this program writes version {SCHEMA_VERSION}"):
        Store(place)


@here
def test_two_that_begin_at_once_make_one_database(postgres: Cluster) -> None:
    """Each finds the tables that the other has made, or makes them."""
    place = Server(postgres.url(postgres.database()))
    code = (
        "import sys; from coordinator.place import Server; from coordinator.store import Store\n"
        "Store(Server(sys.argv[1])).close()"
    )
    begun = [
        subprocess.Popen([sys.executable, "-c", code, place.url], stderr=subprocess.PIPE, text=True) for _ in range(4)
    ]
    for one in begun:
        assert one.communicate(timeout=60)[1] == ""
        assert one.returncode == 0


@here
def test_what_is_opened_for_reading_is_not_written(postgres: Cluster) -> None:
    """The live page reads beside the coordinator."""
    place = postgres.place()
    with closing(Store(place)) as store, closing(Store(place, read_only=True)) as reader:
        store.revoke("pi-1")
        assert reader.is_revoked("pi-1")
        with pytest.raises(StateError, match="read-only transaction"):
            reader.revoke("pi-2")
        assert reader.revoked() == {"pi-1"}, "and it goes on"


@here
def test_a_transaction_that_has_failed_is_not_taken_for_committed(postgres: Cluster) -> None:
    """The server answers COMMIT with ROLLBACK then, and no error."""
    with closing(PostgresServer(postgres.place())) as db:
        db.begin()
        with pytest.raises(Exception, match="none"):
            db.execute("SELECT 1 FROM none")
        with pytest.raises(StateError, match=r"nothing was committed \(ROLLBACK\)"):
            db.commit()


@here
def test_commits_are_on_disk_whatever_the_server_does_for_others(postgres: Cluster) -> None:
    """A role may have been told not to wait for the disk: what was committed is acknowledged to devices."""
    name = postgres.database()
    postgres.psql(f"ALTER DATABASE {name} SET synchronous_commit = off")
    with closing(Store(Server(postgres.url(name)))) as store:
        assert store.query("SELECT current_setting('synchronous_commit')")[0][0] == "on"
    postgres.psql(f"ALTER DATABASE {name} SET synchronous_commit = remote_apply")
    with closing(Store(Server(postgres.url(name)))) as store:
        assert store.query("SELECT current_setting('synchronous_commit')")[0][0] == "remote_apply"


@here
def test_reports_and_the_page_say_the_same_of_both_kinds(postgres: Cluster, tmp_path: Path) -> None:
    """Counts, means and the newest of everything, from the same rows; times aside, at which they were written."""
    seen = []
    for name, place in (("file", None), ("server", postgres.place())):
        (tmp_path / name).mkdir()
        made = Made(tmp_path / name, place=place)
        with closing(made.store) as store:
            for number, correct in ((1, 10), (2, 11)):
                store.add_held_out(store.runs()[0].id, number, correct, 13)
                evaluation = Evaluation(run=store.runs()[0].id, number=number + 1, correct=correct, test_samples=30)
                store.add_evaluation("pi-000", evaluation, 31)
            history = History(made.source)
            summary = summarise(store)
            seen.append(
                {
                    "page": {name: (*row[:5], row[6]) for name, row in made.source.take().devices.items()},
                    "history": [
                        {key: row[key] for key in row.keys() if key != "arrived_s"}  # noqa: SIM118  # of a Row
                        for row in history.device("pi-000").rounds
                    ],
                    "rounds": [replace(one, seconds=0) for one in history.rounds()],
                    "report": [replace(one, seconds=0) for one in summary.rounds],
                    "devices": summary.devices,
                    "spent": [replace(one, day_bytes=0) for one in summary.spent],
                    "predicted": summary.predicted,
                    "kept": [(one.rounds, one.masks, one.signs_bytes) for one in retention.kept(store)],
                    "telemetry": telemetry.payload_bytes(store, store.runs()[0].id),
                }
            )
    file, server = seen
    assert file.keys() == server.keys()
    for part in file:
        assert _rounded(server[part]) == _rounded(file[part]), part


def _rounded(found: object) -> str:
    """In words, in which whole numbers are no floats; servers divide to another last digit."""
    return re.sub(r"\d+\.\d+(e-?\d+)?", lambda number: f"{float(number[0]):#.10g}", repr(found))


@here
def test_how_much_it_takes_is_known_and_no_guess_is_made_of_its_disk(postgres: Cluster) -> None:
    """For metrics; of a server that is gone nothing is known."""
    place = Server(postgres.url(postgres.database()))
    Store(place).close()
    size, free = measure(place)
    assert size is not None
    assert 1e6 < size < 1e8
    assert free is None
    assert measure(Server("postgresql://127.0.0.1:1/none")) == (None, None)


@here
def test_the_server_notices_a_coordinator_whose_machine_is_gone(postgres: Cluster) -> None:
    """By TCP's own questions, after 15 s and three more of 5 s; the lock is lifted then."""
    with closing(Store(Server(f"postgresql://{ACCOUNT}:{SECRET}@127.0.0.1:{postgres.port}/{ACCOUNT}"))) as store:
        store.claim("t")
        names = ("idle", "interval", "count")
        found = [store.query(f"SELECT current_setting('tcp_keepalives_{name}')")[0][0] for name in names]
    assert found == ["15", "5", "3"]


@pytest.fixture
def own_cluster() -> Iterator[Cluster]:
    """A server for one test, which may stop it."""
    with started_postgres() as cluster:
        yield cluster


@here
def test_a_lost_connection_is_an_error_that_says_what_to_do(own_cluster: Cluster) -> None:
    """Whatever is done next, in a batch or not; nothing of the batch is there when the server is back."""
    place = Server(own_cluster.url())
    with closing(Store(place)) as store:
        store.start_run(run=RUN, name="t", ticket=b"", settings="", bundle_bytes=0)
        store.claim("t")

        def batch() -> None:
            with store.together():
                store.add_mask("pi-1", update(1), 100, 20)
                own_cluster.stop("immediate")
                store.add_mask("pi-2", update(1), 100, 20)

        with pytest.raises(StateError, match=r"the connection was lost.*Start again when the server answers"):
            batch()
        for again in (store.paused, lambda: store.revoke("pi-1"), lambda: store.claim("t")):
            with pytest.raises(StateError, match="Start again when the server answers"):
                again()
    own_cluster.start()
    with closing(Store(place)) as store:
        store.claim("t")  # who lost its connection has lost this, too
        assert store.masks(RUN, 1) == {}
        assert store.unfinished_run() is not None


@pytest.mark.parametrize("named", ["--store", "$HIDENSEEK_STORE"])
def test_a_store_that_is_no_server_is_refused(
    named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is pruned or started, with where it was said, and without what."""
    url = f"mysql://u:{SECRET}@h/db"
    (tmp_path / "devices.yaml").write_text("federation: {name: t}\ndevices: {pi: {}}\n")
    monkeypatch.chdir(tmp_path)
    if named == "--store":
        options = ["--store", url]
    else:
        options = []
        monkeypatch.setenv("HIDENSEEK_STORE", url)
    for words in (["serve"], ["runs", "list"], ["fleet", "revoke", "pi"], ["backup", "-o", "b"]):
        assert cli.main([*words, *options]) == ConfigError.exit_code
        said = capsys.readouterr().err
        assert f"{named}: no address of a PostgreSQL server. It begins with postgresql://" in said
        assert SECRET not in said
    assert [path.name for path in tmp_path.iterdir()] == ["devices.yaml"]


def test_without_its_driver_it_says_what_to_install(tmp_path: Path) -> None:
    """And a database in a file never looks for it."""
    hidden = tmp_path / "psycopg.py"
    hidden.write_text("raise ImportError('no module named psycopg')")
    code = (
        "import sys; from pathlib import Path; from coordinator import cli; from coordinator.store import Store\n"
        "Store(Path(sys.argv[1])).close()\n"
        "assert 'psycopg' not in sys.modules\n"
        "sys.exit(cli.main(['report', 'postgresql://u:secret@h/db']))"
    )
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[2]}"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "db")], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 23, done.stderr
    assert "pip install 'hidenseek[postgres]'" in done.stderr
    assert "secret" not in done.stderr
