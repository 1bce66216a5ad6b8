"""Arrays as bytes, for what the rivals send: float32, bits by the wire's own codec, and several of them together."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from wire import bits
from wire.errors import Mismatch, Truncated

LENGTH = struct.Struct("<I")


def floats(values: NDArray[np.float32]) -> bytes:
    """float32 (n,) -> 4n bytes, little-endian."""
    return values.astype("<f4").tobytes()


def read_floats(data: bytes, n: int) -> NDArray[np.float32]:
    """Inverse of `floats`: float32 (n,).

    Raises:
        Mismatch: if there are not exactly 4n bytes.
    """
    if len(data) != 4 * n:
        raise Mismatch("float32 array", expected=f"{4 * n} bytes", got=f"{len(data)} bytes")
    return np.frombuffer(data, dtype="<f4").astype(np.float32)


def join(parts: Sequence[bytes]) -> bytes:
    """Several blobs in one, each behind its length."""
    return b"".join(LENGTH.pack(len(part)) + part for part in parts)


def cut(data: bytes) -> list[bytes]:
    """Inverse of `join`.

    Raises:
        Truncated: if a length does not fit.
    """
    parts = []
    at = 0
    while at < len(data):
        if at + LENGTH.size > len(data):
            raise Truncated("blob length", expected_bytes=LENGTH.size, got_bytes=len(data) - at)
        (size,) = LENGTH.unpack_from(data, at)
        at += LENGTH.size
        if at + size > len(data):
            raise Truncated("blob", expected_bytes=size, got_bytes=len(data) - at)
        parts.append(data[at : at + size])
        at += size
    return parts


def packed(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Bits (n,) -> uint8 (ceil(n / 8),): what a `State` keeps of them, for every device."""
    return np.frombuffer(bits.pack(mask), dtype=np.uint8)


def unpacked(kept: NDArray[np.uint8], n: int) -> NDArray[np.bool_]:
    """Inverse of `packed`: bool (n,)."""
    return bits.unpack(kept.tobytes(), n)


def sparse(values: NDArray[np.float32], kept: NDArray[np.bool_]) -> bytes:
    """Which positions of (n,) and their float32 values."""
    return join([bits.encode(kept), floats(values[kept])])


def read_sparse(data: bytes, n: int) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """Inverse of `sparse`: positions bool (n,), values float32 (kept,).

    Raises:
        WireError: if the bytes are not such an array.
    """
    parts = cut(data)
    if len(parts) != 2:
        raise Mismatch("sparse array", expected="2 blobs", got=f"{len(parts)}")
    kept = bits.decode(parts[0], n)
    return kept, read_floats(parts[1], int(np.count_nonzero(kept)))
