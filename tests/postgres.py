"""A real PostgreSQL for tests: a cluster of its own in a temporary folder, on a socket there and on a free port."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from coordinator.brokers.process import free_port
from coordinator.place import Server

PASSWORD = "p/w:of@tests"
ACCOUNT = "postgres"  # the cluster's owner; root may not run a server, so there it is also the system's account


def programs() -> Path:
    """The folder of initdb, postgres and pg_dump, of the newest that is installed; where none is, tests are skipped."""
    pytest.importorskip("psycopg", reason="needs psycopg: pip install 'psycopg[binary]'")
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    if on_path := shutil.which("initdb"):
        found.append(Path(on_path).parent)
    if not found:
        pytest.skip("needs PostgreSQL: apt-get install postgresql")
    return max(found, key=lambda path: int(path.parent.name) if path.parent.name.isdigit() else 0)


@dataclass
class Cluster:
    """A server that runs.

    Args:
        programs: folder of its programs.
        folder: of its files and its socket.
        port: on 127.0.0.1, where the password is asked for.
        fsync: commits wait for the disk.
    """

    programs: Path
    folder: Path
    port: int
    fsync: bool = False  # it outlives kills of its own, and no test cuts this machine's power
    _process: subprocess.Popen[bytes] | None = None
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def start(self) -> None:
        """Start it (again); it takes connections when this returns."""
        settings = {
            "unix_socket_directories": self.folder,
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "fsync": "on" if self.fsync else "off",
            "shared_buffers": "16MB",
            "max_connections": 60,
        }
        options = itertools.chain.from_iterable(("-c", f"{name}={value}") for name, value in settings.items())
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self.programs / "postgres", "-D", self.folder / "data", *options], stdout=log, stderr=log, **_owner()
            )
        ready = [self.programs / "pg_isready", "-q", "-h", self.folder, "-p", str(self.port)]
        until_s = time.monotonic() + 30
        while subprocess.run(ready, check=False).returncode:
            assert self._process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < until_s, (self.folder / "log").read_text()
            time.sleep(0.05)

    def stop(self, how: str = "fast") -> None:
        """Stop it; "immediate": as if it had crashed."""
        if self._process is not None:
            self._process.send_signal({"fast": 2, "immediate": 3}[how])  # SIGINT, SIGQUIT
            self._process.wait(30)
            self._process = None

    def psql(self, sql: str, database: str = ACCOUNT) -> str:
        """Run SQL as its owner; what it prints, a line a row."""
        command = [self.programs / "psql", "-X", "-q", "-At", "-v", "ON_ERROR_STOP=1", "-d", self.url(database)]
        return subprocess.run([*command, "-c", sql], check=True, capture_output=True, text=True).stdout.strip()

    def url(self, database: str = ACCOUNT, **settings: str) -> str:
        """Over its socket, without a password."""
        more = "".join(f"&{name}={value}" for name, value in settings.items())
        return f"postgresql://{ACCOUNT}@/{database}?host={self.folder}&port={self.port}{more}"

    def database(self) -> str:
        """A new database; its name."""
        name = f"test{next(self._numbers)}"
        self.psql(f"CREATE DATABASE {name}")
        return name

    def place(self) -> Server:
        """A new schema of one database, for a test of its own: much quicker than a database."""
        name = f"test{next(self._numbers)}"
        self.psql(f"CREATE SCHEMA {name}")
        return Server(self.url(options=f"-csearch_path%3D{name}"))


@contextmanager
def started_postgres(*, fsync: bool = False) -> Iterator[Cluster]:
    """A cluster that is gone at the end; with `fsync`, commits as slow as they are."""
    found = programs()
    folder = Path(tempfile.mkdtemp(prefix="hidenseek-postgres-"))
    try:
        secret = folder / "password"
        secret.write_text(PASSWORD + "\n")
        if os.getuid() == 0:
            shutil.chown(folder, ACCOUNT)
            shutil.chown(secret, ACCOUNT)
        command = [
            found / "initdb",
            "-D",
            folder / "data",
            "-U",
            ACCOUNT,
            "-E",
            "UTF8",
            "--locale=C.UTF-8",
            "--no-sync",
        ]
        command += ["--auth-local=trust", "--auth-host=scram-sha-256", f"--pwfile={secret}"]
        subprocess.run(command, check=True, capture_output=True, **_owner())
        port = free_port("127.0.0.1")
        cluster = Cluster(found, folder, port, fsync)
        cluster.start()
        try:
            yield cluster
        finally:
            cluster.stop("immediate")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _owner() -> dict[str, Any]:
    """Of a server's processes."""
    if os.getuid() != 0:
        return {}
    return {"user": ACCOUNT, "group": ACCOUNT, "extra_groups": [], "cwd": "/"}
