"""LotteryFL (Li et al. 2020, arXiv 2008.03371): every device looks for a lottery ticket of its own.

A device downloads the global weights its mask keeps. When they do well on its validation samples and it
still keeps more than the target, it prunes the smallest live weights of every layer, rewinds to the
initial weights, and trains. The coordinator averages each weight over the devices whose mask keeps it.
The validation samples are every fifth of the device's training samples; test samples are not looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from coordinator.baselines.blobs import cut, floats, join, packed, read_floats, unpacked
from coordinator.baselines.dense import Layers, sgd
from coordinator.baselines.dense_method import SGDMethod, SGDSettings
from coordinator.baselines.method import (
    Floats,
    Local,
    Samples,
    Settings,
    State,
    Update,
    require_share,
)
from wire import bits

HELD_BACK = 5
Mask = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class LotteryFLSettings(SGDSettings):
    """Local SGD and pruning.

    Attributes:
        density: share of the weights at which pruning stops.
        prune: share of the live weights of a layer pruned at a time.
        gate: validation accuracy from which a device prunes.
    """

    density: float = 0.10
    prune: float = 0.2
    gate: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        require_share(self, "density", "prune")


class LotteryFL(SGDMethod[LotteryFLSettings]):
    """Personal tickets."""

    Config: ClassVar[type[Settings]] = LotteryFLSettings

    def start(self) -> State:
        """Random weights, and no device's mask yet."""
        return {"weights": self.net.initial(self.task.seed)}

    def announce(self, state: State, device: str | None) -> bytes:
        """The weights that the device keeps; both sides know which."""
        return floats(state["weights"][self._known(state, device)])

    def _known(self, state: State, device: str | None) -> Mask:
        known = state.get(f"mask/{device}")
        return np.ones(self.net.size, np.bool_) if known is None else unpacked(known, self.net.size)

    def train(self, down: bytes, samples: Samples, memory: State, seed: int) -> Local:
        """Prune and rewind if it is time, then train what is left."""
        mask: Mask = memory.get("mask", np.ones(self.net.size, dtype=np.bool_))
        weights = np.zeros(self.net.size, dtype=np.float32)
        weights[mask] = read_floats(down, int(np.count_nonzero(mask)))
        held = np.arange(samples.y.size) % HELD_BACK == HELD_BACK - 1
        hits = self.net.logits(weights, samples.x[held]).argmax(axis=1) == samples.y[held]
        before = mask
        if hits.size and hits.mean() >= self.settings.gate:
            mask = self.pruned(weights, mask)
            if mask.sum() < before.sum():
                weights = self.net.initial(self.task.seed) * mask  # rewind
        layers = self.net.layers(weights)
        live = self.net.layers(mask.astype(np.float32))
        loss = self.net.fit(
            layers,
            Samples(x=samples.x[~held], y=samples.y[~held]),
            settings=self.settings,
            optimiser=sgd(self.settings, self.settings.momentum),
            seed=seed,
            weights=lambda trained: [w * m for w, m in zip(trained, live, strict=True)],
            after_step=lambda: _blank(layers, live),
        )
        trained = self.net.flat(layers)
        up = join([bits.encode(before & ~mask), floats(trained[mask])])
        return Local(up=up, memory={"mask": mask}, model=trained, loss=loss)

    def pruned(self, weights: Floats, mask: Mask) -> Mask:
        """Take the smallest share of the live weights out of every layer, not below the target density."""
        left = mask.copy()
        for part in self.net.slices():
            live = np.flatnonzero(mask[part])
            floor = max(round(self.settings.density * (part.stop - part.start)), 1)
            count = min(round(self.settings.prune * live.size), live.size - floor)
            if count > 0:
                smallest = np.argsort(np.abs(weights[part][live]), kind="stable")[:count]
                left[part.start + live[smallest]] = False
        return left

    def aggregate(self, state: State, updates: Sequence[Update]) -> State:
        """Each weight's mean over the masks that keep it; what nobody keeps stays as it was."""
        total = np.zeros(self.net.size, dtype=np.float64)
        voters = np.zeros(self.net.size, dtype=np.int64)
        after = dict(state)
        for update in updates:
            pruned, values = cut(update.payload)
            mask = self._known(state, update.device) & ~bits.decode(pruned, self.net.size)
            total[mask] += read_floats(values, int(np.count_nonzero(mask)))
            voters += mask
            after[f"mask/{update.device}"] = packed(mask)
        after["weights"] = np.where(voters > 0, total / np.maximum(voters, 1), state["weights"]).astype(np.float32)
        return after

    def model(self, down: bytes) -> Floats:
        """All global weights."""
        return read_floats(down, self.net.size)


def _blank(layers: Layers, live: Layers) -> None:
    """Momentum must not bring a pruned weight back."""
    with torch.no_grad():
        for weights, mask in zip(layers, live, strict=True):
            weights *= mask
