"""Lossless coding of one array of bits: raw, or the gaps between its set bits in Golomb-Rice code.

Everything the wire carries about masks is such an array: keep masks (few positions set), sign
flips against a reference (few flips), planes of vote counts. Rice-coded gaps come within a few
per cent of the entropy of independent bits up to a density of about 0.3; above that raw wins,
and the encoder takes whichever is shorter, so the result is never more than a byte over raw.

    byte 0   0: raw, 1 + k: Rice gaps with k remainder bits (k = 0..24), 64 + the same: inverted first
    raw      ceil(n / 8) bytes, first bit in the lowest bit, spare bits zero
    Rice     u32 count of set bits; remainders (k bits each, lowest first); quotients in unary
             (zeros ended by a one); one bit stream, lowest bit first, spare bits zero

All integers little-endian. The number of bits `n` is known to both sides and not stored.
"""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

from wire.errors import Mismatch, TooLarge, Truncated, WireError

COUNT = struct.Struct("<I")
MAX_K = 24
INVERTED = 64
Bits = NDArray[np.bool_]


def pack(bits: Bits) -> bytes:
    """Bits (n,) -> ceil(n / 8) bytes, first bit in the lowest bit of the first byte."""
    return np.packbits(bits, bitorder="little").tobytes()


def unpack(data: bytes, n: int) -> Bits:
    """Inverse of `pack`: bytes -> bool (n,).

    Raises:
        Mismatch: if `data` is not exactly ceil(n / 8) bytes.
        WireError: if a spare bit is set (every array has one encoding only).
    """
    if len(data) != -(-n // 8):
        raise Mismatch(f"{n} packed bits", expected=f"{-(-n // 8)} bytes", got=f"{len(data)} bytes")
    every = np.unpackbits(np.frombuffer(data, dtype=np.uint8), bitorder="little")
    if every[n:].any():
        raise WireError(f"spare bits after {n} packed bits are not zero")
    return every[:n].astype(np.bool_)


def encode(bits: Bits) -> bytes:
    """Bits (n,) -> the shorter of the raw and the Rice form, one leading byte included."""
    n, ones = bits.size, int(np.count_nonzero(bits))
    inverted = ones > n - ones
    candidates = [b"\x00" + pack(bits)]
    if min(ones, n - ones) * 2 < n:
        gaps = _gaps(~bits if inverted else bits)
        k = _best_k(gaps, n)
        if COUNT.size + _rice_bits(gaps, k) / 8 < len(candidates[0]):
            flag = 1 + k + (INVERTED if inverted else 0)
            candidates.append(bytes([flag]) + COUNT.pack(gaps.size) + _rice(gaps, k))
    return min(candidates, key=len)


def decode(data: bytes, n: int) -> Bits:
    """Inverse of `encode`: bytes -> bool (n,).

    Raises:
        WireError: if `data` is not an encoding of `n` bits.
    """
    if not data:
        raise Truncated("bit array", expected_bytes=1, got_bytes=0)
    kind = data[0]
    longest = 1 + -(-n // 8)  # raw; the encoder never writes more, and what follows costs 64 bytes for one here
    if len(data) > longest:
        raise TooLarge(f"code of {n} bits", limit=longest, got=len(data))
    if kind == 0:
        return unpack(data[1:], n)
    inverted, kind = kind >= INVERTED, kind % INVERTED
    if not 1 <= kind <= 1 + MAX_K or data[0] >= 2 * INVERTED:
        raise WireError(f"bit array of unknown kind {data[0]}")
    bits = np.zeros(n, dtype=np.bool_)
    bits[_unrice(data[1:], kind - 1, n)] = True
    return ~bits if inverted else bits


def _gaps(bits: Bits) -> NDArray[np.int64]:
    """Number of zeros before each one, (ones,)."""
    return np.diff(np.flatnonzero(bits), prepend=-1) - 1


def _best_k(gaps: NDArray[np.int64], n: int) -> int:
    """Remainder width near log2(mean gap), the better of the two neighbours as well."""
    mean = (n / gaps.size) if gaps.size else 1.0
    guess = int(np.clip(np.log2(max(mean * 0.69, 1.0)), 0, MAX_K))
    return min(range(max(guess - 1, 0), min(guess + 2, MAX_K + 1)), key=lambda k: _rice_bits(gaps, k))


def _rice_bits(gaps: NDArray[np.int64], k: int) -> int:
    return int(gaps.size * (k + 1) + (gaps >> k).sum())


def _rice(gaps: NDArray[np.int64], k: int) -> bytes:
    remainders = ((gaps[:, None] >> np.arange(k)) & 1).astype(np.bool_).reshape(-1)
    ends = np.cumsum((gaps >> k) + 1) - 1  # position of each quotient's closing one
    quotients = np.zeros(int(ends[-1]) + 1 if ends.size else 0, dtype=np.bool_)
    quotients[ends] = True
    return pack(np.concatenate([remainders, quotients]))


def _unrice(data: bytes, k: int, n: int) -> NDArray[np.int64]:
    """Positions of the set bits, ascending; every length is checked before it is believed."""
    if len(data) < COUNT.size:
        raise Truncated("bit array header", expected_bytes=COUNT.size, got_bytes=len(data))
    (count,) = COUNT.unpack_from(data)
    body = len(data) - COUNT.size
    if count > n or count * (k + 1) > body * 8:
        raise Truncated(f"{count} coded gaps", expected_bytes=-(-count * (k + 1) // 8), got_bytes=body)
    stream = np.unpackbits(np.frombuffer(data, dtype=np.uint8, offset=COUNT.size), bitorder="little")
    ends = np.flatnonzero(stream[count * k :])
    if ends.size != count:
        raise WireError(f"{count} coded gaps announced, {ends.size} found")
    used = count * k + (int(ends[-1]) + 1 if count else 0)
    if body != -(-used // 8):
        raise WireError(f"{body - -(-used // 8)} bytes left over after {count} coded gaps")
    remainders = stream[: count * k].reshape(count, k).astype(np.int64) @ (1 << np.arange(k, dtype=np.int64))
    quotients = np.diff(ends, prepend=-1) - 1
    positions = np.cumsum((quotients << k) + remainders + 1) - 1
    if count and (int(positions[-1]) >= n or int(quotients.max()) > n >> k):
        raise WireError(f"coded position beyond {n} bits")
    return positions
