"""FedAvg (McMahan et al. 2017, arXiv 1602.05629, algorithm 1): all weights down, all weights up, their mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from coordinator.baselines.blobs import floats, read_floats
from coordinator.baselines.dense import Dense, sgd, weighted_mean
from coordinator.baselines.method import Floats, Local, Method, Samples, Settings, State, Task, Update


@dataclass(frozen=True, kw_only=True)
class FedAvgSettings(Settings):
    """Local SGD.

    Attributes:
        momentum: of local SGD; starts from zero every round.
    """

    learning_rate: float = 0.01
    momentum: float = 0.9


class FedAvg(Method[FedAvgSettings]):
    """Weights as they are."""

    Config: ClassVar[type[Settings]] = FedAvgSettings

    def __init__(self, task: Task, settings: FedAvgSettings) -> None:
        super().__init__(task, settings)
        self.net = Dense(task.plan)

    def start(self) -> State:
        """Random weights."""
        return {"weights": self.net.initial(self.task.seed)}

    def announce(self, state: State, device: str | None) -> bytes:
        """All weights."""
        return floats(state["weights"])

    def train(self, down: bytes, samples: Samples, memory: State, seed: int) -> Local:
        """Epochs of SGD from the global weights."""
        layers = self.net.layers(self.model(down))
        optimiser = sgd(self.settings, self.settings.momentum)
        loss = self.net.fit(layers, samples, settings=self.settings, optimiser=optimiser, seed=seed)
        weights = self.net.flat(layers)
        return Local(up=floats(weights), memory={}, model=weights, loss=loss)

    def aggregate(self, state: State, updates: Sequence[Update]) -> State:
        """Mean, weighted by samples."""
        weights = [read_floats(update.payload, self.net.size) for update in updates]
        return {"weights": weighted_mean(weights, [update.samples for update in updates])}

    def model(self, down: bytes) -> Floats:
        """The weights."""
        return read_floats(down, self.net.size)

    def logits(self, model: Floats, x: Floats) -> Floats:
        """Run the network."""
        return self.net.logits(model, x)
