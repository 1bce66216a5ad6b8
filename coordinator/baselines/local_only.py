"""No federation: every device trains its own network when it is its turn, and nothing is sent."""

from __future__ import annotations

from collections.abc import Sequence

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
        start = memory["weights"] if memory else self.net.initial(self.task.seed)
        weights, loss = self.sgd_from(start, samples, seed)
        return Local(up=b"", memory={"weights": weights}, model=weights, loss=loss)

    def aggregate(self, state: State, updates: Sequence[Update]) -> State:
        """Nothing."""
        return state
