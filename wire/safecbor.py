"""CBOR (RFC 8949): the plain part of it, written canonically, and read from strangers within bounds or not at all.

What hidenseek writes needs whole numbers of at most 64 bits, floats, texts, byte strings, lists, maps,
true, false and null, all of definite length. A general decoder reads far more from the same bytes:
tags that compile patterns or build a 10**12-digit number, lists that contain themselves, map keys
that are neither text nor number. Here they are refused before anything is built. Nor does writing so little
need a library: cbor2 takes 1 MB of a device's memory.
"""

from __future__ import annotations

import struct
from contextlib import suppress

from wire.errors import TooLarge, Truncated, WireError

MAX_DEPTH = 16
MAX_VALUES = 200_000  # a value costs up to 100 bytes of memory and 1 on the wire
_ARGUMENT_BYTES = {24: 1, 25: 2, 26: 4, 27: 8}
_FLOATS = {25: struct.Struct(">e"), 26: struct.Struct(">f"), 27: struct.Struct(">d")}
_CONSTANTS = {20: False, 21: True, 22: None}
_SIMPLE = {value: bytes([7 << 5 | short]) for short, value in _CONSTANTS.items()}


def load_cbor(data: bytes, max_values: int = MAX_VALUES) -> object:
    """Decode one CBOR item that fills `data` exactly.

    Raises:
        WireError: if it does not decode, holds what hidenseek never writes, has too many values, is
            nested too deep, or leaves bytes over.
    """
    reader = _Reader(data, max_values)
    value = reader.value(0)
    if reader.at != len(data):
        raise WireError(f"{len(data) - reader.at} bytes left over after the CBOR item")
    return value


def dump_cbor(value: object) -> bytes:
    """The same CBOR for the same value, every time: "canonical CBOR" of RFC 7049, section 3.9.

    Raises:
        TypeError: if there is something in it that `load_cbor` does not read.
        OverflowError: if a whole number takes more than 64 bits.
    """
    parts: list[bytes] = []
    _write(value, parts)
    return b"".join(parts)


def describe(value: object) -> str:
    """A decoded value in a few words, for an error message; never its whole content."""
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    if isinstance(value, list | dict):
        return f"a {'list' if isinstance(value, list) else 'map'} of {len(value)}"
    return repr(value[:40] if isinstance(value, str) else value)


def _write(value: object, parts: list[bytes]) -> None:
    if isinstance(value, str):
        text = value.encode()
        parts += _head(3, len(text)), text
    elif isinstance(value, bytes):
        parts += _head(2, len(value)), value
    elif value is None or isinstance(value, bool):  # which is an int, too
        parts.append(_SIMPLE[value])
    elif isinstance(value, int):
        parts.append(_head(0, value) if value >= 0 else _head(1, -1 - value))
    elif isinstance(value, float):
        parts.append(_float(value))
    elif isinstance(value, list | tuple):
        parts.append(_head(4, len(value)))
        for one in value:
            _write(one, parts)
    elif isinstance(value, dict):
        parts.append(_head(5, len(value)))
        keys = {dump_cbor(key): one for key, one in value.items()}
        for key in sorted(keys, key=lambda encoded: (len(encoded), encoded)):
            parts.append(key)
            _write(keys[key], parts)
    else:
        raise TypeError(f"{type(value).__name__} found, plain data expected")


def _head(major: int, number: int) -> bytes:
    """A type and its number, in as few bytes as it takes."""
    if number < 24:
        return bytes((major << 5 | number,))
    for short, size in _ARGUMENT_BYTES.items():
        if number < 1 << 8 * size:
            return bytes((major << 5 | short,)) + number.to_bytes(size, "big")
    raise OverflowError(f"a whole number of {number.bit_length()} bits, at most 64 expected")


def _float(value: float) -> bytes:
    """In the narrowest format that keeps it as it is."""
    if value != value:
        return b"\xf9\x7e\x00"  # one NaN for all of them
    for short, form in _FLOATS.items():
        with suppress(OverflowError):
            data = form.pack(value)
            if form.unpack(data) == (value,):
                return bytes((7 << 5 | short,)) + data
    raise AssertionError("eight bytes keep every float")


class _Reader:
    def __init__(self, data: bytes, max_values: int) -> None:
        self.data = data
        self.max_values = max_values
        self.at = 0
        self.values = 0

    def take(self, count: int) -> bytes:
        self.need(count)
        self.at += count
        return self.data[self.at - count : self.at]

    def need(self, count: int) -> None:
        if count > len(self.data) - self.at:
            raise Truncated("CBOR item", expected_bytes=count, got_bytes=len(self.data) - self.at)

    def value(self, depth: int) -> object:
        self.values += 1
        if self.values > self.max_values:
            raise TooLarge("CBOR values", limit=self.max_values, got=self.values)
        if depth > MAX_DEPTH:
            raise TooLarge("CBOR nesting", limit=MAX_DEPTH, got=depth)
        (first,) = self.take(1)
        major, short = first >> 5, first & 31
        if major == 7:
            return self.simple(short)
        number = self.argument(short)
        match major:
            case 0:
                return number
            case 1:
                return -1 - number
            case 2:
                return self.take(number)
            case 3:
                return self.text(number)
            case 4:
                self.need(number)  # every value takes a byte at least
                return [self.value(depth + 1) for _ in range(number)]
            case 5:
                self.need(2 * number)
                return self.map(number, depth + 1)
        raise WireError(f"CBOR tag {number} is not used here")

    def argument(self, short: int) -> int:
        if short < 24:
            return short
        if short not in _ARGUMENT_BYTES:
            raise WireError("CBOR of indefinite length is not used here")
        return int.from_bytes(self.take(_ARGUMENT_BYTES[short]), "big")

    def simple(self, short: int) -> object:
        if short in _CONSTANTS:
            return _CONSTANTS[short]
        if short not in _FLOATS:
            raise WireError(f"CBOR simple value {short} is not used here")
        (number,) = _FLOATS[short].unpack(self.take(_FLOATS[short].size))
        return number

    def text(self, size: int) -> str:
        try:
            return self.take(size).decode()
        except UnicodeDecodeError:
            raise WireError(f"a CBOR text of {size} bytes is not UTF-8") from None

    def map(self, size: int, depth: int) -> dict[int | str, object]:
        found: dict[int | str, object] = {}
        for _ in range(size):
            key = self.value(depth)
            if type(key) is not int and not isinstance(key, str):
                raise WireError(f"a CBOR map key is a text or a whole number, got {describe(key)}")
            if key in found:
                raise WireError(f"CBOR map key {describe(key)} occurs twice")
            found[key] = self.value(depth)
        return found
