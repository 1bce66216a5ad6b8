"""Secure aggregation at work on a device: keeps what `edge_client.secure` comes to, and sends what it answers."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, field

from edge_client import secure
from edge_client.secure import Answer, Participant
from edge_client.store import Store
from wire import signing
from wire.channel import Channel
from wire.errors import WireError
from wire.federation_messages import MaskUpdate
from wire.secure_messages import FromCoordinator, Reveal, RoundKeys, SealedShares
from wire.topics import Topics

log = logging.getLogger("hidenseek.edge")
STEPS = {RoundKeys: "keys", SealedShares: "sealed shares", MaskUpdate: "masked signs", Reveal: "revealed shares"}


@dataclass
class SecureVote:
    """One device's masks on their way into sums.

    Args:
        name: the device's id.
        channel: its connection, which signs with its key.
        topics: the federation's topics.
        store: its state folder.
        hide_among: devices that a sum must have at least.
        peers: public keys of those that count; None: of any.
    """

    name: str
    channel: Channel
    topics: Topics
    store: Store
    hide_among: int = 0
    peers: frozenset[bytes] | None = None
    _participant: Participant = field(init=False)

    def __post_init__(self) -> None:
        self._participant = Participant(
            name=self.name,
            key=self.channel.key,
            hide_among=self.hide_among,
            peers=None if self.peers is None else self.peers | {signing.public_key(self.channel.key)},
            exchange=self._stored(),
        )

    def give(self, ballot: MaskUpdate) -> None:
        """Take part with a ballot, or say again what was said last."""
        try:
            outcome = secure.vote(self._participant, ballot, os.urandom)
        except WireError as error:
            log.warning("round %d: not taking part: %s", ballot.number, error)
            return
        self._go_on(*outcome)

    def forget(self) -> None:
        """The mask is confirmed, or nobody wants it any more."""
        self._go_on(secure.forget(self._participant), None)

    def hear(self, message: FromCoordinator) -> None:
        """Answer the coordinator; what is not to be accepted is logged."""
        try:
            outcome = secure.hear(self._participant, message, os.urandom)
        except WireError as error:
            log.warning("round %d: not answered: %s", message.number, error)
            return
        self._go_on(*outcome)

    def _go_on(self, participant: Participant, answer: Answer | None) -> None:
        if participant.exchange is not None and participant.exchange != self._participant.exchange:
            self.store.save_exchange(participant.exchange.encoded)  # first: an answer binds this device
        self._participant = participant
        if answer is None:
            return
        log.info("round %d: %s sent", answer.number, STEPS[type(answer)])
        kind = "mask" if isinstance(answer, MaskUpdate) else "exchange"
        self.channel.send(self.topics.up(self.name, kind), answer)

    def _stored(self) -> secure.Exchange | None:
        data = self.store.load_exchange()
        if data is None:
            return None
        try:
            return secure.read_exchange(data)
        except WireError as error:
            log.warning("the file of secure aggregation is damaged, this round goes on without it: %s", error)
            return None
