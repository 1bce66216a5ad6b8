"""Carries out what `coordinator.modes` decides: announce a round, count it, tell a device, end."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from itertools import groupby

from coordinator import rounds
from coordinator.announced import Announced
from coordinator.announcing import Announcer
from coordinator.evaluate import Evaluator
from coordinator.fleet import Fleet
from coordinator.modes import Mode
from coordinator.observer import Observer
from coordinator.outbox import Outbox
from coordinator.progress import Progress
from coordinator.rounds import Action
from coordinator.store import Store
from coordinator.workforce import Workforce
from wire.federation_messages import EVERYONE, Receipt
from wire.topics import Topics
from wire.transport import monotonic_s


@dataclass(frozen=True, kw_only=True)
class Executor:
    """Carries out the actions of one run.

    Attributes:
        progress: noted here: the result, or why there is none.
        mode: counts the masks of a round.
        announced: votes by round.
        announcer: speaks to all devices.
        workforce: the workers, if there are any.
        outbox: where it is written down and sent.
        fleet: the devices.
        topics: of the federation.
        observer: told of it.
        evaluator: held-out samples, if there are any.
    """

    progress: Progress
    mode: Mode
    announced: Announced
    announcer: Announcer
    workforce: Workforce | None
    outbox: Outbox[Store]
    fleet: Fleet
    topics: Topics
    observer: Observer
    evaluator: Evaluator | None

    def apply(self, actions: list[Action]) -> None:
        """Carry out actions; those between two counts, which take long, are committed together.

        Raises:
            StateError: if the database cannot be written.
        """
        for counting, some in groupby(actions, lambda action: isinstance(action, rounds.Close)):
            with nullcontext() if counting else self.outbox.batch():
                for action in some:
                    self._do(action)

    def _do(self, action: Action) -> None:
        match action:
            case rounds.Announce():
                self.open(action.number, action.selected)
            case rounds.Close():
                self._close(action.number)
            case rounds.Finish():
                self.finish(self.announcer.federation.rounds + 1)
            case rounds.GiveUp():
                self.progress.failure = action.error
            case rounds.Remark():
                self.observer.remark(action.text)
            case rounds.Tell():
                sent = self.outbox.send(self.topics.down(action.device), action.message)
                if not isinstance(action.message, Receipt):  # which a mask's own row counts
                    self.outbox.store.add_told(self.announcer.federation.run, action.number, action.device, sent)

    def open(self, number: int, selected: tuple[str, ...]) -> None:
        """Announce a round, or again, within a batch of the outbox; without devices the result."""
        if self.workforce is not None:
            self.workforce.open(number, selected)
        self.announcer.open(number, selected)
        asked = tuple(sorted(self.fleet.online)) if EVERYONE in selected else selected
        self.outbox.then(lambda: self.observer.announced(number, asked))

    def finish(self, number: int) -> None:
        """Announce the result, as if a round of this number were, within a batch of the outbox."""
        self.open(number, ())
        self.progress.result, self.progress.finished_s = number, monotonic_s()
        # All that are known: right after a restart nobody is online again, and the broker may be ours.
        self.progress.unheard = set(self.fleet.members) - self.fleet.revoked

    def _close(self, number: int) -> None:
        run, store = self.announcer.federation.run, self.outbox.store
        store.close_round(run, number)
        outcome = self.mode.close(number)
        self.announced.put(number + 1, outcome.votes, outcome.remainder)
        for remark in outcome.remarks:
            self.observer.remark(remark)
        accuracy = None
        if self.evaluator is not None:
            correct = self.evaluator.count_correct(outcome.votes.mean)
            store.add_held_out(run, number, correct, self.evaluator.y.size)
            accuracy = correct / self.evaluator.y.size
        self.observer.closed(number, outcome.voters, accuracy)
