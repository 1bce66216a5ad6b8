"""The load test's MQTT: what it writes it reads again, and any bytes are packets, the beginning of one, or refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator import mqtt_packets as packets
from coordinator.mqtt_packets import Login, Reader
from wire.errors import WireError

topics = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=100)


@pytest.mark.slow
@given(st.lists(st.tuples(topics, st.binary(max_size=300), st.none() | st.integers(1, 65535))), st.data())
def test_a_stream_in_any_pieces_gives_the_same_packets(
    said: list[tuple[str, bytes, int | None]], data: st.DataObject
) -> None:
    """However the network cuts a stream, every PUBLISH comes out whole, once, in order."""
    stream = b"".join(packets.publish(topic, payload, number=number) for topic, payload, number in said)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    reader = Reader()
    found = [
        packets.read_publish(first, body)
        for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)
        for first, body in reader.feed(stream[start:end])
    ]
    assert found == said


@given(st.binary(max_size=400))
def test_any_bytes_are_read_or_refused(stream: bytes) -> None:
    """Nothing but a WireError comes of a broker that says what is no MQTT."""
    try:
        for first, body in Reader().feed(stream):
            if first >> 4 == packets.PUBLISH:
                packets.read_publish(first, body)
            else:
                packets.number_of(body)
    except WireError:
        pass


@pytest.mark.parametrize("size", [0, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152])
def test_lengths_at_the_edges(size: int) -> None:
    """A length takes one to four bytes (section 2.2.3, table 2.4)."""
    packet = packets.publish("", bytes(size - 2) if size >= 2 else b"", number=None)
    ((first, body),) = Reader().feed(packet)
    assert first == 0x30
    assert len(body) == max(size, 2)


def test_the_bytes_of_a_connection() -> None:
    """Literally, after the standard's figures 3.6 to 3.8."""
    login = Login(client_id="d", user="u", password="p")
    packet = packets.connect(login, ("w", b"gone"), keepalive_s=60)
    assert packet == (
        b"\x10\x1c\0\4MQTT\4\xec\0\x3c"  # user, password, retained will with QoS 1, persistent session; 60 s
        b"\0\1d\0\1w\0\4gone\0\1u\0\1p"
    )
    assert packets.connect(Login(client_id="d"), None, keepalive_s=5, clean=True)[9:12] == b"\2\0\5"
    assert packets.subscribe("a/#", 7, 1) == b"\x82\x08\0\7\0\3a/#\1"
    assert packets.acknowledge(258) == b"\x40\2\1\2"
    assert packets.publish("t", b"x", number=1, retain=True) == b"\x33\6\0\1t\0\1x"
    assert packets.again(packets.publish("t", b"x", number=1)) == b"\x3a\6\0\1t\0\1x"
