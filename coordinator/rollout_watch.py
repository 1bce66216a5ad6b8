"""A roll-out carried through: devices' presence from the broker, what they run from the coordinator's database."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from coordinator.offers import announce, issued_now
from coordinator.rollout import Rollout, Standing, name_of
from coordinator.store import Store
from wire.channel import Channel, Received
from wire.errors import UpdateStopped, WireError
from wire.federation_messages import Hello, State
from wire.messages import Message
from wire.topics import Topics
from wire.update import Update

LOOK_S = 1.0
SETTLE_S = 5.0  # retained presence comes at once, hellos of devices that were restarted soon


@dataclass
class Watch:
    """Looks on while devices follow, and goes on to the next stage, or stops.

    Args:
        rollout: what is rolled out; its first stage is announced.
        channel: a connected one, of the coordinator's account, signing with the federation's key.
        topics: of the federation.
        store: the coordinator's database.
        tell: told what happens, for a person.
    """

    rollout: Rollout
    channel: Channel
    topics: Topics
    store: Store
    tell: Callable[[str], None]
    _online: set[str] = field(default_factory=set)
    _known: dict[str, Hello] = field(default_factory=dict)  # as the database was last asked
    _told: dict[str, str] = field(default_factory=dict)

    def run(self) -> Standing:
        """Until every stage is over.

        Raises:
            UpdateStopped: if too many devices have failed; nobody begins any more then.
        """
        self._software()
        self.channel.trust = self._key
        self.channel.subscribe(self.topics.every("state"))
        self._say_stage()
        while True:
            self._listen(LOOK_S)
            now_s = time.monotonic()
            now = self.rollout.look(self._software(), frozenset(self._online), now_s)
            self._say(now)
            if self.rollout.is_to_stop(now):
                announce(self.channel, self.topics, self.rollout.stopped(issued_now()))
                raise UpdateStopped(
                    f"{self._name} has failed on {', '.join(sorted(now.failed))}, and works on {len(now.done)} "
                    "devices: it is offered to nobody any more",
                    hint=self._hint(),
                )
            if not self.rollout.is_over(now) or now_s - self.rollout.began_s < SETTLE_S:
                continue
            announced = self.rollout.next_stage(issued_now(), now_s)
            if announced is None:
                return now
            announce(self.channel, self.topics, announced)
            self._say_stage()

    def _listen(self, seconds: float) -> None:
        until_s = time.monotonic() + seconds
        while (left_s := until_s - time.monotonic()) > 0:
            match self.channel.receive(left_s):
                case Received(message=State() as state) as received:
                    received.acknowledge()
                    (self._online.add if state.online else self._online.discard)(self.topics.sender(received.topic))
                case _:
                    pass

    def _software(self) -> dict[str, str]:
        self._known, revoked = self.store.devices(), self.store.revoked()
        return {name: hello.software for name, hello in self._known.items() if name not in revoked}

    def _key(self, topic: str, message: Message) -> bytes:
        hello = self._known.get(self.topics.sender(topic))
        if hello is None:
            raise WireError("of a device that was never seen")
        return hello.key

    def _say_stage(self) -> None:
        share = self.rollout.stages[self.rollout.stage]
        self.tell(f"{self._name} is offered to {share:g} % of the devices")

    @property
    def _name(self) -> str:
        return name_of(self.rollout.offered)

    def _hint(self) -> str:
        why = "journalctl -u hidenseek on a device says why"
        return f"{why}; a mended client needs another version" if isinstance(self.rollout.offered, Update) else why

    def _say(self, now: Standing) -> None:
        """What is new since the last time."""
        name = self._name
        for names, words in (
            (now.waiting, f"is to get {name}"),
            (now.done, f"has {name}, and it works"),
            (now.failed - self.rollout.lost, f"has tried {name} in vain"),
            (self.rollout.lost, f"has not come back with {name} in {self.rollout.wait_s / 60:g} minutes"),
        ):
            for device in sorted(names):
                if self._told.get(device) != words:
                    self._told[device] = words
                    self.tell(f"{device} {words}")
