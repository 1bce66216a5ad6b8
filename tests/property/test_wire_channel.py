"""Messages over the memory bus: they arrive, every byte is counted, and garbage is acknowledged and told."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.property.wire_strategies import ANY_MESSAGE, NAMES, QUICK
from wire.channel import Channel, Garbled, Happening, Received, seal
from wire.envelope import HEADER
from wire.errors import TooLarge
from wire.federation_messages import BundleBytes, State
from wire.messages import Message
from wire.signing import public_key
from wire.transport import Connected, MemoryBus, MemoryTransport

KEY, OTHER = bytes(32), bytes([1] * 32)


def trust(topic: str, message: Message) -> bytes:
    """Whoever has `KEY`."""
    return public_key(KEY)


def pair(packet_bytes: int = 1 << 18, max_bytes: int = 1 << 20) -> tuple[Channel, Channel, MemoryTransport]:
    """A sender, a receiver subscribed to `t`, and the receiver's transport."""
    bus = MemoryBus()
    sender = Channel(bus.connect(), KEY, packet_bytes=packet_bytes)
    transport = bus.connect()
    receiver = Channel(transport, KEY, trust=trust, max_bytes=max_bytes)
    receiver.subscribe("t")
    assert receiver.receive(0) == Connected()
    return sender, receiver, transport


def drain(channel: Channel, transport: MemoryTransport) -> list[Happening]:
    """Everything that has happened on a channel."""
    found = []
    while not transport.inbox.empty():
        if (event := channel.receive(0)) is not None:
            found.append(event)
    return found


@QUICK
@given(st.lists(ANY_MESSAGE, max_size=4), st.integers(HEADER.size + 1, 200))
def test_messages_arrive_and_bytes_are_counted(sent: list[Message], packet_bytes: int) -> None:
    """Messages arrive in order, and the receiver counts exactly the bytes the sender did."""
    sender, receiver, transport = pair(packet_bytes)
    sizes = [sender.send("t", message) for message in sent]
    events = drain(receiver, transport)
    assert [event.message for event in events if isinstance(event, Received)] == sent
    assert [event.payload_bytes for event in events if isinstance(event, Received)] == sizes
    assert all(event.topic == "t" for event in events if isinstance(event, Received))


def test_a_message_is_acknowledged_by_its_receiver_only() -> None:
    """Parts are acknowledged at once; the last of five packets waits until the receiver says it is safe."""
    sender, receiver, transport = pair(packet_bytes=100)
    size = sender.send("t", BundleBytes(data=bytes(300)))
    (event,) = drain(receiver, transport)
    assert isinstance(event, Received)
    assert size == event.payload_bytes == 5 * HEADER.size + len(seal(KEY, "t", event.message))
    assert transport.acknowledged == 4
    event.acknowledge()
    assert transport.acknowledged == 5


@settings(QUICK, max_examples=30)
@given(st.lists(st.binary(max_size=50) | st.binary(max_size=50).map(b"HP".__add__), min_size=1, max_size=5), NAMES)
def test_garbage_is_acknowledged_and_told(payloads: list[bytes], level: str) -> None:
    """Bytes that are no message become Garbled or wait as a part; either way the broker is rid of them."""
    sender, receiver, transport = pair()
    for payload in payloads:
        sender.transport.publish(f"t/{level}", payload)
    events = drain(receiver, transport)
    assert all(isinstance(event, Garbled) and event.topic == f"t/{level}" for event in events)
    assert transport.acknowledged == len(payloads)


