"""Signed messages over a transport: encodes, signs, cuts, joins, checks, decodes, and counts every payload byte.

What is signed is the topic, a zero byte and the message; the signature's 64 bytes follow it. So a message
cannot be altered, nor be passed on as another device's or to another federation. That an old one is no news is
the receiver's to see: rounds and runs have numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from wire import envelope, messages, signing
from wire.errors import Truncated, WireError
from wire.messages import Message
from wire.safecbor import MAX_VALUES
from wire.transport import Connected, Disconnected, Packet, Transport

PURPOSE = "message"
Trust: TypeAlias = Callable[[str, Message], bytes]
Packets: TypeAlias = list[tuple[str, bytes]]


@dataclass(frozen=True, kw_only=True)
class Received:
    """A message that decoded, from whom it had to be. `payload_bytes` counts every packet it took."""

    topic: str
    message: Message
    payload_bytes: int
    acknowledge: Callable[[], None]


@dataclass(frozen=True, kw_only=True)
class Garbled:
    """Bytes that did not decode, or that somebody else signed; already acknowledged, for they will never be better."""

    topic: str
    error: WireError


Happening: TypeAlias = Connected | Disconnected | Received | Garbled


def seal(key: bytes, topic: str, message: Message) -> bytes:
    """A message for a topic, signed with a private key."""
    body = messages.encode(message)
    return body + signing.sign(key, PURPOSE, _signed(topic, body))


def unseal(topic: str, data: bytes, trust: Trust, max_values: int = MAX_VALUES) -> Message:
    """Inverse of `seal`, for messages of at most so many CBOR values.

    Raises:
        WireError: if it is no message, or not signed by whom `trust` says.
    """
    if len(data) < signing.SIGNATURE_BYTES:
        raise Truncated("signed message", expected_bytes=signing.SIGNATURE_BYTES, got_bytes=len(data))
    body, signature = data[: -signing.SIGNATURE_BYTES], data[-signing.SIGNATURE_BYTES :]
    message = messages.decode(body, max_values)
    signing.check(trust(topic, message), PURPOSE, _signed(topic, body), signature)
    return message


def pattern(topic: str) -> str:
    """The MQTT filter for a topic and the parts of what is too large for one packet."""
    return topic if topic.endswith("#") else f"{topic}/#"


def _signed(topic: str, body: bytes) -> bytes:
    return topic.encode() + b"\0" + body


def _nobody(topic: str, message: Message) -> bytes:
    raise WireError(f"nobody is trusted to say {type(message).__name__}")


@dataclass
class Channel:
    """A transport that speaks messages.

    Args:
        transport: the connection.
        key: private key that everything sent is signed with.
        trust: for a message on a topic, the public key that it must be signed with; raises `WireError` if there
            is none. Set by whoever knows.
        admit: asked before a packet on a topic is looked at; one that is not admitted is dropped.
        max_bytes: largest message accepted from the other side.
        packet_bytes: largest payload sent in one packet.
        max_values: CBOR values of a message that is accepted.

    Attributes:
        sent_bytes: payloads published so far.
        received_bytes: payloads that came so far, whatever became of them.
    """

    transport: Transport
    key: bytes = field(repr=False)
    trust: Trust = _nobody
    admit: Callable[[str], bool] = lambda topic: True
    max_bytes: int = messages.MAX_MESSAGE_BYTES
    packet_bytes: int = envelope.DEFAULT_PACKET_BYTES
    max_values: int = MAX_VALUES
    sent_bytes: int = 0
    received_bytes: int = 0
    _joiner: envelope.Joiner = field(init=False)

    def __post_init__(self) -> None:
        self._joiner = envelope.Joiner(self.max_bytes)

    def send(self, topic: str, message: Message, *, retain: bool = False, qos: int = 1) -> int:
        """Publish a message at least once (or, with QoS 0, at most); return its payload bytes with parts' headers."""
        return self.post(self.pack(topic, message), retain=retain, qos=qos)

    def pack(self, topic: str, message: Message) -> Packets:
        """What is published for a message, signed and cut: topics and payloads."""
        return envelope.split(topic, seal(self.key, topic, message), self.packet_bytes)

    def post(self, packets: Packets, *, retain: bool = False, qos: int = 1) -> int:
        """Publish what `pack` made, as `send` does."""
        for topic, payload in packets:
            self.transport.publish(topic, payload, retain=retain, qos=qos)
        payload_bytes = sum(len(payload) for _, payload in packets)
        self.sent_bytes += payload_bytes
        return payload_bytes

    def subscribe(self, topic: str, *, qos: int = 1) -> None:
        """Ask for a topic, and for the parts of what is too large for one packet; QoS as of `Transport.subscribe`."""
        self.transport.subscribe(pattern(topic), qos=qos)

    def unsubscribe(self, topic: str) -> None:
        """Take back what `subscribe` asked for."""
        self.transport.unsubscribe(pattern(topic))

    def receive(self, timeout_s: float) -> Happening | None:
        """Wait for the next event; None if there was none, or only a part of a message."""
        event = self.transport.receive(timeout_s)
        return self.read(event) if isinstance(event, Packet) else event

    def read(self, event: Packet) -> Received | Garbled | None:
        """What a packet that the transport has received says; None if it is only a part of a message, or not heard."""
        self.received_bytes += len(event.payload)
        if not event.payload or not self.admit(event.topic):  # empty: what was retained there is gone
            event.acknowledge()
            return None
        try:
            whole = self._joiner.add(event.topic, event.payload)
            if whole is None:
                # A part is acknowledged at once: brokers allow few unacknowledged packets, and a
                # message lost half-way is sent again, for no receipt follows.
                event.acknowledge()
                return None
            message = unseal(whole.topic, whole.data, self.trust, self.max_values)
        except WireError as error:
            event.acknowledge()
            return Garbled(topic=event.topic, error=error)
        return Received(
            topic=whole.topic, message=message, payload_bytes=whole.payload_bytes, acknowledge=event.acknowledge
        )
