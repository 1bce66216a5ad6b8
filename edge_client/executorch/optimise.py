"""Score optimisers in numpy with torch.optim's arithmetic, for runtimes whose programs end at the gradient."""

from __future__ import annotations

from math import sqrt
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from wire.errors import ConfigError
from wire.settings import Training

Floats = NDArray[np.float32]


class Optimiser(Protocol):
    """Moves scores against their gradient; the state is its own."""

    def step(self, scores: Floats, gradient: Floats) -> None:
        """Update scores (kept,) in place with their gradient (kept,) and clip them."""


class Adam:
    """Kingma & Ba, arXiv 1412.6980, algorithm 1, in the order of operations of torch.optim.Adam."""

    def __init__(self, training: Training, kept: int) -> None:
        self._training = training
        self._first: Floats = np.zeros(kept, dtype=np.float32)
        self._second: Floats = np.zeros(kept, dtype=np.float32)
        self._steps = 0

    def step(self, scores: Floats, gradient: Floats) -> None:
        """Update scores (kept,) in place with their gradient (kept,) and clip them."""
        t = self._training
        self._steps += 1
        self._first += (1 - t.beta1) * (gradient - self._first)
        self._second *= t.beta2
        self._second += (1 - t.beta2) * gradient * gradient
        denominator = np.sqrt(self._second) / sqrt(1 - t.beta2**self._steps) + t.epsilon
        scores -= t.learning_rate / (1 - t.beta1**self._steps) * (self._first / denominator)
        np.clip(scores, -t.clip, t.clip, out=scores)


class Sgd:
    """Stochastic gradient descent with momentum, as torch.optim.SGD."""

    def __init__(self, training: Training, kept: int) -> None:
        self._training = training
        self._momentum: Floats = np.zeros(kept, dtype=np.float32)

    def step(self, scores: Floats, gradient: Floats) -> None:
        """Update scores (kept,) in place with their gradient (kept,) and clip them."""
        t = self._training
        self._momentum *= t.beta1
        self._momentum += gradient
        scores -= t.learning_rate * self._momentum
        np.clip(scores, -t.clip, t.clip, out=scores)


def make_optimiser(training: Training, kept: int) -> Optimiser:
    """A fresh optimiser for this many scores.

    Raises:
        ConfigError: if there is none of that name.
    """
    match training.optimiser:
        case "adam":
            return Adam(training, kept)
        case "sgd":
            return Sgd(training, kept)
    raise ConfigError(f"no optimiser is called '{training.optimiser}'", where="executorch runtime")
