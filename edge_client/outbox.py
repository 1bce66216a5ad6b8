"""Telemetry that waits to be sent: after the masks, seldom, a few rounds at once, not for ever. No I/O, no clock."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from wire.telemetry import RoundTelemetry

EVERY_S = 2.0  # well below what a coordinator listens to
MOST_ROUNDS = 5  # of as many values as a coordinator reads in one message
MOST_LAYERS = 128


@dataclass
class Outbox:
    """Rounds of one run that are still to be told of; the oldest is forgotten when there are too many."""

    _waiting: list[RoundTelemetry] = field(default_factory=list)
    _sent_s: float | None = None

    def add(self, spent: RoundTelemetry) -> None:
        """Keep a round; the times of layers only of the newest, for they hardly change."""
        older = [replace(one, forward_us=(), backward_us=()) for one in self._waiting]
        if len(spent.forward_us) > MOST_LAYERS:
            spent = replace(spent, forward_us=(), backward_us=())
        self._waiting = [*older, spent][-MOST_ROUNDS:]

    def take(self, now_s: float, *, last: bool = False) -> tuple[RoundTelemetry, ...]:
        """What is to be sent now; the `last` of a run at once."""
        if not self._waiting or (self._sent_s is not None and now_s - self._sent_s < EVERY_S and not last):
            return ()
        taken, self._waiting, self._sent_s = tuple(self._waiting), [], now_s
        return taken

    def clear(self) -> None:
        """Forget what waits: it is of a run that is over."""
        self._waiting = []
