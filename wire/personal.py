"""The personal network: what a device ended its last local training with, as a small file.

    b"HNSP"  version u8  ticket (32 bytes)  run (8 bytes)  number u64  classes u16
    log prior (classes x float32)  signs  sha256 of everything before it (32 bytes)

The signs are coded by `wire.bits` as the flips against +1 everywhere, the random network itself, so the
file needs nothing but its ticket to be read. All integers little-endian.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

from wire.errors import Mismatch, TooLarge, Truncated, WireError
from wire.fields import RUN_BYTES

if TYPE_CHECKING:
    from numpy import float32
    from numpy.typing import NDArray

    from wire.mask import Signs

DIGEST_BYTES = 32
MAGIC = b"HNSP"
VERSION = 2
HEADER = struct.Struct(f"<4sB{DIGEST_BYTES}s{RUN_BYTES}sQH")  # magic, version, ticket, run, number, classes


@dataclass(frozen=True, kw_only=True, eq=False)
class Personal:
    """What one device has learned.

    Attributes:
        ticket: SHA-256 of the network's ticket, 32 bytes.
        run: the run it was trained in, 8 bytes.
        number: the round it was trained in.
        log_prior: added to the logits for the device's own predictions, finite float32 (classes,): which
            classes it has seen (`edge_client.trainer.log_prior`).
        signs: its own sign mask, bool (kept,), True for +1, in ticket order.

    Raises:
        ValueError: if `ticket` or `run` is of another length, `number` no 64-bit number, or `log_prior` not finite.
    """

    ticket: bytes
    run: bytes
    number: int
    log_prior: NDArray[float32]
    signs: Signs

    def __post_init__(self) -> None:
        if (len(self.ticket), len(self.run)) != (DIGEST_BYTES, RUN_BYTES):
            raise ValueError(f"ticket of {len(self.ticket)} bytes and run of {len(self.run)}")
        if not 0 <= self.number < 1 << 64:
            raise ValueError(f"round {self.number} is not a 64-bit number")
        if not all(map(math.isfinite, self.log_prior.tolist())):
            raise ValueError("log prior is not finite")


def encode(personal: Personal) -> bytes:
    """The file of a personal network."""
    from wire import bits  # with numpy, which whoever only asks for the ticket does without

    prior = personal.log_prior
    head = HEADER.pack(MAGIC, VERSION, personal.ticket, personal.run, personal.number, prior.size)
    head += prior.astype("<f4").tobytes() + bits.encode(~personal.signs)
    return head + sha256(head).digest()


def ticket_of(data: bytes) -> bytes:
    """SHA-256 of the ticket that a personal network belongs to, 32 bytes; needed to know how long its signs are.

    Raises:
        WireError: if the bytes are truncated, altered, or of another format or version.
    """
    return _open(data)[0]


def decode(data: bytes, kept: int, classes: int) -> Personal:
    """Inverse of `encode` for a network of `kept` weights; `ticket_of` says which ticket that must be.

    Raises:
        WireError: if the bytes are truncated, altered, of another format or version, or of another size of network.
    """
    from numpy import float32, frombuffer, isfinite

    from wire import bits

    longest = HEADER.size + 4 * classes + 1 + -(-kept // 8) + DIGEST_BYTES  # raw signs; nothing longer is hashed
    if len(data) > longest:
        raise TooLarge(f"personal network of {kept} signs", limit=longest, got=len(data))
    ticket, run, number, found = _open(data)
    if found != classes:
        raise Mismatch("classes of a personal network", expected=str(classes), got=str(found))
    signs_at = HEADER.size + 4 * classes
    if len(data) < signs_at + DIGEST_BYTES:
        raise Truncated("personal network", expected_bytes=signs_at + DIGEST_BYTES, got_bytes=len(data))
    prior = frombuffer(data, "<f4", classes, HEADER.size).astype(float32)
    if not isfinite(prior).all():
        raise WireError("the log prior of a personal network is not finite")
    signs = ~bits.decode(data[signs_at:-DIGEST_BYTES], kept)
    return Personal(ticket=ticket, run=run, number=number, log_prior=prior, signs=signs)


def _open(data: bytes) -> tuple[bytes, bytes, int, int]:
    """Check all but what follows the header; return ticket, run, number and classes."""
    if data[: len(MAGIC)] != MAGIC:
        raise WireError(f"starts with {data[: len(MAGIC)]!r}, a personal network starts with {MAGIC!r}")
    if len(data) < HEADER.size + DIGEST_BYTES:
        raise Truncated("personal network", expected_bytes=HEADER.size + DIGEST_BYTES, got_bytes=len(data))
    _, version, ticket, run, number, classes = HEADER.unpack_from(data)
    if version != VERSION:
        raise WireError(f"personal network version {version}, this program reads version {VERSION}")
    digest = sha256(data[:-DIGEST_BYTES]).digest()
    if digest != data[-DIGEST_BYTES:]:
        got = f"{data[-DIGEST_BYTES:].hex()[:16]}…"
        raise Mismatch(f"SHA-256 of {len(data)} bytes", expected=f"{digest.hex()[:16]}…", got=got)
    return ticket, run, number, classes
