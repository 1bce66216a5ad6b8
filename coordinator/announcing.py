"""What everybody is told: the federation, its bundles, its rounds; and old votes, to whoever has missed some."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from coordinator.announced import Announced
from coordinator.draw import Draw
from coordinator.fleet import Fleet
from coordinator.outbox import Outbox
from coordinator.store import Store
from wire.bundle import Bundle
from wire.federation_messages import BundleBytes, Federation, Missed
from wire.topics import Topics


@dataclass(kw_only=True)
class Announcer:
    """Speaks to all devices of one run.

    Attributes:
        federation: how it introduces itself.
        bundles: what devices download, by runtime.
        announced: votes by round.
        outbox: where announcements are written down and sent.
        topics: of the federation.
        fleet: who hears it.
        draw: how devices are selected that are not named.
        evaluate: devices try the network of every round.
    """

    federation: Federation
    bundles: Mapping[str, Bundle]
    announced: Announced
    outbox: Outbox[Store]
    topics: Topics
    fleet: Fleet
    draw: Draw | None
    evaluate: bool

    def introduce(self) -> None:
        """Say what is being trained, every time: a broker may have been killed and have lost what it was to retain."""
        for runtime, bundle in self.bundles.items():
            self.outbox.send(self.topics.bundle(runtime), BundleBytes(data=bundle.encoded), retain=True)
        self.speak()

    def speak(self) -> None:
        """Say what is being trained, without what is downloaded for it."""
        self.outbox.send(self.topics.announcement, self.federation, retain=True)

    def amend(self, rounds: int) -> None:
        """There are to be so many rounds from now on; say so."""
        self.federation = replace(self.federation, rounds=rounds)
        self.speak()

    def open(self, number: int, selected: tuple[str, ...]) -> None:
        """Announce a round, or again; after the last one the result.

        Args:
            number: of the round.
            selected: devices that are asked; who can find that out by itself is not named. None of the result.
        """
        announcement = self.announced.open(number, selected, evaluate=self.evaluate, final=not selected)
        if self.draw is not None and selected:
            announcement = replace(
                announcement,
                selected=tuple(device for device in selected if not self.fleet.draws(device)),
                draw=self.draw.key(number),
                below=self.draw.below(number, selected),
            )
        sent = self.outbox.send(self.topics.round, announcement, retain=True)
        self.outbox.store.add_announced_bytes(self.federation.run, number, sent)

    def catch_up(self, device: str, missed: Missed) -> None:
        """Tell a device the newest votes in the context of those that it has, or in none if that is shorter.

        Raises:
            WireError: as `Announced.catch_up`.
        """
        self.outbox.send(self.topics.down(device), self.announced.catch_up(missed))
