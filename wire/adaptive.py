"""Lossless coding of small symbols whose likelihood depends on a context that both sides know.

An adaptive binary range coder. A symbol of b bits is b decisions, highest bit first; every decision
has its own probability, which starts at one half and learns from what it sees:

- For b = 1 the probability is chosen by the context and by whether any of the last 4 symbols was a one;
  otherwise by the context and the bits of the symbol that are known already.
- A probability p of a one is a 32-bit fraction, at first 2^31. With r = floor(2^16 / (seen + 2)), where
  `seen` counts its decisions up to 254, a one makes it p + floor((2^32 - 1 - p) r / 2^16), a zero
  p - floor(p r / 2^16): at first the estimate of Krichevsky and Trofimov (1981), later a moving average.
- Where a layer ends, `seen` falls to at most 30: the next layer is alike, but not the same.
- The coder keeps [low, low + range), 64-bit numbers, at first 0 and 2^64 - 1. A one takes the lower
  floor(range / 2^16) x (floor(p / 2^16) or 1) of it, a zero the rest. When the range falls below 2^32,
  low's upper 32 bits are written, highest byte first, and both move up by 32 bits.
- At the end come the fewest bytes that fall into the range; zeros at the end are not sent.

The same in C (`wire/native`) and, where that was not built, in Python (`wire.adaptive_python`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wire import adaptive_python
from wire.errors import WireError
from wire.native.library import native

Symbols = NDArray[np.uint8]
CONTEXTS = 16
MAX_BITS = 4


def encode(symbols: Symbols, contexts: Symbols, ends: NDArray[np.int64], bits: int, *, room: int) -> bytes | None:
    """Code symbols.

    Args:
        symbols: uint8 (n,), each below 2^bits.
        contexts: uint8 (n,), each below 16.
        ends: where each layer ends, ascending, the last one n; int64 (layers,).
        bits: of a symbol, 1 to 4.
        room: how many bytes it may take.

    Returns:
        the code, or None if it takes more than `room` bytes.

    Raises:
        ValueError: if an argument is not of that form.
    """
    _check(contexts, ends, bits)
    if symbols.dtype != np.uint8 or symbols.shape != contexts.shape or (symbols.size and symbols.max() >> bits):
        raise ValueError(f"{contexts.size} uint8 symbols of {bits} bits expected")
    coder = native() or adaptive_python
    return coder.encode(np.ascontiguousarray(symbols), np.ascontiguousarray(contexts), ends, bits, room)


def decode(data: bytes, contexts: Symbols, ends: NDArray[np.int64], bits: int) -> Symbols:
    """Inverse of `encode`: uint8 (n,).

    Any bytes decode to something; that they are somebody's symbols, a signature has to say.

    Raises:
        WireError: if there are more bytes than the symbols need, or zeros at the end.
        ValueError: if an argument is not of that form.
    """
    _check(contexts, ends, bits)
    symbols = (
        None
        if data.endswith(b"\0")
        else (native() or adaptive_python).decode(data, np.ascontiguousarray(contexts), ends, bits)
    )
    if symbols is None:
        raise WireError(f"{len(data)} bytes are more than the code of {contexts.size} symbols has")
    return symbols


def _check(contexts: Symbols, ends: NDArray[np.int64], bits: int) -> None:
    """The native coder trusts what passes here."""
    if contexts.dtype != np.uint8 or contexts.ndim != 1 or (contexts.size and contexts.max() >= CONTEXTS):
        raise ValueError(f"uint8 contexts below {CONTEXTS} expected")
    places = ends.tolist()  # few, and compared faster so
    if ends.dtype != np.int64 or ends.ndim != 1 or not places or places[0] < 0 or sorted(places) != places:
        raise ValueError("int64 ends of layers, ascending, expected")
    if places[-1] != contexts.size or not 1 <= bits <= MAX_BITS:
        raise ValueError(f"{places[-1]} symbols of {bits} bits, but {contexts.size} contexts")
