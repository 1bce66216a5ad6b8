"""The bulk transport over a mosquitto that is killed and started again: what was not acknowledged goes once more."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from coordinator.bulk import BulkTransport
from tests.integration.conftest import started_mosquitto
from wire.broker import parse_url
from wire.transport import Connected, Disconnected, Packet, monotonic_s

pytestmark = pytest.mark.broker
TOPICS, HELD = 40, 20


@dataclass
class Mosquitto:
    """One that can be stopped, killed and started again on its port.

    Attributes:
        folder: with its configuration and database.
        port: on which it listens.
        pid: of its process.
    """

    folder: Path
    port: int
    pid: int
    _again: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def signal(self, number: signal.Signals) -> None:
        """Send its process a signal."""
        os.kill(self.pid, number)

    def start(self) -> None:
        """Start it again, with what it has on its disk."""
        binary = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin:/opt/homebrew/sbin")
        assert binary
        with (self.folder / "again.log").open("wb") as log:
            self._again.append(
                subprocess.Popen([binary, "-c", str(self.folder / "mosquitto.conf")], stdout=log, stderr=log)
            )
        self.pid = self._again[-1].pid

    def stop(self) -> None:
        """Stop what `start` has started."""
        for process in self._again:
            process.kill()
            process.wait()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    """A mosquitto."""
    with started_mosquitto(tmp_path, "allow_anonymous true\n") as port:
        (child,) = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        made = Mosquitto(tmp_path, port, int(child))
        yield made
        made.stop()


@contextmanager
def connected(broker: Mosquitto, client_id: str) -> Iterator[BulkTransport]:
    """A transport that is connected."""
    transport = BulkTransport(parse_url(f"mqtt://127.0.0.1:{broker.port}"), client_id=client_id)
    transport.connect(10)
    with closing(transport):
        assert isinstance(transport.receive(5), Connected)
        yield transport


def hear(transport: BulkTransport, count: int, timeout_s: float = 10.0) -> list[Packet]:
    """So many packets; fewer, if the time is over before."""
    heard: list[Packet] = []
    until_s = monotonic_s() + timeout_s
    while len(heard) < count and monotonic_s() < until_s:
        event = transport.receive(0.1)
        if isinstance(event, Packet):
            heard.append(event)
    return heard


def wait_for(transport: BulkTransport, kind: type[Connected] | type[Disconnected]) -> None:
    """Wait for an event; packets do not come before it."""
    until_s = monotonic_s() + 30
    while monotonic_s() < until_s:
        event = transport.receive(0.2)
        assert not isinstance(event, Packet)
        if isinstance(event, kind):
            return
    raise AssertionError(f"no {kind.__name__}")


@pytest.mark.slow
def test_what_a_killed_broker_has_not_acknowledged_is_said_again(broker: Mosquitto) -> None:
    """Of two messages on a topic the later one is there in the end: they go again in the order in which they were said.

    Half are on their way to a broker that reads nothing and is killed; half are said while there is none.
    """
    with connected(broker, "sender") as sender:
        broker.signal(signal.SIGSTOP)
        for i in range(TOPICS):
            sender.publish(f"t/{i}", b"early", retain=True)
            if i < TOPICS // 2:
                sender.publish(f"t/{i}", b"late", retain=True)
        assert sender.receive(0.2) is None  # sent, as far as the kernel takes it
        broker.signal(signal.SIGKILL)
        wait_for(sender, Disconnected)
        for i in range(TOPICS // 2, TOPICS):
            sender.publish(f"t/{i}", b"late", retain=True)
        broker.start()
        wait_for(sender, Connected)
    with connected(broker, "reader") as reader:
        reader.subscribe("t/#", qos=0)
        found = {packet.topic: packet.payload for packet in hear(reader, TOPICS)}
    assert found == {f"t/{i}": b"late" for i in range(TOPICS)}


@pytest.mark.slow
def test_what_was_not_acknowledged_comes_again(broker: Mosquitto) -> None:
    """And only that; to acknowledge it on the connection it came on, once that is lost, changes nothing."""
    with connected(broker, "sender") as sender, connected(broker, "reader") as reader:
        reader.subscribe("t")
        assert reader.receive(0.3) is None
        for i in range(HELD):
            sender.publish("t", f"{i}".encode())
        assert sender.receive(0.2) is None
        first = hear(reader, HELD)
        assert [packet.payload for packet in first] == [f"{i}".encode() for i in range(HELD)]
        for packet in first[::2]:
            packet.acknowledge()
        assert reader.receive(0.3) is None
        broker.signal(signal.SIGTERM)  # it writes down whom it owes what
        wait_for(reader, Disconnected)
        for packet in first[1::2]:
            packet.acknowledge()
        broker.start()
        wait_for(reader, Connected)
        again = hear(reader, HELD, 2.0)
        assert [packet.payload for packet in again] == [packet.payload for packet in first[1::2]]
        for packet in again:
            packet.acknowledge()
    with connected(broker, "reader") as reader:
        assert hear(reader, 1, 1.0) == []
