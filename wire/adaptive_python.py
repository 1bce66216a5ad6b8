"""`wire.adaptive` in Python: what a machine without a compiler uses, about a hundred times slower than C."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Symbols = NDArray[np.uint8]
ALL = (1 << 64) - 1
CERTAIN = 254
SETTLED = 30
WINDOW = 4
RECIPROCAL = [65536 // (seen + 2) for seen in range(CERTAIN + 1)]


class _Model:
    """The probabilities of every context's decisions, and how often each was met."""

    def __init__(self, bits: int) -> None:
        self.ones = [1 << 31] * (16 << max(bits, 1))
        self.seen = [0] * len(self.ones)

    def share(self, state: int, whole: int) -> int:
        return (whole >> 16) * (self.ones[state] >> 16 | 1)

    def learn(self, state: int, bit: int) -> None:
        one, seen = self.ones[state], self.seen[state]
        if bit:
            self.ones[state] = one + ((0xFFFFFFFF - one) * RECIPROCAL[seen] >> 16)
        else:
            self.ones[state] = one - (one * RECIPROCAL[seen] >> 16)
        if seen < CERTAIN:
            self.seen[state] = seen + 1

    def unsettle(self) -> None:
        self.seen = [min(seen, SETTLED) for seen in self.seen]


class _Encoder:
    def __init__(self, model: _Model) -> None:
        self.model = model
        self.low = 0  # of the whole code so far, as one number: a carry takes care of itself
        self.range = ALL
        self.words = 0

    def code(self, state: int, bit: int) -> int:
        bound = self.model.share(state, self.range)
        if bit:
            self.range = bound
        else:
            self.low += bound
            self.range -= bound
        self.model.learn(state, bit)
        while self.range >> 32 == 0:
            self.low <<= 32
            self.range <<= 32
            self.words += 1
        return bit

    def finish(self) -> bytes:
        last = self.low + self.range - 1
        value = next(last >> spare << spare for spare in range(64, -1, -8) if last >> spare << spare >= self.low)
        return value.to_bytes(4 * self.words + 8, "big").rstrip(b"\0")


class _Decoder:
    def __init__(self, model: _Model, data: bytes) -> None:
        self.model = model
        self.data = data
        self.at = 0
        self.range = ALL
        self.value = self._take(8)

    def _take(self, count: int) -> int:
        part = self.data[self.at : self.at + count]
        self.at += count
        return int.from_bytes(part.ljust(count, b"\0"), "big")

    def code(self, state: int, _: int) -> int:
        bound = self.model.share(state, self.range)
        bit = int(self.value < bound)
        if bit:
            self.range = bound
        else:
            self.value -= bound
            self.range -= bound
        self.model.learn(state, bit)
        while self.range >> 32 == 0:
            self.value = (self.value << 32 | self._take(4)) & ALL  # what no encoder writes may lie beyond the range
            self.range <<= 32
        return bit


def encode(symbols: Symbols, contexts: Symbols, ends: NDArray[np.int64], bits: int, room: int) -> bytes | None:
    """See `wire.adaptive.encode`."""
    encoder = _Encoder(_Model(bits))
    _walk(encoder, symbols.tolist(), contexts, ends, bits)
    data = encoder.finish()
    return data if len(data) <= room else None


def decode(data: bytes, contexts: Symbols, ends: NDArray[np.int64], bits: int) -> Symbols | None:
    """See `wire.adaptive.decode`; None if bytes are left over."""
    decoder = _Decoder(_Model(bits), data)
    symbols = _walk(decoder, [0] * contexts.size, contexts, ends, bits)
    return np.array(symbols, dtype=np.uint8) if decoder.at >= len(data) else None


def _walk(
    coder: _Encoder | _Decoder, symbols: list[int], contexts: Symbols, ends: NDArray[np.int64], bits: int
) -> list[int]:
    """Code symbols in order; a decoder ignores what they are. Returns what they came to."""
    known = contexts.tolist()
    found: list[int] = []
    recent = 0
    for end in ends.tolist():
        for at in range(len(found), end):
            symbol = symbols[at]
            if bits == 1:
                symbol = coder.code(known[at] * 2 + (recent > 0), symbol)
                recent = WINDOW if symbol else recent - (recent > 0)
            else:
                node = 1
                for bit in range(bits - 1, -1, -1):
                    node = node << 1 | coder.code((known[at] << bits) + node, symbol >> bit & 1)
                symbol = node - (1 << bits)
            found.append(symbol)
        coder.model.unsettle()
    return found
