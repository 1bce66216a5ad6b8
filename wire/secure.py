"""Secure aggregation: keys, shares, masks and sums, for both sides. No I/O, and no randomness but what is given.

After Bonawitz et al. 2017 (CCS '17, "Practical Secure Aggregation for Privacy-Preserving Machine Learning"): a device
adds to its signs, 1 for +1 and 0 for -1, a mask of its own and one for every other member, which the other one
subtracts. In the sum those between two cancel out. Shares of its own mask's seed and of its masking key lie with the
others, and they reveal the seeds of those whose masked signs came and the keys of those whose did not: never both.

Every secret of a device and attempt follows from one root of 32 random bytes. All keys between two devices depend on
the whole roster, so devices that were shown different ones neither open each other's shares nor cancel out.

By libsodium through PyNaCl, which a device has for signatures: X25519 (RFC 7748), ChaCha20 and its AEAD (RFC 8439).
The package cryptography offers the same and would take 7 MB more of a device's memory (docs/security.md).
"""

from __future__ import annotations

import hmac
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from itertools import pairwise

import numpy as np
from nacl import bindings
from nacl.exceptions import CryptoError
from numpy.typing import NDArray

from wire import messages, sharing, signing
from wire.errors import Mismatch, Truncated, WireError
from wire.fields import RUN_BYTES
from wire.mask import MASKED, Signs
from wire.secure_messages import Roster, RoundKeys

LEAST, MOST = 3, sharing.MOST_SHARES  # members of an attempt: the sum of two shows each the other's
ATTEMPT = struct.Struct("<H")
MOST_ATTEMPTS = 1000
SECRET_BYTES = 32
SEALED_BYTES = 2 * SECRET_BYTES + 16  # shares of two secrets, and what shows that they are whole
MEMBER_BYTES = 3 * 32 + signing.SIGNATURE_BYTES
PURPOSE = "round keys"
_SIGNED = struct.Struct(f"<{RUN_BYTES}sQQ")
_NONCE = bytes(12)

Counts = NDArray[np.uint8]


def threshold(members: int) -> int:
    """How many of so many members must reveal their shares: more than two thirds.

    A coordinator that tells devices different survivors needs this many for each tale, and two times two thirds is
    more than all of them and a third of colluding ones.
    """
    return 2 * members // 3 + 1


def width(members: int) -> int:
    """Bits of a sum of so many signs: ceil(log2(members + 1)). All sums are modulo 2 to the power of this."""
    return members.bit_length()


@dataclass(frozen=True, kw_only=True)
class Secrets:
    """What a device keeps to itself in one attempt.

    Attributes:
        sealing: private X25519 key: others seal its shares for it.
        masking: private X25519 key: masks between two devices.
        seed: of its own mask.
        root: all of it, and the randomness of its shares.
    """

    sealing: bytes
    masking: bytes
    seed: bytes
    root: bytes


def secrets(root: bytes) -> Secrets:
    """Everything that follows from 32 random bytes."""
    sealing, masking, seed = (derive(root, purpose) for purpose in (b"sealing", b"masking", b"seed"))
    return Secrets(sealing=sealing, masking=masking, seed=seed, root=root)


def derive(key: bytes, purpose: bytes) -> bytes:
    """A key for one purpose: HMAC-SHA-256."""
    return hmac.digest(key, b"hidenseek " + purpose, sha256)


def expand(key: bytes, size: int) -> bytes:
    """Pseudo-random bytes: the ChaCha20 key stream of a key that is used for this alone (RFC 8439, from block 1)."""
    return bindings.crypto_aead_chacha20poly1305_ietf_encrypt(bytes(size), None, _NONCE, key)[:size]


def public(private: bytes) -> bytes:
    """The public X25519 key of a private one."""
    return bindings.crypto_scalarmult_base(private)


def make_keys(found: Secrets, device_key: bytes, run: bytes, number: int, attempt: int) -> RoundKeys:
    """What a device says first, signed with its own key."""
    sealing, masking = public(found.sealing), public(found.masking)
    return RoundKeys(
        run=run,
        number=number,
        attempt=attempt,
        sealing=sealing,
        masking=masking,
        commitment=sha256(found.seed).digest(),
        signature=signing.sign(device_key, PURPOSE, _SIGNED.pack(run, number, attempt) + sealing + masking),
    )


