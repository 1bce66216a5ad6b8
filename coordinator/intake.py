"""Masks: checked, written down, confirmed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

from coordinator.announced import Announced
from coordinator.fleet import Fleet
from coordinator.observer import Observer
from coordinator.outbox import Outbox
from coordinator.store import Store
from wire import mask
from wire.errors import Mismatch, WireError
from wire.federation_messages import MaskUpdate, Receipt, Refusal
from wire.fields import MAX_TEXT
from wire.mask import Context, Signs
from wire.ticket import Ticket
from wire.topics import Topics

Place: TypeAlias = Callable[[str, int], int]  # as `coordinator.modes.Mode.place`


def check_mask(update: MaskUpdate, known: Context, ticket: Ticket) -> Signs:
    """A mask's signs, bool (kept,).

    Args:
        update: the mask.
        known: its round's votes, or what `wire.dither.context` makes of them.
        ticket: the network.

    Raises:
        WireError: if its figures or its signs are none.
    """
    if update.correct > update.test_samples or not update.train_samples:
        raise WireError(f"mask with {update.correct} of {update.test_samples} right and {update.train_samples} samples")
    return mask.decode_signs(update.signs, known, ticket.ends)


def refused(update: MaskUpdate, instance: bytes, error: WireError) -> Refusal:
    """What a device's process is told whose mask is not taken."""
    return Refusal(instance=instance, code="mask", reason=str(error)[:MAX_TEXT], number=update.number)


@dataclass
class Intake:
    """Takes the masks of one run.

    Args:
        run: which run.
        ticket: its network.
        announced: its votes.
        fleet: whose masks.
        outbox: where they are written down and answered.
        topics: of the federation.
        observer: told of every mask.
    """

    run: bytes
    ticket: Ticket
    announced: Announced
    fleet: Fleet
    outbox: Outbox[Store]
    topics: Topics
    observer: Observer

    def take(self, device: str, update: MaskUpdate, payload_bytes: int, place: Place) -> int | None:
        """Keep a mask, and confirm it; the round in which it counts, None if it was kept before.

        Args:
            device: whose.
            update: the mask.
            payload_bytes: of its message.
            place: says in which round it counts.

        Raises:
            WireError: if it is not wanted, or not what it should be; its device is told.
        """
        receipt = Receipt(run=update.run, number=update.number)
        store, down = self.outbox.store, self.topics.down(device)
        if store.has_mask(update.run, update.number, device):
            self.outbox.send(down, receipt)  # its first receipt was lost
            return None
        try:
            counted = self._check(device, update, place)
        except WireError as error:
            member = self.fleet.members.get(device)
            if member is not None:
                self.outbox.send(down, refused(update, member.hello.instance, error))
            raise
        store.add_mask(device, update, payload_bytes, self.outbox.send(down, receipt), counted)
        self.outbox.then(lambda: self.observer.mask(device, replace(update, number=counted), payload_bytes))
        return counted

    def _check(self, device: str, update: MaskUpdate, place: Place) -> int:
        """The round in which a mask counts."""
        if update.run != self.run:
            raise Mismatch("mask for another run", expected=self.run.hex(), got=update.run.hex())
        counted = place(device, update.number)
        check_mask(update, self.announced.known(update.number, device), self.ticket)
        return counted
