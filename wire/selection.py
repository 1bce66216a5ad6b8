"""Whom a round asks for its mask: devices that it names, and those that find out by themselves that they are drawn.

A device's *lot* in a round is a number below 2^48 that follows from the round's key and the device's id, and is as good
as random to whoever does not know the key before. It is drawn if the number is below the round's limit. So an
announcement is as long for a million devices as for a hundred.
"""

from __future__ import annotations

from hashlib import sha256

from wire.federation_messages import Round

LOT_BYTES = 6
LOTS = 1 << 8 * LOT_BYTES


def lot(key: bytes, device: str) -> int:
    """A device's lot: the first six bytes of SHA-256(key, device id), the highest byte first.

    Args:
        key: of the round, 16 bytes.
        device: its id.
    """
    return int.from_bytes(sha256(key + device.encode()).digest()[:LOT_BYTES], "big")


def asked(announced: Round, device: str) -> bool:
    """Whether an announced round asks a device, by name or by its lot."""
    if device in announced.selected:
        return True
    return announced.draw is not None and lot(announced.draw, device) < announced.below
