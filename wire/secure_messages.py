"""What coordinator and devices say to each other to add up a round's masks unseen (`wire.secure`).

One attempt of one round goes: `RoundKeys` from every device that has trained, `Roster` to those, `SealedShares` back,
`Deliveries`, a `MaskUpdate` whose signs are masked, `Survivors`, and `Reveal`. Lists of members are bytes, a byte
each: places in the roster, ascending.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from wire.fields import RUN_BYTES, at


@dataclass(frozen=True, kw_only=True)
class RoundKeys:
    """Device -> coordinator: it has trained, and these keys are for one attempt to add masks up.

    Attributes:
        run: which run.
        number: which round.
        attempt: 1, 2, ...; every attempt has keys of its own.
        sealing: public X25519 key that shares for this device are sealed with.
        masking: public X25519 key that the masks between two devices come from.
        commitment: SHA-256 of the seed of the device's own mask.
        signature: by the device's key, for the other devices: over run, number, attempt and both keys.
    """

    run: bytes = at(1, RUN_BYTES)
    number: int = at(2)
    attempt: int = at(3)
    sealing: bytes = at(4, 32)
    masking: bytes = at(5, 32)
    commitment: bytes = at(6, 32)
    signature: bytes = at(7, 64)


@dataclass(frozen=True, kw_only=True)
class Invitation:
    """Coordinator -> device: the attempt before came to nothing, make keys for this one."""

    run: bytes = at(1, RUN_BYTES)
    number: int = at(2)
    attempt: int = at(3)


@dataclass(frozen=True, kw_only=True)
class Roster:
    """Coordinator -> device: who takes part in an attempt.

    Attributes:
        run: which run.
        number: which round.
        attempt: which attempt.
        names: device ids, ascending.
        members: for each of them 160 bytes: its own public key, and `sealing`, `masking` and `signature` of its keys.
    """

    run: bytes = at(1, RUN_BYTES)
    number: int = at(2)
    attempt: int = at(3)
    names: tuple[str, ...] = at(4)
    members: bytes = at(5)


@dataclass(frozen=True, kw_only=True)
class SealedShares:
    """Device -> coordinator: shares of its secrets, for every other member 80 bytes that only that one can open."""

    run: bytes = at(1, RUN_BYTES)
    number: int = at(2)
    attempt: int = at(3)
    shares: bytes = at(4)


@dataclass(frozen=True, kw_only=True)
class Deliveries:
    """Coordinator -> device: who has shared, and the shares that they sealed for this device.

    Attributes:
        run: which run.
        number: which round.
        attempt: which attempt.
        members: who has shared, this device among them.
        shares: 80 bytes from each of the others.
    """

    run: bytes = at(1, RUN_BYTES)
    number: int = at(2)
    attempt: int = at(3)
    members: bytes = at(4)
    shares: bytes = at(5)


@dataclass(frozen=True, kw_only=True)
class Survivors:
    """Coordinator -> device: whose masked signs have come; now their own masks, and the keys of the others."""

    run: bytes = at(1, RUN_BYTES)
    number: int = at(2)
    attempt: int = at(3)
    members: bytes = at(4)


@dataclass(frozen=True, kw_only=True)
class Reveal:
    """Device -> coordinator: its shares, of one secret of each member and never of both.

    Attributes:
        run: which run.
        number: which round.
        attempt: which attempt.
        members: whose shares it could open, itself among them.
        shares: 32 bytes for each: of a survivor its mask's seed, of another one its private masking key.
    """

    run: bytes = at(1, RUN_BYTES)
    number: int = at(2)
    attempt: int = at(3)
    members: bytes = at(4)
    shares: bytes = at(5)


FromDevice: TypeAlias = RoundKeys | SealedShares | Reveal
FromCoordinator: TypeAlias = Invitation | Roster | Deliveries | Survivors
