"""Messages in parts: any order, repeats and mixtures join; hostile parts cost bounded memory and nothing else."""

from __future__ import annotations

import contextlib
import struct
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.property.wire_strategies import QUICK, mutated
from wire.envelope import HEADER, MAGIC, VERSION, Joiner, Whole, split
from wire.errors import Mismatch, TooLarge, Truncated, WireError

DATA = st.binary(max_size=300).filter(lambda data: data[:2] != MAGIC)


def part(topic: str, number: int, count: int, data: bytes, whole: bytes = b"", version: int = 1) -> tuple[str, bytes]:
    """One packet of a message in parts, true or not."""
    digest = sha256(whole).digest()[:16]
    return f"{topic}/{number}", HEADER.pack(MAGIC, version, digest, number, count) + data


def held_bytes(joiner: Joiner) -> int:
    """Bytes of parts a joiner remembers."""
    return sum(sum(map(len, pending.parts.values())) for pending in joiner._pending.values())


@QUICK
@given(DATA, st.integers(HEADER.size + 1, 330), st.randoms(use_true_random=False))
def test_parts_in_any_order_join(data: bytes, packet_bytes: int, random: object) -> None:
    """A message cut into packets joins whatever their order, and every byte sent is counted."""
    packets = split("t", data, packet_bytes)
    assert all(len(payload) <= packet_bytes for _, payload in packets)
    random.shuffle(packets)  # type: ignore[attr-defined]
    joiner = Joiner(1000)
    for topic, payload in packets[:-1]:
        assert joiner.add(topic, payload) is None
    assert joiner.add(*packets[-1]) == Whole("t", data, sum(len(payload) for _, payload in packets))
    assert held_bytes(joiner) == 0


@QUICK
@given(st.lists(DATA, min_size=2, max_size=4, unique=True), st.booleans(), st.randoms(use_true_random=False))
def test_interleaved_and_repeated_parts_join(messages: list[bytes], one_topic: bool, random: object) -> None:
    """Parts of several messages, on one topic or many, mixed and each sent twice, give every message."""
    packets = [
        packet
        for i, data in enumerate(messages)
        for packet in split("t" if one_topic else f"t{i}", data, HEADER.size + 40) * 2
    ]
    random.shuffle(packets)  # type: ignore[attr-defined]
    joiner = Joiner(1000)
    found = [whole for topic, payload in packets if (whole := joiner.add(topic, payload))]
    expected = {("t" if one_topic else f"t{i}", data) for i, data in enumerate(messages)}
    assert {(whole.topic, whole.data) for whole in found} == expected


@settings(QUICK, max_examples=30)
@given(st.lists(st.tuples(st.sampled_from(["a/0", "a/1", "b/0", "a", "/", ""]), st.binary(max_size=60)), max_size=8))
def test_any_packets_join_or_raise(packets: list[tuple[str, bytes]]) -> None:
    """Arbitrary packets are messages, parts, or a WireError."""
    joiner = Joiner(50)
    for topic, payload in packets:
        for data in (payload, MAGIC + payload):
            try:
                whole = joiner.add(topic, data)
            except WireError:
                continue
            assert whole is None or len(whole.data) <= 50


@settings(QUICK, max_examples=30)
@given(st.data())
def test_altered_parts_never_give_another_message(data: st.DataObject) -> None:
    """If parts are altered on the way, what joins is the message that was sent, or nothing."""
    packets = split("t", bytes(range(200)), HEADER.size + 60)
    joiner = Joiner(1000)
    for topic, payload in packets:
        altered = data.draw(st.just(payload) | mutated(payload))
        if altered[:2] != MAGIC:
            continue  # no longer a part; `wire.messages` will refuse it
        try:
            whole = joiner.add(topic, altered)
        except WireError:
            continue
        assert whole is None or whole.data == bytes(range(200))