@dataclass(frozen=True, kw_only=True)
class Member:
    """One device of an attempt.

    Attributes:
        name: its id.
        identity: its public Ed25519 key.
        sealing: public X25519 key of the attempt.
        masking: public X25519 key of the attempt.
        signature: of the two.
    """

    name: str
    identity: bytes
    sealing: bytes
    masking: bytes
    signature: bytes


def make_roster(keys: Mapping[str, tuple[bytes, RoundKeys]]) -> Roster:
    """Who takes part: by device id its own public key and those of the attempt, which is the same for all."""
    names = tuple(sorted(keys))
    first = keys[names[0]][1]
    members = b"".join(
        identity + one.sealing + one.masking + one.signature for identity, one in (keys[name] for name in names)
    )
    return Roster(run=first.run, number=first.number, attempt=first.attempt, names=names, members=members)


@lru_cache(maxsize=4)
def read_roster(roster: Roster) -> tuple[Member, ...]:
    """Its members, every one with a valid signature.

    Raises:
        WireError: if there are too few or too many, one is there twice, or one has not signed its keys.
    """
    names, data = roster.names, roster.members
    if not LEAST <= len(names) <= MOST:
        raise WireError(f"a roster of {len(names)} devices, {LEAST}..{MOST} expected")
    if len(data) != MEMBER_BYTES * len(names):
        raise Truncated("roster", expected_bytes=MEMBER_BYTES * len(names), got_bytes=len(data))
    members = []
    for i, name in enumerate(names):
        one = data[i * MEMBER_BYTES : (i + 1) * MEMBER_BYTES]
        member = Member(name=name, identity=one[:32], sealing=one[32:64], masking=one[64:96], signature=one[96:])
        check_keys(member, roster.run, roster.number, roster.attempt)
        members.append(member)
    if list(names) != sorted(set(names)):
        raise WireError("a roster whose device ids are not ascending")
    for field in ("identity", "sealing", "masking"):
        if len({getattr(member, field) for member in members}) != len(members):
            raise WireError("a roster in which two devices have the same key")
    return tuple(members)


def check_keys(member: Member, run: bytes, number: int, attempt: int) -> None:
    """Accept the signature under a member's keys.

    Raises:
        WireError: if its device did not sign them for this attempt.
    """
    signed = _SIGNED.pack(run, number, attempt) + member.sealing + member.masking
    signing.check(member.identity, PURPOSE, signed, member.signature)


@lru_cache(maxsize=4)
def digest(roster: Roster) -> bytes:
    """What every key between two of its members depends on."""
    return sha256(messages.encode(roster)).digest()


def members_of(data: bytes, count: int) -> tuple[int, ...]:
    """Places in a roster of so many, from a byte each.

    Raises:
        WireError: if they are not ascending places in it.
    """
    found = tuple(data)
    if any(a >= b for a, b in pairwise(found)) or (found and found[-1] >= count):
        raise WireError(f"{len(found)} places in a roster of {count} that are not ascending, or not in it")
    return found


# Shares.


def deal(found: Secrets, members: Sequence[Member], place: int, context: bytes) -> bytes:
    """Shares of a device's masking key and seed, sealed for every other member in the roster's order.

    Args:
        found: the device's secrets.
        members: the roster's.
        place: the device's own.
        context: the roster's digest.
    """
    shares = own_shares(found, len(members))
    return b"".join(
        _seal(_pair(found.sealing, other.sealing, b"shares", context), shares[i], place, i, context)
        for i, other in enumerate(members)
        if i != place
    )


def own_shares(found: Secrets, members: int) -> list[bytes]:
    """For every member 64 bytes: its shares of a device's masking key and of its seed."""
    needed = threshold(members)
    random = expand(derive(found.root, b"polynomials"), (needed - 1) * 2 * SECRET_BYTES)
    return sharing.split(found.masking + found.seed, range(1, members + 1), needed, random)


def open_share(
    sealed: bytes, found: Secrets, members: Sequence[Member], dealer: int, place: int, context: bytes
) -> bytes:
    """The 64 bytes that the member at `dealer` has sealed for the one at `place`.

    Raises:
        WireError: if it has not, or for another roster.
    """
    key = _pair(found.sealing, members[dealer].sealing, b"shares", context)
    try:
        return bindings.crypto_aead_chacha20poly1305_ietf_decrypt(sealed, context, _direction(dealer, place), key)
    except (CryptoError, ValueError):
        raise WireError(f"the share from '{members[dealer].name}' cannot be opened") from None


