"""What a coordinator's rounds must come to, from what its database says of them: masks, settings, what went before."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from coordinator import dithered
from coordinator.aggregate import MEMORY, next_votes
from coordinator.dithered import Scores
from coordinator.report.predicted import training_of
from wire import dither, mask
from wire.mask import Votes
from wire.prng import training_seed
from wire.settings import Training
from wire.ticket import Ticket

MIDDLE = 127  # above this threshold and those after it a score is positive, below all before it negative
Masks = Sequence[tuple[str, bytes]]  # devices and their coded masks


@dataclass(frozen=True, kw_only=True)
class Recount:
    """One run's rounds, which must be gone through in order.

    Attributes:
        ticket: its network.
        training: how devices train.
        seed: of the run.
    """

    ticket: Ticket
    training: Training
    seed: int

    @classmethod
    def of(cls, ticket: Ticket, settings: str) -> Recount:
        """From a run's row."""
        return cls(ticket=ticket, training=training_of(settings), seed=json.loads(settings)["schedule"]["seed"])

    def start(self) -> Scores:
        """Before the first round."""
        votes = dither.first_votes(self.ticket.kept, self.training)
        return Scores(votes=votes, remainder=dithered.decode_remainder(None, self.ticket.kept))

    def read(self, number: int, votes: Votes, device: str, coded: bytes) -> tuple[mask.Signs, mask.Context]:
        """A device's mask, and what was known of it."""
        known = dither.context(votes, self.training, training_seed(self.seed, number, device))
        return mask.decode_signs(coded, known, self.ticket.ends), known

    def close(self, number: int, before: Scores, masks: Masks) -> Scores:
        """A round in which nobody is hostile; who is there twice counts twice."""
        read = [(device, *self.read(number, before.votes, device, coded)) for device, coded in masks]
        if self.training.dither:
            named = [(f"{place} {device}", sent, known) for place, (device, sent, known) in enumerate(read)]
            return dithered.close(before, named, number=number, defend=False)[0]
        votes = next_votes(before.votes, (sent for _, sent, _ in read), MEMORY)
        return Scores(votes=votes, remainder=before.remainder)

    def contradicted(self, number: int, votes: Votes, device: str, coded: bytes, own: mask.Signs) -> int:
        """How many signs that a device has ended with, bool (kept,), cannot be with the mask that it has sent."""
        sent, _ = self.read(number, votes, device, coded)
        if not self.training.dither:
            return int((sent != own).sum())
        drawn = dither.thresholds(training_seed(self.seed, number, device), self.ticket.kept)
        return int((sent & (drawn >= MIDDLE) & ~own | ~sent & (drawn < MIDDLE) & own).sum())
