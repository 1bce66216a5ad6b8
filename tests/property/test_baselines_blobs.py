"""What rival methods send: every value comes back, any bytes decode or raise."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.baselines.blobs import cut, floats, join, read_floats, read_sparse, sparse
from tests.property.wire_strategies import QUICK, bit_arrays, mutated
from wire import bits
from wire.errors import Mismatch, Truncated, WireError

MANY = settings(QUICK, max_examples=60)
FLOATS = st.lists(st.floats(width=32), max_size=50).map(lambda values: np.array(values, dtype=np.float32))


@QUICK
@given(st.lists(st.binary(max_size=40), max_size=8))
def test_joined_blobs_come_back(parts: list[bytes]) -> None:
    """Empty ones too, with four bytes each for the lengths."""
    joined = join(parts)
    assert cut(joined) == parts
    assert len(joined) == sum(map(len, parts)) + 4 * len(parts)


def test_a_joined_blob_is_its_length_and_its_bytes() -> None:
    """Little-endian, one after the other."""
    assert join([b"ab", b"", b"c"]) == b"\x02\0\0\0ab\0\0\0\0\x01\0\0\0c"
    assert join([]) == b""
    assert cut(b"") == []


@MANY
@given(st.binary(max_size=60))
def test_any_bytes_are_blobs_or_raise(data: bytes) -> None:
    """What is cut joins to the same bytes: there is one encoding only."""
    try:
        parts = cut(data)
    except WireError:
        return
    assert join(parts) == data


@QUICK
@given(st.lists(st.binary(max_size=20), min_size=1, max_size=4), st.data())
def test_a_blob_cut_short_is_truncated(parts: list[bytes], data: st.DataObject) -> None:
    """Ending anywhere but behind a blob."""
    joined = join(parts)
    ends = {len(join(parts[:count])) for count in range(len(parts) + 1)}
    at = data.draw(st.integers(0, len(joined)).filter(lambda at: at not in ends))
    with pytest.raises(Truncated):
        cut(joined[:at])


@pytest.mark.parametrize("size", [5, 2**31, 2**32 - 1])
def test_a_length_beyond_the_end_is_truncated(size: int) -> None:
    """Whatever is announced, nothing is allocated by it."""
    with pytest.raises(Truncated, match=f"expected {size} bytes, got 4"):
        cut(struct.pack("<I", size) + b"four")


@QUICK
@given(FLOATS)
def test_floats_come_back_bit_for_bit(values: np.ndarray) -> None:
    """Infinities, signed zeros and NaNs included, in four bytes each."""
    coded = floats(values)
    assert len(coded) == 4 * values.size
    back = read_floats(coded, values.size)
    assert back.dtype == np.float32
    assert back.tobytes() == values.tobytes()
    assert back.flags.writeable


def test_floats_are_little_endian() -> None:
    """1.0 and -2.0, literally; float64 is rounded to float32."""
    assert floats(np.array([1.0, -2.0], np.float32)) == bytes.fromhex("0000803f000000c0")
    assert floats(np.array([1.0 + 2**-40])) == bytes.fromhex("0000803f")


@QUICK
@given(st.binary(max_size=60), st.integers(0, 20))
def test_floats_need_their_exact_length(data: bytes, n: int) -> None:
    """Any 4n bytes are n floats, any other number is a Mismatch."""
    if len(data) == 4 * n:
        assert read_floats(data, n).shape == (n,)
    else:
        with pytest.raises(Mismatch):
            read_floats(data, n)


@QUICK
@given(bit_arrays(300), st.integers(0, 2**32))
def test_sparse_values_come_back(kept: np.ndarray, seed: int) -> None:
    """Positions and values of what is kept; the rest costs nothing but its positions."""
    values = np.random.default_rng(seed).normal(size=kept.size).astype(np.float32)
    coded = sparse(values, kept)
    positions, back = read_sparse(coded, kept.size)
    assert np.array_equal(positions, kept)
    assert np.array_equal(back, values[kept])
    assert len(coded) == 8 + len(bits.encode(kept)) + 4 * np.count_nonzero(kept)


def _check_decodes_or_raises(data: bytes, n: int) -> None:
    """Read; what can be read must be as many values as positions and survive another round trip."""
    try:
        kept, values = read_sparse(data, n)
    except WireError:
        return
    assert kept.shape == (n,)
    assert values.shape == (np.count_nonzero(kept),)
    whole = np.zeros(n, dtype=np.float32)
    whole[kept] = values
    again, back = read_sparse(sparse(whole, kept), n)
    assert np.array_equal(again, kept)
    assert back.tobytes() == values.tobytes()


@MANY
@given(st.one_of(st.binary(max_size=60), st.lists(st.binary(max_size=20), max_size=3).map(join)), st.integers(0, 100))
def test_any_bytes_are_sparse_values_or_raise(data: bytes, n: int) -> None:
    """Arbitrary bytes, and arbitrary blobs, are positions and values or a WireError."""
    _check_decodes_or_raises(data, n)


@MANY
@given(st.data())
def test_altered_sparse_values_decode_or_raise(data: st.DataObject) -> None:
    """A valid encoding with a few bytes changed is positions and values or a WireError."""
    kept = data.draw(bit_arrays(100))
    coded = sparse(np.arange(kept.size, dtype=np.float32), kept)
    _check_decodes_or_raises(data.draw(mutated(coded)), kept.size)


def test_sparse_values_must_be_as_many_as_positions() -> None:
    """One value too few, one too many, or a blob too many is a Mismatch."""
    kept = np.array([True, False, True])
    for count in (1, 3):
        with pytest.raises(Mismatch, match="float32 array: expected 8 bytes"):
            read_sparse(join([bits.encode(kept), floats(np.ones(count))]), 3)
    with pytest.raises(Mismatch, match="sparse array: expected 2 blobs, got 3"):
        read_sparse(join([bits.encode(kept), floats(np.ones(2)), b""]), 3)
