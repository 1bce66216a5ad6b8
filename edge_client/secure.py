"""A device's part in adding a round's masks up unseen: a pure function of what it knows and what it is told.

What a device answers follows from its root secret and what it has accepted before, so the same answer can be made
again, after a restart too. It accepts one roster an attempt, one list of deliveries, one of survivors, whatever else
it is told: so a secret never covers two different inputs, and of no member are both secrets revealed. It reveals in
one attempt of a round only: two sums of one round that differ by a device would tell its mask.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any, TypeAlias

from wire import mask, messages, secure, signing
from wire.errors import Truncated, WireError
from wire.federation_messages import MaskUpdate
from wire.fields import MAX_INT, RUN_BYTES
from wire.messages import Message
from wire.safecbor import dump_cbor, load_cbor
from wire.secure_messages import (
    Deliveries,
    FromCoordinator,
    FromDevice,
    Invitation,
    Reveal,
    Roster,
    SealedShares,
    Survivors,
)

Answer: TypeAlias = FromDevice | MaskUpdate
ROOT_BYTES = 32


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """One attempt, as far as this device has come; kept on its disk.

    Attributes:
        run: of which run.
        number: of which round.
        ballot: SHA-256 of the signs that it is for; the secrets cover no others.
        root: 32 random bytes, all its secrets follow from them; zeros once they are of no use.
        attempt: which.
        roster: who takes part, once told.
        deliveries: who has shared, once told.
        survivors: whose masked signs have come, once told.
        revealed: shares were revealed in this round.
    """

    run: bytes
    number: int
    ballot: bytes
    root: bytes
    attempt: int = 1
    roster: Roster | None = None
    deliveries: Deliveries | None = None
    survivors: Survivors | None = None
    revealed: bool = False

    @property
    def encoded(self) -> bytes:
        """For the disk."""
        told = [one and messages.encode(one) for one in (self.roster, self.deliveries, self.survivors)]
        return dump_cbor([self.run, self.number, self.ballot, self.root, self.attempt, self.revealed, *told])

    @property
    def context(self) -> bytes:
        """The roster's digest."""
        assert self.roster is not None
        return secure.digest(self.roster)

    @property
    def members(self) -> tuple[secure.Member, ...]:
        """The roster's."""
        assert self.roster is not None
        return secure.read_roster(self.roster)

    @property
    def secrets(self) -> secure.Secrets:
        """All that follows from the root."""
        return secure.secrets(self.root)

    @property
    def spent(self) -> Exchange:
        """What has to be remembered when the round is over for this device."""
        return replace(self, root=bytes(ROOT_BYTES), roster=None, deliveries=None, survivors=None)


def read_exchange(data: bytes) -> Exchange:
    """Inverse of `Exchange.encoded`.

    Raises:
        WireError: if it is none.
    """
    match load_cbor(data):
        case [bytes(run), int(number), bytes(ballot), bytes(root), int(attempt), bool(revealed), *told]:
            pass
        case _:
            raise WireError("no exchange that this program wrote")
    if [len(run), len(ballot), len(root), len(told)] != [RUN_BYTES, 32, ROOT_BYTES, 3]:
        raise WireError("an exchange of other sizes than this program writes")
    if not 0 <= number <= MAX_INT or not 1 <= attempt <= secure.MOST_ATTEMPTS:
        raise WireError(f"an exchange of round {number}, attempt {attempt}")
    roster, deliveries, survivors = (
        _told(cls, one) for cls, one in zip((Roster, Deliveries, Survivors), told, strict=True)
    )
    found = Exchange(run=run, number=number, ballot=ballot, root=root, attempt=attempt, revealed=revealed)
    return replace(found, roster=roster, deliveries=deliveries, survivors=survivors)


def _told(cls: type[Message], data: object) -> Any:
    if data is None:
        return None
    message = messages.decode(data) if isinstance(data, bytes) else None
    if not isinstance(message, cls):
        raise WireError(f"an exchange with something else in the place of its {cls.__name__}")
    return message


