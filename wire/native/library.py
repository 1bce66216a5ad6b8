"""The binding of the native library: finds the library, passes arrays. Nothing is computed here."""

from __future__ import annotations

import ctypes
import os
import sys
from ctypes import c_int64, c_uint64, c_void_p
from functools import cache

import numpy as np
from numpy.typing import NDArray

from wire.native import FOLDER, LIBRARY

VERSION = 2  # of what `wire.h` declares
Symbols = NDArray[np.uint8]


class Native:
    """The functions of `wire.h`. Arrays are contiguous, of the types named there."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        for name in ("hs_adaptive_encode", "hs_adaptive_decode"):
            getattr(library, name).restype = c_int64
        number, array = c_int64, c_void_p
        library.hs_adaptive_encode.argtypes = [array, array, array, number, number, array]
        library.hs_adaptive_decode.argtypes = [array, number, array, array, number, number, array]
        library.hs_count_votes.argtypes = [array, number, number, array]
        library.hs_philox.argtypes = [c_uint64, c_uint64, c_uint64, number, array]
        library.hs_count_votes.restype = library.hs_philox.restype = None

    def encode(
        self, symbols: Symbols, contexts: Symbols, ends: NDArray[np.int64], bits: int, room: int
    ) -> bytes | None:
        """Coded symbols, or None if they take more than `room` bytes."""
        out = np.empty(2 * symbols.size * bits + 8, dtype=np.uint8)  # the most that it can take
        size = self._library.hs_adaptive_encode(
            symbols.ctypes.data, contexts.ctypes.data, ends.ctypes.data, ends.size, bits, out.ctypes.data
        )
        return out[:size].tobytes() if size <= room else None

    def decode(self, data: bytes, contexts: Symbols, ends: NDArray[np.int64], bits: int) -> Symbols | None:
        """The symbols, or None if bytes are left over."""
        symbols = np.empty(contexts.size, dtype=np.uint8)
        found = self._library.hs_adaptive_decode(
            data, len(data), contexts.ctypes.data, ends.ctypes.data, ends.size, bits, symbols.ctypes.data
        )
        return None if found < 0 else symbols

    def count_votes(self, masks: NDArray[np.uint64]) -> NDArray[np.uint16]:
        """Set bits of packed masks (rows, words), position by position: (64 words,)."""
        counts = np.zeros(64 * masks.shape[1], dtype=np.uint16)
        self._library.hs_count_votes(masks.ctypes.data, *masks.shape, counts.ctypes.data)
        return counts

    def philox(self, key: tuple[int, int], first: int, count: int) -> NDArray[np.uint64]:
        """Words of the blocks from counter `first` on: (count,)."""
        out = np.empty(count, dtype=np.uint64)
        self._library.hs_philox(*key, first, count, out.ctypes.data)
        return out


@cache
def native() -> Native | None:
    """The library, or None where it was not built, or from other sources than these.

    `$HIDENSEEK_WIRE` chooses instead: `python` does without, `sanitize` takes the build with checks.
    """
    chosen = os.environ.get("HIDENSEEK_WIRE")
    if chosen == "python" or sys.byteorder != "little":
        return None
    try:
        library = ctypes.CDLL(str(FOLDER / (f"{chosen}.so" if chosen else LIBRARY)))
    except OSError:
        if chosen:
            raise
        return None
    library.hs_wire_version.restype = c_int64
    return Native(library) if library.hs_wire_version() == VERSION else None
