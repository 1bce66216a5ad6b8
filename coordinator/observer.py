"""Whoever watches a run: a terminal, a log, metrics, Home Assistant, a test."""

from __future__ import annotations

from coordinator.fleet import Fleet
from coordinator.rounds import Schedule
from wire.federation_messages import Evaluation, MaskUpdate, Telemetry


class Observer:
    """Told what happens in a run, on the coordinator's thread; does nothing about any of it unless told to."""

    def device(self, name: str, online: bool, fleet: Fleet) -> None:
        """A device came or went."""

    def revoked(self, name: str) -> None:
        """A person has a device take part no more."""

    def announced(self, number: int, selected: tuple[str, ...]) -> None:
        """A round opened, or asked more devices; where it asks everyone, those that are online."""

    def mask(self, name: str, update: MaskUpdate, payload_bytes: int) -> None:
        """A mask was stored, to be counted in round `update.number`."""

    def evaluation(self, name: str, evaluation: Evaluation) -> None:
        """A device tried the announced network."""

    def telemetry(self, name: str, telemetry: Telemetry) -> None:
        """A device said what its last rounds cost it."""

    def refused(self, topic: str, reason: str) -> None:
        """What came on a topic is not accepted: every time, not only when it is worth a remark.

        Args:
            topic: as it came, so it may be no topic of ours.
            reason: one word of a few: a `Refusal`'s or a `WireError`'s code, or "too-fast".
        """

    def broker(self, connected: bool) -> None:
        """The connection to the broker stands, or is lost and being made again."""

    def closed(self, number: int, voters: int, held_out: float | None) -> None:
        """A round closed with this many votes; accuracy of its outcome on held-out samples."""

    def scheduled(self, schedule: Schedule) -> None:
        """A person has given the run other rules."""

    def remark(self, text: str) -> None:
        """Something a person should know."""

    def tick(self) -> None:
        """Time has passed: a few times a second."""


class Several(Observer):
    """An `Observer` that tells others, in order."""

    def __init__(self, *observers: Observer) -> None:
        self._each = observers

    def device(self, name: str, online: bool, fleet: Fleet) -> None:
        """See `Observer.device`."""
        for one in self._each:
            one.device(name, online, fleet)

    def revoked(self, name: str) -> None:
        """See `Observer.revoked`."""
        for one in self._each:
            one.revoked(name)

    def announced(self, number: int, selected: tuple[str, ...]) -> None:
        """See `Observer.announced`."""
        for one in self._each:
            one.announced(number, selected)

    def mask(self, name: str, update: MaskUpdate, payload_bytes: int) -> None:
        """See `Observer.mask`."""
        for one in self._each:
            one.mask(name, update, payload_bytes)

    def evaluation(self, name: str, evaluation: Evaluation) -> None:
        """See `Observer.evaluation`."""
        for one in self._each:
            one.evaluation(name, evaluation)

    def telemetry(self, name: str, telemetry: Telemetry) -> None:
        """See `Observer.telemetry`."""
        for one in self._each:
            one.telemetry(name, telemetry)

    def refused(self, topic: str, reason: str) -> None:
        """See `Observer.refused`."""
        for one in self._each:
            one.refused(topic, reason)

    def broker(self, connected: bool) -> None:
        """See `Observer.broker`."""
        for one in self._each:
            one.broker(connected)

    def closed(self, number: int, voters: int, held_out: float | None) -> None:
        """See `Observer.closed`."""
        for one in self._each:
            one.closed(number, voters, held_out)

    def scheduled(self, schedule: Schedule) -> None:
        """See `Observer.scheduled`."""
        for one in self._each:
            one.scheduled(schedule)

    def remark(self, text: str) -> None:
        """See `Observer.remark`."""
        for one in self._each:
            one.remark(text)

    def tick(self) -> None:
        """See `Observer.tick`."""
        for one in self._each:
            one.tick()
