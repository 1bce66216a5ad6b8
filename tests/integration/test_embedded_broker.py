"""The embedded broker: killed under a coordinator that lives, and its port."""

from __future__ import annotations

import os
import signal
import socket
import threading
from pathlib import Path

import pytest

from coordinator.broker import EmbeddedBroker
from coordinator.brokers.process import free_port
from tests.integration.fleet import wait_until
from wire.errors import ConfigError

EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")


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


def test_another_server_on_the_port_is_not_taken_for_ours(tmp_path: Path) -> None:
    """A mosquitto that Debian started, for one: it would be told the coordinator's password."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        server = EmbeddedBroker(tmp_path / "broker", "t", ["pi-1"], port=other.getsockname()[1])
        with pytest.raises(ConfigError, match=rf"port {server.port} on 127.0.0.1 is taken, by another broker perhaps"):
            server.start()
    server.start()
    server.stop()


@pytest.mark.skipif(not EPHEMERAL.exists(), reason="Linux tells which ports it gives to connections")
def test_port_of_its_own_choice_stays_free_while_the_broker_is_down() -> None:
    """Devices know the port: whoever took it meanwhile would get their messages."""
    first, last = map(int, EPHEMERAL.read_text().split())
    assert not any(first <= free_port("127.0.0.1") <= last for _ in range(20))


def test_a_broker_started_again_is_watched_once(tmp_path: Path) -> None:
    """Who watched the one that was stopped is gone."""
    server = EmbeddedBroker(tmp_path / "broker", "t", ["pi-1"])
    for _ in range(2):
        server.start()
        pid = _pid(server)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        server.stop()
    server.start()
    wait_until(lambda: sum(one.name == f"broker-{server.port}" for one in threading.enumerate()) == 1, 5, "one is left")
    server.stop()
