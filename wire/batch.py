"""Many devices' masks at once: what `wire.channel`, `wire.messages` and `wire.mask` do with one, in a few calls.

Those calls are to C and let other threads run meanwhile. They know one form of a message, that in which devices write
it (`wire.messages.encode`); of all others they only say that it is not, for whoever takes messages one by one.
They need the native library, and libsodium as PyNaCl has it: `able` says whether both are there.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from wire import messages, signing
from wire.errors import WireError
from wire.federation_messages import MaskUpdate
from wire.fields import RUN_BYTES
from wire.mask import Ends, Signs, Votes, count_votes, votes_of
from wire.mask_kinds import FLIPS
from wire.messages import HEADER_BYTES, MAGIC, VERSION, kind_number
from wire.native.library import Native, Spans, native

Row: TypeAlias = NDArray[np.uint64]  # a mask's signs (kept,) in words, the first in the lowest bit, zeros at the end
Rows: TypeAlias = NDArray[np.uint64]  # (masks, words)
Flags: TypeAlias = NDArray[np.bool_]
UPDATE_HEADER = MAGIC + bytes([VERSION, kind_number(MaskUpdate)])
NO_SIGNS = b"\x40"  # CBOR of no bytes
WORD_BITS = 64


def able() -> bool:
    """Whether all that is needed is there."""
    return native() is not None and _sodium() is not None


def spans_of(items: Sequence[bytes]) -> Spans:
    """Where each begins and ends when they are joined, int64 (items, 2)."""
    sizes = np.array([len(item) for item in items], dtype=np.int64)
    ends = np.cumsum(sizes)
    return np.stack([ends - sizes, ends], axis=1)


def pack(signs: Signs) -> Row:
    """Signs bool (kept,) -> words."""
    row = np.zeros(-(-signs.size // WORD_BITS), dtype="<u8")
    row.view(np.uint8)[: -(-signs.size // 8)] = np.packbits(signs, bitorder="little")
    return row


def unpack(row: Row, kept: int) -> Signs:
    """Inverse of `pack`: bool (kept,)."""
    return np.unpackbits(row.view(np.uint8), count=kept, bitorder="little").view(np.bool_)


def count(rows: Rows, previous: Signs) -> Votes:
    """`wire.mask.count_votes` of masks that lie in the rows of one array; without the native library, too."""
    if native() is None:
        return count_votes((unpack(row, previous.size) for row in rows), previous)
    ayes = _native().count_votes(np.ascontiguousarray(rows))[: previous.size].astype(np.uint32)
    return votes_of(ayes, len(rows), previous)


def read(data: bytes, spans: Spans) -> NDArray[np.void]:
    """What encoded `MaskUpdate`s say, which lie in `data` at `spans`: of `wire.native.library.UPDATE`, (updates,).

    Places are those in `data`. What is said of one that is not `plain` means nothing; nor is one that ends before it
    begins.
    """
    inner = spans + np.array([HEADER_BYTES, 0])
    inner[inner[:, 0] > inner[:, 1]] = 0
    found = _native().read_updates(data, inner)
    found["plain"] &= np.array([data.startswith(UPDATE_HEADER, begin) for begin in spans[:, 0].tolist()], dtype=bool)
    return found


def decode_updates(bodies: Sequence[bytes]) -> list[MaskUpdate]:
    """`wire.messages.decode` of messages that are to be `MaskUpdate`s; here the native library only makes it faster.

    Raises:
        WireError: if one is none.
    """
    updates: list[MaskUpdate | None] = [None] * len(bodies)
    if native() is not None:
        data = b"".join(bodies)
        for i, (plain, run, number, _, begin, end, *rest) in enumerate(read(data, spans_of(bodies)).tolist()):
            if plain:
                trained, correct, tested, memory, loss, took, step = rest
                updates[i] = MaskUpdate(
                    run=data[run : run + RUN_BYTES], number=number, signs=data[begin:end], train_samples=trained,
                    loss=loss, correct=correct, test_samples=tested, train_s=took, step_ms=step, peak_memory_kb=memory,
                )  # fmt: skip
    return [_alone(body) if update is None else update for body, update in zip(bodies, updates, strict=True)]


def _alone(body: bytes) -> MaskUpdate:
    message = messages.decode(body)
    if not isinstance(message, MaskUpdate):
        raise WireError(f"a MaskUpdate expected, got {type(message).__name__}")
    return message


def check(purpose: str, keys: Sequence[bytes], sealed: Sequence[tuple[bytes, bytes]]) -> Flags:
    """Which messages are signed with their keys, bool (sealed,).

    Args:
        purpose: as of `wire.signing`.
        keys: the public key of each.
        sealed: of each what is signed before it, and the message with the signature at its end.
    """
    head, size = signing.about(purpose), signing.SIGNATURE_BYTES
    items = [message[-size:] + head + before + message[:-size] for before, message in sealed]
    return _native().check_signatures(_functions()[0], b"".join(items), spans_of(items), b"".join(keys))


def sign(key: bytes, purpose: str, datas: Sequence[bytes]) -> list[bytes]:
    """`wire.signing.sign` of each."""
    head, size = signing.about(purpose), signing.SIGNATURE_BYTES
    items = [head + data for data in datas]
    made = _native().make_signatures(_functions()[1], b"".join(items), spans_of(items), signing.expanded(key))
    return [made[i : i + size] for i in range(0, len(made), size)]


def decode_signs(data: bytes, spans: Spans, votes: Votes, reference: Row, ends: Ends) -> tuple[Rows, Flags]:
    """`wire.mask.decode_signs` of masks that are coded as flips; the others, and what is no code, are not `good`.

    Args:
        data: holds the masks.
        spans: where each begins and ends, int64 (masks, 2).
        votes: of the round.
        reference: their signs, packed.
        ends: of the ticket's layers.
    """
    longest = 1 + -(-votes.signs.size // 8)
    sizes = spans[:, 1] - spans[:, 0]
    kinds = np.frombuffer(data, dtype=np.uint8)[np.minimum(spans[:, 0], len(data) - 1)]
    form = (sizes >= 1) & (sizes <= longest) & (kinds == FLIPS)
    inner = np.ascontiguousarray(spans + np.array([1, 0]))
    inner[~form] = 0
    rows, good = _native().decode_masks(data, inner, votes.levels, ends, reference)
    return rows, good & form


def _native() -> Native:
    library = native()
    assert library is not None
    return library


def _functions() -> tuple[int, int]:
    found = _sodium()
    assert found is not None
    return found


@cache
def _sodium() -> tuple[int, int] | None:
    """Addresses of libsodium's `crypto_sign_open` and `crypto_sign`; None if PyNaCl is not built as it was."""
    try:
        from nacl._sodium import ffi, lib  # type: ignore[import-not-found]

        names = ("crypto_sign_open", "crypto_sign")
        opened, signed = (int(ffi.cast("uintptr_t", ffi.addressof(lib, name))) for name in names)
    except (ImportError, AttributeError, TypeError):
        return None
    return opened, signed
