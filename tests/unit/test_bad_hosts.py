"""Coordinator, device and embedded broker without room to write, or with a wrong clock: nothing is lost."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from coordinator import broker
from coordinator.store import Store as CoordinatorStore
from edge_client.store import Store as DeviceStore
from wire.errors import StateError

RUN = b"12345678"


@contextmanager
def no_room() -> Iterator[None]:
    """Let this process write no byte to any file, as if all disks were full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def _start_run(store: CoordinatorStore, run: bytes) -> None:
    store.start_run(run=run, name="t", ticket=b"ticket", settings="{}", bundle_bytes=7)


def test_coordinator_says_so_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    """Nothing of a transaction that had no room is there, and the next one is whole."""
    with closing(CoordinatorStore(tmp_path / "db")) as store:
        _start_run(store, RUN)
        with no_room(), pytest.raises(StateError, match=r"db: cannot be written .*\. Make room"):
            store.finish_run(RUN)
        assert store.unfinished_run() is not None
        store.finish_run(RUN)
        assert store.unfinished_run() is None


def test_device_keeps_what_it_had(tmp_path: Path) -> None:
    """A file that could not be replaced is as it was, and no half of a new one takes up room."""
    with closing(DeviceStore(tmp_path)) as store:
        store.save_bundle(b"a" * 32, b"bundle")
        with no_room(), pytest.raises(StateError, match=r"cannot be written .*\. Make room"):
            store.save_bundle(b"a" * 32, b"bundles")
        kept = store.bundle_file(b"a" * 32)
        assert kept is not None
        assert kept.read_bytes() == b"bundle"
    assert not list(tmp_path.glob("*.part"))


def test_embedded_broker_keeps_its_passwords(tmp_path: Path) -> None:
    """A start without room leaves the passwords that the devices have."""
    server = broker.EmbeddedBroker(tmp_path, "t", ["pi"])
    server.start()
    server.stop()
    with no_room(), pytest.raises(StateError, match="cannot be written"):
        server.start()
    before = dict(server.passwords)
    server.start()
    server.stop()
    assert server.passwords == before


def test_newest_run_is_the_last_one_begun_whatever_the_clock_said(tmp_path: Path) -> None:
    """The clock of a board without a battery may have been years ahead, or behind."""
    with closing(CoordinatorStore(tmp_path / "db")) as store:
        _start_run(store, RUN)
        store.query("UPDATE run SET started_s = 9e9")
        store.finish_run(RUN)
        _start_run(store, b"87654321")
        newest = store.newest_run()
    assert newest is not None
    assert newest.id == b"87654321"
    assert newest.started_s > 9e9, "devices take no run that is older than one they know"
