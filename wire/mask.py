"""Sign masks and votes as bytes.

A sign mask is bool (kept,), True for +1, in ticket order. Votes are what a round's masks add up to: for
every kept weight how many of `voters` said +1, as the agreed sign and the number who dissented.

Both travel coded by `wire.adaptive` in the context of votes that both sides hold, for the more the voters
agreed on a weight the less likely is a change: a mask as its flips against the agreed signs of the round,
or raw where that is shorter, and votes as their levels against those announced before.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from itertools import islice
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from wire import adaptive, bits
from wire.errors import Mismatch, TooLarge, Truncated, WireError
from wire.mask_kinds import BALLOT, FLIPS, RAW, is_ballot
from wire.mask_kinds import MASKED as MASKED
from wire.native.library import native

Signs = NDArray[np.bool_]
Ends = NDArray[np.int64]  # where each layer ends among the kept weights, ascending; the last one: how many there are
KEPT = struct.Struct("<I")
VOTERS = struct.Struct("<H")
LEVELS = 16
LEVEL_BITS = 4
LONGEST = 8  # bytes that a level's four decisions may take, each at most 16 bits
MAX_VOTERS = 65_535
DIGEST_BYTES = 8
CHUNK = 64  # masks counted at once


def as_multipliers(signs: Signs) -> NDArray[np.float32]:
    """Signs bool (kept,) -> +-1 float32 (kept,): what a runtime infers with."""
    return np.where(signs, np.float32(1), np.float32(-1))


class Context(Protocol):
    """What both sides hold before a mask is sent: its likely signs, bool (kept,), and how sure they are (`Votes`)."""

    @property
    def signs(self) -> Signs:
        """Those that cost the least."""

    @property
    def levels(self) -> NDArray[np.uint8]:
        """0 surely not set, 15 surely set, uint8 (kept,)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Votes:
    """The outcome of one round, or of none yet.

    Attributes:
        signs: agreed sign of every kept weight, bool (kept,); a tie keeps the sign it had before.
        dissent: voters against the agreed sign, uint16 (kept,), 0 .. voters // 2.
        voters: how many masks were counted, 1 .. 65535; or the levels a blended mean is rounded to.
    """

    signs: Signs
    dissent: NDArray[np.uint16]
    voters: int

    @cached_property
    def mean(self) -> NDArray[np.float32]:
        """Mean of the voters' signs, float32 (kept,), in [-1, 1]; 0 where they tied."""
        margin = 1.0 - 2.0 * self.dissent.astype(np.float32) / np.float32(self.voters)
        return np.where(self.signs, margin, -margin).astype(np.float32)

    @property
    def ayes(self) -> NDArray[np.uint32]:
        """How many voters said +1, uint32 (kept,)."""
        dissent = self.dissent.astype(np.uint32)
        return np.where(self.signs, self.voters - dissent, dissent).astype(np.uint32)

    @cached_property
    def levels(self) -> NDArray[np.uint8]:
        """The voters for +1 in sixteen steps, uint8 (kept,): 0 none, 15 all; 8 and more where the agreed sign is +1."""
        against = (self.dissent.astype(np.uint32) * LEVELS // (self.voters + 1)).astype(np.uint8)
        return np.where(self.signs, LEVELS - 1 - against, against).astype(np.uint8)

    @cached_property
    def digest(self) -> bytes:
        """The first 8 bytes of the SHA-256 of the votes: what two sides compare."""
        whole = sha256(VOTERS.pack(self.voters) + bits.pack(self.signs) + self.dissent.astype("<u2").tobytes())
        return whole.digest()[:DIGEST_BYTES]

    def start_scores(self, start: float) -> NDArray[np.float32]:
        """Scores a device starts a round with: `start` x mean vote, float32 (kept,).

        A tie gets half of the smallest margin, on its agreed side, so that the scores' signs are
        exactly `self.signs`.
        """
        margin = np.maximum(np.abs(self.mean), np.float32(0.5 / self.voters)) * np.float32(start)
        return np.where(self.signs, margin, -margin).astype(np.float32)


def unanimous(kept: int) -> Votes:
    """Votes before the first round: every sign +1, which leaves the random network as it is."""
    return Votes(signs=np.ones(kept, dtype=np.bool_), dissent=np.zeros(kept, dtype=np.uint16), voters=1)


def certain(signs: Signs) -> Votes:
    """Votes that agree on signs, bool (kept,), without dissent."""
    return Votes(signs=signs, dissent=np.zeros(signs.size, dtype=np.uint16), voters=1)


def count_votes(masks: Iterable[Signs], previous: Signs, counted: Iterable[Votes] = ()) -> Votes:
    """Add up masks, each bool (kept,), one vote each; a tie keeps `previous`, bool (kept,).

    Args:
        masks: to count.
        previous: signs that a tie keeps.
        counted: what other masks add up to, each on as many weights.

    Raises:
        ValueError: if there is no mask, or more than 65535, or one of another length.
    """
    ayes = np.zeros(previous.size, dtype=np.uint32)
    voters = 0
    for part in counted:
        ayes += part.ayes
        voters += part.voters
    remaining = iter(masks)
    while chunk := list(islice(remaining, CHUNK)):
        for mask in chunk:
            if mask.shape != previous.shape:
                raise ValueError(f"mask of shape {mask.shape}, expected {previous.shape}")
        ayes += _count(chunk)
        voters += len(chunk)
    if not 1 <= voters <= MAX_VOTERS:
        raise ValueError(f"1..{MAX_VOTERS} masks expected, got {voters}")
    return votes_of(ayes, voters, previous)


def votes_of(ayes: NDArray[np.uint32], voters: int, previous: Signs) -> Votes:
    """Votes from how many of so many voters said +1, uint32 (kept,); a tie keeps `previous`, bool (kept,)."""
    signs = np.where(2 * ayes == voters, previous, 2 * ayes > voters)
    dissent = np.where(signs, voters - ayes, ayes).astype(np.uint16)
    return Votes(signs=signs, dissent=dissent, voters=voters)


def _count(masks: list[Signs]) -> NDArray[np.uint16]:
    """In how many masks, each bool (kept,), a sign is +1: (kept,)."""
    kept = masks[0].size
    library = native()
    if library is None:
        ayes: NDArray[np.uint16] = np.array(masks).sum(axis=0, dtype=np.uint16)
        return ayes
    packed = np.zeros((len(masks), -(-kept // 64) * 8), dtype=np.uint8)
    for row, mask in zip(packed, masks, strict=True):
        row[: -(-kept // 8)] = np.packbits(mask, bitorder="little")
    return library.count_votes(packed.view(np.uint64))[:kept]


def encode_signs(signs: Signs, known: Context, ends: Ends) -> bytes:
    """Code a mask (kept,) as its flips against the agreed signs of `known`.

    Args:
        signs: the mask, bool (kept,).
        known: the round's votes, which the reader has too (or `wire.dither.context` of them).
        ends: of the ticket's layers (`Ticket.ends`).
    """
    flips = signs ^ known.signs
    raw = bits.pack(flips)
    coded = adaptive.encode(flips.view(np.uint8), known.levels, ends, 1, room=max(len(raw) - 1, 0))
    return bytes([RAW]) + raw if coded is None else bytes([FLIPS]) + coded


def decode_signs(data: bytes, known: Context, ends: Ends) -> Signs:
    """Inverse of `encode_signs`: bool (kept,).

    Raises:
        WireError: if `data` does not code exactly as many signs as `known` has.
    """
    longest = 1 + -(-known.signs.size // 8)  # raw; nothing longer is ever written
    if not data:
        raise Truncated("sign mask", expected_bytes=1, got_bytes=0)
    if len(data) > longest:
        raise TooLarge(f"mask of {known.signs.size} signs", limit=longest, got=len(data))
    if data[0] == RAW:
        return bits.unpack(data[1:], known.signs.size) ^ known.signs
    if data[0] != FLIPS:
        raise WireError(f"sign mask of unknown kind {data[0]}")
    return adaptive.decode(data[1:], known.levels, ends, 1).view(np.bool_) ^ known.signs


def ballot(signs: Signs) -> bytes:
    """Signs bool (kept,) as a device keeps them until they are masked."""
    return bytes([BALLOT]) + KEPT.pack(signs.size) + bits.pack(signs)


def read_ballot(data: bytes) -> Signs:
    """Inverse of `ballot`: bool (kept,).

    Raises:
        WireError: if it is none.
    """
    head = 1 + KEPT.size
    if len(data) < head or not is_ballot(data):
        raise Truncated("ballot", expected_bytes=head, got_bytes=len(data))
    (kept,) = KEPT.unpack_from(data, 1)
    return bits.unpack(data[head:], kept)


def encode_votes(votes: Votes, ends: Ends, known: Votes | None = None) -> bytes:
    """Code votes as their levels in the context of `known` ones, which the reader has too; unanimous ones if None.

    Sixteen levels tell up to 15 voters apart; of more voters, what the levels leave open follows in planes of bits.
    """
    known = known or unanimous(votes.signs.size)
    coded = adaptive.encode(votes.levels, known.levels, ends, LEVEL_BITS, room=LONGEST * votes.signs.size)
    assert coded is not None
    rest = votes.dissent - _least_dissent(votes.levels, votes.voters)
    planes = [bits.pack((rest >> bit & 1).astype(np.bool_)) for bit in range(_planes(votes.voters))]
    return VOTERS.pack(votes.voters) + b"".join(reversed(planes)) + coded


def decode_votes(data: bytes, ends: Ends, known: Votes | None = None) -> Votes:
    """Inverse of `encode_votes`, with the same `ends` and `known`.

    Raises:
        WireError: if `data` is not an encoding of votes on as many weights.
    """
    kept = int(ends[-1])
    known = known or unanimous(kept)
    if len(data) < VOTERS.size:
        raise Truncated("votes", expected_bytes=VOTERS.size, got_bytes=len(data))
    (voters,) = VOTERS.unpack_from(data)
    if voters < 1:
        raise WireError("votes of no voters")
    plane_bytes, count = -(-kept // 8), _planes(voters)
    start = VOTERS.size + count * plane_bytes
    if len(data) < start:
        raise Truncated("votes", expected_bytes=start, got_bytes=len(data))
    levels = adaptive.decode(data[start:], known.levels, ends, LEVEL_BITS)
    rest = np.zeros(kept, dtype=np.uint16)
    for plane in range(count):
        at = VOTERS.size + plane * plane_bytes
        rest = rest << np.uint16(1) | bits.unpack(data[at : at + plane_bytes], kept)
    dissent = _least_dissent(levels, voters) + rest
    votes = Votes(signs=levels >= LEVELS // 2, dissent=dissent.astype(np.uint16), voters=voters)
    if kept and int(dissent.max()) > voters // 2:
        raise Mismatch("dissenting voters", expected=f"at most {voters // 2}", got=int(dissent.max()))
    if not np.array_equal(votes.levels, levels):
        raise WireError(f"votes of {voters} voters with levels that so many cannot make")
    return votes


def _least_dissent(levels: NDArray[np.uint8], voters: int) -> NDArray[np.uint32]:
    """The smallest dissent that makes a level, uint32 (kept,)."""
    against = np.where(levels >= LEVELS // 2, LEVELS - 1 - levels, levels).astype(np.uint32)
    return (against * (voters + 1) + LEVELS - 1) // LEVELS


def _planes(voters: int) -> int:
    """Bits of a dissent that its level leaves open."""
    return (-(-(voters + 1) // LEVELS) - 1).bit_length()