@settings(QUICK, max_examples=30)
@given(
    st.lists(
        st.tuples(st.integers(0, 9), st.integers(0, 5), st.integers(2, 6), st.integers(1, 60), st.integers(0, 9)),
        max_size=120,
    )
)
def test_memory_is_bounded(sent: list[tuple[int, int, int, int, int]]) -> None:
    """Whatever parts come, at most `max_pending` messages and twice `max_bytes` are remembered."""
    joiner = Joiner(100, max_pending=4)
    for topic, number, count, size, whole in sent:
        with contextlib.suppress(WireError):
            joiner.add(*part(f"t{topic}", number, count, bytes(size), bytes([whole])))
        assert len(joiner._pending) <= 4
        assert held_bytes(joiner) <= 200
        assert held_bytes(joiner) == sum(pending.size for pending in joiner._pending.values())


def test_the_oldest_unfinished_message_is_dropped_first() -> None:
    """With no room left a new message takes the place of the one begun first, wherever that was."""
    joiner = Joiner(1000, max_pending=2)
    old, middle, new = (split(topic, bytes([i]) * 60, HEADER.size + 30) for i, topic in enumerate(("b", "a", "a")))
    for packets in (old, middle, new):
        assert joiner.add(*packets[0]) is None
    assert joiner.add(*middle[1]) == Whole("a", b"\x01" * 60, 2 * (HEADER.size + 30))
    assert joiner.add(*new[1]) is not None
    assert joiner.add(*old[1]) is None  # its first part is gone


def test_stale_parts_do_not_mix_with_a_new_message() -> None:
    """Retained parts of an earlier message on the same topic never complete a later one."""
    joiner = Joiner(1000)
    stale = split("t", b"a" * 90, HEADER.size + 30)
    fresh = split("t", b"b" * 60, HEADER.size + 30)
    assert joiner.add(*fresh[0]) is None
    assert joiner.add(*stale[2]) is None
    assert joiner.add(*stale[1]) is None
    assert joiner.add(*fresh[1]) == Whole("t", b"b" * 60, 2 * (HEADER.size + 30))


@pytest.mark.parametrize(
    ("packet", "error"),
    [
        (("t/0", MAGIC), Truncated),
        (("t/0", MAGIC + bytes(HEADER.size - 2)), Truncated),
        (part("t", 0, 2, b""), Truncated),
        (part("t", 0, 2, b"x", version=2), WireError),
        (part("t", 0, 1, b"x"), WireError),
        (part("t", 0, 0, b"x"), WireError),
        (part("t", 2, 2, b"x"), WireError),
        (part("t", 0, 4097, b"x"), WireError),
        (("t/1", part("t", 0, 2, b"x")[1]), WireError),
        (("t/00", part("t", 0, 2, b"x")[1]), WireError),
        (("t", part("t", 0, 2, b"x")[1]), WireError),
        (part("t", 0, 2, bytes(101)), TooLarge),
        (("t", bytes(101)), TooLarge),
    ],
)
def test_malformed_parts_are_refused_and_leave_nothing(packet: tuple[str, bytes], error: type[WireError]) -> None:
    """A part that makes no sense is refused, and what was pending stays."""
    joiner = Joiner(100)
    good = split("good", b"g" * 60, HEADER.size + 30)
    joiner.add(*good[0])
    with pytest.raises(error):
        joiner.add(*packet)
    assert joiner.add(*good[1]) is not None


def test_parts_that_disagree_are_refused() -> None:
    """Another count for the same message, and parts that do not have the announced hash, are refused."""
    joiner = Joiner(100)
    assert joiner.add(*part("t", 0, 2, b"x")) is None
    with pytest.raises(Mismatch):
        joiner.add(*part("t", 1, 3, b"y"))
    with pytest.raises(WireError, match="SHA-256"):
        joiner.add(*part("t", 1, 2, b"y"))
    assert held_bytes(joiner) == 0


def test_a_message_of_too_many_parts_is_not_sent() -> None:
    """4096 parts are the most; one byte more is TooLarge for the sender."""
    assert len(split("t", bytes(4096), HEADER.size + 1)) == 4096
    with pytest.raises(TooLarge):
        split("t", bytes(4097), HEADER.size + 1)


def test_the_header_is_23_bytes() -> None:
    """The header's layout is part of the wire format."""
    assert HEADER.size == 23
    assert struct.calcsize("<2sB16sHH") == HEADER.size
    assert split("t", b"abc", 2 + HEADER.size) == [("t", b"abc")]
    assert VERSION == 1
