"""MQTT 3.1.1 packets, those that a device sends and hears (OASIS standard of 29 October 2014). No I/O.

Of our own, for what a load test needs most is many connections in little: aiomqtt takes 12 kB each and wakes up every
second for each of them, a third of a core for 20,000; gmqtt takes 19 kB.
The bulk transport of workers (`coordinator.bulk`) reads it too; devices and the coordinator themselves use paho
(`wire.mqtt`).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from wire.errors import TooLarge, WireError

CONNECT, CONNACK, PUBLISH, PUBACK, SUBSCRIBE, SUBACK, UNSUBSCRIBE = 1, 2, 3, 4, 8, 9, 10
PINGREQ, PINGRESP, DISCONNECT = 12, 13, 14
PING, GOODBYE = bytes([PINGREQ << 4, 0]), bytes([DISCONNECT << 4, 0])
DUPLICATE, RETAIN = 0x08, 0x01  # flags of PUBLISH
REFUSED = {  # section 3.2.2.3
    1: "it does not speak MQTT 3.1.1",
    2: "it does not take the client's name",
    3: "it is not available",
    4: "user or password are wrong",
    5: "not authorised",
}
UNAVAILABLE = 3
NOT_SUBSCRIBED = b"\x80"  # section 3.9.3
MAX_PACKET_BYTES = 16 << 20
_NUMBER = struct.Struct(">H")


@dataclass(frozen=True, kw_only=True)
class Login:
    """How a device introduces itself to a broker.

    Attributes:
        client_id: name of its session.
        user: account, if there is one.
        password: of it.
    """

    client_id: str
    user: str | None = None
    password: str | None = None


def connect(login: Login, will: tuple[str, bytes] | None, *, keepalive_s: int, clean: bool = False) -> bytes:
    """CONNECT.

    Args:
        login: who.
        will: topic and retained payload that the broker publishes when the connection is lost.
        keepalive_s: the broker hears something at least so often.
        clean: have it forget the session of that name.
    """
    flags = 0x02 if clean else 0
    body = _text(login.client_id)
    if will is not None:
        flags |= 0x04 | 1 << 3 | 0x20  # will, its QoS, retained
        body += _text(will[0]) + _field(will[1])
    if login.user is not None:
        flags |= 0x80
        body += _text(login.user)
        if login.password is not None:
            flags |= 0x40
            body += _text(login.password)
    return _packet(CONNECT << 4, b"\0\4MQTT\4" + bytes([flags]) + _NUMBER.pack(keepalive_s) + body)


def publish(topic: str, payload: bytes, *, number: int | None, retain: bool = False) -> bytes:
    """PUBLISH with QoS 1 and this packet number, or (None) with QoS 0."""
    qos = 0 if number is None else 1
    marked = b"" if number is None else _NUMBER.pack(number)
    return _packet(PUBLISH << 4 | qos << 1 | (RETAIN if retain else 0), _text(topic) + marked + payload)


def again(packet: bytes) -> bytes:
    """The same PUBLISH, marked as one that may have come already."""
    return bytes([packet[0] | DUPLICATE]) + packet[1:]


def subscribe(pattern: str, number: int, qos: int) -> bytes:
    """SUBSCRIBE to one pattern."""
    return _packet(SUBSCRIBE << 4 | 2, _NUMBER.pack(number) + _text(pattern) + bytes([qos]))


def unsubscribe(pattern: str, number: int) -> bytes:
    """UNSUBSCRIBE from one pattern."""
    return _packet(UNSUBSCRIBE << 4 | 2, _NUMBER.pack(number) + _text(pattern))


def acknowledge(number: int) -> bytes:
    """PUBACK."""
    return bytes([PUBACK << 4, 2]) + _NUMBER.pack(number)


def read_publish(first: int, body: bytes) -> tuple[str, bytes, int | None]:
    """Topic, payload and (QoS 1) packet number of a PUBLISH.

    Raises:
        WireError: if it is none.
    """
    qos = first >> 1 & 3
    start = 2 + (_NUMBER.unpack_from(body)[0] if len(body) >= 2 else 0)
    end = start + (2 if qos else 0)
    if len(body) < max(end, 2) or qos > 1:
        raise WireError(f"a PUBLISH of {len(body)} bytes with QoS {qos} that makes no sense")
    try:
        topic = body[2:start].decode()
    except UnicodeDecodeError as error:
        raise WireError("a topic that is no UTF-8") from error
    return topic, body[end:], _NUMBER.unpack_from(body, start)[0] if qos else None


def number_of(body: bytes) -> int:
    """Packet number that a PUBACK or SUBACK begins with.

    Raises:
        WireError: if it is too short for one.
    """
    if len(body) < 2:
        raise WireError(f"an acknowledgement of {len(body)} bytes")
    number: int = _NUMBER.unpack_from(body)[0]
    return number


class Reader:
    """Takes packets out of a stream, in whatever pieces it comes."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """First byte and body of every packet that is complete now.

        Raises:
            WireError: if the stream is no MQTT.
        """
        data = self._rest + data if self._rest else data
        at = 0
        while (found := _extent(data, at)) is not None:
            start, end = found
            if end > len(data):
                break
            yield data[at], data[start:end]
            at = end
        self._rest = data[at:]


def _extent(data: bytes, at: int) -> tuple[int, int] | None:
    """Where the body of the packet at `at` begins and ends; None if its length is not there yet (section 2.2.3)."""
    length = 0
    for position in range(4):
        if at + 1 + position >= len(data):
            return None
        byte = data[at + 1 + position]
        length |= (byte & 0x7F) << 7 * position
        if byte < 0x80:
            if length > MAX_PACKET_BYTES:
                raise TooLarge("MQTT packet", limit=MAX_PACKET_BYTES, got=length)
            start = at + 2 + position
            return start, start + length
    raise WireError("an MQTT packet whose length takes more than four bytes")


def _packet(first: int, body: bytes) -> bytes:
    length, size = len(body), bytearray()
    while True:
        length, low = length >> 7, length & 0x7F
        size.append(low | (0x80 if length else 0))
        if not length:
            return bytes([first]) + bytes(size) + body


def _text(text: str) -> bytes:
    return _field(text.encode())


def _field(data: bytes) -> bytes:
    return _NUMBER.pack(len(data)) + data
