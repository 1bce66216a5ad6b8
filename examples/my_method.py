"""A method of your own: FedAvg whose devices send their weights rounded to 16 bits.

    PYTHONPATH=examples hidenseek simulate --data har --method my_method:HalfFedAvg --rounds 5
    PYTHONPATH=examples hidenseek simulate --data har --method my_method:HalfFedAvg --rounds 5 --set difference=true

A method says what the coordinator holds (`start`), what goes down (`announce`), what a device does with it
and what it sends (`train`), and how that is put together (`aggregate`); `model` and `logits` are for its
accuracy. The simulator does the rest: data, selection, messages, byte counts, evaluation, taking up a run
that was stopped. Everything a method needs is handed to it, so that the same seed gives the same bytes:
take random numbers from `seed`, keep what a device must remember in `Local.memory`, and nothing in `self`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from coordinator.baselines.blobs import floats, read_floats
from coordinator.baselines.dense import Dense, sgd, weighted_mean
from coordinator.baselines.method import Floats, Local, Method, Samples, Settings, State, Task, Update
from wire.errors import Mismatch


@dataclass(frozen=True, kw_only=True)
class HalfSettings(Settings):
    """What `--set` can change, besides epochs, batch and learning_rate.

    Attributes:
        difference: send the difference to the global weights, which is smaller and so rounded less.
    """

    difference: bool = False


class HalfFedAvg(Method[HalfSettings]):
    """All weights down in 32 bits, all weights up in 16."""

    Config: ClassVar[type[Settings]] = HalfSettings

    def __init__(self, task: Task, settings: HalfSettings) -> None:
        super().__init__(task, settings)
        self.net = Dense(task.plan)  # weights as one flat array, and ordinary training of them

    # The coordinator.

    def start(self) -> State:
        """Random weights, the same ones that HideNseek prunes with this seed."""
        return {"weights": self.net.initial(self.task.seed)}

    def announce(self, state: State, device: str | None) -> bytes:
        """The same for every device: all weights."""
        return floats(state["weights"])

    def aggregate(self, state: State, updates: Sequence[Update]) -> State:
        """Mean of what came up, weighted by the devices' numbers of samples."""
        sent = [read_halves(update.payload, self.net.size) for update in updates]
        mean = weighted_mean(sent, [update.samples for update in updates])
        return {"weights": state["weights"] + mean if self.settings.difference else mean}

    # A device.

    def train(self, down: bytes, samples: Samples, memory: State, seed: int) -> Local:
        """Epochs of SGD from the global weights; the outcome, rounded."""
        start = self.model(down)
        layers = self.net.layers(start)
        loss = self.net.fit(layers, samples, settings=self.settings, optimiser=sgd(self.settings), seed=seed)
        trained = self.net.flat(layers)
        up = halves(trained - start if self.settings.difference else trained)
        return Local(up=up, memory={}, model=trained, loss=loss)

    # Evaluation.

    def model(self, down: bytes) -> Floats:
        """The global weights."""
        return read_floats(down, self.net.size)

    def logits(self, model: Floats, x: Floats) -> Floats:
        """Run the network."""
        return self.net.logits(model, x)


def halves(values: Floats) -> bytes:
    """float32 (n,) -> 2n bytes; what is too large for float16 becomes its largest number."""
    largest = np.finfo(np.float16).max
    return values.clip(-largest, largest).astype("<f2").tobytes()


def read_halves(data: bytes, n: int) -> Floats:
    """Inverse of `halves`, float32 (n,); bytes of another length are refused, for they come from a network."""
    if len(data) != 2 * n:
        raise Mismatch("float16 array", expected=f"{2 * n} bytes", got=f"{len(data)} bytes")
    return np.frombuffer(data, dtype="<f2").astype(np.float32)
