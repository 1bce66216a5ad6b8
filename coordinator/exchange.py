"""One attempt to add a round's masks up unseen, the coordinator's side: a pure function of what devices say.

Phases follow each other, and each waits for those who answered in the one before: keys, shares, masked signs, reveals.
When to go on is for `coordinator.secretly` to say, which knows the time; what was decided and what arrived is kept in
the database in the order in which it happened, and `replay` makes the same state of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum
from functools import cached_property

from wire import messages, secure
from wire.errors import Mismatch, Truncated, WireError
from wire.federation_messages import MaskUpdate
from wire.messages import Message
from wire.secure import Member
from wire.secure_messages import Deliveries, Invitation, Reveal, Roster, RoundKeys, SealedShares, Survivors


class Phase(IntEnum):
    """What devices are to send."""

    KEYS = 1
    SHARES = 2
    MASKED = 3
    REVEAL = 4


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """An attempt, as far as it has come.

    Attributes:
        run: which run.
        number: which round.
        kept: signs of a mask.
        attempt: 1, 2, ...
        keys: by device, its public key and those of the attempt.
        roster: who takes part; decided when enough keys are there.
        sealed: shares by dealer's place in the roster.
        sharers: who has shared; decided when enough have.
        masked: updates with masked signs, by place.
        survivors: whose they are; decided when enough are there.
        reveals: by place.
    """

    run: bytes
    number: int
    kept: int
    attempt: int = 1
    keys: Mapping[str, tuple[bytes, RoundKeys]] = field(default_factory=dict)
    roster: Roster | None = None
    sealed: Mapping[int, bytes] = field(default_factory=dict)
    sharers: tuple[int, ...] = ()
    masked: Mapping[int, MaskUpdate] = field(default_factory=dict)
    survivors: tuple[int, ...] = ()
    reveals: Mapping[int, Mapping[int, bytes]] = field(default_factory=dict)

    @property
    def phase(self) -> Phase:
        """What is waited for."""
        if self.roster is None:
            return Phase.KEYS
        if not self.sharers:
            return Phase.SHARES
        return Phase.REVEAL if self.survivors else Phase.MASKED

    @property
    def needed(self) -> int:
        """Members that every phase after the first needs."""
        return secure.threshold(len(self.names))

    @property
    def names(self) -> tuple[str, ...]:
        """Members' device ids, in the roster's order."""
        return self.roster.names if self.roster else ()

    @property
    def asked(self) -> tuple[int, ...]:
        """Places of those who have to answer in this phase."""
        match self.phase:
            case Phase.KEYS | Phase.SHARES:
                return tuple(range(len(self.names)))
            case Phase.MASKED | Phase.REVEAL:
                return self.sharers

    @property
    def answered(self) -> frozenset[int]:
        """Places of those who have."""
        match self.phase:
            case Phase.KEYS:
                return frozenset()
            case Phase.SHARES:
                return frozenset(self.sealed)
            case Phase.MASKED:
                return frozenset(self.masked)
            case Phase.REVEAL:
                return frozenset(self.reveals)

    @cached_property
    def members(self) -> tuple[Member, ...]:
        """The roster's."""
        assert self.roster is not None
        return secure.read_roster(self.roster)

    @cached_property
    def context(self) -> bytes:
        """The roster's digest."""
        assert self.roster is not None
        return secure.digest(self.roster)


def hear(exchange: Exchange, device: str, identity: bytes, message: Message) -> Exchange:
    """Take what a device says; the same object if it is no news, or comes too late.

    Args:
        exchange: so far.
        device: who speaks.
        identity: its public key.
        message: about this run and round.

    Raises:
        WireError: if it is not what is to be said here.
    """
    match message:
        case RoundKeys():
            return _hear_keys(exchange, device, identity, message)
        case SealedShares() | Reveal() | MaskUpdate():
            if _attempt_of(message) < exchange.attempt:
                return exchange  # it has not heard of the new one
            if device not in exchange.names:
                raise WireError(f"'{device}' is not in the roster of round {exchange.number}")
            place = exchange.names.index(device)
        case other:
            raise WireError(f"a device does not send {type(other).__name__}")
    if isinstance(message, SealedShares):
        return _hear_shares(exchange, place, message)
    if isinstance(message, Reveal):
        return _hear_reveal(exchange, place, message)
    return _hear_masked(exchange, place, message)


def _attempt_of(message: SealedShares | Reveal | MaskUpdate) -> int:
    return secure.attempt_of(message.signs) if isinstance(message, MaskUpdate) else message.attempt


def _hear_keys(exchange: Exchange, device: str, identity: bytes, message: RoundKeys) -> Exchange:
    if message.attempt != exchange.attempt or exchange.phase != Phase.KEYS or device in exchange.keys:
        return exchange
    member = Member(
        name=device, identity=identity, sealing=message.sealing, masking=message.masking, signature=message.signature
    )
    secure.check_keys(member, message.run, message.number, message.attempt)
    taken = {one for _, other in exchange.keys.values() for one in (other.sealing, other.masking)}
    if taken & {message.sealing, message.masking} or identity in {key for key, _ in exchange.keys.values()}:
        raise WireError(f"'{device}' shows another device's key")
    return replace(exchange, keys={**exchange.keys, device: (identity, message)})


