"""FedAvg (McMahan et al. 2017, arXiv 1602.05629, algorithm 1): all weights down, all weights up, their mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from coordinator.baselines.blobs import floats, read_floats
from coordinator.baselines.dense import weighted_mean
from coordinator.baselines.dense_method import SGDMethod, SGDSettings
from coordinator.baselines.method import Floats, Local, Samples, Settings, State, Update


class FedAvg(SGDMethod[SGDSettings]):
    """Weights as they are."""

    Config: ClassVar[type[Settings]] = SGDSettings

    def start(self) -> State:
        """Random weights."""
        return {"weights": self.net.initial(self.task.seed)}

    def announce(self, state: State, device: str | None) -> bytes:
        """All weights."""
        return floats(state["weights"])

    def train(self, down: bytes, samples: Samples, memory: State, seed: int) -> Local:
        """Epochs of SGD from the global weights."""
        weights, loss = self.sgd_from(self.model(down), samples, seed)
        return Local(up=floats(weights), memory={}, model=weights, loss=loss)

    def aggregate(self, state: State, updates: Sequence[Update]) -> State:
        """Mean, weighted by samples."""
        weights = [read_floats(update.payload, self.net.size) for update in updates]
        return {"weights": weighted_mean(weights, [update.samples for update in updates])}

    def model(self, down: bytes) -> Floats:
        """The weights."""
        return read_floats(down, self.net.size)
