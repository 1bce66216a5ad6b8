"""What is said, and acknowledged, only when all that it follows from is on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from coordinator.database import Database
from wire.channel import Channel, Happening
from wire.messages import Message
from wire.transport import Event, monotonic_s

BATCH = 500  # messages that are committed together at most,
BATCH_S = 0.1  # and for so long they are collected while there are more

StoreT = TypeVar("StoreT", bound=Database)
Thing = TypeVar("Thing")


@dataclass
class Outbox(Generic[StoreT]):
    """A channel whose messages wait for the database.

    Kill the process at any point and nothing has been said that the database does not know: what it does know and
    has not been said, a restarted process finds there, or is asked for again.

    Args:
        channel: a connected one.
        store: the database.
    """

    channel: Channel
    store: StoreT
    _waiting: list[Callable[[], object]] = field(default_factory=list)

    def send(self, topic: str, message: Message, *, retain: bool = False) -> int:
        """Publish a message at the end of this batch; its payload bytes with parts' headers."""
        packets = self.channel.pack(topic, message)
        self.then(lambda: self.channel.post(packets, retain=retain))
        return sum(len(payload) for _, payload in packets)

    def then(self, effect: Callable[[], object]) -> None:
        """Do something else at the end of this batch, in order."""
        self._waiting.append(effect)

    def arriving(self, timeout_s: float) -> Iterator[Happening]:
        """What the channel has for one batch, one after the other; waits for the first only."""
        return _batch(self.channel.receive, timeout_s)

    def events(self, timeout_s: float) -> Iterator[Event]:
        """As `arriving`, packets as they came."""
        return _batch(self.channel.transport.receive, timeout_s)

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Commit all that is written inside at once; then say what was to be said.

        Raises:
            StateError: as `Store.together`; then nothing is written and nothing said.
        """
        try:
            with self.store.together():
                yield
            for effect in self._waiting:
                effect()
        finally:
            self._waiting = []


def _batch(receive: Callable[[float], Thing | None], timeout_s: float) -> Iterator[Thing]:
    arrived, began_s = receive(timeout_s), monotonic_s()
    for count in range(1, BATCH + 1):
        if arrived is None:
            return
        yield arrived
        if count == BATCH or monotonic_s() - began_s > BATCH_S:
            return
        arrived = receive(0)