def _hear_shares(exchange: Exchange, place: int, message: SealedShares) -> Exchange:
    if message.attempt != exchange.attempt or exchange.phase != Phase.SHARES or place in exchange.sealed:
        return exchange
    expected = (len(exchange.names) - 1) * secure.SEALED_BYTES
    if len(message.shares) != expected:
        raise Truncated("shares", expected_bytes=expected, got_bytes=len(message.shares))
    return replace(exchange, sealed={**exchange.sealed, place: message.shares})


def _hear_masked(exchange: Exchange, place: int, message: MaskUpdate) -> Exchange:
    if exchange.phase < Phase.MASKED or place not in exchange.sharers:
        raise WireError("masked signs before it was said with whom")
    attempt, _ = secure.read_masked(message.signs, exchange.kept, len(exchange.sharers))
    if message.correct > message.test_samples or not message.train_samples:
        raise WireError(
            f"mask with {message.correct} of {message.test_samples} right and {message.train_samples} samples"
        )
    if attempt != exchange.attempt or exchange.phase != Phase.MASKED or place in exchange.masked:
        return exchange
    return replace(exchange, masked={**exchange.masked, place: message})


def _hear_reveal(exchange: Exchange, place: int, message: Reveal) -> Exchange:
    if message.attempt != exchange.attempt or exchange.phase != Phase.REVEAL or place in exchange.reveals:
        return exchange
    members = secure.members_of(message.members, len(exchange.names))
    if not set(members) <= set(exchange.sharers):
        raise WireError("shares of devices that have not shared")
    size = secure.SECRET_BYTES
    if len(message.shares) != size * len(members):
        raise Mismatch("reveal", expected=f"{size * len(members)} bytes", got=len(message.shares))
    revealed = {member: message.shares[i * size : (i + 1) * size] for i, member in enumerate(members)}
    return replace(exchange, reveals={**exchange.reveals, place: revealed})


def decide(exchange: Exchange) -> Exchange:
    """Go on with those who have answered; the caller has seen that they are enough."""
    match exchange.phase:
        case Phase.KEYS:
            first = sorted(exchange.keys)[: secure.MOST]
            return replace(exchange, roster=secure.make_roster({name: exchange.keys[name] for name in first}))
        case Phase.SHARES:
            return replace(exchange, sharers=tuple(sorted(exchange.sealed)))
        case Phase.MASKED:
            return replace(exchange, survivors=tuple(sorted(exchange.masked)))
        case Phase.REVEAL:
            return exchange


def ask(exchange: Exchange, device: str) -> Message | None:
    """What a device is to be told in this phase, again if need be; None if nothing is asked of it any more.

    Not to those who have answered: a device answers whenever it is asked, so two that always did would never end.
    """
    run, number, attempt = exchange.run, exchange.number, exchange.attempt
    if exchange.roster is None:
        if attempt == 1 or device in exchange.keys:
            return None
        return Invitation(run=run, number=number, attempt=attempt)
    if device not in exchange.names:
        return None
    place = exchange.names.index(device)
    if place not in exchange.asked or place in exchange.answered:
        return None
    match exchange.phase:
        case Phase.MASKED:
            return Deliveries(
                run=run,
                number=number,
                attempt=attempt,
                members=bytes(exchange.sharers),
                shares=b"".join(_sealed_for(exchange, dealer, place) for dealer in exchange.sharers if dealer != place),
            )
        case Phase.REVEAL:
            return Survivors(run=run, number=number, attempt=attempt, members=bytes(exchange.survivors))
        case _:
            return exchange.roster


def _sealed_for(exchange: Exchange, dealer: int, place: int) -> bytes:
    at = (place - (place > dealer)) * secure.SEALED_BYTES
    return exchange.sealed[dealer][at : at + secure.SEALED_BYTES]


# What is kept of it.


def decision(exchange: Exchange) -> bytes:
    """The newest decision, to be kept: a roster, or places in it."""
    if exchange.survivors:
        return bytes(exchange.survivors)
    if exchange.sharers:
        return bytes(exchange.sharers)
    assert exchange.roster is not None
    return messages.encode(exchange.roster)


def replay(exchange: Exchange, kept: list[tuple[str, bytes, bytes]]) -> Exchange:
    """The state that what was kept leads to: device, its key and what it said, or ("", b"", decision), in order."""
    for device, identity, data in kept:
        if device:
            exchange = hear(exchange, device, identity, messages.decode(data))
        else:
            exchange = decide(exchange)
            if decision(exchange) != data:
                raise WireError(f"the database's round {exchange.number} does not add up")
    return exchange
