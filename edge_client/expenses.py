"""What every round has cost this device, from its training to the bytes it took, until the coordinator is told."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from edge_client import readings
from edge_client.outbox import Outbox
from wire.channel import Channel
from wire.telemetry import RoundTelemetry


@dataclass
class Expenses:
    """Of one device.

    Args:
        channel: counts the bytes sent and received.
    """

    channel: Channel
    _outbox: Outbox = field(default_factory=Outbox)
    _spent: RoundTelemetry | None = None  # of the round whose mask is about to be sent
    _told: tuple[int, int, int | None] = (0, 0, None)  # bytes sent, received and written that are told already

    def trained(self, spent: RoundTelemetry | None) -> None:
        """Training for a round has cost that, as far as it was measured."""
        self._spent = spent

    def sending(self, number: int) -> None:
        """Put down what the round has cost whose mask is about to be sent, if that was not done before."""
        spent, self._spent = self._spent, None
        if spent is None or spent.number != number:
            return
        sent, received, written = self._told
        now_written = readings.written_bytes()
        self._told = (self.channel.sent_bytes, self.channel.received_bytes, now_written)
        self._outbox.add(
            replace(
                spent,
                sent_bytes=self.channel.sent_bytes - sent,
                received_bytes=self.channel.received_bytes - received,
                written_bytes=None if now_written is None else now_written - (written or 0),
            )
        )

    def due(self, now_s: float, *, last: bool) -> tuple[RoundTelemetry, ...]:
        """What is to be told now; the `last` of a run at once."""
        return self._outbox.take(now_s, last=last)

    def clear(self) -> None:
        """Forget what waits: it is of a run that is over."""
        self._outbox.clear()