def _seal(key: bytes, share: bytes, dealer: int, place: int, context: bytes) -> bytes:
    return bindings.crypto_aead_chacha20poly1305_ietf_encrypt(share, context, _direction(dealer, place), key)


def _direction(dealer: int, place: int) -> bytes:
    """A nonce: two devices seal one message for each other with their common key, each the same one every time."""
    return bytes([dealer, place]).ljust(len(_NONCE), b"\0")


def _pair(private: bytes, other: bytes, purpose: bytes, context: bytes) -> bytes:
    """A key that two devices have in common for one purpose and roster.

    Raises:
        WireError: if the other's public key is one of the few that make everybody's secret the same.
    """
    try:
        shared = bindings.crypto_scalarmult(private, other)
    except CryptoError:
        raise WireError("a public key of a kind that makes no secret") from None
    return derive(shared, purpose + b" " + context)


# Masks and sums.


def mask_signs(
    signs: Signs,
    found: Secrets,
    members: Sequence[Member],
    present: Sequence[int],
    place: int,
    attempt: int,
    context: bytes,
) -> bytes:
    """Signs bool (kept,) under a device's own mask and those between it and the others that are present, coded."""
    total = signs.astype(np.uint8)
    total += own_mask(found.seed, signs.size, context)
    for other in present:
        if other != place:
            _add(total, _between(found.masking, members[other].masking, signs.size, context), place < other)
    return bytes([MASKED]) + ATTEMPT.pack(attempt) + pack(total, width(len(present)))


def own_mask(seed: bytes, kept: int, context: bytes) -> Counts:
    """A device's own mask, uint8 (kept,), modulo 256 and so modulo every smaller power of two."""
    return np.frombuffer(expand(derive(seed, b"own " + context), kept), dtype=np.uint8)


def _between(private: bytes, other: bytes, kept: int, context: bytes) -> Counts:
    """The mask that two devices have in common; the one before the other in the roster adds it."""
    return np.frombuffer(expand(_pair(private, other, b"mask", context), kept), dtype=np.uint8)


def _add(total: Counts, mask: Counts, plus: bool) -> None:
    if plus:
        total += mask
    else:
        total -= mask


def unmask(
    masked: Mapping[int, Counts],
    seeds: Mapping[int, bytes],
    lost: Mapping[int, bytes],
    members: Sequence[Member],
    context: bytes,
) -> Counts:
    """How many of those whose masked signs came have +1, uint8 (kept,).

    Args:
        masked: what came, by place, each uint8 (kept,).
        seeds: of all of those.
        lost: private masking keys of those that shared and whose signs did not come.
        members: the roster's.
        context: the roster's digest.
    """
    total = np.zeros_like(next(iter(masked.values())))
    for place, one in masked.items():
        total += one
        total -= own_mask(seeds[place], total.size, context)
        for gone, private in lost.items():
            _add(total, _between(private, members[place].masking, total.size, context), place > gone)
    return total & np.uint8((1 << width(len(masked) + len(lost))) - 1)


def pack(counts: Counts, bits: int) -> bytes:
    """Numbers of so many bits each, lowest bit first: ceil(kept x bits / 8) bytes."""
    planes = np.unpackbits(counts[:, None], axis=1, count=bits, bitorder="little")
    return np.packbits(planes, bitorder="little").tobytes()


def attempt_of(data: bytes) -> int:
    """Which attempt masked signs are of.

    Raises:
        WireError: if they are not masked.
    """
    if len(data) < 1 + ATTEMPT.size or data[0] != MASKED:
        raise WireError(f"signs of kind {data[0] if data else None}, masked ones expected")
    return int(ATTEMPT.unpack_from(data, 1)[0])


def read_masked(data: bytes, kept: int, present: int) -> tuple[int, Counts]:
    """Attempt and numbers, uint8 (kept,), of masked signs among so many present.

    Raises:
        WireError: if it is none of so many numbers of that width.
    """
    bits = width(present)
    size = 1 + ATTEMPT.size + -(-kept * bits // 8)
    if len(data) != size:
        raise Mismatch(f"masked signs of {kept} weights, {bits} bits each", expected=f"{size} bytes", got=len(data))
    attempt = attempt_of(data)
    spread = np.unpackbits(
        np.frombuffer(data, dtype=np.uint8, offset=1 + ATTEMPT.size), count=kept * bits, bitorder="little"
    )
    return attempt, np.packbits(spread.reshape(kept, bits), axis=1, bitorder="little")[:, 0]
