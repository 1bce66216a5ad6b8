"""Brokers and processes for integration tests, all on free loopback ports."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.fleet import Processes, wait_until


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    """Hidenseek processes that are gone when the test is."""
    started = Processes(tmp_path)
    yield started
    started.stop()


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[str]:
    """A mosquitto with one account, user `fleet`, password `secret`; its address with the user."""
    binary = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin:/opt/homebrew/sbin")
    if binary is None:
        pytest.fail("this test needs mosquitto: apt-get install mosquitto")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    passwords = tmp_path / "passwords"
    passwords.touch(mode=0o600)
    subprocess.run(["mosquitto_passwd", "-b", str(passwords), "fleet", "secret"], check=True, capture_output=True)
    config = tmp_path / "mosquitto.conf"
    config.write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous false\npassword_file {passwords}\nuser root\n"
        f"persistence true\npersistence_location {tmp_path}/\nmax_queued_messages 0\n"
    )
    with (tmp_path / "mosquitto.log").open("wb") as log:
        server = subprocess.Popen([binary, "-c", str(config)], stdout=log, stderr=log)
    wait_until(lambda: _open(port), 10, "mosquitto takes connections")
    yield f"mqtt://fleet@127.0.0.1:{port}"
    server.terminate()
    server.wait()


def _open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