def test_garbage_between_parts_disturbs_nothing() -> None:
    """A message in parts joins and is counted exactly, whatever else arrives on its topic meanwhile."""
    sender, receiver, transport = pair(packet_bytes=100)
    message = BundleBytes(data=bytes(150))
    packets: list[tuple[str, bytes]] = []
    sender.transport.publish = lambda topic, payload, retain, qos: packets.append((topic, payload))  # type: ignore[method-assign]
    size = sender.send("t", message)
    stale = b"HP\x01" + b"d" * 16 + b"\x00\x00\x02\x00" + b"stale"
    for topic, payload in packets:
        transport.bus.deliver(topic, payload, False)
        transport.bus.deliver("t/0", stale, False)
        transport.bus.deliver("t", b"garbage", False)
    received = [event for event in drain(receiver, transport) if isinstance(event, Received)]
    assert [(one.message, one.payload_bytes) for one in received] == [(message, size)]


def test_what_is_too_large_is_told_not_kept() -> None:
    """A message beyond `max_bytes` is Garbled with TooLarge, whole or in parts."""
    for packet_bytes in (1 << 18, 100):
        sender, receiver, transport = pair(packet_bytes, max_bytes=200)
        sender.send("t", BundleBytes(data=bytes(500)))
        garbled = [event for event in drain(receiver, transport) if isinstance(event, Garbled)]
        assert garbled
        assert isinstance(garbled[0].error, TooLarge)


def test_retained_messages_reach_who_comes_later() -> None:
    """All parts of a retained message are there for a later subscriber, and a killed client's will is too."""
    bus = MemoryBus()
    message = BundleBytes(data=bytes(500))
    Channel(bus.connect(), KEY, packet_bytes=100).send("t", message, retain=True)
    gone = State(instance=bytes(8), online=False)
    bus.connect(will=lambda number: ("t", seal(KEY, "t", gone))).kill()
    late = bus.connect()
    channel = Channel(late, KEY, trust=trust)
    channel.subscribe("t")
    channel.subscribe("t")
    said = [event.message for event in drain(channel, late) if isinstance(event, Received)]
    assert said.count(message) == 2  # once for each time it asked
    assert gone in said


def test_nothing_is_received_after_goodbye() -> None:
    """A closed client gets nothing more, and waiting for nothing returns None."""
    sender, receiver, transport = pair()
    transport.close()
    transport.close()
    sender.send("t", State(instance=bytes(8), online=True))
    assert receiver.receive(0) is None
    assert receiver.receive(0.001) is None


@QUICK
@given(ANY_MESSAGE, st.integers(0, 10_000), st.integers(1, 255))
def test_a_forged_or_altered_message_is_told(message: Message, at: int, change: int) -> None:
    """Another's signature, another topic's message and any changed byte are Garbled; what follows is heard."""
    sender, receiver, transport = pair()
    forger = Channel(transport.bus.connect(), OTHER)
    forger.send("t", message)
    sender.transport.publish("t", seal(KEY, "t/elsewhere", message))
    altered = bytearray(seal(KEY, "t", message))
    altered[at % len(altered)] ^= change
    sender.transport.publish("t", bytes(altered))
    sender.send("t", message)
    *refused, last = drain(receiver, transport)
    assert all(isinstance(event, Garbled) for event in refused)
    assert len(refused) == 3
    assert isinstance(last, Received)
    assert last.message == message


def test_who_trusts_nobody_hears_nobody() -> None:
    """A channel that was not told whom to trust refuses every message."""
    bus = MemoryBus()
    sender, late = Channel(bus.connect(), KEY), bus.connect()
    receiver = Channel(late, KEY)
    receiver.subscribe("t")
    sender.send("t", State(instance=bytes(8), online=True))
    (event,) = drain(receiver, late)[1:]
    assert isinstance(event, Garbled)
    assert "nobody is trusted to say State" in str(event.error)


def test_what_is_not_admitted_is_dropped_unread() -> None:
    """It is acknowledged, and the next may pass."""
    sender, receiver, transport = pair()
    answers = iter([False, True])
    receiver.admit = lambda topic: next(answers)
    for online in (True, False):
        sender.send("t", State(instance=bytes(8), online=online))
    (event,) = drain(receiver, transport)
    assert isinstance(event, Received)
    assert event.message == State(instance=bytes(8), online=False)
    assert transport.acknowledged == 1
