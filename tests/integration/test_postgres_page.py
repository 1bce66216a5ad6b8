"""docs/postgresql.md, played through: every command of that page with a real PostgreSQL."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from coordinator import cli
from coordinator.place import Server
from tests.integration.fleet import Processes, rows, wait_until
from tests.postgres import ACCOUNT, Cluster, started_postgres

pytestmark = [pytest.mark.broker, pytest.mark.slow]
PAGE = Path(__file__).parents[2] / "docs" / "postgresql.md"
CONFIG = "federation: {name: site, model: har-cnn, density: 0.05, method: uniform, runtimes: [sparse]}\n"


def test_every_command_of_the_page_does_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From an empty server to a run that goes on out of its third database."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HIDENSEEK_KEY", str(tmp_path / "key"))
    (tmp_path / "devices.yaml").write_text(CONFIG)
    with started_postgres() as cluster:
        blocks = re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
        for line in "".join(blocks).splitlines():
            _types(cluster, tmp_path, line)
        ids = {}
        for name in ("site", "other", "again"):
            ((ids[name], finished),) = rows(Server(_url(cluster, name)), "SELECT id, finished_s FROM run")
            assert finished is None
        assert len(set(ids.values())) == 3, "one that is put back goes on as another"
    for name in ("report.html", "move.tar", "backup.tar", "site.dump"):
        assert (tmp_path / name).stat().st_size > 1000


def _url(cluster: Cluster, database: str) -> str:
    return cluster.url(database).replace(f"{ACCOUNT}@", "hidenseek@")


def _types(cluster: Cluster, home: Path, line: str) -> None:
    words = [
        re.sub(r"postgresql://\S*/(\w+)$", lambda found: _url(cluster, found[1]), word) for word in shlex.split(line)
    ]
    if words[:2] == ["hidenseek", "serve"]:
        _serve(home, words[words.index("--store") + 1])
    elif words[0] == "hidenseek":
        if words[1:3] == ["restore", "move.tar"]:  # into an empty one, as it is for who has not served from it before
            cluster.psql("DROP DATABASE site")
            cluster.psql("CREATE DATABASE site OWNER hidenseek")
        assert cli.main(words[1:]) == 0, line
    else:
        words = [word for word in words if word != "--pwprompt"]  # there is nobody to type one
        as_owner = os.environ | {"PGHOST": str(cluster.folder), "PGPORT": str(cluster.port), "PGUSER": ACCOUNT}
        subprocess.run([cluster.programs / words[0], *words[1:]], env=as_owner, cwd=home, check=True)


def _serve(home: Path, url: str) -> None:
    """Begin a run there, and one in a file, which is to be moved."""
    for server in (Server(url), None):
        processes = Processes(home / "running", server=server)
        processes.home.mkdir(exist_ok=True)
        processes.state = home / "hidenseek-site"
        try:
            processes.serve(CONFIG + "devices: {pi-1: {}}\n", "--listen", "127.0.0.1:0")
            wait_until(lambda: bool(rows(processes.database, "SELECT 1 FROM run")), 60, "a run has begun")  # noqa: B023
        finally:
            processes.stop()
