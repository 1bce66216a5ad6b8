"""Coded bit arrays: every array comes back, no code is longer than raw and a byte, any bytes decode or raise."""

from __future__ import annotations

import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.property.wire_strategies import QUICK, bit_arrays, mutated
from wire import bits
from wire.errors import Mismatch, TooLarge, Truncated, WireError


@QUICK
@given(bit_arrays())
def test_packed_bits_come_back(array: np.ndarray) -> None:
    """What is packed unpacks to the same bits, in one byte for every eight."""
    packed = bits.pack(array)
    assert len(packed) == -(-array.size // 8)
    assert np.array_equal(bits.unpack(packed, array.size), array)


@QUICK
@given(bit_arrays(3000))
def test_coded_bits_come_back(array: np.ndarray) -> None:
    """What is encoded decodes to the same bits, and takes at most one byte more than raw."""
    coded = bits.encode(array)
    assert len(coded) <= 1 + -(-array.size // 8)
    back = bits.decode(coded, array.size)
    assert back.dtype == np.bool_
    assert np.array_equal(back, array)


@QUICK
@given(bit_arrays(3000))
def test_an_array_and_its_opposite_cost_the_same(array: np.ndarray) -> None:
    """Full arrays are coded as well as empty ones: the inverse takes no more bytes."""
    assert len(bits.encode(array)) == len(bits.encode(~array))


def _check_decodes_or_raises(data: bytes, n: int) -> None:
    """Decode; what decodes must be `n` bits that survive another round trip."""
    try:
        array = bits.decode(data, n)
    except WireError:
        return
    assert array.shape == (n,)
    assert np.array_equal(bits.decode(bits.encode(array), n), array)


@settings(QUICK, max_examples=30)
@given(st.binary(max_size=80), st.integers(0, 700))
def test_any_bytes_decode_or_raise(data: bytes, n: int) -> None:
    """Arbitrary bytes are n bits or a WireError."""
    _check_decodes_or_raises(data, n)


@settings(QUICK, max_examples=30)
@given(st.data())
def test_altered_codes_decode_or_raise(data: st.DataObject) -> None:
    """A valid code with a few bytes changed is n bits or a WireError."""
    array = data.draw(bit_arrays())
    _check_decodes_or_raises(data.draw(mutated(bits.encode(array))), array.size)


@settings(QUICK, max_examples=30)
@given(st.integers(0, 255), st.integers(0, 2**32 - 1), st.binary(max_size=60), st.integers(0, 500))
def test_any_announced_count_decodes_or_raises(kind: int, count: int, body: bytes, n: int) -> None:
    """A Rice header with any kind and count before any bytes is n bits or a WireError."""
    _check_decodes_or_raises(bytes([kind]) + struct.pack("<I", count) + body, n)


@QUICK
@given(bit_arrays(200).filter(lambda array: array.size % 8), st.integers(0, 6))
def test_spare_bits_must_be_zero(array: np.ndarray, spare: int) -> None:
    """A packed array has one encoding: a set bit after the last one is refused."""
    packed = bytearray(bits.pack(array))
    first_spare = array.size % 8
    packed[-1] |= 1 << min(first_spare + spare, 7)
    with pytest.raises(WireError, match="spare bits"):
        bits.unpack(bytes(packed), array.size)


@QUICK
@given(bit_arrays(300), st.integers(1, 400))
def test_packed_length_must_be_exact(array: np.ndarray, other: int) -> None:
    """Packed bytes for another number of bits are a Mismatch unless the byte count is the same."""
    packed = bits.pack(array)
    if len(packed) != -(-other // 8):
        with pytest.raises(Mismatch):
            bits.unpack(packed, other)


def test_empty_and_short_codes_are_truncated() -> None:
    """No byte at all, a header cut short and a count without its gaps are Truncated."""
    for data in (b"", b"\x01", b"\x01\x05\x00\x00", b"\x01\x05\x00\x00\x00"):
        with pytest.raises(Truncated):
            bits.decode(data, 100)


@pytest.mark.parametrize("kind", [27, 63, 64, 91, 127, 128, 255])
def test_unknown_kinds_are_refused(kind: int) -> None:
    """Only raw, Rice with k = 0..24 and its inverted form exist."""
    with pytest.raises(WireError, match=f"unknown kind {kind}"):
        bits.decode(bytes([kind, 0, 0, 0, 0]), 100)


def test_more_set_bits_than_bits_are_refused() -> None:
    """A count above the number of bits is refused before anything is sized by it."""
    with pytest.raises(Truncated):
        bits.decode(b"\x01" + struct.pack("<I", 2**32 - 1) + b"\xff" * 8, 100)


def test_positions_beyond_the_end_are_refused() -> None:
    """A gap that leads past the last bit is a WireError, not an index error."""
    with pytest.raises(WireError, match="beyond 100 bits"):
        bits.decode(b"\x08" + struct.pack("<I", 1) + b"\xff", 100)  # k = 7: remainder 127, quotient 0


def test_a_code_longer_than_raw_is_refused_before_it_is_unpacked() -> None:
    """A megabyte for 64 bits costs no memory: the length alone refuses it."""
    data = b"\x01" + struct.pack("<I", 64) + b"\xff" * (1 << 20)
    tracemalloc.start()
    with pytest.raises(TooLarge):
        bits.decode(data, 64)
    assert tracemalloc.get_traced_memory()[1] < 100_000
    tracemalloc.stop()


@pytest.mark.parametrize("density", [0.01, 0.03, 0.1, 0.2, 0.3])
def test_sparse_bits_are_near_the_entropy(density: float) -> None:
    """Up to a density of 0.3 the code is within 6 per cent (and a header) of the bits' entropy."""
    array = np.random.default_rng(0).random(40_000) < density
    share = array.mean()
    entropy = -(share * np.log2(share) + (1 - share) * np.log2(1 - share)) * array.size / 8
    assert len(bits.encode(array)) < 1.06 * entropy + 8
