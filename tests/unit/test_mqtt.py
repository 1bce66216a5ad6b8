"""The MQTT transport against bytes that a broker may send, from a real socket."""

from __future__ import annotations

import socket
import threading

import pytest

from wire.mqtt import MqttTransport, parse_url
from wire.transport import Connected, Packet

HELD = 200  # messages
CONNACK = bytes([0x20, 2, 1, 0])  # the session was kept


def _publish(number: int) -> bytes:
    """A QoS 1 PUBLISH of topic t."""
    return bytes([0x32, 6, 0, 1]) + b"t" + number.to_bytes(2, "big") + b"x"


def _greet(server: socket.socket) -> None:
    """Take one client; answer in one segment with what its session held, as brokers do; wait until it leaves."""
    connection, _ = server.accept()
    with connection:
        connection.recv(4096)
        connection.sendall(CONNACK + b"".join(_publish(number) for number in range(1, 1 + HELD)))
        while connection.recv(4096):
            pass


@pytest.mark.parametrize("_again", range(4))  # it is about two threads
def test_connected_comes_before_what_the_session_held(_again: int) -> None:
    """A coordinator that takes up its run at Connected would judge messages from before it by an empty state."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        broker = threading.Thread(target=_greet, args=(server,))
        broker.start()
        transport = MqttTransport(parse_url(f"mqtt://127.0.0.1:{server.getsockname()[1]}"), client_id="c")
        try:
            transport.connect(10)
            events = [transport.receive(5) for _ in range(1 + HELD)]
        finally:
            transport.close(0)
            broker.join()
    assert isinstance(events[0], Connected)
    assert all(isinstance(event, Packet) for event in events[1:])
