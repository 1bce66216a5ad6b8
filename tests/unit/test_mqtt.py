"""The MQTT transports against bytes that a broker may send, from a real socket."""

from __future__ import annotations

import socket
import threading

import pytest

from coordinator.bulk import BulkTransport
from edge_client import cli
from wire.broker import parse_url
from wire.command import read_broker
from wire.errors import ConfigError
from wire.mqtt import MqttTransport
from wire.transport import Connected, Disconnected, Packet

HELD = 200  # messages
Either = type[MqttTransport] | type[BulkTransport]
either = pytest.mark.parametrize("made", [MqttTransport, BulkTransport])
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


@either
@pytest.mark.parametrize("_again", range(4))  # it is about two threads
def test_connected_comes_before_what_the_session_held(_again: int, made: Either) -> None:
    """A coordinator that takes up its run at Connected would judge messages from before it by an empty state."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        broker = threading.Thread(target=_greet, args=(server,))
        broker.start()
        transport = made(parse_url(f"mqtt://127.0.0.1:{server.getsockname()[1]}"), client_id="c")
        try:
            transport.connect(10)
            events = [transport.receive(5) for _ in range(1 + HELD)]
        finally:
            transport.close(0)
            broker.join()
    assert isinstance(events[0], Connected)
    assert all(isinstance(event, Packet) for event in events[1:])


def _lose_one(server: socket.socket, met: list[str], name: str) -> None:
    """Take one client and drop it without a word; the second time keep it. Ends when `server` is shut down."""
    for _ in range(2):
        try:
            connection, _ = server.accept()
        except OSError:
            return
        met.append(name)
        with connection:
            connection.recv(4096)
            connection.sendall(CONNACK)
            if len(met) > 1:
                while connection.recv(4096):
                    pass
                return


@either
@pytest.mark.slow
def test_a_lost_node_is_left_for_another(made: Either) -> None:
    """A client that loses its node goes on with the next, past one that does not answer."""
    met: list[str] = []
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("127.0.0.1", 0)) as other,
        socket.socket() as dead,
    ):
        dead.bind(("127.0.0.1", 0))  # and does not listen
        nodes = [dead, one, other]
        brokers = [
            threading.Thread(target=_lose_one, args=(node, met, name), daemon=True)
            for node, name in ((one, "one"), (other, "other"))
        ]
        for broker in brokers:
            broker.start()
        url = ",".join(f"mqtt://127.0.0.1:{node.getsockname()[1]}" for node in nodes)
        transport = made(parse_url(url), client_id="c")
        try:
            transport.connect(10)
            events = [transport.receive(10)]
            while not isinstance(events[-1], Connected) or len(met) < 2:
                events.append(transport.receive(10))
                assert events[-1] is not None, events
        finally:
            transport.close(0)
            for node in (one, other):
                node.shutdown(socket.SHUT_RDWR)  # closing alone leaves a thread in accept(), on a number soon another's
            for broker in brokers:
                broker.join(10)
                assert not broker.is_alive()
    assert set(met) == {"one", "other"}
    assert any(isinstance(event, Disconnected) for event in events)


def _start_late(server: socket.socket) -> None:
    """Say "server unavailable" to the first client, and take the second."""
    for answer in (b"\x20\x02\x00\x03", CONNACK):
        connection, _ = server.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(answer)
            if answer == CONNACK:
                connection.recv(4096)


@either
def test_a_broker_that_is_not_ready_is_waited_for(made: Either) -> None:
    """It answers and says "later", as a cluster without a leader does: no refusal."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_start_late, args=(server,), daemon=True).start()
        transport = made(parse_url(f"mqtt://127.0.0.1:{server.getsockname()[1]}"), client_id="c")
        transport.connect(10)
        assert isinstance(transport.receive(0), Connected)
        transport.close(0)


def test_several_addresses_are_one_cluster() -> None:
    """With commas or by repeating the option; what differs in more than host and port is none; no password shows."""
    parser = cli.build_parser()
    told = ["join", "--data", "d", "--broker", "mqtts://pi:a,b@one,mqtts://two:9", "--broker", "mqtts://three"]
    broker = read_broker(parser.parse_args(told))
    assert broker.nodes == (("one", 8883), ("two", 9), ("three", 8883))
    assert (broker.user, broker.password) == ("pi", "a,b")
    assert repr(broker) == "mqtts://one:8883,mqtts://two:9,mqtts://three:8883"
    for wrong in ("mqtt://one,mqtts://two", "mqtt://a@one,mqtt://b@two", "ws://one/x,ws://two/y"):
        with pytest.raises(ConfigError, match="differ in more"):
            parse_url(wrong)
