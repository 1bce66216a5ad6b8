"""What the rivals have in common: a whole network, and SGD on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from coordinator.baselines.dense import Dense, sgd
from coordinator.baselines.method import Floats, Method, S, Samples, Settings, Task


class DenseMethod(Method[S]):
    """A method whose models are all weights of the network, one flat float32 array."""

    def __init__(self, task: Task, settings: S) -> None:
        super().__init__(task, settings)
        self.net = Dense(task.plan)

    def logits(self, model: Floats, x: Floats) -> Floats:
        """Run the network."""
        return self.net.logits(model, x)


@dataclass(frozen=True, kw_only=True)
class SGDSettings(Settings):
    """Local SGD.

    Attributes:
        momentum: starts from zero every round.
    """

    learning_rate: float = 0.01
    momentum: float = 0.9


T = TypeVar("T", bound=SGDSettings)


class SGDMethod(DenseMethod[T]):
    """A method whose devices train the weights themselves."""

    def sgd_from(self, start: Floats, samples: Samples, seed: int) -> tuple[Floats, float]:
        """The round's epochs of SGD; the trained weights, and the last epoch's mean loss."""
        layers = self.net.layers(start)
        optimiser = sgd(self.settings, self.settings.momentum)
        loss = self.net.fit(layers, samples, settings=self.settings, optimiser=optimiser, seed=seed)
        return self.net.flat(layers), loss
