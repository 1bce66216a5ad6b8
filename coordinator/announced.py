"""The votes announced with every round of a run: read back from the database, coded for whoever has older ones."""

from __future__ import annotations

from coordinator import dithered
from coordinator.dithered import Remainder, Scores
from coordinator.store import Store
from wire import dither, mask
from wire.errors import WireError
from wire.federation_messages import CatchUp, Missed, Round
from wire.mask import Context, Votes
from wire.prng import training_seed
from wire.settings import Training
from wire.ticket import Ticket

AT_HAND = 8  # rounds whose votes are not decoded again each time
SIGNS = Training()


class Announced:
    """Votes by round.

    Args:
        run: which run.
        ticket: its network.
        store: the database.
        training: how devices train and what they send.
        seed: of the run.
        at_hand: newest rounds whose votes are kept in memory.
    """

    def __init__(
        self,
        run: bytes,
        ticket: Ticket,
        store: Store,
        training: Training = SIGNS,
        seed: int = 0,
        at_hand: int = AT_HAND,
    ) -> None:
        self._run, self._ticket, self._store = run, ticket, store
        self._training, self._seed = training, seed
        self._at_hand = at_hand
        self._votes = {1: dither.first_votes(ticket.kept, training)}
        self._remainder: tuple[int, Remainder] | None = None  # of which round

    def __getitem__(self, number: int) -> Votes:
        """The votes announced, or to be announced, with a round.

        Raises:
            KeyError: if there are none.
        """
        if number not in self._votes:
            stored = self._store.round(self._run, number)
            if stored is None:
                raise KeyError(number)
            self.put(number, mask.decode_votes(stored.votes, self._ticket.ends))
        return self._votes[number]

    def scores(self, number: int) -> Scores:
        """Mean scores of a round that is open, or was closed last: the votes, and what is not announced of them yet.

        Raises:
            KeyError: if there are none.
        """
        if self._remainder is None or self._remainder[0] != number:
            stored = self._store.remainder(self._run, number)
            self._remainder = number, dithered.decode_remainder(stored, self._ticket.kept)
        return Scores(votes=self[number], remainder=self._remainder[1])

    def known(self, number: int, device: str) -> Context:
        """What a device and the coordinator both know of its mask of a round before it is sent.

        Raises:
            KeyError: if there are no votes of that round.
        """
        return dither.context(self[number], self._training, training_seed(self._seed, number, device))

    def put(self, number: int, votes: Votes, remainder: Remainder | None = None) -> None:
        """Votes to be announced with a round, and what of mean scores they leave."""
        self._votes[number] = votes
        if remainder is not None:
            self._remainder = number, remainder
        for old in sorted(self._votes)[: -self._at_hand]:
            if old != number:
                del self._votes[old]

    def open(self, number: int, selected: tuple[str, ...], *, evaluate: bool, final: bool) -> Round:
        """Write a round down; what to announce, in the context of the round before, which most devices have."""
        votes = self[number]
        remainder = dithered.encode_remainder(self.scores(number).remainder) if self._training.dither else None
        self._store.open_round(self._run, number, selected, mask.encode_votes(votes, self._ticket.ends), remainder)
        base, coded = self._shortest(votes, number - 1)
        return Round(
            run=self._run,
            number=number,
            selected=selected,
            evaluate=evaluate,
            final=final,
            votes=coded,
            base=base,
            digest=votes.digest,
        )

    def catch_up(self, missed: Missed) -> CatchUp:
        """The newest votes for a device that has older ones.

        Raises:
            WireError: if nothing was announced in that run.
        """
        newest = self._store.newest_round(self._run)
        if missed.run != self._run or newest is None:
            raise WireError(f"votes of round {missed.number} of run {missed.run.hex()} were never announced")
        votes = self[newest.number]
        base, coded = self._shortest(votes, missed.have if missed.have < newest.number else 0)
        return CatchUp(run=self._run, number=newest.number, votes=coded, base=base, digest=votes.digest)

    def _shortest(self, votes: Votes, have: int) -> tuple[int, bytes]:
        """Votes in the context of those of round `have`, or of none (0) where that is shorter or there are none."""
        coded = {0: mask.encode_votes(votes, self._ticket.ends)}
        if have and self._store.round(self._run, have) is not None:
            coded[have] = mask.encode_votes(votes, self._ticket.ends, self[have])
        base = min(coded, key=lambda number: (len(coded[number]), number))
        return base, coded[base]
