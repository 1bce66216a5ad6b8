"""Messages over a transport: encodes, cuts, joins, decodes, and counts every payload byte."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from wire import envelope, messages
from wire.errors import WireError
from wire.messages import Message
from wire.transport import Connected, Disconnected, Packet, Transport


@dataclass(frozen=True, kw_only=True)
class Received:
    """A message that decoded. `payload_bytes` counts every packet it took."""

    topic: str
    message: Message
    payload_bytes: int
    acknowledge: Callable[[], None]


@dataclass(frozen=True, kw_only=True)
class Garbled:
    """Bytes that did not decode; already acknowledged, for they will never be better."""

    topic: str
    error: WireError


Happening: TypeAlias = Connected | Disconnected | Received | Garbled


@dataclass
class Channel:
    """A transport that speaks messages.

    Args:
        transport: the connection.
        max_bytes: largest message accepted from the other side.
        packet_bytes: largest payload sent in one packet.
    """

    transport: Transport
    max_bytes: int = messages.MAX_MESSAGE_BYTES
    packet_bytes: int = envelope.DEFAULT_PACKET_BYTES
    _joiner: envelope.Joiner = field(init=False)

    def __post_init__(self) -> None:
        self._joiner = envelope.Joiner(self.max_bytes)

    def send(self, topic: str, message: Message, *, retain: bool = False) -> int:
        """Publish a message at least once; return its payload bytes, parts' headers included."""
        packets = envelope.split(topic, messages.encode(message), self.packet_bytes)
        for part_topic, payload in packets:
            self.transport.publish(part_topic, payload, retain=retain)
        return sum(len(payload) for _, payload in packets)

    def subscribe(self, topic: str) -> None:
        """Ask for a topic, and for the parts of what is too large for one packet."""
        self.transport.subscribe(topic if topic.endswith("#") else f"{topic}/#")

    def receive(self, timeout_s: float) -> Happening | None:
        """Wait for the next event; None if there was none, or only a part of a message."""
        event = self.transport.receive(timeout_s)
        if not isinstance(event, Packet):
            return event
        try:
            whole = self._joiner.add(event.topic, event.payload)
            if whole is None:
                # A part is acknowledged at once: brokers allow few unacknowledged packets, and a
                # message lost half-way is sent again, for no receipt follows.
                event.acknowledge()
                return None
            message = messages.decode(whole.data)
        except WireError as error:
            event.acknowledge()
            return Garbled(topic=event.topic, error=error)
        return Received(
            topic=whole.topic, message=message, payload_bytes=whole.payload_bytes, acknowledge=event.acknowledge
        )
