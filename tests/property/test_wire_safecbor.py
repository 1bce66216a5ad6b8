"""CBOR: the plain part is written and read as cbor2 does it; from strangers tags, cycles and bombs raise WireError."""

from __future__ import annotations

import contextlib
import math
import time
import tracemalloc

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.property.wire_strategies import QUICK, mutated
from wire import safecbor
from wire.errors import TooLarge, Truncated, WireError
from wire.safecbor import describe, dump_cbor, load_cbor

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**64), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=30)
    | st.binary(max_size=30),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(st.integers(-(2**63), 2**63) | st.text(max_size=5), inner, max_size=5)
    ),
    max_leaves=12,
)


@QUICK
@given(PLAIN, st.booleans())
def test_plain_data_comes_back(value: object, canonical: bool) -> None:
    """Whatever plain data cbor2 writes, canonical or not, reads back equal and of the same types."""
    back = load_cbor(cbor2.dumps(value, canonical=canonical))
    assert back == value
    assert repr(back) == repr(value) or isinstance(value, dict | list | float)


@QUICK
@given(PLAIN | st.lists(st.floats(width=32) | st.floats(width=16), max_size=5).map(tuple))
def test_what_is_written_is_canonical(value: object) -> None:
    """Byte for byte as cbor2 writes it: the order of keys, the shortest numbers and floats, one NaN."""
    assert dump_cbor(value) == cbor2.dumps(value, canonical=True)


