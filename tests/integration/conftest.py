"""Brokers and processes for integration tests, all on free loopback ports."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from coordinator.brokers.process import free_port
from tests.integration.fleet import Processes, wait_until
from tests.integration.kotlin import Program
from tests.integration.phones import browser, served


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    """Hidenseek processes that are gone when the test is."""
    started = Processes(tmp_path)
    yield started
    started.stop()


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[str]:
    """A mosquitto with one account, user `fleet`, password `secret`; its address with the user."""
    passwords = tmp_path / "passwords"
    passwords.touch(mode=0o600)
    with started_mosquitto(
        tmp_path, f"allow_anonymous false\npassword_file {passwords}\n", accounts={"fleet": "secret"}
    ) as port:
        yield f"mqtt://fleet@127.0.0.1:{port}"


@contextmanager
def started_mosquitto(folder: Path, settings: str, accounts: Mapping[str, str] | None = None) -> Iterator[int]:
    """A mosquitto on a free port of the loopback, with more settings; its files lie in `folder`."""
    binary = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin:/opt/homebrew/sbin")
    if binary is None:
        pytest.fail("this test needs mosquitto: apt-get install mosquitto")
    for user, password in (accounts or {}).items():
        command = ["mosquitto_passwd", "-b", str(folder / "passwords"), user, password]
        subprocess.run(command, check=True, capture_output=True)
    port = free_port("127.0.0.1")
    config = folder / "mosquitto.conf"
    config.write_text(
        f"listener {port} 127.0.0.1\nuser root\npersistence true\npersistence_location {folder}/\n"
        f"max_queued_messages 0\n{settings}"
    )
    with (folder / "mosquitto.log").open("wb") as log:
        server = subprocess.Popen([binary, "-c", str(config)], stdout=log, stderr=log)
    try:
        wait_until(lambda: _open(port), 10, "mosquitto takes connections")
        yield port
    finally:
        server.terminate()
        server.wait()


def _open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def chromium() -> Iterator[Program]:
    """All tests' phones."""
    with browser() as program:
        yield program


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the page is."""
    with served(tmp_path_factory.mktemp("page")) as address:
        yield address
