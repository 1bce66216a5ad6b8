"""A secret in n shares of which any t tell it and fewer tell nothing (Shamir 1979), byte by byte over GF(256).

Every byte is the value at 0 of a random polynomial of degree t - 1, and share number x its value at x: so shares are as
long as the secret, and there are at most 255. The field is that of AES (FIPS 197, section 4.2).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
MOST_SHARES = 255
_POLYNOMIAL = 0x11B


def _tables() -> tuple[NDArray[np.intp], Bytes]:
    """Logarithms to base 3, a generator (of 0: unused), and powers, twice over so that two logarithms add up."""
    log, power, value = np.zeros(256, dtype=np.intp), np.zeros(510, dtype=np.uint8), 1
    for i in range(255):
        log[value], power[i], power[i + 255] = i, value, value
        value ^= value << 1
        value ^= _POLYNOMIAL if value & 0x100 else 0
    return log, power


_LOG, _POWER = _tables()


def split(secret: bytes, numbers: Sequence[int], threshold: int, random: bytes) -> list[bytes]:
    """One share for every number.

    Args:
        secret: any bytes.
        numbers: of the shares, each 1..255.
        threshold: how many tell the secret, at least 1.
        random: (threshold - 1) x as many bytes as the secret has; never used for another secret.
    """
    coefficients = np.frombuffer(random, dtype=np.uint8).reshape(threshold - 1, len(secret))
    x = np.array(numbers, dtype=np.uint8)[:, None]
    shares = np.zeros((len(numbers), len(secret)), dtype=np.uint8)
    for row in [*coefficients[::-1], np.frombuffer(secret, dtype=np.uint8)]:
        shares = _multiply(shares, x) ^ row
    return [share.tobytes() for share in shares]


def combine(shares: dict[int, bytes]) -> bytes:
    """The secret, from as many shares by number as its threshold; anything else comes out if one of them is wrong."""
    numbers = np.array(list(shares), dtype=np.uint8)
    secret = np.zeros(len(next(iter(shares.values()))), dtype=np.uint8)
    for i, share in enumerate(shares.values()):
        others = np.delete(numbers, i)
        # Lagrange at 0: product of x_j / (x_j - x_i), in a field where plus and minus are both exclusive or.
        exponent = int(_LOG[others].sum()) - int(_LOG[others ^ numbers[i]].sum())
        secret ^= _multiply(np.frombuffer(share, dtype=np.uint8), _POWER[exponent % 255])
    return secret.tobytes()


def _multiply(a: Bytes, b: Bytes | np.uint8) -> Bytes:
    product: Bytes = np.where((a == 0) | (b == 0), np.uint8(0), _POWER[_LOG[a] + _LOG[b]])
    return product
