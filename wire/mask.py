"""Sign masks and votes as bytes.

A sign mask is bool (kept,), True for +1, in ticket order. It travels as the flips against a
reference both sides hold (the global signs of the round), coded by `wire.bits`: raw when the
flips are many, Rice-coded when they are few.

Votes are what a round's masks add up to: for every kept weight how many of `voters` said +1.
They travel as the agreed signs and, plane by plane, how many voters dissented.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from wire import bits
from wire.errors import Mismatch, TooLarge, Truncated, WireError

Signs = NDArray[np.bool_]
HEADER = struct.Struct("<H")  # voters
PART = struct.Struct("<I")  # bytes of one coded plane
MAX_VOTERS = 65_535


def as_multipliers(signs: Signs) -> NDArray[np.float32]:
    """Signs bool (kept,) -> +-1 float32 (kept,): what a runtime infers with."""
    return np.where(signs, np.float32(1), np.float32(-1))


def encode_signs(signs: Signs, reference: Signs) -> bytes:
    """Code `signs` (kept,) as its flips against `reference` (kept,)."""
    return bits.encode(signs ^ reference)


def decode_signs(data: bytes, reference: Signs) -> Signs:
    """Inverse of `encode_signs`: bool (kept,).

    Raises:
        WireError: if `data` does not code exactly as many signs as `reference` has.
    """
    return bits.decode(data, reference.size) ^ reference


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


def count_votes(masks: Iterable[Signs], previous: Signs) -> Votes:
    """Add up masks, each bool (kept,), one vote each; a tie keeps `previous`, bool (kept,).

    Raises:
        ValueError: if there is no mask, or more than 65535, or one of another length.
    """
    ayes = np.zeros(previous.size, dtype=np.uint32)
    voters = 0
    for mask in masks:
        if mask.shape != previous.shape:
            raise ValueError(f"mask of shape {mask.shape}, expected {previous.shape}")
        ayes += mask
        voters += 1
    if not 1 <= voters <= MAX_VOTERS:
        raise ValueError(f"1..{MAX_VOTERS} masks expected, got {voters}")
    signs = np.where(2 * ayes == voters, previous, 2 * ayes > voters)
    dissent = np.where(signs, voters - ayes, ayes).astype(np.uint16)
    return Votes(signs=signs, dissent=dissent, voters=voters)


def encode_votes(votes: Votes) -> bytes:
    """Votes -> bytes: voters, then the coded sign plane and dissent planes, each with its length."""
    planes = [votes.signs]
    planes += [(votes.dissent >> bit & 1).astype(np.bool_) for bit in range(_planes(votes.voters))]
    coded = [bits.encode(plane) for plane in planes]
    return HEADER.pack(votes.voters) + b"".join(PART.pack(len(part)) + part for part in coded)


def decode_votes(data: bytes, kept: int) -> Votes:
    """Inverse of `encode_votes` for a ticket of `kept` weights.

    Raises:
        WireError: if `data` is not an encoding of votes on `kept` weights.
    """
    if len(data) < HEADER.size:
        raise Truncated("votes", expected_bytes=HEADER.size, got_bytes=len(data))
    (voters,) = HEADER.unpack_from(data)
    if voters < 1:
        raise WireError("votes of no voters")
    at = HEADER.size
    planes: list[Signs] = []
    for _ in range(1 + _planes(voters)):
        if len(data) < at + PART.size:
            raise Truncated("votes plane", expected_bytes=PART.size, got_bytes=len(data) - at)
        (length,) = PART.unpack_from(data, at)
        at += PART.size
        if length > len(data) - at:
            raise Truncated("votes plane", expected_bytes=length, got_bytes=len(data) - at)
        planes.append(bits.decode(data[at : at + length], kept))
        at += length
    if at != len(data):
        raise TooLarge("votes", limit=at, got=len(data))
    dissent = np.zeros(kept, dtype=np.uint16)
    for bit, plane in enumerate(planes[1:]):
        dissent |= plane.astype(np.uint16) << np.uint16(bit)
    if kept and int(dissent.max()) > voters // 2:
        raise Mismatch("dissenting voters", expected=f"at most {voters // 2}", got=int(dissent.max()))
    return Votes(signs=planes[0], dissent=dissent, voters=voters)


def _planes(voters: int) -> int:
    """Bits that hold the largest possible dissent."""
    return (voters // 2).bit_length()
