"""Messages: every kind comes back; any bytes decode to a message or raise WireError."""

from __future__ import annotations

import dataclasses
import time
import tracemalloc
from collections.abc import Mapping
from typing import Any, get_type_hints

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.golden.make import MESSAGES
from tests.property.wire_strategies import ANY_MESSAGE, ODD_VALUES, QUICK, messages_of, mutated
from wire import messages
from wire.errors import TooLarge, Truncated, WireError
from wire.federation_messages import Federation, Hello, MaskUpdate, Round, State
from wire.fields import MAX_INT, MAX_ITEMS, MAX_NUMBERS, MAX_RECORDS, MAX_TEXT, kind_of
from wire.messages import KINDS, Message, decode, encode
from wire.settings import Training
from wire.telemetry import MAX_BUCKETS, RoundTelemetry, bucket_of, bucket_start_us, histogram

KIND_NUMBERS = sorted(KINDS)


def head(kind: int) -> bytes:
    """The first four bytes of a message of one kind."""
    return messages.MAGIC + bytes([messages.VERSION, kind])


def body_of(message: Message) -> dict[int, object]:
    """A message's fields as they are on the wire."""
    body: dict[int, object] = cbor2.loads(encode(message)[4:])
    return body


@pytest.mark.parametrize("kind", KIND_NUMBERS)
@settings(QUICK, max_examples=8)
@given(st.data())
def test_messages_come_back(kind: int, data: st.DataObject) -> None:
    """A message of any kind encoded and decoded is equal, and its bytes are the same again."""
    message = data.draw(messages_of(KINDS[kind]))
    back = decode(encode(message))
    assert back == message
    assert type(back) is KINDS[kind]
    assert encode(back) == encode(message)


def _decodes_or_raises(data: bytes) -> None:
    try:
        message = decode(data)
    except WireError as error:
        told = str(error)
    else:
        told = ""
        assert decode(encode(message)) == message
    assert len(told) < 600


@settings(QUICK, max_examples=30)
@given(st.binary(max_size=60))
def test_any_bytes_decode_or_raise(data: bytes) -> None:
    """Arbitrary bytes are a message or a WireError."""
    _decodes_or_raises(data)


@settings(QUICK, max_examples=30)
@given(st.sampled_from(KIND_NUMBERS), st.binary(max_size=60))
def test_any_body_decodes_or_raises(kind: int, body: bytes) -> None:
    """A right header before arbitrary bytes is a message or a WireError."""
    _decodes_or_raises(head(kind) + body)


@settings(QUICK, max_examples=30)
@given(st.data())
def test_altered_messages_decode_or_raise(data: st.DataObject) -> None:
    """A message with a few bytes changed is a message or a WireError."""
    _decodes_or_raises(data.draw(mutated(encode(data.draw(ANY_MESSAGE)))))


@settings(QUICK, max_examples=30)
@given(ANY_MESSAGE, st.dictionaries(st.integers(1, 12), ODD_VALUES, min_size=1, max_size=3))
def test_any_value_in_any_field_decodes_or_raises(message: Message, changed: dict[int, object]) -> None:
    """Fields of any type and size are a message or a WireError."""
    kind = encode(message)[3]
    _decodes_or_raises(head(kind) + cbor2.dumps(body_of(message) | changed))


@QUICK
@given(ANY_MESSAGE, st.dictionaries(st.integers(50, 2**63) | st.text(max_size=5), st.integers(), max_size=4))
def test_unknown_fields_are_ignored(message: Message, extra: dict[int | str, int]) -> None:
    """A field number of a later program changes nothing for this one."""
    small = {key: value % 1000 for key, value in extra.items()}
    assert decode(encode(message)[:4] + cbor2.dumps(body_of(message) | small)) == message


@pytest.mark.parametrize("kind", KIND_NUMBERS)
@settings(QUICK, max_examples=3)
@given(st.data())
def test_every_field_is_needed(kind: int, data: st.DataObject) -> None:
    """A message without any one of its fields is refused, by that field's name; or the field may be left out."""
    body = body_of(data.draw(messages_of(KINDS[kind])))
    for item in dataclasses.fields(KINDS[kind]):
        less = {number: value for number, value in body.items() if number != item.metadata["number"]}
        if item.metadata["optional"]:
            assert getattr(decode(head(kind) + cbor2.dumps(less)), item.name) == item.default
            continue
        with pytest.raises(WireError, match=rf"{KINDS[kind].__name__}\.{item.name} .* is missing"):
            decode(head(kind) + cbor2.dumps(less))


