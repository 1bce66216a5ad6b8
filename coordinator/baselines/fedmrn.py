"""FedMRN (Li et al. 2024, arXiv 2408.03220): an update is a mask of random noise that both sides can make.

A device learns an update u on top of the global weights; in every step each element is, with a probability
that rises from 0 to 1 (progressive), replaced by its masked noise n * m with m ~ Bernoulli(clip(u / n, 0, 1)).
It sends the seed of n and the bits of m. The weights move by the mean of the masked noises. Down: floats.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from coordinator.baselines.blobs import cut, floats, join, read_floats
from coordinator.baselines.dense import Layers, sgd, weighted_mean
from coordinator.baselines.dense_method import SGDMethod, SGDSettings
from coordinator.baselines.method import Floats, Local, Samples, Settings, State, Update, require
from wire import bits

SEED = struct.Struct("<Q")


@dataclass(frozen=True, kw_only=True)
class FedMRNSettings(SGDSettings):
    """Local SGD on the update.

    Attributes:
        noise: the noise is uniform in [-noise, noise].
    """

    noise: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        require("noise", self.noise, self.noise > 0, "a positive number")


class FedMRN(SGDMethod[FedMRNSettings]):
    """Masked random noise."""

    Config: ClassVar[type[Settings]] = FedMRNSettings

    def noise(self, seed: int) -> Floats:
        """Uniform float32 (weights,), never 0."""
        rng = np.random.default_rng(seed)
        drawn = rng.uniform(-self.settings.noise, self.settings.noise, self.net.size).astype(np.float32)
        return np.where(drawn == 0, np.float32(self.settings.noise), drawn)

    def start(self) -> State:
        """Random weights."""
        return {"weights": self.net.initial(self.task.seed)}

    def announce(self, state: State, device: str | None) -> bytes:
        """All weights."""
        return floats(state["weights"])

    def train(self, down: bytes, samples: Samples, memory: State, seed: int) -> Local:
        """Learn the update, then draw the mask that is sent."""
        start = self.model(down)
        noise = self.noise(seed)
        base, noises = self.net.layers(start), self.net.layers(noise)
        update = self.net.layers(np.zeros_like(start))
        draw = torch.Generator().manual_seed(seed % (1 << 63))
        steps = self.settings.epochs * -(-samples.y.size // self.settings.batch)
        done = 0

        def progress() -> None:
            nonlocal done
            done += 1

        def partly_masked(layers: Layers) -> Layers:
            weights = []
            for w, n, u in zip(base, noises, layers, strict=True):
                p = (u.detach() / n).clamp(0, 1).nan_to_num(0.0)  # of a run that diverges
                masked = n * torch.bernoulli(p, generator=draw)
                now = torch.rand(u.shape, generator=draw) < (done + 1) / steps
                weights.append(w + u + torch.where(now, masked - u.detach(), 0.0))  # straight through
            return weights

        loss = self.net.fit(
            update,
            samples,
            settings=self.settings,
            optimiser=sgd(self.settings, self.settings.momentum),
            seed=seed,
            weights=partly_masked,
            after_step=progress,
        )
        probability = (self.net.flat(update) / noise).clip(0, 1)
        mask = np.random.default_rng(seed + 1).random(noise.size, dtype=np.float32) < probability
        up = join([SEED.pack(seed), bits.encode(mask)])
        return Local(up=up, memory={}, model=start + noise * mask, loss=loss)

    def masked_noise(self, payload: bytes) -> Floats:
        """What a device's update stands for, float32 (weights,)."""
        packed, mask = cut(payload)
        return self.noise(SEED.unpack(packed)[0]) * bits.decode(mask, self.net.size)

    def aggregate(self, state: State, updates: Sequence[Update]) -> State:
        """Move by the mean of the masked noises, weighted by samples."""
        moves = [self.masked_noise(update.payload) for update in updates]
        return {"weights": state["weights"] + weighted_mean(moves, [update.samples for update in updates])}

    def model(self, down: bytes) -> Floats:
        """The weights."""
        return read_floats(down, self.net.size)
