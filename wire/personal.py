"""The personal network: the signs a device ended its last local training with, as a small file.

    b"HNSP"  version u8  ticket (32 bytes)  run (8 bytes)  number u64  signs  sha256 of everything before it (32 bytes)

The signs are coded by `wire.mask` against +1 everywhere, the random network itself, so the file needs
nothing but its ticket to be read. All integers little-endian.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from hashlib import sha256

import numpy as np

from wire import mask
from wire.errors import Mismatch, TooLarge, Truncated, WireError
from wire.mask import Signs
from wire.messages import RUN_BYTES
from wire.ticket import DIGEST_BYTES

MAGIC = b"HNSP"
VERSION = 1
HEADER = struct.Struct(f"<4sB{DIGEST_BYTES}s{RUN_BYTES}sQ")  # magic, version, ticket, run, number


@dataclass(frozen=True, kw_only=True, eq=False)
class Personal:
    """What one device has learned.

    Attributes:
        ticket: SHA-256 of the network's ticket, 32 bytes.
        run: the run it was trained in, 8 bytes.
        number: the round it was trained in.
        signs: its own sign mask, bool (kept,), True for +1, in ticket order.

    Raises:
        ValueError: if `ticket` or `run` is of another length, or `number` no 64-bit number.
    """

    ticket: bytes
    run: bytes
    number: int
    signs: Signs

    def __post_init__(self) -> None:
        if (len(self.ticket), len(self.run)) != (DIGEST_BYTES, RUN_BYTES):
            raise ValueError(f"ticket of {len(self.ticket)} bytes and run of {len(self.run)}")
        if not 0 <= self.number < 1 << 64:
            raise ValueError(f"round {self.number} is not a 64-bit number")


def encode(personal: Personal) -> bytes:
    """The file of a personal network."""
    head = HEADER.pack(MAGIC, VERSION, personal.ticket, personal.run, personal.number)
    head += mask.encode_signs(personal.signs, np.ones_like(personal.signs))
    return head + sha256(head).digest()


def ticket_of(data: bytes) -> bytes:
    """SHA-256 of the ticket that a personal network belongs to, 32 bytes; needed to know how long its signs are.

    Raises:
        WireError: if the bytes are truncated, altered, or of another format or version.
    """
    return _open(data)[0]


def decode(data: bytes, kept: int) -> Personal:
    """Inverse of `encode` for a ticket of `kept` weights; `ticket_of` says which ticket that must be.

    Raises:
        WireError: if the bytes are truncated, altered, of another format or version, or for another number of weights.
    """
    longest = HEADER.size + 1 + -(-kept // 8) + DIGEST_BYTES
    if len(data) > longest:
        raise TooLarge(f"personal network of {kept} signs", limit=longest, got=len(data))
    ticket, run, number = _open(data)
    signs = mask.decode_signs(data[HEADER.size : -DIGEST_BYTES], np.ones(kept, dtype=np.bool_))
    return Personal(ticket=ticket, run=run, number=number, signs=signs)


def _open(data: bytes) -> tuple[bytes, bytes, int]:
    """Check all but the signs; return ticket, run and number."""
    if data[: len(MAGIC)] != MAGIC:
        raise WireError(f"starts with {data[: len(MAGIC)]!r}, a personal network starts with {MAGIC!r}")
    if len(data) < HEADER.size + DIGEST_BYTES:
        raise Truncated("personal network", expected_bytes=HEADER.size + DIGEST_BYTES, got_bytes=len(data))
    _, version, ticket, run, number = HEADER.unpack_from(data)
    if version != VERSION:
        raise WireError(f"personal network version {version}, this program reads version {VERSION}")
    digest = sha256(data[:-DIGEST_BYTES]).digest()
    if digest != data[-DIGEST_BYTES:]:
        got = f"{data[-DIGEST_BYTES:].hex()[:16]}…"
        raise Mismatch(f"SHA-256 of {len(data)} bytes", expected=f"{digest.hex()[:16]}…", got=got)
    return ticket, run, number
