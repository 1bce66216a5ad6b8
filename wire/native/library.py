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

VERSION = 3  # of what `wire.h` declares
Symbols = NDArray[np.uint8]
Spans = NDArray[np.int64]  # where each of some items begins and ends in data, (count, 2)
PLACES = ("plain", "run", "number", "head", "signs", "signs_end")
WHOLES = (*PLACES, "train_samples", "correct", "test_samples", "peak_memory_kb")
REALS = ("loss", "train_s", "step_ms")
UPDATE = np.dtype([(name, np.int64) for name in WHOLES] + [(name, np.float64) for name in REALS])
SIGNATURE_BYTES = 64


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
        library.hs_read_updates.argtypes = [array, array, number, array]
        library.hs_check_signatures.argtypes = [array, array, array, number, array, array, array]
        library.hs_make_signatures.argtypes = [array, array, array, number, array, array, array]
        library.hs_decode_masks.argtypes = [array, array, number, array, array, number, array, number, array, array]
        for name in ("count_votes", "philox", "read_updates", "check_signatures", "make_signatures", "decode_masks"):
            getattr(library, f"hs_{name}").restype = None

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

    def read_updates(self, data: bytes, spans: Spans) -> NDArray[np.void]:
        """What is in the CBOR of `MaskUpdate`s, of dtype `UPDATE`: (count,)."""
        updates = np.empty(len(spans), dtype=UPDATE)
        self._library.hs_read_updates(data, spans.ctypes.data, len(spans), updates.ctypes.data)
        return updates

    def check_signatures(self, function: int, data: bytes, spans: Spans, keys: bytes) -> NDArray[np.bool_]:
        """Which items, a signature and what is signed, are signed with their keys; by `crypto_sign_open`'s address."""
        good = np.zeros(len(spans), dtype=np.uint8)
        scratch = np.empty(len(data) + SIGNATURE_BYTES, dtype=np.uint8)
        self._library.hs_check_signatures(
            function, data, spans.ctypes.data, len(spans), keys, scratch.ctypes.data, good.ctypes.data
        )
        return good.view(np.bool_)

    def make_signatures(self, function: int, data: bytes, spans: Spans, key: bytes) -> bytes:
        """Signatures of items, one after the other, with an expanded private key; by `crypto_sign`'s address."""
        made = np.empty(SIGNATURE_BYTES * len(spans), dtype=np.uint8)
        scratch = np.empty(len(data) + SIGNATURE_BYTES, dtype=np.uint8)
        self._library.hs_make_signatures(
            function, data, spans.ctypes.data, len(spans), key, scratch.ctypes.data, made.ctypes.data
        )
        return made.tobytes()

    def decode_masks(
        self, data: bytes, spans: Spans, contexts: Symbols, ends: NDArray[np.int64], reference: NDArray[np.uint64]
    ) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
        """Packed signs (count, words), and which are those of a code; `reference` packed, with zeros at its end."""
        count, words = len(spans), reference.size
        rows = np.empty((count, words), dtype=np.uint64)
        good = np.zeros(count, dtype=np.uint8)
        self._library.hs_decode_masks(
            data, spans.ctypes.data, count, contexts.ctypes.data, ends.ctypes.data, ends.size,
            reference.ctypes.data, words, rows.ctypes.data, good.ctypes.data,
        )  # fmt: skip
        return rows, good.view(np.bool_)

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
