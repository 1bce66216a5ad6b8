"""Bundles: checked by hash first, then by content; hostile ones raise WireError or TicketError."""

from __future__ import annotations

from hashlib import sha256

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers import random_ticket
from tests.property.wire_strategies import ODD_VALUES, QUICK, mutated
from wire.bundle import MAGIC, VERSION, Bundle, decode_bundle
from wire.errors import Mismatch, TicketError, WireError
from wire.layers import Linear
from wire.plan import Plan

TICKET = random_ticket(Plan(name="tiny", input_shape=(6,), layers=(Linear(out_features=4),)), 0.5, seed=3)
BUNDLE = Bundle(runtime="onnx", ticket=TICKET, files={"train.onnx": b"graph", "infer.onnx": b""})


def _read(data: bytes) -> Bundle:
    """Decode bytes whose hash was announced truly."""
    return decode_bundle(data, expected_id=sha256(data).digest())


def _sealed(body: object) -> bytes:
    return MAGIC + bytes([VERSION]) + cbor2.dumps(body)


@QUICK
@given(st.text(max_size=10), st.dictionaries(st.text("abc-_9", min_size=1, max_size=9), st.binary(max_size=50)))
def test_bundles_come_back(runtime: str, files: dict[str, bytes]) -> None:
    """A bundle encoded and decoded is equal and has the same id."""
    bundle = Bundle(runtime=runtime, ticket=TICKET, files=files)
    back = decode_bundle(bundle.encoded, expected_id=bundle.id)
    assert back == bundle
    assert back.id == bundle.id


def test_another_hash_is_refused_first() -> None:
    """Bytes that are not what was announced are not even opened."""
    with pytest.raises(Mismatch, match="SHA-256"):
        decode_bundle(BUNDLE.encoded + b"\x00", expected_id=BUNDLE.id)


@settings(QUICK, max_examples=30)
@given(st.binary(max_size=60), st.sampled_from([b"", MAGIC, MAGIC + bytes([VERSION])]))
def test_any_bytes_are_refused(data: bytes, start: bytes) -> None:
    """Arbitrary bytes with a true hash are a WireError or TicketError."""
    with pytest.raises((WireError, TicketError)):
        _read(start + data)


@settings(QUICK, max_examples=30)
@given(mutated(BUNDLE.encoded) | ODD_VALUES.map(_sealed) | st.lists(ODD_VALUES, min_size=3, max_size=3).map(_sealed))
def test_altered_bundles_decode_or_raise(data: bytes) -> None:
    """An altered bundle with a true hash is a bundle with a sound ticket, a WireError or a TicketError."""
    try:
        bundle = _read(data)
    except (WireError, TicketError):
        return
    assert bundle.ticket.kept == TICKET.kept


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/b", "a\\b", ".hidden", "..", "", "x" * 65, "a\n"])
def test_file_names_stay_in_their_folder(name: str) -> None:
    """A file name with a path in it is refused, whoever would write it to disk."""
    with pytest.raises(WireError, match="plain file name"):
        _read(_sealed(["onnx", TICKET.encoded, {name: b""}]))


@pytest.mark.parametrize(
    "body",
    [["onnx", TICKET.encoded], ["onnx", "text", {}], [1, TICKET.encoded, {}], ["onnx", TICKET.encoded, {"a": 1}]],
)
def test_parts_of_the_wrong_kind_are_refused(body: object) -> None:
    """A bundle is a text, bytes and a map of bytes."""
    with pytest.raises(WireError):
        _read(_sealed(body))


def test_other_versions_and_bad_tickets_are_ticket_errors() -> None:
    """A newer version and a corrupt ticket inside say so."""
    with pytest.raises(TicketError, match="bundle version 9"):
        _read(MAGIC + b"\x09")
    with pytest.raises(TicketError, match="ticket in the bundle: corrupt"):
        _read(_sealed(["onnx", TICKET.encoded[:-1], {}]))
    with pytest.raises(WireError, match="starts with"):
        _read(b"HNST\x01")
