"""What a real broker says of a device whose connection breaks."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.integration.conftest import started_mosquitto
from wire.broker import parse_url
from wire.mqtt import MqttTransport
from wire.transport import Connected, Disconnected, Event, Packet

TOPIC = "hns/t/up/pi/state"


def _next(transport: MqttTransport, kind: type[Event]) -> Event:
    """What happens next of one kind."""
    while not isinstance(happened := transport.receive(20), kind):
        assert happened is not None, f"no {kind.__name__} within 20 s"
    return happened


@pytest.mark.broker
def test_every_connection_has_a_will_of_its_own(tmp_path: Path) -> None:
    """Its number tells the broker's word on a connection that broke from that on the one after it."""
    with started_mosquitto(tmp_path, "allow_anonymous true") as port:
        broker = parse_url(f"mqtt://127.0.0.1:{port}")
        watcher = MqttTransport(broker, client_id="watcher")
        device = MqttTransport(broker, client_id="pi", will=lambda number: (TOPIC, b"%d" % number))
        try:
            watcher.connect(10)
            watcher.subscribe(TOPIC)
            device.connect(10)
            for number in (1, 2):
                connected = _next(device, Connected)
                assert isinstance(connected, Connected)
                assert connected.number == number
                connection = device._client.socket()
                assert connection is not None
                connection.shutdown(socket.SHUT_RDWR)
                _next(device, Disconnected)
                will = _next(watcher, Packet)
                assert isinstance(will, Packet)
                will.acknowledge()
                assert will.payload == b"%d" % number
        finally:
            device.close(0)
            watcher.close(0)