WRONG: dict[object, list[object]] = {
    int: [True, -1, MAX_INT + 1, 2**64, 1.0, "1", None, [1]],
    float: [True, float("nan"), float("inf"), "1", None, b"1"],
    bool: [0, 1, "true", None],
    str: [b"text", 1, None, "x" * (MAX_TEXT + 1)],
    bytes: ["text", 1, None, [1, 2]],
    tuple[str, ...]: ["text", [1], [["a"]], {"a": "b"}, None, ["x" * 513]],
    tuple[int, ...]: [1, [True], [-1], ["1"], [0] * (MAX_NUMBERS + 1)],
    tuple[bytes, ...]: [b"1", ["1"], [1], {}, None, [[b"1"]]],
    tuple[RoundTelemetry, ...]: [{}, None, [1], [{}], [{1: 1, 2: True}], [{1: 1, 2: 1}] * (MAX_RECORDS + 1)],
    Mapping[str, bytes]: [[], {"a": b""}, {"a": "b"}, {1: bytes(32)}, {str(i): bytes(32) for i in range(17)}],
    Training: [[], {}, ["adam"], ["adam", *[1.0] * 6, True, 1], ["lion", 0.1, 0.9, 0.9, 1e-8, 1.0, 0.1, 1, 1, 0]],
}


@pytest.mark.parametrize("kind", KIND_NUMBERS)
@settings(QUICK, max_examples=2)
@given(st.data())
def test_values_of_the_wrong_type_or_range_are_refused(kind: int, data: st.DataObject) -> None:
    """Bools for numbers, numbers for bools, and everything out of range are refused in every field."""
    cls = KINDS[kind]
    body = body_of(data.draw(messages_of(cls)))
    hints = get_type_hints(cls)
    for item in dataclasses.fields(cls):
        for value in WRONG[kind_of(hints[item.name])]:
            with pytest.raises(WireError):
                decode(head(kind) + cbor2.dumps(body | {item.metadata["number"]: value}))
        if item.metadata["size"] is not None:
            with pytest.raises(WireError, match=f"{item.metadata['size']} bytes expected"):
                decode(head(kind) + cbor2.dumps(body | {item.metadata["number"]: b"short"}))


@pytest.mark.parametrize("item", dataclasses.fields(RoundTelemetry), ids=lambda item: item.name)
def test_wrong_values_in_a_record_are_refused(item: dataclasses.Field[Any]) -> None:
    """What is checked of a message's own fields is checked of a record's in it, and the error names the field."""
    for value in WRONG[kind_of(get_type_hints(RoundTelemetry)[item.name])]:
        fields = {1: 1, 2: 1} | {item.metadata["number"]: value}
        with pytest.raises(WireError, match=rf"RoundTelemetry\.{item.name}|CBOR"):
            decode(head(13) + cbor2.dumps({1: bytes(8), 2: [fields]}))


@QUICK
@given(st.lists(st.floats(0, 1e15), min_size=1, max_size=50))
def test_a_histogram_counts_every_step_in_its_bucket(times_us: list[float]) -> None:
    """Every time is counted once, in a bucket that starts no later than it."""
    first, counts = histogram(times_us)
    assert sum(counts) == len(times_us)
    assert len(counts) <= MAX_BUCKETS
    assert first == min(map(bucket_of, times_us))
    for i, count in enumerate(counts[: MAX_BUCKETS - 1]):
        low, high = bucket_start_us(first + i), bucket_start_us(first + i + 1)
        inside = sum(low <= us * (1 + 1e-9) and us < high * (1 + 1e-9) for us in times_us)
        assert count <= inside or first + i in (0, 256)


def test_the_telemetry_of_a_round_is_a_few_hundred_bytes() -> None:
    """The golden message has every field of one round and little of another, and is what the document says."""
    assert len(encode(MESSAGES["telemetry"])) < 300


