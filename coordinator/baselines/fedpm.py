"""FedPM (Isik et al. 2023, arXiv 2209.15328): probabilities of {0,1} masks over frozen random weights.

A device trains scores s, its weights are w0 * m with m ~ Bernoulli(sigmoid(s)) drawn anew every step, and
sends one drawn mask: a bit a weight. The mean of the masks is the next probability, sent as floats.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from coordinator.baselines.blobs import floats, read_floats
from coordinator.baselines.dense import Layers, adam
from coordinator.baselines.dense_method import DenseMethod
from coordinator.baselines.method import Floats, Local, Samples, Settings, State, Update
from wire import bits

CLIP = 0.01  # probabilities stay in [CLIP, 1 - CLIP], so that every score can still move


@dataclass(frozen=True, kw_only=True)
class FedPMSettings(Settings):
    """Local training of the scores, by Adam."""

    learning_rate: float = 0.03


class FedPM(DenseMethod[FedPMSettings]):
    """Probabilistic masks."""

    Config: ClassVar[type[Settings]] = FedPMSettings

    def frozen(self) -> Floats:
        """Signed constants, Kaiming's deviation of each layer, made up for the half that a mask switches off."""
        initial = self.net.initial(self.task.seed)
        weights = np.empty_like(initial)
        for part, shape in zip(self.net.slices(), self.task.plan.weight_layers(), strict=True):
            scale = np.sqrt(2 / (shape.fan_in * 0.5))
            weights[part] = np.where(initial[part] >= 0, scale, -scale)
        return weights

    def start(self) -> State:
        """Every weight is on half of the time."""
        return {"probability": np.full(self.net.size, 0.5, dtype=np.float32)}

    def announce(self, state: State, device: str | None) -> bytes:
        """The probabilities."""
        return floats(state["probability"])

    def train(self, down: bytes, samples: Samples, memory: State, seed: int) -> Local:
        """Train the scores, then draw the mask that is sent."""
        probability = read_floats(down, self.net.size).clip(CLIP, 1 - CLIP)
        scores = self.net.layers(np.log(probability / (1 - probability)))
        frozen = self.net.layers(self.frozen())
        draw = torch.Generator().manual_seed(seed % (1 << 63))

        def drawn(layers: Layers) -> Layers:
            weights = []
            for w0, score in zip(frozen, layers, strict=True):
                p = torch.sigmoid(score)
                m = torch.bernoulli(p.detach(), generator=draw)
                weights.append(w0 * (m + p - p.detach()))  # straight through the draw
            return weights

        optimiser = adam(self.settings)
        loss = self.net.fit(scores, samples, settings=self.settings, optimiser=optimiser, seed=seed, weights=drawn)
        mask = draw_mask(_sigmoid(self.net.flat(scores)), seed)
        return Local(up=bits.encode(mask), memory={}, model=self._masked(mask), loss=loss)

    def aggregate(self, state: State, updates: Sequence[Update]) -> State:
        """Mean of the masks."""
        total = np.zeros(self.net.size, dtype=np.int64)
        for update in updates:
            total += bits.decode(update.payload, self.net.size)
        return {"probability": (total / len(updates)).astype(np.float32)}

    def model(self, down: bytes) -> Floats:
        """One drawn network, as the paper evaluates it."""
        return self._masked(draw_mask(read_floats(down, self.net.size), self.task.seed))

    def _masked(self, mask: NDArray[np.bool_]) -> Floats:
        return self.frozen() * mask


def draw_mask(probability: Floats, seed: int) -> NDArray[np.bool_]:
    """Bernoulli draws, bool (weights,)."""
    rng = np.random.default_rng(seed)
    return rng.random(probability.size, dtype=np.float32) < probability


def _sigmoid(scores: Floats) -> Floats:
    return (1 / (1 + np.exp(-scores))).astype(np.float32)
