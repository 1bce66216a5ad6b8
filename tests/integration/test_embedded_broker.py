"""The embedded broker when it is killed under a coordinator that lives."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest

from coordinator.broker import EmbeddedBroker
from tests.integration.fleet import wait_until


def _answers(server: EmbeddedBroker) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((server.host, server.port)) == 0


def _pid(server: EmbeddedBroker) -> int | None:
    """None while the file is being written."""
    text = (server.folder / "nats.pid").read_text()
    return int(text) if text else None


@pytest.mark.slow
def test_killed_broker_is_started_again_until_it_is_stopped(tmp_path: Path) -> None:
    """What ends it most likely is the kernel, for memory; then the fleet must not stay without it."""
    server = EmbeddedBroker(tmp_path / "broker", "t", ["pi-1"])
    server.start()
    try:
        for _ in range(2):
            killed = _pid(server)
            assert killed is not None
            os.kill(killed, signal.SIGKILL)
            wait_until(lambda killed=killed: _pid(server) not in (None, killed) and _answers(server), 20, "it is back")  # type: ignore[misc]
    finally:
        server.stop()
    assert not _answers(server)
