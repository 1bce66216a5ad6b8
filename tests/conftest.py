"""What holds for every test."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from coordinator.place import Place
from coordinator.store import Store
from coordinator.store_options import VARIABLE as STORE_VARIABLE
from tests.postgres import Cluster, started_postgres

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a job in the background of a shell; programs would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ.pop(STORE_VARIABLE, None)  # nobody's own database


@pytest.fixture(scope="session", autouse=True)
def own_key(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A federation key for the tests, also those in other processes, so that nobody's own is used or made."""
    before = os.environ.get("HIDENSEEK_KEY")
    os.environ["HIDENSEEK_KEY"] = str(tmp_path_factory.mktemp("key") / "federation.key")
    yield
    os.environ.pop("HIDENSEEK_KEY")
    if before is not None:
        os.environ["HIDENSEEK_KEY"] = before


@pytest.fixture(scope="session")
def postgres() -> Iterator[Cluster]:
    """A PostgreSQL server, one for all tests of a process."""
    with started_postgres() as cluster:
        yield cluster


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.broker)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Where a coordinator's database is to be: a test that asks for it is run for each kind."""
    if request.param == "sqlite":
        return tmp_path / "coordinator.db"
    cluster: Cluster = request.getfixturevalue("postgres")
    return cluster.place()


@pytest.fixture
def store(place: Place) -> Iterator[Store]:
    """An empty database of each kind."""
    with closing(Store(place)) as opened:
        yield opened
