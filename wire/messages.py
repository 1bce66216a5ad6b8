"""Everything the two sides say to each other: which frozen dataclasses are messages, and their bytes.

A message is `b"HN"`, a version byte, a kind byte, and a CBOR map from small field numbers to
values; `wire.channel` adds the sender's signature. Unknown field numbers are ignored, so fields can
be added without a new version; a number is never given a second meaning. Which device a message is
from is said by its topic alone, which the signature covers.
"""

from __future__ import annotations

from typing import TypeAlias

from wire.claim import Claim, Grant
from wire.errors import TooLarge, Truncated, WireError
from wire.federation_messages import (
    BundleBytes,
    CatchUp,
    Evaluation,
    Federation,
    Hello,
    MaskUpdate,
    Missed,
    Receipt,
    Refusal,
    Round,
    State,
    Telemetry,
    Welcome,
)
from wire.fields import body, readers
from wire.safecbor import MAX_VALUES, dump_cbor, load_cbor
from wire.secure_messages import Deliveries, Invitation, Reveal, Roster, RoundKeys, SealedShares, Survivors
from wire.update import FilePart, Staged, Update
from wire.worker_messages import Report, Settled, Shift, Tally

MAGIC = b"HN"
VERSION = 2
HEADER_BYTES = 4
MAX_MESSAGE_BYTES = 256 << 20


Message: TypeAlias = (
    Hello
    | State
    | Welcome
    | Refusal
    | Federation
    | BundleBytes
    | Round
    | MaskUpdate
    | Evaluation
    | Receipt
    | Missed
    | CatchUp
    | Telemetry
    | RoundKeys
    | Invitation
    | Roster
    | SealedShares
    | Deliveries
    | Survivors
    | Reveal
    | Claim
    | Grant
    | Report
    | Shift
    | Tally
    | Settled
    | Update
    | FilePart
    | Staged
)
KINDS: dict[int, type[Message]] = {
    1: Hello,
    2: State,
    3: Welcome,
    4: Refusal,
    5: Federation,
    6: BundleBytes,
    7: Round,
    8: MaskUpdate,
    9: Evaluation,
    10: Receipt,
    11: Missed,
    12: CatchUp,
    13: Telemetry,
    14: RoundKeys,
    15: Invitation,
    16: Roster,
    17: SealedShares,
    18: Deliveries,
    19: Survivors,
    20: Reveal,
    21: Claim,
    22: Grant,
    23: Report,
    24: Shift,
    25: Tally,
    26: Settled,
    27: Update,
    28: FilePart,
    29: Staged,
}
_NUMBER_OF = {cls: number for number, cls in KINDS.items()}


def kind_number(kind: type[Message]) -> int:
    """The number of a kind of message on the wire."""
    return _NUMBER_OF[kind]


def encode(message: Message) -> bytes:
    """Message -> bytes."""
    return MAGIC + bytes([VERSION, _NUMBER_OF[type(message)]]) + dump_cbor(body(message))


def decode(data: bytes, max_values: int = MAX_VALUES) -> Message:
    """Bytes -> message, of at most so many CBOR values.

    Raises:
        WireError: if they are not a message of this version with every field in range that must be there.
    """
    if len(data) < HEADER_BYTES:
        raise Truncated("message", expected_bytes=HEADER_BYTES, got_bytes=len(data))
    if len(data) > MAX_MESSAGE_BYTES:
        raise TooLarge("message", limit=MAX_MESSAGE_BYTES, got=len(data))
    if data[:2] != MAGIC:
        raise WireError(f"starts with {data[:2]!r}, a message starts with {MAGIC!r}")
    if data[2] != VERSION:
        raise WireError(f"message version {data[2]}, this program speaks version {VERSION}")
    cls = KINDS.get(data[3])
    if cls is None:
        raise WireError(f"unknown message kind {data[3]}")
    fields = load_cbor(data[HEADER_BYTES:], max_values)
    if not isinstance(fields, dict):
        raise WireError(f"{cls.__name__}: a map of fields expected, got {type(fields).__name__}")
    return cls(**{name: read(fields) for name, read in _READERS[cls]})


_READERS = {cls: readers(cls) for cls in KINDS.values()}
