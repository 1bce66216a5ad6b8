"""Random numbers that are the same on every machine, for ever: raw Philox words and nothing else.

Tickets are content-addressed and devices regenerate weights from a seed, so everything below is built
on the words of one counter-based generator. It is numpy's Philox, word for word, written out here
because importing numpy.random costs a device 2.6 MB.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from wire.native.library import native

# What a stream is for. Part of the wire format: never renumber.
STREAM_SIGN = 1  # signs of the initial weights
STREAM_MAGNITUDE = 2  # magnitudes of the initial weights
STREAM_KEEP = 3  # seeded random keep masks
STREAM_ORDER = 4  # the order in which a device sees its samples
STREAM_DITHER = 5  # thresholds of what a device sends, and of what is announced

# Philox4x64-10: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", table 2 and section 3.
ROUNDS = 10
MULTIPLIERS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
WEYL = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)
CHUNK = 1 << 12  # counters worked on at once: half a MB of intermediates whatever is asked for
FIRST = 1  # counter of the first block: numpy counts before it draws
MASK_32 = np.uint64(0xFFFFFFFF)


def words(seed: int, stream: int, index: int, count: int) -> NDArray[np.uint64]:
    """Return `count` uniform 64-bit words, shape (count,), fixed by (seed, stream, index).

    Args:
        seed: 0 .. 2**64-1.
        stream: one of the `STREAM_*` constants.
        index: layer index, or whatever the stream counts.
        count: how many words.
    """
    key = (seed, (stream << 32) | index)
    library = native()
    return _words(key, count) if library is None else library.philox(key, FIRST, count)


def _words(key: tuple[int, int], count: int) -> NDArray[np.uint64]:
    """As `words`, where no library was built: 15 times slower."""
    blocks = -(-count // 4)
    out = np.empty((blocks, 4), dtype=np.uint64)
    for at in range(0, blocks, CHUNK):
        counters = np.arange(at + FIRST, min(at + CHUNK, blocks) + FIRST, dtype=np.uint64)
        out[at : at + CHUNK] = _philox(counters, *key)
    return out.reshape(-1)[:count]


def _philox(counters: NDArray[np.uint64], *key: int) -> NDArray[np.uint64]:
    """Four words for every 256-bit counter (c, 0, 0, 0): uint64 (n,) -> (n, 4)."""
    zero = np.zeros_like(counters)
    a, b, c, d = counters, zero, zero, zero
    for turn in range(ROUNDS):
        k0, k1 = (np.uint64((word + turn * step) % (1 << 64)) for word, step in zip(key, WEYL, strict=True))
        high_a, low_a = _multiply(a, MULTIPLIERS[0])
        high_c, low_c = _multiply(c, MULTIPLIERS[1])
        a, b, c, d = high_c ^ b ^ k0, low_c, high_a ^ d ^ k1, low_a
    return np.stack([a, b, c, d], axis=1)


def _multiply(x: NDArray[np.uint64], factor: int) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """High and low words of the 128-bit products, by halves: numpy has no wider integer."""
    half = np.uint64(32)
    x_high, x_low = x >> half, x & MASK_32
    f_high, f_low = np.uint64(factor >> 32), np.uint64(factor & 0xFFFFFFFF)
    low, middle = x_low * f_low, x_high * f_low
    cross = (low >> half) + (middle & MASK_32) + x_low * f_high
    return x_high * f_high + (middle >> half) + (cross >> half), x * np.uint64(factor)


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


def permutation(seed: int, index: int, count: int) -> NDArray[np.intp]:
    """Return 0 .. count-1 in random order, intp (count,): the order of samples in epoch `index`."""
    return np.argsort(words(seed, STREAM_ORDER, index, count), kind="stable")


def mix(*parts: int | str | bytes) -> int:
    """Return a 64-bit seed that depends on every part, in order (first 8 bytes of a SHA-256)."""
    from hashlib import sha256

    digest = sha256(b"".join(_tagged(part) for part in parts)).digest()
    return int.from_bytes(digest[:8], "little")


def training_seed(seed: int, number: int, device: str) -> int:
    """What a device's training in a round draws by, of a run with this seed: both sides know it."""
    return mix(seed, number, device)


def generator(parts: Sequence[int | str | bytes]) -> np.random.Generator:
    """A numpy Generator seeded by `mix`, for choices that need not be equal across numpy versions."""
    return np.random.Generator(np.random.Philox(key=mix(*parts)))


def _tagged(part: int | str | bytes) -> bytes:
    body = part if isinstance(part, bytes) else str(part).encode()
    return len(body).to_bytes(4, "little") + type(part).__name__[:1].encode() + body