@pytest.mark.parametrize("size", [23, 24, 255, 256, 65_535, 65_536])
def test_lengths_take_as_few_bytes_as_they_can(size: int) -> None:
    """On both sides of where a longer form begins; of bytes, texts, lists and maps."""
    for value in (bytes(size), "ü" * (size // 2), [None] * size, dict.fromkeys(range(size)), size, -size):
        assert dump_cbor(value) == cbor2.dumps(value, canonical=True)


@pytest.mark.parametrize("value", [{1, 2}, 1j, [object()], {1: bytearray(b"a")}, {b"a": {(): ...}}])
def test_what_would_not_be_read_is_not_written(value: object) -> None:
    """Whoever sends it hears of it, not whoever it is sent to."""
    with pytest.raises(TypeError, match="plain data expected"):
        dump_cbor(value)


@pytest.mark.parametrize("value", [2**64, -(2**64) - 1])
def test_whole_numbers_beyond_64_bits_are_not_written(value: int) -> None:
    """They would be tagged."""
    with pytest.raises(OverflowError, match="65 bits"):
        dump_cbor(value)


@settings(QUICK, max_examples=30)
@given(st.binary(max_size=60))
def test_any_bytes_load_or_raise(data: bytes) -> None:
    """Arbitrary bytes are plain data, the same that cbor2 reads, or a WireError."""
    try:
        value = load_cbor(data)
    except WireError:
        return
    assert repr(cbor2.loads(data)) == repr(value)


@settings(QUICK, max_examples=30)
@given(st.data())
def test_altered_cbor_loads_or_raises(data: st.DataObject) -> None:
    """Valid CBOR with a few bytes changed is plain data or a WireError."""
    altered = data.draw(mutated(cbor2.dumps(data.draw(PLAIN))))
    with contextlib.suppress(WireError):
        assert repr(load_cbor(altered)) == repr(cbor2.loads(altered))


@QUICK
@given(PLAIN, st.data())
def test_cut_cbor_is_refused(value: object, data: st.DataObject) -> None:
    """No item that is cut short, or followed by a byte, loads."""
    whole = cbor2.dumps(value)
    for bad in (whole[: data.draw(st.integers(0, len(whole) - 1))], whole + b"\x00"):
        with pytest.raises(WireError):
            load_cbor(bad)


@pytest.mark.parametrize(
    ("case", "data"),
    [
        ("a date", b"\xc0\x74" + b"2013-03-21T20:04:00Z"),
        ("an epoch far away", b"\xc1\x1b" + b"\xff" * 8),
        ("a bignum", b"\xc2\x4a\x00" + b"\xff" * 9),
        ("a decimal with 10**12 digits", b"\xc4\x82\x1b\x00\x00\x00\xff\xff\xff\xff\xff\x01"),
        ("a bigfloat", b"\xc5\x82\x1b\x00\x00\x00\xff\xff\xff\xff\xff\x01"),
        ("a fraction over zero", b"\xd8\x1e\x82\x01\x00"),
        ("a pattern", b"\xd8\x23\x66(a+)+$"),
        ("a mail", b"\xd8\x24\x63a:b"),
        ("a set", b"\xd9\x01\x02\x81\x01"),
        ("an address", b"\xd9\x01\x04\x44\x01\x02\x03\x04"),
        ("a list that contains itself", b"\xd8\x1c\x81\xd8\x1d\x00"),
        ("a string reference", b"\xd9\x01\x00\x82\x63aaa\xd8\x19\x00"),
        ("the self-described tag", b"\xd9\xd9\xf7\x00"),
        ("indefinite bytes", b"\x5f\x41\x01\xff"),
        ("indefinite text", b"\x7f\x61a\xff"),
        ("an indefinite list", b"\x9f\x01\xff"),
        ("an indefinite map", b"\xbf\x01\x02\xff"),
        ("a break alone", b"\xff"),
        ("undefined", b"\xf7"),
        ("a simple value", b"\xf8\xff"),
        ("a reserved length", b"\x1c"),
        ("a list as a key", b"\xa1\x81\x01\x02"),
        ("a map as a key", b"\xa1\xa1\x01\x02\xf6"),
        ("true as a key", b"\xa1\xf5\x02"),
        ("a float as a key", b"\xa1\xf9\x3c\x00\x02"),
        ("a key twice", b"\xa2\x01\x02\x01\x03"),
        ("a key twice, the second one longer", b"\xa2\x01\x02\x18\x01\x03"),
        ("a surrogate", b"\x63\xed\xa0\x80"),
        ("text that is not UTF-8", b"\x61\xff"),
        ("nothing", b""),
    ],
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else "",
)
def test_what_hidenseek_never_writes_is_refused(case: str, data: bytes) -> None:
    """Tags, indefinite lengths, odd keys and repeated keys are refused although CBOR has them."""
    with pytest.raises(WireError):
        load_cbor(data)


@pytest.mark.parametrize(
    "data",
    [
        b"\x5b" + b"\xff" * 8,
        b"\x7b\x00\x00\x00\xff\xff\xff\xff\xff",
        b"\x9b" + b"\xff" * 8,
        b"\xbb\x7f" + b"\xff" * 7,
        b"\x9a\xff\xff\xff\xff" + b"\x80" * 1000,
    ],
    ids=["bytes", "text", "list", "map", "list of lists"],
)
def test_announced_lengths_cost_nothing(data: bytes) -> None:
    """A length beyond the end is Truncated, before memory is taken for it."""
    tracemalloc.start()
    with pytest.raises(Truncated):
        load_cbor(data)
    assert tracemalloc.get_traced_memory()[1] < 50_000
    tracemalloc.stop()


@pytest.mark.slow
def test_nesting_and_number_of_values_are_bounded() -> None:
    """Neither deep nesting nor millions of tiny lists get far."""
    assert load_cbor(b"\x81" * safecbor.MAX_DEPTH + b"\x00")
    for deep in (b"\x81" * 100_000, b"\xa1\x01" * 100_000, b"\x81" * (safecbor.MAX_DEPTH + 1) + b"\x00"):
        with pytest.raises(TooLarge, match="nesting"):
            load_cbor(deep)
    count = 1_000_000
    started = time.process_time()
    with pytest.raises(TooLarge, match="values"):
        load_cbor(b"\x9a" + count.to_bytes(4, "big") + b"\x80" * count)
    assert time.process_time() - started < 5


def test_special_floats_are_floats() -> None:
    """Infinity and NaN decode (the fields that take floats refuse them); all three widths are read."""
    assert load_cbor(b"\xf9\x7c\x00") == math.inf
    assert math.isnan(load_cbor(b"\xfb\x7f\xf8\x00\x00\x00\x00\x00\x00"))  # type: ignore[arg-type]
    assert load_cbor(b"\xfa\x3f\x80\x00\x00") == 1.0


@QUICK
@given(PLAIN | st.binary(min_size=1000, max_size=1000) | st.text(min_size=1000, max_size=1000))
def test_descriptions_are_short(value: object) -> None:
    """A value in an error message takes a few words however large it is."""
    assert len(describe(value)) < 420  # 40 characters, each escaped at worst