@dataclass(frozen=True, kw_only=True)
class Participant:
    """All a device knows of the exchange.

    Attributes:
        name: its device id.
        key: its private Ed25519 key.
        hide_among: devices that a sum must have at least.
        peers: public keys of the devices that count for that; None: all do, whoever they are.
        ballot: its signs and figures, once it has trained: an update whose signs are `wire.mask.ballot`.
        exchange: the newest attempt for it.
    """

    name: str
    key: bytes
    hide_among: int = 0
    peers: frozenset[bytes] | None = None
    ballot: MaskUpdate | None = None
    exchange: Exchange | None = None


Outcome: TypeAlias = tuple[Participant, Answer | None]


def vote(participant: Participant, ballot: MaskUpdate, random_bytes: Callable[[int], bytes]) -> Outcome:
    """Take part with a ballot, or (the same again) go on where it stopped; what to send.

    Raises:
        WireError: if shares were revealed in its round, or a later one of its run, for another ballot.
    """
    exchange, hashed = participant.exchange, sha256(ballot.signs).digest()
    known = exchange is not None and exchange.ballot == hashed and any(exchange.root)
    if exchange is None or not known or _key(exchange) != _key(ballot):
        attempt = 1
        if exchange is not None and exchange.run == ballot.run and ballot.number <= exchange.number:
            if exchange.revealed or ballot.number < exchange.number:
                raise WireError(f"another mask for round {ballot.number}: this device gives one, once")
            attempt = exchange.attempt
        exchange = Exchange(
            run=ballot.run, number=ballot.number, ballot=hashed, root=random_bytes(ROOT_BYTES), attempt=attempt
        )
    participant = replace(participant, ballot=ballot, exchange=exchange)
    return participant, answer(participant)


def forget(participant: Participant) -> Participant:
    """The mask is confirmed, or nobody wants it any more."""
    exchange = participant.exchange
    return replace(participant, ballot=None, exchange=exchange and exchange.spent)


def hear(participant: Participant, message: FromCoordinator, random_bytes: Callable[[int], bytes]) -> Outcome:
    """Accept what the coordinator says; the next state, to be kept, and what to send once it is.

    Raises:
        WireError: if it is not accepted; nothing has changed then.
    """
    ballot, exchange = participant.ballot, participant.exchange
    if ballot is None or exchange is None or _key(message) != _key(ballot):
        raise WireError(f"about round {message.number}, in which this device has no mask to give")
    if isinstance(message, Invitation):
        if message.attempt > secure.MOST_ATTEMPTS:
            raise WireError(f"attempt {message.attempt} of one round")
        if message.attempt > exchange.attempt:
            if exchange.revealed:
                raise WireError("this device has revealed shares in this round already, and does so once")
            exchange = replace(exchange.spent, root=random_bytes(ROOT_BYTES), attempt=message.attempt)
    elif message.attempt != exchange.attempt:
        raise WireError(f"about attempt {message.attempt}, this device is in attempt {exchange.attempt}")
    match message:
        case Roster():
            if exchange.roster is None:
                exchange = replace(exchange, roster=message)
                _check_roster(participant, exchange)
            _check_same(message, exchange.roster)
        case Deliveries():
            if exchange.deliveries is None:
                _check_deliveries(participant, exchange, message)
                exchange = replace(exchange, deliveries=message)
            _check_same(message, exchange.deliveries)
        case Survivors():
            if exchange.survivors is None:
                _check_survivors(participant, exchange, message)
                exchange = replace(exchange, survivors=message, revealed=True)
            _check_same(message, exchange.survivors)
    participant = replace(participant, exchange=exchange)
    return participant, answer(participant)


def answer(participant: Participant) -> Answer | None:
    """What this device has to say at this point, the same every time; None without a ballot.

    Raises:
        WireError: if a key of another member makes no secret, or the ballot is none.
    """
    ballot, exchange = participant.ballot, participant.exchange
    if ballot is None or exchange is None:
        return None
    about = {"run": ballot.run, "number": ballot.number, "attempt": exchange.attempt}
    if exchange.roster is None:
        return secure.make_keys(exchange.secrets, participant.key, **about)  # type: ignore[arg-type]
    place = exchange.roster.names.index(participant.name)
    if exchange.deliveries is None:
        shares = secure.deal(exchange.secrets, exchange.members, place, exchange.context)
        return SealedShares(shares=shares, **about)  # type: ignore[arg-type]
    if exchange.survivors is None:
        return _masked(exchange, exchange.deliveries, ballot, place)
    members, shares = _reveal(exchange, exchange.deliveries, exchange.survivors, place)
    return Reveal(members=members, shares=shares, **about)  # type: ignore[arg-type]


