"""Who says hello, who comes and goes, and who is sent away: `coordinator.fleet` with a database and a voice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from coordinator.fleet import Fleet
from coordinator.observer import Observer
from coordinator.outbox import Outbox
from coordinator.rounds import Appeared, Vanished
from coordinator.store import Store
from wire.federation_messages import Hello, Refusal, State, Welcome
from wire.topics import Topics

REVOCATIONS_S = 1.0  # how often the database is asked for them
NOBODY: Mapping[str, bytes] = {}


@dataclass
class Presence:
    """The fleet's comings and goings.

    Args:
        fleet: who may join, and who is there.
        outbox: where it is written down and answered.
        topics: of the federation.
        observer: told of them.
        enrolled: keys of devices that have claimed their accounts, as they are now.
    """

    fleet: Fleet
    outbox: Outbox[Store]
    topics: Topics
    observer: Observer
    enrolled: Callable[[], Mapping[str, bytes]] = lambda: NOBODY
    _asked_s: float = 0.0
    _replaced: list[str] = field(default_factory=list)  # enrolled with another key; not said yet

    def __post_init__(self) -> None:
        store = self.outbox.store
        self.fleet.revoke(store.revoked())
        for device, hello in store.devices().items():
            self.fleet.remember(device, hello)
        self.fleet.enrol(self.enrolled())

    def hello(self, device: str, hello: Hello) -> Appeared | None:
        """Let a device in, or refuse it or its double; None if it is not online now.

        Raises:
            WireError: as `Fleet.hello`.
        """
        store = self.outbox.store
        if not store.knows(device):  # never seen, or a person has had it forgotten
            self.fleet.forget(device)
        if device in self.fleet.revoked and not store.is_revoked(device):  # restored since the database was last asked
            self.fleet.restore(device)
        self._replaced += self.fleet.enrol(self.enrolled())
        answer = self.fleet.hello(device, hello)
        if isinstance(answer, Welcome):
            store.save_device(device, hello)
            self.outbox.send(self.topics.down(device), answer)
            self.observer.device(device, True, self.fleet)
            return Appeared(device=device)
        for refusal in answer:
            self.outbox.send(self.topics.down(device), refusal)
            self.observer.refused(self.topics.up(device, "hello"), refusal.code)
            self.observer.remark(f"refused {device}: {refusal.reason}")
        return None

    def state(self, device: str, state: State) -> Appeared | Vanished | None:
        """A device says that it is on- or offline; None if that is no news."""
        changed = self.fleet.state(device, state)
        if changed is None:
            return None
        self.observer.device(device, changed, self.fleet)
        return Appeared(device=device) if changed else Vanished(device=device)

    def heed_changes(self, now_s: float) -> Iterator[Vanished]:
        """Ask, once a second (any monotonic clock), who was revoked, and told so, or has enrolled with another key."""
        if now_s - self._asked_s < REVOCATIONS_S:
            return
        self._asked_s = now_s
        replaced, self._replaced = [*self._replaced, *self.fleet.enrol(self.enrolled())], []
        for device in replaced:
            self.observer.remark(f"{device} has enrolled with another key; who had the id before is out")
            if device not in self.fleet.online:
                self.observer.device(device, False, self.fleet)
                yield Vanished(device=device)
        for device in self.fleet.revoke(self.outbox.store.revoked()):
            self.observer.revoked(device)
            self.observer.remark(f"{device} is revoked: it takes part no more")
            member = self.fleet.members.get(device)
            if member is None:
                continue
            refusal = Refusal(instance=member.hello.instance, code="revoked", reason=f"'{device}' was revoked")
            self.outbox.send(self.topics.down(device), refusal)
            self.observer.device(device, False, self.fleet)
            yield Vanished(device=device)