def test_whole_numbers_are_accepted_for_floats() -> None:
    """A device that writes 2 for 2.0 seconds is understood."""
    update = MaskUpdate(
        run=bytes(8), number=1, signs=b"", train_samples=1, loss=0.5, correct=0, test_samples=0,
        train_s=2.0, step_ms=1.0, peak_memory_kb=0,
    )  # fmt: skip
    back = decode(head(8) + cbor2.dumps(body_of(update) | {8: 2}))
    assert back == update
    assert isinstance(back, MaskUpdate)
    assert type(back.train_s) is float


@pytest.mark.parametrize(
    ("data", "error", "text"),
    [
        (b"", Truncated, "expected 4 bytes, got 0"),
        (b"HN\x02", Truncated, "expected 4 bytes, got 3"),
        (b"HP\x01\x01", WireError, "a message starts with"),
        (b"HN\x01\x01", WireError, "message version 1"),
        (b"HN\x02\x00", WireError, "unknown message kind 0"),
        (b"HN\x02\x63", WireError, "unknown message kind 99"),
        (b"HN\x02\x01\x80", WireError, "a map of fields expected, got list"),
        (b"HN\x02\x01\xa0\x00", WireError, "1 bytes left over"),
    ],
)
def test_headers_are_checked(data: bytes, error: type[WireError], text: str) -> None:
    """What is not a message of this version is told by its first bytes."""
    with pytest.raises(error, match=text):
        decode(data)


def test_true_is_not_field_number_one() -> None:
    """A map key of true does not pass for 1, though Python says they are equal."""
    with pytest.raises(WireError):
        decode(head(2) + b"\xa2\xf5\x48" + bytes(8) + b"\x02\xf5")
    assert decode(head(2) + b"\xa2\x01\x48" + bytes(8) + b"\x02\xf5") == State(instance=bytes(8), online=True)


def test_a_large_wrong_value_makes_a_short_error_cheaply() -> None:
    """Ten megabytes in the place of a number are named in a few words, not printed."""
    data = head(10) + cbor2.dumps({1: bytes(8), 2: bytes(10 << 20)})
    tracemalloc.start()
    with pytest.raises(WireError, match="got 10485760 bytes") as caught:
        decode(data)
    assert tracemalloc.get_traced_memory()[1] < 25 << 20
    tracemalloc.stop()
    assert len(str(caught.value)) < 200


def test_a_fleet_of_the_largest_size_fits_and_one_more_does_not() -> None:
    """100,000 selected devices are read in reasonable time; 100,001 are refused."""
    selected = tuple(f"d{i}" for i in range(MAX_ITEMS))
    message = Round(
        run=bytes(8), number=1, selected=selected, evaluate=False, final=False, votes=b"", base=0, digest=bytes(8)
    )
    data = encode(message)
    started = time.process_time()
    assert decode(data) == message
    assert time.process_time() - started < 3
    with pytest.raises(WireError, match="at most 100000"):
        decode(encode(dataclasses.replace(message, selected=(*selected, "x"))))


def test_more_bytes_than_any_message_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The length is checked before anything else."""
    monkeypatch.setattr(messages, "MAX_MESSAGE_BYTES", 100)
    with pytest.raises(TooLarge, match="at most 100 accepted, got 101"):
        decode(b"HN" + bytes(99))


def test_settings_out_of_range_are_a_wire_error_with_their_name() -> None:
    """A federation whose training settings are impossible is refused as bytes from the network are."""
    federation = Federation(
        run=bytes(8), name="f", rounds=1, ticket=bytes(32), bundles={}, training=Training(), seed=0, key=bytes(32),
        issued=0,
    )  # fmt: skip
    body = body_of(federation)
    values = list(body[6])  # type: ignore[call-overload]
    for place, bad in ((1, 0.0), (1, 1e300), (2, 1.0), (7, 0), (8, 5000), (9, 0.01), (0, "lion")):
        changed = [*values[:place], bad, *values[place + 1 :]]
        with pytest.raises(WireError, match=r"Federation\.training"):
            decode(head(5) + cbor2.dumps(body | {6: changed}))


def test_kinds_and_field_numbers_are_unique() -> None:
    """No number stands for two kinds or two fields, and every field of a kind has one."""
    assert len(set(KINDS.values())) == len(KINDS)
    for cls in KINDS.values():
        numbers = [item.metadata["number"] for item in dataclasses.fields(cls)]
        assert numbers == list(range(1, len(numbers) + 1))
    assert KINDS[1] is Hello
