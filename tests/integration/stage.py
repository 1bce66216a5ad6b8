"""A real coordinator on a bus in memory, with devices that say what a test has them say: no training, no threads.

Everything happens inside the coordinator's own calls of the bus: what is announced is answered before it goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from coordinator.aggregate import next_votes
from coordinator.federation import DATABASE, Federation, prepare
from coordinator.keys import federation_key
from coordinator.observer import Observer
from coordinator.place import Place
from coordinator.rounds import Schedule
from coordinator.store import Store
from tests.helpers import TINY_TICKET, introduce
from tests.integration.test_memory_federation import Watcher, summary_run
from wire import mask, messages, signing
from wire.channel import Channel, seal
from wire.federation_messages import Hello, MaskUpdate, Round
from wire.mask import Signs, Votes
from wire.messages import Message
from wire.selection import asked
from wire.settings import Training
from wire.transport import MemoryBus

HONEST = ("pi-1", "pi-2", "pi-3")
TICKET = TINY_TICKET
MAX_BYTES = TICKET.kept // 8 + 64 * 1024  # as `coordinator.federation.connect` says
HEADER = b"HN" + bytes([messages.VERSION, 8])  # of a mask


def key_of(device: str) -> bytes:
    """A device's private key."""
    return device.encode().ljust(32, b".")


@dataclass
class Stage:
    """A federation of three honest devices, and whoever else a test lets speak.

    Args:
        folder: for the database.
        acts: what happens when a round is announced, before the honest devices send their masks.
        rounds: how many there are.
        deadline_s: of a round.
        workers: others may take masks (`coordinator.worker`).
        defend: hostile masks are looked for.
        observer: watches in the watcher's place.
        place: of the database, if it is not in the folder.
        before: called before anybody says hello, once the coordinator listens.
    """

    folder: Path
    acts: dict[int, Callable[[Stage, Round], None]] = field(default_factory=dict)
    rounds: int = 2
    deadline_s: float = 60.0
    observer: Observer | None = None
    workers: bool = False
    defend: bool = False
    before: Callable[[Stage], None] = lambda stage: None
    place: Place | None = None
    watcher: Watcher = field(default_factory=Watcher)
    keys: dict[str, bytes] = field(default_factory=dict)  # of devices that have others than `key_of` says
    bus: MemoryBus = field(default_factory=MemoryBus)
    sent: dict[str, bytes] = field(default_factory=dict)  # by topic and round, what honest devices said
    told: list[tuple[str, Message]] = field(default_factory=list)  # by the coordinator
    masks: dict[int, dict[str, Signs]] = field(default_factory=dict)  # that honest devices sent
    votes: dict[int, Votes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.store = Store(self.place or self.folder / DATABASE)
        federation = Federation(
            name="t",
            ticket=TICKET,
            training=Training(epochs=1),
            schedule=Schedule(
                rounds=self.rounds, per_round=3, quorum=2, deadline_s=self.deadline_s, start_devices=3, attempts=3
            ),
            runtimes=("sparse",),
            evaluate=False,
            defend=self.defend,
            workers=self.workers,
        )
        self.memory = federation.memory
        self.coordinator = prepare(
            federation,
            store=self.store,
            channel=Channel(self.bus.connect(), federation_key(), max_bytes=MAX_BYTES),
            observer=self.observer or self.watcher,
        )
        self.run_id = summary_run(self.store)
        self._deliver = self.bus.deliver
        self.bus.deliver = self._spy  # type: ignore[method-assign]

    def play(self) -> Votes:
        """Run all rounds; the last votes."""
        return self.coordinator.serve()

    def say(self, device: str, kind: str, message: Message, *, key: bytes | None = None) -> bytes:
        """Say something on a device's topic, signed with its key or another; the packet."""
        topic = f"hns/t/up/{device}/{kind}"
        packet = seal(key or self.keys.get(device) or key_of(device), topic, message)
        self.put(topic, packet)
        return packet

    def put(self, topic: str, packet: bytes) -> None:
        """Put bytes on a topic."""
        self._deliver(topic, packet, False)

    def put_signed(self, device: str, body: bytes) -> None:
        """Put any bytes on a device's topic for masks, with its signature."""
        topic = f"hns/t/up/{device}/mask"
        self.put(topic, body + signing.sign(key_of(device), "message", topic.encode() + b"\0" + body))

    def hello(self, device: str, **more: object) -> Hello:
        """A device's hello."""
        return introduce(device, "sparse", self.keys.get(device) or key_of(device), **more)

    def mask(self, device: str, number: int, **other: object) -> MaskUpdate:
        """The mask that a device ends a round with."""
        votes = self.votes[number]
        flips = np.random.default_rng([number, *device.encode()]).random(TICKET.kept) < 0.2
        update = MaskUpdate(
            run=self.run_id,
            number=number,
            signs=mask.encode_signs(votes.signs ^ flips, votes, TICKET.ends),
            train_samples=72,
            loss=1.0,
            correct=6,
            test_samples=24,
            train_s=1.0,
            step_ms=1.0,
            peak_memory_kb=1000,
        )
        return replace(update, **other)  # type: ignore[arg-type]

    def expected(self) -> Votes:
        """What the honest masks come to."""
        votes = mask.unanimous(TICKET.kept)
        for _, masks in sorted(self.masks.items()):
            votes = next_votes(votes, (masks[name] for name in sorted(masks)), self.memory)
        return votes

    def counted(self, number: int) -> list[str]:
        """Whose masks were counted in a round."""
        return sorted(name for name in self.store.masks(self.run_id, number))

    def _spy(self, topic: str, payload: bytes, retain: bool) -> None:
        self._deliver(topic, payload, retain)
        if "/up/" in topic:
            return
        message = messages.decode(payload[: -signing.SIGNATURE_BYTES])
        self.told.append((topic, message))
        if topic.endswith("/all/federation"):
            self.before(self)
            for device in HONEST:
                self.sent[f"{device} hello"] = self.say(device, "hello", self.hello(device))
        elif isinstance(message, Round) and not message.final:
            self._answer(message)

    def _answer(self, announced: Round) -> None:
        number = announced.number
        if number in self.votes:
            return  # announced again
        known = self.votes[announced.base] if announced.base else None
        self.votes[number] = mask.decode_votes(announced.votes, TICKET.ends, known)
        self.acts.get(number, lambda stage, opened: None)(self, announced)
        for device in sorted(device for device in HONEST if asked(announced, device)):
            update = self.mask(device, number)
            self.masks.setdefault(number, {})[device] = mask.decode_signs(update.signs, self.votes[number], TICKET.ends)
            self.sent[f"{device} mask {number}"] = self.say(device, "mask", update)
