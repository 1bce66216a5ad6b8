"""Devices and a coordinator that add masks up unseen, without any I/O: what tests and the benchmark play with."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace

import numpy as np

from coordinator import exchange as ex
from coordinator.exchange import Exchange, Phase
from coordinator.unmask import count
from edge_client import secure as edge
from edge_client.secure import Answer, Participant
from wire import mask, messages, signing
from wire.errors import WireError
from wire.federation_messages import MaskUpdate
from wire.mask import Signs
from wire.messages import Message

RUN = b"run-0001"


def seeded_bytes(seed: int) -> Callable[[int], bytes]:
    """Random bytes that are the same every time."""
    return np.random.default_rng(seed).bytes


def ballot_of(signs: Signs, number: int = 1, run: bytes = RUN) -> MaskUpdate:
    """A device's mask and figures, as it keeps them."""
    return MaskUpdate(
        run=run, number=number, signs=mask.ballot(signs), train_samples=9, loss=1.0, correct=3, test_samples=5,
        train_s=0.5, step_ms=0.5, peak_memory_kb=1,
    )  # fmt: skip


@dataclass
class Stage:
    """A round of so many devices.

    Args:
        masks: their signs, bool (devices, kept).
        seed: of all randomness.
        hide_among: of every device.
        know_each_other: devices count each other's keys only.
    """

    masks: Signs
    seed: int = 0
    hide_among: int = 0
    know_each_other: bool = False
    devices: dict[str, Participant] = field(default_factory=dict)
    sent: list[tuple[str, Answer]] = field(default_factory=list)
    told: list[tuple[str, Message]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = seeded_bytes(self.seed)
        for i in range(len(self.masks)):
            name = f"pi-{i:03}"
            self.devices[name] = Participant(name=name, key=self.random(32), hide_among=self.hide_among)
        if self.know_each_other:
            peers = frozenset(signing.public_key(device.key) for device in self.devices.values())
            self.devices = {name: replace(device, peers=peers) for name, device in self.devices.items()}
        self.exchange = Exchange(run=RUN, number=1, kept=self.masks.shape[1])

    def signs(self, device: str) -> Signs:
        """One device's."""
        return self.masks[list(self.devices).index(device)]

    def advertise(self, present: Collection[str] | None = None) -> None:
        """Devices have trained and make keys."""
        for name in self.devices if present is None else present:
            self.devices[name], answer = edge.vote(self.devices[name], ballot_of(self.signs(name)), self.random)
            self.take(name, answer)

    def go_on(self, present: Collection[str] | None = None) -> Phase:
        """Close the phase, and have those who are present answer what is asked of them next."""
        self.exchange = ex.decide(self.exchange)
        self.ask(present)
        return self.exchange.phase

    def ask(self, present: Collection[str] | None = None) -> None:
        """Ask those who are present, and take what they answer."""
        for name in self.devices if present is None else present:
            message = ex.ask(self.exchange, name)
            if message is not None:
                self.told.append((name, message))
                self.tell(name, message)

    def tell(self, name: str, message: Message) -> None:
        """One device hears something, and what it answers arrives."""
        self.devices[name], answer = edge.hear(self.devices[name], message, self.random)  # type: ignore[arg-type]
        self.take(name, answer)

    def take(self, name: str, answer: Answer | None) -> None:
        """What a device says arrives, as bytes."""
        assert answer is not None
        self.sent.append((name, answer))
        identity = signing.public_key(self.devices[name].key)
        self.exchange = ex.hear(self.exchange, name, identity, messages.decode(messages.encode(answer)))

    def count(self) -> np.ndarray | None:
        """The sum, if it can be made."""
        return count(self.exchange)

    def plain(self, devices: Collection[str]) -> np.ndarray:
        """The sum of these devices' signs as it should be."""
        return np.array([self.signs(name) for name in devices]).sum(axis=0)


def refusal(play: Callable[[], object]) -> str:
    """Why something was not accepted; "" if it was."""
    try:
        play()
    except WireError as error:
        return str(error)
    return ""