def _masked(exchange: Exchange, deliveries: Deliveries, ballot: MaskUpdate, place: int) -> MaskUpdate:
    """The ballot as it may be sent."""
    signs = secure.mask_signs(
        mask.read_ballot(ballot.signs),
        exchange.secrets,
        exchange.members,
        tuple(deliveries.members),
        place,
        exchange.attempt,
        exchange.context,
    )
    return replace(ballot, signs=signs)


def _reveal(exchange: Exchange, deliveries: Deliveries, survivors: Survivors, place: int) -> tuple[bytes, bytes]:
    """Of everyone whose shares can be opened: a survivor's share of its seed, another one's of its masking key."""
    members, shares = bytearray(), bytearray()
    sealed = _by_dealer(deliveries, place)
    for dealer in deliveries.members:
        if dealer == place:
            share = secure.own_shares(exchange.secrets, len(exchange.members))[place]
        else:
            try:
                share = secure.open_share(
                    sealed[dealer], exchange.secrets, exchange.members, dealer, place, exchange.context
                )
            except WireError:
                continue  # its dealer's fault, and no reason to keep back the others
        members.append(dealer)
        half = secure.SECRET_BYTES
        shares += share[half:] if dealer in survivors.members else share[:half]
    return bytes(members), bytes(shares)


def _by_dealer(deliveries: Deliveries, place: int) -> dict[int, bytes]:
    size = secure.SEALED_BYTES
    others = [dealer for dealer in deliveries.members if dealer != place]
    return {dealer: deliveries.shares[i * size : (i + 1) * size] for i, dealer in enumerate(others)}


def _check_roster(participant: Participant, exchange: Exchange) -> None:
    members = exchange.members  # every signature is checked here
    _check_crowd(participant, members, range(len(members)), "are in the roster")
    found = exchange.secrets
    mine = (signing.public_key(participant.key), secure.public(found.sealing), secure.public(found.masking))
    for member in members:
        if member.name == participant.name:
            if (member.identity, member.sealing, member.masking) != mine:
                raise WireError("a roster with other keys in this device's place")
            return
    raise WireError("a roster without this device")


def _check_deliveries(participant: Participant, exchange: Exchange, message: Deliveries) -> None:
    if exchange.roster is None:
        raise WireError("deliveries before the roster")
    count = len(exchange.roster.names)
    members = secure.members_of(message.members, count)
    if exchange.roster.names.index(participant.name) not in members:
        raise WireError("deliveries among which this device is not")
    _check_enough(participant, exchange, members, "have shared")
    expected = (len(members) - 1) * secure.SEALED_BYTES
    if len(message.shares) != expected:
        raise Truncated("deliveries", expected_bytes=expected, got_bytes=len(message.shares))


def _check_survivors(participant: Participant, exchange: Exchange, message: Survivors) -> None:
    if exchange.roster is None or exchange.deliveries is None:
        raise WireError("survivors before the deliveries")
    count = len(exchange.roster.names)
    members = secure.members_of(message.members, count)
    if not set(members) <= set(exchange.deliveries.members):
        raise WireError("survivors that have not shared")
    _check_enough(participant, exchange, members, "are left")


def _check_enough(participant: Participant, exchange: Exchange, places: Sequence[int], what: str) -> None:
    count = len(exchange.members)
    if len(places) < secure.threshold(count):
        raise WireError(f"{len(places)} devices of {count} {what}, at least {secure.threshold(count)} expected")
    _check_crowd(participant, exchange.members, places, what)


def _check_crowd(participant: Participant, members: Sequence[secure.Member], places: Sequence[int], what: str) -> None:
    known = participant.peers
    found = sum(known is None or members[place].identity in known for place in places)
    if found < participant.hide_among:
        kind = "devices" if known is None else "devices that this one knows"
        raise WireError(f"only {found} {kind} {what}, and it hides among {participant.hide_among} (--hide-among)")


def _check_same(message: Message, accepted: Message | None) -> None:
    if message != accepted:
        raise WireError(f"another {type(message).__name__} than the one that this device has accepted")


def _key(message: MaskUpdate | FromCoordinator | Exchange) -> tuple[bytes, int]:
    return message.run, message.number
