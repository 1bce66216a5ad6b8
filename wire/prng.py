"""Random numbers that are the same on every machine, for ever: raw Philox words and nothing else.

numpy promises the raw stream of a bit generator never changes, and does not promise that of
`Generator.normal` and friends. Tickets are content-addressed and devices regenerate weights
from a seed, so everything below is built on raw words.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

# What a stream is for. Part of the wire format: never renumber.
STREAM_SIGN = 1  # signs of the initial weights
STREAM_MAGNITUDE = 2  # magnitudes of the initial weights
STREAM_KEEP = 3  # seeded random keep masks


def words(seed: int, stream: int, index: int, count: int) -> NDArray[np.uint64]:
    """Return `count` uniform 64-bit words, shape (count,), fixed by (seed, stream, index).

    Args:
        seed: 0 .. 2**64-1.
        stream: one of the `STREAM_*` constants.
        index: layer index, or whatever the stream counts.
        count: how many words.
    """
    key = np.array([seed, (stream << 32) | index], dtype=np.uint64)
    raw: NDArray[np.uint64] = np.random.Philox(key=key).random_raw(count)
    return raw


def signs(seed: int, index: int, count: int) -> NDArray[np.bool_]:
    """Return `count` fair bits, shape (count,), True for +1: the signs of the initial weights."""
    raw = words(seed, STREAM_SIGN, index, -(-count // 64))
    return np.unpackbits(raw.astype("<u8").view(np.uint8), count=count).astype(np.bool_)


def normals(seed: int, index: int, count: int, at: NDArray[np.int32] | None = None) -> NDArray[np.float64]:
    """Return `count` |N(0, 1)| magnitudes, float64, shape (count,), by Box-Muller on raw words.

    Args:
        seed: 0 .. 2**64-1.
        index: layer index.
        count: how many there are.
        at: positions in 0 .. count-1; only those are made and returned, shape (at.size,).
    """
    raw = words(seed, STREAM_MAGNITUDE, index, 2 * count)
    first, second = (raw[:count], raw[count:]) if at is None else (raw[:count][at], raw[count:][at])
    magnitudes: NDArray[np.float64] = np.abs(
        np.sqrt(-2.0 * np.log(_uniform(first))) * np.cos(2.0 * np.pi * _uniform(second))
    )
    return magnitudes


def _uniform(raw: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Words -> float64 in (0, 1), never 0."""
    return ((raw >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def choose(seed: int, stream: int, index: int, total: int, count: int) -> NDArray[np.int64]:
    """Return `count` distinct positions out of `total`, ascending int64, uniformly at random.

    The positions with the smallest words win; equal words (2**-64 a pair) go to the lower position.
    """
    if count == 0:
        return np.empty(0, dtype=np.int64)
    drawn = words(seed, stream, index, total)
    largest = np.partition(drawn, count - 1)[count - 1]
    below, equal = np.flatnonzero(drawn < largest), np.flatnonzero(drawn == largest)
    return np.sort(np.concatenate([below, equal[: count - below.size]])).astype(np.int64)


def mix(*parts: int | str | bytes) -> int:
    """Return a 64-bit seed that depends on every part, in order (first 8 bytes of a SHA-256)."""
    from hashlib import sha256

    digest = sha256(b"".join(_tagged(part) for part in parts)).digest()
    return int.from_bytes(digest[:8], "little")


def generator(parts: Sequence[int | str | bytes]) -> np.random.Generator:
    """A numpy Generator seeded by `mix`, for choices that need not be equal across numpy versions."""
    return np.random.Generator(np.random.Philox(key=mix(*parts)))


def _tagged(part: int | str | bytes) -> bytes:
    body = part if isinstance(part, bytes) else str(part).encode()
    return len(body).to_bytes(4, "little") + type(part).__name__[:1].encode() + body
