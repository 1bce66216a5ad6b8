"""No federation: every device trains its own network when it is its turn, and nothing is sent."""

from __future__ import annotations

from collections.abc import Sequence

from coordinator.baselines.dense import sgd
from coordinator.baselines.fedavg import FedAvg
from coordinator.baselines.method import Local, Samples, State, Update


class LocalOnly(FedAvg):
    """FedAvg's training without its exchange; all start from the same random weights."""

    has_global = False

    def start(self) -> State:
        """Nothing."""
        return {}

    def announce(self, state: State, device: str | None) -> bytes:
        """Nothing."""
        return b""

    def train(self, down: bytes, samples: Samples, memory: State, seed: int) -> Local:
        """Go on where this device stopped."""
        layers = self.net.layers(memory.get("weights", self.net.initial(self.task.seed)))
        optimiser = sgd(self.settings, self.settings.momentum)
        loss = self.net.fit(layers, samples, settings=self.settings, optimiser=optimiser, seed=seed)
        weights = self.net.flat(layers)
        return Local(up=b"", memory={"weights": weights}, model=weights, loss=loss)

    def aggregate(self, state: State, updates: Sequence[Update]) -> State:
        """Nothing."""
        return state
