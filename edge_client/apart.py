"""A device's work in a process of its own, which ends when nothing is asked of it: then its memory is given back.

numpy and the runtime are loaded in there only. Who waits for a round takes half of what training takes, before
the first one and after every other.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_client.child import FAILED, TRAINED, Child
from edge_client.events import VotesTaken, VotesUnusable
from edge_client.work import Finished
from wire.federation_messages import CatchUp, Evaluation, Federation, Round
from wire.settings import Training

if TYPE_CHECKING:
    from edge_client.workshop import Workshop

LINGER_S = 30.0  # starting anew took 0.5 s on a PC at load 14, and takes a board some seconds
PAUSE_S = 0.05
LISTEN_S = 1.0


@dataclass
class Apart:
    """See `edge_client.work.Work`.

    Args:
        make: makes the workshop, in the other process.
        alive: called again and again while this one waits for an answer.
        linger_s: how long the other process is kept while nothing is asked of it.
    """

    make: Callable[[], Workshop]
    alive: Callable[[], None] = lambda: None
    linger_s: float = LINGER_S
    training: bool = False
    _child: Child | None = None
    _opened: tuple[Path, bytes, Federation] | None = None
    _votes: bytes | None = None  # of the workshop that has ended
    _trained: Finished | BaseException | None = None  # what training has come to
    _asked_s: float = 0.0

    @property
    def pause_s(self) -> float:
        """See `Work.pause_s`."""
        return PAUSE_S

    def counts(self) -> tuple[int, int]:
        """See `Work.counts`."""
        train, test = self._ask("counts")
        return train, test

    def open(self, path: Path, digest: bytes, federation: Federation) -> None:
        """See `Work.open`."""
        self._opened, self._votes, self.training, self._trained = None, None, False, None
        self._ask("open", path, digest, federation)
        self._opened = (path, digest, federation)

    def take_votes(self, announced: Round | CatchUp) -> VotesTaken | VotesUnusable:
        """See `Work.take_votes`."""
        found: VotesTaken | VotesUnusable = self._ask("take_votes", announced)
        return found

    def evaluate(self, announced: Round) -> Evaluation:
        """See `Work.evaluate`."""
        found: Evaluation = self._ask("evaluate", announced)
        return found

    def start(self, announced: Round) -> None:
        """See `Work.start`."""
        self._ask("start", announced)
        self.training, self._trained = True, None

    def stop(self) -> None:
        """See `Work.stop`."""
        if self.training:
            self._ask("stop")
            self.training, self._trained = False, None

    def step(self) -> Finished | None:
        """See `Work.step`: whether it is over."""
        assert self._child is not None
        if self._trained is None and self._child.has_spoken(0):
            self._trained = self._child.hear()[1]
        if self._trained is None:
            self._child.check()
            return None
        trained, self._trained, self.training = self._trained, None, False
        self._asked_s = time.monotonic()
        if isinstance(trained, BaseException):
            raise trained
        return trained

    def try_out(self) -> None:
        """See `Work.try_out`."""
        self._ask("try_out")

    def try_bundle(self, path: Path, digest: bytes, training: Training) -> None:
        """See `Work.try_bundle`."""
        self._ask("try_bundle", path, digest, training)

    def rest(self, now_s: float) -> None:
        """See `Work.rest`: the other process ends if it has rested long enough."""
        if self._child is not None and not self.training and now_s - self._asked_s >= self.linger_s:
            self._votes = self._ask("votes") if self._opened else None
            self._end()

    def close(self) -> None:
        """See `Work.close`."""
        self._end()

    def _ask(self, what: str, *arguments: object) -> Any:
        """What the other process answers; it is started if there is none.

        Raises:
            HidenseekError: whatever the work comes to.
            StateError: if the process ends without an answer, or gives none.
        """
        child = self._child if self._child is not None and not self._child.dead else self._start()
        child.ask(what, *arguments)
        while True:
            while not child.has_spoken(LISTEN_S):
                child.check()
                self.alive()
            said, value = child.hear()
            if said == TRAINED:  # meanwhile
                self._trained = value
                continue
            self._asked_s = time.monotonic()
            if said == FAILED:
                raise value
            return value

    def _start(self) -> Child:
        """Start it, with the network and the votes that the one before has had."""
        child = self._child = Child.fork(self.make)
        if self._opened is not None:
            self._ask("open", *self._opened)
            if self._votes is not None:
                self._ask("keep_votes", self._votes)
            self._votes = None
        return child

    def _end(self) -> None:
        if self._child is not None:
            self._child.end()
            self._child = None
